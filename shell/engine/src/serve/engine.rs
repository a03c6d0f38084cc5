//! An engine's life on the management thread: start, signals, metrics, stop.

use std::future::pending;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use braid_reactor::{ListenError, Listener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::control;
use crate::error::{Error, Result};
use crate::manage::host::Told;
use crate::manage::manager::{Manager, Settings};
use crate::manage::serving::Doors;
use crate::manage::socket::{self, Socket};
use crate::serve::config::Shards;
use crate::serve::exporter::Exporter;
use crate::serve::holder::{self, Holder};
use crate::serve::options::Options;
use crate::serve::plan::Plan;
use crate::serve::reload::Reload;
use crate::serve::server::Tellers;
use crate::serve::threads::{Ended, Threads};
use crate::serve::wiring::Wires;
use crate::serve::{log, ready, state};
use crate::volumes;

/// Beyond the drain time that the shards keep themselves: for what is in flight in the kernel.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Notes of pools that wait for the management thread, half of them of floods at most.
const NOTES_WAITING_MAX: usize = 1024;

/// Volumes have so long to leave in order before an engine ends: their hosts wait meanwhile.
const LEAVE: Duration = Duration::from_secs(5);

/// What volumes ask and tell, by shard.
type VolumeNews = mpsc::UnboundedReceiver<(u16, braid_shard::Told)>;

/// Signals that an engine listens to.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
enum Asked {
    /// An orderly stop; the second time, the end.
    Stop(&'static str),
    /// To read the configuration again.
    Reload,
}

/// Serves `plan` until it is told to stop. `line` is what it follows from, with the file that is
/// read again on SIGHUP.
///
/// # Errors
/// When the machine does not allow it, when a shard fails, or when the stop was not orderly.
pub fn run(plan: &Plan, line: Options, log: log::Handle) -> Result<()> {
    let listeners = bind(&plan.listen)?;
    let listen: Vec<_> = listeners.iter().map(Listener::address).collect();
    let mut shards = Shards::open(plan)?;
    shards.set_portals(&listen);
    let socket = socket(plan)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::run(format!("cannot start the management thread: {error}")))?;
    let served = runtime.block_on(async {
        let signals = Signals::new()?;
        let exporter = Exporter::bind(plan.metrics).await?;
        let tcp = Doors::bind_tcp(plan.management).await?;
        let (pools, told) = mpsc::channel(NOTES_WAITING_MAX);
        let (tells, news) = mpsc::unbounded_channel();
        let (keeper, asked) = mpsc::unbounded_channel();
        let state = shards.state.take().map(Arc::new);
        let settings = settings(plan, &listen, shards.reactor.boot_id, state.clone());
        let tellers = Tellers { pools, volumes: tells, keeper };
        let threads = Threads::start(shards, listeners, &tellers)?;
        if let Some(state) = state {
            tokio::spawn(state::serve(state, asked, threads.remotes.clone()));
        }
        let allotted = Arc::clone(&settings.allotted);
        let wires = Wires::new(threads.remotes.clone(), plan.manners, allotted);
        let manager = Arc::new(Manager::new(wires, settings));
        tokio::spawn(hear(Arc::clone(&manager), told));
        manager.tell_elsewhere(Vec::new()).await;
        let shared = import(plan, &manager).await?;
        let mut doors = Doors { socket, tcp };
        let mut answering = doors.open(&manager)?;
        let cluster = attend(plan, &manager, news, &mut answering)?;
        announce(plan, &listen, shared);
        let reload = Reload::new(line, log, plan.host_keys.is_some());
        let served = Served { signals, exporter, reload, answering, cluster };
        manage(plan, threads, served).await
    });
    // A disk that somebody waits for must not hold the end.
    runtime.shutdown_background();
    served
}

/// Passes on what pools tell.
async fn hear(manager: Arc<Manager<Wires>>, mut told: mpsc::Receiver<Told>) {
    while let Some(told) = told.recv().await {
        manager.told(told);
    }
}

/// What is served beside the shards.
struct Served {
    signals: Signals,
    exporter: Option<Exporter>,
    reload: Reload,
    /// The doors of the management, and the way to the control plane.
    answering: Vec<JoinHandle<()>>,
    cluster: Cluster,
}

/// The engine's part in a cluster: the way to the control plane, and the volumes that it orders.
#[derive(Default)]
struct Cluster {
    /// What was counted on that way.
    figures: Option<Arc<control::Figures>>,
    /// Has volumes leave in order.
    leave: Option<volumes::Leave>,
}

/// Reports to the control plane, if there is one, and runs the volumes that it orders.
fn attend(
    plan: &Plan,
    manager: &Arc<Manager<Wires>>,
    told: VolumeNews,
    answering: &mut Vec<JoinHandle<()>>,
) -> Result<Cluster> {
    let Some(place) = &plan.control else { return Ok(Cluster::default()) };
    let figures = Arc::default();
    let (link, attending) = control::start(place, manager, &figures)?;
    answering.extend(attending);
    let (leave, running) = volumes::start(manager, &place.node, plan.rebuilds, link, told);
    answering.push(running);
    Ok(Cluster { figures: Some(figures), leave: Some(leave) })
}

/// Takes the management socket. An engine that serves plain namespaces alone can do without the
/// usual one, which another engine of this machine may have.
fn socket(plan: &Plan) -> Result<Option<Socket>> {
    let path = plan.socket.clone().unwrap_or_else(socket::default_path);
    let dispensable = plan.socket.is_none() && plan.pools.is_empty() && !plan.subsystems.is_empty();
    match Socket::bind(&path) {
        Ok(socket) => {
            tracing::info!(socket = %path.display(), "managed by its owner");
            Ok(Some(socket))
        }
        Err(reason) if dispensable => {
            let reason = Error::from(reason);
            tracing::warn!(%reason, "this engine cannot be managed");
            Ok(None)
        }
        Err(reason) => Err(reason.into()),
    }
}

fn settings(
    plan: &Plan,
    listen: &[SocketAddr],
    boot_id: [u8; 16],
    state: Option<Arc<state::State>>,
) -> Settings {
    Settings {
        owner: format!("braid-engine, process {} of {}", std::process::id(), host_name()),
        boot_id,
        allowed_hosts: plan.allowed_hosts.clone(),
        allows_injection: plan.allow_injection,
        listen: listen.iter().map(ToString::to_string).collect(),
        referrals: plan.referrals.clone(),
        state,
        allotted: Arc::default(),
    }
}

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

/// Imports the pools that the plan names; returns the names of what they share.
async fn import(plan: &Plan, manager: &Arc<Manager<Wires>>) -> Result<Vec<String>> {
    for pool in &plan.pools {
        if let Err(status) = manager.import(pool).await {
            manager.close_all().await;
            return Err(Error::run(status.message()).at(pool));
        }
    }
    Ok(manager.shared_names())
}

/// Takes every address, or none.
fn bind(addresses: &[SocketAddr]) -> Result<Vec<Listener>> {
    let in_use = |error: &ListenError| error.source.kind() == ErrorKind::AddrInUse;
    let bind = |&address: &SocketAddr| {
        let of_port = || holder::of_port(address);
        holder::patiently(|| Listener::bind(address), in_use, of_port)
            .map_err(|(error, holder)| taken(&error, holder))
    };
    addresses.iter().map(bind).collect()
}

fn taken(error: &ListenError, holder: Option<Holder>) -> Error {
    let ListenError { address, source } = error;
    let advice = match (source.kind(), holder) {
        (ErrorKind::AddrInUse, Some(holder)) => {
            format!("{holder} has it: stop that, or choose another --listen")
        }
        (ErrorKind::AddrInUse, None) => {
            "stop who has it (ss -ltnp shows who), or choose another --listen".into()
        }
        (ErrorKind::AddrNotAvailable, _) => {
            "no interface here has that address (ip address shows them)".into()
        }
        (ErrorKind::PermissionDenied, _) => {
            "ports below 1024 need CAP_NET_BIND_SERVICE; choose another".into()
        }
        _ => "choose another --listen".into(),
    };
    Error::run(format!("cannot listen at {address}: {source}; {advice}"))
}

fn announce(plan: &Plan, listen: &[SocketAddr], shared: Vec<String>) {
    let own = plan.subsystems.iter().map(|subsystem| subsystem.nqn.as_str());
    let nqns: Vec<_> = own.chain(shared.iter().map(String::as_str)).collect();
    let namespaces = plan.namespaces().count() + shared.len();
    for (subsystem, namespace) in plan.namespaces() {
        let uuid = uuid::Uuid::from_bytes(namespace.identity.uuid);
        tracing::info!(
            nqn = subsystem.nqn, nsid = namespace.nsid, %uuid, uri = %namespace.uri,
            shard = subsystem.home, "serving a namespace"
        );
    }
    ready::announce(&ready::line(&nqns, listen, namespaces));
}

/// Everything the management thread does while the shards run.
async fn manage(plan: &Plan, mut threads: Threads, served: Served) -> Result<()> {
    let Served { mut signals, exporter, mut reload, answering, cluster } = served;
    if let Some(exporter) = exporter {
        tokio::spawn(exporter.serve(threads.remotes.clone(), cluster.figures.clone()));
    }
    let mut left = threads.remotes.len();
    let mut deadline: Option<Instant> = None;
    while left > 0 {
        tokio::select! {
            Some(Ended { shard, result }) = threads.ended.recv() => {
                result?;
                if deadline.is_none() {
                    return Err(Error::run(format!("shard {shard} ended without being told to")));
                }
                left -= 1;
            }
            asked = signals.next() => match asked {
                Asked::Reload => reload.run(&threads.remotes),
                Asked::Stop(_) if deadline.is_some() => {
                    return Err(Error::run("a second signal ended it at once; I/O was cut off"));
                }
                Asked::Stop(signal) => {
                    tracing::info!(signal, "stopping");
                    ready::stopping();
                    if let Some(leave) = &cluster.leave
                        && !leave.all(Instant::now() + LEAVE).await
                    {
                        tracing::warn!("volumes did not leave in order in {LEAVE:?}");
                    }
                    // Who asks for something from now on must ask another engine.
                    answering.iter().for_each(JoinHandle::abort);
                    threads.stop();
                    deadline = Some(Instant::now() + plan.drain + DRAIN_SLACK);
                }
            },
            () = until(deadline) => {
                return Err(Error::run(format!(
                    "commands were still in flight {:?} after the stop; they were cut off",
                    plan.drain + DRAIN_SLACK
                )));
            }
        }
    }
    tracing::info!("stopped");
    Ok(())
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| {
            signal(kind).map_err(|error| Error::run(format!("cannot listen to signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next signal.
    async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.terminate.recv() => Asked::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Asked::Stop("SIGINT"),
            _ = self.hangup.recv() => Asked::Reload,
        }
    }
}

#[cfg(test)]
mod tests {
    use braid_reactor::{Options as ReactorOptions, Reactor, mesh};
    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;
    use crate::serve::file;
    use crate::serve::options::{Level, LogFormat};

    /// Manages a shard that never ends, and asks for the end `signals` times.
    fn manage_a_stuck_shard(drain: &str, signals: u32) -> String {
        let text = format!("namespaces = ['mem:1MiB']\ndrain = '{drain}'");
        let options = file::parse(&text).unwrap();
        let plan = Plan::new(options.clone(), "machine", 1).unwrap();
        let port = mesh(1).remove(0);
        let nothing = (Vec::new(), Vec::new(), Vec::new());
        let stuck =
            Reactor::new(ReactorOptions::default(), port, nothing.0, nothing.1, nothing.2).unwrap();
        let (_sender, ended) = mpsc::unbounded_channel();
        let threads = Threads { remotes: vec![stuck.remote()], ended };
        let reload = Reload::new(options, log::start(Level::Info, LogFormat::Text), false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let heard = Signals::new().unwrap();
            tokio::spawn(async move {
                for _ in 0..signals {
                    kill_process(getpid(), Number::TERM).unwrap();
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            });
            let served = Served {
                signals: heard,
                exporter: None,
                reload,
                answering: Vec::new(),
                cluster: Cluster::default(),
            };
            manage(&plan, threads, served).await.unwrap_err().to_string()
        })
    }

    /// One test, because signals are the whole process's.
    #[test]
    fn what_does_not_end_is_ended_by_a_second_signal_or_the_deadline() {
        let said = manage_a_stuck_shard("60s", 2);
        assert!(said.contains("second signal"), "{said}");
        let said = manage_a_stuck_shard("10ms", 1);
        assert!(said.contains("still in flight"), "{said}");
    }
}
