//! `cargo xtask up` and `down`: a cluster, or an engine on a file, tried out, left running, and
//! stopped.

use crate::engine::{Engine, STOP};
use crate::fault::{Explain, Fault, Outcome};
use crate::{cluster, process, workspace};
use rustix::process::Signal;
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The subsystem that `up` serves.
const NQN: &str = "nqn.2026-11.io.braid:up";

/// What `up` may be told.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// One engine on a file, without a control plane and replicas
    #[arg(long)]
    single: bool,
    /// The address and port that the single engine serves on
    #[arg(long, default_value = "127.0.0.1:4420", requires = "single")]
    listen: SocketAddr,
    /// The address and port for the single engine's Prometheus metrics
    #[arg(long, default_value = "127.0.0.1:9420", requires = "single")]
    metrics: SocketAddr,
    /// The size of the volume, or of the file that is served
    #[arg(long, default_value = "256MiB")]
    size: String,
}

/// The engine that `up` left running, as its pid file tells.
struct Running {
    pid: u32,
    listen: String,
    metrics: String,
}

/// Builds, starts, tries out and leaves running.
pub(crate) fn up(options: &Options) -> Outcome<()> {
    if !options.single {
        return cluster::up(&options.size);
    }
    let began = Instant::now();
    if let Some(running) = running()? {
        show_next(&running);
        println!("up: already up, process {}; `cargo xtask down` stops it", running.pid);
        return Ok(());
    }
    step("building the engine");
    let binary = workspace::build_engine()?;
    check_port("--listen", options.listen)?;
    check_port("--metrics", options.metrics)?;
    let folder = workspace::folder("up")?;
    let file = folder.join("disk.img");
    step(&format!("serving {} ({}) on {}", file.display(), options.size, options.listen));
    let log = folder.join("engine.log");
    let _ = fs::remove_file(&log);
    let engine = Engine::start_detached(&binary, &serve(options, &file), &log)?;
    let running = Running {
        pid: engine.pid(),
        listen: options.listen.to_string(),
        metrics: options.metrics.to_string(),
    };
    note(&running)?;
    if let Err(fault) = try_out(&binary, options.listen) {
        let stopped = engine.stop();
        let _ = fs::remove_file(pid_file());
        let end = stopped.err().map(|other| format!("; then {other}")).unwrap_or_default();
        let log = log.display();
        return Err(Fault::new(format!("our host found a failure: {fault}{end}; see {log}")));
    }
    show_next(&running);
    let seconds = began.elapsed().as_secs_f64();
    let pid = engine.pid();
    println!("up: verified I/O in {seconds:.1} s; process {pid} serves until `cargo xtask down`");
    Ok(())
}

/// Stops what `up` left running.
pub(crate) fn down() -> Outcome<()> {
    let stopped = cluster::down()?;
    let Some(Running { pid, .. }) = running()? else {
        let what = if stopped { "the cluster has stopped" } else { "nothing is up" };
        println!("down: {what}");
        return Ok(());
    };
    let began = Instant::now();
    process::signal(pid, Signal::TERM);
    let ended = process::wait_until(STOP, || Ok((!lives(pid)).then_some(())))?;
    if ended.is_none() {
        process::signal(pid, Signal::KILL);
    }
    let _ = fs::remove_file(pid_file());
    match ended {
        Some(()) => {
            println!("down: process {pid} ended in {:.1} s", began.elapsed().as_secs_f64());
            Ok(())
        }
        None => {
            let seconds = STOP.as_secs();
            Err(Fault::new(format!("process {pid} did not end in {seconds} s and was killed")))
        }
    }
}

fn serve(options: &Options, file: &Path) -> Vec<String> {
    let namespace = format!("file:{}?size={}", file.display(), options.size);
    let listen = options.listen.to_string();
    let metrics = options.metrics.to_string();
    let words = ["serve", &namespace, "--listen", &listen, "--nqn", NQN, "--metrics", &metrics];
    words.map(str::to_owned).to_vec()
}

/// A taken port is told before anything is started.
fn check_port(option: &str, address: SocketAddr) -> Outcome<()> {
    let other = SocketAddr::new(address.ip(), address.port().wrapping_add(1));
    TcpListener::bind(address).map(drop).map_err(|error| {
        Fault::new(format!(
            "cannot serve on {address}: {error}; choose another: cargo xtask up {option} {other}"
        ))
    })
}

/// Writes and verifies through our own host: small blocks at depth, then large ones.
fn try_out(binary: &Path, listen: SocketAddr) -> Outcome<()> {
    let uri = format!("nvme+tcp://{listen}/{NQN}?nsid=1");
    for (block, depth) in [("4KiB", "32"), ("128KiB", "8")] {
        step(&format!("writing and verifying blocks of {block}, {depth} at a time"));
        let mut perf = Command::new(binary);
        perf.args(["perf", &uri, "--rw", "mixed", "--block-size", block]);
        perf.args(["--queue-depth", depth, "--time", "3s", "--verify"]);
        process::run(&mut perf)?;
    }
    Ok(())
}

fn show_next(running: &Running) {
    let Running { listen, metrics, .. } = running;
    let (address, port) = listen.rsplit_once(':').unwrap_or((listen.as_str(), "4420"));
    let address = address.trim_matches(['[', ']']);
    let binary = workspace::target().join("debug/braid-engine");
    let binary = binary.display();
    let log = workspace::target().join("up/engine.log");
    println!();
    println!("A Linux host connects with");
    println!("  nvme connect -t tcp -a {address} -s {port} -n {NQN}");
    println!("and without one, try");
    println!("  {binary} discover {listen}");
    println!("  {binary} identify 'nvme+tcp://{listen}/{NQN}?nsid=1'");
    println!("  {binary} perf 'nvme+tcp://{listen}/{NQN}?nsid=1' --rw read --time 10s");
    println!("  curl http://{metrics}/metrics");
    println!("  cargo xtask guest ext4       a real Linux host makes a file system");
    println!("The engine writes to {}", log.display());
    println!();
}

fn step(text: &str) {
    println!("== {text}");
}

fn pid_file() -> PathBuf {
    workspace::target().join("up/engine.pid")
}

fn note(running: &Running) -> Outcome<()> {
    let path = pid_file();
    let Running { pid, listen, metrics } = running;
    fs::write(&path, format!("{pid} {listen} {metrics}\n"))
        .explain(|| format!("cannot write {}", path.display()))
}

/// What the pid file tells, if that process still is an engine.
fn running() -> Outcome<Option<Running>> {
    let Ok(text) = fs::read_to_string(pid_file()) else { return Ok(None) };
    match parse(&text) {
        Some(running) if lives(running.pid) => Ok(Some(running)),
        _ => {
            let path = pid_file();
            fs::remove_file(&path).explain(|| format!("cannot remove {}", path.display()))?;
            Ok(None)
        }
    }
}

fn parse(noted: &str) -> Option<Running> {
    let mut words = noted.split_whitespace();
    let pid = words.next()?.parse().ok()?;
    let (listen, metrics) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Running { pid, listen, metrics })
}

/// Whether a process is an engine that has not ended; a dead one has no command line.
fn lives(pid: u32) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains("braid-engine")
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_pid_file_that_was_cut_short_is_none() {
        assert!(parse("12 127.0.0.1:4420 127.0.0.1:9420\n").is_some());
        for text in ["", "12", "12 127.0.0.1:4420", "x 127.0.0.1:4420 127.0.0.1:9420"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
