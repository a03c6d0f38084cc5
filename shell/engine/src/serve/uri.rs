//! URIs of what is served: where a namespace's bytes are and how they are offered; where a pool is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use braid_block::BlockSize;
use braid_shard::Injection;
use uuid::Uuid;

use crate::quantity::{Block, Bytes, Switch, deserialize_from_text};
use crate::serve::injection;

/// What an engine is asked to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// A namespace of a subsystem.
    Namespace(NamespaceUri),
    /// A pool, whose replicas are subsystems of their own.
    Pool(PoolUri),
}

/// A pool as asked for, well-formed by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolUri {
    /// As it was written, for messages.
    pub text: String,
    /// Absolute.
    pub path: PathBuf,
    /// The identity that is expected there.
    pub uuid: Option<Uuid>,
    /// Its replicas are shared without being asked for.
    pub shares: bool,
}

/// A namespace as asked for, well-formed by construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespaceUri {
    /// As it was written, for messages.
    pub text: String,
    /// Where its bytes are.
    pub source: Source,
    /// Logical block size asked for.
    pub block: Option<BlockSize>,
    /// Namespace id asked for.
    pub nsid: Option<u32>,
    /// UUID asked for.
    pub uuid: Option<Uuid>,
    /// NGUID asked for.
    pub nguid: Option<[u8; 16]>,
    /// Faults to inject.
    pub injections: Vec<Injection>,
    /// Lose what was not flushed when killed.
    pub lose_unflushed: bool,
}

/// Where a namespace's bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// In this process.
    Memory {
        /// Bytes.
        size: u64,
    },
    /// In a file.
    File {
        /// Absolute.
        path: PathBuf,
        /// Bytes it has, or gets when it is made.
        size: Option<u64>,
        /// How it is made.
        allocation: Allocation,
    },
    /// On a block device.
    Device {
        /// Absolute.
        path: PathBuf,
        /// Take it even if it seems to hold something else.
        force: bool,
    },
}

/// How a new file gets its space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// Reserved at once: writes cannot run out of space.
    #[default]
    Reserved,
    /// Taken as it is written, given back by discard.
    Sparse,
    /// Reserved and written once, so that later writes change no metadata (benchmarks).
    Prefilled,
}

impl NamespaceUri {
    /// Names the bytes, whatever is asked of them: two equal ones are the same bytes.
    #[must_use]
    pub fn canonical(&self) -> String {
        match &self.source {
            Source::Memory { size } => format!("mem:{size}"),
            Source::File { path, .. } => format!("file:{}", path.display()),
            Source::Device { path, .. } => format!("dev:{}", path.display()),
        }
    }
}

impl FromStr for Served {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with(POOL) {
            text.parse().map(Self::Pool)
        } else {
            text.parse().map(Self::Namespace)
        }
    }
}

impl FromStr for PoolUri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let path = place.strip_prefix(POOL).ok_or_else(|| format!("'{place}' is not a pool"))?;
        let mut options = Options::parse(query)?;
        let uri = Self {
            text: text.to_owned(),
            path: absolute(path)?,
            uuid: options.take_with("uuid", uuid)?,
            shares: options.take_with("share", share)?.unwrap_or(true),
        };
        match options.0.first() {
            None => Ok(uri),
            Some((name, _)) => {
                Err(format!("unknown option '{name}' in '{place}?..'; known here: uuid, share"))
            }
        }
    }
}

fn share(text: &str) -> Result<bool, String> {
    match text {
        "all" => Ok(true),
        "none" => Ok(false),
        _ => Err(format!("'{text}' is neither all nor none")),
    }
}

/// What the URI of a pool begins with.
const POOL: &str = "pool:";

impl fmt::Display for PoolUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for NamespaceUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for NamespaceUri {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let mut options = Options::parse(query)?;
        let uri = Self {
            text: text.to_owned(),
            source: source(place, &mut options)?,
            block: options.take::<Block>("block")?.map(|block| block.0),
            nsid: options.take_with("nsid", nsid)?,
            uuid: options.take_with("uuid", uuid)?,
            nguid: options.take_with("nguid", nguid)?,
            injections: options.take_all("inject", injection::parse)?,
            lose_unflushed: options.take_switch("lose-unflushed")?,
        };
        options.finish(place)?;
        uri.check_size()?;
        Ok(uri)
    }
}

deserialize_from_text!(NamespaceUri, Served);

impl NamespaceUri {
    /// Refuses a size that no block size divides; the exact one is known once the block size is.
    fn check_size(&self) -> Result<(), String> {
        let size = match self.source {
            Source::Memory { size } => size,
            Source::File { size: Some(size), .. } => size,
            Source::File { size: None, .. } | Source::Device { .. } => return Ok(()),
        };
        check_size(size, self.block.unwrap_or(BlockSize::B512))
    }
}

/// Refuses a size that is not a whole, positive number of blocks.
///
/// # Errors
/// One line that says which size to take instead.
pub fn check_size(size: u64, block: BlockSize) -> Result<(), String> {
    let bytes = u64::from(block.bytes());
    if size == 0 {
        Err("a namespace needs a size above zero".into())
    } else if !size.is_multiple_of(bytes) {
        let below = size / bytes * bytes;
        Err(format!(
            "{size} bytes are not a multiple of the block size {bytes}; take {} or {}",
            if below > 0 { below } else { 2 * bytes },
            below + bytes
        ))
    } else {
        Ok(())
    }
}

fn source(place: &str, options: &mut Options<'_>) -> Result<Source, String> {
    match place.split_once(':') {
        Some(("mem", size)) => {
            let size = size.parse::<Bytes>().map_err(|e| format!("{e} (as in mem:256MiB)"))?.0;
            Ok(Source::Memory { size })
        }
        Some(("file", path)) => Ok(Source::File {
            path: absolute(path)?,
            size: options.take::<Bytes>("size")?.map(|size| size.0),
            allocation: allocation(options)?,
        }),
        Some(("dev", path)) => device(path, options),
        _ if place.starts_with("/dev/") => device(place, options),
        Some(("pool", _)) => Err(format!(
            "the replicas of '{place}' are subsystems of their own; name it outside of \
             [[subsystem]]"
        )),
        _ => Err(format!(
            "'{place}' is not a namespace; write mem:256MiB, file:/path?size=1GiB, /dev/NAME, or \
             pool:/path for a pool"
        )),
    }
}

fn device(path: &str, options: &mut Options<'_>) -> Result<Source, String> {
    Ok(Source::Device { path: absolute(path)?, force: options.take_switch("force")? })
}

fn absolute(path: &str) -> Result<PathBuf, String> {
    let path = percent_decoded(path)?;
    std::path::absolute(&path).map_err(|_| "a path is missing".into())
}

fn allocation(options: &mut Options<'_>) -> Result<Allocation, String> {
    match (options.take_switch("sparse")?, options.take_switch("prefill")?) {
        (false, false) => Ok(Allocation::Reserved),
        (true, false) => Ok(Allocation::Sparse),
        (false, true) => Ok(Allocation::Prefilled),
        (true, true) => Err("a file is either sparse or prefilled".into()),
    }
}

fn nsid(text: &str) -> Result<u32, String> {
    // NSIDs from FFFFFFFEh up mean "all" or nothing (Base 3.2.1.2).
    let nsid = text.parse().ok().filter(|nsid| (1..=0xffff_fffe - 1).contains(nsid));
    nsid.ok_or_else(|| format!("nsid '{text}' is not a namespace id: a number from 1"))
}

fn uuid(text: &str) -> Result<Uuid, String> {
    let uuid = Uuid::try_parse(text).ok().filter(|uuid| !uuid.is_nil());
    uuid.ok_or_else(|| {
        format!("'{text}' is not a UUID; write 32 hex digits, as uuidgen prints them")
    })
}

fn nguid(text: &str) -> Result<[u8; 16], String> {
    let digits: String = text.chars().filter(|&c| c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok();
    match number {
        Some(number) if digits.len() == 32 && number != 0 => Ok(number.to_be_bytes()),
        _ => Err(format!("'{text}' is not an NGUID; write 32 hex digits, not all zero")),
    }
}

/// What follows the question mark, taken out piece by piece so that what is left is unknown.
struct Options<'a>(Vec<(&'a str, String)>);

impl<'a> Options<'a> {
    fn parse(query: &'a str) -> Result<Self, String> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &'a str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "1"));
            Ok((name, percent_decoded(value)?))
        };
        pairs.map(pair).collect::<Result<_, _>>().map(Self)
    }

    fn take_all<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<T>, String> {
        let (mine, rest) = self.0.drain(..).partition(|(n, _)| *n == name);
        self.0 = rest;
        let parse = |(_, value): (&str, String)| parse(&value).map_err(|e| format!("{name}: {e}"));
        Vec::into_iter(mine).map(parse).collect()
    }

    fn take_with<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let mut values = self.take_all(name, parse)?;
        if values.len() > 1 {
            return Err(format!("{name} is given twice"));
        }
        Ok(values.pop())
    }

    fn take<T: FromStr<Err = String>>(&mut self, name: &str) -> Result<Option<T>, String> {
        self.take_with(name, str::parse)
    }

    fn take_switch(&mut self, name: &str) -> Result<bool, String> {
        Ok(self.take::<Switch>(name)?.is_some_and(|switch| switch.0))
    }

    fn finish(self, place: &str) -> Result<(), String> {
        let known = match place.split_once(':') {
            Some(("mem", _)) => "",
            Some(("file", _)) => "size, sparse, prefill, ",
            _ => "force, ",
        };
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!(
                "unknown option '{name}' in '{place}?..'; known here: {known}block, nsid, uuid, \
                 nguid, inject, lose-unflushed"
            )),
        }
    }
}

/// `%20` and the like become the bytes they stand for.
fn percent_decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escape = (*first == b'%').then(|| tail.get(..2).and_then(hex_byte)).flatten();
        bytes.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).map_err(|_| format!("'{text}' is not UTF-8"))
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> NamespaceUri {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn each_kind_of_place_is_read() {
        assert_eq!(parse("mem:256MiB").source, Source::Memory { size: 256 << 20 });
        assert_eq!(
            parse("file:/a%20b?size=1GiB&sparse=1").source,
            Source::File {
                path: "/a b".into(),
                size: Some(1 << 30),
                allocation: Allocation::Sparse
            }
        );
        let device = Source::Device { path: "/dev/sdb".into(), force: false };
        assert_eq!(parse("/dev/sdb").source, device);
        assert_eq!(parse("dev:/dev/sdb").source, device);
        assert_eq!(parse("/dev/sdb").canonical(), parse("dev:/dev/sdb?block=512").canonical());
    }

    #[test]
    fn identity_and_faults_are_read() {
        let uri = parse(
            "mem:1MiB?block=512&nsid=7&uuid=6ba7b810-9dad-11d1-80b4-00c04fd430c8\
             &nguid=0123456789abcdef0123456789abcdef&inject=read,error&inject=write,stall,all,1\
             &lose-unflushed=1",
        );
        assert_eq!((uri.block, uri.nsid), (Some(BlockSize::B512), Some(7)));
        assert_eq!(uri.nguid.unwrap()[0], 0x01);
        assert_eq!(uri.injections.len(), 2);
        assert!(uri.lose_unflushed && uri.uuid.is_some());
    }

    #[test]
    fn a_pool_is_told_from_a_namespace() {
        let served = |text: &str| text.parse::<Served>();
        let Ok(Served::Pool(pool)) = served("pool:/a%20b?share=none") else { panic!("a pool") };
        assert_eq!((pool.path, pool.shares, pool.uuid), ("/a b".into(), false, None));
        let Ok(Served::Pool(pool)) = served("pool:/dev/sdb") else { panic!("a pool") };
        assert!(pool.shares);
        assert!(matches!(served("mem:1MiB"), Ok(Served::Namespace(_))));
        for (text, hint) in [
            ("pool:", "a path is missing"),
            ("pool:/a?share=some", "neither all nor none"),
            ("pool:/a?uuid=1", "not a UUID"),
            ("pool:/a?size=1GiB", "known here: uuid, share"),
        ] {
            let error = served(text).unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
        assert!("pool:/a".parse::<NamespaceUri>().unwrap_err().contains("[[subsystem]]"));
    }

    #[test]
    fn each_mistake_says_what_to_write() {
        for (text, hint) in [
            ("disk", "write mem:256MiB"),
            ("mem:", "as in mem:256MiB"),
            ("mem:0", "above zero"),
            ("mem:1000", "take 512 or 1024"),
            ("mem:6KiB?block=4096", "take 4096 or 8192"),
            ("mem:1MiB?size=1MiB", "unknown option 'size'"),
            ("file:", "a path is missing"),
            ("file:/x?size=lots", "size: 'lots' is not a size"),
            ("file:/x?size=1MiB&size=2MiB", "size is given twice"),
            ("file:/x?sparse=1&prefill=1", "either sparse or prefilled"),
            ("mem:1MiB?block=1024", "512 or 4096"),
            ("mem:1MiB?nguid=12", "32 hex digits"),
            ("mem:1MiB?nguid=00000000000000000000000000000000", "not all zero"),
            ("mem:1MiB?uuid=12", "not a UUID"),
            ("mem:1MiB?nsid=0", "from 1"),
            ("mem:1MiB?inject=read", "inject: a fault is missing"),
            ("/dev/sdb?sparse=1", "unknown option 'sparse'"),
        ] {
            let error = text.parse::<NamespaceUri>().unwrap_err();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
