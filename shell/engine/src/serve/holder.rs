//! Which process holds what we want: a port, a file's lock, a device.
//!
//! The kernel ends the ring of a killed process in the background, and lets go of what the ring
//! held only then. So what nobody alive holds will be free soon and is worth waiting for; what a
//! living process holds is not, and its name is what the operator needs.

use std::fmt;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{major, minor};

/// How long to wait for the kernel to end what nobody alive holds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often to look.
const RETRY: Duration = Duration::from_millis(50);

/// A living process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pid: u32,
    name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.name, self.pid)
    }
}

/// Tries until it works, as long as it fails because of something that nobody alive holds.
///
/// # Errors
/// The last failure, and who is to blame for it, if anybody.
pub fn patiently<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_busy: impl Fn(&E) -> bool,
    holder: impl Fn() -> Option<Holder>,
) -> Result<T, (E, Option<Holder>)> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if !is_busy(&error) => return Err((error, None)),
            Err(error) => {
                let holder = holder();
                if holder.is_some() || Instant::now() >= give_up {
                    return Err((error, holder));
                }
                thread::sleep(RETRY);
            }
        }
    }
}

/// Who listens at an address, or at its port on all addresses.
#[must_use]
pub fn of_port(address: SocketAddr) -> Option<Holder> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let inodes: Vec<u64> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| listeners(&table, address.port()))
        .collect();
    let links: Vec<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    living(|descriptor| {
        fs::read_link(descriptor).is_ok_and(|to| links.iter().any(|link| to == Path::new(link)))
    })
}

/// Who holds the lock of a file, or has a block device open.
#[must_use]
pub fn of_disk(path: &Path) -> Option<Holder> {
    let metadata = fs::metadata(path).ok()?;
    if metadata.file_type().is_block_device() {
        return living(|descriptor| {
            fs::metadata(descriptor).is_ok_and(|open| {
                open.file_type().is_block_device() && open.rdev() == metadata.rdev()
            })
        });
    }
    let locks = fs::read_to_string("/proc/locks").ok()?;
    let device = (major(metadata.dev()), minor(metadata.dev()));
    locker(&locks, device, metadata.ino()).and_then(process)
}

/// Inodes of the sockets that listen at a port (proc_net_tcp: local address, state, inode).
fn listeners(table: &str, port: u16) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let inode = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let (_, local) = fields.get(1)?.rsplit_once(':')?;
        let ours = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == LISTEN;
        if ours { fields.get(9)?.parse().ok() } else { None }
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// The process that holds the lock of a file (proc_locks(5)).
fn locker(locks: &str, device: (u32, u32), inode: u64) -> Option<u32> {
    let place = format!("{:02x}:{:02x}:{inode}", device.0, device.1);
    let held = |line: &&str| line.contains("FLOCK") && line.split(' ').any(|word| word == place);
    let line = locks.lines().find(held)?;
    line.split_whitespace().nth(4)?.parse().ok()
}

/// The first process with a descriptor that matches; only those that we may look at.
fn living(matches: impl Fn(&Path) -> bool) -> Option<Holder> {
    let pid = |name: std::ffi::OsString| name.to_str().and_then(|name| name.parse().ok());
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = pid(entry.file_name())?;
        let descriptors = fs::read_dir(entry.path().join("fd")).ok()?;
        let hit = descriptors.flatten().any(|descriptor| matches(&descriptor.path()));
        if hit { process(pid) } else { None }
    })
}

/// A process, unless it has ended.
fn process(pid: u32) -> Option<Holder> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The state follows the name, which may hold anything but ends with the last parenthesis.
    let (front, back) = stat.rsplit_once(')')?;
    let ended = back.trim_start().starts_with(['Z', 'X']);
    let name = front.split_once('(')?.1.to_owned();
    if ended { None } else { Some(Holder { pid, name }) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn listeners_are_found_by_port() {
        const TABLE: &str = "\
sl local_address rem_address st queues timer retrnsmt uid timeout inode
0: 0100007F:1144 00000000:0000 0A 0:0 00:0 0 0 0 4711 1 0 100
1: 0100007F:1144 0100007F:9999 01 0:0 00:0 0 0 0 4712 1 0 100
";
        assert_eq!(listeners(TABLE, 4420), [4711]);
        assert!(listeners(TABLE, 4421).is_empty());
    }

    #[test]
    fn lockers_are_found_by_file() {
        const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n\
                             2: FLOCK  ADVISORY  WRITE 12 fe:00:77 0 EOF\n";
        assert_eq!(locker(LOCKS, (0xfe, 0), 77), Some(12));
        assert_eq!(locker(LOCKS, (0xfe, 1), 77), None);
        assert_eq!(locker(LOCKS, (0xfe, 0), 7), None);
    }

    #[test]
    fn whoever_listens_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = of_port(listener.local_addr().unwrap()).unwrap();
        assert_eq!(holder.pid, std::process::id());
    }

    #[test]
    fn a_living_holder_ends_the_patience() {
        let begun = Instant::now();
        let init = || process(1).or_else(|| process(std::process::id()));
        let result = patiently(|| Err::<(), _>("busy"), |_| true, init);
        assert!(result.unwrap_err().1.is_some() && begun.elapsed() < PATIENCE / 2);
        let mut tries = 0;
        let attempt = || {
            tries += 1;
            if tries < 3 { Err("busy") } else { Ok(tries) }
        };
        assert_eq!(patiently(attempt, |_| true, || None), Ok(3));
        let other = patiently(|| Err::<(), _>("wrong"), |_| false, || unreachable!());
        assert_eq!(other, Err(("wrong", None)));
    }
}
