//! Our host side: associations with targets, and the streams that carry them.
//!
//! ```text
//!   host_open --> Connect --> ReceiveStream, Send ... --> Close --> last Done --> stream freed
//!                    |                                                  ^
//!                    +-- given up meanwhile: its Done closes the socket-+
//! ```
//!
//! Invariants:
//! 1. A stream's entry stays until each of its effects is done, so a late one finds it, or finds
//!    that its association is gone.
//! 2. A receive buffer is looked at once and freed at once: a host never holds back input, for
//!    what comes is bounded by the commands that it sent.
//! 3. Nothing is sent before the end of the turn, so that a turn's commands leave in one batch.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use braid_block::{Instant, IoError, Key, Lease, Memory, Slab, Span, Token};
use braid_nvme::host::{Action, Config, Controller, Event, Submission};

use crate::Shard;
use crate::effect::{Effect, Traffic};
use crate::event::Socket;
use crate::mirror::Owner;
use crate::note::Note;
use crate::token;

/// What to connect to.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Position in the shell's table of addresses.
    pub address: u32,
    /// Everything else.
    pub controller: Config,
}

/// Batches of host streams are named by numbers from here on; below are those of targets.
pub(crate) const BATCHES: u32 = 1 << 31;

/// An association.
#[derive(Debug)]
struct Host {
    controller: Controller,
    address: u32,
    /// Its streams by queue.
    streams: Vec<Option<Key>>,
    /// The volume that opened it for a replica, if one did.
    mirror: Option<Owner>,
    /// Listed in [`Hosts::dirty`].
    dirty: bool,
    /// Listed in [`Hosts::ready`].
    ready: bool,
    deadline: Option<Instant>,
}

/// A stream to a target, or one that is being made.
#[derive(Clone, Copy, Debug)]
struct Stream {
    host: Key,
    queue: u16,
    socket: Option<Socket>,
    connecting: bool,
    receiving: bool,
    sending: bool,
    /// Close was asked for.
    closed: bool,
}

impl Stream {
    const fn is_done(&self) -> bool {
        self.closed && !self.connecting && !self.receiving && !self.sending
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Hosts {
    hosts: Slab<Box<Host>>,
    streams: Slab<Stream>,
    /// Hosts that may have something to do or to send.
    dirty: VecDeque<Key>,
    /// Hosts that may have something to tell.
    ready: VecDeque<Key>,
    /// The same, for volumes.
    mirror_ready: VecDeque<Key>,
    /// The earliest of their deadlines.
    deadline: Option<Instant>,
    seed: u64,
}

impl Hosts {
    pub(crate) fn new(connections_max: u32) -> Self {
        Self {
            hosts: Slab::with_capacity(connections_max),
            streams: Slab::with_capacity(connections_max),
            dirty: VecDeque::new(),
            ready: VecDeque::new(),
            mirror_ready: VecDeque::new(),
            deadline: None,
            seed: 0,
        }
    }

    /// What makes the pauses of this run's hosts their own.
    pub(crate) const fn seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.dirty.is_empty() || !self.mirror_ready.is_empty()
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The volume that opened an association, if one did.
    pub(crate) fn owner(&self, key: Key) -> Option<Owner> {
        self.hosts.get(key).and_then(|host| host.mirror)
    }

    /// The batch in flight of a stream.
    pub(crate) fn batch(&self, index: u32) -> &[Span] {
        let stream = self.streams.key_at(index).and_then(|key| self.streams.get(key));
        let host = stream.and_then(|stream| Some((self.hosts.get(stream.host)?, stream.queue)));
        host.map_or(&[], |(host, queue)| host.controller.batch(queue))
    }

    /// Lists a host as one that was touched.
    fn touch(&mut self, key: Key) {
        let Some(host) = self.hosts.get_mut(key) else { return };
        if !core::mem::replace(&mut host.dirty, true) {
            self.dirty.push_back(key);
        }
        if !core::mem::replace(&mut host.ready, true) {
            let list = if host.mirror.is_some() { &mut self.mirror_ready } else { &mut self.ready };
            list.push_back(key);
        }
    }

    /// The host of a stream, its key, and the queue.
    fn of_stream(&mut self, stream: Key) -> Option<(&mut Controller, Key, u16)> {
        let Stream { host, queue, .. } = *self.streams.get(stream)?;
        self.touch(host);
        Some((&mut self.hosts.get_mut(host)?.controller, host, queue))
    }

    /// Frees a stream's entry when nothing of it is outstanding.
    fn reap(&mut self, stream: Key) {
        if self.streams.get(stream).is_some_and(Stream::is_done) {
            self.streams.remove(stream);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.hosts.iter().filter_map(|(_, host)| host.deadline).min()
    }
}

impl Shard {
    /// Opens an association; it begins to connect at the end of the turn. None if there are as
    /// many as there may be connections.
    pub fn host_open(&mut self, now: Instant, config: HostConfig) -> Option<Key> {
        self.open_host(now, config, None)
    }

    /// The same for a volume: its events come by [`Shard::mirror_poll`].
    pub(crate) fn mirror_open(&mut self, config: HostConfig, owner: Owner) -> Option<Key> {
        if self.stopping {
            return None;
        }
        self.open_host(self.now, config, Some(owner))
    }

    fn open_host(
        &mut self,
        now: Instant,
        config: HostConfig,
        mirror: Option<Owner>,
    ) -> Option<Key> {
        let HostConfig { address, controller } = config;
        let queues = usize::from(controller.io_queues) + 1;
        let hosts = &mut self.hosts;
        hosts.seed = hosts.seed.wrapping_add(1);
        let host = Host {
            controller: Controller::new(controller, hosts.seed, now),
            address,
            streams: alloc::vec![None; queues],
            mirror,
            dirty: false,
            ready: false,
            deadline: Some(now),
        };
        let key = hosts.hosts.insert(Box::new(host)).ok()?;
        hosts.deadline = Some(now);
        hosts.touch(key);
        Some(key)
    }

    /// Closes an association in order: commands in work finish, the controller shuts down.
    /// [`Event::Closed`] tells the end; then its key means nothing any more.
    pub fn host_close<M: Memory>(&mut self, mem: &mut M, now: Instant, host: Key) {
        if let Some(found) = self.hosts.hosts.get_mut(host) {
            found.controller.close(mem, now);
            self.hosts.touch(host);
        }
    }

    /// Closes an association at once: its commands are handed back as soon as nothing touches
    /// their buffers, then [`Event::Closed`] comes.
    pub fn host_abort<M: Memory>(&mut self, mem: &mut M, now: Instant, host: Key) {
        if let Some(found) = self.hosts.hosts.get_mut(host) {
            found.controller.abort(mem, now);
            self.hosts.touch(host);
        }
    }

    /// Takes a command for a target, to be sent at the end of the turn.
    ///
    /// # Errors
    /// The submission: the association is not live or gone, or all its slots are busy.
    pub fn host_submit<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        host: Key,
        submission: Submission,
    ) -> Result<(), Submission> {
        self.host_submit_summed(mem, now, host, (submission, None))
    }

    /// The same; the CRC32C of what is sent goes along, if it is known.
    pub(crate) fn host_submit_summed<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        host: Key,
        (submission, digest): (Submission, Option<u32>),
    ) -> Result<(), Submission> {
        let Some(found) = self.hosts.hosts.get_mut(host) else { return Err(submission) };
        found.controller.submit_summed(mem, now, submission, digest)?;
        self.hosts.touch(host);
        Ok(())
    }

    /// Reads the ANA log of an association again: [`Event::Live`] tells.
    pub fn host_look<M: Memory>(&mut self, mem: &mut M, now: Instant, host: Key) {
        if let Some(found) = self.hosts.hosts.get_mut(host) {
            found.controller.look_at_access(mem, now);
            self.hosts.touch(host);
        }
    }

    /// The next thing that happened to an association.
    pub fn host_poll(&mut self) -> Option<(Key, Event)> {
        self.poll_host(|hosts| &mut hosts.ready)
    }

    /// The next thing that happened to an association that a volume opened.
    pub(crate) fn mirror_poll(&mut self) -> Option<(Key, Event)> {
        self.poll_host(|hosts| &mut hosts.mirror_ready)
    }

    fn poll_host(&mut self, list: fn(&mut Hosts) -> &mut VecDeque<Key>) -> Option<(Key, Event)> {
        while let Some(&key) = list(&mut self.hosts).front() {
            let host = self.hosts.hosts.get_mut(key);
            if let Some(host) = host {
                if let Some(event) = host.controller.poll_event() {
                    self.host_note(key, &event);
                    return Some((key, event));
                }
                host.ready = false;
                self.host_bury(key);
            }
            list(&mut self.hosts).pop_front();
        }
        None
    }

    /// Forgets an association that ended, once all is told and all is done that it wanted.
    fn host_bury(&mut self, key: Key) {
        let over = |host: &Host| host.controller.is_ended() && !host.dirty && !host.ready;
        if self.hosts.hosts.get(key).is_some_and(|host| over(host)) {
            self.hosts.hosts.remove(key);
            self.hosts.deadline = self.hosts.next_deadline();
            self.tell_drained();
        }
    }

    fn host_note(&mut self, host: Key, event: &Event) {
        match event {
            Event::Live(live) => self.note(Note::HostConnected { host, queues: live.io_queues }),
            Event::Lost { why, .. } => self.note(Note::HostDisconnected { host, why: *why }),
            Event::Discovered(_) | Event::Completed(_) | Event::Closed => {}
        }
    }

    /// A piece of a stream arrived.
    pub(crate) fn on_host_received<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        stream: Key,
        lease: Lease,
        len: u32,
    ) {
        if let Some((controller, _, queue)) = self.hosts.of_stream(stream) {
            controller.received(mem, now, queue, &lease, len);
        }
        mem.free(lease);
    }

    /// A stream was made, or not.
    pub(crate) fn on_host_connected<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        stream: Key,
        result: Result<u32, IoError>,
    ) {
        let Some(found) = self.hosts.streams.get_mut(stream) else { return };
        found.connecting = false;
        if found.closed {
            // It was given up meanwhile.
            if let Ok(socket) = result {
                self.outbox.emit(Effect::Close { socket: Socket(socket) });
            }
            return self.hosts.reap(stream);
        }
        match result {
            Ok(socket) => found.socket = Some(Socket(socket)),
            Err(_) => found.closed = true,
        }
        if let Some((controller, _, queue)) = self.hosts.of_stream(stream) {
            controller.connected(mem, now, queue, result.map(|_| ()));
        }
        self.hosts.reap(stream);
    }

    /// A stream's receive is over.
    pub(crate) fn on_host_ended<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        stream: Key,
        result: Result<u32, IoError>,
    ) {
        let Some(found) = self.hosts.streams.get_mut(stream) else { return };
        found.receiving = false;
        if let Some((controller, _, queue)) = self.hosts.of_stream(stream) {
            controller.ended(mem, now, queue, result.map(|_| ()));
        }
        self.hosts.reap(stream);
    }

    /// A stream's batch was sent, or not.
    pub(crate) fn on_host_sent<M: Memory>(
        &mut self,
        mem: &mut M,
        now: Instant,
        stream: Key,
        result: Result<u32, IoError>,
    ) {
        let total: u32 = self.hosts.batch(stream.index).iter().map(|span| span.len).sum();
        let Some(found) = self.hosts.streams.get_mut(stream) else { return };
        found.sending = false;
        // Fewer bytes than there are means that no more can be sent.
        let result = result.and_then(|len| if len == total { Ok(()) } else { Err(IoError::Reset) });
        if let Some((controller, _, queue)) = self.hosts.of_stream(stream) {
            controller.sent(mem, now, queue, result);
        }
        self.hosts.reap(stream);
    }

    /// Reminds every host whose time has come.
    pub(crate) fn hosts_elapsed<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if self.hosts.deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        for index in 0..u32::try_from(self.hosts.hosts.capacity()).unwrap_or(u32::MAX) {
            let Some(key) = self.hosts.hosts.key_at(index) else { continue };
            let Some(host) = self.hosts.hosts.get_mut(key) else { continue };
            if host.deadline.is_some_and(|deadline| deadline <= now) {
                host.controller.elapsed(mem, now);
                self.hosts.touch(key);
            }
        }
    }

    /// Ends a turn: what touched hosts want done becomes effects, what they want sent leaves.
    pub(crate) fn hosts_end_turn<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        if self.hosts.dirty.is_empty() {
            return;
        }
        // What they gave back, commands of hosts may wait for.
        self.freed = true;
        // Refusing a connection for want of an entry touches its host again: in the next turn.
        for _ in 0..self.hosts.dirty.len() {
            let Some(key) = self.hosts.dirty.pop_front() else { break };
            self.host_end_turn(mem, now, key);
        }
        self.hosts.deadline = self.hosts.next_deadline();
    }

    fn host_end_turn<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key) {
        let Some(host) = self.hosts.hosts.get_mut(key) else { return };
        host.dirty = false;
        if host.deadline.is_some_and(|deadline| deadline <= now) {
            host.controller.elapsed(mem, now);
        }
        host.controller.flush();
        while let Some(action) =
            self.hosts.hosts.get_mut(key).and_then(|host| host.controller.poll_action())
        {
            self.host_act(mem, now, key, action);
        }
        if let Some(host) = self.hosts.hosts.get_mut(key) {
            host.deadline = host.controller.deadline();
        }
        self.host_bury(key);
    }

    fn host_act<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, action: Action) {
        let queue = match action {
            Action::Connect { queue } => return self.host_connect(mem, now, key, queue),
            Action::Receive { queue } | Action::Send { queue } | Action::Close { queue } => queue,
        };
        let Hosts { hosts, streams, .. } = &mut self.hosts;
        let Some(host) = hosts.get_mut(key) else { return };
        let Some(stream) = host.streams[usize::from(queue)] else { return };
        let Some(found) = streams.get_mut(stream) else { return };
        let effect = match (action, found.socket) {
            (Action::Receive { .. }, Some(socket)) => {
                found.receiving = true;
                let token = Token::new(token::HOST_RECEIVE, stream);
                Effect::ReceiveStream { token, socket, traffic: Traffic::Targets }
            }
            (Action::Send { .. }, Some(socket)) => {
                found.sending = true;
                let batch = BATCHES | stream.index;
                Effect::Send { token: Token::new(token::HOST_SEND, stream), socket, batch }
            }
            (Action::Close { .. }, socket) => {
                host.streams[usize::from(queue)] = None;
                found.closed = true;
                self.hosts.reap(stream);
                let Some(socket) = socket else { return };
                Effect::Close { socket }
            }
            _ => return,
        };
        self.outbox.emit(effect);
    }

    fn host_connect<M: Memory>(&mut self, mem: &mut M, now: Instant, key: Key, queue: u16) {
        let Hosts { hosts, streams, .. } = &mut self.hosts;
        let Some(host) = hosts.get_mut(key) else { return };
        let stream = Stream {
            host: key,
            queue,
            socket: None,
            connecting: true,
            receiving: false,
            sending: false,
            closed: false,
        };
        match streams.insert(stream) {
            Ok(stream) => {
                host.streams[usize::from(queue)] = Some(stream);
                let token = Token::new(token::HOST_CONNECT, stream);
                self.outbox.emit(Effect::Connect { token, address: host.address });
            }
            Err(_) => {
                host.controller.connected(mem, now, queue, Err(IoError::NoSpace));
                self.hosts.touch(key);
            }
        }
    }

    /// Closes every association at once: the end of an orderly stop's patience.
    pub(crate) fn hosts_abort<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        for index in 0..u32::try_from(self.hosts.hosts.capacity()).unwrap_or(u32::MAX) {
            if let Some(key) = self.hosts.hosts.key_at(index) {
                self.host_abort(mem, now, key);
            }
        }
    }

    /// Closes every association in order.
    pub(crate) fn hosts_stop<M: Memory>(&mut self, mem: &mut M, now: Instant) {
        for index in 0..u32::try_from(self.hosts.hosts.capacity()).unwrap_or(u32::MAX) {
            if let Some(key) = self.hosts.hosts.key_at(index) {
                self.host_close(mem, now, key);
            }
        }
    }
}
