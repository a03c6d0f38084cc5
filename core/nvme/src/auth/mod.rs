//! In-band authentication, DH-HMAC-CHAP (Base 8.3.4): each side proves that it knows a key, and
//! tells nothing of it.
//!
//! ```text
//!   host                                   controller
//!    | -- NEGOTIATE: hashes, groups --------> |
//!    | <-------- CHALLENGE: C1, g^x --------- |   it chooses a hash and a group
//!    | -- REPLY: R1, C2, g^y ---------------> |   the host knows its key
//!    | <-------- SUCCESS1: R2 --------------- |   the controller knows its own, if it was asked
//!    | -- SUCCESS2 -------------------------> |
//! ```
//!
//! [`Exchange`] is the controller's part of it, [`Proof`] the host's; both are fed messages and
//! randomness, and neither knows of connections.

mod exchange;
mod generator;
mod group;
mod hash;
mod keys;
mod message;
mod prime;
mod proof;
mod response;
mod secret;
mod security;
#[cfg(test)]
mod vectors;

pub use exchange::{Answer, Exchange, Input, Verdict};
pub use generator::Generator;
pub use group::Group;
pub use hash::{DIGEST_BYTES_MAX, Digest, Hash};
pub use keys::{HostKey, HostKeys};
pub use message::{Message, Offer, Reason};
pub use proof::{Proof, Step};
pub use response::Names;
pub use secret::{Secret, SecretError};
pub use security::{MESSAGE_BYTES_MAX, Security};
