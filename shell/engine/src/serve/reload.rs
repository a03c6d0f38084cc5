//! SIGHUP: what of the configuration file can change while an engine runs.

use braid_nvme::auth::HostKeys;
use braid_reactor::Remote;

use crate::error::Result;
use crate::serve::keys::{self, Secrets};
use crate::serve::options::{Level, Options};
use crate::serve::plan::Plan;
use crate::serve::server::Control;
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

    /// Reads the files and takes over what may change. A file with a mistake changes nothing.
    pub fn run(&mut self, remotes: &[Remote<Control>]) {
        if self.line.config.is_none() && self.line.host_keys.is_none() {
            tracing::warn!("SIGHUP reads --config and --host-keys again, but there is neither");
            return;
        }
        match read(&self.line) {
            Ok((level, keys)) => {
                self.log.set(level);
                let hosts = keys.len();
                for remote in remotes {
                    // Each its own randomness; one that has ended needs none.
                    match Secrets::draw(keys.clone()) {
                        Ok(secrets) => drop(remote.post(Control::HostKeys(Box::new(secrets)))),
                        Err(error) => tracing::error!(%error, "a shard keeps its old keys"),
                    }
                }
                tracing::info!(?level, hosts, "configuration read again");
            }
            Err(error) => tracing::error!(%error, "the configuration is left as it was"),
        }
    }
}

/// The log level and the keys that the command line and the files ask for now. The rest is looked
/// at too: a file that the next start would refuse is to be known of now.
fn read(line: &Options) -> Result<(Level, HostKeys)> {
    let options = file::under(line.clone())?;
    let plan = Plan::new(options, &identity::machine(), 1)?;
    Ok((plan.log, keys::read(plan.host_keys.as_deref())?))
}
