//! `braid-engine verify`: whether a pool's disk is what a pool must be, without an engine.

use std::path::PathBuf;

use braid_pool::{Finding, Report, Scope};
use serde::Serialize;

use crate::admin::output::{self, Format, size};
use crate::command::print;
use crate::error::{Error, Result};
use crate::offline::disk::Disk;
use crate::offline::memory::Heap;

/// What `verify --help` teaches below the list of options.
pub const HELP: &str = "\
Reads the disk or file of a pool that no engine has: every structure of the maps, and every block
of data against its checksum. --repair writes bad copies again from good ones; what has no second
copy it cannot mend.

Examples:
  braid-engine verify /var/lib/braid/pool1
  braid-engine verify /dev/sdb --no-data
  braid-engine verify /dev/sdb --repair -o json

Exit codes: 0 all is as it must be, or was mended, 1 it is not, 2 asked for what makes no sense.";

/// `verify`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Disk or file
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// Write bad copies again from good ones
    #[arg(long)]
    repair: bool,
    /// Leave the data out, which takes the most time
    #[arg(long)]
    no_data: bool,
    /// Findings to be listed
    #[arg(long, value_name = "N", default_value_t = 100)]
    findings: usize,
    /// How to print what is found
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    output: Format,
}

/// A report as programs read it.
#[derive(Debug, Serialize)]
struct View {
    errors: u64,
    bad_copies: u64,
    mended: u64,
    layers: u64,
    pages: u64,
    data_bytes: u64,
    blocks: u64,
    unverified_blocks: u64,
    findings: Vec<FindingView>,
}

#[derive(Debug, Serialize)]
struct FindingView {
    kind: &'static str,
    text: String,
    mended: bool,
}

/// Checks a disk and prints what was found.
///
/// # Errors
/// When it cannot be read, or is not as it must be.
pub fn verify(options: &Options) -> Result<()> {
    let mut disk = Disk::open(&options.path, options.repair)?;
    disk.show_progress("verifying");
    let mut mem = Heap::default();
    let mut pool = super::open(&options.path, &mut disk, &mut mem)?;
    let scope =
        Scope { data: !options.no_data, repair: options.repair, findings_max: options.findings };
    let now = super::BEGINNING;
    let report = braid_pool::check(&mut pool, &mut mem, &mut disk, now, scope);
    pool.drop_leases(&mut mem);
    disk.end_progress();
    let view = View::new(&report);
    match options.output {
        Format::Table => print(&view.text()),
        Format::Json | Format::Yaml => print(&output::encoded(options.output, &view)?),
    }
    verdict(&view, options)
}

/// Whether the command succeeded.
fn verdict(view: &View, options: &Options) -> Result<()> {
    let path = options.path.display();
    let left = view.bad_copies.saturating_sub(view.mended);
    match (view.errors, left) {
        (0, 0) => Ok(()),
        (0, left) if options.repair => {
            Err(Error::run(format!("{path}: {left} bad copies could not be written again")))
        }
        (0, left) => Err(Error::run(format!(
            "{path}: {left} bad copies; --repair writes them again from the good ones"
        ))),
        (errors, _) => Err(Error::run(format!("{path}: {errors} errors that cannot be mended"))),
    }
}

impl View {
    fn new(report: &Report) -> Self {
        let findings: Vec<_> = report.findings.iter().map(FindingView::from).collect();
        Self {
            errors: report.errors,
            bad_copies: report.bad_copies,
            mended: report.mended,
            layers: report.layers,
            pages: report.pages,
            data_bytes: report.clusters * CLUSTER_BYTES,
            blocks: report.blocks,
            unverified_blocks: report.unverified,
            findings,
        }
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{} layers, {} pages, {} of data: {} errors, {} bad copies, {} mended\n{} blocks \
             compared, {} unverified since an unclean stop\n",
            self.layers,
            self.pages,
            size(self.data_bytes),
            self.errors,
            self.bad_copies,
            self.mended,
            self.blocks,
            self.unverified_blocks
        );
        for FindingView { kind, text: what, mended } in &self.findings {
            let mended = if *mended { " (mended)" } else { "" };
            text += &format!("{kind}: {what}{mended}\n");
        }
        text
    }
}

/// Bytes of a cluster.
const CLUSTER_BYTES: u64 = 256 << 10;

impl From<&Finding> for FindingView {
    fn from(finding: &Finding) -> Self {
        let (kind, text) = told(*finding);
        Self { kind, text, mended: finding.is_mended() }
    }
}

/// A finding's name for programs, and its text for people.
fn told(finding: Finding) -> (&'static str, String) {
    match finding {
        Finding::Superblock { device, .. } => {
            ("superblock", format!("the copy at byte {device} of the disk is bad"))
        }
        Finding::Slot { device, .. } => {
            ("slot", format!("the copy of a page at byte {device} is bad"))
        }
        Finding::Lost { device } => {
            ("lost", format!("both copies of the page at {device} are bad"))
        }
        Finding::Shared { device, layer, offset } => (
            "shared",
            format!("layer {layer} at {offset} owns a cluster, at {device}, that has an owner"),
        ),
        Finding::Unmarked { device, layer, offset } => (
            "unmarked",
            format!("layer {layer} at {offset} owns a cluster, at {device}, that is called free"),
        ),
        Finding::Leaked { device } => {
            ("leaked", format!("the cluster at {device} is called used and nobody owns it"))
        }
        Finding::Homeless { layer, offset } => {
            ("homeless", format!("layer {layer} at {offset} owns blocks that have no place"))
        }
        Finding::Pointer { device } => {
            ("pointer", format!("the page at {device} is pointed to twice, or is not marked"))
        }
        Finding::LeakedPage { device } => {
            ("leaked_page", format!("the page at {device} is marked and nothing points to it"))
        }
        Finding::Count { layer, says, counted } => {
            ("count", format!("layer {layer} says that it has {says} clusters, and has {counted}"))
        }
        Finding::Parent { layer } => {
            ("parent", format!("layer {layer} has a parent that is missing, open or itself"))
        }
        Finding::Space { figure, says, counted } => {
            let name = figure.name();
            ("space", format!("{says} clusters are said to be {name}, and {counted} are"))
        }
        Finding::Block { device, layer, offset } => {
            ("block", format!("layer {layer} at {offset}: the block at {device} is lost"))
        }
    }
}
