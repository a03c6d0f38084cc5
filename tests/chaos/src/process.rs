//! Other programs: started so that they end with us, asked with a deadline.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Outcome;

/// How long a program may take that asks or sets something.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two looks at one that we wait for.
const PAUSE: Duration = Duration::from_millis(10);

/// A command that the kernel ends when the thread that starts it ends.
pub(crate) fn bound(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program).stdin(Stdio::null());
    command
}

/// Runs a command to its end; what it wrote, or the last line of what it complained of.
pub(crate) fn run(command: &mut Command) -> Outcome<String> {
    run_within(command, PATIENCE)
}

/// The same, and kills what takes longer than this.
///
/// # Errors
///
/// What it complained of last, or that it took too long.
pub fn run_within(command: &mut Command, patience: Duration) -> Outcome<String> {
    let words: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
    let name = words.join(" ");
    let name = name.rsplit(" -- ").next().unwrap_or_default().to_owned();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    let (out, complaint) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let end = Instant::now() + patience;
    let status = loop {
        match child.try_wait().map_err(|error| format!("cannot wait for {name}: {error}"))? {
            Some(status) => break status,
            None if Instant::now() >= end => {
                kill(&mut child);
                return Err(format!("{name}: took over {} s", patience.as_secs()));
            }
            None => std::thread::sleep(PAUSE),
        }
    };
    let text = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
    let (out, complaint) = (text(out), text(complaint));
    if status.success() {
        return Ok(out);
    }
    let last = complaint.trim().lines().last().unwrap_or("it said nothing").to_owned();
    Err(format!("{name}: {last}"))
}

fn gather(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut raw = Vec::new();
        if let Some(mut stream) = stream {
            // What came before it broke is told all the same.
            let _ = stream.read_to_end(&mut raw);
        }
        String::from_utf8_lossy(&raw).into_owned()
    })
}

/// Sends a signal; to one that has ended, it is nothing.
pub(crate) fn signal(child: &Child, signal: Signal) {
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// Kills a process, and waits until it is gone.
pub(crate) fn kill(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

/// Looks again and again until something is found or the time is over.
///
/// # Errors
///
/// What looking for it came to.
pub fn wait_for<T>(
    patience: Duration,
    mut found: impl FnMut() -> Outcome<Option<T>>,
) -> Outcome<Option<T>> {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = found()? {
            return Ok(Some(value));
        }
        if Instant::now() >= end {
            return Ok(None);
        }
        std::thread::sleep(PAUSE * 5);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_takes_too_long_is_killed() {
        let began = Instant::now();
        let ended = run_within(bound("sleep").arg("60"), Duration::from_millis(100));
        assert!(ended.is_err_and(|text| text.contains("sleep 60: took over")));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn the_last_complaint_is_told() {
        let ended = run(bound("sh").args(["-c", "echo one >&2; echo two >&2; exit 3"]));
        assert!(ended.is_err_and(|text| text.ends_with(": two")));
        assert_eq!(run(bound("echo").arg("yes")).as_deref(), Ok("yes\n"));
    }
}
