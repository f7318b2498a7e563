//! The one source of chance of a run: a seed goes in, the same choices come out on every machine. Nothing else in the
//! simulator may choose.

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// splitmix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0. The bias of the remainder is of no matter here.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A number from `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A place in something of that length.
    pub(crate) fn at(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("a place in memory")
    }

    /// One of them.
    pub(crate) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.at(of.len())]
    }

    /// One of them, each as often as its weight says.
    pub(crate) fn weighted<T: Copy>(&mut self, of: &[(T, u64)]) -> T {
        let mut drawn = self.below(of.iter().map(|(_, weight)| weight).sum());
        let chosen = of.iter().find(|(_, weight)| {
            let here = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            here
        });
        chosen.unwrap_or(&of[0]).0
    }

    /// Whether something happens that does so `in_thousand` times in a thousand.
    pub(crate) fn chance(&mut self, in_thousand: u64) -> bool {
        self.below(1_000) < in_thousand
    }

    /// A length about as long as `mean`: most are shorter, some are several times as long. Nearly an exponential
    /// distribution, in whole numbers so that every machine agrees: the number of halvings is geometric.
    pub(crate) fn about(&mut self, mean: u64) -> u64 {
        let halves = u64::from((self.next() | (1 << 12)).trailing_zeros());
        let step = (mean * 7 / 10).max(1);
        halves * step + self.below(step)
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let chosen = self.at(last + 1);
            items.swap(last, chosen);
        }
    }

    /// Another source, so that who draws more here changes nothing there.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.next())
    }
}
