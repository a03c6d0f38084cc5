//! Power cuts: which of the contents that a disk's unflushed sectors may have, they have.

use crate::disk::{Disk, Uncertain};
use crate::image::Image;
use crate::random::Random;

/// All that a power cut may leave of a disk at one moment.
#[derive(Debug)]
pub struct Cuts {
    durable: Image,
    sectors: Vec<Uncertain>,
    sector: u32,
    bytes: u64,
}

/// How a random cut chooses: failures of a real disk are not independent, and a bug may need
/// nearly all to survive, or nearly nothing.
#[derive(Clone, Copy, Debug)]
enum Style {
    /// Nothing that is not durable.
    Nothing,
    /// The newest of everything.
    Everything,
    /// Each write wholly or not at all.
    Whole,
    /// Each write wholly or not at all, but one, which is torn.
    Torn,
    /// The same, but of that one its first sectors survive: it was on its way when the power
    /// failed.
    Begun,
    /// Everything but one write.
    AllButOne,
    /// One write alone.
    OneAlone,
    /// What came before a moment.
    Prefix,
    /// Each sector for itself.
    Sectors,
    /// Each sector for itself, nearly all old, or nearly all new.
    Rarely,
}

const STYLES: [(Style, u32); 10] = [
    (Style::Nothing, 1),
    (Style::Everything, 1),
    (Style::Whole, 4),
    (Style::Torn, 3),
    (Style::Begun, 3),
    (Style::AllButOne, 3),
    (Style::OneAlone, 2),
    (Style::Prefix, 2),
    (Style::Sectors, 3),
    (Style::Rarely, 2),
];

impl Cuts {
    /// What a cut may leave of a disk now.
    #[must_use]
    pub fn of(disk: &Disk) -> Self {
        Self {
            durable: disk.durable().clone(),
            sectors: disk.uncertain(),
            sector: disk.sector(),
            bytes: disk.bytes(),
        }
    }

    /// How many different states there are, if they are not more than `most`.
    #[must_use]
    pub fn count(&self, most: u64) -> Option<u64> {
        let mut count = 1_u64;
        for sector in &self.sectors {
            count = count.checked_mul(sector.versions.len() as u64 + 1)?;
            if count > most {
                return None;
            }
        }
        Some(count)
    }

    /// The state with this number, below [`Cuts::count`].
    #[must_use]
    pub fn numbered(&self, mut number: u64) -> Disk {
        self.choose(|sector| {
            let choices = sector.versions.len() as u64 + 1;
            let choice = number % choices;
            number /= choices;
            usize::try_from(choice).expect("few versions").checked_sub(1)
        })
    }

    /// Some state.
    #[must_use]
    pub fn random(&self, random: &mut Random) -> Disk {
        let mut writes: Vec<u64> =
            self.sectors.iter().flat_map(|s| s.versions.iter().map(|(of, ..)| *of)).collect();
        writes.sort_unstable();
        writes.dedup();
        if writes.is_empty() {
            return self.numbered(0);
        }
        let style = STYLES[random.weighted(&STYLES.map(|(_, weight)| weight))].0;
        let one = *random.pick(&writes);
        let len = self.sectors.iter().flat_map(|sector| &sector.versions).find(|v| v.0 == one);
        let border = random.index(len.map_or(1, |(_, bytes, _)| bytes.len()));
        let salt = random.number();
        let odds = random.within(2, 12);
        let few = random.once_in(2);
        let lucky = |write: u64| Random::part(salt, write).once_in(2);
        let newest = |sector: &Uncertain, lives: &mut dyn FnMut(u64) -> bool| {
            sector.versions.iter().rposition(|(of, ..)| lives(*of))
        };
        self.choose(|sector| match style {
            Style::Nothing => None,
            Style::Everything => newest(sector, &mut |_| true),
            Style::Whole => newest(sector, &mut |of| lucky(of)),
            Style::Torn => newest(sector, &mut |of| match of == one {
                true => random.once_in(2),
                false => lucky(of),
            }),
            Style::Begun => sector.versions.iter().rposition(|(of, _, from)| match *of == one {
                true => *from < border,
                false => lucky(*of),
            }),
            Style::AllButOne => newest(sector, &mut |of| of != one),
            Style::OneAlone => newest(sector, &mut |of| of == one),
            Style::Prefix => newest(sector, &mut |of| of <= one),
            Style::Sectors => random.index(sector.versions.len() + 1).checked_sub(1),
            Style::Rarely => newest(sector, &mut |_| random.once_in(odds) == few),
        })
    }

    /// Some state of which some sectors that were in the cache, or on their way, are garbage:
    /// what no disk should leave, and a checksum has to show.
    #[must_use]
    pub fn garbled(&self, random: &mut Random) -> Disk {
        let mut image = self.random(random).current().clone();
        let odds = random.within(1, 4);
        let mut garbage = vec![0; self.sector as usize];
        for sector in &self.sectors {
            if !random.once_in(odds) {
                continue;
            }
            for chunk in garbage.chunks_exact_mut(8) {
                chunk.copy_from_slice(&random.number().to_le_bytes());
            }
            image.write(sector.offset, &garbage);
        }
        Disk::of_image(image, self.bytes, self.sector)
    }

    /// The disk of which each sector has the version chosen, or its durable content.
    fn choose(&self, mut which: impl FnMut(&Uncertain) -> Option<usize>) -> Disk {
        let mut image = self.durable.clone();
        for sector in &self.sectors {
            if let Some(chosen) = which(sector) {
                let (_, bytes, from) = &sector.versions[chosen];
                image.write(sector.offset, &bytes[*from..*from + self.sector as usize]);
            }
        }
        Disk::of_image(image, self.bytes, self.sector)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Work;
    use std::collections::BTreeSet;

    /// Two overlapping writes that are done, and one in flight.
    fn disk() -> Disk {
        let mut disk = Disk::new(1 << 20, 512);
        for (byte, offset, len) in [(1, 0, 1024), (2, 512, 512)] {
            let bytes = vec![byte; len].into();
            let flight = disk.submit(Work::Write { offset, bytes });
            disk.complete(flight, &mut Random::new(1), &mut []).unwrap();
        }
        disk.submit(Work::Write { offset: 4096, bytes: vec![3; 512].into() });
        disk
    }

    fn state(disk: &Disk) -> [u8; 3] {
        [0, 512, 4096].map(|offset| {
            let mut byte = [0];
            disk.current().read(offset, &mut byte);
            byte[0]
        })
    }

    #[test]
    fn every_subset_survives_once() {
        let cuts = Cuts::of(&disk());
        assert_eq!(cuts.count(11), None);
        assert_eq!(cuts.count(12), Some(12));
        let states: BTreeSet<_> = (0..12).map(|number| state(&cuts.numbered(number))).collect();
        assert_eq!(states.len(), 12);
        assert!(states.contains(&[1, 1, 3]), "an overwritten version may be what survives");
    }

    #[test]
    fn chance_finds_them_all_too() {
        let cuts = Cuts::of(&disk());
        let mut random = Random::new(5);
        let states: BTreeSet<_> = (0..2000).map(|_| state(&cuts.random(&mut random))).collect();
        assert_eq!(states.len(), 12);
    }
}
