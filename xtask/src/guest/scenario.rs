//! What a Linux host does with our engine, scenario by scenario: the engines it needs here, the
//! script that runs in the guest in `xtask/guest/NAME.sh`.

use super::kernel::Release;
use super::service::Plan;
use std::time::Duration;

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scenario {
    /// Its name, and that of its script.
    pub(crate) name: &'static str,
    /// What it shows, for `--list`.
    pub(crate) about: &'static str,
    /// The engines it talks to.
    pub(crate) engines: &'static [Plan],
    /// Seconds after which the guest counts as hanging; several times what a busy machine needs.
    seconds: u64,
    /// The Linux release that it needs, if the usual one is too old.
    pub(crate) release: Option<Release>,
}

impl Scenario {
    /// How long it may take.
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// The scenario of this name, or those whose names begin with it and a dash.
pub(crate) fn named(name: &str) -> impl Iterator<Item = &'static Scenario> {
    let is_meant = move |scenario: &&Scenario| {
        let rest = scenario.name.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    ALL.iter().filter(is_meant)
}

/// An engine with these namespaces and nothing else.
const fn engine(name: &'static str, namespaces: &'static [&'static str]) -> Plan {
    Plan { name, namespaces, pool: None, options: &[], node: None }
}

/// An engine with a pool on a sparse file of this size, and nothing else.
const fn pool(size: &'static str) -> Plan {
    Plan { pool: Some(size), ..engine("disk", &[]) }
}

/// An engine with a pool, on a node of its own and under a control plane.
const fn node(name: &'static str, number: u8) -> Plan {
    Plan { pool: Some("256MiB"), node: Some(number), ..engine(name, &[]) }
}

/// Three of them, for volumes.
const CLUSTER: &[Plan] = &[node("engine1", 1), node("engine2", 2), node("engine3", 3)];

/// Every scenario, in the order of the campaign.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "discover",
        about: "the discovery log, by a passing and by a lasting controller",
        engines: &[engine("disk", &["mem:64MiB"])],
        seconds: 150,
        release: None,
    },
    Scenario {
        name: "connect",
        about: "with and without digests, one queue and four, blocks of 4096 and of 512 bytes",
        engines: &[
            engine("disk", &["mem:64MiB", "mem:32MiB?block=512"]),
            Plan { options: &["--block-size", "512"], ..engine("small", &["mem:64MiB"]) },
        ],
        seconds: 300,
        release: None,
    },
    Scenario {
        name: "verify",
        about: "fio writes mixed sizes at depth and verifies them by CRC32C",
        engines: &[
            engine("disk", &["file:{disks}/verify.img?size=256MiB"]),
            engine("small", &["file:{disks}/verify512.img?size=128MiB&block=512"]),
        ],
        seconds: 360,
        release: None,
    },
    Scenario {
        name: "admin",
        about: "nvme-cli: identify, logs, features, flush, write-zeroes, dsm, wrong commands",
        engines: &[Plan {
            options: &["--serial", "BRAIDGUEST0001"],
            ..engine(
                "disk",
                &["file:{disks}/admin.img?size=64MiB&sparse=1\
                 &uuid=6f0c9d3e-2b7a-4c58-9d41-0a1b2c3d4e5f"],
            )
        }],
        seconds: 240,
        release: None,
    },
    Scenario {
        name: "ext4",
        about: "mkfs, fsync-heavy writing, discard, unmount, remount, content equal",
        engines: &[engine("disk", &["file:{disks}/ext4.img?size=512MiB&sparse=1"])],
        seconds: 360,
        release: None,
    },
    Scenario {
        name: "xfs",
        about: "the same with XFS, on blocks of 512 bytes and with digests",
        engines: &[engine("disk", &["file:{disks}/xfs.img?size=512MiB&sparse=1&block=512"])],
        seconds: 360,
        release: None,
    },
    Scenario {
        name: "kill",
        about: "kill -9 of the engine under I/O, restart: no acknowledged, flushed byte is lost",
        engines: &[engine("disk", &["file:{disks}/kill.img?size=256MiB"])],
        seconds: 360,
        release: None,
    },
    Scenario {
        name: "cut",
        about: "the same with an engine that then loses all that was not flushed",
        engines: &[Plan {
            options: &["--allow-injection"],
            ..engine("disk", &["file:{disks}/cut.img?size=256MiB&lose-unflushed=1"])
        }],
        seconds: 360,
        release: None,
    },
    Scenario {
        name: "stop",
        about: "an orderly stop under I/O and the return: the host waits and loses nothing",
        engines: &[engine("disk", &["file:{disks}/stop.img?size=256MiB"])],
        seconds: 300,
        release: None,
    },
    Scenario {
        name: "refuse",
        about: "a host that is not on the list, and a subsystem that does not exist",
        engines: &[Plan {
            options: &[
                "--allow-host",
                "nqn.2014-08.org.nvmexpress:uuid:11111111-1111-4111-8111-111111111111",
            ],
            ..engine("disk", &["mem:64MiB"])
        }],
        seconds: 150,
        release: None,
    },
    Scenario {
        name: "ana",
        about: "two paths whose access changes under fio without an error; compare, verify",
        engines: &[Plan {
            options: &["--listen", "{other}"],
            ..engine("disk", &["file:{disks}/ana.img?size=64MiB"])
        }],
        seconds: 400,
        release: None,
    },
    Scenario {
        name: "namespace",
        about: "namespaces attached and detached under fio, also one that is written",
        engines: &[engine("disk", &["mem:64MiB"])],
        seconds: 300,
        release: None,
    },
    Scenario {
        name: "reservation",
        about: "two hosts and their reservations on a file, and again after kill -9",
        engines: &[engine("disk", &["file:{disks}/reservation.img?size=64MiB"])],
        seconds: 800,
        release: None,
    },
    Scenario {
        name: "device",
        about: "the engine in the guest, on block devices, over IPv4 and IPv6; what it refuses",
        engines: &[],
        seconds: 300,
        release: None,
    },
    Scenario {
        name: "peer",
        about: "our own host against the kernel's target: I/O, digests, access that changes",
        engines: &[],
        seconds: 240,
        release: None,
    },
    Scenario {
        name: "peer-reservation",
        about: "two hosts of ours and the kernel's reserve a namespace of the kernel's target",
        engines: &[],
        seconds: 300,
        release: Some(Release::Newest),
    },
    Scenario {
        name: "pool-ext4",
        about: "ext4 on a thin replica: fsync-heavy writing, what is trimmed goes to the pool",
        engines: &[pool("256MiB")],
        seconds: 300,
        release: None,
    },
    Scenario {
        name: "pool-xfs",
        about: "the same with XFS, on blocks of 512 bytes and with digests",
        engines: &[pool("256MiB")],
        seconds: 300,
        release: None,
    },
    Scenario {
        name: "pool-clones",
        about: "snapshots under fio; clones mounted beside their origins; deleted in any order",
        engines: &[pool("256MiB")],
        seconds: 400,
        release: None,
    },
    Scenario {
        name: "pool-full",
        about: "a pool filled to 100 %: the host sees it, overwrites, frees space and goes on",
        engines: &[pool("48MiB")],
        seconds: 300,
        release: None,
    },
    Scenario {
        name: "pool-reservation",
        about: "two hosts and their reservations on a replica, and again after kill -9",
        engines: &[pool("128MiB")],
        seconds: 800,
        release: None,
    },
    Scenario {
        name: "pool-kill",
        about: "kill -9 ten times under writes, flushes, unmap and zeroes: nothing is lost",
        engines: &[pool("256MiB")],
        seconds: 400,
        release: None,
    },
    Scenario {
        name: "pool-resize",
        about: "a replica that grows under I/O: the host sees it without a reconnect",
        engines: &[pool("128MiB")],
        seconds: 240,
        release: None,
    },
    Scenario {
        name: "volume-discovery",
        about: "connect-all; events that lead a host to new volumes and to new paths",
        engines: CLUSTER,
        seconds: 1200,
        release: None,
    },
    Scenario {
        name: "volume-faults",
        about: "fio on a volume whose engine is killed, stopped and cut off, without an error",
        engines: CLUSTER,
        seconds: 1200,
        release: None,
    },
    Scenario {
        name: "volume-change",
        about: "a snapshot, other sizes and another replica under fio: the host sees each size",
        engines: CLUSTER,
        seconds: 1200,
        release: None,
    },
    Scenario {
        name: "volume-ext4",
        about: "ext4 on a volume, through ten fail-overs",
        engines: CLUSTER,
        seconds: 1200,
        release: None,
    },
];

#[cfg(test)]
mod tests {
    use super::{ALL, named};

    #[test]
    fn every_scenario_has_a_script_and_a_name_of_its_own() {
        let scripts = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
        for (place, scenario) in ALL.iter().enumerate() {
            assert!(scripts.join(format!("{}.sh", scenario.name)).is_file(), "{}", scenario.name);
            assert_eq!(ALL.iter().position(|one| one.name == scenario.name), Some(place));
            assert!(named(scenario.name).any(|found| found.name == scenario.name));
        }
    }

    #[test]
    fn a_group_is_named_by_what_its_names_begin_with() {
        assert!(named("pool").count() >= 5);
        assert_eq!(named("poo").count(), 0);
        assert_eq!(named("kill").count(), 1);
    }
}
