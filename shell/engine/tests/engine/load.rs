//! The load generator against the engine: what is written is found, what is wrong is told.

use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::process::{Engine, Folder, run};

#[test]
fn what_is_written_is_found_after_a_restart() {
    let folder = Folder::new();
    let file = format!("file:{}?size=8MiB", folder.path("disk"));
    let engine = Engine::start(&[&file, "--block-size", "512"]);
    let write = ["perf", &engine.uri(1), "--rw", "write", "--sequential", "--verify"];
    let size = ["--total", "8MiB", "--block-size", "64KiB", "--fsync-every", "4"];
    let ended = run(&[&write[..], &size].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("16384 blocks checked"), "{}", ended.stdout);
    engine.stop();

    let engine = Engine::start(&[&file, "--block-size", "512"]);
    let read = ["perf", &engine.uri(1), "--rw", "read", "--sequential", "--verify"];
    let ended = run(&[&read[..], &["--total", "8MiB", "--block-size", "16KiB"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    engine.stop();
}

#[test]
fn connections_of_a_host_and_of_all_are_as_many_as_was_said() {
    let load = |engine: &Engine, connections: &str, queues: &str| {
        let uri = engine.uri(1);
        let words = ["--rw", "write", "--total", "4MiB", "--connections", connections];
        run(&[&["perf", &uri, "--queues", queues][..], &words].concat())
    };
    let engine = Engine::start(&["mem:4MiB", "--connections-per-host", "4"]);
    // Each has an admin queue, too.
    assert_eq!(load(&engine, "2", "1").code, Some(0));
    let ended = load(&engine, "3", "1");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let log = engine.stop();
    assert!(log.contains("HostConnections"), "{log}");

    let more = ["--connections", "800", "--connections-per-host", "640", "--arena", "100MiB"];
    let engine = Engine::start(&[&["mem:4MiB"][..], &more].concat());
    let ended = load(&engine, "100", "5");
    assert_eq!(ended.code, Some(0), "600 connections: {ended:?}");
    engine.stop();
}

#[test]
fn every_shape_of_load_verifies() {
    let engine = Engine::start(&["mem:4MiB", "mem:4MiB?block=512"]);
    for (nsid, shape) in [
        (1, "--rw mixed:50 --queues 2 --connections 2 --queue-depth 8"),
        (1, "--rw mixed --header-digest --data-digest"),
        (1, "--rw write --sequential --block-size 128KiB --fsync-every 3 --queue-depth 4"),
        (2, "--rw mixed --block-size 512 --queue-depth 127 --data-digest"),
        (2, "--rw mixed:10 --block-size 6KiB --region 1MiB --header-digest"),
        (2, "--rw mixed --queue-depth 1 --poll always"),
    ] {
        let uri = engine.uri(nsid);
        let words = shape.split(' ').chain(["--verify", "--total", "8MiB", "-o", "json"]);
        let arguments: Vec<_> = ["perf", &uri].into_iter().chain(words).collect();
        let ended = run(&arguments);
        assert_eq!(ended.code, Some(0), "{shape}: {ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let bytes =
            report["read"]["bytes"].as_u64().unwrap() + report["write"]["bytes"].as_u64().unwrap();
        assert!(bytes >= 8 << 20, "{shape}: {report}");
        assert!(report["verified_blocks"].as_u64().unwrap() > 0, "{shape}: {report}");
        assert_eq!(report["mismatches"], 0);
    }
    engine.stop();
}

#[test]
fn a_wrong_byte_is_told_with_its_place() {
    let namespace = "mem:1MiB?inject=read,corrupt,64KiB+4KiB,1";
    let engine = Engine::start(&[namespace, "--allow-injection"]);
    let load = ["perf", &engine.uri(1), "--rw", "write", "--sequential", "--verify"];
    let ended = run(&[&load[..], &["--total", "1MiB"]].concat());
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    let words = ["1 mismatches", "LBA 16: expected LBA 16 generation 1", "found"];
    assert!(words.iter().all(|word| last.contains(word)), "{last}");
    engine.stop();
}

#[test]
fn a_failed_command_is_told_with_its_status() {
    let namespace = "mem:1MiB?inject=write,error,all,2";
    let engine = Engine::start(&[namespace, "--allow-injection"]);
    let load = ["perf", &engine.uri(1), "--rw", "write", "--verify", "--total", "1MiB"];
    let ended = run(&load);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let last = ended.stderr.lines().last().unwrap();
    assert!(last.contains("2 commands failed") && last.contains("write of LBA"), "{last}");
    engine.stop();
}

#[test]
fn digests_that_are_not_offered_are_refused() {
    let engine = Engine::start(&["mem:1MiB", "--data-digest", "off"]);
    let plain = run(&["perf", &engine.uri(1), "--total", "64KiB"]);
    assert_eq!(plain.code, Some(0), "{plain:?}");
    let header = run(&["perf", &engine.uri(1), "--total", "64KiB", "--header-digest"]);
    assert_eq!(header.code, Some(0), "{header:?}");
    let data = run(&["perf", &engine.uri(1), "--total", "64KiB", "--data-digest"]);
    assert_eq!(data.code, Some(1), "{data:?}");
    engine.stop();
}

#[test]
fn an_engine_that_is_killed_and_comes_back_loses_nothing() {
    let folder = Folder::new();
    let file = format!("file:{}?size=16MiB", folder.path("disk"));
    let engine = Engine::start(&[&file]);
    let (address, uri) = (engine.address(), engine.uri(1));
    let load = thread::spawn(move || {
        let how = ["--rw", "mixed:50", "--verify", "--time", "4s", "--queues", "2", "-o", "json"];
        run(&[&["perf", &uri], &how[..]].concat())
    });
    engine.logs("host connected");
    thread::sleep(Duration::from_millis(1000));
    engine.kill();
    let engine = Engine::start(&[&file, "--listen", &address]);
    let ended = load.join().unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("connecting again"), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["retries"].as_u64().unwrap() > 0, "{report}");
    engine.stop();
}

#[test]
fn several_paths_are_used_as_the_target_says_and_none_fails_a_command() {
    let engine = Engine::start(&["mem:4MiB", "--listen", "127.0.0.1:0"]);
    let portals: Vec<String> = engine.listen.iter().map(ToString::to_string).collect();
    let set = |state: &str, portal: &str| {
        let ended = engine.ask(&["ana", "set", &engine.nqn, state, "--listen", portal]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        thread::sleep(Duration::from_millis(300));
    };
    set("inaccessible", &portals[0]);
    let (uri, other) = (engine.uri(1), portals[1].clone());
    let load = thread::spawn(move || {
        // Nobody listens at port 9: a path that is not there is no reason not to begin.
        let paths = ["--path", &other, "--path", "127.0.0.1:9", "--give-up", "8s"];
        let how = ["--rw", "mixed:50", "--verify", "--time", "4s", "--queues", "2", "-o", "json"];
        run(&[&["perf", &uri], &paths[..], &how[..]].concat())
    });
    engine.logs("host connected");
    set("optimized", &portals[0]);
    set("inaccessible", &portals[1]);
    // Now by none: everything waits.
    set("inaccessible", &portals[0]);
    set("non-optimized", &portals[1]);
    let ended = load.join().unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["verified_blocks"].as_u64().unwrap() > 0, "{report}");
    let longest = report["write"]["latency_us"]["max"].as_f64().unwrap();
    assert!(longest > 250_000.0, "nothing waited: {report}");
    engine.stop();
}

#[test]
fn a_load_without_a_path_that_is_left_says_so() {
    let engine = Engine::start(&["mem:1MiB", "--listen", "127.0.0.1:0"]);
    let (uri, other) = (engine.uri(1), engine.listen[1].to_string());
    let load = thread::spawn(move || {
        run(&["perf", &uri, "--path", &other, "--rw", "mixed", "--time", "30s", "--give-up", "1s"])
    });
    engine.logs("host connected");
    thread::sleep(Duration::from_millis(300));
    engine.kill();
    let ended = load.join().unwrap();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("a path is lost"), "{ended:?}");
    assert!(ended.stderr.lines().last().unwrap().contains("no path is left"), "{ended:?}");
}

#[test]
fn an_engine_that_is_stopped_and_comes_back_fails_no_command() {
    let folder = Folder::new();
    let file = format!("file:{}?size=16MiB", folder.path("disk"));
    let engine = Engine::start(&[&file]);
    let (address, uri) = (engine.address(), engine.uri(1));
    let load = thread::spawn(move || {
        run(&["perf", &uri, "--rw", "mixed:50", "--verify", "--time", "3s", "--queues", "3"])
    });
    engine.logs("host connected");
    thread::sleep(Duration::from_millis(500));
    engine.stop();
    let engine = Engine::start(&[&file, "--listen", &address]);
    let ended = load.join().unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    engine.stop();
}

#[test]
fn a_disk_that_forgets_is_found_out() {
    let folder = Folder::new();
    let disk = folder.path("disk");
    let forgets = format!("file:{disk}?size=1MiB&lose-unflushed=1");
    let engine = Engine::start(&[&forgets, "--allow-injection", "--nqn", "nqn.2026-01.io.braid:a"]);
    let (address, uri) = (engine.address(), engine.uri(1));
    let load =
        thread::spawn(move || run(&["perf", &uri, "--rw", "mixed:90", "--verify", "--time", "3s"]));
    engine.logs("host connected");
    thread::sleep(Duration::from_millis(1000));
    engine.kill();
    let keeps = format!("file:{disk}");
    let nqn = "nqn.2026-01.io.braid:a";
    let engine = Engine::start(&[&keeps, "--listen", &address, "--nqn", nqn]);
    let ended = load.join().unwrap();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("mismatches"), "{ended:?}");
    engine.stop();
}

#[test]
fn a_target_that_stays_away_is_given_up() {
    let engine = Engine::start(&["mem:1MiB", "--log", "debug"]);
    let uri = engine.uri(1);
    let load = thread::spawn(move || {
        run(&["perf", &uri, "--rw", "mixed", "--verify", "--time", "60s", "--give-up", "500ms"])
    });
    engine.logs("queue connected");
    thread::sleep(Duration::from_millis(500));
    engine.kill();
    let ended = load.join().unwrap();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("connection refused"), "{ended:?}");
}

#[test]
fn a_load_takes_the_paths_that_discovery_tells_and_says_by_which_one_a_command_failed() {
    let namespace = "mem:1MiB?inject=read,error,all,20";
    let arguments = [namespace, "--allow-injection", "--listen", "127.0.0.1:0"];
    let engine = Engine::start(&arguments);
    let uri = engine.uri(1);
    let load = ["perf", &uri, "--discover", "--total", "256KiB", "--queue-depth", "1"];
    let failed = run(&load);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    let last = failed.stderr.lines().last().unwrap();
    let by = engine.listen.iter().any(|address| last.contains(&address.to_string()));
    assert!(by && last.contains("by path") && last.contains("another try"), "{last}");
    let ended = run(&load);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("by 2 paths"), "{ended:?}");
    let unknown = uri.replace(&engine.nqn, "nqn.2026-01.io.braid:none");
    let ended = run(&["perf", &unknown, "--discover"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("tells of no address"), "{ended:?}");
    engine.stop();
}
