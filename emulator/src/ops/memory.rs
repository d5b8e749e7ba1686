//! Loads and stores (PTX ISA, "Data Movement and Conversion Instructions: ld, st").
//!
//! Cache operators, eviction priorities and prefetch sizes are hints: read, checked for spelling,
//! without effect. Volatile, relaxed, acquire and release accesses to global memory order CTAs, so
//! they run when the round commits, unless their scope is the CTA.

use std::marker::PhantomData;

use super::Lowered;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst, handler};
use crate::exec::lanes::{LANES, Lanes, Mask, Word};
use crate::exec::warp::Warp;
use crate::launch::Checks;
use crate::lower::form::{ACQUIRES, Form, Place, RELEASES, STRONG, WIDER};
use crate::lower::table::{Row, row};
use crate::memory::access::{
    Access, Generic, Global, Local, Memory, Param, Refused, Resolve, Shared, addresses,
    check_races, count, observe, permitted, refuse,
};
use crate::memory::cells::Cell;
use crate::memory::{GLOBAL_BASE, WINDOW_BYTES};
use crate::types::{Kind, Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row(
        "ld[.weak|volatile|relaxed|acquire|mmio][.cta|cluster|gpu|sys][.const|global|local|param|param::entry|param::func|shared|shared::cta][.ca|cg|cs|lu|cv][.nc][.L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate][.L2::evict_normal|L2::evict_first|L2::evict_last][.L2::cache_hint][.L2::64B|L2::128B|L2::256B][.v2|v4|v8].b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64 d, [a][, policy]",
        ld,
    ),
    row("ldu[.global][.v2|v4].b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64 d, [a]", ld),
    row(
        "st[.weak|volatile|relaxed|release|mmio][.cta|cluster|gpu|sys][.global|local|param|param::func|shared|shared::cta][.wb|cg|cs|wt][.L1::evict_normal|L1::evict_unchanged|L1::evict_first|L1::evict_last|L1::no_allocate][.L2::evict_normal|L2::evict_first|L2::evict_last][.L2::cache_hint][.v2|v4|v8].b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64 [a], b[, policy]",
        st,
    ),
];

/// How a loaded element becomes a register: what is read, and what is stored per lane.
pub(crate) trait Widen: 'static {
    type Cell: Cell;
    type Word: Word;
    fn widen(cell: Self::Cell) -> Self::Word;
}

/// Reads `C`, sees it as `S`, extends it to `V` and keeps its bits.
struct As<C, S, V>(PhantomData<(C, S, V)>);

macro_rules! widen {
    ($($cell:ty, $seen:ty, $value:ty => $word:ty;)*) => {$(
        impl Widen for As<$cell, $seen, $value> {
            type Cell = $cell;
            type Word = $word;
            #[inline(always)]
            fn widen(cell: $cell) -> $word {
                cell as $seen as $value as $word
            }
        }
    )*};
}
widen! {
    u8, u8, u32 => u32; u8, u8, u64 => u64; u8, i8, u16 => u32; u8, i8, u32 => u32; u8, i8, u64 => u64;
    u16, u16, u32 => u32; u16, u16, u64 => u64; u16, i16, u32 => u32; u16, i16, u64 => u64;
    u32, u32, u32 => u32; u32, u32, u64 => u64; u32, i32, u64 => u64; u64, u64, u64 => u64;
}

/// `N` elements from the address of each lane into the registers of [`Inst::list`].
struct Load<R, E, const N: usize>(PhantomData<(R, E)>);

impl<R: Resolve, E: Widen, const N: usize> Exec for Load<R, E, N> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let at = addresses(&warp.regs, inst);
        let size = E::Cell::BYTES;
        let bytes = size * N;
        let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
        let checked = env.launch.checks.contains(Checks::MEMORY);
        let mut hint = env.hints[inst.site as usize];
        let mut out = [Lanes::<E::Word>::default(); N];
        let mut failed = LANES;
        for lane in 0..LANES {
            if mask >> lane & 1 == 0 {
                continue;
            }
            let address = at.0[lane];
            let found = R::find(&memory, &mut hint, lane, address, bytes as u64);
            match found {
                Some((region, offset))
                    if address.is_multiple_of(bytes as u64)
                        && (!checked || permitted(region, offset, bytes, Access::Load)) =>
                {
                    for (index, register) in out.iter_mut().enumerate() {
                        register.0[lane] = E::widen(region.load(offset + index * size));
                    }
                }
                _ => {
                    failed = lane;
                    break;
                }
            }
        }
        if failed < LANES {
            let refused = Refused {
                lane: failed,
                address: at.0[failed],
                bytes: bytes as u64,
                access: Access::Load,
            };
            return refuse::<R>(env, warp.local.as_ref(), refused);
        }
        env.hints[inst.site as usize] = hint;
        for (index, register) in out.iter().enumerate() {
            warp.regs.write(inst.list[index], mask, register);
        }
        observe::<R>(env, (warp.index, inst), &at, mask, bytes as u64, Access::Load)
    }
}

/// The low bits of a register as a cell.
pub(crate) trait Narrow: Cell {
    fn narrow(bits: u64) -> Self;
}

macro_rules! narrow {
    ($($t:ty),*) => {$(
        impl Narrow for $t {
            #[inline(always)]
            fn narrow(bits: u64) -> $t {
                bits as $t
            }
        }
    )*};
}
narrow!(u8, u16, u32, u64);

/// `N` elements of the registers of [`Inst::list`] to the address of each lane.
struct Store<R, C, W, const N: usize>(PhantomData<(R, C, W)>);

impl<R: Resolve, C: Narrow, W: Word, const N: usize> Exec for Store<R, C, W, N> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let at = addresses(&warp.regs, inst);
        let bytes = C::BYTES * N;
        let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
        let checked = env.launch.checks.contains(Checks::MEMORY);
        let mut hint = env.hints[inst.site as usize];
        let values: [&Lanes<W>; N] =
            std::array::from_fn(|index| W::read(&warp.regs, inst.list[index]));
        let mut failed = LANES;
        // Lanes whose store leaves every byte as it was: threads that write the same value (replicated results, as
        // compilers make them) do not race.
        let mut unchanging: Mask = 0;
        for lane in 0..LANES {
            if mask >> lane & 1 == 0 {
                continue;
            }
            let address = at.0[lane];
            let found = R::find(&memory, &mut hint, lane, address, bytes as u64);
            match found {
                Some((region, offset))
                    if address.is_multiple_of(bytes as u64)
                        && (!checked || permitted(region, offset, bytes, Access::Store)) =>
                {
                    let mut same = permitted(region, offset, bytes, Access::Load);
                    for (index, value) in values.iter().enumerate() {
                        let (at, value) =
                            (offset + index * C::BYTES, C::narrow(value.0[lane].to_u64()));
                        same &= region.load::<C>(at) == value;
                        region.store(at, value);
                    }
                    unchanging |= u32::from(same) << lane;
                    region.mark_written(offset, bytes);
                }
                _ => {
                    failed = lane;
                    break;
                }
            }
        }
        if failed < LANES {
            let refused = Refused {
                lane: failed,
                address: at.0[failed],
                bytes: bytes as u64,
                access: Access::Store,
            };
            return refuse::<R>(env, warp.local.as_ref(), refused);
        }
        env.hints[inst.site as usize] = hint;
        count::<R>(env, &at, mask, bytes as u64, Access::Store);
        let changing = if inst.aux & STRONG == 0 { mask & !unchanging } else { mask };
        check_races::<R>(env, (warp.index, inst), &at, changing, bytes as u64, Access::Store)
    }
}

/// An access that orders CTAs: in a round it waits for the commit where any lane's address is global.
struct Ordering<E>(PhantomData<E>);

impl<E: Exec> Exec for Ordering<E> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if env.must_defer() && any_global(warp, inst, mask) {
            return Flow::Defer;
        }
        E::exec(warp, inst, mask, env)
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
        _ => Ok(()),
    }
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

/// The handler for an access, waiting for the commit where the instruction orders CTAs.
fn run_access<E: Exec>(f: &mut Form<'_, '_>) -> Lowered {
    let strong = STRENGTHS.iter().any(|m| f.has(m));
    let wider = orders_ctas(f);
    for (flag, set) in [
        (STRONG, strong),
        (WIDER, wider),
        (ACQUIRES, f.has("acquire")),
        (RELEASES, f.has("release")),
    ] {
        f.inst.aux |= if set { flag } else { 0 };
    }
    f.inst.run = if wider { handler::<Ordering<E>>() } else { handler::<E>() };
    Ok(())
}

/// Calls a generic function with the space as a type.
macro_rules! by_space {
    ($f:expr, $space:expr, $place:expr, $r:ident => $body:expr) => {
        match ($space, $place) {
            (Space::Param, Place::CallParam) | (Space::Local, _) => {
                type $r = Local;
                $body
            }
            (Space::Param, _) => {
                type $r = Param;
                $body
            }
            (Space::Shared, _) => {
                type $r = Shared;
                $body
            }
            (Space::Global | Space::Const, _) => {
                type $r = Global;
                $body
            }
            (Space::Generic, _) => {
                type $r = Generic;
                $body
            }
            (other, _) => Err($f.fault(format!("no access to {} memory", other.name()))),
        }
    };
}

fn ld(f: &mut Form<'_, '_>) -> Lowered {
    check_strength(f)?;
    let (ty, count, space) = (f.ty(), vector_length(f), space(f));
    let declared = f.dst_list(ty, count, true)?;
    let place = f.address(space)?;
    policy_operand(f)?;
    let register = declared.bits();
    by_space!(f, space, place, R => load_of::<R>(f, ty, register, count))
}

fn load_of<R: Resolve>(f: &mut Form<'_, '_>, ty: Type, register: u32, count: usize) -> Lowered {
    let signed = ty.kind() == Kind::Signed;
    match (ty.bits(), signed, register) {
        (8, true, 16) => load_n::<R, As<u8, i8, u16>>(f, count),
        (8, true, 32) => load_n::<R, As<u8, i8, u32>>(f, count),
        (8, true, 64) => load_n::<R, As<u8, i8, u64>>(f, count),
        (8, _, 64) => load_n::<R, As<u8, u8, u64>>(f, count),
        (8, _, _) => load_n::<R, As<u8, u8, u32>>(f, count),
        (16, true, 32) => load_n::<R, As<u16, i16, u32>>(f, count),
        (16, true, 64) => load_n::<R, As<u16, i16, u64>>(f, count),
        (16, _, 64) => load_n::<R, As<u16, u16, u64>>(f, count),
        (16, _, _) => load_n::<R, As<u16, u16, u32>>(f, count),
        (32, true, 64) => load_n::<R, As<u32, i32, u64>>(f, count),
        (32, _, 64) => load_n::<R, As<u32, u32, u64>>(f, count),
        (32, _, _) => load_n::<R, As<u32, u32, u32>>(f, count),
        _ => load_n::<R, As<u64, u64, u64>>(f, count),
    }
}

fn load_n<R: Resolve, E: Widen>(f: &mut Form<'_, '_>, count: usize) -> Lowered {
    match count {
        1 => run_access::<Load<R, E, 1>>(f),
        2 => run_access::<Load<R, E, 2>>(f),
        4 => run_access::<Load<R, E, 4>>(f),
        _ if E::Cell::BYTES == 4 => run_access::<Load<R, E, 8>>(f),
        _ => Err(f.fault("vectors of 8 have elements of 32 bits")),
    }
}

fn st(f: &mut Form<'_, '_>) -> Lowered {
    check_strength(f)?;
    let (ty, count, space) = (f.ty(), vector_length(f), space(f));
    let place = f.address(space)?;
    if space == Space::Param && place != Place::CallParam {
        return Err(f.fault("the parameters of an entry cannot be written"));
    }
    let wide = f.src_list(ty, count, true)?.bits() == 64;
    policy_operand(f)?;
    by_space!(f, space, place, R => store_of::<R>(f, ty, wide, count))
}

fn store_of<R: Resolve>(f: &mut Form<'_, '_>, ty: Type, wide: bool, count: usize) -> Lowered {
    match (ty.bits(), wide) {
        (8, false) => store_n::<R, u8, u32>(f, count),
        (8, true) => store_n::<R, u8, u64>(f, count),
        (16, false) => store_n::<R, u16, u32>(f, count),
        (16, true) => store_n::<R, u16, u64>(f, count),
        (32, false) => store_n::<R, u32, u32>(f, count),
        (32, true) => store_n::<R, u32, u64>(f, count),
        _ => store_n::<R, u64, u64>(f, count),
    }
}

fn store_n<R: Resolve, C: Narrow, W: Word>(f: &mut Form<'_, '_>, count: usize) -> Lowered {
    match count {
        1 => run_access::<Store<R, C, W, 1>>(f),
        2 => run_access::<Store<R, C, W, 2>>(f),
        4 => run_access::<Store<R, C, W, 4>>(f),
        _ if C::BYTES == 4 => run_access::<Store<R, C, W, 8>>(f),
        _ => Err(f.fault("vectors of 8 have elements of 32 bits")),
    }
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
            "ld.param.u64 %x, [out]; cvta.to.global.u64 %x, %x; mov.u32 %d, 5;
             st.global.L1::no_allocate.u32 [%x], %d; ld.global.nc.L1::no_allocate.L2::128B.u32 %d, [%x];
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
            found("{ .shared .b32 s; ld.shared.u32 %d, [s]; }"),
            FindingKind::UninitialisedMemory
        );
        assert_eq!(found("{ .shared .b32 s; ld.shared.u32 %d, [s+4]; }"), FindingKind::OutOfBounds);
        assert_eq!(
            found("{ .local .b32 s; ld.local.u32 %d, [s]; }"),
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
