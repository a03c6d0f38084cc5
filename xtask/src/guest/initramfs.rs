//! The guest's first files: a static busybox, the kernel's modules in order, and an `init` that
//! puts a writable overlay on the machine's own root and goes on there.

use super::kernel::Kernel;
use crate::fault::{Explain, Fault, Outcome};
use crate::{process, workspace};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the guest needs from the kernel package, with all that it depends on.
const MODULES: [&str; 10] = [
    "virtio_pci",
    "virtio_net",
    "virtio_blk",
    "9pnet_virtio",
    "9p",
    "overlay",
    "nvme-tcp",
    "nvmet-tcp",
    "ext4",
    "xfs",
];

/// What is a module of its own up to some release, and part of the kernel from then on.
const BUILT_IN: [&str; 3] = ["crc32c-intel", "crc32c_generic", "ipv6"];

/// The first program of the guest.
const INIT: &str = include_str!("../../guest/init.sh");

/// Makes the initramfs for a kernel; one that was made before from the same parts is kept.
pub(crate) fn make(kernel: &Kernel) -> Outcome<PathBuf> {
    let folder = workspace::folder("guest")?.join(format!("initramfs-{}", kernel.version));
    let archive = folder.with_extension("cpio");
    let _ = fs::remove_dir_all(&folder);
    for part in ["bin", "modules", "proc", "sys", "dev", "host", "over", "root"] {
        let path = folder.join(part);
        fs::create_dir_all(&path).explain(|| format!("cannot create {}", path.display()))?;
    }
    copy_busybox(&folder.join("bin/busybox"))?;
    copy_modules(kernel, &folder.join("modules"))?;
    let init = folder.join("init");
    fs::write(&init, INIT).explain(|| format!("cannot write {}", init.display()))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))
        .explain(|| format!("cannot make {} a program", init.display()))?;
    pack(&folder, &archive)?;
    Ok(archive)
}

fn copy_busybox(to: &Path) -> Outcome<()> {
    let found =
        ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let from = found.ok_or_else(|| Fault::new("no busybox; install the package busybox-static"))?;
    fs::copy(from, to).map(drop).explain(|| format!("cannot copy {from}"))
}

/// Unpacks every module that is needed and writes down the order in which to insert them.
fn copy_modules(kernel: &Kernel, folder: &Path) -> Outcome<()> {
    let mut order: Vec<String> = Vec::new();
    for path in module_files(kernel)? {
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = file.trim_end_matches(".xz").to_owned();
        if order.contains(&name) {
            continue;
        }
        unpack_module(&path, &folder.join(&name))?;
        order.push(name);
    }
    let list = folder.join("order");
    fs::write(&list, order.join("\n") + "\n").explain(|| format!("cannot write {}", list.display()))
}

/// The files of all modules, each after those it depends on.
fn module_files(kernel: &Kernel) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for module in BUILT_IN.into_iter().chain(MODULES) {
        let mut query = Command::new("modprobe");
        query.arg("-d").arg(&kernel.root).args(["-S", &kernel.version, "--show-depends", module]);
        let said = match process::read(&mut query) {
            Err(_) if BUILT_IN.contains(&module) => continue,
            said => said?,
        };
        files.extend(
            said.lines()
                .filter_map(|line| line.strip_prefix("insmod "))
                .filter_map(|rest| rest.split_whitespace().next())
                .map(PathBuf::from),
        );
    }
    Ok(files)
}

fn unpack_module(from: &Path, to: &Path) -> Outcome<()> {
    if from.extension().is_none_or(|kind| kind != "xz") {
        return fs::copy(from, to).map(drop).explain(|| format!("cannot copy {}", from.display()));
    }
    let out = File::create(to).explain(|| format!("cannot create {}", to.display()))?;
    process::run(Command::new("xz").args(["--decompress", "--stdout"]).arg(from).stdout(out))
}

/// Packs a folder as the archive that the kernel unpacks.
fn pack(folder: &Path, archive: &Path) -> Outcome<()> {
    let out = File::create(archive).explain(|| format!("cannot create {}", archive.display()))?;
    let mut command = Command::new("sh");
    command.args(["-c", "find . | cpio --quiet -o -H newc"]).current_dir(folder);
    process::run(command.stdin(Stdio::null()).stdout(out))
}
