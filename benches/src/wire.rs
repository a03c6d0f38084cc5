//! Just enough of an NVMe/TCP host to open queues: written for the benchmarks alone, so that what
//! loads the target is not the host side it was developed with.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use braid_nvme::command::{Command, Completion, Sgl, admin};
use braid_nvme::connect::{CNTLID_DYNAMIC, Connect, Nqn};
use braid_nvme::host::get_log_page;
use braid_nvme::pdu::{
    CommandCapsule, CommonHeader, Digests, FLAG_SUCCESS, InitializeConnection, PduType,
    ResponseCapsule,
};
use braid_nvme::property::{Configuration, Property};
use zerocopy::{FromBytes, IntoBytes};

/// The subsystem that benchmarks serve.
pub(crate) const NQN: &str = "nqn.2026-11.io.braid:bench";
/// Entries of an I/O queue.
pub(crate) const ENTRIES: u32 = 256;
/// Bytes of a command capsule without data.
pub(crate) const CAPSULE: usize = 72;
/// Bytes of every header that a target sends in answer to I/O.
pub(crate) const ANSWER: usize = 24;

const NONE: Digests = Digests { header: false, data: false };
const ADMIN_ENTRIES: u32 = 32;
/// Asymmetric Namespace Access.
const LOG_ANA: u8 = 0x0c;
/// Bytes of it that are read: enough for one group.
const LOG_BYTES: u32 = 64;

/// A controller: its admin queue, and who we are to it.
pub(crate) struct Controller {
    address: SocketAddr,
    subsystem: Nqn,
    host: Nqn,
    hostid: [u8; 16],
    cntlid: u16,
    admin: TcpStream,
}

impl Controller {
    /// Connects as the host of this number, with a keep alive time-out or (zero) without one.
    pub(crate) fn connect(
        address: SocketAddr,
        nqn: &str,
        host: u8,
        kato: Duration,
    ) -> io::Result<Self> {
        let subsystem = Nqn::parse(nqn).ok_or_else(|| bad(format!("'{nqn}' is no NQN")))?;
        let name = format!("nqn.2014-08.org.nvmexpress:uuid:{host:032x}");
        let host_nqn = Nqn::parse(&name).ok_or_else(|| bad("no NQN".to_owned()))?;
        let mut new = Self {
            address,
            subsystem,
            host: host_nqn,
            hostid: [host; 16],
            cntlid: CNTLID_DYNAMIC,
            admin: open(address)?,
        };
        let (command, data) = new.connect_command(0, ADMIN_ENTRIES, kato).to_wire();
        let answer = exchange(&mut new.admin, command, data.as_bytes())?;
        let [low, high, ..] = answer.result.get().to_le_bytes();
        new.cntlid = u16::from_le_bytes([low, high]);
        let enable = Property::Configuration.set(Configuration::ENABLE.to_wire().into());
        exchange(&mut new.admin, enable, &[])?;
        Ok(new)
    }

    /// Opens an I/O queue, with no flow control: answers to reads carry no completion.
    pub(crate) fn queue(&self, qid: u16) -> io::Result<TcpStream> {
        let mut stream = open(self.address)?;
        let (command, data) = self.connect_command(qid, ENTRIES, Duration::ZERO).to_wire();
        exchange(&mut stream, command, data.as_bytes())?;
        Ok(stream)
    }

    /// Says that we are still there.
    pub(crate) fn keep_alive(&mut self) -> io::Result<()> {
        exchange(&mut self.admin, Command::new(admin::KEEP_ALIVE, 0), &[]).map(drop)
    }

    /// Reads the ANA log, by which a host shows that it takes this path.
    pub(crate) fn read_ana(&mut self) -> io::Result<()> {
        let command = get_log_page(LOG_ANA, 0, 0, LOG_BYTES, false);
        self.admin.write_all(&capsule_for_read(command))?;
        loop {
            let mut header = [0; 8];
            self.admin.read_exact(&mut header)?;
            let plen = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
            let rest = usize::try_from(plen).unwrap_or(0).saturating_sub(header.len());
            let mut body = vec![0; rest.min(1 << 16)];
            self.admin.read_exact(&mut body)?;
            let last = header[1] & FLAG_SUCCESS != 0;
            match header[0] {
                kind if kind == PduType::C2hData as u8 && last => return Ok(()),
                kind if kind == PduType::C2hData as u8 => {}
                kind if kind == PduType::Response as u8 && body.ends_with(&[0, 0]) => return Ok(()),
                kind => return Err(bad(format!("PDU type {kind} in answer to Get Log Page"))),
            }
        }
    }

    fn connect_command(&self, qid: u16, entries: u32, kato: Duration) -> Connect {
        Connect {
            cid: 1,
            qid,
            entries,
            flow_control: false,
            kato,
            cntlid: self.cntlid,
            hostid: self.hostid,
            subnqn: self.subsystem,
            hostnqn: self.host,
        }
    }
}

/// A read or write of one 4 KiB block.
#[must_use]
pub(crate) fn block_command(opcode: u8, nsid: u32, cid: u16, in_capsule: bool) -> CommandCapsule {
    let mut command = Command::new(opcode, nsid);
    command.cid.set(cid);
    command.sgl = if in_capsule { Sgl::in_capsule(4096) } else { Sgl::transport(4096) };
    let ch = if in_capsule {
        CommonHeader::with_data(PduType::Command, NONE, 4096, 0)
    } else {
        CommonHeader::without_data(PduType::Command, NONE)
    };
    CommandCapsule { ch, command }
}

/// A command without data.
#[must_use]
pub(crate) fn plain_command(opcode: u8, nsid: u32, cid: u16) -> CommandCapsule {
    let mut command = Command::new(opcode, nsid);
    command.cid.set(cid);
    CommandCapsule { ch: CommonHeader::without_data(PduType::Command, NONE), command }
}

/// The bytes of a command capsule with data in it.
#[must_use]
pub(crate) fn capsule(mut command: Command, data: &[u8]) -> Vec<u8> {
    let len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let ch = if data.is_empty() {
        CommonHeader::without_data(PduType::Command, NONE)
    } else {
        command.sgl = Sgl::in_capsule(len);
        CommonHeader::with_data(PduType::Command, NONE, len, 0)
    };
    [CommandCapsule { ch, command }.as_bytes(), data].concat()
}

/// The bytes of a command capsule that asks for data.
fn capsule_for_read(mut command: Command) -> Vec<u8> {
    command.sgl = Sgl::transport(LOG_BYTES);
    let ch = CommonHeader::without_data(PduType::Command, NONE);
    CommandCapsule { ch, command }.as_bytes().to_vec()
}

/// The bytes of an ICReq that asks for no digests.
#[must_use]
pub(crate) fn initialize() -> InitializeConnection {
    InitializeConnection::new(PduType::IcReq, NONE, 0)
}

/// An error of a peer that does not do what the specification says.
#[must_use]
pub(crate) fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// A stream whose ICReq was answered.
fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(initialize().as_bytes())?;
    let mut answer = [0; size_of::<InitializeConnection>()];
    stream.read_exact(&mut answer)?;
    match answer[0] {
        kind if kind == PduType::IcResp as u8 => Ok(stream),
        kind => Err(bad(format!("PDU type {kind} in answer to ICReq"))),
    }
}

/// Sends a command and waits for its completion.
fn exchange(stream: &mut TcpStream, command: Command, data: &[u8]) -> io::Result<Completion> {
    stream.write_all(&capsule(command, data))?;
    let mut answer = [0; size_of::<ResponseCapsule>()];
    stream.read_exact(&mut answer)?;
    let parsed = ResponseCapsule::read_from_bytes(&answer)
        .map_err(|_| bad("a response of a wrong length".to_owned()))?;
    let status = parsed.completion.status();
    if answer[0] == PduType::Response as u8 && status.is_success() {
        return Ok(parsed.completion);
    }
    Err(bad(format!("PDU type {}, status {status:?} in answer to a command", answer[0])))
}
