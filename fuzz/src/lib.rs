//! Fuzz targets and their oracles.
//!
//! An oracle is a plain function from bytes: it asserts what has to hold for *any* input, and
//! returns. Each has a module here, a row in [`TARGETS`], a one-line program in `fuzz_targets/`
//! with its `[[bin]]` in the manifest, and seeds in `corpus/`:
//!
//! * `cargo +nightly fuzz run NAME` hunts, with the address sanitizer; on a stable toolchain
//!   `cargo fuzz run -s none NAME`. Both are typed at the root of the workspace.
//! * `cargo test -p fuzz` replays every seed, and every input that once failed, without libFuzzer.
//! * `cargo run -p fuzz --bin NAME FILE...` replays the named files.
//! * `cargo xtask fuzz` runs all of them for a while each.

#![forbid(unsafe_code)]

mod differential;
mod input;
mod packet;
pub mod presign;
mod session;
mod store;
mod trie;
mod upgrade;

pub use differential::differential_packet;
pub use packet::{decode_packet, decode_stream_split, roundtrip_packet};
pub use session::{session_bytes, session_ops};
pub use store::session_store;
pub use trie::trie_vs_naive;
pub use upgrade::upgrade_answer;

/// What a target does with its input: panics if something that must hold does not.
pub type Oracle = fn(&[u8]);

/// Every target with its oracle.
pub const TARGETS: &[(&str, Oracle)] = &[
    ("decode_packet", decode_packet),
    ("decode_stream_split", decode_stream_split),
    ("differential_packet", differential_packet),
    ("presign", presign::oracle),
    ("roundtrip_packet", roundtrip_packet),
    ("session_bytes", session_bytes),
    ("session_ops", session_ops),
    ("session_store", session_store),
    ("trie_vs_naive", trie_vs_naive),
    ("upgrade_answer", upgrade_answer),
];

/// The program of a target, from its oracle: libFuzzer's when that builds it, and otherwise one
/// that replays the files it is given.
#[macro_export]
macro_rules! target {
    ($oracle:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $oracle(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            $crate::replay($oracle, std::env::args_os().skip(1))
        }
    };
}

/// Runs the oracle on the content of each file.
///
/// # Errors
///
/// When a file cannot be read.
///
/// # Panics
///
/// When the oracle does.
pub fn replay(
    oracle: Oracle,
    files: impl IntoIterator<Item = impl AsRef<std::path::Path>>,
) -> std::io::Result<()> {
    for file in files {
        oracle(&std::fs::read(file)?);
    }
    Ok(())
}
