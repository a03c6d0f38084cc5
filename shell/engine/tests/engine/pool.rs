//! Pools as their users meet them: made, shared, loaded, killed, exported, imported.

use std::fs::File;

use serde_json::Value;

use crate::process::{Background, Ended, Engine, Folder, run};

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn done(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

fn refused(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for word in words {
        assert!(ended.stderr.contains(word), "'{word}' is missing in: {}", ended.stderr);
    }
}

/// An engine with one pool on a sparse file.
struct Bench {
    folder: Folder,
    engine: Engine,
}

impl Bench {
    fn new(options: &[&str]) -> Self {
        let folder = Folder::new();
        let engine = Engine::start(options);
        let bench = Self { folder, engine };
        let path = bench.path();
        done(&bench.engine.ask(&["pool", "create", &path, "--size", "256MiB", "--sparse"]));
        bench
    }

    fn path(&self) -> String {
        self.folder.path("pool")
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        json(&self.engine.ask(&[arguments, &["-o", "json"]].concat()))
    }

    fn uri(&self, shared: &Value) -> String {
        let nqn = shared["share"]["nqn"].as_str().unwrap();
        format!("nvme+tcp://{}/{nqn}", self.engine.address())
    }

    fn load(&self, shared: &Value, options: &[&str]) -> Ended {
        run(&[&["perf", &self.uri(shared)], options].concat())
    }
}

const VERIFY: &[&str] =
    &["--rw", "mixed", "--verify", "--total", "8MiB", "--region", "4MiB", "--fsync-every", "32"];

#[test]
fn a_replica_is_made_shared_and_keeps_what_is_written() {
    let bench = Bench::new(&[]);
    let replica = bench.ask(&["replica", "create", "vm1", "--size", "64MiB"]);
    done(&bench.load(&replica, VERIFY));
    let small = ["replica", "create", "vm2", "--size", "16MiB", "--block-size", "512", "--thick"];
    let small = bench.ask(&small);
    done(&bench.load(&small, &[VERIFY, &["--block-size", "512"]].concat()));
    let identity = json(&run(&["identify", &bench.uri(&small), "-o", "json"]));
    assert_eq!(identity["namespaces"][0]["block_bytes"], 512);
    assert_eq!(identity["namespaces"][0]["uuid"], small["uuid"]);
    assert_eq!(identity["controller"]["serial"], small["share"]["serial"]);

    let pools = bench.ask(&["pool", "list"]);
    let pool = &pools["pools"][0];
    assert_eq!(
        (&pool["replicas"], &pool["committed_bytes"]),
        (&Value::from(2), &Value::from(80 << 20),)
    );
    assert!(pool["data_bytes"].as_u64().unwrap() >= 8 << 20, "{pool}");

    done(&bench.engine.ask(&["replica", "resize", "vm1", "96MiB"]));
    let identity = json(&run(&["identify", &bench.uri(&replica), "-o", "json"]));
    assert_eq!(identity["namespaces"][0]["bytes"], 96 << 20);
    done(&bench.engine.ask(&["replica", "unshare", "vm1"]));
    assert_eq!(bench.load(&replica, &["--total", "4KiB"]).code, Some(1));
    done(&bench.engine.ask(&["replica", "share", "vm1"]));
    done(&bench.load(&replica, &["--total", "4KiB"]));
    done(&bench.engine.ask(&["replica", "destroy", "vm2", "--yes"]));
    assert_eq!(bench.load(&small, &["--total", "4KiB"]).code, Some(1));
    bench.engine.stop();
}

#[test]
fn a_read_of_two_clusters_waits_for_both() {
    let bench = Bench::new(&[]);
    let replica = bench.ask(&["replica", "create", "vm1", "--size", "32MiB"]);
    let crossing = ["--block-size", "96KiB", "--total", "32MiB", "--region", "24MiB"];
    done(&bench.load(&replica, &[&["--rw", "mixed", "--verify"], &crossing[..]].concat()));
    bench.engine.stop();
}

#[test]
fn snapshots_and_clones_are_disks_of_their_own() {
    let bench = Bench::new(&[]);
    let replica = bench.ask(&["replica", "create", "vm1", "--size", "32MiB"]);
    done(&bench.load(&replica, VERIFY));
    bench.ask(&["snapshot", "create", "vm1@a"]);
    let snapshot = bench.ask(&["snapshot", "share", "vm1@a"]);
    let clone = bench.ask(&["snapshot", "clone", "vm1@a", "vm2"]);
    done(&bench.load(&replica, VERIFY));
    let overwrite = ["--rw", "write", "--total", "8MiB", "--region", "4MiB"];
    done(&bench.load(&clone, &overwrite));
    done(&bench.load(&snapshot, &["--total", "8MiB"]));
    let written = bench.load(&snapshot, &["--rw", "write", "--total", "4KiB"]);
    assert_eq!(written.code, Some(1), "{written:?}");
    for name in ["vm1", "vm2"] {
        done(&bench.engine.ask(&["replica", "destroy", name, "--yes"]));
    }
    let listed = bench.ask(&["snapshot", "list"]);
    assert_eq!(listed["snapshots"][0]["replica_name"], "");
    let by_uuid = snapshot["uuid"].as_str().unwrap();
    done(&bench.engine.ask(&["snapshot", "destroy", by_uuid, "--yes"]));
    bench.engine.stop();
}

#[test]
fn a_restart_shares_the_same_replicas_under_the_same_names() {
    let bench = Bench::new(&[]);
    let replica = bench.ask(&["replica", "create", "vm1", "--size", "32MiB"]);
    done(&bench.load(&replica, VERIFY));
    let Bench { folder, engine } = bench;
    engine.stop();
    let path = folder.path("pool");
    let inspected = json(&run(&["inspect", &path, "-o", "json"]));
    assert_eq!(
        (&inspected["clean"], &inspected["layers"][0]["name"]),
        (&Value::from(true), &Value::from("vm1"),)
    );
    for kill in [true, false] {
        let engine = Engine::start(&[&format!("pool:{path}")]);
        assert_eq!(engine.nqn, replica["share"]["nqn"].as_str().unwrap());
        assert_eq!(engine.namespaces, 1);
        done(&run(&[&["perf", &engine.uri(1)], VERIFY].concat()));
        if kill {
            engine.kill();
        } else {
            engine.logs("after a crash");
            engine.stop();
        }
    }
    let quiet = Engine::start(&[&format!("pool:{path}?share=none")]);
    assert_eq!((quiet.nqn.as_str(), quiet.namespaces), ("", 0));
    quiet.stop();
    let verified = json(&run(&["verify", &path, "-o", "json"]));
    assert_eq!((&verified["errors"], &verified["layers"]), (&Value::from(0), &Value::from(1)));
    let table = run(&["inspect", &path]);
    let stopped = table.stdout.lines().find(|line| line.starts_with("stopped:"));
    assert!(stopped.is_some_and(|line| line.ends_with(" in order")), "{table:?}");
}

#[test]
fn a_pool_is_exported_grown_and_destroyed() {
    let bench = Bench::new(&[]);
    let path = bench.path();
    let replica = bench.ask(&["replica", "create", "vm1", "--size", "32MiB"]);
    done(&bench.load(&replica, VERIFY));
    let before = bench.ask(&["pool", "list"])["pools"][0].clone();
    let grown = bench.ask(&["pool", "grow", "--size", "512MiB"]);
    let capacity = |pool: &Value| pool["capacity_bytes"].as_u64().unwrap();
    assert!(capacity(&grown) > capacity(&before) + (200 << 20), "{grown}");
    done(&bench.engine.ask(&["pool", "export", &path]));
    assert_eq!(bench.load(&replica, &["--total", "4KiB"]).code, Some(1));
    json(&run(&["inspect", &path, "-o", "json"]));
    let again = bench.ask(&["pool", "import", &path]);
    assert_eq!((&again["uuid"], &again["replicas"]), (&before["uuid"], &Value::from(1)));
    done(&bench.load(&replica, VERIFY));
    for command in [&["inspect"][..], &["verify"], &["verify", "--repair"]] {
        let ended = run(&[command, &[&path]].concat());
        refused(&ended, &["in use by braid-engine", "ask that engine"]);
    }
    let create = ["pool", "create", &path];
    assert_eq!(bench.ask(&create)["uuid"], before["uuid"], "it is there already");

    refused(&bench.engine.ask(&["pool", "destroy", &path, "--yes"]), &["1 replicas", "force"]);
    done(&bench.engine.ask(&["pool", "export", &path]));
    refused(&bench.engine.ask(&create), &["a Braid pool", "force"]);
    done(&bench.engine.ask(&["pool", "import", &path]));
    done(&bench.engine.ask(&["pool", "destroy", &path, "--yes", "--force"]));
    refused(&run(&["inspect", &path]), &["holds no pool"]);
    refused(&bench.engine.ask(&["pool", "import", &path]), &["holds no pool"]);
    done(&bench.engine.ask(&create));
    bench.engine.stop();
}

#[test]
fn pools_on_two_shards_come_and_go_under_load() {
    let bench = Bench::new(&["--shards", "2"]);
    let path = bench.folder.path("second");
    let second = bench.ask(&["pool", "create", &path, "--size", "256MiB", "--sparse"]);
    assert_eq!(second["shard"], 1);
    let first = bench.path();
    let [one, other] = [("vm1", &first), ("vm2", &path)].map(|(name, pool)| {
        bench.ask(&["replica", "create", name, "--size", "64MiB", "--pool", pool])
    });
    done(&bench.load(&other, VERIFY));
    let endless = |shared: &Value| {
        let uri = bench.uri(shared);
        let load = ["perf", &uri, "--rw", "mixed", "--verify", "--time", "60s"];
        Background::start(&load)
    };
    let begun = std::time::Instant::now();
    for _ in 0..3 {
        let loads = [endless(&one), endless(&other)];
        std::thread::sleep(std::time::Duration::from_millis(300));
        done(&bench.engine.ask(&["replica", "unshare", "vm2"]));
        done(&bench.engine.ask(&["replica", "share", "vm2"]));
        done(&bench.engine.ask(&["snapshot", "create", "vm1@a"]));
        done(&bench.engine.ask(&["snapshot", "destroy", "vm1@a", "--yes"]));
        done(&bench.engine.ask(&["pool", "export", &path]));
        done(&bench.engine.ask(&["pool", "import", &path]));
        done(&bench.engine.ask(&["replica", "destroy", "vm1", "--yes"]));
        done(&bench.engine.ask(&["replica", "create", "vm1", "--size", "64MiB", "--pool", &first]));
        drop(loads);
        done(&bench.load(&other, VERIFY));
    }
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "nothing waited for a host");
    let _load = endless(&other);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let Bench { folder, engine } = bench;
    engine.stop();
    for pool in [folder.path("pool"), folder.path("second")] {
        done(&run(&["verify", &pool]));
    }
}

#[test]
fn a_bad_copy_is_told_of_and_mended() {
    let bench = Bench::new(&[]);
    let replica = bench.ask(&["replica", "create", "vm1", "--size", "32MiB"]);
    done(&bench.load(&replica, VERIFY));
    let Bench { folder, engine } = bench;
    engine.stop();
    let path = folder.path("pool");
    let file = File::options().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], 4096).unwrap();
    refused(&run(&["verify", &path]), &["1 bad copies", "--repair"]);
    let mended = json(&run(&["verify", "--repair", &path, "-o", "json"]));
    assert_eq!((&mended["bad_copies"], &mended["mended"]), (&Value::from(1), &Value::from(1)));
    assert_eq!(mended["findings"][0]["kind"], "superblock");
    std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], 4096).unwrap();
    let unlisted = ["verify", "--repair", &path, "--findings", "0", "-o", "json"];
    let mended = json(&run(&unlisted));
    assert_eq!((&mended["bad_copies"], &mended["mended"]), (&Value::from(1), &Value::from(1)));
    done(&run(&["verify", "--no-data", &path]));
}

#[test]
fn data_is_lost_only_by_name_and_after_a_question() {
    let bench = Bench::new(&[]);
    // Whether there is something the engine knows, not the machine that asks.
    let path = bench.folder.path("elsewhere");
    let create = ["pool", "create", &path, "--size", "64MiB", "--sparse", "--force"];
    let blind = bench.engine.ask(&create);
    assert!(blind.code == Some(2) && blind.stderr.contains("--yes"), "{blind:?}");
    for sure in [&["--yes"][..], &["--yes", "--force"], &[]] {
        let unnamed = bench.engine.ask(&[&["pool", "destroy", ""], sure].concat());
        assert!(unnamed.code == Some(2) && unnamed.stderr.contains("name the pool"), "{unnamed:?}");
    }
    assert_eq!(bench.ask(&["pool", "list"])["pools"].as_array().unwrap().len(), 1);
    bench.engine.stop();
}

#[test]
fn a_call_that_is_repeated_destroys_nothing() {
    const UUID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";
    let folder = Folder::new();
    let path = folder.path("pool");
    let create = ["pool", "create", &path, "--size", "64MiB", "--uuid", UUID, "--force", "--yes"];
    let engine = Engine::start(&[]);
    done(&engine.ask(&create));
    done(&engine.ask(&["replica", "create", "vm1", "--size", "8MiB"]));
    done(&engine.ask(&create));
    engine.stop();
    let engine = Engine::start(&[]);
    let again = json(&engine.ask(&[&create[..], &["-o", "json"]].concat()));
    assert_eq!((&again["uuid"], &again["replicas"]), (&Value::from(UUID), &Value::from(1)));
    engine.stop();
}

#[test]
fn two_engines_on_one_pool() {
    let bench = Bench::new(&[]);
    let path = bench.path();
    let begun = std::time::Instant::now();
    let second = Engine::start(&[]);
    refused(&second.ask(&["pool", "import", &path]), &["in use by braid-engine", "opened by"]);
    assert!(begun.elapsed() >= std::time::Duration::from_secs(10), "it was waited for");
    let third =
        run(&["serve", &format!("pool:{path}"), "--listen", "127.0.0.1:0", "--socket", "s"]);
    refused(&third, &[&path, "in use by braid-engine"]);
    // One that is killed lets it go.
    let Bench { folder, engine } = bench;
    engine.kill();
    done(&second.ask(&["pool", "import", &path]));
    drop(folder);
    second.stop();
}

#[test]
fn what_is_no_pool_is_refused() {
    let folder = Folder::new();
    let plain = folder.path("plain");
    File::create(&plain).unwrap().set_len(64 << 20).unwrap();
    let served = run(&[
        "serve",
        &format!("pool:{plain}"),
        "--listen",
        "127.0.0.1:0",
        "--socket",
        &folder.path("s"),
    ]);
    refused(&served, &[&plain, "holds no pool"]);
    let engine = Engine::start(&[]);
    for _ in 0..3 {
        refused(&engine.ask(&["pool", "import", &plain]), &["holds no pool"]);
    }
    // Nothing of the attempts holds the file.
    done(&engine.ask(&["pool", "create", &plain]));
    engine.stop();
}

#[test]
fn a_full_pool_says_so_and_goes_on_when_space_is_free() {
    let bench = Bench::new(&[]);
    let big = bench.ask(&["replica", "create", "big", "--size", "1GiB"]);
    let other = bench.ask(&["replica", "create", "other", "--size", "16MiB"]);
    done(&bench.load(&other, VERIFY));
    let sequential = ["--rw", "write", "--sequential", "--block-size", "128KiB", "--total"];
    let filled = bench.load(&big, &[&sequential[..], &["1GiB"]].concat());
    refused(&filled, &["apacity"]);
    let thick = bench.engine.ask(&["replica", "create", "t", "--size", "128MiB", "--thick"]);
    refused(&thick, &["no space"]);
    done(&bench.load(&other, VERIFY));
    done(&bench.engine.ask(&["replica", "destroy", "big", "--yes"]));
    let again = bench.ask(&["replica", "create", "again", "--size", "64MiB"]);
    done(&bench.load(&again, &[&sequential[..], &["64MiB"]].concat()));
    bench.engine.stop();
}

#[test]
fn a_pool_is_scrubbed_and_counted() {
    let bench = Bench::new(&["--metrics", "127.0.0.1:0", "--log-format", "json", "--shards", "2"]);
    let replica = bench.ask(&["replica", "create", "vm1", "--size", "32MiB"]);
    done(&bench.load(&replica, VERIFY));
    let scrub = bench.ask(&["scrub", "start", "--rate", "1GiB", "--wait"]);
    assert_eq!(scrub["finished_errors"], 0);
    assert!(scrub["finished_blocks"].as_u64().unwrap() >= 1, "{scrub}");
    let page = crate::service::metrics(&bench.engine);
    let figure = |name: &str| crate::service::figure(&page, &format!("braid_pool_{name}{{"));
    assert!(figure("writes_total") >= 100, "{page}");
    assert!(figure("capacity_bytes") > 128 << 20);
    assert_eq!((figure("committed_bytes"), figure("replicas")), (32 << 20, 1));
    assert!(figure("device_writes_total") > 0 && figure("device_flushes_total") > 0);
    assert_eq!((figure("checksum_errors_total"), figure("failed")), (0, 0));
    assert!(page.contains("braid_pool_latency_seconds_bucket{"), "{page}");
    bench.engine.stop();
}

#[test]
fn a_kill_keeps_instances_and_a_reboot_does_not() {
    let folder = Folder::new();
    let path = folder.path("pool");
    let boot = |digit: char| {
        let id = format!("6ba7b81{digit}-9dad-11d1-80b4-00c04fd430c8");
        folder.write("boot", &id)
    };
    let options = ["--allow-injection", "--boot-id-file", &boot('0')];
    let engine = Engine::start(&options);
    done(&engine.ask(&["pool", "create", &path, "--size", "64MiB", "--sparse"]));
    let made = json(&engine.ask(&["replica", "create", "vm1", "--size", "8MiB", "-o", "json"]));
    let instance = |engine: &Engine| {
        let listed = json(&engine.ask(&["replica", "list", "-o", "json"]));
        listed["replicas"][0]["instance"].clone()
    };
    assert_eq!(instance(&engine), made["instance"]);
    engine.kill();
    let pool = format!("pool:{path}");
    let engine = Engine::start(&[&options[..], &[&pool]].concat());
    assert_eq!(instance(&engine), made["instance"], "the machine went on");
    engine.kill();
    boot('1');
    let engine = Engine::start(&[&options[..], &[&pool]].concat());
    let rebooted = instance(&engine);
    assert_ne!(rebooted, made["instance"]);
    engine.stop();
    boot('2');
    let engine = Engine::start(&[&options[..], &[&pool]].concat());
    assert_eq!(instance(&engine), rebooted, "it was stopped in order");
    engine.stop();
}

#[test]
fn faults_hit_a_replica_alone() {
    let bench = Bench::new(&["--allow-injection"]);
    let [one, other] =
        ["vm1", "vm2"].map(|name| bench.ask(&["replica", "create", name, "--size", "16MiB"]));
    done(&bench.load(&one, &["--rw", "write", "--total", "1MiB"]));
    let nqn = one["share"]["nqn"].as_str().unwrap();
    done(&bench.engine.ask(&["fault", "set", nqn, "read,error"]));
    let failed = bench.load(&one, &["--total", "64KiB", "--queue-depth", "1"]);
    assert_eq!(failed.code, Some(1), "{failed:?}");
    done(&bench.load(&other, VERIFY));
    done(&bench.engine.ask(&["fault", "clear", nqn]));
    done(&bench.load(&one, &["--total", "64KiB"]));
    bench.engine.stop();
}
