//! How the management thread reaches a shard's thread.

use std::sync::{Arc, mpsc};

use crate::mesh::Waker;

/// Sends controls to a reactor from any thread.
#[derive(Debug)]
pub struct Remote<C> {
    queue: mpsc::Sender<C>,
    wakers: Arc<[Waker]>,
    shard: u16,
}

/// The reactor has ended; here is the control back.
#[derive(Debug)]
pub struct Stopped<C>(pub C);

impl<C> Clone for Remote<C> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), wakers: self.wakers.clone(), shard: self.shard }
    }
}

impl<C> Remote<C> {
    pub(crate) const fn new(queue: mpsc::Sender<C>, wakers: Arc<[Waker]>, shard: u16) -> Self {
        Self { queue, wakers, shard }
    }

    /// Queues a control and wakes the reactor. Never blocks.
    ///
    /// # Errors
    /// When the reactor has ended.
    pub fn post(&self, control: C) -> Result<(), Stopped<C>> {
        self.queue.send(control).map_err(|e| Stopped(e.0))?;
        self.wakers[usize::from(self.shard)].call();
        Ok(())
    }
}
