//! Finding a pool by its identity, where its path changed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tonic::Status;

use super::disk::pool_on;
use super::names;

/// Where the kernel lists block devices and their partitions.
const BLOCK_DEVICES: &str = "/sys/class/block";

/// The disk of the pool of this identity, among the files and block devices of a folder, or among
/// all block devices. Reads from each of them, so it may block for as long as one does.
///
/// # Errors
/// When there is none, or several.
pub(super) fn find(folder: Option<&Path>, uuid: [u8; 16]) -> Result<PathBuf, Status> {
    let candidates = match folder {
        Some(folder) => entries(folder),
        None => entries(Path::new(BLOCK_DEVICES)).into_iter().filter_map(device).collect(),
    };
    // Several names of one disk, such as those of /dev/disk/by-id, are one.
    let real = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let candidates: BTreeSet<PathBuf> = candidates.into_iter().map(real).collect();
    let mut found = candidates.into_iter().filter(|path| pool_on(path) == Some(uuid));
    let place = folder.map_or_else(
        || "on the block devices of this machine".to_owned(),
        |folder| format!("in {}", folder.display()),
    );
    let text = names::text(uuid);
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        (None, _) => Err(Status::not_found(format!("pool {text} is not {place}"))),
        (Some(one), Some(other)) => Err(Status::invalid_argument(format!(
            "pool {text} is on {} and on {}; name the one that is meant",
            one.display(),
            other.display()
        ))),
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The node of a device that sysfs names; a slash in its name stands as an exclamation mark there.
fn device(listed: PathBuf) -> Option<PathBuf> {
    let name = listed.file_name()?.to_str()?.replace('!', "/");
    Some(Path::new("/dev").join(name))
}
