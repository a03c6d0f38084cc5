//! The processes: a control plane and three engines, each at a node of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::Outcome;
use crate::net::{BEHIND, CONTROL_PORT, ENGINES, Net, PORT, Place};
use crate::process::{bound, kill, run_within, signal, wait_for};

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

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Where `braid-engine` and `braid-control` are.
    pub binaries: PathBuf,
    /// Where files and logs go.
    pub folder: PathBuf,
    /// Bytes of each engine's pool, a sparse file.
    pub pool_bytes: u64,
    /// What engines log.
    pub log: &'static str,
    /// Their disks can be made to fail, and their machines start anew.
    pub faults: bool,
}

/// A volume that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Volume<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its size.
    pub bytes: u64,
    /// Engines of its replicas.
    pub replicas: &'a [usize],
    /// Engines that stand by.
    pub standbys: usize,
}

/// The processes, and where everything is kept.
#[derive(Debug)]
pub struct Cluster {
    parts: Parts,
    /// The network between them.
    pub net: Net,
    engines: [Option<Child>; ENGINES],
    keeper: Option<Child>,
    /// How often each engine's machine was started.
    boots: [u32; ENGINES],
    /// Further options of all engines.
    options: Vec<String>,
}

/// What the control plane says of a volume.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whether hosts are served, and whether all replicas are members.
    pub state: String,
    /// The engine that serves.
    pub serves: Option<usize>,
    /// How many owners there were.
    pub epoch: u64,
    /// Engines of the replicas that are members.
    pub members: Vec<usize>,
    /// Paths that are there, usable or not.
    pub paths: usize,
    /// Replicas, by the numbers of their engines.
    pub replicas: Vec<(usize, [u8; 16])>,
    /// The subsystem that hosts connect to.
    pub nqn: Option<String>,
}

impl Cluster {
    /// Starts all of it, with a pool on each engine, in an empty folder.
    ///
    /// # Errors
    ///
    /// What did not start.
    pub fn start(parts: Parts, net: Net) -> Outcome<Self> {
        Self::start_with(parts, net, &[])
    }

    /// The same, with further options of all engines.
    pub(crate) fn start_with(parts: Parts, net: Net, options: &[&str]) -> Outcome<Self> {
        let mut cluster = Self {
            parts,
            net,
            engines: [const { None }; ENGINES],
            keeper: None,
            boots: [1; ENGINES],
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        cluster.start_control()?;
        for engine in 0..ENGINES {
            cluster.start_engine(engine)?;
        }
        for engine in 0..ENGINES {
            cluster.make_pool(engine)?;
        }
        let pools = || {
            let listed = cluster.ask(&["engine", "list"])?;
            let engines = listed["engines"].as_array().map_or(&[][..], Vec::as_slice);
            let there = engines.iter().filter(|engine| engine["pools"] == 1).count();
            Ok((there == ENGINES).then_some(()))
        };
        wait_for(PATIENCE, pools)?.ok_or("not all engines report their pools")?;
        Ok(cluster)
    }

    /// Makes an engine's pool, which is empty.
    pub(crate) fn make_pool(&self, engine: usize) -> Outcome<()> {
        let pool = self.pool(engine).display().to_string();
        let size = self.parts.pool_bytes.to_string();
        self.tell(engine, &["pool", "create", &pool, "--size", &size, "--sparse"]).map(drop)
    }

    /// Makes a volume.
    ///
    /// # Errors
    ///
    /// What the control plane says.
    pub fn create(&self, volume: &Volume<'_>) -> Outcome<()> {
        let (size, standbys) = (volume.bytes.to_string(), volume.standbys.to_string());
        let mut create = self.control_command();
        create.args(["volume", "create", volume.name, "--size", &size, "--standbys", &standbys]);
        for engine in volume.replicas {
            create.args(["--replica", &Place::Engine(*engine).name()]);
        }
        run_within(&mut create, PATIENCE).map(drop)
    }

    /// Has another engine serve a volume.
    ///
    /// # Errors
    ///
    /// What the control plane says.
    pub fn hand_over(&self, volume: &str, to: usize) -> Outcome<()> {
        let to = Place::Engine(to).name();
        self.tell_control(&["volume", "hand-over", volume, "--to", &to]).map(drop)
    }

    /// The file of an engine's pool.
    #[must_use]
    pub fn pool(&self, engine: usize) -> PathBuf {
        self.parts.folder.join(format!("pool{}.img", engine + 1))
    }

    /// Where hosts reach the engines.
    #[must_use]
    pub fn portals() -> Vec<SocketAddr> {
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
        self.parts.folder.join(format!("engine{}.sock", engine + 1))
    }

    fn log(&self, name: &str) -> Outcome<(File, File)> {
        let path = self.parts.folder.join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.and_then(|log| Ok((log.try_clone()?, log)));
        log.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn program(&self, name: &str) -> String {
        self.parts.binaries.join(name).display().to_string()
    }

    fn spawn(&self, place: Place, program: &str, arguments: &[String]) -> Outcome<Child> {
        let name = place.name();
        let (out, errors) = self.log(&name)?;
        let mut command = self.net.command(place, &self.program(program));
        command.args(arguments).stdout(out).stderr(errors);
        command.spawn().map_err(|error| format!("cannot start {name}: {error}"))
    }

    /// Starts the control plane and waits until it answers.
    pub(crate) fn start_control(&mut self) -> Outcome<()> {
        let store = self.parts.folder.join("control.redb").display().to_string();
        let words = ["serve", "--listen", &Self::control_address(), "--store", &store];
        let child = self.spawn(Place::Control, "braid-control", &words.map(str::to_owned))?;
        self.keeper = Some(child);
        let answers = || Ok(self.ask(&["engine", "list"]).ok().map(drop));
        wait_for(PATIENCE, answers)?.ok_or("the control plane does not answer".into())
    }

    /// Starts an engine, with its pool if there is one, and waits until it answers.
    ///
    /// # Errors
    ///
    /// That it does not.
    pub fn start_engine(&mut self, engine: usize) -> Outcome<()> {
        let place = Place::Engine(engine);
        let boot = self.parts.folder.join(format!("boot{}", engine + 1));
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
            ("--log", self.parts.log.to_owned()),
        ] {
            words.extend([option.to_owned(), value]);
        }
        words.extend(self.options.iter().cloned());
        if self.parts.faults {
            words.extend(["--boot-id-file".to_owned(), boot.display().to_string()]);
            words.push("--allow-injection".to_owned());
        }
        self.engines[engine] = Some(self.spawn(place, "braid-engine", &words)?);
        let answers = || Ok(self.tell(engine, &["status"]).ok().map(drop));
        let there = wait_for(PATIENCE, answers)?;
        there.ok_or(format!("{} does not serve; see its log", place.name()))
    }

    /// Gives an engine an order by its socket.
    ///
    /// # Errors
    ///
    /// What it says, or that it does not answer.
    pub fn tell(&self, engine: usize, words: &[&str]) -> Outcome<String> {
        let mut command = Command::new(self.program("braid-engine"));
        command.args(words).arg("--socket").arg(self.socket(engine));
        run_within(&mut command, ANSWER * 2)
    }

    /// Gives the control plane an order; what it says, if it can be done.
    ///
    /// # Errors
    ///
    /// What it says, or that it does not answer.
    pub fn tell_control(&self, words: &[&str]) -> Outcome<String> {
        run_within(self.control_command().args(words), PATIENCE)
    }

    /// A program of the hosts that loads an engine.
    pub(crate) fn load_command(&self, engine: usize, nqn: &str) -> Command {
        let mut command = bound(&self.program("braid-engine"));
        let portal = format!("{}:{PORT}", Place::Engine(engine).address());
        command.args(["perf", &format!("nvme+tcp://{portal}/{nqn}?nsid=1"), "-o", "json"]);
        command
    }

    /// What an engine says of a volume that it serves.
    pub(crate) fn nexus(&self, engine: usize, volume: &str) -> Outcome<Value> {
        let said = self.tell(engine, &["nexus", "show", volume, "-o", "json"])?;
        serde_json::from_str(&said).map_err(|error| format!("{said}: {error}"))
    }

    /// A command to the control plane, from its own node: no partition is between.
    pub(crate) fn control_command(&self) -> Command {
        let mut command = self.net.command(Place::Control, &self.program("braid-control"));
        command.env("BRAID_CONTROL", Self::control_address());
        command
    }

    fn ask(&self, words: &[&str]) -> Outcome<Value> {
        let mut command = self.control_command();
        let said = run_within(command.args(words).args(["-o", "json"]), ANSWER)?;
        serde_json::from_str(&said).map_err(|error| format!("{said}: {error}"))
    }

    /// What the control plane says of a volume now.
    ///
    /// # Errors
    ///
    /// That it does not know it, or does not answer.
    pub fn seen(&self, volume: &str) -> Outcome<Seen> {
        let said = self.ask(&["volume", "show", volume])?;
        seen(&said).ok_or_else(|| format!("not a volume: {said}"))
    }

    /// What happened to a volume, as the control plane tells it.
    pub(crate) fn history(&self, volume: &str) -> Outcome<String> {
        run_within(self.control_command().args(["volume", "history", volume]), ANSWER)
    }

    /// Waits until all replicas of a volume are members and it has at least so many paths; none if
    /// it is not so in this time.
    ///
    /// # Errors
    ///
    /// None so far: a control plane that does not answer may do so later.
    pub fn converges(
        &self,
        volume: &str,
        paths: usize,
        patience: Duration,
    ) -> Outcome<Option<Seen>> {
        let whole = |seen: &Seen| {
            let members = seen.members.len() == seen.replicas.len();
            seen.state == "online" && members && seen.paths >= paths
        };
        wait_for(patience, || Ok(self.seen(volume).ok().filter(whole)))
    }

    /// The process at a place, if there is one.
    #[must_use]
    pub fn process(&self, place: Place) -> Option<u32> {
        self.child(place).map(Child::id)
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
    pub fn kill(&mut self, place: Place) {
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
    pub(crate) fn pool_state(&self, engine: usize) -> Outcome<Value> {
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
