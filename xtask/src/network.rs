//! A network of a test's own: a switch, and nodes on it that have an address each and can be cut
//! off. Each is a network namespace of the kernel that lives as long as a process of ours, so
//! that nothing of it is left when this program ends, however that happens.

use crate::fault::{Explain, Fault, Outcome};
use crate::process;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The switch's own number, by which every node reaches what runs on it; nodes have smaller ones.
pub(crate) const SWITCH: u8 = 254;

/// A namespace is made in some milliseconds; a busy machine gets this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// The switch and its nodes.
#[derive(Debug)]
pub(crate) struct Network {
    switch: Namespace,
    nodes: Vec<Namespace>,
}

impl Network {
    /// Makes a switch and nodes from 1 on. Programs on each have a loopback, too.
    pub(crate) fn new(nodes: u8) -> Outcome<Self> {
        let switch = Namespace::new()?;
        switch.ip("link set lo up")?;
        // A port that joins forwards at once: nobody makes loops here.
        switch.ip("link add switch type bridge forward_delay 0 stp_state 0")?;
        switch.ip(&format!("address add {}/24 dev switch", address(SWITCH)))?;
        switch.ip("link set switch up")?;
        let mut network = Network { switch, nodes: Vec::new() };
        for number in 1..=nodes {
            network.add(number)?;
        }
        Ok(network)
    }

    fn add(&mut self, number: u8) -> Outcome<()> {
        let node = Namespace::new()?;
        let (port, holder) = (port(number), node.holder.id());
        self.switch.ip(&format!("link add {port} type veth peer name net0 netns {holder}"))?;
        self.switch.ip(&format!("link set {port} master switch up"))?;
        node.ip("link set lo up")?;
        node.ip(&format!("address add {}/24 dev net0", address(number)))?;
        node.ip("link set net0 up")?;
        self.nodes.push(node);
        Ok(())
    }

    /// A command that runs on the switch, and ends with us.
    pub(crate) fn bound(&self, program: impl AsRef<Path>) -> Command {
        self.switch.bound(program.as_ref())
    }

    /// A command that runs on a node, and ends with us.
    pub(crate) fn bound_on(&self, number: u8, program: impl AsRef<Path>) -> Outcome<Command> {
        let node = usize::from(number).checked_sub(1).and_then(|at| self.nodes.get(at));
        let node = node.ok_or_else(|| Fault::new(format!("the network has no node {number}")))?;
        Ok(node.bound(program.as_ref()))
    }

    /// Takes a node off the switch: what is sent to it and by it is lost, and nobody is told.
    pub(crate) fn cut(&self, number: u8) -> Outcome<()> {
        self.switch.ip(&format!("link set {} nomaster", port(number)))
    }

    /// Puts a node that was cut off back on the switch; another one stays there.
    pub(crate) fn mend(&self, number: u8) -> Outcome<()> {
        self.switch.ip(&format!("link set {} master switch", port(number)))
    }
}

/// The address of a node, or of the switch.
pub(crate) fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, number)
}

fn port(number: u8) -> String {
    format!("node{number}")
}

/// A network namespace. Dropping it takes its network away from whatever still runs in it.
#[derive(Debug)]
struct Namespace {
    /// Keeps it while it is asleep.
    holder: Child,
}

impl Namespace {
    fn new() -> Outcome<Self> {
        let mut command = process::bound("unshare");
        command.args(["--net", "--", "sleep", "infinity"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let holder = command.spawn().explain(|| "cannot start unshare".to_owned())?;
        let mut made = Namespace { holder };
        let ours = fs::read_link("/proc/self/ns/net").explain(|| "cannot see /proc".to_owned())?;
        let there = process::wait_until(PATIENCE, || {
            let ended = made.holder.try_wait().explain(|| "cannot wait for unshare".to_owned())?;
            if ended.is_some() {
                let why =
                    "cannot make a network namespace; that takes root on a Linux that has them";
                return Err(Fault::new(why));
            }
            Ok(fs::read_link(made.path()).is_ok_and(|its| its != ours).then_some(()))
        })?;
        there.map(|()| made).ok_or_else(|| Fault::new("a network namespace was not made in time"))
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.holder.id()))
    }

    fn bound(&self, program: &Path) -> Command {
        let mut command = process::bound("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    fn ip(&self, words: &str) -> Outcome<()> {
        let mut command = self.bound(Path::new("ip"));
        process::read(command.args(words.split_whitespace())).map(drop)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::{Network, PATIENCE};
    use crate::process;

    /// Whether the switch reaches a node, which says that nobody listens there.
    fn reaches(network: &Network) -> bool {
        let mut client = network.bound("timeout");
        client.args(["1", "bash", "-c", "</dev/tcp/10.77.0.2/9"]);
        process::read(&mut client).is_err_and(|fault| fault.to_string().contains("refused"))
    }

    #[test]
    fn a_node_is_reached_until_it_is_cut_off_and_again_once_it_is_mended() {
        let network = match Network::new(2) {
            Ok(network) => network,
            // The guest's campaign says the same and goes on without.
            Err(fault) => return println!("not tried: {fault}"),
        };
        let eventually = || process::wait_until(PATIENCE, || Ok(reaches(&network).then_some(())));
        assert!(eventually().expect("looked").is_some());
        network.cut(2).expect("cut");
        assert!(!reaches(&network));
        network.mend(2).expect("mended");
        assert!(eventually().expect("looked").is_some());
        network.mend(2).expect("mended again");
        assert!(network.bound_on(3, "true").is_err());
    }
}
