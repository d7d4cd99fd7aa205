//! See [`fuzz::session_store`].

#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::session_store);
