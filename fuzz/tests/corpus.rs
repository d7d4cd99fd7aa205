//! Every seed, and every input that once failed, through its oracle.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mqtt_codec::{PacketRef, ProtocolVersion};

/// The files in a directory below `fuzz/`.
fn files(dir: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join(dir);
    let entries =
        std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries
        .map(|entry| entry.expect("a directory entry").path())
        .filter(|path| path.is_file())
        .collect()
}

#[test]
fn every_seed_passes_its_oracle() {
    for (name, oracle) in fuzz::TARGETS {
        let seeds = files(&format!("corpus/{name}"));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            // Captured by the test harness, and shown if the oracle panics.
            println!("{}", seed.display());
            oracle(&std::fs::read(&seed).expect("a readable seed"));
        }
    }
}

#[test]
fn no_oracle_minds_an_empty_input() {
    for (_, oracle) in fuzz::TARGETS {
        oracle(&[]);
    }
}

#[test]
fn the_table_the_programs_and_the_manifest_agree() {
    let table: BTreeSet<String> = fuzz::TARGETS
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .collect();
    let sources = files("fuzz_targets")
        .into_iter()
        .filter(|path| path.extension() == Some("rs".as_ref()));
    let programs: BTreeSet<String> = sources
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    assert_eq!(table, programs);

    let manifest = include_str!("../Cargo.toml");
    for name in &table {
        assert!(
            manifest.contains(&format!("name = \"{name}\"")),
            "{name} has no [[bin]]"
        );
    }
}

#[test]
fn seeds_of_packets_are_what_their_names_say() {
    let versions = [
        ProtocolVersion::V311,
        ProtocolVersion::V5,
        ProtocolVersion::V31,
    ];
    for seed in files("corpus/decode_packet") {
        let bytes = std::fs::read(&seed).expect("a readable seed");
        let name = seed
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        // Inputs that once failed go by their hash.
        if name.len() == 40 {
            continue;
        }
        let version = versions[usize::from(bytes[0])];
        let refused = PacketRef::decode(&bytes[1..], version).is_err();
        assert_eq!(refused, name.starts_with("bad-"), "{name}");
    }
}
