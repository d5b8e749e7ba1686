//! `mbarrier` (PTX ISA, "Parallel Synchronization and Communication Instructions: mbarrier"); the
//! objects are in [`crate::exec::mbarrier`].
//!
//! A wait that finds its phase incomplete either says so or lets other warps run first; which is up
//! to the seed, and both are schedules that the hardware may choose. `try_wait` may say so even of a
//! complete phase.

use super::Lowered;
use crate::checks::words;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Lanes, Mask, lanes};
use crate::exec::mbarrier::{Mbarriers, Test};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::memory::access::{Access, Refused, Shared, addresses, permitted, refuse};
use crate::memory::region::{FORBIDDEN, INIT};
use crate::memory::{SHARED_WINDOW, WINDOW_BYTES};
use crate::parse::ast::Operand;
use crate::types::{Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row("mbarrier.init[.shared|shared::cta].b64 [addr], count", init).from_sm(80),
    row("mbarrier.inval[.shared|shared::cta].b64 [addr]", inval).from_sm(80),
    row("mbarrier.expect_tx|complete_tx[.relaxed][.cta|cluster][.shared|shared::cta|shared::cluster].b64 [addr], tx", transact)
        .from_sm(90),
    row("mbarrier.arrive|arrive_drop.noComplete[.release][.cta][.shared|shared::cta].b64 state, [addr], count", arrive)
        .from_sm(80),
    row(
        "mbarrier.arrive|arrive_drop[.release|relaxed][.cta|cluster][.shared|shared::cta|shared::cluster].b64 state, [addr], count",
        arrive,
    )
    .from_sm(80),
    row(
        "mbarrier.arrive|arrive_drop.expect_tx[.release|relaxed][.cta|cluster][.shared|shared::cta|shared::cluster].b64 state, [addr], count",
        arrive,
    )
    .from_sm(90),
    row("mbarrier.test_wait[.parity][.acquire|relaxed][.cta|cluster][.shared|shared::cta].b64 p, [addr], state", wait)
        .from_sm(80),
    row("mbarrier.try_wait[.parity][.acquire|relaxed][.cta|cluster][.shared|shared::cta].b64 p, [addr], state, hint", wait)
        .from_sm(90),
    row("mbarrier.pending_count.b64 count, state", pending_count).from_sm(80),
    row("cp.async.mbarrier.arrive[.noinc][.shared|shared::cta].b64 [addr]", copies_arrive).from_sm(80),
];

/// Bytes and alignment of an object.
const BYTES: u64 = 8;

/// Flags in [`Inst::m`].
const GENERIC: u32 = 1;
const DROP: u32 = 2;
const NO_COMPLETE: u32 = 4;
const EXPECT: u32 = 8;
const PARITY: u32 = 16;
const MAY_FAIL: u32 = 32;
const COMPLETE_TX: u32 = 64;
/// What the warp has done comes before whoever waits for the phase.
const RELEASE: u32 = 128;
/// What was done before those who have arrived did comes before what the warp does next.
const ACQUIRE: u32 = 256;

/// Semantics come with a scope, and all but the default from sm_90 on.
fn check_semantics(f: &Form<'_, '_>) -> Lowered {
    let named = ["release", "acquire", "relaxed"].iter().any(|m| f.has(m));
    let scoped = f.has("cta") || f.has("cluster");
    if named != scoped {
        return Err(f.fault("semantics and scope are named together or not at all"));
    }
    if f.has("relaxed") && f.body.sm < 90 {
        return Err(f.fault("`.relaxed` needs sm_90"));
    }
    Ok(())
}

fn object(f: &mut Form<'_, '_>) -> Lowered {
    let shared = ["shared", "shared::cta", "shared::cluster"].iter().any(|name| f.has(name));
    f.address(if shared { Space::Shared } else { Space::Generic })?;
    f.inst.m |= if shared { 0 } else { GENERIC };
    Ok(())
}

/// The offset in shared memory of each lane's object, checked.
fn objects(warp: &Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Result<Lanes<u64>, Flow> {
    let mut out = addresses(&warp.regs, inst);
    for lane in lanes(mask) {
        let address = out.0[lane];
        let offset =
            if inst.m & GENERIC == 0 { address } else { address.wrapping_sub(SHARED_WINDOW) };
        if inst.m & GENERIC != 0 && offset >= WINDOW_BYTES {
            let message = format!("mbarrier at {address:#x}, which is not in shared memory");
            return Err(env.fault(FindingKind::WrongSpace, lane, message));
        }
        if offset % BYTES != 0 || env.shared.offset(offset, BYTES).is_none() {
            let refused = Refused { lane, address: offset, bytes: BYTES, access: Access::Atomic };
            return Err(refuse::<Shared>(env, None, refused));
        }
        out.0[lane] = offset;
    }
    Ok(out)
}

/// As [`objects`], with a check that what made or ended them is ordered with this use of them, or that this making or
/// ending of them, a [`Access::Store`], is ordered with every use.
fn ordered(
    warp: &Warp,
    inst: &Inst,
    mask: Mask,
    env: &mut Env<'_>,
    access: Access,
) -> Result<Lanes<u64>, Flow> {
    let objects = objects(warp, inst, mask, env)?;
    let writes = access != Access::Load;
    let access = words::Access {
        warp: warp.index,
        pc: inst.site,
        writes,
        strong: false,
        atomic: false,
        whole: false,
    };
    match env.shared_access(access, &objects, mask, BYTES) {
        Flow::Next => Ok(objects),
        found => Err(found),
    }
}

/// The objects of the lanes of a mask, each with its lanes.
fn distinct(mut mask: Mask, objects: &Lanes<u64>) -> impl Iterator<Item = (u64, Mask)> {
    std::iter::from_fn(move || {
        let address = objects.0[lanes(mask).next()?];
        let same = lanes(mask).filter(|&l| objects.0[l] == address).fold(0, |m, l| m | 1 << l);
        mask &= !same;
        Some((address, same))
    })
}

/// Applies `act` to each lane's object.
fn each(
    warp: &Warp,
    inst: &Inst,
    mask: Mask,
    env: &mut Env<'_>,
    mut act: impl FnMut(&mut Mbarriers, u64, usize) -> Result<(), String>,
) -> Flow {
    let objects = match ordered(warp, inst, mask, env, Access::Load) {
        Ok(objects) => objects,
        Err(flow) => return flow,
    };
    if inst.m & RELEASE != 0
        && let Some(order) = &mut env.order
    {
        distinct(mask, &objects)
            .for_each(|(address, lanes)| order.arrive_at(address, warp.index, lanes));
    }
    for lane in lanes(mask) {
        if let Err(message) = act(&mut env.mbarriers, objects.0[lane], lane) {
            return env.fault(FindingKind::BarrierMisuse, lane, message);
        }
    }
    env.settle_phases();
    Flow::Next
}

fn init(f: &mut Form<'_, '_>) -> Lowered {
    object(f)?;
    f.inst.b = f.src(Type::U32)?;
    f.run::<Init>()
}

/// Makes an object; its bytes are closed to ordinary accesses from here.
struct Init;

impl Exec for Init {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let objects = match ordered(warp, inst, mask, env, Access::Store) {
            Ok(objects) => objects,
            Err(flow) => return flow,
        };
        for lane in lanes(mask) {
            let (address, count) = (objects.0[lane], warp.regs.words[inst.b as usize].0[lane]);
            if let Err(message) = env.mbarriers.init(address, count) {
                return env.fault(FindingKind::BarrierMisuse, lane, message);
            }
            let offset = (address - env.shared.base) as usize;
            if !permitted(&env.shared, offset, BYTES as usize, Access::Store) {
                let refused = Refused { lane, address, bytes: BYTES, access: Access::Store };
                return refuse::<Shared>(env, None, refused);
            }
            env.shared.mark(offset, BYTES as usize, FORBIDDEN, INIT);
        }
        Flow::Next
    }
}

fn inval(f: &mut Form<'_, '_>) -> Lowered {
    object(f)?;
    f.run::<Inval>()
}

struct Inval;

impl Exec for Inval {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let objects = match ordered(warp, inst, mask, env, Access::Store) {
            Ok(objects) => objects,
            Err(flow) => return flow,
        };
        for lane in lanes(mask) {
            if let Err(message) = env.mbarriers.inval(objects.0[lane]) {
                return env.fault(FindingKind::BarrierMisuse, lane, message);
            }
            let offset = (objects.0[lane] - env.shared.base) as usize;
            env.shared.mark(offset, BYTES as usize, 0, FORBIDDEN | INIT);
        }
        Flow::Next
    }
}

fn transact(f: &mut Form<'_, '_>) -> Lowered {
    check_semantics(f)?;
    object(f)?;
    f.inst.b = f.src(Type::U32)?;
    f.inst.m |= if f.has("complete_tx") { COMPLETE_TX } else { 0 };
    f.run::<Transact>()
}

struct Transact;

impl Exec for Transact {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let bytes = warp.regs.words[inst.b as usize];
        each(warp, inst, mask, env, |all, address, lane| {
            if inst.m & COMPLETE_TX != 0 {
                all.complete(address, bytes.0[lane])
            } else {
                all.expect(address, bytes.0[lane])
            }
        })
    }
}

fn arrive(f: &mut Form<'_, '_>) -> Lowered {
    check_semantics(f)?;
    if f.has("shared::cluster") && f.peek() != Some(&Operand::Name("_")) {
        return Err(f.fault("an arrival in the cluster returns no state: the destination is `_`"));
    }
    f.inst.d = f.dst(Type::B64)?;
    object(f)?;
    let expect = f.has("expect_tx");
    if f.peek().is_some() && !f.has("noComplete") && f.body.sm < 90 {
        return Err(f.fault("a count without `.noComplete` needs sm_90"));
    }
    f.inst.b = if expect || f.peek().is_some() {
        f.src(Type::U32)?
    } else {
        f.source_of(&Operand::Int(1), Type::U32)?
    };
    for (flag, set) in [
        (DROP, f.has("arrive_drop")),
        (NO_COMPLETE, f.has("noComplete")),
        (EXPECT, expect),
        (RELEASE, !f.has("relaxed")),
    ] {
        f.inst.m |= if set { flag } else { 0 };
    }
    f.run::<Arrive>()
}

struct Arrive;

impl Exec for Arrive {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let operand = warp.regs.words[inst.b as usize];
        let drop = inst.m & DROP != 0;
        let mut states = Lanes::<u64>::default();
        let flow = each(warp, inst, mask, env, |all, address, lane| {
            let mut count = operand.0[lane];
            if inst.m & EXPECT != 0 {
                all.expect(address, count)?;
                count = 1;
            }
            states.0[lane] = if inst.m & NO_COMPLETE != 0 {
                all.arrive_without_completing(address, count, drop)?
            } else {
                all.arrive(address, count, drop)?
            };
            Ok(())
        });
        warp.regs.write(inst.d, mask, &states);
        flow
    }
}

/// Flag in [`Inst::p`]: the arrival is among those that the object counts already.
const NO_INCREMENT: u32 = 1;

fn copies_arrive(f: &mut Form<'_, '_>) -> Lowered {
    object(f)?;
    f.inst.p = if f.has("noinc") { NO_INCREMENT } else { 0 };
    f.run::<CopiesArrive>()
}

/// Arrives when the copies that the lane has issued have landed.
struct CopiesArrive;

impl Exec for CopiesArrive {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let flow = each(warp, inst, mask, env, |all, address, _| {
            if inst.p & NO_INCREMENT != 0 { all.check(address) } else { all.add_pending(address) }
        });
        if flow == Flow::Next {
            let objects = addresses(&warp.regs, inst);
            for lane in lanes(mask) {
                let window = if inst.m & GENERIC != 0 { SHARED_WINDOW } else { 0 };
                warp.copies.arrive_later(lane, objects.0[lane].wrapping_sub(window), inst.site);
            }
        }
        flow
    }
}

fn wait(f: &mut Form<'_, '_>) -> Lowered {
    check_semantics(f)?;
    f.inst.d = f.dst(Type::Pred)?;
    object(f)?;
    let parity = f.has("parity");
    f.inst.b = f.src(if parity { Type::U32 } else { Type::B64 })?;
    if f.has("try_wait") {
        f.inst.m |= MAY_FAIL;
        if f.peek().is_some() {
            f.src(Type::U32)?;
        }
    }
    f.inst.m |= if parity { PARITY } else { 0 };
    f.inst.m |= if f.has("relaxed") { 0 } else { ACQUIRE };
    f.run::<Wait>()
}

/// One in so many waits for a complete phase fails all the same.
const SPURIOUS: usize = 8;

struct Wait;

impl Exec for Wait {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let objects = match ordered(warp, inst, mask, env, Access::Load) {
            Ok(objects) => objects,
            Err(flow) => return flow,
        };
        let mut complete: Mask = 0;
        for lane in lanes(mask) {
            let address = objects.0[lane];
            let tested = if inst.m & PARITY != 0 {
                env.mbarriers.test_parity(address, warp.regs.words[inst.b as usize].0[lane])
            } else {
                env.mbarriers.test(address, warp.regs.doubles[inst.b as usize].0[lane])
            };
            match tested {
                Ok(Test::Complete) => complete |= 1 << lane,
                Ok(Test::Incomplete) => {}
                Err(message) => return env.fault(FindingKind::BarrierMisuse, lane, message),
            }
        }
        let missing = mask & !complete;
        if missing != 0 {
            let address = objects.0[missing.trailing_zeros() as usize];
            env.mbarriers.wanted(address);
            if env.random.below(2) == 0
                && let Err((copy, message)) = env.land_incoming(Some(address))
            {
                return env.fault(FindingKind::BarrierMisuse, copy.thread.1, message);
            }
            if env.random.below(2) == 0 {
                return Flow::Retry;
            }
        } else if inst.m & MAY_FAIL != 0 && env.random.below(SPURIOUS) == 0 {
            complete = 0;
        }
        if inst.m & ACQUIRE != 0
            && let Some(order) = &mut env.order
        {
            distinct(complete, &objects)
                .for_each(|(address, lanes)| order.waited_at(address, warp.index, lanes));
        }
        warp.regs.write_pred(inst.d, mask, complete);
        Flow::Next
    }
}

fn pending_count(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::U32)?;
    f.inst.a = f.src(Type::B64)?;
    f.run::<PendingCount>()
}

struct PendingCount;

impl Exec for PendingCount {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let states = warp.regs.doubles[inst.a as usize];
        let counts = Lanes(states.0.map(Mbarriers::pending_count));
        warp.regs.write(inst.d, mask, &counts);
        Flow::Next
    }
}
