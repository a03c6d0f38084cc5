//! A running `braid-engine`: started until it says that it is ready, paused, stopped or killed. A
//! `braid-control` is started and stopped in the same way.

use crate::fault::{Explain, Fault, Outcome};
use crate::process;
use rustix::process::Signal;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How the line begins with which an engine, or a control plane, says that it serves.
const READY: [&str; 2] = ["braid-engine: ready ", "braid-control: ready "];

/// An engine allocates all its memory before it is ready; a busy machine gets this long.
const START: Duration = Duration::from_secs(30);

/// After the signal an engine may finish its commands for this long.
pub(crate) const STOP: Duration = Duration::from_secs(20);

/// An engine that we started and that has not been seen to end.
#[derive(Debug)]
pub(crate) struct Engine {
    child: Child,
    log: PathBuf,
}

impl Engine {
    /// Starts an engine that stays when we end; its output is added to the log.
    pub(crate) fn start_detached(binary: &Path, arguments: &[String], log: &Path) -> Outcome<Self> {
        use std::os::unix::process::CommandExt;
        Engine::start(Command::new(binary).args(arguments).process_group(0), log)
    }

    /// Starts what the command says; its output is added to the log.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let out = open(log)?;
        let before = out.metadata().map(|known| known.len()).unwrap_or(0);
        let both = out.try_clone().explain(|| "cannot share the log".to_owned())?;
        command.stdin(Stdio::null()).stdout(out).stderr(both);
        let child = command.spawn().explain(|| "cannot start the engine".to_owned())?;
        let mut engine = Engine { child, log: log.to_path_buf() };
        engine.wait_ready(usize::try_from(before).unwrap_or(0))?;
        Ok(engine)
    }

    fn wait_ready(&mut self, before: usize) -> Outcome<()> {
        let ready = process::wait_until(START, || {
            let text = std::fs::read(&self.log).explain(|| "cannot read the log".to_owned())?;
            let text = String::from_utf8_lossy(text.get(before..).unwrap_or_default()).into_owned();
            if text.lines().any(|line| READY.iter().any(|ready| line.starts_with(ready))) {
                return Ok(Some(()));
            }
            match self.child.try_wait() {
                Ok(None) => Ok(None),
                _ => Err(Fault::new(last_line(&text))),
            }
        })?;
        if ready.is_none() {
            let _ = self.child.kill();
            let said = format!("the engine was not ready in {} s; see ", START.as_secs());
            return Err(Fault::new(said + &self.log.display().to_string()));
        }
        Ok(())
    }

    /// The engine's process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the engine at once, as a crash would.
    pub(crate) fn kill(mut self) -> Outcome<()> {
        self.child.kill().explain(|| "cannot kill the engine".to_owned())?;
        self.child.wait().map(drop).explain(|| "cannot wait for the engine".to_owned())
    }

    /// Stops the engine where it is, without its knowing, or lets it go on.
    pub(crate) fn pause(&self, paused: bool) {
        process::signal(self.pid(), if paused { Signal::STOP } else { Signal::CONT });
    }

    /// Asks the engine to end and returns how long that took; it must end well and in time.
    pub(crate) fn stop(mut self) -> Outcome<Duration> {
        let began = Instant::now();
        process::signal(self.pid(), Signal::TERM);
        let ended = process::wait_until(STOP, || {
            self.child.try_wait().explain(|| "cannot wait for the engine".to_owned())
        })?;
        match ended {
            Some(status) if status.success() => Ok(began.elapsed()),
            Some(status) => Err(Fault::new(format!("the engine ended with {status}"))),
            None => {
                let _ = self.child.kill();
                Err(Fault::new(format!("the engine did not end in {} s", STOP.as_secs())))
            }
        }
    }
}

fn open(log: &Path) -> Outcome<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    options.open(log).explain(|| format!("cannot write {}", log.display()))
}

fn last_line(text: &str) -> String {
    let last = text.trim().lines().last().unwrap_or("it said nothing");
    format!("the engine ended before it was ready: {last}")
}
