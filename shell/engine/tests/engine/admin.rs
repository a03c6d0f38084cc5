//! Managing a running engine: by its socket, over TCP, and what is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::Value;

use crate::process::{Ended, Engine, Folder, PROGRAM, run, run_command};

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    let errors: Vec<_> = ended.stderr.lines().collect();
    assert!(errors.len() == 1 && errors[0].starts_with("braid-engine: "), "{ended:?}");
    for word in words {
        assert!(errors[0].contains(word), "'{word}' is missing in: {}", errors[0]);
    }
}

#[test]
fn an_engine_without_anything_to_serve_is_managed() {
    let engine = Engine::start(&[]);
    assert_eq!((engine.nqn.as_str(), engine.namespaces), ("", 0));
    let mode = fs::metadata(engine.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "only its owner may open it");
    let status = json(&engine.ask(&["status", "-o", "json"]));
    assert_eq!(status["listen"][0], engine.address());
    assert_eq!(status["allows_injection"], false);
    assert_eq!(json(&engine.ask(&["pool", "list", "-o", "json"]))["pools"], serde_json::json!([]));
    let table = engine.ask(&["pool", "list"]);
    assert!(table.stdout.starts_with("path  uuid  state"), "{table:?}");
    let yaml = engine.ask(&["status", "-o", "yaml"]);
    assert!(yaml.stdout.contains("allows_injection: false\n"), "{yaml:?}");
    let devices = json(&engine.ask(&["device", "list", "-o", "json"]));
    assert!(devices["devices"].is_array());
    let socket = engine.socket();
    engine.stop();
    assert!(fs::metadata(socket).is_err(), "it is taken away");
}

#[test]
fn where_no_engine_is_a_command_says_so() {
    let folder = Folder::brief();
    let socket = folder.path("s");
    refused(&run(&["status", "--socket", &socket]), 3, &[&socket, "braid-engine serve"]);
    refused(&run(&["status", "--engine", "127.0.0.1:1"]), 3, &["127.0.0.1:1", "refused"]);
}

#[test]
fn a_live_socket_is_refused_and_a_stale_one_replaced() {
    let engine = Engine::start(&["mem:1MiB"]);
    let socket = engine.socket();
    let second = run(&["serve", "mem:1MiB", "--listen", "127.0.0.1:0", "--socket", &socket]);
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another engine answers at"), "{second:?}");
    // One that serves plain namespaces alone does without the usual socket.
    let folder = socket.strip_suffix("engine.sock").unwrap();
    let arguments = ["serve", "mem:1MiB", "--listen", "127.0.0.1:0"];
    let mut command = Command::new("env");
    command.arg(format!("RUNTIME_DIRECTORY={folder}")).arg(PROGRAM).args(arguments);
    let third = Engine::spawn(&mut command);
    third.logs("this engine cannot be managed");
    third.kill();
    assert_eq!(engine.ask(&["status"]).code, Some(0));
    let kept = Folder::brief();
    let stale = kept.path("s");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    engine.stop();
    let engine = Engine::start(&["mem:1MiB", "--socket", &stale]);
    assert_eq!(run(&["status", "--socket", &stale]).code, Some(0));
    engine.stop();
}

#[test]
fn it_is_managed_over_tcp_where_that_is_asked_for() {
    let engine = Engine::start(&["mem:1MiB", "--management", "127.0.0.1:0"]);
    let line = engine.logs("management over TCP, without authentication");
    let address = line.split("127.0.0.1:").nth(1).unwrap();
    let port: String = address.chars().take_while(char::is_ascii_digit).collect();
    let engine_at = format!("127.0.0.1:{port}");
    let status = json(&run(&["status", "--engine", &engine_at, "-o", "json"]));
    assert_eq!(status["listen"][0], engine.address());
    let both = run(&["status", "--engine", &engine_at, "--socket", "/s"]);
    assert_eq!(both.code, Some(2), "{both:?}");
    engine.stop();
}

#[test]
fn faults_come_and_go_while_it_runs() {
    let engine = Engine::start(&["mem:1MiB", "--allow-injection"]);
    let reads = || run(&["perf", &engine.uri(1), "--total", "64KiB", "--queue-depth", "1"]);
    assert_eq!(reads().code, Some(0));
    let set = engine.ask(&["fault", "set", &engine.nqn, "read,error"]);
    assert_eq!((set.code, set.stdout.as_str()), (Some(0), "1 faults are set for namespace 1\n"));
    engine.logs("faults set");
    let failed = reads();
    assert_eq!(failed.code, Some(1), "{failed:?}");
    assert!(failed.stderr.contains("read of LBA"), "{failed:?}");
    assert_eq!(engine.ask(&["fault", "clear", &engine.nqn]).code, Some(0));
    assert_eq!(reads().code, Some(0));
    refused(&engine.ask(&["fault", "set", &engine.nqn, "read,melt"]), 2, &["melt", "stall"]);
    refused(&engine.ask(&["fault", "clear", "nqn.x"]), 1, &["nqn.x", "not served"]);
    engine.stop();
    let strict = Engine::start(&["mem:1MiB"]);
    let answer = strict.ask(&["fault", "set", &strict.nqn, "read,error"]);
    refused(&answer, 1, &["--allow-injection"]);
    strict.stop();
}

#[test]
fn access_is_shown_and_changed_while_it_runs() {
    let engine = Engine::start(&["mem:1MiB", "--cntlids", "7-9"]);
    let read = || run(&["perf", &engine.uri(1), "--total", "64KiB", "--queue-depth", "1"]);
    let listed = || json(&engine.ask(&["ana", "list", "-o", "json"]))["groups"][0].clone();
    assert_eq!(listed()["state"], "optimized");
    assert_eq!(
        (&listed()["nqn"], &listed()["group"]),
        (&Value::from(engine.nqn.as_str()), &1.into())
    );
    assert_eq!(read().code, Some(0));
    let set = engine.ask(&["ana", "set", &engine.nqn, "inaccessible"]);
    assert_eq!(set.code, Some(0), "{set:?}");
    assert!(set.stdout.contains("is inaccessible now"), "{set:?}");
    engine.logs("access changed");
    assert_eq!((&listed()["state"], &listed()["changes"]), (&"inaccessible".into(), &2.into()));
    let address = engine.address();
    let set = engine.ask(&["ana", "set", &engine.nqn, "optimized", "--listen", &address]);
    assert_eq!(set.code, Some(0), "{set:?}");
    assert_eq!(read().code, Some(0));
    let table = engine.ask(&["ana", "list", &engine.nqn]);
    assert!(table.stdout.contains("optimized") && table.stdout.contains(&address), "{table:?}");
    refused(&engine.ask(&["ana", "set", &engine.nqn, "gone"]), 2, &["gone", "optimized"]);
    refused(&engine.ask(&["ana", "set", "nqn.x", "change"]), 1, &["nqn.x", "not served"]);
    engine.stop();
}

#[test]
fn what_makes_no_sense_is_refused() {
    let engine = Engine::start(&[]);
    for (arguments, code, words) in [
        (&["pool", "destroy", "/a"][..], 2, &["would be lost", "--yes"][..]),
        (&["replica", "destroy", "vm1"], 2, &["The data of replica vm1", "--yes"]),
        (&["snapshot", "destroy", "vm1@a"], 2, &["would be lost"]),
        (&["pool", "destroy", "/a", "--yes"], 1, &["no pool /a", "--if-exists"]),
        (&["pool", "import", "/no/such"], 1, &["/no/such", "no such file"]),
        (&["pool", "create", "/no/such/a", "--size", "1GiB"], 1, &["no folder /no/such"]),
        (&["pool", "create", "/a", "--size", "lots"], 2, &["'lots' is not a size"]),
        (&["replica", "create", "vm1", "--size", "1GiB"], 1, &["no pool is imported"]),
        (&["replica", "create", "a@b", "--size", "1GiB"], 2, &["@"]),
        (&["replica", "resize", "vm1", "1GiB"], 1, &["no such replica"]),
        (&["snapshot", "create", "vm1"], 2, &["REPLICA@NAME"]),
        (&["scrub", "start", "--rate", "0"], 2, &["scrub stop"]),
        (&["events", "-o", "xml"], 2, &["xml", "yaml"]),
    ] {
        refused(&engine.ask(arguments), code, words);
    }
    let gone = engine.ask(&["pool", "destroy", "/a", "--yes", "--if-exists"]);
    assert_eq!(gone.code, Some(0), "{gone:?}");
    engine.stop();
}

#[test]
fn events_are_shown_as_they_happen() {
    let engine = Engine::start(&["mem:1MiB", "--allow-injection"]);
    let mut watching = Command::new(PROGRAM);
    let arguments = ["events", "--count", "2", "-o", "json", "--socket", &engine.socket()];
    watching.args(arguments);
    let watcher = std::thread::spawn(move || run_command(&mut watching));
    // It is not known when the watcher is connected: events are made until it has seen enough.
    while !watcher.is_finished() {
        engine.ask(&["fault", "clear", &engine.nqn]);
    }
    let ended = watcher.join().unwrap();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let events: Vec<Value> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2);
    for event in &events {
        assert_eq!(
            (&event["kind"], &event["facts"]["nqn"]),
            (&Value::from("faults_set"), &Value::from(engine.nqn.as_str()),)
        );
    }
    let mut watching = Command::new(PROGRAM);
    watching.args(["events", "--socket", &engine.socket()]);
    let watcher = std::thread::spawn(move || run_command(&mut watching));
    std::thread::sleep(std::time::Duration::from_millis(500));
    engine.stop();
    assert_ne!(watcher.join().unwrap().code, Some(0), "the engine ended");
}
