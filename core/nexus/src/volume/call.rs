//! Commands to replicas that have not ended.

use braid_block::{Instant, Key, Span, Token};

use crate::Effect;
use crate::wire::Command;

use super::Volume;

/// Kind of our tokens.
const KIND: u8 = 0;

/// A command that is out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// To which slot.
    pub(crate) slot: u8,
    /// By which association.
    pub(crate) association: u32,
    /// When.
    pub(crate) sent: Instant,
    /// For whom.
    pub(crate) purpose: Purpose,
}

/// Who wants the answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// A host's command.
    Op(Key),
    /// A segment.
    Segment(Key),
    /// A step of a return, of which there were so many.
    Joiner(u32),
    /// Marks, for a return: an answer to an earlier one knows too little.
    Marks(u32),
    /// A fence, of a take-over or of a return.
    Fence,
    /// A copy of the record.
    Copy,
    /// A lease.
    Lease,
    /// The end of a lease.
    Release,
    /// Marks to be cleared.
    Clean,
    /// A flush of the owner's own.
    OwnFlush,
    /// A snapshot.
    Snapshot,
    /// A size.
    Resize,
    /// The deletion of a snapshot, of which there were so many.
    Delete(u32),
}

impl Call {
    /// What its answer comes back with.
    pub(crate) const fn token(key: Key) -> Token {
        Token::new(KIND, key)
    }

    /// Whether it may name a buffer, which is given back when it has ended.
    pub(crate) const fn has_buffer(&self) -> bool {
        matches!(self.purpose, Purpose::Op(_) | Purpose::Segment(_))
    }
}

impl Volume {
    /// Sends a command to a slot that has an association.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        slot: u8,
        purpose: Purpose,
        command: Command,
        span: Option<Span>,
    ) {
        let nexus = self.nexus.as_ref().expect("an owner sends");
        let association = nexus.links[usize::from(slot)].association().expect("it is associated");
        let call = Call { slot, association, sent: now, purpose };
        let Ok(key) = self.calls.insert(call) else { unreachable!("admission counts calls") };
        // A fence waits for a lease and for older commands: who sent it has a time of its own.
        // A walk through a replica's maps may take long, and stands in nobody's way.
        match purpose {
            Purpose::Fence => {}
            Purpose::Marks(_) | Purpose::Clean | Purpose::Delete(_) => {
                self.due_walks.push_back((now + self.config.timing.walk, key));
            }
            _ => self.due.push_back((now + self.config.timing.command, key)),
        }
        let token = Call::token(key);
        self.effects.push_back(Effect::Send { association, token, command, span });
    }

    /// When the command was sent that is out for the longest time.
    pub(crate) fn oldest_call(&self) -> Option<Instant> {
        let sent = |(_, key): &(Instant, Key)| self.calls.get(*key).map(|call| call.sent);
        let first = [&self.due, &self.due_walks].map(|due| due.iter().find_map(sent));
        first.into_iter().flatten().min()
    }

    /// The earliest deadline of a command that is out.
    pub(crate) fn first_due(&self) -> Option<Instant> {
        let out = |(_, key): &&(Instant, Key)| self.calls.get(*key).is_some();
        let first = [&self.due, &self.due_walks].map(|due| due.iter().find(out));
        first.into_iter().flatten().map(|(due, _)| *due).min()
    }
}
