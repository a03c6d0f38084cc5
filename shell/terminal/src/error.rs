//! What stops a command, as the one line that a person reads.

use std::fmt;
use std::process::ExitCode;

/// Why a command ends before its work is done.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What was asked for makes no sense: whoever typed it must change it. Exit code 2.
    Usage,
    /// The machine, the network or the other side does not allow it. Exit code 1.
    Run,
    /// Whoever is to be asked does not answer. Exit code 3.
    Absent,
}

/// What commands return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The command line or the configuration file is wrong.
    #[must_use]
    pub fn usage(message: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, message: message.into() }
    }

    /// The world does not allow it.
    #[must_use]
    pub fn run(message: impl Into<String>) -> Self {
        Self { kind: Kind::Run, message: message.into() }
    }

    /// Nobody answers.
    #[must_use]
    pub fn absent(message: impl Into<String>) -> Self {
        Self { kind: Kind::Absent, message: message.into() }
    }

    /// Whose turn it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// The same with the place it came from in front.
    #[must_use]
    pub fn at(self, place: impl fmt::Display) -> Self {
        Self { message: format!("{place}: {}", self.message), ..self }
    }

    /// What the process says when it ends.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self.kind {
            Kind::Usage => ExitCode::from(2),
            Kind::Run => ExitCode::from(1),
            Kind::Absent => ExitCode::from(3),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
