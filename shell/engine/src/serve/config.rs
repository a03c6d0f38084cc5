//! From a plan with its disks open to what each shard and its reactor is told.

use std::net::SocketAddr;
use std::path::Path;

use braid_nvme::auth::HostKeys;
use braid_nvme::target::Portal;
use braid_reactor::{ArenaOptions, OpenDisk, Options};
use braid_shard::{BackendConfig, Config, Disk, Limits, NamespaceConfig, SubsystemConfig};

use crate::error::{Error, Result};
use crate::serve::backend::{self, Backend};
use crate::serve::keys;
use crate::serve::plan::{NamespacePlan, Plan, SubsystemPlan};
use crate::serve::state::State;
use crate::serve::uri::Source;

/// Buffers that a connection needs for itself and its share of commands, in bytes: small arenas
/// serve fewer hosts.
const ARENA_PER_CONNECTION: u64 = 128 << 10;
/// An admin queue and an I/O queue.
const CONNECTIONS_MIN: u32 = 2;
/// More than this is a mistake: each has a socket and entries in tables.
const CONNECTIONS_MAX: u32 = 16 << 10;
/// The smallest arena in which a few hosts can work at all.
const ARENA_MIN: u64 = 1 << 20;

/// What an engine's shards are made of.
#[derive(Debug)]
pub struct Shards {
    /// What every shard serves; `shard` is that of the first.
    pub config: Config,
    /// The disks of each shard, in the order that its backends name them by.
    pub disks: Vec<Vec<OpenDisk>>,
    /// What every reactor is told.
    pub reactor: Options,
    /// Where reservations are kept; none if nothing served here needs it.
    pub state: Option<State>,
    /// The keys of hosts.
    pub keys: HostKeys,
}

impl Shards {
    /// Opens every namespace of the plan.
    ///
    /// # Errors
    /// One line that names the namespace and says what to do.
    pub fn open(plan: &Plan) -> Result<Self> {
        let limits = limits(plan)?;
        let keys = keys::read(plan.host_keys.as_deref())?;
        let reactor = reactor(plan, &limits)?;
        let mut disks: Vec<Vec<OpenDisk>> = (0..plan.shards).map(|_| Vec::new()).collect();
        let mut places = Vec::new();
        let kept = |(_, n): (_, &NamespacePlan)| !matches!(n.uri.source, Source::Memory { .. });
        // Asked for by name, it is for what is attached later too.
        let later = plan.state_dir.is_some() && !plan.subsystems.is_empty();
        let state = if later || plan.namespaces().any(kept) {
            State::open(plan.state_dir.as_deref())?
        } else {
            None
        };
        let mut subsystems = Vec::with_capacity(plan.subsystems.len());
        for subsystem in &plan.subsystems {
            let mine = &mut disks[usize::from(subsystem.home)];
            let mut namespaces = Vec::with_capacity(subsystem.namespaces.len());
            for namespace in &subsystem.namespaces {
                let opened = open(namespace, plan.force, &mut places, mine)?;
                namespaces.push(with_reservations(opened, state.as_ref())?);
            }
            subsystems.push(subsystem_config(subsystem, namespaces));
        }
        let shards = plan.shards;
        let config = Config { shard: 0, shards, subsystems, portals: Vec::new(), limits };
        Ok(Self { config, disks, reactor, state, keys })
    }

    /// Tells where hosts connect, once it is known.
    pub fn set_portals(&mut self, addresses: &[SocketAddr]) {
        let portal = |(id, &address)| Portal { id, address };
        self.config.portals = (0..).zip(addresses).map(portal).collect();
    }
}

fn open(
    plan: &NamespacePlan,
    force: bool,
    places: &mut Vec<backend::Place>,
    disks: &mut Vec<OpenDisk>,
) -> Result<NamespaceConfig> {
    if backend::place(&plan.uri.source).is_some_and(|place| places.contains(&place)) {
        return Err(
            Error::usage("another namespace has the same file; serve each once").at(&plan.uri)
        );
    }
    let Backend { geometry, disk } = backend::open(plan, force)?;
    places.extend(backend::place(&plan.uri.source));
    let backend = match disk {
        None => BackendConfig::Memory,
        Some(disk) => {
            for remark in &disk.open.remarks {
                tracing::info!(namespace = %plan.uri, "{remark}");
            }
            let position = u16::try_from(disks.len())
                .map_err(|_| Error::usage("too many disks for one shard; raise --shards"))?;
            disks.push(disk.open);
            BackendConfig::Disk {
                disk: Disk(position),
                discards: disk.discards,
                atomic_blocks: disk.atomic_blocks,
            }
        }
    };
    Ok(NamespaceConfig {
        nsid: plan.nsid,
        ana_group: 1,
        nguid: plan.identity.nguid,
        uuid: plan.identity.uuid,
        geometry,
        backend,
        reservations: None,
        injections: plan.uri.injections.clone(),
        lose_unflushed: plan.uri.lose_unflushed,
    })
}

/// The namespace with the reservations that were kept for it.
fn with_reservations(
    mut namespace: NamespaceConfig,
    state: Option<&State>,
) -> Result<NamespaceConfig> {
    if let (Some(state), BackendConfig::Disk { .. }) = (state, namespace.backend) {
        namespace.reservations = Some(Box::new(state.reservations(&namespace.uuid)?));
    }
    Ok(namespace)
}

fn subsystem_config(plan: &SubsystemPlan, namespaces: Vec<NamespaceConfig>) -> SubsystemConfig {
    SubsystemConfig {
        home: plan.home,
        nqn: plan.nqn.clone(),
        serial: plan.serial.clone(),
        allowed_hosts: plan.allowed_hosts.clone(),
        controllers: plan.controllers,
        paths: plan.paths,
        header_digest: plan.header_digest,
        data_digest: plan.data_digest,
        namespaces,
    }
}

fn limits(plan: &Plan) -> Result<Limits> {
    if plan.arena < ARENA_MIN {
        return Err(Error::usage(format!(
            "--arena {} is too small; it takes 1MiB at least, 64MiB serve 512 connections",
            crate::quantity::Bytes(plan.arena)
        )));
    }
    let usual = Limits::default();
    let room = u32::try_from(plan.arena / ARENA_PER_CONNECTION).unwrap_or(u32::MAX);
    let connections = plan.connections.unwrap_or_else(|| room.min(usual.connections_max));
    if !(CONNECTIONS_MIN..=CONNECTIONS_MAX).contains(&connections) {
        return Err(Error::usage(format!(
            "--connections {connections}: a shard takes between {CONNECTIONS_MIN} and \
             {CONNECTIONS_MAX}"
        )));
    }
    if connections > room {
        let needed = u64::from(connections) * ARENA_PER_CONNECTION;
        return Err(Error::usage(format!(
            "--connections {connections} need an arena of {}; raise --arena, or take {room}",
            crate::quantity::Bytes(needed)
        )));
    }
    let per_host = plan.connections_per_host.unwrap_or(usual.connections_per_host_max);
    if per_host < CONNECTIONS_MIN {
        return Err(Error::usage(format!(
            "--connections-per-host {per_host}: a host needs {CONNECTIONS_MIN} at least, for its \
             admin queue and an I/O queue"
        )));
    }
    Ok(Limits {
        connections_max: connections,
        connections_per_host_max: per_host,
        arena_bytes: plan.arena,
        drain: plan.drain,
        ..usual
    })
}

fn reactor(plan: &Plan, limits: &Limits) -> Result<Options> {
    let usual = Options::default();
    let chunk_bytes = if plan.arena < 8 << 20 { 128 << 10 } else { 2 << 20 };
    let arena = ArenaOptions {
        chunk_bytes,
        start_bytes: ArenaOptions::default().start_bytes.min(plan.arena),
        limit_bytes: plan.arena / u64::from(chunk_bytes) * u64::from(chunk_bytes),
    };
    // The kernel holds these all the time, so they take at most an eighth of a small arena: half
    // of that for hosts, a quarter for each other kind of traffic.
    let few = 1_u64 << (plan.arena >> 19).max(1).ilog2();
    let at_most = |count| u16::try_from(few * count).unwrap_or(u16::MAX);
    let [hosts, nexuses, targets] = usual.receive_buffers;
    Ok(Options {
        arena,
        sockets_max: limits.connections_max + HANDSHAKES_MAX,
        receive_buffers: [hosts.min(at_most(2)), nexuses.min(at_most(1)), targets.min(at_most(1))],
        polling: plan.poll.into(),
        poll: plan.poll_for,
        boot_id: boot_id(plan.boot_id_file.as_deref())?,
        seed: seed(),
        ..usual
    })
}

/// The kernel's boot id, or what stands for it.
fn boot_id(file: Option<&Path>) -> Result<[u8; 16]> {
    let Some(path) = file else {
        return braid_reactor::boot_id()
            .map_err(|error| Error::run(format!("cannot read this boot's id: {error}")));
    };
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::usage(format!("cannot read --boot-id-file {}: {error}", path.display()))
    })?;
    uuid::Uuid::try_parse(text.trim()).map(uuid::Uuid::into_bytes).map_err(|_| {
        Error::usage(format!("--boot-id-file {} does not hold a UUID", path.display()))
    })
}

/// Sockets above the connections: enough to tell a host that there is no room.
const HANDSHAKES_MAX: u32 = 16;

/// Differs between runs; nothing here is a secret.
#[must_use]
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stands_for_the_boot_id() {
        let path = std::env::temp_dir().join(format!("braid-boot-{}", std::process::id()));
        std::fs::write(&path, "6ba7b810-9dad-11d1-80b4-00c04fd430c8\n").unwrap();
        assert_eq!(boot_id(Some(&path)).unwrap()[..4], [0x6b, 0xa7, 0xb8, 0x10]);
        std::fs::write(&path, "today").unwrap();
        assert!(boot_id(Some(&path)).unwrap_err().to_string().contains("UUID"));
        std::fs::remove_file(&path).unwrap();
        assert!(boot_id(Some(&path)).unwrap_err().to_string().contains("cannot read"));
        assert_ne!(boot_id(None).unwrap(), [0; 16]);
    }
}
