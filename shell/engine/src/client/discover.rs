//! `braid-engine discover`: what subsystems a target has, and where.

use braid_nvme::DISCOVERY_NQN;
use braid_nvme::connect::{CNTLID_DYNAMIC, Nqn};
use braid_nvme::host::{Entry, Subtype, TransportFamily};
use serde::Serialize;

use crate::client::Output;
use crate::client::inquiry;
use crate::client::uri::{HostName, Portal};
use crate::error::{Error, Result};
use crate::quantity::{Name, Period};
use crate::table;

/// What `discover --help` teaches below the list of options.
pub const HELP: &str = "\
Examples:
  braid-engine discover 127.0.0.1:4420
  braid-engine discover [::1] -o json
  braid-engine discover node1 --host-nqn nqn.2014-08.org.nvmexpress:uuid:1b4e28ba-...";

/// The options of `discover`.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Where the target is; the port is 4420 if it is left out
    #[arg(value_name = "ADDR:PORT")]
    pub portal: Portal,

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

/// An entry as programs read it; the names are those of nvme-cli.
#[derive(Debug, Serialize)]
struct Record {
    trtype: String,
    adrfam: String,
    subtype: String,
    treq: u8,
    portid: u16,
    cntlid: u16,
    asqsz: u16,
    trsvcid: String,
    subnqn: String,
    traddr: String,
    eflags: u16,
    sectype: u8,
}

/// Prints the discovery log of a target.
///
/// # Errors
/// Why it does not answer.
pub fn discover(options: &Options) -> Result<()> {
    let nqn = Nqn::parse(DISCOVERY_NQN).expect("the well-known name is well-formed");
    let name = HostName::new(options.host_nqn.map(|name| name.0));
    let address = options.portal.resolve()?;
    let answer = inquiry::ask(address, nqn, CNTLID_DYNAMIC, name, options.timeout.0)?;
    let log = answer
        .log
        .ok_or_else(|| Error::run(format!("{address}: its discovery log could not be read")))?;
    let records: Vec<_> = log.iter().map(Record::new).collect();
    let text = match options.output {
        Output::Table => table(&records),
        Output::Json => json(&records)?,
    };
    crate::command::print(&text);
    Ok(())
}

fn json(records: &[Record]) -> Result<String> {
    let log = serde_json::json!({ "records": records });
    serde_json::to_string_pretty(&log)
        .map(|text| text + "\n")
        .map_err(|error| Error::run(error.to_string()))
}

fn table(records: &[Record]) -> String {
    if records.is_empty() {
        return "nothing is served to this host\n".into();
    }
    let mut rows =
        vec![["SUBTYPE", "ADDRESS", "PORT", "PORTID", "SUBSYSTEM"].map(Into::into).to_vec()];
    rows.extend(records.iter().map(|record| {
        vec![
            record.subtype.clone(),
            record.traddr.clone(),
            record.trsvcid.clone(),
            record.portid.to_string(),
            record.subnqn.clone(),
        ]
    }));
    table::render(&rows)
}

impl Record {
    fn new(entry: &Entry) -> Self {
        Self {
            trtype: if entry.transport == 3 { "tcp".into() } else { entry.transport.to_string() },
            adrfam: match entry.family {
                TransportFamily::Ipv4 => "ipv4".into(),
                TransportFamily::Ipv6 => "ipv6".into(),
                TransportFamily::Other(other) => other.to_string(),
            },
            subtype: match entry.subtype {
                Subtype::Referral => "referral".into(),
                Subtype::Nvm => "nvme subsystem".into(),
                Subtype::CurrentDiscovery => "current discovery subsystem".into(),
                Subtype::Other(other) => other.to_string(),
            },
            treq: entry.requirements,
            portid: entry.port,
            cntlid: entry.cntlid,
            asqsz: entry.admin_queue_max,
            trsvcid: entry.service.to_string(),
            subnqn: entry.subnqn.map(|nqn| nqn.to_string()).unwrap_or_default(),
            traddr: entry.address.to_string(),
            eflags: entry.flags,
            sectype: entry.security,
        }
    }
}
