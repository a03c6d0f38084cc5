//! A volume on several real engines changes while it is served: it is snapshotted, grows, loses a
//! member and gets another one on another engine, which then has everything.

use std::time::{Duration, Instant};

use braid_api::control::order::What;
use braid_api::control::{self as wire, to_engine};
use braid_nexus::Record;
use braid_nexus::record::{Replica, Standing};

use crate::control::{Control, ORDER};
use crate::process::{Engine, Folder, run};
use crate::volume::{OWNER, json, record, uuid};

const SNAPSHOT: &str = "5ba7b810-9dad-11d1-80b4-00c04fd430c8";
const SIZE: u64 = 8 << 20;

/// Three engines with a pool each, and a control plane that does what the test says.
struct Cluster {
    control: Control,
    engines: Vec<Engine>,
    /// Where replicas are.
    places: Vec<usize>,
    _folder: Folder,
}

/// The replica of an engine.
fn replica(at: usize) -> String {
    format!("{at}0a7b810-9dad-11d1-80b4-00c04fd430c8")
}

fn node(at: usize) -> String {
    format!("n{at}")
}

impl Cluster {
    fn start() -> Self {
        let (control, folder) = (Control::start(), Folder::new());
        let address = control.address.to_string();
        let mut engines = Vec::new();
        for at in 0..3 {
            let who = ["--control", &address, "--node", &node(at)];
            let engine = Engine::start(&who);
            control.hears_hello();
            let pool = folder.path(&format!("pool{at}"));
            let made = engine.ask(&["pool", "create", &pool, "--size", "128MiB", "--sparse"]);
            assert_eq!(made.code, Some(0), "{made:?}");
            engines.push(engine);
        }
        Self { control, engines, places: Vec::new(), _folder: folder }
    }

    /// An engine makes a replica; its instance.
    fn make(&mut self, at: usize, size_bytes: u64) -> u64 {
        let (uuid, name) = (replica(at), format!("db.{at}"));
        let make = wire::MakeReplica { uuid, name, pool: String::new(), size_bytes };
        let made = self.control.order_at(&node(at), What::MakeReplica(make));
        self.places.push(at);
        made.replica.unwrap_or_else(|| panic!("{}", made.text)).instance
    }

    /// Tells all engines where everything is.
    fn tell(&self) {
        let place = |at: &usize| wire::ReplicaAddress {
            uuid: replica(*at),
            engine: node(*at),
            portals: vec![self.engines[*at].address()],
            ..Default::default()
        };
        let volume = wire::VolumeTopology {
            volume: ORDER.into(),
            name: "db".into(),
            size_bytes: record(&self.control).bytes,
            replicas: self.places.iter().map(place).collect(),
            paths: Vec::new(),
            pace: None,
        };
        let topology = wire::Topology { volumes: vec![volume] };
        self.control.tell(to_engine::What::Topology(topology));
    }

    /// The engine that serves does this; until it is not busy.
    fn order(&self, what: What) {
        let begun = Instant::now();
        loop {
            let done = self.control.order_at("n0", what.clone());
            if done.code == tonic::Code::Unavailable as i32 {
                assert!(begun.elapsed() < Duration::from_secs(30), "{done:?}");
                std::thread::sleep(Duration::from_millis(200));
                continue;
            }
            return assert_eq!(done.code, 0, "{what:?}: {done:?}");
        }
    }

    fn until(&self, what: &str, is: impl Fn(&Record) -> bool) {
        let begun = Instant::now();
        while !is(&record(&self.control)) {
            let late = begun.elapsed() > Duration::from_secs(40);
            assert!(!late, "not {what}: {:?}\n{}", record(&self.control), self.engines[0].log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Reads or writes all of the volume, and checks what is read.
    fn load(&self, how: &str, bytes: u64) {
        let address = self.engines[0].address();
        let path = format!("nvme+tcp://{address}/nqn.2026-01.io.braid:{ORDER}?nsid=1");
        let total = bytes.to_string();
        let what = ["perf", &path, "--rw", how, "--sequential", "--verify", "--total", &total];
        let ended = run(&[&what[..], &["--block-size", "64KiB"]].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let blocks = format!("{} blocks checked", bytes / 4096);
        assert!(ended.stdout.contains(&blocks), "{ended:?}");
    }

    fn snapshots(&self, at: usize) -> usize {
        let listed = json(&self.engines[at], &["snapshot", "list"]);
        let snapshots = listed["snapshots"].as_array().unwrap();
        assert!(snapshots.iter().all(|snapshot| snapshot["uuid"] == SNAPSHOT), "{listed}");
        snapshots.len()
    }
}

fn members(record: &Record) -> Vec<[u8; 16]> {
    let slots = (0..8).filter(|slot| record.instance(*slot).is_some());
    slots.filter_map(|slot| record.replica(slot).map(|replica| replica.uuid)).collect()
}

/// A volume of two replicas, served by the first engine.
fn served() -> Cluster {
    let mut cluster = Cluster::start();
    let instances = [cluster.make(0, SIZE), cluster.make(1, SIZE)];
    let mut first = Record {
        volume: uuid(ORDER),
        store: [9; 16],
        version: 1,
        bytes: SIZE,
        unused: true,
        ..Record::default()
    };
    for (at, instance) in instances.into_iter().enumerate() {
        let standing = Standing::Member { instance };
        first.slots[at] = Some(Replica { uuid: uuid(&replica(at)), standing });
    }
    *cluster.control.record.lock().unwrap() = first.encode();
    cluster.tell();
    cluster.order(What::TakeOver(wire::TakeOver { owner: OWNER.into(), force: false }));
    cluster
}

#[test]
fn a_volume_is_snapshotted_grows_and_moves_to_another_engine_while_it_is_served() {
    let mut cluster = served();
    cluster.load("write", SIZE);
    let take = What::TakeSnapshot(wire::TakeSnapshot { uuid: SNAPSHOT.into() });
    cluster.order(take.clone());
    // As after a lost answer: another order for the same.
    cluster.order(take);
    assert_eq!(record(&cluster.control).snapshots.len(), 1);
    assert_eq!(record(&cluster.control).snapshots[0].holders, 0b11);
    assert_eq!((cluster.snapshots(0), cluster.snapshots(1)), (1, 1));

    cluster.order(What::Resize(wire::Resize { size_bytes: 2 * SIZE }));
    cluster.tell();
    cluster.load("write", 2 * SIZE);

    let gone = || replica(1);
    cluster.order(What::TakeOut(wire::TakeOut { replica: gone() }));
    cluster.order(What::TakeOut(wire::TakeOut { replica: gone() }));
    cluster.order(What::GiveUp(wire::GiveUp { replica: gone() }));
    cluster.order(What::GiveUp(wire::GiveUp { replica: gone() }));
    assert_eq!(members(&record(&cluster.control)), [uuid(&replica(0))]);
    let destroy = What::DropReplica(wire::DropReplica { uuid: gone() });
    let dropped = cluster.control.order_at("n1", destroy);
    assert_eq!(dropped.code, 0, "{dropped:?}");
    assert_eq!(cluster.snapshots(1), 0, "they went with it");
    let left = json(&cluster.engines[1], &["replica", "list"]);
    assert_eq!(left["replicas"], serde_json::json!([]));
    cluster.places.retain(|at| *at != 1);
    let last = What::TakeOut(wire::TakeOut { replica: replica(0) });
    let last = cluster.control.order_at("n0", last);
    assert_eq!(last.code, tonic::Code::Unavailable as i32, "the last one stays: {last:?}");

    cluster.make(2, 2 * SIZE);
    cluster.tell();
    let add = What::AddMember(wire::AddMember { replica: replica(2) });
    cluster.order(add.clone());
    cluster.order(add);
    cluster.order(What::Return(wire::Return { replica: replica(2) }));
    let new = uuid(&replica(2));
    cluster.until("a member", |record| members(record).contains(&new));
    let holders = record(&cluster.control).snapshots[0].holders;
    assert_eq!(holders.count_ones(), 2, "it got the snapshot first");
    assert_eq!(cluster.snapshots(2), 1);

    // From now on nobody else can answer.
    cluster.order(What::TakeOut(wire::TakeOut { replica: replica(0) }));
    assert_eq!(members(&record(&cluster.control)), [new]);
    cluster.load("read", 2 * SIZE);
    let go = What::DropSnapshot(wire::DropSnapshot { uuid: SNAPSHOT.into() });
    cluster.order(go.clone());
    cluster.order(go);
    assert_eq!((record(&cluster.control).snapshots.len(), cluster.snapshots(2)), (0, 0));
    let told = json(&cluster.engines[0], &["nexus", "history", "db"])["events"].to_string();
    for word in ["snapshot", "resized", "member-excluded", "returning"] {
        assert!(told.contains(&format!("\"{word}\"")), "{word}: {told}");
    }
    cluster.engines.into_iter().for_each(|engine| drop(engine.stop()));
}
