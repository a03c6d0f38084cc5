//! What happens to volumes, in the words of logs, events, histories and lists.

use braid_nexus::wire::Refusal;
use braid_nexus::{Note, Step, Why};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// The word for it, as `Event.NexusChanged` has it.
    pub(super) what: &'static str,
    /// The slot of the replica that it is about.
    pub(super) slot: Option<u8>,
    /// Why, or which step.
    pub(super) reason: &'static str,
    pub(super) text: String,
    pub(super) weight: Weight,
}

/// How much somebody should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// One of many: only counted.
    Detail,
    News,
    Warning,
}

/// A note in words; `name` tells the replica in a slot.
pub(super) fn told(note: &Note, name: impl Fn(u8) -> String) -> Told {
    let names = |mask: u8| {
        let named = (0..8).filter(|slot| mask >> slot & 1 == 1).map(&name);
        named.collect::<Vec<_>>().join(", ")
    };
    let (what, slot, reason, text) = match note {
        Note::Claimed { epoch } => ("claimed", None, "", format!("taking over in epoch {epoch}")),
        Note::Waiting { missing } => {
            ("waiting", None, "", format!("waiting for {}", names(*missing)))
        }
        Note::Serving { epoch, members, suspect, lossy } => {
            let lossy = if *lossy { "; what was not flushed may be lost" } else { "" };
            let count = members.count_ones();
            let text = format!(
                "serving in epoch {epoch} with {count} members, {suspect} MiB to be compared{lossy}"
            );
            ("serving", None, "", text)
        }
        Note::Stopped { epoch, why } => {
            ("stopped", None, why_of(*why), format!("epoch {epoch} ended: {}", why_of(*why)))
        }
        Note::Failing { slot, refusal } => {
            let why = reason(*refusal);
            ("member-failing", Some(*slot), why, format!("{} failed: {why}", name(*slot)))
        }
        Note::Excluded { slots } => {
            let first = u8::try_from(slots.trailing_zeros()).ok().filter(|slot| *slot < 8);
            ("member-excluded", first, "", format!("{} is away", names(*slots)))
        }
        Note::Lost => {
            let text = "no member is left that has every write; a take-over is needed";
            ("lost", None, "", text.into())
        }
        Note::Held => {
            let text = "writes are held for too long; hosts take another path, or wait";
            ("held", None, "", text.into())
        }
        Note::Resynced { region, copied } => {
            ("resynced", None, "", format!("region {region} is equal, {copied} bytes were copied"))
        }
        Note::Returning { slot, step } => {
            let word = step_of(*step);
            ("returning", Some(*slot), word, format!("{} returns: {}", name(*slot), long(*step)))
        }
        Note::Unreadable { slot, offset, .. } => {
            let text = format!("{} needs what nobody can read, at byte {offset}", name(*slot));
            ("unreadable", Some(*slot), "media", text)
        }
        Note::Repaired { blocks } => {
            ("repaired", None, "", format!("{blocks} blocks were written anew"))
        }
        Note::Snapshot { taken } => {
            let text = if *taken { "a snapshot was taken" } else { "no snapshot was taken" };
            ("snapshot", None, "", text.into())
        }
    };
    Told { what, slot, reason, text, weight: weight(note) }
}

const fn weight(note: &Note) -> Weight {
    match note {
        Note::Resynced { .. } => Weight::Detail,
        Note::Lost
        | Note::Waiting { .. }
        | Note::Failing { .. }
        | Note::Held
        | Note::Unreadable { .. }
        | Note::Returning { step: Step::Failed, .. } => Weight::Warning,
        _ => Weight::News,
    }
}

/// Why a replica did not do what it was asked.
pub(super) const fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Gone => "gone",
        Refusal::Conflict { .. } => "obeys-another",
        Refusal::CopyNewer { .. } => "knows-newer",
        Refusal::StoreDiffers => "other-store",
        Refusal::NoSpace => "no-space",
        Refusal::Media(_) => "media",
        Refusal::Failed => "failed",
        Refusal::Invalid => "invalid",
    }
}

const fn why_of(why: Why) -> &'static str {
    match why {
        Why::SwapLost => "another-owner-claimed",
        Why::Conflict => "replicas-obey-another",
        Why::Lost => "no-member-left",
        Why::StoreNotCurrent => "store-not-current",
        Why::Shutdown => "left-in-order",
        Why::Replaced => "appointed-anew",
        Why::Withdrawn => "withdrawn",
    }
}

/// A step of a return.
pub(super) const fn step_of(step: Step) -> &'static str {
    match step {
        Step::Fencing => "fencing",
        Step::Snapshots => "snapshots",
        Step::Attached => "attached",
        Step::Copying { .. } => "copying",
        Step::Adding => "adding",
        Step::Member => "member",
        Step::Failed => "failed",
        Step::Yielded => "yielded",
    }
}

fn long(step: Step) -> String {
    match step {
        Step::Fencing => "it is reached".into(),
        Step::Snapshots => "snapshots that it missed come first".into(),
        Step::Attached => "it gets every write".into(),
        Step::Copying { regions } => format!("{regions} MiB are compared"),
        Step::Adding => "it is up to date".into(),
        Step::Member => "it is a member".into(),
        Step::Failed => "it failed, and is tried again".into(),
        Step::Yielded => "one that lacks little goes before it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_its_replica_and_why() {
        let name = |slot: u8| format!("r{slot}");
        let told = told(&Note::Failing { slot: 2, refusal: Refusal::NoSpace }, name);
        assert_eq!((told.what, told.slot, told.reason), ("member-failing", Some(2), "no-space"));
        assert_eq!((told.text.as_str(), told.weight), ("r2 failed: no-space", Weight::Warning));
    }

    #[test]
    fn several_replicas_are_all_named() {
        let name = |slot: u8| format!("r{slot}");
        assert_eq!(told(&Note::Excluded { slots: 0b101 }, name).text, "r0, r2 is away");
        let none = told(&Note::Excluded { slots: 0 }, name);
        assert_eq!((none.slot, none.text.as_str()), (None, " is away"));
    }
}
