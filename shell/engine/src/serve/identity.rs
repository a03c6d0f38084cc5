//! Names that stay the same from start to start: what hosts recognise a disk by.
//!
//! What is not given by option is derived from the URI and the machine's id by a fixed hash
//! (UUID version 5). The machine's id is part of it because a host that is connected to two
//! engines takes two namespaces with one identity for two paths to the same data.

use uuid::Uuid;

use crate::serve::uri::{NamespaceUri, Source};

/// The name space of everything derived here.
const BRAID: Uuid = Uuid::from_u128(0x5c1f_0c3e_72a4_5d0b_9c55_1b4a_1d90_7e21);

/// What a host recognises a namespace by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamespaceIdentity {
    /// Namespace globally unique identifier.
    pub nguid: [u8; 16],
    /// Universally unique identifier.
    pub uuid: [u8; 16],
}

/// The subsystem name for a list of namespaces.
#[must_use]
pub fn subsystem_nqn(machine: &str, namespaces: &[NamespaceUri]) -> String {
    let places: Vec<_> = namespaces.iter().map(NamespaceUri::canonical).collect();
    let uuid = derived(BRAID, &[machine, "subsystem", &places.join("\n")]);
    format!("nqn.2026-01.io.braid:{uuid}")
}

/// The serial number of a subsystem: 20 characters that follow from its name.
#[must_use]
pub fn serial(nqn: &str) -> String {
    let hash = derived(BRAID, &["serial", nqn]).simple().to_string();
    format!("BRD{}", hash[..17].to_uppercase())
}

/// The identity of a namespace: that of its file or device wherever it is served; memory has none
/// of its own, so it gets that of its place in the subsystem.
#[must_use]
pub fn namespace(machine: &str, nqn: &str, nsid: u32, uri: &NamespaceUri) -> NamespaceIdentity {
    let place = uri.canonical();
    let uuid = uri.uuid.unwrap_or_else(|| match uri.source {
        Source::Memory { .. } => {
            derived(BRAID, &[machine, "memory", nqn, &nsid.to_string(), &place])
        }
        Source::File { .. } | Source::Device { .. } => derived(BRAID, &[machine, &place]),
    });
    NamespaceIdentity { nguid: uri.nguid.unwrap_or_else(|| nguid(uuid)), uuid: uuid.into_bytes() }
}

/// The subsystem name of a replica or a snapshot. Its uuid is its own everywhere, so the machine is
/// no part of it: a pool that moves to another machine keeps its hosts.
#[must_use]
pub fn replica_nqn(uuid: Uuid) -> String {
    format!("nqn.2026-01.io.braid:{uuid}")
}

/// The identity of a node, which follows from its name.
#[must_use]
pub fn node(name: &str) -> Uuid {
    derived(BRAID, &["node", name])
}

/// The NGUID that follows from a uuid.
#[must_use]
pub fn nguid(uuid: Uuid) -> [u8; 16] {
    derived(uuid, &["nguid"]).into_bytes()
}

/// What tells this machine from others: systemd's machine id, else the host's name.
#[must_use]
pub fn machine() -> String {
    ["/etc/machine-id", "/var/lib/dbus/machine-id", "/proc/sys/kernel/hostname"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .map(|text| text.trim().to_owned())
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

fn derived(space: Uuid, parts: &[&str]) -> Uuid {
    Uuid::new_v5(&space, parts.join("\0").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> NamespaceUri {
        text.parse().unwrap()
    }

    /// Hosts remember these for years: a change of the derivation would rename every disk.
    #[test]
    fn derived_names_never_change() {
        let disk = uri("file:/var/lib/braid/a?size=1GiB");
        let nqn = subsystem_nqn("machine", std::slice::from_ref(&disk));
        assert_eq!(nqn, "nqn.2026-01.io.braid:38e98cea-4553-54b5-ab0c-7674ee6ee618");
        assert_eq!(serial(&nqn), "BRDE18EBA878E4257049");
        let identity = namespace("machine", &nqn, 1, &disk);
        assert_eq!(
            Uuid::from_bytes(identity.uuid).to_string(),
            "f1f1cd06-53b3-52b6-acf5-e424a9386f3a"
        );
        assert_eq!(
            Uuid::from_bytes(identity.nguid).simple().to_string(),
            "08052e2ff4105732986ff28a06ea7aaa"
        );
    }

    #[test]
    fn options_that_do_not_move_the_bytes_do_not_change_the_identity() {
        let plain = namespace("m", "nqn.a", 1, &uri("file:/a?size=1GiB"));
        let other = namespace("m", "nqn.b", 2, &uri("file:/a?block=512&inject=read,error"));
        assert_eq!(plain, other);
    }

    #[test]
    fn memory_of_two_subsystems_or_machines_is_told_apart() {
        let mem = uri("mem:1MiB");
        let first = namespace("m", "nqn.a", 1, &mem);
        assert_ne!(first, namespace("m", "nqn.a", 2, &mem));
        assert_ne!(first, namespace("m", "nqn.b", 1, &mem));
        assert_ne!(first, namespace("n", "nqn.a", 1, &mem));
    }

    #[test]
    fn what_is_given_is_kept() {
        let given = uri("mem:1MiB?uuid=6ba7b810-9dad-11d1-80b4-00c04fd430c8");
        let identity = namespace("m", "nqn.a", 1, &given);
        assert_eq!(Some(Uuid::from_bytes(identity.uuid)), given.uuid);
        assert_eq!(serial("nqn.a").len(), 20);
    }
}
