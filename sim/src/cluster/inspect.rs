//! Replicas laid side by side: what must be equal, and what must be marked where it is not.

use std::collections::{BTreeMap, BTreeSet};

use braid_nexus::Uuid;

use super::format::Layer;
use crate::image::BLOCK;
use crate::oracle::Violation;

/// Blocks of a region, the unit of marks.
const REGION_BLOCKS: u64 = (1 << 20) / BLOCK as u64;

/// A replica's layer, and what people call the replica.
pub(super) type Named<'a> = (&'a str, &'a Layer);

/// *Convergence*: all members are equal block by block, holes included.
pub(super) fn convergence(members: &[Named<'_>]) -> Result<(), Violation> {
    for pair in members.windows(2) {
        if let Some(text) = difference(pair[0], pair[1], |_| true) {
            return Err(Violation::new("Convergence", text));
        }
    }
    Ok(())
}

/// *MarksCover*: two members without a mark on a region are equal there.
pub(super) fn marks_cover(members: &[Named<'_>], place: &str) -> Result<(), Violation> {
    for (at, one) in members.iter().enumerate() {
        for other in &members[at + 1..] {
            let bare = |block: u64| {
                let region = block / REGION_BLOCKS;
                !is_marked(one.1, region) && !is_marked(other.1, region)
            };
            if let Some(text) = difference(*one, *other, bare) {
                return Err(Violation::new("MarksCover", format!("{place}: {text}, no mark")));
            }
        }
    }
    Ok(())
}

fn is_marked(layer: &Layer, region: u64) -> bool {
    layer.marks.iter().any(|(first, count)| {
        (u64::from(*first)..u64::from(*first) + u64::from(*count)).contains(&region)
    })
}

/// The first block that two replicas do not have alike. One that cannot be read is not compared:
/// it is read from the other, and written back.
fn difference(one: Named<'_>, other: Named<'_>, of: impl Fn(u64) -> bool) -> Option<String> {
    let numbers: BTreeSet<u64> =
        one.1.blocks.keys().chain(other.1.blocks.keys()).copied().collect();
    let differs = |number: &u64| {
        let (a, b) = (one.1.blocks.get(number), other.1.blocks.get(number));
        let bad = |block: Option<&Option<_>>| matches!(block, Some(None));
        !bad(a) && !bad(b) && a != b
    };
    let at = numbers.into_iter().filter(|number| of(*number)).find(differs)?;
    let say = |layer: &Layer| match layer.blocks.get(&at) {
        Some(Some(bytes)) => describe(&bytes[..]),
        _ => "zeros".into(),
    };
    Some(format!("block {at} is {} in {} and {} in {}", say(one.1), one.0, say(other.1), other.0))
}

/// A block's content in a few words.
fn describe(bytes: &[u8]) -> String {
    use crate::payload::{SECTOR, Said, said};
    let mut words: Vec<String> = bytes
        .chunks_exact(SECTOR)
        .map(|sector| match said(sector) {
            Said::Zero => "0".into(),
            Said::Written { write, .. } => format!("#{}", write % (1 << 26)),
            Said::Garbage => "?".into(),
        })
        .collect();
    words.dedup();
    format!("[{}]", words.join(" "))
}

/// *SnapshotPoint*, as far as copies go: all holders have the same, and it never changes.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshots {
    seen: BTreeMap<Uuid, BTreeMap<u64, Box<[u8; BLOCK]>>>,
}

impl Snapshots {
    /// A holder's copy of a snapshot was looked at.
    pub(super) fn looked(&mut self, uuid: Uuid, holder: Named<'_>) -> Result<(), Violation> {
        let whole = holder.1.blocks.iter().all(|(_, block)| block.is_some());
        let Some(known) = self.seen.get(&uuid) else {
            if whole {
                let blocks = holder.1.blocks.iter();
                let blocks = blocks.filter_map(|(at, block)| Some((*at, block.clone()?)));
                self.seen.insert(uuid, blocks.collect());
            }
            return Ok(());
        };
        let known = known.iter().map(|(at, block)| (*at, Some(block.clone()))).collect();
        let before = Layer { blocks: known, ..holder.1.clone() };
        match difference(("what it was before, or elsewhere", &before), holder, |_| true) {
            None => Ok(()),
            Some(text) => {
                let text = format!("snapshot {:02x}{:02x}: {text}", uuid[0], uuid[1]);
                Err(Violation::new("SnapshotPoint", text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use braid_block::BlockSize;
    use braid_pool::{Handle, LayerInfo};

    use super::*;

    fn layer(blocks: &[(u64, Option<u8>)], marks: &[(u32, u32)]) -> Layer {
        let info = LayerInfo {
            handle: Handle(0),
            uuid: [1; 16],
            name: String::new(),
            snapshot: false,
            source: None,
            bytes: 4 << 20,
            block: BlockSize::B512,
            thick: false,
            member: true,
            created: 0,
            instance: 1,
            flush_number: 0,
            own: 0,
            shared: 0,
            children: 0,
        };
        let blocks = blocks.iter().map(|(at, fill)| (*at, fill.map(|b| Box::new([b; BLOCK]))));
        Layer { info, blocks: blocks.collect(), marks: marks.to_vec() }
    }

    fn name(result: Result<(), Violation>) -> Option<&'static str> {
        result.err().map(|violation| violation.invariant)
    }

    #[test]
    fn members_that_differ_in_a_block_or_a_hole_are_found() {
        let one = layer(&[(3, Some(1)), (9, Some(2))], &[]);
        let same = convergence(&[("a", &one), ("b", &one.clone())]);
        assert_eq!(name(same), None);
        let hole = layer(&[(3, Some(1))], &[]);
        let found = convergence(&[("a", &one), ("b", &one.clone()), ("c", &hole)]);
        assert_eq!(name(found), Some("Convergence"));
        let bad = layer(&[(3, Some(1)), (9, None)], &[]);
        assert_eq!(name(convergence(&[("a", &one), ("b", &bad)])), None);
    }

    #[test]
    fn a_difference_needs_a_mark_on_one_of_both() {
        let one = layer(&[(300, Some(1))], &[(0, 1)]);
        let other = layer(&[(300, Some(2))], &[]);
        let found = marks_cover(&[("a", &one), ("b", &other)], "in memory");
        assert_eq!(name(found), Some("MarksCover"));
        let marked = layer(&[(300, Some(1))], &[(0, 2)]);
        assert_eq!(name(marks_cover(&[("a", &marked), ("b", &other)], "in memory")), None);
        assert_eq!(name(marks_cover(&[("b", &other), ("a", &marked)], "in memory")), None);
    }

    #[test]
    fn a_snapshot_that_changes_is_found() {
        let mut snapshots = Snapshots::default();
        let one = layer(&[(3, Some(1))], &[]);
        snapshots.looked([7; 16], ("a", &one)).unwrap();
        snapshots.looked([7; 16], ("b", &one)).unwrap();
        snapshots.looked([8; 16], ("a", &layer(&[], &[]))).unwrap();
        let other = layer(&[(3, Some(2))], &[]);
        assert_eq!(name(snapshots.looked([7; 16], ("b", &other))), Some("SnapshotPoint"));
        assert_eq!(name(snapshots.looked([7; 16], ("a", &one))), None);
    }
}
