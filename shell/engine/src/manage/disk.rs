//! The disk of a pool: taken for the engine alone, and refused when it is somebody else's.
//!
//! Invariants:
//! 1. The disk of a pool is held alone from before its first byte is written until it is let go,
//!    whatever was asked for: the description that makes a pool goes on to serve it.
//! 2. What a disk holds is judged while it is held: whoever had it before may have finished a
//!    pool on it since somebody looked.
//! 3. A file is taken back only by who made it and holds it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use braid_pool::Device;
use braid_reactor::{DiskError, OpenDisk, OpenOptions};
use tonic::Status;

use crate::offline::superblock;
use crate::serve::backend;
use crate::serve::holder;
use crate::serve::signature;
use crate::serve::uri::Allocation;
use crate::serve::usage::{self, Number};

/// The smallest disk that a pool can be made on.
pub const POOL_BYTES_MIN: u64 = 16 << 20;
/// How long another engine has to let go of a disk: one that was killed writes until the kernel
/// has ended its ring.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a file that are looked at for data of an unknown kind.
const LOOK_BYTES: u64 = 1 << 20;

/// How a disk is taken for a new pool.
#[derive(Clone, Debug)]
pub struct Making {
    /// Absolute path.
    pub path: PathBuf,
    /// Size of a file that is made.
    pub bytes: Option<u64>,
    /// How it gets its space.
    pub allocation: Allocation,
    /// Even if it holds something.
    pub force: bool,
}

/// A disk that nobody else has.
#[derive(Debug)]
pub struct Taken {
    /// Open.
    pub open: OpenDisk,
    /// What the pool is told about it.
    pub device: Device,
    /// It is a file that was made for it.
    pub is_new: bool,
}

/// Takes a disk for a new pool; may wait ten seconds for it.
///
/// # Errors
/// As `CreatePool` documents.
pub fn make(making: &Making) -> Result<Taken, Status> {
    let Making { path, .. } = making;
    let is_new = match kind(path)? {
        Kind::Device(number) => {
            if making.bytes.is_some() || making.allocation != Allocation::Reserved {
                return Err(Status::invalid_argument(format!(
                    "{}: a block device has its size; leave size and allocation out",
                    path.display()
                )));
            }
            check_device(path, number, making.force)?;
            false
        }
        Kind::File { bytes } => check_file(making, bytes)?,
        Kind::Missing => check_folder(making)?,
    };
    let taken = take(making, is_new)?;
    if taken.device.bytes < POOL_BYTES_MIN {
        let too_small = format!(
            "{}: {} bytes are too small for a pool; it takes 16MiB at least",
            path.display(),
            taken.device.bytes
        );
        drop(taken);
        forget_new(path, is_new);
        return Err(Status::invalid_argument(too_small));
    }
    Ok(taken)
}

/// Takes the disk of a pool that exists; may wait ten seconds for it.
///
/// # Errors
/// As `ImportPool` documents.
pub fn find(path: &Path) -> Result<Taken, Status> {
    if matches!(kind(path)?, Kind::Missing) {
        return Err(Status::not_found(format!(
            "{}: there is no such file or block device",
            path.display()
        )));
    }
    let options = OpenOptions { patience: PATIENCE, ..OpenOptions::default() };
    let open = OpenDisk::open(path, &options).map_err(|error| not_taken(path, error))?;
    Ok(taken(open, has_holes(path), false))
}

/// What a path names.
enum Kind {
    Device(Number),
    File { bytes: u64 },
    Missing,
}

fn kind(path: &Path) -> Result<Kind, Status> {
    if !path.is_absolute() {
        return Err(Status::invalid_argument(format!(
            "path '{}' is not absolute; write it from / on",
            path.display()
        )));
    }
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kind::Missing),
        Err(error) => return Err(failed(path, "cannot look at it", &error)),
    };
    match Number::of(path) {
        _ if metadata.is_file() => Ok(Kind::File { bytes: metadata.len() }),
        Ok(Some(number)) if metadata.file_type().is_block_device() => Ok(Kind::Device(number)),
        _ => Err(precondition(path, "neither a file nor a block device")),
    }
}

fn check_device(path: &Path, number: Number, force: bool) -> Result<(), Status> {
    // Force gives up what a disk holds, not who has it: he would write into the pool.
    if let Some(user) = usage::find(number) {
        return Err(precondition(path, &format!("{user}; free it first")));
    }
    if force { Ok(()) } else { check_marks(path, false) }
}

/// Whether the file has to be filled; refuses one that is not what was asked for.
fn check_file(making: &Making, found: u64) -> Result<bool, Status> {
    let path = &making.path;
    match making.bytes {
        _ if found == 0 && making.bytes.is_none() => {
            Err(precondition(path, "is empty; give a size for it"))
        }
        _ if found == 0 => Ok(true),
        Some(asked) if asked != found => Err(precondition(
            path,
            &format!("has {found} bytes, not {asked}; leave the size out, or name another file"),
        )),
        _ if making.force => Ok(false),
        _ => check_marks(path, true).map(|()| false),
    }
}

fn check_folder(making: &Making) -> Result<bool, Status> {
    let path = &making.path;
    let folder = path.parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Err(Status::not_found(format!(
            "{}: there is no folder {}; make it first",
            path.display(),
            folder.display()
        )));
    }
    match making.bytes {
        Some(bytes) if bytes < POOL_BYTES_MIN => Err(Status::invalid_argument(format!(
            "size {bytes} is too small for a pool; it takes 16MiB at least"
        ))),
        Some(_) => Ok(true),
        None if path.starts_with("/dev") => Err(Status::not_found(format!(
            "{}: there is no such block device; device list shows what there is",
            path.display()
        ))),
        None => Err(Status::not_found(format!(
            "{}: does not exist; give a size for it to be made",
            path.display()
        ))),
    }
}

/// Refuses a disk that holds something. Of a file, also what is of no known kind: a typing mistake
/// must not destroy an archive. What a call left behind that ended midway is nothing: it can be
/// repeated.
fn check_marks(path: &Path, is_file: bool) -> Result<(), Status> {
    let probed = File::open(path).and_then(|mut disk| {
        let size = io::Seek::seek(&mut disk, io::SeekFrom::End(0))?;
        let mark = signature::probe(&mut disk, size)?;
        let head = head(&mut disk)?;
        let half_made = superblock::is_half_made(&head);
        let unknown = is_file && !half_made && head.iter().any(|byte| *byte != 0);
        Ok(match mark {
            None => unknown.then_some("data"),
            // Superblocks of which a power cut left a part, or those at the end alone: they are
            // written at once.
            Some(signature::POOL | signature::HEADLESS) if half_made => None,
            mark => mark,
        })
    });
    match probed {
        Ok(None) => Ok(()),
        Ok(Some(what)) => Err(precondition(
            path,
            &format!("seems to hold {what}; set force if it may be overwritten"),
        )),
        Err(error) => Err(failed(path, "cannot read it", &error)),
    }
}

fn head(disk: &mut File) -> io::Result<Vec<u8>> {
    io::Seek::rewind(disk)?;
    let mut head = Vec::new();
    disk.take(LOOK_BYTES).read_to_end(&mut head)?;
    Ok(head)
}

fn take(making: &Making, is_new: bool) -> Result<Taken, Status> {
    let Making { path, bytes, allocation, force } = making;
    let sparse = *allocation == Allocation::Sparse;
    let options = OpenOptions { create_bytes: *bytes, sparse, exclusive: true, patience: PATIENCE };
    let open = OpenDisk::open(path, &options).map_err(|error| {
        // What another engine holds is his, also if it was not there a moment ago.
        forget_new(path, is_new && !matches!(error, DiskError::Busy { .. }));
        not_taken(path, error)
    })?;
    if !force {
        check_marks(path, !open.is_block_device)?;
    }
    if is_new
        && *allocation == Allocation::Prefilled
        && let Err(error) = backend::prefill(path, open.size)
    {
        drop(open);
        forget_new(path, is_new);
        return Err(failed(path, "cannot write all of it", &error));
    }
    Ok(taken(open, sparse || has_holes(path), is_new))
}

fn not_taken(path: &Path, error: DiskError) -> Status {
    let busy = matches!(error, DiskError::Busy { .. });
    let holder = if busy { holder::of_disk(path) } else { None };
    let code = match &error {
        DiskError::System { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
            tonic::Code::ResourceExhausted
        }
        _ => tonic::Code::FailedPrecondition,
    };
    let text = backend::refused(error, false, holder);
    let owner = superblock::read(path).filter(|_| busy);
    let owner =
        owner.map_or_else(String::new, |found| format!("; its pool was opened by {}", found.owner));
    Status::new(code, format!("{}: {text}{owner}", path.display()))
}

fn taken(open: OpenDisk, sparse: bool, is_new: bool) -> Taken {
    let sector = if open.is_block_device { open.logical_block } else { open.alignment };
    let device = Device {
        bytes: open.size,
        // What the pool relies on is that a sector is written whole; of a file nothing larger
        // than the smallest sector is known to be.
        sector: sector.clamp(512, 4096),
        discards: if open.is_block_device { discards(&open.path) } else { sparse },
    };
    Taken { open, device, is_new }
}

fn discards(path: &Path) -> bool {
    let number = Number::of(path).ok().flatten();
    // A discard has to leave zeros, so the device must be able to write them by itself.
    let can = |number: Number, limit| number.queue_limit(limit).is_some_and(|bytes| bytes > 0);
    number.is_some_and(|number| {
        can(number, "discard_max_bytes") && can(number, "write_zeroes_max_bytes")
    })
}

/// A file with holes was made to be sparse: nobody counts on its space being reserved.
fn has_holes(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file()) && backend::has_holes(path)
}

/// Takes back a file that was made for nothing, so that the next attempt is like this one.
pub fn forget_new(path: &Path, is_new: bool) {
    if !is_new {
        return;
    }
    // Another engine may have taken it since: then it is his, and so is a pool that he made.
    let options = OpenOptions { exclusive: true, patience: Duration::ZERO, ..Default::default() };
    let held = OpenDisk::open(path, &options);
    let nothing = match &held {
        Ok(_) => check_marks(path, true).is_ok(),
        Err(DiskError::Busy { .. }) => false,
        Err(_) => fs::metadata(path).is_ok_and(|metadata| metadata.len() == 0),
    };
    if nothing {
        let _ = fs::remove_file(path);
    }
    drop(held);
}

fn precondition(path: &Path, what: &str) -> Status {
    Status::failed_precondition(format!("{}: {what}", path.display()))
}

fn failed(path: &Path, what: &str, error: &io::Error) -> Status {
    let text = format!("{}: {what}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::StorageFull => Status::resource_exhausted(text),
        _ => Status::failed_precondition(text),
    }
}

/// The identity of the pool that a disk holds, if it holds one that can be read.
#[must_use]
pub fn pool_on(path: &Path) -> Option<[u8; 16]> {
    superblock::read(path).map(|found| found.uuid)
}
