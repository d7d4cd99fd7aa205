//! See `fuzz::decode_stream_split`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::decode_stream_split);
