//! Barriers and fences (PTX ISA, "barrier", "bar", "fence", "membar").

use super::Lowered;
use super::shuffle::{meet, met};
use crate::checks::order::{Scope, Sides};
use crate::exec::barrier::{Arrival, BARRIERS};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask, lanes};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::{Class, Type};

pub(crate) const ROWS: &[Row] = &[
    row("bar[.cta].sync a[, b]", sync),
    row("bar[.cta].arrive a, b", arrive),
    row("bar[.cta].red.popc.u32 d, a[, b], c", reduce),
    row("bar[.cta].red.and|or.pred d, a[, b], c", reduce),
    row("barrier[.cta].sync[.aligned] a[, b]", sync),
    row("barrier[.cta].arrive[.aligned] a, b", arrive),
    row("barrier[.cta].red.popc[.aligned].u32 d, a[, b], c", reduce),
    row("barrier[.cta].red.and|or[.aligned].pred d, a[, b], c", reduce),
    row("bar.warp.sync membermask", warp_sync),
    row("membar.cta|gl|sys", fence),
    row("fence[.sc|acq_rel|acquire|release].cta|cluster|gpu|sys", fence),
];

/// Flags in [`Inst::aux`].
const ALIGNED: u32 = 1;
const COUNTED: u32 = 2;
const RED_POPC: u32 = 4;
const RED_AND: u32 = 8;
const RED_OR: u32 = 16;
const ARRIVE: u32 = 32;
const NEGATED: u32 = 64;

/// Arrives at barrier `a` for `b` threads and waits; `c` votes.
struct Sync;

impl Exec for Sync {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if warp.released & mask == mask {
            let id = warp.regs.words[inst.a as usize].0[mask.trailing_zeros() as usize % LANES];
            return leave(warp, inst, mask, id, env);
        }
        if inst.aux & ALIGNED != 0 && mask != warp.live {
            (env.waiting, env.wanted) = (mask, warp.live);
            return Flow::Meet;
        }
        let (id, count) = match barrier_and_count(warp, inst, mask, env) {
            Ok(found) => found,
            Err(flow) => return flow,
        };
        let flip = if inst.aux & NEGATED != 0 { u32::MAX } else { 0 };
        let votes = warp.regs.pred(inst.c, flip);
        let phase = env.barriers.phase(id);
        // With a count, a barrier counts whole warps; without, each thread of the CTA.
        let arriving = if count.is_some() && inst.aux & ALIGNED != 0 {
            LANES as u32
        } else {
            mask.count_ones()
        };
        let lane = mask.trailing_zeros() as usize;
        if let Some(order) = &mut env.order {
            if inst.aux & ARRIVE != 0 {
                order.arrive(id, warp.index, mask);
            } else {
                order.meet(id, warp.index, mask);
            }
        }
        match env.barriers.arrive(id, mask, votes, (arriving, count, env.launch.threads)) {
            Arrival::Misuse(message) => env.fault(FindingKind::BarrierMisuse, lane, message),
            Arrival::Waiting if inst.aux & ARRIVE != 0 => Flow::Next,
            Arrival::Waiting => {
                env.barrier = id;
                Flow::Barrier
            }
            Arrival::Complete => {
                warp.votes = env.barriers.result(id, phase);
                warp.released |= mask;
                if let Some(order) = &mut env.order {
                    order.completed(id, count.is_none());
                }
                leave(warp, inst, mask, id, env)
            }
        }
    }
}

/// Leaves a barrier that has completed, with what its threads voted.
fn leave(warp: &mut Warp, inst: &Inst, mask: Mask, id: u32, env: &mut Env<'_>) -> Flow {
    warp.released &= !mask;
    if let Some(order) = &mut env.order
        && inst.aux & ARRIVE == 0
    {
        order.leave(id, warp.index, mask);
    }
    let votes = warp.votes;
    let holds = |test: bool| if test { u32::MAX } else { 0 };
    if inst.aux & RED_POPC != 0 {
        warp.regs.write(inst.d, mask, &Lanes([votes.true_threads; LANES]));
    } else if inst.aux & RED_AND != 0 {
        warp.regs.write_pred(inst.d, mask, holds(votes.true_threads == votes.threads));
    } else if inst.aux & RED_OR != 0 {
        warp.regs.write_pred(inst.d, mask, holds(votes.true_threads != 0));
    }
    Flow::Next
}

/// Number of the barrier, and threads that it is for if not all.
#[inline(always)]
fn barrier_and_count(
    warp: &Warp,
    inst: &Inst,
    mask: Mask,
    env: &mut Env<'_>,
) -> Result<(u32, Option<u32>), Flow> {
    let uniform = |slot: u32| {
        let values = &warp.regs.words[slot as usize];
        let first = values.0[mask.trailing_zeros() as usize % LANES];
        // A quick look first: mostly the operand is a constant.
        let mut differs = 0;
        for lane in 0..LANES {
            differs |= values.0[lane] ^ first;
        }
        if differs == 0 {
            return Ok(first);
        }
        lanes(mask).find(|&l| values.0[l] != first).map_or(Ok(first), Err)
    };
    let split = |env: &mut Env<'_>, lane| {
        env.fault(FindingKind::BarrierMisuse, lane, "lanes of a warp name different barriers")
    };
    let id = uniform(inst.a).map_err(|lane| split(env, lane))?;
    let lane = mask.trailing_zeros() as usize;
    if id as usize >= BARRIERS {
        let message = format!("barrier {id} does not exist: there are {BARRIERS}");
        return Err(env.fault(FindingKind::BarrierMisuse, lane, message));
    }
    if inst.aux & COUNTED == 0 {
        return Ok((id, None));
    }
    let count = uniform(inst.b).map_err(|lane| split(env, lane))?;
    if count == 0 || count % LANES as u32 != 0 || count > env.launch.warps * LANES as u32 {
        let most = env.launch.warps * LANES as u32;
        let message = format!("a barrier for {count} threads: not a multiple of 32 up to {most}");
        return Err(env.fault(FindingKind::BarrierMisuse, lane, message));
    }
    Ok((id, Some(count)))
}

/// Barrier operands; `bar` is aligned by definition.
fn operands(f: &mut Form<'_, '_>, counted: bool) -> Lowered {
    if f.ins.opcode == "bar" || f.has("aligned") {
        f.inst.aux |= ALIGNED;
    }
    f.inst.a = f.src(Type::U32)?;
    if counted {
        f.inst.aux |= COUNTED;
        f.inst.b = f.src(Type::U32)?;
    }
    Ok(())
}

fn sync(f: &mut Form<'_, '_>) -> Lowered {
    let counted = f.ins.operands.len() > 1;
    operands(f, counted)?;
    f.run::<Sync>()
}

fn arrive(f: &mut Form<'_, '_>) -> Lowered {
    operands(f, true)?;
    f.inst.aux |= ARRIVE;
    f.run::<Sync>()
}

fn reduce(f: &mut Form<'_, '_>) -> Lowered {
    let popc = f.has("popc");
    let kind = if popc {
        RED_POPC
    } else if f.has("and") {
        RED_AND
    } else {
        RED_OR
    };
    f.inst.d = f.dst(if popc { Type::U32 } else { Type::Pred })?;
    let counted = f.ins.operands.len() > 3;
    operands(f, counted)?;
    let (slot, flip) = f.src_pred()?;
    f.inst.c = slot;
    f.inst.aux |= kind | if flip != 0 { NEGATED } else { 0 };
    f.run::<Sync>()
}

struct WarpSync;

impl Exec for WarpSync {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        match meet(warp, env, mask, inst.m) {
            Ok(ready) => {
                if let Some(order) = &mut env.order {
                    each_set(warp, inst, ready, |set| order.sync_lanes(warp.index, set));
                }
                met(env, mask, ready)
            }
            Err(flow) => flow,
        }
    }
}

/// The sets of lanes that name the same membermask.
fn each_set(warp: &Warp, inst: &Inst, ready: Mask, mut each: impl FnMut(Mask)) {
    let members = &warp.regs.words[inst.m as usize].0;
    let mut left = ready;
    while left != 0 {
        let set = ready & members[left.trailing_zeros() as usize % LANES];
        each(set);
        left &= !set;
    }
}

fn warp_sync(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.m = f.src(Type::B32)?;
    f.inst.d = f.body.sink(Class::Word);
    f.run::<WarpSync>()
}

/// Flags in [`Inst::aux`] of a fence.
const OTHER_CTAS: u32 = 1;
const ACQUIRE_ONLY: u32 = 2;
const RELEASE_ONLY: u32 = 4;

/// Accesses take effect in program order here, so a fence has nothing to add but to what races.
struct Fence;

impl Exec for Fence {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(order) = &mut env.order {
            let has = |flag| inst.aux & flag != 0;
            let scope = if has(OTHER_CTAS) { Scope::Gpu } else { Scope::Cta };
            let sides = Sides { acquire: !has(RELEASE_ONLY), release: !has(ACQUIRE_ONLY) };
            order.fence(warp.index, mask, scope, sides);
        }
        Flow::Next
    }
}

fn fence(f: &mut Form<'_, '_>) -> Lowered {
    for (flag, set) in [
        (OTHER_CTAS, ["gl", "gpu", "sys"].iter().any(|scope| f.has(scope))),
        (ACQUIRE_ONLY, f.has("acquire")),
        (RELEASE_ONLY, f.has("release")),
    ] {
        f.inst.aux |= if set { flag } else { 0 };
    }
    f.run::<Fence>()
}

#[cfg(test)]
mod tests {
    use crate::finding::FindingKind;
    use crate::testing::{Program, finding_in};

    const THREAD: &str = "ld.param.u64 %x, [out]; cvta.to.global.u64 %x, %x; mov.u32 %a, %tid.x;
        mul.wide.u32 %y, %a, 4; add.u64 %x, %x, %y;";

    fn run(text: &str, threads: u32) -> Vec<u32> {
        let program = Program::new(&format!("{THREAD}{text} st.global.u32 [%x], %d;"));
        program.run_grid([1, 1, 1], [threads, 1, 1], 1, 5, &vec![0; threads as usize]).unwrap()
    }

    #[test]
    fn a_barrier_orders_shared_memory_across_warps() {
        let text = "{ .shared .align 4 .b8 s[512]; .reg .u32 %i; shl.b32 %i, %a, 2; mov.u32 %b, s; add.u32 %i, %i, %b;
            st.shared.u32 [%i], %a; bar.sync 0; xor.b32 %i, %a, 127; shl.b32 %i, %i, 2; add.u32 %i, %i, %b;
            ld.shared.u32 %d, [%i]; }";
        let got = run(text, 128);
        assert!(got.iter().enumerate().all(|(i, &v)| v == i as u32 ^ 127));
    }

    #[test]
    fn reductions_over_the_cta() {
        let text = "setp.lt.u32 %p, %a, 40; bar.red.popc.u32 %d, 1, %p;";
        assert!(run(text, 96).iter().all(|&v| v == 40));
        let text =
            "setp.lt.u32 %p, %a, 40; barrier.red.or.aligned.pred %q, 2, %p; selp.u32 %d, 1, 0, %q;";
        assert!(run(text, 96).iter().all(|&v| v == 1));
        let text =
            "setp.lt.u32 %p, %a, 40; barrier.red.and.pred %q, 2, !%p; selp.u32 %d, 1, 0, %q;";
        assert!(run(text, 96).iter().all(|&v| v == 0));
    }

    #[test]
    fn named_barriers_with_counts() {
        // Warp 0 produces and arrives, warp 1 waits; warp 2 takes no part.
        let text = "{ .shared .b32 s; setp.ge.u32 %p, %a, 64; @%p bra $rest; setp.ge.u32 %p, %a, 32; @%p bra $wait;
            mov.u32 %d, 7; setp.eq.u32 %q, %a, 0; @%q st.shared.u32 [s], 9; bar.arrive 3, 64; bra $end;
            $wait: bar.sync 3, 64; ld.shared.u32 %d, [s]; bra $end; $rest: mov.u32 %d, 1; $end: }";
        let got = run(text, 96);
        assert_eq!((got[0], got[32], got[95]), (7, 9, 1));
    }

    #[test]
    fn a_part_of_the_cta_at_a_barrier_is_found() {
        let block = [64, 1, 1];
        let found = finding_in(
            "mov.u32 %a, %tid.x; setp.lt.u32 %p, %a, 32; @%p bar.sync 0, 64; exit;",
            block,
        );
        assert_eq!(found.kind, FindingKind::Barrier);
        assert!(found.message.contains("32 of 64 threads"), "{found}");
        let found = finding_in(
            "mov.u32 %a, %tid.x; setp.lt.u32 %p, %a, 8; @%p bra $x; bar.sync 0; exit; $x: bar.sync 1;",
            block,
        );
        assert_eq!(found.kind, FindingKind::Barrier);
        assert!(found.to_string().contains("warp 1"), "{found}");
        let found = finding_in("bar.sync 0, 48;", block);
        assert_eq!(found.kind, FindingKind::BarrierMisuse);
        let found = finding_in("bar.sync 16;", block);
        assert_eq!(found.kind, FindingKind::BarrierMisuse);
    }

    #[test]
    fn a_barrier_for_all_threads_does_not_wait_for_who_exits() {
        // Warp 2 exits before any other comes, warp 1 while warp 0 waits.
        let text =
            "setp.ge.u32 %p, %a, 64; @%p exit; bar.red.popc.u32 %d, 0, 1; st.global.u32 [%x], %d;
            setp.ge.u32 %p, %a, 32; @%p exit; bar.red.popc.u32 %b, 1, 1; add.u32 %d, %d, %b;";
        let got = run(text, 96);
        assert!(got[..32].iter().all(|&v| v == 96) && got[32..64].iter().all(|&v| v == 64));
    }

    #[test]
    fn an_endless_loop_is_found() {
        assert_eq!(finding_in("$l: bra $l;", [32, 1, 1]).kind, FindingKind::StepLimit);
    }
}
