//! Campaigns: seed after seed, each a cluster of its own, until all were run.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use braid_nexus::Plant;

pub use super::Level;
pub use super::plants::{Mutant, PLANTS};
pub use super::profile::{FREE, MIXED, Profile, kind};
use super::run::Run;
pub use super::run::Selection;
use crate::guard::guard;
use crate::oracle::Violation;
use crate::seen::Seen;
use crate::story::Story;

/// What a campaign shall do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Seeds.
    pub seeds: u64,
    /// The first.
    pub first: u64,
    /// Clusters of this kind; [`MIXED`]: of the kind that each seed is of.
    pub profile: &'static str,
    /// What of each seed is run.
    pub selection: Selection,
    /// Who listens.
    pub story: Story,
    /// Seeds at once.
    pub jobs: usize,
    /// What ends it before all seeds were run.
    pub ends: Ends,
}

/// What ends a campaign before all seeds were run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Nothing.
    Never,
    /// The first finding.
    Found,
    /// The first finding that violates one of these.
    Violated(&'static [&'static str]),
}

impl Ends {
    fn by(self, violation: &Violation) -> bool {
        match self {
            Self::Never => false,
            Self::Found => true,
            Self::Violated(names) => names.contains(&violation.invariant),
        }
    }
}

/// What a campaign came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Seeds that were run.
    pub seeds: u64,
    /// Virtual time of all of them.
    pub simulated: Duration,
    /// Things that happened.
    pub events: u64,
    /// A number for all of them: two reports with the same are of the same runs.
    pub digest: u64,
    /// What it came across.
    pub seen: Seen,
    /// What does not hold, by seed.
    pub findings: Vec<Finding>,
}

/// A violation, and how to see it again.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The seed.
    pub seed: u64,
    /// The kind of cluster.
    pub profile: &'static str,
    /// What of the seed was run.
    pub selection: Selection,
    /// What does not hold.
    pub violation: Violation,
    /// Faults until it was found.
    pub faults: u32,
}

impl Finding {
    /// The command that shows it again.
    #[must_use]
    pub fn replay(&self) -> String {
        let mut command = format!("cargo xtask sim --seed {}", self.seed);
        if self.profile != kind(MIXED, self.seed) {
            command.push_str(&format!(" --profile {}", self.profile));
        }
        if self.selection.level == Level::Shard {
            command.push_str(" --level shard");
        }
        if let Some(plant) = self.selection.plant {
            command.push_str(&format!(" --plant {}", plant_name(plant)));
        }
        if let Some(keep) = &self.selection.keep {
            let keep: Vec<String> = keep.iter().map(u32::to_string).collect();
            let keep = if keep.is_empty() { "none".into() } else { keep.join(",") };
            command.push_str(&format!(" --keep {keep}"));
        }
        if let Some(hosts) = self.selection.hosts {
            command.push_str(&format!(" --hosts {hosts}"));
        }
        command.push_str(" --log");
        command
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { invariant, text } = &self.violation;
        write!(f, "seed {} ({}): {invariant}: {text}", self.seed, self.profile)
    }
}

/// The name of a rule that can be switched off.
#[must_use]
pub fn plant_name(plant: Plant) -> &'static str {
    let named = PLANTS.iter().find(|mutant| mutant.plant == plant);
    named.map_or("unnamed", |mutant| mutant.name)
}

/// What one seed came to.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) simulated: Duration,
    pub(super) events: u64,
    pub(super) digest: u64,
    pub(super) seen: Seen,
    pub(super) faults: u32,
    pub(super) violation: Option<Violation>,
}

/// Runs one seed.
pub(super) fn run(
    seed: u64,
    profile: &'static str,
    selection: &Selection,
    story: Story,
) -> Outcome {
    let chosen = Profile::named(profile, seed).expect("a profile of that name");
    let mut run = None;
    let result = guard(|| {
        let run = run.insert(Run::new(seed, chosen, selection.clone(), story));
        run.all()
    });
    let run = run.as_ref();
    Outcome {
        simulated: run
            .map_or(Duration::ZERO, |run| Duration::from_nanos(run.cluster.now().as_nanos())),
        events: run.map_or(0, |run| run.cluster.happened()),
        digest: run.map_or(0, |run| run.cluster.digest()),
        seen: run.map_or_else(Seen::default, |run| run.seen.clone()),
        faults: run.map_or(0, |run| run.faults),
        violation: result.err(),
    }
}

/// Runs all seeds.
///
/// # Panics
/// If there is no profile of that name.
#[must_use]
pub fn campaign(options: &Options) -> Report {
    let report = Mutex::new(Report::default());
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= options.seeds {
                return;
            }
            let seed = options.first + number;
            let profile = kind(options.profile, seed);
            let outcome = run(seed, profile, &options.selection, options.story);
            let mut report = report.lock().expect("nobody panics with it");
            if outcome.violation.as_ref().is_some_and(|violation| options.ends.by(violation)) {
                over.store(true, Ordering::Relaxed);
            }
            report.add(seed, options, outcome);
        }
    };
    if options.jobs <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..options.jobs {
                scope.spawn(work);
            }
        });
    }
    let mut report = report.into_inner().expect("nobody panics with it");
    report.findings.sort_by_key(|finding| finding.seed);
    report
}

impl Report {
    fn add(&mut self, seed: u64, options: &Options, outcome: Outcome) {
        self.seeds += 1;
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        self.digest = self.digest.wrapping_add(outcome.digest);
        self.seen.add(&outcome.seen);
        if let Some(violation) = outcome.violation {
            let (profile, selection) = (kind(options.profile, seed), options.selection.clone());
            let faults = outcome.faults;
            self.findings.push(Finding { seed, profile, selection, violation, faults });
        }
    }
}

/// Seeds from which on a campaign of all kinds must have reached everything.
const LONG: u64 = 200;

/// What a campaign of all kinds, long enough, has never come across although it must have.
#[must_use]
pub fn never_reached(options: &Options, report: &Report) -> Vec<&'static str> {
    let all = options.profile == MIXED && options.selection.is_all();
    if all && report.seeds >= LONG { report.seen.missing(&WANTED) } else { Vec::new() }
}

/// What a long campaign must have come across, or it has proved nothing.
pub const WANTED: [&str; 25] = [
    "command of a host's dead association",
    "commit took too long",
    "fail-over with divergent writes",
    "from A to B and back to A",
    "host told of a loss",
    "joiner failed while it was added",
    "lossy activation",
    "lost swap",
    "member died while regions were suspect",
    "member excluded",
    "member returned",
    "missed snapshots copied",
    "no space on one member",
    "old write after a return in its epoch",
    "old write after the fence",
    "repaired",
    "restarted member at a take-over",
    "return failed",
    "snapshot compared",
    "snapshot during a rebuild",
    "snapshot taken",
    "two members failed at once",
    "unknown swap that had committed",
    "winner died with a copy in flight",
    "write during a rebuild",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn options(profile: &'static str, selection: Selection) -> Options {
        let (seeds, first, story) = (LONG, 1, Story::Silent);
        Options { seeds, first, profile, selection, story, jobs: 1, ends: Ends::Never }
    }

    #[test]
    fn a_long_campaign_of_all_kinds_misses_what_it_never_reached() {
        let mut report = Report { seeds: LONG, ..Report::default() };
        WANTED[1..].iter().for_each(|what| report.seen.mark(what));
        let mixed = options(MIXED, Selection::default());
        assert_eq!(never_reached(&mixed, &report), [WANTED[0]]);
        let some = Selection { hosts: Some(1), ..Selection::default() };
        assert!(never_reached(&options(MIXED, some), &report).is_empty());
        assert!(never_reached(&options(FREE, Selection::default()), &report).is_empty());
        report.seeds -= 1;
        assert!(never_reached(&mixed, &report).is_empty());
    }

    #[test]
    fn a_finding_is_shown_again_by_a_command_that_names_its_kind_if_its_seed_is_of_another() {
        let mut finding = Finding {
            seed: 2,
            profile: kind(MIXED, 2),
            selection: Selection::default(),
            violation: Violation::new("Opens", String::new()),
            faults: 0,
        };
        assert_eq!(finding.replay(), "cargo xtask sim --seed 2 --log");
        finding.profile = "holes";
        assert_eq!(finding.replay(), "cargo xtask sim --seed 2 --profile holes --log");
        finding.seed = 4;
        finding.profile = FREE;
        assert_eq!(finding.replay(), "cargo xtask sim --seed 4 --profile free --log");
    }
}
