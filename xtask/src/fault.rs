//! What went wrong, in one line that says what to do about it.

use std::fmt;

/// A failure to tell the user about; the text is complete and stands on its own.
#[derive(Debug)]
pub(crate) struct Fault(String);

/// The result of everything here that can fail.
pub(crate) type Outcome<T> = Result<T, Fault>;

impl Fault {
    /// A failure with this text.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Fault(text.into())
    }

    /// A failure whose last line was printed already.
    pub(crate) fn silent() -> Self {
        Fault(String::new())
    }

    /// Whether there is nothing left to print.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// Puts what we were doing in front of an error of the system.
pub(crate) trait Explain<T> {
    /// Turns an error into a [`Fault`] that begins with `doing`.
    fn explain(self, doing: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T, E: fmt::Display> Explain<T> for Result<T, E> {
    fn explain(self, doing: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|error| Fault(format!("{}: {error}", doing())))
    }
}
