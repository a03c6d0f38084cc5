//! Opening what a namespace's bytes are on, and refusing what is somebody else's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use braid_block::{BlockSize, Geometry};
use braid_reactor::{DiskError, OpenDisk, OpenOptions};

use crate::error::{Error, Result};
use crate::quantity::Bytes;
use crate::serve::holder::{self, Holder};
use crate::serve::plan::NamespacePlan;
use crate::serve::signature;
use crate::serve::uri::{Allocation, Source, check_size};
use crate::serve::usage::{self, Number};

/// What a namespace's bytes are on, open.
#[derive(Debug)]
pub struct Backend {
    /// Size and block size.
    pub geometry: Geometry,
    /// The open disk; memory has none.
    pub disk: Option<Disk>,
}

/// An open disk, and what only its device knows.
#[derive(Debug)]
pub struct Disk {
    /// Open and held.
    pub open: OpenDisk,
    /// Discarding gives space back.
    pub discards: bool,
    /// Blocks that are written whole or not at all when power fails.
    pub atomic_blocks: u16,
}

/// What tells that two paths are one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// File system and inode.
    Inode(u64, u64),
    /// Block device.
    Device(u64),
}

/// Where a namespace is, unless it is not there yet or in memory.
#[must_use]
pub fn place(source: &Source) -> Option<Place> {
    let (Source::File { path, .. } | Source::Device { path, .. }) = source else { return None };
    let metadata = fs::metadata(path).ok()?;
    Some(if metadata.file_type().is_block_device() {
        Place::Device(metadata.rdev())
    } else {
        Place::Inode(metadata.dev(), metadata.ino())
    })
}

/// Opens what `plan` names; `force` takes devices that are in use or hold something.
///
/// # Errors
/// One line that says what to do.
pub fn open(plan: &NamespacePlan, force: bool) -> Result<Backend> {
    let backend = match &plan.uri.source {
        Source::Memory { size } => Ok(memory(*size, plan.block)),
        Source::File { path, size, allocation } => file(path, *size, *allocation, plan.block),
        Source::Device { path, force: own } => device(path, force || *own, plan.block),
    };
    backend.map_err(|error| error.at(&plan.uri))
}

fn memory(size: u64, block: Option<BlockSize>) -> Backend {
    let block = block.unwrap_or(BlockSize::B4096);
    Backend { geometry: Geometry::of_bytes(size, block), disk: None }
}

// === Files ===

fn file(
    path: &Path,
    size: Option<u64>,
    allocation: Allocation,
    block: Option<BlockSize>,
) -> Result<Backend> {
    let block = block.unwrap_or(BlockSize::B4096);
    let made = check_file(path, size)?;
    let options = OpenOptions {
        create_bytes: size,
        sparse: allocation == Allocation::Sparse,
        exclusive: true,
        patience: Duration::ZERO,
    };
    let open = open_disk(path, &options, made).inspect_err(|_| remove_unfilled(path, made))?;
    check_size(open.size, block).map_err(Error::run)?;
    if open.alignment > block.bytes() {
        return Err(Error::run(format!(
            "this file system does direct I/O in units of {} bytes only; use block=4096",
            open.alignment
        )));
    }
    if made && allocation == Allocation::Prefilled {
        prefill(path, open.size).map_err(|e| Error::run(format!("cannot fill it: {e}")))?;
    }
    let geometry = Geometry::of_bytes(open.size, block);
    let discards = allocation == Allocation::Sparse || has_holes(path);
    Ok(Backend { geometry, disk: Some(Disk { open, discards, atomic_blocks: 1 }) })
}

/// Whether the file has to be made; refuses one that is not what was asked for.
fn check_file(path: &Path, size: Option<u64>) -> Result<bool> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return missing(path, size),
        Err(error) => return Err(Error::run(format!("cannot look at it: {error}"))),
    };
    if metadata.file_type().is_block_device() {
        return Err(Error::run(format!("is a block device; write dev:{}", path.display())));
    }
    if !metadata.is_file() {
        return Err(Error::run("is neither a file nor a block device; name a file"));
    }
    match (metadata.len(), size) {
        (0, None) => Err(Error::run("is empty; add size=, such as ?size=1GiB, to give it one")),
        (0, Some(_)) => Ok(true),
        (found, Some(asked)) if found != asked => Err(Error::run(format!(
            "has {} ({found} bytes), not {}; leave size= out to serve it as it is, or name \
             another file",
            Bytes(found),
            Bytes(asked)
        ))),
        _ => Ok(false),
    }
}

fn missing(path: &Path, size: Option<u64>) -> Result<bool> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Err(Error::run(format!("there is no folder {}; make it first", folder.display())));
    }
    match size {
        Some(_) => Ok(true),
        None => Err(Error::run("does not exist; add size=, such as ?size=1GiB, to make it")),
    }
}

/// Whether a file takes less space than it shows: then nobody counts on having it reserved.
pub(crate) fn has_holes(path: &Path) -> bool {
    const UNIT: u64 = 512;
    fs::metadata(path).is_ok_and(|metadata| metadata.blocks() * UNIT < metadata.len())
}

/// Takes back a file that was made but got no space, so that the next start is like this one.
fn remove_unfilled(path: &Path, made: bool) {
    if made && fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0) {
        let _ = fs::remove_file(path);
    }
}

/// Writes a file once, so that its blocks are more than reserved.
pub(crate) fn prefill(path: &Path, size: u64) -> io::Result<()> {
    const PIECE: usize = 1 << 20;
    tracing::info!(path = %path.display(), size, "writing the file once");
    let zeros = vec![0; PIECE];
    let mut file = File::options().write(true).open(path)?;
    let mut left = size;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        file.write_all(&zeros[..piece])?;
        left -= piece as u64;
    }
    file.sync_all()
}

// === Block devices ===

fn device(path: &Path, force: bool, block: Option<BlockSize>) -> Result<Backend> {
    let number = check_device(path)?;
    if !force {
        check_free(path, number)?;
    }
    // A device that is mounted, or that another device is built on, can only be opened by not
    // asking for it alone. Every other one is held, so that nobody takes it from now on.
    let exclusive = !force || usage::find(number).is_none();
    let patience = Duration::ZERO;
    let options = OpenOptions { exclusive, patience, ..OpenOptions::default() };
    let open = open_disk(path, &options, false)?;
    let geometry = device_geometry(open.size, open.logical_block, block)?;
    // A discard has to leave zeros, so the device must be able to write them by itself.
    let can = |limit| number.queue_limit(limit).is_some_and(|bytes| bytes > 0);
    let discards = can("discard_max_bytes") && can("write_zeroes_max_bytes");
    // The kernel promises more than a block only for aligned writes that ask for it, and AWUPF
    // would promise it for all.
    let atomic_blocks = 1;
    Ok(Backend { geometry, disk: Some(Disk { open, discards, atomic_blocks }) })
}

fn check_device(path: &Path) -> Result<Number> {
    match Number::of(path) {
        Ok(Some(number)) => Ok(number),
        Ok(None) => Err(Error::run(format!(
            "is not a block device; write file:{} if it is a file",
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Error::run("there is no such device; lsblk shows what there is"))
        }
        Err(error) => Err(Error::run(format!("cannot look at it: {error}"))),
    }
}

/// Refuses a device that is in use or holds something.
fn check_free(path: &Path, number: Number) -> Result<()> {
    if let Some(user) = usage::find(number) {
        return Err(Error::run(format!("{user}; free it first, or add --force to take it anyway")));
    }
    let probed = File::open(path).and_then(|mut device| {
        let size = io::Seek::seek(&mut device, io::SeekFrom::End(0))?;
        signature::probe(&mut device, size)
    });
    match probed {
        Ok(None) => Ok(()),
        Ok(Some(format)) => Err(Error::run(format!(
            "seems to hold {format}; add --force if it may be overwritten, or if a host of this \
             engine put it there"
        ))),
        Err(error) => Err(Error::run(format!("cannot read it: {error}"))),
    }
}

fn device_geometry(size: u64, logical: u32, asked: Option<BlockSize>) -> Result<Geometry> {
    let own = BlockSize::from_bytes(logical);
    let Some(block) = asked.or(own) else {
        return Err(Error::run(format!(
            "has logical blocks of {logical} bytes; only 512 and 4096 are served"
        )));
    };
    if block.bytes() < logical {
        return Err(Error::run(format!(
            "has logical blocks of {logical} bytes, larger than block={}; leave block= out",
            block.bytes()
        )));
    }
    check_size(size, block).map_err(Error::run)?;
    Ok(Geometry::of_bytes(size, block))
}

fn open_disk(path: &Path, options: &OpenOptions, made: bool) -> Result<OpenDisk> {
    let busy = |error: &DiskError| matches!(error, DiskError::Busy { .. });
    let attempt = || OpenDisk::open(path, options);
    holder::patiently(attempt, busy, || holder::of_disk(path))
        .map_err(|(error, holder)| refused(error, made, holder))
}

/// What to do when a disk cannot be opened.
pub(crate) fn refused(error: DiskError, made: bool, holder: Option<Holder>) -> Error {
    match error {
        DiskError::System { what, source, .. } => {
            let advice = match source.kind() {
                io::ErrorKind::StorageFull if made => "; make room, or add sparse=1",
                io::ErrorKind::PermissionDenied => "; run as a user who may read and write it",
                io::ErrorKind::ReadOnlyFilesystem => "; it must be writable",
                _ => "",
            };
            Error::run(format!("cannot {what}: {source}{advice}"))
        }
        DiskError::Busy { .. } => match holder {
            Some(holder) => Error::run(format!("is in use by {holder}; stop that first")),
            None => Error::run("is in use by another program; stop that first (lsof shows it)"),
        },
        DiskError::NoDirectIo { file_system, .. } => Error::run(format!(
            "its file system ({file_system}) cannot do direct I/O (O_DIRECT); use one that can, \
             such as ext4, XFS or Btrfs"
        )),
        DiskError::WrongKind { .. } => Error::run("is neither a file nor a block device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_its_own_block_size_unless_asked_for_a_larger_one() {
        let block = |logical, asked| device_geometry(1 << 20, logical, asked).map(|g| g.block);
        assert_eq!(block(512, None).unwrap(), BlockSize::B512);
        assert_eq!(block(512, Some(BlockSize::B4096)).unwrap(), BlockSize::B4096);
        assert_eq!(block(4096, None).unwrap(), BlockSize::B4096);
        assert!(block(4096, Some(BlockSize::B512)).unwrap_err().to_string().contains("larger"));
        assert!(block(16384, None).unwrap_err().to_string().contains("16384"));
    }

    #[test]
    fn a_device_of_odd_size_is_refused() {
        let error = device_geometry(4096 * 3 + 512, 512, Some(BlockSize::B4096)).unwrap_err();
        assert!(error.to_string().contains("not a multiple"), "{error}");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        let path = "/x".into();
        let source = io::Error::from(io::ErrorKind::StorageFull);
        let full = DiskError::System { path, what: "reserve space", source };
        assert!(refused(full, true, None).to_string().contains("sparse=1"));
        let old = DiskError::NoDirectIo { path: "/x".into(), file_system: "9p".into() };
        assert!(refused(old, false, None).to_string().contains("9p"));
    }
}
