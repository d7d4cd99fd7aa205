//! See `fuzz::decode_packet`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::decode_packet);
