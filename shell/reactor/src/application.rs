//! What a reactor runs, and whom it runs it for.

use braid_block::{Instant, Span};
use braid_shard::{Effect, Event, Note, Shard};

use crate::arena::Arena;
use crate::counters::Counters;
use crate::files::DiskTable;
use crate::sockets::Net;

/// A state machine without I/O: a [`Shard`], or a fake in tests. Statically bound.
pub trait Machine {
    /// Takes one event.
    fn handle(&mut self, mem: &mut Arena, now: Instant, event: Event);

    /// Ends a turn.
    fn end_turn(&mut self, mem: &mut Arena, now: Instant);

    /// The next thing to do.
    fn poll_effect(&mut self) -> Option<Effect>;

    /// When [`Event::Elapsed`] is due.
    fn poll_timeout(&self) -> Option<Instant>;

    /// Whether a turn would find work even if nothing happens.
    fn has_work(&self) -> bool;

    /// The bytes of a batch that [`Effect::Send`] names, at most 64 pieces, the same until its
    /// `Done`.
    fn batch(&self, batch: u32) -> &[Span];

    /// Frees every lease: nothing is in flight any more, and nothing is called after it.
    fn drop_leases(&mut self, mem: &mut Arena);
}

impl Machine for Shard {
    fn handle(&mut self, mem: &mut Arena, now: Instant, event: Event) {
        self.handle(mem, now, event);
    }

    fn end_turn(&mut self, mem: &mut Arena, now: Instant) {
        self.end_turn(mem, now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.poll_effect()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn has_work(&self) -> bool {
        self.has_work()
    }

    fn batch(&self, batch: u32) -> &[Span] {
        self.batch(batch)
    }

    fn drop_leases(&mut self, mem: &mut Arena) {
        self.drop_leases(mem);
    }
}

/// What an application may use while it is called.
pub struct World<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// The shard's buffers.
    pub mem: &'a mut Arena,
    /// Peers of sockets, and the addresses that `Effect::Connect` names.
    pub net: &'a mut Net,
    /// The disks, which may come and go.
    pub disks: DiskTable<'a>,
    /// What the reactor did so far.
    pub counters: &'a Counters,
}

/// Whom the machine serves: logs its notes, takes the management thread's orders, may drive it.
/// Lives on the shard's thread; none of its methods may block.
pub trait Application<M: Machine = Shard> {
    /// What the management thread sends.
    type Control: Send + 'static;

    /// The machine has something to tell.
    fn note(&mut self, machine: &M, world: &mut World<'_>, note: Note);

    /// The management thread sent something.
    fn control(&mut self, machine: &mut M, world: &mut World<'_>, control: Self::Control);

    /// Once a turn, after its events: a load generator looks for answers and asks for more. What
    /// the machine's end of the turn changes is seen in the next one, which comes at once only if
    /// the machine says that it has work.
    fn turn(&mut self, machine: &mut M, world: &mut World<'_>) {
        let _ = (machine, world);
    }

    /// When the next turn is due, if nothing happens before.
    fn timeout(&self) -> Option<Instant> {
        None
    }

    /// Whether the run is over. Asked once a turn, after its effects were carried out.
    fn finished(&self, machine: &M) -> bool;
}
