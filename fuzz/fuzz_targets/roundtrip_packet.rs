//! See `fuzz::roundtrip_packet`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::roundtrip_packet);
