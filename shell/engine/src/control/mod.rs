//! The engine's way to the control plane: it reports, obeys orders about replicas, passes orders
//! about volumes on, and changes their records.
//!
//! Whoever runs volumes has a [`Link`]: typed commands in, events out. What the control plane
//! does not answer in time is Unknown: the volume asks again, the same.
//!
//! Invariants:
//! 1. Nothing here waits for a shard, and no shard waits for anything here: both ends are bounded
//!    queues, and what does not fit is answered as if nobody had answered.
//! 2. An order is carried out once, however often it comes; it is answered as often as it comes.
//! 3. What an order changed is reported before it is said to be done.

mod membership;
mod orders;
mod report;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use braid_api::control as wire;
use braid_nexus::{Record, Swapped, Uuid};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::transport::{Channel, Endpoint};

use crate::error::{Error, Result};
use crate::manage::host::Host;
use crate::manage::manager::Manager;
use crate::manage::names;
use crate::serve::identity;

/// Commands and events that wait, at most: a record change and an order for each of a few hundred
/// volumes.
const WAITING_MAX: usize = 1024;
/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a control plane that says nothing is asked whether it is there, also while idle: one
/// that vanished would hold the stream for ever.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// How long it may take to answer that.
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(3);

/// Where the control plane is, and who this engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it listens.
    pub control: SocketAddr,
    /// The name of this node, its own among all engines.
    pub node: String,
}

/// What whoever runs volumes asks for.
#[derive(Clone, Debug)]
pub enum Command {
    /// Read a record. Ends with [`Event::Fetched`].
    Fetch {
        /// Of which volume.
        volume: Uuid,
    },
    /// Put `new` in the place of `old`. Ends with [`Event::Swapped`].
    Swap {
        /// Of which volume.
        volume: Uuid,
        /// Comes back.
        number: u64,
        /// What is expected to be there.
        old: Box<Record>,
        /// What shall be there.
        new: Box<Record>,
    },
    /// An order ended.
    Ended {
        /// As given by [`Event::Order`].
        order: Uuid,
        /// What came of it.
        result: Result<(), Refused>,
    },
    /// This engine's parts in volumes are these now, and no others.
    Paths(Vec<wire::Path>),
    /// This engine was told to stop: others are to serve what it serves. Orders to hand over
    /// follow.
    Leaving,
    /// A replica obeys this fence and has this copy of the record.
    Copy {
        /// Which replica.
        replica: Uuid,
        /// Epoch of the fence.
        fence: u64,
        /// The copy.
        record: Option<Box<Record>>,
    },
}

/// Why an order was not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As a status of gRPC.
    pub code: tonic::Code,
    /// For people.
    pub text: String,
}

/// What whoever runs volumes is told.
#[derive(Clone, Debug)]
pub enum Event {
    /// The record, if the control plane could be asked.
    Fetched {
        /// Of which volume.
        volume: Uuid,
        /// As it is.
        record: Option<Box<Record>>,
    },
    /// A change ended.
    Swapped {
        /// Of which volume.
        volume: Uuid,
        /// As given.
        number: u64,
        /// What is known.
        outcome: Swapped,
    },
    /// Something is to be done; ends with [`Command::Ended`].
    Order {
        /// Names the order.
        order: Uuid,
        /// Which volume.
        volume: Uuid,
        /// What.
        what: Order,
    },
    /// Where the replicas and paths of volumes are, of all that this engine has something of.
    Topology(wire::Topology),
}

/// What is to be done about a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Own it.
    TakeOver {
        /// The owner's name, never used before.
        owner: Uuid,
        /// With the members that answer, whatever may be lost.
        force: bool,
    },
    /// Leave in order, and stand by.
    HandOver,
    /// Bring a replica back.
    Return {
        /// Which.
        replica: Uuid,
    },
    /// Let hosts connect, and serve nothing.
    Standby,
    /// Have no part in it any more.
    Withdraw,
    /// What its owner alone can do.
    Owner(braid_nexus::Command),
}

/// The way to the control plane and back.
#[derive(Debug)]
pub struct Link {
    /// What is asked for.
    pub commands: mpsc::Sender<Command>,
    /// What is told. If it is dropped, orders about volumes are refused.
    pub events: mpsc::Receiver<Event>,
}

/// What was counted.
#[derive(Debug, Default)]
pub struct Figures {
    /// 1 while the stream stands.
    pub connected: AtomicU64,
    /// Streams that were made.
    pub connects: AtomicU64,
    /// Orders that came.
    pub orders: AtomicU64,
    /// Of these, refused or failed.
    pub orders_failed: AtomicU64,
    /// Changes of records that were asked for.
    pub swaps: AtomicU64,
    /// Of these, of unknown outcome.
    pub swaps_unknown: AtomicU64,
    /// Records that were asked for.
    pub fetches: AtomicU64,
}

/// Starts the tasks, which end when they are aborted.
///
/// # Errors
/// When the kernel gives no random bytes.
pub fn start<H: Host>(
    place: &Place,
    manager: &Arc<Manager<H>>,
    figures: &Arc<Figures>,
) -> Result<(Link, Vec<JoinHandle<()>>)> {
    let channel = channel(place)?;
    let (commands, asked) = mpsc::channel(WAITING_MAX);
    let (events, told) = mpsc::channel(WAITING_MAX);
    let process = names::random().map_err(|status| Error::run(status.message()))?;
    let hello = hello(place, &manager.settings, process);
    let (changes, changed) = mpsc::channel(WAITING_MAX);
    let membership =
        membership::Membership::new(channel.clone(), events.clone(), Arc::clone(figures));
    let router = tokio::spawn(membership::route(asked, membership, changes));
    let orders = orders::Orders::new(Arc::clone(manager), events, Arc::clone(figures));
    let stream = stream::Attendance::new(channel, hello, orders, Arc::clone(figures));
    let attending = tokio::spawn(stream.run(changed));
    Ok((Link { commands, events: told }, vec![router, attending]))
}

fn channel(place: &Place) -> Result<Channel> {
    let uri = format!("http://{}", place.control);
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|error| Error::usage(format!("--control {}: {error}", place.control)))?;
    Ok(endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER)
        .keep_alive_while_idle(true)
        .connect_lazy())
}

fn hello(
    place: &Place,
    settings: &crate::manage::manager::Settings,
    process: [u8; 16],
) -> wire::Hello {
    let portals = settings.listen.iter().map(|portal| reachable(portal, place.control));
    wire::Hello {
        node: place.node.clone(),
        id: identity::node(&place.node).to_string(),
        boot: names::text(settings.boot_id),
        process: names::text(process),
        version: env!("CARGO_PKG_VERSION").into(),
        portals: portals.collect(),
    }
}

/// An address that others can connect to: one that stands for all of this machine's is told as the
/// one by which the control plane is reached.
fn reachable(portal: &str, control: SocketAddr) -> String {
    let Ok(mut address) = portal.parse::<SocketAddr>() else { return portal.into() };
    if address.ip().is_unspecified() {
        let any: SocketAddr = match control {
            SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            SocketAddr::V6(_) => ([0; 16], 0).into(),
        };
        // Nothing is sent: the kernel only chooses a way.
        let own = std::net::UdpSocket::bind(any).and_then(|socket| {
            socket.connect(control)?;
            socket.local_addr()
        });
        if let Ok(own) = own {
            address.set_ip(own.ip());
        }
    }
    address.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portal_that_means_all_addresses_is_told_as_one_that_can_be_reached() {
        let control = "127.0.0.1:4440".parse().unwrap();
        assert_eq!(reachable("0.0.0.0:4420", control), "127.0.0.1:4420");
        assert_eq!(reachable("192.0.2.1:4420", control), "192.0.2.1:4420");
    }
}
