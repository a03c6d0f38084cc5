//! What a pool asks of its disk, and what it is told back.

use braid_block::{IoError, Span, Token};

/// One thing to do to the pool's disk. Order means nothing: what must follow is emitted after
/// `Done`. Each is answered by exactly one [`Event::Done`].
#[derive(Clone, Copy, Debug)]
pub enum Effect {
    /// Read into a buffer.
    Read {
        /// Comes back with the completion.
        token: Token,
        /// To where; offset and length are multiples of the device's sector.
        span: Span,
        /// First byte on the device.
        offset: u64,
    },
    /// Write from a buffer.
    Write {
        /// Comes back with the completion.
        token: Token,
        /// From where.
        span: Span,
        /// First byte on the device.
        offset: u64,
    },
    /// Make every write that was done before this was emitted durable.
    Sync {
        /// Comes back with the completion.
        token: Token,
    },
    /// Give a range's space back to the device; its result means nothing.
    Discard {
        /// Comes back with the completion.
        token: Token,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

impl Effect {
    /// Under which its completion comes.
    pub(crate) const fn token(&self) -> Token {
        match self {
            Self::Read { token, .. }
            | Self::Write { token, .. }
            | Self::Sync { token }
            | Self::Discard { token, .. } => *token,
        }
    }
}

const _: () = assert!(size_of::<Effect>() <= 40);

/// One thing that happened to the pool's disk, or the clock.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// An effect is done.
    Done {
        /// As given with the effect.
        token: Token,
        /// Bytes moved, or why not.
        result: Result<u32, IoError>,
    },
    /// The deadline that `poll_timeout` announced has passed.
    Elapsed,
}
