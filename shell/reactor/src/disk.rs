//! Opening files and block devices for direct I/O.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, FallocateFlags, FileType, FlockOperation, Mode, OFlags, SeekFrom, StatxFlags,
};
use rustix::io::Errno;

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

/// How often a disk in use is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// What direct I/O is aligned to where the kernel does not say.
const ALIGNMENT_UNKNOWN: u32 = 4096;

impl OpenDisk {
    /// Opens a file or block device.
    ///
    /// # Errors
    /// When it cannot be opened, cannot do direct I/O, or somebody else holds it for too long.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Self, DiskError> {
        let begun = Instant::now();
        loop {
            match attempt(path, options) {
                Err(DiskError::Busy { .. }) if begun.elapsed() < options.patience => {
                    std::thread::sleep(RETRY.min(options.patience));
                }
                Err(DiskError::Busy { path, .. }) => {
                    return Err(DiskError::Busy { path, waited: begun.elapsed() });
                }
                other => return other,
            }
        }
    }
}

/// Zeros to write, aligned for any disk.
#[repr(align(4096))]
struct Zeros([u8; 16 << 10]);

static ZEROS: Zeros = Zeros([0; 16 << 10]);

impl OpenDisk {
    /// Writes zeros on the calling thread and makes them durable: for a disk that no reactor has.
    /// The range must be aligned as the disk wants it.
    ///
    /// # Errors
    /// As the system says; part of the range may be zeroed.
    pub fn write_zeros(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut done = 0;
        while done < len {
            let piece = usize::try_from(len - done).unwrap_or(usize::MAX).min(ZEROS.0.len());
            match rustix::io::pwrite(&self.fd, &ZEROS.0[..piece], offset + done) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => done += count as u64,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        rustix::fs::fdatasync(&self.fd).map_err(Into::into)
    }
}

fn system(path: &Path, what: &'static str, errno: Errno) -> DiskError {
    DiskError::System { path: path.into(), what, source: errno.into() }
}

fn attempt(path: &Path, options: &OpenOptions) -> Result<OpenDisk, DiskError> {
    let fd = open_fd(path, options)?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| system(path, "stat", errno))?;
    let is_block_device = match FileType::from_raw_mode(stat.st_mode) {
        FileType::BlockDevice => true,
        FileType::RegularFile => false,
        _ => return Err(DiskError::WrongKind { path: path.into() }),
    };
    if !is_block_device && options.exclusive {
        lock(path, &fd)?;
    }
    if !is_block_device && let Some(bytes) = options.create_bytes {
        fill(path, &fd, bytes, options.sparse)?;
    }
    let mut remarks = Vec::new();
    let alignment = alignment(path, &fd, &mut remarks)?;
    let logical_block = if is_block_device {
        rustix::fs::ioctl_blksszget(&fd).map_err(|errno| system(path, "ask for blocks", errno))?
    } else {
        alignment
    };
    // The end of a block device is its size, and asking for it needs no ioctl of its own.
    let size = rustix::fs::seek(&fd, SeekFrom::End(0))
        .map_err(|errno| system(path, "find the end", errno))?;
    let alignment = alignment.max(logical_block);
    Ok(OpenDisk { path: path.into(), size, logical_block, alignment, is_block_device, remarks, fd })
}

fn open_fd(path: &Path, options: &OpenOptions) -> Result<OwnedFd, DiskError> {
    let mut flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::DIRECT;
    match rustix::fs::stat(path).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::BlockDevice) if options.exclusive => flags |= OFlags::EXCL,
        Ok(FileType::BlockDevice | FileType::RegularFile) => {}
        // Opening a pipe or a terminal could block or do harm.
        Ok(_) => return Err(DiskError::WrongKind { path: path.into() }),
        Err(Errno::NOENT) if options.create_bytes.is_some() => flags |= OFlags::CREATE,
        Err(errno) => return Err(system(path, "find it", errno)),
    }
    rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| match errno {
        Errno::BUSY => DiskError::Busy { path: path.into(), waited: Duration::ZERO },
        Errno::INVAL => no_direct_io(path),
        errno => system(path, "open it", errno),
    })
}

/// Takes the lock that all engines take, on the very description that I/O will use: it lasts
/// exactly as long as something can still be written.
fn lock(path: &Path, fd: &OwnedFd) -> Result<(), DiskError> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => {
            Err(DiskError::Busy { path: path.into(), waited: Duration::ZERO })
        }
        Err(errno) => Err(system(path, "lock it", errno)),
    }
}

/// Gives an empty file its size, and its space unless it is to be sparse.
fn fill(path: &Path, fd: &OwnedFd, bytes: u64, sparse: bool) -> Result<(), DiskError> {
    let stat = rustix::fs::fstat(fd).map_err(|errno| system(path, "stat", errno))?;
    if stat.st_size != 0 {
        return Ok(());
    }
    if sparse {
        rustix::fs::ftruncate(fd, bytes).map_err(|errno| system(path, "set its size", errno))
    } else {
        rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, bytes)
            .map_err(|errno| system(path, "allocate its space", errno))
    }
}

/// What direct I/O must be aligned to.
fn alignment(path: &Path, fd: &OwnedFd, remarks: &mut Vec<String>) -> Result<u32, DiskError> {
    let statx = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .map_err(|errno| system(path, "statx", errno))?;
    if statx.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        remarks.push(format!(
            "{}: the file system ({}) does not say how to align direct I/O; taking \
             {ALIGNMENT_UNKNOWN} bytes",
            path.display(),
            file_system(path)
        ));
        return Ok(ALIGNMENT_UNKNOWN);
    }
    match statx.stx_dio_mem_align.max(statx.stx_dio_offset_align) {
        0 => Err(no_direct_io(path)),
        alignment => Ok(alignment),
    }
}

fn no_direct_io(path: &Path) -> DiskError {
    DiskError::NoDirectIo { path: path.into(), file_system: file_system(path) }
}

/// The file system's name, or its number where we know no name.
fn file_system(path: &Path) -> String {
    let parent = path.parent().unwrap_or(Path::new("."));
    let magic = rustix::fs::statfs(path).or_else(|_| rustix::fs::statfs(parent));
    match magic.map(|statfs| statfs.f_type as u64) {
        Ok(0xef53) => "ext4".into(),
        Ok(0x5846_5342) => "xfs".into(),
        Ok(0x9123_683e) => "btrfs".into(),
        Ok(0x0102_1994) => "tmpfs".into(),
        Ok(0x794c_7630) => "overlay".into(),
        Ok(0x6969) => "nfs".into(),
        Ok(0x6573_5546) => "fuse".into(),
        Ok(0x2fc1_2fc1) => "zfs".into(),
        Ok(0x0102_1997) => "9p".into(),
        Ok(0x8584_58f6) => "ramfs".into(),
        Ok(magic) => format!("type {magic:#x}"),
        Err(_) => "unknown".into(),
    }
}

#[cfg(test)]
mod tests;
