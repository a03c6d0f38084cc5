//! The way to an engine.

use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use braid_api::v1::engine_client::EngineClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::admin::output::Format;
use crate::error::{Error, Result};
use crate::manage::socket;
use crate::quantity::Address;

/// A client of an engine's service.
pub type Client = EngineClient<Channel>;

/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How often an engine that says nothing is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// After so long a person is shown that something is going on.
const QUIET: Duration = Duration::from_secs(1);

/// What all commands can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// Socket of the engine [default: engine.sock in $RUNTIME_DIRECTORY, /run/braid, or for a user
    /// $XDG_RUNTIME_DIR/braid]
    #[arg(long, value_name = "PATH", global = true)]
    pub socket: Option<PathBuf>,

    /// Ask the engine over TCP instead, where its --management is
    #[arg(long, value_name = "ADDR:PORT", global = true, conflicts_with = "socket")]
    pub engine: Option<Address>,

    /// How to print the answer
    #[arg(short, long, default_value = "table", value_name = "FORMAT", global = true)]
    pub output: Format,
}

impl Common {
    /// Connects to the engine.
    ///
    /// # Errors
    /// When none answers.
    pub async fn connect(&self) -> Result<Client> {
        let (uri, place) = match self.engine {
            Some(Address(address)) => (format!("http://{address}"), address.to_string()),
            None => {
                let path = self.socket.clone().unwrap_or_else(socket::default_path);
                let path = std::path::absolute(&path).unwrap_or(path).display().to_string();
                (format!("unix://{path}"), path)
            }
        };
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|error| Error::usage(format!("'{place}' cannot be connected to: {error}")))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|error| {
            Error::absent(format!(
                "no engine answers at {place}: {}; is braid-engine serve running, and may you \
                 open its socket?",
                innermost(&error)
            ))
        })?;
        Ok(EngineClient::new(channel))
    }
}

/// Waits for an answer; a person is shown that it takes its time. `what` says what goes on.
///
/// # Errors
/// The engine's refusal, as one line.
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

/// What an engine's refusal means to whoever typed the command.
pub(crate) fn refused(status: &Status) -> Error {
    match status.code() {
        Code::InvalidArgument => Error::usage(status.message()),
        // Calls on a connection that broke are told as such by the client's own side.
        Code::Unknown | Code::Cancelled | Code::Unavailable if status.message().is_empty() => {
            Error::absent("the engine ended while it was asked")
        }
        _ => Error::run(status.message()),
    }
}

/// The cause behind a chain of causes: what the system said.
fn innermost(error: &dyn std::error::Error) -> String {
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

    #[tokio::test]
    async fn where_nobody_answers_is_said() {
        let common =
            Common { socket: Some("/no/such/socket".into()), engine: None, output: Format::Table };
        let error = common.connect().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Absent);
        assert!(error.to_string().contains("/no/such/socket: No such file"), "{error}");
    }
}
