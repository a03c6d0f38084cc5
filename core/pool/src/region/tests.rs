//! What is marked ahead of a stream.

use alloc::string::String;

use braid_block::BlockSize;

use crate::rig::Rig;
use crate::{Command, Create};

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
    for _ in 0..4 {
        rig.wait(5);
        rig.run();
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
    assert_eq!(marks(&mut rig, 4), Some([(1, 2)].into()));
}
