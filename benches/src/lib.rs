//! Benchmarks of each layer.

#![forbid(unsafe_code)]

pub mod sink;
pub mod topics;
