//! The control plane of a scenario whose engines run on nodes.

use crate::engine::Engine;
use crate::fault::{Explain, Outcome};
use crate::network::{self, Network};
use crate::{process, workspace};
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};

/// Where it listens on the switch.
const PORT: u16 = 4440;

/// A running control plane.
#[derive(Debug)]
pub(crate) struct Control {
    program: PathBuf,
    log: PathBuf,
    running: Engine,
}

impl Control {
    /// Starts it with a new store.
    pub(crate) fn start(program: &Path, network: &Network, scenario: &str) -> Outcome<Self> {
        let log = workspace::folder("guest")?.join(format!("control-{scenario}.log"));
        let store = workspace::folder("guest/disks")?.join(format!("{scenario}-control.redb"));
        for old in [&log, &store].into_iter().filter(|path| path.exists()) {
            fs::remove_file(old).explain(|| format!("cannot remove {}", old.display()))?;
        }
        let mut command = network.bound(program);
        command.args(["serve", "--listen", &Control::at().to_string(), "--store"]).arg(store);
        let running = Engine::start(&mut command, &log)?;
        Ok(Control { program: program.to_path_buf(), log, running })
    }

    fn at() -> SocketAddrV4 {
        SocketAddrV4::new(network::address(network::SWITCH), PORT)
    }

    /// Where engines connect.
    pub(crate) fn address(&self) -> SocketAddrV4 {
        Control::at()
    }

    /// What it wrote.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// Gives a command to it as an operator would, and returns what it says.
    pub(crate) fn manage(&self, network: &Network, words: &[&str]) -> Outcome<String> {
        let mut command = network.bound(&self.program);
        command.args(words).args(["--output", "json"]);
        process::read(command.env("BRAID_CONTROL", Control::at().to_string()))
    }

    /// Ends it in order.
    pub(crate) fn stop(self) -> Outcome<()> {
        self.running.stop().map(drop)
    }
}
