//! Keys as people hand them about: `DHHC-1:hh:base64(key ‖ CRC-32):` (Base 8.3.4.5.7), as
//! `nvme gen-dhchap-key` prints them.

use core::fmt;

use arrayvec::ArrayVec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::hash::{DIGEST_BYTES_MAX, Digest, Hash};
use crate::connect::Nqn;

/// Lengths that a key may have.
const KEY_BYTES: [usize; 3] = [32, 48, 64];
/// Bytes of its checksum.
const CRC_BYTES: usize = 4;
/// What is hashed with the name of who owns the key.
const PURPOSE: &[u8] = b"NVMe-over-Fabrics";

/// A key of a host or a controller. What it is, is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    /// What it is transformed by before it is used; none: it is used as it is.
    transform: Option<Hash>,
    key: ArrayVec<u8, DIGEST_BYTES_MAX>,
}

/// What is wrong with a text that should be a key. It tells nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretError {
    /// It is not `DHHC-1:hh:...:`.
    Form,
    /// `hh` is none of 00 to 03.
    Transform,
    /// What follows is no base64.
    Encoding,
    /// The key is none of 32, 48 and 64 bytes.
    Length,
    /// Its checksum is another one: it was mistyped.
    Checksum,
}

impl fmt::Display for SecretError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "a key is DHHC-1:hh:BASE64:, as nvme gen-dhchap-key prints it",
            Self::Transform => "the two digits after DHHC-1: are 00, 01, 02 or 03",
            Self::Encoding => "the key is not base64",
            Self::Length => "a key has 32, 48 or 64 bytes, and 4 more of checksum",
            Self::Checksum => "the key's checksum is wrong: it was not copied whole and right",
        })
    }
}

impl core::error::Error for SecretError {}

impl Secret {
    /// The key that a text stands for.
    ///
    /// # Errors
    /// It stands for none.
    pub fn parse(text: &str) -> Result<Self, SecretError> {
        let form = text.strip_prefix("DHHC-1:").and_then(|rest| rest.strip_suffix(':'));
        let (transform, encoded) =
            form.and_then(|rest| rest.split_once(':')).ok_or(SecretError::Form)?;
        let transform = match transform {
            "00" => None,
            "01" => Some(Hash::Sha256),
            "02" => Some(Hash::Sha384),
            "03" => Some(Hash::Sha512),
            _ => return Err(SecretError::Transform),
        };
        let mut room = [0; 2 * DIGEST_BYTES_MAX];
        let decoded = STANDARD.decode_slice(encoded, &mut room).map_err(|error| match error {
            base64::DecodeSliceError::DecodeError(_) => SecretError::Encoding,
            base64::DecodeSliceError::OutputSliceTooSmall => SecretError::Length,
        })?;
        let bytes = &room[..decoded];
        let (key, crc) = bytes.split_last_chunk::<CRC_BYTES>().ok_or(SecretError::Length)?;
        if !KEY_BYTES.contains(&key.len()) {
            return Err(SecretError::Length);
        }
        if crc32(key) != u32::from_le_bytes(*crc) {
            return Err(SecretError::Checksum);
        }
        Ok(Self { transform, key: key.iter().copied().collect() })
    }

    /// The key as it is used, of who has this name: a host's, or a subsystem's.
    pub(super) fn transformed(&self, owner: &Nqn) -> Digest {
        match self.transform {
            None => self.key.clone(),
            Some(hash) => hash.hmac(&self.key, &[owner.as_str().as_bytes(), PURPOSE]),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").finish_non_exhaustive()
    }
}

/// CRC-32 of IEEE 802.3. Only keys are summed, when they are read.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0xedb8_8320 }
        })
    })
}
