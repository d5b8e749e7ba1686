//! Arithmetic on f16 and bf16, single and in pairs (PTX ISA, "Half Precision Floating-Point Instructions").

use std::marker::PhantomData;

use super::number::{brain_from, brain_value, fma_odd, half_from, half_value, to_single_odd};
use super::special::{Exp2, Function, Tanh};
use super::{Lowered, Map1, Map2, Map3, Op1, Op2, Op3, operands1, operands2, operands3};
use crate::exec::lanes::Value;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("add[.rn][.ftz][.sat].f16|f16x2 d, a, b", half2::<Add>),
    row("sub[.rn][.ftz][.sat].f16|f16x2 d, a, b", half2::<Sub>),
    row("mul[.rn][.ftz][.sat].f16|f16x2 d, a, b", half2::<Mul>),
    row("fma.rn[.ftz][.sat|relu].f16|f16x2 d, a, b, c", half3),
    row("min[.ftz][.NaN].f16|f16x2 d, a, b", extreme::<false>).from_sm(80),
    row("max[.ftz][.NaN].f16|f16x2 d, a, b", extreme::<true>).from_sm(80),
    row("min[.ftz][.NaN].xorsign.abs.f16|f16x2 d, a, b", extreme::<false>).from_sm(86),
    row("max[.ftz][.NaN].xorsign.abs.f16|f16x2 d, a, b", extreme::<true>).from_sm(86),
    row("min[.NaN].bf16|bf16x2 d, a, b", extreme::<false>).from_sm(80),
    row("max[.NaN].bf16|bf16x2 d, a, b", extreme::<true>).from_sm(80),
    row("min[.NaN].xorsign.abs.bf16|bf16x2 d, a, b", extreme::<false>).from_sm(86),
    row("max[.NaN].xorsign.abs.bf16|bf16x2 d, a, b", extreme::<true>).from_sm(86),
    row("abs[.ftz].f16|f16x2 d, a", sign::<false>),
    row("neg[.ftz].f16|f16x2 d, a", sign::<true>),
    row("abs.bf16|bf16x2 d, a", sign::<false>).from_sm(80),
    row("neg.bf16|bf16x2 d, a", sign::<true>).from_sm(80),
    row("add[.rn].bf16|bf16x2 d, a, b", half2::<Add>).from_sm(90),
    row("sub[.rn].bf16|bf16x2 d, a, b", half2::<Sub>).from_sm(90),
    row("mul[.rn].bf16|bf16x2 d, a, b", half2::<Mul>).from_sm(90),
    row("fma.rn[.relu].bf16|bf16x2 d, a, b, c", half3).from_sm(80),
    row("ex2.approx.f16|f16x2 d, a", function::<Exp2>).from_sm(75),
    row("ex2.approx.ftz.bf16|bf16x2 d, a", function::<Exp2>).from_sm(90),
    row("tanh.approx.f16|f16x2 d, a", function::<Tanh>).from_sm(75),
    row("tanh.approx.bf16|bf16x2 d, a", function::<Tanh>).from_sm(90),
];

/// A half-precision number; its value is exact as an f32, and rounds to nearest even on the way back.
#[derive(Clone, Copy)]
pub(crate) struct Half(pub(crate) f32);

/// A bfloat16, likewise.
#[derive(Clone, Copy)]
pub(crate) struct Brain(pub(crate) f32);

/// Half precision under `.ftz`: subnormals are zero going in and coming out.
#[derive(Clone, Copy)]
pub(crate) struct HalfFtz(pub(crate) f32);

impl Value for Half {
    type Word = u32;
    #[inline(always)]
    fn get(word: u32) -> Half {
        Half(half_value(word & 0xffff))
    }
    #[inline(always)]
    fn put(self) -> u32 {
        half_from(self.0)
    }
}

impl Value for Brain {
    type Word = u32;
    #[inline(always)]
    fn get(word: u32) -> Brain {
        Brain(brain_value(word & 0xffff))
    }
    #[inline(always)]
    fn put(self) -> u32 {
        brain_from(self.0)
    }
}

#[inline(always)]
fn flush_half(bits: u32) -> u32 {
    if bits & 0x7c00 == 0 { bits & 0x8000 } else { bits }
}

impl Value for HalfFtz {
    type Word = u32;
    #[inline(always)]
    fn get(word: u32) -> HalfFtz {
        HalfFtz(half_value(flush_half(word & 0xffff)))
    }
    #[inline(always)]
    fn put(self) -> u32 {
        flush_half(half_from(self.0))
    }
}

/// Two numbers in one word, the first in the low half.
#[derive(Clone, Copy)]
struct Two<T>(T, T);

impl<T: Value<Word = u32>> Value for Two<T> {
    type Word = u32;
    #[inline(always)]
    fn get(word: u32) -> Two<T> {
        Two(T::get(word & 0xffff), T::get(word >> 16))
    }
    #[inline(always)]
    fn put(self) -> u32 {
        self.0.put() | self.1.put() << 16
    }
}

/// A number of 16 bits that an f32 holds exactly.
pub(crate) trait Narrow: Value<Word = u32> {
    fn value(self) -> f32;
    /// Of an f32 that is exact or rounded to odd.
    fn of(value: f32) -> Self;
}

macro_rules! narrow {
    ($($t:ident),*) => {$(
        impl Narrow for $t {
            #[inline(always)]
            fn value(self) -> f32 {
                self.0
            }
            #[inline(always)]
            fn of(value: f32) -> $t {
                $t(value)
            }
        }
    )*};
}
narrow!(Half, Brain, HalfFtz);

/// An operation on f64; operands are exact, the result is exact or rounded to odd.
pub(crate) trait Exact2: 'static {
    fn exact(a: f64, b: f64) -> f64;
}

pub(crate) struct Add;
pub(crate) struct Sub;
pub(crate) struct Mul;

impl Exact2 for Add {
    #[inline(always)]
    fn exact(a: f64, b: f64) -> f64 {
        super::number::add_odd(a, b)
    }
}

impl Exact2 for Sub {
    #[inline(always)]
    fn exact(a: f64, b: f64) -> f64 {
        super::number::add_odd(a, -b)
    }
}

impl Exact2 for Mul {
    #[inline(always)]
    fn exact(a: f64, b: f64) -> f64 {
        a * b
    }
}

/// `.sat` clamps to [0, 1] and makes NaN 0; `.relu` clamps below at 0 and keeps NaN.
const PLAIN: u32 = 0;
const SAT: u32 = 1;
const RELU: u32 = 2;

#[inline(always)]
fn clamp<const C: u32>(x: f32) -> f32 {
    match C {
        SAT if x > 0.0 => x.min(1.0),
        SAT => 0.0,
        RELU if x <= 0.0 => 0.0,
        _ => x,
    }
}

/// An operation rounded once to 16 bits.
struct Rounded<O, const C: u32>(PhantomData<O>);

impl<O: Exact2, N: Narrow, const C: u32> Op2<N, N, N> for Rounded<O, C> {
    #[inline(always)]
    fn apply(a: N, b: N) -> N {
        N::of(clamp::<C>(to_single_odd(O::exact(a.value().into(), b.value().into()))))
    }
}

struct Fma<const C: u32>;

impl<N: Narrow, const C: u32> Op3<N, N, N, N> for Fma<C> {
    #[inline(always)]
    fn apply(a: N, b: N, c: N) -> N {
        let exact = fma_odd(a.value().into(), b.value().into(), c.value().into());
        N::of(clamp::<C>(to_single_odd(exact)))
    }
}

/// The smaller or larger number; `.NaN` passes NaN on. `.xorsign.abs`: of the magnitudes, with the product's sign.
struct Extreme<const MAX: bool, const NAN: bool, const XOR: bool>;

impl<N: Narrow, const MAX: bool, const NAN: bool, const XOR: bool> Op2<N, N, N>
    for Extreme<MAX, NAN, XOR>
{
    #[inline(always)]
    fn apply(a: N, b: N) -> N {
        let sign = (a.value().to_bits() ^ b.value().to_bits()) & 0x8000_0000;
        let (x, y) = if XOR { (a.value().abs(), b.value().abs()) } else { (a.value(), b.value()) };
        let tie = x == y && x.is_sign_negative() != MAX;
        let first = y.is_nan() || tie || if MAX { x > y } else { x < y };
        let poisoned = NAN && (x.is_nan() || y.is_nan());
        let pick = if poisoned {
            f32::NAN
        } else if first {
            x
        } else {
            y
        };
        N::of(if XOR { f32::from_bits(pick.to_bits() | sign) } else { pick })
    }
}

struct Apply<O>(PhantomData<O>);

impl<O: Function, N: Narrow> Op1<N, N> for Apply<O> {
    #[inline(always)]
    fn apply(a: N) -> N {
        N::of(to_single_odd(O::of(a.value().into())))
    }
}

/// An operation on each of two numbers.
struct Each<O>(PhantomData<O>);

impl<O: Op1<T, T>, T: Value<Word = u32>> Op1<Two<T>, Two<T>> for Each<O> {
    #[inline(always)]
    fn apply(a: Two<T>) -> Two<T> {
        Two(O::apply(a.0), O::apply(a.1))
    }
}

impl<O: Op2<T, T, T>, T: Value<Word = u32>> Op2<Two<T>, Two<T>, Two<T>> for Each<O> {
    #[inline(always)]
    fn apply(a: Two<T>, b: Two<T>) -> Two<T> {
        Two(O::apply(a.0, b.0), O::apply(a.1, b.1))
    }
}

impl<O: Op3<T, T, T, T>, T: Value<Word = u32>> Op3<Two<T>, Two<T>, Two<T>, Two<T>> for Each<O> {
    #[inline(always)]
    fn apply(a: Two<T>, b: Two<T>, c: Two<T>) -> Two<T> {
        Two(O::apply(a.0, b.0, c.0), O::apply(a.1, b.1, c.1))
    }
}

// ---- Lowering

/// Sets the handler for single numbers or pairs of `N`.
fn run1<O: Op1<N, N>, N: Value<Word = u32>>(f: &mut Form<'_, '_>) -> Lowered {
    if f.ty().bits() == 32 {
        f.run::<Map1<Each<O>, Two<N>, Two<N>>>()
    } else {
        f.run::<Map1<O, N, N>>()
    }
}

fn run2<O: Op2<N, N, N>, N: Value<Word = u32>>(f: &mut Form<'_, '_>) -> Lowered {
    if f.ty().bits() == 32 {
        f.run::<Map2<Each<O>, Two<N>, Two<N>, Two<N>>>()
    } else {
        f.run::<Map2<O, N, N, N>>()
    }
}

fn run3<O: Op3<N, N, N, N>, N: Value<Word = u32>>(f: &mut Form<'_, '_>) -> Lowered {
    if f.ty().bits() == 32 {
        return f.run::<Map3<Each<O>, Two<N>, Two<N>, Two<N>, Two<N>>>();
    }
    f.run::<Map3<O, N, N, N, N>>()
}

fn is_brain(f: &Form<'_, '_>) -> bool {
    matches!(f.ty(), Type::Bf16 | Type::Bf16x2)
}

fn half2<O: Exact2>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    match (is_brain(f), f.has("ftz"), f.has("sat")) {
        (true, ..) => run2::<Rounded<O, PLAIN>, Brain>(f),
        (_, false, false) => run2::<Rounded<O, PLAIN>, Half>(f),
        (_, true, false) => run2::<Rounded<O, PLAIN>, HalfFtz>(f),
        (_, false, true) => run2::<Rounded<O, SAT>, Half>(f),
        (_, true, true) => run2::<Rounded<O, SAT>, HalfFtz>(f),
    }
}

fn half3(f: &mut Form<'_, '_>) -> Lowered {
    operands3(f)?;
    match (is_brain(f), f.has("ftz"), f.has("sat"), f.has("relu")) {
        (true, _, _, false) => run3::<Fma<PLAIN>, Brain>(f),
        (true, _, _, true) => run3::<Fma<RELU>, Brain>(f),
        (_, false, false, false) => run3::<Fma<PLAIN>, Half>(f),
        (_, true, false, false) => run3::<Fma<PLAIN>, HalfFtz>(f),
        (_, false, true, _) => run3::<Fma<SAT>, Half>(f),
        (_, true, true, _) => run3::<Fma<SAT>, HalfFtz>(f),
        (_, false, false, true) => run3::<Fma<RELU>, Half>(f),
        (_, true, false, true) => run3::<Fma<RELU>, HalfFtz>(f),
    }
}

fn extreme<const MAX: bool>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    match (f.has("NaN"), f.has("xorsign")) {
        (false, false) => extreme_of::<Extreme<MAX, false, false>>(f),
        (false, true) => extreme_of::<Extreme<MAX, false, true>>(f),
        (true, false) => extreme_of::<Extreme<MAX, true, false>>(f),
        (true, true) => extreme_of::<Extreme<MAX, true, true>>(f),
    }
}

fn extreme_of<O>(f: &mut Form<'_, '_>) -> Lowered
where
    O: Op2<Brain, Brain, Brain> + Op2<Half, Half, Half> + Op2<HalfFtz, HalfFtz, HalfFtz>,
{
    match (is_brain(f), f.has("ftz")) {
        (true, _) => run2::<O, Brain>(f),
        (_, false) => run2::<O, Half>(f),
        (_, true) => run2::<O, HalfFtz>(f),
    }
}

fn function<O: Function>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    if is_brain(f) { run1::<Apply<O>, Brain>(f) } else { run1::<Apply<O>, Half>(f) }
}

/// The magnitude or the negative of a number of 16 bits; NaN becomes the canonical one (so on an H100).
struct Sign<const NEG: bool, const BRAIN: bool, const FTZ: bool>;

impl<const NEG: bool, const BRAIN: bool, const FTZ: bool> Op1<u16, u16> for Sign<NEG, BRAIN, FTZ> {
    #[inline(always)]
    fn apply(a: u16) -> u16 {
        let a = if FTZ { flush_half(a.into()) as u16 } else { a };
        let magnitude = a & 0x7fff;
        let infinity = if BRAIN { 0x7f80 } else { 0x7c00 };
        let result = if NEG { a ^ 0x8000 } else { magnitude };
        if magnitude > infinity { 0x7fff } else { result }
    }
}

fn sign<const NEG: bool>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    match (is_brain(f), f.has("ftz")) {
        (true, _) => run1::<Sign<NEG, true, false>, u16>(f),
        (false, false) => run1::<Sign<NEG, false, false>, u16>(f),
        (false, true) => run1::<Sign<NEG, false, true>, u16>(f),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::eval;

    /// Two operands of 16 bits in, one out.
    fn half(op: &str, a: u32, b: u32) -> u32 {
        let text = format!(
            "{{ .reg .b16 %x, %y; cvt.u16.u32 %x, %a; cvt.u16.u32 %y, %b; {op} %x, %x, %y; cvt.u32.u16 %d, %x; }}"
        );
        eval(&text, &[a, b])
    }

    fn bits(x: f32) -> u32 {
        half_from(x)
    }

    #[test]
    fn single_halves() {
        assert_eq!(half("add.f16", bits(1.5), bits(2.0)), bits(3.5));
        assert_eq!(half("sub.f16", bits(1.5), bits(2.0)), bits(-0.5));
        assert_eq!(half("mul.f16", bits(1.5), bits(3.0)), bits(4.5));
        assert_eq!(half("add.sat.f16", bits(1.5), bits(3.0)), bits(1.0));
        assert_eq!(half("add.f16", bits(2048.0), bits(1.0)), bits(2048.0));
        assert_eq!(half("mul.f16", 1, bits(1.0)), 1);
        assert_eq!(half("mul.ftz.f16", 1, bits(1.0)), 0);
        assert_eq!(half("max.f16", bits(-1.0), 0x7fff), bits(-1.0));
        assert_eq!(half("max.NaN.f16", bits(-1.0), 0x7fff), 0x7fff);
        assert_eq!(half("min.bf16", 0x3f80, 0xbf80), 0xbf80);
        assert_eq!(half("add.bf16", 0x3f80, 0x3f80), 0x4000);
    }

    #[test]
    fn pairs() {
        let two = |x, y| bits(x) | bits(y) << 16;
        let got =
            eval("fma.rn.f16x2 %d, %a, %b, %c;", &[two(2.0, 3.0), two(4.0, 5.0), two(1.0, -1.0)]);
        assert_eq!(got, two(9.0, 14.0));
        assert_eq!(
            eval(
                "fma.rn.relu.f16x2 %d, %a, %b, %c;",
                &[two(-2.0, 3.0), two(4.0, 5.0), two(1.0, -1.0)]
            ),
            two(0.0, 14.0)
        );
        assert_eq!(eval("mul.f16x2 %d, %a, %b;", &[two(2.0, 3.0), two(4.0, 5.0)]), two(8.0, 15.0));
        assert_eq!(eval("neg.f16x2 %d, %a;", &[two(2.0, -3.0)]), two(-2.0, 3.0));
        assert_eq!(eval("abs.bf16x2 %d, %a;", &[0x8000_bf80]), 0x0000_3f80);
        assert_eq!(eval("max.bf16x2 %d, %a, %b;", &[0x3f80_bf80, 0x4000_3f80]), 0x4000_3f80);
        assert_eq!(eval("ex2.approx.f16x2 %d, %a;", &[two(3.0, -1.0)]), two(8.0, 0.5));
    }

    #[test]
    fn a_fused_product_is_rounded_once() {
        // 1.0078125² + 2⁻²⁴ in bf16: the product lies half way, the addend decides.
        let x = 0x3f81;
        let text = |c: u32| eval("fma.rn.bf16x2 %d, %a, %b, %c;", &[x, x, c]) & 0xffff;
        let product = brain_value(x) * brain_value(x);
        assert_eq!(text(0), brain_from(product));
        // 1.5 · 1.0078125 = 1.51171875 is half way between two bf16; a tiny addend breaks the tie upwards.
        let tie = |c: u32| eval("fma.rn.bf16x2 %d, %a, %b, %c;", &[0x3fc0, x, c]) & 0xffff;
        assert_eq!(tie(0), 0x3fc2);
        assert_eq!(tie(0x8000_0001 & 0xffff | 0x8000), 0x3fc1);
        assert_eq!(tie(0x0001), 0x3fc2);
    }
}
