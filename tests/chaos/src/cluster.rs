//! The processes: a control plane and three engines, each at a node of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::Outcome;
use crate::net::{BEHIND, CONTROL_PORT, ENGINES, Net, PORT, Place};
use crate::process::{kill, run, run_within, signal, wait_for};

/// The volume.
pub(crate) const VOLUME: &str = "data";
/// Its size, and that of a pool.
pub(crate) const VOLUME_BYTES: u64 = 64 << 20;
const POOL_SIZE: &str = "256MiB";
/// How long anything may take that takes a second or two when nothing is wrong.
const PATIENCE: Duration = Duration::from_secs(60);
/// A replica that takes all the space.
const BALLAST: &str = "ballast";
/// Bytes that a pool gives space by.
const CLUSTER: u64 = 256 << 10;
/// How long a process may take to end in order.
const STOP: Duration = Duration::from_secs(30);
/// How long the control plane may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The processes, and where everything is kept.
#[derive(Debug)]
pub(crate) struct Cluster {
    engine: PathBuf,
    control: PathBuf,
    folder: PathBuf,
    pub(crate) net: Net,
    engines: [Option<Child>; ENGINES],
    keeper: Option<Child>,
    /// How often each engine's machine was started.
    boots: [u32; ENGINES],
}

/// What the control plane says of the volume.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) state: String,
    /// The engine that serves.
    pub(crate) serves: Option<usize>,
    pub(crate) epoch: u64,
    /// Engines of the replicas that are members.
    pub(crate) members: Vec<usize>,
    /// Paths that are there, usable or not.
    pub(crate) paths: usize,
    /// Replicas, by the numbers of their engines.
    pub(crate) replicas: Vec<(usize, [u8; 16])>,
    pub(crate) nqn: Option<String>,
}

impl Cluster {
    /// Starts all of it, with a pool on each engine and the volume, in an empty folder.
    pub(crate) fn start(binaries: &Path, folder: &Path, net: Net) -> Outcome<Self> {
        let mut cluster = Self {
            engine: binaries.join("braid-engine"),
            control: binaries.join("braid-control"),
            folder: folder.to_owned(),
            net,
            engines: [const { None }; ENGINES],
            keeper: None,
            boots: [1; ENGINES],
        };
        cluster.start_control()?;
        for engine in 0..ENGINES {
            cluster.start_engine(engine)?;
        }
        for engine in 0..ENGINES {
            let pool = cluster.pool(engine).display().to_string();
            cluster.tell(engine, &["pool", "create", &pool, "--size", POOL_SIZE, "--sparse"])?;
        }
        let pools = || {
            let listed = cluster.ask(&["engine", "list"])?;
            let engines = listed["engines"].as_array().map_or(&[][..], Vec::as_slice);
            let there = engines.iter().filter(|engine| engine["pools"] == 1).count();
            Ok((there == ENGINES).then_some(()))
        };
        wait_for(PATIENCE, pools)?.ok_or("not all engines report their pools")?;
        let size = VOLUME_BYTES.to_string();
        let mut create = cluster.control_command();
        create.args(["volume", "create", VOLUME, "--size", &size, "--standbys", "2"]);
        for engine in 0..ENGINES {
            create.args(["--replica", &Place::Engine(engine).name()]);
        }
        run_within(&mut create, PATIENCE)?;
        Ok(cluster)
    }

    /// The file of an engine's pool.
    pub(crate) fn pool(&self, engine: usize) -> PathBuf {
        self.folder.join(format!("pool{}.img", engine + 1))
    }

    /// Where hosts reach the engines.
    pub(crate) fn portals() -> Vec<SocketAddr> {
        let portal = |engine| format!("{}:{PORT}", Place::Engine(engine).address());
        (0..ENGINES).filter_map(|engine| portal(engine).parse().ok()).collect()
    }

    /// Where a proxy reaches an engine.
    pub(crate) fn behind(engine: usize) -> String {
        format!("{}:{BEHIND}", Place::Engine(engine).address())
    }

    fn control_address() -> String {
        format!("{}:{CONTROL_PORT}", Place::Control.address())
    }

    fn socket(&self, engine: usize) -> PathBuf {
        self.folder.join(format!("engine{}.sock", engine + 1))
    }

    fn log(&self, name: &str) -> Outcome<(File, File)> {
        let path = self.folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        log.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn spawn(&self, place: Place, program: &Path, arguments: &[String]) -> Outcome<Child> {
        let name = place.name();
        let (out, errors) = self.log(&name)?;
        let mut command = self.net.command(place, &program.to_string_lossy());
        command.args(arguments).stdout(out).stderr(errors);
        command.spawn().map_err(|error| format!("cannot start {name}: {error}"))
    }

    /// Starts the control plane and waits until it answers.
    pub(crate) fn start_control(&mut self) -> Outcome<()> {
        let store = self.folder.join("control.redb").display().to_string();
        let words = ["serve", "--listen", &Self::control_address(), "--store", &store];
        let child = self.spawn(Place::Control, &self.control, &words.map(str::to_owned))?;
        self.keeper = Some(child);
        let answers = || Ok(self.ask(&["engine", "list"]).ok().map(drop));
        wait_for(PATIENCE, answers)?.ok_or("the control plane does not answer".into())
    }

    /// Starts an engine, with its pool if there is one, and waits until it answers.
    pub(crate) fn start_engine(&mut self, engine: usize) -> Outcome<()> {
        let place = Place::Engine(engine);
        let boot = self.folder.join(format!("boot{}", engine + 1));
        let id = format!("{:08x}-{:04x}-4000-8000-000000000000\n", self.boots[engine], engine + 1);
        fs::write(&boot, id).map_err(|e| format!("cannot write {}: {e}", boot.display()))?;
        let pool = self.pool(engine);
        let address = place.address();
        let mut words = vec!["serve".to_owned()];
        words.extend(pool.exists().then(|| format!("pool:{}", pool.display())));
        for (option, value) in [
            ("--listen", format!("{address}:{PORT}")),
            ("--listen", format!("{address}:{BEHIND}")),
            ("--socket", self.socket(engine).display().to_string()),
            ("--control", Self::control_address()),
            ("--node", place.name()),
            ("--shards", "1".into()),
            // No two engines give out the same controller id of one volume.
            ("--cntlids", format!("{0}001-{0}999", engine + 1)),
            ("--boot-id-file", boot.display().to_string()),
            ("--log", "debug".into()),
        ] {
            words.extend([option.to_owned(), value]);
        }
        words.push("--allow-injection".into());
        self.engines[engine] = Some(self.spawn(place, &self.engine, &words)?);
        let answers = || Ok(self.tell(engine, &["status"]).ok().map(drop));
        let there = wait_for(PATIENCE, answers)?;
        there.ok_or(format!("{} does not serve; see its log", place.name()))
    }

    /// Gives an engine an order by its socket.
    pub(crate) fn tell(&self, engine: usize, words: &[&str]) -> Outcome<String> {
        let mut command = Command::new(&self.engine);
        command.args(words).arg("--socket").arg(self.socket(engine));
        run(&mut command)
    }

    /// A command to the control plane, from its own node: no partition is between.
    pub(crate) fn control_command(&self) -> Command {
        let mut command = self.net.command(Place::Control, &self.control.to_string_lossy());
        command.env("BRAID_CONTROL", Self::control_address());
        command
    }

    fn ask(&self, words: &[&str]) -> Outcome<Value> {
        let mut command = self.control_command();
        let said = run_within(command.args(words).args(["-o", "json"]), ANSWER)?;
        serde_json::from_str(&said).map_err(|error| format!("{said}: {error}"))
    }

    /// What the control plane says of the volume now.
    pub(crate) fn seen(&self) -> Outcome<Seen> {
        let said = self.ask(&["volume", "show", VOLUME])?;
        seen(&said).ok_or_else(|| format!("not a volume: {said}"))
    }

    /// What happened to the volume, as the control plane tells it.
    pub(crate) fn history(&self) -> Outcome<String> {
        run_within(self.control_command().args(["volume", "history", VOLUME]), ANSWER)
    }

    /// Waits until all replicas are members and all paths are there; false if it is not so in
    /// this time.
    pub(crate) fn converges(&self, patience: Duration) -> Outcome<bool> {
        let whole = |seen: &Seen| {
            let (members, paths) = (seen.members.len(), seen.paths);
            seen.state == "online" && (members, paths) == (ENGINES, ENGINES)
        };
        let found = wait_for(patience, || Ok(self.seen().ok().filter(whole).map(drop)))?;
        Ok(found.is_some())
    }

    fn child(&self, place: Place) -> Option<&Child> {
        match place {
            Place::Engine(number) => self.engines[number].as_ref(),
            Place::Control => self.keeper.as_ref(),
            Place::Host => None,
        }
    }

    /// Stops a process where it is, or lets it go on.
    pub(crate) fn pause(&self, place: Place, paused: bool) {
        if let Some(child) = self.child(place) {
            signal(child, if paused { Signal::STOP } else { Signal::CONT });
        }
    }

    /// Kills a process, as a crash would.
    pub(crate) fn kill(&mut self, place: Place) {
        let child = match place {
            Place::Engine(number) => self.engines[number].take(),
            Place::Control => self.keeper.take(),
            Place::Host => None,
        };
        if let Some(mut child) = child {
            kill(&mut child);
        }
    }

    /// The next start of an engine is one of its machine.
    pub(crate) const fn reboot(&mut self, engine: usize) {
        self.boots[engine] += 1;
    }

    /// Ends a process in order; an error if it does not, or not well.
    pub(crate) fn stop(&mut self, place: Place) -> Outcome<()> {
        let child = match place {
            Place::Engine(number) => self.engines[number].take(),
            Place::Control => self.keeper.take(),
            Place::Host => None,
        };
        let Some(mut child) = child else { return Ok(()) };
        signal(&child, Signal::TERM);
        let name = place.name();
        let ended = wait_for(STOP, || child.try_wait().map_err(|e| e.to_string()))?;
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("{name} ended with {status}")),
            None => {
                kill(&mut child);
                Err(format!("{name} did not end in {} s", STOP.as_secs()))
            }
        }
    }

    /// Nodes whose process ended by itself since this was last asked: a finding.
    pub(crate) fn fallen(&mut self) -> Vec<Place> {
        let mut fallen = Vec::new();
        for place in Place::all() {
            let child = match place {
                Place::Engine(number) => &mut self.engines[number],
                Place::Control => &mut self.keeper,
                Place::Host => continue,
            };
            if child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_)))) {
                *child = None;
                fallen.push(place);
            }
        }
        fallen
    }

    /// What an engine says of its pool.
    fn pool_state(&self, engine: usize) -> Outcome<Value> {
        let said = self.tell(engine, &["pool", "list", "-o", "json"])?;
        let said: Value = serde_json::from_str(&said).map_err(|e| format!("{said}: {e}"))?;
        Ok(said["pools"][0].clone())
    }

    /// Lets an engine's disk fail.
    pub(crate) fn disk_faults(&self, engine: usize, faults: &[&str]) -> Outcome<()> {
        let pool = self.pool(engine).display().to_string();
        let words: Vec<&str> =
            ["fault", "set", &pool].into_iter().chain(faults.iter().copied()).collect();
        self.tell(engine, &words).map(drop)
    }

    /// Lets an engine's pool have no space.
    pub(crate) fn fill_pool(&self, engine: usize) -> Outcome<()> {
        let free = self.pool_state(engine)?["available_bytes"].as_u64().unwrap_or(0);
        let size = (free / CLUSTER * CLUSTER).to_string();
        let create = ["replica", "create", BALLAST, "--thick", "--size", &size];
        self.tell(engine, &create).map(drop)
    }

    /// The disk works again, and there is space: a pool that has failed is imported anew, as an
    /// operator does it. What that came to.
    pub(crate) fn mend_disk(&self, engine: usize) -> Outcome<&'static str> {
        let pool = self.pool(engine).display().to_string();
        let state = self.pool_state(engine)?["state"].as_str().unwrap_or("gone").to_owned();
        if state != "failed" {
            self.tell(engine, &["fault", "clear", &pool])?;
        }
        if self.tell(engine, &["replica", "list"])?.contains(BALLAST) {
            self.tell(engine, &["replica", "destroy", BALLAST, "--yes"])?;
        }
        if self.pool_state(engine)?["state"] != "failed" {
            return Ok("works again");
        }
        self.tell(engine, &["pool", "export", &pool])?;
        self.tell(engine, &["pool", "import", &pool])?;
        Ok("works again; its pool had failed, and is imported anew")
    }
}

fn engine_of(name: &Value) -> Option<usize> {
    (0..ENGINES).find(|engine| Place::Engine(*engine).name() == *name)
}

fn seen(said: &Value) -> Option<Seen> {
    let replicas = said["replicas"].as_array()?;
    let paths = said["paths"].as_array()?;
    let members = replicas.iter().filter(|replica| replica["standing"] == "member");
    let uuid = |replica: &Value| {
        let digits: String = replica["uuid"].as_str()?.replace('-', "");
        Some(u128::from_str_radix(&digits, 16).ok()?.to_be_bytes())
    };
    Some(Seen {
        state: said["state"].as_str()?.to_owned(),
        serves: engine_of(&said["engine"]),
        epoch: said["epoch"].as_u64()?,
        members: members.filter_map(|replica| engine_of(&replica["engine"])).collect(),
        paths: paths.iter().filter(|path| path["access"] != "gone").count(),
        replicas: replicas
            .iter()
            .filter_map(|r| Some((engine_of(&r["engine"])?, uuid(r)?)))
            .collect(),
        nqn: paths.iter().find_map(|path| Some(path["nqn"].as_str()?.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_control_plane_says_is_understood() {
        let said = serde_json::json!({
            "state": "degraded", "engine": "engine2", "epoch": 7,
            "replicas": [
                { "uuid": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "engine": "engine1",
                  "standing": "away" },
                { "uuid": "7ba7b810-9dad-11d1-80b4-00c04fd430c8", "engine": "engine2",
                  "standing": "member" },
            ],
            "paths": [
                { "engine": "engine2", "nqn": "nqn.a", "access": "optimized" },
                { "engine": "engine1", "nqn": "nqn.a", "access": "gone" },
            ],
        });
        let seen = seen(&said).unwrap();
        assert_eq!((seen.state.as_str(), seen.serves, seen.epoch), ("degraded", Some(1), 7));
        assert_eq!((seen.members, seen.paths), (vec![1], 1));
        assert_eq!(seen.replicas[0].1[..3], [0x6b, 0xa7, 0xb8]);
        assert_eq!(seen.nqn.as_deref(), Some("nqn.a"));
    }
}
