//! Namespaces that are attached and detached while hosts do I/O, and what discovery tells.

use std::thread;

use serde_json::Value;

use crate::process::{Ended, Engine, Folder, run};

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

#[test]
fn namespaces_come_and_go_under_the_io_of_others_without_an_error() {
    let folder = Folder::new();
    let engine = Engine::start(&["mem:8MiB"]);
    let load = engine.uri(1);
    let others = thread::spawn(move || {
        let shape = ["--rw", "mixed:50", "--verify", "--time", "6s", "--queue-depth", "8"];
        run(&[&["perf", &load][..], &shape].concat())
    });
    let file = format!("file:{}?size=4MiB&nsid=9", folder.path("disk"));
    for round in 0..3 {
        let attach = ["namespace", "attach", &engine.nqn, &file, "-o", "json"];
        let attached = json(&engine.ask(&attach));
        assert_eq!((&attached["nsid"], &attached["source"]), (&9.into(), &"disk".into()));
        let listed = json(&engine.ask(&["namespace", "list", &engine.nqn, "-o", "json"]));
        let ids = listed["namespaces"].as_array().unwrap().iter().map(|n| n["nsid"].clone());
        assert_eq!(ids.collect::<Vec<_>>(), [Value::from(1), Value::from(9)]);
        // What was written in the first round is there in the others.
        let rw = if round == 0 { "write" } else { "read" };
        let shape = ["--rw", rw, "--sequential", "--total", "4MiB", "--verify"];
        let used = run(&[&["perf", &engine.uri(9)][..], &shape].concat());
        assert_eq!(used.code, Some(0), "{used:?}");
        let detached = engine.ask(&["namespace", "detach", &engine.nqn, "9"]);
        assert_eq!(detached.code, Some(0), "{detached:?}");
        assert!(detached.stdout.contains("namespace 9 of"), "{detached:?}");
        let gone = run(&["perf", &engine.uri(9), "--total", "4KiB", "--give-up", "1s"]);
        assert_eq!(gone.code, Some(1), "{gone:?}");
    }
    let others = others.join().unwrap();
    assert_eq!(others.code, Some(0), "{others:?}");
    let table = engine.ask(&["namespace", "list"]);
    assert!(table.stdout.contains("memory") && !table.stdout.contains("disk"), "{table:?}");
    engine.stop();
}

#[test]
fn a_command_about_namespaces_says_what_is_wrong() {
    let engine = Engine::start(&["mem:1MiB"]);
    for (arguments, code, word) in [
        (&["attach", "nqn.x", "mem:1MiB"][..], 1, "not served"),
        (&["attach", &engine.nqn, "disk:1MiB"], 2, "disk"),
        (&["attach", &engine.nqn, "mem:2MiB?nsid=1"], 1, "namespace 1"),
        (&["attach", &engine.nqn, "file:/nowhere/at/all?size=1MiB"], 1, "/nowhere/at/all"),
        (&["detach", "nqn.x", "1"], 1, "not served"),
    ] {
        let ended = engine.ask(&[&["namespace"], arguments].concat());
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains(word), "'{word}': {ended:?}");
    }
    let nothing = engine.ask(&["namespace", "detach", &engine.nqn, "5"]);
    assert!(nothing.code == Some(0) && nothing.stdout.contains("was not there"), "{nothing:?}");
    engine.stop();
}

#[test]
fn discovery_tells_of_every_listener_and_of_other_services() {
    let arguments =
        ["mem:1MiB", "--listen", "127.0.0.2:0", "--referral", "10.0.0.9:8009", "--referral"];
    let engine = Engine::start(&[&arguments[..], &["[fd00::9]:8009"]].concat());
    let log = json(&run(&["discover", &engine.address(), "-o", "json"]));
    let of = |subtype: &str| -> Vec<String> {
        let records = log["records"].as_array().unwrap().iter();
        let found = records.filter(|record| record["subtype"] == subtype);
        found
            .map(|r| {
                format!("{} {}", r["traddr"].as_str().unwrap(), r["trsvcid"].as_str().unwrap())
            })
            .collect()
    };
    let listen: Vec<_> = engine.listen.iter().map(|a| format!("{} {}", a.ip(), a.port())).collect();
    assert_eq!(of("nvme subsystem"), listen);
    assert_eq!(of("current discovery subsystem"), listen);
    assert_eq!(of("referral"), ["10.0.0.9 8009", "fd00::9 8009"]);
    engine.stop();
    for (referral, word) in [("127.0.0.1:9", "itself"), ("0.0.0.0:1", "no address")] {
        let listen = ["serve", "mem:1MiB", "--listen", "127.0.0.1:9", "--referral", referral];
        let ended = run(&listen);
        assert!(ended.code == Some(2) && ended.stderr.contains(word), "{ended:?}");
    }
}
