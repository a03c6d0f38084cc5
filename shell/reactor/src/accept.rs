//! Connections: those that peers make to our listeners, and those that we make.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use braid_block::{Instant, IoError, Key, Token};
use braid_shard::{Event, Socket};
use io_uring::{cqueue, opcode, types::Fd, types::Fixed};
use rustix::io::Errno;
use rustix::net::addr::SocketAddrArg;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, ipproto, sockopt};

use crate::drive::Drive;
use crate::errno;
use crate::listener::Listener;
use crate::operation::Operation;
use crate::ring::Completion;

/// How long a listener rests after an accept failed, for want of descriptors for one.
const REST: Duration = Duration::from_millis(100);

/// A listener, and what the kernel does for it.
pub(crate) struct Acceptor {
    listener: Listener,
    armed: bool,
    /// When to try again.
    again: Option<Instant>,
}

/// A connect in flight: whom to tell, and the address, which the kernel may read until it is
/// submitted.
pub(crate) struct Connect {
    token: Token,
    _address: Box<SocketAddrAny>,
}

impl Acceptor {
    pub(crate) const fn new(listener: Listener) -> Self {
        Self { listener, armed: false, again: None }
    }

    /// Whether the kernel accepts for it.
    pub(crate) const fn is_armed(&self) -> bool {
        self.armed
    }
}

impl Drive {
    /// Has the kernel accept on every listener.
    pub(crate) fn accept_all(&mut self) {
        (0..self.acceptors.len()).for_each(|index| self.accept(index));
    }

    /// Has the kernel accept no more.
    pub(crate) fn accept_none(&mut self) {
        for index in 0..self.acceptors.len() {
            self.acceptors[index].again = None;
            if self.acceptors[index].armed {
                self.cancel(Operation::Accept.name(u32::try_from(index).unwrap_or(0), 0));
            }
        }
    }

    /// Tries listeners again that rested.
    pub(crate) fn accept_again(&mut self) {
        for index in 0..self.acceptors.len() {
            if self.acceptors[index].again.is_some_and(|again| again <= self.now) {
                self.accept(index);
            }
        }
    }

    /// When a listener has rested.
    pub(crate) fn accept_deadline(&self) -> Option<Instant> {
        self.acceptors.iter().filter_map(|acceptor| acceptor.again).min()
    }

    fn accept(&mut self, index: usize) {
        let acceptor = &mut self.acceptors[index];
        (acceptor.armed, acceptor.again) = (true, None);
        let fd = Fd(acceptor.listener.fd.as_raw_fd());
        let entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        self.push(entry, Operation::Accept.name(u32::try_from(index).unwrap_or(0), 0));
    }

    pub(crate) fn on_accept(&mut self, key: Key, completion: Completion) {
        if completion.result >= 0 {
            // SAFETY: the kernel made this descriptor for us, and nobody else knows of it.
            let fd = unsafe { OwnedFd::from_raw_fd(completion.result) };
            self.welcome(fd, u16::try_from(key.index).unwrap_or(u16::MAX));
        }
        if !cqueue::more(completion.flags) {
            let acceptor = &mut self.acceptors[key.index as usize];
            acceptor.armed = false;
            match completion.result {
                0.. => acceptor.again = Some(self.now),
                _ if self.ending => {}
                _ => acceptor.again = Some(self.now + REST),
            }
        }
    }

    fn welcome(&mut self, fd: OwnedFd, listener: u16) {
        // Without it small answers wait; but a connection that is already gone is no error.
        let _ = sockopt::set_tcp_nodelay(&fd, true);
        let peer = rustix::net::getpeername(&fd).ok().flatten().and_then(canonical);
        let local = self.reached_at(&fd, listener);
        match self.adopt(fd, peer) {
            Some(socket) => {
                self.counters.accepted += 1;
                self.happened.push_back(Event::Accepted { listener, socket, local });
            }
            None => self.counters.turned_away += 1,
        }
    }

    /// The address a peer reached us at, where the listener takes any.
    fn reached_at(&self, fd: &OwnedFd, listener: u16) -> Option<Box<SocketAddr>> {
        let bound = self.acceptors.get(usize::from(listener))?.listener.address();
        if !bound.ip().is_unspecified() {
            return None;
        }
        rustix::net::getsockname(fd).ok().and_then(canonical).map(Box::new)
    }

    pub(crate) fn connect(&mut self, token: Token, address: u32) {
        if let Err(error) = self.try_connect(token, address) {
            self.done(token, Err(error));
        }
    }

    fn try_connect(&mut self, token: Token, address: u32) -> Result<(), IoError> {
        let address = self.sockets.net.addresses().get(address as usize).copied();
        let address = address.ok_or(IoError::Gone)?;
        let fd = self.new_socket(address).map_err(errno::kind)?;
        let Socket(index) = self.adopt(fd, Some(address)).ok_or(IoError::NoSpace)?;
        let slot = self.sockets.at(index);
        let generation = slot.generation;
        let address = Box::new(address.as_any());
        let at = address.as_ptr().cast();
        let entry = opcode::Connect::new(Fixed(index), at, address.addr_len()).build();
        slot.connect = Some(Connect { token, _address: address });
        self.push(entry, Operation::Connect.name(index, generation));
        Ok(())
    }

    fn new_socket(&self, address: SocketAddr) -> Result<OwnedFd, Errno> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC;
        let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
        sockopt::set_tcp_nodelay(&fd, true)?;
        set_syn_retries(fd.as_fd().as_raw_fd(), self.syn_retries)?;
        Ok(fd)
    }

    pub(crate) fn on_connect(&mut self, key: Key, result: i32) {
        let Some(slot) = self.sockets.named(key) else { return };
        let closing = slot.closing;
        let Some(Connect { token, .. }) = slot.connect.take() else { return };
        match errno::result(result) {
            Ok(_) if closing => self.done(token, Err(IoError::Cancelled)),
            Ok(_) => return self.done(token, Ok(key.index)),
            Err(error) => self.done(token, Err(error)),
        }
        drop(self.take_out(key.index));
    }
}

/// The address as people write it: who came by version 4 to a listener for both has a version 4
/// address.
fn canonical(any: SocketAddrAny) -> Option<SocketAddr> {
    let address = SocketAddr::try_from(any).ok()?;
    Some(match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::new(ip.into(), address.port()),
        IpAddr::V6(_) => address,
    })
}

fn set_syn_retries(fd: std::os::fd::RawFd, retries: u8) -> Result<(), Errno> {
    let value = libc::c_int::from(retries);
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    let at = (&raw const value).cast();
    // SAFETY: the kernel reads one int, which lives across the call.
    let set = unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_SYNCNT, at, len) };
    if set == 0 {
        Ok(())
    } else {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL))
    }
}
