//! The disk of a pool, held so that no engine takes it meanwhile.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use braid_block::IoError;
use braid_pool::Image;
use rustix::fs::{FlockOperation, OFlags};

use crate::admin::output::size;
use crate::error::{Error, Result};
use crate::offline::superblock;
use crate::serve::holder;

/// A file or block device.
#[derive(Debug)]
pub struct Disk {
    file: File,
    /// Its size.
    pub bytes: u64,
    progress: Option<Progress>,
}

/// What a person sees of long work.
#[derive(Debug)]
struct Progress {
    what: &'static str,
    read: u64,
    shown: Instant,
}

/// How often a person sees how far it is.
const SHOWN_EVERY: Duration = Duration::from_millis(500);

impl Disk {
    /// Opens a disk that no engine has; to write only if `writes` says so.
    ///
    /// # Errors
    /// When it is not there, or somebody has it.
    pub fn open(path: &Path, writes: bool) -> Result<Self> {
        let failed = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => {
                Error::run(format!("{}: there is no such file or device", path.display()))
            }
            io::ErrorKind::ResourceBusy => in_use(path),
            _ => Error::run(format!("{}: cannot open it: {error}", path.display())),
        };
        let metadata = std::fs::metadata(path).map_err(|error| failed(&error))?;
        let is_device = metadata.file_type().is_block_device();
        if !is_device && !metadata.is_file() {
            return Err(Error::run(format!(
                "{}: neither a file nor a block device",
                path.display()
            )));
        }
        let flags = if is_device { OFlags::EXCL } else { OFlags::empty() };
        let flags = i32::try_from(flags.bits()).unwrap_or(0);
        let mut options = OpenOptions::new();
        let opened = options.read(true).write(writes).custom_flags(flags).open(path);
        let mut file = opened.map_err(|error| failed(&error))?;
        let lock = if writes {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        // What a killed engine held the kernel lets go of a moment later.
        let attempt = || rustix::fs::flock(&file, lock);
        let held = || holder::of_disk(path);
        if !is_device && holder::patiently(attempt, |_| true, held).is_err() {
            return Err(in_use(path));
        }
        let bytes = file.seek(SeekFrom::End(0)).map_err(|error| failed(&error))?;
        Ok(Self { file, bytes, progress: None })
    }

    /// Lets a person see how much was read, if one is there.
    pub fn show_progress(&mut self, what: &'static str) {
        if io::stderr().is_terminal() {
            self.progress = Some(Progress { what, read: 0, shown: Instant::now() });
        }
    }

    /// Ends that.
    pub fn end_progress(&mut self) {
        if self.progress.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

fn in_use(path: &Path) -> Error {
    let holder = holder::of_disk(path).map(|holder| format!(" by {holder}"));
    let owner = superblock::read(path).map(|found| format!(", opened by {}", found.owner));
    Error::run(format!(
        "{}: in use{}{}; ask that engine instead, or stop it",
        path.display(),
        holder.unwrap_or_default(),
        owner.unwrap_or_default()
    ))
}

fn kind(error: &io::Error) -> IoError {
    match error.kind() {
        io::ErrorKind::StorageFull => IoError::NoSpace,
        _ => IoError::Device,
    }
}

impl Image for Disk {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> std::result::Result<(), IoError> {
        if let Some(progress) = &mut self.progress {
            progress.read += bytes.len() as u64;
            if progress.shown.elapsed() >= SHOWN_EVERY {
                progress.shown = Instant::now();
                eprint!("\r{}: {} read", progress.what, size(progress.read));
            }
        }
        self.file.read_exact_at(bytes, offset).map_err(|error| kind(&error))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> std::result::Result<(), IoError> {
        self.file.write_all_at(bytes, offset).map_err(|error| kind(&error))
    }

    fn sync(&mut self) -> std::result::Result<(), IoError> {
        self.file.sync_data().map_err(|error| kind(&error))
    }
}
