//! A namespace's reservations, and short words for commands to them.

use braid_nvme::Status;
use braid_nvme::target::reservation::{
    Acquire, HostId, Keys, Notification, Outcome, Register, Release, ReservationCommand,
    ReservationType, Reservations,
};

pub(crate) const CONFLICT: Status = Status::RESERVATION_CONFLICT.dnr();
pub(crate) const INVALID: Status = Status::INVALID_FIELD.dnr();
pub(crate) const DONE: Result<(), Status> = Ok(());

/// Hosts of the tests.
pub(crate) const A: HostId = [0xa; 16];
pub(crate) const B: HostId = [0xb; 16];
pub(crate) const C: HostId = [0xc; 16];

pub(crate) fn keys(current: u64, other: u64) -> Keys {
    Keys { current, other }
}

pub(crate) fn register(action: Register) -> ReservationCommand {
    ReservationCommand::Register { action, ignore_key: false, persists: None }
}

pub(crate) fn ignoring(action: Register) -> ReservationCommand {
    ReservationCommand::Register { action, ignore_key: true, persists: None }
}

/// Reservations, and what the last command left to be done.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) state: Reservations,
    pub(crate) last: Outcome,
}

impl Script {
    pub(crate) fn new() -> Self {
        Self { state: Reservations::new(true), last: Outcome::default() }
    }

    /// A, B and C are registered with 0xa, 0xb and 0xc, and A holds a reservation.
    pub(crate) fn held(kind: ReservationType) -> Self {
        let mut script = Self::new();
        for (host, key) in [(A, 0xa), (B, 0xb), (C, 0xc)] {
            assert_eq!(script.send(host, register(Register::Register), keys(0, key)), DONE);
        }
        assert_eq!(script.acquire(A, 0xa, kind), DONE);
        script
    }

    pub(crate) fn send(
        &mut self,
        host: HostId,
        command: ReservationCommand,
        keys: Keys,
    ) -> Result<(), Status> {
        let before = self.state.clone();
        match self.state.apply(&host, command, keys) {
            Ok(outcome) => {
                self.last = outcome;
                Ok(())
            }
            Err(status) => {
                assert_eq!(self.state, before, "a refused command changed something");
                Err(status)
            }
        }
    }

    pub(crate) fn acquire(
        &mut self,
        host: HostId,
        key: u64,
        kind: ReservationType,
    ) -> Result<(), Status> {
        let command = ReservationCommand::Acquire { action: Acquire::Acquire, kind };
        self.send(host, command, keys(key, 0))
    }

    pub(crate) fn preempt(
        &mut self,
        host: HostId,
        (key, victim): (u64, u64),
        kind: ReservationType,
    ) -> Result<(), Status> {
        let command = ReservationCommand::Acquire { action: Acquire::Preempt, kind };
        self.send(host, command, keys(key, victim))
    }

    pub(crate) fn preempt_and_abort(
        &mut self,
        host: HostId,
        (key, victim): (u64, u64),
        kind: ReservationType,
    ) -> Result<(), Status> {
        let command = ReservationCommand::Acquire { action: Acquire::PreemptAndAbort, kind };
        self.send(host, command, keys(key, victim))
    }

    pub(crate) fn release(
        &mut self,
        host: HostId,
        key: u64,
        kind: ReservationType,
    ) -> Result<(), Status> {
        self.send(host, ReservationCommand::Release(Release::Release(kind)), keys(key, 0))
    }

    pub(crate) fn clear(&mut self, host: HostId, key: u64) -> Result<(), Status> {
        self.send(host, ReservationCommand::Release(Release::Clear), keys(key, 0))
    }

    pub(crate) fn told(&self) -> Vec<(HostId, Notification)> {
        self.last.notices.to_vec()
    }

    pub(crate) fn hosts(&self) -> Vec<HostId> {
        self.state.registrants().iter().map(|registrant| registrant.host).collect()
    }

    /// Type, and those who hold it.
    pub(crate) fn holders(&self) -> Option<(ReservationType, Vec<HostId>)> {
        let kind = self.state.kind()?;
        Some((kind, [A, B, C].into_iter().filter(|host| self.state.is_held_by(host)).collect()))
    }
}
