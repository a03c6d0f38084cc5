//! What a reactor did, as plain numbers.

/// Counts since the reactor began to run. Budgets are tested by them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Turns.
    pub turns: u64,
    /// System calls that entered the ring.
    pub enters: u64,
    /// Those of [`Counters::enters`] that were allowed to block.
    pub waits: u64,
    /// Times that it spun instead of blocking at once.
    pub polls: u64,
    /// Times that spinning found something.
    pub polls_hit: u64,
    /// Operations handed to the kernel.
    pub sqes: u64,
    /// Completions taken from the kernel.
    pub cqes: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections turned away because the table of sockets was full.
    pub turned_away: u64,
    /// Times that a receiver found no provided buffer.
    pub starved: u64,
    /// Letters sent to other shards.
    pub letters: u64,
    /// Letters that could not be delivered: the other shard had ended, or had no room for the
    /// socket inside.
    pub letters_lost: u64,
    /// Sockets open now.
    pub sockets: u64,
    /// Operations on disks in flight now.
    pub disk_ops: u64,
}
