//! What people write for sizes, times, names and switches: what all programs share, and what only
//! who serves disks needs.

use std::str::FromStr;

use braid_block::BlockSize;
use braid_nvme::connect::Nqn;
pub(crate) use braid_terminal::deserialize_from_text;
pub use braid_terminal::quantity::{Address, Bytes, Period, Switch};

/// A logical block size: 512 or 4096.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block(pub BlockSize);

impl FromStr for Block {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse::<Bytes>()
            .ok()
            .and_then(|bytes| u32::try_from(bytes.0).ok())
            .and_then(BlockSize::from_bytes)
            .map(Self)
            .ok_or_else(|| {
                format!("'{text}' is not a block size that is served; write 512 or 4096")
            })
    }
}

/// An NVMe qualified name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(pub Nqn);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Nqn::parse(text).map(Self).ok_or_else(|| {
            format!(
                "'{text}' is not an NVMe qualified name: at most 223 bytes without spaces that \
                 begin with nqn., such as nqn.2026-01.io.braid:disk1"
            )
        })
    }
}

deserialize_from_text!(Block, Name);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_blocks_say_what_they_should_be() {
        assert!("disk1".parse::<Name>().unwrap_err().contains("nqn."));
        assert_eq!("4KiB".parse::<Block>().unwrap().0, BlockSize::B4096);
        assert!("1024".parse::<Block>().unwrap_err().contains("512 or 4096"));
    }
}
