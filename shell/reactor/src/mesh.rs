//! Mail between shards: one bounded single-producer ring for each ordered pair.
//!
//! Invariants:
//! 1. Letters from one shard to another arrive in the order in which they were sent.
//! 2. Whoever posts a letter wakes its reader afterwards, once a turn; so a reader that looked
//!    before it waits misses nothing.
//! 3. A socket inside a letter travels as a descriptor: it is in no table while under way.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering, fence};
use std::sync::{Arc, OnceLock};

use braid_shard::{Event, Mail, Socket};
use io_uring::{opcode, squeue, types::Fd};
use rtrb::{Consumer, Producer, PushError, RingBuffer};
use rustix::io::Errno;

use crate::drive::Drive;
use crate::operation::Operation;

/// Letters under way from one shard to another; more of them wait with their sender.
const LETTERS_MAX: usize = 256;

/// A letter under way, and the socket that travels with it.
#[derive(Debug)]
struct Letter {
    mail: Box<Mail>,
    passenger: Option<(OwnedFd, Option<SocketAddr>)>,
}

/// How to wake a shard's thread.
#[derive(Debug)]
pub(crate) struct Waker {
    /// Its ring's descriptor while it runs, else -1.
    ring: AtomicI32,
    event: OnceLock<OwnedFd>,
}

/// A shard's end of the mail: what it posts to, and what it is posted by.
#[derive(Debug)]
pub struct Port {
    shard: u16,
    wakers: Arc<[Waker]>,
    /// The kernel's rings cannot wake each other; the event descriptors do it.
    by_event: bool,
    to: Vec<Option<Outbox>>,
    from: Vec<Consumer<Letter>>,
}

#[derive(Debug)]
struct Outbox {
    letters: Producer<Letter>,
    /// Letters for which there was no room.
    waiting: VecDeque<Letter>,
    /// Its reader must be woken.
    wake: bool,
}

/// The ports of `shards` shards that can all write to each other, in order.
#[must_use]
pub fn mesh(shards: u16) -> Vec<Port> {
    let waker = |_| Waker { ring: AtomicI32::new(-1), event: OnceLock::new() };
    let wakers: Arc<[Waker]> = (0..shards).map(waker).collect();
    let port = |shard| Port {
        shard,
        wakers: wakers.clone(),
        by_event: false,
        to: Vec::new(),
        from: Vec::new(),
    };
    let mut ports: Vec<Port> = (0..shards).map(port).collect();
    for sender in 0..usize::from(shards) {
        for reader in 0..usize::from(shards) {
            if sender == reader {
                ports[sender].to.push(None);
                continue;
            }
            let (letters, from) = RingBuffer::new(LETTERS_MAX);
            let waiting = VecDeque::new();
            ports[sender].to.push(Some(Outbox { letters, waiting, wake: false }));
            ports[reader].from.push(from);
        }
    }
    ports
}

impl Waker {
    /// Wakes the thread from any other one.
    pub(crate) fn call(&self) {
        if let Some(event) = self.event.get() {
            // It would only fail when 2^64 calls had not been noticed.
            let _ = rustix::io::write(event, &1u64.to_ne_bytes());
        }
    }
}

impl Port {
    /// Which shard this is.
    #[must_use]
    pub const fn shard(&self) -> u16 {
        self.shard
    }

    /// Makes the event descriptor by which other threads wake this one.
    pub(crate) fn open(&self) -> Result<(), Errno> {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        let _ = self.waker().event.set(event);
        Ok(())
    }

    /// Wakes other shards by their event descriptors, not their rings.
    pub(crate) const fn wake_by_events(&mut self) {
        self.by_event = true;
    }

    /// From now on the ring can be sent messages; -1: no more.
    pub(crate) fn publish(&self, ring: RawFd) {
        self.waker().ring.store(ring, Ordering::Release);
        // Either a sender sees the ring and wakes it, or the reader, which looks for mail next,
        // sees the letter: the other fence is in wake_entry.
        fence(Ordering::SeqCst);
    }

    pub(crate) fn event_fd(&self) -> Option<RawFd> {
        self.waker().event.get().map(AsRawFd::as_raw_fd)
    }

    pub(crate) fn wakers(&self) -> Arc<[Waker]> {
        self.wakers.clone()
    }

    /// Whether letters wait for room.
    pub(crate) fn is_clogged(&self) -> bool {
        self.to.iter().flatten().any(|outbox| !outbox.waiting.is_empty())
    }

    /// Wakes a shard whose ring takes no messages.
    pub(crate) fn wake_by_event(&self, shard: u32) {
        if let Some(waker) = self.wakers.get(shard as usize) {
            waker.call();
        }
    }

    fn waker(&self) -> &Waker {
        &self.wakers[usize::from(self.shard)]
    }

    /// The operation that wakes a shard, if it must be woken and runs.
    fn wake_entry(&mut self, shard: usize) -> Option<squeue::Entry> {
        let outbox = self.to[shard].as_mut()?;
        if !std::mem::take(&mut outbox.wake) {
            return None;
        }
        fence(Ordering::SeqCst);
        let ring = self.wakers[shard].ring.load(Ordering::Acquire);
        let entry = opcode::MsgRingData::new(Fd(ring), 0, Operation::Mail.name(0, 0), None);
        if ring < 0 {
            return None;
        }
        if self.by_event {
            self.wakers[shard].call();
            return None;
        }
        Some(entry.build().flags(squeue::Flags::SKIP_SUCCESS))
    }
}

impl Outbox {
    /// Posts what fits; returns how many letters were lost, because their reader has ended.
    fn post(&mut self) -> u64 {
        if self.letters.is_abandoned() {
            let lost = self.waiting.len() as u64;
            self.waiting.clear();
            return lost;
        }
        while let Some(letter) = self.waiting.pop_front() {
            match self.letters.push(letter) {
                Ok(()) => self.wake = true,
                Err(PushError::Full(letter)) => {
                    self.waiting.push_front(letter);
                    break;
                }
            }
        }
        0
    }
}

/// The socket that travels with a letter. A letter that has one must be named here.
fn passenger(mail: &mut Mail) -> Option<&mut Socket> {
    #[allow(unreachable_patterns, reason = "letters without a socket may be added")]
    match mail {
        Mail::Connection { socket, .. } => Some(socket),
        _ => None,
    }
}

impl Drive {
    /// Sends a letter.
    pub(crate) fn mail(&mut self, shard: u16, mut mail: Box<Mail>) {
        if shard == self.port.shard {
            return self.happened.push_back(Event::Mail(mail));
        }
        let mut luggage = None;
        if let Some(socket) = passenger(&mut mail).copied() {
            luggage = self.pack(socket);
            if luggage.is_none() {
                self.counters.letters_lost += 1;
                return;
            }
        }
        if let Some(Some(outbox)) = self.port.to.get_mut(usize::from(shard)) {
            outbox.waiting.push_back(Letter { mail, passenger: luggage });
            self.counters.letters += 1;
        } else {
            self.counters.letters_lost += 1;
        }
    }

    /// Takes a socket out of the tables, to travel.
    fn pack(&mut self, socket: Socket) -> Option<(OwnedFd, Option<SocketAddr>)> {
        let slot = self.sockets.live(socket)?;
        assert!(!slot.is_busy(), "a socket cannot travel with something in flight on it");
        let peer = self.sockets.net.peer(socket);
        self.take_out(socket.0).map(|fd| (fd, peer))
    }

    /// Posts what was sent this turn and wakes its readers.
    pub(crate) fn post(&mut self) {
        for shard in 0..self.port.to.len() {
            let Some(outbox) = &mut self.port.to[shard] else { continue };
            self.counters.letters_lost += outbox.post();
            if let Some(entry) = self.port.wake_entry(shard) {
                let name = Operation::Wake.name(u32::try_from(shard).unwrap_or(0), 0);
                self.push(entry, name);
            }
        }
    }

    /// Takes all letters that are there.
    pub(crate) fn open_mail(&mut self) {
        self.mailed = false;
        for from in 0..self.port.from.len() {
            while let Ok(letter) = self.port.from[from].pop() {
                self.unpack(letter);
            }
        }
    }

    /// Throws away all letters that are there, and the sockets inside.
    pub(crate) fn lose_mail(&mut self) {
        for from in &mut self.port.from {
            while from.pop().is_ok() {
                self.counters.letters_lost += 1;
            }
        }
    }

    fn unpack(&mut self, letter: Letter) {
        let Letter { mut mail, passenger: luggage } = letter;
        if let Some((fd, peer)) = luggage
            && let Some(socket) = passenger(&mut mail)
        {
            let Some(here) = self.adopt(fd, peer) else {
                self.counters.letters_lost += 1;
                return;
            };
            *socket = here;
        }
        self.happened.push_back(Event::Mail(mail));
    }
}
