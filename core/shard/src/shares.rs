//! What each host has of a shard: one host alone must not take all there is.
//!
//! Invariants:
//! 1. A host is counted as long as one of its connections is a queue, under its host identifier:
//!    how many controllers or names it uses makes no difference.

use alloc::vec::Vec;

/// The hosts that are connected.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    list: Vec<Share>,
}

#[derive(Clone, Copy, Debug)]
struct Share {
    host: [u8; 16],
    /// Connections that are queues; zero: nobody's.
    connections: u32,
    /// Bytes of buffers that its commands hold.
    pinned: u64,
}

impl Shares {
    /// Connections of a host.
    pub(crate) fn connections(&self, host: &[u8; 16]) -> u32 {
        let its = self.list.iter().find(|share| share.connections > 0 && share.host == *host);
        its.map_or(0, |share| share.connections)
    }

    /// A connection of this host became a queue; its share, until it leaves.
    pub(crate) fn enter(&mut self, host: &[u8; 16]) -> u16 {
        let its = |share: &Share| share.connections > 0 && share.host == *host;
        let free = || self.list.iter().position(|share| share.connections == 0);
        let at = self.list.iter().position(its).or_else(free).unwrap_or_else(|| {
            self.list.push(Share { host: *host, connections: 0, pinned: 0 });
            self.list.len() - 1
        });
        let share = &mut self.list[at];
        if share.connections == 0 {
            (share.host, share.pinned) = (*host, 0);
        }
        share.connections += 1;
        u16::try_from(at).unwrap_or(u16::MAX)
    }

    /// A queue is gone, of which so many bytes are not given back.
    pub(crate) fn leave(&mut self, share: u16, pinned: u64) {
        if let Some(share) = self.list.get_mut(usize::from(share)) {
            share.connections = share.connections.saturating_sub(1);
            share.pinned = share.pinned.saturating_sub(pinned);
        }
    }

    /// Bytes that a host's commands hold.
    pub(crate) fn pinned(&self, share: u16) -> u64 {
        self.list.get(usize::from(share)).map_or(0, |share| share.pinned)
    }

    pub(crate) fn pin(&mut self, share: u16, bytes: u64) {
        if let Some(share) = self.list.get_mut(usize::from(share)) {
            share.pinned += bytes;
        }
    }

    pub(crate) fn unpin(&mut self, share: u16, bytes: u64) {
        if let Some(share) = self.list.get_mut(usize::from(share)) {
            share.pinned = share.pinned.saturating_sub(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_counted_once_however_it_comes() {
        let mut shares = Shares::default();
        let (a, b) = (shares.enter(&[1; 16]), shares.enter(&[2; 16]));
        assert_eq!((shares.enter(&[1; 16]), shares.connections(&[1; 16])), (a, 2));
        shares.pin(a, 4096);
        shares.pin(b, 1);
        assert_eq!((shares.pinned(a), shares.pinned(b)), (4096, 1));
        shares.leave(a, 0);
        shares.unpin(a, 96);
        shares.leave(a, 4000);
        assert_eq!((shares.connections(&[1; 16]), shares.connections(&[2; 16])), (0, 1));
        assert_eq!(shares.enter(&[3; 16]), a, "its place is free");
        assert_eq!(shares.pinned(a), 0);
    }
}
