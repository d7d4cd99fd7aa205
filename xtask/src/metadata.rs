//! What `cargo metadata` and `cargo tree` say about the workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

use crate::sh::{Failure, Step};

/// The packages of the workspace, and the declared Rust version of every package in the lock file.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) members: Vec<Member>,
    /// `(name, version)` to the `rust-version` that the package declares.
    pub(crate) rust_versions: BTreeMap<(String, String), Option<String>>,
}

/// One package of the workspace.
#[derive(Debug, Default, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Where its manifest lies.
    pub(crate) dir: PathBuf,
    /// Whether it goes to a registry.
    pub(crate) published: bool,
    pub(crate) rust_version: Option<String>,
    /// Each feature with what it enables, implicit features of optional dependencies included.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// Names of its normal dependencies, optional ones included, of any target.
    pub(crate) dependencies: BTreeSet<String>,
    /// The root file of its library.
    pub(crate) lib: Option<PathBuf>,
}

/// Features that no ordinary build turns on: they compile a C library for minutes and want a newer
/// compiler than the rest. `cargo xtask features` checks them, each alone.
const HEAVY: &[&str] = &["aws-lc", "aws_lc", "fips"];

impl Workspace {
    pub(crate) fn load() -> Result<Self, Failure> {
        let json = Step::cargo()
            .args(["metadata", "--format-version", "1", "--all-features"])
            .output()?;
        Self::parse(&json)
    }

    pub(crate) fn parse(json: &str) -> Result<Self, Failure> {
        let value: Value = serde_json::from_str(json)
            .map_err(|error| Failure::failed(format!("cargo metadata: {error}")))?;
        let ids: BTreeSet<&str> = array(&value["workspace_members"])
            .filter_map(Value::as_str)
            .collect();
        let mut workspace = Self::default();
        for package in array(&value["packages"]) {
            let rust_version = package["rust_version"].as_str().map(str::to_owned);
            let key = (text(&package["name"]), text(&package["version"]));
            workspace.rust_versions.insert(key, rust_version.clone());
            if ids.contains(package["id"].as_str().unwrap_or_default()) {
                workspace.members.push(member(package, rust_version));
            }
        }
        if workspace.members.is_empty() {
            return Err(Failure::failed(
                "cargo metadata names no member of the workspace",
            ));
        }
        Ok(workspace)
    }

    /// The crates that users get.
    pub(crate) fn published(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.published)
    }

    /// `CRATE/FEATURE` for every feature that tests, lints and documentation are run with: all but
    /// the heavy ones.
    pub(crate) fn ordinary_features(&self) -> String {
        let features = self.published().flat_map(|member| {
            let light = member
                .features
                .keys()
                .filter(|feature| feature.as_str() != "default" && !is_heavy(feature));
            light.map(|feature| format!("{}/{feature}", member.name))
        });
        features.collect::<Vec<_>>().join(",")
    }
}

/// Whether ordinary builds leave the feature out.
pub(crate) fn is_heavy(feature: &str) -> bool {
    HEAVY.iter().any(|heavy| feature.contains(heavy))
}

/// Every package that `name` is built from when it is built alone with its default features, as
/// `(name, version)`; `edges` as in `cargo tree --edges`.
pub(crate) fn closure(name: &str, edges: &str) -> Result<BTreeSet<(String, String)>, Failure> {
    closure_with(name, edges, "")
}

/// As [`closure`], with these features beside the default ones.
pub(crate) fn closure_with(
    name: &str,
    edges: &str,
    features: &str,
) -> Result<BTreeSet<(String, String)>, Failure> {
    let step = Step::cargo().args([
        "tree",
        "--package",
        name,
        "--edges",
        edges,
        "--target",
        "all",
    ]);
    let output = step
        .args(["--prefix", "none", "--format", "{p}"])
        .args(["--features", features])
        .output()?;
    let packages = output.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?, words.next()?);
        Some((name.to_owned(), version.trim_start_matches('v').to_owned()))
    });
    Ok(packages.collect())
}

fn member(package: &Value, rust_version: Option<String>) -> Member {
    let manifest = PathBuf::from(text(&package["manifest_path"]));
    let normal = array(&package["dependencies"]).filter(|dependency| dependency["kind"].is_null());
    let is_lib = |target: &&Value| array(&target["kind"]).any(|kind| kind == "lib");
    let features = package["features"].as_object().into_iter().flatten();
    Member {
        name: text(&package["name"]),
        dir: manifest.parent().map(PathBuf::from).unwrap_or_default(),
        // `publish = false` is an empty list of registries; absent means any.
        published: package["publish"].is_null(),
        rust_version,
        features: features
            .map(|(name, enables)| (name.clone(), array(enables).map(text).collect()))
            .collect(),
        dependencies: normal.map(|dependency| text(&dependency["name"])).collect(),
        lib: array(&package["targets"])
            .find(is_lib)
            .map(|target| PathBuf::from(text(&target["src_path"]))),
    }
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
