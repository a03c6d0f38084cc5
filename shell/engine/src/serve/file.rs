//! The TOML file behind `--config`.

use std::path::Path;

use crate::error::{Error, Result};
use crate::serve::options::Options;

/// The options of the command line, and where it is silent, those of its `--config`.
///
/// # Errors
/// One line with the place of the mistake.
pub fn under(line: Options) -> Result<Options> {
    match &line.config {
        Some(path) => {
            let file = read(path)?;
            Ok(line.over(file))
        }
        None => Ok(line),
    }
}

fn read(path: &Path) -> Result<Options> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Error::usage(format!("cannot read the configuration {}: {error}", path.display()))
    })?;
    parse(&text).map_err(|error| error.at(path.display()))
}

/// Reads a file's content.
///
/// # Errors
/// One line with the place of the mistake.
pub fn parse(text: &str) -> Result<Options> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error.span().map(|span| 1 + text[..span.start].matches('\n').count());
        let place = line.map_or_else(String::new, |line| format!("line {line}: "));
        Error::usage(format!("{place}{}", error.message()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::{Bytes, Switch};
    use crate::serve::options::{Controllers, Level, Poll};

    const FULL: &str = r#"
        listen = ["0.0.0.0:4420", "[::]:4420"]
        nqn = "nqn.2026-01.io.braid:a"
        serial = "A1"
        allow-host = ["nqn.2014-08.org.nvmexpress:uuid:1"]
        namespaces = ["mem:1MiB?block=512", "pool:/dev/sdb"]
        block-size = 512
        controllers = "static"
        header-digest = "off"
        data-digest = true
        shards = 2
        poll = "never"
        poll-us = 20
        arena = "16MiB"
        connections = 64
        connections-per-host = 16
        drain = 5
        log = "debug"
        log-format = "json"
        metrics = "127.0.0.1:9420"
        socket = "/run/braid/a.sock"
        management = "127.0.0.1:4421"
        boot-id-file = "/run/boot"
        allow-injection = true
        force = false

        [[subsystem]]
        nqn = "nqn.2026-01.io.braid:b"
        namespaces = ["mem:2MiB"]
        allow-host = []
    "#;

    #[test]
    fn every_option_has_its_name() {
        let options = parse(FULL).unwrap();
        assert_eq!(options.listen.len(), 2);
        assert_eq!(options.controllers, Some(Controllers::Static));
        assert_eq!(options.header_digest, Some(Switch(false)));
        assert_eq!(options.data_digest, Some(Switch(true)));
        assert_eq!((options.poll, options.log), (Some(Poll::Never), Some(Level::Debug)));
        assert_eq!(options.arena, Some(Bytes(16 << 20)));
        assert_eq!((options.connections, options.connections_per_host), (Some(64), Some(16)));
        assert_eq!(options.subsystem.len(), 1);
    }

    #[test]
    fn the_command_line_goes_before_the_file() {
        let file = parse(FULL).unwrap();
        let line = Options { shards: Some(4), ..Options::default() };
        let both = line.over(file);
        assert_eq!((both.shards, both.poll_us), (Some(4), Some(20)));
        assert_eq!(both.namespaces.len(), 2);
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        for (text, expected) in [
            ("shards = 1\nshard = 2", "line 2: unknown field `shard`"),
            ("poll = \"often\"", "line 1: unknown variant `often`"),
            ("\n\nnamespaces = [\"mem:1\"]", "line 3: 1 bytes are not a multiple"),
            ("nqn = \"disk\"", "'disk' is not an NVMe qualified name"),
            ("[[subsystem]]\nnamespaces = ['pool:/a']", "name it outside"),
            ("[[subsystem]]\nshards = 1", "line 2: unknown field `shards`"),
            ("nqn", "line 1"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
