//! Opening disks on a real kernel.

use std::os::unix::fs::MetadataExt;

use super::*;

/// A directory of its own that is removed at the end, beside the build's other output: direct
/// I/O works there, while `/tmp` may be anything.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::current_exe()
            .expect("we run")
            .with_file_name(format!("disk-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target directory is ours");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("disk.img")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options() -> OpenOptions {
    OpenOptions {
        create_bytes: Some(1 << 20),
        patience: Duration::from_millis(50),
        ..OpenOptions::default()
    }
}

#[test]
fn a_made_file_has_its_size_and_its_space() {
    let directory = Directory::new("made");
    let disk = OpenDisk::open(&directory.file(), &options()).expect("it can be made");
    assert_eq!((disk.size, disk.is_block_device), (1 << 20, false));
    assert!(disk.alignment.is_power_of_two() && disk.logical_block <= 4096);
    let metadata = std::fs::metadata(directory.file()).expect("it is there");
    assert!(metadata.blocks() * 512 >= 1 << 20);
}

#[test]
fn a_sparse_file_has_its_size_alone_and_keeps_it() {
    let directory = Directory::new("sparse");
    let sparse = OpenOptions { sparse: true, ..options() };
    let disk = OpenDisk::open(&directory.file(), &sparse).expect("it can be made");
    assert_eq!(disk.size, 1 << 20);
    let metadata = std::fs::metadata(directory.file()).expect("it is there");
    assert_eq!(metadata.blocks(), 0);
    drop(disk);
    let larger = OpenOptions { create_bytes: Some(1 << 30), ..options() };
    let disk = OpenDisk::open(&directory.file(), &larger).expect("it can be opened again");
    assert_eq!(disk.size, 1 << 20);
}

#[test]
fn nobody_opens_what_another_one_holds() {
    let directory = Directory::new("held");
    let first = OpenDisk::open(&directory.file(), &options()).expect("it can be made");
    let error = OpenDisk::open(&directory.file(), &options()).expect_err("it is held");
    assert!(matches!(error, DiskError::Busy { .. }), "{error}");
    assert!(error.to_string().contains("disk.img"), "{error}");
    drop(first);
    OpenDisk::open(&directory.file(), &options()).expect("it was let go");
}

#[test]
fn what_is_neither_file_nor_device_is_refused() {
    let directory = Directory::new("kind");
    let error = OpenDisk::open(&directory.0, &options()).expect_err("a directory");
    assert!(matches!(error, DiskError::WrongKind { .. }), "{error}");
    let error = OpenDisk::open(&directory.0.join("no"), &OpenOptions::default());
    assert!(matches!(error, Err(DiskError::System { .. })));
    let error = OpenDisk::open(Path::new("/dev/null"), &options()).expect_err("a device");
    assert!(matches!(error, DiskError::WrongKind { .. }), "{error}");
}
