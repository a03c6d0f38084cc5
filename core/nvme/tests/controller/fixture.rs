//! A controller with a subsystem around it, and a host that sends it commands one at a time.

use std::time::Duration;

use braid_block::{BlockSize, Geometry};
use braid_nvme::ana::AnaState;
use braid_nvme::command::{Command, Sgl, admin};
use braid_nvme::connect::{CNTLID_DYNAMIC, Connect, Nqn};
use braid_nvme::property::{Configuration, Property};
use braid_nvme::target::{
    Admin, AnaGroup, Controller, ControllerLimits, ControllerModel, Counters, Directory, Kind,
    Listed, NamespaceView, Portal, SubsystemView, Transfer, reservation::ReservationSupport,
};
use braid_nvme::{DISCOVERY_NQN, Status};
use zerocopy::little_endian::U16;

pub(crate) const CNTLID: u16 = 5;
pub(crate) const HOSTID: [u8; 16] = [9; 16];
pub(crate) const UUID: [u8; 16] = [0xab; 16];
pub(crate) const NGUID: [u8; 16] = [0xcd; 16];
pub(crate) const LIMITS: ControllerLimits =
    ControllerLimits { queue_entries: 128, io_queues: 16, in_capsule_bytes: 8192 };

/// A controller and what there is to know of its subsystem.
pub(crate) struct Target {
    pub(crate) controller: Controller,
    pub(crate) nqn: Nqn,
    pub(crate) namespaces: Vec<NamespaceView>,
    pub(crate) groups: Vec<AnaGroup>,
    pub(crate) epoch: u64,
    pub(crate) portals: Vec<Portal>,
    pub(crate) port: u16,
    pub(crate) counters: Counters,
    pub(crate) uptime: Duration,
    pub(crate) directory: Names,
}

/// A directory that shows each of its subsystems to one host, or to all.
pub(crate) struct Names {
    pub(crate) generation: u64,
    pub(crate) same_everywhere: bool,
    pub(crate) names: Vec<(Nqn, Option<Nqn>)>,
    /// Paths at other engines, and a referral where no name is given.
    pub(crate) elsewhere: Vec<(Option<Nqn>, Portal)>,
}

impl Directory for Names {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn is_same_everywhere(&self) -> bool {
        self.same_everywhere
    }

    fn entries(&self, host: &Nqn, each: &mut dyn FnMut(Listed<'_>)) {
        for (nqn, only) in &self.names {
            if only.is_none_or(|only| only == *host) {
                each(Listed::Here(nqn));
            }
        }
        for (nqn, portal) in &self.elsewhere {
            each(nqn.as_ref().map_or(Listed::Referral(*portal), |n| Listed::There(n, *portal)));
        }
    }
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: Status,
    pub(crate) result: u64,
    pub(crate) data: Vec<u8>,
    /// What the connection was told to do; none if the command was refused for its transfer.
    pub(crate) admin: Option<Admin>,
}

pub(crate) fn nqn(name: &str) -> Nqn {
    Nqn::parse(&format!("nqn.2026-01.io.braid:{name}")).unwrap()
}

pub(crate) fn namespace(nsid: u32, block: BlockSize, blocks: u64) -> NamespaceView {
    NamespaceView {
        nsid,
        group: 1,
        geometry: Geometry { block, blocks },
        nguid: NGUID,
        uuid: UUID,
        atomic_blocks: 1,
        thin: false,
        read_only: false,
        reservations: ReservationSupport::Persistent,
    }
}

pub(crate) fn connect(qid: u16) -> Connect {
    Connect {
        cid: 1,
        qid,
        entries: if qid == 0 { 32 } else { 128 },
        flow_control: false,
        kato: Duration::from_secs(5),
        cntlid: if qid == 0 { CNTLID_DYNAMIC } else { CNTLID },
        hostid: HOSTID,
        subnqn: nqn("subsystem"),
        hostnqn: nqn("host"),
    }
}

/// An admin command with its CDW10 and room for `len` bytes to the host.
pub(crate) fn command(opcode: u8, nsid: u32, cdw10: u32, len: u32) -> Command {
    let mut command = Command::new(opcode, nsid);
    command.sgl = Sgl::transport(len);
    command.set_cdw(10, cdw10);
    command
}

pub(crate) fn identify(cns: u32, nsid: u32) -> Command {
    command(admin::IDENTIFY, nsid, cns, 4096)
}

/// Get Log Page from an offset on, RAE cleared.
pub(crate) fn log(lid: u8, nsid: u32, offset: u64, len: u32) -> Command {
    let dwords = (len / 4).saturating_sub(1);
    let mut command =
        command(admin::GET_LOG_PAGE, nsid, u32::from(lid) | (dwords & 0xffff) << 16, len);
    command.set_cdw(11, dwords >> 16);
    command.set_cdw(12, offset as u32);
    command.set_cdw(13, (offset >> 32) as u32);
    command
}

pub(crate) fn get_feature(fid: u32, len: u32) -> Command {
    command(admin::GET_FEATURES, 0, fid, len)
}

pub(crate) fn set_feature(fid: u32, value: u32) -> Command {
    let mut command = command(admin::SET_FEATURES, 0, fid, 0);
    command.set_cdw(11, value);
    command
}

impl Target {
    /// A controller just connected, with one namespace of 64 MiB.
    pub(crate) fn connected(kind: Kind) -> Self {
        let nqn = match kind {
            Kind::Io => nqn("subsystem"),
            Kind::Discovery => Nqn::parse(DISCOVERY_NQN).unwrap(),
        };
        let namespaces = match kind {
            Kind::Io => vec![namespace(1, BlockSize::B4096, 16384)],
            Kind::Discovery => Vec::new(),
        };
        Self {
            controller: Controller::new(kind, CNTLID, &connect(0), LIMITS),
            nqn,
            namespaces,
            groups: vec![group(1, AnaState::Optimized)],
            epoch: 0,
            portals: vec![portal(1, "127.0.0.1:4420")],
            port: 1,
            counters: Counters::default(),
            uptime: Duration::ZERO,
            directory: Names {
                generation: 1,
                same_everywhere: true,
                names: Vec::new(),
                elsewhere: Vec::new(),
            },
        }
    }

    /// The same, enabled.
    pub(crate) fn ready(kind: Kind) -> Self {
        let mut target = Self::connected(kind);
        target.configure(Configuration::ENABLE);
        target
    }

    pub(crate) fn configure(&mut self, cc: Configuration) -> Reply {
        self.send(&Property::Configuration.set(u64::from(cc.to_wire())))
    }

    pub(crate) fn property(&mut self, property: Property) -> u64 {
        let reply = self.send(&property.get());
        assert!(reply.status.is_success(), "{property:?}");
        reply.result
    }

    /// Sends a command without data of its own.
    pub(crate) fn send(&mut self, command: &Command) -> Reply {
        self.send_with(command, &[])
    }

    /// Sends a command with data, and answers it as a connection would.
    pub(crate) fn send_with(&mut self, command: &Command, data: &[u8]) -> Reply {
        let transfer = match self.controller.transfer(command) {
            Ok(transfer) => transfer,
            Err(status) => return Reply { status, result: 0, data: Vec::new(), admin: None },
        };
        // A buffer that was used before, larger than need be.
        let mut out = vec![0xee; transfer.len() as usize + 16];
        let data = match transfer {
            Transfer::InCapsule(len) | Transfer::FromHost(len) => &data[..len as usize],
            Transfer::None | Transfer::ToHost(_) => &[],
        };
        let view = SubsystemView {
            nqn: &self.nqn,
            serial: "BRAID0001",
            model: "Braid",
            firmware: "0.1.0",
            controllers: ControllerModel::Dynamic,
            namespaces: &self.namespaces,
            groups: &self.groups,
            epoch: self.epoch,
            portals: &self.portals,
            port: self.port,
            uptime: self.uptime,
            counters: self.counters,
            directory: &self.directory,
        };
        let admin = self.controller.admin(&view, command, data, &mut out);
        assert_eq!(out[transfer.len() as usize..], [0xee; 16], "wrote past the transfer");
        let (status, result, len) = match admin {
            Admin::Done { status, result } => (status, result, 0),
            Admin::Data { len } => (Status::SUCCESS, 0, len as usize),
            _ => (Status::SUCCESS, 0, 0),
        };
        out.truncate(len);
        Reply { status, result, data: out, admin: Some(admin) }
    }

    /// Sends an Asynchronous Event Request.
    pub(crate) fn request_event(&mut self, cid: u16) -> Reply {
        let mut command = Command::new(admin::ASYNC_EVENT_REQUEST, 0);
        command.cid = U16::new(cid);
        self.send(&command)
    }
}

pub(crate) fn group(id: u32, state: AnaState) -> AnaGroup {
    AnaGroup { id, state, changes: 1 }
}

pub(crate) fn portal(id: u16, address: &str) -> Portal {
    Portal { id, address: address.parse().unwrap() }
}

/// Fields of a data structure by their offsets, as the standard's figures give them: the tests
/// do not trust the structs.
pub(crate) fn u16_at(data: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(data[at..at + 2].try_into().unwrap())
}

pub(crate) fn u32_at(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(data[at..at + 4].try_into().unwrap())
}

pub(crate) fn u64_at(data: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(data[at..at + 8].try_into().unwrap())
}
