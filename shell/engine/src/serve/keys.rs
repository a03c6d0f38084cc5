//! The file with the keys of hosts: a line for each, `HOSTNQN KEY [CONTROLLER-KEY] [hash=..]
//! [group=..]`. Nothing of it is ever shown but names and line numbers.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use braid_nvme::auth::{Group, Hash, HostKey, HostKeys, Secret};
use braid_nvme::connect::Nqn;

use crate::error::{Error, Result};

/// Bytes of a file that is read: some thousand hosts.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Permissions of everybody but the owner.
const OTHERS: u32 = 0o077;

/// What a shard is told: the keys, and what its challenges are made of.
#[derive(Debug)]
pub struct Secrets {
    /// The keys.
    pub keys: HostKeys,
    /// Of the operating system.
    pub seed: [u8; 32],
}

impl Secrets {
    /// With randomness of their own.
    ///
    /// # Errors
    /// When the operating system has none.
    pub fn draw(keys: HostKeys) -> Result<Self> {
        let mut seed = [0; 32];
        let flags = rustix::rand::GetRandomFlags::empty();
        match rustix::rand::getrandom(&mut seed, flags) {
            Ok(32) => Ok(Self { keys, seed }),
            Ok(_) => Err(Error::run("the system gave too little randomness")),
            Err(error) => Err(Error::run(format!("the system gives no randomness: {error}"))),
        }
    }
}

/// The keys that a file holds, one at least; no file holds none. A file without any is taken for a
/// mistake, for it would let everybody in.
///
/// # Errors
/// One line that says what is wrong, and of which line, without the key.
pub fn read(path: Option<&Path>) -> Result<HostKeys> {
    let Some(path) = path else { return Ok(HostKeys::default()) };
    let place = format!("--host-keys {}", path.display());
    let wrong = |error: std::io::Error| Error::usage(format!("cannot read {place}: {error}"));
    let mut file = std::fs::File::open(path).map_err(wrong)?;
    let found = file.metadata().map_err(wrong)?;
    if found.mode() & OTHERS != 0 {
        let mode = found.mode() & 0o777;
        return Err(Error::usage(format!(
            "{place}: others may read or change it (mode {mode:03o}); chmod 600 {}",
            path.display()
        )));
    }
    let mine = rustix::process::geteuid().as_raw();
    if found.uid() != mine && found.uid() != 0 {
        return Err(Error::usage(format!(
            "{place}: it belongs to user {}, not to {mine}",
            found.uid()
        )));
    }
    let mut text = String::new();
    let len = file.by_ref().take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(wrong)?;
    if len as u64 > FILE_BYTES_MAX {
        return Err(Error::usage(format!("{place}: it is longer than 1 MiB")));
    }
    let keys = parse(&text)
        .map_err(|(line, error)| Error::usage(format!("{place}, line {line}: {error}")))?;
    if keys.is_empty() {
        return Err(Error::usage(format!(
            "{place}: it has no key; an engine whose hosts need none is started without it"
        )));
    }
    Ok(keys)
}

/// The keys in a text; or the number of a line, and what is wrong with it.
fn parse(text: &str) -> std::result::Result<HostKeys, (usize, String)> {
    let mut keys = HostKeys::default();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (host, key) = entry(line).map_err(|error| (number, error))?;
        if !keys.insert(host, key) {
            return Err((number, format!("{host} has a key already")));
        }
    }
    Ok(keys)
}

fn entry(line: &str) -> std::result::Result<(Nqn, HostKey), String> {
    let mut words = line.split_whitespace();
    let host = words.next().and_then(Nqn::parse);
    let host = host.ok_or("the first word is no name of a host (nqn. ..)")?;
    let secret = |word: &str| Secret::parse(word).map_err(|error| error.to_string());
    let first = secret(words.next().ok_or("a key is missing after the name")?)?;
    let mut key = HostKey { host: first, controller: None, hash: None, group: None };
    for word in words {
        match word.split_once('=') {
            Some(("hash", name)) if key.hash.is_none() => key.hash = Some(hash(name)?),
            Some(("group", name)) if key.group.is_none() => key.group = Some(group(name)?),
            _ if word.starts_with("DHHC-1:") && key.controller.is_none() => {
                key.controller = Some(secret(word)?);
            }
            _ => {
                return Err(
                    "after the key come that of our controllers, hash= and group=, each once"
                        .into(),
                );
            }
        }
    }
    Ok((host, key))
}

fn hash(name: &str) -> std::result::Result<Hash, String> {
    match name {
        "sha256" => Ok(Hash::Sha256),
        "sha384" => Ok(Hash::Sha384),
        "sha512" => Ok(Hash::Sha512),
        _ => Err("hash= is sha256, sha384 or sha512".into()),
    }
}

fn group(name: &str) -> std::result::Result<Group, String> {
    match name {
        "null" => Ok(Group::Null),
        "ffdhe2048" => Ok(Group::Ffdhe2048),
        "ffdhe3072" => Ok(Group::Ffdhe3072),
        "ffdhe4096" => Ok(Group::Ffdhe4096),
        _ => Err("group= is null, ffdhe2048, ffdhe3072 or ffdhe4096".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const KEY: &str = "DHHC-1:01:EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi9A/ow7:";
    const OTHER: &str = "DHHC-1:00:ExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8wMTJjyBkh:";

    #[test]
    fn a_line_names_a_host_its_key_ours_and_what_to_prove_it_by() {
        let text =
            format!("# hosts\n\nnqn.a {KEY}\n nqn.b {KEY} {OTHER} group=ffdhe3072 hash=sha384\n");
        let keys = parse(&text).unwrap();
        assert_eq!(keys.len(), 2);
        let plain = keys.get(&Nqn::parse("nqn.a").unwrap()).unwrap();
        let host = Secret::parse(KEY).unwrap();
        let expected = HostKey { host, controller: None, hash: None, group: None };
        assert_eq!(*plain, expected);
        let full = keys.get(&Nqn::parse("nqn.b").unwrap()).unwrap();
        let controller = Some(Secret::parse(OTHER).unwrap());
        let (hash, group) = (Some(Hash::Sha384), Some(Group::Ffdhe3072));
        assert_eq!(*full, HostKey { controller, hash, group, ..expected });
    }

    #[test]
    fn a_mistake_is_told_by_its_line_and_never_with_the_key() {
        let rows = [
            ("host KEY", "no name"),
            ("nqn.a", "missing"),
            ("nqn.a KEYx", "DHHC-1:hh"),
            ("nqn.a KEY KEY KEY", "each once"),
            ("nqn.a KEY hash=md5", "sha256"),
            ("nqn.a KEY group=ffdhe8192", "ffdhe4096"),
            ("nqn.a KEY\nnqn.a KEY", "already"),
        ];
        for (text, said) in rows {
            let text = text.replace("KEY", KEY);
            let (line, error) = parse(&text).unwrap_err();
            assert_eq!(line, text.lines().count());
            assert!(error.contains(said) && !error.contains("EBES"), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let path = std::env::temp_dir().join(format!("braid-keys-{}", std::process::id()));
        std::fs::write(&path, format!("nqn.a {KEY}\n")).unwrap();
        let mode = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        mode(0o640);
        let said = read(Some(&path)).unwrap_err().to_string();
        assert!(said.contains("mode 640") && said.contains("chmod 600"), "{said}");
        mode(0o600);
        assert_eq!(read(Some(&path)).unwrap().len(), 1);
        std::fs::write(&path, "# nobody\n\n").unwrap();
        let said = read(Some(&path)).unwrap_err().to_string();
        assert!(said.contains("has no key"), "{said}");
        std::fs::remove_file(&path).unwrap();
        assert!(read(Some(&path)).unwrap_err().to_string().contains("cannot read"));
        assert!(read(None).unwrap().is_empty());
    }

    #[test]
    fn every_shard_has_randomness_of_its_own() {
        let draw = || Secrets::draw(HostKeys::default()).unwrap().seed;
        assert_ne!(draw(), draw());
    }
}
