//! Where a target is: `nvme+tcp://host:port/NQN?nsid=1`, and who we say we are.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use braid_nvme::connect::{CNTLID_DYNAMIC, CNTLID_MAX, CNTLID_STATIC_ANY, Nqn};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::serve::identity;

/// The port that is registered for NVMe/TCP.
const PORT: u16 = 4420;
/// How a target is written.
const FORM: &str = "nvme+tcp://127.0.0.1:4420/nqn.2026-01.io.braid:disk1?nsid=1";

/// A subsystem, or one of its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetUri {
    /// Where it is reached.
    pub portal: Portal,
    /// The subsystem.
    pub nqn: Nqn,
    /// The namespace, if one is meant.
    pub nsid: Option<u32>,
    /// The controller to ask for, as Connect names it: a new one, any fixed one, or this one.
    pub cntlid: u16,
}

/// A host and a port as people write them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portal {
    host: String,
    port: u16,
}

impl From<SocketAddr> for Portal {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl FromStr for TargetUri {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let rest = text
            .strip_prefix("nvme+tcp://")
            .ok_or_else(|| format!("'{text}' is not a target; write {FORM}"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (portal, name) = place.split_once('/').unwrap_or((place, ""));
        if name.is_empty() {
            return Err(format!(
                "'{text}' names no subsystem; 'braid-engine discover {portal}' shows what is there"
            ));
        }
        let nqn = Nqn::parse(name)
            .ok_or_else(|| format!("'{name}' is not an NVMe qualified name; write {FORM}"))?;
        let mut uri = Self { portal: portal.parse()?, nqn, nsid: None, cntlid: CNTLID_DYNAMIC };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            uri.set(option)?;
        }
        Ok(uri)
    }
}

impl fmt::Display for TargetUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nvme+tcp://{}/{}", self.portal, self.nqn)?;
        let mut sign = '?';
        if let Some(nsid) = self.nsid {
            write!(f, "{sign}nsid={nsid}")?;
            sign = '&';
        }
        match self.cntlid {
            CNTLID_DYNAMIC => Ok(()),
            CNTLID_STATIC_ANY => write!(f, "{sign}controller=static"),
            id => write!(f, "{sign}controller={id}"),
        }
    }
}

impl TargetUri {
    fn set(&mut self, option: &str) -> std::result::Result<(), String> {
        let understood = match option.split_once('=') {
            Some(("nsid", nsid)) => {
                self.nsid = nsid.parse().ok().filter(|&nsid| nsid > 0);
                self.nsid.is_some()
            }
            Some(("controller", controller)) => {
                let cntlid = controller_id(controller);
                self.cntlid = cntlid.unwrap_or(self.cntlid);
                cntlid.is_some()
            }
            _ => false,
        };
        if understood {
            Ok(())
        } else {
            Err(format!(
                "'{option}' is not understood; write nsid=N or controller=dynamic|static|ID"
            ))
        }
    }
}

fn controller_id(text: &str) -> Option<u16> {
    match text {
        "dynamic" => Some(CNTLID_DYNAMIC),
        "static" => Some(CNTLID_STATIC_ANY),
        _ => text.parse().ok().filter(|id| (1..=CNTLID_MAX).contains(id)),
    }
}

impl FromStr for Portal {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("'{text}' is not an address; write 127.0.0.1:4420 or [::1]:4420");
        let (host, port) = match text.rsplit_once(':') {
            // Colons within brackets belong to the address.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (text, PORT),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if host.is_empty() || (bare.is_none() && host.contains(':')) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Portal {
    /// The address to connect to.
    ///
    /// # Errors
    /// When the host's name is unknown.
    pub fn resolve(&self) -> Result<SocketAddr> {
        let unknown = |why: &dyn fmt::Display| {
            Error::run(format!("cannot find {}: {why}; check its name", self.host))
        };
        let mut addresses =
            (self.host.as_str(), self.port).to_socket_addrs().map_err(|e| unknown(&e))?;
        addresses.next().ok_or_else(|| unknown(&"it has no address"))
    }
}

/// Who we say we are: a host NQN and the host identifier that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostName {
    /// Host NQN.
    pub nqn: Nqn,
    /// Host identifier.
    pub id: [u8; 16],
}

impl HostName {
    /// The name given, or this machine's own, which stays the same from run to run.
    #[must_use]
    pub fn new(given: Option<Nqn>) -> Self {
        let space = Uuid::NAMESPACE_URL;
        let own = || {
            let id = Uuid::new_v5(&space, format!("braid-host:{}", identity::machine()).as_bytes());
            let nqn = Nqn::parse(&format!("nqn.2014-08.org.nvmexpress:uuid:{id}"));
            nqn.map(|nqn| Self { nqn, id: id.into_bytes() })
        };
        let of = |nqn: Nqn| {
            let id = Uuid::new_v5(&space, format!("braid-host:{nqn}").as_bytes());
            Self { nqn, id: id.into_bytes() }
        };
        given.map(of).or_else(own).expect("a UUID makes a well-formed name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_and_written_alike() {
        for (text, written) in [
            (
                "nvme+tcp://10.0.0.1:4421/nqn.2026-01.io.braid:a?nsid=2",
                "nvme+tcp://10.0.0.1:4421/nqn.2026-01.io.braid:a?nsid=2",
            ),
            ("nvme+tcp://node1/nqn.a", "nvme+tcp://node1:4420/nqn.a"),
            ("nvme+tcp://[::1]/nqn.a", "nvme+tcp://[::1]:4420/nqn.a"),
            ("nvme+tcp://[fe80::1]:1/nqn.a", "nvme+tcp://[fe80::1]:1/nqn.a"),
            ("nvme+tcp://a:1/nqn.a?controller=static", "nvme+tcp://a:1/nqn.a?controller=static"),
            (
                "nvme+tcp://a:1/nqn.a?controller=7&nsid=1",
                "nvme+tcp://a:1/nqn.a?nsid=1&controller=7",
            ),
        ] {
            assert_eq!(text.parse::<TargetUri>().unwrap().to_string(), written);
        }
    }

    #[test]
    fn a_mistake_shows_the_form() {
        for (text, expected) in [
            ("10.0.0.1:4420", "is not a target"),
            ("nvme+tcp://10.0.0.1:4420", "discover 10.0.0.1:4420"),
            ("nvme+tcp://10.0.0.1:x/nqn.a", "127.0.0.1:4420"),
            ("nvme+tcp://::1/nqn.a", "[::1]:4420"),
            ("nvme+tcp:///nqn.a", "127.0.0.1:4420"),
            ("nvme+tcp://a/disk", "NVMe qualified name"),
            ("nvme+tcp://a/nqn.a?nsid=0", "nsid=N"),
            ("nvme+tcp://a/nqn.a?queue=0", "nsid=N"),
            ("nvme+tcp://a/nqn.a?controller=0", "controller=dynamic|static|ID"),
        ] {
            let error = text.parse::<TargetUri>().unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_host_keeps_its_name() {
        assert_eq!(HostName::new(None), HostName::new(None));
        let given = Nqn::parse("nqn.a");
        assert_eq!(HostName::new(given).nqn.as_str(), "nqn.a");
        assert_ne!(HostName::new(given).id, HostName::new(None).id);
    }
}
