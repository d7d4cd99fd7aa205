//! See [`fuzz::presign`].

#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::presign::oracle);
