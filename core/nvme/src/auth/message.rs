//! The messages (Base 8.3.4.5), as bytes and as what cannot be wrong.

use super::{Group, Hash};

/// Types of messages: those of every protocol, and those of this one.
const COMMON: u8 = 0x00;
const DH_HMAC_CHAP: u8 = 0x01;

/// Identifiers of messages.
const NEGOTIATE: u8 = 0x00;
const CHALLENGE: u8 = 0x01;
const REPLY: u8 = 0x02;
const SUCCESS1: u8 = 0x03;
const SUCCESS2: u8 = 0x04;
const FAILURE2: u8 = 0xf0;
const FAILURE1: u8 = 0xf1;

/// RC of both failures: authentication failure.
const REASON_CODE: u8 = 0x01;
/// Bytes of one protocol that a host offers.
const DESCRIPTOR_BYTES: usize = 64;
/// The protocol, in a descriptor of it.
const PROTOCOL: u8 = 0x01;
/// Where in a descriptor the hash functions and the groups are, and how many of each it has room
/// for.
const HASHES_AT: usize = 4;
const GROUPS_AT: usize = 34;
const IDS_MAX: usize = 30;

/// Why an exchange failed; its value is its explanation on the wire (RCE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// The peer does not know the key, or we have none for it.
    Authentication = 1,
    /// No protocol that both know.
    Protocol = 2,
    /// A secure channel is asked for, or not, and the other side does not agree.
    SecureChannel = 3,
    /// No hash function that both may use.
    Hash = 4,
    /// No group that both may use.
    Group = 5,
    /// A message makes no sense.
    Payload = 6,
    /// A message that was not due.
    Message = 7,
}

impl Reason {
    const ALL: [Self; 7] = [
        Self::Authentication,
        Self::Protocol,
        Self::SecureChannel,
        Self::Hash,
        Self::Group,
        Self::Payload,
        Self::Message,
    ];

    /// What people read.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Authentication => "wrong key, or none",
            Self::Protocol => "no protocol that both know",
            Self::SecureChannel => "no agreement about a secure channel",
            Self::Hash => "no hash function that both may use",
            Self::Group => "no group that both may use",
            Self::Payload => "a message made no sense",
            Self::Message => "a message that was not due",
        }
    }
}

/// A message; what it borrows has the length that it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// The host begins.
    Negotiate {
        /// SC_C: whether the exchange is to make a key for TLS.
        secure_channel: u8,
        /// Protocols that it offers, whole ones.
        descriptors: &'a [u8],
    },
    /// The controller asks.
    Challenge {
        /// By this hash function.
        hash: Hash,
        /// In this group.
        group: Group,
        /// S1.
        sequence: u32,
        /// C1, as long as a digest.
        value: &'a [u8],
        /// Its value of the group.
        public: &'a [u8],
    },
    /// The host answers, and may ask.
    Reply {
        /// R1.
        response: &'a [u8],
        /// S2 and C2, as long as R1.
        challenge: Option<(u32, &'a [u8])>,
        /// Its value of the group.
        public: &'a [u8],
    },
    /// The host is who it says.
    Success1 {
        /// Its digests are as long as R2.
        hash: Hash,
        /// R2, if the host asked.
        response: Option<&'a [u8]>,
    },
    /// The controller is who it says.
    Success2,
    /// The controller ends it.
    Failure1(Reason),
    /// The host ends it.
    Failure2(Reason),
}

/// What a host offers of this protocol: identifiers of hash functions and groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer<'a> {
    /// Of hash functions.
    pub hashes: &'a [u8],
    /// Of groups.
    pub groups: &'a [u8],
}

impl<'a> Offer<'a> {
    /// The first offer of this protocol among those of a NEGOTIATE.
    ///
    /// # Errors
    /// There is none, or it makes no sense.
    pub fn find(descriptors: &'a [u8]) -> Result<Self, Reason> {
        let (all, _) = descriptors.as_chunks::<DESCRIPTOR_BYTES>();
        let ours = all.iter().find(|offer| offer[0] == PROTOCOL).ok_or(Reason::Protocol)?;
        let (hashes, groups) = (usize::from(ours[2]), usize::from(ours[3]));
        let counts = 1..=IDS_MAX;
        if !counts.contains(&hashes) || !counts.contains(&groups) {
            return Err(Reason::Payload);
        }
        Ok(Self {
            hashes: &ours[HASHES_AT..HASHES_AT + hashes],
            groups: &ours[GROUPS_AT..GROUPS_AT + groups],
        })
    }

    /// The descriptor of an offer of everything that we know.
    #[must_use]
    pub fn everything() -> [u8; DESCRIPTOR_BYTES] {
        let mut descriptor = [0; DESCRIPTOR_BYTES];
        descriptor[0] = PROTOCOL;
        let hashes = Hash::ALL.map(|hash| hash as u8);
        let groups = Group::ALL.map(|group| group as u8);
        descriptor[2..4].copy_from_slice(&[3, 4]);
        descriptor[HASHES_AT..HASHES_AT + hashes.len()].copy_from_slice(&hashes);
        descriptor[GROUPS_AT..GROUPS_AT + groups.len()].copy_from_slice(&groups);
        descriptor
    }
}

impl<'a> Message<'a> {
    /// The message, and the number of its transaction. Bytes behind it mean nothing.
    ///
    /// # Errors
    /// It is no message, or one that makes no sense.
    pub fn parse(bytes: &'a [u8]) -> Result<(u16, Self), Reason> {
        let (head, rest) = bytes.split_first_chunk::<8>().ok_or(Reason::Payload)?;
        let &[kind, id, _, _, low, high, first, second] = head;
        let message = match (kind, id) {
            (COMMON, NEGOTIATE) => {
                let len = DESCRIPTOR_BYTES * usize::from(second);
                let descriptors = rest.get(..len).ok_or(Reason::Payload)?;
                Self::Negotiate { secure_channel: first, descriptors }
            }
            (COMMON, FAILURE1) => Self::Failure1(reason(second)),
            (COMMON, FAILURE2) => Self::Failure2(reason(second)),
            (DH_HMAC_CHAP, id @ (CHALLENGE | REPLY | SUCCESS1 | SUCCESS2)) => {
                parse_second(id, usize::from(first), rest)?
            }
            _ => return Err(Reason::Message),
        };
        Ok((u16::from_le_bytes([low, high]), message))
    }

    /// Writes it; returns how many bytes it has. None: `out` has no room for it.
    pub fn write(&self, t_id: u16, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer { out, at: 0 };
        match *self {
            Self::Negotiate { secure_channel, descriptors } => {
                let count = u8::try_from(descriptors.len() / DESCRIPTOR_BYTES).ok()?;
                writer.head(COMMON, NEGOTIATE, t_id, secure_channel, count)?;
                writer.put(descriptors)?;
            }
            Self::Challenge { hash, group, sequence, value, public } => {
                let len = u8::try_from(value.len()).ok()?;
                writer.head(DH_HMAC_CHAP, CHALLENGE, t_id, len, 0)?;
                writer.body([hash as u8, group as u8], public.len(), sequence)?;
                writer.put(value)?;
                writer.put(public)?;
            }
            Self::Reply { response, challenge, public } => {
                let len = u8::try_from(response.len()).ok()?;
                writer.head(DH_HMAC_CHAP, REPLY, t_id, len, 0)?;
                let nothing = [0; super::DIGEST_BYTES_MAX];
                let (asks, (sequence, value)) = match challenge {
                    Some(challenge) => (1, challenge),
                    None => (0, (0, nothing.get(..response.len())?)),
                };
                writer.body([asks, 0], public.len(), sequence)?;
                writer.put(response)?;
                writer.put(value)?;
                writer.put(public)?;
            }
            Self::Success1 { hash, response } => {
                let len = u8::try_from(hash.bytes()).ok()?;
                writer.head(DH_HMAC_CHAP, SUCCESS1, t_id, len, 0)?;
                writer.body([u8::from(response.is_some()), 0], 0, 0)?;
                writer.put(response.unwrap_or_default())?;
            }
            Self::Success2 => {
                writer.head(DH_HMAC_CHAP, SUCCESS2, t_id, 0, 0)?;
                writer.put(&[0; 8])?;
            }
            Self::Failure1(reason) => {
                writer.head(COMMON, FAILURE1, t_id, REASON_CODE, reason as u8)?;
            }
            Self::Failure2(reason) => {
                writer.head(COMMON, FAILURE2, t_id, REASON_CODE, reason as u8)?;
            }
        }
        Some(writer.at)
    }
}

/// The messages that have 8 bytes more in front; `len` is HL.
fn parse_second(id: u8, len: usize, rest: &[u8]) -> Result<Message<'_>, Reason> {
    let (body, rest) = rest.split_first_chunk::<8>().ok_or(Reason::Payload)?;
    let &[first, second, low, high, sequence @ ..] = body;
    if id == SUCCESS2 {
        return Ok(Message::Success2);
    }
    let hash = Hash::of_bytes(len).ok_or(Reason::Payload)?;
    let public_len = usize::from(u16::from_le_bytes([low, high]));
    let mut rest = rest;
    let mut take = |len: usize| {
        let (taken, left) = rest.split_at_checked(len).ok_or(Reason::Payload)?;
        rest = left;
        Ok(taken)
    };
    let sequence = u32::from_le_bytes(sequence);
    match id {
        CHALLENGE => Ok(Message::Challenge {
            hash: Hash::of(first).filter(|named| *named == hash).ok_or(Reason::Hash)?,
            group: Group::of(second).ok_or(Reason::Group)?,
            sequence,
            value: take(len)?,
            public: take(public_len)?,
        }),
        REPLY => {
            let (response, value) = (take(len)?, take(len)?);
            // Base 8.3.4.5.4: a number of 0 says that the host does not ask, whatever CVALID says.
            let asks = first & 1 != 0 && sequence != 0;
            let challenge = asks.then_some((sequence, value));
            Ok(Message::Reply { response, challenge, public: take(public_len)? })
        }
        _ => {
            let response = if first & 1 == 0 { None } else { Some(take(len)?) };
            Ok(Message::Success1 { hash, response })
        }
    }
}

/// An explanation that we do not know says no more than that it failed.
fn reason(code: u8) -> Reason {
    let known = Reason::ALL.into_iter().find(|reason| *reason as u8 == code);
    known.unwrap_or(Reason::Authentication)
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.at + bytes.len();
        self.out.get_mut(self.at..end)?.copy_from_slice(bytes);
        self.at = end;
        Some(())
    }

    fn head(&mut self, kind: u8, id: u8, t_id: u16, first: u8, second: u8) -> Option<()> {
        let [low, high] = t_id.to_le_bytes();
        self.put(&[kind, id, 0, 0, low, high, first, second])
    }

    fn body(&mut self, ids: [u8; 2], public_len: usize, sequence: u32) -> Option<()> {
        self.put(&ids)?;
        self.put(&u16::try_from(public_len).ok()?.to_le_bytes())?;
        self.put(&sequence.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn written(message: &Message<'_>) -> Vec<u8> {
        let mut out = [0xaa; 2048];
        let len = message.write(0x1234, &mut out).unwrap();
        out[..len].to_vec()
    }

    /// Calls `each` with one message of every kind, in several sizes.
    fn every(each: &mut dyn FnMut(Message<'_>)) {
        let (digits, public) = ([0x11; 64], [0x22; 512]);
        each(Message::Negotiate { secure_channel: 0, descriptors: &Offer::everything() });
        for hash in Hash::ALL {
            let digest = &digits[..hash.bytes()];
            for group in Group::ALL {
                let public = &public[..group.bytes()];
                let (sequence, value) = (0x0102_0304, digest);
                each(Message::Challenge { hash, group, sequence, value, public });
                for challenge in [None, Some((9, digest))] {
                    each(Message::Reply { response: digest, challenge, public });
                }
            }
            for response in [None, Some(digest)] {
                each(Message::Success1 { hash, response });
            }
        }
        each(Message::Success2);
        for reason in Reason::ALL {
            each(Message::Failure1(reason));
            each(Message::Failure2(reason));
        }
    }

    #[test]
    fn what_is_written_is_read() {
        every(&mut |message| {
            assert_eq!(Message::parse(&written(&message)), Ok((0x1234, message)));
        });
    }

    #[test]
    fn a_message_that_is_cut_short_makes_no_sense() {
        every(&mut |message| {
            let bytes = written(&message);
            for len in 0..bytes.len() {
                assert_eq!(
                    Message::parse(&bytes[..len]),
                    Err(Reason::Payload),
                    "{message:?} {len}"
                );
                assert_eq!(message.write(1, &mut alloc::vec![0; len]), None);
            }
        });
    }

    #[test]
    fn fields_are_where_the_standard_has_them() {
        let bytes = written(&Message::Challenge {
            hash: Hash::Sha384,
            group: Group::Ffdhe2048,
            sequence: 0x0403_0201,
            value: &[7; 48],
            public: &[8; 256],
        });
        let head = [1, 1, 0, 0, 0x34, 0x12, 48, 0, 2, 1, 0, 1, 1, 2, 3, 4];
        assert_eq!((&bytes[..16], bytes.len()), (&head[..], 16 + 48 + 256));
        let bytes = written(&Message::Failure1(Reason::Group));
        assert_eq!(bytes, [0, 0xf1, 0, 0, 0x34, 0x12, 1, 5]);
    }

    #[test]
    fn a_reply_that_asks_with_the_number_zero_does_not_ask() {
        let digest = [3; 32];
        let asks = |sequence| {
            let challenge = Some((sequence, &digest[..]));
            let bytes = written(&Message::Reply { response: &digest, challenge, public: &[] });
            let (_, message) = Message::parse(&bytes).unwrap();
            let Message::Reply { challenge, .. } = message else { panic!("{message:?}") };
            challenge.is_some()
        };
        assert!(asks(1));
        assert!(!asks(0), "Base 8.3.4.5.4");
    }

    #[test]
    fn what_is_of_no_known_kind_length_hash_or_group_is_refused() {
        assert_eq!(Message::parse(&[2, 0, 0, 0, 0, 0, 0, 0]), Err(Reason::Message));
        assert_eq!(Message::parse(&[1, 5, 0, 0, 0, 0, 0, 0]), Err(Reason::Message));
        let message = Message::Success1 { hash: Hash::Sha256, response: None };
        let mut bytes = written(&message);
        bytes[6] = 33;
        assert_eq!(Message::parse(&bytes), Err(Reason::Payload));
        let (hash, group) = (Hash::Sha256, Group::Null);
        let message = Message::Challenge { hash, group, sequence: 1, value: &[0; 32], public: &[] };
        let mut bytes = written(&message);
        bytes[8] = 2;
        assert_eq!(Message::parse(&bytes), Err(Reason::Hash), "HL is another one's");
        (bytes[8], bytes[9]) = (1, 9);
        assert_eq!(Message::parse(&bytes), Err(Reason::Group));
    }

    #[test]
    fn the_first_offer_of_this_protocol_counts() {
        let mut offers = [[0; 64], Offer::everything()].concat();
        let found = Offer::find(&offers).unwrap();
        assert_eq!((found.hashes, found.groups), (&[3, 2, 1][..], &[2, 3, 1, 0][..]));
        assert_eq!(Offer::find(&offers[..64]), Err(Reason::Protocol));
        for (at, count) in [(2, 31), (3, 31), (2, 0), (3, 0)] {
            let before = core::mem::replace(&mut offers[64 + at], count);
            assert_eq!(Offer::find(&offers), Err(Reason::Payload));
            offers[64 + at] = before;
        }
    }
}
