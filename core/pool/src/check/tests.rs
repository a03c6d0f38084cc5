//! Each rule that counts fails by itself when its figure is wrong.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use braid_block::{BlockSize, IoError};

use super::*;
use crate::rig::{Rig, config};
use crate::space::Space;
use crate::{Command, Create, Work};

/// Makes a figure wrong.
type Break = fn(&mut Space);

/// The disk of a rig.
struct Blocks<'a>(&'a mut BTreeMap<u64, Vec<u8>>);

impl Image for Blocks<'_> {
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> Result<(), IoError> {
        for (block, part) in (offset / BLOCK..).zip(bytes.chunks_mut(BLOCK as usize)) {
            match self.0.get(&block) {
                Some(found) => part.copy_from_slice(&found[..part.len()]),
                None => part.fill(0),
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        for (block, part) in (offset / BLOCK..).zip(bytes.chunks(BLOCK as usize)) {
            self.0.insert(block, part.to_vec());
        }
        Ok(())
    }
}

fn look(rig: &mut Rig) -> Vec<Finding> {
    let mut image = Blocks(&mut rig.blocks);
    check(&mut rig.pool, &mut rig.mem, &mut image, rig.now, Scope::default()).findings
}

/// A pool with data, a thick replica, and a cluster in quarantine.
fn sound() -> Rig {
    let (mut rig, handle) = Rig::new();
    let create = Create {
        uuid: [3; 16],
        name: String::from("thick"),
        bytes: 1 << 20,
        block: BlockSize::B4096,
        thick: true,
        created: 1,
    };
    rig.pool.command(&mut rig.mem, rig.now, 1, Command::Create(Box::new(create)));
    rig.run();
    let thick = rig.pool.find(&[3; 16]).expect("it is there");
    rig.write(thick, 0, 1);
    for block in [0, 64, 128] {
        rig.write(handle, block, 7);
        rig.run();
    }
    rig.ask(handle, Work::Zero { offset: 0, len: CLUSTER, durable: false });
    rig.run();
    rig.take_ended();
    rig
}

#[test]
fn each_figure_of_the_space_is_counted_by_itself() {
    let breaks: [(Figure, Break); 8] = [
        (Figure::Total, |space| space.total += 1),
        (Figure::Used, |space| space.used += 1),
        (Figure::Used, |space| space.slabs[0].used -= 1),
        (Figure::Pages, |space| space.maps -= 1),
        (Figure::Quarantined, |space| space.discarding += 1),
        (Figure::Reserved, |space| space.reserve -= 1),
        (Figure::Promised, |space| space.promised += 1),
        (Figure::Granted, |space| space.granted += 1),
    ];
    let mut rig = sound();
    assert_eq!(rig.pool.store.space.quarantined(), 1);
    assert_eq!(rig.pool.store.space.promised, 3);
    assert_eq!(look(&mut rig), [], "nothing is wrong yet");
    for (broken, spoil) in breaks {
        let mut rig = sound();
        spoil(&mut rig.pool.store.space);
        let found = look(&mut rig);
        let is_it = |f: &Finding| matches!(f, Finding::Space { figure, .. } if *figure == broken);
        assert!(found.iter().any(is_it), "{broken:?}: {found:?}");
    }
}

#[test]
fn bitmaps_that_were_loaded_wrong_are_told_by_what_the_maps_come_to() {
    // Opening counts the bits that it loads, so no figure differs from the bits themselves.
    let breaks: [(&[Figure], Break); 4] = [
        (&[Figure::Used, Figure::Free], |space| {
            let free = space.find().expect("one is free");
            space.mark(u64::MAX, free, true);
        }),
        (&[Figure::Used, Figure::Free], |space| {
            let used = |c: &u32| space.is_used(*c) && !space.is_map(*c);
            let used = (0..).find(used).expect("data");
            space.mark(u64::MAX, used, false);
        }),
        (&[Figure::Pages], |space| {
            let pages = space.map_from(0).expect("pages");
            space.mark_map(u64::MAX, pages, false);
        }),
        (&[Figure::Used, Figure::Free], |space| {
            let pages = space.map_from(0).expect("pages");
            space.mark(u64::MAX, pages, false);
        }),
    ];
    for (n, (broken, spoil)) in breaks.into_iter().enumerate() {
        let mut rig = sound();
        spoil(&mut rig.pool.store.space);
        rig.pool.store.space.recount();
        let found = look(&mut rig);
        let told = |wanted: Figure| {
            found.iter().any(|f| matches!(f, Finding::Space { figure, .. } if *figure == wanted))
        };
        assert!(broken.iter().all(|figure| told(*figure)), "{n}: {found:?}");
    }
}

#[test]
fn free_space_that_the_pool_has_forgotten_is_found() {
    // What was let out of quarantine stays held: nobody can use it, and no other figure tells.
    let mut rig = sound();
    let cluster = rig.pool.store.space.quarantine[0].cluster;
    rig.pool.store.space.quarantine.clear();
    assert!(rig.pool.store.space.is_held(cluster));
    let found = look(&mut rig);
    let figure = |wanted: Figure| {
        found.iter().any(|f| matches!(f, Finding::Space { figure, .. } if *figure == wanted))
    };
    assert!(figure(Figure::Free) && figure(Figure::Quarantined), "{found:?}");
}

#[test]
fn what_is_being_discarded_is_counted_once() {
    let (rig, _) = Rig::new();
    let device = crate::Device { discards: true, ..config().device };
    let mut rig = rig.reopen_as(crate::Config { device, ..config() });
    rig.wait(1);
    rig.turn();
    assert!(!rig.effects.is_empty(), "a discard of what is free");
    let found = look(&mut rig);
    assert_eq!(found, []);
}
