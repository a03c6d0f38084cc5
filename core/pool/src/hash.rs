//! A hasher that is the same in every run, so that runs repeat, and quick: its keys are small
//! numbers of our own, never a peer's.

use core::hash::{BuildHasher, Hasher};

/// Makes [`Mixer`]s.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fixed;

/// Multiplies and folds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mixer(u64);

impl BuildHasher for Fixed {
    type Hasher = Mixer;

    fn build_hasher(&self) -> Mixer {
        Mixer(0)
    }
}

/// An odd number without a pattern: the golden ratio in 64 bits.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Mixes two numbers into one whose bits all depend on all of theirs.
pub(crate) const fn mix(a: u64, b: u64) -> u64 {
    let x = (a ^ b.rotate_left(32)).wrapping_mul(ODD) ^ b;
    let x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x ^ (x >> 32)
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = mix(self.0, n);
    }

    fn finish(&self) -> u64 {
        // The table takes its tag from the upper bits and its place from the lower.
        self.0 ^ (self.0 << 32)
    }
}
