//! What a free seed draws: how hosts, the network, disks and the store behave.

use std::time::Duration;

use super::Spread;
use super::drive::Pace;
use super::host::Habits;
use super::net::Weather;
use super::store::Whims;
use crate::random::Random;

pub(super) fn habits(random: &mut Random, sectors: u64) -> Habits {
    let hot = *random.pick(&[8, 64, 256]);
    Habits {
        depth: usize::try_from(random.within(1, 32)).unwrap_or(1),
        think: Duration::from_millis(*random.pick(&[1, 20, 200])),
        patience: Duration::from_secs(*random.pick(&[2, 8, 30])),
        reconnect: Duration::from_millis(*random.pick(&[50, 300, 2000])),
        weights: [
            1 + u32::try_from(random.below(10)).unwrap_or(0),
            1 + u32::try_from(random.below(10)).unwrap_or(0),
            u32::try_from(random.below(3)).unwrap_or(0),
            u32::try_from(random.below(3)).unwrap_or(0),
        ],
        durable_in: *random.pick(&[0, 3, 20]),
        hot: (8 * random.below((sectors - hot) / 8), hot),
        heat: *random.pick(&[30, 70, 100]),
        sectors,
        transfer: *random.pick(&[8, 64, 256]),
        ragged: *random.pick(&[0, 20, 100]),
    }
}

pub(super) fn weather(random: &mut Random) -> Weather {
    Weather {
        delay: *random.pick(&[
            Spread::micros(20, 200),
            Spread::micros(50, 2000),
            Spread::micros(100, 50_000),
        ]),
        slow_in: *random.pick(&[0, 0, 1000, 100]),
        reset_in: *random.pick(&[0, 0, 20_000, 1000]),
        half_open_in: *random.pick(&[0, 0, 4]),
        ..Weather::default()
    }
}

pub(super) fn pace(random: &mut Random) -> Pace {
    let spread = |random: &mut Random| {
        *random.pick(&[
            Spread::micros(20, 200),
            Spread::micros(50, 2000),
            Spread::micros(200, 30_000),
        ])
    };
    Pace {
        read: spread(random),
        write: spread(random),
        flush: spread(random),
        stall_in: *random.pick(&[0, 0, 20_000, 2000]),
        ..Pace::default()
    }
}

pub(super) fn whims(random: &mut Random) -> Whims {
    Whims {
        lose_request_in: *random.pick(&[0, 0, 10, 3]),
        lose_answer_in: *random.pick(&[0, 0, 10, 3]),
        late_in: *random.pick(&[0, 0, 10, 3]),
        ..Whims::default()
    }
}
