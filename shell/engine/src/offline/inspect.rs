//! `braid-engine inspect`: what a pool's disk holds, without an engine.

use std::path::PathBuf;

use braid_pool::{Inspection, LayerInfo};
use serde::Serialize;

use crate::admin::output::{self, Format, Row, moment, size};
use crate::command::print;
use crate::error::Result;
use crate::manage::names;
use crate::offline::disk::Disk;
use crate::offline::memory::Heap;
use crate::table;

/// What `inspect --help` teaches below the list of options.
pub const HELP: &str = "\
Reads the disk or file of a pool that no engine has, and changes nothing: what would be replayed
after a crash is replayed in memory.

Examples:
  braid-engine inspect /var/lib/braid/pool1
  braid-engine inspect /dev/sdb -o json

Exit codes: 0 it is a pool, 1 it is none or cannot be read, 2 asked for what makes no sense.";

/// `inspect`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Disk or file
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// How to print what is found
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

/// A pool as programs read it.
#[derive(Debug, Serialize)]
struct View {
    uuid: String,
    version: u32,
    features: u64,
    incarnation: u64,
    owner: String,
    boot_id: String,
    clean: bool,
    failed: bool,
    unadopted: bool,
    superblocks: [Copy; 4],
    replayed_blocks: u64,
    rejected_writes: u64,
    deleted_layers: u64,
    disk_bytes: u64,
    capacity_bytes: u64,
    data_bytes: u64,
    maps_bytes: u64,
    quarantine_bytes: u64,
    reserve_bytes: u64,
    promised_bytes: u64,
    available_bytes: u64,
    committed_bytes: u64,
    journal_blocks: u32,
    journal_used_blocks: u32,
    layers: Vec<Layer>,
}

/// A copy of the superblock; without a version, it is bad.
#[derive(Debug, Serialize)]
struct Copy {
    device_offset_bytes: u64,
    version: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Layer {
    name: String,
    uuid: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    source: String,
    size_bytes: u64,
    block_bytes: u32,
    member: bool,
    created_unix_s: u64,
    instance: u64,
    flush_number: u64,
    own_bytes: u64,
    shared_bytes: u64,
    children: u32,
}

/// Prints what a disk holds.
///
/// # Errors
/// Why it cannot be read.
pub fn inspect(options: &Options) -> Result<()> {
    let mut disk = Disk::open(&options.path, false)?;
    let mut mem = Heap::default();
    let config = super::config(&disk);
    let found = braid_pool::inspect(&mut mem, &mut disk, config)
        .map_err(|refusal| super::not_opened(&options.path, refusal, &disk))?;
    let view = View::new(found);
    match options.output {
        Format::Table => print(&view.table()),
        Format::Json | Format::Yaml => print(&output::encoded(options.output, &view)?),
    }
    Ok(())
}

impl View {
    fn new(found: Inspection) -> Self {
        let info = found.pool;
        let mut layers: Vec<Layer> = found.layers.into_iter().map(Layer::from).collect();
        layers.sort_by(|a, b| (&a.name, a.created_unix_s).cmp(&(&b.name, b.created_unix_s)));
        let copy = |(device_offset_bytes, version)| Copy { device_offset_bytes, version };
        Self {
            disk_bytes: found.bytes,
            boot_id: names::text(found.boot_id),
            failed: found.failed,
            unadopted: found.unadopted,
            superblocks: found.copies.map(copy),
            replayed_blocks: found.journal.replayed,
            rejected_writes: found.journal.rejected,
            deleted_layers: found.deleted,
            uuid: names::text(info.uuid),
            version: info.version,
            features: info.features,
            incarnation: info.incarnation,
            owner: info.owner,
            clean: found.clean,
            capacity_bytes: info.capacity,
            data_bytes: info.data,
            maps_bytes: info.maps,
            quarantine_bytes: info.quarantine,
            reserve_bytes: info.reserve,
            promised_bytes: info.promised,
            available_bytes: info.available,
            committed_bytes: info.committed,
            journal_blocks: info.journal_blocks,
            journal_used_blocks: info.journal_used,
            layers,
        }
    }

    fn table(&self) -> String {
        let stop = match (self.failed, self.clean) {
            (true, _) => "because its disk failed",
            (false, true) => "in order",
            (false, false) => "by a crash",
        };
        let good = self.superblocks.iter().filter(|copy| copy.version.is_some()).count();
        let facts = [
            ("pool", self.uuid.clone()),
            ("format", format!("version {}, features {:#x}", self.version, self.features)),
            ("opened by", format!("{} ({} times)", self.owner, self.incarnation)),
            ("stopped", stop.to_owned()),
            ("superblocks", format!("{good} of 4 copies are good")),
            (
                "replay",
                format!("{} blocks, {} rejected", self.replayed_blocks, self.rejected_writes),
            ),
            ("capacity", size(self.capacity_bytes)),
            ("data, maps", format!("{}, {}", size(self.data_bytes), size(self.maps_bytes))),
            ("available", size(self.available_bytes)),
            ("committed", size(self.committed_bytes)),
            ("journal", format!("{} of {} blocks", self.journal_used_blocks, self.journal_blocks)),
        ];
        let rows = facts.map(|(name, value)| vec![format!("{name}:"), format!(" {value}")]);
        let head = Layer::HEAD.iter().map(ToString::to_string).collect();
        let layers: Vec<_> =
            std::iter::once(head).chain(self.layers.iter().map(Row::cells)).collect();
        format!("{}\n{}", table::render(&rows), table::render(&layers))
    }
}

impl From<LayerInfo> for Layer {
    fn from(layer: LayerInfo) -> Self {
        Self {
            kind: match (layer.snapshot, layer.source.is_some(), layer.thick) {
                (true, _, _) => "snapshot",
                (false, true, _) => "clone",
                (false, false, true) => "thick",
                (false, false, false) => "thin",
            },
            name: layer.name,
            uuid: names::text(layer.uuid),
            source: layer.source.map_or_else(String::new, names::text),
            size_bytes: layer.bytes,
            block_bytes: layer.block.bytes(),
            member: layer.member,
            created_unix_s: layer.created,
            instance: layer.instance,
            flush_number: layer.flush_number,
            own_bytes: layer.own,
            shared_bytes: layer.shared,
            children: layer.children,
        }
    }
}

impl Row for Layer {
    const HEAD: &'static [&'static str] =
        &["name", "kind", "size", "block", "own", "shared", "created", "uuid"];

    fn cells(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.kind.into(),
            size(self.size_bytes),
            self.block_bytes.to_string(),
            size(self.own_bytes),
            size(self.shared_bytes),
            moment(self.created_unix_s),
            self.uuid.clone(),
        ]
    }
}
