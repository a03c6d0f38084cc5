//! The record of a volume whose store was lost, or is back in an older state: made from the
//! copies that its replicas keep (replication.md, Recovery).
//!
//! An owner relies on a change when every remaining member has a copy of it, so the newest copy is
//! the newest state that anybody relied on. But a later change may be known to those alone whom it
//! kept: so all must be heard that the newest copy names.
//!
//! Invariants:
//! 1. Nothing is taken from the store but the version below which it must not fall: owners may
//!    have claimed an older state of it since it is back.
//! 2. Without an operator nothing is recovered before every replica was heard that the newest copy
//!    names, member or away.
//! 3. What is recovered has a version above every one heard of, an epoch that is not below any
//!    fence, and no owner: an ordinary take-over follows, in an epoch above all of them.
//! 4. It says from which store and copy it was made, and is pending until its first owner has
//!    fenced all whom it names: what was heard of a replica is old when it arrives. One that got a
//!    newer copy since refuses, and the record is made anew; a pending copy then counts as what it
//!    was made from, also when the store is lost once more.
//! 5. A record that was served is not made anew of older copies of the same store: what was heard
//!    of a replica may be from before its exclusion.

use alloc::boxed::Box;

use arrayvec::ArrayVec;

use crate::record::{Lossy, REPLICAS_MAX, Record, Recovered, Uuid};

/// What was heard of a replica.
#[derive(Clone, Copy, Debug)]
pub struct Heard<'a> {
    /// Which.
    pub replica: Uuid,
    /// The epoch that it obeys; zero: none yet.
    pub fence: u64,
    /// Its copy of the record, if it has one.
    pub copy: Option<&'a Record>,
}

/// What can be said of a volume's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// This is it.
    Recovered(Box<Record>),
    /// These replicas were not heard, and one of them may know more: writes that were acknowledged
    /// since this version, and who is a member. Only an operator may go on without them.
    Waiting {
        /// Replicas that the newest copy names.
        missing: ArrayVec<Uuid, REPLICAS_MAX>,
        /// Epoch and version of that copy.
        newest: (u64, u64),
    },
    /// The store's own record is as new as every copy of it: there is nothing to recover.
    Current,
    /// Nobody who was heard has a copy: the volume is new, or all who know of it are missing.
    Unknown,
}

/// Makes a volume's record for a store of this identity. `stored` is what that store has of it,
/// if anything. `force`: an operator goes on without those who are missing; hosts are told of a
/// loss then.
#[must_use]
pub fn recover(
    volume: &Uuid,
    store: &Uuid,
    stored: Option<&Record>,
    heard: &[Heard<'_>],
    force: bool,
) -> Recovery {
    let copies = heard.iter().filter_map(|heard| heard.copy);
    let copies = copies.filter(|copy| copy.volume == *volume);
    let Some(newest) = copies.clone().max_by_key(|copy| rank(copy)) else {
        return Recovery::Unknown;
    };
    let was_heard = |uuid: &Uuid| heard.iter().any(|heard| heard.replica == *uuid);
    let named = newest.slots.iter().flatten().map(|replica| replica.uuid);
    let missing: ArrayVec<Uuid, REPLICAS_MAX> = named.filter(|uuid| !was_heard(uuid)).collect();
    if !missing.is_empty() && !force {
        return Recovery::Waiting { missing, newest: rank(newest) };
    }
    let is_current = |stored: &Record| {
        let same = stored.store == *store && newest.store == *store;
        same && !stored.is_pending() && !newest.newer_than(stored.epoch, stored.version)
    };
    if missing.is_empty() && stored.is_some_and(is_current) {
        return Recovery::Current;
    }
    let fenced = heard.iter().map(|heard| heard.fence).max().unwrap_or(0);
    let version = copies.map(|copy| copy.version).max().unwrap_or(0);
    let mut record = Box::new(newest.clone());
    // In a store that is still the same the next record is but a later one.
    if newest.store != *store {
        let made_from = newest.recovered.filter(|from| from.pending);
        let newest = (newest.epoch, newest.version);
        let from = Recovered { store: record.store, newest, pending: true };
        record.recovered = Some(made_from.unwrap_or(from));
    }
    if let Some(from) = &mut record.recovered {
        from.pending = missing.is_empty();
    }
    record.store = *store;
    record.version = version.max(stored.map_or(0, |stored| stored.version)) + 1;
    record.epoch = newest.epoch.max(fenced).max(stored.map_or(0, |stored| stored.epoch));
    record.owner = [0; 16];
    record.clean = false;
    if !missing.is_empty() {
        record.lossy = Some(Lossy { epoch: record.epoch, ..Lossy::default() });
    }
    Recovery::Recovered(record)
}

/// How new a copy is. Nothing was relied on under a pending one: it is as new as what it was made
/// from.
fn rank(copy: &Record) -> (u64, u64) {
    match copy.recovered.filter(|from| from.pending) {
        Some(from) => from.newest,
        None => (copy.epoch, copy.version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Replica, Standing};

    const VOLUME: Uuid = [9; 16];
    const OLD: Uuid = [1; 16];
    const NEW: Uuid = [2; 16];

    const fn recovered(store: Uuid, newest: (u64, u64)) -> Option<Recovered> {
        Some(Recovered { store, newest, pending: true })
    }

    const fn name(slot: u8) -> Uuid {
        [0x40 + slot; 16]
    }

    /// A record of that epoch and version: these slots are members, those are away.
    fn record(epoch: u64, version: u64, members: &[u8], away: &[u8]) -> Record {
        let mut record = Record {
            volume: VOLUME,
            store: OLD,
            version,
            epoch,
            owner: [7; 16],
            bytes: 1 << 20,
            clean: true,
            ..Record::default()
        };
        for slot in members {
            let standing = Standing::Member { instance: u64::from(*slot) };
            record.slots[usize::from(*slot)] = Some(Replica { uuid: name(*slot), standing });
        }
        for slot in away {
            let standing = Standing::Away { whole: false };
            record.slots[usize::from(*slot)] = Some(Replica { uuid: name(*slot), standing });
        }
        record
    }

    fn heard<'a>(copies: &[(u8, Option<&'a Record>)]) -> Vec<Heard<'a>> {
        let heard = |(slot, copy): &(u8, Option<&'a Record>)| Heard {
            replica: name(*slot),
            fence: copy.map_or(0, |copy| copy.epoch),
            copy: *copy,
        };
        copies.iter().map(heard).collect()
    }

    fn made(stored: Option<&Record>, heard: &[Heard<'_>]) -> Record {
        match recover(&VOLUME, &NEW, stored, heard, false) {
            Recovery::Recovered(record) => *record,
            other => panic!("{other:?}"),
        }
    }

    extern crate std;
    use std::vec::Vec;

    #[test]
    fn the_newest_copy_is_the_record_when_all_that_it_names_were_heard() {
        let (older, newer) = (record(3, 20, &[0, 1, 2], &[]), record(3, 21, &[0, 2], &[1]));
        let heard = heard(&[(0, Some(&older)), (1, Some(&older)), (2, Some(&newer))]);
        let found = made(None, &heard);
        assert_eq!((found.members(), found.away()), (0b101, 0b010));
        assert_eq!((found.version, found.epoch, found.owner), (22, 3, [0; 16]));
        assert_eq!(found.recovered, recovered(OLD, (3, 21)));
        assert!(found.store == NEW && !found.clean);
    }

    #[test]
    fn who_is_away_must_be_heard_too_for_it_may_have_come_back_since() {
        let newest = record(3, 21, &[0], &[1]);
        let some = heard(&[(0, Some(&newest))]);
        let waiting =
            Recovery::Waiting { missing: [name(1)].into_iter().collect(), newest: (3, 21) };
        assert_eq!(recover(&VOLUME, &NEW, None, &some, false), waiting);
        let all = heard(&[(0, Some(&newest)), (1, None)]);
        assert_eq!(made(None, &all).members(), 0b1, "one without a copy says that it knows less");
    }

    #[test]
    fn a_higher_epoch_counts_more_than_a_higher_version() {
        let (long, late) = (record(3, 40, &[0, 1], &[]), record(4, 30, &[1], &[0]));
        let heard = heard(&[(0, Some(&long)), (1, Some(&late))]);
        let found = made(None, &heard);
        assert_eq!((found.members(), found.epoch), (0b10, 4));
        assert_eq!(found.version, 41, "above every version heard of");
        assert_eq!(found.recovered, recovered(OLD, (4, 30)));
    }

    #[test]
    fn nothing_falls_below_a_fence_or_what_the_store_has_and_nothing_else_is_taken_from_it() {
        let copy = record(3, 21, &[1], &[0]);
        let mut heard = heard(&[(0, None), (1, Some(&copy))]);
        heard[0].fence = 6;
        let mut stored = record(8, 50, &[0, 1], &[]);
        stored.store = NEW;
        let found = made(Some(&stored), &heard);
        assert_eq!((found.epoch, found.version), (8, 51));
        assert_eq!(found.members(), 0b10, "the store is older than the exclusion, and was claimed");
        assert_eq!(made(None, &heard).epoch, 6);
    }

    #[test]
    fn without_a_copy_nothing_is_known_and_copies_of_other_volumes_are_none() {
        assert_eq!(recover(&VOLUME, &NEW, None, &heard(&[(0, None)]), true), Recovery::Unknown);
        let other = Record { volume: [8; 16], ..record(3, 21, &[0], &[]) };
        let heard = heard(&[(0, Some(&other))]);
        assert_eq!(recover(&VOLUME, &NEW, None, &heard, true), Recovery::Unknown);
    }

    #[test]
    fn an_operator_may_go_on_without_who_is_missing_and_hosts_are_told() {
        let newest = record(3, 21, &[0, 1], &[]);
        let heard = heard(&[(0, Some(&newest))]);
        let Recovery::Recovered(found) = recover(&VOLUME, &NEW, None, &heard, true) else {
            panic!("an operator decided");
        };
        assert_eq!(found.lossy, Some(Lossy { epoch: 3, ..Lossy::default() }));
        assert_eq!(found.members(), 0b11, "the take-over decides who is kept");
        assert!(!found.is_pending(), "and waits for nobody whom the operator gave up");
    }

    /// A record as its first owner leaves it.
    fn served(mut record: Record) -> Record {
        record.recovered.as_mut().expect("it was recovered").pending = false;
        *Record { owner: [5; 16], ..record }.next()
    }

    #[test]
    fn what_is_recovered_twice_follows_the_store_of_the_newest_copy() {
        let first = record(3, 21, &[0, 1], &[]);
        let all = heard(&[(0, Some(&first)), (1, Some(&first))]);
        let second = served(made(None, &all));
        let third: Uuid = [3; 16];
        let heard = heard(&[(0, Some(&second)), (1, Some(&first))]);
        let Recovery::Recovered(found) = recover(&VOLUME, &third, None, &heard, false) else {
            panic!("all were heard");
        };
        assert_eq!(found.recovered, recovered(NEW, (3, second.version)));
        let again = made(None, &heard);
        let known = second.recovered.map(|from| Recovered { pending: true, ..from });
        assert_eq!(again.recovered, known, "the store is the same, and so is its origin");
    }

    #[test]
    fn a_store_that_is_lost_before_anybody_served_leaves_what_its_record_was_made_from() {
        let (first, third): (Record, Uuid) = (record(3, 21, &[0, 1], &[]), [3; 16]);
        let all = heard(&[(0, Some(&first)), (1, Some(&first))]);
        let claimed = Record { owner: [5; 16], epoch: 4, version: 23, ..made(None, &all) };
        // One was fenced under the second store already, the other one was not reached.
        for pair in [[&claimed, &first], [&first, &claimed]] {
            let heard = heard(&[(0, Some(pair[0])), (1, Some(pair[1]))]);
            let found = recover(&VOLUME, &third, None, &heard, false);
            let Recovery::Recovered(found) = found else { panic!("{found:?}") };
            assert_eq!(found.recovered, recovered(OLD, (3, 21)));
            assert_eq!((found.store, found.epoch, found.version), (third, 4, 24));
        }
    }

    #[test]
    fn a_record_that_was_served_is_not_made_anew_of_copies_from_before_an_exclusion() {
        let before = Record { store: NEW, ..record(3, 21, &[0, 1], &[]) };
        let stored = Record { store: NEW, ..record(3, 22, &[1], &[0]) };
        let old = heard(&[(0, Some(&before)), (1, Some(&before))]);
        assert_eq!(recover(&VOLUME, &NEW, Some(&stored), &old, false), Recovery::Current);
        let waiting = recover(&VOLUME, &NEW, Some(&stored), &old[..1], false);
        assert!(matches!(waiting, Recovery::Waiting { .. }), "{waiting:?}");
        // One that was put back is older than they are.
        assert_eq!(made(Some(&before), &heard(&[(0, None), (1, Some(&stored))])).version, 23);
    }

    #[test]
    fn a_copy_that_came_after_its_replica_was_heard_counts_more_than_what_was_recovered_without() {
        let (early, late) = (record(3, 21, &[0, 1], &[]), record(3, 22, &[0], &[1]));
        let stale = heard(&[(0, Some(&early)), (1, Some(&early))]);
        // An owner claimed it, and one replica follows; the other one refused.
        let claimed = Record { owner: [5; 16], epoch: 4, version: 30, ..made(None, &stale) };
        let heard = heard(&[(0, Some(&late)), (1, Some(&claimed))]);
        let found = made(Some(&claimed), &heard);
        assert_eq!((found.members(), found.away()), (0b01, 0b10));
        assert_eq!((found.epoch, found.version), (4, 31));
        assert_eq!(found.recovered, recovered(OLD, (3, 22)));
    }
}
