//! SIGHUP: what of the configuration file can change while an engine runs.

use crate::error::Result;
use crate::serve::options::{Level, Options};
use crate::serve::plan::Plan;
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

    /// Reads the file and takes over what may change. A file with a mistake changes nothing.
    pub fn run(&mut self) {
        if self.line.config.is_none() {
            tracing::warn!("SIGHUP reads --config again, but there is none");
            return;
        }
        match read(&self.line) {
            Ok(level) => {
                self.log.set(level);
                tracing::info!(?level, "configuration read again");
            }
            Err(error) => tracing::error!(%error, "the configuration is left as it was"),
        }
    }
}

/// The log level that the command line and the file ask for now. The rest is looked at too: a file
/// that the next start would refuse is to be known of now.
fn read(line: &Options) -> Result<Level> {
    let options = file::under(line.clone())?;
    Plan::new(options, &identity::machine(), 1).map(|plan| plan.log)
}
