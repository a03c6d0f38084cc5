//! Block devices: served when they are free, refused when they are somebody's.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::process::{Engine, Folder, run, tool, tool_output};

/// One loop device at a time: who looks for a free one opens those of the others for a moment, and
/// an engine that opens its own in that moment finds it in use.
static ALONE: Mutex<()> = Mutex::new(());

/// A loop device over a file, gone with its owner.
struct Loop {
    name: String,
    _folder: Folder,
    _alone: MutexGuard<'static, ()>,
}

impl Loop {
    /// Makes a file system on it and mounts that, where that can be done.
    fn mounted(&self, place: &str) -> bool {
        tool("mkfs.ext4", &["-q", "-F", &self.name]) && tool("mount", &[&self.name, place])
    }

    /// A device of `mib` MiB; none where loop devices cannot be made.
    fn new(mib: u64, options: &[&str]) -> Option<Self> {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = Folder::new();
        let file = folder.path("disk");
        File::create(&file).unwrap().set_len(mib << 20).unwrap();
        let arguments = [&["--find", "--show"], options, &[&file]].concat();
        let name = tool_output("losetup", &arguments);
        if name.is_none() {
            eprintln!("skipped: loop devices cannot be made here");
        }
        Some(Self { name: name?, _folder: folder, _alone: alone })
    }

    fn write(&self, offset: u64, bytes: &[u8]) {
        let mut device = File::options().write(true).open(&self.name).unwrap();
        device.seek(SeekFrom::Start(offset)).unwrap();
        device.write_all(bytes).unwrap();
        device.sync_all().unwrap();
    }

    fn refused(&self, words: &[&str]) {
        let ended = run(&["serve", &self.name, "--listen", "127.0.0.1:0"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for word in words.iter().chain(&["--force"]) {
            assert!(ended.stderr.contains(word), "'{word}' is missing in {}", ended.stderr);
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        tool("losetup", &["--detach", &self.name]);
    }
}

fn verifies(arguments: &[&str]) {
    let engine = Engine::start(arguments);
    let load = ["perf", &engine.uri(1), "--rw", "mixed", "--verify", "--total", "4MiB"];
    let ended = run(&load);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    engine.stop();
}

#[test]
fn a_free_device_is_served_with_its_own_size_and_blocks() {
    for (sector, block) in [("512", 512), ("4096", 4096)] {
        let Some(device) = Loop::new(16, &["--sector-size", sector]) else { return };
        let engine = Engine::start(&[&device.name]);
        let ended = run(&["identify", &engine.uri(1), "-o", "json"]);
        let identity: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(identity["namespaces"][0]["bytes"], 16 << 20);
        assert_eq!(identity["namespaces"][0]["block_bytes"], block);
        engine.stop();
        verifies(&[&format!("dev:{}?block=4096", device.name)]);
    }
    let Some(device) = Loop::new(16, &["--sector-size", "4096"]) else { return };
    let name = format!("{}?block=512", device.name);
    let ended = run(&["serve", &name, "--listen", "127.0.0.1:0"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("larger than block=512"), "{ended:?}");
}

#[test]
fn a_device_that_holds_something_needs_force() {
    let Some(device) = Loop::new(64, &[]) else { return };
    device.write(510, b"\x55\xaa");
    device.refused(&["partition table"]);
    verifies(&[&device.name, "--force"]);
    device.write(510, b"\0\0");
    if tool("mkfs.ext4", &["-q", "-F", &device.name]) {
        device.refused(&["ext4"]);
        verifies(&[&format!("{}?force=1", device.name)]);
    }
}

#[test]
fn a_mounted_device_needs_force() {
    let Some(device) = Loop::new(64, &[]) else { return };
    let folder = Folder::new();
    let place = folder.path("");
    let place = place.trim_end_matches('/');
    if !device.mounted(place) {
        return eprintln!("skipped: cannot mount here");
    }
    device.refused(&["mounted on", place, "free it"]);
    assert!(tool("umount", &[place]));
}

#[test]
fn a_device_with_a_mounted_part_needs_force() {
    let Some(device) = Loop::new(64, &["--partscan"]) else { return };
    // An MBR with one Linux partition from sector 2048 on.
    let mut entry = [0; 66];
    entry[4] = 0x83;
    entry[8..12].copy_from_slice(&2048_u32.to_le_bytes());
    entry[12..16].copy_from_slice(&(100_u32 << 10).to_le_bytes());
    entry[64..].copy_from_slice(b"\x55\xaa");
    device.write(446, &entry);
    let part = format!("{}p1", device.name);
    let folder = Folder::new();
    let place = folder.path("");
    let place = place.trim_end_matches('/');
    let mounted = tool("blockdev", &["--rereadpt", &device.name])
        && tool("mkfs.ext4", &["-q", "-F", &part])
        && tool("mount", &[&part, place]);
    if !mounted {
        return eprintln!("skipped: cannot make partitions here");
    }
    device.refused(&["part", "p1", "mounted on"]);
    assert!(tool("umount", &[place]));
}

#[test]
fn one_device_is_not_served_twice() {
    let Some(device) = Loop::new(16, &[]) else { return };
    let engine = Engine::start(&[&device.name]);
    let ended = run(&["serve", &device.name, "--listen", "127.0.0.1:0"]);
    assert!(ended.code == Some(1) && ended.stderr.contains("in use"), "{ended:?}");
    engine.stop();
}

/// That a device whose pool an engine serves is refused to all who would write to it.
fn nobody_else_gets_it(device: &Loop) {
    let second = Engine::start(&[]);
    let create = ["pool", "create", &device.name, "--force", "--yes"];
    for command in [&["pool", "import", &device.name][..], &create[..]] {
        let ended = second.ask(command);
        assert!(ended.code == Some(1) && ended.stderr.contains("in use"), "{ended:?}");
    }
    second.stop();
    let served = run(&["serve", &device.name, "--listen", "127.0.0.1:0", "--force"]);
    assert!(served.code == Some(1) && served.stderr.contains("in use"), "{served:?}");
    for command in [&["verify", "--repair", &device.name][..], &["inspect", &device.name]] {
        let ended = run(command);
        assert!(ended.code == Some(1) && ended.stderr.contains("in use"), "{ended:?}");
    }
    assert!(!tool("mkfs.ext4", &["-q", "-F", &device.name]), "mkfs got in");
    let folder = Folder::new();
    assert!(!tool("mount", &[&device.name, folder.path("").trim_end_matches('/')]), "mounted");
}

#[test]
fn a_mounted_device_becomes_no_pool_even_by_force() {
    let Some(device) = Loop::new(64, &[]) else { return };
    let folder = Folder::new();
    let place = folder.path("");
    let place = place.trim_end_matches('/');
    if !device.mounted(place) {
        return eprintln!("skipped: cannot mount here");
    }
    let engine = Engine::start(&[]);
    let forced = engine.ask(&["pool", "create", &device.name, "--force", "--yes"]);
    let told = forced.stderr.contains("mounted on") && forced.stderr.contains("free it");
    assert!(forced.code == Some(1) && told, "{forced:?}");
    assert!(tool("umount", &[place]));
    let create = ["pool", "create", &device.name, "--force", "--yes"];
    let taken = engine.ask(&create);
    assert_eq!(taken.code, Some(0), "{taken:?}");
    engine.stop();
}

#[test]
fn a_pool_on_a_device() {
    let Some(device) = Loop::new(64, &[]) else { return };
    let engine = Engine::start(&[]);
    let create = ["pool", "create", &device.name];
    device.write(0, b"XFSB");
    let taken = engine.ask(&create);
    assert!(taken.code == Some(1) && taken.stderr.contains("XFS"), "{taken:?}");
    let blind = engine.ask(&[&create[..], &["--force"]].concat());
    assert!(blind.code == Some(2) && blind.stderr.contains("--yes"), "{blind:?}");
    let forced = engine.ask(&[&create[..], &["--force", "--yes"]].concat());
    assert_eq!(forced.code, Some(0), "{forced:?}");
    nobody_else_gets_it(&device);
    let state = || {
        let listed = engine.ask(&["device", "list", "-o", "json"]);
        let listed: serde_json::Value = serde_json::from_str(&listed.stdout).unwrap();
        let devices = listed["devices"].as_array().unwrap().clone();
        let ours = devices.into_iter().find(|found| found["path"] == device.name.as_str()).unwrap();
        ours["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(), "in use");
    let made = engine.ask(&["replica", "create", "vm1", "--size", "16MiB", "-o", "json"]);
    let made: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let nqn = made["share"]["nqn"].as_str().unwrap();
    let uri = format!("nvme+tcp://{}/{nqn}", engine.address());
    let load = run(&["perf", &uri, "--rw", "mixed", "--verify", "--total", "4MiB"]);
    assert_eq!(load.code, Some(0), "{load:?}");
    assert_eq!(engine.ask(&["pool", "export", &device.name]).code, Some(0));
    assert_eq!(state(), "pool");
    let verified = run(&["verify", &device.name]);
    assert_eq!(verified.code, Some(0), "{verified:?}");
    assert_eq!(engine.ask(&["pool", "import", &device.name]).code, Some(0));
    let destroyed = engine.ask(&["pool", "destroy", &device.name, "--yes", "--force"]);
    assert_eq!(destroyed.code, Some(0), "{destroyed:?}");
    assert_eq!(state(), "free");
    engine.stop();
}
