//! P2 and P5: our target beside a program that only frames the same bytes.

use std::io;
use std::net::TcpStream;

use super::{controller, fill};
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

/// Namespaces: one that stays in the CPU's cache, as the bytes of the bare wire do, and one that
/// does not, whose every block comes from memory.
const SIZES: [(&str, u64, &[usize]); 2] =
    [("1 MiB", (1 << 20) / 4096, &[0, 1, 2]), ("256 MiB", (256 << 20) / 4096, &[1, 2])];

/// All sizes, ways and depths.
pub(crate) fn rows(setup: &Setup, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    let (engine, engine_at) = Server::engine(setup, &["mem:1MiB", "mem:256MiB"])?;
    let (framing, framing_at) = Server::framing(setup)?;
    let controller = controller(engine_at, 1)?;
    for (nsid, (size, blocks, depths)) in (1..).zip(SIZES) {
        fill(&controller, nsid, blocks)?;
        for way in [Way::Read, Way::Write] {
            for (depth, ratio_aim, cpu_aim) in depths.iter().map(|at| DEPTHS[*at]) {
                let bare = TcpStream::connect(framing_at)?;
                bare.set_nodelay(true)?;
                let mut ours = Load::new(controller.queue(1)?, way, nsid, depth, blocks);
                let mut theirs = Load::new(bare, way, nsid, depth, blocks);
                let (mut a, mut b) = (Vec::new(), Vec::new());
                for _ in 0..setup.rounds() {
                    a.push(engine.slice(|| ours.run(SLICE))?);
                    b.push(framing.slice(|| theirs.run(SLICE))?);
                }
                let name = format!("{} 4 KiB, QD {depth}, {size}", way.name());
                compared(&name, (&a, &b), (ratio_aim, cpu_aim)).into_iter().for_each(&mut *told);
            }
        }
    }
    Ok(())
}

fn compared(name: &str, (a, b): (&[Slice], &[Slice]), aims: (Aim, Aim)) -> [Row; 2] {
    let (ours, other) = (column(a, |s| s.iops), column(b, |s| s.iops));
    let (our_cpu, other_cpu) = (column(a, |s| s.cpu), column(b, |s| s.cpu));
    let (iops_aim, cpu_aim) = aims;
    let cpu = Figure::of(our_cpu);
    [
        Row {
            id: "P2",
            what: format!("{name}; other: bare wire"),
            unit: "IOPS",
            counts: Figure::ratio(&ours, &other),
            ours: Figure::of(ours),
            other: Some(Figure::of(other)),
            aim: iops_aim,
            aim_text: text(iops_aim, "IOPS >= 0.50x"),
        },
        Row {
            id: "P5",
            what: format!("{name}, CPU per I/O; other: bare wire"),
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
