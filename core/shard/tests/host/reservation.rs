//! Reservations as our host asks for them, of our target.

use braid_block::{Key, Memory};
use braid_nvme::Status;
use braid_nvme::host::{
    Acquire, Keys, Operation, Register, Release, ReservationCommand, ReservationReport,
    ReservationType,
};

use super::{HOST, HostConfig, Net, host, net};
use crate::NQN;

const REPORT: ReservationCommand = ReservationCommand::Report { bytes: 4096 };

fn other() -> HostConfig {
    let mut config = host(NQN);
    config.controller.hostid = [8; 16];
    config
}

impl Net {
    fn reserve(&mut self, host: Key, command: ReservationCommand, keys: Keys) -> Status {
        let len = command.data_len();
        let lease = self.filled(&keys.to_bytes());
        let done = self.one(host, Operation::Reservation(command), Some(lease), len);
        let status = done.status;
        self.free(done);
        status
    }

    fn report(&mut self, host: Key) -> ReservationReport {
        let page = self.buffer(4096);
        let done = self.one(host, Operation::Reservation(REPORT), Some(page), 4096);
        assert_eq!(done.status, Status::SUCCESS);
        let report = {
            let bytes = self.nodes[HOST].mem.bytes(done.lease.as_ref().unwrap());
            ReservationReport::parse(&bytes[..4096]).expect("a report")
        };
        self.free(done);
        report
    }

    fn write(&mut self, host: Key) -> Status {
        let lease = self.filled(&[1; 4096]);
        let write = Operation::Write { lba: 0, blocks: 1, durable: false };
        let done = self.one(host, write, Some(lease), 4096);
        let status = done.status;
        self.free(done);
        status
    }
}

const fn register(action: Register) -> ReservationCommand {
    ReservationCommand::Register { action, ignore_key: false, persists: None }
}

#[test]
fn our_host_registers_acquires_reports_preempts_and_releases() {
    let mut net = net(11);
    let (first, second) = (net.open(host(NQN)), net.open(other()));
    let (a, b) = (net.live(), net.live());
    let keys = |current, other| Keys { current, other };
    assert_eq!(net.reserve(first, register(Register::Register), keys(0, 5)), Status::SUCCESS);
    let kind = ReservationType::WriteExclusive;
    let acquire = |action| ReservationCommand::Acquire { action, kind };
    assert_eq!(net.reserve(first, acquire(Acquire::Acquire), keys(5, 0)), Status::SUCCESS);
    assert!(net.write(second).is(Status::RESERVATION_CONFLICT) && net.write(first).is_success());

    let report = net.report(second);
    assert_eq!((report.kind, report.entries, report.persists), (Some(kind), 1, false));
    let [holder] = report.registrants[..] else { panic!("{report:?}") };
    assert_eq!((holder.cntlid, holder.holds), (Some(a.controller.cntlid), true));
    assert_eq!((holder.key, holder.host), (5, [7; 16]));

    assert_eq!(net.reserve(second, register(Register::Register), keys(0, 6)), Status::SUCCESS);
    assert_eq!(net.reserve(second, acquire(Acquire::Preempt), keys(6, 5)), Status::SUCCESS);
    assert!(net.write(first).is(Status::RESERVATION_CONFLICT) && net.write(second).is_success());
    let report = net.report(first);
    let [holder] = report.registrants[..] else { panic!("{report:?}") };
    assert_eq!((holder.cntlid, holder.key), (Some(b.controller.cntlid), 6));
    let release = ReservationCommand::Release(Release::Release(kind));
    assert_eq!(net.reserve(second, release, keys(6, 0)), Status::SUCCESS);
    assert_eq!(net.report(first).kind, None);
    assert!(net.write(first).is_success());
    let gone = register(Register::Unregister);
    assert_eq!(net.reserve(second, gone, keys(6, 0)), Status::SUCCESS);
    assert!(net.report(first).registrants.is_empty());
}
