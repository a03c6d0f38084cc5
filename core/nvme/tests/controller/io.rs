//! I/O commands of the NVM command set (NVM 3).

use braid_block::{BlockSize, Extent, Geometry};
use braid_nvme::Status;
use braid_nvme::command::{Command, Fuse, PSDT_SGL, Sgl, admin, io};
use braid_nvme::property::Configuration;
use braid_nvme::target::{IoCommand, Kind, Ranges, Transfer};

use crate::fixture::{Target, set_feature};

const FUA: u32 = 1 << 30;
const DEAC: u32 = 1 << 25;

fn geometry() -> Geometry {
    Geometry { block: BlockSize::B4096, blocks: 1 << 20 }
}

/// A command for `count` blocks from `first` on, with an SGL of the right length.
fn command(opcode: u8, first: u64, count: u32) -> Command {
    let mut command = Command::new(opcode, 1);
    command.set_cdw(10, first as u32);
    command.set_cdw(11, (first >> 32) as u32);
    command.set_cdw(12, count - 1);
    if matches!(opcode, io::READ | io::WRITE | io::COMPARE) {
        command.sgl = Sgl::transport(count << 12);
    }
    command
}

fn with_cdw12(mut command: Command, bits: u32) -> Command {
    command.set_cdw(12, command.cdw(12) | bits);
    command
}

fn dataset(nr: u32, attributes: u32, sgl: Sgl) -> Command {
    let mut command = Command { sgl, ..Command::new(io::DATASET_MANAGEMENT, 1) };
    command.set_cdw(10, nr);
    command.set_cdw(11, attributes);
    command
}

fn parse(command: &Command) -> Result<(IoCommand, Transfer), Status> {
    IoCommand::parse(command, Some(geometry()))
}

const fn extent(first: u64, count: u64) -> Extent {
    Extent { offset: first << 12, len: count << 12 }
}

#[test]
fn commands_are_what_their_dwords_say() {
    let rows = [
        (
            command(io::READ, 5, 2),
            IoCommand::Read { extent: extent(5, 2), fua: false },
            Transfer::ToHost(8192),
        ),
        (
            with_cdw12(command(io::READ, 5, 2), FUA),
            IoCommand::Read { extent: extent(5, 2), fua: true },
            Transfer::ToHost(8192),
        ),
        (
            command(io::WRITE, 0, 32),
            IoCommand::Write { extent: extent(0, 32), fua: false },
            Transfer::FromHost(128 << 10),
        ),
        (
            Command { sgl: Sgl::in_capsule(4096), ..with_cdw12(command(io::WRITE, 7, 1), FUA) },
            IoCommand::Write { extent: extent(7, 1), fua: true },
            Transfer::InCapsule(4096),
        ),
        (Command::new(io::FLUSH, 1), IoCommand::Flush, Transfer::None),
        (
            with_cdw12(command(io::COMPARE, 3, 2), FUA),
            IoCommand::Compare { extent: extent(3, 2), fua: true },
            Transfer::FromHost(8192),
        ),
        (
            command(io::VERIFY, 9, 2048),
            IoCommand::Verify { extent: extent(9, 2048), fua: false },
            Transfer::None,
        ),
        (
            command(io::COMPARE, 3, 1).fused(Fuse::First),
            IoCommand::Compare { extent: extent(3, 1), fua: false },
            Transfer::FromHost(4096),
        ),
        (
            command(io::WRITE, 3, 1).fused(Fuse::Second),
            IoCommand::Write { extent: extent(3, 1), fua: false },
            Transfer::FromHost(4096),
        ),
        (
            command(io::WRITE_ZEROES, 1, 2048),
            IoCommand::WriteZeroes { extent: extent(1, 2048), fua: false, deallocate: false },
            Transfer::None,
        ),
        (
            with_cdw12(command(io::WRITE_ZEROES, 1, 1), DEAC | FUA),
            IoCommand::WriteZeroes { extent: extent(1, 1), fua: true, deallocate: true },
            Transfer::None,
        ),
        (
            dataset(0, 1 << 2, Sgl::in_capsule(16)),
            IoCommand::DatasetManagement { ranges: 1, deallocate: true },
            Transfer::InCapsule(16),
        ),
        (
            dataset(255, 0b11, Sgl::transport(4096)),
            IoCommand::DatasetManagement { ranges: 256, deallocate: false },
            Transfer::FromHost(4096),
        ),
    ];
    for (command, parsed, transfer) in rows {
        assert_eq!(parse(&command), Ok((parsed, transfer)), "{command:?}");
    }
}

#[test]
fn linux_sends_4096_bytes_of_ranges_however_few_it_means() {
    let (_, transfer) = parse(&dataset(0, 4, Sgl::transport(4096))).unwrap();
    assert_eq!(transfer, Transfer::FromHost(4096));
    let (_, transfer) = parse(&dataset(0, 4, Sgl::transport(1 << 20))).unwrap();
    assert_eq!(transfer, Transfer::FromHost(4096), "never more than can be meant");
}

#[test]
fn wrong_commands_get_the_status_that_says_so() {
    let end = geometry().blocks;
    let read = command(io::READ, 0, 1);
    let rows = [
        ("beyond the end", command(io::READ, end, 1), Status::LBA_OUT_OF_RANGE),
        ("across the end", command(io::WRITE, end - 1, 2), Status::LBA_OUT_OF_RANGE),
        ("past all numbers", command(io::READ, u64::MAX, 2), Status::LBA_OUT_OF_RANGE),
        ("far, in bytes near", command(io::READ, 1 << 52, 1), Status::LBA_OUT_OF_RANGE),
        ("zeroes beyond", command(io::WRITE_ZEROES, end, 1), Status::LBA_OUT_OF_RANGE),
        ("above MDTS", command(io::READ, 0, 33), Status::INVALID_FIELD),
        ("above MDTS", command(io::WRITE, 0, 65536), Status::INVALID_FIELD),
        ("above WZSL", command(io::WRITE_ZEROES, 0, 2049), Status::INVALID_FIELD),
        ("above VSL", command(io::VERIFY, 0, 2049), Status::INVALID_FIELD),
        ("verify beyond", command(io::VERIFY, end, 1), Status::LBA_OUT_OF_RANGE),
        ("compare beyond", command(io::COMPARE, end, 1), Status::LBA_OUT_OF_RANGE),
        ("write first", command(io::WRITE, 0, 1).fused(Fuse::First), Status::INVALID_FIELD),
        ("compare second", command(io::COMPARE, 0, 1).fused(Fuse::Second), Status::INVALID_FIELD),
        (
            "neither",
            Command { flags: PSDT_SGL | 3, ..command(io::COMPARE, 0, 1) },
            Status::INVALID_FIELD,
        ),
        ("short", Command { sgl: Sgl::transport(4095), ..read }, Status::SGL_LENGTH_INVALID),
        ("in capsule", Command { sgl: Sgl::in_capsule(4096), ..read }, Status::SGL_TYPE_INVALID),
        ("ranges", dataset(3, 4, Sgl::in_capsule(48)), Status::SGL_LENGTH_INVALID),
        ("first of two", Command { flags: PSDT_SGL | 1, ..read }, Status::INVALID_FIELD),
        ("second of two", Command { flags: PSDT_SGL | 2, ..read }, Status::INVALID_FIELD),
        ("PRP", Command { flags: 0, ..read }, Status::INVALID_FIELD),
        ("fabrics", Command::new(admin::FABRICS, 1), Status::INVALID_OPCODE),
    ];
    for (what, command, status) in rows {
        assert_eq!(parse(&command), Err(status.dnr()), "{what}");
    }
}

#[test]
fn an_opcode_that_is_not_offered_is_invalid() {
    // Uncorrectable, Copy, a vendor's.
    for opcode in [0x04, 0x19, 0x81] {
        assert_eq!(parse(&Command::new(opcode, 1)), Err(Status::INVALID_OPCODE.dnr()));
    }
}

#[test]
fn without_the_namespace_every_command_is_refused() {
    for opcode in [
        io::READ,
        io::WRITE,
        io::FLUSH,
        io::COMPARE,
        io::VERIFY,
        io::WRITE_ZEROES,
        io::DATASET_MANAGEMENT,
    ] {
        let refused = IoCommand::parse(&command(opcode, 0, 1), None);
        assert_eq!(refused, Err(Status::INVALID_NAMESPACE.dnr()), "{opcode:02x}h");
    }
}

#[test]
fn a_host_buffer_longer_than_the_blocks_is_used_in_part() {
    let command = Command { sgl: Sgl::transport(1 << 20), ..command(io::READ, 0, 1) };
    assert_eq!(parse(&command).unwrap().1, Transfer::ToHost(4096));
}

#[test]
fn blocks_of_512_bytes_are_counted_as_such() {
    let small = Geometry { block: BlockSize::B512, blocks: 1 << 20 };
    let mut read = command(io::READ, 9, 3);
    read.sgl = Sgl::transport(1536);
    let (parsed, transfer) = IoCommand::parse(&read, Some(small)).unwrap();
    let extent = Extent { offset: 9 * 512, len: 1536 };
    assert_eq!(
        (parsed, transfer),
        (IoCommand::Read { extent, fua: false }, Transfer::ToHost(1536))
    );
    let zeroes = command(io::WRITE_ZEROES, 0, 16384);
    assert!(IoCommand::parse(&zeroes, Some(small)).is_ok());
}

#[test]
fn without_a_volatile_write_cache_every_write_is_durable() {
    let mut target = Target::ready(Kind::Io);
    let fua = |target: &Target, opcode| match target
        .controller
        .io(&command(opcode, 0, 1), Some(geometry()))
    {
        Ok((IoCommand::Write { fua, .. } | IoCommand::WriteZeroes { fua, .. }, _)) => fua,
        other => panic!("{other:?}"),
    };
    assert!(!fua(&target, io::WRITE) && !fua(&target, io::WRITE_ZEROES));
    target.send(&set_feature(0x06, 0));
    assert!(fua(&target, io::WRITE) && fua(&target, io::WRITE_ZEROES));
}

#[test]
fn a_controller_that_is_not_ready_does_no_io() {
    let mut target = Target::ready(Kind::Io);
    target.configure(Configuration::SHUTDOWN);
    let refused = target.controller.io(&command(io::READ, 0, 1), Some(geometry()));
    assert_eq!(refused, Err(Status::SEQUENCE_ERROR));
}

/// A range as Dataset Management has it.
fn range(first: u64, blocks: u32) -> Vec<u8> {
    let mut bytes = vec![0xff; 4];
    bytes.extend(blocks.to_le_bytes());
    bytes.extend(first.to_le_bytes());
    bytes
}

#[test]
fn ranges_are_taken_in_order_and_empty_ones_skipped() {
    let data = [range(4, 2), range(u64::MAX, 0), range(0, 1), range(77, 7)].concat();
    let ranges = Ranges::parse(&data, 3, geometry()).unwrap();
    assert!(ranges.iter().eq([extent(4, 2), extent(0, 1)]), "the fourth is not meant");
    let nth = |n| Ranges::nth(&data, n, geometry());
    assert_eq!([nth(0), nth(2), nth(4)], [Some(extent(4, 2)), Some(extent(0, 1)), None]);
    assert_eq!(nth(1).unwrap().len, 0);
}

#[test]
fn one_wrong_range_refuses_all() {
    let end = geometry().blocks;
    for wrong in [range(end, 1), range(end - 1, 2), range(u64::MAX, 2), range(0, u32::MAX)] {
        let data = [range(0, 1), wrong].concat();
        let refused = Ranges::parse(&data, 2, geometry()).unwrap_err();
        assert_eq!(refused, Status::LBA_OUT_OF_RANGE.dnr());
    }
}

#[test]
fn fewer_bytes_than_ranges_are_refused() {
    let refused = Ranges::parse(&range(0, 1), 2, geometry()).unwrap_err();
    assert_eq!(refused, Status::SGL_LENGTH_INVALID.dnr());
}
