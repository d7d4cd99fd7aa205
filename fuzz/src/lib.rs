//! Fuzz targets and their oracles; the corpus is replayed by cargo test.
