//! The way to a control plane.

use std::time::Duration;

use braid_api::control::volumes_client::VolumesClient;
use braid_terminal::call::innermost;
use braid_terminal::output::Format;
use braid_terminal::quantity::Address;
use braid_terminal::{Error, Result};
use tonic::transport::{Channel, Endpoint};

/// A client of the service.
pub type Client = VolumesClient<Channel>;

/// Where it is unless something else is said.
pub const ADDRESS: &str = "127.0.0.1:4440";
/// How long a connect may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How often one that says nothing is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What all commands can be told.
#[derive(clap::Args, Clone, Debug)]
pub struct Common {
    /// Where the control plane is [default: $BRAID_CONTROL, or 127.0.0.1:4440]
    #[arg(long, value_name = "ADDR:PORT", global = true)]
    pub control: Option<Address>,

    /// How to print the answer
    #[arg(short, long, default_value = "table", value_name = "FORMAT", global = true)]
    pub output: Format,
}

impl Common {
    /// Connects to the control plane.
    ///
    /// # Errors
    /// When none answers.
    pub async fn connect(&self) -> Result<Client> {
        let variable = std::env::var("BRAID_CONTROL").ok().filter(|value| !value.is_empty());
        let place = match self.control {
            Some(Address(address)) => address.to_string(),
            None => variable.unwrap_or_else(|| ADDRESS.into()),
        };
        let endpoint = Endpoint::from_shared(format!("http://{place}"))
            .map_err(|error| Error::usage(format!("'{place}' cannot be connected to: {error}")))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = endpoint.connect().await.map_err(|error| {
            Error::absent(format!(
                "no control plane answers at {place}: {}; is braid-control serve running, and is \
                 --control right?",
                innermost(&error)
            ))
        })?;
        Ok(VolumesClient::new(channel))
    }
}
