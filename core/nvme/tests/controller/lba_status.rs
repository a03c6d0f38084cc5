//! Get LBA Status (NVM 4.2.1).

use braid_block::{BlockSize, Extent};
use braid_nvme::Status;
use braid_nvme::command::{Command, admin};
use braid_nvme::lba_status::{LbaStatusHeader, read_allocations};
use braid_nvme::target::{Admin, Kind};
use zerocopy::FromBytes;

use crate::fixture::{Target, command, identify, namespace};

const ALLOCATED: u8 = 0x02;
const SCAN: u8 = 0x10;
const TRACKED: u8 = 0x11;

/// The status of `count` blocks from `first` on, in `len` bytes.
fn status(nsid: u32, first: u64, count: u16, action: u8, len: u32) -> Command {
    let mut command = command(admin::GET_LBA_STATUS, nsid, first as u32, len);
    command.set_cdw(11, (first >> 32) as u32);
    command.set_cdw(12, (len / 4).saturating_sub(1));
    command.set_cdw(13, u32::from(action) << 24 | u32::from(count));
    command
}

fn looked_up(target: &mut Target, command: Command) -> Option<Extent> {
    match target.send(&command).admin {
        Some(Admin::Allocations { nsid: 1, extent, .. }) => Some(extent),
        _ => None,
    }
}

#[test]
fn allocated_blocks_are_looked_up_in_the_range_that_the_command_names() {
    let mut target = Target::ready(Kind::Io);
    let extent = |first: u64, blocks: u64| Some(Extent { offset: first << 12, len: blocks << 12 });
    let rows = [
        (0, 1, extent(0, 1)),
        (100, 50, extent(100, 50)),
        (16383, 1, extent(16383, 1)),
        // A length of zero: all the rest.
        (16000, 0, extent(16000, 384)),
    ];
    for (first, count, expected) in rows {
        let command = status(1, first, count, ALLOCATED, 4096);
        assert_eq!(looked_up(&mut target, command), expected, "{first} {count}");
    }
}

#[test]
fn no_block_is_known_to_be_unreadable() {
    let mut target = Target::ready(Kind::Io);
    for (action, condition) in [(SCAN, 0), (TRACKED, 2)] {
        let reply = target.send(&status(1, 0, 0, action, 64));
        assert_eq!((reply.status, reply.data.len()), (Status::SUCCESS, 64));
        let (header, _) = LbaStatusHeader::read_from_prefix(&reply.data).unwrap();
        assert_eq!((header.descriptors.get(), header.condition), (0, condition), "{action:02x}h");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut target = Target::ready(Kind::Io);
    let rows = [
        (status(2, 0, 1, ALLOCATED, 4096), Status::INVALID_NAMESPACE),
        (status(u32::MAX, 0, 1, ALLOCATED, 4096), Status::INVALID_NAMESPACE),
        (status(1, 16384, 1, ALLOCATED, 4096), Status::LBA_OUT_OF_RANGE),
        (status(1, 16384, 0, ALLOCATED, 4096), Status::LBA_OUT_OF_RANGE),
        (status(1, 16383, 2, ALLOCATED, 4096), Status::LBA_OUT_OF_RANGE),
        (status(1, u64::MAX, 1, TRACKED, 4096), Status::LBA_OUT_OF_RANGE),
        (status(1, 0, 1, 0x03, 4096), Status::INVALID_FIELD),
        (status(1, 0, 1, ALLOCATED, 4), Status::INVALID_FIELD),
        (status(1, 0, 1, ALLOCATED, (128 << 10) + 4), Status::INVALID_FIELD),
    ];
    for (command, expected) in rows {
        let reply = target.send(&command);
        assert_eq!(reply.status, expected.dnr(), "{command:?}");
    }
    let reply = Target::ready(Kind::Discovery).send(&status(1, 0, 1, ALLOCATED, 4096));
    assert_eq!(reply.status, Status::INVALID_OPCODE.dnr());
}

#[test]
fn identify_tells_of_it_and_of_what_is_write_protected() {
    let mut target = Target::ready(Kind::Io);
    let mut snapshot = namespace(2, BlockSize::B4096, 16);
    snapshot.read_only = true;
    target.namespaces.push(snapshot);
    let controller = target.send(&identify(0x01, 0)).data;
    assert_eq!(controller[257] & 1 << 1, 1 << 1, "OACS bit 9");
    for (nsid, protected) in [(1, 0), (2, 1)] {
        assert_eq!(target.send(&identify(0x00, nsid)).data[99], protected, "NSATTR of {nsid}");
    }
}

#[test]
fn what_our_host_asks_is_what_our_target_understands() {
    use braid_nvme::host::get_lba_status;
    use braid_nvme::target::write_allocations;

    let mut target = Target::ready(Kind::Io);
    let mut command = get_lba_status(1, 5, 7, 64);
    command.sgl = braid_nvme::command::Sgl::transport(64);
    let extent = looked_up(&mut target, command).expect("a look-up");
    assert_eq!((extent.offset, extent.len), (5 << 12, 7 << 12));
    let mut data = [0; 64];
    write_allocations(&mut data, 4096, core::iter::once(extent), true);
    let (ranges, all) = read_allocations(&data).expect("a list");
    assert_eq!((ranges.collect::<Vec<_>>(), all), (vec![(5, 7)], true));
    data[..4].copy_from_slice(&4u32.to_le_bytes());
    assert!(read_allocations(&data).is_none(), "more than there is room for");
    assert!(read_allocations(&data[..7]).is_none());
}
