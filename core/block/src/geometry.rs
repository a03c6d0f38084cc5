//! Units: block sizes, extents, and the size of a namespace.

/// Size of a logical block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockSize {
    /// 512 bytes, for hosts and file systems that need it.
    B512,
    /// 4096 bytes, the default.
    B4096,
}

impl BlockSize {
    /// The size for a number of bytes, if it is one we serve.
    #[must_use]
    pub const fn from_bytes(bytes: u32) -> Option<Self> {
        match bytes {
            512 => Some(Self::B512),
            4096 => Some(Self::B4096),
            _ => None,
        }
    }

    /// Bytes in a block.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        1 << self.shift()
    }

    /// log2 of the bytes in a block (LBADS of the NVMe LBA format).
    #[must_use]
    pub const fn shift(self) -> u32 {
        match self {
            Self::B512 => 9,
            Self::B4096 => 12,
        }
    }
}

/// Size and block size of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Logical block size.
    pub block: BlockSize,
    /// Number of logical blocks (NSZE).
    pub blocks: u64,
}

impl Geometry {
    /// The whole blocks that fit in `bytes`.
    #[must_use]
    pub const fn of_bytes(bytes: u64, block: BlockSize) -> Self {
        Self { block, blocks: bytes >> block.shift() }
    }

    /// Bytes in the namespace.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.blocks << self.block.shift()
    }

    /// The extent of `count` blocks from `first`, unless it leaves the namespace.
    ///
    /// `count` may be zero. The arithmetic cannot overflow: the bounds are checked in blocks first.
    #[must_use]
    pub const fn extent(self, first: u64, count: u64) -> Option<Extent> {
        match first.checked_add(count) {
            Some(end) if end <= self.blocks => Some(Extent {
                offset: first << self.block.shift(),
                len: count << self.block.shift(),
            }),
            _ => None,
        }
    }
}

/// A byte range of a namespace, block aligned and inside it by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub len: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extent_past_the_end_or_past_u64_is_refused() {
        let g = Geometry::of_bytes(1 << 20, BlockSize::B4096);
        assert_eq!(g.extent(255, 1), Some(Extent { offset: 255 << 12, len: 4096 }));
        assert_eq!(g.extent(256, 0), Some(Extent { offset: 256 << 12, len: 0 }));
        assert_eq!(g.extent(255, 2), None);
        assert_eq!(g.extent(u64::MAX, 2), None);
        assert_eq!(g.extent(1 << 60, 1), None);
    }
}
