//! The end of an owner: everything of it dies, and only buffers are waited for.

use braid_block::Key;

use crate::{Effect, Failure, Note, Status, Why};

use super::Volume;
use super::op::State;
use super::swap::Change;

impl Volume {
    /// Ends the owner here, if there is one: the volume is taken away from this engine. Hosts'
    /// commands, held ones too, are answered that they should ask elsewhere; as soon as replicas
    /// touch no buffer any more, [`super::View`] shows none.
    pub fn retire(&mut self) {
        self.stop(Why::Withdrawn);
    }

    /// Ends this owner, for good. Hosts' commands, admitted or not, are answered that they should
    /// ask elsewhere, and forgotten.
    pub(crate) fn stop(&mut self, why: Why) {
        let optimized = self.is_optimized();
        self.release_leases();
        self.forget_calls();
        let Some(nexus) = self.nexus.take() else { return };
        for association in nexus.links.iter().filter_map(super::state::Link::association) {
            self.effects.push_back(Effect::Leave { association });
        }
        if optimized {
            self.effects.push_back(Effect::Access { optimized: false });
        }
        self.note(Note::Stopped { epoch: nexus.epoch, why });
        let swap = nexus.swap.map(|swap| swap.change);
        let changes = swap.iter().chain(&nexus.changes).chain(&nexus.committed);
        let tags = changes.filter_map(tag_of).chain(nexus.tag);
        let drops = nexus.drops.iter().filter_map(|drop| drop.tag);
        let excluding = nexus.excluding.iter().map(|(_, tag)| *tag);
        let snapshot = nexus.snapshot.as_ref().map(super::snapshot::Barrier::tag);
        let resizing = nexus.resizing.as_ref().map(super::snapshot::Resizing::tag);
        let leaving = nexus.leaving.filter(|_| why != Why::Shutdown).map(|leaving| leaving.tag());
        let tags =
            tags.chain(drops).chain(excluding).chain(snapshot).chain(resizing).chain(leaving);
        let tags: alloc::vec::Vec<u64> = tags.collect();
        for tag in tags {
            self.end(tag, Err(Failure::NotOwner));
        }
        let ends = |state| !matches!(state, State::Ending(_));
        let ops = self.ops.iter().filter(|(_, op)| ends(op.state)).map(|(key, _)| key);
        let keys: alloc::vec::Vec<Key> = ops.collect();
        for key in keys {
            self.conclude(key, Status::Inaccessible);
        }
    }
}

impl Volume {
    /// What was asked of replicas for an owner itself is nothing to a later one; the answers find
    /// nobody. What names a buffer is still waited for.
    fn forget_calls(&mut self) {
        let own = self.calls.iter().filter(|(_, call)| !call.has_buffer()).map(|(key, _)| key);
        let own: alloc::vec::Vec<Key> = own.collect();
        for key in own {
            self.calls.remove(key);
        }
    }
}

/// Who waits for a change.
const fn tag_of(change: &Change) -> Option<u64> {
    match change {
        Change::Name { tag, .. }
        | Change::Forget { tag, .. }
        | Change::DropSnapshot { tag, .. } => Some(*tag),
        _ => None,
    }
}
