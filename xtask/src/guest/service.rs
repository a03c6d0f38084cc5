//! The engines that a scenario talks to: started with free ports, or on nodes of a network and
//! under a control plane; killed, paused, cut off, stopped, looked at.

use super::campaign::bound;
use super::control::Control;
use crate::engine::Engine;
use crate::fault::{Explain, Fault, Outcome};
use crate::network::{self, Network};
use crate::{process, workspace};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// The programs that are tried.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    /// `braid-engine`.
    pub(crate) engine: PathBuf,
    /// `braid-control`.
    pub(crate) control: PathBuf,
}

/// Where hosts reach an engine that has an address of its own.
const PORT: u16 = 4420;

/// An engine as a scenario describes it. `{disks}` in a namespace is the folder of its files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// What the scenario's script calls it; its variables begin with this name in capitals.
    pub(crate) name: &'static str,
    /// The namespaces to serve, as the command line names them.
    pub(crate) namespaces: &'static [&'static str],
    /// The size of a pool that it holds besides, made anew for the scenario.
    pub(crate) pool: Option<&'static str>,
    /// More options of `serve`; `{other}` is a second address to listen on.
    pub(crate) options: &'static [&'static str],
    /// The node of the network that it runs on, with an address of its own, under the scenario's
    /// control plane.
    pub(crate) node: Option<u8>,
}

/// One engine of a scenario, running or not.
#[derive(Debug)]
struct Service {
    plan: Plan,
    nqn: String,
    address: SocketAddrV4,
    /// The port of a second listener, for those that have one.
    other: u16,
    log: PathBuf,
    /// Where it is managed.
    socket: PathBuf,
    /// The file of its pool, if it has one.
    pool: Option<PathBuf>,
    running: Option<Engine>,
}

/// All engines of one scenario. Dropping them kills what still runs.
#[derive(Debug)]
pub(crate) struct Services {
    programs: Programs,
    network: Option<Rc<Network>>,
    disks: PathBuf,
    all: Vec<Service>,
    /// The control plane of those that run on nodes.
    control: Option<Control>,
}

impl Services {
    /// Starts every engine that a scenario names.
    pub(crate) fn start(
        programs: Programs,
        network: Option<Rc<Network>>,
        scenario: &str,
        plans: &[Plan],
    ) -> Outcome<Self> {
        let disks = workspace::folder("guest/disks")?;
        let mut services = Services { programs, network, disks, all: Vec::new(), control: None };
        for plan in plans {
            services.all.push(services.describe(scenario, *plan)?);
        }
        services.remove_files()?;
        if plans.iter().any(|plan| plan.node.is_some()) {
            let program = &services.programs.control;
            services.control = Some(Control::start(program, services.network()?, scenario)?);
        }
        for place in 0..services.all.len() {
            services.launch(place)?;
            services.make_pool(place)?;
        }
        Ok(services)
    }

    fn describe(&self, scenario: &str, plan: Plan) -> Outcome<Service> {
        let log = workspace::folder("guest")?.join(format!("engine-{scenario}-{}.log", plan.name));
        let _ = fs::remove_file(&log);
        let (port, other) = (free_port()?, free_port()?);
        let address = match plan.node {
            Some(node) => {
                // An earlier scenario may have ended while it was cut off.
                self.network()?.mend(node)?;
                SocketAddrV4::new(network::address(node), PORT)
            }
            None => SocketAddrV4::new(Ipv4Addr::LOCALHOST, port),
        };
        Ok(Service {
            plan,
            nqn: format!("nqn.2026-11.io.braid:{scenario}-{}", plan.name),
            address,
            other,
            log,
            // The kernel takes no long name for a socket, and the workspace may have one.
            socket: std::env::temp_dir().join(format!("braid-guest-{port}.sock")),
            pool: plan.pool.map(|_| self.disks.join(format!("{scenario}-{}.pool", plan.name))),
            running: None,
        })
    }

    fn network(&self) -> Outcome<&Network> {
        self.network.as_deref().ok_or_else(|| Fault::new("this needs a network of its own"))
    }

    /// The variables that tell the scenario's script where the engines are.
    pub(crate) fn settings(&self) -> String {
        let each = self.all.iter().map(|service| {
            let name = service.plan.name.to_uppercase();
            let (address, port) = (service.address.ip(), service.address.port());
            let (nqn, other) = (&service.nqn, service.other);
            format!(
                "{name}_ADDR={address} {name}_PORT={port} {name}_OTHER={other} {name}_NQN={nqn}"
            )
        });
        each.collect::<Vec<_>>().join(" ")
    }

    /// The logs of the engines and of their control plane.
    pub(crate) fn logs(&self) -> impl Iterator<Item = &Path> {
        let engines = self.all.iter().map(|service| service.log.as_path());
        engines.chain(self.control.iter().map(Control::log))
    }

    /// Does what the guest asked for and gives the answer.
    pub(crate) fn answer(&mut self, question: &[String]) -> Outcome<String> {
        let words: Vec<&str> = question.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["kill", name] => self.kill(self.place(name)?),
            ["start", name] => {
                let began = Instant::now();
                self.launch(self.place(name)?)?;
                Ok(format!("{} ms", began.elapsed().as_millis()))
            }
            ["stop", name] => self.stop(self.place(name)?),
            ["pause", name] => self.pause(self.place(name)?, true),
            ["resume", name] => self.pause(self.place(name)?, false),
            ["cut", name] => self.network()?.cut(self.node(name)?).map(|()| "cut off".to_owned()),
            ["mend", name] => self.network()?.mend(self.node(name)?).map(|()| "mended".to_owned()),
            ["control", rest @ ..] => {
                let control = self.control.as_ref();
                let control = control.ok_or_else(|| Fault::new("there is no control plane"))?;
                control.manage(self.network()?, rest).map(|said| one_line(&said))
            }
            ["manage", name, rest @ ..] => self.manage(self.place(name)?, rest),
            ["verify", name] => self.verify(self.place(name)?),
            ["blocks", name] => self.blocks(self.place(name)?).map(|count| count.to_string()),
            _ => Err(Fault::new(format!("nobody here can {}", question.join(" ")))),
        }
    }

    /// Stops what runs and removes the files; says what did not end as it should.
    pub(crate) fn finish(mut self) -> Outcome<()> {
        let mut outcome = Ok(());
        for place in 0..self.all.len() {
            if self.all[place].running.is_some() {
                outcome = outcome.and(self.stop(place).map(drop));
            }
        }
        // Last of all: engines tell it that they go.
        if let Some(control) = self.control.take() {
            outcome = outcome.and(control.stop());
        }
        outcome.and(self.remove_files())
    }

    fn place(&self, name: &str) -> Outcome<usize> {
        let found = self.all.iter().position(|service| service.plan.name == name);
        found.ok_or_else(|| Fault::new(format!("this scenario has no engine {name}")))
    }

    fn node(&self, name: &str) -> Outcome<u8> {
        let node = self.all[self.place(name)?].plan.node;
        node.ok_or_else(|| Fault::new(format!("{name} runs on no node")))
    }

    fn launch(&mut self, place: usize) -> Outcome<()> {
        let arguments = self.arguments(place)?;
        let engine = &self.programs.engine;
        let mut command = match self.all[place].plan.node {
            Some(node) => self.network()?.bound_on(node, engine)?,
            None => bound(self.network.as_deref(), engine),
        };
        let service = &mut self.all[place];
        service.running = Some(Engine::start(command.args(arguments), &service.log)?);
        Ok(())
    }

    fn arguments(&self, place: usize) -> Outcome<Vec<String>> {
        let disks = self.disks.display().to_string();
        let service = &self.all[place];
        let mut arguments: Vec<String> = vec!["serve".into()];
        arguments.extend(service.plan.namespaces.iter().map(|uri| uri.replace("{disks}", &disks)));
        // It is made by the first one that runs, and imported by those that follow.
        let pool = service.pool.as_ref().filter(|path| path.exists());
        arguments.extend(pool.map(|path| format!("pool:{}", path.display())));
        arguments.extend(["--listen".into(), service.address.to_string()]);
        arguments.extend(["--socket".into(), service.socket.display().to_string()]);
        arguments.extend(["--state-dir".into(), format!("{}.state", service.log.display())]);
        if !service.plan.namespaces.is_empty() {
            arguments.extend(["--nqn".into(), service.nqn.clone()]);
        }
        if service.plan.node.is_some() {
            let control = self.control.as_ref().map(Control::address);
            let control = control.ok_or_else(|| Fault::new("there is no control plane"))?;
            arguments.extend(["--control".into(), control.to_string()]);
            arguments.extend(["--node".into(), service.plan.name.to_owned()]);
            arguments.extend(["--shards".into(), "1".into()]);
        }
        let other = SocketAddrV4::new(Ipv4Addr::LOCALHOST, service.other).to_string();
        let options = service.plan.options.iter().map(|option| option.replace("{other}", &other));
        arguments.extend(options);
        Ok(arguments)
    }

    fn make_pool(&self, place: usize) -> Outcome<()> {
        let service = &self.all[place];
        let (Some(path), Some(size)) = (&service.pool, service.plan.pool) else {
            return Ok(());
        };
        let path = path.display().to_string();
        self.manage(place, &["pool", "create", &path, "--size", size, "--sparse"]).map(drop)
    }

    /// Has an engine managed as its owner would, and gives the answer on one line.
    fn manage(&self, place: usize, words: &[&str]) -> Outcome<String> {
        let mut command = Command::new(&self.programs.engine);
        command.args(words).args(["--output", "json", "--socket"]).arg(&self.all[place].socket);
        process::read(&mut command).map(|said| one_line(&said))
    }

    /// Looks through the pool of an engine that does not run.
    fn verify(&self, place: usize) -> Outcome<String> {
        let path = self.all[place].pool.as_ref().ok_or_else(|| Fault::new("it has no pool"))?;
        let mut command = Command::new(&self.programs.engine);
        command.arg("verify").arg(path).args(["--output", "json"]);
        process::read(&mut command).map(|said| one_line(&said))
    }

    fn kill(&mut self, place: usize) -> Outcome<String> {
        match self.all[place].running.take() {
            Some(engine) => engine.kill().map(|()| "killed".to_owned()),
            None => Err(Fault::new("it does not run")),
        }
    }

    fn pause(&self, place: usize, paused: bool) -> Outcome<String> {
        let engine = self.all[place].running.as_ref();
        engine.ok_or_else(|| Fault::new("it does not run"))?.pause(paused);
        Ok(if paused { "paused" } else { "goes on" }.to_owned())
    }

    fn stop(&mut self, place: usize) -> Outcome<String> {
        let service = &mut self.all[place];
        let engine = service.running.take().ok_or_else(|| Fault::new("it does not run"))?;
        engine.pause(false);
        let took = engine.stop()?;
        Ok(format!("{} ms", took.as_millis()))
    }

    /// How many blocks of 512 bytes the engine's files take on the machine's disk.
    fn blocks(&self, place: usize) -> Outcome<u64> {
        let mut sum = 0;
        for path in self.files(place) {
            let seen = fs::metadata(&path).explain(|| format!("cannot see {}", path.display()))?;
            sum += seen.blocks();
        }
        Ok(sum)
    }

    fn files(&self, place: usize) -> impl Iterator<Item = PathBuf> {
        let disks = self.disks.display().to_string();
        let service = &self.all[place];
        let named = service.plan.namespaces.iter().filter_map(move |uri| {
            let path = uri.strip_prefix("file:")?.replace("{disks}", &disks);
            Some(PathBuf::from(path.split('?').next().unwrap_or_default()))
        });
        named.chain(service.pool.clone())
    }

    fn remove_files(&self) -> Outcome<()> {
        for place in 0..self.all.len() {
            for path in self.files(place).filter(|path| path.exists()) {
                fs::remove_file(&path).explain(|| format!("cannot remove {}", path.display()))?;
            }
            let _ = fs::remove_dir_all(format!("{}.state", self.all[place].log.display()));
            let _ = fs::remove_file(&self.all[place].socket);
        }
        Ok(())
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Ports below those that the kernel gives to anyone who connects: while an engine is away, nobody
/// else gets its port by chance.
const PORTS: std::ops::Range<u16> = 21_000..32_000;

/// A TCP port of the loopback that nobody uses now, and that we did not give before.
fn free_port() -> Outcome<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let width = u32::from(PORTS.end - PORTS.start);
    for _ in 0..width {
        let step =
            std::process::id().wrapping_mul(16).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from(step % width).unwrap_or(0);
        let port = PORTS.start + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Fault::new("no free TCP port on 127.0.0.1"))
}
