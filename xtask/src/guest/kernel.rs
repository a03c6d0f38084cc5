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
    /// The newest of Debian trixie-backports, 6.13 at least
    #[value(name = "newest")]
    Newest,
}

impl Release {
    /// The release's number.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Release::V6_12 => "6.12",
            Release::V6_1 => "6.1",
            Release::Newest => "newest",
        }
    }

    /// The Debian suite that carries it.
    fn suite(self) -> &'static str {
        match self {
            Release::V6_12 => "trixie",
            Release::V6_1 => "bookworm",
            Release::Newest => "trixie-backports",
        }
    }

    /// Whether a package's name, behind `linux-image-`, is of this release.
    fn is(self, version: &str) -> bool {
        let numbers = version.split(['.', '+', '-']).map(|part| part.parse().unwrap_or(0));
        match self {
            Release::V6_12 | Release::V6_1 => version.starts_with(&format!("{}.", self.name())),
            Release::Newest => numbers.take(2).collect::<Vec<u32>>() >= vec![6, 13],
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
    download(release, &folder).explain(|| {
        let (name, suite) = (release.name(), release.suite());
        format!("no Linux {name} for the guest: apt must reach Debian {suite} at a mirror")
    })?;
    unpacked(&folder)?.ok_or_else(|| {
        Fault::new(format!("{} holds no kernel; remove it and try again", folder.display()))
    })
}

/// Downloads the packages of a release and unpacks them to a folder.
fn download(release: Release, folder: &Path) -> Outcome<()> {
    let apt = Apt::new(release.suite())?;
    let image = apt.newest_image(release)?;
    let mut archives = Vec::new();
    for package in std::iter::once(image.clone()).chain(apt.parts(&image)?) {
        archives.push(apt.download(&package)?);
    }
    unpack(&archives, folder)
}

/// The kernel in a folder that was filled to the end, if it was. Its image is in `boot`, or since
/// 7.3 beside its modules.
fn unpacked(folder: &Path) -> Outcome<Option<Kernel>> {
    for path in entries(&folder.join("boot"))? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(version) = name.strip_prefix("vmlinuz-") {
            let version = version.to_owned();
            return Ok(Some(Kernel { image: path, root: folder.to_path_buf(), version }));
        }
    }
    for path in entries(&folder.join("lib/modules"))? {
        let image = path.join("vmlinuz");
        if image.is_file() {
            let version = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(Some(Kernel { image, root: folder.to_path_buf(), version }));
        }
    }
    Ok(None)
}

/// What a folder holds; one that is not there holds nothing.
fn entries(folder: &Path) -> Outcome<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let read = fs::read_dir(folder).explain(|| format!("cannot read {}", folder.display()))?;
    Ok(read.filter_map(|entry| Some(entry.ok()?.path())).collect())
}

/// Unpacks beside the folder and moves it into place when all is there.
fn unpack(archives: &[PathBuf], folder: &Path) -> Outcome<()> {
    let partial = folder.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    for archive in archives {
        process::run(Command::new("dpkg").arg("-x").arg(archive).arg(&partial))?;
    }
    let lib = partial.join("lib");
    if !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", &lib).explain(|| "cannot link lib".to_owned())?;
    }
    let version = unpacked(&partial)?.map(|kernel| kernel.version).unwrap_or_default();
    process::run(Command::new("depmod").arg("-b").arg(&partial).arg(version))?;
    let _ = fs::remove_dir_all(folder);
    fs::rename(&partial, folder).explain(|| format!("cannot make {}", folder.display()))?;
    for archive in archives {
        let _ = fs::remove_file(archive);
    }
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
            let text = sources_of(&text, from, to);
            found |= !text.is_empty();
            fs::write(&copy, text).explain(|| format!("cannot write {}", copy.display()))?;
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
        let is_meant = |word: &&str| {
            word.strip_prefix("linux-image-").is_some_and(|version| release.is(version))
        };
        text.split_whitespace().find(is_meant).map(str::to_owned).ok_or_else(|| {
            Fault::new(format!(
                "Debian {} has no kernel of release {}",
                release.suite(),
                release.name()
            ))
        })
    }

    /// The packages that an image's own contents come in, if it is more than one.
    fn parts(&self, image: &str) -> Outcome<Vec<String>> {
        let text = process::read(self.command("apt-cache").args(["depends", image]))?;
        let version = image.trim_start_matches("linux-image-");
        let parts = ["base", "binary", "modules"].map(|part| format!("linux-{part}-{version}"));
        let of = |part: &String| text.split_whitespace().any(|word| word == part);
        Ok(parts.into_iter().filter(of).collect())
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

/// A file of sources with one suite put for another. Of a suite such as backports there are no
/// updates and no security suite beside it: what names those is left out then.
fn sources_of(text: &str, from: &str, to: &str) -> String {
    if !to.contains('-') {
        return text.replace(from, to);
    }
    let names = |line: &str| line.split_whitespace().any(|word| word == from);
    let put = |line: &str| match line.strip_prefix("Suites:") {
        Some(_) => format!("Suites: {to}"),
        None => line.replace(from, to),
    };
    let is_one_line = |line: &str| line.starts_with("deb ");
    let kept = |line: &&str| !line.starts_with('#') && (!is_one_line(line) || names(line));
    let parts = text.split("\n\n").filter(|part| part.lines().any(names));
    parts
        .map(|part| part.lines().filter(kept).map(put).collect::<Vec<_>>().join("\n") + "\n\n")
        .collect()
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

#[cfg(test)]
mod tests {
    use super::{Release, sources_of};

    #[test]
    fn a_release_knows_its_versions() {
        for (release, version, is) in [
            (Release::V6_1, "6.1.0-56-amd64", true),
            (Release::V6_1, "6.12.9+deb13-amd64", false),
            (Release::V6_12, "6.12.9+deb13-amd64", true),
            (Release::Newest, "6.12.9+deb13-amd64", false),
            (Release::Newest, "6.13.1+deb13-amd64", true),
            (Release::Newest, "7.3.4+deb13-amd64", true),
            (Release::Newest, "amd64", false),
        ] {
            assert_eq!(release.is(version), is, "{release:?} {version}");
        }
    }

    #[test]
    fn a_suite_is_put_for_another_wherever_sources_name_it() {
        let stanzas = "Types: deb\n# of old\nURIs: file:/debian\nSuites: one one-updates\n\n\
                       Types: deb\nURIs: file:/debian-security\nSuites: one-security\n";
        let put = sources_of(stanzas, "one", "two");
        assert!(put.contains("Suites: two two-updates") && put.contains("Suites: two-security"));
        let ported = "Types: deb\nURIs: file:/debian\nSuites: two-backports\n\n";
        assert_eq!(sources_of(stanzas, "one", "two-backports"), ported);
        let lines = "deb file:/debian one main\ndeb file:/debian one-updates main\n";
        let ported = "deb file:/debian two-backports main\n\n";
        assert_eq!(sources_of(lines, "one", "two-backports"), ported);
        assert_eq!(sources_of("deb file:/debian three main\n", "one", "two-backports"), "");
    }
}
