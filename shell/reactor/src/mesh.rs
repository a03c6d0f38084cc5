//! Mail between shards: one bounded single-producer ring for each ordered pair.

/// A shard's end of the mail: what it may post to, and what it is posted by.
#[derive(Debug)]
pub struct Port {
    shard: u16,
}

/// The ports of `shards` shards that can all write to each other, in order.
#[must_use]
pub fn mesh(shards: u16) -> Vec<Port> {
    (0..shards).map(|shard| Port { shard }).collect()
}

impl Port {
    /// Which shard this is.
    #[must_use]
    pub const fn shard(&self) -> u16 {
        self.shard
    }
}
