//! CRC32Cs of the blocks of a payload, so that one pass over it serves its store and its wire.
//!
//! The CRC of two pieces in a row is the CRC of the first, moved on by the length of the second,
//! xor that of the second. Moving on is linear, so for a whole block it is four look-ups in tables
//! that are computed when the program is built.

/// Bytes of a block that is summed.
pub const SUM_BYTES: u32 = 4096;
/// Blocks of the largest payload.
pub const SUMS_MAX: usize = 32;

/// CRC32C of each 4 KiB block of a payload, as far as they are known.
#[derive(Clone, Debug)]
pub struct Sums {
    known: u32,
    crcs: [u32; SUMS_MAX],
}

impl Sums {
    /// None is known.
    #[must_use]
    pub const fn new() -> Self {
        Self { known: 0, crcs: [0; SUMS_MAX] }
    }

    /// Forgets all of them.
    pub const fn clear(&mut self) {
        self.known = 0;
    }

    /// The CRC of a block by its position in the payload. One that does not exist is ignored.
    pub fn set(&mut self, block: usize, crc: u32) {
        if let Some(place) = self.crcs.get_mut(block) {
            *place = crc;
            self.known |= 1 << block;
        }
    }

    /// The CRC of a block, if it is known.
    #[must_use]
    pub fn get(&self, block: usize) -> Option<u32> {
        let known = block < SUMS_MAX && self.known >> block & 1 != 0;
        if known { self.crcs.get(block).copied() } else { None }
    }

    /// The CRC of a payload of so many bytes, if it is whole blocks and all of them are known.
    #[must_use]
    pub fn of_all(&self, bytes: u32) -> Option<u32> {
        let blocks = (bytes / SUM_BYTES) as usize;
        if !bytes.is_multiple_of(SUM_BYTES) {
            return None;
        }
        (0..blocks).try_fold(0, |crc, block| Some(crc_of_both(crc, self.get(block)?)))
    }
}

impl Default for Sums {
    fn default() -> Self {
        Self::new()
    }
}

/// The CRC32C of a piece and the block behind it, from those of each.
#[must_use]
pub const fn crc_of_both(first: u32, block: u32) -> u32 {
    let [a, b, c, d] = first.to_le_bytes();
    MOVED[0][a as usize]
        ^ MOVED[1][b as usize]
        ^ MOVED[2][c as usize]
        ^ MOVED[3][d as usize]
        ^ block
}

/// The polynomial of CRC32C, its highest power left out, the lowest in the highest bit.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// What each byte of a CRC becomes behind a block of zeros.
static MOVED: [[u32; 256]; 4] = moved();

const fn moved() -> [[u32; 256]; 4] {
    // What a CRC becomes behind `n` bits is its product with x^n.
    let factor = power_of_x(SUM_BYTES * 8);
    let mut tables = [[0; 256]; 4];
    let mut place = 0;
    while place < 4 {
        let mut byte = 0;
        while byte < 256 {
            tables[place][byte] = product((byte as u32) << (8 * place), factor);
            byte += 1;
        }
        place += 1;
    }
    tables
}

/// x^n modulo the polynomial, for a power of two.
const fn power_of_x(mut n: u32) -> u32 {
    let mut power = 1 << 30;
    while n > 1 {
        power = product(power, power);
        n /= 2;
    }
    power
}

/// The product of two remainders: one is added for every power of x in the other.
const fn product(mut one: u32, other: u32) -> u32 {
    let (mut sum, mut bit) = (0, 1 << 31);
    while bit != 0 {
        if other & bit != 0 {
            sum ^= one;
        }
        one = if one & 1 != 0 { one >> 1 ^ POLYNOMIAL } else { one >> 1 };
        bit >>= 1;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC32C, bit by bit.
    fn crc(bytes: impl Iterator<Item = u8>) -> u32 {
        !bytes.fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                if crc & 1 != 0 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 }
            })
        })
    }

    fn payload(blocks: u32) -> impl Iterator<Item = u8> {
        (0..blocks * SUM_BYTES).map(|i| (i.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
    }

    #[test]
    fn the_sums_of_blocks_give_the_sum_of_the_payload() {
        assert_eq!(crc(b"123456789".iter().copied()), 0xe306_9283, "the check value of CRC32C");
        let mut sums = Sums::new();
        for blocks in 1..=3 {
            let last = payload(blocks).skip(((blocks - 1) * SUM_BYTES) as usize);
            sums.set(blocks as usize - 1, crc(last));
            assert_eq!(sums.of_all(blocks * SUM_BYTES), Some(crc(payload(blocks))));
        }
    }

    #[test]
    fn a_payload_with_an_unknown_block_or_a_part_of_one_has_no_sum() {
        let mut sums = Sums::new();
        sums.set(1, 7);
        sums.set(SUMS_MAX, 7);
        assert_eq!(sums.of_all(2 * SUM_BYTES), None);
        sums.set(0, 5);
        assert!(sums.of_all(2 * SUM_BYTES).is_some());
        assert_eq!(sums.of_all(SUM_BYTES), Some(5));
        assert_eq!(sums.of_all(SUM_BYTES + 512), None);
        assert_eq!((sums.get(1), sums.get(2), sums.get(99)), (Some(7), None, None));
        sums.clear();
        assert_eq!(sums.get(1), None);
    }
}
