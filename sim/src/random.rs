//! Chance from a seed: one fixed algorithm, so that a seed replays for years.

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;

/// A source of chance.
#[derive(Clone, Debug)]
pub struct Random(Pcg64Mcg);

impl Random {
    /// The source for a seed. Neighbouring seeds have nothing in common.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::new(u128::from(mix(seed)) << 64 | u128::from(mix(seed ^ SALT))))
    }

    /// The source for a part of something that has a seed: it does not move the whole's source.
    #[must_use]
    pub fn part(seed: u64, part: u64) -> Self {
        Self::new(mix(seed) ^ part.wrapping_mul(SALT))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        assert_ne!(end, 0, "a choice among nothing");
        let wide = u128::from(self.number()) * u128::from(end);
        u64::try_from(wide >> 64).expect("the high half")
    }

    /// An index below `end`.
    pub fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).expect("an index")
    }

    /// A number from `low` to `high`, both included.
    pub fn within(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True once in `of` times.
    pub fn once_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }

    /// One of the elements.
    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.index(among.len())]
    }

    /// A position, as likely as its weight.
    pub fn weighted(&mut self, weights: &[u32]) -> usize {
        let all: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = self.below(all);
        for (position, weight) in weights.iter().enumerate() {
            match left.checked_sub(u64::from(*weight)) {
                Some(rest) => left = rest,
                None => return position,
            }
        }
        unreachable!("a choice lies below the sum of the weights")
    }
}

const SALT: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads the bits of a number (the finalizer of MurmurHash3).
pub(crate) const fn mix(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_for_years() {
        let mut random = Random::new(7);
        let first = [random.number(), random.number()];
        assert_eq!(first, FIRST);
        assert_ne!(Random::part(7, 1).number(), Random::part(7, 2).number());
    }

    /// As computed once: a change here breaks every seed that was ever written down.
    const FIRST: [u64; 2] = [11_403_019_229_939_411_940, 4_915_970_722_232_624_547];

    #[test]
    fn weights_are_kept() {
        let mut random = Random::new(1);
        let mut counts = [0; 3];
        (0..3000).for_each(|_| counts[random.weighted(&[1, 0, 2])] += 1);
        assert_eq!(counts[1], 0);
        assert!((800..1200).contains(&counts[0]), "{counts:?}");
    }
}
