//! What a side answers a challenge with (Base 8.3.4.5.4).

use super::group::Value;
use super::hash::{Digest, Hash};
use crate::connect::Nqn;

/// The names of both sides, which every response is about.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The host's.
    pub host: &'a Nqn,
    /// The subsystem's.
    pub subsystem: &'a Nqn,
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prover {
    Host,
    Controller,
}

/// A challenge, as its answer is about it.
pub(super) struct Claim<'a> {
    pub(super) hash: Hash,
    /// After [`augment`].
    pub(super) challenge: Digest,
    pub(super) sequence: u32,
    pub(super) t_id: u16,
    pub(super) prover: Prover,
    pub(super) names: Names<'a>,
}

impl Claim<'_> {
    /// The answer of who has this key.
    pub(super) fn answer(&self, key: &[u8]) -> Digest {
        self.with_parts(|parts| self.hash.hmac(key, parts))
    }

    /// Whether that is the answer.
    pub(super) fn is_answered(&self, key: &[u8], answer: &[u8]) -> bool {
        self.with_parts(|parts| self.hash.verify(key, parts, answer))
    }

    fn with_parts<T>(&self, then: impl FnOnce(&[&[u8]]) -> T) -> T {
        let host = self.names.host.as_str().as_bytes();
        let subsystem = self.names.subsystem.as_str().as_bytes();
        let (role, mine, other): (&[u8], _, _) = match self.prover {
            Prover::Host => (b"HostHost", host, subsystem),
            Prover::Controller => (b"Controller", subsystem, host),
        };
        let (sequence, t_id) = (self.sequence.to_le_bytes(), self.t_id.to_le_bytes());
        // SC_C, which is 0: we concatenate no secure channel.
        then(&[&self.challenge, &sequence, &t_id, &[0], role, mine, &[0], other])
    }
}

/// The challenge that is answered: where a group is used, only who knows the shared value knows it.
pub(super) fn augment(hash: Hash, challenge: &[u8], shared: &Value) -> Digest {
    if shared.is_empty() {
        challenge.iter().copied().take(hash.bytes()).collect()
    } else {
        hash.hmac(&hash.digest(shared), &[challenge])
    }
}
