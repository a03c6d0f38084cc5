//! SIGHUP: what of the configuration file can change while an engine runs.

use braid_reactor::Remote;

use crate::error::{Error, Result};
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
    /// Hosts have keys: they do not lose them all by a line that is missing.
    keyed: bool,
}

impl Reload {
    /// For an engine that was started with this command line, and with keys of hosts or without.
    #[must_use]
    pub const fn new(line: Options, log: log::Handle, keyed: bool) -> Self {
        Self { line, log, keyed }
    }

    /// Reads the files and takes over what may change. A file with a mistake changes nothing.
    pub fn run(&mut self, remotes: &[Remote<Control>]) {
        if self.line.config.is_none() && self.line.host_keys.is_none() {
            tracing::warn!("SIGHUP reads --config and --host-keys again, but there is neither");
            return;
        }
        match read(&self.line, self.keyed, remotes.len()) {
            Ok((level, secrets)) => {
                self.log.set(level);
                let hosts = secrets.first().map_or(0, |secrets| secrets.keys.len());
                self.keyed = hosts > 0;
                for (remote, secrets) in remotes.iter().zip(secrets) {
                    // One that has ended needs no keys.
                    drop(remote.post(Control::HostKeys(Box::new(secrets))));
                }
                tracing::info!(?level, hosts, "configuration read again");
            }
            Err(error) => tracing::error!(%error, "the configuration is left as it was"),
        }
    }
}

/// The log level and the keys that the command line and the files ask for now, the keys for each
/// shard with randomness of its own: all shards change, or none. The rest is looked at too: a file
/// that the next start would refuse is to be known of now.
fn read(line: &Options, keyed: bool, shards: usize) -> Result<(Level, Vec<Secrets>)> {
    let options = file::under(line.clone())?;
    let plan = Plan::new(options, &identity::machine(), 1)?;
    let keys = keys::read(plan.host_keys.as_deref())?;
    if keyed && keys.is_empty() {
        return Err(Error::usage(
            "host-keys is gone from --config, and everybody would be let in; start the engine anew \
             if no host needs a key any more",
        ));
    }
    let secrets: Result<_> = (0..shards).map(|_| Secrets::draw(keys.clone())).collect();
    Ok((plan.log, secrets?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "DHHC-1:01:EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi9A/ow7:";

    #[test]
    fn all_shards_get_the_keys_and_nobody_loses_them_by_a_missing_line() {
        let place = |name: &str| {
            std::env::temp_dir().join(format!("braid-reload-{name}-{}", std::process::id()))
        };
        let (config, keys) = (place("toml"), place("keys"));
        std::fs::write(&keys, format!("nqn.a {KEY}\n")).unwrap();
        std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o600)).unwrap();
        let device = "namespaces = [\"mem:1MiB\"]\n";
        let with_keys = format!("{device}host-keys = {keys:?}\n");
        std::fs::write(&config, &with_keys).unwrap();
        let line = Options { config: Some(config.clone()), ..Options::default() };
        let (_, secrets) = read(&line, false, 2).unwrap();
        assert_eq!(secrets.iter().map(|secrets| secrets.keys.len()).collect::<Vec<_>>(), [1, 1]);
        assert_ne!(secrets[0].seed, secrets[1].seed);
        std::fs::write(&config, device).unwrap();
        let said = read(&line, true, 2).unwrap_err().to_string();
        assert!(said.contains("host-keys is gone"), "{said}");
        assert!(read(&line, false, 2).unwrap().1[0].keys.is_empty(), "there never were any");
        std::fs::write(&config, &with_keys).unwrap();
        std::fs::write(&keys, "").unwrap();
        assert!(read(&line, true, 2).unwrap_err().to_string().contains("has no key"));
        std::fs::remove_file(&config).unwrap();
        std::fs::remove_file(&keys).unwrap();
    }
}
