//! Atomic operations and reductions to memory (PTX ISA, "atom", "red").
//!
//! Lanes take their turn in order of their number; CTAs in an order that the seed fixes, when the
//! round commits. Both are legal orders, and both replay.

use std::marker::PhantomData;

use super::Lowered;
use super::half::{Brain, Half};
use super::memory::{any_global, space};
use crate::checks::taint;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Lanes, Mask, Value, flush, lanes};
use crate::exec::warp::Warp;
use crate::launch::Checks;
use crate::lower::flow::Slot;
use crate::lower::form::{ACQUIRES, Form, RELEASES, STRONG, WIDER};
use crate::lower::table::{Row, row};
use crate::memory::GLOBAL_BASE;
use crate::memory::access::{
    Access, Generic, Global, Memory, Refused, Resolve, Shared, addresses, observe, permitted,
    refuse,
};
use crate::memory::region::{FORBIDDEN, IN_FLIGHT, INIT, READ_ONLY, Region, UNDEFINED};
use crate::types::{Class, Space, Type};

/// The syntax of `atom` or `red` from the operation on.
macro_rules! atom {
    ($rest:literal) => {
        concat!(
            "atom[.relaxed|acquire|release|acq_rel][.cta|cluster|gpu|sys][.global|shared|shared::cta|shared::cluster]",
            $rest
        )
    };
}
macro_rules! red {
    ($rest:literal) => {
        concat!(
            "red[.relaxed|release][.cta|cluster|gpu|sys][.global|shared|shared::cta|shared::cluster]",
            $rest
        )
    };
}
/// As [`atom!`] and [`red!`], for vectors, which go to global memory.
macro_rules! atom_vector {
    ($rest:literal) => {
        concat!("atom[.relaxed|acquire|release|acq_rel][.cta|cluster|gpu|sys][.global]", $rest)
    };
}
macro_rules! red_vector {
    ($rest:literal) => {
        concat!("red[.relaxed|release][.cta|cluster|gpu|sys][.global]", $rest)
    };
}

pub(crate) const ROWS: &[Row] = &[
    row(atom!(".and|or|xor|exch[.L2::cache_hint].b32|b64 d, [a], b[, policy]"), atom),
    row(atom!(".exch[.L2::cache_hint].b128 d, [a], b[, policy]"), atom).from_sm(90),
    row(atom!(".cas[.L2::cache_hint].b16|b32|b64 d, [a], b, c[, policy]"), atom),
    row(atom!(".cas[.L2::cache_hint].b128 d, [a], b, c[, policy]"), atom).from_sm(90),
    row(atom!(".add[.L2::cache_hint].u32|s32|u64|f32|f64 d, [a], b[, policy]"), atom),
    row(atom!(".add.noftz[.L2::cache_hint].f16|f16x2 d, [a], b[, policy]"), atom),
    row(atom!(".add.noftz[.L2::cache_hint].bf16|bf16x2 d, [a], b[, policy]"), atom).from_sm(90),
    row(atom!(".inc|dec[.L2::cache_hint].u32 d, [a], b[, policy]"), atom),
    row(atom!(".min|max[.L2::cache_hint].u32|s32|u64|s64 d, [a], b[, policy]"), atom),
    row(red!(".and|or|xor[.L2::cache_hint].b32|b64 [a], b[, policy]"), atom),
    row(red!(".add[.L2::cache_hint].u32|s32|u64|f32|f64 [a], b[, policy]"), atom),
    row(red!(".add.noftz[.L2::cache_hint].f16|f16x2 [a], b[, policy]"), atom),
    row(red!(".add.noftz[.L2::cache_hint].bf16|bf16x2 [a], b[, policy]"), atom).from_sm(90),
    row(red!(".inc|dec[.L2::cache_hint].u32 [a], b[, policy]"), atom),
    row(red!(".min|max[.L2::cache_hint].u32|s32|u64|s64 [a], b[, policy]"), atom),
    row(atom_vector!(".add[.L2::cache_hint].v2|v4.f32 d, [a], b[, policy]"), atom).from_sm(90),
    row(
        atom_vector!(".add|min|max.noftz[.L2::cache_hint].v2|v4|v8.f16|bf16 d, [a], b[, policy]"),
        atom,
    )
    .from_sm(90),
    row(
        atom_vector!(".add|min|max.noftz[.L2::cache_hint].v2|v4.f16x2|bf16x2 d, [a], b[, policy]"),
        atom,
    )
    .from_sm(90),
    row(red_vector!(".add[.L2::cache_hint].v2|v4.f32 [a], b[, policy]"), atom).from_sm(90),
    row(
        red_vector!(".add|min|max.noftz[.L2::cache_hint].v2|v4|v8.f16|bf16 [a], b[, policy]"),
        atom,
    )
    .from_sm(90),
    row(
        red_vector!(".add|min|max.noftz[.L2::cache_hint].v2|v4.f16x2|bf16x2 [a], b[, policy]"),
        atom,
    )
    .from_sm(90),
];

/// What becomes of an element: its old bits, the operand's, and those of the second operand of `cas`.
pub(crate) type Combine = fn(u64, u64, u64) -> u64;

fn single(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn as_single(x: f32) -> u64 {
    x.put().into()
}

/// Two halves of a word, each by itself.
fn both(old: u64, b: u64, combine: Combine) -> u64 {
    let half = |shift: u32| combine(old >> shift & 0xffff, b >> shift & 0xffff, 0) << shift;
    half(0) | half(16)
}

fn halves(old: u64, b: u64, combine: fn(f32, f32) -> f32) -> u64 {
    Half(combine(Half::get(old as u32).0, Half::get(b as u32).0)).put().into()
}

fn brains(old: u64, b: u64, combine: fn(f32, f32) -> f32) -> u64 {
    Brain(combine(Brain::get(old as u32).0, Brain::get(b as u32).0)).put().into()
}

/// The smaller number; one that is NaN gives way (PTX ISA, "min").
fn smaller(a: f32, b: f32) -> f32 {
    match a == b {
        true if a.is_sign_negative() => a,
        true => b,
        false => a.min(b),
    }
}

fn larger(a: f32, b: f32) -> f32 {
    -smaller(-a, -b)
}

/// All operations, by name and type.
const OPERATIONS: &[(&str, &[Type], Combine)] = {
    use Type::*;
    &[
        ("and", &[B32, B64], |old, b, _| old & b),
        ("or", &[B32, B64], |old, b, _| old | b),
        ("xor", &[B32, B64], |old, b, _| old ^ b),
        ("exch", &[B32, B64, B128], |_, b, _| b),
        ("cas", &[B16, B32, B64, B128], |old, b, c| if old == b { c } else { old }),
        ("add", &[U32, S32], |old, b, _| (old as u32).wrapping_add(b as u32).into()),
        ("add", &[U64, S64], |old, b, _| old.wrapping_add(b)),
        ("add", &[F32], |old, b, _| as_single(single(old) + single(b))),
        // In global memory, f32 knows no subnormals; this follows the one above.
        ("add.ftz", &[F32], |old, b, _| as_single(flush(flush(single(old)) + flush(single(b))))),
        ("add", &[F64], |old, b, _| (f64::from_bits(old) + f64::from_bits(b)).to_bits()),
        ("add", &[F16], |old, b, _| halves(old, b, |x, y| x + y)),
        ("add", &[Bf16], |old, b, _| brains(old, b, |x, y| x + y)),
        ("add", &[F16x2], |old, b, _| both(old, b, |x, y, _| halves(x, y, |x, y| x + y))),
        ("add", &[Bf16x2], |old, b, _| both(old, b, |x, y, _| brains(x, y, |x, y| x + y))),
        ("inc", &[U32], |old, b, _| if old >= b { 0 } else { old + 1 }),
        ("dec", &[U32], |old, b, _| if old == 0 || old > b { b } else { old - 1 }),
        ("min", &[U32, U64], |old, b, _| old.min(b)),
        ("min", &[S32], |old, b, _| (old as i32).min(b as i32) as u32 as u64),
        ("min", &[S64], |old, b, _| (old as i64).min(b as i64) as u64),
        ("min", &[F16], |old, b, _| halves(old, b, smaller)),
        ("min", &[Bf16], |old, b, _| brains(old, b, smaller)),
        ("min", &[F16x2], |old, b, _| both(old, b, |x, y, _| halves(x, y, smaller))),
        ("min", &[Bf16x2], |old, b, _| both(old, b, |x, y, _| brains(x, y, smaller))),
        ("max", &[U32, U64], |old, b, _| old.max(b)),
        ("max", &[S32], |old, b, _| (old as i32).max(b as i32) as u32 as u64),
        ("max", &[S64], |old, b, _| (old as i64).max(b as i64) as u64),
        ("max", &[F16], |old, b, _| halves(old, b, larger)),
        ("max", &[Bf16], |old, b, _| brains(old, b, larger)),
        ("max", &[F16x2], |old, b, _| both(old, b, |x, y, _| halves(x, y, larger))),
        ("max", &[Bf16x2], |old, b, _| both(old, b, |x, y, _| brains(x, y, larger))),
    ]
};

/// The number of the operation that an instruction names, among [`OPERATIONS`].
pub(crate) fn operation(f: &Form<'_, '_>, ty: Type) -> Result<u32, crate::error::Fault> {
    OPERATIONS
        .iter()
        .position(|(name, types, _)| f.has(name) && types.contains(&ty))
        .map(|index| index as u32)
        .ok_or_else(|| f.fault(format!("no such atomic operation on .{}", ty.name())))
}

/// The operation of a number; `global` tells where the element is.
pub(crate) fn combine(operation: u32, global: bool) -> Combine {
    let index = operation as usize % OPERATIONS.len();
    let single = global && OPERATIONS[index].0 == "add" && OPERATIONS[index].1 == [Type::F32];
    OPERATIONS[index + usize::from(single)].2
}

/// The element of `bytes` at an offset.
pub(crate) fn load(region: &Region, offset: usize, bytes: usize) -> u64 {
    match bytes {
        2 => region.load::<u16>(offset).into(),
        4 => region.load::<u32>(offset).into(),
        _ => region.load::<u64>(offset),
    }
}

pub(crate) fn store(region: &Region, offset: usize, bytes: usize, value: u64) {
    match bytes {
        2 => region.store(offset, value as u16),
        4 => region.store(offset, value as u32),
        _ => region.store(offset, value),
    }
}

/// The operation number [`Inst::p`] on elements of [`Inst::m`] bytes. [`Inst::list`] holds the slots of what is
/// returned, of the operand and of the second operand of `cas`, each [`Inst::d`] elements.
struct Atomic<R>(PhantomData<R>);

impl<R: Resolve> Exec for Atomic<R> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if env.must_defer()
            && R::SPACE != Space::Shared
            && inst.aux & WIDER != 0
            && any_global(warp, inst, mask)
        {
            return Flow::Defer;
        }
        let at = addresses(&warp.regs, inst);
        let (size, count) = (inst.m as usize, inst.d as usize);
        let bytes = size * count;
        let whole = is_whole(inst);
        let class = if size == 8 { Class::Double } else { Class::Word };
        let checked = env.launch.checks.contains(Checks::MEMORY);
        let mut hint = env.hints[inst.site as usize];
        let operands = inst.list.iter().skip(count).map(|&slot| Slot::new(class, slot));
        let undefined = match &warp.taint {
            Some(taint) if R::SPACE == Space::Shared => taint.lanes(operands),
            _ => 0,
        };
        let mut missing: Mask = 0;
        for lane in lanes(mask) {
            let address = at.0[lane];
            let memory =
                Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
            let found = R::find(&memory, &mut hint, lane, address, bytes as u64);
            let found = found.filter(|&(region, offset)| {
                address.is_multiple_of(bytes as u64)
                    && (!checked
                        || permitted(region, offset, bytes, Access::Atomic)
                        || R::SPACE == Space::Shared && holds_undefined(region, offset, bytes))
            });
            let Some((region, offset)) = found else {
                let refused =
                    Refused { lane, address, bytes: bytes as u64, access: Access::Atomic };
                return refuse::<R>(env, warp.local.as_ref(), refused);
            };
            let global = match R::SPACE {
                Space::Generic => address >= GLOBAL_BASE,
                space => space == Space::Global,
            };
            let combine = combine(inst.p, global);
            let operand =
                |part: usize, i: usize| warp.regs.lane(class, inst.list[part * count + i], lane);
            let mut old = [0; 8];
            let mut new = [0; 8];
            for i in 0..count {
                old[i] = load(region, offset + i * size, size);
                new[i] = combine(old[i], operand(1, i), operand(2, i));
            }
            // 128 bits compare as one.
            if whole && (0..count).any(|i| old[i] != operand(1, i)) {
                new = old;
            }
            for i in 0..count {
                store(region, offset + i * size, size, new[i]);
                warp.regs.set_lane(class, inst.list[i], lane, old[i]);
            }
            if checked && R::SPACE == Space::Shared {
                missing |= u32::from(!region.all(offset, bytes, INIT, INIT)) << lane;
                if undefined >> lane & 1 != 0 {
                    region.mark(offset, bytes, UNDEFINED, INIT);
                }
            }
        }
        env.hints[inst.site as usize] = hint;
        let flow = observe::<R>(env, (warp.index, inst), &at, mask, bytes as u64, Access::Atomic);
        if missing == 0 || flow != Flow::Next {
            return flow;
        }
        let lane = missing.trailing_zeros() as usize;
        let refused =
            Refused { lane, address: at.0[lane], bytes: bytes as u64, access: Access::Atomic };
        let bits = |lane: usize| if missing >> lane & 1 != 0 { u64::MAX } else { 0 };
        let results = env.launch.kernel.flow.step(inst.site).writes.iter();
        let results = results.map(|&slot| (slot, Lanes(std::array::from_fn(bits))));
        taint::loaded::<R>(warp, env, inst.site, mask, refused, results);
        Flow::Undefined
    }
}

/// Whether an atomic operation finds a value that was undefined when it was stored, and nothing else is wrong with it.
#[cold]
fn holds_undefined(region: &Region, offset: usize, bytes: usize) -> bool {
    region.all(offset, bytes, FORBIDDEN | READ_ONLY | IN_FLIGHT, 0)
        && (0..bytes).all(|at| region.state(offset + at) & (INIT | UNDEFINED) != 0)
}

/// Whether the elements are the halves of one of 128 bits that is compared.
fn is_whole(inst: &Inst) -> bool {
    let (size, count) = (inst.m as usize, inst.d as usize);
    size == 8 && count == 2 && OPERATIONS[inst.p as usize % OPERATIONS.len()].0 == "cas"
}

/// `atom` has a destination, `red` has none.
fn atom(f: &mut Form<'_, '_>) -> Lowered {
    let (ty, space) = (f.ty(), space(f));
    let vector = f.pick(&[("v2", 2), ("v4", 4), ("v8", 8)]);
    let quad = ty == Type::B128;
    let count = if quad { 2 } else { vector.unwrap_or(1) };
    let place = |f: &mut Form<'_, '_>, source: bool| match (quad, source) {
        (true, true) => f.src_quad(),
        (true, false) => f.dst_quad(),
        (false, true) => f.src_list(ty, count, false).map(drop),
        (false, false) => f.dst_list(ty, count, false).map(drop),
    };
    if f.ins.opcode == "atom" {
        place(f, false)?;
    } else {
        f.inst.list = vec![f.body.sink(ty.class()); count].into_boxed_slice();
    }
    f.address(space)?;
    place(f, true)?;
    if f.has("cas") {
        place(f, true)?;
    } else {
        let operands = f.inst.list[count..].to_vec();
        f.inst.list = [&f.inst.list[..], &operands[..]].concat().into_boxed_slice();
    }
    if f.has("L2::cache_hint") {
        if !matches!(space, Space::Global | Space::Generic) {
            return Err(f.fault("`.L2::cache_hint` is for global memory"));
        }
        f.src(Type::B64)?;
    }
    f.inst.p = operation(f, ty)?;
    f.inst.m = ty.bytes().min(8);
    f.inst.d = count as u32;
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
        Space::Global => f.run::<Atomic<Global>>(),
        Space::Shared => f.run::<Atomic<Shared>>(),
        _ => f.run::<Atomic<Generic>>(),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{Program, eval};

    /// Old and new value of one lane's operation on shared memory.
    fn shared(op: &str, ty: &str, old: u32, operands: &str) -> (u32, u32) {
        let text = |result: &str| {
            format!(
                "{{ .shared .align 4 .b32 m; .reg .{ty} %v; .reg .u32 %self; st.shared.b32 [m], %a; \
                 mov.u32 %self, %tid.x; setp.eq.u32 %p, %self, 0; \
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
