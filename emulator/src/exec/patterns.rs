//! How the lanes of an access lie to each other. An instruction in a loop mostly keeps that while it moves on, and with it
//! the sectors or wavefronts that its accesses take, and what the checks of races have to look at.

use std::sync::Arc;

use super::inst::Inst;
use super::lanes::{LANES, Lanes, Mask, Registers, lanes};
use super::wide::{self, Routine};
use crate::checks::layout::Layout;
use crate::checks::stretch::{Stretch, stretches};
use crate::counters::{SharedTraffic, Traffic, fetched};
use crate::kept;
use crate::lower::form::WIDE_ADDRESS;
use crate::memory::cells::spots::{Form, Kept};
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
    /// The access of an instruction, by its [home](Inst::home); of a copy, that to its destination.
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
pub(crate) struct Patterns {
    by_site: Vec<Option<Box<Ways>>>,
    latest: Latest,
}

/// The last access that was recognised, of a group of lanes that runs one instruction after the other. It knows those behind that are of
/// its strand: their registers are the same, and still hold what they held.
#[derive(Debug, Default)]
struct Latest {
    /// See [`Inst::strand`].
    strand: u32,
    /// None if nothing is known.
    mask: Mask,
    /// Where its pattern is.
    home: u32,
    /// What the first lane has in the registers that the strand's addresses are made of.
    bases: [u64; 2],
}

/// The access that an instruction of a warp makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Made {
    home: u32,
    strand: u32,
    warp: u32,
    mask: Mask,
    bytes: u64,
}

impl Made {
    #[inline(always)]
    pub(crate) fn by(inst: &Inst, warp: u32, mask: Mask, bytes: u64) -> Made {
        Made { home: inst.home, strand: inst.strand, warp, mask, bytes }
    }
}

/// Where an address comes from: the slot of a register, whether it has 64 bits, and how far from there it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address {
    pub(crate) slot: u32,
    pub(crate) wide: bool,
    pub(crate) offset: u64,
}

impl Address {
    /// That of a load or store, or of a copy's source.
    #[inline(always)]
    pub(crate) fn of(inst: &Inst) -> Address {
        let wide = inst.aux & WIDE_ADDRESS != 0;
        Address { slot: inst.a, wide, offset: inst.imm.cast_unsigned() }
    }

    /// What a lane's register holds.
    #[inline(always)]
    fn base(self, regs: &Registers, lane: usize) -> u64 {
        if self.wide {
            regs.doubles[self.slot as usize].0[lane % LANES]
        } else {
            regs.words[self.slot as usize].0[lane % LANES].into()
        }
    }

    /// The address of a lane whose register holds that.
    #[inline(always)]
    fn from(self, base: u64) -> u64 {
        let sum = base.wrapping_add(self.offset);
        if self.wide { sum } else { (sum as u32).into() }
    }
}

/// A copy whose places and sources have been recognised.
pub(crate) struct Copied<'p> {
    pub(crate) target: &'p mut Pattern,
    pub(crate) source: &'p mut Pattern,
    /// Addresses of the first lane.
    pub(crate) to: u64,
    pub(crate) from: u64,
    /// Where its sources would begin if all copies of its strand moved on as they last have.
    pub(crate) next: u64,
    /// Whether it begins there, or is not the first of its strand.
    pub(crate) expected: bool,
    /// To be given to [`Patterns::of_copied`] when it lands.
    pub(crate) kept: kept::Kept,
}

type Ways = [Option<Box<Pattern>>; WAYS];

/// How lanes lie to each other.
#[derive(Debug)]
pub(crate) struct Pattern {
    form: Form,
    /// The allocation that was accessed last, if it is global memory.
    pub(crate) hint: u32,
    /// Where in its sector the first lane begins.
    place: u64,
    /// By where in its sector, in words, the first lane begins.
    global: [Option<Traffic>; 8],
    shared: Option<SharedTraffic>,
    /// Of a copy's source, by where in their sectors the first lanes begin: which target it has been counted with, and what copies past
    /// L1 fetch.
    fetched: [(kept::Kept, u64); 4],
    /// Made when the pattern is seen again.
    again: Option<Again>,
    /// How many patterns this is the last of.
    changes: u32,
    /// Where the last copy of a strand began, how far that was from the one before, and how far it was the last time that it was so twice.
    last: u64,
    step: u64,
    moved: u64,
    /// Of no other form.
    id: kept::Id,
}

/// What is worth being known of a pattern that comes again.
#[derive(Debug, Default)]
struct Again {
    /// Least and largest distance.
    span: (i64, i64),
    /// As [`stretches`] gives them, by distance.
    stretches: Box<[Stretch]>,
    kept_stretches: kept::Kept,
    /// Made when somebody wants it.
    layout: Option<Option<Arc<Layout>>>,
    kept_layout: kept::Kept,
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
        let Patterns { by_site, latest } = self;
        let site = slot.site as usize;
        if site >= by_site.len() {
            by_site.resize_with(site + 1, || None);
        }
        let ways = by_site[site].get_or_insert_default();
        let known = &mut ways[slot.way as usize % WAYS];
        let same = known.as_ref().is_some_and(|known| {
            known.is_like(first, mask, bytes) && wide::call(Same { addresses, form: &known.form })
        });
        let pattern = known.get_or_insert_with(Pattern::empty);
        if !same {
            latest.mask = 0;
            pattern.become_new(addresses, first, mask, bytes);
        } else {
            pattern.place = first % 32;
            if pattern.again.is_none() {
                pattern.come_again();
            }
        }
        pattern
    }

    /// Something else than the instructions behind the last one is about to run.
    #[inline(always)]
    pub(crate) fn begin(&mut self) {
        self.latest.mask = 0;
    }

    /// The pattern of an access and the first address, if the pattern has come before. All others are then as far from that as the pattern
    /// has it, modulo 2³² where they have 32 bits: that is so far, too, if it leads to a region in which the first address lies. For
    /// handlers.
    #[inline(always)]
    pub(crate) fn recognised(
        &mut self,
        regs: &Registers,
        made: Made,
        address: Address,
    ) -> Option<(&mut Pattern, u64)> {
        let Patterns { by_site, latest } = self;
        let Made { home, strand, warp, mask, .. } = made;
        if latest.strand == strand && latest.mask == mask {
            let pattern = last(by_site, Slot::of(latest.home, warp))?;
            let first = address.from(latest.bases[0]);
            return pattern.moves_to(first).then_some((pattern, first));
        }
        let pattern = last(by_site, Slot::of(home, warp))?;
        let base = address.base(regs, mask.trailing_zeros() as usize);
        if !pattern.is_that_of(regs, made, address, base) {
            return None;
        }
        *latest = Latest { strand, mask, home, bases: [base, 0] };
        Some((pattern, address.from(base)))
    }

    /// As [`Patterns::recognised`], of a copy.
    #[inline(always)]
    pub(crate) fn recognised_copy(
        &mut self,
        regs: &Registers,
        made: Made,
        (to, from): (Address, Address),
    ) -> Option<Copied<'_>> {
        let Patterns { by_site, latest } = self;
        let Made { home, strand, warp, mask, .. } = made;
        let goes_on = latest.strand == strand && latest.mask == mask;
        let home = if goes_on { latest.home } else { home };
        let ways: &mut [[Option<Box<Pattern>>; 2]] =
            by_site.get_mut(home as usize)?.as_mut()?.as_chunks_mut().0;
        let [target, source] = ways.get_mut(Slot::of(home, warp).way as usize / 2)?;
        let (target, source) = (target.as_deref_mut()?, source.as_deref_mut()?);
        let mut expected = true;
        if !goes_on {
            let lane = mask.trailing_zeros() as usize;
            let bases = [to.base(regs, lane), from.base(regs, lane)];
            if !target.is_that_of(regs, made, to, bases[0])
                || !source.is_that_of(regs, made, from, bases[1])
            {
                return None;
            }
            let first = from.from(bases[1]);
            expected = first == source.last.wrapping_add(source.moved);
            source.moves(first);
            *latest = Latest { strand, mask, home, bases };
        }
        let [base_to, base_from] = latest.bases;
        let (first_to, first_from) = (to.from(base_to), from.from(base_from));
        if !target.moves_to(first_to) || !source.moves_to(first_from) {
            return None;
        }
        let (next, kept) =
            (first_from.wrapping_add(source.moved), kept::Kept::new(&target.id, home));
        Some(Copied { target, source, to: first_to, from: first_from, next, expected, kept })
    }

    /// The pattern of what a copy writes, lanes of a mask, and the first offset.
    #[inline(always)]
    pub(crate) fn of_copied(
        &mut self,
        slot: Slot,
        (to, kept): (&Kept, &kept::Kept),
        mask: Mask,
    ) -> (&mut Pattern, u64) {
        let (first, bytes) = (to.offset(mask.trailing_zeros() as usize), to.bytes() as u64);
        let own = Slot { site: kept.index(), ..slot };
        let same = |known: &mut Pattern| known.mask() == mask && kept.is_of(&known.id);
        let slot = if self.last(own).is_some_and(same) {
            own
        } else {
            let same = self.last(slot).is_some_and(|known| {
                let same = Same { addresses: to.offsets(), form: &known.form };
                known.is_like(first, mask, bytes) && wide::call(same)
            });
            if !same {
                return (self.of(slot, &to.all(), mask, bytes), first);
            }
            slot
        };
        let pattern = self.last(slot).expect("it has just been looked at");
        pattern.place = first % 32;
        if pattern.again.is_none() {
            pattern.come_again();
        }
        (pattern, first)
    }

    /// The pattern that [`Patterns::of`] has just given.
    #[inline(always)]
    pub(crate) fn last(&mut self, slot: Slot) -> Option<&mut Pattern> {
        last(&mut self.by_site, slot)
    }
}

#[inline(always)]
fn last(by_site: &mut [Option<Box<Ways>>], slot: Slot) -> Option<&mut Pattern> {
    by_site.get_mut(slot.site as usize)?.as_mut()?[slot.way as usize % WAYS].as_deref_mut()
}

impl Pattern {
    fn empty() -> Box<Pattern> {
        Box::new(Pattern {
            form: Form::none(),
            hint: 0,
            place: 0,
            global: Default::default(),
            shared: None,
            fetched: Default::default(),
            again: None,
            changes: 0,
            last: 0,
            step: 0,
            moved: 0,
            id: kept::Id::new(),
        })
    }

    #[inline(never)]
    fn become_new(&mut self, addresses: &Lanes<u64>, first: u64, mask: Mask, bytes: u64) {
        wide::call(Set { form: &mut self.form, addresses, mask, bytes });
        self.place = first % 32;
        (self.global, self.shared, self.again) = (Default::default(), None, None);
        self.fetched = Default::default();
        self.id = kept::Id::new();
        self.changes = self.changes.saturating_add(1);
    }

    #[inline(never)]
    fn come_again(&mut self) {
        self.form.study();
        let (distances, mask) = (self.form.distances(), self.form.mask());
        let mut all = Vec::new();
        stretches(distances, mask, self.form.bytes(), |stretch| all.push(stretch));
        let mut span = (0, 0);
        for lane in lanes(mask) {
            let distance = distances.0[lane].cast_signed();
            span = (span.0.min(distance), span.1.max(distance));
        }
        self.again = Some(Again { span, stretches: all.into(), ..Again::default() });
    }

    /// Whether an access that begins there may be one of this pattern.
    #[inline(always)]
    fn is_like(&self, first: u64, mask: Mask, bytes: u64) -> bool {
        self.form.mask() == mask && self.place % 4 == first % 4 && self.form.bytes() == bytes
    }

    /// Whether an access is one of this pattern, which has come again; the first lane's register holds `base`. For handlers.
    #[inline(always)]
    fn is_that_of(&mut self, regs: &Registers, made: Made, address: Address, base: u64) -> bool {
        let Made { mask, bytes, .. } = made;
        if self.again.is_none() || self.form.mask() != mask || self.form.bytes() != bytes {
            return false;
        }
        let fits = if address.wide {
            self.form.fits(&regs.doubles[address.slot as usize], base)
        } else {
            self.form.fits(&regs.words[address.slot as usize], base as u32)
        };
        fits && self.moves_to(address.from(base))
    }

    /// Makes it that of an access that begins at `first`, if its lanes lie to each other as they did and that is not further to one side in
    /// words than before.
    #[inline(always)]
    fn moves_to(&mut self, first: u64) -> bool {
        let goes = self.place % 4 == first % 4;
        if goes {
            self.place = first % 32;
        }
        goes
    }

    /// Notes where a copy of a strand begins. What a CTA does again and again is not forgotten when the next one begins.
    #[inline(always)]
    fn moves(&mut self, first: u64) {
        let step = first.wrapping_sub(self.last);
        if step == self.step {
            self.moved = step;
        }
        (self.last, self.step) = (first, step);
    }

    /// How the lanes lie to each other.
    #[inline(always)]
    pub(crate) fn form(&self) -> &Form {
        &self.form
    }

    /// What each lane accesses.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> u64 {
        self.form.bytes()
    }

    /// The addresses of an access that begins there.
    #[inline(always)]
    pub(crate) fn addresses(&self, first: u64) -> Lanes<u64> {
        let mut out = *self.form.distances();
        for lane in 0..LANES {
            out.0[lane] = out.0[lane].wrapping_add(first);
        }
        out
    }

    /// As [`Pattern::addresses`], without room for them where this is called.
    #[cold]
    #[inline(never)]
    pub(crate) fn addresses_apart(&self, first: u64) -> Box<Lanes<u64>> {
        Box::new(self.addresses(first))
    }

    /// The traffic of an access to global memory.
    #[inline(always)]
    pub(crate) fn global(&mut self, first: u64) -> Traffic {
        let place = self.place as usize / 4 % 8;
        match self.global[place] {
            Some(known) => known,
            None => *self.global[place].insert(self.count_global(first)),
        }
    }

    /// Sectors that a copy past L1 fetches from here, 16 bytes a lane, to the places of a target.
    #[inline(always)]
    pub(crate) fn fetched(&mut self, first: u64, target: &Pattern, to: u64) -> u64 {
        let place = (first / 16 % 2 * 2 + to / 16 % 2) as usize;
        if !self.fetched[place].0.is_of(&target.id) {
            let count = self.count_fetched(first, target, to);
            self.fetched[place] = (kept::Kept::new(&target.id, 0), count);
        }
        self.fetched[place].1
    }

    /// The traffic of an access to shared memory.
    #[inline(always)]
    pub(crate) fn shared(&mut self, first: u64) -> SharedTraffic {
        match self.shared {
            Some(known) => known,
            None => *self.shared.insert(self.count_shared(first)),
        }
    }

    #[inline(never)]
    fn count_global(&self, first: u64) -> Traffic {
        let mut traffic = Traffic::default();
        traffic.count(&self.addresses(first), self.form.mask(), self.form.bytes());
        traffic
    }

    #[inline(never)]
    fn count_fetched(&self, first: u64, target: &Pattern, to: u64) -> u64 {
        fetched(&self.addresses(first), &target.addresses(to), self.form.mask())
    }

    #[inline(never)]
    fn count_shared(&self, first: u64) -> SharedTraffic {
        let mut traffic = SharedTraffic::default();
        traffic.count(&self.addresses(first), self.form.mask(), self.form.bytes());
        traffic
    }

    /// As [`Layout`], if the pattern has come again or promises to, and has one; and where that is kept.
    #[inline(always)]
    pub(crate) fn layout(&mut self) -> Option<(&Arc<Layout>, &mut kept::Kept)> {
        if self.again.is_none() && self.changes <= SETTLED {
            self.come_again();
        }
        let Again { span, layout, kept_layout: kept, .. } = self.again.as_mut()?;
        if layout.is_none() {
            *layout = Some(lay_out(&self.form, *span));
        }
        Some((layout.as_ref()?.as_ref()?, kept))
    }

    /// As [`Pattern::layout`], for some of the lanes.
    #[inline(never)]
    pub(crate) fn layout_of(&self, mask: Mask) -> Option<Layout> {
        let span = self.again.as_ref()?.span;
        Layout::new(self.form.distances(), mask, self.form.bytes(), span)
    }

    /// The stretches of an access that begins there.
    #[inline(always)]
    pub(crate) fn stretches(&self, first: u64, mut each: impl FnMut(Stretch)) {
        match &self.again {
            Some(again) => {
                for stretch in &again.stretches {
                    each(Stretch { address: stretch.address.wrapping_add(first), ..*stretch });
                }
            }
            None => stretches(&self.addresses(first), self.form.mask(), self.form.bytes(), each),
        }
    }

    /// The stretches of a pattern that has come again, by their distance from the first lane, where they are kept, and the first
    /// byte that any lane accesses and the one after the last.
    #[inline(always)]
    pub(crate) fn known_stretches(&mut self) -> Option<(&[Stretch], &mut kept::Kept, (i64, i64))> {
        let bytes = self.form.bytes();
        let Again { span, stretches, kept_stretches, .. } = self.again.as_mut()?;
        Some((stretches, kept_stretches, (span.0, span.1.wrapping_add_unsigned(bytes))))
    }

    /// Whether all of an access that begins at this generic address is known to lie in global memory.
    #[inline(always)]
    pub(crate) fn is_global(&self, first: u64) -> bool {
        first >> 63 == 0 && self.lowest(first).is_some_and(|low| low >= GLOBAL_BASE)
    }

    /// Whether all of an access that begins at this generic address is known to lie in a window.
    #[inline(always)]
    pub(crate) fn is_inside(&self, first: u64, window: u64) -> bool {
        let high = self.again.as_ref().and_then(|again| first.checked_add_signed(again.span.1));
        self.lowest(first).is_some_and(|low| low >= window)
            && high.is_some_and(|high| high < window + WINDOW_BYTES)
    }

    /// The least and the greatest address of a lane of an access that begins there.
    #[inline(always)]
    pub(crate) fn ends(&self, first: u64) -> (u64, u64) {
        let (low, high) = self.again.as_ref().map_or((0, 0), |again| again.span);
        (first.wrapping_add_signed(low), first.wrapping_add_signed(high))
    }

    fn lowest(&self, first: u64) -> Option<u64> {
        self.again.as_ref().and_then(|again| first.checked_add_signed(again.span.0))
    }

    /// The lanes that take part.
    #[inline(always)]
    pub(crate) fn mask(&self) -> Mask {
        self.form.mask()
    }

    /// Address of the first lane.
    #[inline(always)]
    pub(crate) fn first(&self, addresses: &Lanes<u64>) -> u64 {
        addresses.0[self.form.mask().trailing_zeros() as usize % LANES]
    }
}

#[cold]
fn lay_out(form: &Form, span: (i64, i64)) -> Option<Arc<Layout>> {
    Layout::new(form.distances(), form.mask(), form.bytes(), span).map(Arc::new)
}

/// Whether the lanes lie so.
struct Same<'a> {
    addresses: &'a Lanes<u64>,
    form: &'a Form,
}

impl Routine for Same<'_> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        self.form.fits(self.addresses, self.form.first_of(self.addresses))
    }
}

/// Takes the form of an access.
struct Set<'a> {
    form: &'a mut Form,
    addresses: &'a Lanes<u64>,
    mask: Mask,
    bytes: u64,
}

impl Routine for Set<'_> {
    type Out = ();

    #[inline(always)]
    fn run(self) {
        self.form.set(self.addresses, self.mask, self.bytes);
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
                assert_eq!(pattern.shared(at.0[mask.trailing_zeros() as usize]), counted);
                let mut counted = Traffic::default();
                counted.count(&at, mask, bytes);
                assert_eq!(pattern.global(at.0[mask.trailing_zeros() as usize]), counted);
                let (mut known, mut made) = (Vec::new(), Vec::new());
                pattern.stretches(pattern.first(&at), |stretch| known.push(stretch));
                stretches(&at, mask, bytes, |stretch| made.push(stretch));
                assert_eq!(known, made);
            }
        }
    }

    #[test]
    fn what_copies_fetch_is_remembered_for_a_target() {
        let mut random = Random::new(8, 2);
        let (mut sources, mut targets) = (Patterns::default(), Patterns::default());
        let mut strides = [16, 16];
        for _ in 0..3000 {
            let changed = random.below(6);
            if let Some(stride) = strides.get_mut(changed) {
                *stride = 16 * random.below(5) as u64;
            }
            let [from, to] = strides.map(|stride| {
                let start = 1024 + 16 * random.below(300) as u64;
                Lanes(std::array::from_fn(|lane| start + lane as u64 * stride))
            });
            let target = targets.of(Slot::of(0, 0), &to, ALL, 16);
            let source = sources.of(Slot::source(0, 0), &from, ALL, 16);
            assert_eq!(source.fetched(from.0[0], target, to.0[0]), fetched(&from, &to, ALL));
        }
    }
}
