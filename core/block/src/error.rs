//! What the world below can do wrong, reduced to what a decision depends on.

use core::fmt;

/// Why a device or a socket did not do what it was asked.
///
/// The kind is all the core decides by; the errno behind it is logged where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum IoError {
    /// The device failed: EIO and everything that has no better name.
    Device,
    /// A sector could not be read, or read back wrong: ENODATA, EILSEQ.
    Media,
    /// No space left where the data should go: ENOSPC, EDQUOT.
    NoSpace,
    /// The operation was called off before it was done: ECANCELED.
    Cancelled,
    /// The peer broke the connection: ECONNRESET, EPIPE.
    Reset,
    /// Nobody listens there: ECONNREFUSED.
    Refused,
    /// There is no way there: EHOSTUNREACH, ENETUNREACH.
    Unreachable,
    /// No answer in time: ETIMEDOUT.
    TimedOut,
    /// This kernel, file system or device cannot do it: EOPNOTSUPP, ENOSYS, EINVAL.
    Unsupported,
    /// The thing is gone or was never there: ENODEV, ENXIO, EBADF.
    Gone,
}

impl fmt::Display for IoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device error",
            Self::Media => "media error",
            Self::NoSpace => "no space left",
            Self::Cancelled => "cancelled",
            Self::Reset => "connection reset by peer",
            Self::Refused => "connection refused",
            Self::Unreachable => "network unreachable",
            Self::TimedOut => "timed out",
            Self::Unsupported => "not supported",
            Self::Gone => "no such device",
        })
    }
}

impl core::error::Error for IoError {}
