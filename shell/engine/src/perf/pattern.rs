//! What a verifying load writes: blocks that say where they belong and how often they were
//! written.
//!
//! ```text
//! 0        8            24       32          40      48
//! | magic  | namespace  | LBA    | generation| run   | noise that follows from all of them ..
//! ```
//! Every logical block carries it, so that a torn write is seen. The noise fills the block, so
//! that a single wrong bit is seen too.

use std::fmt;

const MAGIC: [u8; 8] = *b"BRAIDPAT";
const HEADER_BYTES: usize = 48;

/// Fills and checks the blocks of one namespace.
#[derive(Clone, Copy, Debug)]
pub struct Pattern {
    /// Which namespace: its UUID or NGUID.
    pub namespace: [u8; 16],
    /// Tells runs apart.
    pub run: u64,
    /// Bytes of a logical block.
    pub block_bytes: u32,
}

/// What a block should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// What this run wrote last.
    Generation(u64),
    /// What any run wrote here, or zeros: this run has not written it.
    Any,
    /// The same, or something else entirely: it is not known that a run wrote here.
    Unknown,
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    namespace: [u8; 16],
    lba: u64,
    generation: u64,
    run: u64,
}

/// A block that does not hold what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which block.
    pub lba: u64,
    /// What it should hold.
    pub expected: String,
    /// What it holds.
    pub found: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LBA {}: expected {}, found {}", self.lba, self.expected, self.found)
    }
}

impl Pattern {
    /// Fills `data` with blocks from `lba` on.
    pub fn fill(&self, data: &mut [u8], lba: u64, generation: u64) {
        for (lba, block) in (lba..).zip(data.chunks_exact_mut(self.block_bytes as usize)) {
            let stamp = Stamp { namespace: self.namespace, lba, generation, run: self.run };
            stamp.fill(block);
        }
    }

    /// Checks blocks from `lba` on.
    ///
    /// # Errors
    /// The first block that does not hold what it should.
    pub fn check(&self, data: &[u8], lba: u64, expected: Expected) -> Result<(), Mismatch> {
        for (lba, block) in (lba..).zip(data.chunks_exact(self.block_bytes as usize)) {
            match expected {
                Expected::Generation(generation) => self.check_own(block, lba, generation)?,
                Expected::Any => self.check_any(block, lba)?,
                Expected::Unknown if Stamp::read(block).is_none() => {}
                Expected::Unknown => self.check_any(block, lba)?,
            }
        }
        Ok(())
    }

    fn check_own(&self, block: &[u8], lba: u64, generation: u64) -> Result<(), Mismatch> {
        let own = Stamp { namespace: self.namespace, lba, generation, run: self.run };
        match own.first_difference(block) {
            None => Ok(()),
            Some(at) => {
                Err(Mismatch { lba, expected: own.to_string(), found: describe(block, own, at) })
            }
        }
    }

    fn check_any(&self, block: &[u8], lba: u64) -> Result<(), Mismatch> {
        let wrong = |found| Mismatch { lba, expected: "its own pattern, or zeros".into(), found };
        let Some(stamp) = Stamp::read(block) else {
            let zeros = block.iter().all(|&byte| byte == 0);
            return if zeros { Ok(()) } else { Err(wrong("data that no pattern made".into())) };
        };
        if (stamp.namespace, stamp.lba) != (self.namespace, lba) {
            return Err(wrong(stamp.to_string()));
        }
        match stamp.first_difference(block) {
            None => Ok(()),
            Some(at) => Err(wrong(describe(block, stamp, at))),
        }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, lba, generation, run } = self;
        let namespace = uuid::Uuid::from_bytes(*namespace);
        write!(f, "LBA {lba} generation {generation} of namespace {namespace}, run {run:016x}")
    }
}

impl Stamp {
    fn header(self) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..8].copy_from_slice(&MAGIC);
        header[8..24].copy_from_slice(&self.namespace);
        header[24..32].copy_from_slice(&self.lba.to_le_bytes());
        header[32..40].copy_from_slice(&self.generation.to_le_bytes());
        header[40..48].copy_from_slice(&self.run.to_le_bytes());
        header
    }

    fn read(block: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(*block.get(at..)?.first_chunk()?));
        if !block.starts_with(&MAGIC) {
            return None;
        }
        Some(Self {
            namespace: *block.get(8..)?.first_chunk()?,
            lba: number(24)?,
            generation: number(32)?,
            run: number(40)?,
        })
    }

    fn fill(self, block: &mut [u8]) {
        let (header, noise) = block.split_at_mut(HEADER_BYTES);
        header.copy_from_slice(&self.header());
        let mut words = self.noise();
        for word in noise.as_chunks_mut::<8>().0 {
            *word = words.next_word();
        }
    }

    /// The first byte that is not as [`Stamp::fill`] makes it.
    fn first_difference(self, block: &[u8]) -> Option<usize> {
        let (header, noise) = block.split_at(HEADER_BYTES);
        let own = self.header();
        if header != own {
            return header.iter().zip(own).position(|(found, own)| *found != own);
        }
        let mut words = self.noise();
        let wrong = noise.as_chunks::<8>().0.iter().position(|word| *word != words.next_word());
        wrong.map(|word| HEADER_BYTES + word * 8)
    }

    fn noise(self) -> Noise {
        let mut seed = self.run ^ self.lba.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        seed ^= self.generation.rotate_left(32);
        // The generator stands still at zero.
        Noise(seed | 1)
    }
}

/// xorshift64*: a word costs under a nanosecond, so checking does not become the load.
struct Noise(u64);

impl Noise {
    fn next_word(&mut self) -> [u8; 8] {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    }
}

fn describe(block: &[u8], expected: Stamp, at: usize) -> String {
    match Stamp::read(block) {
        _ if block.iter().all(|&byte| byte == 0) => "zeros".into(),
        Some(stamp) if stamp != expected => stamp.to_string(),
        Some(_) => format!("the right stamp, but wrong bytes from byte {at} of the block on"),
        None => format!("data that no pattern made, from byte {at} of the block on"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATTERN: Pattern = Pattern { namespace: [7; 16], run: 42, block_bytes: 512 };

    fn filled(lba: u64, generation: u64) -> Vec<u8> {
        let mut data = vec![0; 2048];
        PATTERN.fill(&mut data, lba, generation);
        data
    }

    #[test]
    fn what_was_filled_is_found() {
        let data = filled(100, 3);
        assert_eq!(PATTERN.check(&data, 100, Expected::Generation(3)), Ok(()));
        assert_eq!(PATTERN.check(&data, 100, Expected::Any), Ok(()));
        assert_eq!(PATTERN.check(&[0; 512], 100, Expected::Any), Ok(()));
    }

    #[test]
    fn a_mismatch_names_block_expectation_and_finding() {
        let check = |data: &[u8], lba| {
            let mismatch = PATTERN.check(data, lba, Expected::Generation(3)).unwrap_err();
            (mismatch.lba, mismatch.found)
        };
        let stale = check(&filled(100, 2), 100);
        assert!(stale.0 == 100 && stale.1.starts_with("LBA 100 generation 2"), "{stale:?}");
        let misplaced = check(&filled(101, 3), 100);
        assert!(misplaced.1.starts_with("LBA 101 generation 3"), "{misplaced:?}");
        assert_eq!(check(&[0; 512], 100), (100, "zeros".into()));
        let mut torn = filled(100, 3);
        torn[1536..].copy_from_slice(&filled(100, 2)[1536..]);
        assert_eq!(check(&torn, 100).0, 103);
        let mut flipped = filled(100, 3);
        flipped[512 + 301] ^= 4;
        let flipped = check(&flipped, 100);
        assert!(flipped.0 == 101 && flipped.1.contains("from byte 296"), "{flipped:?}");
        assert!(check(&[0x55; 512], 100).1.contains("no pattern made"));
    }

    #[test]
    fn what_another_run_left_is_checked_by_its_own_stamp() {
        let mut data = filled(5, 9);
        assert!(PATTERN.check(&data, 6, Expected::Any).unwrap_err().found.starts_with("LBA 5"));
        data[511] ^= 1;
        assert!(PATTERN.check(&data, 5, Expected::Any).is_err());
        assert_eq!(PATTERN.check(&[0x55; 512], 5, Expected::Unknown), Ok(()));
        assert!(PATTERN.check(&data, 5, Expected::Unknown).is_err());
        let other = Pattern { run: 43, ..PATTERN };
        assert_eq!(other.check(&filled(5, 9), 5, Expected::Any), Ok(()));
    }
}
