//! What an engine will do: the options checked against each other and every default filled in.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use braid_block::BlockSize;
use braid_nvme::DISCOVERY_NQN;
use braid_nvme::target::ControllerModel;
use braid_shard::Paths;

use crate::control;
use crate::error::{Error, Result};
use crate::quantity::Address;
use crate::serve::identity::{self, NamespaceIdentity};
use crate::serve::options::{
    Ana, ControllerIds, Level, LogFormat, NodeName, Options, Poll, SubsystemOptions,
};
use crate::serve::uri::{NamespaceUri, PoolUri, Served, Source};
use crate::serve::wiring::Manners;

/// Threads that serve, at most: each costs an arena and a ring.
pub const SHARDS_MAX: u16 = 64;

/// Threads for pools that are made or imported while an engine runs, at most.
const SHARDS_FOR_POOLS: usize = 4;

/// What an engine will do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where hosts connect.
    pub listen: Vec<SocketAddr>,
    /// Other discovery services that hosts are told of.
    pub referrals: Vec<SocketAddr>,
    /// What is served from the start on.
    pub subsystems: Vec<SubsystemPlan>,
    /// Pools that are imported at the start.
    pub pools: Vec<PoolUri>,
    /// Hosts that may connect to replicas; none: all.
    pub allowed_hosts: Vec<String>,
    /// How the subsystems of replicas behave.
    pub manners: Manners,
    /// Where it is managed, unless at the usual place.
    pub socket: Option<PathBuf>,
    /// Where it keeps its state, unless at the usual place.
    pub state_dir: Option<PathBuf>,
    /// Where it is managed over TCP.
    pub management: Option<SocketAddr>,
    /// The control plane that it reports to.
    pub control: Option<control::Place>,
    /// Long rebuilds that go on at once.
    pub rebuilds: NonZeroU16,
    /// What stands for the kernel's boot id.
    pub boot_id_file: Option<PathBuf>,
    /// Where the keys of hosts are.
    pub host_keys: Option<PathBuf>,
    /// Faults may be injected.
    pub allow_injection: bool,
    /// Threads that serve.
    pub shards: u16,
    /// Whether they look for work before they sleep.
    pub poll: Poll,
    /// How long.
    pub poll_for: Duration,
    /// Bytes of buffers of a shard, at most.
    pub arena: u64,
    /// Connections of a shard, at most; none: what is usual.
    pub connections: Option<u32>,
    /// Connections of one host, at most; none: what is usual.
    pub connections_per_host: Option<u32>,
    /// How long a stop waits.
    pub drain: Duration,
    /// What is logged.
    pub log: Level,
    /// How.
    pub log_format: LogFormat,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// Take block devices that hold something else.
    pub force: bool,
}

/// One subsystem of a [`Plan`].
#[derive(Clone, Debug)]
pub struct SubsystemPlan {
    /// Its name.
    pub nqn: String,
    /// Its serial number.
    pub serial: String,
    /// Hosts that may connect; none: all.
    pub allowed_hosts: Vec<String>,
    /// How controller ids are given out.
    pub controllers: ControllerModel,
    /// What this engine's paths to it are.
    pub paths: Paths,
    /// Header digests are offered.
    pub header_digest: bool,
    /// Data digests are offered.
    pub data_digest: bool,
    /// The shard that serves it.
    pub home: u16,
    /// Ascending by id; never empty.
    pub namespaces: Vec<NamespacePlan>,
}

/// One namespace of a [`SubsystemPlan`].
#[derive(Clone, Debug)]
pub struct NamespacePlan {
    /// Namespace id.
    pub nsid: u32,
    /// What was asked for.
    pub uri: NamespaceUri,
    /// Block size asked for, or the default; a device without one has its own.
    pub block: Option<BlockSize>,
    /// What hosts recognise it by.
    pub identity: NamespaceIdentity,
}

/// Each takes 64 MiB/s beside hosts by default: four are a fifth of a link of 10 Gbit/s, and half
/// of what one disk of the slower kind reads. More would share the same, and each volume would be
/// without redundancy for longer.
const REBUILDS: NonZeroU16 = NonZeroU16::new(4).expect("not zero");

impl Plan {
    /// Checks the options. `machine` goes into derived names, `cpus` bounds the default of shards.
    ///
    /// # Errors
    /// One line that says what does not fit together.
    pub fn new(options: Options, machine: &str, cpus: u16) -> Result<Self> {
        let tables = tables(&options);
        let pools = pools(&options)?;
        let shards = shards(options.shards, tables.len() + pools.len(), cpus)?;
        let homes = (0..shards).cycle();
        let subsystems = tables
            .iter()
            .zip(homes)
            .map(|(table, home)| SubsystemPlan::new(table, &options, machine, home))
            .collect::<Result<Vec<_>>>()?;
        check_names(&subsystems)?;
        check_places(&subsystems)?;
        check_injection(&subsystems, options.allow_injection)?;
        if options.boot_id_file.is_some() && !options.allow_injection {
            return Err(Error::usage(
                "--boot-id-file makes tests believe in a reboot; add --allow-injection if this is \
                 one",
            ));
        }
        Ok(Self {
            listen: listen(&options.listen)?,
            referrals: referrals(&options)?,
            subsystems,
            pools,
            allowed_hosts: options.allow_host.iter().map(|host| host.0.to_string()).collect(),
            manners: Manners {
                controllers: options.controllers.map_or_else(Default::default, Into::into),
                header_digest: options.header_digest.is_none_or(|switch| switch.0),
                data_digest: options.data_digest.is_none_or(|switch| switch.0),
                paths: paths(options.cntlids, options.ana_state),
            },
            socket: options.socket,
            state_dir: options.state_dir,
            management: options.management.map(|address| address.0),
            control: control(options.control, options.node)?,
            rebuilds: options.rebuilds.unwrap_or(REBUILDS),
            boot_id_file: options.boot_id_file,
            host_keys: options.host_keys,
            allow_injection: options.allow_injection,
            shards,
            poll: options.poll.unwrap_or(Poll::Adaptive),
            poll_for: Duration::from_micros(options.poll_us.unwrap_or(50).into()),
            arena: options.arena.map_or(64 << 20, |arena| arena.0),
            connections: options.connections,
            connections_per_host: options.connections_per_host,
            drain: options.drain.map_or(Duration::from_secs(10), |drain| drain.0),
            log: options.log.unwrap_or(Level::Info),
            log_format: options.log_format.unwrap_or(LogFormat::Text),
            metrics: options.metrics.map(|address| address.0),
            force: options.force,
        })
    }

    /// All namespaces with their subsystem.
    pub fn namespaces(&self) -> impl Iterator<Item = (&SubsystemPlan, &NamespacePlan)> {
        self.subsystems.iter().flat_map(|s| s.namespaces.iter().map(move |n| (s, n)))
    }
}

impl SubsystemPlan {
    fn new(table: &SubsystemOptions, top: &Options, machine: &str, home: u16) -> Result<Self> {
        let nqn = table.nqn.map_or_else(
            || identity::subsystem_nqn(machine, &table.namespaces),
            |n| n.0.to_string(),
        );
        if table.namespaces.is_empty() {
            return Err(Error::usage(format!("subsystem {nqn} has no namespaces")));
        }
        let serial = table.serial.clone().map_or_else(|| identity::serial(&nqn), |s| s.0);
        let hosts = table.allow_host.as_ref().unwrap_or(&top.allow_host);
        let switch = |own: Option<_>, top: Option<_>| {
            own.or(top).is_none_or(|s: crate::quantity::Switch| s.0)
        };
        Ok(Self {
            namespaces: namespaces(table, top, machine, &nqn)?,
            nqn,
            serial,
            allowed_hosts: hosts.iter().map(|host| host.0.to_string()).collect(),
            controllers: table
                .controllers
                .or(top.controllers)
                .map_or_else(Default::default, Into::into),
            paths: paths(table.cntlids.or(top.cntlids), table.ana_state.or(top.ana_state)),
            header_digest: switch(table.header_digest, top.header_digest),
            data_digest: switch(table.data_digest, top.data_digest),
            home,
        })
    }
}

fn paths(ids: Option<ControllerIds>, state: Option<Ana>) -> Paths {
    let mut paths = Paths::default();
    if let Some(ControllerIds { min, max }) = ids {
        (paths.cntlid_min, paths.cntlid_max) = (min, max);
    }
    paths.state = state.map_or(paths.state, Into::into);
    paths
}

/// Where the control plane is and who we are to it: both, or neither.
fn control(at: Option<Address>, node: Option<NodeName>) -> Result<Option<control::Place>> {
    match (at, node) {
        (Some(Address(control)), Some(NodeName(node))) => {
            Ok(Some(control::Place { control, node }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => Err(Error::usage("--control needs --node, the name of this node")),
        (None, Some(_)) => Err(Error::usage("--node needs --control, where it is to be told")),
    }
}

/// The subsystem of the command line, if it has namespaces, and those of the file.
fn tables(options: &Options) -> Vec<SubsystemOptions> {
    let namespace = |served: &Served| match served {
        Served::Namespace(uri) => Some(uri.clone()),
        Served::Pool(_) => None,
    };
    let own = SubsystemOptions {
        namespaces: options.namespaces.iter().filter_map(namespace).collect(),
        nqn: options.nqn,
        serial: options.serial.clone(),
        ..SubsystemOptions::default()
    };
    let own = (!own.namespaces.is_empty()).then_some(own);
    own.into_iter().chain(options.subsystem.iter().cloned()).collect()
}

/// The pools of the command line and the top of the file.
fn pools(options: &Options) -> Result<Vec<PoolUri>> {
    let mut pools: Vec<PoolUri> = Vec::new();
    for served in &options.namespaces {
        let Served::Pool(uri) = served else { continue };
        if pools.iter().any(|other| other.path == uri.path) {
            return Err(Error::usage(format!("pool {} is named twice", uri.path.display())));
        }
        pools.push(uri.clone());
    }
    Ok(pools)
}

fn shards(asked: Option<u16>, named: usize, cpus: u16) -> Result<u16> {
    let named = if named == 0 { SHARDS_FOR_POOLS } else { named };
    let named = u16::try_from(named).unwrap_or(u16::MAX);
    let shards = asked.unwrap_or_else(|| named.min(cpus).clamp(1, SHARDS_MAX));
    if (1..=SHARDS_MAX).contains(&shards) {
        Ok(shards)
    } else {
        Err(Error::usage(format!("--shards {shards} is not between 1 and {SHARDS_MAX}")))
    }
}

fn namespaces(
    table: &SubsystemOptions,
    top: &Options,
    machine: &str,
    nqn: &str,
) -> Result<Vec<NamespacePlan>> {
    let mut taken: BTreeSet<u32> = BTreeSet::new();
    for nsid in table.namespaces.iter().filter_map(|uri| uri.nsid) {
        if !taken.insert(nsid) {
            return Err(Error::usage(format!("two namespaces of {nqn} have nsid={nsid}")));
        }
    }
    let block = table.block_size.or(top.block_size).map(|block| block.0);
    let mut plans = Vec::with_capacity(table.namespaces.len());
    for uri in &table.namespaces {
        let nsid = uri.nsid.unwrap_or_else(|| first_free(&taken));
        taken.insert(nsid);
        plans.push(namespace(uri, block, nsid, identity::namespace(machine, nqn, nsid, uri))?);
    }
    plans.sort_by_key(|plan| plan.nsid);
    Ok(plans)
}

fn namespace(
    uri: &NamespaceUri,
    default: Option<BlockSize>,
    nsid: u32,
    identity: NamespaceIdentity,
) -> Result<NamespacePlan> {
    let block = uri.block.or(default);
    let (block, size) = match uri.source {
        Source::Memory { size } => (Some(block.unwrap_or(BlockSize::B4096)), Some(size)),
        Source::File { size, .. } => (Some(block.unwrap_or(BlockSize::B4096)), size),
        Source::Device { .. } => (block, None),
    };
    if let (Some(block), Some(size)) = (block, size) {
        crate::serve::uri::check_size(size, block).map_err(|e| Error::usage(e).at(uri))?;
    }
    Ok(NamespacePlan { nsid, uri: uri.clone(), block, identity })
}

fn first_free(taken: &BTreeSet<u32>) -> u32 {
    (1..).find(|nsid| !taken.contains(nsid)).unwrap_or(1)
}

fn listen(addresses: &[Address]) -> Result<Vec<SocketAddr>> {
    if addresses.is_empty() {
        return Ok(vec![SocketAddr::from(([127, 0, 0, 1], 4420))]);
    }
    let mut seen = BTreeSet::new();
    for Address(address) in addresses {
        if address.port() != 0 && !seen.insert(*address) {
            return Err(Error::usage(format!("--listen {address} is given twice")));
        }
    }
    Ok(addresses.iter().map(|address| address.0).collect())
}

/// Other discovery services; not ourselves, which would send hosts in a circle.
fn referrals(options: &Options) -> Result<Vec<SocketAddr>> {
    let ours = listen(&options.listen)?;
    let mut seen = BTreeSet::new();
    for Address(address) in &options.referral {
        if ours.contains(address) {
            return Err(Error::usage(format!("--referral {address} is this engine itself")));
        }
        if address.port() == 0 || address.ip().is_unspecified() {
            return Err(Error::usage(format!("--referral {address} is no address to connect to")));
        }
        if !seen.insert(*address) {
            return Err(Error::usage(format!("--referral {address} is given twice")));
        }
    }
    Ok(seen.into_iter().collect())
}

fn check_names(subsystems: &[SubsystemPlan]) -> Result<()> {
    let mut seen = BTreeSet::new();
    for subsystem in subsystems {
        if subsystem.nqn == DISCOVERY_NQN {
            return Err(Error::usage(format!("{DISCOVERY_NQN} is reserved; choose another --nqn")));
        }
        if !seen.insert(&subsystem.nqn) {
            return Err(Error::usage(format!(
                "two subsystems are named {}; give each its own nqn",
                subsystem.nqn
            )));
        }
    }
    Ok(())
}

/// No two namespaces have the same bytes or the same identity.
fn check_places(subsystems: &[SubsystemPlan]) -> Result<()> {
    let mut places = BTreeSet::new();
    let mut uuids = BTreeSet::new();
    for plan in subsystems.iter().flat_map(|subsystem| &subsystem.namespaces) {
        let memory = matches!(plan.uri.source, Source::Memory { .. });
        if !memory && !places.insert(plan.uri.canonical()) {
            return Err(Error::usage(format!(
                "two namespaces on {}; serve each file or device once",
                plan.uri.canonical()
            )));
        }
        if !uuids.insert(plan.identity.uuid) || !uuids.insert(plan.identity.nguid) {
            return Err(Error::usage("two namespaces with one uuid or nguid; give each its own")
                .at(&plan.uri));
        }
    }
    Ok(())
}

fn check_injection(subsystems: &[SubsystemPlan], allowed: bool) -> Result<()> {
    let asked = |plan: &&NamespacePlan| plan.uri.lose_unflushed || !plan.uri.injections.is_empty();
    match subsystems.iter().flat_map(|s| &s.namespaces).find(asked) {
        Some(plan) if !allowed => Err(Error::usage(
            "faults are injected into tests only; add --allow-injection if this is one",
        )
        .at(&plan.uri)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use braid_nvme::ana::AnaState;

    use super::*;
    use crate::serve::file;

    fn plan(text: &str) -> Result<Plan> {
        Plan::new(file::parse(text)?, "machine", 4)
    }

    #[test]
    fn defaults_are_filled_in() {
        let plan = plan("namespaces = ['mem:1MiB', 'file:/a']").unwrap();
        assert_eq!(plan.listen, ["127.0.0.1:4420".parse().unwrap()]);
        assert_eq!((plan.shards, plan.poll), (1, Poll::Adaptive));
        let subsystem = &plan.subsystems[0];
        assert!(subsystem.header_digest && subsystem.data_digest);
        let ids: Vec<_> = subsystem.namespaces.iter().map(|n| (n.nsid, n.block)).collect();
        assert_eq!(ids, [(1, Some(BlockSize::B4096)), (2, Some(BlockSize::B4096))]);
    }

    #[test]
    fn subsystems_are_spread_over_shards_and_inherit_the_top() {
        let plan = plan(
            "data-digest = 'off'\nblock-size = 512\nallow-host = ['nqn.x']\n\
             [[subsystem]]\nnamespaces = ['mem:1MiB']\ndata-digest = 'on'\n\
             [[subsystem]]\nnamespaces = ['mem:2MiB']\nallow-host = []\n\
             [[subsystem]]\nnamespaces = ['mem:3MiB']",
        )
        .unwrap();
        let homes: Vec<_> = plan.subsystems.iter().map(|s| s.home).collect();
        assert_eq!((plan.shards, homes.as_slice()), (3, &[0, 1, 2][..]));
        let digests: Vec<_> = plan.subsystems.iter().map(|s| s.data_digest).collect();
        assert_eq!(digests, [true, false, false]);
        assert!(plan.subsystems[1].allowed_hosts.is_empty());
        assert_eq!(plan.subsystems[2].allowed_hosts, ["nqn.x"]);
        assert!(plan.namespaces().all(|(_, n)| n.block == Some(BlockSize::B512)));
    }

    #[test]
    fn paths_are_said_for_each_subsystem_or_for_all() {
        let plan = plan(
            "cntlids = '10-19'\nana-state = 'inaccessible'\nnamespaces = ['mem:1MiB']\n\
             [[subsystem]]\nnamespaces = ['mem:2MiB']\ncntlids = '7-7'\nana-state = 'optimized'",
        )
        .unwrap();
        let standby = Paths { cntlid_min: 10, cntlid_max: 19, state: AnaState::Inaccessible };
        let own = Paths { cntlid_min: 7, cntlid_max: 7, state: AnaState::Optimized };
        let paths: Vec<_> = plan.subsystems.iter().map(|subsystem| subsystem.paths).collect();
        assert_eq!((plan.manners.paths, paths), (standby, vec![standby, own]));
    }

    #[test]
    fn an_engine_may_begin_with_pools_or_with_nothing() {
        let nothing = plan("").unwrap();
        assert_eq!((nothing.shards, nothing.subsystems.len(), nothing.pools.len()), (4, 0, 0));
        let pools = plan("namespaces = ['pool:/a', 'mem:1MiB', 'pool:/b?share=none']").unwrap();
        assert_eq!((pools.shards, pools.subsystems.len()), (3, 1));
        let shares: Vec<_> = pools.pools.iter().map(|pool| pool.shares).collect();
        assert_eq!(shares, [true, false]);
    }

    #[test]
    fn ids_asked_for_are_kept_and_the_others_fill_the_gaps() {
        let plan = plan("namespaces = ['mem:1MiB', 'mem:1MiB?nsid=1', 'mem:1MiB']").unwrap();
        let ids: Vec<_> = plan.namespaces().map(|(_, n)| n.nsid).collect();
        assert_eq!(ids, [1, 2, 3]);
    }

    #[test]
    fn what_does_not_fit_together_is_said() {
        let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
        for (text, expected) in [
            ("namespaces = ['pool:/a', 'pool:/a?share=none']", "pool /a is named twice"),
            ("boot-id-file = '/a'", "--allow-injection"),
            ("namespaces = ['file:/a', 'file:/a?block=512']", "two namespaces on file:/a"),
            ("namespaces = ['/dev/x', 'dev:/dev/x']", "two namespaces on dev:/dev/x"),
            ("namespaces = ['mem:1MiB?nsid=2', 'mem:1MiB?nsid=2']", "nsid=2"),
            (&format!("namespaces = ['mem:1MiB?uuid={uuid}', 'file:/a?uuid={uuid}']"), "one uuid"),
            ("namespaces = ['mem:1MiB?inject=read,error']", "--allow-injection"),
            ("namespaces = ['mem:1MiB?lose-unflushed=1']", "--allow-injection"),
            ("referral = ['127.0.0.1:4420']", "this engine itself"),
            ("referral = ['10.0.0.1:0']", "no address to connect to"),
            ("referral = ['10.0.0.1:1', '10.0.0.1:1']", "given twice"),
            ("cntlids = '9-3'\nnamespaces = ['mem:1MiB']", "MIN-MAX"),
            ("cntlids = '0-3'\nnamespaces = ['mem:1MiB']", "MIN-MAX"),
            ("cntlids = '1-65520'\nnamespaces = ['mem:1MiB']", "MIN-MAX"),
            ("namespaces = ['mem:512']", "not a multiple of the block size 4096"),
            ("namespaces = ['mem:1MiB']\nshards = 0", "between 1 and 64"),
            ("namespaces = ['mem:1MiB']\nlisten = ['[::1]:1', '[::1]:1']", "given twice"),
            ("[[subsystem]]\nnqn = 'nqn.a'", "nqn.a has no namespaces"),
            (
                "nqn = 'nqn.a'\nnamespaces = ['mem:1MiB']\n\
                 [[subsystem]]\nnqn = 'nqn.a'\nnamespaces = ['mem:2MiB']",
                "two subsystems are named nqn.a",
            ),
            ("nqn = 'nqn.2014-08.org.nvmexpress.discovery'\nnamespaces = ['mem:1MiB']", "reserved"),
        ] {
            let error = plan(text).unwrap_err();
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
    }
}
