//! What lanes of a warp do together: shuffles, votes, matches, reductions (PTX ISA, "Parallel
//! Synchronization and Communication Instructions").
//!
//! A lane that executes one of these waits until every lane of its membermask is at the same
//! instruction; lanes that have exited are not waited for.

use std::marker::PhantomData;

use super::Lowered;
use crate::checks::membermask;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst, UNTRACKED};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Value, Word, lanes};
use crate::exec::warp::Warp;
use crate::exec::wide;
use crate::launch::Checks;
use crate::lower::body::SINK;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("shfl.sync.up|down|bfly|idx.b32 d|p, a, b, c, membermask", shfl),
    row("vote.sync.all|any|uni.pred d, a, membermask", vote),
    row("vote.sync.ballot.b32 d, a, membermask", ballot),
    row("match.any.sync.b32|b64 d, a, membermask", match_any).from_sm(70),
    row("match.all.sync.b32|b64 d|p, a, membermask", match_all).from_sm(70),
    row("redux.sync.add|min|max.u32|s32 d, a, membermask", redux).from_sm(80),
    row("redux.sync.and|or|xor.b32 d, a, membermask", redux).from_sm(80),
    row("activemask.b32 d", activemask),
    row("elect.sync d|p, membermask", elect).from_sm(90),
];

/// Which lanes may execute now: those whose whole membermask is here. The others wait.
/// Gives the lanes with the mask that they share, or what to return if there are none.
#[inline(always)]
pub(crate) fn meet(warp: &Warp, env: &mut Env<'_>, mask: Mask, members: u32) -> Result<Mask, Flow> {
    let members = &warp.regs.words[members as usize];
    let first = members.0[mask.trailing_zeros() as usize % LANES];
    // A quick look first: mostly the membermask is a constant.
    let mut differs = 0;
    for lane in 0..LANES {
        differs |= members.0[lane] ^ first;
    }
    if differs == 0 && first & warp.live == mask {
        return Ok(mask);
    }
    membermask::meet(warp, env, mask, members)
}

/// What to return when the lanes of `ready` have executed.
#[inline(always)]
pub(crate) fn met(env: &mut Env<'_>, mask: Mask, ready: Mask) -> Flow {
    if ready == mask {
        return Flow::Next;
    }
    env.waiting = mask & !ready;
    Flow::Meet
}

/// Directions of `shfl`.
trait Direction: 'static {
    /// Source lane and whether it is in range, from the lane, `b` (of it within the segment), and the segment's bounds with the clamp.
    fn source(lane: u32, b: (u32, u32), min: u32, max: u32) -> (u32, bool);
}

struct Up;
struct Down;
struct Butterfly;
struct Index;

// In `up` the clamp is the lowest lane of the segment, elsewhere the highest (PTX ISA, "shfl.sync").
impl Direction for Up {
    #[inline(always)]
    fn source(lane: u32, (b, _): (u32, u32), _: u32, max: u32) -> (u32, bool) {
        let source = lane.wrapping_sub(b);
        (source, source as i32 >= max as i32)
    }
}

impl Direction for Down {
    #[inline(always)]
    fn source(lane: u32, (b, _): (u32, u32), _: u32, max: u32) -> (u32, bool) {
        let source = lane + b;
        (source, source <= max)
    }
}

impl Direction for Butterfly {
    #[inline(always)]
    fn source(lane: u32, (b, _): (u32, u32), _: u32, max: u32) -> (u32, bool) {
        let source = lane ^ b;
        (source, source <= max)
    }
}

impl Direction for Index {
    #[inline(always)]
    fn source(_: u32, (_, within): (u32, u32), min: u32, max: u32) -> (u32, bool) {
        let source = min | within;
        (source, source <= max)
    }
}

/// `d` from lane j of `a`; predicate `p` tells whether j was in range. `m` is the membermask, [`Inst::aux`] too if it is a constant, or 0.
struct Shfl<D>(PhantomData<D>);

impl<D: Direction> Exec for Shfl<D> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let ready = match meet_unless_all(warp, inst, mask, env) {
            Ok(ready) => ready,
            Err(flow) => return flow,
        };
        let words = &warp.regs.words;
        let (b, c) = (&words[inst.b as usize], &words[inst.c as usize]);
        let mut sources = [0u32; LANES];
        let mut ranges = 0;
        for lane in 0..LANES {
            let (source, in_range) = chosen::<D>(lane as u32, b.0[lane], c.0[lane]);
            sources[lane] = source;
            ranges |= u32::from(in_range) << lane;
        }
        shuffle(warp, inst, (mask, ready), env, (&sources, ranges))
    }
}

/// As [`Shfl`], from any lane of the warp.
struct Anywhere;

impl Exec for Anywhere {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let ready = match meet_unless_all(warp, inst, mask, env) {
            Ok(ready) => ready,
            Err(flow) => return flow,
        };
        let sources = warp.regs.words[inst.b as usize].0.map(|b| b & 31);
        shuffle(warp, inst, (mask, ready), env, (&sources, ALL))
    }
}

/// As [`meet`], for a shuffle. Where all lanes are here and a constant says that all have to be, there is nothing to look at.
#[inline(always)]
fn meet_unless_all(warp: &Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Result<Mask, Flow> {
    if mask == ALL && inst.aux == ALL { Ok(ALL) } else { meet(warp, env, mask, inst.m) }
}

/// The lane that a lane takes its value from: itself, where the one chosen is not in range.
#[inline(always)]
fn chosen<D: Direction>(lane: u32, b: u32, c: u32) -> (u32, bool) {
    let (b, segment, clamp) = (b & 31, c >> 8 & 31, c & 31);
    let min = lane & segment;
    let max = min | (clamp & !segment);
    let (source, in_range) = D::source(lane, (b, b & !segment), min, max);
    (if in_range { source & 31 } else { lane }, in_range)
}

/// As [`Shfl`], with constants for `b` and `c`: each lane's source is in the list, and in `imm` whether it is in range.
struct Fixed;

impl Exec for Fixed {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let sources = inst.list.first_chunk().expect("it was made with one for each lane");
        if mask == ALL && inst.aux == ALL {
            let out = permuted(&warp.regs.words[inst.a as usize], sources);
            env.undefined = 0;
            warp.regs.write_pred(inst.p, ALL, inst.imm as u32);
            warp.regs.words[inst.d as usize] = out;
            return Flow::Next;
        }
        let ready = match meet(warp, env, mask, inst.m) {
            Ok(ready) => ready,
            Err(flow) => return flow,
        };
        shuffle(warp, inst, (mask, ready), env, (sources, inst.imm as u32))
    }
}

/// What the lanes have that these lanes take it from.
#[inline(always)]
fn permuted(values: &Lanes<u32>, sources: &[u32; LANES]) -> Lanes<u32> {
    let mut out = Lanes([0; LANES]);
    wide::permuted(&values.0, sources, &mut out.0);
    out
}

/// Gives lanes their sources' values of `a`, and predicate `p` tells which were in range.
#[inline(always)]
fn shuffle(
    warp: &mut Warp,
    inst: &Inst,
    (mask, ready): (Mask, Mask),
    env: &mut Env<'_>,
    (sources, ranges): (&[u32; LANES], Mask),
) -> Flow {
    let out = permuted(&warp.regs.words[inst.a as usize], sources);
    let mut undefined = 0;
    if ready != ALL {
        for lane in 0..LANES {
            undefined |= ((!ready >> sources[lane]) & 1) << lane;
        }
    }
    // A value from a lane that takes no part is undefined: reading it is a finding.
    let tracking = inst.tracked != UNTRACKED && env.launch.checks.contains(Checks::REGISTERS);
    env.undefined = if tracking && inst.d != SINK { undefined & ready } else { 0 };
    warp.regs.write_pred(inst.p, ready, ranges);
    warp.regs.write(inst.d, ready, &out);
    met(env, mask, ready)
}

fn shfl(f: &mut Form<'_, '_>) -> Lowered {
    let (d, p) = f.dst_pair(Type::B32)?;
    f.inst.d = d;
    f.inst.p = p.unwrap_or_else(|| f.body.sink(crate::types::Class::Pred));
    f.inst.a = f.src(Type::B32)?;
    f.inst.b = f.src(Type::B32)?;
    f.inst.c = f.src(Type::B32)?;
    f.inst.m = f.src(Type::B32)?;
    f.inst.aux = f.body.constant_bits(f.inst.m).unwrap_or(0) as u32;
    f.partial = true;
    match f.pick(&[("up", 0), ("down", 1), ("bfly", 2)]) {
        Some(0) => shfl_as::<Up>(f),
        Some(1) => shfl_as::<Down>(f),
        Some(_) => shfl_as::<Butterfly>(f),
        None if f.body.constant_bits(f.inst.b).is_none()
            && f.body.constant_bits(f.inst.c).is_some_and(|c| c & 0x1f1f == 31) =>
        {
            f.run::<Anywhere>()
        }
        None => shfl_as::<Index>(f),
    }
}

fn shfl_as<D: Direction>(f: &mut Form<'_, '_>) -> Lowered {
    let [b, c] = [f.inst.b, f.inst.c].map(|slot| f.body.constant_bits(slot));
    let (Some(b), Some(c)) = (b, c) else { return f.run::<Shfl<D>>() };
    let chosen = |lane| chosen::<D>(lane, b as u32, c as u32);
    f.inst.list = (0..LANES as u32).map(|lane| chosen(lane).0).collect();
    let ranges = (0..LANES as u32).fold(0, |mask, lane| mask | u32::from(chosen(lane).1) << lane);
    f.inst.imm = ranges.into();
    f.run::<Fixed>()
}

/// Calls `act` for each set of ready lanes that share a membermask.
fn by_members(warp: &mut Warp, inst: &Inst, ready: Mask, mut act: impl FnMut(&mut Warp, Mask)) {
    let members = warp.regs.words[inst.m as usize];
    let mut left = ready;
    while left != 0 {
        let value = members.0[left.trailing_zeros() as usize];
        let set = value & left;
        left &= !set;
        act(warp, set);
    }
}

/// The vote of [`Inst::aux`]: 0 all, 1 any, 2 uni.
struct Vote;

impl Exec for Vote {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let ready = match meet(warp, env, mask, inst.m) {
            Ok(ready) => ready,
            Err(flow) => return flow,
        };
        by_members(warp, inst, ready, |warp, set| {
            let votes = warp.regs.pred(inst.a, inst.b) & set;
            let result = match inst.aux {
                0 => votes == set,
                1 => votes != 0,
                _ => votes == set || votes == 0,
            };
            warp.regs.write_pred(inst.d, set, if result { u32::MAX } else { 0 });
        });
        met(env, mask, ready)
    }
}

fn vote(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.aux = f.pick(&[("all", 0), ("any", 1), ("uni", 2)]).unwrap_or(0);
    f.inst.d = f.dst(Type::Pred)?;
    (f.inst.a, f.inst.b) = f.src_pred()?;
    f.inst.m = f.src(Type::B32)?;
    f.run::<Vote>()
}

struct Ballot;

impl Exec for Ballot {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let ready = match meet(warp, env, mask, inst.m) {
            Ok(ready) => ready,
            Err(flow) => return flow,
        };
        by_members(warp, inst, ready, |warp, set| {
            let votes = warp.regs.pred(inst.a, inst.b) & set;
            warp.regs.write(inst.d, set, &Lanes([votes; LANES]));
        });
        met(env, mask, ready)
    }
}

fn ballot(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B32)?;
    (f.inst.a, f.inst.b) = f.src_pred()?;
    f.inst.m = f.src(Type::B32)?;
    f.run::<Ballot>()
}

/// Lanes with the same value; or all lanes if all values are the same, where `ALL`.
struct Match<W, const ALL: bool>(PhantomData<W>);

impl<W: Word + PartialEq, const ALL: bool> Exec for Match<W, ALL> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let ready = match meet(warp, env, mask, inst.m) {
            Ok(ready) => ready,
            Err(flow) => return flow,
        };
        by_members(warp, inst, ready, |warp, set| {
            let values = *W::read(&warp.regs, inst.a);
            let same = |lane: usize| {
                lanes(set).filter(|&l| values.0[l] == values.0[lane]).fold(0, |m, l| m | 1u32 << l)
            };
            let first = same(set.trailing_zeros() as usize);
            let mut out = Lanes::default();
            for lane in lanes(set) {
                out.0[lane] = if !ALL {
                    same(lane)
                } else if first == set {
                    set
                } else {
                    0
                };
            }
            warp.regs.write(inst.d, set, &out);
            warp.regs.write_pred(inst.p, set, if first == set { u32::MAX } else { 0 });
            // CUDA's headers elect by it a lane that fences for all of them.
            if let Some(order) = &mut env.order {
                order.sync_lanes(warp.index, set);
            }
        });
        met(env, mask, ready)
    }
}

fn match_any(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(Type::B32)?;
    f.inst.p = f.body.sink(crate::types::Class::Pred);
    f.inst.a = f.src(ty)?;
    f.inst.m = f.src(Type::B32)?;
    if ty.bits() == 64 { f.run::<Match<u64, false>>() } else { f.run::<Match<u32, false>>() }
}

fn match_all(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    let (d, p) = f.dst_pair(Type::B32)?;
    f.inst.d = d;
    f.inst.p = p.unwrap_or_else(|| f.body.sink(crate::types::Class::Pred));
    f.inst.a = f.src(ty)?;
    f.inst.m = f.src(Type::B32)?;
    if ty.bits() == 64 { f.run::<Match<u64, true>>() } else { f.run::<Match<u32, true>>() }
}

/// A reduction over the lanes of the membermask.
trait Fold<T>: 'static {
    fn fold(a: T, b: T) -> T;
}

macro_rules! folds {
    ($($name:ident($t:ty) => |$a:ident, $b:ident| $body:expr;)*) => {$(
        struct $name;
        impl Fold<$t> for $name {
            fn fold($a: $t, $b: $t) -> $t {
                $body
            }
        }
    )*};
}
folds! {
    Add(u32) => |a, b| a.wrapping_add(b);
    And(u32) => |a, b| a & b;
    Or(u32) => |a, b| a | b;
    Xor(u32) => |a, b| a ^ b;
    MinU(u32) => |a, b| a.min(b);
    MaxU(u32) => |a, b| a.max(b);
    MinS(i32) => |a, b| a.min(b);
    MaxS(i32) => |a, b| a.max(b);
}

struct Redux<O, T>(PhantomData<(O, T)>);

impl<O: Fold<T>, T: Value<Word = u32>> Exec for Redux<O, T> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let ready = match meet(warp, env, mask, inst.m) {
            Ok(ready) => ready,
            Err(flow) => return flow,
        };
        by_members(warp, inst, ready, |warp, set| {
            let values = warp.regs.words[inst.a as usize];
            let result = lanes(set).map(|lane| T::get(values.0[lane])).reduce(O::fold);
            let bits = result.map_or(0, T::put);
            warp.regs.write(inst.d, set, &Lanes([bits; LANES]));
        });
        met(env, mask, ready)
    }
}

fn redux(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(ty)?;
    f.inst.a = f.src(ty)?;
    f.inst.m = f.src(Type::B32)?;
    let name = ["add", "and", "or", "xor", "min", "max"].into_iter().find(|n| f.has(n));
    match (name.unwrap_or(""), ty) {
        ("add", _) => f.run::<Redux<Add, u32>>(),
        ("and", _) => f.run::<Redux<And, u32>>(),
        ("or", _) => f.run::<Redux<Or, u32>>(),
        ("xor", _) => f.run::<Redux<Xor, u32>>(),
        ("min", Type::U32) => f.run::<Redux<MinU, u32>>(),
        ("max", Type::U32) => f.run::<Redux<MaxU, u32>>(),
        ("min", _) => f.run::<Redux<MinS, i32>>(),
        _ => f.run::<Redux<MaxS, i32>>(),
    }
}

/// The lanes that execute it together.
struct ActiveMask;

impl Exec for ActiveMask {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        warp.regs.write(inst.d, mask, &Lanes([mask; LANES]));
        Flow::Next
    }
}

fn activemask(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B32)?;
    f.run::<ActiveMask>()
}

/// The lowest lane of the membermask leads.
struct Elect;

impl Exec for Elect {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let ready = match meet(warp, env, mask, inst.m) {
            Ok(ready) => ready,
            Err(flow) => return flow,
        };
        by_members(warp, inst, ready, |warp, set| {
            let leader = set.trailing_zeros();
            warp.regs.write(inst.d, set, &Lanes([leader; LANES]));
            warp.regs.write_pred(inst.p, set, 1 << leader);
        });
        met(env, mask, ready)
    }
}

fn elect(f: &mut Form<'_, '_>) -> Lowered {
    let (d, p) = f.dst_pair(Type::B32)?;
    f.inst.d = d;
    f.inst.p = p.ok_or_else(|| f.fault("`elect.sync` has a predicate result"))?;
    f.inst.m = f.src(Type::B32)?;
    f.run::<Elect>()
}

#[cfg(test)]
mod tests {
    use crate::finding::FindingKind;
    use crate::testing::{finding, warp};

    /// What each lane gets from its `%tid.x` (in `%a`) and the text.
    fn lanes_of(text: &str) -> Vec<u32> {
        warp(&format!("mov.u32 %a, %tid.x; {text}"))
    }

    #[test]
    fn shuffles() {
        let got = lanes_of("shfl.sync.bfly.b32 %d, %a, 3, 0x1f, -1;");
        assert!(got.iter().enumerate().all(|(i, &v)| v == i as u32 ^ 3));
        let got = lanes_of("shfl.sync.down.b32 %d|%p, %a, 2, 0x1f, -1; @!%p mov.u32 %d, 99;");
        assert!(got.iter().enumerate().all(|(i, &v)| v == if i < 30 { i as u32 + 2 } else { 99 }));
        let got = lanes_of("shfl.sync.up.b32 %d|%p, %a, 2, 0, -1; @!%p mov.u32 %d, 99;");
        assert!(got.iter().enumerate().all(|(i, &v)| v == if i >= 2 { i as u32 - 2 } else { 99 }));
        let got = lanes_of("shfl.sync.idx.b32 %d, %a, 5, 0x1f, -1;");
        assert!(got.iter().all(|&v| v == 5));
        // Segments of 8 lanes: the mask in bits 8 to 12 is 0x18, the clamp 0x1f (or 0 for up).
        let got = lanes_of("shfl.sync.idx.b32 %d, %a, 1, 0x181f, -1;");
        assert!(got.iter().enumerate().all(|(i, &v)| v == (i as u32 & 24) + 1));
        let got = lanes_of(
            "add.u32 %b, %a, 7; shfl.sync.idx.b32 %d|%p, %a, %b, 0xe01f, -1; @!%p mov.u32 %d, 99;",
        );
        assert!(got.iter().enumerate().all(|(i, &v)| v == (i as u32 + 7) % 32));
        let got = lanes_of("add.u32 %b, %a, 7; shfl.sync.idx.b32 %d, %a, %b, 0x181f, -1;");
        assert!(got.iter().enumerate().all(|(i, &v)| v == (i as u32 & 24) + (i as u32 + 7) % 8));
        let got = lanes_of("shfl.sync.down.b32 %d, %a, 1, 0x181f, -1;");
        assert!(
            got.iter()
                .enumerate()
                .all(|(i, &v)| v == if i % 8 < 7 { i as u32 + 1 } else { i as u32 })
        );
        let got = lanes_of("shfl.sync.up.b32 %d, %a, 1, 0x1800, -1;");
        assert!(
            got.iter()
                .enumerate()
                .all(|(i, &v)| v == if i % 8 > 0 { i as u32 - 1 } else { i as u32 })
        );
    }

    #[test]
    fn votes_and_reductions() {
        let got = lanes_of("setp.lt.u32 %p, %a, 5; vote.sync.ballot.b32 %d, %p, -1;");
        assert!(got.iter().all(|&v| v == 31));
        let got = lanes_of(
            "setp.lt.u32 %p, %a, 5; vote.sync.any.pred %q, %p, -1; selp.u32 %d, 1, 0, %q;",
        );
        assert!(got.iter().all(|&v| v == 1));
        let got = lanes_of(
            "setp.lt.u32 %p, %a, 5; vote.sync.all.pred %q, !%p, -1; selp.u32 %d, 1, 0, %q;",
        );
        assert!(got.iter().all(|&v| v == 0));
        let got = lanes_of("redux.sync.add.u32 %d, %a, -1;");
        assert!(got.iter().all(|&v| v == 31 * 16));
        let got = lanes_of("sub.u32 %a, %a, 4; redux.sync.min.s32 %d, %a, -1;");
        assert!(got.iter().all(|&v| v == -4i32 as u32));
        let got = lanes_of("and.b32 %a, %a, 1; match.any.sync.b32 %d, %a, -1;");
        assert_eq!((got[0], got[1]), (0x5555_5555, 0xaaaa_aaaa));
        let got =
            lanes_of("and.b32 %a, %a, 0; match.all.sync.b32 %d|%p, %a, -1; @!%p mov.u32 %d, 0;");
        assert!(got.iter().all(|&v| v == u32::MAX));
        let got = lanes_of("elect.sync %d|%p, -1; @%p mov.u32 %d, 77;");
        assert_eq!((got[0], got[1]), (77, 0));
    }

    #[test]
    fn halves_of_a_warp_with_masks_of_their_own() {
        let got = lanes_of(
            "setp.lt.u32 %p, %a, 16; selp.b32 %b, 0xffff, 0xffff0000, %p; redux.sync.add.u32 %d, %a, %b;",
        );
        assert_eq!((got[0], got[31]), (120, 376));
    }

    #[test]
    fn lanes_meet_after_a_branch() {
        let got = lanes_of(
            "setp.lt.u32 %p, %a, 7; @%p bra $low; add.u32 %a, %a, 100; $low: redux.sync.max.u32 %d, %a, -1;",
        );
        assert!(got.iter().all(|&v| v == 131));
    }

    #[test]
    fn lanes_that_never_arrive_are_found() {
        let text = "mov.u32 %a, %tid.x; setp.lt.u32 %p, %a, 7; @%p shfl.sync.idx.b32 %d, %a, 0, 0x1f, -1; bar.warp.sync -1;";
        let found = finding(text);
        assert_eq!(found.kind, FindingKind::Membermask);
        assert!(found.message.contains("7-31"), "{found}");
        let text = "mov.u32 %a, %tid.x; shfl.sync.idx.b32 %d, %a, 0, 0x1f, 0xff;";
        assert_eq!(finding(text).kind, FindingKind::Membermask);
    }

    #[test]
    fn a_value_from_a_lane_outside_is_found_when_it_is_used() {
        let text = |end: &str| {
            format!(
                "mov.u32 %a, %tid.x; setp.ge.u32 %p, %a, 8; @%p bra $end; shfl.sync.down.b32 %b, %a, 1, 0x1f, 0xff; {end} $end:"
            )
        };
        let used = text("add.u32 %d, %b, 1; setp.ne.u32 %p, %d, 0; @%p trap;");
        assert_eq!(finding(&used).kind, FindingKind::UninitialisedRegister);
        warp(&text("mov.u32 %d, 3;").replace("$end:", "$end: mov.u32 %d, 1;"));
    }
}
