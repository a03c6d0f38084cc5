//! The guest's Linux kernel: Debian's own package, downloaded and unpacked, never installed.
//!
//! A release other than the machine's is reached through a second apt configuration that is made
//! here from the machine's own sources with the suite's name replaced. It has its own lists and
//! cache, so that the machine's packages stay as they are.

use crate::fault::{Explain, Fault, Outcome};
use crate::{process, workspace};
use clap::ValueEnum;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Linux release that a guest can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Release {
    /// Linux 6.12, of Debian trixie
    #[value(name = "6.12")]
    V6_12,
    /// Linux 6.1, of Debian bookworm
    #[value(name = "6.1")]
    V6_1,
}

impl Release {
    /// The release's number.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Release::V6_12 => "6.12",
            Release::V6_1 => "6.1",
        }
    }

    /// The Debian suite that carries it.
    fn suite(self) -> &'static str {
        match self {
            Release::V6_12 => "trixie",
            Release::V6_1 => "bookworm",
        }
    }
}

/// An unpacked kernel package.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// The image to boot.
    pub(crate) image: PathBuf,
    /// The folder that holds `lib/modules`.
    pub(crate) root: PathBuf,
    /// The full version, as `uname -r` prints it.
    pub(crate) version: String,
}

/// The unpacked kernel of a release; downloads it unless that was done before.
pub(crate) fn fetch(release: Release) -> Outcome<Kernel> {
    let folder = workspace::folder("guest")?.join(format!("kernel-{}", release.name()));
    if let Some(kernel) = unpacked(&folder)? {
        return Ok(kernel);
    }
    println!("fetching Linux {} of Debian {}", release.name(), release.suite());
    let apt = Apt::new(release.suite())?;
    let package = apt.newest_image(release)?;
    let archive = apt.download(&package)?;
    unpack(&archive, &folder)?;
    unpacked(&folder)?.ok_or_else(|| {
        Fault::new(format!("{} holds no kernel; remove it and try again", folder.display()))
    })
}

/// The kernel in a folder that was filled to the end, if it was.
fn unpacked(folder: &Path) -> Outcome<Option<Kernel>> {
    let boot = folder.join("boot");
    if !boot.is_dir() {
        return Ok(None);
    }
    for entry in fs::read_dir(&boot).explain(|| format!("cannot read {}", boot.display()))? {
        let path = entry.explain(|| format!("cannot read {}", boot.display()))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            let version = version.to_owned();
            return Ok(Some(Kernel { image: path, root: folder.to_path_buf(), version }));
        }
    }
    Ok(None)
}

/// Unpacks beside the folder and moves it into place when all is there.
fn unpack(archive: &Path, folder: &Path) -> Outcome<()> {
    let partial = folder.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    process::run(Command::new("dpkg").arg("-x").arg(archive).arg(&partial))?;
    let lib = partial.join("lib");
    if !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", &lib).explain(|| "cannot link lib".to_owned())?;
    }
    let version = unpacked(&partial)?.map(|kernel| kernel.version).unwrap_or_default();
    process::run(Command::new("depmod").arg("-b").arg(&partial).arg(version))?;
    let _ = fs::remove_dir_all(folder);
    fs::rename(&partial, folder).explain(|| format!("cannot make {}", folder.display()))?;
    let _ = fs::remove_file(archive);
    Ok(())
}

/// A second apt configuration, for one suite.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(suite: &str) -> Outcome<Self> {
        let folder = workspace::folder("guest")?.join(format!("apt-{suite}"));
        let apt = Apt { folder };
        for part in ["sources", "lists/partial", "cache/archives/partial"] {
            let path = apt.folder.join(part);
            fs::create_dir_all(&path).explain(|| format!("cannot create {}", path.display()))?;
        }
        apt.write_sources(&machine_suite()?, suite)?;
        process::read(apt.command("apt-get").arg("update"))?;
        Ok(apt)
    }

    /// Copies the machine's sources with one suite's name put for another.
    fn write_sources(&self, from: &str, to: &str) -> Outcome<()> {
        let mut found = false;
        for path in machine_sources() {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            if !text.contains(from) || !text.contains("debian") {
                continue;
            }
            let copy = self.folder.join("sources").join(path.file_name().unwrap_or_default());
            fs::write(&copy, text.replace(from, to))
                .explain(|| format!("cannot write {}", copy.display()))?;
            found = true;
        }
        if found {
            return Ok(());
        }
        Err(Fault::new(format!("no file in /etc/apt names {from}: the guest needs Debian's apt")))
    }

    fn command(&self, program: &str) -> Command {
        let at = |part: &str| self.folder.join(part).display().to_string();
        let mut command = Command::new(program);
        for option in [
            "Dir::Etc::SourceList=/dev/null".to_owned(),
            format!("Dir::Etc::SourceParts={}", at("sources")),
            format!("Dir::State::Lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.current_dir(&self.folder);
        command
    }

    /// The package that `linux-image-amd64` stands for.
    fn newest_image(&self, release: Release) -> Outcome<String> {
        let text = process::read(self.command("apt-cache").args(["depends", "linux-image-amd64"]))?;
        let wanted = format!("linux-image-{}.", release.name());
        let found = text.split_whitespace().find(|word| word.starts_with(&wanted));
        found
            .map(str::to_owned)
            .ok_or_else(|| Fault::new(format!("Debian {} has no {wanted}*", release.suite())))
    }

    fn download(&self, package: &str) -> Outcome<PathBuf> {
        process::read(self.command("apt-get").args(["download", package]))?;
        let listed =
            fs::read_dir(&self.folder).explain(|| "cannot read apt's folder".to_owned())?;
        let prefix = format!("{package}_");
        listed
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
            })
            .ok_or_else(|| Fault::new(format!("apt-get downloaded no {package}")))
    }
}

/// The files that say where the machine's packages come from.
fn machine_sources() -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(parts) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(parts.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| {
            path.extension().is_some_and(|kind| kind == "list" || kind == "sources")
        }));
    }
    files
}

/// The machine's own suite, such as `bookworm`.
fn machine_suite() -> Outcome<String> {
    let path = "/etc/os-release";
    let text = fs::read_to_string(path).explain(|| format!("cannot read {path}"))?;
    let named = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    named
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| Fault::new(format!("{path} names no VERSION_CODENAME: is this Debian?")))
}
