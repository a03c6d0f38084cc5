//! What happens, told with the time since the beginning, to people and into a file.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Outcome;

/// A story that is being told.
#[derive(Debug)]
pub(crate) struct Story {
    began: Instant,
    file: Mutex<File>,
}

impl Story {
    /// One that begins now.
    pub(crate) fn new(path: &Path) -> Outcome<Self> {
        let file = File::create(path);
        let file = file.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(Self { began: Instant::now(), file: Mutex::new(file) })
    }

    /// How long it has been going on.
    pub(crate) fn time(&self) -> Duration {
        self.began.elapsed()
    }

    /// Tells something.
    pub(crate) fn tell(&self, text: &str) {
        let line = format!("{:8.2} s  {text}", self.time().as_secs_f64());
        println!("{line}");
        // A poisoned lock has a whole line behind it; a full disk must not end the campaign.
        let mut file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = writeln!(file, "{line}");
    }
}
