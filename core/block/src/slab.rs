//! A table of fixed capacity whose keys tell a stale entry from its successor.

use alloc::vec::Vec;

/// Names an entry of a [`Slab`]: position and generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Position in the table.
    pub index: u32,
    /// How often that position was filled.
    pub generation: u32,
}

/// A table that allocates once. Insertion fails when it is full; lookups with an old key miss.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    len: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// A table for at most `capacity` entries.
    #[must_use]
    pub fn with_capacity(capacity: u32) -> Self {
        Self {
            entries: (0..capacity).map(|_| Entry { generation: 0, value: None }).collect(),
            free: (0..capacity).rev().collect(),
            len: 0,
        }
    }

    /// Number of entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether another entry fits.
    #[must_use]
    pub const fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Entries it can hold.
    #[must_use]
    pub const fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// The key that the next [`Slab::insert`] will return.
    #[must_use]
    pub fn next_key(&self) -> Option<Key> {
        let index = *self.free.last()?;
        let generation = self.entries[index as usize].generation.wrapping_add(1);
        Some(Key { index, generation })
    }

    /// Adds an entry, or hands it back when the table is full.
    ///
    /// # Errors
    /// The value itself, when there is no room for it.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        let Some(index) = self.free.pop() else { return Err(value) };
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.value = Some(value);
        self.len += 1;
        Ok(Key { index, generation: entry.generation })
    }

    /// The entry, unless it is gone.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<&T> {
        let entry = self.entries.get(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_ref() } else { None }
    }

    /// The entry, to be changed, unless it is gone.
    #[must_use]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation == key.generation { entry.value.as_mut() } else { None }
    }

    /// Takes the entry out, unless it is gone.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let entry = self.entries.get_mut(key.index as usize)?;
        if entry.generation != key.generation {
            return None;
        }
        let value = entry.value.take()?;
        self.free.push(key.index);
        self.len -= 1;
        Some(value)
    }

    /// The key of whatever is at `index` now.
    #[must_use]
    pub fn key_at(&self, index: u32) -> Option<Key> {
        let entry = self.entries.get(index as usize)?;
        entry.value.as_ref().map(|_| Key { index, generation: entry.generation })
    }

    /// All entries, in order of position.
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        (0u32..).zip(&self.entries).filter_map(|(index, entry)| {
            let key = Key { index, generation: entry.generation };
            entry.value.as_ref().map(|value| (key, value))
        })
    }

    /// All entries, to be changed, in order of position.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        (0u32..).zip(&mut self.entries).filter_map(|(index, entry)| {
            let key = Key { index, generation: entry.generation };
            entry.value.as_mut().map(|value| (key, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_misses_its_successor() {
        let mut slab = Slab::with_capacity(1);
        let first = slab.insert('a').unwrap();
        assert_eq!(slab.insert('b'), Err('b'));
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('c').unwrap();
        assert_eq!(first.index, second.index);
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&'c'));
        assert_eq!(slab.len(), 1);
    }
}
