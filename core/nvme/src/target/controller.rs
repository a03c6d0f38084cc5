//! One controller of a subsystem: its life from Connect to the end of its association
//! (Base 3.1, 3.5, 3.6).
//!
//! ```text
//!            CC.EN=1               CC.SHN                  shutdown_done
//!   Disabled -------> Ready -------------------> ShuttingDown ------------> ShutDown
//!    ^  |               |                         ^   |                      |
//!    |  | bad CC        |      CC.SHN             |   |                      |
//!    |  +-----> Failed -+-------------------------+   |                      |
//!    |            |     |                             |                      |
//!    |            +-----+-- CC.EN=0 -----+------------+----------------------+
//!    |    reset_done                     v
//!    +------------------------------ Resetting
//! ```
//!
//! A controller that is not enabled has nothing to shut down, so CC.SHN makes it ShutDown at
//! once; and one that is ShutDown and not enabled can be enabled again when CC.SHN is cleared.
//!
//! Invariants:
//! 1. I/O queues are admitted, and I/O is done, only while Ready.
//! 2. RDY falls, and a shutdown is complete, only when the caller says that no I/O is left.
//! 3. A reset forgets every feature that the host set, but not who the host is and how often it
//!    keeps the association alive.

use core::time::Duration;

use arrayvec::ArrayVec;

use super::admin::Admin;
use super::errors::Errors;
use super::event::{EVENT_REQUESTS_MAX, Events, Notice};
use super::feature::Features;
use super::log::ChangedNamespaces;
use super::reservation::{Notification, Notifications};
use crate::Status;
use crate::command::{Command, fabrics};
use crate::connect::{Connect, Nqn, Parameter, Refusal};
use crate::property::{Capabilities, Configuration, ControllerStatus, Property, VERSION};

/// What a controller is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// I/O to namespaces.
    Io,
    /// Telling hosts which subsystems there are.
    Discovery,
}

/// What every controller of a subsystem is bounded by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControllerLimits {
    /// Entries of an I/O queue.
    pub queue_entries: u16,
    /// I/O queues, at most [`IO_QUEUES_MAX`].
    pub io_queues: u16,
    /// In-capsule data of an I/O queue, in bytes, a multiple of 16.
    pub in_capsule_bytes: u32,
}

/// I/O queues of a controller at most, whatever its limits say.
pub const IO_QUEUES_MAX: u16 = 127;

/// Unit of keep alive time-outs that we can tell apart (KAS 10, in 100 ms).
pub(crate) const KEEP_ALIVE_UNIT: Duration = Duration::from_secs(1);

/// How long a host that is not bound to keep the association alive may send nothing.
const INACTIVITY: Duration = Duration::from_secs(120);

/// Where a controller is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not enabled yet, or reset.
    Disabled,
    /// Enabled.
    Ready,
    /// Disabled by the host; I/O queues are being closed.
    Resetting,
    /// Shutdown asked for; I/O queues are being closed and caches flushed.
    ShuttingDown,
    /// Nothing is left to do.
    ShutDown,
    /// CSTS.CFS: enabled in a way that we cannot serve, or shut down without that all that was
    /// written is durable.
    Failed,
}

/// One controller.
#[derive(Clone, Debug)]
pub struct Controller {
    pub(crate) kind: Kind,
    pub(crate) cntlid: u16,
    pub(crate) hostnqn: Nqn,
    pub(crate) hostid: [u8; 16],
    pub(crate) limits: ControllerLimits,
    pub(crate) features: Features,
    pub(crate) events: Events,
    pub(crate) changed: ChangedNamespaces,
    pub(crate) errors: Errors,
    /// The last epoch of the subsystem in which the host is known to have been there.
    pub(crate) epoch: u64,
    pub(crate) notifications: Notifications,
    state: State,
    configuration: Configuration,
    /// Bit `qid` is set while that I/O queue is connected.
    queues: u128,
    /// Connections that may become I/O queues.
    pub(super) spare: u16,
}

impl Controller {
    /// The controller that an admin Connect makes.
    ///
    /// # Panics
    /// If the limits are out of bounds, a programmer's error.
    #[must_use]
    pub fn new(kind: Kind, cntlid: u16, connect: &Connect, limits: ControllerLimits) -> Self {
        assert!((1..=IO_QUEUES_MAX).contains(&limits.io_queues), "I/O queues out of bounds");
        assert!(limits.queue_entries >= 2, "a queue has at least two entries");
        assert!(limits.in_capsule_bytes.is_multiple_of(16), "IOCCSZ is in units of 16 bytes");
        Self {
            kind,
            cntlid,
            hostnqn: connect.hostnqn,
            hostid: connect.hostid,
            limits,
            features: Features::new(connect.kato, limits.io_queues),
            events: Events::default(),
            changed: ChangedNamespaces::default(),
            errors: Errors::default(),
            epoch: 0,
            notifications: Notifications::default(),
            state: State::Disabled,
            configuration: Configuration::default(),
            queues: 0,
            spare: u16::MAX,
        }
    }

    /// Its id, CNTLID.
    #[must_use]
    pub const fn cntlid(&self) -> u16 {
        self.cntlid
    }

    /// What it is for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The host it belongs to.
    #[must_use]
    pub const fn hostnqn(&self) -> &Nqn {
        &self.hostnqn
    }

    /// The identifier of that host.
    #[must_use]
    pub const fn hostid(&self) -> &[u8; 16] {
        &self.hostid
    }

    /// Where it is in its life.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// How long the host may send no command on any queue before the association ends (Base 3.9).
    /// None if the host asked for no such bound.
    #[must_use]
    pub fn keep_alive(&self) -> Option<Duration> {
        let kato = self.features.keep_alive();
        let kato = (!kato.is_zero()).then_some(kato);
        match (self.state, self.kind) {
            // A host keeps nothing alive after a shutdown.
            (State::ShutDown, _) => kato.max(Some(INACTIVITY)),
            // Who asks discovery for none did not come to stay.
            (_, Kind::Discovery) => kato.or(Some(INACTIVITY)),
            _ => kato,
        }
    }

    /// Admits an I/O queue, so that its Connect can be answered with success.
    ///
    /// # Errors
    /// The refusal to answer it with.
    pub fn admit(&mut self, connect: &Connect) -> Result<(), Refusal> {
        let parameter = |parameter| Err(Refusal::parameter(parameter));
        // Another host must not learn that the controller exists.
        if connect.hostnqn != self.hostnqn || connect.hostid != self.hostid {
            return parameter(Parameter::ControllerId);
        }
        if self.kind == Kind::Discovery || self.state != State::Ready || connect.qid == 0 {
            return parameter(Parameter::QueueId);
        }
        if connect.entries > u32::from(self.limits.queue_entries) {
            return parameter(Parameter::QueueSize);
        }
        if connect.qid > self.features.queues() {
            return Err(Refusal::new(Status::INVALID_QUEUE_ID));
        }
        // Without DNR: the queue's last connection may be about to close.
        if self.queues & 1 << connect.qid != 0 {
            return Err(Refusal::new(Status::SEQUENCE_ERROR));
        }
        self.queues |= 1 << connect.qid;
        Ok(())
    }

    /// An I/O queue that was admitted is closed.
    pub const fn leave(&mut self, qid: u16) {
        if qid <= IO_QUEUES_MAX {
            self.queues &= !(1 << qid);
        }
    }

    /// Whether any I/O queue is connected.
    #[must_use]
    pub const fn has_queues(&self) -> bool {
        self.queues != 0
    }

    /// So many connections are left for its I/O queues: no more are granted, but at least one.
    pub const fn set_spare(&mut self, connections: u16) {
        self.spare = connections;
    }

    /// Every I/O queue is closed after [`Admin::Reset`]: the host may see RDY fall.
    pub fn reset_done(&mut self) {
        if self.state == State::Resetting {
            let down = self.configuration.shutdown();
            self.state = if down { State::ShutDown } else { State::Disabled };
        }
    }

    /// Every I/O queue is closed and every cache flushed after [`Admin::Shutdown`].
    pub fn shutdown_done(&mut self) {
        if self.state == State::ShuttingDown {
            self.state = State::ShutDown;
        }
    }

    /// A cache could not be flushed after [`Admin::Shutdown`]: what was written may be lost, and
    /// the host must not see a shutdown that is complete.
    pub fn shutdown_failed(&mut self) {
        if self.state == State::ShuttingDown {
            self.state = State::Failed;
        }
    }

    /// Tells the host something, when it wants to know and asks; see [`Controller::next_event`].
    pub const fn raise(&mut self, notice: Notice) {
        if self.features.wants(notice) {
            self.events.raise(notice);
        }
    }

    /// A namespace appeared, vanished or changed.
    pub fn namespace_changed(&mut self, nsid: u32) {
        self.changed.add(nsid);
        self.raise(Notice::NamespaceAttribute);
    }

    /// Another host did something about reservations that this one's host is to know.
    pub fn reservation_notice(&mut self, notice: Notification, nsid: u32) {
        self.notifications.add(notice, nsid);
        self.events.raise(Notice::ReservationLog);
    }

    /// The host has read a reservation notification; there may be another.
    pub(crate) fn notification_read(&mut self) {
        self.notifications.pop();
        if !self.notifications.is_empty() {
            self.events.raise(Notice::ReservationLog);
        }
    }

    /// An event request that can be completed now: its command id and DW0. To be asked after
    /// [`Controller::raise`], [`Controller::namespace_changed`] and every admin command.
    pub fn next_event(&mut self) -> Option<(u16, u32)> {
        self.events.next()
    }

    /// Lets go of the event requests that wait, to be completed as aborted: after
    /// [`Admin::Reset`], and before the admin queue is closed in order.
    pub fn take_event_requests(&mut self) -> ArrayVec<u16, EVENT_REQUESTS_MAX> {
        self.events.take()
    }

    /// Whether admin commands other than fabrics ones are taken.
    pub(crate) const fn takes_commands(&self) -> bool {
        matches!(self.state, State::Ready | State::ShuttingDown | State::ShutDown)
    }

    /// A Property Get or Set command (Base 6.4, 6.5).
    pub(crate) fn property(&mut self, command: &Command) -> Result<Admin, Status> {
        let property = Property::of(command)?;
        match (command.fabrics_type(), property) {
            (fabrics::PROPERTY_GET, _) => Ok(Admin::done(self.get_property(property))),
            (fabrics::PROPERTY_SET, Property::Configuration) => {
                Ok(self.configure(Configuration::from_wire(command.cdw(12))))
            }
            _ => Err(Status::INVALID_FIELD.dnr()),
        }
    }

    fn get_property(&self, property: Property) -> u64 {
        match property {
            Property::Capabilities => Capabilities::new(self.limits.queue_entries).to_wire(),
            Property::Version => u64::from(VERSION),
            Property::Configuration => u64::from(self.configuration.to_wire()),
            Property::Status => u64::from(self.status().to_wire()),
        }
    }

    fn status(&self) -> ControllerStatus {
        match self.state {
            State::Disabled => ControllerStatus::IDLE,
            State::Ready | State::Resetting => ControllerStatus::READY,
            State::ShuttingDown => ControllerStatus::READY.and(ControllerStatus::SHUTTING_DOWN),
            State::ShutDown if self.configuration.enabled() => {
                ControllerStatus::READY.and(ControllerStatus::SHUT_DOWN)
            }
            State::ShutDown => ControllerStatus::SHUT_DOWN,
            State::Failed => ControllerStatus::FATAL,
        }
    }

    /// CC is written.
    fn configure(&mut self, new: Configuration) -> Admin {
        let old = core::mem::replace(&mut self.configuration, new);
        match (old.enabled(), new.enabled()) {
            (true, false) => return self.reset(),
            (false, true) => self.enable(new),
            _ => {}
        }
        if new.shutdown() { self.shut_down() } else { Admin::done(0) }
    }

    fn enable(&mut self, cc: Configuration) {
        // Discovery controllers have no I/O queues whose entries could have a size.
        let sizes = self.kind == Kind::Discovery || cc.has_our_entry_sizes();
        self.state = match self.state {
            State::ShutDown if cc.shutdown() => State::ShutDown,
            State::Disabled | State::ShutDown if sizes && cc.selects_what_we_offer() => {
                State::Ready
            }
            _ => State::Failed,
        };
    }

    fn reset(&mut self) -> Admin {
        self.state = State::Resetting;
        self.features = Features::new(self.features.keep_alive(), self.limits.io_queues);
        self.events.reset();
        self.changed = ChangedNamespaces::default();
        self.notifications = Notifications::default();
        Admin::Reset
    }

    fn shut_down(&mut self) -> Admin {
        match self.state {
            State::Ready | State::Failed => {
                self.state = State::ShuttingDown;
                Admin::Shutdown
            }
            State::Disabled => {
                self.state = State::ShutDown;
                Admin::done(0)
            }
            _ => Admin::done(0),
        }
    }
}
