//! What a world runs: a pool, or in tests of the world something simpler.

use braid_block::{Instant, IoError};
use braid_pool::{
    Bearing, Command, Completion, Config, Counters, Effect, Event, Format, Handle, LayerInfo, Note,
    Pool, PoolInfo, Request, Scope, State, check, run_blocking,
};

use crate::image::Image;
use crate::memory::SimMemory;

/// The interface of a pool. Each method is the one of [`Pool`] with the same name.
#[allow(missing_docs, reason = "every method is documented where it is Pool's")]
pub trait Machine: Sized {
    fn create(config: Config, format: Format) -> Self;
    fn open(config: Config) -> Self;
    fn state(&self) -> State;
    fn submit(&mut self, mem: &mut SimMemory, now: Instant, request: Request);
    fn command(&mut self, mem: &mut SimMemory, now: Instant, tag: u64, command: Command);
    fn handle(&mut self, mem: &mut SimMemory, now: Instant, event: Event);
    fn end_turn(&mut self, mem: &mut SimMemory, now: Instant);
    fn poll_effect(&mut self) -> Option<Effect>;
    fn poll_completion(&mut self) -> Option<Completion>;
    fn poll_note(&mut self) -> Option<Note>;
    fn poll_timeout(&self) -> Option<Instant>;
    fn has_work(&self) -> bool;
    fn stop(&mut self, mem: &mut SimMemory, now: Instant);
    fn drop_leases(&mut self, mem: &mut SimMemory);
    fn layers(&self) -> Vec<LayerInfo>;
    fn info(&self) -> PoolInfo;
    fn counters(&self) -> Counters;
    fn bearing(&self, handle: Handle) -> Option<Bearing> {
        let _ = handle;
        None
    }
    fn take_marks(&mut self, tag: u64) -> Option<Vec<(u32, u32)>> {
        let _ = tag;
        None
    }
    /// Who waits for what, for who looks into a hang.
    fn waiting(&self) -> String {
        String::new()
    }
    /// Looks at an image without changing it: what is not as it must be.
    fn check(config: Config, image: &Image, now: Instant) -> Vec<String> {
        let _ = (config, image, now);
        Vec::new()
    }
}

/// A copy of an image, which answers at once.
struct Offline(Image);

impl braid_pool::Image for Offline {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), IoError> {
        self.0.read(offset, bytes);
        Ok(())
    }
}

impl Machine for Pool {
    fn create(config: Config, format: Format) -> Self {
        Self::create(config, format)
    }

    fn open(config: Config) -> Self {
        Self::open(config)
    }

    fn state(&self) -> State {
        self.state()
    }

    fn submit(&mut self, mem: &mut SimMemory, now: Instant, request: Request) {
        self.submit(mem, now, request);
    }

    fn command(&mut self, mem: &mut SimMemory, now: Instant, tag: u64, command: Command) {
        self.command(mem, now, tag, command);
    }

    fn handle(&mut self, mem: &mut SimMemory, now: Instant, event: Event) {
        self.handle(mem, now, event);
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

    fn poll_note(&mut self) -> Option<Note> {
        self.poll_note()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.poll_timeout()
    }

    fn has_work(&self) -> bool {
        self.has_work()
    }

    fn stop(&mut self, mem: &mut SimMemory, now: Instant) {
        self.stop(mem, now);
    }

    fn drop_leases(&mut self, mem: &mut SimMemory) {
        self.drop_leases(mem);
    }

    fn layers(&self) -> Vec<LayerInfo> {
        Vec::from_iter(self.layers())
    }

    fn info(&self) -> PoolInfo {
        self.info()
    }

    fn counters(&self) -> Counters {
        *self.counters()
    }

    fn bearing(&self, handle: Handle) -> Option<Bearing> {
        self.bearing(handle)
    }

    fn take_marks(&mut self, tag: u64) -> Option<Vec<(u32, u32)>> {
        self.take_marks(tag)
    }

    fn waiting(&self) -> String {
        self.waiting()
    }

    fn check(config: Config, image: &Image, now: Instant) -> Vec<String> {
        let mut mem = SimMemory::new(16 << 20);
        let mut image = Offline(image.clone());
        let mut pool = Self::open(Config { read_only: true, ..config });
        run_blocking(&mut pool, &mut mem, &mut image, now, |_, _| {});
        if pool.state() != State::Open {
            let notes = std::iter::from_fn(|| pool.poll_note()).map(|note| format!("{note:?}"));
            return notes.collect();
        }
        let report = check(&mut pool, &mut mem, &mut image, now, Scope::default());
        let bad = report.findings.iter().filter(|finding| !finding.is_mendable());
        bad.map(|finding| format!("{finding:?}")).collect()
    }
}
