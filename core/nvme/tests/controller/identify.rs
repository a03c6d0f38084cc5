//! Identify (Base 5.17, NVM 4.1.5). Offsets are those of the standard's figures.

use braid_block::BlockSize;
use braid_nvme::Status;
use braid_nvme::target::Kind;

use crate::fixture::{NGUID, Target, UUID, identify, namespace, portal, u16_at, u32_at, u64_at};

fn data(target: &mut Target, cns: u32, nsid: u32) -> Vec<u8> {
    let reply = target.send(&identify(cns, nsid));
    assert!(reply.status.is_success(), "CNS {cns:02x}h: {}", reply.status);
    assert_eq!(reply.data.len(), 4096);
    reply.data
}

#[test]
fn texts_are_padded_as_their_fields_demand() {
    let id = data(&mut Target::ready(Kind::Io), 1, 0);
    assert_eq!(&id[4..24], b"BRAID0001           ");
    assert_eq!(&id[24..64], b"Braid                                   ");
    assert_eq!(&id[64..72], b"0.1.0   ");
    assert_eq!(&id[768..800], b"nqn.2026-01.io.braid:subsystem\0\0");
}

#[test]
fn an_io_controller_says_what_it_can() {
    let id = data(&mut Target::ready(Kind::Io), 1, 0);
    let bytes: [(usize, u8, &str); 23] = [
        (76, 0b1010, "CMIC: more controllers, one port, ANA"),
        (77, 5, "MDTS: 128 KiB"),
        (111, 1, "CNTRLTYPE: I/O"),
        (256, 0, "OACS: nothing optional"),
        (258, 3, "ACL"),
        (259, 3, "AERL"),
        (260, 3, "FRMW: one slot, read only"),
        (261, 0b10_0111, "LPA: SMART of a namespace, effects, offsets, supported pages"),
        (262, 15, "ELPE"),
        (263, 0, "NPSS"),
        (342, 10, "ANATT in seconds"),
        (343, 0b101_1111, "ANACAP: all states, ids of groups stay"),
        (512, 0x66, "SQES"),
        (513, 0x44, "CQES"),
        (
            520,
            0b1011_1101,
            "ONCS: Compare, Dataset Management, Write Zeroes, select, reservations, Verify",
        ),
        (521, 0, "ONCS"),
        (522, 1, "FUSES: Compare and Write"),
        (532, 0, "ACWU: one block"),
        (524, 0, "FNA"),
        (525, 0b101, "VWC: present, no Flush of all namespaces"),
        (1802, 0, "FCATT: dynamic controllers"),
        (1803, 1, "MSDBD"),
        (1804, 0, "OFCS: no Disconnect"),
    ];
    for (at, value, what) in bytes {
        assert_eq!(id[at], value, "{what}");
    }
    let dwords = [
        (80, 0x0001_0400, "VER"),
        (92, 1 << 8 | 1 << 11, "OAES: namespace attributes, ANA"),
        (96, 1, "CTRATT: host ids of 128 bits"),
        (344, 128, "ANAGRPMAX"),
        (348, 128, "NANAGRPID"),
        (516, 1024, "NN"),
        (536, 0x0010_0001, "SGLS"),
        (540, 1024, "MNAN"),
        (1792, (64 + 8192) / 16, "IOCCSZ"),
        (1796, 1, "IORCSZ"),
    ];
    for (at, value, what) in dwords {
        assert_eq!(u32_at(&id, at), value, "{what}");
    }
    assert_eq!((u16_at(&id, 78), u16_at(&id, 320), u16_at(&id, 514)), (5, 10, 128));
    assert_eq!((u16_at(&id, 266), u16_at(&id, 268)), (343, 373), "WCTEMP, CCTEMP");
}

#[test]
fn a_discovery_controller_has_no_namespaces_and_no_io() {
    let id = data(&mut Target::ready(Kind::Discovery), 1, 0);
    assert_eq!(id[111], 2, "CNTRLTYPE");
    assert_eq!(u32_at(&id, 92), 1 << 31, "OAES: discovery log");
    assert_eq!((id[76] & 1 << 3, u32_at(&id, 348)), (0, 0), "no ANA");
    assert_eq!((u32_at(&id, 516), u32_at(&id, 540)), (0, 0), "NN, MNAN");
    assert_eq!((u16_at(&id, 520), id[525]), (0, 0), "ONCS, VWC");
    assert!(id[768..].starts_with(b"nqn.2014-08.org.nvmexpress.discovery\0"));
}

#[test]
fn a_subsystem_with_two_portals_has_two_ports() {
    let mut target = Target::ready(Kind::Io);
    target.portals.push(portal(2, "[::1]:4420"));
    assert_eq!(data(&mut target, 1, 0)[76], 0b1011);
}

#[test]
fn awupf_is_what_every_namespace_guarantees() {
    let mut target = Target::ready(Kind::Io);
    target.namespaces[0].atomic_blocks = 4;
    let id = data(&mut target, 1, 0);
    assert_eq!((u16_at(&id, 526), u16_at(&id, 528)), (3, 3), "AWUN, AWUPF, 0-based");
    target.namespaces.push(namespace(2, BlockSize::B4096, 8));
    assert_eq!(u16_at(&data(&mut target, 1, 0), 528), 0);
    let id = data(&mut target, 0, 1);
    assert_eq!(id[24] & 0b10, 0b10, "NSFEAT: the namespace's own unit holds");
    assert_eq!((u16_at(&id, 34), u16_at(&id, 36)), (3, 3), "NAWUN, NAWUPF");
    target.namespaces.clear();
    assert_eq!(u16_at(&data(&mut target, 1, 0), 528), 0);
}

#[test]
fn a_namespace_says_its_size_and_format() {
    for (block, lbads) in [(BlockSize::B512, 9), (BlockSize::B4096, 12)] {
        let mut target = Target::ready(Kind::Io);
        target.namespaces = vec![namespace(3, block, 1000)];
        let id = data(&mut target, 0, 3);
        for at in [0, 8, 16] {
            assert_eq!(u64_at(&id, at), 1000, "NSZE, NCAP, NUSE");
        }
        assert_eq!(u64_at(&id, 48), 1000 << lbads, "NVMCAP in bytes");
        assert_eq!(u32_at(&id, 128), lbads << 16, "LBAF0");
        assert_eq!((id[25], id[26]), (0, 0), "NLBAF, FLBAS");
        assert_eq!(id[30], 1, "NMIC: shared, or a second path would be refused");
        assert_eq!(id[33], 0x09, "DLFEAT: zeros after deallocate, also by Write Zeroes");
        assert_eq!(id[104..120], NGUID);
    }
}

#[test]
fn a_thin_namespace_says_so() {
    let mut target = Target::ready(Kind::Io);
    assert_eq!(data(&mut target, 0, 1)[24] & 1, 0);
    target.namespaces[0].thin = true;
    assert_eq!(data(&mut target, 0, 1)[24] & 1, 1);
}

#[test]
fn a_namespace_says_which_reservations_it_takes() {
    use braid_nvme::target::reservation::ReservationSupport::{Absent, Persistent, Volatile};
    let mut target = Target::ready(Kind::Io);
    for (support, rescap) in [(Absent, 0), (Volatile, 0xfe), (Persistent, 0xff)] {
        target.namespaces[0].reservations = support;
        assert_eq!(data(&mut target, 0, 1)[31], rescap, "{support:?}");
    }
}

#[test]
fn an_inactive_namespace_is_all_zeros_and_an_impossible_one_invalid() {
    let mut target = Target::ready(Kind::Io);
    assert_eq!(data(&mut target, 0, 2), [0; 4096]);
    assert_eq!(data(&mut target, 0, 1024), [0; 4096]);
    for nsid in [0, 1025, 0xffff_fffe] {
        let status = target.send(&identify(0, nsid)).status;
        assert_eq!(status, Status::INVALID_NAMESPACE.dnr(), "{nsid:x}h");
    }
}

#[test]
fn all_namespaces_together_say_what_they_have_in_common() {
    let id = data(&mut Target::ready(Kind::Io), 0, u32::MAX);
    assert_eq!((u64_at(&id, 0), id[30], id[33]), (0, 1, 9), "NSZE, NMIC, DLFEAT");
}

#[test]
fn the_list_of_active_namespaces_goes_on_after_any_id() {
    let mut target = Target::ready(Kind::Io);
    target.namespaces = [2, 5, 1024].map(|id| namespace(id, BlockSize::B512, 8)).to_vec();
    let rows: [(u32, &[u32]); 6] = [
        (0, &[2, 5, 1024, 0]),
        (1, &[2, 5, 1024, 0]),
        (2, &[5, 1024, 0]),
        (5, &[1024, 0]),
        (1024, &[0]),
        (0xffff_fffd, &[0]),
    ];
    for (after, expected) in rows {
        let list = data(&mut target, 2, after);
        for (at, nsid) in expected.iter().enumerate() {
            assert_eq!(u32_at(&list, at * 4), *nsid, "after {after}");
        }
    }
    for nsid in [0xffff_fffe, 0xffff_ffff] {
        assert_eq!(target.send(&identify(2, nsid)).status, Status::INVALID_NAMESPACE.dnr());
    }
}

#[test]
fn a_list_of_as_many_namespaces_as_there_may_be_fills_the_page() {
    let mut target = Target::ready(Kind::Io);
    target.namespaces = (1..=1024).map(|id| namespace(id, BlockSize::B512, 8)).collect();
    let list = data(&mut target, 2, 0);
    assert_eq!((u32_at(&list, 0), u32_at(&list, 4092)), (1, 1024));
}

#[test]
fn a_namespace_is_called_by_uuid_and_nguid() {
    let mut target = Target::ready(Kind::Io);
    let names = data(&mut target, 3, 1);
    assert_eq!((names[..4].to_vec(), &names[4..20]), (vec![3, 16, 0, 0], &UUID[..]));
    assert_eq!((names[20..24].to_vec(), &names[24..40]), (vec![2, 16, 0, 0], &NGUID[..]));
    assert_eq!(names[40..], [0; 4056]);
}

#[test]
fn a_name_that_a_namespace_does_not_have_is_left_out() {
    let mut target = Target::ready(Kind::Io);
    target.namespaces[0].uuid = [0; 16];
    let names = data(&mut target, 3, 1);
    assert_eq!((names[0], names[20]), (2, 0));
}

#[test]
fn an_inactive_namespace_has_no_names() {
    let mut target = Target::ready(Kind::Io);
    for (cns, nsid) in [(3, 2), (3, 0), (3, u32::MAX), (5, 2)] {
        let status = target.send(&identify(cns, nsid)).status;
        assert_eq!(status, Status::INVALID_NAMESPACE.dnr(), "CNS {cns} of {nsid:x}h");
    }
}

#[test]
fn the_nvm_command_set_bounds_verify_and_write_zeroes_and_nothing_else() {
    let mut target = Target::ready(Kind::Io);
    let mut expected = [0; 4096];
    assert_eq!(data(&mut target, 5, 1), expected);
    (expected[0], expected[1]) = (11, 11);
    assert_eq!(data(&mut target, 6, 0), expected, "VSL, WZSL: 8 MiB");
}

#[test]
fn other_structures_and_other_command_sets_are_invalid_fields() {
    let mut target = Target::ready(Kind::Io);
    for cns in [0x04, 0x07, 0x10, 0x11, 0x12, 0x13, 0x14, 0x1c, 0xff] {
        let status = target.send(&identify(cns, 1)).status;
        assert_eq!(status, Status::INVALID_FIELD.dnr(), "CNS {cns:02x}h");
    }
    for cns in [5, 6] {
        let mut zoned = identify(cns, 1);
        zoned.set_cdw(11, 2 << 24);
        assert_eq!(target.send(&zoned).status, Status::INVALID_FIELD.dnr());
    }
}
