//! How the lanes of an access lie to each other. An instruction in a loop mostly keeps that while it moves on, and with it
//! the sectors or wavefronts that its accesses take, and what the checks of races have to look at.

use std::sync::Arc;

use super::lanes::{LANES, Lanes, Mask, lanes};
use super::wide::{self, Routine};
use crate::checks::layout::Layout;
use crate::checks::stretch::{Stretch, stretches};
use crate::counters::{SharedTraffic, Traffic};
use crate::kept::Kept;
use crate::memory::{GLOBAL_BASE, WINDOW_BYTES};

/// Patterns that are known of an instruction: those of warps with different numbers modulo half of this, and a copy's apart
/// from its source's.
const WAYS: usize = 8;

/// Patterns of one access, one after the other, of which each is taken to come again before it has.
const SETTLED: u32 = 4;

/// Whose access is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    site: u32,
    way: u32,
}

impl Slot {
    /// The access of an instruction; of a copy, that to its destination.
    #[inline(always)]
    pub(crate) fn of(site: u32, warp: u32) -> Slot {
        Slot { site, way: 2 * warp % WAYS as u32 }
    }

    /// A copy's access to its source.
    #[inline(always)]
    pub(crate) fn source(site: u32, warp: u32) -> Slot {
        Slot { site, way: (2 * warp + 1) % WAYS as u32 }
    }
}

/// For each instruction, the last accesses. A thread of the host keeps them from CTA to CTA.
#[derive(Debug, Default)]
pub(crate) struct Patterns(Vec<Option<Box<Ways>>>);

type Ways = [Option<Box<Pattern>>; WAYS];

/// How lanes lie to each other.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// Of each lane from the first of the mask.
    distances: Lanes<u64>,
    mask: Mask,
    /// What each lane accesses.
    bytes: u64,
    /// Where in its sector the first lane begins.
    place: u64,
    /// By where in its sector, in words, the first lane begins.
    global: [Option<Traffic>; 8],
    shared: Option<SharedTraffic>,
    /// Made when the pattern is seen again.
    again: Option<Again>,
    /// How many patterns this is the last of.
    changes: u32,
}

/// What is worth being known of a pattern that comes again.
#[derive(Debug, Default)]
struct Again {
    /// Least and largest distance.
    span: (i64, i64),
    /// As [`stretches`] gives them, by distance.
    stretches: Box<[Stretch]>,
    kept_stretches: Kept,
    /// Made when somebody wants it.
    layout: Option<Option<Arc<Layout>>>,
    kept_layout: Kept,
}

impl Patterns {
    /// The pattern of an access that an instruction makes now.
    ///
    /// All lanes move by multiples of `bytes`: that turns the banks round and leaves the wavefronts as they were. If their
    /// place in a sector stays too, so do the sectors.
    #[inline(always)]
    pub(crate) fn of(
        &mut self,
        slot: Slot,
        addresses: &Lanes<u64>,
        mask: Mask,
        bytes: u64,
    ) -> &mut Pattern {
        let first = addresses.0[mask.trailing_zeros() as usize % LANES];
        let site = slot.site as usize;
        if site >= self.0.len() {
            self.0.resize_with(site + 1, || None);
        }
        let ways = self.0[site].get_or_insert_default();
        let known = &mut ways[slot.way as usize % WAYS];
        let same = known.as_ref().is_some_and(|known| {
            known.mask == mask
                && known.place % 4 == first % 4
                && known.bytes == bytes
                && wide::call(Same { addresses, first, distances: &known.distances })
        });
        let pattern = known.get_or_insert_with(Pattern::empty);
        if !same {
            pattern.become_new(addresses, first, mask, bytes);
        } else {
            pattern.place = first % 32;
            if pattern.again.is_none() {
                pattern.come_again();
            }
        }
        pattern
    }

    /// The pattern that [`Patterns::of`] has just given.
    #[inline(always)]
    pub(crate) fn last(&mut self, slot: Slot) -> Option<&mut Pattern> {
        self.0.get_mut(slot.site as usize)?.as_mut()?[slot.way as usize % WAYS].as_deref_mut()
    }
}

impl Pattern {
    fn empty() -> Box<Pattern> {
        Box::new(Pattern {
            distances: Lanes::default(),
            mask: 0,
            bytes: 0,
            place: 0,
            global: Default::default(),
            shared: None,
            again: None,
            changes: 0,
        })
    }

    #[inline(never)]
    fn become_new(&mut self, addresses: &Lanes<u64>, first: u64, mask: Mask, bytes: u64) {
        for (distance, at) in self.distances.0.iter_mut().zip(&addresses.0) {
            *distance = at.wrapping_sub(first);
        }
        (self.mask, self.bytes, self.place) = (mask, bytes, first % 32);
        (self.global, self.shared, self.again) = (Default::default(), None, None);
        self.changes = self.changes.saturating_add(1);
    }

    #[inline(never)]
    fn come_again(&mut self) {
        let mut all = Vec::new();
        stretches(&self.distances, self.mask, self.bytes, |stretch| all.push(stretch));
        let mut span = (0, 0);
        for lane in lanes(self.mask) {
            let distance = self.distances.0[lane].cast_signed();
            span = (span.0.min(distance), span.1.max(distance));
        }
        self.again = Some(Again { span, stretches: all.into(), ..Again::default() });
    }

    /// The traffic of an access to global memory.
    #[inline(always)]
    pub(crate) fn global(&mut self, addresses: &Lanes<u64>) -> &Traffic {
        self.global[self.place as usize / 4 % 8].get_or_insert_with(|| {
            let mut traffic = Traffic::default();
            traffic.count(addresses, self.mask, self.bytes);
            traffic
        })
    }

    /// The traffic of an access to shared memory.
    #[inline(always)]
    pub(crate) fn shared(&mut self, addresses: &Lanes<u64>) -> SharedTraffic {
        *self.shared.get_or_insert_with(|| {
            let mut traffic = SharedTraffic::default();
            traffic.count(addresses, self.mask, self.bytes);
            traffic
        })
    }

    /// As [`Layout`], if the pattern has come again or promises to, and has one; and where that is kept.
    #[inline(always)]
    pub(crate) fn layout(&mut self) -> Option<(&Arc<Layout>, &mut Kept)> {
        if self.again.is_none() && self.changes <= SETTLED {
            self.come_again();
        }
        let Again { span, layout, kept_layout: kept, .. } = self.again.as_mut()?;
        if layout.is_none() {
            *layout = Some(lay_out(&self.distances, self.mask, self.bytes, *span));
        }
        Some((layout.as_ref()?.as_ref()?, kept))
    }

    /// As [`Pattern::layout`], for some of the lanes.
    #[inline(never)]
    pub(crate) fn layout_of(&self, mask: Mask) -> Option<Layout> {
        Layout::new(&self.distances, mask, self.bytes, self.again.as_ref()?.span)
    }

    /// The stretches of an access at these addresses.
    #[inline(always)]
    pub(crate) fn stretches(&self, addresses: &Lanes<u64>, mut each: impl FnMut(Stretch)) {
        match &self.again {
            Some(again) => {
                let first = self.first(addresses);
                for stretch in &again.stretches {
                    each(Stretch { address: stretch.address.wrapping_add(first), ..*stretch });
                }
            }
            None => stretches(addresses, self.mask, self.bytes, each),
        }
    }

    /// The stretches of a pattern that has come again, by their distance from the first lane, where they are kept, and the first
    /// byte that any lane accesses and the one after the last.
    #[inline(always)]
    pub(crate) fn known_stretches(&mut self) -> Option<(&[Stretch], &mut Kept, (i64, i64))> {
        let Again { span, stretches, kept_stretches, .. } = self.again.as_mut()?;
        Some((stretches, kept_stretches, (span.0, span.1.wrapping_add_unsigned(self.bytes))))
    }

    /// Whether all of an access at these generic addresses is known to lie in global memory.
    #[inline(always)]
    pub(crate) fn is_global(&self, addresses: &Lanes<u64>) -> bool {
        let first = self.first(addresses);
        first >> 63 == 0 && self.lowest(first).is_some_and(|low| low >= GLOBAL_BASE)
    }

    /// Whether all of an access at these generic addresses is known to lie in a window.
    #[inline(always)]
    pub(crate) fn is_inside(&self, addresses: &Lanes<u64>, window: u64) -> bool {
        let first = self.first(addresses);
        let high = self.again.as_ref().and_then(|again| first.checked_add_signed(again.span.1));
        self.lowest(first).is_some_and(|low| low >= window)
            && high.is_some_and(|high| high < window + WINDOW_BYTES)
    }

    fn lowest(&self, first: u64) -> Option<u64> {
        self.again.as_ref().and_then(|again| first.checked_add_signed(again.span.0))
    }

    /// The lanes that take part.
    #[inline(always)]
    pub(crate) fn mask(&self) -> Mask {
        self.mask
    }

    /// Address of the first lane.
    #[inline(always)]
    pub(crate) fn first(&self, addresses: &Lanes<u64>) -> u64 {
        addresses.0[self.mask.trailing_zeros() as usize % LANES]
    }
}

#[cold]
fn lay_out(
    distances: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
    span: (i64, i64),
) -> Option<Arc<Layout>> {
    Layout::new(distances, mask, bytes, span).map(Arc::new)
}

/// Whether lanes lie at these distances from the first.
struct Same<'a> {
    addresses: &'a Lanes<u64>,
    first: u64,
    distances: &'a Lanes<u64>,
}

impl Routine for Same<'_> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let mut differs = 0;
        for lane in 0..LANES {
            differs |= self.addresses.0[lane].wrapping_sub(self.first) ^ self.distances.0[lane];
        }
        differs == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lanes::ALL;
    use crate::random::Random;

    #[test]
    fn what_is_remembered_is_what_would_be_counted() {
        let mut random = Random::new(8, 1);
        let mut patterns = Patterns::default();
        for round in 0..3000 {
            let bytes = 1_u64 << (round % 5);
            let stride = bytes * random.below(9) as u64;
            for _ in 0..3 {
                let start = 1024 + bytes * random.below(300) as u64;
                let at = Lanes(std::array::from_fn(|lane| start + lane as u64 * stride));
                let mask = if random.below(3) == 0 { 0xffff_0f0e } else { ALL };
                let pattern = patterns.of(Slot::of(0, round % 2), &at, mask, bytes);
                let mut counted = SharedTraffic::default();
                counted.count(&at, mask, bytes);
                assert_eq!(pattern.shared(&at), counted);
                let mut counted = Traffic::default();
                counted.count(&at, mask, bytes);
                assert_eq!(*pattern.global(&at), counted);
                let (mut known, mut made) = (Vec::new(), Vec::new());
                pattern.stretches(&at, |stretch| known.push(stretch));
                stretches(&at, mask, bytes, |stretch| made.push(stretch));
                assert_eq!(known, made);
            }
        }
    }
}
