//! Rules that can be switched off, and where their absence shows.

use braid_nexus::Plant;

/// Every rule that can be switched off: its name, and the profile that shows it.
pub const PLANTS: [(&str, Plant, &str); 30] = [
    ("ack-before-exclude", Plant::AckBeforeExclude, "members"),
    ("plain-put", Plant::PlainPut, "duel"),
    ("unknown-by-reading", Plant::UnknownByReading, "store"),
    ("no-lock", Plant::NoLock, "overlap"),
    ("fence-without-drain", Plant::FenceWithoutDrain, "ghosts"),
    ("record-before-fence", Plant::RecordBeforeFence, "duel"),
    ("joiner-late", Plant::JoinerLate, "fresh-regions"),
    ("ack-without-joiner", Plant::AckWithoutJoiner, "returns"),
    ("add-counts-late", Plant::AddCountsLate, "store"),
    ("return-without-fence", Plant::ReturnWithoutFence, "late-writes"),
    ("return-while-suspect", Plant::ReturnWhileSuspect, "full-members"),
    ("delta-of-joiner-alone", Plant::DeltaOfJoinerAlone, "returns"),
    ("mark-after-data", Plant::MarkAfterData, "late-marks"),
    ("clean-early", Plant::CleanEarly, "marks"),
    ("clean-across-change", Plant::CleanAcrossChange, "marks"),
    ("skip-holes", Plant::SkipHoles, "holes"),
    ("forget-snapshot", Plant::ForgetSnapshot, "snapshots"),
    ("no-write-back", Plant::NoWriteBack, "divergence"),
    ("read-unsettled", Plant::ReadUnsettled, "divergence"),
    ("copies-released", Plant::CopiesReleased, "copies-in-flight"),
    ("same-instance", Plant::SameInstance, "power"),
    ("resume-association", Plant::ResumeAssociation, "power"),
    ("no-lease-check", Plant::NoLeaseCheck, "stale-reads"),
    ("lease-of-one", Plant::LeaseOfOne, "stale-reads"),
    ("lease-by-fence", Plant::LeaseByFence, "leases"),
    ("old-epoch-writes", Plant::OldEpochWrites, "older-epochs"),
    ("no-ana-read", Plant::NoAnaRead, "held-packets"),
    ("lossy-no-failed-flush", Plant::LossyNoFailedFlush, "blackout"),
    ("lossy-retryable", Plant::LossyRetryable, "blackout"),
    ("lossy-by-association", Plant::LossyByAssociation, "blackout"),
];
