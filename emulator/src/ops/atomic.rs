//! Atomic operations and reductions to memory (PTX ISA, "atom", "red").
//!
//! Lanes take their turn in order of their number; CTAs in an order that the seed fixes, when the
//! round commits. Both are legal orders, and both replay.

use std::marker::PhantomData;

use super::Lowered;
use super::half::{Brain, Half};
use super::memory::{Narrow, any_global, space};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask, Value, Word, lanes};
use crate::exec::warp::Warp;
use crate::launch::Checks;
use crate::lower::form::{ACQUIRES, Form, RELEASES, STRONG, WIDER};
use crate::lower::table::{Row, row};
use crate::memory::access::{
    Access, Generic, Global, Memory, Refused, Resolve, Shared, addresses, observe, permitted,
    refuse,
};
use crate::types::{Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row(
        "atom[.relaxed|acquire|release|acq_rel][.cta|cluster|gpu|sys][.global|shared|shared::cta].and|or|xor[.L2::cache_hint].b32|b64 d, [a], b[, policy]",
        atom,
    ),
    row(
        "atom[.relaxed|acquire|release|acq_rel][.cta|cluster|gpu|sys][.global|shared|shared::cta].exch[.L2::cache_hint].b32|b64 d, [a], b[, policy]",
        atom,
    ),
    row(
        "atom[.relaxed|acquire|release|acq_rel][.cta|cluster|gpu|sys][.global|shared|shared::cta].cas[.L2::cache_hint].b16|b32|b64 d, [a], b, c[, policy]",
        atom,
    ),
    row(
        "atom[.relaxed|acquire|release|acq_rel][.cta|cluster|gpu|sys][.global|shared|shared::cta].add[.L2::cache_hint].u32|s32|u64|f32|f64 d, [a], b[, policy]",
        atom,
    ),
    row(
        "atom[.relaxed|acquire|release|acq_rel][.cta|cluster|gpu|sys][.global|shared|shared::cta].add.noftz[.L2::cache_hint].f16|f16x2|bf16|bf16x2 d, [a], b[, policy]",
        atom,
    ),
    row(
        "atom[.relaxed|acquire|release|acq_rel][.cta|cluster|gpu|sys][.global|shared|shared::cta].inc|dec[.L2::cache_hint].u32 d, [a], b[, policy]",
        atom,
    ),
    row(
        "atom[.relaxed|acquire|release|acq_rel][.cta|cluster|gpu|sys][.global|shared|shared::cta].min|max[.L2::cache_hint].u32|s32|u64|s64 d, [a], b[, policy]",
        atom,
    ),
    row(
        "red[.relaxed|release][.cta|cluster|gpu|sys][.global|shared|shared::cta].and|or|xor[.L2::cache_hint].b32|b64 [a], b[, policy]",
        atom,
    ),
    row(
        "red[.relaxed|release][.cta|cluster|gpu|sys][.global|shared|shared::cta].add[.L2::cache_hint].u32|s32|u64|f32|f64 [a], b[, policy]",
        atom,
    ),
    row(
        "red[.relaxed|release][.cta|cluster|gpu|sys][.global|shared|shared::cta].add.noftz[.L2::cache_hint].f16|f16x2|bf16|bf16x2 [a], b[, policy]",
        atom,
    ),
    row(
        "red[.relaxed|release][.cta|cluster|gpu|sys][.global|shared|shared::cta].inc|dec[.L2::cache_hint].u32 [a], b[, policy]",
        atom,
    ),
    row(
        "red[.relaxed|release][.cta|cluster|gpu|sys][.global|shared|shared::cta].min|max[.L2::cache_hint].u32|s32|u64|s64 [a], b[, policy]",
        atom,
    ),
];

/// What becomes of the old value; `c` is the second operand of `cas`.
trait Combine<T>: 'static {
    fn combine(old: T, b: T, c: T) -> T;
}

macro_rules! combine {
    ($($name:ident for $($t:ty),* => |$old:ident, $b:ident, $c:ident| $body:expr;)*) => {$(
        struct $name;
        $(impl Combine<$t> for $name {
            #[inline(always)]
            fn combine($old: $t, $b: $t, $c: $t) -> $t {
                $body
            }
        })*
    )*};
}

combine! {
    And for u32, u64 => |old, b, _c| old & b;
    Or for u32, u64 => |old, b, _c| old | b;
    Xor for u32, u64 => |old, b, _c| old ^ b;
    Exch for u32, u64 => |_old, b, _c| b;
    Cas for u16, u32, u64 => |old, b, c| if old == b { c } else { old };
    AddInt for u32, u64 => |old, b, _c| old.wrapping_add(b);
    AddFloat for f32, f64 => |old, b, _c| old + b;
    Inc for u32 => |old, b, _c| if old >= b { 0 } else { old + 1 };
    Dec for u32 => |old, b, _c| if old == 0 || old > b { b } else { old - 1 };
    Min for u32, i32, u64, i64 => |old, b, _c| old.min(b);
    Max for u32, i32, u64, i64 => |old, b, _c| old.max(b);
    AddHalf for Half => |old, b, _c| Half(old.0 + b.0);
    AddBrain for Brain => |old, b, _c| Brain(old.0 + b.0);
}

/// Two halves in one word.
struct Both<O, T>(PhantomData<(O, T)>);

impl<O: Combine<T>, T: Value<Word = u32>> Combine<u32> for Both<O, T> {
    fn combine(old: u32, b: u32, _: u32) -> u32 {
        let one = |shift: u32| {
            let (old, b) = (T::get(old >> shift & 0xffff), T::get(b >> shift & 0xffff));
            O::combine(old, b, b).put() << shift
        };
        one(0) | one(16)
    }
}

/// One operation on a cell `C` seen as `T`. The old value goes to [`Inst::d`]; the sink for `red`.
struct Atomic<R, O, C, T>(PhantomData<(R, O, C, T)>);

impl<R: Resolve, O: Combine<T>, C: Narrow + Into<u64>, T: Value> Exec for Atomic<R, O, C, T> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if env.must_defer()
            && R::SPACE != Space::Shared
            && inst.aux & WIDER != 0
            && any_global(warp, inst, mask)
        {
            return Flow::Defer;
        }
        let at = addresses(&warp.regs, inst);
        let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
        let checked = env.launch.checks.contains(Checks::MEMORY);
        let mut hint = env.hints[inst.site as usize];
        let (b, c) = (*T::Word::read(&warp.regs, inst.b), *T::Word::read(&warp.regs, inst.c));
        let mut out = Lanes::<T::Word>::default();
        let mut failed = LANES;
        for lane in lanes(mask) {
            let address = at.0[lane];
            let found = R::find(&memory, &mut hint, lane, address, C::BYTES as u64);
            match found {
                Some((region, offset))
                    if address.is_multiple_of(C::BYTES as u64)
                        && (!checked || permitted(region, offset, C::BYTES, Access::Atomic)) =>
                {
                    let old = T::Word::from_u64(region.load::<C>(offset).into());
                    out.0[lane] = old;
                    let new = O::combine(T::get(old), T::get(b.0[lane]), T::get(c.0[lane]));
                    region.store(offset, C::narrow(new.put().to_u64()));
                }
                _ => {
                    failed = lane;
                    break;
                }
            }
        }
        if failed < LANES {
            let (address, bytes) = (at.0[failed], C::BYTES as u64);
            let refused = Refused { lane: failed, address, bytes, access: Access::Atomic };
            return refuse::<R>(env, warp.local.as_ref(), refused);
        }
        env.hints[inst.site as usize] = hint;
        warp.regs.write(inst.d, mask, &out);
        observe::<R>(env, (warp.index, inst), &at, mask, C::BYTES as u64, Access::Atomic)
    }
}

/// `atom` has a destination, `red` has none.
fn atom(f: &mut Form<'_, '_>) -> Lowered {
    let (ty, space) = (f.ty(), space(f));
    if f.ins.opcode == "atom" {
        f.inst.d = f.dst(ty)?;
    } else {
        f.inst.d = f.body.sink(ty.class());
    }
    f.address(space)?;
    f.inst.b = f.src(ty)?;
    f.inst.c = if f.has("cas") { f.src(ty)? } else { f.inst.b };
    if f.has("L2::cache_hint") {
        f.src(Type::B64)?;
    }
    // Within a CTA the order of its warps is the order of all; a cluster is one CTA here.
    for (flag, set) in [
        (STRONG, true),
        (WIDER, !f.has("cta") && !f.has("cluster")),
        (ACQUIRES, f.has("acquire") || f.has("acq_rel")),
        (RELEASES, f.has("release") || f.has("acq_rel")),
    ] {
        f.inst.aux |= if set { flag } else { 0 };
    }
    match space {
        Space::Global => operation::<Global>(f, ty),
        Space::Shared => operation::<Shared>(f, ty),
        _ => operation::<Generic>(f, ty),
    }
}

fn operation<R: Resolve>(f: &mut Form<'_, '_>, ty: Type) -> Lowered {
    use Type::*;
    let name = ["and", "or", "xor", "exch", "cas", "add", "inc", "dec", "min", "max"]
        .into_iter()
        .find(|n| f.has(n));
    match (name.unwrap_or(""), ty) {
        ("and", B32) => f.run::<Atomic<R, And, u32, u32>>(),
        ("and", _) => f.run::<Atomic<R, And, u64, u64>>(),
        ("or", B32) => f.run::<Atomic<R, Or, u32, u32>>(),
        ("or", _) => f.run::<Atomic<R, Or, u64, u64>>(),
        ("xor", B32) => f.run::<Atomic<R, Xor, u32, u32>>(),
        ("xor", _) => f.run::<Atomic<R, Xor, u64, u64>>(),
        ("exch", B32) => f.run::<Atomic<R, Exch, u32, u32>>(),
        ("exch", _) => f.run::<Atomic<R, Exch, u64, u64>>(),
        ("cas", B16) => f.run::<Atomic<R, Cas, u16, u16>>(),
        ("cas", B32) => f.run::<Atomic<R, Cas, u32, u32>>(),
        ("cas", _) => f.run::<Atomic<R, Cas, u64, u64>>(),
        ("add", U32 | S32) => f.run::<Atomic<R, AddInt, u32, u32>>(),
        ("add", U64) => f.run::<Atomic<R, AddInt, u64, u64>>(),
        ("add", F32) => f.run::<Atomic<R, AddFloat, u32, f32>>(),
        ("add", F64) => f.run::<Atomic<R, AddFloat, u64, f64>>(),
        ("add", F16) => f.run::<Atomic<R, AddHalf, u16, Half>>(),
        ("add", Bf16) => f.run::<Atomic<R, AddBrain, u16, Brain>>(),
        ("add", F16x2) => f.run::<Atomic<R, Both<AddHalf, Half>, u32, u32>>(),
        ("add", Bf16x2) => f.run::<Atomic<R, Both<AddBrain, Brain>, u32, u32>>(),
        ("inc", _) => f.run::<Atomic<R, Inc, u32, u32>>(),
        ("dec", _) => f.run::<Atomic<R, Dec, u32, u32>>(),
        ("min", U32) => f.run::<Atomic<R, Min, u32, u32>>(),
        ("min", S32) => f.run::<Atomic<R, Min, u32, i32>>(),
        ("min", U64) => f.run::<Atomic<R, Min, u64, u64>>(),
        ("min", _) => f.run::<Atomic<R, Min, u64, i64>>(),
        ("max", U32) => f.run::<Atomic<R, Max, u32, u32>>(),
        ("max", S32) => f.run::<Atomic<R, Max, u32, i32>>(),
        ("max", U64) => f.run::<Atomic<R, Max, u64, u64>>(),
        ("max", _) => f.run::<Atomic<R, Max, u64, i64>>(),
        _ => Err(f.fault(format!("no such atomic operation on .{}", ty.name()))),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Program, eval};

    /// Old and new value of one lane's operation on shared memory.
    fn shared(op: &str, ty: &str, old: u32, operands: &str) -> (u32, u32) {
        let text = |result: &str| {
            format!(
                "{{ .shared .align 4 .b32 m; .reg .{ty} %v; st.shared.b32 [m], %a; setp.eq.u32 %p, %tid.x, 0; \
                 @!%p bra $end; atom.shared.{op}.{ty} %v, [m], {operands}; {result} $end: }}"
            )
        };
        let old_value = eval(&text("mov.b32 %d, %v;"), &[old]);
        let new_value = eval(&text("ld.shared.b32 %d, [m];"), &[old]);
        (old_value, new_value)
    }

    #[test]
    fn each_operation() {
        assert_eq!(shared("add", "u32", 5, "7"), (5, 12));
        assert_eq!(shared("inc", "u32", 5, "5"), (5, 0));
        assert_eq!(shared("inc", "u32", 4, "5"), (4, 5));
        assert_eq!(shared("dec", "u32", 0, "5"), (0, 5));
        assert_eq!(shared("dec", "u32", 9, "5"), (9, 5));
        assert_eq!(shared("dec", "u32", 4, "5"), (4, 3));
        assert_eq!(shared("exch", "b32", 4, "5"), (4, 5));
        assert_eq!(shared("cas", "b32", 4, "4, 9"), (4, 9));
        assert_eq!(shared("cas", "b32", 4, "5, 9"), (4, 4));
        assert_eq!(shared("and", "b32", 12, "10"), (12, 8));
        assert_eq!(shared("or", "b32", 12, "10"), (12, 14));
        assert_eq!(shared("xor", "b32", 12, "10"), (12, 6));
        assert_eq!(shared("min", "s32", 12, "-1"), (12, u32::MAX));
        assert_eq!(shared("max", "u32", 12, "-1"), (12, u32::MAX));
        assert_eq!(
            shared("add", "f32", 1f32.to_bits(), "0f40000000"),
            (1f32.to_bits(), 3f32.to_bits())
        );
    }

    #[test]
    fn lanes_and_warps_and_ctas_all_count() {
        let program = Program::new(
            "ld.param.u64 %x, [out]; cvta.to.global.u64 %x, %x; mov.u32 %a, %ctaid.x; mul.lo.u32 %a, %a, 0;
             st.global.u32 [%x], %a; atom.global.add.u32 %d, [%x+4], 1; red.global.add.u32 [%x+4], 1;",
        );
        // The counter has to be initialised by the host; see `Program::run_grid`.
        for threads in [1, 4] {
            let out = program.run_grid([8, 1, 1], [96, 1, 1], threads, 3, &[0, 0]).unwrap();
            assert_eq!(out[1], 2 * 8 * 96);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_order_on_any_number_of_threads() {
        let program = Program::new(
            "ld.param.u64 %x, [out]; cvta.to.global.u64 %x, %x; mov.u32 %a, %tid.x; setp.ne.u32 %p, %a, 0; @%p exit;
             atom.global.add.u32 %d, [%x], 1; mov.u32 %b, %ctaid.x; mul.wide.u32 %y, %b, 4; add.u64 %x, %x, %y;
             st.global.u32 [%x+4], %d;",
        );
        let host = [0; 33];
        let order =
            |seed, threads| program.run_grid([32, 1, 1], [32, 1, 1], threads, seed, &host).unwrap();
        assert_eq!(order(1, 1), order(1, 3));
        assert_eq!(order(7, 1), order(7, 2));
        assert_ne!(order(1, 1), order(7, 1));
    }
}
