//! What a host may ask for: any submission queue entries with any data, to a controller.

use std::time::Duration;

use braid_block::{BlockSize, Geometry};
use braid_nvme::Status;
use braid_nvme::ana::AnaState;
use braid_nvme::command::Command;
use braid_nvme::connect::{Connect, ConnectData, Nqn};
use braid_nvme::target::reservation::{
    Access, Keys, ReservationCommand, ReservationSupport, Reservations,
};
use braid_nvme::target::{
    Admin, AnaGroup, Controller, ControllerLimits, ControllerModel, Counters, Directory,
    EVENT_REQUESTS_MAX, IoCommand, Kind, Listed, NamespaceView, Notice, Portal, Ranges, State,
    SubsystemView, TRANSFER_BYTES_MAX, Transfer,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::input::Input;

const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:fuzz";
const SUBSYSTEM: &str = "nqn.2026-01.io.braid:fuzz";

/// The first byte chooses what kind of controller it is; then each step is a byte that says what
/// happens, and the bytes that it happens with.
pub fn command(bytes: &[u8]) {
    walk(bytes);
}

/// Returns how many commands were served.
fn walk(bytes: &[u8]) -> usize {
    let mut input = Input::new(bytes);
    let mut host = Host::new(input.byte());
    while !input.is_empty() {
        match input.byte() % 8 {
            0..=2 => host.admin(&mut input),
            3 => host.io(&mut input),
            4 => connect(&mut input),
            5 => host.admit(&mut input),
            6 => host.leave(&mut input),
            _ => host.notice(&mut input),
        }
    }
    host.served
}

struct Host {
    controller: Controller,
    /// Event requests that the controller holds.
    held: usize,
    /// Commands that did not fail.
    served: usize,
    /// Of the namespaces, for all of them together.
    reservations: Reservations,
}

impl Host {
    fn new(options: u8) -> Self {
        let kind = if options & 1 == 0 { Kind::Io } else { Kind::Discovery };
        let limits = ControllerLimits {
            queue_entries: 128,
            io_queues: 1 + u16::from(options >> 4),
            in_capsule_bytes: if options & 2 == 0 { 8 << 10 } else { 0 },
        };
        Self {
            controller: Controller::new(kind, 1, &a_connect(0, 32), limits),
            held: 0,
            served: 0,
            reservations: Reservations::new(options & 4 == 0),
        }
    }

    fn admin(&mut self, input: &mut Input<'_>) {
        let command: Command = take(input);
        let transfer = self.controller.transfer(&command);
        if let Ok(transfer) = transfer {
            check_transfer(&command, transfer);
        }
        let data = match transfer {
            Ok(Transfer::InCapsule(len) | Transfer::FromHost(len)) => padded(input, len),
            _ => Vec::new(),
        };
        let out_len = match transfer {
            Ok(Transfer::ToHost(len)) => len as usize,
            _ => 0,
        };
        // A buffer holds old payload when it is leased: none of it may be sent to a host.
        let mut twin = self.controller.clone();
        let (mut out, mut other) = (vec![0x00; out_len], vec![0xff; out_len]);
        let done = run(&mut self.controller, &command, &data, &mut out);
        assert_eq!(done, run(&mut twin, &command, &data, &mut other));
        assert!(!matches!(done, Admin::Data { .. }) || out == other, "sends what it did not write");
        self.on_admin(transfer, done);
    }

    fn on_admin(&mut self, transfer: Result<Transfer, Status>, done: Admin) {
        if let Err(refusal) = transfer {
            assert_eq!(done, Admin::Done { status: refusal, result: 0 }, "refused, then done");
            assert_ne!(refusal, Status::SUCCESS);
        }
        match done {
            Admin::Done { status, .. } => {
                assert_ne!(status, Status::INTERNAL_ERROR);
                self.served += usize::from(status == Status::SUCCESS);
            }
            Admin::Data { len } => {
                assert_eq!(transfer, Ok(Transfer::ToHost(len)));
                self.served += 1;
            }
            Admin::Allocations { nsid, extent, len } => {
                assert_eq!(transfer, Ok(Transfer::ToHost(len)));
                let namespaces = namespaces();
                let namespace = namespaces.iter().find(|n| n.nsid == nsid).expect("a namespace");
                let end = extent.offset.checked_add(extent.len).expect("no overflow");
                assert!(extent.len > 0 && end <= namespace.geometry.bytes());
                self.served += 1;
            }
            Admin::Feature { nsid, .. } => {
                assert_eq!(transfer, Ok(Transfer::None));
                self.served += usize::from(nsid != 0);
            }
            Admin::Held => {
                self.held += 1;
                self.served += 1;
            }
            Admin::Abort { held, .. } => self.held -= usize::from(held),
            Admin::Flush => self.served += 1,
            Admin::Reset => {
                assert_eq!(self.controller.state(), State::Resetting);
                self.held -= self.controller.take_event_requests().len();
                assert_eq!(self.held, 0, "event requests survive a reset");
            }
            Admin::Shutdown => assert_eq!(self.controller.state(), State::ShuttingDown),
        }
        self.take_events();
    }

    fn take_events(&mut self) {
        while self.controller.next_event().is_some() {
            assert!(self.held > 0, "answers a request that nobody made");
            self.held -= 1;
        }
        assert!(self.held <= EVENT_REQUESTS_MAX);
    }

    fn io(&mut self, input: &mut Input<'_>) {
        let command: Command = take(input);
        let namespaces = namespaces();
        let namespace = namespaces.iter().find(|n| n.nsid == command.nsid.get());
        let Ok((parsed, transfer)) = self.controller.io(&command, namespace.map(|n| n.geometry))
        else {
            return;
        };
        assert_eq!(self.controller.state(), State::Ready);
        self.served += 1;
        check_transfer(&command, transfer);
        let geometry = namespace.expect("a namespace for what was parsed").geometry;
        match parsed {
            IoCommand::Read { extent, .. }
            | IoCommand::Write { extent, .. }
            | IoCommand::Compare { extent, .. } => {
                assert!(extent.offset + extent.len <= geometry.bytes());
                assert_eq!(u64::from(transfer.len()), extent.len);
            }
            IoCommand::WriteZeroes { extent, .. } | IoCommand::Verify { extent, .. } => {
                assert!(extent.offset + extent.len <= geometry.bytes());
                assert_eq!(transfer, Transfer::None);
            }
            IoCommand::Flush => assert_eq!(transfer, Transfer::None),
            IoCommand::DatasetManagement { ranges, .. } => {
                let data = padded(input, transfer.len());
                check_ranges(&data, ranges, geometry);
            }
            IoCommand::Reservation(command) => {
                let data = padded(input, transfer.len());
                self.reserve(command, &data, input.byte() % 20);
            }
        }
    }

    /// A reservation command of one of twenty hosts.
    fn reserve(&mut self, command: ReservationCommand, data: &[u8], host: u8) {
        let (before, host) = (self.reservations.clone(), [host; 16]);
        let state = &mut self.reservations;
        let Ok(outcome) = state.apply(&host, command, Keys::parse(data)) else {
            return assert_eq!(*state, before, "refused, and changed");
        };
        let told = outcome.notices.iter().map(|(host, _)| host);
        assert!(told.chain(&outcome.aborted).all(|other| *other != host), "told of its own");
        let holds = |host| state.is_held_by(host);
        let held = state.registrants().iter().any(|one| holds(&one.host));
        assert_eq!(state.kind().is_some(), held, "a reservation has a holder");
        let writers = state.registrants().iter().filter(|one| holds(&one.host));
        assert!(writers.into_iter().all(|one| state.permits(&one.host, Access::Write)));
        assert!(state.can_persist() || !state.persists());
        if state.persists() {
            assert_eq!(Reservations::restore(&state.parts()).as_ref(), Ok(&*state));
        }
        if let ReservationCommand::Report { bytes } = command {
            let mut out = vec![0xee; bytes as usize];
            state.report(&mut out, [(1, [3; 16]), (2, [4; 16])].into_iter());
        }
    }

    fn admit(&mut self, input: &mut Input<'_>) {
        let (qid, entries) = (u16::from(input.byte()), 1 + u32::from(input.byte()));
        let admitted = self.controller.admit(&a_connect(qid, entries));
        assert!(admitted.is_err() || self.controller.state() == State::Ready);
        assert!(admitted.is_err() || self.controller.has_queues());
    }

    /// What a caller owes a controller: every queue closes, then it is told that nothing is left.
    fn leave(&mut self, input: &mut Input<'_>) {
        let choice = input.byte();
        (1..=127).for_each(|qid| self.controller.leave(qid));
        assert!(!self.controller.has_queues());
        if choice & 1 == 0 {
            self.controller.reset_done();
        } else {
            self.controller.shutdown_done();
        }
    }

    fn notice(&mut self, input: &mut Input<'_>) {
        match input.byte() {
            choice @ 0..=127 => self.controller.namespace_changed(u32::from(choice) * 9),
            128..=191 => self.controller.raise(Notice::DiscoveryLog),
            192.. => self.controller.raise(Notice::NamespaceAttribute),
        }
        self.take_events();
    }
}

/// Connect commands mean the same after they were written out again.
fn connect(input: &mut Input<'_>) {
    let (command, data): (Command, ConnectData) = (take(input), take(input));
    if let Ok(parsed) = Connect::parse(&command, &data) {
        let (command, data) = parsed.to_wire();
        assert_eq!(Connect::parse(&command, &data), Ok(parsed));
    }
}

fn check_transfer(command: &Command, transfer: Transfer) {
    assert!(transfer.len() <= TRANSFER_BYTES_MAX, "more than MDTS");
    assert!(transfer.len() <= command.sgl.length.get(), "more than the host gave room for");
    assert!(transfer == Transfer::None || !transfer.is_empty());
}

fn check_ranges(data: &[u8], count: u16, geometry: Geometry) {
    let Ok(ranges) = Ranges::parse(data, count, geometry) else { return };
    assert!(ranges.iter().count() <= usize::from(count));
    for extent in ranges.iter() {
        assert!(extent.len > 0 && extent.offset + extent.len <= geometry.bytes());
    }
}

fn run(controller: &mut Controller, command: &Command, data: &[u8], out: &mut [u8]) -> Admin {
    let portal = Portal { id: 1, address: "127.0.0.1:4420".parse().expect("an address") };
    let namespaces = namespaces();
    let view = SubsystemView {
        nqn: &name(SUBSYSTEM),
        serial: "0123456789abcdef0123",
        model: "Braid",
        firmware: "0.1.0",
        controllers: ControllerModel::Dynamic,
        namespaces: &namespaces,
        groups: &[AnaGroup { id: 1, state: AnaState::Optimized, changes: 1 }],
        epoch: 0,
        portals: &[portal, portal],
        port: 1,
        uptime: Duration::from_secs(100_000),
        counters: Counters { read_bytes: u64::MAX, ..Counters::default() },
        directory: &Several,
    };
    controller.admin(&view, command, data, out)
}

/// A directory of so many subsystems that its log page takes several commands.
struct Several;

impl Directory for Several {
    fn generation(&self) -> u64 {
        7
    }

    fn is_same_everywhere(&self) -> bool {
        true
    }

    fn entries(&self, host: &Nqn, each: &mut dyn FnMut(Listed<'_>)) {
        assert_eq!(host, &name(HOST));
        let portal = Portal { id: 9, address: "[fe80::9]:8009".parse().expect("an address") };
        for n in 0..100 {
            let nqn = name(&format!("{SUBSYSTEM}:{n}"));
            each(if n % 3 == 0 { Listed::There(&nqn, portal) } else { Listed::Here(&nqn) });
        }
        each(Listed::Referral(portal));
    }
}

fn namespaces() -> [NamespaceView; 3] {
    let namespace = |nsid, bytes, block| NamespaceView {
        nsid,
        group: 1,
        geometry: Geometry::of_bytes(bytes, block),
        nguid: [1; 16],
        uuid: [2; 16],
        atomic_blocks: 1,
        thin: nsid == 3,
        read_only: false,
        reservations: ReservationSupport::Persistent,
    };
    [
        namespace(1, 1 << 20, BlockSize::B4096),
        namespace(3, 1 << 40, BlockSize::B512),
        namespace(1024, 1 << 60, BlockSize::B4096),
    ]
}

fn a_connect(qid: u16, entries: u32) -> Connect {
    Connect {
        cid: 1,
        qid,
        entries,
        flow_control: true,
        kato: Duration::from_secs(5),
        cntlid: 1,
        hostid: [3; 16],
        subnqn: name(SUBSYSTEM),
        hostnqn: name(HOST),
    }
}

fn name(text: &str) -> Nqn {
    Nqn::parse(text).expect("a name")
}

/// A structure of the next bytes, with zeros where they end.
fn take<T: FromBytes + IntoBytes>(input: &mut Input<'_>) -> T {
    let mut value = T::new_zeroed();
    let bytes = input.bytes(size_of::<T>());
    value.as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    value
}

fn padded(input: &mut Input<'_>, len: u32) -> Vec<u8> {
    let mut data = input.bytes(len as usize).to_vec();
    data.resize(len as usize, 0);
    data
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_seeds_are_served() {
        let seeds = crate::seeds::all();
        for seed in seeds.iter().filter(|seed| seed.target == "command") {
            let served = super::walk(&seed.bytes);
            // The bytes behind the last command are steps too, and may be anything.
            assert!(served >= 2 || seed.name.contains("abort"), "{}: {served}", seed.name);
        }
    }
}
