//! The Diffie-Hellman groups: finite fields of RFC 7919, or none.
//!
//! What one costs is paid in the thread that serves I/O, so groups end at 4096 bits: a connection
//! costs two powers, 1 to 4 ms each on one core of 2020; of 6144 and 8192 bits 10 and 20 ms each.

use arrayvec::ArrayVec;
use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, Uint};

use super::prime::{P2048, P3072, P4096};

/// Bytes of the longest value of a group.
pub(super) const VALUE_BYTES_MAX: usize = 512;
/// Bytes of an exponent; each group takes as many bits of it as its strength asks for.
pub(super) const EXPONENT_BYTES: usize = 48;

/// A value of a group: as many bytes as its prime has, the most significant first.
pub(super) type Value = ArrayVec<u8, VALUE_BYTES_MAX>;
/// What stays secret.
pub(super) type Exponent = [u8; EXPONENT_BYTES];

/// A group; its value is its identifier on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Group {
    /// None: who listens learns nothing of the key, but may try keys on what he heard.
    Null = 0,
    /// The field of 2048 bits.
    Ffdhe2048 = 1,
    /// The field of 3072 bits.
    Ffdhe3072 = 2,
    /// The field of 4096 bits.
    Ffdhe4096 = 3,
}

impl Group {
    /// All of them, the one that we take first if we can: 3072 bits are as strong as SHA-256, and
    /// more cost more than they give.
    pub const ALL: [Self; 4] = [Self::Ffdhe3072, Self::Ffdhe4096, Self::Ffdhe2048, Self::Null];

    /// The one with this identifier.
    #[must_use]
    pub fn of(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|group| *group as u8 == id)
    }

    /// Bytes of its values.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Ffdhe2048 => 256,
            Self::Ffdhe3072 => 384,
            Self::Ffdhe4096 => 512,
        }
    }

    /// Bits of an exponent: what RFC 7919 asks for (225, 275, 325), in whole words.
    const fn exponent_bits(self) -> u32 {
        match self {
            Self::Null => 0,
            Self::Ffdhe2048 => 256,
            Self::Ffdhe3072 => 288,
            Self::Ffdhe4096 => 352,
        }
    }

    /// What is told of an exponent: `2^x`; nothing in no group.
    pub(super) fn public(self, exponent: &Exponent) -> Value {
        self.power(&[2], exponent).unwrap_or_default()
    }

    /// What both sides know then: the peer's value to our exponent. None: its value is one from
    /// which anybody would know the result (0, 1, -1), or none of the group.
    pub(super) fn shared(self, exponent: &Exponent, peer: &[u8]) -> Option<Value> {
        self.power(peer, exponent)
    }

    fn power(self, base: &[u8], exponent: &Exponent) -> Option<Value> {
        let bits = self.exponent_bits();
        match self {
            Self::Null => base.is_empty().then(Value::new),
            Self::Ffdhe2048 => power(&P2048, base, exponent, bits),
            Self::Ffdhe3072 => power(&P3072, base, exponent, bits),
            Self::Ffdhe4096 => power(&P4096, base, exponent, bits),
        }
    }
}

/// `base ^ exponent mod prime`, of the exponent's lowest bits. How long it takes depends on
/// neither.
fn power<const LIMBS: usize>(
    prime: &Uint<LIMBS>,
    base: &[u8],
    exponent: &Exponent,
    bits: u32,
) -> Option<Value> {
    let bytes = 8 * LIMBS;
    let mut padded = [0; VALUE_BYTES_MAX];
    let padded = &mut padded[..bytes];
    padded[bytes.checked_sub(base.len())?..].copy_from_slice(base);
    let base = Uint::<LIMBS>::from_be_slice(padded);
    let last = prime.wrapping_sub(&Uint::ONE);
    if base <= Uint::ONE || base >= last {
        return None;
    }
    let exponent = Uint::<6>::from_be_slice(exponent);
    let modulus = Odd::new(*prime).expect("a prime above 2");
    let field = FixedMontyParams::new_vartime(modulus);
    let power = FixedMontyForm::new(&base, &field).pow_bounded_exp(&exponent, bits).retrieve();
    Some(power.to_be_bytes().as_ref().iter().copied().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [Group; 3] = [Group::Ffdhe2048, Group::Ffdhe3072, Group::Ffdhe4096];

    #[test]
    fn both_sides_come_to_the_same_value() {
        let (ours, theirs) = ([0x5a; EXPONENT_BYTES], core::array::from_fn(|at| at as u8));
        for group in FIELDS {
            let (a, b) = (group.public(&ours), group.public(&theirs));
            let shared = group.shared(&ours, &b).unwrap();
            assert_eq!(shared.len(), group.bytes());
            assert_eq!(group.shared(&theirs, &a), Some(shared.clone()));
            assert_ne!(shared, a);
        }
    }

    #[test]
    fn small_powers_of_two_are_what_they_are() {
        for group in FIELDS {
            let mut exponent = [0; EXPONENT_BYTES];
            exponent[EXPONENT_BYTES - 1] = 9;
            let value = group.public(&exponent);
            assert_eq!(value.len(), group.bytes());
            assert_eq!(value[value.len() - 2..], [2, 0], "2^9");
            assert!(value[..value.len() - 2].iter().all(|byte| *byte == 0), "padded in front");
        }
    }

    #[test]
    fn a_value_that_gives_the_result_away_is_refused() {
        for (group, prime) in FIELDS.into_iter().zip([
            P2048.to_be_bytes().as_ref(),
            P3072.to_be_bytes().as_ref(),
            P4096.to_be_bytes().as_ref(),
        ]) {
            let exponent = [7; EXPONENT_BYTES];
            let mut less = Value::try_from(prime).unwrap();
            assert_eq!(group.shared(&exponent, &less), None, "the prime");
            *less.last_mut().unwrap() -= 1;
            assert_eq!(group.shared(&exponent, &less), None, "-1");
            *less.last_mut().unwrap() -= 1;
            assert!(group.shared(&exponent, &less).is_some(), "-2");
            let long = [&[0], prime].concat();
            for bad in [&[][..], &[0], &[1], &[0, 1], &long] {
                assert_eq!(group.shared(&exponent, bad), None);
            }
        }
    }

    #[test]
    fn without_a_group_there_is_nothing_to_exchange() {
        assert!(Group::Null.public(&[1; EXPONENT_BYTES]).is_empty());
        assert_eq!(Group::Null.shared(&[1; EXPONENT_BYTES], &[]), Some(Value::new()));
        assert_eq!(Group::Null.shared(&[1; EXPONENT_BYTES], &[2]), None);
        assert!(Group::ALL.iter().all(|group| Group::of(*group as u8) == Some(*group)));
        assert_eq!([Group::of(4), Group::of(5), Group::of(255)], [None; 3], "6144 and 8192 bits");
    }
}
