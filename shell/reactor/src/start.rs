//! Why a reactor does not start, in words that say what to do.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::ring::Ring;

/// Why a reactor cannot start. Each text is one line and says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel is older than the floor.
    #[error("kernel {found} is too old: Linux {floor} or later is needed")]
    OldKernel {
        /// What `uname` says.
        found: String,
        /// The floor.
        floor: &'static str,
    },
    /// There is no io_uring in this kernel, or a seccomp filter hides it.
    #[error(
        "io_uring is not available (ENOSYS): use a kernel with CONFIG_IO_URING, or let the \
         container's seccomp profile allow io_uring_setup, io_uring_enter and io_uring_register"
    )]
    NoIoUring,
    /// The system administrator switched io_uring off.
    #[error(
        "io_uring is switched off (kernel.io_uring_disabled={value}): set it to 0 with \
         `sysctl -w kernel.io_uring_disabled=0`{hint}"
    )]
    IoUringDisabled {
        /// The sysctl's value.
        value: u32,
        /// What else helps.
        hint: &'static str,
    },
    /// A seccomp filter or a security module forbids io_uring.
    #[error(
        "io_uring is forbidden (EPERM): let the container's seccomp profile (or the security \
         module) allow io_uring_setup, io_uring_enter and io_uring_register"
    )]
    IoUringForbidden,
    /// Not enough memory may be locked.
    #[error(
        "too little lockable memory for the rings (limit {limit_kib} KiB): raise `ulimit -l` \
         (LimitMEMLOCK= in systemd, the memlock ulimit of a container), or grant CAP_IPC_LOCK"
    )]
    Memlock {
        /// The limit.
        limit_kib: u64,
    },
    /// Not enough descriptors may be open.
    #[error(
        "too few file descriptors: {needed} are needed, {limit} are allowed; raise `ulimit -n` \
         (LimitNOFILE= in systemd, the nofile ulimit of a container) or lower the connections"
    )]
    Nofile {
        /// What the limits of this process add up to.
        needed: u64,
        /// The hard limit.
        limit: u64,
    },
    /// The options contradict each other.
    #[error("bad reactor options: {0}")]
    Options(&'static str),
    /// Something else failed.
    #[error("{what} failed: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a run ended badly: the ring itself failed.
#[derive(Debug, thiserror::Error)]
#[error("{what} failed: {source}")]
pub struct RunError {
    /// What was tried.
    pub what: &'static str,
    /// What the system says.
    pub source: io::Error,
}

/// The oldest kernel that has all we use: DEFER_TASKRUN and DIOALIGN came with it.
const FLOOR: (u32, u32) = (6, 1);
const FLOOR_TEXT: &str = "6.1";

/// From here on messages between rings with deferred completions go through their task work.
const RINGS_WAKE: (u32, u32) = (6, 3);

/// Descriptors beside sockets, disks and listeners: rings, events, standard streams, a log.
const DESCRIPTORS_SPARE: u64 = 32;

impl StartError {
    /// Why a ring could not be made or told of something.
    pub(crate) fn of_ring(what: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::NoIoUring,
            Some(libc::EPERM) => Self::of_permission(disabled_value()),
            Some(libc::ENOMEM) => {
                let limit = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
                Self::Memlock { limit_kib: limit >> 10 }
            }
            Some(libc::EMFILE) => {
                let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
                Self::Nofile { needed: limit.saturating_add(1), limit }
            }
            _ => Self::System { what, source: error },
        }
    }

    const fn of_permission(disabled: u32) -> Self {
        match disabled {
            0 => Self::IoUringForbidden,
            1 => Self::IoUringDisabled {
                value: 1,
                hint: ", or add this process to the group in kernel.io_uring_group",
            },
            value => Self::IoUringDisabled { value, hint: "" },
        }
    }

    pub(crate) fn system(what: &'static str, errno: Errno) -> Self {
        Self::System { what, source: errno.into() }
    }
}

/// Makes a ring, or says what forbids it.
pub(crate) fn ring(entries: u32) -> Result<Ring, StartError> {
    let (found, version) = release();
    if version.is_some_and(|version| version < FLOOR) {
        return Err(StartError::OldKernel { found, floor: FLOOR_TEXT });
    }
    Ring::new(entries).map_err(|error| StartError::of_ring("io_uring_setup", error))
}

/// Whether one ring's message wakes a thread that waits on another one with deferred completions.
pub(crate) fn rings_wake_each_other() -> bool {
    release().1.is_some_and(|version| version >= RINGS_WAKE)
}

/// The kernel's release, and its first two numbers.
fn release() -> (String, Option<(u32, u32)>) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let version = parse_release(&release);
    (release, version)
}

/// Raises the soft limit of descriptors to what is needed; other shards and threads of the
/// process are not counted, so the hard limit is asked for where it allows more.
pub(crate) fn allow_descriptors(needed: u64) -> Result<(), StartError> {
    let needed = needed.saturating_add(DESCRIPTORS_SPARE);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if maximum.is_some_and(|maximum| maximum < needed) {
        return Err(StartError::Nofile { needed, limit: maximum.unwrap_or(u64::MAX) });
    }
    if current.is_some_and(|current| Some(current) != maximum) {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
            .map_err(|errno| StartError::system("setrlimit(nofile)", errno))?;
    }
    Ok(())
}

fn disabled_value() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(crate) fn boot_id() -> io::Result<[u8; 16]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "boot_id is not a UUID");
    let digits: Vec<u32> =
        text.trim().chars().filter(|c| *c != '-').filter_map(|c| c.to_digit(16)).collect();
    let mut id = [0; 16];
    if digits.len() != 32 {
        return Err(bad());
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::try_from(pair[0] * 16 + pair[1]).map_err(|_| bad())?;
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_apart() {
        assert_eq!(parse_release("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(parse_release("5.15.0"), Some((5, 15)));
        assert!(parse_release("5.15.0") < Some(FLOOR));
        assert!(parse_release("10.0-rc1") > Some(FLOOR));
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        let error =
            |errno| StartError::of_ring("setup", io::Error::from_raw_os_error(errno)).to_string();
        assert!(error(libc::ENOSYS).contains("seccomp"));
        assert!(error(libc::ENOMEM).contains("ulimit -l"));
        assert!(error(libc::EMFILE).contains("ulimit -n"));
        assert!(StartError::of_permission(0).to_string().contains("seccomp"));
        assert!(StartError::of_permission(1).to_string().contains("kernel.io_uring_group"));
        assert!(StartError::of_permission(2).to_string().contains("kernel.io_uring_disabled=0"));
        for text in [error(libc::ENOSYS), StartError::of_permission(2).to_string()] {
            assert_eq!(text.lines().count(), 1);
        }
    }

    #[test]
    fn too_many_descriptors_are_refused_by_number() {
        let Err(error) = allow_descriptors(u64::MAX >> 2) else {
            return assert_eq!(getrlimit(Resource::Nofile).maximum, None);
        };
        assert!(matches!(error, StartError::Nofile { .. }), "{error}");
    }

    #[test]
    fn the_boot_id_is_there() {
        assert_ne!(boot_id().expect("proc is mounted"), [0; 16]);
    }
}
