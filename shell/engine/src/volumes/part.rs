//! One volume, as this engine has a part in it.

use std::collections::VecDeque;

use braid_api::{control as wire, v1};
use braid_nexus::record::{Standing, Uuid};
use braid_nexus::{Note, Pace, Step, Totals, View};

use super::words::{self, Told};
use crate::manage::names::{self, Names};

/// Things that happened to a volume that are kept: what people look at when something is wrong.
const HISTORY_MAX: usize = 256;
/// Slots of a record.
const SLOTS: usize = braid_nexus::record::REPLICAS_MAX;
/// Bytes of a region.
const REGION_BYTES: u64 = braid_nexus::wire::REGION;

/// This engine's part in a volume.
#[derive(Debug)]
pub(super) struct Part {
    /// The shard that serves it.
    pub(super) shard: u16,
    pub(super) names: Names,
    /// Replicas, and the portals that were last told to the shard.
    pub(super) places: Vec<(Uuid, Option<std::net::SocketAddr>)>,
    /// A take-over was ordered, and has not ended.
    pub(super) taking_over: bool,
    /// Where it stood when it was last looked at.
    pub(super) view: View,
    /// How fast its replicas are brought back, as somebody set it here or elsewhere.
    pub(super) pace: Option<wire::RebuildPace>,
    /// How many long rebuilds go first, if it waits for its turn.
    pub(super) behind: Option<u32>,
    /// Why the replica in each slot failed last, or how far its return is.
    reasons: [&'static str; SLOTS],
    history: VecDeque<v1::NexusEvent>,
}

impl Part {
    pub(super) fn new(shard: u16, volume: Uuid) -> Self {
        Self {
            shard,
            names: Names::of(volume),
            places: Vec::new(),
            taking_over: false,
            view: View::default(),
            pace: None,
            behind: None,
            reasons: [""; SLOTS],
            history: VecDeque::new(),
        }
    }

    /// The replica in a slot, as far as it is known.
    fn replica(&self, slot: u8) -> String {
        let named = self.view.record.as_ref().and_then(|record| record.replica(slot));
        named.map_or_else(|| format!("replica {slot}"), |replica| names::text(replica.uuid))
    }

    /// Takes what a note says; what is to be told of it.
    pub(super) fn take(&mut self, note: &Note, unix_ms: u64) -> (Told, v1::NexusEvent) {
        let told = words::told(note, |slot| self.replica(slot));
        let reason = match note {
            Note::Failing { slot, .. } | Note::Unreadable { slot, .. } => {
                Some((*slot, told.reason))
            }
            Note::Returning { slot, step: Step::Member } => Some((*slot, "")),
            // Why it failed is known better than that it did.
            Note::Returning { step: Step::Failed, .. } => None,
            Note::Returning { slot, .. } => Some((*slot, told.reason)),
            _ => None,
        };
        if let Some((slot, reason)) = reason {
            self.reasons[usize::from(slot) % SLOTS] = reason;
        }
        let event = v1::NexusEvent {
            unix_ms,
            what: told.what.into(),
            replica: told.slot.map(|slot| self.replica(slot)).unwrap_or_default(),
            reason: told.reason.into(),
            text: told.text.clone(),
        };
        if told.weight != words::Weight::Detail {
            self.keep(event.clone());
        }
        (told, event)
    }

    pub(super) fn keep(&mut self, event: v1::NexusEvent) {
        if self.history.len() >= HISTORY_MAX {
            self.history.pop_front();
        }
        self.history.push_back(event);
    }

    pub(super) fn history(&self) -> Vec<v1::NexusEvent> {
        self.history.iter().cloned().collect()
    }

    /// As the control plane is told.
    pub(super) fn path(&self, volume: Uuid) -> wire::Path {
        let View { epoch, owner, serving, record, members, joiner, rebuild, .. } = &self.view;
        let access = if *serving { wire::Access::Optimized } else { wire::Access::Inaccessible };
        let named = |slot: u8| record.as_ref()?.replica(slot).map(|r| names::text(r.uuid));
        let relied_on = (0..8).filter(|slot| members & 1 << slot != 0);
        wire::Path {
            volume: names::text(volume),
            nqn: self.names.nqn.clone(),
            access: access.into(),
            epoch: *epoch,
            owner: if *epoch == 0 { String::new() } else { names::text(*owner) },
            taking_over: self.taking_over,
            members: relied_on.filter_map(named).collect(),
            returning: joiner.and_then(named).unwrap_or_default(),
            copied_bytes: rebuild.map_or(0, |rebuild| rebuild.done),
            to_copy_bytes: rebuild.map_or(0, |rebuild| rebuild.total),
            pace: self.pace,
        }
    }

    /// As people are shown.
    pub(super) fn nexus(&self, volume: Uuid, name: &str) -> v1::Nexus {
        let view = &self.view;
        let record = view.record.as_ref();
        let snapshots = record.map_or(0, |record| record.snapshots.len());
        v1::Nexus {
            volume: names::text(volume),
            name: name.into(),
            nqn: self.names.nqn.clone(),
            state: self.state().into(),
            size_bytes: record.map_or(0, |record| record.bytes),
            epoch: view.epoch,
            owner: if view.epoch == 0 { String::new() } else { names::text(view.owner) },
            members: self.members(),
            suspect_bytes: view.suspect * REGION_BYTES,
            marked_bytes: view.marked * REGION_BYTES,
            snapshots: u32::try_from(snapshots).unwrap_or(u32::MAX),
            pace: Some(pace(view.pace)),
            rebuild: self.rebuild(),
            totals: Some(totals(&view.totals)),
        }
    }

    fn state(&self) -> v1::NexusState {
        let view = &self.view;
        match (view.serving, view.epoch, self.taking_over) {
            (true, ..) => v1::NexusState::Serving,
            (false, _, true) => v1::NexusState::TakingOver,
            (false, 0, false) => v1::NexusState::Standby,
            _ => v1::NexusState::Inaccessible,
        }
    }

    fn members(&self) -> Vec<v1::NexusMember> {
        let view = &self.view;
        let Some(record) = view.record.as_ref() else { return Vec::new() };
        let slots = (0_u8..8).filter_map(|slot| Some((slot, record.replica(slot)?)));
        let member = |(slot, replica): (u8, &braid_nexus::record::Replica)| {
            let stands = matches!(replica.standing, Standing::Member { .. });
            let state = match (stands, view.failing >> slot & 1 == 1, view.joiner == Some(slot)) {
                (_, true, _) => v1::MemberState::Failing,
                (true, ..) => v1::MemberState::Member,
                (false, _, true) => v1::MemberState::Returning,
                (false, _, false) => v1::MemberState::Away,
            };
            v1::NexusMember {
                replica: names::text(replica.uuid),
                state: state.into(),
                reason: self.reasons[usize::from(slot) % SLOTS].into(),
            }
        };
        slots.map(member).collect()
    }

    fn rebuild(&self) -> Option<v1::Rebuild> {
        let progress = self.view.rebuild?;
        let waits = self.view.turn == Some(false);
        let going = !self.view.pace.paused && !waits;
        Some(v1::Rebuild {
            replica: self.replica(progress.slot),
            snapshot: progress.snapshot.map(names::text).unwrap_or_default(),
            snapshots_left: progress.snapshots_left,
            total_bytes: progress.total,
            done_bytes: progress.done,
            copied_bytes: progress.copied,
            bytes_per_s: progress.rate,
            left_s: progress.left().filter(|_| going).map(|left| left.as_secs()),
            waits_behind: waits.then(|| self.behind.unwrap_or(0)),
        })
    }
}

fn pace(pace: Pace) -> v1::RebuildPace {
    let rate = |rate: Option<std::num::NonZeroU64>| rate.map_or(0, std::num::NonZeroU64::get);
    v1::RebuildPace {
        paused: pace.paused,
        beside_bytes_per_s: rate(pace.beside),
        alone_bytes_per_s: rate(pace.alone),
    }
}

fn totals(totals: &Totals) -> v1::NexusTotals {
    let ms = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    v1::NexusTotals {
        take_overs: totals.take_overs,
        take_over_ms: ms(totals.take_over_time),
        fence_ms: ms(totals.fence_time),
        exclusions: totals.exclusions,
        returns_begun: totals.returns_begun,
        returns: totals.returns,
        held: totals.held,
        held_ms: ms(totals.held_time),
        resynced_regions: totals.resynced_regions,
        resynced_bytes: totals.resynced_bytes,
        repaired_blocks: totals.repaired_blocks,
        rebuilt_bytes: totals.rebuilt,
        rebuild_copied_bytes: totals.copied,
        degraded_ms: ms(totals.degraded_time),
        snapshots: totals.snapshots,
    }
}

#[cfg(test)]
mod tests {
    use braid_nexus::record::{Record, Replica};
    use braid_nexus::wire::Refusal;

    use super::*;

    fn part() -> Part {
        let mut part = Part::new(0, [1; 16]);
        let mut record = Record { bytes: 4 << 30, epoch: 3, ..Record::default() };
        let standings = [Standing::Member { instance: 1 }, Standing::Away { whole: false }];
        for (slot, standing) in standings.into_iter().enumerate() {
            record.slots[slot] = Some(Replica { uuid: [slot as u8 + 7; 16], standing });
        }
        part.view = View { epoch: 3, serving: true, members: 1, ..View::default() };
        part.view.record = Some(record);
        part
    }

    #[test]
    fn a_member_has_a_state_and_a_reason_until_it_is_back() {
        let mut part = part();
        part.take(&Note::Failing { slot: 1, refusal: Refusal::Failed }, 5);
        let states = |part: &Part| {
            let members = part.nexus([1; 16], "db").members;
            members.iter().map(|m| (m.state(), m.reason.clone())).collect::<Vec<_>>()
        };
        let member = (v1::MemberState::Member, String::new());
        assert_eq!(states(&part), [member.clone(), (v1::MemberState::Away, "failed".into())]);
        part.view.joiner = Some(1);
        part.take(&Note::Returning { slot: 1, step: Step::Attached }, 6);
        part.take(&Note::Returning { slot: 1, step: Step::Failed }, 7);
        assert_eq!(states(&part)[1], (v1::MemberState::Returning, "attached".into()));
        part.take(&Note::Returning { slot: 1, step: Step::Member }, 8);
        assert_eq!(states(&part)[1].1, "");
        let history = part.history();
        assert_eq!(history.len(), 4);
        assert_eq!((history[0].unix_ms, history[0].what.as_str()), (5, "member-failing"));
        assert_eq!(history[0].replica, "08080808-0808-0808-0808-080808080808");
    }

    #[test]
    fn a_history_is_bounded_and_details_are_not_in_it() {
        let mut part = part();
        for _ in 0..1000 {
            part.take(&Note::Repaired { blocks: 1 }, 1);
            part.take(&Note::Resynced { region: 1, copied: 0 }, 1);
        }
        assert_eq!(part.history().len(), HISTORY_MAX);
        assert!(part.history().iter().all(|event| event.what == "repaired"));
    }

    #[test]
    fn while_it_is_paused_nobody_says_when_it_is_done() {
        let mut part = part();
        let progress = braid_nexus::Progress {
            slot: 1,
            snapshot: None,
            snapshots_left: 0,
            total: 100 << 20,
            done: 50 << 20,
            copied: 0,
            rate: 10 << 20,
        };
        part.view.rebuild = Some(progress);
        assert_eq!(part.nexus([1; 16], "db").rebuild.unwrap().left_s, Some(5));
        assert_eq!(part.path([1; 16]).copied_bytes, 50 << 20);
        part.view.pace.paused = true;
        assert_eq!(part.nexus([1; 16], "db").rebuild.unwrap().left_s, None);
    }

    #[test]
    fn one_that_waits_for_its_turn_says_how_many_go_first_and_not_when_it_is_done() {
        let mut part = part();
        let progress = braid_nexus::Progress {
            slot: 1,
            snapshot: None,
            snapshots_left: 0,
            total: 4 << 30,
            done: 1 << 30,
            copied: 0,
            rate: 10 << 20,
        };
        (part.view.rebuild, part.view.turn, part.behind) = (Some(progress), Some(false), Some(2));
        let shown = part.nexus([1; 16], "db").rebuild.unwrap();
        assert_eq!((shown.waits_behind, shown.left_s), (Some(2), None));
        (part.view.turn, part.behind) = (Some(true), None);
        let shown = part.nexus([1; 16], "db").rebuild.unwrap();
        assert!(shown.waits_behind.is_none() && shown.left_s.is_some());
    }
}
