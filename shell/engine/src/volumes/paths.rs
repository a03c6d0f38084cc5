//! Paths of volumes by other engines, which this one's discovery service tells of.

use std::net::SocketAddr;

use braid_api::control as wire;
use braid_nvme::connect::Nqn;
use braid_shard::Elsewhere;

/// What there is to tell of the volumes in a topology, in one order whoever says it. A path whose
/// engine is not connected is left out: hosts are told when it is back.
pub(super) fn elsewhere<'a>(
    volumes: impl Iterator<Item = &'a wire::VolumeTopology>,
    node: &str,
    allowed_hosts: &[String],
) -> Vec<Elsewhere> {
    let others = volumes
        .flat_map(|volume| &volume.paths)
        .filter(|path| path.engine != node && path.access() != wire::Access::Unspecified);
    let mut found: Vec<(Nqn, SocketAddr)> = others
        .flat_map(|path| {
            let nqn = Nqn::parse(&path.nqn);
            let portals = path.portals.iter().filter_map(|portal| portal.parse().ok());
            portals.filter_map(move |portal| nqn.map(|nqn| (nqn, portal)))
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    let place = |(nqn, address)| Elsewhere {
        nqn: Some(nqn),
        address,
        allowed_hosts: allowed_hosts.to_vec(),
    };
    found.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(engine: &str, portals: &[&str], access: wire::Access) -> wire::PathAddress {
        wire::PathAddress {
            engine: engine.into(),
            nqn: "nqn.2026-01.io.braid:v".into(),
            portals: portals.iter().map(|portal| (*portal).to_owned()).collect(),
            access: access.into(),
        }
    }

    #[test]
    fn paths_by_other_engines_are_told_in_one_order_while_those_are_connected() {
        let volume = |paths| wire::VolumeTopology { paths, ..wire::VolumeTopology::default() };
        let here = path("a", &["10.0.0.1:4420"], wire::Access::Optimized);
        let standby = path("b", &["10.0.0.2:4421", "10.0.0.2:4420"], wire::Access::Inaccessible);
        let away = path("c", &["10.0.0.3:4420"], wire::Access::Unspecified);
        let odd = path("d", &["nowhere"], wire::Access::Optimized);
        let said = [volume(vec![standby.clone(), here.clone()]), volume(vec![away, odd, standby])];
        let hosts = ["nqn.host".to_owned()];
        let found = elsewhere(said.iter(), "a", &hosts);
        let addresses: Vec<String> = found.iter().map(|place| place.address.to_string()).collect();
        assert_eq!(addresses, ["10.0.0.2:4420", "10.0.0.2:4421"]);
        assert!(found.iter().all(|place| place.allowed_hosts == hosts && place.nqn.is_some()));
        assert_eq!(elsewhere(said.iter(), "b", &hosts).len(), 1, "what it serves itself is known");
    }
}
