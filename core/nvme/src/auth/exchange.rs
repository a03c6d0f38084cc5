//! The controller's part of an exchange.
//!
//! ```text
//!             NEGOTIATE                fetched                REPLY                 fetched
//!   Beginning ---------> Challenging ---------> Challenged ----------> Proven --------------+
//!       |                                           |                    | it was asked    |
//!       |      anything that is not right           |                    v      SUCCESS2   v
//!       +-----------------> Failed <----------------+                 Answered ---------> Over
//!                             | fetched: FAILURE1; or FAILURE2 of the host's, at any time   ^
//!                             +-------------------------------------------------------------+
//! ```
//!
//! Invariants:
//! 1. A host is authenticated only by an answer to a challenge that was made for it here, and that
//!    nobody has tried to answer before.
//! 2. Whatever is not right ends the exchange; nothing of it is of use for another one.
//! 3. Nothing that it does takes longer the more of an answer is right.
//! 4. It keeps some hundred bytes, whatever it is sent; it costs two powers of the group at most,
//!    however often its messages are asked for.

use super::group::{EXPONENT_BYTES, Exponent, Value};
use super::hash::{DIGEST_BYTES_MAX, Digest};
use super::response::{Claim, Prover, augment};
use super::{Generator, Group, Hash, HostKey, Message, Names, Offer, Reason};
use crate::Status;

/// What a host did.
#[derive(Debug)]
pub enum Input<'a> {
    /// It sent a message.
    Message(&'a [u8]),
    /// It wants one, in this room.
    Room(&'a mut [u8]),
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Bytes of the room that were written; the rest is zero.
    pub written: usize,
    /// How the exchange stands.
    pub verdict: Verdict,
}

/// How an exchange stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The host goes on.
    Pending,
    /// The host is who it says; the exchange is over.
    Authenticated,
    /// It failed just now; the host is told when it asks.
    Refused(Reason),
    /// It failed, and the host is told by this: its connection is to be ended.
    Told,
    /// The host ended it, as it does not trust us: its connection is to be ended.
    GivenUp(Reason),
}

/// One exchange.
#[derive(Debug, Default)]
pub struct Exchange {
    phase: Phase,
    t_id: u16,
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Beginning,
    Challenging(Challenge),
    Challenged(Challenge),
    /// With what we answer the host, if it asked.
    Proven(Hash, Option<Digest>),
    Answered,
    Failed(Reason),
    Over,
}

/// What the host is asked.
#[derive(Debug)]
struct Challenge {
    hash: Hash,
    group: Group,
    sequence: u32,
    value: Digest,
    exponent: Exponent,
    /// The power of the exponent, once: a host may ask with too small a room as often as it likes.
    public: Value,
}

impl Challenge {
    fn draw(hash: Hash, group: Group, generator: &mut Generator) -> Self {
        let value: [u8; DIGEST_BYTES_MAX] = generator.bytes();
        let sequence = generator.number();
        let exponent = generator.bytes::<EXPONENT_BYTES>();
        Self {
            hash,
            group,
            sequence,
            value: value.into_iter().take(hash.bytes()).collect(),
            public: group.public(&exponent),
            exponent,
        }
    }

    fn message(&self) -> Message<'_> {
        Message::Challenge {
            hash: self.hash,
            group: self.group,
            sequence: self.sequence,
            value: &self.value,
            public: &self.public,
        }
    }
}

impl Exchange {
    /// Takes what a host did. `key` is what we know of it, now.
    ///
    /// # Errors
    /// The status to complete the command with: it is out of turn, or its room is too small.
    /// Nothing has changed.
    pub fn handle(
        &mut self,
        input: Input<'_>,
        key: Option<&HostKey>,
        names: Names<'_>,
        generator: &mut Generator,
    ) -> Result<Answer, Status> {
        match input {
            Input::Message(bytes) => {
                let verdict = self.on_message(bytes, key, names, generator);
                Ok(Answer { written: 0, verdict })
            }
            Input::Room(out) => self.on_room(out),
        }
    }

    fn on_message(
        &mut self,
        bytes: &[u8],
        key: Option<&HostKey>,
        names: Names<'_>,
        generator: &mut Generator,
    ) -> Verdict {
        let phase = core::mem::replace(&mut self.phase, Phase::Over);
        if let Ok((_, Message::Failure2(reason))) = Message::parse(bytes) {
            return Verdict::GivenUp(reason);
        }
        if let failed @ Phase::Failed(_) = phase {
            self.phase = failed;
            return Verdict::Pending;
        }
        let taken = Message::parse(bytes).and_then(|(t_id, message)| match (phase, message) {
            (Phase::Beginning, Message::Negotiate { secure_channel, descriptors }) => {
                self.t_id = t_id;
                negotiate(secure_channel, descriptors, key, generator).map(Phase::Challenging)
            }
            _ if t_id != self.t_id => Err(Reason::Payload),
            (Phase::Challenged(challenge), reply @ Message::Reply { .. }) => {
                self.judge(&challenge, &reply, key, names)
            }
            (Phase::Answered, Message::Success2) => Ok(Phase::Over),
            _ => Err(Reason::Message),
        });
        match taken {
            Ok(Phase::Over) => Verdict::Authenticated,
            Ok(phase) => {
                self.phase = phase;
                Verdict::Pending
            }
            Err(reason) => {
                self.phase = Phase::Failed(reason);
                Verdict::Refused(reason)
            }
        }
    }

    /// Whether a host's answer is right, and ours to what it asks.
    fn judge(
        &self,
        asked: &Challenge,
        reply: &Message<'_>,
        key: Option<&HostKey>,
        names: Names<'_>,
    ) -> Result<Phase, Reason> {
        let Message::Reply { response, challenge, public } = *reply else {
            return Err(Reason::Message);
        };
        let Challenge { hash, group, sequence, ref value, ref exponent, .. } = *asked;
        if response.len() != hash.bytes() {
            return Err(Reason::Payload);
        }
        let shared = group.shared(exponent, public).ok_or(Reason::Payload)?;
        let key = key.ok_or(Reason::Authentication)?;
        let claim = |challenge: &[u8], sequence, prover| {
            let challenge = augment(hash, challenge, &shared);
            Claim { hash, challenge, sequence, t_id: self.t_id, prover, names }
        };
        let theirs = key.host.transformed(names.host);
        if !claim(value, sequence, Prover::Host).is_answered(&theirs, response) {
            return Err(Reason::Authentication);
        }
        let Some((sequence, challenge)) = challenge else { return Ok(Phase::Proven(hash, None)) };
        // Our own question handed back is none.
        if challenge == value.as_slice() {
            return Err(Reason::Authentication);
        }
        let ours = key.controller.as_ref().ok_or(Reason::Authentication)?;
        let ours = ours.transformed(names.subsystem);
        let answer = claim(challenge, sequence, Prover::Controller).answer(&ours);
        Ok(Phase::Proven(hash, Some(answer)))
    }

    fn on_room(&mut self, out: &mut [u8]) -> Result<Answer, Status> {
        out.fill(0);
        let wrote = |message: Message<'_>, out: &mut [u8]| {
            message.write(self.t_id, out).ok_or(Status::INVALID_FIELD.dnr())
        };
        let (written, next, verdict) = match &self.phase {
            Phase::Challenging(challenge) => {
                (wrote(challenge.message(), out)?, None, Verdict::Pending)
            }
            Phase::Proven(hash, response) => {
                let response = response.as_deref();
                let written = wrote(Message::Success1 { hash: *hash, response }, out)?;
                match response {
                    Some(_) => (written, Some(Phase::Answered), Verdict::Pending),
                    None => (written, Some(Phase::Over), Verdict::Authenticated),
                }
            }
            Phase::Failed(reason) => {
                (wrote(Message::Failure1(*reason), out)?, Some(Phase::Over), Verdict::Told)
            }
            Phase::Beginning | Phase::Challenged(_) | Phase::Answered | Phase::Over => {
                return Err(Status::SEQUENCE_ERROR.dnr());
            }
        };
        self.phase = match (core::mem::take(&mut self.phase), next) {
            (_, Some(next)) => next,
            (Phase::Challenging(challenge), None) => Phase::Challenged(challenge),
            (phase, None) => phase,
        };
        Ok(Answer { written, verdict })
    }
}

fn negotiate(
    secure_channel: u8,
    descriptors: &[u8],
    key: Option<&HostKey>,
    generator: &mut Generator,
) -> Result<Challenge, Reason> {
    if secure_channel != 0 {
        return Err(Reason::SecureChannel);
    }
    let offer = Offer::find(descriptors)?;
    let key = key.ok_or(Reason::Authentication)?;
    let hash = key.choose_hash(offer.hashes).ok_or(Reason::Hash)?;
    let group = key.choose_group(offer.groups).ok_or(Reason::Group)?;
    Ok(Challenge::draw(hash, group, generator))
}
