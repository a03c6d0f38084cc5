//! The core names no file, thread, clock or randomly ordered map, because it cannot.
//!
//! The proof is a sysroot that holds `core`, `alloc` and the compiler's own routines and nothing
//! else. A search for words would miss a dependency that brings std along; this does not: rustc
//! stops with E0463 as soon as anything below a core crate wants std.
#![forbid(unsafe_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use braid_tidy::{Findings, Graph, Tree, host, root};

const FIRST_LINES: [&str; 2] = ["#![no_std]", "#![forbid(unsafe_code)]"];

#[test]
fn every_core_crate_begins_with_no_std_and_forbids_unsafe() {
    let tree = Tree::read();
    let mut findings = Findings::default();
    for package in core_packages() {
        let file = format!("{}/src/lib.rs", package.folder);
        let text = tree.text(&file).unwrap_or_default();
        let first: Vec<&str> = text
            .lines()
            .skip_while(|line| line.starts_with("//!"))
            .filter(|line| !line.is_empty())
            .take(FIRST_LINES.len())
            .collect();
        findings.expect(first == FIRST_LINES, || format!("{file} begins with {first:?}"));
    }
    findings
        .none("core crates begin, after `//!`, with `#![no_std]` and `#![forbid(unsafe_code)]`");
}

#[test]
fn the_core_builds_where_there_is_no_std() {
    let folder = scratch("core");
    let mut check = Command::new(env!("CARGO"));
    check.args(["check", "--locked", "--target", &host()]);
    for package in core_packages() {
        check.args(["--package", &package.name]);
    }
    let output = check
        .current_dir(root())
        .env("CARGO_TARGET_DIR", folder.join("target"))
        .env("CARGO_ENCODED_RUSTFLAGS", format!("--sysroot\u{1f}{}", sysroot(&folder).display()))
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo can be run");
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn the_proof_fails_for_a_crate_that_wants_std() {
    let folder = scratch("control");
    let sysroot = sysroot(&folder);
    let pure = compile(&folder, &sysroot, "pure", "#![no_std]\nextern crate alloc;\n");
    assert!(pure.status.success(), "{}", stderr(&pure));
    let named = compile(&folder, &sysroot, "named", "#![no_std]\nextern crate std;\n");
    let implied = compile(&folder, &sysroot, "implied", "pub fn f() {}\n");
    for output in [named, implied] {
        assert!(!output.status.success());
        assert!(stderr(&output).contains("E0463"), "{}", stderr(&output));
    }
}

struct Core {
    name: String,
    folder: String,
}

fn core_packages() -> Vec<Core> {
    let graph = Graph::read();
    let ours = graph.ours().filter_map(|package| {
        let folder = package.folder.clone()?;
        folder.starts_with("core/").then(|| Core { name: package.name.clone(), folder })
    });
    let found: Vec<Core> = ours.collect();
    assert!(!found.is_empty(), "no package in core/");
    found
}

/// A folder of this test's own, kept between runs so that the dependencies are checked once.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tidy").join(name);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// Links the libraries that need no operating system into a sysroot of their own.
fn sysroot(folder: &Path) -> PathBuf {
    let output =
        Command::new("rustc").args(["--print", "target-libdir"]).output().expect("rustc runs");
    let real = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let sysroot = folder.join("sysroot");
    let libraries = sysroot.join("lib/rustlib").join(host()).join("lib");
    // A toolchain may have been replaced since the last run: begin anew.
    let _ = fs::remove_dir_all(&sysroot);
    fs::create_dir_all(&libraries).expect("the target folder can be written");
    for entry in fs::read_dir(&real).expect("the toolchain has libraries").filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pure = ["libcore-", "liballoc-", "libcompiler_builtins-"];
        if pure.iter().any(|library| name.starts_with(library)) {
            symlink(entry.path(), libraries.join(name)).expect("links can be made");
        }
    }
    sysroot
}

fn compile(folder: &Path, sysroot: &Path, name: &str, text: &str) -> Output {
    let file = folder.join(format!("{name}.rs"));
    fs::write(&file, text).expect("the target folder can be written");
    Command::new("rustc")
        .args(["--edition", "2024", "--crate-type", "lib", "--emit", "metadata", "--sysroot"])
        .arg(sysroot)
        .arg("--target")
        .arg(host())
        .arg(&file)
        .current_dir(folder)
        .output()
        .expect("rustc can be run")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
