//! Where the paths of a load go: the URI's address and those of `--path`, or what discovery tells.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use braid_nvme::DISCOVERY_NQN;
use braid_nvme::connect::{CNTLID_DYNAMIC, Nqn};
use braid_nvme::host::{Entry, PATHS_MAX, Subtype};

use super::Options;
use crate::client::inquiry;
use crate::client::uri::{HostName, Portal};
use crate::error::{Error, Result};

/// How long a step of asking the discovery service may take.
const DISCOVERY: Duration = Duration::from_secs(10);

/// The options with every path named: with `--discover`, those of the discovery log, as far as
/// there is room for them.
///
/// # Errors
/// When the discovery service does not answer, or does not know the subsystem.
pub fn found(mut options: Options) -> Result<Options> {
    if !options.discover {
        return Ok(options);
    }
    let service = options.target.portal.resolve()?;
    let nqn = Nqn::parse(DISCOVERY_NQN).expect("the well-known name is well-formed");
    let name = HostName::new(options.host_nqn.map(|name| name.0));
    let answer = inquiry::ask(service, nqn, CNTLID_DYNAMIC, name, DISCOVERY)?;
    let mut all = of_subsystem(&answer.log.unwrap_or_default(), &options.target.nqn);
    all.truncate(PATHS_MAX);
    let mut portals = all.into_iter().map(Portal::from);
    options.target.portal = portals.next().ok_or_else(|| {
        Error::run(format!(
            "{service} tells of no address of {}; 'braid-engine discover {service}' shows what it \
             does",
            options.target.nqn
        ))
    })?;
    options.path = portals.collect();
    Ok(options)
}

/// The TCP addresses of a subsystem in a discovery log, each once.
fn of_subsystem(log: &[Entry], nqn: &Nqn) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    let its = |e: &&Entry| {
        e.subtype == Subtype::Nvm && e.transport == 3 && e.subnqn.as_ref() == Some(nqn)
    };
    for entry in log.iter().filter(its) {
        let address = entry.address.parse::<IpAddr>().ok().zip(entry.service.parse().ok());
        let address = address.map(|(ip, port)| SocketAddr::new(ip, port));
        all.extend(address.filter(|address| !all.contains(address)));
    }
    all
}
