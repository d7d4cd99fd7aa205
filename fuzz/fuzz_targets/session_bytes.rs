//! See `fuzz::session_bytes`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::session_bytes);
