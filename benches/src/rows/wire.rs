//! P2 and P5: our target beside a program that only frames the same bytes.

use std::io;
use std::net::TcpStream;

use super::{MEMORY, MEMORY_BLOCKS, controller, fill};
use crate::load::{Load, Way};
use crate::machine::{Server, Setup};
use crate::measure::{Figure, SLICE, Slice, column};
use crate::table::{Aim, Row};

/// Depths, and what is aimed at: the ratio of IOPS, and the CPU time per I/O. The latter is what
/// SPDK's target takes of its one core at its best (one over its IOPS at this depth).
const DEPTHS: [(u16, Aim, Aim); 3] = [
    (1, Aim::None, Aim::None),
    (32, Aim::AtLeast(0.5), Aim::AtMost(2.9)),
    (128, Aim::AtLeast(0.5), Aim::AtMost(2.2)),
];

/// All ways and depths.
pub(crate) fn rows(setup: &Setup, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let (engine, engine_at) = Server::engine(setup, &[MEMORY])?;
    let (framing, framing_at) = Server::framing(setup)?;
    let controller = controller(engine_at, 1)?;
    fill(&controller, 1, MEMORY_BLOCKS)?;
    for way in [Way::Read, Way::Write] {
        for (depth, ratio_aim, cpu_aim) in DEPTHS {
            let bare = TcpStream::connect(framing_at)?;
            bare.set_nodelay(true)?;
            let mut ours = Load::new(controller.queue(1)?, way, 1, depth, MEMORY_BLOCKS);
            let mut theirs = Load::new(bare, way, 1, depth, MEMORY_BLOCKS);
            let (mut a, mut b) = (Vec::new(), Vec::new());
            for _ in 0..setup.rounds() {
                a.push(engine.slice(|| ours.run(SLICE))?);
                b.push(framing.slice(|| theirs.run(SLICE))?);
            }
            for row in compared(way, depth, (&a, &b), (ratio_aim, cpu_aim)) {
                told(row);
            }
        }
    }
    Ok(())
}

fn compared(way: Way, depth: u16, (a, b): (&[Slice], &[Slice]), aims: (Aim, Aim)) -> [Row; 2] {
    let name = format!("{} 4 KiB, QD {depth}, memory; other: bare wire", way.name());
    let (ours, other) = (column(a, |s| s.iops), column(b, |s| s.iops));
    let (our_cpu, other_cpu) = (column(a, |s| s.cpu), column(b, |s| s.cpu));
    let (iops_aim, cpu_aim) = aims;
    let cpu = Figure::of(our_cpu);
    [
        Row {
            id: "P2",
            what: name,
            unit: "IOPS",
            counts: Figure::ratio(&ours, &other),
            ours: Figure::of(ours),
            other: Some(Figure::of(other)),
            aim: iops_aim,
            aim_text: text(iops_aim, "IOPS >= 0.50x"),
        },
        Row {
            id: "P5",
            what: format!("{} 4 KiB, QD {depth}, CPU per I/O", way.name()),
            unit: "us",
            counts: cpu,
            ours: cpu,
            other: Some(Figure::of(other_cpu)),
            aim: cpu_aim,
            aim_text: match cpu_aim {
                Aim::AtMost(us) => format!("<= {us} us (SPDK)"),
                _ => String::new(),
            },
        },
    ]
}

fn text(aim: Aim, words: &str) -> String {
    if matches!(aim, Aim::None) { String::new() } else { words.to_owned() }
}
