//! Checksums that are not in their pages yet.
//!
//! Checksum pages are grouped by 128, and each group has its own table: its keys fit in 32 bits,
//! which makes an entry 12 bytes, and one group at a time can be put in the order of its pages
//! without stopping the pool for long.
//!
//! Invariants:
//! 1. An entry is the newest checksum of its block that the generation has seen.
//! 2. What is forgotten is looked at by nobody: a generation takes no entry before it is tidy.
//! 3. A table that a generation did not use is given back when the generation ends; one that it
//!    did use stays, so that a steady load allocates nothing.

use alloc::vec::Vec;

use hashbrown::HashMap;

use super::Change;
use crate::hash::Fixed;
use crate::layout::SUMS_PER_PAGE;

/// A checksum, and the journal block of its cell: the lower half of its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) crc: u32,
    pub(super) seq: u32,
}

type Table = HashMap<u32, Entry, Fixed>;

/// Checksums since a freeze, or between two.
#[derive(Debug, Default)]
pub(super) struct Generation {
    groups: Vec<Table>,
    len: usize,
    /// Groups from this one down hold what is forgotten: see [`Generation::clear`].
    stale: usize,
}

impl Generation {
    /// Entries.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Notes the checksum at a position of a page.
    pub(super) fn set(&mut self, page: u64, at: usize, entry: Entry) {
        debug_assert_eq!(self.stale, 0, "what was forgotten is gone");
        let (group, key) = key(page, at);
        if group >= self.groups.len() {
            self.groups.resize_with(group + 1, || Table::with_hasher(Fixed));
        }
        if self.groups[group].insert(key, entry).is_none() {
            self.len += 1;
        }
    }

    /// The checksum at a position of a page.
    pub(super) fn get(&self, page: u64, at: usize) -> Option<Entry> {
        if self.len == 0 {
            return None;
        }
        let (group, key) = key(page, at);
        self.groups.get(group)?.get(&key).copied()
    }

    /// Forgets everything; keeps the tables that were in use. A large pool has very many: they are
    /// emptied some at a time, by [`Generation::tidy`].
    pub(super) const fn clear(&mut self) {
        self.stale = self.groups.len();
        self.len = 0;
    }

    /// Empties a few tables of what was forgotten; tells whether there are more.
    pub(super) fn tidy(&mut self, tables: usize) -> bool {
        let rest = self.stale.saturating_sub(tables);
        for table in &mut self.groups[rest..self.stale] {
            if table.capacity() > table.len() * SPARE_FACTOR {
                *table = Table::with_hasher(Fixed);
            } else {
                table.clear();
            }
        }
        self.stale = rest;
        rest > 0
    }

    /// Forgets everything, and gives the memory back.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }

    /// Bytes of memory.
    pub(super) fn memory(&self) -> usize {
        let tables: usize = self.groups.iter().map(Table::allocation_size).sum();
        tables + self.groups.capacity() * size_of::<Table>()
    }
}

/// Goes through a generation page by page, in the order of the pages.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// The next group, once this one is done.
    group: usize,
    /// Keys of the group in the order of its pages.
    keys: Vec<u32>,
    at: usize,
}

impl Walk {
    /// From the beginning.
    pub(super) fn begin(&mut self) {
        self.group = 0;
        self.at = 0;
        self.keys.clear();
    }

    /// The next page with changes, and what they are.
    pub(super) fn next(&mut self, from: &Generation, changes: &mut Vec<Change>) -> Option<u64> {
        while self.at == self.keys.len() {
            self.order(from.groups.get(self.group)?);
            self.group += 1;
        }
        let table = &from.groups[self.group - 1];
        let page = page_of(self.keys[self.at]);
        changes.clear();
        while let Some(key) = self.keys.get(self.at).filter(|key| page_of(**key) == page) {
            if let Some(entry) = table.get(key) {
                changes.push(Change { at: *key as usize % SUMS_PER_PAGE, entry: *entry });
            }
            self.at += 1;
        }
        Some((self.group - 1) as u64 * GROUP_PAGES as u64 + page as u64)
    }

    /// Puts a group's keys in the order of their pages: within a page no order is needed, so that
    /// two passes do.
    fn order(&mut self, table: &Table) {
        let mut ends = [0usize; GROUP_PAGES + 1];
        for key in table.keys() {
            ends[page_of(*key) + 1] += 1;
        }
        for page in 0..GROUP_PAGES {
            ends[page + 1] += ends[page];
        }
        self.at = 0;
        self.keys.clear();
        self.keys.resize(table.len(), 0);
        for key in table.keys() {
            let place = &mut ends[page_of(*key)];
            self.keys[*place] = *key;
            *place += 1;
        }
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self) {
        *self = Self::default();
    }
}

/// Group of a page, and the key of one of its positions.
fn key(page: u64, at: usize) -> (usize, u32) {
    let group = usize::try_from(page / GROUP_PAGES as u64).unwrap_or(usize::MAX);
    #[expect(clippy::cast_possible_truncation, reason = "a group has 122,880 positions")]
    let key = (page % GROUP_PAGES as u64) as u32 * SUMS_PER_PAGE as u32 + at as u32;
    (group, key)
}

/// Position of a key's page in its group.
const fn page_of(key: u32) -> usize {
    key as usize / SUMS_PER_PAGE
}

/// Pages of a group. A dense group has 122,880 entries, which take well under a millisecond to put
/// in order; a pool of 20 TiB has 44 thousand groups, so that even a load that touches all of it
/// has some forty entries a group at the default limit, and little is lost to small tables.
const GROUP_PAGES: usize = 128;
/// A table with room for more than so many times what it held is given back.
const SPARE_FACTOR: usize = 4;
