//! What a disk says about its pool without being opened: enough to recognise it, and to name who
//! has it. What is read here is believed only as far as a message goes; a pool is opened by
//! `core/pool`, which checks everything.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where the marks of a superblock are, in bytes from its beginning; `docs/pool-format.md`.
const MAGIC_OFFSET: usize = 32;
const UUID_OFFSET: usize = 64;
const OWNER_OFFSET: usize = 152;
const OWNER_BYTES: usize = 64;
const FEATURES_OFFSET: usize = 48;
const BIRTH_OFFSET: usize = 1272;
const LSN_OFFSET: usize = 16;
/// The feature whose pools bear a birth, which is never zero.
const BIRTH: u8 = 1;
/// Begins the content of every superblock.
pub const MAGIC: &[u8] = b"BRAIDPL1";
/// Bytes of a superblock. Two stand at the beginning of a disk.
const BYTES: usize = 4096;

/// Bytes of the header of a page, which begins with its kind and its own place on the disk.
const HEADER_BYTES: usize = 32;
/// Kinds of the pages that are written before the superblocks of a new pool: the root, and the
/// bitmaps of its slabs.
const MADE_FIRST: [u32; 3] = [2, 8, 9];

/// What a superblock says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Identity of the pool.
    pub uuid: [u8; 16],
    /// Who opened it last.
    pub owner: String,
}

/// Reads the superblocks at the beginning of a disk, as far as they are there.
#[must_use]
pub fn read(path: &Path) -> Option<Found> {
    let file = File::open(path).ok()?;
    let mut pair = [0; 2 * BYTES];
    file.read_exact_at(&mut pair, 0).ok()?;
    let (first, second) = pair.split_at(BYTES);
    // The one with the higher number is the newer; it stands in the header (lsn).
    let number = |slot: &[u8]| slot.get(16..24).map(|lsn| lsn.iter().rev().copied().collect());
    let number = |slot: &[u8]| -> Vec<u8> { number(slot).unwrap_or_default() };
    match (parse(first), parse(second)) {
        (Some(_), Some(newer)) if number(second) > number(first) => Some(newer),
        (older, newer) => older.or(newer),
    }
}

/// Where the superblocks at the end of a disk of so many bytes are, if a pool takes all of it; none
/// if it is too small for any.
#[must_use]
pub const fn copies(size: u64) -> Option<[u64; 2]> {
    let block = BYTES as u64;
    match (size / block * block).checked_sub(2 * block) {
        Some(first) => Some([first, first + block]),
        None => None,
    }
}

/// Whether this beginning of a disk holds nothing but what a pool begins with that was never
/// finished: empty pages at their places, and at most parts of its superblocks. The first change
/// of a pool writes its journal, which stands here too: so there is nothing to lose.
#[must_use]
pub fn is_half_made(head: &[u8]) -> bool {
    let Some((superblocks, rest)) = head.split_at_checked(2 * BYTES) else { return false };
    let places = (2 * BYTES as u64..).step_by(BYTES);
    let mut pages = places.zip(rest.chunks(BYTES)).filter(|(_, page)| !is_zero(page)).peekable();
    // The pages are on the media before a superblock is begun.
    pages.peek().is_some()
        && pages.all(|(place, page)| is_made_first(place, page))
        && superblocks.chunks(BYTES).all(|slot| is_zero(slot) || is_torn_first(slot))
}

/// Whether a slot holds a part of the first superblock of a pool, which a power cut left: without
/// its birth, or nothing else.
fn is_torn_first(slot: &[u8]) -> bool {
    let (before, after) = slot.split_at(BIRTH_OFFSET);
    let (birth, after) = after.split_at(8);
    if !is_zero(after) {
        return false;
    }
    let begun = slot[MAGIC_OFFSET..].starts_with(MAGIC)
        && is_zero(&slot[LSN_OFFSET..LSN_OFFSET + 8])
        && is_zero(&slot[OWNER_OFFSET..OWNER_OFFSET + OWNER_BYTES]);
    if is_zero(birth) { begun && slot[FEATURES_OFFSET] & BIRTH != 0 } else { is_zero(before) }
}

fn is_made_first(place: u64, page: &[u8]) -> bool {
    let Some((header, content)) = page.split_at_checked(HEADER_BYTES) else { return false };
    let kind = header.first_chunk().copied().map(u32::from_le_bytes);
    let address = header[8..].first_chunk().copied().map(u64::from_le_bytes);
    let is_first = kind.is_some_and(|kind| MADE_FIRST.contains(&kind));
    is_first && address == Some(place) && is_zero(content)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn parse(slot: &[u8]) -> Option<Found> {
    if !slot.get(MAGIC_OFFSET..)?.starts_with(MAGIC) || is_torn_first(slot) {
        return None;
    }
    let uuid = slot.get(UUID_OFFSET..UUID_OFFSET + 16)?.try_into().ok()?;
    let owner = slot.get(OWNER_OFFSET..OWNER_OFFSET + OWNER_BYTES)?;
    let end = owner.iter().position(|byte| *byte == 0).unwrap_or(OWNER_BYTES);
    let owner = String::from_utf8_lossy(&owner[..end]);
    let owner = owner.chars().filter(|c| !c.is_control()).collect();
    Some(Found { uuid, owner })
}
