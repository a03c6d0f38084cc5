//! `braid-engine reservation`: what our host asks of a target about its namespaces.

use serde_json::Value;

use crate::process::{Ended, Engine, Folder, run};

/// A host of this name, and what it has done.
fn host(name: &str, engine: &Engine, verb: &str, words: &[&str]) -> Ended {
    let name = format!("nqn.2026-01.io.braid:host-{name}");
    let uri = engine.uri(1);
    let arguments = [&["reservation", verb, &uri], words, &["--host-nqn", &name]].concat();
    run(&arguments)
}

fn write(name: &str, engine: &Engine) -> Ended {
    let name = format!("nqn.2026-01.io.braid:host-{name}");
    let shape = ["--rw", "write", "--total", "4KiB", "--block-size", "4KiB", "--host-nqn", &name];
    run(&[&["perf", &engine.uri(1)][..], &shape].concat())
}

fn report(engine: &Engine) -> Value {
    let ended = host("watcher", engine, "report", &["-o", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[test]
fn a_namespace_is_reserved_taken_over_and_given_up_by_command() {
    let folder = Folder::new();
    let file = format!("file:{}?size=1MiB", folder.path("disk"));
    let state = folder.path("state");
    let engine = Engine::start(&[&file, "--state-dir", &state]);
    let done = |ended: Ended| assert_eq!(ended.code, Some(0), "{ended:?}");
    let conflict = |ended: Ended| {
        let said = ended.stderr.contains("reservation conflict");
        assert!(ended.code == Some(1) && said, "{ended:?}");
    };
    done(host("a", &engine, "register", &["0xa", "--persist", "true"]));
    done(host("b", &engine, "register", &["11"]));
    done(host("a", &engine, "acquire", &["0xa", "write-exclusive"]));
    done(write("a", &engine));
    conflict(write("b", &engine));
    conflict(host("b", &engine, "acquire", &["11", "write-exclusive"]));
    let seen = report(&engine);
    assert_eq!((&seen["type"], &seen["persists"]), (&"write-exclusive".into(), &true.into()));
    let keys = seen["registrants"].as_array().unwrap().iter();
    let keys: Vec<_> = keys.map(|one| (one["key"].clone(), one["holds"].clone())).collect();
    assert_eq!(keys, [("0xa".into(), true.into()), ("0xb".into(), false.into())]);

    done(host("b", &engine, "preempt", &["11", "0xa", "exclusive-access", "--abort"]));
    conflict(write("a", &engine));
    conflict(host("a", &engine, "unregister", &["0xa"]));
    done(host("b", &engine, "register", &["0xbb", "--replace", "0xb"]));
    done(host("b", &engine, "release", &["0xbb", "exclusive-access"]));
    done(write("a", &engine));
    done(host("b", &engine, "clear", &["0xbb"]));
    assert_eq!(report(&engine)["registrants"], Value::Array(Vec::new()));
    let table = host("watcher", &engine, "report", &[]);
    assert!(table.stdout.contains("not reserved"), "{table:?}");
    engine.stop();
}

#[test]
fn what_cannot_be_reserved_says_so() {
    let engine = Engine::start(&["mem:1MiB"]);
    // Linux asks for this whatever is there, so it is no mistake; but the report tells.
    let kept = host("a", &engine, "register", &["1", "--persist", "true"]);
    assert!(kept.code == Some(0) && report(&engine)["persists"] == false, "{kept:?}");
    let zero = host("a", &engine, "register", &["0"]);
    assert!(zero.code == Some(2) && zero.stderr.contains("no key"), "{zero:?}");
    let none = engine.uri(7);
    let ended = run(&["reservation", "report", &none]);
    assert!(ended.code == Some(1) && ended.stderr.contains("namespace"), "{ended:?}");
    engine.stop();
}
