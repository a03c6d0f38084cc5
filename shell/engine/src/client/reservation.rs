//! `braid-engine reservation`: who may do what to a namespace, asked for and changed as a host.

use std::fmt;
use std::str::FromStr;

use braid_nvme::Status;
use braid_nvme::host::{
    Acquire, Keys, Operation, Register, Release, ReportedRegistrant, ReservationCommand,
    ReservationReport, ReservationType,
};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;
use uuid::Uuid;

use crate::client::Output;
use crate::client::inquiry::{self, DATA_MAX, Question};
use crate::client::uri::{HostName, TargetUri};
use crate::error::{Error, Result};
use crate::quantity::{Name, Period};
use crate::table;

/// What `reservation --help` teaches below the list of commands.
pub const HELP: &str = "\
Hosts register with a namespace by a key each; a registrant may reserve it, and then only some hosts
may read or write. Who is who is said by the host identifier, which follows from --host-nqn; keys
are numbers, as 123 or 0x7b. What a host registers outlives its connection.

TYPE is write-exclusive or exclusive-access (for the holder alone), write-exclusive-registrants or
exclusive-access-registrants (for every registrant), write-exclusive-all or exclusive-access-all
(every registrant holds it).

Examples:
  braid-engine reservation report nvme+tcp://127.0.0.1:4420/NQN?nsid=1
  braid-engine reservation register URI 0xa
  braid-engine reservation acquire URI 0xa write-exclusive
  braid-engine reservation preempt URI 0xb 0xa exclusive-access --abort
  braid-engine reservation release URI 0xb exclusive-access
  braid-engine reservation unregister URI 0xb
  braid-engine reservation clear URI 0xb

Exit codes: 0 done, 1 refused, 2 asked for what makes no sense.";

/// `reservation`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Who we say we are [default: derived from this machine's id]
    #[arg(long, value_name = "NQN", global = true)]
    host_nqn: Option<Name>,

    /// How long each step may take
    #[arg(long, default_value = "10s", value_name = "TIME", global = true)]
    timeout: Period,

    /// How to print a report
    #[arg(short, long, default_value = "table", value_name = "FORMAT", global = true)]
    output: Output,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show who has registered, and who holds the namespace
    Report {
        /// The namespace: nvme+tcp://HOST:PORT/NQN?nsid=N
        uri: TargetUri,
    },
    /// Register by a key, or by another one than before
    Register {
        /// The namespace
        uri: TargetUri,
        /// Our key from now on
        key: KeyText,
        /// Our key so far, which it replaces
        #[arg(long, value_name = "KEY")]
        replace: Option<KeyText>,
        /// Whether reservations of the namespace outlive a loss of power from now on
        #[arg(long)]
        persist: Option<bool>,
    },
    /// Be no registrant any more; what is held is released
    Unregister {
        /// The namespace
        uri: TargetUri,
        /// Our key
        key: KeyText,
    },
    /// Reserve it, if nobody else has
    Acquire {
        /// The namespace
        uri: TargetUri,
        /// Our key
        key: KeyText,
        /// For what
        kind: KindText,
    },
    /// Take it from the hosts with a key: they are registered no more
    Preempt {
        /// The namespace
        uri: TargetUri,
        /// Our key
        key: KeyText,
        /// Theirs
        victim: KeyText,
        /// For what
        kind: KindText,
        /// And abort their commands
        #[arg(long)]
        abort: bool,
    },
    /// Give up what we hold
    Release {
        /// The namespace
        uri: TargetUri,
        /// Our key
        key: KeyText,
        /// What it was held for
        kind: KindText,
    },
    /// Unregister everybody
    Clear {
        /// The namespace
        uri: TargetUri,
        /// Our key
        key: KeyText,
    },
}

/// A key as people write it: decimal, or hexadecimal behind 0x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyText(u64);

impl FromStr for KeyText {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let number = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        let wrong = || format!("'{text}' is no key; write a number, such as 123 or 0x7b");
        number.ok().filter(|key| *key > 0).map(Self).ok_or_else(wrong)
    }
}

/// The types, by the names that people use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindText {
    WriteExclusive,
    ExclusiveAccess,
    WriteExclusiveRegistrants,
    ExclusiveAccessRegistrants,
    WriteExclusiveAll,
    ExclusiveAccessAll,
}

impl KindText {
    const fn kind(self) -> ReservationType {
        match self {
            Self::WriteExclusive => ReservationType::WriteExclusive,
            Self::ExclusiveAccess => ReservationType::ExclusiveAccess,
            Self::WriteExclusiveRegistrants => ReservationType::WriteExclusiveRegistrants,
            Self::ExclusiveAccessRegistrants => ReservationType::ExclusiveAccessRegistrants,
            Self::WriteExclusiveAll => ReservationType::WriteExclusiveAll,
            Self::ExclusiveAccessAll => ReservationType::ExclusiveAccessAll,
        }
    }
}

impl fmt::Display for KindText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// Runs the command.
///
/// # Errors
/// Why it was not done.
pub fn run(options: &Options) -> Result<()> {
    let Options { host_nqn, timeout, output, command } = options;
    let (uri, command, keys) = command.asked();
    let nsid = uri.nsid.unwrap_or(1);
    let mut data = keys.to_bytes().to_vec();
    data.resize(usize::try_from(command.data_len()).unwrap_or(DATA_MAX), 0);
    let name = HostName::new(host_nqn.map(|name| name.0));
    let question = Question { operation: Operation::Reservation(command), nsid, data };
    let (status, data) = inquiry::command(uri, name, timeout.0, question)?;
    if !status.is_success() {
        return Err(Error::run(format!("{uri}: {status}{}", advice(status))));
    }
    let text = match command {
        ReservationCommand::Report { .. } => {
            let report = ReservationReport::parse(&data)
                .ok_or_else(|| Error::run(format!("{uri}: its report makes no sense")))?;
            Report::new(&report).text(*output)?
        }
        _ => "done\n".to_owned(),
    };
    crate::command::print(&text);
    Ok(())
}

/// What to do when a target refuses.
fn advice(status: Status) -> &'static str {
    if status.is(Status::RESERVATION_CONFLICT) {
        "; 'reservation report' shows who holds it, and by which keys"
    } else if status.is(Status::INVALID_OPCODE) {
        "; the target has no reservations"
    } else {
        ""
    }
}

impl Command {
    /// Where it goes, what it is, and by which keys.
    fn asked(&self) -> (&TargetUri, ReservationCommand, Keys) {
        let register =
            |action, persists| ReservationCommand::Register { action, ignore_key: false, persists };
        let acquire = |action, kind: &KindText| {
            let kind = kind.kind();
            ReservationCommand::Acquire { action, kind }
        };
        let keys = |current: &KeyText, other: u64| Keys { current: current.0, other };
        match self {
            Self::Report { uri } => {
                let bytes = u32::try_from(DATA_MAX).unwrap_or(u32::MAX);
                (uri, ReservationCommand::Report { bytes }, Keys::default())
            }
            Self::Register { uri, key, replace: None, persist } => {
                let keys = Keys { current: 0, other: key.0 };
                (uri, register(Register::Register, *persist), keys)
            }
            Self::Register { uri, key, replace: Some(old), persist } => {
                (uri, register(Register::Replace, *persist), keys(old, key.0))
            }
            Self::Unregister { uri, key } => {
                (uri, register(Register::Unregister, None), keys(key, 0))
            }
            Self::Acquire { uri, key, kind } => {
                (uri, acquire(Acquire::Acquire, kind), keys(key, 0))
            }
            Self::Preempt { uri, key, victim, kind, abort } => {
                let action = if *abort { Acquire::PreemptAndAbort } else { Acquire::Preempt };
                (uri, acquire(action, kind), keys(key, victim.0))
            }
            Self::Release { uri, key, kind } => {
                let command = ReservationCommand::Release(Release::Release(kind.kind()));
                (uri, command, keys(key, 0))
            }
            Self::Clear { uri, key } => {
                (uri, ReservationCommand::Release(Release::Clear), keys(key, 0))
            }
        }
    }
}

/// A report as it is printed.
#[derive(Debug, Serialize)]
struct Report {
    generation: u32,
    /// None: nobody holds it.
    #[serde(rename = "type")]
    kind: Option<String>,
    persists: bool,
    registrants: Vec<Registrant>,
}

#[derive(Debug, Serialize)]
struct Registrant {
    host_id: String,
    key: String,
    holds: bool,
    /// None: it has none at this target now.
    controller: Option<u16>,
}

impl Report {
    fn new(report: &ReservationReport) -> Self {
        let of = |text: &KindText| Some(text.kind()) == report.kind;
        let kind = KindText::value_variants().iter().find(|text| of(text));
        Self {
            generation: report.generation,
            kind: kind.map(ToString::to_string),
            persists: report.persists,
            registrants: report.registrants.iter().map(Registrant::new).collect(),
        }
    }

    fn text(&self, output: Output) -> Result<String> {
        if output == Output::Json {
            let text = serde_json::to_string_pretty(self);
            return text.map(|text| text + "\n").map_err(|error| Error::run(error.to_string()));
        }
        let kind = self.kind.as_deref().unwrap_or("not reserved");
        let persists = if self.persists { "yes" } else { "no" };
        let generation = self.generation;
        let head = ["HOST", "KEY", "HOLDS IT", "CONTROLLER"].map(Into::into).to_vec();
        let rows = self.registrants.iter().map(Registrant::row);
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        let facts =
            format!("type        {kind}\ngeneration  {generation}\npersists    {persists}\n");
        Ok(facts + "\n" + &table::render(&rows))
    }
}

impl Registrant {
    fn new(one: &ReportedRegistrant) -> Self {
        Self {
            host_id: Uuid::from_bytes(one.host).to_string(),
            key: format!("{:#x}", one.key),
            holds: one.holds,
            controller: one.cntlid,
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.host_id.clone(),
            self.key.clone(),
            if self.holds { "yes" } else { "no" }.into(),
            self.controller.map_or_else(|| "-".into(), |id| id.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_number_and_never_zero() {
        assert_eq!("0xff".parse(), Ok(KeyText(255)));
        assert_eq!("18446744073709551615".parse(), Ok(KeyText(u64::MAX)));
        for wrong in ["0", "0x0", "ff", "0x", "-1", "18446744073709551616"] {
            let said = wrong.parse::<KeyText>().unwrap_err();
            assert!(said.contains("0x7b"), "{said}");
        }
    }

    #[test]
    fn every_type_has_a_name() {
        let named = KindText::value_variants().iter().map(|text| text.kind());
        assert_eq!(named.collect::<Vec<_>>(), ReservationType::ALL);
    }
}
