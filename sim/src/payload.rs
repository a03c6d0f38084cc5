//! What a write puts into a sector, so that a sector says which write it is from and where it
//! belongs; and what a sector that was read says.

use crate::random::mix;

/// Bytes of the smallest unit a volume is specified in.
pub const SECTOR: usize = 512;

/// What a sector says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// All zero.
    Zero,
    /// Whole, from the write with this number, for this sector of a volume.
    Written {
        /// The number of the write.
        write: u32,
        /// The sector it was written to.
        sector: u64,
    },
    /// Neither.
    Garbage,
}

/// Fills a sector's bytes.
///
/// # Panics
/// If the write's number is zero, or the sector's is over 2^32.
pub fn fill(bytes: &mut [u8], write: u32, sector: u64) {
    assert!(write != 0 && sector >> 32 == 0, "a sector that cannot be named");
    let mut word = u64::from(write) << 32 | sector;
    let step = mix(word) | 1;
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word.to_le_bytes());
        word = word.wrapping_add(step);
    }
}

/// Reads a sector's bytes.
#[must_use]
pub fn said(bytes: &[u8]) -> Said {
    let words = bytes.chunks_exact(8).map(|w| u64::from_le_bytes(w.try_into().expect("8 bytes")));
    let first = words.clone().next().unwrap_or(0);
    let step = if first == 0 { 0 } else { mix(first) | 1 };
    let mut expected = first;
    let whole = words.fold(true, |whole, word| {
        let fits = word == expected;
        expected = expected.wrapping_add(step);
        whole & fits
    });
    match (whole, first) {
        (false, _) => Said::Garbage,
        (true, 0) => Said::Zero,
        (true, first) => {
            let write = (first >> 32) as u32;
            if write == 0 {
                return Said::Garbage;
            }
            Said::Written { write, sector: first & 0xffff_ffff }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_says_what_was_put_in_and_a_flipped_bit_shows() {
        let mut bytes = [0; SECTOR];
        assert_eq!(said(&bytes), Said::Zero);
        fill(&mut bytes, 9, 77);
        assert_eq!(said(&bytes), Said::Written { write: 9, sector: 77 });
        for bit in [0, 33, 70, SECTOR * 8 - 1] {
            let mut broken = bytes;
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(said(&broken), Said::Garbage);
        }
        let mut torn = bytes;
        torn[256..].fill(0);
        assert_eq!(said(&torn), Said::Garbage);
    }
}
