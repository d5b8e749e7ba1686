//! What kernels say to their cluster (PTX ISA, "barrier.cluster", "mapa", "getctarank"). Every CTA is a cluster of its
//! own here: its barrier is one more of the CTA, and the only rank is 0.

use std::marker::PhantomData;

use super::Lowered;
use crate::exec::barrier::CLUSTER;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask, Word, lanes};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::memory::{SHARED_WINDOW, WINDOW_BYTES};
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("barrier.cluster.arrive[.release|relaxed][.aligned]", arrive).from_sm(90),
    row("barrier.cluster.wait[.acquire][.aligned]", wait).from_sm(90),
];

/// Rows that are moves.
pub(crate) const MOVE_ROWS: &[Row] = &[
    row("mapa[.shared::cluster].u32|u64 d, a, rank", mapa).from_sm(90),
    row("getctarank[.shared::cluster].u32|u64 d, a", rank).from_sm(90),
];

/// Flags in [`Inst::aux`].
const ALIGNED: u32 = 1;
const RELEASE: u32 = 2;

fn arrive(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.aux = if f.has("aligned") { ALIGNED } else { 0 };
    f.inst.aux |= if f.has("relaxed") { 0 } else { RELEASE };
    f.run::<Arrive>()
}

/// Whether the lanes of a warp have to wait for each other first.
fn apart(warp: &Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> bool {
    let apart = inst.aux & ALIGNED != 0 && mask != warp.live;
    if apart {
        (env.waiting, env.wanted) = (mask, warp.live);
    }
    apart
}

/// The lanes if the number of the present phase is odd.
fn phase_is_odd(env: &Env<'_>, lanes: Mask) -> Mask {
    if env.barriers.phase(CLUSTER) & 1 == 0 { 0 } else { lanes }
}

struct Arrive;

impl Exec for Arrive {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if apart(warp, inst, mask, env) {
            return Flow::Meet;
        }
        let twice = mask & warp.in_cluster;
        if twice != 0 {
            let message = "a second `barrier.cluster.arrive` without a `barrier.cluster.wait`";
            return env.fault(FindingKind::BarrierMisuse, twice.trailing_zeros() as usize, message);
        }
        if inst.aux & RELEASE != 0
            && let Some(order) = &mut env.order
        {
            order.arrive(CLUSTER, warp.index, mask);
        }
        warp.in_cluster |= mask;
        let odd = phase_is_odd(env, mask);
        warp.odd_phase = warp.odd_phase & !mask | odd;
        env.arrive_in_cluster(mask.count_ones());
        Flow::Next
    }
}

fn wait(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.aux = if f.has("aligned") { ALIGNED } else { 0 };
    f.run::<Wait>()
}

struct Wait;

impl Exec for Wait {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        warp.released &= !mask;
        if apart(warp, inst, mask, env) {
            return Flow::Meet;
        }
        let without = mask & !warp.in_cluster;
        if without != 0 {
            let message = "`barrier.cluster.wait` without a `barrier.cluster.arrive`";
            let lane = without.trailing_zeros() as usize;
            return env.fault(FindingKind::BarrierMisuse, lane, message);
        }
        // A phase later than the next cannot have begun: it needs these lanes too.
        let now = phase_is_odd(env, mask);
        if (warp.odd_phase & mask) == now {
            env.barrier = CLUSTER;
            return Flow::Barrier;
        }
        if (warp.odd_phase & mask) != !now & mask {
            return env.fault(
                FindingKind::BarrierMisuse,
                mask.trailing_zeros() as usize,
                "lanes that arrived in different phases wait together",
            );
        }
        warp.in_cluster &= !mask;
        if let Some(order) = &mut env.order {
            order.leave(CLUSTER, warp.index, mask);
        }
        Flow::Next
    }
}

fn mapa(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(ty)?;
    f.inst.a = f.src(ty)?;
    f.inst.b = f.src(Type::U32)?;
    addressed(f)?;
    if ty.bits() == 64 { f.run::<Mapa<u64>>() } else { f.run::<Mapa<u32>>() }
}

/// Notes in [`Inst::aux`] whether the address is generic.
fn addressed(f: &mut Form<'_, '_>) -> Lowered {
    let (generic, bits) = (!f.has("shared::cluster"), f.ty().bits());
    if generic && bits != 64 {
        return Err(f.fault("generic addresses have 64 bits"));
    }
    f.inst.aux = generic.into();
    Ok(())
}

/// Refuses generic addresses that are not in shared memory.
fn check_shared(warp: &Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Option<Flow> {
    if inst.aux == 0 {
        return None;
    }
    let at = &warp.regs.doubles[inst.a as usize].0;
    let lane = lanes(mask).find(|&lane| at[lane].wrapping_sub(SHARED_WINDOW) >= WINDOW_BYTES)?;
    let message = format!("{:#x} is not an address in shared memory", at[lane]);
    Some(env.fault(FindingKind::WrongSpace, lane, message))
}

/// The address in the CTA of rank 0, which is this one.
struct Mapa<W>(PhantomData<W>);

impl<W: Word> Exec for Mapa<W> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let ranks = &warp.regs.words[inst.b as usize].0;
        if let Some(lane) = lanes(mask).find(|&lane| ranks[lane] != 0) {
            let message = format!(
                "CTA {} of the cluster, which is of one CTA: clusters are not modelled",
                ranks[lane]
            );
            return env.fault(FindingKind::Operand, lane, message);
        }
        if let Some(flow) = check_shared(warp, inst, mask, env) {
            return flow;
        }
        // Not as `Map1`, which has all lanes run the instruction, also those whose operands nobody has checked.
        let address = *W::read(&warp.regs, inst.a);
        warp.regs.write(inst.d, mask, &address);
        Flow::Next
    }
}

fn rank(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(Type::U32)?;
    f.inst.a = f.src(ty)?;
    addressed(f)?;
    f.run::<Rank>()
}

struct Rank;

impl Exec for Rank {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = check_shared(warp, inst, mask, env) {
            return flow;
        }
        warp.regs.write(inst.d, mask, &Lanes([0_u32; LANES]));
        Flow::Next
    }
}
