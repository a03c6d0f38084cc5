//! errno to the kinds that the core decides by, in one place.

use braid_block::IoError;
use rustix::io::Errno;

/// The kind of an errno.
pub(crate) const fn kind(errno: Errno) -> IoError {
    match errno {
        Errno::NODATA | Errno::ILSEQ => IoError::Media,
        Errno::NOSPC | Errno::DQUOT => IoError::NoSpace,
        Errno::CANCELED | Errno::INTR => IoError::Cancelled,
        Errno::CONNRESET | Errno::PIPE | Errno::CONNABORTED | Errno::NOTCONN => IoError::Reset,
        Errno::CONNREFUSED => IoError::Refused,
        Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::NETDOWN | Errno::ADDRNOTAVAIL => {
            IoError::Unreachable
        }
        Errno::TIMEDOUT => IoError::TimedOut,
        Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL => IoError::Unsupported,
        Errno::NODEV | Errno::NXIO | Errno::BADF => IoError::Gone,
        _ => IoError::Device,
    }
}

/// What a completion says: a number, or why not.
pub(crate) const fn result(res: i32) -> Result<u32, IoError> {
    if res >= 0 { Ok(res.cast_unsigned()) } else { Err(kind(Errno::from_raw_os_error(-res))) }
}
