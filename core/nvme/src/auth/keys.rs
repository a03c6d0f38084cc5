//! Who has to prove who he is, and what we prove to him.

use alloc::collections::BTreeMap;

use super::{Group, Hash, Secret};
use crate::connect::Nqn;

/// What an engine and one host know of each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostKey {
    /// The host's key.
    pub host: Secret,
    /// The key of our controllers, for hosts that want to know who we are.
    pub controller: Option<Secret>,
    /// The only hash function to use; none: the longest that both know.
    pub hash: Option<Hash>,
    /// The only group to use; none: the best that both know.
    pub group: Option<Group>,
}

impl HostKey {
    /// The hash function to use with a host that knows these.
    pub(super) fn choose_hash(&self, offered: &[u8]) -> Option<Hash> {
        let allowed = |hash: &Hash| self.hash.is_none_or(|only| only == *hash);
        Hash::ALL.into_iter().filter(allowed).find(|hash| offered.contains(&(*hash as u8)))
    }

    /// The group to use with a host that knows these.
    pub(super) fn choose_group(&self, offered: &[u8]) -> Option<Group> {
        let allowed = |group: &Group| self.group.is_none_or(|only| only == *group);
        Group::ALL.into_iter().filter(allowed).find(|group| offered.contains(&(*group as u8)))
    }
}

/// The keys of all hosts that have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostKeys(BTreeMap<Nqn, HostKey>);

impl HostKeys {
    /// Gives a host a key. False: it has one already.
    pub fn insert(&mut self, host: Nqn, key: HostKey) -> bool {
        let new = !self.0.contains_key(&host);
        if new {
            self.0.insert(host, key);
        }
        new
    }

    /// A host's key.
    #[must_use]
    pub fn get(&self, host: &Nqn) -> Option<&HostKey> {
        self.0.get(host)
    }

    /// How many hosts have one.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no host has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
