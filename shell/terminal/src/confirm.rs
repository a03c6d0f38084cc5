//! Asking before data is lost.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::error::{Error, Result};

/// How a command that loses data is told to go on.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Confirmation {
    /// Do not ask whether the data may be lost
    #[arg(long)]
    pub yes: bool,
}

impl Confirmation {
    /// Goes on if `--yes` says so, or if a person types `name`. `loss` says what is lost.
    ///
    /// # Errors
    /// When nobody is there to type, or types something else; when there is no name to type.
    pub fn demand(self, loss: &str, name: &str) -> Result<()> {
        // An empty line must not lose data, nor `--yes` what nobody named.
        if name.is_empty() {
            return Err(Error::usage(format!("{loss} would be lost, and it has no name; name it")));
        }
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() {
            return Err(Error::usage(format!("{loss} would be lost; add --yes if it may be")));
        }
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{loss} will be lost. Type {name} to go on: ");
        let _ = stderr.flush();
        typed(&mut io::stdin().lock(), name)
    }
}

fn typed(from: &mut impl BufRead, name: &str) -> Result<()> {
    let mut line = String::new();
    let read = from.read_line(&mut line);
    match read {
        Ok(_) if line.trim_end_matches(['\n', '\r']) == name => Ok(()),
        Ok(_) => Err(Error::usage(format!("that was not '{name}'; nothing was done"))),
        Err(error) => Err(Error::run(format!("cannot read the answer: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_goes_on() {
        typed(&mut &b"vm1\n"[..], "vm1").unwrap();
        for line in ["", "\n", "vm", "vm1 x\n", "yes\n"] {
            let error = typed(&mut line.as_bytes(), "vm1").unwrap_err();
            assert!(error.to_string().contains("nothing was done"), "{error}");
        }
        Confirmation { yes: true }.demand("everything", "vm1").unwrap();
        let error = Confirmation { yes: true }.demand("everything", "").unwrap_err();
        assert!(error.to_string().contains("no name"), "{error}");
    }
}
