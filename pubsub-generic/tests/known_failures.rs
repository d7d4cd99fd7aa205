//! The list of known failures names tests that exist.
#![allow(missing_docs, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn each_test_that_the_list_names_exists() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for member in [
        "mqtt-session",
        "pubsub-core",
        "pubsub-generic",
        "pubsub-aws-iot",
        "ws-transport",
    ] {
        sources(&workspace.join(member).join("tests"), &mut files);
    }
    let sources: Vec<_> = files
        .iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let list = fs::read_to_string(workspace.join("pubsub-generic/tests/README.md")).unwrap();
    let quoted = list.split('`').skip(1).step_by(2);
    let names: Vec<_> = quoted
        .filter(|name| {
            name.len() > 20 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        })
        .collect();
    assert!(names.len() > 60, "{}", names.len());
    for name in names {
        let function = format!("fn {name}(");
        assert!(
            sources.iter().any(|source| source.contains(&function)),
            "there is no test {name}"
        );
    }
}
