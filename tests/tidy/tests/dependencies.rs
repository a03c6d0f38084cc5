//! Who may depend on whom, on which outside crates, under which licences.
#![forbid(unsafe_code)]

use std::collections::{BTreeMap, BTreeSet};

use braid_tidy::{Findings, Graph, Kind, Package};

/// Folder of a package of ours, and the folders it may depend on. A trailing `/` names all below.
///
/// A package that is not listed may not exist: a new one is a decision about the shape of the
/// whole, so it belongs here first.
const DIRECTION: &[(&str, &[&str])] = &[
    ("core/block", &[]),
    ("core/nvme", &["core/block"]),
    ("core/pool", &["core/block"]),
    ("core/nexus", &["core/block"]),
    ("core/plan", &["core/block"]),
    ("core/shard", &["core/block", "core/nvme", "core/pool", "core/nexus"]),
    ("sim", &["core/"]),
    // The standard, the pools and the mirror in its tests alone.
    ("shell/reactor", &["core/block", "core/nvme", "core/pool", "core/nexus", "core/shard"]),
    // The words of the wire: nothing of ours below it, so that every client can have it.
    ("shell/api", &[]),
    // What programs share where people meet them.
    ("shell/terminal", &[]),
    (
        "shell/engine",
        &[
            "core/block",
            "core/nvme",
            "core/pool",
            "core/nexus",
            "core/shard",
            "shell/api",
            "shell/reactor",
            "shell/terminal",
        ],
    ),
    // Of the mirror it knows the record alone.
    ("shell/control", &["core/block", "core/nexus", "core/plan", "shell/api", "shell/terminal"]),
    // The door is built first, and builds the rest by calling cargo.
    ("xtask", &[]),
    // What nothing depends on may look at everything.
    ("tests/", &["core/", "shell/", "sim", "tests/"]),
    ("examples", &["core/", "shell/"]),
    // A cluster is started for benchmarks as it is for `chaos`.
    ("benches", &["core/", "shell/", "sim", "tests/chaos"]),
];

/// Folders that only tests, examples and benchmarks may depend on: they build a program.
const BINARIES: &[&str] = &["shell/engine", "shell/control", "xtask"];

/// Outside crates that a core crate may name. All of them build without std, which
/// `tests/purity.rs` proves again for the versions in use.
const CORE_EXTERNALS: &[&str] = &[
    "arrayvec",
    "base64",
    "bitflags",
    "crypto-bigint",
    "fixedbitset",
    "hashbrown",
    "heapless",
    "hmac",
    "intrusive-collections",
    "roaring",
    "sha2",
    "smallvec",
    "thiserror",
    "xxhash-rust",
    "zerocopy",
];

/// Licences that may be linked into a program of ours. Of an OR, any one is enough.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that may be there in two incompatible versions, and why.
const DUPLICATES: &[(&str, &str)] = &[
    ("hashbrown", "build time only: petgraph, by which prost-build sorts messages, has 0.15"),
    ("itertools", "build time only: prost-build has 0.14, prost-derive 0.15"),
    ("logos", "build time only: protox-parse has 0.16, prost-reflect 0.15"),
    ("logos-codegen", "build time only: as logos"),
    ("logos-derive", "build time only: as logos"),
    // Macro crates move from 2 to 3 one by one; neither is in what we ship.
    ("syn", "build time only: zerocopy-derive has 2, others 3"),
    ("thiserror", "tests only: datadriven has 1"),
    ("thiserror-impl", "tests only: datadriven has 1"),
];

/// The one place packages come from: whoever builds may put a mirror in front of it.
const INDEX: &str = "registry+https://github.com/rust-lang/crates.io-index";

#[test]
fn packages_depend_only_in_the_direction_of_the_architecture() {
    let graph = Graph::read();
    let folders: BTreeMap<&str, &str> =
        graph.ours().map(|p| (p.name.as_str(), p.folder.as_deref().unwrap_or_default())).collect();
    let mut findings = Findings::default();
    for package in graph.ours() {
        let folder = package.folder.as_deref().unwrap_or_default();
        let Some(allowed) = allowed_of(folder) else {
            findings.add(format!("{folder} is not in the table of tests/tidy"));
            continue;
        };
        for below in package.dependencies.iter().filter_map(|d| folders.get(d.name.as_str())) {
            let may = allowed.iter().any(|pattern| within(below, pattern));
            findings.expect(may || *below == folder, || format!("{folder} -> {below}"));
            let outermost = !folder.starts_with("core/") && !folder.starts_with("shell/");
            findings.expect(outermost || !BINARIES.contains(below), || {
                format!("{folder} -> {below}, which is a program")
            });
        }
    }
    findings.none("dependencies point inwards");
}

#[test]
fn the_table_is_not_fooled() {
    assert!(within("core/block", "core/") && within("core/block", "core/block"));
    assert!(!within("core/blockade", "core/block") && !within("shell/engine", "core/"));
    assert_eq!(allowed_of("tests/tidy"), allowed_of("tests/replay"));
    assert_eq!(allowed_of("shell/surprise"), None);
}

#[test]
fn the_core_names_only_listed_outside_crates() {
    let graph = Graph::read();
    let ours: BTreeSet<&str> = graph.ours().map(|package| package.name.as_str()).collect();
    let mut findings = Findings::default();
    for package in graph.ours().filter(|package| is_core(package)) {
        for outside in package.dependencies.iter().filter(|d| d.kind != Kind::Development) {
            let name = outside.name.as_str();
            let may = ours.contains(name) || CORE_EXTERNALS.contains(&name);
            findings.expect(may, || format!("{} -> {name}", package.name));
        }
    }
    findings.none("core crates depend on the outside crates that tests/tidy lists");
}

#[test]
fn every_licence_is_on_the_list() {
    let graph = Graph::read();
    let mut findings = Findings::default();
    for package in graph.theirs() {
        let licence = package.license.as_deref().unwrap_or("none given");
        findings
            .expect(allows(licence), || format!("{} {}: {licence}", package.name, package.version));
    }
    for package in graph.ours() {
        let both = package.license.as_deref() == Some("MIT OR Apache-2.0");
        findings.expect(both, || format!("{}: ours is MIT OR Apache-2.0", package.name));
    }
    findings.none("licences are on the list of tests/tidy");
}

#[test]
fn a_licence_expression_is_read_as_it_is_meant() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "GPL-3.0 OR MIT",
        "(MIT OR GPL-2.0) AND Unicode-3.0",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        "BSD-2-Clause OR Apache-2.0 OR MIT",
    ] {
        assert!(allows(good), "{good}");
    }
    let gpl = ["GPL-3.0", "MIT AND GPL-3.0", "(MIT OR ISC) AND (GPL-2.0 OR LGPL-3.0)", ""];
    for bad in gpl.into_iter().chain(["none given", "Apache-2.0 WITH something", "MIT OR", "(MIT"])
    {
        assert!(!allows(bad), "{bad}");
    }
}

#[test]
fn no_crate_is_there_twice_without_a_reason() {
    let graph = Graph::read();
    let mut versions: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for package in graph.theirs() {
        versions.entry(&package.name).or_default().insert(compatible(&package.version));
    }
    let mut findings = Findings::default();
    for (name, several) in versions.iter().filter(|(_, several)| several.len() > 1) {
        let excused = DUPLICATES.iter().any(|(listed, _)| listed == name);
        findings.expect(excused, || format!("{name}: {several:?}"));
    }
    for (name, why) in DUPLICATES {
        let needed = versions.get(name).is_some_and(|several| several.len() > 1);
        findings.expect(needed, || format!("{name} is excused ({why}) but not there twice"));
    }
    findings.none("one compatible version of each crate");
}

#[test]
fn packages_come_from_the_default_index() {
    let graph = Graph::read();
    let mut findings = Findings::default();
    for package in graph.theirs() {
        let source = package.source.as_deref().unwrap_or_default();
        findings.expect(source == INDEX, || format!("{}: {source}", package.name));
    }
    findings.none("packages come from the default index");
}

#[test]
fn every_package_says_what_it_is_for() {
    let graph = Graph::read();
    let mut findings = Findings::default();
    for package in graph.ours() {
        let words = package.description.as_deref().unwrap_or_default().split_whitespace().count();
        findings.expect(words >= 3, || format!("{} has no description", package.name));
    }
    findings.none("packages have a description");
}

fn is_core(package: &Package) -> bool {
    package.folder.as_deref().is_some_and(|folder| folder.starts_with("core/"))
}

fn allowed_of(folder: &str) -> Option<&'static [&'static str]> {
    DIRECTION.iter().find(|(of, _)| within(folder, of)).map(|(_, allowed)| *allowed)
}

fn within(folder: &str, pattern: &str) -> bool {
    if pattern.ends_with('/') { folder.starts_with(pattern) } else { folder == pattern }
}

/// The part of a version within which cargo takes two for one.
fn compatible(version: &str) -> String {
    let mut parts = version.split('.');
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        ("0", "0") => version.to_string(),
        ("0", minor) => format!("0.{minor}"),
        (major, _) => major.to_string(),
    }
}

/// Whether an SPDX expression leaves a choice of licences that are all on the list.
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    any_of(&mut rest) == Some(true) && rest.is_empty()
}

fn any_of(words: &mut &[&str]) -> Option<bool> {
    let mut held = all_of(words)?;
    while take(words, "OR") {
        held |= all_of(words)?;
    }
    Some(held)
}

fn all_of(words: &mut &[&str]) -> Option<bool> {
    let mut held = one(words)?;
    while take(words, "AND") {
        held &= one(words)?;
    }
    Some(held)
}

fn one(words: &mut &[&str]) -> Option<bool> {
    if take(words, "(") {
        let held = any_of(words)?;
        return take(words, ")").then_some(held);
    }
    let (first, rest) = words.split_first()?;
    *words = rest;
    let mut licence = (*first).to_string();
    if take(words, "WITH") {
        let (exception, rest) = words.split_first()?;
        *words = rest;
        licence = format!("{licence} WITH {exception}");
    }
    Some(LICENCES.contains(&licence.as_str()))
}

fn take(words: &mut &[&str], word: &str) -> bool {
    let found = words.first() == Some(&word);
    if found {
        *words = &words[1..];
    }
    found
}
