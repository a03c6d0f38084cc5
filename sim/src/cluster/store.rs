//! The store of the control plane: one record a volume, changed by compare-and-swap.
//!
//! Linearizable: a request takes effect at one moment, if it does. What is not certain is what
//! the asker learns: requests and answers get lost, and some requests come when nobody waits for
//! their answers any more.
//!
//! Invariants:
//! 1. A swap compares the whole record, whoever asks; but for a blind one, which is planted.
//! 2. What is restored is a state that was committed, under another store's identity.
//! 3. It changes no record that is not its own: what a restored one has is to be recovered. One
//!    that does not know that, and renamed its records, is told of by replicas alone.

use std::collections::BTreeMap;
use std::time::Duration;

use braid_nexus::{Record, Uuid};

use super::clock::{Clock, Spread};
use super::net::{Ask, Told};

/// How the store behaves.
#[derive(Clone, Copy, Debug)]
pub struct Whims {
    /// One request in so many is lost; 0: none.
    pub lose_request_in: u64,
    /// One answer in so many is lost; 0: none.
    pub lose_answer_in: u64,
    /// One request in so many takes effect long after; 0: none.
    pub late_in: u64,
    /// How late.
    pub late: Spread,
    /// How long the asker waits.
    pub patience: Duration,
}

impl Default for Whims {
    fn default() -> Self {
        Self {
            lose_request_in: 0,
            lose_answer_in: 0,
            late_in: 0,
            late: Spread::millis(1000, 20_000),
            patience: Duration::from_secs(1),
        }
    }
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    id: Uuid,
    restores: u8,
    records: BTreeMap<usize, Record>,
    /// Every state that was ever committed: volume, and record.
    log: Vec<(usize, Record)>,
    up: bool,
    pub(crate) whims: Whims,
}

impl Store {
    pub(crate) const fn new(whims: Whims) -> Self {
        Self {
            id: identity(0),
            restores: 0,
            records: BTreeMap::new(),
            log: Vec::new(),
            up: true,
            whims,
        }
    }

    pub(crate) const fn id(&self) -> Uuid {
        self.id
    }

    pub(crate) fn record(&self, volume: usize) -> Option<&Record> {
        self.records.get(&volume)
    }

    pub(crate) fn log(&self) -> &[(usize, Record)] {
        &self.log
    }

    pub(crate) const fn is_up(&self) -> bool {
        self.up
    }

    /// Nobody can ask, or they can again.
    pub(crate) const fn set_up(&mut self, up: bool) {
        self.up = up;
    }

    /// Puts a record: a new volume's, or what an operator decided.
    pub(crate) fn put(&mut self, volume: usize, record: Record) {
        self.log.push((volume, record.clone()));
        self.records.insert(volume, record);
    }

    /// Takes a request; an answer, if it can be asked.
    pub(crate) fn ask(&mut self, clock: &Clock, volume: usize, ask: &Ask) -> Option<Told> {
        if !self.up {
            return None;
        }
        let current = self.records.get(&volume)?;
        let Ask::Swap { old, new, blind } = ask else {
            return Some(Told::Record(Box::new(current.clone())));
        };
        if *blind || *current == **old {
            if new.store != self.id {
                clock.tell(|| format!("store: v{volume} is of another store: {}", tell(new)));
                return None;
            }
            clock.tell(|| format!("store: v{volume} is {}", tell(new)));
            self.put(volume, (**new).clone());
            Some(Told::Committed)
        } else {
            clock.tell(|| {
                format!("store: no swap of v{volume}: {} for {}", tell(current), tell(new))
            });
            Some(Told::Changed(Box::new(current.clone())))
        }
    }

    /// All is lost, for good: another store is empty.
    pub(crate) fn lose(&mut self) {
        self.restores += 1;
        self.id = identity(self.restores);
        self.records.clear();
    }

    /// All is lost; an older state comes back under another identity: that after so many commits.
    /// Its records may bear the new name as if they were its own.
    pub(crate) fn restore(&mut self, commits: usize, renamed: bool) {
        self.restores += 1;
        self.id = identity(self.restores);
        let mut records = BTreeMap::new();
        for (volume, record) in self.log.iter().take(commits) {
            let store = if renamed { self.id } else { record.store };
            records.insert(*volume, Record { store, ..record.clone() });
        }
        // A volume that was made later has to be there, as its first record said.
        for (volume, record) in &self.log {
            let store = if renamed { self.id } else { record.store };
            records.entry(*volume).or_insert_with(|| Record { store, ..record.clone() });
        }
        self.records = records;
    }
}

/// The identity of a store that was restored so often.
const fn identity(restores: u8) -> Uuid {
    let mut id = [0x57; 16];
    id[0] = restores;
    id
}

/// A record in a few words.
pub(crate) fn tell(record: &Record) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "version {} epoch {} owner {:x}{:x}",
        record.version, record.epoch, record.owner[0], record.owner[1]
    );
    for (slot, replica) in (0..).zip(&record.slots) {
        if replica.is_some() {
            let _ = match record.instance(slot) {
                Some(instance) => write!(text, " {slot}:{:x}", instance & 0xffff),
                None => write!(text, " {slot}:away"),
            };
        }
    }
    if record.clean {
        text.push_str(" clean");
    }
    if let Some(lossy) = &record.lossy {
        let _ = write!(text, " lossy since {} told {}", lossy.epoch, lossy.told.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::Story;

    fn swap(store: &mut Store, old: &Record, new: &Record, blind: bool) -> Option<Told> {
        let ask = Ask::Swap { old: Box::new(old.clone()), new: Box::new(new.clone()), blind };
        store.ask(&Clock::new(1, Story::Silent), 0, &ask)
    }

    fn three() -> [Record; 3] {
        let first = Record { store: identity(0), version: 1, ..Record::default() };
        let second = Record { owner: [1; 16], ..*first.next() };
        let other = Record { owner: [2; 16], ..*first.next() };
        [first, second, other]
    }

    #[test]
    fn of_two_swaps_one_wins_and_the_other_learns_of_it() {
        let [first, second, other] = three();
        let mut store = Store::new(Whims::default());
        store.put(0, first.clone());
        assert!(matches!(swap(&mut store, &first, &second, false), Some(Told::Committed)));
        let Some(Told::Changed(found)) = swap(&mut store, &first, &other, false) else {
            panic!("a swap of what is not there");
        };
        assert_eq!(*found, second);
        assert!(matches!(swap(&mut store, &first, &other, true), Some(Told::Committed)));
        assert_eq!(store.record(0), Some(&other), "a blind one asks nobody");
    }

    #[test]
    fn what_differs_in_anything_is_another_record() {
        let [first, second, _] = three();
        let mut store = Store::new(Whims::default());
        store.put(0, first.clone());
        let like = Record { owner: [9; 16], ..first };
        assert!(matches!(swap(&mut store, &like, &second, false), Some(Told::Changed(_))));
    }

    #[test]
    fn a_restored_store_is_an_older_one_with_another_name() {
        let [first, second, other] = three();
        let mut store = Store::new(Whims::default());
        store.put(0, first.clone());
        swap(&mut store, &first, &second, false);
        store.put(1, other.clone());
        let before = store.id();
        store.restore(1, false);
        assert_eq!(store.record(0), Some(&first));
        assert!(swap(&mut store, &first, &second, false).is_none(), "it is another store's");
        store.restore(1, true);
        assert_ne!(store.id(), before);
        assert_eq!(store.record(0), Some(&Record { store: store.id(), ..first }));
        assert_eq!(store.record(1), Some(&Record { store: store.id(), ..other }));
        assert!(matches!(swap(&mut store, &second, &second, false), Some(Told::Changed(_))));
    }

    #[test]
    fn a_store_that_was_lost_is_empty_and_has_another_name() {
        let [first, second, _] = three();
        let mut store = Store::new(Whims::default());
        store.put(0, first.clone());
        let before = store.id();
        store.lose();
        assert_ne!(store.id(), before);
        assert_eq!(store.record(0), None);
        assert!(swap(&mut store, &first, &second, false).is_none(), "nobody knows what to answer");
        store.put(0, second.clone());
        assert!(matches!(swap(&mut store, &first, &second, false), Some(Told::Changed(_))));
    }

    #[test]
    fn nobody_hears_from_a_store_that_is_down() {
        let [first, second, _] = three();
        let mut store = Store::new(Whims::default());
        store.put(0, first.clone());
        store.set_up(false);
        assert!(swap(&mut store, &first, &second, false).is_none());
        assert_eq!(store.record(0), Some(&first));
    }
}
