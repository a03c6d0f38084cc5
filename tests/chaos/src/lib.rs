//! Real engines, a real control plane and our host while everything around them goes wrong: see
//! `cargo xtask chaos --help`, which builds this and starts it in a network namespace.
//!
//! `plan` draws from the seed what goes wrong and when, `nemesis` does it and undoes it, by
//! `cluster` (processes and disks), `net` (partitions and loss) and `proxy` (delay and resets);
//! `host` asks and writes down what it is answered; `campaign` judges that, and the `replicas`. In
//! `scenario` nothing is left to chance: one thing goes wrong, and what it costs is counted.
#![forbid(unsafe_code)]

mod campaign;
mod cluster;
mod host;
mod nemesis;
mod net;
mod plan;
mod process;
mod proxy;
mod replicas;
mod report;
mod scenario;
mod story;

pub use campaign::{Options as CampaignOptions, run};
pub use cluster::{Cluster, Parts, Seen, Volume};
pub use host::{Order, Running, Seen as HostsSeen, Work, look};
pub use net::{ENGINES, Net, PORT, Place, Trouble};
pub use process::{run_within, wait_for};
pub use proxy::{Options as ProxyOptions, serve};
pub use scenario::{Options as ScenarioOptions, run as run_scenarios};

/// What did not go well is a text for people.
pub type Outcome<T> = Result<T, String>;
