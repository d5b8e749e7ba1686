//! Accesses of warps to memory: the state spaces, and what every load and store shares.

use super::region::Region;
use super::{FIRST_OFFSET, GLOBAL_BASE, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
pub(crate) use crate::checks::access::{Refused, permitted, refuse};
use crate::checks::races::{Judge, Verdict, is_whole};
pub(crate) use crate::checks::races::{
    check_issued, check_races, global_access, global_read, report_global_race, report_own_race,
    report_race,
};
use crate::checks::words::{self, How};
use crate::counters::Counters;
use crate::exec::env::{Env, LaunchContext};
use crate::exec::inst::{Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask, Registers};
use crate::exec::patterns::{Address, Made, Pattern, Slot};
use crate::exec::warp::Warp;
use crate::launch::Checks;
use crate::lower::form::{STRONG, WIDE_ADDRESS};
use crate::memory::cells::spots::Spots;
use crate::memory::find;
use crate::types::Space;

/// What an access does to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Load,
    Store,
    /// Reads and writes.
    Atomic,
}

impl Access {
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Access::Load => "load",
            Access::Store => "store",
            Access::Atomic => "atomic access",
        }
    }
}

/// The address of each lane: base register plus offset.
#[inline(always)]
pub(crate) fn addresses(regs: &Registers, inst: &Inst) -> Lanes<u64> {
    let offset = inst.imm as u64;
    if inst.aux & WIDE_ADDRESS != 0 {
        let mut out = regs.doubles[inst.a as usize];
        for lane in 0..LANES {
            out.0[lane] = out.0[lane].wrapping_add(offset);
        }
        out
    } else {
        let base = &regs.words[inst.a as usize];
        let mut out = Lanes::default();
        for lane in 0..LANES {
            out.0[lane] = base.0[lane].wrapping_add(offset as u32).into();
        }
        out
    }
}

/// A state space as the address of an instruction resolves in it.
pub(crate) trait Resolve: 'static {
    const SPACE: Space;
    /// Region and offset of an access that lies inside live memory.
    fn find<'m>(
        memory: &Memory<'m>,
        hint: &mut u32,
        lane: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)>;
}

/// The memory that a warp can reach.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'m> {
    pub(crate) launch: &'m LaunchContext<'m>,
    pub(crate) shared: &'m Region,
    pub(crate) local: Option<&'m Region>,
}

/// Global memory, constants among it.
pub(crate) struct Global;
/// Shared memory of the CTA, by offset.
pub(crate) struct Shared;
/// Local memory of the lane, by offset.
pub(crate) struct Local;
/// The parameters of the entry, by offset.
pub(crate) struct Param;
/// Any of them, by window.
pub(crate) struct Generic;

impl Resolve for Param {
    const SPACE: Space = Space::Param;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        _: &mut u32,
        _: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        Some((memory.launch.params, memory.launch.params.offset(address, bytes)?))
    }
}

impl Resolve for Global {
    const SPACE: Space = Space::Global;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        hint: &mut u32,
        _: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        let allocations = &memory.launch.memory.allocations;
        let hinted = allocations.get(*hint as usize).map(|a| &a.region);
        if let Some(region) = hinted
            && let Some(offset) = region.offset(address, bytes)
        {
            return Some((region, offset));
        }
        let index = memory.launch.memory.live(address, bytes)?;
        *hint = index as u32;
        let region = &allocations[index].region;
        Some((region, region.offset(address, bytes)?))
    }
}

impl Resolve for Shared {
    const SPACE: Space = Space::Shared;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        _: &mut u32,
        _: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        Some((memory.shared, memory.shared.offset(address, bytes)?))
    }
}

impl Resolve for Local {
    const SPACE: Space = Space::Local;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        _: &mut u32,
        lane: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        let region = memory.local?;
        let own = region.bytes / LANES as u64;
        let offset = address.wrapping_sub(FIRST_OFFSET);
        let inside = offset < own && own - offset >= bytes;
        inside.then(|| (region, (lane as u64 * own + offset) as usize))
    }
}

impl Resolve for Generic {
    const SPACE: Space = Space::Generic;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        hint: &mut u32,
        lane: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        if address >= GLOBAL_BASE {
            return Global::find(memory, hint, lane, address, bytes);
        }
        if address.wrapping_sub(SHARED_WINDOW) < WINDOW_BYTES {
            return Shared::find(memory, hint, lane, address - SHARED_WINDOW, bytes);
        }
        if address.wrapping_sub(LOCAL_WINDOW) < WINDOW_BYTES {
            return Local::find(memory, hint, lane, address - LOCAL_WINDOW, bytes);
        }
        if address.wrapping_sub(PARAM_WINDOW) < WINDOW_BYTES {
            return Param::find(memory, hint, lane, address - PARAM_WINDOW, bytes);
        }
        None
    }
}

/// Counts the traffic of an access that was carried out. Tells whether [`Patterns::last`](crate::exec::patterns::Patterns::last) is now that of this access.
#[inline(always)]
pub(crate) fn count<R: Resolve>(
    env: &mut Env<'_>,
    slot: Slot,
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
    access: Access,
) -> bool {
    if !env.launch.traffic || mask == 0 {
        return false;
    }
    let first = addresses.0[mask.trailing_zeros() as usize % LANES];
    if traffic_of::<R>(first).is_none() {
        return false;
    }
    let Env { counters, patterns, .. } = env;
    count_known::<R>(counters, patterns.of(slot, addresses, mask, bytes), first, access);
    true
}

/// Memory whose traffic is counted.
#[derive(Clone, Copy)]
enum Counted {
    Shared,
    Global,
}

/// What an access counts for whose first lane is there.
#[inline(always)]
fn traffic_of<R: Resolve>(first: u64) -> Option<Counted> {
    match R::SPACE {
        Space::Shared => Some(Counted::Shared),
        Space::Global => Some(Counted::Global),
        Space::Generic if first >= GLOBAL_BASE => Some(Counted::Global),
        Space::Generic if first.wrapping_sub(SHARED_WINDOW) < WINDOW_BYTES => Some(Counted::Shared),
        _ => None,
    }
}

/// Counts the traffic of an access of a pattern that begins at `first`.
#[inline(always)]
pub(crate) fn count_known<R: Resolve>(
    counters: &mut Counters,
    pattern: &mut Pattern,
    first: u64,
    access: Access,
) {
    match (traffic_of::<R>(first), access) {
        (Some(Counted::Shared), _) => counters.shared += pattern.shared(first),
        (Some(Counted::Global), Access::Load) => counters.global_loads += &pattern.global(first),
        (Some(Counted::Global), _) => counters.global_stores += &pattern.global(first),
        (None, _) => {}
    }
}

/// What an access does at its places. Implementations are `#[inline(always)]`: a closure would not be compiled for the processor.
pub(crate) trait Perform<const BYTES: usize> {
    /// Gives lanes for which it has changed nothing, of an access that writes.
    fn perform(self, regs: &mut Registers, region: &Region, spots: Spots<'_, BYTES>) -> Mask;
}

/// Carries out an access of `BYTES` bytes a lane to places that lie to each other as the instruction's places did before, counts it
/// and checks that it races with no other. Nothing happens if that takes a closer look.
#[inline(always)]
pub(crate) fn access_known<R: Resolve, const BYTES: usize>(
    warp: &mut Warp,
    inst: &Inst,
    mask: Mask,
    env: &mut Env<'_>,
    access: Access,
    what: impl Perform<BYTES>,
) -> Option<Flow> {
    if inst.aux & STRONG != 0 {
        return None;
    }
    let whole = env.order.is_some() && is_whole(env, inst, mask, access);
    let Env { launch, shared, patterns, counters, order, races, log, .. } = &mut *env;
    let made = Made::by(inst, warp.index, mask, BYTES as u64);
    let (pattern, first) = patterns.recognised(&warp.regs, made, Address::of(inst))?;
    let (memory, mut hint) = (Memory { launch, shared, local: None }, pattern.hint);
    let (region, spots) =
        find::place_known::<BYTES>(&memory, R::SPACE, &mut hint, pattern.form(), first)?;
    if launch.checks.contains(Checks::MEMORY) && mask & !region.permits(spots, access) != 0 {
        return None;
    }
    let changing = mask & !what.perform(&mut warp.regs, region, spots);
    pattern.hint = hint;
    count_known::<R>(counters, pattern, first, access);
    let Some(order) = order.as_ref().filter(|_| changing != 0) else { return Some(Flow::Next) };
    let writes = access != Access::Load;
    let (warp, pc) = (warp.index, inst.site);
    let made = words::Access { warp, pc, writes, strong: false, atomic: false, whole };
    match (Judge { order, races, log }).judge::<R>(made, pattern, (first, changing), How::Both) {
        Verdict::Clean => Some(Flow::Next),
        Verdict::Race(race) => Some(report_own_race(env, &race)),
        Verdict::Open => {
            let addresses = pattern.addresses_apart(first);
            Some(look_closer::<R>(env, (warp, inst), addresses, (changing, BYTES as u64), access))
        }
    }
}

/// As [`check_races`], for an access at which a quick look was not enough.
#[cold]
#[inline(never)]
fn look_closer<R: Resolve>(
    env: &mut Env<'_>,
    (warp, inst): (u32, &Inst),
    addresses: Box<Lanes<u64>>,
    (mask, bytes): (Mask, u64),
    access: Access,
) -> Flow {
    check_races::<R>(env, (warp, inst, false), &addresses, mask, bytes, access)
}

/// Counts an access that was carried out and checks that it races with no other.
#[inline(always)]
pub(crate) fn observe<R: Resolve>(
    env: &mut Env<'_>,
    (warp, inst): (u32, &Inst),
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
    access: Access,
) -> Flow {
    let known = count::<R>(env, Slot::of(inst.home, warp), addresses, mask, bytes, access);
    check_races::<R>(env, (warp, inst, known), addresses, mask, bytes, access)
}
