//! What a host asks for is what a target understands.

use braid_nvme::host::{Acquire, Keys, Register, Release, ReservationCommand, ReservationReport};
use braid_nvme::target::reservation::{ReservationType, Reservations};

fn every_command() -> Vec<ReservationCommand> {
    let mut all = vec![ReservationCommand::Release(Release::Clear)];
    for bytes in [4, 64, 4096, 1 << 20] {
        all.push(ReservationCommand::Report { bytes });
    }
    for action in [Register::Register, Register::Unregister, Register::Replace] {
        for ignore_key in [false, true] {
            for persists in [None, Some(false), Some(true)] {
                all.push(ReservationCommand::Register { action, ignore_key, persists });
            }
        }
    }
    for kind in ReservationType::ALL {
        all.push(ReservationCommand::Release(Release::Release(kind)));
        for action in [Acquire::Acquire, Acquire::Preempt, Acquire::PreemptAndAbort] {
            all.push(ReservationCommand::Acquire { action, kind });
        }
    }
    all
}

#[test]
fn every_command_is_understood_as_it_was_meant() {
    for asked in every_command() {
        let command = asked.to_command(7);
        assert_eq!(ReservationCommand::parse(&command), Ok(asked));
        assert_eq!(command.nsid.get(), 7);
    }
    let keys = Keys { current: 0x0102_0304_0506_0708, other: u64::MAX - 1 };
    assert_eq!(Keys::parse(&keys.to_bytes()), keys);
}

#[test]
fn a_report_is_read_as_it_was_written_and_what_is_none_is_refused() {
    let mut state = Reservations::new(true);
    for host in 1..=3 {
        let register = ReservationCommand::Register {
            action: Register::Register,
            ignore_key: false,
            persists: Some(true),
        };
        let keys = Keys { current: 0, other: u64::from(host) };
        state.apply(&[host; 16], register, keys).unwrap();
    }
    let kind = ReservationType::ExclusiveAccessRegistrants;
    let acquire = ReservationCommand::Acquire { action: Acquire::Acquire, kind };
    state.apply(&[2; 16], acquire, Keys { current: 2, other: 0 }).unwrap();
    let mut page = [0; 512];
    state.report(&mut page, [(9, [1; 16]), (10, [1; 16])].into_iter());
    let report = ReservationReport::parse(&page).unwrap();
    assert_eq!((report.generation, report.kind, report.persists), (3, Some(kind), true));
    assert_eq!((report.entries, report.registrants.len()), (4, 4));
    let told: Vec<_> = report.registrants.iter().map(|r| (r.cntlid, r.holds, r.key)).collect();
    let expected = [(Some(9), false, 1), (Some(10), false, 1), (None, true, 2), (None, false, 3)];
    assert_eq!(told, expected);
    // Of a page that is too short as many as fit.
    assert_eq!(ReservationReport::parse(&page[..200]).unwrap().registrants.len(), 2);
    assert_eq!(ReservationReport::parse(&page[..63]), None);
    page[4] = 7;
    assert_eq!(ReservationReport::parse(&page), None, "no such type");
}
