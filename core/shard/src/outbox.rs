//! Effects that wait for the shell: a ring that is allocated once.

use alloc::collections::VecDeque;

use crate::effect::Effect;

/// Effects that handling one event or one command emits, at most, beside its notes.
const EFFECTS_PER_STEP_MAX: usize = 8;

/// The ring. Emitting never fails because work is admitted only while [`Outbox::has_room`].
#[derive(Debug)]
pub(crate) struct Outbox {
    ring: VecDeque<Effect>,
    capacity: usize,
}

impl Outbox {
    pub(crate) fn new(capacity: usize) -> Self {
        Self { ring: VecDeque::with_capacity(capacity), capacity }
    }

    /// Whether one more command may be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.ring.len() + EFFECTS_PER_STEP_MAX <= self.capacity
    }

    pub(crate) fn emit(&mut self, effect: Effect) {
        self.ring.push_back(effect);
    }

    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.ring.pop_front()
    }
}
