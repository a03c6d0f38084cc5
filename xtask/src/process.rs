//! Other programs: run to the end, with their output shown, kept or watched, never for ever.

use crate::fault::{Explain, Fault, Outcome};
use rustix::process::{Pid, Signal};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The pause between two looks at a process that we wait for.
const PAUSE: Duration = Duration::from_millis(20);

/// Runs a program with our own input and output; anything but success is a failure.
pub(crate) fn run(command: &mut Command) -> Outcome<()> {
    let status = command.status().explain(|| cannot_start(command))?;
    success(command, status)
}

/// Runs a program and returns what it wrote to standard output; its errors go into the failure.
pub(crate) fn read(command: &mut Command) -> Outcome<String> {
    let output = command.stdin(Stdio::null()).output().explain(|| cannot_start(command))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.trim().lines().last().unwrap_or("it said nothing").to_owned();
        return Err(Fault::new(format!("`{}` failed: {last}", line(command))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program, hands every line of both its outputs to `seen`, and ends it at the deadline.
pub(crate) fn watch(
    command: &mut Command,
    deadline: Duration,
    mut seen: impl FnMut(&str),
) -> Outcome<ExitStatus> {
    use std::os::unix::process::CommandExt;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().explain(|| cannot_start(command))?;
    let lines = lines_of(&mut child);
    let end = Instant::now() + deadline;
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(text) => seen(&text),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                end_group(&child);
                let _ = child.wait();
                let seconds = deadline.as_secs();
                return Err(Fault::new(format!("`{}` took over {seconds} s", line(command))));
            }
        }
    }
    child.wait().explain(|| format!("cannot wait for `{}`", line(command)))
}

/// The lines of a child's two outputs as they come, until both are closed.
fn lines_of(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        forward(stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        forward(stderr, sender);
    }
    receiver
}

/// Sends every line of a stream to a channel, from a thread of its own.
pub(crate) fn forward(stream: impl std::io::Read + Send + 'static, to: mpsc::Sender<String>) {
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut raw = Vec::new();
        while matches!(reader.read_until(b'\n', &mut raw), Ok(1..)) {
            let text = String::from_utf8_lossy(&raw).trim_end().to_owned();
            if to.send(text).is_err() {
                break;
            }
            raw.clear();
        }
    });
}

/// A failure, unless the program ended well.
pub(crate) fn success(command: &Command, status: ExitStatus) -> Outcome<()> {
    if status.success() {
        return Ok(());
    }
    Err(Fault::new(format!("`{}` failed ({status})", line(command))))
}

/// The program and its arguments, to show.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", command.get_program().to_string_lossy())
}

/// A command that the kernel ends when this program ends, however that happens. The thread that
/// spawns it must live as long as it shall.
pub(crate) fn bound(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Sends a signal to a process; one that is gone already is no failure.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn end_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// Looks again and again until `found` gives something or the time is over.
pub(crate) fn wait_until<T>(
    deadline: Duration,
    mut found: impl FnMut() -> Outcome<Option<T>>,
) -> Outcome<Option<T>> {
    let end = Instant::now() + deadline;
    loop {
        if let Some(value) = found()? {
            return Ok(Some(value));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(PAUSE);
    }
}
