//! The network: a namespace for each node, joined by a bridge, and what goes wrong between them.
//!
//! The whole program runs in a namespace of its own, where the bridge and the host are; a node's
//! namespace is kept by a process that sleeps in it and that the kernel ends when we end. Nothing
//! has a name outside, so nothing is left behind, however we end.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::process::{bound, run};

/// Engines, and replicas of the volume.
pub const ENGINES: usize = 3;
/// Where engines serve: the port that everybody knows.
pub const PORT: u16 = 4420;
/// The same without a detour: where the proxies connect to.
pub(crate) const BEHIND: u16 = 4421;
/// Where the control plane listens.
pub(crate) const CONTROL_PORT: u16 = 4440;
/// How long the kernel may take to make a namespace.
const PATIENCE: Duration = Duration::from_secs(5);

/// A node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The engine with this number, from 0.
    Engine(usize),
    /// The control plane.
    Control,
    /// The hosts: where this program runs.
    Host,
}

impl Place {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..ENGINES).map(Self::Engine).chain([Self::Control, Self::Host])
    }

    /// Its address.
    #[must_use]
    pub fn address(self) -> String {
        let last = match self {
            Self::Engine(number) => number + 1,
            Self::Control => 50,
            Self::Host => 100,
        };
        format!("10.77.0.{last}")
    }

    /// What people call it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Engine(number) => format!("engine{}", number + 1),
            Self::Control => "control".into(),
            Self::Host => "host".into(),
        }
    }
}

/// Something that is wrong with the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What one sends does not reach the other.
    Cut {
        /// Who sends.
        from: Place,
        /// Who does not hear it.
        to: Place,
    },
    /// Of what comes to a node, so many packets of a hundred are lost.
    Loss {
        /// Where.
        at: Place,
        /// How many.
        percent: u8,
    },
    /// New connections to an engine go through a proxy here.
    Detour {
        /// Who connects.
        from: Place,
        /// To which engine.
        to: Place,
        /// Where the proxy listens, at the one who connects.
        port: u16,
    },
    /// Connections to an engine are broken by a reset, as long as this lasts.
    Reset {
        /// Who connected.
        from: Place,
        /// To which engine.
        to: Place,
    },
}

/// The rules of a node: what of all troubles is felt there.
pub(crate) fn rules(node: Place, troubles: &[Trouble]) -> String {
    let (mut heard, mut sent) = (String::new(), String::new());
    for trouble in troubles {
        // Writing to a string cannot fail.
        let _ = match *trouble {
            Trouble::Cut { from, to } if to == node => {
                writeln!(heard, "  ip saddr {} drop", from.address())
            }
            Trouble::Loss { at, percent } if at == node => {
                let chance = format!("numgen random mod 100 < {percent} drop");
                writeln!(heard, "  ip saddr 10.77.0.0/24 {chance}")
            }
            Trouble::Reset { from, to } if from == node => {
                let peer = format!("ip saddr {} tcp sport {PORT}", to.address());
                writeln!(heard, "  {peer} reject with tcp reset")
            }
            Trouble::Detour { from, to, port } if from == node => {
                let peer = format!("ip daddr {} tcp dport {PORT}", to.address());
                writeln!(sent, "  {peer} redirect to :{port}")
            }
            _ => Ok(()),
        };
    }
    format!(
        "flush ruleset\ntable inet chaos {{\n chain heard {{\n  type filter hook input priority 0; \
         policy accept;\n{heard} }}\n chain sent {{\n  type nat hook output priority -100;\n{sent} \
         }}\n}}\n"
    )
}

/// All namespaces, and what is wrong now.
#[derive(Debug)]
pub struct Net {
    holders: Vec<(Place, Child)>,
    troubles: Vec<(u32, Trouble)>,
    /// The rules that each node has.
    rules: Vec<(Place, String)>,
}

impl Net {
    /// Makes them. We must be in a network namespace of our own.
    ///
    /// # Errors
    ///
    /// What could not be made.
    pub fn new() -> Outcome<Self> {
        ip("link set lo up")?;
        ip("link add bridge type bridge")?;
        ip(&format!("address add {}/24 dev bridge", Place::Host.address()))?;
        ip("link set bridge up")?;
        let mut net = Self { holders: Vec::new(), troubles: Vec::new(), rules: Vec::new() };
        for place in Place::all().filter(|place| *place != Place::Host) {
            net.add(place)?;
        }
        Ok(net)
    }

    fn add(&mut self, place: Place) -> Outcome<()> {
        let own = std::fs::read_link("/proc/self/ns/net").map_err(|e| e.to_string())?;
        let mut hold = bound("unshare");
        hold.args(["--net", "sleep", "infinity"]).stdin(Stdio::null());
        let holder = hold.spawn().map_err(|e| format!("cannot start unshare: {e}"))?;
        let namespace = PathBuf::from(format!("/proc/{}/ns/net", holder.id()));
        self.holders.push((place, holder));
        let end = Instant::now() + PATIENCE;
        while std::fs::read_link(&namespace).is_ok_and(|its| its == own) {
            if Instant::now() > end {
                return Err(format!("{} has no namespace of its own", place.name()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let port = format!("to-{}", place.name());
        ip(&format!("link add {port} type veth peer name eth0 netns {}", namespace.display()))?;
        ip(&format!("link set {port} master bridge up"))?;
        for what in ["link set lo up", "link set eth0 up"] {
            self.ip_at(place, what)?;
        }
        self.ip_at(place, &format!("address add {}/24 dev eth0", place.address()))
    }

    fn ip_at(&self, place: Place, what: &str) -> Outcome<()> {
        run(self.command(place, "ip").args(what.split(' '))).map(drop)
    }

    /// A command that runs at a node.
    #[must_use]
    pub fn command(&self, place: Place, program: &str) -> Command {
        let holder = self.holders.iter().find(|(of, _)| *of == place);
        let Some((_, holder)) = holder else { return bound(program) };
        let mut command = bound("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", holder.id())).arg("--").arg(program);
        command
    }

    /// Something goes wrong from now on, until [`Net::end`] with the same number.
    pub fn begin(&mut self, number: u32, trouble: Trouble) {
        self.troubles.push((number, trouble));
    }

    /// What has this number is over.
    pub fn end(&mut self, number: u32) {
        self.troubles.retain(|(of, _)| *of != number);
    }

    /// All is well.
    ///
    /// # Errors
    ///
    /// What nft says.
    pub fn heal(&mut self) -> Outcome<()> {
        self.troubles.clear();
        self.apply()
    }

    /// Makes it so.
    ///
    /// # Errors
    ///
    /// What nft says.
    pub fn apply(&mut self) -> Outcome<()> {
        let troubles: Vec<Trouble> = self.troubles.iter().map(|(_, trouble)| *trouble).collect();
        for place in Place::all() {
            let rules = rules(place, &troubles);
            let had = self.rules.iter().position(|(of, _)| *of == place);
            if had.is_some_and(|at| self.rules[at].1 == rules) {
                continue;
            }
            self.install(place, &rules)?;
            match had {
                Some(at) => self.rules[at].1 = rules,
                None => self.rules.push((place, rules)),
            }
        }
        Ok(())
    }

    fn install(&self, place: Place, rules: &str) -> Outcome<()> {
        let mut nft = self.command(place, "nft");
        nft.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = nft.spawn().map_err(|e| format!("cannot start nft: {e}"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(rules.as_bytes()).map_err(|e| format!("nft does not listen: {e}"))?;
        }
        let ended = child.wait_with_output().map_err(|e| format!("nft does not end: {e}"))?;
        if ended.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&ended.stderr);
        Err(format!("nft does not take the rules of {}: {said}\n{rules}", place.name()))
    }
}

fn ip(what: &str) -> Outcome<()> {
    run(bound("ip").args(what.split(' '))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Place, Trouble, rules};

    #[test]
    fn a_cut_is_felt_by_the_one_who_does_not_hear() {
        let (one, two) = (Place::Engine(0), Place::Engine(1));
        let cut = [Trouble::Cut { from: one, to: two }];
        assert!(rules(two, &cut).contains("  ip saddr 10.77.0.1 drop\n"));
        for deaf in [one, Place::Control, Place::Host] {
            assert_eq!(rules(deaf, &cut), rules(deaf, &[]));
        }
    }

    #[test]
    fn a_detour_and_a_reset_are_made_where_the_connection_is_made() {
        let (from, to) = (Place::Host, Place::Engine(2));
        let troubles = [Trouble::Detour { from, to, port: 9003 }, Trouble::Reset { from, to }];
        let made = rules(from, &troubles);
        assert!(made.contains("ip daddr 10.77.0.3 tcp dport 4420 redirect to :9003\n"), "{made}");
        assert!(made.contains("ip saddr 10.77.0.3 tcp sport 4420 reject with tcp reset"), "{made}");
        assert_eq!(rules(to, &troubles), rules(to, &[]));
    }

    #[test]
    fn loss_spares_what_a_node_says_to_itself() {
        let made = rules(Place::Control, &[Trouble::Loss { at: Place::Control, percent: 7 }]);
        assert!(made.contains("ip saddr 10.77.0.0/24 numgen random mod 100 < 7 drop"), "{made}");
    }
}
