//! What the commands do to the state (Base 8.19.1 to 8.19.8).
//!
//! Where implementations differ: a Replace with a new key of zero, which is what Linux makes of
//! an ioctl that registers none, unregisters; Preempt without a registrant that has the key is a
//! conflict, whoever holds the reservation.

use arrayvec::ArrayVec;

use super::{
    Acquire, Held, HostId, Keys, Notification, REGISTRANTS_MAX, Register, Registrant, Release,
    ReservationCommand, ReservationType, Reservations,
};
use crate::Status;

const CONFLICT: Status = Status::RESERVATION_CONFLICT.dnr();
const INVALID: Status = Status::INVALID_FIELD.dnr();
/// The table of registrants is full. No code says that; this one at least says that the fault is
/// not the host's.
const FULL: Status = Status::INTERNAL_ERROR.dnr();

/// What a command that took effect leaves to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Who is to be told what: nobody twice, and never the host that sent the command.
    pub notices: ArrayVec<(HostId, Notification), REGISTRANTS_MAX>,
    /// Whose commands are to be aborted, or awaited, before the command is completed.
    pub aborted: ArrayVec<HostId, REGISTRANTS_MAX>,
}

impl Outcome {
    fn tell(&mut self, host: HostId, notice: Notification) {
        // There are no more registrants than this holds, and each hears of a command once.
        let _ = self.notices.try_push((host, notice));
    }
}

impl Reservations {
    /// Applies a command of this host. Report changes nothing.
    ///
    /// # Errors
    /// The status to complete it with; nothing has changed then.
    pub fn apply(
        &mut self,
        host: &HostId,
        command: ReservationCommand,
        keys: Keys,
    ) -> Result<Outcome, Status> {
        let mut outcome = Outcome::default();
        match command {
            ReservationCommand::Report { .. } => return Ok(outcome),
            // Who has no identifier cannot be told from others (Base 5.27.1.25).
            _ if *host == [0; 16] => return Err(Status::HOST_ID_INCONSISTENT.dnr()),
            ReservationCommand::Register { action, ignore_key, persists } => {
                self.register(host, action, ignore_key, keys, &mut outcome)?;
                self.generation = self.generation.wrapping_add(1);
                // Linux always asks for it: without the capability it is not refused, and
                // Reservation Report says that it is not so.
                self.persists = persists.unwrap_or(self.persists) && self.can_persist;
            }
            ReservationCommand::Acquire { action, kind } => {
                self.registered(host, keys.current)?;
                match action {
                    Acquire::Acquire => self.acquire(host, kind)?,
                    Acquire::Preempt | Acquire::PreemptAndAbort => {
                        self.preempt(host, kind, keys.other, &mut outcome)?;
                        self.generation = self.generation.wrapping_add(1);
                    }
                }
                if action != Acquire::PreemptAndAbort {
                    outcome.aborted.clear();
                }
            }
            ReservationCommand::Release(release) => {
                self.registered(host, keys.current)?;
                match release {
                    Release::Release(kind) => self.release(host, kind, &mut outcome)?,
                    Release::Clear => self.clear(host, &mut outcome),
                }
            }
        }
        Ok(outcome)
    }

    /// The host must be a registrant with this key.
    fn registered(&self, host: &HostId, key: u64) -> Result<usize, Status> {
        let at = self.position(host).ok_or(CONFLICT)?;
        if self.registrants[at].key == key { Ok(at) } else { Err(CONFLICT) }
    }

    fn register(
        &mut self,
        host: &HostId,
        action: Register,
        ignore_key: bool,
        keys: Keys,
        outcome: &mut Outcome,
    ) -> Result<(), Status> {
        let new = keys.other;
        match (action, self.position(host)) {
            (Register::Register, _) if new == 0 => return Err(INVALID),
            (Register::Register, None) => self.add(host, new)?,
            (Register::Register, Some(at)) if self.registrants[at].key == new => {}
            (Register::Register, Some(_)) => return Err(CONFLICT),
            (Register::Replace, None) if ignore_key && new != 0 => self.add(host, new)?,
            (Register::Replace | Register::Unregister, None) => return Err(CONFLICT),
            (_, Some(at)) if !ignore_key && self.registrants[at].key != keys.current => {
                return Err(CONFLICT);
            }
            (Register::Replace, Some(at)) if new != 0 => self.registrants[at].key = new,
            (_, Some(at)) => self.unregister(at, outcome),
        }
        Ok(())
    }

    fn add(&mut self, host: &HostId, key: u64) -> Result<(), Status> {
        self.registrants.try_push(Registrant { host: *host, key }).map_err(|_| FULL)
    }

    /// A registrant goes of its own will, and with it the reservation that it alone holds.
    fn unregister(&mut self, at: usize, outcome: &mut Outcome) {
        let gone = self.registrants.remove(at).host;
        let Some(held) = self.held else { return };
        let last = self.registrants.is_empty();
        if last || (!held.kind.is_of_all() && held.holder == gone) {
            self.end(held, &gone, outcome);
        }
    }

    /// The reservation ends; those who shared it are told.
    fn end(&mut self, held: Held, by: &HostId, outcome: &mut Outcome) {
        self.held = None;
        if held.kind.is_shared() {
            self.tell_others(by, Notification::ReservationReleased, outcome);
        }
    }

    fn tell_others(&self, by: &HostId, notice: Notification, outcome: &mut Outcome) {
        for other in self.registrants.iter().filter(|other| other.host != *by) {
            outcome.tell(other.host, notice);
        }
    }

    fn acquire(&mut self, host: &HostId, kind: ReservationType) -> Result<(), Status> {
        match self.held {
            None => self.held = Some(Held::new(kind, host)),
            Some(held) if held.kind == kind && self.is_held_by(host) => {}
            Some(_) => return Err(CONFLICT),
        }
        Ok(())
    }

    fn preempt(
        &mut self,
        host: &HostId,
        kind: ReservationType,
        key: u64,
        outcome: &mut Outcome,
    ) -> Result<(), Status> {
        // Whether the reservation is what is preempted, and not registrations alone.
        let takes = self.held.is_some_and(|held| {
            if held.kind.is_of_all() {
                key == 0
            } else {
                self.registered(&held.holder, key).is_ok()
            }
        });
        if !takes && key == 0 {
            return Err(INVALID);
        }
        if !takes && !self.registrants.iter().any(|registrant| registrant.key == key) {
            return Err(CONFLICT);
        }
        // Who takes the reservation stays a registrant, even with the key that it preempts.
        let all = takes && key == 0;
        let goes = |one: &Registrant| (all || one.key == key) && !(takes && one.host == *host);
        for gone in self.registrants.iter().filter(|one| goes(one) && one.host != *host) {
            outcome.tell(gone.host, Notification::RegistrationPreempted);
            outcome.aborted.push(gone.host);
        }
        self.registrants.retain(|one| !goes(one));
        let Some(held) = self.held else { return Ok(()) };
        if takes {
            self.held = Some(Held::new(kind, host));
            if held.kind != kind {
                self.tell_others(host, Notification::ReservationReleased, outcome);
            }
        } else if self.registrants.is_empty() {
            self.held = None;
        }
        Ok(())
    }

    fn release(
        &mut self,
        host: &HostId,
        kind: ReservationType,
        outcome: &mut Outcome,
    ) -> Result<(), Status> {
        match self.held {
            Some(held) if self.is_held_by(host) => {
                if held.kind != kind {
                    return Err(INVALID);
                }
                self.end(held, host, outcome);
            }
            // Of what is not held, or not by this host, there is nothing to release.
            Some(_) | None => {}
        }
        Ok(())
    }

    fn clear(&mut self, host: &HostId, outcome: &mut Outcome) {
        self.tell_others(host, Notification::ReservationPreempted, outcome);
        self.registrants.clear();
        self.held = None;
        self.generation = self.generation.wrapping_add(1);
    }
}
