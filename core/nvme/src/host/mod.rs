//! The host side: what drives targets.
//!
//! A [`Controller`] is one association with one subsystem: an admin queue, I/O queues, keep alive,
//! reconnecting. It holds no sockets. It is told what happened ([`Controller::connected`],
//! [`Controller::received`], [`Controller::sent`], [`Controller::ended`], [`Controller::elapsed`])
//! and says what to do ([`Controller::poll_action`]) and what came of it
//! ([`Controller::poll_event`]).

mod access;
mod backoff;
mod commands;
mod config;
mod connection;
mod controller;
mod discovery;
mod ending;
mod event;
mod identify;
mod keep_alive;
mod multipath;
mod namespace;
mod operation;
mod queue;
mod reservation;
mod shutdown;
mod slot;
mod startup;
mod survey;
mod watch;
mod why;

pub use config::{Config, Reconnect};
pub use connection::{Negotiated, check_ic_resp};
pub use controller::{Action, Controller};
pub use discovery::{Entry, Subtype, TransportFamily};
pub use event::{Completed, Event, Live};
pub use identify::ControllerInfo;
pub use multipath::{CommandError, Ended, Multipath, PATHS_MAX, Policy, RETRIES_MAX};
pub use namespace::NamespaceInfo;
pub use operation::{
    DeallocateRange, Operation, Submission, get_features, get_lba_status, get_log_page,
    identify as identify_command, set_features,
};
pub use reservation::{ReportedRegistrant, ReservationReport};
pub use why::{Stage, Unsuitable, Why};

pub use crate::target::reservation::{
    Acquire, Keys, Register, Release, ReservationCommand, ReservationType,
};
