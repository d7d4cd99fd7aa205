//! See `fuzz::trie_vs_naive`.
#![cfg_attr(fuzzing, no_main)]

fuzz::target!(fuzz::trie_vs_naive);
