//! A machine that sends back whatever arrives, from the very buffers it arrived in.

use std::collections::VecDeque;

use braid_block::{Instant, Lease, Memory, Span};
use braid_reactor::{Arena, Machine};
use braid_shard::{Effect, Event, Socket, Traffic};

use super::{Ends, token};

const RECEIVE: u8 = 1;
const SEND: u8 = 2;

/// One connection's state.
#[derive(Default)]
struct Conn {
    waiting: VecDeque<(Lease, u32)>,
    sending: Vec<Lease>,
    batch: Vec<Span>,
    receiving: bool,
    open: bool,
}

/// The machine. `greedy` buffers are kept before the first is sent, to starve the receivers.
pub struct Echo {
    conns: Vec<Conn>,
    effects: VecDeque<Effect>,
}

impl Echo {
    pub fn new(conns: usize) -> Self {
        let conn = || Conn {
            waiting: VecDeque::with_capacity(256),
            sending: Vec::with_capacity(64),
            batch: Vec::with_capacity(64),
            ..Conn::default()
        };
        Self { conns: (0..conns).map(|_| conn()).collect(), effects: VecDeque::with_capacity(1024) }
    }

    fn send(&mut self, index: u32) {
        let conn = &mut self.conns[index as usize];
        if !conn.sending.is_empty() || !conn.open {
            return;
        }
        conn.batch.clear();
        while conn.batch.len() < 64
            && let Some((lease, len)) = conn.waiting.pop_front()
        {
            conn.batch.push(lease.span(0, len));
            conn.sending.push(lease);
        }
        if !conn.batch.is_empty() {
            let socket = Socket(index);
            self.effects.push_back(Effect::Send {
                token: token(SEND, index),
                socket,
                batch: index,
            });
        } else if !conn.receiving {
            conn.open = false;
            self.effects.push_back(Effect::Close { socket: Socket(index) });
        }
    }
}

impl Ends for Echo {
    fn ended(&self) -> bool {
        false
    }
}

impl Machine for Echo {
    fn handle(&mut self, mem: &mut Arena, _now: Instant, event: Event) {
        match event {
            Event::Accepted { socket, .. } => {
                let conn = &mut self.conns[socket.0 as usize];
                (conn.receiving, conn.open) = (true, true);
                let token = token(RECEIVE, socket.0);
                self.effects.push_back(Effect::ReceiveStream {
                    token,
                    socket,
                    traffic: Traffic::Hosts,
                });
            }
            Event::Received { token, lease, len } => {
                let index = token.key().index;
                self.conns[index as usize].waiting.push_back((lease, len));
            }
            Event::Done { token, result } if token.kind() == SEND => {
                let conn = &mut self.conns[token.key().index as usize];
                conn.sending.drain(..).for_each(|lease| mem.free(lease));
                if result.is_err() {
                    conn.waiting.drain(..).for_each(|(lease, _)| mem.free(lease));
                }
            }
            Event::Done { token, .. } => {
                self.conns[token.key().index as usize].receiving = false;
            }
            _ => {}
        }
    }

    fn end_turn(&mut self, _mem: &mut Arena, _now: Instant) {
        for index in 0..self.conns.len() as u32 {
            self.send(index);
        }
    }

    fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn has_work(&self) -> bool {
        false
    }

    fn batch(&self, batch: u32) -> &[Span] {
        &self.conns[batch as usize].batch
    }

    fn drop_leases(&mut self, mem: &mut Arena) {
        for conn in &mut self.conns {
            conn.waiting.drain(..).for_each(|(lease, _)| mem.free(lease));
            conn.sending.drain(..).for_each(|lease| mem.free(lease));
        }
    }
}
