//! The hash functions of DH-HMAC-CHAP, and HMAC by them (RFC 2104).

use arrayvec::ArrayVec;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// Bytes of the longest digest.
pub const DIGEST_BYTES_MAX: usize = 64;

/// What a hash function or an HMAC comes to.
pub type Digest = ArrayVec<u8, DIGEST_BYTES_MAX>;

/// A hash function; its value is its identifier on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Hash {
    /// SHA-256.
    Sha256 = 1,
    /// SHA-384.
    Sha384 = 2,
    /// SHA-512.
    Sha512 = 3,
}

impl Hash {
    /// All of them, the longest first.
    pub const ALL: [Self; 3] = [Self::Sha512, Self::Sha384, Self::Sha256];

    /// The one with this identifier.
    #[must_use]
    pub fn of(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| *hash as u8 == id)
    }

    /// The one whose digests are so long.
    #[must_use]
    pub fn of_bytes(len: usize) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.bytes() == len)
    }

    /// Bytes of its digests.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    /// The digest of some data.
    #[must_use]
    pub fn digest(self, data: &[u8]) -> Digest {
        match self {
            Self::Sha256 => collect(&Sha256::digest(data)),
            Self::Sha384 => collect(&Sha384::digest(data)),
            Self::Sha512 => collect(&Sha512::digest(data)),
        }
    }

    /// The HMAC of some data, which is given in parts.
    #[must_use]
    pub fn hmac(self, key: &[u8], parts: &[&[u8]]) -> Digest {
        match self {
            Self::Sha256 => collect(&fed::<Hmac<Sha256>>(key, parts).finalize().into_bytes()),
            Self::Sha384 => collect(&fed::<Hmac<Sha384>>(key, parts).finalize().into_bytes()),
            Self::Sha512 => collect(&fed::<Hmac<Sha512>>(key, parts).finalize().into_bytes()),
        }
    }

    /// Whether `tag` is that HMAC. How long it takes tells nothing about how much of it is right.
    #[must_use]
    pub fn verify(self, key: &[u8], parts: &[&[u8]], tag: &[u8]) -> bool {
        match self {
            Self::Sha256 => fed::<Hmac<Sha256>>(key, parts).verify_slice(tag).is_ok(),
            Self::Sha384 => fed::<Hmac<Sha384>>(key, parts).verify_slice(tag).is_ok(),
            Self::Sha512 => fed::<Hmac<Sha512>>(key, parts).verify_slice(tag).is_ok(),
        }
    }
}

fn fed<M: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> M {
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        mac.update(part);
    }
    mac
}

fn collect(bytes: &[u8]) -> Digest {
    bytes.iter().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_as_long_as_its_function_says_and_found_by_that() {
        for hash in Hash::ALL {
            assert_eq!(hash.digest(b"x").len(), hash.bytes());
            assert_eq!(hash.hmac(b"k", &[b"x"]).len(), hash.bytes());
            assert_eq!(Hash::of(hash as u8), Some(hash));
            assert_eq!(Hash::of_bytes(hash.bytes()), Some(hash));
        }
        assert_eq!([Hash::of(0), Hash::of(4), Hash::of_bytes(0)], [None; 3]);
    }

    #[test]
    fn only_the_whole_tag_is_right() {
        for hash in Hash::ALL {
            let tag = hash.hmac(b"key", &[b"what do ya want ", b"for nothing?"]);
            let verify = |tag: &[u8]| hash.verify(b"key", &[b"what do ya want for nothing?"], tag);
            assert!(verify(&tag), "parts are one text");
            assert!(!verify(&tag[1..]) && !verify(&tag[..1]) && !verify(&[]));
            let mut wrong = tag.clone();
            wrong[hash.bytes() - 1] ^= 1;
            assert!(!verify(&wrong));
        }
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let tag = Hash::Sha256.hmac(b"Jefe", &[b"what do ya want for nothing?"]);
        assert_eq!(tag[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
        let tag = Hash::Sha384.hmac(b"Jefe", &[b"what do ya want for nothing?"]);
        assert_eq!(tag[..8], [0xaf, 0x45, 0xd2, 0xe3, 0x76, 0x48, 0x40, 0x31]);
        let tag = Hash::Sha512.hmac(b"Jefe", &[b"what do ya want for nothing?"]);
        assert_eq!(tag[..8], [0x16, 0x4b, 0x7a, 0x7b, 0xfc, 0xf8, 0x19, 0xe2]);
    }
}
