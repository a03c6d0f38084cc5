//! The threads that serve: one shard on one reactor each.

use std::any::Any;
use std::thread;

use braid_reactor::{Listener, Reactor, Remote, mesh};
use braid_shard::{Config, Shard};
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::serve::config::Shards;
use crate::serve::keys;
use crate::serve::server::{Control, Server, Tellers};

/// How a shard's thread ended.
#[derive(Debug)]
pub struct Ended {
    /// Which.
    pub shard: u16,
    /// Whether it stopped as it was told to.
    pub result: Result<()>,
}

/// All running shards.
#[derive(Debug)]
pub struct Threads {
    /// How to reach each of them.
    pub remotes: Vec<Remote<Control>>,
    /// Tells the end of each.
    pub ended: mpsc::UnboundedReceiver<Ended>,
}

impl Threads {
    /// Makes all reactors, then lets them run: either all of them start, or none. What pools
    /// and volumes tell goes to `tellers`.
    ///
    /// # Errors
    /// When the system does not allow what a reactor needs.
    pub fn start(shards: Shards, listeners: Vec<Listener>, tellers: &Tellers) -> Result<Self> {
        let Shards { config, disks, reactor, keys, .. } = shards;
        let mut listeners = Some(listeners);
        let mut reactors = Vec::with_capacity(disks.len());
        for (port, disks) in mesh(config.shards).into_iter().zip(disks) {
            // The first shard accepts for all; a connection moves home once it says what it wants.
            let listeners = listeners.take().unwrap_or_default();
            let reactor = Reactor::new(reactor.clone(), port, disks, listeners, Vec::new())
                .map_err(|error| Error::run(error.to_string()))?;
            reactors.push(reactor);
        }
        let (sender, ended) = mpsc::unbounded_channel();
        let remotes = reactors.iter().map(Reactor::remote).collect();
        for (shard, reactor) in (0..).zip(reactors) {
            for remark in reactor.remarks() {
                tracing::info!(shard, "{remark}");
            }
            let config = Config { shard, ..config.clone() };
            let server = Server::new(&config, tellers.clone());
            let secrets = keys::Secrets::draw(keys.clone())?;
            spawn(config, secrets, server, reactor, sender.clone())?;
        }
        Ok(Self { remotes, ended })
    }

    /// Tells every shard to stop.
    pub fn stop(&self) {
        for remote in &self.remotes {
            // A shard that has ended needs not be told.
            let _ = remote.post(Control::Stop);
        }
    }
}

fn spawn(
    config: Config,
    secrets: keys::Secrets,
    server: Server,
    reactor: Reactor<Control>,
    ended: mpsc::UnboundedSender<Ended>,
) -> Result<()> {
    let shard = config.shard;
    let work = move || {
        let mut machine = Shard::new(config);
        machine.host_keys_set(secrets.keys, secrets.seed);
        reactor.run(machine, server).map(drop).map_err(|e| Error::run(e.to_string()))
    };
    thread::Builder::new()
        .name(format!("braid-shard-{shard}"))
        .spawn(move || supervise(shard, &ended, work))
        .map(drop)
        .map_err(|error| Error::run(format!("cannot start a thread: {error}")))
}

/// Does a thread's work and tells how it ended, even if it panics: the others must not go on
/// without it.
fn supervise(shard: u16, ended: &mpsc::UnboundedSender<Ended>, work: impl FnOnce() -> Result<()>) {
    let result = match std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.at(format_args!("shard {shard}"))),
        Err(panic) => Err(Error::run(format!("shard {shard} panicked: {}", said(&*panic)))),
    };
    // Fails when the management thread is gone, and then the process is about to be.
    let _ = ended.send(Ended { shard, result });
}

fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_like_any_other_end() {
        let (sender, mut ended) = mpsc::unbounded_channel();
        supervise(3, &sender, || panic!("lost {}", "count"));
        supervise(4, &sender, || Ok(()));
        let first = ended.try_recv().unwrap();
        let said = first.result.unwrap_err().to_string();
        assert_eq!((first.shard, said.as_str()), (3, "shard 3 panicked: lost count"));
        assert!(ended.try_recv().unwrap().result.is_ok());
    }
}
