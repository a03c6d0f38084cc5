//! A comparison of a replica's blocks, made of reads: whole transfers at first, single blocks
//! where one of them could not be read or verified.

use braid_nexus::wire::{BLOCK, Comparison, Content, Refusal, TRANSFER_MAX, comparison_bytes};
use braid_pool::{Done, Handle};

use crate::random::mix;

/// A range that is read at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) offset: u64,
    pub(crate) len: u32,
}

/// A comparison in work.
#[derive(Debug)]
pub(crate) struct Comparing {
    pub(crate) handle: Handle,
    offset: u64,
    pub(crate) len: u32,
    bytes: Vec<u8>,
    /// Parts that are being read.
    out: usize,
    refusal: Option<Refusal>,
}

impl Comparing {
    /// A comparison of this range, and what is to be read for it.
    pub(crate) fn new(handle: Handle, offset: u64, len: u32) -> (Self, Vec<Part>) {
        let bytes = vec![0; comparison_bytes(len) as usize];
        let parts = cut(Part { offset, len }, TRANSFER_MAX);
        let out = parts.len();
        (Self { handle, offset, len, bytes, out, refusal: None }, parts)
    }

    /// A part was read, or not; what is to be read instead.
    pub(crate) fn take(
        &mut self,
        part: Part,
        bytes: &[u8],
        result: Result<Done, Refusal>,
    ) -> Vec<Part> {
        self.out -= 1;
        let single = u64::from(part.len) == BLOCK;
        let content: fn(&[u8]) -> Content = match result {
            Ok(Done { unverified: 0, .. }) => verified,
            Ok(_) if single => |bytes| Content::Unverified(hash(bytes)),
            Err(Refusal::Media(_)) if single => |_| Content::Bad,
            Ok(_) | Err(Refusal::Media(_)) => {
                let blocks = cut(part, BLOCK as u32);
                self.out += blocks.len();
                return blocks;
            }
            Err(refusal) => {
                self.refusal = Some(refusal);
                return Vec::new();
            }
        };
        let blocks = self.len as usize / BLOCK as usize;
        let first = usize::try_from((part.offset - self.offset) / BLOCK).expect("in a region");
        let read = bytes[..part.len as usize].chunks_exact(BLOCK as usize);
        for (at, block) in (first..).zip(read) {
            Comparison::put(&mut self.bytes, blocks, at, content(block));
        }
        Vec::new()
    }

    /// Whether nothing is being read for it any more.
    pub(crate) const fn is_done(&self) -> bool {
        self.out == 0
    }

    /// The answer.
    pub(crate) fn result(self) -> Result<Vec<u8>, Refusal> {
        self.refusal.map_or(Ok(self.bytes), Err)
    }
}

/// Cuts a range.
fn cut(part: Part, most: u32) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut done = 0;
    while done < part.len {
        let len = (part.len - done).min(most);
        parts.push(Part { offset: part.offset + u64::from(done), len });
        done += len;
    }
    parts
}

fn verified(bytes: &[u8]) -> Content {
    if bytes.iter().all(|byte| *byte == 0) { Content::Zero } else { Content::Verified(hash(bytes)) }
}

/// 128 bits of a block's content: two mixes of every word, that depend on its place.
fn hash(bytes: &[u8]) -> u128 {
    let (mut low, mut high) = (0_u64, !0_u64);
    for word in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        low = mix(low.rotate_left(5) ^ word);
        high = mix(high.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(word));
    }
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIT: u32 = BLOCK as u32;

    #[test]
    fn only_what_was_not_verified_is_read_by_blocks() {
        let (mut comparing, parts) = Comparing::new(Handle(0), 1 << 20, 3 * UNIT);
        assert_eq!(parts.len(), 1);
        let mut bytes = vec![0; 3 * UNIT as usize];
        bytes[UNIT as usize] = 1;
        let done = Done { unverified: 1, ..Done::default() };
        let again = comparing.take(parts[0], &bytes, Ok(done));
        assert_eq!(again.len(), 3);
        for (part, block) in again.iter().zip(bytes.chunks_exact(UNIT as usize)) {
            let result = match part.offset - (1 << 20) {
                0 => Ok(Done::default()),
                4096 => Ok(done),
                _ => Err(Refusal::Media(part.offset)),
            };
            assert!(!comparing.is_done());
            assert!(comparing.take(*part, block, result).is_empty());
        }
        assert!(comparing.is_done());
        let answer = comparing.result().unwrap();
        let answer = Comparison::of(&answer, 3 * UNIT).unwrap();
        assert_eq!(answer.block(0), Some(Content::Zero));
        assert!(matches!(answer.block(1), Some(Content::Unverified(_))));
        assert_eq!(answer.block(2), Some(Content::Bad));
    }

    #[test]
    fn a_device_that_failed_is_no_answer() {
        let (mut comparing, parts) = Comparing::new(Handle(0), 0, 64 * UNIT);
        assert_eq!(parts.len(), 2);
        let bytes = vec![7; TRANSFER_MAX as usize];
        assert!(comparing.take(parts[0], &bytes, Ok(Done::default())).is_empty());
        assert!(comparing.take(parts[1], &bytes, Err(Refusal::Failed)).is_empty());
        assert_eq!(comparing.result(), Err(Refusal::Failed));
    }

    #[test]
    fn blocks_with_the_same_words_in_another_order_differ() {
        let (mut one, mut other) = ([0; BLOCK as usize], [0; BLOCK as usize]);
        one[0] = 1;
        other[8] = 1;
        assert_ne!(hash(&one), hash(&other));
        assert_eq!(hash(&one), hash(&one.clone()));
    }
}
