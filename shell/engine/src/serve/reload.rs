//! SIGHUP: what of the configuration file can change while an engine runs.

use braid_reactor::Remote;

use crate::error::Result;
use crate::serve::options::{Level, Options};
use crate::serve::plan::Plan;
use crate::serve::server::{Control, Faults};
use crate::serve::{file, identity, log};

/// Reads the file again when asked to.
#[derive(Debug)]
pub struct Reload {
    line: Options,
    log: log::Handle,
}

impl Reload {
    /// For an engine that was started with this command line.
    #[must_use]
    pub const fn new(line: Options, log: log::Handle) -> Self {
        Self { line, log }
    }

    /// Reads the file and passes on what may change. A file with a mistake changes nothing.
    pub fn run(&mut self, remotes: &[Remote<Control>]) {
        if self.line.config.is_none() {
            tracing::warn!("SIGHUP reads --config again, but there is none");
            return;
        }
        match read(&self.line) {
            Ok((level, faults)) => {
                self.log.set(level);
                for remote in remotes {
                    // A shard that has ended needs not be told.
                    let _ = remote.post(Control::Inject(faults.clone()));
                }
                tracing::info!(?level, "configuration read again");
            }
            Err(error) => tracing::error!(%error, "the configuration is left as it was"),
        }
    }
}

/// The log level and the faults that the command line and the file ask for now.
fn read(line: &Options) -> Result<(Level, Vec<Faults>)> {
    let options = file::under(line.clone())?;
    let plan = Plan::new(options, &identity::machine(), 1)?;
    let faults = plan
        .namespaces()
        .map(|(subsystem, namespace)| Faults {
            nqn: subsystem.nqn.clone(),
            nsid: namespace.nsid,
            injections: namespace.uri.injections.clone(),
        })
        .collect();
    Ok((plan.log, faults))
}
