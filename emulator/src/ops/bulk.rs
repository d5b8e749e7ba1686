//! Bulk copies between global and shared memory (PTX ISA, "cp.async.bulk"), and what orders them.
//!
//! A CTA is a cluster of its own here, so that `.shared::cluster` is its own shared memory.

use super::atomic::{combine, operation};
use super::{Lowered, Nothing};
use crate::exec::bulk::{Incoming, Issue, UNIT};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Lanes, Mask, Registers, lanes};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::lower::form::{Form, STRONG, WIDER};
use crate::lower::table::{Row, row};
use crate::memory::access::{Access, Global, check_races};
use crate::types::{Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row(
        "cp.async.bulk.shared::cluster|shared::cta.global.mbarrier::complete_tx::bytes[.L2::cache_hint] [dst], [src], size, [mbarrier], policy",
        incoming,
    )
    .from_sm(90),
    row(
        "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [dst], [src], size, [mbarrier]",
        incoming,
    )
    .from_sm(90),
    row(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster[.L2::cache_hint] [dst], [src], size, [mbarrier], mask, policy",
        incoming,
    )
    .from_sm(90),
    row("cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.and|or|xor.b32 [dst], [src], size, [mbarrier]", into_shared).from_sm(90),
    row("cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u32|s32|u64 [dst], [src], size, [mbarrier]", into_shared).from_sm(90),
    row("cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.min|max.u32|s32 [dst], [src], size, [mbarrier]", into_shared).from_sm(90),
    row("cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.inc|dec.u32 [dst], [src], size, [mbarrier]", into_shared).from_sm(90),
    row("cp.async.bulk.global.shared::cta.bulk_group[.L2::cache_hint] [dst], [src], size, policy", outgoing).from_sm(90),
    row("cp.reduce.async.bulk.global.shared::cta.bulk_group[.L2::cache_hint].add.u32|s32|u64|f32|f64 [dst], [src], size, policy", reduction).from_sm(90),
    row("cp.reduce.async.bulk.global.shared::cta.bulk_group[.L2::cache_hint].add.noftz.f16|bf16 [dst], [src], size, policy", reduction).from_sm(90),
    row("cp.reduce.async.bulk.global.shared::cta.bulk_group[.L2::cache_hint].min|max.u32|s32|u64|s64|f16|bf16 [dst], [src], size, policy", reduction).from_sm(90),
    row("cp.reduce.async.bulk.global.shared::cta.bulk_group[.L2::cache_hint].inc|dec.u32 [dst], [src], size, policy", reduction).from_sm(90),
    row("cp.reduce.async.bulk.global.shared::cta.bulk_group[.L2::cache_hint].and|or|xor.b32|b64 [dst], [src], size, policy", reduction).from_sm(90),
    row("cp.async.bulk.prefetch.L2.global[.L2::cache_hint] [src], size, policy", prefetch).from_sm(90),
    row("cp.async.bulk.commit_group", commit).from_sm(90),
    row("cp.async.bulk.wait_group[.read] n", wait).from_sm(90),
];

/// Rows that are fences.
pub(crate) const FENCE_ROWS: &[Row] = &[
    row("fence.proxy.async[.global|shared::cta|shared::cluster]", fence_proxy).from_sm(90),
    row("fence.proxy.alias", fence).from_sm(70),
    row("membar.proxy.alias", fence).from_sm(70),
    row("fence.mbarrier_init.release.cluster", fence).from_sm(90),
];

/// Takes an address to [`Inst::list`]: slot and offset; bit `index` of [`Inst::aux`] tells that the slot has 64 bits.
fn address(f: &mut Form<'_, '_>, index: u32, space: Space) -> Lowered {
    let (slot, wide, offset, _) = f.address_parts(space)?;
    let offset = i32::try_from(offset)
        .map_err(|_| f.fault(format!("offset {offset} does not fit 32 bits")))?;
    let mut list = std::mem::take(&mut f.inst.list).into_vec();
    list.extend([slot, offset as u32]);
    f.inst.list = list.into_boxed_slice();
    f.inst.aux |= u32::from(wide) << index;
    Ok(())
}

/// The address that [`address`] took.
fn address_of(regs: &Registers, inst: &Inst, index: usize, lane: usize) -> u64 {
    let (slot, offset) = (inst.list[2 * index] as usize, inst.list[2 * index + 1] as i32);
    if inst.aux >> index & 1 != 0 {
        return regs.doubles[slot].0[lane].wrapping_add(i64::from(offset) as u64);
    }
    regs.words[slot].0[lane].wrapping_add(offset as u32).into()
}

fn policy(f: &mut Form<'_, '_>) -> Lowered {
    if f.has("L2::cache_hint") {
        f.src(Type::B64)?;
    }
    Ok(())
}

/// Flag in [`Inst::aux`]: the source is in shared memory.
const FROM_SHARED: u32 = 1 << 8;
/// Flag in [`Inst::aux`]: each CTA of the mask [`Inst::b`] gets the bytes.
const MULTICAST: u32 = 1 << 9;
/// Flag in [`Inst::aux`]: the bytes are added to what is there.
const REDUCES: u32 = 1 << 10;

fn incoming(f: &mut Form<'_, '_>) -> Lowered {
    let from_shared = !f.has("global");
    address(f, 0, Space::Shared)?;
    address(f, 1, if from_shared { Space::Shared } else { Space::Global })?;
    f.inst.c = f.src(Type::U32)?;
    address(f, 2, Space::Shared)?;
    if f.has("multicast::cluster") {
        f.inst.b = f.src(Type::B16)?;
        f.inst.aux |= MULTICAST;
    }
    policy(f)?;
    f.inst.aux |= if from_shared { FROM_SHARED } else { 0 };
    f.run::<CopyIn>()
}

/// A copy that is added to what its destination holds, by the operation number [`Inst::p`], in elements of [`Inst::m`]
/// bytes.
fn into_shared(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.p = operation(f, ty)?;
    f.inst.m = ty.bytes();
    f.inst.aux |= REDUCES;
    incoming(f)
}

/// Starts a copy into shared memory.
struct CopyIn;

impl Exec for CopyIn {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        for lane in lanes(mask) {
            let ctas = warp.regs.words[inst.b as usize].0[lane] & 0xffff;
            if inst.aux & MULTICAST != 0 && ctas != 1 {
                let message = format!("a copy to CTAs {ctas:#x} of a cluster that has one");
                return env.fault(FindingKind::Operand, lane, message);
            }
            let copy = Incoming {
                to: address_of(&warp.regs, inst, 0, lane),
                from: address_of(&warp.regs, inst, 1, lane),
                from_shared: inst.aux & FROM_SHARED != 0,
                bytes: warp.regs.words[inst.c as usize].0[lane],
                reduction: (inst.aux & REDUCES != 0).then(|| (inst.m, combine(inst.p, false))),
                mbarrier: address_of(&warp.regs, inst, 2, lane),
                thread: (warp.index, lane),
                site: inst.site,
            };
            if let Some(flow) = env.issue_incoming(copy) {
                return flow;
            }
        }
        if env.launch.traffic {
            // One lane issues the copy for all of its warp.
            env.count_in_flight((warp.index, inst), warp.live, warp.copies.bytes_in_flight);
        }
        Flow::Next
    }
}

fn outgoing(f: &mut Form<'_, '_>) -> Lowered {
    address(f, 0, Space::Global)?;
    address(f, 1, Space::Shared)?;
    f.inst.c = f.src(Type::U32)?;
    policy(f)?;
    f.run::<CopyOut>()
}

/// Starts a copy out of shared memory.
struct CopyOut;

impl Exec for CopyOut {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        for lane in lanes(mask) {
            let (to, from) =
                (address_of(&warp.regs, inst, 0, lane), address_of(&warp.regs, inst, 1, lane));
            let bytes = warp.regs.words[inst.c as usize].0[lane];
            let (thread, site) = ((warp.index, lane), inst.site);
            if let Some(flow) = env.issue_outgoing(Issue { from, to, bytes, thread, site }) {
                return flow;
            }
        }
        Flow::Next
    }
}

fn reduction(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    address(f, 0, Space::Global)?;
    address(f, 1, Space::Shared)?;
    f.inst.c = f.src(Type::U32)?;
    policy(f)?;
    f.inst.p = operation(f, ty)?;
    f.inst.m = ty.bytes();
    f.inst.aux |= STRONG | WIDER;
    f.run::<Reduction>()
}

/// Starts a copy out of shared memory that is added, by the operation number [`Inst::p`], to what global memory holds
/// in elements of [`Inst::m`] bytes. Each is a relaxed operation of its own for the whole GPU.
struct Reduction;

impl Exec for Reduction {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if env.must_defer() {
            return Flow::Defer;
        }
        for lane in lanes(mask) {
            let (to, from) =
                (address_of(&warp.regs, inst, 0, lane), address_of(&warp.regs, inst, 1, lane));
            let bytes = warp.regs.words[inst.c as usize].0[lane];
            let (thread, site) = ((warp.index, lane), inst.site);
            let issue = Issue { from, to, bytes, thread, site };
            if let Some(flow) = env.issue_reduction(issue, inst.m, combine(inst.p, true)) {
                return flow;
            }
            let mut at = Lanes::default();
            for offset in (0..u64::from(bytes)).step_by(inst.m as usize) {
                at.0[lane] = to + offset;
                let (place, size) = ((warp.index, inst, false), inst.m.into());
                let flow = check_races::<Global>(env, place, &at, 1 << lane, size, Access::Atomic);
                if flow != Flow::Next {
                    return flow;
                }
            }
        }
        Flow::Next
    }
}

fn prefetch(f: &mut Form<'_, '_>) -> Lowered {
    address(f, 0, Space::Global)?;
    f.inst.c = f.src(Type::U32)?;
    policy(f)?;
    f.run::<Prefetch>()
}

/// A hint; what it names has to be made of whole units.
struct Prefetch;

impl Exec for Prefetch {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        for lane in lanes(mask) {
            let start = address_of(&warp.regs, inst, 0, lane);
            let bytes = warp.regs.words[inst.c as usize].0[lane];
            if !start.is_multiple_of(UNIT) || u64::from(bytes) % UNIT != 0 {
                let message = format!(
                    "bulk prefetch of {bytes} bytes at {start:#x}: both have to be multiples of {UNIT}"
                );
                return env.fault(FindingKind::Misaligned, lane, message);
            }
        }
        Flow::Next
    }
}

fn commit(f: &mut Form<'_, '_>) -> Lowered {
    f.run::<Commit>()
}

struct Commit;

impl Exec for Commit {
    fn exec(warp: &mut Warp, _: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        lanes(mask).for_each(|lane| env.bulk.commit((warp.index, lane)));
        Flow::Next
    }
}

/// [`Inst::imm`] is the number of groups that may stay in flight, [`Inst::m`] tells whether reads suffice.
fn wait(f: &mut Form<'_, '_>) -> Lowered {
    let pending = f.integer()?;
    if pending < 0 {
        return Err(f.fault(format!("{pending} groups cannot stay in flight")));
    }
    f.inst.imm = pending;
    f.inst.m = f.has("read").into();
    f.run::<Wait>()
}

struct Wait;

impl Exec for Wait {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        for lane in lanes(mask) {
            let thread = (warp.index, lane);
            if let Some(flow) = env.wait_bulk_groups(thread, inst.imm as u64, inst.m != 0) {
                return flow;
            }
        }
        Flow::Next
    }
}

fn fence_proxy(f: &mut Form<'_, '_>) -> Lowered {
    if f.has("global") { f.run::<Nothing>() } else { f.run::<FenceProxy>() }
}

/// What was written to shared memory before may be read by bulk copies after.
struct FenceProxy;

impl Exec for FenceProxy {
    fn exec(_: &mut Warp, _: &Inst, _: Mask, env: &mut Env<'_>) -> Flow {
        env.fence_async_proxy();
        Flow::Next
    }
}

/// Orders what is in order here by itself.
fn fence(f: &mut Form<'_, '_>) -> Lowered {
    f.run::<Nothing>()
}
