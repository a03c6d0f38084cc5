//! `braid-engine identify`: what a subsystem says about its controller and its namespaces.

use braid_nvme::host::{Live, NamespaceInfo};
use serde::Serialize;
use uuid::Uuid;

use crate::client::Output;
use crate::client::inquiry;
use crate::client::uri::{HostName, TargetUri};
use crate::error::{Error, Result};
use crate::quantity::{Bytes, Name, Period};
use crate::table;

/// What `identify --help` teaches below the list of options.
pub const HELP: &str = "\
Examples:
  braid-engine identify nvme+tcp://127.0.0.1:4420/nqn.2026-01.io.braid:disk1
  braid-engine identify 'nvme+tcp://[::1]:4420/nqn.2026-01.io.braid:disk1?nsid=2' -o json";

/// The options of `identify`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// What to look at: nvme+tcp://HOST:PORT/NQN?nsid=N; without nsid, all namespaces
    #[arg(value_name = "URI")]
    pub target: TargetUri,

    /// Our name [default: derived from this machine's id]
    #[arg(long, value_name = "NQN")]
    pub host_nqn: Option<Name>,

    /// How long each step may take
    #[arg(long, default_value = "10s", value_name = "TIME")]
    pub timeout: Period,

    /// How to print what is found
    #[arg(short, long, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Identity {
    controller: Controller,
    namespaces: Vec<Namespace>,
}

#[derive(Debug, Serialize)]
struct Controller {
    subnqn: String,
    cntlid: u16,
    model: String,
    serial: String,
    firmware: String,
    version: String,
    transfer_bytes_max: u32,
    in_capsule_bytes: u32,
    queue_commands_max: u16,
    volatile_cache: bool,
    deallocates: bool,
    writes_zeroes: bool,
    atomic_blocks: u32,
}

#[derive(Debug, Serialize)]
struct Namespace {
    nsid: u32,
    bytes: u64,
    blocks: u64,
    block_bytes: u32,
    uuid: String,
    nguid: String,
    eui64: String,
    write_protected: bool,
    thin: bool,
    shared: bool,
}

/// Prints what a subsystem says about itself.
///
/// # Errors
/// Why it does not answer, or has no such namespace.
pub fn identify(options: &Options) -> Result<()> {
    let TargetUri { portal, nqn, nsid, cntlid } = &options.target;
    let name = HostName::new(options.host_nqn.map(|name| name.0));
    let answer = inquiry::ask(portal.resolve()?, *nqn, *cntlid, name, options.timeout.0)?;
    let live = answer.live.ok_or_else(|| Error::run("the target said nothing about itself"))?;
    let identity = Identity::new(&live, nqn.as_str(), *nsid);
    if let (Some(nsid), true) = (nsid, identity.namespaces.is_empty()) {
        return Err(Error::run(format!("{nqn} has no namespace {nsid} that we can use")));
    }
    let text = match options.output {
        Output::Table => identity.table(),
        Output::Json => serde_json::to_string_pretty(&identity)
            .map(|text| text + "\n")
            .map_err(|error| Error::run(error.to_string()))?,
    };
    crate::command::print(&text);
    Ok(())
}

impl Identity {
    fn new(live: &Live, nqn: &str, nsid: Option<u32>) -> Self {
        let asked_for = |info: &&NamespaceInfo| nsid.is_none_or(|nsid| nsid == info.nsid);
        let namespaces = live.namespaces.iter().filter(asked_for).map(Namespace::new).collect();
        Self { controller: Controller::new(live, nqn), namespaces }
    }

    fn table(&self) -> String {
        let Controller { subnqn, cntlid, model, serial, firmware, version, .. } = &self.controller;
        let transfer = Bytes(self.controller.transfer_bytes_max.into());
        let capsule = Bytes(self.controller.in_capsule_bytes.into());
        let yes = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let facts = [
            ("subsystem", subnqn.clone()),
            ("controller", cntlid.to_string()),
            ("model", model.clone()),
            ("serial", serial.clone()),
            ("firmware", firmware.clone()),
            ("NVMe version", version.clone()),
            ("largest transfer", transfer.to_string()),
            ("in-capsule data", capsule.to_string()),
            ("volatile cache", yes(self.controller.volatile_cache)),
            ("deallocate", yes(self.controller.deallocates)),
            ("write zeroes", yes(self.controller.writes_zeroes)),
            ("atomic blocks", self.controller.atomic_blocks.to_string()),
        ];
        let mut text = String::new();
        for (name, value) in facts {
            text += &format!("{name:<18}{value}\n");
        }
        let head = ["NSID", "SIZE", "BLOCK", "UUID", "NGUID"].map(Into::into).to_vec();
        let rows = self.namespaces.iter().map(Namespace::row);
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        text + "\n" + &table::render(&rows)
    }
}

impl Controller {
    fn new(live: &Live, nqn: &str) -> Self {
        let info = &live.controller;
        // VS: MJR 31:16, MNR 15:8.
        let (major, minor) = (info.version >> 16, info.version >> 8 & 0xff);
        Self {
            subnqn: info.subnqn.map_or_else(|| nqn.to_owned(), |nqn| nqn.to_string()),
            cntlid: info.cntlid,
            model: info.model.to_string(),
            serial: info.serial.to_string(),
            firmware: info.firmware.to_string(),
            version: format!("{major}.{minor}"),
            transfer_bytes_max: info.transfer_bytes_max,
            in_capsule_bytes: info.in_capsule_bytes,
            queue_commands_max: live.queue_commands,
            volatile_cache: info.volatile_cache,
            deallocates: info.deallocates,
            writes_zeroes: info.writes_zeroes,
            atomic_blocks: info.atomic_blocks,
        }
    }
}

impl Namespace {
    fn new(info: &NamespaceInfo) -> Self {
        Self {
            nsid: info.nsid,
            bytes: info.geometry.bytes(),
            blocks: info.geometry.blocks,
            block_bytes: info.geometry.block.bytes(),
            uuid: Uuid::from_bytes(info.uuid).to_string(),
            nguid: hex(&info.nguid),
            eui64: hex(&info.eui64),
            write_protected: info.write_protected,
            thin: info.thin,
            shared: info.shared,
        }
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.nsid.to_string(),
            Bytes(self.bytes).to_string(),
            self.block_bytes.to_string(),
            self.uuid.clone(),
            self.nguid.clone(),
        ]
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
