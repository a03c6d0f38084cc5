//! Driving a pool without a loop of events: everything it asks for is done at once.
//!
//! For offline tools and tests. Nothing here knows what a pool does.

use braid_block::{Instant, IoError, Memory};

use crate::effect::{Effect, Event};
use crate::{Completion, Pool};

/// A device, a file or a copy of one, that answers at once.
pub trait Image {
    /// Reads.
    ///
    /// # Errors
    /// What the device says.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), IoError>;

    /// Writes.
    ///
    /// # Errors
    /// What the device says; an image that is only looked at says that it cannot.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let _ = (offset, bytes);
        Err(IoError::Unsupported)
    }

    /// Makes everything that was written durable.
    ///
    /// # Errors
    /// What the device says.
    fn sync(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

/// Buffers that can be named by their spans: what a tool's memory can do beside [`Memory`].
pub trait Buffers: Memory {
    /// The content of a span.
    fn span(&self, span: braid_block::Span) -> &[u8];

    /// The content of a span, to be changed.
    fn span_mut(&mut self, span: braid_block::Span) -> &mut [u8];
}

/// Does what a pool asks for until it asks for nothing more; `done` gets the completions.
pub fn run_blocking<M: Buffers, I: Image>(
    pool: &mut Pool,
    mem: &mut M,
    image: &mut I,
    now: Instant,
    mut done: impl FnMut(&mut M, Completion),
) {
    let mut idle = 0_u32;
    loop {
        pool.end_turn(mem, now);
        let mut moved = false;
        while let Some(effect) = pool.poll_effect() {
            moved = true;
            let event = carry_out(mem, image, effect);
            pool.handle(mem, now, event);
        }
        while let Some(completion) = pool.poll_completion() {
            done(mem, completion);
        }
        if !moved && !pool.has_work() {
            return;
        }
        // A pool that asks for turns and does nothing in them would never end.
        idle = if moved { 0 } else { idle + 1 };
        assert!(idle < 100_000, "a pool has work, and does none");
    }
}

fn carry_out<M: Buffers, I: Image>(mem: &mut M, image: &mut I, effect: Effect) -> Event {
    let (token, result) = match effect {
        Effect::Read { token, span, offset } => {
            (token, image.read(offset, mem.span_mut(span)).map(|()| span.len))
        }
        Effect::Write { token, span, offset } => {
            (token, image.write(offset, mem.span(span)).map(|()| span.len))
        }
        Effect::Sync { token } => (token, image.sync().map(|()| 0)),
        Effect::Discard { token, .. } => (token, Ok(0)),
    };
    Event::Done { token, result }
}
