//! The engines that a scenario talks to: started with free ports, killed, stopped, looked at.

use crate::engine::Engine;
use crate::fault::{Explain, Fault, Outcome};
use crate::{process, workspace};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// An engine as a scenario describes it. `{disks}` in a namespace is the folder of its files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// What the scenario's script calls it; its variables begin with this name in capitals.
    pub(crate) name: &'static str,
    /// The namespaces to serve, as the command line names them.
    pub(crate) namespaces: &'static [&'static str],
    /// The size of a pool that it holds besides, made anew for the scenario.
    pub(crate) pool: Option<&'static str>,
    /// More options of `serve`.
    pub(crate) options: &'static [&'static str],
}

/// One engine of a scenario, running or not.
#[derive(Debug)]
struct Service {
    plan: Plan,
    nqn: String,
    port: u16,
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
    binary: PathBuf,
    disks: PathBuf,
    all: Vec<Service>,
}

impl Services {
    /// Starts every engine that a scenario names.
    pub(crate) fn start(binary: &Path, scenario: &str, plans: &[Plan]) -> Outcome<Self> {
        let disks = workspace::folder("guest/disks")?;
        let logs = workspace::folder("guest")?;
        let mut services =
            Services { binary: binary.to_path_buf(), disks, all: Vec::with_capacity(plans.len()) };
        for plan in plans {
            let log = logs.join(format!("engine-{scenario}-{}.log", plan.name));
            let _ = fs::remove_file(&log);
            let nqn = format!("nqn.2026-11.io.braid:{scenario}-{}", plan.name);
            let port = free_port()?;
            // The kernel takes no long name for a socket, and the workspace may have one.
            let socket = std::env::temp_dir().join(format!("braid-guest-{port}.sock"));
            let file = format!("{scenario}-{}.pool", plan.name);
            let pool = plan.pool.map(|_| services.disks.join(file));
            let service = Service { plan: *plan, nqn, port, log, socket, pool, running: None };
            services.all.push(service);
        }
        services.remove_files()?;
        for place in 0..services.all.len() {
            services.launch(place)?;
            services.make_pool(place)?;
        }
        Ok(services)
    }

    /// The variables that tell the scenario's script where the engines are.
    pub(crate) fn settings(&self) -> String {
        let each = self.all.iter().map(|service| {
            let name = service.plan.name.to_uppercase();
            format!("{name}_PORT={} {name}_NQN={}", service.port, service.nqn)
        });
        each.collect::<Vec<_>>().join(" ")
    }

    /// The engines' logs.
    pub(crate) fn logs(&self) -> impl Iterator<Item = &Path> {
        self.all.iter().map(|service| service.log.as_path())
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
            ["manage", name, rest @ ..] => self.manage(self.place(name)?, rest),
            ["verify", name] => self.verify(self.place(name)?),
            ["blocks", name] => self.blocks(self.place(name)?).map(|count| count.to_string()),
            _ => Err(Fault::new(format!("nobody here can {}", question.join(" ")))),
        }
    }

    /// Stops what runs and removes the files; says what did not end as it should.
    pub(crate) fn finish(mut self) -> Outcome<()> {
        for place in 0..self.all.len() {
            if self.all[place].running.is_some() {
                self.stop(place)?;
            }
        }
        self.remove_files()
    }

    fn place(&self, name: &str) -> Outcome<usize> {
        let found = self.all.iter().position(|service| service.plan.name == name);
        found.ok_or_else(|| Fault::new(format!("this scenario has no engine {name}")))
    }

    fn launch(&mut self, place: usize) -> Outcome<()> {
        let disks = self.disks.display().to_string();
        let service = &mut self.all[place];
        let mut arguments: Vec<String> = vec!["serve".into()];
        arguments.extend(service.plan.namespaces.iter().map(|uri| uri.replace("{disks}", &disks)));
        // It is made by the first one that runs, and imported by those that follow.
        let pool = service.pool.as_ref().filter(|path| path.exists());
        arguments.extend(pool.map(|path| format!("pool:{}", path.display())));
        arguments.extend(["--listen".into(), format!("127.0.0.1:{}", service.port)]);
        arguments.extend(["--socket".into(), service.socket.display().to_string()]);
        arguments.extend(["--state-dir".into(), format!("{}.state", service.log.display())]);
        if !service.plan.namespaces.is_empty() {
            arguments.extend(["--nqn".into(), service.nqn.clone()]);
        }
        arguments.extend(service.plan.options.iter().map(|option| (*option).to_owned()));
        service.running = Some(Engine::start_bound(&self.binary, &arguments, &service.log)?);
        Ok(())
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
        let mut command = Command::new(&self.binary);
        command.args(words).args(["--output", "json", "--socket"]).arg(&self.all[place].socket);
        process::read(&mut command).map(|said| one_line(&said))
    }

    /// Looks through the pool of an engine that does not run.
    fn verify(&self, place: usize) -> Outcome<String> {
        let path = self.all[place].pool.as_ref().ok_or_else(|| Fault::new("it has no pool"))?;
        let mut command = Command::new(&self.binary);
        command.arg("verify").arg(path).args(["--output", "json"]);
        process::read(&mut command).map(|said| one_line(&said))
    }

    fn kill(&mut self, place: usize) -> Outcome<String> {
        match self.all[place].running.take() {
            Some(engine) => engine.kill().map(|()| "killed".to_owned()),
            None => Err(Fault::new("it does not run")),
        }
    }

    fn stop(&mut self, place: usize) -> Outcome<String> {
        let service = &mut self.all[place];
        let engine = service.running.take().ok_or_else(|| Fault::new("it does not run"))?;
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
