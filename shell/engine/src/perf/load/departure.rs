//! What goes: commands as deep as was asked for, and in the end the associations.

use std::time::Duration;

use braid_block::Instant;
use braid_reactor::World;
use braid_shard::Shard;

use super::{Load, Phase, cpu_time};
use crate::perf::flight::State;
use crate::perf::generator::{ReadBack, Work};

/// How long a load goes on that is not told.
const TIME: Duration = Duration::from_secs(10);

impl Load {
    pub(super) fn act(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        if self.job.is_some() && self.phase != Phase::Closing {
            self.go_on(machine, world);
        }
        if self.phase == Phase::Closing {
            self.close(machine, world);
        }
    }

    fn go_on(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        if self.phase == Phase::Running && self.is_over(world.now) {
            self.phase = Phase::Settling;
        }
        for index in std::mem::take(&mut self.parked) {
            if let State::Parked(work, begun) = self.flights[index].state {
                self.send(machine, world, index, work, begun);
            }
        }
        self.launch(machine, world);
        if self.idle.len() < self.flights.len() {
            return;
        }
        match self.phase {
            Phase::Settling => {
                self.settle();
                // Nothing is in flight that could begin the next turn.
                self.launch(machine, world);
            }
            Phase::ReadingBack(_) => self.phase = Phase::Closing,
            Phase::Connecting | Phase::Running | Phase::Closing => {}
        }
    }

    /// Gives every idle flight a command, as long as there are any.
    fn launch(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        while let Some(&index) = self.idle.last()
            && let Some(work) = self.next_work()
        {
            self.idle.pop();
            self.stamp(world, index, work);
            self.send(machine, world, index, work, world.now);
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.time().is_some_and(|time| now.since(self.begun) >= time)
            || self.options.total.is_some_and(|total| self.submitted >= total.0)
    }

    /// How long to go on, unless it is bounded by bytes alone.
    pub(super) fn time(&self) -> Option<Duration> {
        let default = self.options.total.is_none().then_some(TIME);
        self.options.time.map(|time| time.0).or(default)
    }

    fn next_work(&mut self) -> Option<Work> {
        let job = self.job.as_mut()?;
        match &mut self.phase {
            Phase::Running => {
                let total = self.options.total.map_or(u64::MAX, |total| total.0);
                if self.submitted >= total {
                    return None;
                }
                let work = job.generator.next_work()?;
                if work != Work::Flush {
                    self.submitted += u64::from(job.geometry.bytes);
                }
                Some(work)
            }
            Phase::ReadingBack(read_back) => read_back.next_work(&job.generator),
            Phase::Connecting | Phase::Settling | Phase::Closing => None,
        }
    }

    fn stamp(&mut self, world: &mut World<'_>, index: usize, work: Work) {
        if let (true, Some(job)) = (self.options.verify, &self.job) {
            self.flights[index].stamp(world.mem, job.geometry, &job.pattern, work);
        }
    }

    fn send(
        &mut self,
        machine: &mut Shard,
        world: &mut World<'_>,
        index: usize,
        work: Work,
        begun: Instant,
    ) {
        let Some(job) = &self.job else { return };
        let flight = &mut self.flights[index];
        let submission = flight.submission(job.geometry, work, index as u64);
        let taken = match self.lanes.get_mut(flight.host) {
            Some(lane) => lane.submit(world.now, submission),
            None => {
                let key = self.hosts[flight.host].key;
                machine.host_submit(world.mem, world.now, key, submission)
            }
        };
        match taken {
            Ok(()) => flight.state = State::Flying(work, begun),
            Err(back) => {
                flight.take_back(back.lease);
                flight.state = State::Parked(work, begun);
                self.parked.push(index);
            }
        }
    }

    /// Every command is back.
    fn settle(&mut self) {
        self.cpu = cpu_time().saturating_sub(self.cpu);
        let wrote = self.tallies.write.commands > 0;
        self.phase = if self.options.verify && wrote {
            Phase::ReadingBack(ReadBack::default())
        } else {
            Phase::Closing
        };
    }

    fn close(&mut self, machine: &mut Shard, world: &mut World<'_>) {
        for host in self.hosts.iter_mut().filter(|host| !host.closing) {
            host.closing = true;
            if self.failure.is_some() {
                machine.host_abort(world.mem, world.now, host.key);
            } else {
                machine.host_close(world.mem, world.now, host.key);
            }
        }
        if self.is_closed() {
            self.flights.iter_mut().for_each(|flight| flight.leave(world.mem));
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.phase == Phase::Closing && self.hosts.iter().all(|host| host.closed)
    }
}
