//! What people asked to be different about a volume that is served: its size, its snapshots, its
//! replicas. What the record says is done already.

use crate::desired::{Replica, Stay};
use crate::observed::Record;
use crate::volume::View;
use crate::{Step, Uuid};

impl View<'_> {
    /// The next change that may be tried now.
    pub(crate) fn change(&self, record: &Record, serving: Uuid) -> Option<Step> {
        let size = self.size(record, serving).into_iter();
        let steps = size
            .chain(self.snapshots(record, serving))
            .chain(self.replicas(record, serving))
            .chain(self.strangers(record, serving));
        steps.map(|step| self.unless_hopeless(step)).find(|step| self.may_try(step))
    }

    /// A step, or the end of its wish.
    fn unless_hopeless(&self, step: Step) -> Step {
        match step.wish() {
            Some(wish) if self.ledger().is_some_and(|ledger| ledger.is_hopeless(&step)) => {
                Step::End { wish }
            }
            _ => step,
        }
    }

    /// Whether the engine that is to make a change is there, and none of its failures is too
    /// recent.
    pub(crate) fn may_try(&self, step: &Step) -> bool {
        let reached =
            step.engine().is_none_or(|engine| self.observed.is_reached(&engine, self.now));
        reached && self.ledger().is_none_or(|ledger| ledger.may_change(step, self.now))
    }

    fn size(&self, record: &Record, serving: Uuid) -> Option<Step> {
        let bytes = self.wanted.bytes;
        (bytes > record.bytes).then_some(Step::Resize { engine: serving, bytes })
    }

    fn snapshots(&self, record: &Record, engine: Uuid) -> impl Iterator<Item = Step> {
        self.wanted.snapshots.iter().filter_map(move |wanted| {
            let snapshot = wanted.uuid;
            match (record.snapshots.contains(&snapshot), wanted.goes) {
                (false, false) => Some(Step::TakeSnapshot { engine, snapshot }),
                (true, true) => Some(Step::DropSnapshot { engine, snapshot }),
                _ => None,
            }
        })
    }

    fn replicas(&self, record: &Record, serving: Uuid) -> impl Iterator<Item = Step> {
        self.wanted
            .replicas
            .iter()
            .filter_map(move |replica| self.replica(record, serving, replica))
    }

    /// What is to be done about a replica that is to come, or to go.
    fn replica(&self, record: &Record, serving: Uuid, wanted: &Replica) -> Option<Step> {
        let Replica { uuid: replica, engine, stay } = *wanted;
        let (is_member, is_away) =
            (record.members.contains(&replica), record.away.contains(&replica));
        let seen = self.observed.engines.get(&engine);
        let made = seen.is_some_and(|seen| seen.replicas.contains(&replica));
        let dropped = self.ledger().is_some_and(|ledger| ledger.is_dropped(&replica));
        match stay {
            Stay::Stays if is_member || is_away => None,
            Stay::Stays if made => Some(Step::AddMember { engine: serving, replica }),
            Stay::Stays => Some(Step::MakeReplica { engine, replica }),
            // The last one that has everything stays, whatever was asked for.
            _ if is_member => {
                let other = record.members.len() > 1;
                other.then_some(Step::TakeOut { engine: serving, replica })
            }
            _ if is_away => Some(Step::GiveUp { engine: serving, replica }),
            Stay::Leaves if !dropped => Some(Step::DropReplica { engine, replica }),
            _ => Some(Step::Unlist { replica }),
        }
    }

    /// Replicas that are away and that nobody wants: an owner named one when it was not wanted any
    /// more.
    fn strangers(&self, record: &Record, engine: Uuid) -> impl Iterator<Item = Step> {
        let wanted = |uuid: &&Uuid| self.wanted.replicas.iter().any(|r| r.uuid == **uuid);
        let strange = record.away.iter().filter(move |uuid| !wanted(uuid));
        strange.map(move |replica| Step::GiveUp { engine, replica: *replica })
    }
}
