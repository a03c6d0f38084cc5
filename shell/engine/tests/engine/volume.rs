//! A volume with one replica on a real engine: it is served as the control plane orders, shown and
//! paced, and left when the engine is told to stop.

use std::time::{Duration, Instant};

use braid_api::control::from_engine::What;
use braid_api::control::{self as wire, order, to_engine};
use braid_nexus::Record;
use braid_nexus::record::{Replica, Standing};
use rustix::process::Signal;

use crate::control::{ALLOTTED, Control, ORDER, REPLICA, make};
use crate::process::{Engine, Folder, run};

pub(crate) const OWNER: &str = "aba7b810-9dad-11d1-80b4-00c04fd430c8";

pub(crate) fn uuid(text: &str) -> [u8; 16] {
    uuid::Uuid::parse_str(text).unwrap().into_bytes()
}

/// An engine that serves a volume.
fn serving(control: &Control, folder: &Folder) -> Engine {
    let engine = Engine::start(&["--control", &control.address.to_string(), "--node", "n1"]);
    control.hears_hello();
    let made = engine.ask(&["pool", "create", &folder.path("pool"), "--size", "64MiB", "--sparse"]);
    assert_eq!(made.code, Some(0), "{made:?}");
    control.order("1ba7b810-9dad-11d1-80b4-00c04fd430c8", make(""));
    let instance = control.hears_done().replica.expect("it was made").instance;
    let mut record = Record {
        volume: uuid(ORDER),
        store: [9; 16],
        version: 1,
        bytes: 1 << 20,
        unused: true,
        ..Record::default()
    };
    let standing = Standing::Member { instance };
    record.slots[0] = Some(Replica { uuid: uuid(REPLICA), standing });
    *control.record.lock().unwrap() = record.encode();
    let replica = wire::ReplicaAddress {
        uuid: REPLICA.into(),
        engine: "n1".into(),
        portals: vec![engine.address()],
        ..Default::default()
    };
    let volume = wire::VolumeTopology {
        volume: ORDER.into(),
        name: "db".into(),
        size_bytes: 1 << 20,
        replicas: vec![replica],
        ..Default::default()
    };
    control.tell(to_engine::What::Topology(wire::Topology { volumes: vec![volume] }));
    let what = order::What::TakeOver(wire::TakeOver { owner: OWNER.into(), force: false });
    control.order("2ba7b810-9dad-11d1-80b4-00c04fd430c8", what);
    let done = control.hears_done();
    assert_eq!(done.code, 0, "{done:?}");
    engine
}

pub(crate) fn record(control: &Control) -> Record {
    Record::decode(&control.record.lock().unwrap()).unwrap()
}

pub(crate) fn json(engine: &Engine, arguments: &[&str]) -> serde_json::Value {
    let answer = engine.ask(&[arguments, &["-o", "json"]].concat());
    assert_eq!(answer.code, Some(0), "{answer:?}");
    serde_json::from_str(&answer.stdout).unwrap()
}

#[test]
fn a_volume_is_shown_and_paced_by_its_engine() {
    let (control, folder) = (Control::start(), Folder::new());
    let engine = serving(&control, &folder);
    let listed = json(&engine, &["nexus", "list"]);
    let nexus = &listed["nexuses"][0];
    assert_eq!((nexus["name"].as_str(), nexus["state"].as_str()), (Some("db"), Some("serving")));
    assert_eq!((nexus["volume"].as_str(), nexus["epoch"].as_u64()), (Some(ORDER), Some(1)));
    assert_eq!(nexus["totals"]["take_overs"], 1);
    let members = json(&engine, &["nexus", "members", "db"]);
    assert_eq!(members["members"][0]["replica"], REPLICA);
    assert_eq!(members["members"][0]["state"], "member");

    let paced = json(&engine, &["nexus", "rebuild", "rate", "--beside", "8MiB", "--alone", "any"]);
    assert_eq!(
        (&paced["beside_bytes_per_s"], &paced["alone_bytes_per_s"]),
        (&(8 << 20).into(), &0.into())
    );
    assert_eq!(json(&engine, &["nexus", "rebuild", "pause", "db"])["paused"], true);
    let progress = json(&engine, &["nexus", "rebuild", "progress", ORDER]);
    assert_eq!(
        (&progress["paused"], &progress["beside_bytes_per_s"]),
        (&true.into(), &(8 << 20).into())
    );
    assert_eq!(json(&engine, &["nexus", "rebuild", "resume"])["paused"], false);
    // So that the next owner goes by it too.
    let pace = control.hears("a pace", |said| match said {
        What::Report(wire::Report { state: Some(state) }) => {
            state.paths.iter().find_map(|path| path.pace).filter(|pace| pace.version == 3)
        }
        _ => None,
    });
    assert_eq!((pace.paused, pace.beside_bytes_per_s, pace.alone_bytes_per_s), (false, 8 << 20, 0));
    let waited = engine.ask(&["nexus", "rebuild", "progress", "db", "--wait"]);
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert!(waited.stdout.contains("all replicas are members"), "{waited:?}");

    let history = json(&engine, &["nexus", "history", "db"]);
    let what = |event: &serde_json::Value| event["what"].as_str().unwrap().to_owned();
    let told: Vec<String> = history["events"].as_array().unwrap().iter().map(what).collect();
    assert_eq!(told, ["claimed", "serving", "paced", "paced", "paced"]);
    let unknown = engine.ask(&["nexus", "show", "other"]);
    assert_eq!(unknown.code, Some(1), "{unknown:?}");
    assert!(unknown.stderr.contains("no part in volume 'other'"), "{unknown:?}");
    engine.stop();
}

#[test]
fn a_volumes_controller_ids_are_those_that_the_control_plane_allotted() {
    let (control, folder) = (Control::start(), Folder::new());
    let engine = serving(&control, &folder);
    let listed = json(&engine, &["nexus", "list"]);
    let nqn = listed["nexuses"][0]["nqn"].as_str().unwrap_or_else(|| panic!("{listed}"));
    let target = format!("nvme+tcp://{}/{nqn}", engine.address());
    let told = run(&["identify", &target, "-o", "json"]);
    assert_eq!(told.code, Some(0), "{told:?}");
    let told: serde_json::Value = serde_json::from_str(&told.stdout).unwrap();
    let cntlid = told["controller"]["cntlid"].as_u64().unwrap();
    assert!((ALLOTTED.0.into()..=ALLOTTED.1.into()).contains(&cntlid), "{cntlid}");
    engine.stop();
}

#[test]
fn a_volume_grows_as_its_owner_is_ordered() {
    let (control, folder) = (Control::start(), Folder::new());
    let engine = serving(&control, &folder);
    let grow = |id: &str, size_bytes| {
        control.order(id, order::What::Resize(wire::Resize { size_bytes }));
        control.hears_done()
    };
    let done = grow("3ba7b810-9dad-11d1-80b4-00c04fd430c8", 3 << 20);
    assert_eq!((done.code, done.text.as_str()), (0, ""));
    assert_eq!(record(&control).bytes, 3 << 20);
    let listed = json(&engine, &["replica", "list"]);
    assert_eq!(listed["replicas"][0]["size_bytes"], 3 << 20);
    let path = format!("nvme+tcp://{}/nqn.2026-01.io.braid:{ORDER}?nsid=1", engine.address());
    let load = ["perf", &path, "--rw", "write", "--sequential", "--verify", "--total", "3MiB"];
    let written = run(&load);
    assert_eq!(written.code, Some(0), "{written:?}");
    let refused = grow("4ba7b810-9dad-11d1-80b4-00c04fd430c8", 1 << 20);
    assert_eq!(refused.code, tonic::Code::InvalidArgument as i32, "{refused:?}");
    let again = grow("5ba7b810-9dad-11d1-80b4-00c04fd430c8", 3 << 20);
    assert_eq!(again.code, 0, "{again:?}");
    let told = json(&engine, &["nexus", "history", "db"])["events"].to_string();
    assert!(told.contains("hosts see 3145728 bytes"), "{told}");
    engine.stop();
}

#[test]
fn an_owner_goes_by_the_pace_that_was_set_at_another_engine() {
    let (control, folder) = (Control::start(), Folder::new());
    let engine = serving(&control, &folder);
    let pace = |version, beside| wire::RebuildPace {
        version,
        paused: true,
        beside_bytes_per_s: beside,
        alone_bytes_per_s: 0,
    };
    let tell = |pace| {
        let volume = wire::VolumeTopology {
            volume: ORDER.into(),
            name: "db".into(),
            size_bytes: 1 << 20,
            pace: Some(pace),
            ..Default::default()
        };
        control.tell(to_engine::What::Topology(wire::Topology { volumes: vec![volume] }));
    };
    let becomes = |beside: u64| {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let shown = json(&engine, &["nexus", "rebuild", "progress", "db"]);
            if shown["beside_bytes_per_s"] == beside {
                return shown["paused"].as_bool();
            }
            assert!(Instant::now() < deadline, "{shown}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    tell(pace(4, 5 << 20));
    assert_eq!(becomes(5 << 20), Some(true));
    // What is set here replaces it, and what comes late changes nothing.
    json(&engine, &["nexus", "rebuild", "rate", "--beside", "7MiB"]);
    control.hears("a pace", |said| match said {
        What::Report(wire::Report { state: Some(state) }) => {
            let set = state.paths.iter().find_map(|path| path.pace);
            set.filter(|pace| pace.version == 5 && pace.beside_bytes_per_s == 7 << 20)
        }
        _ => None,
    });
    tell(pace(4, 5 << 20));
    tell(pace(6, 9 << 20));
    assert_eq!(becomes(9 << 20), Some(true));
    engine.stop();
}

#[test]
fn an_engine_without_volumes_says_so() {
    let engine = Engine::start(&["mem:1MiB"]);
    assert_eq!(json(&engine, &["nexus", "list"])["nexuses"], serde_json::json!([]));
    let none = engine.ask(&["nexus", "rebuild", "pause"]);
    assert_eq!(none.code, Some(1), "{none:?}");
    assert!(none.stderr.contains("--control"), "{none:?}");
    engine.stop();
}

#[test]
fn sigterm_says_so_and_leaves_its_volumes_in_order() {
    let (control, folder) = (Control::start(), Folder::new());
    let mut engine = serving(&control, &folder);
    assert!(!record(&control).clean && !record(&control).unused);
    let begun = Instant::now();
    engine.signal(Signal::TERM);
    control.hears("Leaving", |said| matches!(said, What::Leaving(_)).then_some(()));
    assert_eq!(engine.wait(), Some(0), "{}", engine.log());
    assert!(record(&control).clean, "the next owner need not wait: {:?}", record(&control));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    assert!(!engine.log().contains("did not leave in order"), "{}", engine.log());
}

#[test]
fn sigterm_ends_within_a_deadline_though_the_control_plane_does_not_answer() {
    let (control, folder) = (Control::start(), Folder::new());
    let mut engine = serving(&control, &folder);
    control.silent.store(true, std::sync::atomic::Ordering::Relaxed);
    let begun = Instant::now();
    engine.signal(Signal::TERM);
    assert_eq!(engine.wait(), Some(0), "{}", engine.log());
    let took = begun.elapsed();
    // Volumes have 5 s; what is left of the stop is quick.
    assert!((Duration::from_secs(4)..Duration::from_secs(9)).contains(&took), "{took:?}");
    engine.logs("volumes did not leave in order");
    assert!(!record(&control).clean, "nothing was promised");
}
