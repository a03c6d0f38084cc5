//! P1, our half: latency at depth 1 by the way the engine waits. Beside it stands what SPDK's
//! target (one polling core) takes on such a machine; an independent initiator measures both.

use std::io;

use super::{MEMORY, MEMORY_BLOCKS, controller, fill};
use crate::load::{Load, Way};
use crate::machine::{Server, Setup};
use crate::measure::{Figure, SLICE, count};
use crate::table::{Aim, Row};

/// Microseconds of a read at depth 1 from SPDK's target, as seen on such a machine.
const SPDK_US: f64 = 22.0;

const MODES: [(&str, f64); 3] = [("always", 1.0), ("adaptive", 1.5), ("never", 1.5)];

/// A row per way of waiting.
pub(crate) fn rows(setup: &Setup, told: &mut dyn FnMut(Row)) -> io::Result<()> {
    for (mode, times) in MODES {
        // One at a time: an engine that always polls leaves no CPU to the others.
        let (engine, address) = Server::engine(setup, &[MEMORY, "--poll", mode])?;
        let controller = controller(address, 1)?;
        fill(&controller, 1, MEMORY_BLOCKS)?;
        let mut load = Load::new(controller.queue(1)?, Way::Read, 1, 1, MEMORY_BLOCKS);
        let mut medians = Vec::new();
        for _ in 0..setup.rounds() {
            load.watch();
            load.run(SLICE)?;
            let median = load.latency.as_ref().map_or(0, |l| l.value_at_quantile(0.5));
            medians.push(count(median) / 1e3);
        }
        drop(engine);
        let latency = Figure::of(medians);
        told(Row {
            id: "P1",
            what: format!("read 4 KiB, QD 1, latency, --poll {mode}"),
            unit: "us",
            ours: latency,
            other: None,
            counts: latency,
            aim: Aim::AtMost(SPDK_US * times),
            aim_text: format!("<= {:.0} us ({times}x SPDK)", SPDK_US * times),
        });
    }
    Ok(())
}
