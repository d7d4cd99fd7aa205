//! Benchmarks of each layer.
