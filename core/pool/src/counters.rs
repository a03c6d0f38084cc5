//! What a pool counts. Plain numbers: read once a second by whoever wants them.

/// Counts since the pool was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Read requests done.
    pub reads: u64,
    /// Write requests done.
    pub writes: u64,
    /// Zero requests done.
    pub zeroes: u64,
    /// Flush requests done.
    pub flushes: u64,
    /// Bytes read by requests.
    pub read_bytes: u64,
    /// Bytes written by requests.
    pub written_bytes: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Blocks whose checksum did not match, for good.
    pub checksum_errors: u64,
    /// Blocks returned that could not be verified after an unclean stop.
    pub unverified: u64,
    /// Reads sent to the device.
    pub device_reads: u64,
    /// Writes sent to the device: data.
    pub data_writes: u64,
    /// Writes sent to the device: journal.
    pub journal_writes: u64,
    /// Writes sent to the device: pages and superblocks.
    pub page_writes: u64,
    /// Flushes sent to the device.
    pub device_flushes: u64,
    /// Discards sent to the device.
    pub device_discards: u64,
    /// Bytes written to the device, of all kinds.
    pub device_written_bytes: u64,
    /// Bytes read from the device, of all kinds.
    pub device_read_bytes: u64,
    /// Journal blocks written.
    pub journal_blocks: u64,
    /// Checkpoints done.
    pub checkpoints: u64,
    /// Regions marked open.
    pub regions_opened: u64,
    /// Regions closed again.
    pub regions_closed: u64,
    /// Passes of a checksum over a block of payload.
    pub crc_blocks: u64,
    /// Blocks copied for partial writes and merges.
    pub copied_blocks: u64,
    /// Looks into a layer's map.
    pub lookups: u64,
    /// Checksum pages found in memory.
    pub cache_hits: u64,
    /// Checksum pages read from the device.
    pub cache_misses: u64,
}

impl Counters {
    /// Writes sent to the device, of all kinds.
    #[must_use]
    pub const fn device_writes(&self) -> u64 {
        self.data_writes + self.journal_writes + self.page_writes
    }
}
