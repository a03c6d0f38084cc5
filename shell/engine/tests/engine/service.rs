//! An engine at work: what it announces, counts, keeps and lets go.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Background, Engine, Folder, PROGRAM, run};

/// Runs a command that prints JSON.
fn json(arguments: &[&str]) -> Value {
    let ended = run(&[arguments, &["-o", "json"]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap()
}

/// Reads the metrics page of an engine that logs as JSON.
pub(crate) fn metrics(engine: &Engine) -> String {
    let line: Value = serde_json::from_str(&engine.logs("metrics at /metrics")).unwrap();
    let address = line["fields"]["address"].as_str().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: a\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.starts_with("HTTP/1.0 200 OK"), "{page}");
    page
}

pub(crate) fn figure(page: &str, name: &str) -> u64 {
    let line = page.lines().find(|line| line.starts_with(name));
    let value = line.and_then(|line| line.rsplit(' ').next());
    value.unwrap_or_else(|| panic!("{name} is missing in {page}")).parse().unwrap()
}

#[test]
fn it_announces_where_it_is() {
    let engine = Engine::start(&[
        "mem:1MiB",
        "mem:2MiB?block=512",
        "--listen",
        "[::1]:0",
        "--nqn",
        "nqn.2026-01.io.braid:a",
    ]);
    assert_eq!((engine.nqn.as_str(), engine.namespaces), ("nqn.2026-01.io.braid:a", 2));
    assert!(engine.listen.len() == 2 && engine.listen[1].is_ipv6());
    assert!(engine.listen.iter().all(|address| address.port() != 0));
    for address in &engine.listen {
        let log = json(&["discover", &address.to_string()]);
        let records = log["records"].as_array().unwrap();
        let found = records.iter().any(|record| record["subnqn"] == "nqn.2026-01.io.braid:a");
        assert!(found, "{log}");
    }
    let identity = json(&["identify", &engine.uri(2)]);
    assert_eq!(identity["namespaces"].as_array().unwrap().len(), 1);
    assert_eq!(identity["namespaces"][0]["block_bytes"], 512);
    assert_eq!(identity["namespaces"][0]["bytes"], 2 << 20);
    engine.stop();
}

#[test]
fn identity_is_the_same_after_a_restart() {
    let folder = Folder::new();
    let file = format!("file:{}?size=1MiB", folder.path("disk"));
    let identity = || {
        let engine = Engine::start(&[&file, "mem:1MiB"]);
        let uri = engine.uri(1);
        let identity = json(&["identify", uri.split('?').next().unwrap()]);
        let nqn = engine.nqn.clone();
        engine.stop();
        (nqn, identity["controller"]["serial"].clone(), identity["namespaces"].clone())
    };
    assert_eq!(identity(), identity());
}

#[test]
fn identity_that_is_given_is_kept() {
    let uuid = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let nguid = "0123456789abcdef0123456789abcdef";
    let namespace = format!("mem:1MiB?uuid={uuid}&nguid={nguid}&nsid=5");
    let engine = Engine::start(&[&namespace, "--serial", "S1"]);
    let identity = json(&["identify", &engine.uri(5)]);
    assert_eq!(identity["controller"]["serial"], "S1");
    assert_eq!(identity["namespaces"][0]["uuid"], uuid);
    assert_eq!(identity["namespaces"][0]["nguid"], nguid);
    engine.stop();
}

#[test]
fn fixed_controllers_are_asked_for() {
    let engine = Engine::start(&["mem:1MiB", "--controllers", "static"]);
    let refused = run(&["identify", &engine.uri(1)]);
    assert!(refused.stderr.contains("add controller=static"), "{refused:?}");
    let any = format!("{}&controller=static", engine.uri(1));
    assert_eq!(json(&["identify", &any])["controller"]["cntlid"], 1);
    let third = format!("{}&controller=3", engine.uri(1));
    assert_eq!(json(&["identify", &third])["controller"]["cntlid"], 3);
    let load = ["--connections", "2", "--rw", "mixed", "--verify", "--total", "1MiB"];
    let ended = run(&[&["perf", &any], &load[..]].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    engine.stop();
}

#[test]
fn several_subsystems_are_spread_over_shards() {
    let folder = Folder::new();
    let config = folder.write(
        "engine.toml",
        "[[subsystem]]\nnqn = 'nqn.2026-01.io.braid:a'\nnamespaces = ['mem:1MiB']\n\
         [[subsystem]]\nnqn = 'nqn.2026-01.io.braid:b'\nnamespaces = ['mem:2MiB', 'mem:3MiB']\n",
    );
    let engine = Engine::start(&["--config", &config, "--shards", "2"]);
    assert_eq!(engine.nqn, "nqn.2026-01.io.braid:a,nqn.2026-01.io.braid:b");
    assert_eq!(engine.namespaces, 3);
    for (nqn, sizes) in [("a", &[1][..]), ("b", &[2, 3])] {
        let uri = format!("nvme+tcp://{}/nqn.2026-01.io.braid:{nqn}", engine.address());
        let identity = json(&["identify", &uri]);
        let namespaces = identity["namespaces"].as_array().unwrap();
        let found: Vec<_> = namespaces.iter().map(|n| n["bytes"].as_u64().unwrap() >> 20).collect();
        assert_eq!(found, sizes);
        let load = run(&["perf", &uri, "--rw", "mixed", "--verify", "--total", "1MiB"]);
        assert_eq!(load.code, Some(0), "{load:?}");
    }
    engine.stop();
}

#[test]
fn the_number_of_shards_may_differ_at_every_start() {
    let folder = Folder::new();
    let file = folder.write("disk", &"16 bytes of text".repeat(32 << 10));
    let namespace = format!("file:{file}?size=512KiB");
    let mut seen = Vec::new();
    for shards in ["2", "1", "3"] {
        let engine = Engine::start(&[&namespace, "--shards", shards]);
        let mut identity = json(&["identify", &engine.uri(1)]);
        seen.push((engine.nqn.clone(), identity["namespaces"].take()));
        let load = run(&["perf", &engine.uri(1), "--rw", "mixed", "--verify", "--total", "1MiB"]);
        assert_eq!(load.code, Some(0), "{load:?}");
        engine.stop();
    }
    assert!(seen.iter().all(|one| *one == seen[0]), "{seen:?}");
}

#[test]
fn it_counts() {
    let engine = Engine::start(&["mem:1MiB", "--metrics", "127.0.0.1:0", "--log-format", "json"]);
    let load = ["perf", &engine.uri(1), "--rw", "write", "--total", "256KiB", "--fsync-every", "8"];
    assert_eq!(run(&load).code, Some(0));
    let page = metrics(&engine);
    assert_eq!(figure(&page, "braid_namespace_writes_total{"), 64);
    assert_eq!(figure(&page, "braid_namespace_written_bytes_total{"), 256 << 10);
    assert!(figure(&page, "braid_namespace_flushes_total{") >= 7);
    assert!(figure(&page, "braid_shard_commands_total{") > 64);
    assert!(figure(&page, "braid_shard_connections_accepted_total{") >= 2);
    engine.stop();
}

#[test]
fn a_stop_is_orderly_while_a_host_works() {
    let engine = Engine::start(&["mem:16MiB"]);
    let _load = Background::start(&["perf", &engine.uri(1), "--rw", "mixed", "--time", "30s"]);
    engine.logs("host connected");
    let begun = Instant::now();
    let log = engine.stop();
    assert!(begun.elapsed() < Duration::from_secs(9), "{log}");
    assert!(log.contains("stopped"), "{log}");
}

#[test]
fn the_drain_time_bounds_a_stop() {
    let namespace = "mem:1MiB?inject=read,delay:30s,all,1";
    let mut engine = Engine::start(&[namespace, "--allow-injection", "--drain", "300ms"]);
    let _load = Background::start(&["perf", &engine.uri(1), "--queue-depth", "1"]);
    engine.logs("host connected");
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    engine.signal(Signal::TERM);
    engine.wait();
    assert!(begun.elapsed() < Duration::from_secs(5), "{}", engine.log());
}

#[test]
fn systemd_is_told() {
    let folder = Folder::new();
    let path = folder.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let arguments = ["serve", "mem:1MiB", "--listen", "127.0.0.1:0"];
    let mut command = Command::new(PROGRAM);
    let engine = Engine::spawn(command.args(arguments).env("NOTIFY_SOCKET", &path));
    let heard = || {
        let mut text = [0; 256];
        let count = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..count]).trim().to_owned()
    };
    assert_eq!(heard(), "READY=1");
    engine.stop();
    assert_eq!(heard(), "STOPPING=1");
}

#[test]
fn the_file_is_read_again() {
    let folder = Folder::new();
    let config = |level: &str| {
        folder.write("engine.toml", &format!("log = '{level}'\nnamespaces = ['mem:1MiB']\n"))
    };
    let path = config("info");
    let engine = Engine::start(&["--config", &path]);
    let reads = || run(&["perf", &engine.uri(1), "--total", "64KiB", "--queue-depth", "1"]);
    assert_eq!(reads().code, Some(0));
    assert!(!engine.log().contains("queue connected"));

    config("debug");
    engine.signal(Signal::HUP);
    engine.logs("configuration read again");
    assert_eq!(reads().code, Some(0));
    engine.logs("queue connected");

    folder.write("engine.toml", "log = 'loud'");
    engine.signal(Signal::HUP);
    engine.logs("left as it was");
    engine.stop();
}

#[test]
fn logs_are_json_when_asked_for() {
    let engine = Engine::start(&["mem:1MiB", "--log-format", "json"]);
    let log = engine.stop();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(line["level"].is_string() && line["fields"]["message"].is_string());
    }
}

#[test]
fn every_command_teaches() {
    for (command, words) in [
        (&["--help"][..], &["serve", "perf", "discover", "identify", "Examples"][..]),
        (&["serve", "--help"], &["mem:256MiB", "pool:", "SIGHUP", "[[subsystem]]", "Examples"]),
        (&["pool", "--help"], &["create", "grow", "destroy", "Examples", "Exit codes"]),
        (&["pool", "create", "--help"], &["--size", "--force", "--yes", "--socket"]),
        (&["replica", "--help"], &["resize", "unshare", "Examples"]),
        (&["snapshot", "--help"], &["vm1@monday", "clone", "Examples"]),
        (&["device", "--help"], &["list", "States", "Examples"]),
        (&["scrub", "--help"], &["--rate", "Examples"]),
        (&["fault", "--help"], &["--allow-injection", "Examples"]),
        (&["events", "--help"], &["--count", "Examples"]),
        (&["inspect", "--help"], &["PATH", "Examples"]),
        (&["verify", "--help"], &["--repair", "--no-data", "Examples"]),
        (&["status", "--help"], &["--engine", "Examples"]),
        (&["perf", "--help"], &["--verify", "Examples"]),
        (&["discover", "--help"], &["127.0.0.1:4420", "Examples"]),
        (&["identify", "--help"], &["nvme+tcp://", "Examples"]),
    ] {
        let ended = run(command);
        assert_eq!(ended.code, Some(0));
        for word in words {
            assert!(ended.stdout.contains(word), "{word} is missing in {}", ended.stdout);
        }
    }
}
