//! Everything a volume or a guard is told at start: times, limits, and the bugs that tests plant.

use core::time::Duration;

/// Times of the protocol (replication.md). All engines of a cluster have the same.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// What a replica promises with a lease.
    pub lease: Duration,
    /// How long the holder relies on it, from before it asked.
    pub lease_used: Duration,
    /// A lease is asked for anew while less than this is left of `lease_used`, and somebody reads.
    pub lease_renew: Duration,
    /// A take-over waits so long for members that may answer.
    pub fence: Duration,
    /// A member's command that takes longer counts as failed.
    pub command: Duration,
    /// The same for a command that walks through a replica's maps.
    pub walk: Duration,
    /// Writes that are held so long for a commit let the path go inaccessible.
    pub held: Duration,
    /// Pause before a compare-and-swap of unknown outcome is sent again, and before a broken
    /// association is asked for again.
    pub retry: Duration,
    /// A snapshot that has not all members by then lets I/O go on without it.
    pub barrier: Duration,
    /// A volume without I/O for this long cleans its marks.
    pub idle: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(1),
            lease_used: Duration::from_millis(800),
            lease_renew: Duration::from_millis(600),
            fence: Duration::from_secs(3),
            command: Duration::from_secs(3),
            walk: Duration::from_secs(30),
            held: Duration::from_secs(10),
            retry: Duration::from_millis(200),
            barrier: Duration::from_secs(1),
            idle: Duration::from_secs(2),
        }
    }
}

/// What a volume allocates at start.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests of hosts in work at once; more are refused with [`crate::Status::Busy`].
    pub requests_max: u32,
    /// Associations of hosts at this portal at once.
    pub hosts_max: u32,
    /// Segments of resync and rebuild in work at once.
    pub segments_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests_max: 1024, hosts_max: 256, segments_max: 4 }
    }
}

/// A rule that is switched off, to show that the simulator would notice (replication.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// A write is acknowledged while its failed member is still in the record.
    AckBeforeExclude,
    /// The record is put, not compared and swapped.
    PlainPut,
    /// A compare-and-swap of unknown outcome is taken for lost when the old version is read.
    UnknownByReading,
    /// Overlapping writes go out side by side.
    NoLock,
    /// A fence is answered while older commands are in work.
    FenceWithoutDrain,
    /// Members are those of the record as it was read before the claim.
    RecordBeforeFence,
    /// A joiner gets writes only after the maps were read.
    JoinerLate,
    /// A write is acknowledged while the joiner has not answered.
    AckWithoutJoiner,
    /// A joiner counts only when its add is committed.
    AddCountsLate,
    /// A replica that returns in the same epoch is not fenced anew.
    ReturnWithoutFence,
    /// A replica returns while regions are suspect.
    ReturnWhileSuspect,
    /// A return copies by the joiner's marks alone.
    DeltaOfJoinerAlone,
    /// A flush is not sent to the last of those who count, and counts as if it had been.
    FlushLeavesOneOut,
    /// A region is marked after its data was written: by the pool, which has a plant of its own.
    MarkAfterData,
    /// Marks are cleared for regions that were written while the flush was on its way.
    CleanEarly,
    /// Marks are cleared although the membership changed since the flush.
    CleanAcrossChange,
    /// A rebuild skips what the source does not hold.
    SkipHoles,
    /// A rebuild leaves out the snapshots that the joiner missed.
    ForgetSnapshot,
    /// What was compared in one layer is compared again in each that follows.
    ForgetCompared,
    /// What is equal in a snapshot counts for what comes after it, however old that is.
    TrustOldLayers,
    /// Suspect regions are read from the winner and not written back.
    NoWriteBack,
    /// A value is returned although an overlapping write is not settled.
    ReadUnsettled,
    /// Copies are let go when the member that they came from dies.
    CopiesReleased,
    /// A replica keeps its instance when its host restarted.
    SameInstance,
    /// A broken association goes on where it was.
    ResumeAssociation,
    /// Reads do not look at the lease.
    NoLeaseCheck,
    /// A lease of the member that is read is enough.
    LeaseOfOne,
    /// The answer to a fence counts as a lease.
    LeaseByFence,
    /// A replica takes writes of an older epoch.
    OldEpochWrites,
    /// Hosts need not have read the ANA log in this epoch.
    NoAnaRead,
    /// After a lossy activation no flush fails.
    LossyNoFailedFlush,
    /// After a lossy activation a flush fails so that hosts repeat it.
    LossyRetryable,
    /// After a lossy activation a host that connected anew counts as told.
    LossyByAssociation,
}
