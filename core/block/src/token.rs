//! The name under which an effect's completion comes back.

use crate::Key;

/// `generation 32 | kind 8 | index 24`: enough to find the table and the entry, and to recognise
/// a completion that is too late. What the kinds mean is the shard's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(u64);

impl Token {
    /// Largest index a token can carry.
    pub const INDEX_MAX: u32 = (1 << 24) - 1;

    /// A token for an entry of the table `kind`.
    #[must_use]
    pub const fn new(kind: u8, key: Key) -> Self {
        assert!(key.index <= Self::INDEX_MAX);
        Self((key.generation as u64) << 32 | (kind as u64) << 24 | key.index as u64)
    }

    /// Which table.
    #[must_use]
    pub const fn kind(self) -> u8 {
        self.0.to_le_bytes()[3]
    }

    /// Which entry.
    #[must_use]
    pub const fn key(self) -> Key {
        let [a, b, c, _, g @ ..] = self.0.to_le_bytes();
        Key { index: u32::from_le_bytes([a, b, c, 0]), generation: u32::from_le_bytes(g) }
    }

    /// The bits, for a kernel that carries 64 of them.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The token with these bits.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_gives_back_what_it_was_made_of() {
        let key = Key { index: 0x00ab_cdef, generation: 0xfedc_ba98 };
        let token = Token::new(7, key);
        assert_eq!((token.kind(), token.key()), (7, key));
        assert_eq!(Token::from_bits(token.to_bits()), token);
    }
}
