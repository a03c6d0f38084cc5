//! How the management thread reaches a shard's thread.

use std::sync::mpsc;

/// Sends controls to a running reactor from any thread.
#[derive(Debug)]
pub struct Remote<C> {
    queue: mpsc::Sender<C>,
}

/// The reactor has ended; here is the control back.
#[derive(Debug)]
pub struct Stopped<C>(pub C);

impl<C> Clone for Remote<C> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone() }
    }
}

impl<C> Remote<C> {
    /// Queues a control and wakes the reactor. Never blocks.
    ///
    /// # Errors
    /// When the reactor has ended.
    pub fn post(&self, control: C) -> Result<(), Stopped<C>> {
        self.queue.send(control).map_err(|e| Stopped(e.0))
    }
}
