//! Telling whoever started the engine that hosts can connect, and that it ends.

use std::io::Write;
use std::net::SocketAddr;

use sd_notify::NotifyState;

/// The readiness line. Scripts wait for it: it never changes its form.
#[must_use]
pub fn line(nqns: &[&str], listen: &[SocketAddr], namespaces: usize) -> String {
    let listen: Vec<_> = listen.iter().map(ToString::to_string).collect();
    let (nqns, listen) = (nqns.join(","), listen.join(","));
    format!("braid-engine: ready nqn={nqns} listen={listen} namespaces={namespaces}")
}

/// Hosts can connect: says it on stdout and to systemd.
pub fn announce(line: &str) {
    // Who closed our stdout does not wait for the line.
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
    notify(NotifyState::Ready);
}

/// The stop has begun.
pub fn stopping() {
    notify(NotifyState::Stopping);
}

fn notify(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "cannot notify systemd");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readiness_line_keeps_its_form() {
        let listen = ["127.0.0.1:4420".parse().unwrap(), "[::1]:4421".parse().unwrap()];
        assert_eq!(
            line(&["nqn.a"], &listen, 2),
            "braid-engine: ready nqn=nqn.a listen=127.0.0.1:4420,[::1]:4421 namespaces=2"
        );
    }
}
