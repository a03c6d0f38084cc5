//! `cargo xtask up` and `down`: a replicated volume on three engines with a control plane, tried
//! out while the engine that serves it is killed, and left running.

use crate::engine::STOP;
use crate::fault::{Explain, Fault, Outcome};
use crate::{process, workspace};
use rustix::process::Signal;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Engines, and replicas of the volume.
const ENGINES: u16 = 3;
/// Where the control plane listens, and from here on the engines: one port after the other.
const CONTROL: &str = "127.0.0.1:4440";
const PORT: u16 = 4421;
/// The volume.
const VOLUME: &str = "data";
/// Bytes that it grows by.
const GROWTH: u64 = 64 << 20;
/// How long anything may take that takes a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binaries, and where everything is kept.
struct Place {
    engine: PathBuf,
    control: PathBuf,
    folder: PathBuf,
}

/// Builds, starts, tries out, kills, waits for redundancy, and leaves running.
pub(crate) fn up(size: &str) -> Outcome<()> {
    let began = Instant::now();
    let place = Place::new()?;
    if !place.running()?.is_empty() {
        place.show_next()?;
        println!("up: already up; `cargo xtask down` stops it");
        return Ok(());
    }
    step("building the engine and the control plane");
    let build = ["build", "--package", "braid-engine", "--package", "braid-control"];
    process::run(&mut workspace::cargo(build))?;
    let tried = place.try_out(size);
    if let Err(fault) = tried {
        place.stop()?;
        let folder = place.folder.display();
        return Err(Fault::new(format!("{fault}; the logs are in {folder}")));
    }
    place.show_next()?;
    let seconds = began.elapsed().as_secs_f64();
    println!("up: a volume of {ENGINES} replicas outlived its engine, in {seconds:.1} s in all");
    Ok(())
}

/// `up` and `down`, as a test of both.
pub(crate) fn trial() -> Outcome<()> {
    let up = Place::new()?;
    if !up.running()?.is_empty() {
        return Err(Fault::new("a cluster is up: `cargo xtask down` first".to_owned()));
    }
    self::up("256MiB")?;
    match up.stop()? {
        true => Ok(()),
        false => Err(Fault::new("`up` left nothing running".to_owned())),
    }
}

/// Stops what `up` left running; whether there was anything.
pub(crate) fn down() -> Outcome<bool> {
    Place::new()?.stop()
}

impl Place {
    fn new() -> Outcome<Self> {
        Ok(Self {
            folder: workspace::folder("up/cluster")?,
            engine: workspace::target().join("debug/braid-engine"),
            control: workspace::target().join("debug/braid-control"),
        })
    }

    fn try_out(&self, size: &str) -> Outcome<()> {
        step("starting a control plane and three engines, each with a pool on a file");
        self.clear()?;
        self.start_control()?;
        for engine in 1..=ENGINES {
            self.start_engine(engine, None)?;
        }
        for engine in 1..=ENGINES {
            let pool = self.folder.join(format!("pool{engine}.img"));
            let mut make = Command::new(&self.engine);
            make.args(["pool", "create"]).arg(pool).args(["--size", "1GiB", "--sparse"]);
            process::read(make.arg("--socket").arg(self.socket(engine)))?;
        }
        self.wait("the engines report their pools", || {
            let engines = self.ask(["engine", "list"])?;
            let there = engines.lines().filter(|row| has_pool(row)).count();
            Ok((there == usize::from(ENGINES)).then_some(()))
        })?;
        step(&format!("making a volume of {size} with a replica on each engine"));
        let replicas = (1..=ENGINES).flat_map(|engine| ["--replica".into(), name(engine)]);
        let mut create = self.control_command();
        create.args(["volume", "create", VOLUME, "--size", size]).args(replicas);
        process::read(&mut create)?;
        let first = self.serving("online")?;
        step(&format!("writing and verifying by {}", name(first)));
        self.load(first)?;
        step(&format!("killing {} with SIGKILL", name(first)));
        let killed = Instant::now();
        self.kill(first)?;
        let second = self.serving_after(first)?;
        println!("   {} serves after {:.2} s", name(second), killed.elapsed().as_secs_f64());
        step(&format!("writing and verifying by {}, with two replicas", name(second)));
        self.load(second)?;
        step(&format!("starting {} again: its replica gets what it missed", name(first)));
        let back = Instant::now();
        self.start_engine(first, Some(self.folder.join(format!("pool{first}.img"))))?;
        self.serving("online")?;
        println!("   full redundancy after {:.2} s", back.elapsed().as_secs_f64());
        self.change(second)
    }

    /// What people change about a volume, while somebody writes and verifies.
    fn change(&self, serving: u16) -> Outcome<()> {
        step(
            "a snapshot, a larger volume, a replica made anew, while somebody writes and verifies",
        );
        let mut load = self.load_command(serving)?;
        let mut load = load.spawn().explain(|| "cannot start the load".to_owned())?;
        let begun = Instant::now();
        self.ask(["volume", "snapshot", "create", VOLUME, "first"])?;
        let bytes = self.bytes()? + GROWTH;
        self.ask(["volume", "resize", VOLUME, &bytes.to_string()])?;
        let other = name((1..=ENGINES).find(|engine| *engine != serving).unwrap_or(1));
        self.ask(["volume", "remove-member", VOLUME, &other, "--yes"])?;
        self.wait("the replica is gone and another one is made", || {
            let mut add = self.control_command();
            Ok(process::read(add.args(["volume", "add-member", VOLUME, &other])).ok().map(drop))
        })?;
        self.wait("it is a member, with the snapshot", || {
            let listed = self.ask(["volume", "snapshot", "list", VOLUME])?;
            let row = self.row()?;
            let whole = row.iter().any(|cell| cell == "online") && listed.contains("3 of 3");
            Ok(whole.then_some(()))
        })?;
        let seconds = begun.elapsed().as_secs_f64();
        println!("   snapshot taken, {bytes} bytes, {other} made equal after {seconds:.2} s");
        let ended = load.wait().explain(|| "the load is lost".to_owned())?;
        let grown = self.bytes()?;
        if !ended.success() || grown != bytes {
            return Err(Fault::new(format!("the load ended with {ended}, at {grown} bytes")));
        }
        Ok(())
    }

    /// Bytes of the volume.
    fn bytes(&self) -> Outcome<u64> {
        let shown = self.ask(["volume", "show", VOLUME, "-o", "json"])?;
        let bytes = shown.lines().find_map(|line| line.trim().strip_prefix("\"size_bytes\": "));
        let bytes = bytes.and_then(|bytes| bytes.trim_end_matches(',').parse().ok());
        bytes.ok_or_else(|| Fault::new("the volume has no size".to_owned()))
    }

    /// Whatever an earlier cluster left, whose data is none of anybody's.
    fn clear(&self) -> Outcome<()> {
        fs::remove_dir_all(&self.folder)
            .and_then(|()| fs::create_dir_all(&self.folder))
            .explain(|| format!("cannot make {} anew", self.folder.display()))
    }

    fn socket(&self, engine: u16) -> PathBuf {
        self.folder.join(format!("{}.sock", name(engine)))
    }

    fn start_control(&self) -> Outcome<()> {
        let mut command = Command::new(&self.control);
        command.args(["serve", "--listen", CONTROL, "--store"]);
        self.start(command.arg(self.folder.join("control.redb")), "control")?;
        self.wait("the control plane serves", || {
            Ok(process::read(self.control_command().args(["engine", "list"])).ok().map(drop))
        })
    }

    fn start_engine(&self, engine: u16, pool: Option<PathBuf>) -> Outcome<()> {
        let mut command = Command::new(&self.engine);
        command.arg("serve").args(pool.map(|pool| format!("pool:{}", pool.display())));
        command.arg("--listen").arg(portal(engine)).arg("--socket").arg(self.socket(engine));
        command.args(["--control", CONTROL, "--node", &name(engine), "--shards", "1"]);
        self.start(&mut command, &name(engine))?;
        let socket = self.socket(engine);
        self.wait("the engine serves", || {
            let mut status = Command::new(&self.engine);
            let told = process::read(status.arg("status").arg("--socket").arg(&socket));
            Ok(told.ok().map(drop))
        })
    }

    /// Starts a process that stays when we end, and notes it.
    fn start(&self, command: &mut Command, name: &str) -> Outcome<()> {
        let log = self.folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log);
        let out = out.explain(|| format!("cannot write {}", log.display()))?;
        let both = out.try_clone().explain(|| "cannot share the log".to_owned())?;
        command.stdin(Stdio::null()).stdout(out).stderr(both).process_group(0);
        let child = command.spawn().explain(|| format!("cannot start {name}"))?;
        let noted = self.folder.join(format!("{name}.pid"));
        fs::write(&noted, child.id().to_string())
            .explain(|| format!("cannot write {}", noted.display()))
    }

    fn kill(&self, engine: u16) -> Outcome<()> {
        let name = name(engine);
        let pid = self.pid_of(&name);
        let pid = pid.ok_or_else(|| Fault::new(format!("no process of {name} is noted")))?;
        process::signal(pid, Signal::KILL);
        Ok(())
    }

    fn pid_of(&self, name: &str) -> Option<u32> {
        let noted = self.folder.join(format!("{name}.pid"));
        fs::read_to_string(noted).ok()?.trim().parse().ok()
    }

    fn control_command(&self) -> Command {
        let mut command = Command::new(&self.control);
        command.env("BRAID_CONTROL", CONTROL);
        command
    }

    fn ask<const N: usize>(&self, arguments: [&str; N]) -> Outcome<String> {
        process::read(self.control_command().args(arguments))
    }

    /// The engine that serves the volume, once it is in this state.
    fn serving(&self, state: &str) -> Outcome<u16> {
        self.wait(&format!("the volume is {state}"), || {
            let row = self.row()?;
            Ok(row.iter().any(|cell| cell == state).then(|| engine_of(&row)).flatten())
        })
    }

    /// The engine that serves the volume instead of another one.
    fn serving_after(&self, gone: u16) -> Outcome<u16> {
        self.wait("another engine serves the volume", || {
            Ok(engine_of(&self.row()?).filter(|engine| *engine != gone))
        })
    }

    /// The volume's row in the list of volumes.
    fn row(&self) -> Outcome<Vec<String>> {
        let list = self.ask(["volume", "list"])?;
        let row = list.lines().find(|line| line.starts_with(VOLUME)).unwrap_or_default();
        Ok(row.split_whitespace().map(str::to_owned).collect())
    }

    fn nqn(&self) -> Outcome<String> {
        let shown = self.ask(["volume", "show", VOLUME])?;
        let nqn = shown.split_whitespace().find(|word| word.starts_with("nqn."));
        let nqn = nqn.ok_or_else(|| Fault::new("the volume has no path".to_owned()))?;
        Ok(nqn.to_owned())
    }

    fn load(&self, engine: u16) -> Outcome<()> {
        process::run(&mut self.load_command(engine)?)
    }

    fn load_command(&self, engine: u16) -> Outcome<Command> {
        let uri = format!("nvme+tcp://{}/{}?nsid=1", portal(engine), self.nqn()?);
        let mut perf = Command::new(&self.engine);
        perf.args(["perf", &uri, "--rw", "mixed", "--block-size", "4KiB"]);
        perf.args(["--queue-depth", "32", "--time", "3s", "--verify"]);
        Ok(perf)
    }

    fn wait<T>(&self, what: &str, found: impl FnMut() -> Outcome<Option<T>>) -> Outcome<T> {
        let late = || format!("after {} s it is not so that {what}", PATIENCE.as_secs());
        process::wait_until(PATIENCE, found)?.ok_or_else(|| Fault::new(late()))
    }

    /// The processes of the cluster that live.
    fn running(&self) -> Outcome<Vec<u32>> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Ok(Vec::new()) };
        let noted = entries.flatten().map(|entry| entry.path());
        let noted = noted.filter(|path| path.extension().is_some_and(|kind| kind == "pid"));
        let pids = noted.filter_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
        Ok(pids.filter(|pid| lives(*pid)).collect())
    }

    /// Ends all of it in order: engines hand their volumes over before they go.
    fn stop(&self) -> Outcome<bool> {
        let running = self.running()?;
        let control = self.pid_of("control");
        let engines = || running.iter().copied().filter(|pid| Some(*pid) != control);
        engines().for_each(|pid| process::signal(pid, Signal::TERM));
        process::wait_until(STOP, || Ok(engines().all(|pid| !lives(pid)).then_some(())))?;
        // Last of all: engines tell it that they go.
        running.iter().for_each(|pid| process::signal(*pid, Signal::TERM));
        let ended =
            process::wait_until(STOP, || Ok(running.iter().all(|pid| !lives(*pid)).then_some(())))?;
        if ended.is_none() {
            running.iter().for_each(|pid| process::signal(*pid, Signal::KILL));
            return Err(Fault::new(format!(
                "not all of the cluster ended in {} s; the rest was killed",
                STOP.as_secs()
            )));
        }
        Ok(!running.is_empty())
    }

    fn show_next(&self) -> Outcome<()> {
        let (control, engine, nqn) = (self.control.display(), self.engine.display(), self.nqn()?);
        println!();
        println!("A Linux host connects to all paths of the volume with");
        let shown = self.ask(["volume", "show", VOLUME])?;
        for row in shown.lines().filter(|row| row.ends_with(&nqn)) {
            let portal = row.split_whitespace().find_map(|cell| cell.strip_prefix("127.0.0.1:"));
            let port = portal.unwrap_or_default();
            println!("  nvme connect -t tcp -a 127.0.0.1 -s {port} -n {nqn} --keep-alive-tmo 2");
        }
        println!("and without one, try");
        println!("  {control} volume show {VOLUME}");
        println!("  {control} volume hand-over {VOLUME}");
        println!("  {control} volume snapshot create {VOLUME} second");
        println!("  {control} volume history {VOLUME}");
        println!("  {control} engine list");
        let serving = self.serving("online")?;
        println!("  {engine} perf 'nvme+tcp://{}/{nqn}?nsid=1' --rw read", portal(serving));
        println!("Logs and files are in {}", self.folder.display());
        println!();
        Ok(())
    }
}

/// Whether this row of the list of engines says that it lives and has its pool.
fn has_pool(row: &str) -> bool {
    let cells: Vec<&str> = row.split_whitespace().collect();
    let portal = cells.iter().position(|cell| cell.starts_with("127.0.0.1:"));
    cells.contains(&"alive") && portal.is_some_and(|at| cells.get(at + 1) == Some(&"1"))
}

fn engine_of(row: &[String]) -> Option<u16> {
    (1..=ENGINES).find(|engine| row.contains(&name(*engine)))
}

fn name(engine: u16) -> String {
    format!("engine{engine}")
}

fn portal(engine: u16) -> String {
    format!("127.0.0.1:{}", PORT + engine - 1)
}

/// Whether a process is one of ours that has not ended; a dead one has no command line.
fn lives(pid: u32) -> bool {
    let line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"));
    let line = line.unwrap_or_default();
    String::from_utf8_lossy(&line).contains("braid-")
}

fn step(text: &str) {
    println!("== {text}");
}

#[cfg(test)]
mod tests {
    use super::{engine_of, has_pool};

    #[test]
    fn an_engine_that_has_not_reported_its_pool_is_waited_for() {
        assert!(has_pool("engine1  alive  0.1 s ago  127.0.0.1:4421  1  0  0  0"));
        assert!(!has_pool("engine1  alive  0.1 s ago  127.0.0.1:4421  0  0  0  0"));
        assert!(!has_pool("engine1  gone  9.1 s ago  127.0.0.1:4421  1  0  0  0"));
    }

    #[test]
    fn the_engine_that_serves_is_read_from_the_list() {
        let row = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(engine_of(&row("data 256MiB online engine2 3 of 3 2 1 -")), Some(2));
        assert_eq!(engine_of(&row("data 256MiB offline - 3 of 3 0 0 -")), None);
    }
}
