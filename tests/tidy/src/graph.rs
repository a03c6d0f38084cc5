//! The workspace as cargo knows it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::tree::root;

/// Every package of the resolved graph for this machine's target.
#[derive(Debug)]
pub struct Graph {
    packages: Vec<Package>,
}

/// A package.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is for, in its own words.
    pub description: Option<String>,
    /// Its licence expression.
    pub license: Option<String>,
    /// Where it comes from; nothing: it is ours.
    pub source: Option<String>,
    /// For a package of ours, its folder from the root, as `core/block`.
    pub folder: Option<String>,
    /// What it names in its manifest.
    pub dependencies: Vec<Dependency>,
    /// The root files of its targets with their kinds, by path from the workspace's root.
    pub targets: Vec<(String, String)>,
}

/// A dependency as its manifest has it.
#[derive(Debug)]
pub struct Dependency {
    /// The package's name.
    pub name: String,
    /// When it is needed.
    pub kind: Kind,
}

/// When a dependency is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By the product.
    Normal,
    /// By its build script.
    Build,
    /// By tests and examples.
    Development,
}

impl Graph {
    /// Asks cargo.
    ///
    /// # Panics
    /// If cargo does not answer.
    #[must_use]
    pub fn read() -> Self {
        let output = Command::new(env!("CARGO"))
            .args(["metadata", "--format-version", "1", "--locked", "--filter-platform"])
            .arg(host())
            .current_dir(root())
            .output()
            .expect("cargo can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
        let packages = list(&metadata, "packages").iter().map(Package::parse).collect();
        Self { packages }
    }

    /// The packages of this workspace.
    pub fn ours(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_none())
    }

    /// The packages of other people.
    pub fn theirs(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_some())
    }
}

impl Package {
    fn parse(value: &Value) -> Self {
        let source = text(value, "source");
        let manifest = text(value, "manifest_path").unwrap_or_default();
        let folder = Path::new(&manifest).parent().and_then(from_root);
        Self {
            name: text(value, "name").unwrap_or_default(),
            version: text(value, "version").unwrap_or_default(),
            description: text(value, "description"),
            license: text(value, "license"),
            folder: if source.is_none() { folder } else { None },
            source,
            dependencies: list(value, "dependencies").iter().map(Dependency::parse).collect(),
            targets: list(value, "targets").iter().filter_map(target).collect(),
        }
    }
}

impl Dependency {
    fn parse(value: &Value) -> Self {
        let kind = match text(value, "kind").as_deref() {
            Some("dev") => Kind::Development,
            Some("build") => Kind::Build,
            _ => Kind::Normal,
        };
        Self { name: text(value, "name").unwrap_or_default(), kind }
    }
}

/// The triple of this machine.
///
/// # Panics
/// If rustc does not tell it.
#[must_use]
pub fn host() -> String {
    let output = Command::new("rustc").arg("-vV").output().expect("rustc can be run");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    line.expect("rustc tells its host").to_string()
}

fn target(value: &Value) -> Option<(String, String)> {
    let kind = list(value, "kind").first()?.as_str()?.to_string();
    Some((from_root(Path::new(&text(value, "src_path")?))?, kind))
}

fn from_root(path: &Path) -> Option<String> {
    Some(path.strip_prefix(root()).ok()?.to_string_lossy().into_owned())
}

fn text(value: &Value, field: &str) -> Option<String> {
    value.get(field)?.as_str().map(String::from)
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
