//! Where things are: the workspace, cargo's target folder, the engine's binary.

use crate::fault::{Explain, Fault, Outcome};
use crate::process;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the workspace, as cargo knew it when it built this program.
pub(crate) fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_path_buf()
}

/// Cargo's target folder: `CARGO_TARGET_DIR`, else `target` in the workspace.
pub(crate) fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(set) => root().join(set),
        None => root().join("target"),
    }
}

/// A folder of our own below the target folder; it exists on return.
pub(crate) fn folder(name: &str) -> Outcome<PathBuf> {
    let path = target().join(name);
    std::fs::create_dir_all(&path).explain(|| format!("cannot create {}", path.display()))?;
    Ok(path)
}

/// `cargo` with these arguments, in the workspace.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(arguments).current_dir(root());
    command
}

/// Builds the engine with the development profile and says where its binary is.
pub(crate) fn build_engine() -> Outcome<PathBuf> {
    build("braid-engine")
}

/// Builds a program with the development profile and says where its binary is.
pub(crate) fn build(package: &str) -> Outcome<PathBuf> {
    process::run(&mut cargo(["build", "--package", package]))?;
    let binary = target().join("debug").join(package);
    if binary.is_file() {
        return Ok(binary);
    }
    Err(Fault::new(format!("cargo built no {}: is it named {package}?", binary.display())))
}
