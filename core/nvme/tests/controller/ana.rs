//! Asymmetric namespace access (Base 8.1, 5.16.1.13). Offsets are those of the standard's figures.

use braid_block::BlockSize;
use braid_nvme::Status;
use braid_nvme::ana::AnaState;
use braid_nvme::target::{Kind, Notice};

use crate::fixture::{
    Target, group, identify, log, namespace, set_feature, u16_at, u32_at, u64_at,
};

const ALL: u32 = u32::MAX;
/// What Linux asks for: as many groups and namespaces as there can be.
const LINUX_BYTES: u32 = 16 + 128 * 32 + 1024 * 4;

fn read(target: &mut Target, len: u32) -> Vec<u8> {
    let reply = target.send(&log(0x0c, ALL, 0, len));
    assert!(reply.status.is_success(), "{}", reply.status);
    reply.data
}

/// Namespaces 1, 2 and 5 in group 1, namespace 3 in group 7.
fn two_groups() -> Target {
    let mut target = Target::ready(Kind::Io);
    target.namespaces = [1, 2, 3, 5].map(|nsid| namespace(nsid, BlockSize::B4096, 8)).to_vec();
    target.namespaces[2].group = 7;
    target.groups = vec![group(1, AnaState::Optimized), group(7, AnaState::Inaccessible)];
    (target.groups[0].changes, target.groups[1].changes) = (4, 5);
    target
}

#[test]
fn the_log_tells_each_group_its_state_and_its_namespaces() {
    let data = read(&mut two_groups(), LINUX_BYTES);
    assert_eq!((u64_at(&data, 0), u16_at(&data, 8)), (9, 2), "CHGCNT, NGRPS");
    let head =
        |at| (u32_at(&data, at), u32_at(&data, at + 4), u64_at(&data, at + 8), data[at + 16]);
    assert_eq!(head(16), (1, 3, 4, 1));
    assert_eq!([48, 52, 56].map(|at| u32_at(&data, at)), [1, 2, 5], "ascending");
    assert_eq!(head(60), (7, 1, 5, 3));
    assert_eq!(u32_at(&data, 92), 3);
    assert!(data[96..].iter().all(|&byte| byte == 0));
}

#[test]
fn groups_alone_come_without_their_namespaces() {
    let mut command = log(0x0c, ALL, 0, LINUX_BYTES);
    command.set_cdw(10, command.cdw(10) | 1 << 8);
    let data = two_groups().send(&command).data;
    assert_eq!((u16_at(&data, 8), u32_at(&data, 16), u32_at(&data, 20)), (2, 1, 0));
    assert_eq!((u32_at(&data, 48), u32_at(&data, 52), data[64]), (7, 0, 3));
    assert!(data[80..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_namespace_names_its_group() {
    let mut target = two_groups();
    for (nsid, group) in [(1, 1), (2, 1), (3, 7), (5, 1)] {
        assert_eq!(u32_at(&target.send(&identify(0, nsid)).data, 92), group, "CNS 00h, {nsid}");
        let independent = target.send(&identify(8, nsid)).data;
        assert_eq!(u32_at(&independent, 4), group, "CNS 08h, {nsid}");
        assert_eq!((independent[1], independent[14]), (1, 1), "shared, and ready");
    }
    assert_eq!(target.send(&identify(8, 4)).status, Status::INVALID_NAMESPACE.dnr());
}

#[test]
fn a_change_is_told_once_until_the_log_is_read() {
    let mut target = two_groups();
    target.send(&set_feature(0x0b, 1 << 11));
    for cid in 1..4 {
        target.request_event(cid);
    }
    target.controller.raise(Notice::AnaChange);
    assert_eq!(target.controller.next_event(), Some((1, 0x0c_03_02)));
    target.controller.raise(Notice::AnaChange);
    assert_eq!(target.controller.next_event(), None, "masked");
    let mut retaining = log(0x0c, ALL, 0, LINUX_BYTES);
    retaining.set_cdw(10, retaining.cdw(10) | 1 << 15);
    target.send(&retaining);
    assert_eq!(target.controller.next_event(), None, "retained");
    read(&mut target, LINUX_BYTES);
    assert_eq!(target.controller.next_event(), Some((2, 0x0c_03_02)));
}

#[test]
fn io_is_refused_as_the_state_says_and_may_be_tried_again() {
    let target = Target::ready(Kind::Io);
    for (state, status) in [
        (AnaState::Optimized, Ok(())),
        (AnaState::NonOptimized, Ok(())),
        (AnaState::Inaccessible, Err(Status::ANA_INACCESSIBLE)),
        (AnaState::PersistentLoss, Err(Status::ANA_PERSISTENT_LOSS)),
        (AnaState::Change, Err(Status::ANA_TRANSITION)),
    ] {
        assert_eq!(target.controller.may_access(state, 0), status, "{}", state.text());
    }
}

#[test]
fn a_host_that_did_not_see_this_epoch_does_no_io() {
    let optimized =
        |target: &Target| target.controller.may_access(AnaState::Optimized, target.epoch);
    let mut target = Target::ready(Kind::Io);
    (target.epoch, target.groups[0].state) = (5, AnaState::Inaccessible);
    assert_eq!(optimized(&target), Err(Status::ANA_INACCESSIBLE));
    read(&mut target, LINUX_BYTES);
    target.groups[0].state = AnaState::Optimized;
    assert_eq!(optimized(&target), Err(Status::ANA_INACCESSIBLE), "what it read said otherwise");
    let header = target.send(&log(0x0c, ALL, 0, 32));
    assert!(header.status.is_success());
    assert_eq!(optimized(&target), Err(Status::ANA_INACCESSIBLE), "it did not read the state");
    read(&mut target, 52);
    assert_eq!(optimized(&target), Ok(()));
    target.epoch = 6;
    assert_eq!(optimized(&target), Err(Status::ANA_INACCESSIBLE), "of the epoch before");
    read(&mut target, LINUX_BYTES);
    assert_eq!(optimized(&target), Ok(()));
    target.epoch = 0;
    assert_eq!(optimized(&target), Ok(()), "who counts no epochs asks for nothing");
}
