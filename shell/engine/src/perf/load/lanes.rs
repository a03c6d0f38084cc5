//! Connections with several paths each: a command takes one of those that the target says are best,
//! and another one when that fails.
//!
//! ```text
//!   lane 0: hosts[0] .. hosts[paths - 1]      lane 1: hosts[paths] ..
//! ```

use braid_nvme::host::{CommandError, Completed, Ended, Event, Live, Multipath};
use braid_reactor::World;
use braid_shard::Shard;

use super::{Load, Phase};
use crate::client::inquiry::refused;
use crate::error::{Error, Result};

impl Load {
    /// Hears what happened to one of several paths.
    pub(super) fn hear_path(&mut self, world: &mut World<'_>, host: usize, event: Event) {
        let paths = self.options.paths();
        let (lane, path) = (host / paths, host % paths);
        let mut known = None;
        match &event {
            Event::Live(live) => {
                if let Err(error) = self.path_is_live(host, live) {
                    return self.fail(error);
                }
                known = (self.phase == Phase::Connecting).then(|| live.clone());
            }
            Event::Lost { why, retry } => {
                let was_live = std::mem::take(&mut self.hosts[host].live);
                if self.phase != Phase::Closing && (was_live || retry.is_none()) {
                    let address = self.addresses[path];
                    let error = refused(address, self.options.target.nqn, *why);
                    self.tell(Some(format!("a path is lost: {error}")));
                }
            }
            Event::Closed => {
                self.hosts[host].live = false;
                self.hosts[host].closed = true;
            }
            Event::Completed(_) | Event::Discovered(_) => {}
        }
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.on_event(world.now, path, event);
        }
        if let Some(live) = known
            && self.lanes.iter().all(|lane| lane.usable() > 0)
        {
            match self.job(&live) {
                Ok(job) => self.begin(world, job),
                Err(error) => self.fail(error),
            }
        }
        let lane = &self.hosts[lane * paths..][..paths];
        if self.phase != Phase::Closing && lane.iter().all(|host| host.closed) {
            self.fail(Error::run("no path is left"));
        }
    }

    /// The first path of all that is live says which namespace it is about.
    fn path_is_live(&mut self, host: usize, live: &Live) -> Result<()> {
        self.hosts[host].live = true;
        self.check(live)?;
        if self.lanes.is_empty() {
            let nsid = self.namespace(live)?.nsid;
            let options = &self.options;
            let commands = u32::from(options.queue_depth) * u32::from(options.queues);
            let (policy, give_up) = (options.policy.into(), Some(options.give_up.0));
            let lane = || Multipath::new(nsid, options.paths(), commands, policy, give_up);
            self.lanes = (0..options.connections).map(|_| lane()).collect();
        }
        Ok(())
    }

    /// Lets commands take their paths, and hears of those that ended; whether any did.
    pub(super) fn drive(&mut self, machine: &mut Shard, world: &mut World<'_>) -> bool {
        let mut any = false;
        for lane in 0..self.lanes.len() {
            self.send_by_paths(machine, world, lane);
            while let Some(ended) = self.lanes[lane].poll_ended() {
                any = true;
                let why = ended.outcome().err().map(|error| self.explained(&error));
                let Ended { cookie, status, result, lease, .. } = ended;
                let completed = Completed { cookie, status, result, lease, digest: None };
                self.on_ended(world, completed, why);
            }
        }
        any
    }

    /// Why a command failed, with the address that its path goes to.
    fn explained(&self, error: &CommandError) -> String {
        match error.path.and_then(|path| self.addresses.get(path)) {
            Some(address) => format!("{address}: {error}"),
            None => error.to_string(),
        }
    }

    fn send_by_paths(&mut self, machine: &mut Shard, world: &mut World<'_>, lane: usize) {
        let first = lane * self.options.paths();
        let lane = &mut self.lanes[lane];
        if self.phase == Phase::Closing {
            // Whatever waits for a path has waited long enough: its buffer is wanted back.
            return lane.elapsed(world.now + self.options.give_up.0);
        }
        lane.elapsed(world.now);
        while let Some((path, submission)) = lane.poll_send(world.now) {
            let key = self.hosts[first + path].key;
            if let Err(back) = machine.host_submit(world.mem, world.now, key, submission) {
                lane.refused(path, back);
            }
        }
        while let Some(path) = lane.poll_look() {
            machine.host_look(world.mem, world.now, self.hosts[first + path].key);
        }
    }
}
