//! What a shard counts. Plain numbers: read once a second by whoever wants them.

/// Counts of one namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct NamespaceCounters {
    /// Read commands done.
    pub reads: u64,
    /// Write commands done.
    pub writes: u64,
    /// Compare commands done.
    pub compares: u64,
    /// Verify commands done.
    pub verifies: u64,
    /// Flush commands done.
    pub flushes: u64,
    /// Write Zeroes commands done.
    pub write_zeroes: u64,
    /// Dataset Management commands done.
    pub dataset_managements: u64,
    /// Bytes read by hosts, or looked at for them.
    pub read_bytes: u64,
    /// Bytes written by hosts.
    pub written_bytes: u64,
    /// Commands that ended with an error status.
    pub errors: u64,
    /// Of these, media and integrity errors.
    pub media_errors: u64,
    /// Reads sent to the device.
    pub device_reads: u64,
    /// Writes sent to the device.
    pub device_writes: u64,
    /// Flushes sent to the device.
    pub device_flushes: u64,
}

/// Counts of a shard.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Connections closed.
    pub closed: u64,
    /// Connections refused because of a limit.
    pub refused: u64,
    /// Connect commands refused because their host has too many connections.
    pub host_refused: u64,
    /// Times a command waited because its host's commands hold too many buffers.
    pub host_buffer_waits: u64,
    /// Connect commands refused.
    pub connects_refused: u64,
    /// Queues whose host proved who it is, again and again counted.
    pub authentications: u64,
    /// Those whose host did not.
    pub authentications_failed: u64,
    /// Termination requests sent.
    pub terminated: u64,
    /// Keep alive time-outs.
    pub keep_alive_expired: u64,
    /// Data digests that did not match.
    pub data_digest_errors: u64,
    /// Commands taken.
    pub commands: u64,
    /// Batches sent.
    pub sends: u64,
    /// Times a command waited for a buffer.
    pub buffer_waits: u64,
}
