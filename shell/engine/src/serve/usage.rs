//! Who uses a block device already: mounts, swap, and devices that are built on it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{major, minor};

/// A block device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Number {
    /// The driver.
    pub major: u32,
    /// Its device.
    pub minor: u32,
}

/// A device or one of its partitions, as sysfs shows it.
struct Part {
    number: Number,
    name: String,
    folder: PathBuf,
}

impl Number {
    /// The number behind a path, if it is a block device's.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn of(path: &Path) -> io::Result<Option<Self>> {
        let metadata = fs::metadata(path)?;
        let block = metadata.file_type().is_block_device();
        Ok(block.then(|| Self { major: major(metadata.rdev()), minor: minor(metadata.rdev()) }))
    }

    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.trim().split_once(':')?;
        Some(Self { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// Where sysfs describes it.
    #[must_use]
    pub fn folder(self) -> PathBuf {
        PathBuf::from(format!("/sys/dev/block/{}:{}", self.major, self.minor))
    }

    /// A number that the device's request queue shows, whether it is a disk or a partition of one.
    #[must_use]
    pub fn queue_limit(self, name: &str) -> Option<u64> {
        let folder = fs::canonicalize(self.folder()).ok()?;
        let own = folder.join("queue").join(name);
        let parent = folder.parent()?.join("queue").join(name);
        let text = fs::read_to_string(own).or_else(|_| fs::read_to_string(parent)).ok()?;
        text.trim().parse().ok()
    }
}

/// Who uses the device or one of its partitions: `mounted on /mnt`, if anybody does.
#[must_use]
pub fn find(device: Number) -> Option<String> {
    let parts = parts(device);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    let number = |path: &str| Number::of(Path::new(path)).ok().flatten();
    parts.iter().find_map(|part| {
        let by = mounted(&mounts, part.number, number)
            .or_else(|| swapped(&swaps, part.number, number))
            .or_else(|| held(&part.folder))?;
        Some(if part.number == device { by } else { format!("its part {} is {by}", part.name) })
    })
}

/// The device and its partitions.
fn parts(device: Number) -> Vec<Part> {
    let folder = device.folder();
    let mut parts = vec![Part { number: device, name: String::new(), folder: folder.clone() }];
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        let folder = entry.path();
        if !folder.join("partition").exists() {
            continue;
        }
        let number = fs::read_to_string(folder.join("dev")).ok();
        if let Some(number) = number.as_deref().and_then(Number::parse) {
            parts.push(Part {
                number,
                name: entry.file_name().to_string_lossy().into_owned(),
                folder,
            });
        }
    }
    parts
}

/// Looks through mountinfo (proc(5)): by number, and by source for file systems that show a
/// number of their own, such as Btrfs.
fn mounted(
    mountinfo: &str,
    device: Number,
    number: impl Fn(&str) -> Option<Number>,
) -> Option<String> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let shown = fields.nth(2).and_then(Number::parse);
        let place = fields.nth(1)?;
        let source = line.split_once(" - ")?.1.split(' ').nth(1)?;
        let from = || if source.starts_with('/') { number(&unescaped(source)) } else { None };
        let hit = shown == Some(device) || from() == Some(device);
        hit.then(|| format!("mounted on {}", unescaped(place)))
    })
}

fn swapped(swaps: &str, device: Number, number: impl Fn(&str) -> Option<Number>) -> Option<String> {
    let mut sources = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let hit = sources.any(|source| number(&unescaped(source)) == Some(device));
    hit.then(|| "swap space in use".into())
}

fn held(folder: &Path) -> Option<String> {
    let holder = fs::read_dir(folder.join("holders")).ok()?.flatten().next()?;
    Some(format!("in use by /dev/{}", holder.file_name().to_string_lossy()))
}

/// Blanks and the like stand as octal escapes in mountinfo.
fn unescaped(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:31 /sub /data\\040here rw shared:2 master:1 - btrfs /dev/sdb rw,space_cache
37 22 0:4 / /proc rw - proc proc rw
";

    fn number(path: &str) -> Option<Number> {
        match path {
            "/dev/sdb" => Some(Number { major: 8, minor: 16 }),
            "/dev/sdc2" => Some(Number { major: 8, minor: 34 }),
            _ => None,
        }
    }

    #[test]
    fn a_mount_is_found_by_number_and_by_source() {
        let by = |major, minor| mounted(MOUNTS, Number { major, minor }, number);
        assert_eq!(by(8, 1).as_deref(), Some("mounted on /"));
        assert_eq!(by(8, 16).as_deref(), Some("mounted on /data here"));
        assert_eq!(by(8, 2), None);
    }

    #[test]
    fn swap_is_found() {
        let swaps = "Filename Type Size Used Priority\n/dev/sdc2 partition 1024 0 -2\n";
        assert!(swapped(swaps, Number { major: 8, minor: 34 }, number).is_some());
        assert!(swapped(swaps, Number { major: 8, minor: 33 }, number).is_none());
    }
}
