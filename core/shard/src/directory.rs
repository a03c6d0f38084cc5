//! What discovery tells: the subsystems served here, those of other engines that the management
//! knows of, and other discovery services; to each host what it may see and can reach.
//!
//! Invariants:
//! 1. A host hears of nothing that it may not connect to, and of no change of that.
//! 2. GENCTR counts the changes, so that it never goes back, and is the same at every shard of an
//!    engine.
//! 3. No entry refers a host to where it is.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

use braid_nvme::connect::Nqn;
use braid_nvme::target::{Directory, Listed, Notice, Portal};

use crate::Shard;
use crate::authentication::Keyring;
use crate::config::SubsystemConfig;
use crate::conn::Conn;

/// PORTIDs from here on are those of portals of other engines.
const ELSEWHERE_PORTS: u16 = 0x8000;

/// A place outside of this engine that its discovery service tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elsewhere {
    /// The NVM subsystem that is served there; none: a discovery service that knows more.
    pub nqn: Option<Nqn>,
    /// Where.
    pub address: SocketAddr,
    /// Hosts that may see it; none listed: all may.
    pub allowed_hosts: Vec<String>,
}

impl Elsewhere {
    fn admits(&self, host: &Nqn) -> bool {
        admits(&self.allowed_hosts, host)
    }

    /// Its portal, with a number that follows from the address: every engine tells the same.
    fn portal(&self) -> Portal {
        let low = fnv(self.address.to_string().bytes()).to_le_bytes();
        let id = ELSEWHERE_PORTS | u16::from_le_bytes([low[0], low[1]]);
        Portal { id, address: self.address }
    }
}

/// Whether a list of hosts has this one, or is none.
pub(crate) fn admits(hosts: &[String], host: &Nqn) -> bool {
    hosts.is_empty() || hosts.iter().any(|allowed| allowed == host.as_str())
}

/// The discovery log's content, as it is while one command is carried out.
pub(crate) struct Listing<'a> {
    pub(crate) subsystems: &'a [SubsystemConfig],
    pub(crate) names: &'a [Nqn],
    pub(crate) elsewhere: &'a [Elsewhere],
    pub(crate) keyring: &'a Keyring,
    pub(crate) generation: u64,
    /// Where its host came in; none: nobody is asking for discovery.
    pub(crate) sight: Option<Sight>,
}

impl Directory for Listing<'_> {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn is_same_everywhere(&self) -> bool {
        self.sight.as_ref().is_some_and(|sight| sight.same_everywhere)
    }

    fn entries(&self, host: &Nqn, each: &mut dyn FnMut(Listed<'_>)) {
        for (subsystem, name) in self.subsystems.iter().zip(self.names) {
            let known = self.keyring.admits(&subsystem.allowed_hosts, host);
            if subsystem.is_listed() && known {
                each(Listed::Here(name));
            }
        }
        let shown = |place: &&Elsewhere| {
            let seen = self.sight.as_ref().is_none_or(|sight| sight.shows(place.address));
            seen && self.keyring.admits(&place.allowed_hosts, host)
        };
        for place in self.elsewhere.iter().filter(shown) {
            each(match &place.nqn {
                Some(nqn) => Listed::There(nqn, place.portal()),
                None => Listed::Referral(place.portal()),
            });
        }
    }
}

/// What a host sees of our portals by the one that it came by.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// The address it came to.
    came_to: IpAddr,
    /// Our portals that it can reach, with that address in the place of a wildcard.
    pub(crate) portals: Vec<Portal>,
    /// It would see the same by each of them.
    same_everywhere: bool,
}

impl Sight {
    /// By the portal at this position, at this address of it.
    fn new(all: &[Portal], position: usize, came_to: IpAddr) -> Self {
        let portals = reached(all, position, came_to);
        let same = |portal: &Portal| {
            let at = all.iter().position(|known| known.id == portal.id);
            at.is_some_and(|at| reached(all, at, portal.address.ip()) == portals)
        };
        let same_everywhere = portals.iter().all(same);
        Self { came_to, portals, same_everywhere }
    }

    /// What the host of a connection sees.
    pub(crate) fn of(all: &[Portal], conn: &Conn) -> Option<Self> {
        let position = usize::from(conn.listener);
        let bound = all.get(position)?.address.ip();
        let came_to = conn.local.as_deref().map_or(bound, SocketAddr::ip);
        Some(Self::new(all, position, came_to))
    }

    /// Whether an address of another engine is worth telling: neither one of ours, nor one that
    /// means another machine to whoever came from outside.
    fn shows(&self, address: SocketAddr) -> bool {
        let ours = self.portals.iter().any(|portal| portal.address == address);
        !ours && reaches(self.came_to, address.ip())
    }
}

/// Whether who came to one address can be expected to reach another one: nobody from outside
/// reaches an address of this machine alone.
fn reaches(came_to: IpAddr, other: IpAddr) -> bool {
    came_to.is_unspecified() || came_to.is_loopback() || !other.is_loopback()
}

/// The portals that are reached by who came to this address of the one at `position`.
fn reached(all: &[Portal], position: usize, came_to: IpAddr) -> Vec<Portal> {
    let seen = |(at, portal): (usize, &Portal)| {
        let ip = portal.address.ip();
        let mine = at == position;
        let ip = match ip {
            _ if mine => came_to,
            // A socket bound to [::] takes IPv4 too.
            IpAddr::V4(ip) if ip.is_unspecified() && came_to.is_ipv6() => return None,
            ip if ip.is_unspecified() => came_to,
            // What such an address means depends on the link that one is at.
            IpAddr::V6(ip) if is_link_local(&ip) => return None,
            ip => ip,
        };
        let address = match portal.address {
            // The scope goes with the address.
            SocketAddr::V6(_) if ip == portal.address.ip() => portal.address,
            bound => SocketAddr::new(ip, bound.port()),
        };
        (mine || reaches(came_to, ip)).then_some(Portal { address, ..*portal })
    };
    all.iter().enumerate().filter_map(seen).collect()
}

const fn is_link_local(ip: &Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// FNV-1a: text as a number, the same at every engine.
pub(crate) fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Shard {
    /// Tells what there is outside of this engine, in the place of what was said before; hosts
    /// that see something else then are told. Every shard is to be told the same, in one order.
    pub fn elsewhere_set(&mut self, elsewhere: Vec<Elsewhere>) {
        if elsewhere == self.elsewhere {
            return;
        }
        let old = core::mem::replace(&mut self.elsewhere, elsewhere);
        self.generation += 1;
        let Some(discovery) = self.subsystems.first_mut() else { return };
        for (_, association) in discovery.controllers.iter_mut() {
            let host = association.controller.hostnqn();
            let seen = |list: &[Elsewhere]| -> Vec<(Option<Nqn>, SocketAddr)> {
                let mine = list.iter().filter(|place| place.admits(host));
                mine.map(|place| (place.nqn, place.address)).collect()
            };
            if seen(&old) != seen(&self.elsewhere) {
                association.controller.raise(Notice::DiscoveryLog);
            }
        }
        self.events = true;
    }

    /// The discovery log is another one for the hosts that may see this subsystem.
    pub(crate) fn tell_discovery(&mut self, changed: &SubsystemConfig) {
        let Some(discovery) = self.subsystems.first_mut() else { return };
        for (_, association) in discovery.controllers.iter_mut() {
            if changed.is_listed() && changed.admits(association.controller.hostnqn()) {
                association.controller.raise(Notice::DiscoveryLog);
            }
        }
        self.events = true;
    }
}
