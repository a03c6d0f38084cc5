//! The turn: everything that happened goes to the machine, everything it wants to the kernel,
//! then one submit-and-wait.
//!
//! Invariants:
//! 1. The thread blocks only when nothing is left to do: no event untold, no work put off, no
//!    completion untaken.
//! 2. Idle is silent: the only wake-ups are completions, calls, and deadlines somebody asked for.
//! 3. After the run nothing is in flight, so that no buffer is written after it was freed.

use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::time::Duration;

use braid_block::Instant;
use braid_shard::{Effect, Event};

use crate::application::{Application, Machine, World};
use crate::disk::OpenDisk;
use crate::drive::Drive;
use crate::files::DiskTable;
use crate::listener::Listener;
use crate::mesh::Port;
use crate::options::Options;
use crate::poll::Poller;
use crate::remote::Remote;
use crate::ring::Completion;
use crate::setup;
use crate::start::{RunError, StartError};

/// Transfers of a turn that are handed over together: a disk works on the first of many while the
/// others are still being made. All at once would let it run dry meanwhile.
const TRANSFERS_AT_ONCE: usize = 4;
/// Completions taken in a turn at most.
const COMPLETIONS_PER_TURN: usize = 512;
/// Completions taken together: when a disk's is among them, no more are taken in this turn. All
/// that were there, checked and answered first, would let the disk run dry meanwhile.
const COMPLETIONS_AT_ONCE: usize = 8;
/// How long an arena that is larger than at start is kept so while nothing happens.
const ARENA_LINGER: Duration = Duration::from_secs(1);
/// How soon letters that found no room are tried again.
const CLOGGED_RETRY: Duration = Duration::from_millis(1);
/// How long the end of a run waits for the kernel to let go.
const WIND_DOWN: Duration = Duration::from_secs(30);

/// One thread's ring and everything it drives.
pub struct Reactor<C> {
    drive: Drive,
    poller: Poller,
    completions: Vec<Completion>,
    remarks: Vec<String>,
    controls: mpsc::Receiver<C>,
    remote: Remote<C>,
    boot_id: [u8; 16],
    seed: u64,
}

impl<C: Send + 'static> Reactor<C> {
    /// Makes the ring, the arena and all tables. May be called on any thread.
    ///
    /// # Errors
    /// When the system does not allow what is needed; the text says what to change.
    pub fn new(
        options: Options,
        port: Port,
        disks: Vec<OpenDisk>,
        listeners: Vec<Listener>,
        addresses: Vec<SocketAddr>,
    ) -> Result<Self, StartError> {
        let mut remarks = Vec::new();
        let (sender, controls) = mpsc::channel();
        let remote = Remote::new(sender, port.wakers(), port.shard());
        let poll = u64::try_from(options.poll.as_nanos()).unwrap_or(u64::MAX >> 8);
        Ok(Self {
            poller: Poller::new(options.polling, poll.min(u64::MAX >> 8)),
            completions: Vec::with_capacity(COMPLETIONS_AT_ONCE),
            boot_id: options.boot_id,
            seed: options.seed,
            drive: setup::drive(&options, port, disks, listeners, addresses, &mut remarks)?,
            remarks,
            controls,
            remote,
        })
    }

    /// One-off facts worth a line in the log.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// How other threads reach this reactor.
    #[must_use]
    pub fn remote(&self) -> Remote<C> {
        self.remote.clone()
    }

    /// Runs a machine on this thread until its application has finished, closes all sockets,
    /// waits for everything in flight, and gives the machine (its leases freed) and the
    /// application back.
    ///
    /// # Errors
    /// When the ring itself fails.
    pub fn run<M, A>(mut self, mut machine: M, mut application: A) -> Result<(M, A), RunError>
    where
        M: Machine,
        A: Application<M, Control = C>,
    {
        self.begin()?;
        loop {
            self.turn(&mut machine, &mut application);
            if let Some(errno) = self.drive.ring.failed() {
                self.drive.arena.abandon();
                return Err(RunError { what: "io_uring_enter", source: errno.into() });
            }
            if application.finished(&machine) {
                break;
            }
            self.rest(&machine, &application);
        }
        self.wind_down(&mut machine)?;
        Ok((machine, application))
    }

    fn begin(&mut self) -> Result<(), RunError> {
        let failed = |source| RunError { what: "enabling the ring", source };
        let drive = &mut self.drive;
        drive.ring.enable().map_err(failed)?;
        drive.now = crate::now();
        drive.happened.push_back(Event::Start { boot_id: self.boot_id, seed: self.seed });
        drive.feed();
        drive.listen_for_calls();
        drive.accept_all();
        drive.port.publish(drive.ring.raw_fd());
        (drive.called, drive.mailed) = (true, true);
        Ok(())
    }

    fn turn<M, A>(&mut self, machine: &mut M, application: &mut A)
    where
        M: Machine,
        A: Application<M, Control = C>,
    {
        self.drive.counters.turns += 1;
        self.collect();
        tell(&mut self.drive, machine);
        if self.drive.called {
            self.drive.called = false;
            while let Ok(control) = self.controls.try_recv() {
                application.control(machine, &mut world(&mut self.drive), control);
            }
        }
        let drive = &mut self.drive;
        if machine.poll_timeout().is_some_and(|due| due <= drive.now) {
            machine.handle(&mut drive.arena, drive.now, Event::Elapsed);
        }
        application.turn(machine, &mut world(drive));
        machine.end_turn(&mut drive.arena, drive.now);
        setup::register_fresh(&drive.ring, &mut drive.arena);
        let mut transfers = 0;
        while !drive.disks.ops.is_full()
            && let Some(effect) = machine.poll_effect()
        {
            transfers += usize::from(matches!(effect, Effect::Read { .. } | Effect::Write { .. }));
            if let Some(note) = drive.carry_out(machine, effect) {
                application.note(machine, &mut world(drive), note);
            }
            if transfers == TRANSFERS_AT_ONCE {
                transfers = 0;
                drive.ring.submit(&mut drive.counters);
            }
        }
        drive.feed();
        drive.post();
    }

    /// Takes completions and mail, which become events, and looks at the clock after that: leases
    /// are judged by it, and a process may be paused at any place. What happened before the time
    /// that it is told with may count as late; nothing may happen after it.
    fn collect(&mut self) {
        let drive = &mut self.drive;
        let on_disks = drive.disks.ops.len();
        for _ in 0..COMPLETIONS_PER_TURN / COMPLETIONS_AT_ONCE {
            drive.ring.take(&mut self.completions, &mut drive.counters);
            let taken = self.completions.len();
            for completion in self.completions.drain(..) {
                drive.complete(completion);
            }
            if taken < COMPLETIONS_AT_ONCE || drive.disks.ops.len() < on_disks {
                break;
            }
        }
        if drive.mailed {
            drive.open_mail();
        }
        drive.now = crate::now();
        drive.accept_again();
    }

    /// Submits, and waits if there is nothing to do.
    fn rest<M, A>(&mut self, machine: &M, application: &A)
    where
        M: Machine,
        A: Application<M, Control = C>,
    {
        let drive = &mut self.drive;
        if machine.has_work() || !drive.happened.is_empty() || drive.ring.is_ready() {
            return drive.ring.submit(&mut drive.counters);
        }
        let from = crate::now();
        let clogged = drive.port.is_clogged().then(|| from + CLOGGED_RETRY);
        let deadlines =
            [machine.poll_timeout(), application.timeout(), drive.accept_deadline(), clogged];
        let due = deadlines.into_iter().flatten().min();
        if due.is_some_and(|due| due <= from) {
            return drive.ring.submit(&mut drive.counters);
        }
        self.wait(from, due);
    }

    /// Submits, spins if that promises to pay, then blocks, until something completes or is due.
    fn wait(&mut self, from: Instant, due: Option<Instant>) {
        let drive = &mut self.drive;
        match spin(drive, &self.poller, from, due) {
            // What completes while it is submitted says nothing about when the next one comes.
            Spin::NoNeed => return,
            Spin::Hit => self.poller.hit(),
            Spin::Missed => {
                self.poller.missed();
                block(drive, from, due);
            }
            Spin::Not => {
                let submits = drive.ring.has_queued();
                block(drive, from, due);
                if submits {
                    return;
                }
            }
        }
        let waited = crate::now().since(from).as_nanos();
        self.poller.waited(u64::try_from(waited).unwrap_or(u64::MAX));
    }

    /// Closes everything and waits until the kernel holds nothing.
    fn wind_down<M: Machine>(&mut self, machine: &mut M) -> Result<(), RunError> {
        self.drive.port.publish(-1);
        self.drive.end_listening();
        self.drive.accept_none();
        while let Some(socket) = self.drive.sockets.next_live() {
            self.drive.close(socket);
        }
        let give_up = crate::now() + WIND_DOWN;
        while self.drive.in_flight() && crate::now() < give_up {
            self.drive.ring.wait(Some(Duration::from_millis(100)), &mut self.drive.counters);
            self.collect();
            tell(&mut self.drive, machine);
            while machine.poll_effect().is_some() {}
        }
        if self.drive.in_flight() {
            self.drive.arena.abandon();
            let source = io::ErrorKind::TimedOut.into();
            return Err(RunError { what: "waiting for operations in flight", source });
        }
        // Connections that were on their way here end here.
        self.drive.lose_mail();
        tell(&mut self.drive, machine);
        machine.drop_leases(&mut self.drive.arena);
        self.drive.arena.end_lending();
        Ok(())
    }
}

/// Tells the machine everything that happened.
fn tell<M: Machine>(drive: &mut Drive, machine: &mut M) {
    while let Some(event) = drive.happened.pop_front() {
        machine.handle(&mut drive.arena, drive.now, event);
    }
}

fn world(drive: &mut Drive) -> World<'_> {
    drive.counters.sockets = drive.sockets.open() as u64;
    drive.counters.disk_ops = drive.disks.ops.len() as u64;
    World {
        now: drive.now,
        mem: &mut drive.arena,
        net: &mut drive.sockets.net,
        disks: DiskTable::new(&drive.ring, &mut drive.disks),
        counters: &drive.counters,
    }
}

/// How spinning went.
enum Spin {
    /// It did not promise to pay.
    Not,
    /// There was something to do as soon as everything was submitted.
    NoNeed,
    /// Something came.
    Hit,
    /// Nothing came.
    Missed,
}

/// Submits and looks for completions without blocking, as long as that promises to pay.
fn spin(drive: &mut Drive, poller: &Poller, from: Instant, due: Option<Instant>) -> Spin {
    let Some(budget) = poller.budget() else { return Spin::Not };
    drive.ring.submit(&mut drive.counters);
    if drive.ring.is_ready() {
        return Spin::NoNeed;
    }
    drive.counters.polls += 1;
    let until =
        (from + Duration::from_nanos(budget)).min(due.unwrap_or(Instant::from_nanos(u64::MAX)));
    loop {
        // Looks at memory that the kernel shares; enters only to bring forward what it announces.
        drive.ring.submit(&mut drive.counters);
        if drive.ring.is_ready() {
            drive.counters.polls_hit += 1;
            return Spin::Hit;
        }
        if crate::now() >= until {
            return if due == Some(until) { Spin::Hit } else { Spin::Missed };
        }
        std::hint::spin_loop();
    }
}

/// Submits and blocks until something completes or the deadline; gives back memory that was not
/// needed for a while.
fn block(drive: &mut Drive, from: Instant, due: Option<Instant>) {
    let idle = drive.arena.idle_chunk().is_some();
    drive.spare_since = idle.then(|| drive.spare_since.unwrap_or(from));
    let mut linger = drive.spare_since.map(|since| since + ARENA_LINGER);
    if linger.is_some_and(|linger| linger <= from) {
        setup::release_idle(&drive.ring, &mut drive.arena);
        (drive.spare_since, linger) = (None, None);
    }
    let until = due.into_iter().chain(linger).min();
    drive.ring.wait(until.map(|until| until.since(from)), &mut drive.counters);
}
