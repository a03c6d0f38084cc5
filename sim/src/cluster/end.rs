//! What must be so in the end, besides that members are equal: layers are where the record says,
//! and nowhere else, and an owner whom nobody asks for anything has nothing left to do.

use std::collections::BTreeSet;

use braid_nexus::{Record, Uuid, View};

/// A snapshot that not all members hold, though its blocks can be read.
pub(super) fn lacking(record: &Record, unreadable: &BTreeSet<Uuid>) -> Option<String> {
    let members = record.members();
    let lacks = |holders: u8| holders & members != members;
    let found = record.snapshots.iter().find(|s| lacks(s.holders) && !unreadable.contains(&s.uuid));
    found.map(|snapshot| format!("{:08b} of {members:08b} hold a snapshot", snapshot.holders))
}

/// A snapshot on a replica's disk that the record does not name.
pub(super) fn unnamed(record: &Record, has: impl IntoIterator<Item = Uuid>) -> Option<String> {
    let unnamed = has.into_iter().find(|uuid| record.snapshot(uuid).is_none())?;
    Some(format!("snapshot {:02x}{:02x}, which the record does not name", unnamed[0], unnamed[1]))
}

/// What an owner still has to do.
pub(super) fn unrest(view: &View) -> Option<String> {
    let View { calls, segments, marked, .. } = view;
    let rests = *calls == 0 && *segments == 0 && *marked == 0;
    let text = || format!("{calls} calls, {segments} segments, {marked} regions marked");
    (!rests).then(text)
}

#[cfg(test)]
mod tests {
    use braid_nexus::record::{Replica, Snapshot, Standing};

    use super::*;

    fn record(holders: u8) -> Record {
        let mut record = Record::default();
        for at in 0..2 {
            let standing = Standing::Member { instance: 1 };
            record.slots[at] = Some(Replica { uuid: [at as u8 + 1; 16], standing });
        }
        record.snapshots.push(Snapshot { uuid: [7; 16], holders, bytes: 4096 });
        record
    }

    #[test]
    fn a_snapshot_that_a_member_lacks_is_found_unless_nobody_could_read_it() {
        let none = BTreeSet::new();
        assert_eq!(lacking(&record(0b11), &none), None);
        assert!(lacking(&record(0b01), &none).is_some());
        assert_eq!(lacking(&record(0b01), &BTreeSet::from([[7; 16]])), None);
        assert!(lacking(&record(0b01), &BTreeSet::from([[8; 16]])).is_some());
    }

    #[test]
    fn a_snapshot_that_the_record_does_not_name_is_found() {
        assert_eq!(unnamed(&record(0b11), [[7; 16]]), None);
        assert_eq!(unnamed(&record(0b11), []), None);
        assert!(unnamed(&record(0b11), [[7; 16], [9; 16]]).is_some());
    }
}
