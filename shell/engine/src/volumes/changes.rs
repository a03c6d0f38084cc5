//! Changes of a volume that people asked for, as its owner here carries them out.

use braid_api::v1;
use braid_nexus::record::Uuid;
use braid_nexus::{Command, Failure};

use super::runner::Runner;
use crate::manage::host::Host;
use crate::manage::{hub, names};

/// The failure that says of a command that what it asks for is so: an order that comes a second
/// time, under another name or to another owner, is done.
pub(super) const fn already(command: &Command) -> Option<Failure> {
    match command {
        Command::Add { .. } | Command::Snapshot { .. } => Some(Failure::Exists),
        // One that is away is no member.
        Command::GiveUp { .. } | Command::Exclude { .. } | Command::DeleteSnapshot { .. } => {
            Some(Failure::NotFound)
        }
        Command::TakeOver { .. }
        | Command::Shutdown
        | Command::Return { .. }
        | Command::Resize { .. } => None,
    }
}

impl<H: Host> Runner<H> {
    /// Hosts of a volume see another size.
    pub(super) fn resized(&mut self, volume: Uuid, bytes: u64) {
        tracing::info!(volume = names::text(volume), bytes, "resized");
        self.touch(volume);
        self.happened(
            volume,
            v1::NexusEvent {
                unix_ms: hub::unix_ms(),
                what: "resized".into(),
                text: format!("hosts see {bytes} bytes"),
                ..v1::NexusEvent::default()
            },
        );
    }
}
