//! Why a reactor does not start, in words that say what to do.

use std::io;

use rustix::io::Errno;

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

impl StartError {
    pub(crate) fn system(what: &'static str, errno: Errno) -> Self {
        Self::System { what, source: errno.into() }
    }
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
