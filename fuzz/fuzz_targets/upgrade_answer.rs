//! See [`fuzz::upgrade_answer`].

#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::upgrade_answer);
