//! The programs under test: started on a CPU of their own, ended with us.

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::measure::{self, Slice};
use crate::wire::{NQN, bad};

/// How the engine's line begins that says where it listens.
const READY: &str = "braid-engine: ready ";

/// Where things are, and how much is wanted.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The engine's binary.
    pub(crate) engine: PathBuf,
    /// The CPU of everything that serves; we run on another one.
    pub(crate) cpu: u32,
    /// A folder on the disk to measure.
    pub(crate) folder: PathBuf,
    /// Slices of each comparison, both sides together.
    pub(crate) slices: usize,
    /// Seconds that the idle engine is watched.
    pub(crate) idle: u64,
}

impl Setup {
    /// Pairs of slices.
    #[must_use]
    pub(crate) const fn rounds(&self) -> usize {
        if self.slices < 2 { 1 } else { self.slices / 2 }
    }
}

/// A program that serves.
pub(crate) struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// An engine that serves these namespaces on one shard, and where it listens.
    pub(crate) fn engine(setup: &Setup, arguments: &[&str]) -> io::Result<(Self, SocketAddr)> {
        let mut command = pinned(setup);
        command.arg(&setup.engine).arg("serve").args(arguments);
        command.args(["--listen", "127.0.0.1:0", "--nqn", NQN, "--shards", "1", "--log", "warn"]);
        let mut server = Self::start(command)?;
        loop {
            let line = server.line()?;
            let Some(ready) = line.strip_prefix(READY) else { continue };
            let listen = ready.split(' ').find_map(|word| word.strip_prefix("listen="));
            let address = listen.and_then(|listen| listen.parse().ok());
            let address = address.ok_or_else(|| bad(format!("no address in '{line}'")))?;
            return Ok((server, address));
        }
    }

    /// The bare wire, and where it listens.
    pub(crate) fn framing(setup: &Setup) -> io::Result<(Self, SocketAddr)> {
        let mut server = Self::ourselves(setup, &["framing"])?;
        let line = server.line()?;
        let address = line.parse().map_err(|_| bad(format!("'{line}' is no address")))?;
        Ok((server, address))
    }

    /// This program, with other arguments.
    pub(crate) fn ourselves(setup: &Setup, arguments: &[&str]) -> io::Result<Self> {
        let mut command = pinned(setup);
        command.arg(std::env::current_exe()?).args(arguments);
        Self::start(command)
    }

    fn start(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().ok_or_else(|| bad("no output".to_owned()))?;
        Ok(Self { input: child.stdin.take(), output: BufReader::new(output), child })
    }

    /// The next line of its output.
    pub(crate) fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(bad("a program under test ended too soon".to_owned()));
        }
        Ok(line.trim_end().to_owned())
    }

    /// Says something to it and takes its answer.
    pub(crate) fn ask(&mut self, question: &str) -> io::Result<String> {
        let input = self.input.as_mut().ok_or_else(|| bad("no input".to_owned()))?;
        writeln!(input, "{question}")?;
        self.line()
    }

    /// Its process.
    #[must_use]
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What a slice of load costs it.
    pub(crate) fn slice(
        &self,
        load: impl FnOnce() -> io::Result<(u64, std::time::Duration)>,
    ) -> io::Result<Slice> {
        let before = measure::cpu_time(self.pid())?;
        let (done, took) = load()?;
        let cpu = measure::cpu_time(self.pid())?.saturating_sub(before);
        Ok(Slice::new(done, took, cpu))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which somebody will have noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs on the servers' CPU and is killed when we end.
pub(crate) fn pinned(setup: &Setup) -> Command {
    let mut command = Command::new("setpriv");
    let cpu = setup.cpu.to_string();
    command.args(["--pdeathsig", "KILL", "--", "taskset", "-c", &cpu]);
    command
}
