//! What an engine runs for a volume: the nexus that ships, or in tests of the cluster something
//! simpler.

use braid_block::Instant;
use braid_nexus::{
    Command, Completion, Config, Copying, Effect, Ended, Event, Limits, Note, Plant, Request,
    Timing, Uuid, View, Volume,
};

use crate::memory::SimMemory;

/// The interface of a volume's nexus. Each method is the one of `braid_nexus::Volume` with the
/// same name.
#[allow(missing_docs, reason = "every method is documented where it is Volume's")]
pub trait Nexus {
    fn handle(&mut self, mem: &mut SimMemory, now: Instant, event: Event);
    fn submit(&mut self, now: Instant, request: Request);
    fn command(&mut self, now: Instant, tag: u64, command: Command);
    fn end_turn(&mut self, mem: &mut SimMemory, now: Instant);
    fn poll_effect(&mut self) -> Option<Effect>;
    fn poll_completion(&mut self) -> Option<Completion>;
    fn poll_ended(&mut self) -> Option<Ended>;
    fn poll_note(&mut self) -> Option<Note>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn has_work(&self) -> bool;
    fn is_optimized(&self) -> bool;
    fn view(&self) -> View;
    fn copies(&self) -> Vec<Copying>;
}

/// What a nexus is made of.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Which volume.
    pub volume: Uuid,
    /// Its size, as last known.
    pub bytes: u64,
    /// The replica on the same node.
    pub near: Option<Uuid>,
    /// Times of the protocol.
    pub timing: Timing,
    /// What is allocated.
    pub limits: Limits,
    /// A rule that is switched off.
    pub plant: Option<Plant>,
}

/// Makes the nexus of one engine for one volume.
pub type Maker = fn(Shape) -> Box<dyn Nexus>;

/// The nexus that ships.
#[must_use]
pub fn volume(shape: Shape) -> Box<dyn Nexus> {
    let Shape { volume, bytes, near, timing, limits, plant } = shape;
    Box::new(Volume::new(Config { volume, timing, limits, near, bytes, plant }))
}

impl Nexus for Volume {
    fn handle(&mut self, mem: &mut SimMemory, now: Instant, event: Event) {
        self.handle(mem, now, event);
    }

    fn submit(&mut self, now: Instant, request: Request) {
        self.submit(now, request);
    }

    fn command(&mut self, now: Instant, tag: u64, command: Command) {
        self.command(now, tag, command);
    }

    fn end_turn(&mut self, mem: &mut SimMemory, now: Instant) {
        self.end_turn(mem, now);
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.poll_effect()
    }

    fn poll_completion(&mut self) -> Option<Completion> {
        self.poll_completion()
    }

    fn poll_ended(&mut self) -> Option<Ended> {
        self.poll_ended()
    }

    fn poll_note(&mut self) -> Option<Note> {
        self.poll_note()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn has_work(&self) -> bool {
        self.has_work()
    }

    fn is_optimized(&self) -> bool {
        self.is_optimized()
    }

    fn view(&self) -> View {
        self.view()
    }

    fn copies(&self) -> Vec<Copying> {
        self.copies().collect()
    }
}
