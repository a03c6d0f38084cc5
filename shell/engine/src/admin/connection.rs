//! The way to an engine.

use std::path::PathBuf;
use std::time::Duration;

use braid_api::v1::engine_client::EngineClient;
use braid_terminal::call::innermost;
pub use braid_terminal::call::{answer, refused};
use tonic::transport::{Channel, Endpoint};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn where_nobody_answers_is_said() {
        let common =
            Common { socket: Some("/no/such/socket".into()), engine: None, output: Format::Table };
        let error = common.connect().await.unwrap_err();
        assert_eq!(error.kind(), Kind::Absent);
        assert!(error.to_string().contains("/no/such/socket: No such file"), "{error}");
    }
}
