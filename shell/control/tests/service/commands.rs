//! What people see: help, tables, JSON, exit codes.

use super::process::{Control, Folder, run};
use super::supervise::three;

#[test]
fn every_command_teaches() {
    for (command, teaches) in [
        (&["volume", "add-member", "--help"][..], "add-member db n4/var/lib/braid/pool2"),
        (&["volume", "remove-member", "--help"], "remove-member db n3 --force --yes"),
    ] {
        let shown = run(command);
        assert_eq!(shown.code, Some(0), "{command:?}");
        assert!(shown.stdout.contains(teaches), "{command:?}: {}", shown.stdout);
    }
    for (command, teaches) in [
        (&["--help"][..], "braid-control volume create db"),
        (&["serve", "--help"], "ready listen="),
        (&["volume", "--help"], "hand-over db --to n2"),
        (&["volume", "--help"], "volume resize db 40GiB"),
        (&["volume", "snapshot", "--help"], "snapshot create db before-upgrade"),
        (&["engine", "--help"], "--node n1 --control"),
        (&["store", "--help"], "volume recover db"),
    ] {
        let shown = run(command);
        assert_eq!(shown.code, Some(0), "{command:?}");
        assert!(shown.stdout.contains(teaches), "{command:?}: {}", shown.stdout);
        assert!(shown.stdout.contains("Exit codes") || command == ["--help"], "{command:?}");
    }
}

#[test]
fn exit_codes_say_whose_turn_it_is() {
    let folder = Folder::new();
    // Port 1 is nobody's here.
    let absent = run(&["volume", "list", "--control", "127.0.0.1:1"]);
    assert_eq!(absent.code, Some(3));
    assert!(absent.stderr.contains("no control plane answers at 127.0.0.1:1"), "{absent:?}");
    let typed = run(&["volume", "lst"]);
    assert_eq!((typed.code, typed.stderr.lines().count()), (Some(2), 1), "{typed:?}");
    let nowhere = run(&["serve", "--store", &folder.path("no/such/store")]);
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
    assert!(nowhere.stderr.contains("there is no folder"), "{nowhere:?}");
    std::fs::write(folder.path("text"), "this is no store").unwrap();
    let foreign = run(&["serve", "--store", &folder.path("text")]);
    assert_eq!(foreign.code, Some(1), "{foreign:?}");
    assert!(foreign.stderr.contains("cannot open the store"), "{foreign:?}");
    let control = Control::start(&folder);
    let second = run(&["serve", "--store", &folder.path("store"), "--listen", "127.0.0.1:0"]);
    assert_eq!(second.code, Some(1));
    assert!(second.stderr.contains("another process has the store open"), "{second:?}");
    let taken = run(&["serve", "--store", &folder.path("other"), "--listen", &control.address]);
    assert_eq!(taken.code, Some(1));
    assert!(taken.stderr.contains("choose another --listen"), "{taken:?}");
    let missing = run(&["volume", "show", "db", "--control", &control.address]);
    assert_eq!((missing.code, missing.stderr.as_str()), (Some(1), SAID), "{missing:?}");
    let name = ["volume", "create", "a/b", "--size", "1GiB", "--replica", "n1"];
    let odd = run(&[&name[..], &["--control", &control.address]].concat());
    assert_eq!(odd.code, Some(2), "{odd:?}");
    for standbys in ["0", "8"] {
        let name = ["volume", "create", "db", "--size", "1GiB", "--replica", "n1"];
        let given = ["--standbys", standbys, "--control", &control.address];
        let refused = run(&[&name[..], &given].concat());
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert!(refused.stderr.contains("1..=7"), "nothing is made of it silently: {refused:?}");
    }
}

const SAID: &str = "braid-control: there is no volume db\n";

#[tokio::test]
async fn tables_are_for_people_and_json_for_programs() {
    let folder = Folder::new();
    let (control, _engines, _cluster, volume) = three(&folder).await;
    let table = control.ask(&["volume", "list"]).await.stdout;
    let line = table.lines().nth(1).unwrap().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(line, format!("db 1GiB online {} 3 of 3 2 1 -", volume.engine), "{table}");
    let json = control.ask(&["volume", "show", "db", "-o", "json"]).await.stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["state"], "online");
    assert_eq!(json["replicas"].as_array().unwrap().len(), 3);
    assert_eq!(json["replicas"][0]["standing"], "member");
    let shown = control.ask(&["volume", "show", "db"]).await.stdout;
    assert!(shown.contains("optimized") && shown.contains("inaccessible"), "{shown}");
    let yaml = control.ask(&["engine", "list", "-o", "yaml"]).await.stdout;
    assert!(yaml.starts_with("engines:\n") && yaml.contains("node: n2"), "{yaml}");
    let engines = control.ask(&["engine", "list"]).await.stdout;
    assert_eq!(engines.lines().count(), 4, "{engines}");
    assert!(engines.contains("alive"), "{engines}");
    let history = control.ask(&["volume", "history", "db"]).await.stdout;
    assert!(history.contains("it was made, 3 replicas"), "{history}");
}
