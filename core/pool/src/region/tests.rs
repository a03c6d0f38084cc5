//! What is marked ahead of a stream.

use alloc::boxed::Box;
use alloc::string::String;

use braid_block::BlockSize;

use crate::rig::Rig;
use crate::{Bearing, Command, Create};

/// Blocks of a region.
const REGION: u64 = 256;

#[test]
fn a_stream_marks_no_region_past_the_end() {
    let (mut rig, _) = Rig::new();
    let uuid = [2; 16];
    let create = Create {
        uuid,
        name: String::from("two"),
        bytes: (2 * REGION + 3) * 4096,
        block: BlockSize::B4096,
        thick: false,
        created: 1,
    };
    rig.pool.command(&mut rig.mem, rig.now, 2, Command::Create(create.into()));
    rig.run();
    let handle = rig.pool.find(&uuid).expect("a replica");
    let regions = [0, REGION, 2 * REGION];
    for block in regions {
        rig.write(handle, block, 1);
        rig.run();
    }
    // What is quiet is closed, and its marks go.
    rest(&mut rig);
    // All are opened with the one that is written, until they were not written often enough.
    for _ in 0..4 {
        rig.write(handle, 0, 1);
        rig.run();
        rest(&mut rig);
    }
    let marks = |rig: &mut Rig, tag| {
        rig.pool.command(&mut rig.mem, rig.now, tag, Command::Marks { uuid });
        rig.run();
        rig.pool.take_marks(tag)
    };
    assert_eq!(marks(&mut rig, 3), Some([].into()));
    // The second of a stream marks two, of which one is there.
    for block in &regions[1..] {
        rig.write(handle, *block, 2);
        rig.run();
    }
    // With the first of the two, what was written last time.
    assert_eq!(marks(&mut rig, 4), Some([(0, 3)].into()));
}

#[test]
fn what_was_written_before_is_opened_again_but_not_of_a_member() {
    for member in [false, true] {
        let (mut rig, handle) = Rig::new();
        for region in 0..3 {
            rig.write(handle, region * REGION, 1);
            rig.run();
        }
        if member {
            let uuid = [1; 16];
            let bearing = Box::new(Bearing { member: Some(true), ..Bearing::default() });
            rig.pool.command(&mut rig.mem, rig.now, 2, Command::Bear { uuid, bearing });
            rig.run();
        }
        rest(&mut rig);
        let before = rig.pool.counters().regions_opened;
        rig.write(handle, REGION, 2);
        rig.run();
        let opened = rig.pool.counters().regions_opened - before;
        assert_eq!(opened, if member { 1 } else { 3 }, "member: {member}");
        assert!(rig.take_ended().iter().all(Result::is_ok));
    }
}

/// Everything that is quiet is closed.
fn rest(rig: &mut Rig) {
    for _ in 0..4 {
        rig.wait(5);
        rig.run();
    }
}
