//! What the submission queue entries say (Base 7.2 to 7.5).

use braid_block::{BlockSize, Geometry};
use braid_nvme::Status;
use braid_nvme::command::{Command, Sgl, io};
use braid_nvme::target::reservation::{
    Access, Acquire, Keys, Register, Release, ReservationCommand, ReservationType,
};
use braid_nvme::target::{IoCommand, Transfer};

use crate::script::INVALID;

const GEOMETRY: Geometry = Geometry { block: BlockSize::B4096, blocks: 16 };

fn parse(opcode: u8, cdw10: u32, cdw11: u32, len: u32) -> Result<(IoCommand, Transfer), Status> {
    let mut command = Command::new(opcode, 1);
    command.set_cdw(10, cdw10);
    command.set_cdw(11, cdw11);
    command.sgl = Sgl::transport(len);
    IoCommand::parse(&command, Some(GEOMETRY))
}

#[test]
fn register_says_what_with_which_key_and_whether_it_persists() {
    let rows = [
        (0, Register::Register, false, None),
        (1, Register::Unregister, false, None),
        (2, Register::Replace, false, None),
        (2 | 1 << 3, Register::Replace, true, None),
        (2 << 30, Register::Register, false, Some(false)),
        (3 << 30 | 1 | 1 << 3, Register::Unregister, true, Some(true)),
    ];
    for (cdw10, action, ignore_key, persists) in rows {
        let command = ReservationCommand::Register { action, ignore_key, persists };
        let expected = Ok((IoCommand::Reservation(command), Transfer::FromHost(16)));
        assert_eq!(parse(io::RESERVATION_REGISTER, cdw10, 0, 16), expected, "{cdw10:#x}");
    }
    for cdw10 in [3, 7, 1 << 30] {
        assert_eq!(parse(io::RESERVATION_REGISTER, cdw10, 0, 16), Err(INVALID), "{cdw10:#x}");
    }
}

#[test]
fn acquire_says_what_and_of_which_type() {
    for (number, kind) in (1..).zip(ReservationType::ALL) {
        for (code, action) in
            (0..).zip([Acquire::Acquire, Acquire::Preempt, Acquire::PreemptAndAbort])
        {
            let command = ReservationCommand::Acquire { action, kind };
            let expected = Ok((IoCommand::Reservation(command), Transfer::FromHost(16)));
            let cdw10 = code | number << 8;
            assert_eq!(parse(io::RESERVATION_ACQUIRE, cdw10, 0, 16), expected, "{cdw10:#x}");
        }
    }
    // No such action, no such type, and the key of the host may not be ignored.
    for cdw10 in [3 | 1 << 8, 0, 7 << 8, 1 << 3 | 1 << 8] {
        assert_eq!(parse(io::RESERVATION_ACQUIRE, cdw10, 0, 16), Err(INVALID), "{cdw10:#x}");
    }
}

#[test]
fn release_says_of_which_type_or_clears() {
    let rows = [
        (5 << 8, Release::Release(ReservationType::WriteExclusiveAll)),
        (1, Release::Clear),
        (1 | 9 << 8, Release::Clear),
    ];
    for (cdw10, release) in rows {
        let command = IoCommand::Reservation(ReservationCommand::Release(release));
        let expected = Ok((command, Transfer::FromHost(8)));
        assert_eq!(parse(io::RESERVATION_RELEASE, cdw10, 0, 8), expected, "{cdw10:#x}");
    }
    for cdw10 in [2, 0, 7 << 8, 1 << 3 | 1] {
        assert_eq!(parse(io::RESERVATION_RELEASE, cdw10, 0, 8), Err(INVALID), "{cdw10:#x}");
    }
}

#[test]
fn a_report_must_have_room_for_host_identifiers_of_128_bits() {
    let refused = Err(Status::HOST_ID_INCONSISTENT.dnr());
    assert_eq!(parse(io::RESERVATION_REPORT, 15, 0, 64), refused);
    let command = IoCommand::Reservation(ReservationCommand::Report { bytes: 64 });
    assert_eq!(parse(io::RESERVATION_REPORT, 15, 1, 64), Ok((command, Transfer::ToHost(64))));
    for dwords in [u32::MAX, u32::MAX >> 2, (128 << 10) / 4] {
        assert_eq!(parse(io::RESERVATION_REPORT, dwords, 1, u32::MAX), Err(INVALID), "{dwords}");
    }
}

#[test]
fn a_buffer_that_is_too_short_is_refused() {
    let short = Err(Status::SGL_LENGTH_INVALID.dnr());
    assert_eq!(parse(io::RESERVATION_REGISTER, 0, 0, 8), short);
    assert_eq!(parse(io::RESERVATION_ACQUIRE, 1 << 8, 0, 15), short);
    assert_eq!(parse(io::RESERVATION_RELEASE, 1, 0, 4), short);
    assert_eq!(parse(io::RESERVATION_REPORT, 15, 1, 60), short);
}

#[test]
fn keys_are_little_endian_and_absent_ones_are_zero() {
    let data: Vec<u8> = (1..=16).collect();
    let (current, other) = (0x0807_0605_0403_0201, 0x100f_0e0d_0c0b_0a09);
    assert_eq!(Keys::parse(&data), Keys { current, other });
    assert_eq!(Keys::parse(&data[..8]), Keys { current, other: 0 });
    assert_eq!(Keys::parse(&data[..7]), Keys { current: 0, other: 0 });
}

#[test]
fn every_command_is_in_the_group_that_the_standard_puts_it_in() {
    let rows = [
        (io::READ, Access::Read),
        (io::WRITE, Access::Write),
        (io::FLUSH, Access::Write),
        (io::WRITE_ZEROES, Access::Write),
        (io::DATASET_MANAGEMENT, Access::Write),
        (io::RESERVATION_REGISTER, Access::Free),
        (io::RESERVATION_REPORT, Access::Free),
        (io::RESERVATION_ACQUIRE, Access::Free),
        (io::RESERVATION_RELEASE, Access::Free),
    ];
    for (opcode, access) in rows {
        let mut command = Command::new(opcode, 1);
        command.sgl = Sgl::transport(4096);
        if opcode == io::RESERVATION_REPORT {
            command.set_cdw(11, 1);
        } else if opcode != io::READ && opcode != io::WRITE && opcode != io::WRITE_ZEROES {
            command.set_cdw(10, if opcode == io::RESERVATION_RELEASE { 1 } else { 0 });
        }
        if opcode == io::RESERVATION_ACQUIRE {
            command.set_cdw(10, 1 << 8);
        }
        let (parsed, _) = IoCommand::parse(&command, Some(GEOMETRY)).unwrap();
        assert_eq!(parsed.access(), access, "{opcode:#x}");
    }
}
