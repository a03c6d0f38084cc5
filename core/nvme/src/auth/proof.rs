//! The host's part of an exchange: it answers what the controller asks, and asks in turn if it has
//! a key to judge the answer by.
//!
//! Invariants:
//! 1. Without a right answer of a controller that it asked it does not call the exchange done.
//! 2. It answers one challenge.

use super::group::{EXPONENT_BYTES, Exponent, Value};
use super::hash::{DIGEST_BYTES_MAX, Digest};
use super::response::{Claim, Prover, augment};
use super::{Generator, Hash, Message, Names, Offer, Reason, Secret};

/// What the host does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends so many bytes of what was written, then asks for the controller's message.
    Send(usize),
    /// Sends so many bytes, and is through: each side knows the other.
    SendAndDone(usize),
    /// Nothing: it is known.
    Done,
    /// Sends so many bytes, and ends the connection: the controller is not who it should be.
    SendAndFail(usize, Reason),
    /// Ends the connection: the controller said why.
    Fail(Reason),
}

/// One exchange.
#[derive(Debug)]
pub struct Proof {
    t_id: u16,
    /// The host's key.
    host: Secret,
    /// The controller's, if it has to prove itself.
    controller: Option<Secret>,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Negotiating,
    /// It answered, and knows what the controller has to answer.
    Answered(Hash, Option<Digest>),
    Over,
}

impl Proof {
    /// An exchange with this number.
    #[must_use]
    pub const fn new(t_id: u16, host: Secret, controller: Option<Secret>) -> Self {
        Self { t_id, host, controller, phase: Phase::Negotiating }
    }

    /// The first message; returns its length.
    ///
    /// # Panics
    /// If there is no room for it, a programmer's error.
    pub fn begin(&self, out: &mut [u8]) -> usize {
        let descriptors = &Offer::everything();
        let message = Message::Negotiate { secure_channel: 0, descriptors };
        message.write(self.t_id, out).expect("room for a NEGOTIATE")
    }

    /// Takes a message of the controller's, and writes the next one.
    pub fn handle(
        &mut self,
        message: &[u8],
        names: Names<'_>,
        generator: &mut Generator,
        out: &mut [u8],
    ) -> Step {
        match self.take(message, names, generator, out) {
            Ok(step) => step,
            Err(reason) => {
                self.phase = Phase::Over;
                let written = Message::Failure2(reason).write(self.t_id, out);
                written.map_or(Step::Fail(reason), |len| Step::SendAndFail(len, reason))
            }
        }
    }

    fn take(
        &mut self,
        message: &[u8],
        names: Names<'_>,
        generator: &mut Generator,
        out: &mut [u8],
    ) -> Result<Step, Reason> {
        let (t_id, message) = Message::parse(message)?;
        if let Message::Failure1(reason) = message {
            self.phase = Phase::Over;
            return Ok(Step::Fail(reason));
        }
        if t_id != self.t_id {
            return Err(Reason::Payload);
        }
        match (core::mem::replace(&mut self.phase, Phase::Over), message) {
            (Phase::Negotiating, asked @ Message::Challenge { .. }) => {
                let (phase, len) = self.answer(&asked, names, generator, out)?;
                self.phase = phase;
                Ok(Step::Send(len))
            }
            (Phase::Answered(hash, _), Message::Success1 { hash: named, .. }) if hash != named => {
                Err(Reason::Payload)
            }
            (Phase::Answered(_, None), Message::Success1 { .. }) => Ok(Step::Done),
            (Phase::Answered(hash, Some(expected)), Message::Success1 { response, .. }) => {
                let response = response.ok_or(Reason::Authentication)?;
                // Both are tags of one key: compared by their tags under it, in constant time.
                let key = &expected[..hash.bytes() / 2];
                let tag = hash.hmac(key, &[&expected]);
                if !hash.verify(key, &[response], &tag) {
                    return Err(Reason::Authentication);
                }
                let len = Message::Success2.write(self.t_id, out).ok_or(Reason::Payload)?;
                Ok(Step::SendAndDone(len))
            }
            _ => Err(Reason::Message),
        }
    }

    fn answer(
        &self,
        asked: &Message<'_>,
        names: Names<'_>,
        generator: &mut Generator,
        out: &mut [u8],
    ) -> Result<(Phase, usize), Reason> {
        let Message::Challenge { hash, group, sequence, value, public } = *asked else {
            return Err(Reason::Message);
        };
        let exponent: Exponent = generator.bytes::<EXPONENT_BYTES>();
        let shared: Value = group.shared(&exponent, public).ok_or(Reason::Payload)?;
        let claim = |challenge: &[u8], sequence, prover| {
            let challenge = augment(hash, challenge, &shared);
            Claim { hash, challenge, sequence, t_id: self.t_id, prover, names }
        };
        let ours = self.host.transformed(names.host);
        let response = claim(value, sequence, Prover::Host).answer(&ours);
        let drawn: [u8; DIGEST_BYTES_MAX] = generator.bytes();
        let mine = &drawn[..hash.bytes()];
        let sequence = generator.number();
        let expected = self.controller.as_ref().map(|key| {
            let key = key.transformed(names.subsystem);
            claim(mine, sequence, Prover::Controller).answer(&key)
        });
        let reply = Message::Reply {
            response: &response,
            challenge: expected.is_some().then_some((sequence, mine)),
            public: &group.public(&exponent),
        };
        let len = reply.write(self.t_id, out).ok_or(Reason::Payload)?;
        Ok((Phase::Answered(hash, expected), len))
    }
}
