//! What is being done about a volume, and what came of what was done.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use braid_block::Instant;

use crate::{Step, Uuid};

/// How long an engine may take to serve what it was appointed to: a fence waits 3 s for members,
/// then the lease, then the store. An owner that says that it does not serve has as long.
pub const PATIENCE: Duration = Duration::from_secs(15);
/// How long anything else may take.
const OTHER: Duration = Duration::from_secs(10);
/// The first wait after a failure; it doubles with each.
const BACK_OFF: Duration = Duration::from_millis(250);
/// The longest.
const BACK_OFF_MAX: Duration = Duration::from_secs(16);
/// Failures are forgotten after so long without one.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Between two requests to bring the same replica back.
const RETURN_PAUSE: Duration = Duration::from_secs(2);
/// The same while another one comes back: the owner knows of it, and only hears anew that it is
/// there. Longer than the longest wait after a failure, so that a standby has its chance between.
const RETURN_PAUSE_BEHIND: Duration = Duration::from_secs(30);
/// What an operator asks for is given up after so many failures.
pub const ASK_TRIES: u32 = 3;
/// A wish is given up after so many failures in a row: with the waits between them, after four
/// minutes and a half of refusals, and ten if nobody answers. Regions are suspect, members are away
/// and replicas return for less than that, or somebody has to see to it anyway.
pub const WISH_TRIES: u32 = 22;

/// What is being done about a volume.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    flight: Option<Flight>,
    appointed: Option<Appointed>,
    /// Of appointments and departures.
    ownership: Trouble,
    /// Of what keeps it whole.
    care: Trouble,
    /// Of each change that people asked for, whoever was to do it.
    changes: Vec<(Step, Trouble)>,
    /// What was done last: if it is to be done again, it did not help.
    last: Option<Step>,
    /// When replicas were asked back.
    returned: BTreeMap<Uuid, Instant>,
    dropped: BTreeSet<Uuid>,
    /// The engine that left in order, or failed to serve: another one is better.
    shunned: Option<Uuid>,
    /// It left in order, and nobody was appointed since.
    left: bool,
    /// Number of the operator's request that is done with, and failures of the next.
    answered: u64,
    tries: u32,
}

/// Something that began.
#[derive(Clone, Copy, Debug)]
struct Flight {
    step: Step,
    until: Instant,
}

/// The last appointment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appointed {
    pub(crate) engine: Uuid,
    pub(crate) owner: Uuid,
}

/// Failures in a row.
#[derive(Clone, Copy, Debug, Default)]
struct Trouble {
    failures: u32,
    /// Not before.
    again: Instant,
}

impl Trouble {
    fn grows(&mut self, now: Instant) {
        if now.since(self.again) > FORGOTTEN {
            self.failures = 0;
        }
        let wait = BACK_OFF.saturating_mul(1 << self.failures.min(16)).min(BACK_OFF_MAX);
        self.failures = self.failures.saturating_add(1);
        self.again = now + wait;
    }
}

impl Ledger {
    /// As a process that was started again knows it: an appointment may be in flight still.
    #[must_use]
    pub fn remembered(engine: Uuid, owner: Uuid) -> Self {
        Self { appointed: Some(Appointed { engine, owner }), ..Self::default() }
    }

    /// What is in flight.
    #[must_use]
    pub const fn in_flight(&self) -> Option<Step> {
        match &self.flight {
            Some(flight) => Some(flight.step),
            None => None,
        }
    }

    /// The last owner that was appointed, and where.
    #[must_use]
    pub const fn appointed(&self) -> Option<(Uuid, Uuid)> {
        match &self.appointed {
            Some(appointed) => Some((appointed.engine, appointed.owner)),
            None => None,
        }
    }

    /// The operator's request that is done with, for better or worse.
    #[must_use]
    pub const fn answered(&self) -> u64 {
        self.answered
    }

    /// Something began; `owner` is the name that an appointment gave.
    pub fn begun(&mut self, now: Instant, step: Step, owner: Option<Uuid>) {
        let patience = if step.is_ownership() { PATIENCE } else { OTHER };
        self.flight = Some(Flight { step, until: now + patience });
        if let (Step::TakeOver { engine, .. }, Some(owner)) = (step, owner) {
            (self.appointed, self.left) = (Some(Appointed { engine, owner }), false);
            // Who was asked back of another owner was not of this one.
            self.returned.clear();
        }
        if let Step::Return { replica, .. } = step {
            self.returned.insert(replica, now);
        }
    }

    /// What is in flight ended well.
    pub fn done(&mut self, now: Instant) {
        let Some(Flight { step, .. }) = self.flight.take() else { return };
        if let Step::End { wish } = step {
            // Asked for anew, it begins anew.
            return self.changes.retain(|(known, _)| known.wish() != Some(wish) && *known != step);
        }
        let again = self.last.replace(step) == Some(step);
        if step.is_change() {
            // What was done and is to be done again did not help.
            if again { self.stumbled(now, step) } else { self.went(step) }
        } else if !step.is_ownership() {
            if again { self.care.grows(now) } else { self.care = Trouble::default() }
        }
        match step {
            Step::TakeOver { asked, .. } => {
                self.ownership = Trouble::default();
                self.shunned = None;
                if let Some(number) = asked {
                    (self.answered, self.tries) = (number, 0);
                }
            }
            Step::HandOver { engine, .. } => {
                self.ownership = Trouble::default();
                (self.appointed, self.shunned, self.left) = (None, Some(engine), true);
            }
            Step::DropReplica { replica, .. } => {
                self.dropped.insert(replica);
            }
            Step::MakeReplica { replica, .. } => {
                self.dropped.remove(&replica);
            }
            _ => {}
        }
    }

    /// What is in flight failed.
    pub fn failed(&mut self, now: Instant) {
        let Some(Flight { step, .. }) = self.flight.take() else { return };
        if step.is_change() {
            return self.stumbled(now, step);
        }
        if !step.is_ownership() {
            return self.care.grows(now);
        }
        self.ownership.grows(now);
        if step.is_appointment() {
            (self.appointed, self.shunned) = (None, step.engine());
        }
        if let Some(number) = step.asked() {
            self.tries += 1;
            if self.tries >= ASK_TRIES {
                (self.answered, self.tries) = (number, 0);
            }
        }
    }

    /// What is in flight was refused, and always would be.
    pub fn refused(&mut self, now: Instant) {
        let step = self.in_flight();
        self.failed(now);
        // What is to go is tried all the same, and as soon as after any failure.
        let Some(step) = step.filter(|step| step.wish().is_some()) else { return };
        let step = step.anywhere();
        for (_, trouble) in self.changes.iter_mut().filter(|(known, _)| *known == step) {
            trouble.failures = trouble.failures.max(WISH_TRIES);
        }
    }

    /// A request of an operator is dropped, or was found to be so already.
    pub fn answer(&mut self, number: u64) {
        (self.answered, self.tries) = (self.answered.max(number), 0);
    }

    pub(crate) fn settle(&mut self, now: Instant, gone: impl Fn(&Uuid) -> bool) {
        let Some(Flight { step, until }) = self.flight else { return };
        let went = step.engine().is_some_and(|engine| gone(&engine));
        if until <= now {
            self.failed(now);
        } else if went {
            // Nobody is to blame, and nothing to wait for.
            let before = (self.ownership, self.care, self.changes.clone());
            self.failed(now);
            (self.ownership, self.care, self.changes) = before;
        }
    }

    /// Who is a member came back: if it leaves again it is asked back anew, and at once.
    pub(crate) fn has_members(&mut self, members: &[Uuid]) {
        self.returned.retain(|replica, _| !members.contains(replica));
    }

    /// A change failed: it is tried again later.
    fn stumbled(&mut self, now: Instant, step: Step) {
        self.changes.retain(|(_, trouble)| now.since(trouble.again) <= FORGOTTEN);
        let step = step.anywhere();
        match self.changes.iter_mut().find(|(known, _)| *known == step) {
            Some((_, trouble)) => trouble.grows(now),
            None => {
                let mut trouble = Trouble::default();
                trouble.grows(now);
                self.changes.push((step, trouble));
            }
        }
    }

    fn went(&mut self, step: Step) {
        let step = step.anywhere();
        self.changes.retain(|(known, _)| *known != step);
    }

    pub(crate) fn may_change(&self, step: &Step, now: Instant) -> bool {
        let step = step.anywhere();
        let trouble = self.changes.iter().find(|(known, _)| *known == step);
        trouble.is_none_or(|(_, trouble)| trouble.again <= now)
    }

    /// A change failed too often, or for good.
    pub(crate) fn is_hopeless(&self, step: &Step) -> bool {
        let step = step.anywhere();
        let mut troubles = self.changes.iter().filter(|(known, _)| *known == step);
        troubles.any(|(_, trouble)| trouble.failures >= WISH_TRIES)
    }

    pub(crate) const fn appointment(&self) -> Option<&Appointed> {
        self.appointed.as_ref()
    }

    pub(crate) fn may_appoint(&self, now: Instant) -> bool {
        self.ownership.again <= now
    }

    pub(crate) fn may_care(&self, now: Instant) -> bool {
        self.care.again <= now
    }

    /// Whether a replica may be asked back, while another one comes back or not.
    pub(crate) fn may_return(&self, replica: &Uuid, behind: bool, now: Instant) -> bool {
        let pause = if behind { RETURN_PAUSE_BEHIND } else { RETURN_PAUSE };
        self.returned.get(replica).is_none_or(|at| now.since(*at) > pause)
    }

    pub(crate) fn is_dropped(&self, replica: &Uuid) -> bool {
        self.dropped.contains(replica)
    }

    pub(crate) const fn has_left(&self) -> bool {
        self.left
    }

    pub(crate) const fn shunned(&self) -> Option<Uuid> {
        self.shunned
    }
}
