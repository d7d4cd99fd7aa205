//! See `fuzz::differential_packet`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::differential_packet);
