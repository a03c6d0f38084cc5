//! Structured logs on stderr, as text or JSON, with a level that changes while it runs.
//!
//! A shard's thread must never wait for whoever reads our stderr: lines go through a bounded queue
//! to a thread that writes them. When the reader is too slow, lines are lost and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use serde::Deserialize;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

/// What is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// What needs an operator.
    Error,
    /// What may need one.
    Warn,
    /// What changes: starts, stops, hosts that come and go.
    Info,
    /// Every connection.
    Debug,
    /// Everything.
    Trace,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// A line for people.
    Text,
    /// A JSON object a line, for programs.
    Json,
}

/// Lines that wait to be written, at most.
const LINES_MAX: usize = 4096;
/// How long the end waits for the last lines to be written.
const FLUSH: Duration = Duration::from_secs(1);

/// A running log.
#[derive(Clone, Debug)]
pub struct Handle {
    level: reload::Handle<LevelFilter, Registry>,
    queue: Queue,
}

/// The way to the thread that writes.
#[derive(Clone, Debug)]
struct Queue {
    sender: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    /// Everything before it has been written once this is answered.
    Flush(SyncSender<()>),
}

/// A line that is being made; it is sent when it is dropped.
#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    queue: Queue,
}

/// Starts the process's log. The second start in a process changes nothing.
#[must_use]
pub fn start(level: Level, format: LogFormat) -> Handle {
    let queue = Queue::start(io::stderr());
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Text => {
            let colours = io::stderr().is_terminal();
            fmt::layer().with_writer(queue.clone()).with_ansi(colours).boxed()
        }
        LogFormat::Json => fmt::layer().json().with_writer(queue.clone()).boxed(),
    };
    // Fails when a log was started before, as tests in one process do.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Handle { level: handle, queue }
}

impl Handle {
    /// Changes what is logged from now on.
    pub fn set(&self, level: Level) {
        // Fails when the log is gone, and then nobody reads it.
        let _ = self.level.reload(filter(level));
    }

    /// Waits until what was logged is written, but not for a reader that sleeps.
    pub fn flush(&self) {
        let (sender, written) = mpsc::sync_channel(1);
        if self.queue.sender.try_send(Message::Flush(sender)).is_ok() {
            let _ = written.recv_timeout(FLUSH);
        }
    }
}

const fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

impl Queue {
    fn start(to: impl Write + Send + 'static) -> Self {
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let write = move || write(&lines, &counted, to);
        // Without the thread nothing is logged, and that is no reason not to serve.
        let _ = thread::Builder::new().name("braid-log".into()).spawn(write);
        Self { sender, lost }
    }
}

fn write(lines: &Receiver<Message>, lost: &AtomicU64, mut to: impl Write) {
    for message in lines {
        // A reader that went away is not coming back, and there is nobody else to tell.
        match message {
            Message::Line(line) => drop(to.write_all(&line)),
            Message::Flush(written) => drop(written.send(())),
        }
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(to, "{lost} log lines were lost: the reader is too slow");
        }
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { bytes: Vec::new(), queue: self.clone() }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let line = Message::Line(std::mem::take(&mut self.bytes));
        if self.queue.sender.try_send(line).is_err() {
            self.queue.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// A reader that sleeps until it is let go.
    #[derive(Clone, Default)]
    struct Sleepy(Arc<Mutex<Vec<u8>>>);

    impl Write for Sleepy {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_sleeps_loses_lines_but_holds_nobody_up() {
        let reader = Sleepy::default();
        let asleep = reader.0.lock().unwrap();
        let queue = Queue::start(reader.clone());
        for _ in 0..2 * LINES_MAX {
            writeln!(queue.make_writer(), "line").unwrap();
        }
        drop(asleep);
        let (sender, written) = mpsc::sync_channel(1);
        queue.sender.send(Message::Flush(sender)).unwrap();
        written.recv_timeout(Duration::from_secs(30)).unwrap();
        let text = String::from_utf8(reader.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().filter(|line| *line == "line").count();
        assert!((LINES_MAX..LINES_MAX + 2).contains(&lines), "{lines}");
        assert!(text.contains("log lines were lost"), "{text}");
    }
}
