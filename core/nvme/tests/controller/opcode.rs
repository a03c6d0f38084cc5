//! Opcodes, flags and SGLs of admin commands (Base 3.3.3.1, 5, 6).

use braid_nvme::Status;
use braid_nvme::command::{Command, PSDT_SGL, Sgl, admin, fabrics};
use braid_nvme::target::{Admin, Kind};
use zerocopy::little_endian::U16;

use crate::fixture::{Target, command, identify, log};

#[test]
fn an_opcode_that_is_not_offered_is_invalid() {
    let mut target = Target::ready(Kind::Io);
    // Queues, self test, firmware, namespaces, directives, doorbells, format, security, vendor.
    let unknown = [
        0x00, 0x01, 0x04, 0x05, 0x0d, 0x10, 0x11, 0x14, 0x15, 0x19, 0x1a, 0x1c, 0x1d, 0x1e, 0x7c,
        0x80, 0x81, 0x82, 0x84, 0xc5, 0xff,
    ];
    for opcode in unknown {
        let reply = target.send(&Command::new(opcode, 0));
        assert_eq!(reply.status, Status::INVALID_OPCODE.dnr(), "{opcode:02x}h");
    }
}

#[test]
fn a_discovery_controller_takes_its_subset_alone() {
    let mut target = Target::ready(Kind::Discovery);
    let rows = [
        (identify(1, 0), Status::SUCCESS),
        (identify(0, 1), Status::INVALID_FIELD.dnr()),
        (identify(2, 0), Status::INVALID_FIELD.dnr()),
        (log(0x70, 0, 0, 1024), Status::SUCCESS),
        (log(0x01, 0, 0, 64), Status::SUCCESS),
        (log(0x02, 0, 0, 512), Status::INVALID_LOG_PAGE.dnr()),
        (Command::new(admin::KEEP_ALIVE, 0), Status::SUCCESS),
        (command(admin::GET_FEATURES, 0, 0x0b, 0), Status::SUCCESS),
        (command(admin::GET_FEATURES, 0, 0x0f, 0), Status::SUCCESS),
        (command(admin::SET_FEATURES, 0, 0x07, 0), Status::INVALID_FIELD.dnr()),
        (command(admin::GET_FEATURES, 0, 0x06, 0), Status::INVALID_FIELD.dnr()),
        (Command::new(admin::ABORT, 0), Status::INVALID_OPCODE.dnr()),
    ];
    for (command, status) in rows {
        assert_eq!(target.send(&command).status, status, "{command:?}");
    }
}

#[test]
fn before_it_is_enabled_a_controller_takes_property_commands_alone() {
    for kind in [Kind::Io, Kind::Discovery] {
        let mut target = Target::connected(kind);
        for command in [identify(1, 0), Command::new(admin::KEEP_ALIVE, 0), Command::new(0xc5, 0)] {
            assert_eq!(target.send(&command).status, Status::SEQUENCE_ERROR.dnr());
        }
        assert_eq!(target.request_event(1).status, Status::SEQUENCE_ERROR.dnr());
    }
}

#[test]
fn fabrics_commands_that_are_not_offered_are_refused() {
    let rows = [
        (fabrics::CONNECT, Status::SEQUENCE_ERROR.dnr()),
        (fabrics::DISCONNECT, Status::INVALID_OPCODE.dnr()),
        // Authentication Send and Receive, a vendor's.
        (0x05, Status::INVALID_OPCODE.dnr()),
        (0x06, Status::INVALID_OPCODE.dnr()),
        (0xc1, Status::INVALID_OPCODE.dnr()),
    ];
    for (fctype, status) in rows {
        let mut target = Target::ready(Kind::Io);
        let reply = target.send(&Command::new(admin::FABRICS, u32::from(fctype)));
        assert_eq!(reply.status, status, "{fctype:02x}h");
    }
}

#[test]
fn fused_commands_and_prps_are_invalid_fields() {
    let mut target = Target::ready(Kind::Io);
    for flags in [PSDT_SGL | 1, PSDT_SGL | 2, 0x00, 0x80, 0xc0] {
        let command = Command { flags, ..identify(1, 0) };
        assert_eq!(target.send(&command).status, Status::INVALID_FIELD.dnr(), "{flags:02x}h");
    }
}

#[test]
fn the_sgl_must_hold_what_the_command_returns() {
    let mut target = Target::ready(Kind::Io);
    let rows = [
        (Sgl::transport(4095), Status::SGL_LENGTH_INVALID.dnr()),
        (Sgl::transport(8192), Status::SUCCESS),
        (Sgl::in_capsule(4096), Status::SGL_TYPE_INVALID.dnr()),
        (Sgl { identifier: 0x40, ..Sgl::transport(4096) }, Status::SGL_TYPE_INVALID.dnr()),
    ];
    for (sgl, status) in rows {
        assert_eq!(target.send(&Command { sgl, ..identify(1, 0) }).status, status, "{sgl:?}");
    }
}

#[test]
fn a_transfer_above_mdts_is_an_invalid_field() {
    let mut target = Target::ready(Kind::Io);
    assert!(target.send(&log(0x02, 0, 0, 128 << 10)).status.is_success());
    assert_eq!(target.send(&log(0x02, 0, 0, 132 << 10)).status, Status::INVALID_FIELD.dnr());
    let mut whole = log(0x02, 0, 0, 4);
    whole.set_cdw(10, 0xffff_0002);
    whole.set_cdw(11, 0xffff);
    assert_eq!(target.send(&whole).status, Status::INVALID_FIELD.dnr(), "NUMD FFFFFFFFh");
}

#[test]
fn abort_names_the_queue_and_the_command_to_look_for() {
    let mut target = Target::ready(Kind::Io);
    let reply = target.send(&command(admin::ABORT, 0, 0x1234_0003, 0));
    assert_eq!(reply.admin, Some(Admin::Abort { sqid: 3, cid: 0x1234, held: false }));
}

#[test]
fn abort_lets_go_of_an_event_request() {
    let mut target = Target::ready(Kind::Io);
    target.request_event(0x1234);
    let abort = command(admin::ABORT, 0, 0x1234_0000, 0);
    let expected = |held| Some(Admin::Abort { sqid: 0, cid: 0x1234, held });
    assert_eq!(target.send(&abort).admin, expected(true));
    assert_eq!(target.send(&abort).admin, expected(false));
}

#[test]
fn no_command_however_wrong_makes_a_controller_panic() {
    // A fixed sequence of numbers that look random, so that a failure can be repeated.
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for kind in [Kind::Io, Kind::Discovery] {
        let mut target = Target::ready(kind);
        for _ in 0..20_000 {
            let opcodes = [0x02, 0x06, 0x08, 0x09, 0x0a, 0x0c, 0x18, 0x7f, next() as u8];
            let mut command = Command::new(opcodes[next() as usize % 9], next() as u32 % 3);
            command.cid = U16::new(next() as u16);
            command.sgl = Sgl::transport(next() as u32 % (200 << 10));
            for n in 10..16 {
                command.set_cdw(n, (next() >> (next() % 64)) as u32);
            }
            target.send_with(&command, &[0xaa; 512]);
            if target.controller.state() != braid_nvme::target::State::Ready {
                target = Target::ready(kind);
            }
        }
    }
}
