//! Debian packages that a subcommand needs: looked for, and installed when we may.

use crate::fault::{Fault, Outcome};
use crate::process;
use std::path::Path;
use std::process::Command;

/// A program and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// The program's name, as found in `PATH` or in the system folders.
    pub(crate) program: &'static str,
    /// The package to install when it is missing.
    pub(crate) package: &'static str,
}

/// Folders that hold system programs even when `PATH` does not name them.
const SYSTEM: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Sees to it that every tool is there; as root it installs what is missing.
pub(crate) fn need(tools: &[Tool]) -> Outcome<()> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !rustix::process::geteuid().is_root() || !present("apt-get") {
        return Err(Fault::new(format!("missing packages; run: sudo apt-get install -y {list}")));
    }
    println!("installing {list}");
    if install(&missing).is_err() {
        process::read(&mut apt(&["update"]))?;
        install(&missing)?;
    }
    match self::missing(tools) {
        left if left.is_empty() => Ok(()),
        left => Err(Fault::new(format!("installed, but still missing: {}", left.join(" ")))),
    }
}

fn missing(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> =
        tools.iter().filter(|tool| !present(tool.program)).map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Whether a program can be found.
pub(crate) fn present(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(SYSTEM).any(|folder| Path::new(folder).join(program).is_file())
}

fn install(packages: &[&str]) -> Outcome<()> {
    let arguments = ["install", "--yes", "--no-install-recommends"];
    process::read(apt(&arguments).args(packages)).map(drop)
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet").args(arguments);
    command
}
