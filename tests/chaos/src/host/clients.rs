//! What clients ask for, and what they make of the answers.

use std::time::Duration;

use braid_block::{Class, Instant, Memory};
use braid_nvme::Status;
use braid_nvme::host::{Ended, Operation, Submission};
use braid_reactor::World;
use braid_sim::{Deed, Number, SECTOR, fill};

use super::{CLIENTS, Flight, Load, Phase, STALL, free, look};

/// Bytes of a block.
const BLOCK: u32 = 4096;
/// Sectors of a block: what the history is written in.
const BLOCK_SECTORS: u64 = BLOCK as u64 / SECTOR as u64;
/// Reads, writes, zeroings and flushes, by weight.
const WEIGHTS: [u32; 4] = [46, 38, 5, 11];
/// One write in so many is durable (FUA).
const DURABLE_IN: u64 = 6;
/// Blocks of a cluster, what a pool gives space by; one zeroing in so many is of one.
const CLUSTER_BLOCKS: u32 = 64;
const CLUSTER_IN: u64 = 6;
/// One operation in so many is of two blocks.
const WIDE_IN: u64 = 4;

impl Load {
    /// Gives every idle client something to do whose time has come.
    pub(super) fn begin_all(&mut self, world: &mut World<'_>) {
        for client in 0..self.clients.len() {
            let Some(idle) = self.clients.get(client).filter(|client| !client.busy) else {
                continue;
            };
            if idle.next > world.now {
                continue;
            }
            let (deed, lba, blocks) = match self.phase {
                Phase::Working => self.wish(),
                Phase::Reading => match self.chores.pop_front() {
                    Some(lba) => (Deed::Read, lba, 1),
                    None => continue,
                },
                Phase::Resting | Phase::Leaving => return,
            };
            if !self.begin(world, client, deed, lba, blocks) {
                if self.phase == Phase::Reading {
                    self.chores.push_front(lba);
                }
                // There is no buffer: when one comes free something happens.
                return;
            }
        }
    }

    /// What somebody wants, by chance.
    fn wish(&mut self) -> (Deed, u64, u32) {
        let random = &mut self.random;
        let durable = random.once_in(DURABLE_IN);
        let deed = match random.weighted(&WEIGHTS) {
            0 => Deed::Read,
            1 => Deed::Write { durable },
            2 => Deed::Zero { durable: false },
            _ => Deed::Flush,
        };
        let lba = *random.pick(&self.work.blocks);
        if matches!(deed, Deed::Zero { .. }) && random.once_in(CLUSTER_IN) {
            // All of a cluster: its space is given back, and taken again by the next write.
            return (deed, lba - lba % u64::from(CLUSTER_BLOCKS), CLUSTER_BLOCKS);
        }
        let wide = random.once_in(WIDE_IN) && self.work.blocks.contains(&(lba + 1));
        (deed, lba, 1 + u32::from(wide))
    }

    /// False: there is no buffer.
    fn begin(
        &mut self,
        world: &mut World<'_>,
        client: usize,
        deed: Deed,
        lba: u64,
        blocks: u32,
    ) -> bool {
        let moves = matches!(deed, Deed::Read | Deed::Write { .. });
        let bytes = if moves { blocks * BLOCK } else { 0 };
        let lease = match moves {
            true => match Class::holding(bytes).and_then(|class| world.mem.alloc(class)) {
                Some(lease) => Some(lease),
                None => return false,
            },
            false => None,
        };
        let sectors = if deed == Deed::Flush { 0 } else { u64::from(blocks) * BLOCK_SECTORS };
        let first = lba * BLOCK_SECTORS;
        let number = self.history.begin(world.now, client, deed, (first, sectors));
        if let (Deed::Write { .. }, Some(lease)) = (deed, &lease) {
            let named = self.history.named(number);
            let data = &mut world.mem.bytes_mut(lease)[..bytes as usize];
            for (sector, piece) in (first..).zip(data.chunks_exact_mut(SECTOR)) {
                fill(piece, named, sector);
            }
        }
        let operation = match deed {
            Deed::Read => Operation::Read { lba, blocks },
            Deed::Write { durable } => Operation::Write { lba, blocks, durable },
            Deed::Zero { .. } => {
                Operation::WriteZeroes { lba, blocks, deallocate: number.is_multiple_of(2) }
            }
            Deed::Flush => Operation::Flush,
        };
        let cookie = u64::from(number);
        let submission = Submission { operation, nsid: 1, lease, len: bytes, cookie, queue: 0 };
        let host = &mut self.hosts[client / CLIENTS];
        if let Err(submission) = host.multipath.submit(world.now, submission) {
            // It takes as many as there are clients; what never left takes no effect.
            free(world, submission.lease);
            self.history.failed(world.now, number, false);
            return false;
        }
        self.clients[client].busy = true;
        let began = world.now;
        self.flights.insert(number, Flight { client, deed, lba, bytes, began, attempts: 0 });
        true
    }

    /// An operation ended; `answered`: its last sending was.
    pub(super) fn end(&mut self, world: &mut World<'_>, host: usize, ended: Ended, answered: bool) {
        let Ok(number) = Number::try_from(ended.cookie) else { return };
        let Some(flight) = self.flights.remove(&number) else { return };
        let now = world.now;
        if ended.status.is_success() {
            self.succeeded(world, number, &flight, &ended);
        } else {
            self.history.failed(now, number, answered);
            self.note_failure(&flight, ended.status);
        }
        free(world, ended.lease);
        let nanos = u64::try_from(self.work.think.as_nanos()).unwrap_or(u64::MAX);
        let pause = Duration::from_nanos(self.random.below(nanos.max(1)));
        let client = &mut self.clients[flight.client];
        (client.busy, client.next) = (false, now + pause);
        self.measure(now, host, &flight, ended.path);
    }

    fn succeeded(&mut self, world: &mut World<'_>, number: Number, flight: &Flight, ended: &Ended) {
        let (now, attempt) = (world.now, flight.attempts.saturating_sub(1));
        let kind = match flight.deed {
            Deed::Read => 0,
            Deed::Write { .. } => 1,
            Deed::Zero { .. } => 2,
            Deed::Flush => 3,
        };
        look(&self.seen).done[kind] += 1;
        let (Deed::Read, Some(lease)) = (flight.deed, &ended.lease) else {
            return self.history.acknowledged(now, number, attempt);
        };
        let data = &world.mem.bytes(lease)[..flight.bytes as usize];
        if let Err(violation) = self.history.was_read(now, number, attempt, data) {
            let place = format!("reading block {}", flight.lba);
            let text = format!("{}: {place}: {}", violation.invariant, violation.text);
            look(&self.seen).finding.get_or_insert(text);
        }
    }

    fn note_failure(&self, flight: &Flight, status: Status) {
        let mut seen = look(&self.seen);
        seen.failed += 1;
        seen.failure = Some(format!("{:?} of block {}: {status}", flight.deed, flight.lba));
        if self.phase == Phase::Reading {
            let text = format!("block {} cannot be read: {status}", flight.lba);
            seen.finding.get_or_insert(text);
        }
    }

    fn measure(&mut self, now: Instant, host: usize, flight: &Flight, path: Option<usize>) {
        let mut seen = look(&self.seen);
        seen.retries += flight.attempts.saturating_sub(1) as u64;
        seen.longest = seen.longest.max(now.since(flight.began));
        let host = &mut self.hosts[host];
        if path.is_some() && path != host.last {
            seen.switches += u64::from(host.last.is_some());
            host.last = path;
        }
        // Nobody waited for an answer while nothing was asked.
        let asked = self.flights.values().map(|other| other.began).min();
        let asked = asked.unwrap_or(flight.began).min(flight.began);
        let since = self.last_answer.max(asked);
        if now.since(since) >= STALL {
            seen.stalls.push((since.since(self.work.began), now.since(since)));
        }
        self.last_answer = now;
    }
}
