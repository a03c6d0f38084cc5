//! Structured logs on stderr, as text or JSON, with a level that changes while it runs.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};

use crate::serve::options::{Level, LogFormat};

/// Changes the level of a running log.
#[derive(Clone, Debug)]
pub struct Handle(reload::Handle<LevelFilter, Registry>);

/// Starts the process's log. The second start in a process changes nothing.
pub fn start(level: Level, format: LogFormat) -> Handle {
    let (filter, handle) = reload::Layer::new(filter(level));
    let lines: Box<dyn Layer<_> + Send + Sync> = match format {
        LogFormat::Text => {
            fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).boxed()
        }
        LogFormat::Json => fmt::layer().json().with_writer(io::stderr).boxed(),
    };
    // Fails when a log was started before, as tests in one process do.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    Handle(handle)
}

impl Handle {
    /// Changes what is logged from now on.
    pub fn set(&self, level: Level) {
        // Fails when the log is gone, and then nobody reads it.
        let _ = self.0.reload(filter(level));
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
