//! What nobody can foresee, from a seed that nobody knows: challenges and exponents.
//!
//! Invariants:
//! 1. Nothing that it gave can be computed from what it keeps.

use core::fmt;

use super::hash::Hash;

/// HMAC-SHA-512 in a chain: the first half of each link is the next key, the second is given out.
#[derive(Clone)]
pub struct Generator {
    key: [u8; 32],
}

impl Generator {
    /// With a seed of the operating system's; the same one gives the same.
    #[must_use]
    pub const fn new(seed: [u8; 32]) -> Self {
        Self { key: seed }
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for piece in out.chunks_mut(32) {
            let link = Hash::Sha512.hmac(&self.key, &[b"next"]);
            self.key.copy_from_slice(&link[..32]);
            piece.copy_from_slice(&link[32..32 + piece.len()]);
        }
    }

    /// So many bytes.
    #[must_use]
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// A number that is not zero.
    #[must_use]
    pub fn number(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes()).max(1)
    }
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generator").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_chain_of_bytes_that_do_not_come_again() {
        let (mut one, mut same) = (Generator::new([1; 32]), Generator::new([1; 32]));
        let first: [u8; 64] = one.bytes();
        assert_eq!(first, same.bytes());
        assert_ne!(first[..32], first[32..]);
        assert_ne!(first, one.bytes());
        assert_ne!(first, Generator::new([2; 32]).bytes());
    }

    #[test]
    fn what_it_keeps_is_not_shown() {
        assert_eq!(alloc::format!("{:?}", Generator::new([7; 32])), "Generator { .. }");
    }
}
