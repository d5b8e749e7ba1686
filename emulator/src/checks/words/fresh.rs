//! The words that a warp has written since it last knew all that it had written.

use std::sync::Arc;

use super::recent::Write;
use crate::checks::layout::Layout;

/// A set of words, filled from a list of writes when somebody asks.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    words: usize,
    /// A bit for each word, once one is written; those from the first to before the last of these numbers may be set.
    bits: Vec<u64>,
    low: usize,
    high: usize,
    /// The clock of the last write; if that is known, so are all.
    clock: u32,
    /// Writes of the list that are here, or need not be.
    taken: usize,
}

impl Fresh {
    /// Forgets everything: there are so many words.
    pub(super) fn reset(&mut self, words: usize) {
        self.clear();
        if self.words != words {
            (self.words, self.bits) = (words, Vec::new());
        }
        (self.clock, self.taken) = (0, 0);
    }

    fn clear(&mut self) {
        if self.low < self.high {
            self.bits[self.low..self.high].fill(0);
        }
        (self.low, self.high) = (usize::MAX, 0);
    }

    /// So many writes have been taken from the beginning of the list.
    pub(super) fn shorten(&mut self, count: usize) {
        self.taken = self.taken.saturating_sub(count);
    }

    /// Takes in what the list has more, by a warp that knows its writes up to a clock.
    pub(super) fn take(
        &mut self,
        writes: &[Write],
        layouts: &[Arc<Layout>],
        (warp, known): (u32, u32),
    ) {
        if self.clock <= known {
            self.clear();
        }
        for write in &writes[self.taken..] {
            let clock = write.stamp.clock();
            if write.by >> 27 == warp && clock > known {
                self.add((&layouts[write.layout as usize], write.base as usize), clock);
            }
        }
        self.taken = writes.len();
    }

    fn add(&mut self, (layout, base): (&Layout, usize), clock: u32) {
        self.clock = clock;
        if self.bits.is_empty() {
            self.bits = vec![0; self.words.div_ceil(64)];
        }
        let (start, end) = layout.span(base);
        (self.low, self.high) = (self.low.min(start / 64), self.high.max(end.div_ceil(64)));
        each(layout, base, |number, bits| self.bits[number] |= bits);
    }

    /// Whether the warp may have written a word of a layout at a later clock than the one up to which it knows all its writes.
    pub(super) fn meets(&self, (layout, base): (&Layout, usize), known: u32) -> bool {
        let mut common = 0;
        if self.clock > known {
            each(layout, base, |number, bits| common |= self.bits[number] & bits);
        }
        common != 0
    }
}

/// Visits the words of a layout, as bits of numbers.
#[inline(always)]
fn each(layout: &Layout, base: usize, mut visit: impl FnMut(usize, u64)) {
    for &(first, count) in &layout.runs {
        let mut at = base.wrapping_add_signed(first as isize);
        let end = at.wrapping_add(count as usize);
        while at < end {
            let count = (64 - at % 64).min(end - at);
            visit(at / 64, u64::MAX >> (64 - count) << (at % 64));
            at += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lanes::{ALL, LANES, Lanes, lanes};
    use crate::random::Random;

    #[test]
    fn words_are_fresh_until_they_are_known() {
        let mut random = Random::new(6, 1);
        let (mut fresh, mut met) = (Fresh::default(), 0);
        for round in 0..60 {
            fresh.reset(1000);
            let (mut clocks, mut clock, mut known) = ([0; 1000], 1, 0);
            let (mut list, mut layouts) = (Vec::new(), Vec::new());
            for _ in 0..40 {
                let (group, pitch) = (1 << random.below(6), random.below(90));
                let lay = |lane: usize| (4 * (lane / group * pitch + lane % group)) as u64;
                let distances = Lanes(std::array::from_fn(lay));
                let span = (0, distances.0.iter().max().unwrap().cast_signed());
                let mask = if round % 2 == 0 { ALL } else { random.next() as u32 | 1 };
                let Some(layout) = Layout::new(&distances, mask, 4, span) else { continue };
                let end = layout.span(0).1;
                if end > 1000 {
                    continue;
                }
                let (layout, base) = (Arc::new(layout), random.below(1001 - end));
                let all = || lanes(mask).map(|lane| base + distances.0[lane] as usize / 4);
                let later = all().any(|word| clocks[word] > known);
                fresh.take(&list, &layouts, (1, known));
                assert!(
                    fresh.meets((&layout, base), known) == later || !later && known + 1 < clock
                );
                assert!(!fresh.meets((&layout, base), clock));
                met += usize::from(later);
                if random.below(3) == 0 {
                    clock += 1;
                    known = clock - 1 - random.below(2) as u32;
                }
                let warp = random.below(3).min(1) as u32;
                let write =
                    Write::new((clock, warp), (layouts.len() as u32, base), (base, base + end));
                list.push(write);
                layouts.push(layout);
                if warp == 1 {
                    all().for_each(|word| clocks[word] = clock);
                }
                if random.below(9) == 0 {
                    fresh.take(&list, &layouts, (1, known));
                    list.drain(..1);
                    fresh.shorten(1);
                }
            }
        }
        assert!(met > LANES, "{met}");
    }
}
