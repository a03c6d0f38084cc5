//! Rules that can be switched off, and where their absence shows.

use braid_nexus::Plant;

use super::campaign::Finding;

/// A rule that can be switched off, and what then does not hold.
#[derive(Clone, Copy, Debug)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    /// What is switched off.
    pub plant: Plant,
    /// The profile that meets what the rule is for.
    pub profile: &'static str,
    /// What the rule keeps: any other violation is found by chance, and shows nothing of it.
    pub shows: &'static [&'static str],
}

impl Mutant {
    const fn new(
        name: &'static str,
        plant: Plant,
        profile: &'static str,
        shows: &'static [&'static str],
    ) -> Self {
        Self { name, plant, profile, shows }
    }

    /// Whether a finding is of what the rule keeps.
    #[must_use]
    pub fn shows_in(&self, finding: &Finding) -> bool {
        self.shows.contains(&finding.violation.invariant)
    }
}

/// A write that not all who count have is acknowledged.
const LACKING: &[&str] = &["AckWithinMembership"];
/// Members that are relied on differ, where hosts would read it or in the end.
const DIFFERING: &[&str] = &["Convergence", "MarksCover", "BlockLinearizable"];
/// What hosts read is not what a register holds.
const STALE: &[&str] = &["BlockLinearizable"];
/// A write that is over comes again.
const UNDONE: &[&str] =
    &["AckedSurvivesCrash", "BlockLinearizable", "AckWithinMembership", "Convergence"];
/// An older epoch still answers.
const LEASED: &[&str] = &["SingleEpoch"];
/// What was flushed is gone.
const UNFLUSHED: &[&str] = &["FlushedDurable"];
/// Something never comes to an end.
const STARVED: &[&str] = &["ConvergeAfterHeal"];
/// A host does not learn of a loss.
const UNTOLD: &[&str] = &["LossTold"];

/// Every rule that can be switched off.
pub const PLANTS: [Mutant; 33] = [
    Mutant::new("ack-before-exclude", Plant::AckBeforeExclude, "members", LACKING),
    Mutant::new("plain-put", Plant::PlainPut, "duel", &["AckWithinMembership", "SafeActivation"]),
    Mutant::new("unknown-by-reading", Plant::UnknownByReading, "store", LACKING),
    Mutant::new("no-lock", Plant::NoLock, "overlap", &["Convergence"]),
    Mutant::new("fence-without-drain", Plant::FenceWithoutDrain, "ghosts", DIFFERING),
    Mutant::new("record-before-fence", Plant::RecordBeforeFence, "duel", &["SafeActivation"]),
    Mutant::new("joiner-late", Plant::JoinerLate, "fresh-regions", DIFFERING),
    Mutant::new("ack-without-joiner", Plant::AckWithoutJoiner, "returns", LACKING),
    Mutant::new("add-counts-late", Plant::AddCountsLate, "store", LACKING),
    Mutant::new("return-without-fence", Plant::ReturnWithoutFence, "late-writes", UNDONE),
    Mutant::new("return-while-suspect", Plant::ReturnWhileSuspect, "full-members", DIFFERING),
    Mutant::new("delta-of-joiner-alone", Plant::DeltaOfJoinerAlone, "returns", DIFFERING),
    Mutant::new("flush-leaves-one-out", Plant::FlushLeavesOneOut, "last-member", UNFLUSHED),
    Mutant::new("mark-after-data", Plant::MarkAfterData, "late-marks", DIFFERING),
    Mutant::new("clean-early", Plant::CleanEarly, "marks", &["MarksCover"]),
    Mutant::new("clean-across-change", Plant::CleanAcrossChange, "marks", DIFFERING),
    Mutant::new("skip-holes", Plant::SkipHoles, "holes", &["Convergence"]),
    Mutant::new(
        "forget-snapshot",
        Plant::ForgetSnapshot,
        "snapshots",
        &["SnapshotPoint", "Convergence"],
    ),
    Mutant::new("forget-compared", Plant::ForgetCompared, "unceasing-snapshots", STARVED),
    Mutant::new("trust-old-layers", Plant::TrustOldLayers, "unceasing-snapshots", DIFFERING),
    Mutant::new("no-write-back", Plant::NoWriteBack, "divergence", STALE),
    Mutant::new("read-unsettled", Plant::ReadUnsettled, "divergence", STALE),
    Mutant::new("copies-released", Plant::CopiesReleased, "copies-in-flight", UNDONE),
    Mutant::new("same-instance", Plant::SameInstance, "power", &["AckedSurvivesCrash"]),
    Mutant::new("resume-association", Plant::ResumeAssociation, "power", UNDONE),
    Mutant::new("no-lease-check", Plant::NoLeaseCheck, "stale-reads", LEASED),
    Mutant::new("lease-of-one", Plant::LeaseOfOne, "stale-reads", LEASED),
    Mutant::new("lease-by-fence", Plant::LeaseByFence, "leases", LEASED),
    Mutant::new(
        "old-epoch-writes",
        Plant::OldEpochWrites,
        "older-epochs",
        &["AckWithinMembership", "SingleEpoch", "BlockLinearizable"],
    ),
    Mutant::new("no-ana-read", Plant::NoAnaRead, "held-packets", STALE),
    Mutant::new("lossy-no-failed-flush", Plant::LossyNoFailedFlush, "blackout", UNTOLD),
    Mutant::new("lossy-retryable", Plant::LossyRetryable, "blackout", UNTOLD),
    Mutant::new("lossy-by-association", Plant::LossyByAssociation, "blackout", UNTOLD),
];
