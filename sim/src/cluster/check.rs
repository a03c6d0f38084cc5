//! What must hold of every answer and every activation, looked at as they happen.

use std::collections::{BTreeMap, BTreeSet};

use braid_block::Instant;
use braid_nexus::{Record, Uuid};

use super::history::{History, Number, ZERO, millis};
use crate::oracle::{Tick, Violation};
use crate::payload::SECTOR;

/// *SingleEpoch*: no command that was received after the first acknowledgement of an epoch
/// succeeds in an earlier one.
#[derive(Clone, Debug, Default)]
pub(super) struct Epochs {
    /// By epoch: the first acknowledgement, and when the last command was received that was
    /// acknowledged.
    seen: BTreeMap<u64, (Instant, Instant)>,
}

impl Epochs {
    /// A command was acknowledged.
    pub(super) fn acknowledged(
        &mut self,
        epoch: u64,
        received: Instant,
        answered: Instant,
    ) -> Result<(), Violation> {
        let entry = self.seen.entry(epoch).or_insert((answered, received));
        entry.0 = entry.0.min(answered);
        entry.1 = entry.1.max(received);
        let (first, last) = *entry;
        let newer = self.seen.range(epoch + 1..).find(|(_, (first, _))| *first < last);
        let older = self.seen.range(..epoch).find(|(_, (_, last))| first < *last);
        let found = newer.map(|(newer, (first, _))| (epoch, last, *newer, *first));
        let found = found.or(older.map(|(older, (_, last))| (*older, *last, epoch, first)));
        let Some((old, last, new, first)) = found else { return Ok(()) };
        let text = format!(
            "a command that was received at {} succeeded in epoch {old}, although epoch {new} had \
             acknowledged one at {}",
            millis(last),
            millis(first)
        );
        Err(Violation::new("SingleEpoch", text))
    }
}

/// *SafeActivation*: an owner serves under a record that it committed (none: it never did) with
/// the members that this names, and they obey it, or one that came after it.
pub(super) fn activation(
    record: Option<&Record>,
    epoch: u64,
    members: u8,
    fences: &[(u8, (u64, Uuid))],
) -> Result<(), Violation> {
    let wrong = |text: String| Err(Violation::new("SafeActivation", text));
    let Some(record) = record else { return wrong("never owned it".into()) };
    if record.members() != members {
        let named = record.members();
        return wrong(format!("uses members {members:08b}; the record has {named:08b}"));
    }
    for (slot, fence) in fences.iter().filter(|(slot, _)| members >> slot & 1 == 1) {
        if fence.0 <= epoch && *fence != (epoch, record.owner) {
            return wrong(format!("the member in slot {slot} obeys epoch {}", fence.0));
        }
    }
    Ok(())
}

/// *LossTold*: after a loss, a flush of a host is acknowledged only if before it was received an
/// engine had answered another one with a final failure, and the store had written down that the
/// host was told. Whether it heard that is not for an engine to know: if the line dies under the
/// answer, the host sends the same flush again, and that one succeeds.
#[derive(Clone, Debug, Default)]
pub(super) struct Losses {
    epochs: Vec<u64>,
    /// By epoch of the loss and host, when it was answered so.
    told: BTreeMap<(u64, Uuid), Instant>,
    /// By epoch of the loss and host: a line ended under a flush that may have been answered so.
    unheard: BTreeSet<(u64, Uuid)>,
    /// The same, when the store had written it down.
    written: BTreeMap<(u64, Uuid), Instant>,
}

impl Losses {
    /// This epoch found that something may be lost.
    pub(super) fn lost(&mut self, epoch: u64) {
        self.epochs.push(epoch);
    }

    /// The store has written down that a host was told of the loss that an epoch found.
    pub(super) fn written(&mut self, host: Uuid, loss: u64, now: Instant) {
        self.written.entry((loss, host)).or_insert(now);
    }

    /// A flush or durable write of a host failed for good in an epoch.
    pub(super) fn told(&mut self, host: Uuid, epoch: u64, answered: Instant) {
        if let Some(loss) = self.before(epoch) {
            self.told.entry((loss, host)).or_insert(answered);
        }
    }

    /// The line of a host ended under a flush or durable write, at an engine that serves an epoch.
    pub(super) fn unheard(&mut self, host: Uuid, epoch: u64) {
        self.unheard.extend(self.before(epoch).map(|loss| (loss, host)));
    }

    /// A flush or durable write of a host was acknowledged in an epoch.
    pub(super) fn flushed(
        &self,
        host: Uuid,
        epoch: u64,
        received: Instant,
    ) -> Result<(), Violation> {
        let Some(loss) = self.before(epoch) else { return Ok(()) };
        let before = |when: &BTreeMap<(u64, Uuid), Instant>| {
            when.get(&(loss, host)).is_some_and(|when| *when <= received)
        };
        let told = before(&self.told) || self.unheard.contains(&(loss, host));
        let wrong = match (told, before(&self.written)) {
            (true, true) => return Ok(()),
            (false, _) => "was not told before of",
            (true, false) => "it was not written down before that it was told of",
        };
        let text = format!(
            "host {:x} sent a flush, received at {}, that epoch {epoch} acknowledged, and {wrong} \
             the loss that epoch {loss} found",
            host[0],
            millis(received)
        );
        Err(Violation::new("LossTold", text))
    }

    fn before(&self, epoch: u64) -> Option<u64> {
        self.epochs.iter().copied().filter(|loss| *loss <= epoch).max()
    }
}

/// What one replica was given and has carried out, sector by sector.
#[derive(Clone, Debug, Default)]
struct Shadow {
    sectors: BTreeMap<u64, Number>,
    /// When it lost what it had; before, nothing is known.
    since: Tick,
}

/// *AckWithinMembership*: when a write is acknowledged, every member of the record as it is
/// committed has carried it out.
#[derive(Clone, Debug, Default)]
pub(super) struct Shadows {
    replicas: BTreeMap<Uuid, Shadow>,
}

impl Shadows {
    /// A replica has carried out a write of these bytes.
    pub(super) fn written(
        &mut self,
        history: &History,
        replica: Uuid,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Violation> {
        let shadow = self.replicas.entry(replica).or_default();
        let first = offset / SECTOR as u64;
        for (sector, piece) in (first..).zip(bytes.chunks_exact(SECTOR)) {
            shadow.sectors.insert(sector, history.value(piece, sector)?);
        }
        Ok(())
    }

    /// A replica has made zeros.
    pub(super) fn zeroed(&mut self, replica: Uuid, offset: u64, len: u64) {
        let shadow = self.replicas.entry(replica).or_default();
        let first = offset / SECTOR as u64;
        for sector in first..first + len / SECTOR as u64 {
            shadow.sectors.insert(sector, ZERO);
        }
    }

    /// A replica may have lost something.
    pub(super) fn forgot(&mut self, history: &mut History, replica: Uuid) {
        let since = history.tick();
        self.replicas.insert(replica, Shadow { sectors: BTreeMap::new(), since });
    }

    /// A write is acknowledged now, and the store has this record.
    pub(super) fn acknowledged(
        &self,
        history: &History,
        number: Number,
        record: &Record,
    ) -> Result<(), Violation> {
        let op = history.operation(number);
        for (slot, replica) in (0u8..).zip(&record.slots) {
            let Some(replica) = replica.filter(|_| record.instance(slot).is_some()) else {
                continue;
            };
            let shadow = self.replicas.get(&replica.uuid);
            let missing = (op.first..op.first + op.sectors)
                .find(|sector| !Self::has(history, shadow, *sector, number));
            if let Some(sector) = missing {
                let text = format!(
                    "{} was acknowledged, but the member in slot {slot} of version {} has not \
                     carried it out in sector {sector}",
                    history.describe(number),
                    record.version
                );
                return Err(Violation::new("AckWithinMembership", text));
            }
        }
        Ok(())
    }

    /// Whether a replica has carried out an operation in a sector, or what may be newer.
    fn has(history: &History, shadow: Option<&Shadow>, sector: u64, number: Number) -> bool {
        let op = history.operation(number);
        let start = op.start().unwrap_or_default();
        let Some(shadow) = shadow else { return false };
        let value = if op.is_zero() { ZERO } else { number };
        // What it was never given is zeros, unless it was forgotten: then it may be anything.
        let has = shadow.sectors.get(&sector).copied().unwrap_or(ZERO);
        match has {
            has if has == value => true,
            ZERO if shadow.since > start => true,
            // Zeros have no number: some zeroing that is not older.
            ZERO => history.tracks.get(&sector).is_some_and(|track| {
                track.changes.iter().any(|other| {
                    let zeroing = history.operation(*other);
                    zeroing.is_zero() && zeroing.start().is_some() && zeroing.over() > start
                })
            }),
            has => history.operation(has).over() > start,
        }
    }
}

#[cfg(test)]
mod tests {
    use braid_nexus::record::{Replica, Standing};

    use super::super::history::Deed;
    use super::*;
    use crate::payload::fill;

    const fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn name<T>(result: Result<T, Violation>) -> Option<&'static str> {
        result.err().map(|violation| violation.invariant)
    }

    #[test]
    fn an_old_epoch_may_answer_what_it_received_before_and_nothing_else() {
        let mut epochs = Epochs::default();
        epochs.acknowledged(1, at(1), at(2)).unwrap();
        epochs.acknowledged(2, at(3), at(5)).unwrap();
        epochs.acknowledged(1, at(4), at(9)).unwrap();
        assert_eq!(name(epochs.acknowledged(1, at(6), at(7))), Some("SingleEpoch"));
    }

    #[test]
    fn the_order_in_which_answers_come_to_hosts_means_nothing() {
        let mut epochs = Epochs::default();
        epochs.acknowledged(1, at(6), at(7)).unwrap();
        epochs.acknowledged(3, at(8), at(9)).unwrap();
        assert_eq!(name(epochs.acknowledged(2, at(3), at(5))), Some("SingleEpoch"));
    }

    #[test]
    fn a_flush_after_a_loss_needs_one_that_failed_for_good() {
        let (host, other) = ([1; 16], [2; 16]);
        let mut losses = Losses::default();
        losses.flushed(host, 1, at(1)).unwrap();
        losses.lost(2);
        losses.flushed(host, 1, at(2)).unwrap();
        assert_eq!(name(losses.flushed(host, 2, at(3))), Some("LossTold"));
        losses.told(host, 2, at(4));
        assert_eq!(name(losses.flushed(host, 2, at(5))), Some("LossTold"), "nobody wrote it down");
        losses.written(host, 2, at(4));
        assert_eq!(name(losses.flushed(host, 2, at(3))), Some("LossTold"), "was outstanding then");
        losses.flushed(host, 3, at(5)).unwrap();
        assert_eq!(name(losses.flushed(other, 3, at(5))), Some("LossTold"));
        losses.lost(4);
        assert_eq!(name(losses.flushed(host, 4, at(6))), Some("LossTold"));
    }

    #[test]
    fn a_line_that_ends_under_a_flush_may_have_been_told_if_that_is_written_down() {
        let (host, other) = ([1; 16], [2; 16]);
        let mut losses = Losses::default();
        losses.unheard(host, 1);
        losses.lost(2);
        losses.written(host, 2, at(4));
        assert_eq!(name(losses.flushed(host, 2, at(5))), Some("LossTold"), "before the loss");
        losses.unheard(host, 2);
        assert_eq!(name(losses.flushed(host, 2, at(3))), Some("LossTold"), "was outstanding then");
        losses.flushed(host, 2, at(5)).unwrap();
        losses.written(other, 2, at(4));
        assert_eq!(name(losses.flushed(other, 2, at(5))), Some("LossTold"), "another host's line");
        losses.lost(3);
        assert_eq!(name(losses.flushed(host, 3, at(6))), Some("LossTold"), "another loss");
        losses.unheard(host, 3);
        assert_eq!(name(losses.flushed(host, 3, at(6))), Some("LossTold"), "nobody wrote it down");
    }

    #[test]
    fn an_owner_serves_with_all_members_of_a_record_of_its_own_and_they_obey_it() {
        let (mine, other) = ([5; 16], [6; 16]);
        let record = Record { epoch: 4, owner: mine, ..record(false) };
        let activation = |record, members, fences: &[(u8, (u64, Uuid))]| {
            name(activation(record, 4, members, fences))
        };
        let obeys = (4, mine);
        assert_eq!(activation(Some(&record), 0b11, &[(0, obeys), (1, obeys)]), None);
        // One has gone on to the next owner already; one is not reached.
        assert_eq!(activation(Some(&record), 0b11, &[(1, (5, other))]), None);
        let wrong = Some("SafeActivation");
        assert_eq!(activation(None, 0b11, &[]), wrong, "it never owned the volume");
        assert_eq!(activation(Some(&record), 0b01, &[(0, obeys)]), wrong, "it left a member out");
        assert_eq!(activation(Some(&record), 0b111, &[(0, obeys)]), wrong, "one is no member");
        let stale = [(0, obeys), (1, (3, mine))];
        assert_eq!(activation(Some(&record), 0b11, &stale), wrong, "one obeys an older epoch");
        let duel = [(0, (4, other)), (1, obeys)];
        assert_eq!(activation(Some(&record), 0b11, &duel), wrong, "one obeys another owner");
    }

    const MEMBERS: [Uuid; 2] = [[1; 16], [2; 16]];

    fn record(away: bool) -> Record {
        let mut record = Record::default();
        for (at, uuid) in MEMBERS.into_iter().enumerate() {
            let standing = match (at, away) {
                (1, true) => Standing::Away { whole: false },
                _ => Standing::Member { instance: 7 },
            };
            record.slots[at] = Some(Replica { uuid, standing });
        }
        record
    }

    fn write(history: &mut History, deed: Deed) -> Number {
        let number = history.begin(at(0), 0, deed, (8, 2));
        history.send(number);
        number
    }

    fn carry(shadows: &mut Shadows, history: &History, replica: Uuid, number: Number) {
        let mut bytes = [0; 2 * SECTOR];
        for (sector, piece) in (8..).zip(bytes.chunks_exact_mut(SECTOR)) {
            fill(piece, history.named(number), sector);
        }
        shadows.written(history, replica, 8 * SECTOR as u64, &bytes).unwrap();
    }

    #[test]
    fn a_write_is_acknowledged_when_every_member_has_it() {
        let (mut history, mut shadows) = (History::default(), Shadows::default());
        let number = write(&mut history, Deed::Write { durable: false });
        carry(&mut shadows, &history, MEMBERS[0], number);
        let found = shadows.acknowledged(&history, number, &record(false));
        assert_eq!(name(found), Some("AckWithinMembership"));
        shadows.acknowledged(&history, number, &record(true)).unwrap();
        carry(&mut shadows, &history, MEMBERS[1], number);
        shadows.acknowledged(&history, number, &record(false)).unwrap();
    }

    #[test]
    fn what_is_newer_than_a_write_may_have_covered_it_and_what_is_older_not() {
        let (mut history, mut shadows) = (History::default(), Shadows::default());
        let older = write(&mut history, Deed::Write { durable: false });
        history.acknowledged(at(1), older, 0);
        let number = write(&mut history, Deed::Write { durable: false });
        let newer = write(&mut history, Deed::Write { durable: false });
        carry(&mut shadows, &history, MEMBERS[0], newer);
        shadows.acknowledged(&history, number, &record(true)).unwrap();
        carry(&mut shadows, &history, MEMBERS[0], older);
        let found = shadows.acknowledged(&history, number, &record(true));
        assert_eq!(name(found), Some("AckWithinMembership"));
        shadows.zeroed(MEMBERS[0], 8 * 512, 1024);
        let found = shadows.acknowledged(&history, number, &record(true));
        assert_eq!(name(found), Some("AckWithinMembership"), "nobody zeroed");
        let zeroing = write(&mut history, Deed::Zero { durable: false });
        shadows.acknowledged(&history, number, &record(true)).unwrap();
        shadows.acknowledged(&history, zeroing, &record(true)).unwrap();
    }

    #[test]
    fn a_replica_that_was_given_nothing_holds_what_a_newer_zeroing_leaves() {
        let (mut history, mut shadows) = (History::default(), Shadows::default());
        let number = write(&mut history, Deed::Write { durable: false });
        carry(&mut shadows, &history, MEMBERS[0], number);
        shadows.zeroed(MEMBERS[1], 0, 512);
        let found = shadows.acknowledged(&history, number, &record(false));
        assert_eq!(name(found), Some("AckWithinMembership"), "nobody zeroed");
        // The owner's answer is late; meanwhile it was zeroed, and a joiner that never had it was
        // found to be equal.
        write(&mut history, Deed::Zero { durable: false });
        shadows.acknowledged(&history, number, &record(false)).unwrap();
    }

    #[test]
    fn a_replica_that_lost_something_says_nothing_of_what_was_sent_before() {
        let (mut history, mut shadows) = (History::default(), Shadows::default());
        let number = write(&mut history, Deed::Write { durable: false });
        shadows.forgot(&mut history, MEMBERS[0]);
        shadows.acknowledged(&history, number, &record(true)).unwrap();
        let later = write(&mut history, Deed::Write { durable: false });
        let found = shadows.acknowledged(&history, later, &record(true));
        assert_eq!(name(found), Some("AckWithinMembership"));
    }
}
