//! The name of an operation in flight, as the kernel carries it: a token of our own, which finds
//! the table and the entry, and tells a late completion from its successor's.

use braid_block::{Key, Token};

/// Whose completion it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A disk operation, by its entry.
    Disk,
    /// A socket's receive.
    Receive,
    /// A socket's send.
    Send,
    /// A socket's connect.
    Connect,
    /// A listener's accept.
    Accept,
    /// The event descriptor was written by another thread.
    Call,
    /// Another shard's ring says that there is mail.
    Mail,
    /// Our message to another shard's ring.
    Wake,
    /// A cancellation: its own result says nothing, the cancelled operation's does.
    Cancel,
}

const ALL: [Operation; 9] = [
    Operation::Disk,
    Operation::Receive,
    Operation::Send,
    Operation::Connect,
    Operation::Accept,
    Operation::Call,
    Operation::Mail,
    Operation::Wake,
    Operation::Cancel,
];

impl Operation {
    /// The bits for an entry of this operation's table.
    pub(crate) const fn name(self, index: u32, generation: u32) -> u64 {
        Token::new(self as u8, Key { index, generation }).to_bits()
    }

    /// What the bits name.
    pub(crate) fn parse(bits: u64) -> Option<(Self, Key)> {
        let token = Token::from_bits(bits);
        let operation = ALL.get(usize::from(token.kind()))?;
        Some((*operation, token.key()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_again() {
        for operation in ALL {
            let key = Key { index: 77, generation: 0xffff_fff0 };
            let bits = operation.name(key.index, key.generation);
            assert_eq!(Operation::parse(bits), Some((operation, key)));
        }
        assert_eq!(Operation::parse(u64::MAX), None);
    }
}
