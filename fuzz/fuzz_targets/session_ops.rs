//! See `fuzz::session_ops`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::session_ops);
