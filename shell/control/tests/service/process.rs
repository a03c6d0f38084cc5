//! Running the program: control planes that are ready, commands that end, files that go away.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use braid_api::control::membership_client::MembershipClient;
use braid_api::control::volumes_client::VolumesClient;
use braid_api::control::{self as wire};
use tonic::transport::{Channel, Endpoint};

const PROGRAM: &str = env!("CARGO_BIN_EXE_braid-control");
/// Nothing here takes longer, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A control plane that serves.
pub(crate) struct Control {
    child: Child,
    pub(crate) address: String,
    pub(crate) store: String,
    pub(crate) volumes: usize,
    log: Arc<Mutex<String>>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Control {
    /// Starts one on a free port.
    pub(crate) fn start(folder: &Folder) -> Self {
        Self::start_at(folder, "store", "127.0.0.1:0")
    }

    /// Starts one on this port.
    pub(crate) fn start_at(folder: &Folder, store: &str, listen: &str) -> Self {
        let store = folder.path(store);
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--store", &store, "--listen", listen])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        collect(child.stderr.take().unwrap(), Arc::clone(&log));
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let Ok(line) = lines.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!("not ready: {}", log.lock().unwrap());
        };
        let field = |name: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(name));
            value.unwrap_or_else(|| panic!("{name} is missing in '{line}'")).to_owned()
        };
        assert!(line.starts_with("braid-control: ready listen="), "{line}");
        let volumes = field("volumes=").parse().unwrap();
        Self { child, address: field("listen="), store: field("store="), volumes, log }
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Has a command ask it, while others go on.
    pub(crate) async fn ask(&self, arguments: &[&str]) -> Ended {
        let more = ["--control", &self.address].into_iter();
        let arguments: Vec<String> =
            arguments.iter().copied().chain(more).map(Into::into).collect();
        tokio::task::spawn_blocking(move || {
            run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .await
        .unwrap()
    }

    pub(crate) async fn client(&self) -> VolumesClient<Channel> {
        VolumesClient::new(channel(&self.address).connect().await.unwrap())
    }

    /// One that connects when it is used, and again after a failure.
    pub(crate) fn membership(&self) -> MembershipClient<Channel> {
        MembershipClient::new(channel(&self.address).connect_lazy())
    }

    pub(crate) async fn volume(&self, name: &str) -> Option<wire::Volume> {
        let mut client = self.client().await;
        let request = wire::GetRequest { volume: name.into() };
        client.get(request).await.ok().map(tonic::Response::into_inner)
    }

    /// Waits until a volume is so.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        is: impl Fn(&wire::Volume) -> bool,
    ) -> wire::Volume {
        let begun = std::time::Instant::now();
        loop {
            let volume = self.volume(name).await;
            match volume {
                Some(volume) if is(&volume) => return volume,
                volume if begun.elapsed() > PATIENCE => {
                    panic!("not {what}: {volume:?}\n{}", self.log())
                }
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn channel(address: &str) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_timeout(Duration::from_secs(2))
}

/// Runs the program until it ends.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    let output = Command::new(PROGRAM)
        .args(arguments)
        .env_remove("BRAID_CONTROL")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    Ended { code: output.status.code(), stdout, stderr }
}

fn collect(mut from: impl Read + Send + 'static, to: Arc<Mutex<String>>) {
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            to.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    });
}

/// A folder that goes away with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("control-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A path within.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
