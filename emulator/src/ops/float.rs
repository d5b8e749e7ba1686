//! Arithmetic on f32 and f64 (PTX ISA, "Floating-Point Instructions").

use std::marker::PhantomData;

use super::number::{Rounding, Single, add_odd, to_single};
use super::{Lowered, Map1, Map2, Map3, Op1, Op2, Op3, op, operands1, operands2, operands3};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Ftz, LANES, Lanes, Mask, NAN32, Value, flush};
use crate::exec::sums::Term;
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("add[.rn|rz|rm|rp][.ftz][.sat].f32 d, a, b", arithmetic2::<Add, AddExact>),
    row("sub[.rn|rz|rm|rp][.ftz][.sat].f32 d, a, b", arithmetic2::<Sub, SubExact>),
    row("mul[.rn|rz|rm|rp][.ftz][.sat].f32 d, a, b", mul),
    row("fma.rn|rz|rm|rp[.ftz][.sat].f32 d, a, b, c", fma),
    row("mad.rn|rz|rm|rp[.ftz][.sat].f32 d, a, b, c", fma),
    row("div.approx[.ftz].f32 d, a, b", div_approx),
    row("div.full[.ftz].f32 d, a, b", div),
    row("div.rn|rz|rm|rp[.ftz].f32 d, a, b", div),
    row("min[.ftz].f32 d, a, b, c", extreme::<false>),
    row("max[.ftz].f32 d, a, b, c", extreme::<true>),
    row("min[.ftz].NaN.f32 d, a, b, c", extreme::<false>).from_sm(80),
    row("max[.ftz].NaN.f32 d, a, b, c", extreme::<true>).from_sm(80),
    row("min[.ftz][.NaN].xorsign.abs.f32 d, a, b", extreme::<false>).from_sm(86),
    row("max[.ftz][.NaN].xorsign.abs.f32 d, a, b", extreme::<true>).from_sm(86),
    row("min[.ftz][.NaN].abs.f32 d, a, b, c", extreme::<false>).from_sm(100),
    row("max[.ftz][.NaN].abs.f32 d, a, b, c", extreme::<true>).from_sm(100),
    row("abs[.ftz].f32 d, a", sign1::<Abs>),
    row("neg[.ftz].f32 d, a", sign1::<Neg>),
    row("copysign.f32 d, a, b", copysign32),
    row("testp.finite|infinite|number|notanumber|normal|subnormal.f32|f64 p, a", testp),
];

pub(crate) const DOUBLE_ROWS: &[Row] = &[
    row("add[.rn].f64 d, a, b", double2::<NanOf<Add>>),
    row("sub[.rn].f64 d, a, b", double2::<NanOf<Sub>>),
    row("mul[.rn].f64 d, a, b", double2::<NanOf<Mul>>),
    row("fma.rn.f64 d, a, b, c", double3::<Fma>),
    row("mad.rn.f64 d, a, b, c", double3::<Fma>),
    row("div.rn.f64 d, a, b", double2::<Div>),
    row("min.f64 d, a, b", double2::<NanOfBoth<Min>>),
    row("max.f64 d, a, b", double2::<NanOfBoth<Max>>),
    row("abs.f64 d, a", double1::<Abs>),
    row("neg.f64 d, a", double1::<Neg>),
    row("copysign.f64 d, a, b", double2::<Copysign>),
];

// ---- What the operations compute

macro_rules! on_floats {
    ($name:ident($a:ident, $b:ident) => $body:expr) => {
        pub(crate) struct $name;
        impl Op2<f64, f64, f64> for $name {
            #[inline(always)]
            fn apply($a: f64, $b: f64) -> f64 {
                $body
            }
        }
        impl<T: Single> Op2<T, T, T> for OnSingle<$name> {
            #[inline(always)]
            fn apply(a: T, b: T) -> T {
                let ($a, $b) = (a.value(), b.value());
                T::of($body)
            }
        }
    };
}

/// An operation taken on f32, with or without flushing.
pub(crate) struct OnSingle<O>(PhantomData<O>);

on_floats!(Add(a, b) => a + b);
on_floats!(Sub(a, b) => a - b);
on_floats!(Mul(a, b) => a * b);
on_floats!(Div(a, b) => a / b);
// Without branches, so that lanes are compared side by side.
on_floats!(Min(a, b) => if b.is_nan() | (a < b) | ((a == b) & a.is_sign_negative()) { a } else { b });
on_floats!(Max(a, b) => if b.is_nan() | (a > b) | ((a == b) & b.is_sign_negative()) { a } else { b });
on_floats!(Copysign(a, b) => b.copysign(a));

pub(crate) struct Fma;

impl Op3<f64, f64, f64, f64> for Fma {
    #[inline(always)]
    fn apply(a: f64, b: f64, c: f64) -> f64 {
        first_nan([b, c, a], a.mul_add(b, c))
    }
}

impl<T: Single> Op3<T, T, T, T> for OnSingle<Fma> {
    #[inline(always)]
    fn apply(a: T, b: T, c: T) -> T {
        T::of(a.value().mul_add(b.value(), c.value()))
    }
}

/// What an invalid operation on f64 gives (`CUDART_NAN`).
pub(crate) const INVALID: u64 = 0xfff8 << 48;

/// A NaN of f64 made quiet; its sign and the rest of its bits stay.
#[inline(always)]
pub(crate) fn quiet(nan: f64) -> f64 {
    f64::from_bits(nan.to_bits() | 1 << 51)
}

/// The result of an operation on f64 if none of its operands is NaN, else the first of them that is. The PTX ISA
/// says that payloads are kept, not whose: on an H100 the second operand comes first, a third next.
#[inline(always)]
fn first_nan<const N: usize>(operands: [f64; N], result: f64) -> f64 {
    let mut result = if result.is_nan() { f64::from_bits(INVALID) } else { result };
    for x in operands.into_iter().rev() {
        result = if x.is_nan() { quiet(x) } else { result };
    }
    result
}

struct NanOf<O>(PhantomData<O>);

impl<O: Op2<f64, f64, f64>> Op2<f64, f64, f64> for NanOf<O> {
    #[inline(always)]
    fn apply(a: f64, b: f64) -> f64 {
        first_nan([b, a], O::apply(a, b))
    }
}

/// For operations that give NaN if both operands are.
struct NanOfBoth<O>(PhantomData<O>);

impl<O: Op2<f64, f64, f64>> Op2<f64, f64, f64> for NanOfBoth<O> {
    #[inline(always)]
    fn apply(a: f64, b: f64) -> f64 {
        if a.is_nan() & b.is_nan() { quiet(b) } else { O::apply(a, b) }
    }
}

/// The magnitude. A NaN becomes the canonical one in f32, and keeps its sign in f64 (so on an H100).
pub(crate) struct Abs;
/// The negative, with NaN as in [`Abs`].
pub(crate) struct Neg;

#[inline(always)]
fn unless_nan32(a: u32, result: u32) -> u32 {
    if a & 0x7fff_ffff > 0x7f80_0000 { NAN32 } else { result }
}

#[inline(always)]
fn unless_nan64(a: u64, result: u64) -> u64 {
    let x = f64::from_bits(a);
    if x.is_nan() { quiet(x).to_bits() } else { result }
}

impl Op1<u32, u32> for Abs {
    #[inline(always)]
    fn apply(a: u32) -> u32 {
        unless_nan32(a, a & 0x7fff_ffff)
    }
}

impl Op1<u32, u32> for Neg {
    #[inline(always)]
    fn apply(a: u32) -> u32 {
        unless_nan32(a, a ^ 0x8000_0000)
    }
}

impl Op1<u64, u64> for Abs {
    #[inline(always)]
    fn apply(a: u64) -> u64 {
        unless_nan64(a, a & !(1 << 63))
    }
}

impl Op1<u64, u64> for Neg {
    #[inline(always)]
    fn apply(a: u64) -> u64 {
        unless_nan64(a, a ^ 1 << 63)
    }
}

/// A result clamped to [0, 1], NaN to 0 (`.sat`).
struct Sat<O>(PhantomData<O>);

#[inline(always)]
pub(crate) fn saturate(x: f32) -> f32 {
    if x > 0.0 { if x < 1.0 { x } else { 1.0 } } else { 0.0 }
}

impl<O: Op2<T, T, T>, T: Single> Op2<T, T, T> for Sat<O> {
    #[inline(always)]
    fn apply(a: T, b: T) -> T {
        T::of(saturate(O::apply(a, b).value()))
    }
}

impl<O: Op3<T, T, T, T>, T: Single> Op3<T, T, T, T> for Sat<O> {
    #[inline(always)]
    fn apply(a: T, b: T, c: T) -> T {
        T::of(saturate(O::apply(a, b, c).value()))
    }
}

// ---- Rounding in other directions than to nearest

/// A result of f32 operands in f64 that is exact or rounded to odd, so that rounding it to f32 is right.
pub(crate) trait Exact: 'static {
    fn exact(a: f64, b: f64, c: f64, rounding: Rounding) -> f64;
}

pub(crate) struct AddExact;
pub(crate) struct SubExact;
pub(crate) struct MulExact;
pub(crate) struct FmaExact;
struct DivExact;

/// A sum rounded to odd. The zero sum of numbers with opposite signs is negative when rounding down.
#[inline(always)]
fn sum(a: f64, b: f64, rounding: Rounding) -> f64 {
    let sum = add_odd(a, b);
    let opposite = a.is_sign_negative() != b.is_sign_negative();
    if sum == 0.0 && opposite && rounding == Rounding::Down { -0.0 } else { sum }
}

impl Exact for AddExact {
    #[inline(always)]
    fn exact(a: f64, b: f64, _: f64, rounding: Rounding) -> f64 {
        sum(a, b, rounding)
    }
}

impl Exact for SubExact {
    #[inline(always)]
    fn exact(a: f64, b: f64, _: f64, rounding: Rounding) -> f64 {
        sum(a, -b, rounding)
    }
}

impl Exact for MulExact {
    #[inline(always)]
    fn exact(a: f64, b: f64, _: f64, _: Rounding) -> f64 {
        a * b
    }
}

impl Exact for FmaExact {
    #[inline(always)]
    fn exact(a: f64, b: f64, c: f64, rounding: Rounding) -> f64 {
        sum(a * b, c, rounding)
    }
}

impl Exact for DivExact {
    #[inline(always)]
    fn exact(a: f64, b: f64, _: f64, _: Rounding) -> f64 {
        let quotient = a / b;
        // The remainder is exact: its sign tells on which side of the quotient the true one lies.
        let rest = (-quotient).mul_add(b, a) * b.signum();
        if !quotient.is_finite() || rest == 0.0 || b == 0.0 || b.is_infinite() {
            return quotient;
        }
        let bits = quotient.to_bits();
        let away = (rest < 0.0) != (quotient < 0.0);
        f64::from_bits((if away { bits - 1 } else { bits }) | 1)
    }
}

/// [`Inst::aux`]: rounding in the low bits, then 8 for `.ftz`, 16 for `.sat`.
struct Directed<E>(PhantomData<E>);

const FTZ: u32 = 8;
pub(crate) const SAT: u32 = 16;

impl<E: Exact> Exec for Directed<E> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let words = &warp.regs.words;
        let (a, b, c) = (&words[inst.a as usize], &words[inst.b as usize], &words[inst.c as usize]);
        let rounding = Rounding::from_code(inst.aux & 7);
        let ftz = |x: f32| if inst.aux & FTZ != 0 { flush(x) } else { x };
        let get = |word: u32| f64::from(ftz(f32::from_bits(word)));
        let mut out = Lanes::default();
        for lane in 0..LANES {
            let exact = E::exact(get(a.0[lane]), get(b.0[lane]), get(c.0[lane]), rounding);
            let result = ftz(to_single(exact, rounding));
            out.0[lane] = (if inst.aux & SAT != 0 { saturate(result) } else { result }).put();
        }
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

/// What [`directed`] sets where no modifier asks for anything else than the nearest number.
const PLAIN: u32 = Rounding::NearestEven.code();

/// The rounding that the modifiers name, if it is not to nearest; sets [`Inst::aux`] for [`Directed`].
fn directed(f: &mut Form<'_, '_>) -> bool {
    let rounding = f.pick(&Rounding::NAMES).unwrap_or(Rounding::NearestEven);
    let flags = if f.has("ftz") { FTZ } else { 0 } | if f.has("sat") { SAT } else { 0 };
    f.inst.aux = rounding.code() | flags;
    rounding != Rounding::NearestEven
}

// ---- Lowering

fn arithmetic2<O: 'static, E: Exact>(f: &mut Form<'_, '_>) -> Lowered
where
    OnSingle<O>: Op2<f32, f32, f32> + Op2<Ftz, Ftz, Ftz>,
{
    operands2(f)?;
    f.inst.c = f.inst.b;
    if directed(f) {
        return f.run::<Directed<E>>();
    }
    match (f.has("ftz"), f.has("sat")) {
        (false, false) => f.run_often::<Map2<OnSingle<O>, f32, f32, f32>>(),
        (true, false) => f.run_often::<Map2<OnSingle<O>, Ftz, Ftz, Ftz>>(),
        (false, true) => f.run::<Map2<Sat<OnSingle<O>>, f32, f32, f32>>(),
        (true, true) => f.run::<Map2<Sat<OnSingle<O>>, Ftz, Ftz, Ftz>>(),
    }
}

fn mul(f: &mut Form<'_, '_>) -> Lowered {
    arithmetic2::<Mul, MulExact>(f)?;
    f.term = Some(Term::First).filter(|_| f.inst.aux == PLAIN);
    Ok(())
}

fn fma(f: &mut Form<'_, '_>) -> Lowered {
    operands3(f)?;
    if directed(f) {
        return f.run::<Directed<FmaExact>>();
    }
    f.term = Some(Term::Next).filter(|_| f.inst.aux == PLAIN);
    match (f.has("ftz"), f.has("sat")) {
        (false, false) => f.run_often::<Map3<OnSingle<Fma>, f32, f32, f32, f32>>(),
        (true, false) => f.run_often::<Map3<OnSingle<Fma>, Ftz, Ftz, Ftz, Ftz>>(),
        (false, true) => f.run::<Map3<Sat<OnSingle<Fma>>, f32, f32, f32, f32>>(),
        (true, true) => f.run::<Map3<Sat<OnSingle<Fma>>, Ftz, Ftz, Ftz, Ftz>>(),
    }
}

/// `a · (1/b)`: the reciprocal of a divisor beyond 2^126 is subnormal and counts as zero.
struct DivApprox;

impl<T: Single> Op2<T, T, T> for DivApprox {
    #[inline(always)]
    fn apply(a: T, b: T) -> T {
        let (a, b) = (a.value(), b.value());
        let huge = b.abs() > f32::from_bits(0x7e80_0000);
        T::of(if huge { a * 0f32.copysign(b) } else { a / b })
    }
}

fn div_approx(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    if f.has("ftz") {
        return f.run::<Map2<DivApprox, Ftz, Ftz, Ftz>>();
    }
    f.run::<Map2<DivApprox, f32, f32, f32>>()
}

/// `.full` is within 2 ulp of the quotient; the nearest one is a legal result.
fn div(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    f.inst.c = f.inst.b;
    if directed(f) {
        return f.run::<Directed<DivExact>>();
    }
    if f.has("ftz") {
        return f.run::<Map2<OnSingle<Div>, Ftz, Ftz, Ftz>>();
    }
    f.run::<Map2<OnSingle<Div>, f32, f32, f32>>()
}

/// `.NaN`: a NaN operand gives NaN. `.xorsign.abs`: the extreme of the magnitudes, with the product's sign.
pub(crate) struct Extreme<const MAX: bool, const NAN: bool, const XOR: bool>;

impl<T: Single, const MAX: bool, const NAN: bool, const XOR: bool> Op2<T, T, T>
    for Extreme<MAX, NAN, XOR>
{
    #[inline(always)]
    fn apply(a: T, b: T) -> T {
        let (x, y) = if XOR { (a.value().abs(), b.value().abs()) } else { (a.value(), b.value()) };
        let pick = if MAX {
            OnSingle::<Max>::apply(x, y)
        } else {
            <OnSingle<Min> as Op2<f32, f32, f32>>::apply(x, y)
        };
        let pick = if NAN && (x.is_nan() || y.is_nan()) { f32::NAN } else { pick };
        let sign = (a.value().to_bits() ^ b.value().to_bits()) & 0x8000_0000;
        T::of(if XOR { f32::from_bits(pick.to_bits() | sign) } else { pick })
    }
}

fn extreme<const MAX: bool>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    let xor = f.has("xorsign");
    if !xor && (f.has("abs") || f.peek().is_some()) {
        return super::mixed::extreme_of_three::<MAX>(f);
    }
    match (f.has("ftz"), f.has("NaN"), xor) {
        (false, false, false) => f.run::<Map2<Extreme<MAX, false, false>, f32, f32, f32>>(),
        (true, false, false) => f.run::<Map2<Extreme<MAX, false, false>, Ftz, Ftz, Ftz>>(),
        (false, true, false) => f.run::<Map2<Extreme<MAX, true, false>, f32, f32, f32>>(),
        (true, true, false) => f.run::<Map2<Extreme<MAX, true, false>, Ftz, Ftz, Ftz>>(),
        (false, false, true) => f.run::<Map2<Extreme<MAX, false, true>, f32, f32, f32>>(),
        (true, false, true) => f.run::<Map2<Extreme<MAX, false, true>, Ftz, Ftz, Ftz>>(),
        (false, true, true) => f.run::<Map2<Extreme<MAX, true, true>, f32, f32, f32>>(),
        (true, true, true) => f.run::<Map2<Extreme<MAX, true, true>, Ftz, Ftz, Ftz>>(),
    }
}

/// Bits with the sign changed, after flushing.
struct Flushed<O>(PhantomData<O>);

impl<O: Op1<u32, u32>> Op1<u32, u32> for Flushed<O> {
    #[inline(always)]
    fn apply(a: u32) -> u32 {
        O::apply(flush(f32::from_bits(a)).to_bits())
    }
}

fn sign1<O: Op1<u32, u32>>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    if f.has("ftz") {
        return f.run::<Map1<Flushed<O>, u32, u32>>();
    }
    f.run::<Map1<O, u32, u32>>()
}

op! { Copysign32(a: u32, b: u32) -> u32 => (a & 0x8000_0000) | (b & 0x7fff_ffff) }

fn copysign32(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    f.run::<Map2<Copysign32, u32, u32, u32>>()
}

fn double1<O: Op1<u64, u64>>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    f.run::<Map1<O, u64, u64>>()
}

fn double2<O: Op2<f64, f64, f64>>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    f.run::<Map2<O, f64, f64, f64>>()
}

fn double3<O: Op3<f64, f64, f64, f64>>(f: &mut Form<'_, '_>) -> Lowered {
    operands3(f)?;
    f.run::<Map3<O, f64, f64, f64, f64>>()
}

/// [`Inst::aux`] is the index of the property, [`Inst::m`] is 1 for f64.
struct Testp;

const PROPERTIES: [&str; 6] = ["finite", "infinite", "number", "notanumber", "normal", "subnormal"];

impl Exec for Testp {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        use std::num::FpCategory::*;
        let mut result = 0;
        for lane in 0..LANES {
            let category = if inst.m != 0 {
                f64::from_bits(warp.regs.doubles[inst.a as usize].0[lane]).classify()
            } else {
                f32::from_bits(warp.regs.words[inst.a as usize].0[lane]).classify()
            };
            let holds = match inst.aux {
                0 => !matches!(category, Nan | Infinite),
                1 => category == Infinite,
                2 => category != Nan,
                3 => category == Nan,
                // Zeros count as normal.
                4 => matches!(category, Normal | Zero),
                _ => category == Subnormal,
            };
            result |= u32::from(holds) << lane;
        }
        warp.regs.write_pred(inst.d, mask, result);
        Flow::Next
    }
}

fn testp(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(Type::Pred)?;
    f.inst.a = f.src(ty)?;
    f.inst.aux = PROPERTIES.iter().position(|p| f.has(p)).unwrap_or(0) as u32;
    f.inst.m = (ty == Type::F64).into();
    f.run::<Testp>()
}

#[cfg(test)]
mod tests {
    use crate::testing::{eval, eval_f32, eval_f64};

    const NAN: f32 = f32::NAN;

    #[test]
    fn arithmetic() {
        assert_eq!(eval_f32("add.f32 %fd, %fa, %fb;", &[1.5, 2.0]), 3.5);
        assert_eq!(eval_f32("sub.rn.f32 %fd, %fa, %fb;", &[1.5, 2.0]), -0.5);
        assert_eq!(eval_f32("mul.ftz.f32 %fd, %fa, %fb;", &[1e-30, 1e-10]), 0.0);
        assert_ne!(eval_f32("mul.f32 %fd, %fa, %fb;", &[1e-30, 1e-10]), 0.0);
        assert_eq!(eval_f32("fma.rn.f32 %fd, %fa, %fb, %fc;", &[3.0, 5.0, 0.5]), 15.5);
        assert_eq!(eval_f32("add.sat.f32 %fd, %fa, %fb;", &[3.0, 5.0]), 1.0);
        assert_eq!(eval_f32("add.sat.f32 %fd, %fa, %fb;", &[NAN, 5.0]), 0.0);
        assert_eq!(eval_f32("div.full.f32 %fd, %fa, %fb;", &[3.0, 2.0]), 1.5);
        let eps = f32::EPSILON;
        let fused = eval_f32("fma.rn.f32 %fd, %fa, %fa, %fb;", &[1.0 + eps, -1.0 - 2.0 * eps]);
        assert_eq!(fused, eps * eps);
    }

    #[test]
    fn nan_is_canonical() {
        let text = "add.f32 %fd, %fa, %fb; mov.b32 %d, %fd;";
        assert_eq!(eval(text, &[0x7f80_0000, 0xff80_0000]), 0x7fff_ffff);
    }

    #[test]
    fn directions_of_rounding() {
        let tiny = 2f32.powi(-40);
        assert_eq!(eval_f32("add.rp.f32 %fd, %fa, %fb;", &[1.0, tiny]), 1.0 + f32::EPSILON);
        assert_eq!(eval_f32("add.rz.f32 %fd, %fa, %fb;", &[1.0, -tiny]), 1.0 - f32::EPSILON / 2.0);
        assert_eq!(
            eval_f32("mul.rm.f32 %fd, %fa, %fb;", &[1.0 + f32::EPSILON, 1.0 + f32::EPSILON]),
            1.0 + 2.0 * f32::EPSILON
        );
        assert_eq!(
            eval_f32("fma.rp.f32 %fd, %fa, %fb, %fc;", &[1.0, 1.0, 1e-30]),
            1.0 + f32::EPSILON
        );
        let third = 1.0f32 / 3.0;
        let (down, up) = (
            eval_f32("div.rm.f32 %fd, %fa, %fb;", &[1.0, 3.0]),
            eval_f32("div.rp.f32 %fd, %fa, %fb;", &[1.0, 3.0]),
        );
        assert!(down <= third && third <= up && up == down.next_up());
    }

    #[test]
    fn extremes() {
        assert_eq!(eval_f32("min.f32 %fd, %fa, %fb;", &[1.0, NAN]), 1.0);
        assert_eq!(eval_f32("max.f32 %fd, %fa, %fb;", &[NAN, 2.0]), 2.0);
        assert!(eval_f32("max.NaN.f32 %fd, %fa, %fb;", &[NAN, 2.0]).is_nan());
        assert!(eval_f32("min.f32 %fd, %fa, %fb;", &[0.0, -0.0]).is_sign_negative());
        assert!(eval_f32("max.f32 %fd, %fa, %fb;", &[-0.0, 0.0]).is_sign_positive());
        assert!(eval_f32("max.f32 %fd, %fa, %fb;", &[0.0, -0.0]).is_sign_positive());
        assert_eq!(eval_f32("max.xorsign.abs.f32 %fd, %fa, %fb;", &[-3.0, 2.0]), -3.0);
        assert_eq!(eval_f32("abs.f32 %fd, %fa;", &[-3.0]), 3.0);
        assert_eq!(eval_f32("neg.f32 %fd, %fa;", &[-3.0]), 3.0);
        assert_eq!(eval_f32("copysign.f32 %fd, %fa, %fb;", &[-1.0, 3.0]), -3.0);
    }

    #[test]
    fn doubles_and_classes() {
        assert_eq!(eval_f64("add.f64 %x, %x, %y;", 1.5, 2.0), 3.5);
        assert_eq!(eval_f64("fma.rn.f64 %x, %x, %y, %y;", 1.5, 2.0), 5.0);
        assert_eq!(eval_f64("div.rn.f64 %x, %x, %y;", 1.0, 3.0), 1.0 / 3.0);
        assert_eq!(eval_f64("neg.f64 %x, %y;", 1.0, 3.0), -3.0);
        let text = "testp.infinite.f32 %p, %fa; selp.b32 %d, 1, 0, %p;";
        assert_eq!(eval(text, &[0x7f80_0000]), 1);
        assert_eq!(eval(text, &[0x7f00_0000]), 0);
    }
}
