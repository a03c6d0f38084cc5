//! Addresses of listeners that go away and come back, in a network of their own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::process::{Ended, Engine, PROGRAM, run_command};

const FIRST: &str = "10.77.1.1";
const SECOND: &str = "10.77.1.2";

/// A network of this machine alone, with two addresses.
struct Network(Child);

impl Network {
    /// None: this machine lets nobody make one.
    fn new() -> Option<Self> {
        let script = format!(
            "ip link set lo up && ip address add {FIRST}/32 dev lo && \
             ip address add {SECOND}/32 dev lo && echo ready && exec sleep 600"
        );
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", &script]);
        let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = piped.spawn().ok()?;
        let mut line = String::new();
        let _read = BufReader::new(child.stdout.take()?).read_line(&mut line);
        let network = Self(child);
        (line == "ready\n").then_some(network)
    }

    /// A command that runs within.
    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let id = self.0.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &id, "--user", "--net", "--preserve-credentials", program]);
        command.args(arguments);
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        run_command(&mut self.command(PROGRAM, arguments))
    }

    /// Adds the first address, or deletes it.
    fn address(&self, what: &str) {
        let address = format!("{FIRST}/32");
        let ended = run_command(&mut self.command("ip", &["address", what, &address, "dev", "lo"]));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_address_that_goes_and_returns_is_served_again_and_its_host_goes_on() {
    let Some(network) = Network::new() else {
        return eprintln!("not shown: no network of its own can be made here");
    };
    let listen = [FIRST, SECOND].map(|ip| format!("{ip}:4420"));
    let serve = ["serve", "mem:8MiB", "--listen", &listen[0], "--listen", &listen[1]];
    let engine = Engine::spawn(&mut network.command(PROGRAM, &serve));
    let uri = |ip: &str| format!("nvme+tcp://{ip}:4420/{}", engine.nqn);
    let reads = |ip: &str| network.run(&["perf", &uri(ip), "--total", "64KiB", "--give-up", "1s"]);
    assert_eq!(reads(FIRST).code, Some(0));

    let shape = ["--rw", "mixed:50", "--verify", "--time", "12s", "--queue-depth", "4"];
    let first = uri(FIRST);
    let arguments = [&["perf", &first][..], &shape, &["--give-up", "50s"]].concat();
    let mut load = network.command(PROGRAM, &arguments);
    let host = thread::spawn(move || run_command(&mut load));
    thread::sleep(Duration::from_secs(2));
    network.address("del");
    assert_eq!(reads(FIRST).code, Some(1), "nobody reaches it");
    assert_eq!(reads(SECOND).code, Some(0), "the other one is not held up");
    let log = network.run(&["discover", &listen[1]]);
    assert!(log.code == Some(0) && log.stdout.contains(FIRST), "{log:?}");
    thread::sleep(Duration::from_secs(2));
    network.address("add");
    assert_eq!(reads(FIRST).code, Some(0), "it is served again, without a restart");
    let host = host.join().unwrap();
    assert_eq!(host.code, Some(0), "its host waited and went on: {host:?}");
    engine.stop();
}
