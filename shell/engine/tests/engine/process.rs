//! Running the program: engines that are ready, commands that end, files that go away.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_braid-engine");
/// Nothing here takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine that serves.
pub(crate) struct Engine {
    child: Child,
    /// What its readiness line says.
    pub(crate) nqn: String,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) namespaces: usize,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
    /// Where its socket is.
    runtime: Folder,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Engine {
    /// Starts `serve` on a free port of the loopback and waits until it is ready.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let command = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
        Self::spawn(Command::new(PROGRAM).args(command))
    }

    /// Starts a command that serves and waits until it is ready.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let runtime = Folder::brief();
        command.env("RUNTIME_DIRECTORY", runtime.path(""));
        command.env("STATE_DIRECTORY", runtime.path("state"));
        let mut child = piped(command).spawn().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let reader = Some(collect(child.stderr.take().unwrap(), Arc::clone(&log)));
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        let Ok(line) = lines.recv_timeout(PATIENCE) else {
            let _ = child.kill();
            panic!("not ready: {}", log.lock().unwrap());
        };
        let field = |name: &str| {
            let value = line.split(' ').find_map(|word| word.strip_prefix(name));
            value.unwrap_or_else(|| panic!("{name} is missing in '{line}'")).to_owned()
        };
        assert!(line.starts_with("braid-engine: ready nqn="), "{line}");
        let listen = field("listen=").split(',').map(|a| a.parse().unwrap()).collect();
        let namespaces = field("namespaces=").parse().unwrap();
        Self { child, nqn: field("nqn="), listen, namespaces, log, reader, runtime }
    }

    /// Where it is managed.
    pub(crate) fn socket(&self) -> String {
        self.runtime.path("engine.sock")
    }

    /// Has a command ask it.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Ended {
        run(&[arguments, &["--socket", &self.socket()]].concat())
    }

    /// The first address.
    pub(crate) fn address(&self) -> String {
        self.listen[0].to_string()
    }

    /// A namespace of the first subsystem.
    pub(crate) fn uri(&self, nsid: u32) -> String {
        let nqn = self.nqn.split(',').next().unwrap();
        format!("nvme+tcp://{}/{nqn}?nsid={nsid}", self.address())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits until the log says something, and gives that line.
    pub(crate) fn logs(&self, text: &str) -> String {
        self.logs_times(text, 1)
    }

    /// Waits until the log has said something so often, and gives the last such line.
    pub(crate) fn logs_times(&self, text: &str, times: usize) -> String {
        let begun = Instant::now();
        loop {
            let log = self.log();
            // A line is only told of once it is whole.
            let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
            if let Some(line) = whole.lines().filter(|line| line.contains(text)).nth(times - 1) {
                return line.to_owned();
            }
            assert!(begun.elapsed() < PATIENCE, "'{text}' was not logged: {log}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks for an orderly stop, waits for it and expects that it was one.
    pub(crate) fn stop(mut self) -> String {
        self.signal(Signal::TERM);
        let code = self.wait();
        assert_eq!(code, Some(0), "{}", self.log());
        self.log()
    }

    /// Waits for the end, and for the last of its log.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let code = wait(&mut self.child);
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        code
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.wait();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that is ended with its owner, at the latest.
pub(crate) struct Background(Child);

impl Background {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.args(arguments).spawn().unwrap())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the program until it ends.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    run_command(Command::new(PROGRAM).args(arguments))
}

/// Runs a command until it ends.
pub(crate) fn run_command(command: &mut Command) -> Ended {
    let mut child = piped(command).spawn().unwrap();
    let stdout = Arc::new(Mutex::new(String::new()));
    let stderr = Arc::new(Mutex::new(String::new()));
    let readers = [
        collect(child.stdout.take().unwrap(), Arc::clone(&stdout)),
        collect(child.stderr.take().unwrap(), Arc::clone(&stderr)),
    ];
    let code = wait(&mut child);
    for reader in readers {
        reader.join().unwrap();
    }
    let taken = |text: &Mutex<String>| std::mem::take(&mut *text.lock().unwrap());
    Ended { code, stdout: taken(&stdout), stderr: taken(&stderr) }
}

/// Runs a tool of the system; false if it is not there or fails.
pub(crate) fn tool(name: &str, arguments: &[&str]) -> bool {
    let output = Command::new(name).args(arguments).output();
    output.is_ok_and(|output| output.status.success())
}

/// What a tool of the system prints, if it is there and succeeds.
pub(crate) fn tool_output(name: &str, arguments: &[&str]) -> Option<String> {
    let Output { status, stdout, .. } = Command::new(name).args(arguments).output().ok()?;
    status.success().then(|| String::from_utf8_lossy(&stdout).trim().to_owned())
}

fn piped(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())
}

fn collect(mut from: impl Read + Send + 'static, to: Arc<Mutex<String>>) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut piece) {
            to.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..count]));
        }
    })
}

fn wait(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begun.elapsed() > PATIENCE {
            let _ = child.kill();
            panic!("a program does not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// A folder that goes away with its owner.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("engine-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// With a short name: that of a socket has at most 107 bytes.
    pub(crate) fn brief() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("braid-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A path within.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// Writes a file within.
    pub(crate) fn write(&self, name: &str, content: &str) -> String {
        fs::write(self.0.join(name), content).unwrap();
        self.path(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
