//! Calls of a service, as a person meets them: a wait that shows itself, a refusal as one line.

use std::future::Future;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tonic::{Code, Response, Status};

use crate::error::{Error, Result};
use crate::output::print;

/// After so long a person is shown that something is going on.
const QUIET: Duration = Duration::from_secs(1);

/// Runs a command's calls on this thread.
///
/// # Errors
/// As the command.
pub fn run<T>(command: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::run(format!("cannot start: {error}")))?;
    runtime.block_on(command)
}

/// Ends a program whose arguments were no command: help and version are printed as they are, a
/// mistake as one line.
#[must_use]
pub fn refused_line(program: &str, error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        print(&error.render().to_string());
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line = lines.join("; ");
    eprintln!("{program}: {}", line.strip_prefix("error: ").unwrap_or(&line));
    ExitCode::from(2)
}

/// Waits for an answer; a person is shown that it takes its time. `what` says what goes on.
///
/// # Errors
/// The refusal, as one line.
pub async fn answer<T>(
    what: &str,
    call: impl Future<Output = std::result::Result<Response<T>, Status>>,
) -> Result<T> {
    let shows = std::io::stderr().is_terminal();
    let begun = Instant::now();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + QUIET, QUIET);
    tokio::pin!(call);
    let answered = loop {
        tokio::select! {
            answered = &mut call => break answered,
            _ = ticks.tick(), if shows => {
                eprint!("\r{what}: {} s", begun.elapsed().as_secs());
            }
        }
    };
    if shows && begun.elapsed() >= QUIET {
        // The answer begins on a line of its own.
        eprint!("\r\x1b[K");
    }
    answered.map(Response::into_inner).map_err(|status| refused(&status))
}

/// What a refusal means to whoever typed the command.
#[must_use]
pub fn refused(status: &Status) -> Error {
    match status.code() {
        Code::InvalidArgument => Error::usage(status.message()),
        // Calls on a connection that broke are told as such by the client's own side.
        Code::Unknown | Code::Cancelled | Code::Unavailable if status.message().is_empty() => {
            Error::absent("who was asked ended before it answered")
        }
        _ => Error::run(status.message()),
    }
}

/// The cause behind a chain of causes: what the system said.
#[must_use]
pub fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_refusal_is_told_by_whose_turn_it_is() {
        assert_eq!(refused(&Status::invalid_argument("x")).kind(), Kind::Usage);
        assert_eq!(refused(&Status::not_found("x")).kind(), Kind::Run);
        assert_eq!(refused(&Status::unavailable("")).kind(), Kind::Absent);
        assert_eq!(refused(&Status::resource_exhausted("full")).to_string(), "full");
    }
}
