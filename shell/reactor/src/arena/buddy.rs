//! Which pieces of the arena are free: 128 KiB blocks, split by eight into 16 KiB, those by four
//! into 4 KiB, and merged back as soon as they are whole again, so that no class starves another.
//!
//! Invariants:
//! 1. A block is on the list of free blocks, or leased whole, or split. A split one has a mask of
//!    its free parts, and is on the list of partial ones exactly while the mask is not empty.
//! 2. A split block whose parts are all free does not exist: it was merged.
//! 3. A smaller class takes from a split block before it splits another.

use braid_block::Class;

const NONE: u32 = u32::MAX;
const SMALLS: u32 = Class::Medium.bytes() / Class::Small.bytes();
const MEDIUMS: u32 = Class::Large.bytes() / Class::Medium.bytes();
/// Units of 4 KiB, the index of everything, in a 128 KiB block.
pub(super) const UNITS: u32 = SMALLS * MEDIUMS;

/// A piece that may be split: its free parts and its neighbours in the list it is on.
#[derive(Clone, Copy)]
struct Piece {
    free: u8,
    prev: u32,
    next: u32,
}

/// All pieces of a size, and the head of the list of partial ones.
struct Level {
    pieces: Box<[Piece]>,
    partial: u32,
    parts: u32,
}

/// The free pieces of all live chunks.
pub(super) struct Buddy {
    mediums: Level,
    larges: Level,
    whole: u32,
    used: Box<[u32]>,
    blocks_per_chunk: u32,
}

impl Buddy {
    /// For `chunks` chunks of `blocks_per_chunk` blocks of 128 KiB, none live yet.
    pub(super) fn new(chunks: u32, blocks_per_chunk: u32) -> Self {
        let blocks = chunks * blocks_per_chunk;
        Self {
            mediums: Level::new(blocks * MEDIUMS, SMALLS),
            larges: Level::new(blocks, MEDIUMS),
            whole: NONE,
            used: vec![0; chunks as usize].into(),
            blocks_per_chunk,
        }
    }

    /// Makes a chunk's blocks free; the first will be taken first.
    pub(super) fn grow(&mut self, chunk: u32) {
        let first = chunk * self.blocks_per_chunk;
        for block in (first..first + self.blocks_per_chunk).rev() {
            link(&mut self.larges.pieces, &mut self.whole, block);
        }
    }

    /// Whether nothing of the chunk is in use.
    pub(super) fn is_idle(&self, chunk: u32) -> bool {
        self.used[chunk as usize] == 0
    }

    /// Takes an idle chunk's blocks away.
    pub(super) fn shrink(&mut self, chunk: u32) {
        assert!(self.is_idle(chunk));
        let first = chunk * self.blocks_per_chunk;
        for block in first..first + self.blocks_per_chunk {
            unlink(&mut self.larges.pieces, &mut self.whole, block);
        }
    }

    /// The first unit of a free piece of this class, which is free no more.
    pub(super) fn take(&mut self, class: Class) -> Option<u32> {
        match class {
            Class::Small => self.take_small(),
            Class::Medium => self.take_medium().map(|medium| medium * SMALLS),
            Class::Large => self.take_large().map(|large| large * UNITS),
        }
    }

    /// Gives back a piece of this class.
    pub(super) fn give(&mut self, class: Class, unit: u32) {
        match class {
            Class::Small => {
                let medium = unit / SMALLS;
                if self.mediums.give(medium, unit % SMALLS) {
                    self.give_medium(medium);
                }
            }
            Class::Medium => self.give_medium(unit / SMALLS),
            Class::Large => self.give_large(unit / UNITS),
        }
    }

    fn take_small(&mut self) -> Option<u32> {
        if let Some((medium, part)) = self.mediums.take() {
            return Some(medium * SMALLS + part);
        }
        let medium = self.take_medium()?;
        self.mediums.split(medium);
        Some(medium * SMALLS)
    }

    fn take_medium(&mut self) -> Option<u32> {
        if let Some((large, part)) = self.larges.take() {
            return Some(large * MEDIUMS + part);
        }
        let large = self.take_large()?;
        self.larges.split(large);
        Some(large * MEDIUMS)
    }

    fn take_large(&mut self) -> Option<u32> {
        let large = self.whole;
        if large == NONE {
            return None;
        }
        unlink(&mut self.larges.pieces, &mut self.whole, large);
        self.used[(large / self.blocks_per_chunk) as usize] += 1;
        Some(large)
    }

    fn give_medium(&mut self, medium: u32) {
        let large = medium / MEDIUMS;
        if self.larges.give(large, medium % MEDIUMS) {
            self.give_large(large);
        }
    }

    fn give_large(&mut self, large: u32) {
        link(&mut self.larges.pieces, &mut self.whole, large);
        self.used[(large / self.blocks_per_chunk) as usize] -= 1;
    }
}

impl Level {
    fn new(pieces: u32, parts: u32) -> Self {
        let piece = Piece { free: 0, prev: NONE, next: NONE };
        Self { pieces: vec![piece; pieces as usize].into(), partial: NONE, parts }
    }

    /// A free part of a split piece.
    fn take(&mut self) -> Option<(u32, u32)> {
        let index = self.partial;
        if index == NONE {
            return None;
        }
        let piece = &mut self.pieces[index as usize];
        let part = piece.free.trailing_zeros();
        piece.free &= piece.free - 1;
        if piece.free == 0 {
            unlink(&mut self.pieces, &mut self.partial, index);
        }
        Some((index, part))
    }

    /// Splits a piece; its first part is taken at once.
    fn split(&mut self, index: u32) {
        self.pieces[index as usize].free = self.all() & !1;
        link(&mut self.pieces, &mut self.partial, index);
    }

    /// Gives a part back; true when the piece is whole again and on no list.
    fn give(&mut self, index: u32, part: u32) -> bool {
        let all = self.all();
        let piece = &mut self.pieces[index as usize];
        let before = piece.free;
        piece.free |= 1 << part;
        debug_assert_ne!(before, piece.free, "a part is given back twice");
        if piece.free == all {
            piece.free = 0;
            unlink(&mut self.pieces, &mut self.partial, index);
            return true;
        }
        if before == 0 {
            link(&mut self.pieces, &mut self.partial, index);
        }
        false
    }

    const fn all(&self) -> u8 {
        u8::MAX >> (u8::BITS - self.parts)
    }
}

fn link(pieces: &mut [Piece], head: &mut u32, index: u32) {
    let next = *head;
    if next != NONE {
        pieces[next as usize].prev = index;
    }
    let piece = &mut pieces[index as usize];
    (piece.prev, piece.next) = (NONE, next);
    *head = index;
}

fn unlink(pieces: &mut [Piece], head: &mut u32, index: u32) {
    let Piece { prev, next, .. } = pieces[index as usize];
    if prev == NONE {
        *head = next;
    } else {
        pieces[prev as usize].next = next;
    }
    if next != NONE {
        pieces[next as usize].prev = prev;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(buddy: &mut Buddy, class: Class) -> Vec<u32> {
        std::iter::from_fn(|| buddy.take(class)).collect()
    }

    #[test]
    fn each_class_can_have_everything_after_any_other_gave_it_back() {
        let mut buddy = Buddy::new(2, 3);
        buddy.grow(0);
        buddy.grow(1);
        for class in [Class::Small, Class::Large, Class::Medium, Class::Small, Class::Large] {
            let mut units = drain(&mut buddy, class);
            assert_eq!(units.len() as u32 * class.bytes(), 6 * Class::Large.bytes());
            units.sort_unstable();
            units.dedup();
            assert_eq!(units.len() as u32 * class.bytes(), 6 * Class::Large.bytes());
            for unit in units.into_iter().rev() {
                buddy.give(class, unit);
            }
            assert!(buddy.is_idle(0) && buddy.is_idle(1));
        }
    }

    #[test]
    fn small_pieces_stay_together() {
        let mut buddy = Buddy::new(1, 4);
        buddy.grow(0);
        let smalls: Vec<u32> =
            (0..UNITS).map(|_| buddy.take(Class::Small).expect("there is room")).collect();
        assert!(smalls.iter().all(|unit| unit / UNITS == smalls[0] / UNITS));
        assert_eq!(drain(&mut buddy, Class::Large).len(), 3);
    }

    #[test]
    fn a_chunk_that_was_taken_away_serves_nothing() {
        let mut buddy = Buddy::new(2, 1);
        buddy.grow(0);
        buddy.grow(1);
        let unit = buddy.take(Class::Medium).expect("there is room");
        let chunk = unit / UNITS;
        assert!(!buddy.is_idle(chunk));
        buddy.shrink(1 - chunk);
        assert_eq!(buddy.take(Class::Large), None);
        buddy.give(Class::Medium, unit);
        assert_eq!(buddy.take(Class::Large), Some(chunk * UNITS));
    }
}
