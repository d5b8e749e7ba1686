//! Loads and stores (PTX ISA, "Data Movement and Conversion Instructions: ld, st").
//!
//! Cache operators, eviction priorities and prefetch sizes are hints: read, checked for spelling,
//! without effect. Volatile, relaxed, acquire and release accesses to global memory order CTAs, so
//! they run when the round commits, unless their scope is the CTA.

use std::marker::PhantomData;

use super::Lowered;
use crate::checks::access::unwritten;
use crate::error::Fault;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask, lanes};
use crate::exec::patterns;
use crate::exec::warp::Warp;
use crate::exec::wide::{self, Routine};
use crate::launch::Checks;
use crate::lower::form::{ACQUIRES, Form, Place, RELEASES, STRONG, WIDE_ADDRESS, WIDER};
use crate::lower::strands::Strand;
use crate::lower::table::{Row, row};
use crate::memory::access::{
    Access, Generic, Global, Local, Memory, Param, Perform, Refused, Resolve, Shared, access_known,
    addresses, check_races, count, observe, refuse,
};
use crate::memory::cells::spots::Room;
use crate::memory::{GLOBAL_BASE, WINDOW_BYTES, find};
use crate::types::{Kind, Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row(
        "ld[.mmio][.weak|volatile|relaxed|acquire][.cta|cluster|gpu|sys][.const|global|local|param|param::entry|param::func|shared|shared::cta|shared::cluster][.ca|cg|cs|lu|cv][.nc][.L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate][.L2::evict_normal|L2::evict_first|L2::evict_last][.L2::cache_hint][.L2::64B|L2::128B|L2::256B][.v2|v4|v8].b8|b16|b32|b64|b128|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64 d, [a][, policy]",
        ld,
    ),
    row("ldu[.global][.v2|v4].b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64 d, [a]", ld),
    row(
        "st[.mmio][.weak|volatile|relaxed|release][.cta|cluster|gpu|sys][.global|local|param|param::func|shared|shared::cta|shared::cluster][.wb|cg|cs|wt][.L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate][.L2::evict_normal|L2::evict_first|L2::evict_last][.L2::cache_hint][.v2|v4|v8].b8|b16|b32|b64|b128|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64 [a], b[, policy]",
        st,
    ),
];

/// Calls a generic function with a space as a type.
macro_rules! in_space {
    ($space:expr, $r:ident => $body:expr) => {
        match $space {
            Space::Shared => {
                type $r = Shared;
                $body
            }
            Space::Local => {
                type $r = Local;
                $body
            }
            Space::Param => {
                type $r = Param;
                $body
            }
            Space::Generic => {
                type $r = Generic;
                $body
            }
            _ => {
                type $r = Global;
                $body
            }
        }
    };
}

mod elements;
// After the macro, which it uses.
mod undefined;

use elements::{Elements, Loading, Storing, deliver, words_of};
use undefined::{store_undefined, undefined};

/// Whether an access that orders CTAs has to wait for the commit: where any lane's address is global.
#[inline(always)]
fn has_to_wait(warp: &Warp, inst: &Inst, mask: Mask, env: &Env<'_>) -> bool {
    inst.aux & WIDER != 0 && env.must_defer() && any_global(warp, inst, mask)
}

/// Loads `BYTES` bytes from the address of each lane, in a space, into the registers of [`Inst::list`].
struct Load<R, const BYTES: usize, const WORDS: usize>(PhantomData<R>);

impl<R: Resolve, const BYTES: usize, const WORDS: usize> Exec for Load<R, BYTES, WORDS> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let what = Loading::<BYTES, WORDS> { inst, mask };
        match access_known::<R, BYTES>(warp, inst, mask, env, Access::Load, what) {
            Some(flow) => {
                if env.launch.traffic {
                    let copied = warp.copies.bytes_in_flight;
                    env.count_in_flight((warp.index, inst), mask, copied);
                }
                flow
            }
            None => wide::call(SlowLoad::<BYTES, WORDS> { warp, inst, mask, env }),
        }
    }
}

/// As [`Load`], in any space, at places that may lie in any manner.
struct SlowLoad<'a, 'e, const BYTES: usize, const WORDS: usize> {
    warp: &'a mut Warp,
    inst: &'a Inst,
    mask: Mask,
    env: &'a mut Env<'e>,
}

impl<const BYTES: usize, const WORDS: usize> Routine for SlowLoad<'_, '_, BYTES, WORDS> {
    type Out = Flow;

    #[inline(always)]
    fn run(self) -> Flow {
        let SlowLoad { warp, inst, mask, env } = self;
        if has_to_wait(warp, inst, mask, env) {
            return Flow::Defer;
        }
        let at = addresses(&warp.regs, inst);
        let elements = Elements::of(inst);
        let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
        let checked = env.launch.checks.contains(Checks::MEMORY);
        let mut hint = env.hints[inst.site as usize];
        let mut room = Room::new();
        let place = find::place::<BYTES>(&memory, elements.space, &mut hint, &at, mask, &mut room)
            .filter(|(region, spots)| {
                !checked || mask & !region.permits(*spots, Access::Load) == 0
            });
        let mut missing = None;
        match place {
            Some((region, spots)) => {
                _ = Loading::<BYTES, WORDS> { inst, mask }.perform(&mut warp.regs, region, spots);
            }
            None => match load_one_by_one::<BYTES, WORDS>(warp, env, inst, &at, mask) {
                Ok(found) => missing = found,
                Err(flow) => return flow,
            },
        }
        env.hints[inst.site as usize] = hint;
        if env.launch.traffic {
            env.count_in_flight((warp.index, inst), mask, warp.copies.bytes_in_flight);
        }
        let flow = in_space!(elements.space, R => {
            observe::<R>(env, (warp.index, inst), &at, mask, BYTES as u64, Access::Load)
        });
        match missing {
            Some(missing) if flow == Flow::Next => {
                undefined::<BYTES>(warp, env, inst, &at, mask, &missing)
            }
            _ => flow,
        }
    }
}

/// Stores the registers of [`Inst::list`], `BYTES` bytes together, to the address of each lane, in a space.
struct Store<R, const BYTES: usize, const WORDS: usize>(PhantomData<R>);

impl<R: Resolve, const BYTES: usize, const WORDS: usize> Exec for Store<R, BYTES, WORDS> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let mut known = None;
        if warp.taint.is_none() {
            let what = Storing::<BYTES, WORDS> { inst, mask, compared: is_compared(env, inst) };
            env.stored_at_once = mask == env.live;
            known = access_known::<R, BYTES>(warp, inst, mask, env, Access::Store, what);
        }
        match known {
            Some(flow) => flow,
            None => wide::call(SlowStore::<BYTES, WORDS> { warp, inst, mask, env }),
        }
    }
}

/// As [`Store`], in any space, at places that may lie in any manner.
struct SlowStore<'a, 'e, const BYTES: usize, const WORDS: usize> {
    warp: &'a mut Warp,
    inst: &'a Inst,
    mask: Mask,
    env: &'a mut Env<'e>,
}

impl<const BYTES: usize, const WORDS: usize> Routine for SlowStore<'_, '_, BYTES, WORDS> {
    type Out = Flow;

    #[inline(always)]
    fn run(self) -> Flow {
        let SlowStore { warp, inst, mask, env } = self;
        if has_to_wait(warp, inst, mask, env) {
            return Flow::Defer;
        }
        let at = addresses(&warp.regs, inst);
        let elements = Elements::of(inst);
        let compared = is_compared(env, inst);
        let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
        let checked = env.launch.checks.contains(Checks::MEMORY);
        let mut hint = env.hints[inst.site as usize];
        let mut room = Room::new();
        let place = find::place::<BYTES>(&memory, elements.space, &mut hint, &at, mask, &mut room)
            .filter(|(region, spots)| {
                !checked || mask & !region.permits(*spots, Access::Store) == 0
            });
        let unchanging = match place {
            Some((region, spots)) => {
                let what = Storing::<BYTES, WORDS> { inst, mask, compared };
                what.perform(&mut warp.regs, region, spots)
            }
            None => {
                let mut collected = [Lanes([0; LANES]); WORDS];
                let words = words_of(&warp.regs, inst, &mut collected);
                match store_one_by_one::<BYTES, WORDS>(warp, env, elements.space, &at, mask, words)
                {
                    Ok(unchanging) if compared => unchanging,
                    Ok(_) => 0,
                    Err(flow) => return flow,
                }
            }
        };
        env.hints[inst.site as usize] = hint;
        if warp.taint.is_some() && store_undefined(warp, env, inst, &at, mask) == Flow::Fault {
            return Flow::Fault;
        }
        in_space!(elements.space, R => {
            let slot = patterns::Slot::of(inst.home, warp.index);
            let known = count::<R>(env, slot, &at, mask, BYTES as u64, Access::Store);
            let changing = mask & !unchanging;
            env.stored_at_once = mask == env.live;
            let place = (warp.index, inst, known);
            check_races::<R>(env, place, &at, changing, BYTES as u64, Access::Store)
        })
    }
}

/// Whether a store tells lanes that leave every byte as it was: threads that write the same value (replicated results, as
/// compilers make them) do not race.
fn is_compared(env: &Env<'_>, inst: &Inst) -> bool {
    has_races(env.launch.checks) && inst.aux & STRONG == 0
}

fn has_races(checks: Checks) -> bool {
    checks.contains(Checks::SHARED_RACES) || checks.contains(Checks::GLOBAL_RACES)
}

/// Loads lane by lane, from different regions or until one is at fault: that gives what to return. If the only fault is
/// that shared or local memory was never written, the load is carried out and these bytes are given back, lane by lane.
#[inline(never)]
fn load_one_by_one<const BYTES: usize, const WORDS: usize>(
    warp: &mut Warp,
    env: &mut Env<'_>,
    inst: &Inst,
    at: &Lanes<u64>,
    mask: Mask,
) -> Result<Option<Box<Lanes<u32>>>, Flow> {
    let space = Elements::of(inst).space;
    let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
    let how = (Access::Load, env.launch.checks.contains(Checks::MEMORY));
    let mut words = [Lanes([0; LANES]); WORDS];
    let visited =
        find::one_by_one::<BYTES>(&memory, space, at, mask, how, |lane, region, spots| {
            let loaded: [u32; WORDS] = region.data.at(spots).load_lane(lane);
            for (words, word) in words.iter_mut().zip(loaded) {
                words.0[lane] = word;
            }
        });
    let Err(refused) = visited else {
        deliver(&mut warp.regs, inst, mask, &words);
        return Ok(None);
    };
    let mut missing = Box::new(Lanes([0; LANES]));
    for lane in lanes(mask) {
        let found = in_space!(space, R => unwritten::<R>(&memory, lane, at.0[lane], BYTES as u64));
        let Some((region, offset, bytes)) = found else {
            let refused = Refused { lane, address: at.0[lane], ..refused };
            return Err(in_space!(space, R => refuse::<R>(env, warp.local.as_ref(), refused)));
        };
        missing.0[lane] = bytes;
        for (index, words) in words.iter_mut().enumerate() {
            let mut word = [0; 4];
            region.data.read(offset + 4 * index, &mut word[..BYTES.min(4)]);
            words.0[lane] = u32::from_le_bytes(word);
        }
    }
    deliver(&mut warp.regs, inst, mask, &words);
    Ok(Some(missing))
}

/// Stores lane by lane, as [`load_one_by_one`]; gives the lanes whose store left every byte as it was.
#[inline(never)]
fn store_one_by_one<const BYTES: usize, const WORDS: usize>(
    warp: &Warp,
    env: &mut Env<'_>,
    space: Space,
    at: &Lanes<u64>,
    mask: Mask,
    words: [&Lanes<u32>; WORDS],
) -> Result<Mask, Flow> {
    let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
    let how = (Access::Store, env.launch.checks.contains(Checks::MEMORY));
    let mut unchanging = 0;
    let visited =
        find::one_by_one::<BYTES>(&memory, space, at, mask, how, |lane, region, spots| {
            unchanging |= region.store_spots_compared(spots, 1 << lane, words);
        });
    match visited {
        Ok(()) => Ok(unchanging),
        Err(refused) => Err(in_space!(space, R => refuse::<R>(env, warp.local.as_ref(), refused))),
    }
}

/// Whether a lane's generic address is not in shared or local memory.
pub(crate) fn any_global(warp: &Warp, inst: &Inst, mask: Mask) -> bool {
    let at = addresses(&warp.regs, inst);
    crate::exec::lanes::lanes(mask).any(|lane| at.0[lane] >= GLOBAL_BASE)
}

/// The space that an instruction names; none is generic.
pub(crate) fn space(f: &Form<'_, '_>) -> Space {
    f.ins.modifiers.iter().find_map(|m| Space::parse(m)).unwrap_or(Space::Generic)
}

/// Modifiers of accesses that order threads.
const STRENGTHS: [&str; 5] = ["volatile", "relaxed", "acquire", "release", "mmio"];

/// Whether the access orders CTAs among each other.
fn orders_ctas(f: &Form<'_, '_>) -> bool {
    let strong = STRENGTHS.iter().any(|m| f.has(m));
    strong && !f.has("cta") && !f.has("cluster")
}

fn check_strength(f: &Form<'_, '_>) -> Lowered {
    let scope = ["cta", "cluster", "gpu", "sys"].iter().any(|m| f.has(m));
    let scoped = ["relaxed", "acquire", "release", "mmio"].iter().any(|m| f.has(m));
    match (scope, scoped) {
        (true, false) => Err(f.fault("a scope needs .relaxed, .acquire or .release")),
        (false, true) => Err(f.fault("a relaxed, acquire or release access needs a scope")),
        _ if f.has("local") && STRENGTHS.iter().any(|m| f.has(m)) => {
            Err(f.fault("local memory has no order between threads"))
        }
        _ => check_mmio(f),
    }
}

/// Memory of devices is read and written as it is: a single element, relaxed for the whole system.
fn check_mmio(f: &Form<'_, '_>) -> Lowered {
    let global = matches!(space(f), Space::Global | Space::Generic);
    let alone = global && vector_length(f) == 1 && f.has("relaxed") && f.has("sys");
    if f.has("mmio") && !alone {
        return Err(f.fault("`.mmio` goes with `.relaxed.sys` and one element of global memory"));
    }
    Ok(())
}

fn vector_length(f: &Form<'_, '_>) -> usize {
    f.pick(&[("v2", 2), ("v4", 4), ("v8", 8)]).unwrap_or(1)
}

/// An operand that only a hint takes.
fn policy_operand(f: &mut Form<'_, '_>) -> Lowered {
    if f.has("L2::cache_hint") {
        f.src(Type::B64)?;
    }
    Ok(())
}

/// Notes how the access orders threads.
fn note_strength(f: &mut Form<'_, '_>) {
    for (flag, set) in [
        (STRONG, STRENGTHS.iter().any(|m| f.has(m))),
        (WIDER, orders_ctas(f)),
        (ACQUIRES, f.has("acquire")),
        (RELEASES, f.has("release")),
    ] {
        f.inst.aux |= if set { flag } else { 0 };
    }
}

/// Sets what the instruction accesses, and its handler.
macro_rules! run_access {
    ($f:expr, $handler:ident, $ty:expr, $count:expr, $space:expr, $register:expr) => {{
        let f: &mut Form<'_, '_> = $f;
        note_strength(f);
        let (bytes, signed) = ($ty.bits() / 8, $ty.kind() == Kind::Signed);
        Elements { space: $space, bytes, signed, register: $register }.pack(&mut f.inst);
        let base = (f.inst.a, f.inst.aux & WIDE_ADDRESS != 0);
        f.strand = Some(Strand { bytes: bytes * $count as u32, bases: [Some(base), None] });
        in_space!($space, R => match bytes as usize * $count {
            1 => f.run::<$handler<R, 1, 1>>(),
            2 => f.run::<$handler<R, 2, 1>>(),
            4 => f.run::<$handler<R, 4, 1>>(),
            8 => f.run::<$handler<R, 8, 2>>(),
            16 => f.run::<$handler<R, 16, 4>>(),
            32 => f.run::<$handler<R, 32, 8>>(),
            _ => Err(f.fault("no vector has more than 32 bytes")),
        })
    }};
}

/// The space that an access resolves in.
fn resolved(f: &Form<'_, '_>, space: Space, place: Place) -> Result<Space, Fault> {
    match (space, place) {
        (Space::Param, Place::CallParam) | (Space::Local, _) => Ok(Space::Local),
        (Space::Global | Space::Const, _) => Ok(Space::Global),
        (Space::Param | Space::Shared | Space::Generic, _) => Ok(space),
        (Space::Reg, _) => Err(f.fault("no access to registers")),
    }
}

/// Checks what hints and sizes go with: more than 128 bits and eviction priorities are for global memory.
fn check_length(f: &Form<'_, '_>, ty: Type, count: usize) -> Lowered {
    let global = matches!(space(f), Space::Global | Space::Generic | Space::Const);
    let hint = f.ins.modifiers.iter().find(|m| m.starts_with("L1::") || m.starts_with("L2::"));
    if let Some(hint) = hint.filter(|_| !global) {
        return Err(f.fault(format!("`.{hint}` is for global memory")));
    }
    let evicts =
        f.ins.modifiers.iter().any(|m| m.starts_with("L1::") || m.starts_with("L2::evict"));
    let operators = ["ca", "cg", "cs", "lu", "cv", "wb", "wt"];
    if let Some(operator) = operators.into_iter().find(|o| evicts && f.has(o)) {
        return Err(f.fault(format!("`.{operator}` and an eviction priority exclude each other")));
    }
    if ty.bits() * count as u32 > 128 && ty != Type::B128 && !(global && f.body.sm >= 100) {
        return Err(f.fault("accesses of more than 128 bits need sm_100 and global memory"));
    }
    if ty == Type::B128 && count > 1 {
        return Err(f.fault("a vector of .b128 is longer than any access"));
    }
    if ty == Type::B128 && f.body.sm < 70 {
        return Err(f.fault("accesses of 128 bits need sm_70"));
    }
    Ok(())
}

/// What is moved between memory and registers: 128 bits are two elements of 64.
fn halved(ty: Type, count: usize) -> (Type, usize) {
    if ty == Type::B128 { (Type::B64, 2) } else { (ty, count) }
}

fn ld(f: &mut Form<'_, '_>) -> Lowered {
    check_strength(f)?;
    let (ty, count, space) = (f.ty(), vector_length(f), space(f));
    check_length(f, ty, count)?;
    let register = if ty == Type::B128 {
        f.dst_quad()?;
        64
    } else {
        f.dst_list(ty, count, true)?.bits()
    };
    let (ty, count) = halved(ty, count);
    let place = f.address(space)?;
    policy_operand(f)?;
    let space = resolved(f, space, place)?;
    run_access!(f, Load, ty, count, space, register)
}

fn st(f: &mut Form<'_, '_>) -> Lowered {
    check_strength(f)?;
    let (ty, count, space) = (f.ty(), vector_length(f), space(f));
    check_length(f, ty, count)?;
    let place = f.address(space)?;
    if space == Space::Param && place != Place::CallParam {
        return Err(f.fault("the parameters of an entry cannot be written"));
    }
    let register = if ty == Type::B128 {
        f.src_quad()?;
        64
    } else {
        f.src_list(ty, count, true)?.bits()
    };
    let (ty, count) = halved(ty, count);
    policy_operand(f)?;
    let space = resolved(f, space, place)?;
    run_access!(f, Store, ty, count, space, register)
}

/// Addresses of generic windows fit in what `any_global` compares with.
const _: () = assert!(crate::memory::PARAM_WINDOW + WINDOW_BYTES <= GLOBAL_BASE);

#[cfg(test)]
mod tests {
    use crate::finding::FindingKind;
    use crate::testing::{Program, eval, finding};

    #[test]
    fn shared_and_local_of_every_width() {
        for space in ["shared", "local"] {
            for (ty, text) in [("u8", "0xfe"), ("u16", "0xfffe"), ("u32", "0xfffffffe")] {
                let signed = ty.replace('u', "s");
                let code = format!(
                    "{{ .{space} .align 16 .b8 m[64]; mov.u32 %d, {text}; st.{space}.{ty} [m+16], %d; bar.warp.sync -1;
                       ld.{space}.{signed} %d, [m+16]; }}"
                );
                assert_eq!(eval(&code, &[]), -2i32 as u32, "{space} {ty}");
            }
            let code = format!(
                "{{ .{space} .align 16 .b8 m[64]; st.{space}.v4.b32 [m+32], {{%a, %b, %c, 9}}; bar.warp.sync -1;
                   .reg .b64 %x, %y; ld.{space}.v2.b64 {{%x, %y}}, [m+32]; shr.u64 %x, %x, 32; cvt.u32.u64 %d, %x; }}"
            );
            assert_eq!(eval(&code, &[1, 2, 3]), 2);
        }
    }

    #[test]
    fn generic_addresses_reach_every_space() {
        let code = "{ .shared .b32 s; .local .b32 l; .reg .u64 %x; .reg .u32 %t;
            mov.u64 %x, s; cvta.shared.u64 %x, %x; st.u32 [%x], %a; bar.warp.sync -1; ld.shared.u32 %d, [s];
            mov.u64 %x, l; cvta.local.u64 %x, %x; st.u32 [%x], %b; ld.local.u32 %t, [l]; add.u32 %d, %d, %t; }";
        assert_eq!(eval(code, &[3, 4]), 7);
    }

    #[test]
    fn hints_and_orders_are_read() {
        let program = Program::new(
            "ld.param.u64 %x, [out]; cvta.to.global.u64 %x, %x; mov.u32 %d, %tid.x; setp.ne.u32 %p, %d, 0; @%p exit;
             mov.u32 %d, 5; st.global.L1::no_allocate.u32 [%x], %d; ld.global.nc.L1::no_allocate.L2::128B.u32 %d, [%x];
             ld.global.L1::evict_last.u32 %d, [%x]; ld.acquire.gpu.global.u32 %d, [%x];
             st.release.sys.global.u32 [%x], 7; ld.volatile.global.u32 %d, [%x]; prefetch.global.L2 [%x];",
        );
        assert_eq!(program.run(&[]).unwrap()[0], 7);
    }

    #[test]
    fn bad_accesses_are_found() {
        let pointer = "ld.param.u64 %x, [out]; cvta.to.global.u64 %x, %x;";
        let found = |text: &str| finding(&format!("{pointer}{text}")).kind;
        assert_eq!(found("ld.global.u32 %d, [%x];"), FindingKind::UninitialisedMemory);
        assert_eq!(found("ld.global.u32 %d, [%x+4096];"), FindingKind::OutOfBounds);
        assert_eq!(found("ld.global.u32 %d, [%x-4];"), FindingKind::OutOfBounds);
        assert_eq!(found("st.global.u32 [%x+2], 1;"), FindingKind::Misaligned);
        assert_eq!(found("st.global.v4.u32 [%x+4], {1, 2, 3, 4};"), FindingKind::Misaligned);
        assert_eq!(found("mov.u64 %x, 0; st.global.u32 [%x], 1;"), FindingKind::OutOfBounds);
        assert_eq!(found("mov.u64 %x, -8; st.u64 [%x], 1;"), FindingKind::OutOfBounds);
        assert_eq!(
            found("mov.u64 %x, 0x8000000000000000; ld.global.u32 %d, [%x];"),
            FindingKind::OutOfBounds
        );
        assert_eq!(found("ld.shared.u32 %d, [%x];"), FindingKind::WrongSpace);
        let found = |text: &str| finding(text).kind;
        assert_eq!(
            found("{ .shared .b32 s; ld.shared.u32 %d, [s]; setp.ne.u32 %p, %d, 0; @%p trap; }"),
            FindingKind::UninitialisedMemory
        );
        assert_eq!(found("{ .shared .b32 s; ld.shared.u32 %d, [s+4]; }"), FindingKind::OutOfBounds);
        assert_eq!(
            found("{ .local .b32 s; ld.local.u32 %d, [s]; setp.ne.u32 %p, %d, 0; @%p trap; }"),
            FindingKind::UninitialisedMemory
        );
        assert_eq!(
            found(
                "{ .shared .b32 s; .reg .u64 %y; cvta.shared.u64 %y, s; ld.global.u32 %d, [%y]; }"
            ),
            FindingKind::WrongSpace
        );
    }

    #[test]
    fn a_finding_tells_where() {
        let finding = finding(
            "ld.param.u64 %x, [out]; cvta.to.global.u64 %x, %x;\n ld.global.u32 %d, [%x+4096];",
        );
        assert_eq!(finding.site.text, "ld.global.u32 %d, [%x+4096];");
        let text = finding.to_string();
        assert!(text.contains("error[out-of-bounds]: 4-byte global load"), "{text}");
        assert!(text.contains("past the end of buffer `out`"), "{text}");
        assert!(text.contains("CTA (0, 0, 0), warp 0, lane 0, thread (0, 0, 0)"), "{text}");
    }
}
