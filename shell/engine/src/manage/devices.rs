//! The block devices of this machine: what sysfs says of them, what they hold, who uses them.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use braid_api::v1::{Device, DeviceState};

use super::disk;
use super::names;
use crate::serve::signature;
use crate::serve::usage::{self, Number};

/// Where the kernel lists block devices and their partitions.
const LIST: &str = "/sys/class/block";
/// The unit of sizes in sysfs, whatever a device's own blocks are.
const SECTOR_BYTES: u64 = 512;

/// All block devices that have a size, by name. `ours` are the disks of pools that are open here.
/// Reads from the devices, so it may block for as long as one of them does.
#[must_use]
pub(super) fn list(ours: Vec<(PathBuf, [u8; 16])>) -> Vec<Device> {
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let ours: Vec<_> = ours.into_iter().map(|(path, uuid)| (real(path), uuid)).collect();
    let mut devices: Vec<_> = fs::read_dir(LIST)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| described(&Path::new(LIST).join(&name), &name))
        .map(|device| judged(device, &ours))
        .collect();
    devices.sort_by_key(|device| by_number(&device.path));
    devices
}

/// What sysfs says of a device.
fn described(folder: &Path, name: &str) -> Option<Device> {
    let size_bytes = number(&folder.join("size"))? * SECTOR_BYTES;
    // Drives without a medium, and loops without a file.
    if size_bytes == 0 {
        return None;
    }
    let is_partition = folder.join("partition").exists();
    // A partition's queue is its disk's.
    let disk = folder.canonicalize().ok()?;
    let disk = if is_partition { disk.parent()?.to_owned() } else { disk };
    let queue = |limit: &str| number(&disk.join("queue").join(limit)).unwrap_or(0);
    let block = |limit: &str| u32::try_from(queue(limit)).unwrap_or(0);
    let flag = |folder: &Path, name: &str| number(&folder.join(name)) == Some(1);
    let first = |names: &[&str]| names.iter().find_map(|name| text(&disk.join(name)));
    Some(Device {
        // A slash in a name stands as an exclamation mark in sysfs.
        path: format!("/dev/{}", name.replace('!', "/")),
        kind: if is_partition { "partition" } else { kind(name) }.into(),
        size_bytes,
        logical_block_bytes: block("logical_block_size"),
        physical_block_bytes: block("physical_block_size"),
        rotational: queue("rotational") == 1,
        removable: flag(&disk, "removable"),
        read_only: flag(folder, "ro"),
        discards: queue("discard_max_bytes") > 0,
        model: first(&["device/model", "device/name"]).unwrap_or_default(),
        serial: first(&["device/serial", "serial"]).unwrap_or_default(),
        ..Device::default()
    })
}

fn kind(name: &str) -> &'static str {
    const KINDS: [(&str, &str); 10] = [
        ("sd", "disk"),
        ("nvme", "disk"),
        ("vd", "disk"),
        ("xvd", "disk"),
        ("hd", "disk"),
        ("mmcblk", "disk"),
        ("loop", "loop"),
        ("dm-", "mapper"),
        ("md", "raid"),
        ("zram", "zram"),
    ];
    KINDS.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or("other", |(_, kind)| kind)
}

/// The same with what it holds and who uses it.
fn judged(device: Device, ours: &[(PathBuf, [u8; 16])]) -> Device {
    let path = PathBuf::from(&device.path);
    let here = path.canonicalize().unwrap_or_else(|_| path.clone());
    if let Some((_, uuid)) = ours.iter().find(|(path, _)| *path == here) {
        let pool = names::text(*uuid);
        let detail = format!("pool {pool} of this engine");
        return with(Device { pool, ..device }, DeviceState::InUse, detail);
    }
    let user = Number::of(&path).ok().flatten().and_then(usage::find);
    if let Some(user) = user {
        return with(device, DeviceState::InUse, user);
    }
    if device.read_only {
        return with(device, DeviceState::Unusable, "read only".into());
    }
    if let Some(uuid) = disk::pool_on(&path) {
        let pool = names::text(uuid);
        let detail = format!("pool {pool}, not imported here");
        return with(Device { pool, ..device }, DeviceState::Pool, detail);
    }
    let probed = File::open(&path).and_then(|mut disk| {
        let size = disk.seek(SeekFrom::End(0))?;
        signature::probe(&mut disk, size)
    });
    match probed {
        Ok(None) => with(device, DeviceState::Free, String::new()),
        Ok(Some(mark)) => with(device, DeviceState::Holds, mark.into()),
        Err(error) => with(device, DeviceState::Unusable, format!("cannot be read: {error}")),
    }
}

fn with(device: Device, state: DeviceState, detail: String) -> Device {
    Device { state: state.into(), detail, ..device }
}

fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn number(path: &Path) -> Option<u64> {
    text(path)?.parse().ok()
}

/// Sorts sda2 before sda10.
fn by_number(name: &str) -> (String, u64) {
    let stem = name.trim_end_matches(|c: char| c.is_ascii_digit());
    (stem.to_owned(), name[stem.len()..].parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_as_people_count() {
        let mut names = ["/dev/sda10", "/dev/sda2", "/dev/sda", "/dev/dm-1"];
        names.sort_by_key(|name| by_number(name));
        assert_eq!(names, ["/dev/dm-1", "/dev/sda", "/dev/sda2", "/dev/sda10"]);
        let kinds = ["nvme0n1", "dm-3", "loop0", "sr0"].map(kind);
        assert_eq!(kinds, ["disk", "mapper", "loop", "other"]);
    }

    #[test]
    fn what_is_listed_has_a_size_and_a_state() {
        for device in list(Vec::new()) {
            assert!(device.size_bytes > 0 && device.path.starts_with("/dev/"), "{device:?}");
            assert_ne!(device.state, i32::from(DeviceState::Unspecified), "{device:?}");
        }
    }

    #[test]
    fn a_disk_of_ours_is_in_use() {
        let device = Device { path: "/dev/null".into(), ..Device::default() };
        let judged = judged(device, &[("/dev/null".into(), [7; 16])]);
        assert_eq!(judged.state, i32::from(DeviceState::InUse));
        assert!(judged.detail.contains(&judged.pool) && !judged.pool.is_empty());
    }
}
