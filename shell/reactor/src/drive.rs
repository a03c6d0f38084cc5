//! Everything below the machine: the ring, the buffers and the tables. Effects go in, events
//! come out; each flow has its own file.
//!
//! Invariants:
//! 1. Every effect with a token is answered by exactly one `Done`, whatever happens to its socket.
//! 2. Events are told in the order in which the kernel completed what they tell.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::AtomicU64;

use braid_block::{Instant, IoError, Key, Token};
use braid_shard::{Effect, Event, Note, Socket};
use io_uring::{opcode, squeue};

use crate::accept::Acceptor;
use crate::application::Machine;
use crate::arena::Arena;
use crate::buffers::Buffers;
use crate::counters::Counters;
use crate::files::Disks;
use crate::mesh::Port;
use crate::operation::Operation;
use crate::ring::{Completion, Ring};
use crate::sockets::Sockets;

/// What a reactor drives.
pub(crate) struct Drive {
    pub(crate) ring: Ring,
    pub(crate) arena: Arena,
    pub(crate) buffers: Buffers,
    pub(crate) sockets: Sockets,
    pub(crate) disks: Disks,
    pub(crate) acceptors: Box<[Acceptor]>,
    pub(crate) port: Port,
    pub(crate) happened: VecDeque<Event>,
    pub(crate) counters: Counters,
    /// Another thread left controls.
    pub(crate) called: bool,
    /// Another shard left mail.
    pub(crate) mailed: bool,
    /// Whether the event descriptor is being read.
    pub(crate) listening: bool,
    /// It shall not be read again.
    pub(crate) ending: bool,
    /// What that read fills; eight bytes that are never freed, so that it cannot come too late.
    pub(crate) call_count: &'static AtomicU64,
    /// Since when the arena has had memory to spare.
    pub(crate) spare_since: Option<Instant>,
    pub(crate) syn_retries: u8,
    pub(crate) now: Instant,
}

impl Drive {
    /// Pushes an entry under its name.
    pub(crate) fn push(&mut self, entry: squeue::Entry, name: u64) {
        self.ring.push(&entry.user_data(name), &mut self.counters);
    }

    /// Tells the end of an effect.
    pub(crate) fn done(&mut self, token: Token, result: Result<u32, IoError>) {
        self.happened.push_back(Event::Done { token, result });
    }

    /// Carries out one effect; a note is for the application.
    pub(crate) fn carry_out<M: Machine>(&mut self, machine: &M, effect: Effect) -> Option<Note> {
        match effect {
            Effect::ReceiveExact { token, socket, span } => self.receive_exact(token, socket, span),
            Effect::ReceiveStream { token, socket, traffic } => {
                self.receive_stream(token, socket, traffic);
            }
            Effect::ReceiveStop { socket } => self.receive_stop(socket),
            Effect::Send { token, socket, batch } => {
                self.send(token, socket, machine.batch(batch));
            }
            Effect::Connect { token, address } => self.connect(token, address),
            Effect::Shutdown { socket } => self.shutdown(socket),
            Effect::Close { socket } => self.close(socket),
            Effect::Read { token, disk, span, offset } => self.read(token, disk, span, offset),
            Effect::Write { token, disk, durable, span, offset } => {
                self.write(token, disk, durable, span, offset);
            }
            Effect::Zero { token, disk, offset, len } => self.zero(token, disk, offset, len),
            Effect::Discard { token, disk, offset, len } => self.discard(token, disk, offset, len),
            Effect::Sync { token, disk } => self.sync(token, disk),
            Effect::Mail { shard, mail } => self.mail(shard, mail),
            Effect::Note(note) => return Some(note),
        }
        None
    }

    /// Takes one completion.
    pub(crate) fn complete(&mut self, completion: Completion) {
        let Some((operation, key)) = Operation::parse(completion.user_data) else { return };
        match operation {
            Operation::Disk => self.on_disk(key, completion.result),
            Operation::Receive => self.on_receive(key, completion),
            Operation::Send => self.on_send(key, completion.result),
            Operation::Connect => self.on_connect(key, completion.result),
            Operation::Accept => self.on_accept(key, completion),
            Operation::Call => self.on_call(completion.result),
            Operation::Mail => self.mailed = true,
            Operation::Wake => self.on_wake(key, completion.result),
            Operation::Cancel => {}
        }
    }

    /// Makes a descriptor a socket: a number in the table and in the ring's own.
    pub(crate) fn adopt(
        &mut self,
        fd: OwnedFd,
        peer: Option<std::net::SocketAddr>,
    ) -> Option<Socket> {
        let index = self.sockets.vacancy()?;
        let raw = fd.as_raw_fd();
        self.ring.submitter().register_files_update(index, &[raw]).ok()?;
        self.sockets.insert(fd, peer).map(Socket)
    }

    /// Cancels what is in flight on a socket and closes it after the last completion.
    pub(crate) fn close(&mut self, socket: Socket) {
        let Some(slot) = self.sockets.live(socket) else { return };
        slot.closing = true;
        let generation = slot.generation;
        let waiting = slot.receive.take_unarmed();
        let busy = [
            (slot.receive.is_armed(), Operation::Receive),
            (slot.send.is_busy(), Operation::Send),
            (slot.connect.is_some(), Operation::Connect),
        ];
        if let Some(token) = waiting {
            self.done(token, Err(IoError::Cancelled));
        }
        for (_, operation) in busy.into_iter().filter(|(busy, _)| *busy) {
            self.cancel(operation.name(socket.0, generation));
        }
        self.settle(socket.0);
    }

    /// Asks the kernel to end an operation.
    pub(crate) fn cancel(&mut self, name: u64) {
        self.push(opcode::AsyncCancel::new(name).build(), Operation::Cancel.name(0, 0));
    }

    /// Closes a closing socket once nothing is in flight on it.
    pub(crate) fn settle(&mut self, index: u32) {
        let slot = self.sockets.at(index);
        if slot.closing && !slot.is_busy() {
            drop(self.take_out(index));
        }
    }

    /// Takes a socket with nothing in flight out of the tables.
    pub(crate) fn take_out(&mut self, index: u32) -> Option<OwnedFd> {
        let fd = self.sockets.remove(index)?;
        // It only fails for a position outside the table; the next use would overwrite it anyway.
        let _ = self.ring.submitter().register_files_update(index, &[-1]);
        Some(fd)
    }

    /// Whether the kernel will complete anything.
    pub(crate) fn in_flight(&self) -> bool {
        self.sockets.open() > 0
            || !self.disks.ops.is_empty()
            || self.listening
            || self.acceptors.iter().any(Acceptor::is_armed)
    }

    fn shutdown(&mut self, socket: Socket) {
        if let Some(fd) = self.sockets.live(socket).and_then(|slot| slot.fd.as_ref()) {
            // It fails when the peer was faster: then there is nobody left to tell.
            let _ = rustix::net::shutdown(fd, rustix::net::Shutdown::Write);
        }
    }

    /// Reads the event descriptor, whose writers want to be noticed.
    pub(crate) fn listen_for_calls(&mut self) {
        let Some(fd) = self.port.event_fd() else { return };
        let into = self.call_count.as_ptr().cast();
        let entry = opcode::Read::new(io_uring::types::Fd(fd), into, 8).build();
        self.listening = true;
        self.push(entry, Operation::Call.name(0, 0));
    }

    /// Reads it no more.
    pub(crate) fn end_listening(&mut self) {
        self.ending = true;
        if self.listening {
            self.cancel(Operation::Call.name(0, 0));
        }
    }

    fn on_call(&mut self, result: i32) {
        (self.called, self.mailed, self.listening) = (true, true, false);
        if result != -libc::ECANCELED && !self.ending {
            self.listen_for_calls();
        }
    }

    fn on_wake(&mut self, key: Key, result: i32) {
        if result < 0 {
            self.port.wake_by_event(key.index);
        }
    }
}
