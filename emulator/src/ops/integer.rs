//! Integer arithmetic (PTX ISA, "Integer Arithmetic Instructions").

use super::number::Int;
use super::{
    Lowered, Map1, Map2, Map3, Op1, Op2, Op3, for_type, op, operands1, operands2, operands3,
};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask, Word};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("add.u16|s16|u32|s32|u64|s64 d, a, b", int2::<Add>),
    row("add.sat.s32 d, a, b", signed2::<AddSat>),
    row("add.u16x2|s16x2 d, a, b", pair2::<Add>).from_sm(90),
    row("add.cc.u32|s32|u64|s64 d, a, b", carry::<AddCarry, false, true>),
    row("addc.u32|s32|u64|s64 d, a, b", carry::<AddCarry, true, false>),
    row("addc.cc.u32|s32|u64|s64 d, a, b", carry::<AddCarry, true, true>),
    row("sub.u16|s16|u32|s32|u64|s64 d, a, b", int2::<Sub>),
    row("sub.sat.s32 d, a, b", signed2::<SubSat>),
    row("sub.cc.u32|s32|u64|s64 d, a, b", carry::<SubBorrow, false, true>),
    row("subc.u32|s32|u64|s64 d, a, b", carry::<SubBorrow, true, false>),
    row("subc.cc.u32|s32|u64|s64 d, a, b", carry::<SubBorrow, true, true>),
    row("mul.lo.u16|s16|u32|s32|u64|s64 d, a, b", int2::<Mul>),
    row("mul.hi.u16|s16|u32|s32|u64|s64 d, a, b", int2::<MulHigh>),
    row("mul.wide.u16|s16|u32|s32 d, a, b", mul_wide),
    row("mul24.lo|hi.u32|s32 d, a, b", mul24),
    row("mad24.lo|hi.u32|s32 d, a, b, c", mad24),
    row("mad24.hi.sat.s32 d, a, b, c", mad24_high_sat),
    row("mad.lo.u16|s16|u32|s32|u64|s64 d, a, b, c", int3::<Mad>),
    row("mad.hi.u16|s16|u32|s32|u64|s64 d, a, b, c", int3::<MadHigh>),
    row("mad.hi.sat.s32 d, a, b, c", mad_high_sat),
    row("mad.wide.u16|s16|u32|s32 d, a, b, c", mad_wide),
    row("mad.lo.cc.u32|s32|u64|s64 d, a, b, c", carry3::<MadCarry<false>, false, true>),
    row("mad.hi.cc.u32|s32|u64|s64 d, a, b, c", carry3::<MadCarry<true>, false, true>),
    row("madc.lo.u32|s32|u64|s64 d, a, b, c", carry3::<MadCarry<false>, true, false>),
    row("madc.hi.u32|s32|u64|s64 d, a, b, c", carry3::<MadCarry<true>, true, false>),
    row("madc.lo.cc.u32|s32|u64|s64 d, a, b, c", carry3::<MadCarry<false>, true, true>),
    row("madc.hi.cc.u32|s32|u64|s64 d, a, b, c", carry3::<MadCarry<true>, true, true>),
    row("sad.u16|s16|u32|s32|u64|s64 d, a, b, c", int3::<Sad>),
    row("div.u16|s16|u32|s32|u64|s64 d, a, b", int2::<Div>),
    row("rem.u16|s16|u32|s32|u64|s64 d, a, b", int2::<Rem>),
    row("abs.s16|s32|s64 d, a", int1::<Abs>),
    row("neg.s16|s32|s64 d, a", int1::<Neg>),
    row("min.u16|s16|u32|s32|u64|s64 d, a, b", int2::<Min>),
    row("max.u16|s16|u32|s32|u64|s64 d, a, b", int2::<Max>),
    row("min.relu.s32 d, a, b", signed2::<MinRelu>).from_sm(90),
    row("max.relu.s32 d, a, b", signed2::<MaxRelu>).from_sm(90),
    row("min.relu.s16x2 d, a, b", signed_pair2::<MinRelu>).from_sm(90),
    row("max.relu.s16x2 d, a, b", signed_pair2::<MaxRelu>).from_sm(90),
    row("min.u16x2|s16x2 d, a, b", pair2::<Min>).from_sm(90),
    row("max.u16x2|s16x2 d, a, b", pair2::<Max>).from_sm(90),
    row("dp4a.u32|s32.u32|s32 d, a, b, c", dot::<4>),
    row("dp2a.lo|hi.u32|s32.u32|s32 d, a, b, c", dot::<2>),
];

op! { Add<T: Int>(a, b) => a.add(b) }
op! { Sub<T: Int>(a, b) => a.sub(b) }
op! { Mul<T: Int>(a, b) => a.mul(b) }
op! { MulHigh<T: Int>(a, b) => T::wrap(a.wide().wrapping_mul(b.wide()) >> T::BITS) }
op! { Mad<T: Int>(a, b, c) => a.mul(b).add(c) }
op! { MadHigh<T: Int>(a, b, c) => T::wrap(a.wide().wrapping_mul(b.wide()) >> T::BITS).add(c) }
op! { Sad<T: Int>(a, b, c) => c.add(if a > b { a.sub(b) } else { b.sub(a) }) }
op! { Div<T: Int>(a, b) => a.div(b) }
op! { Rem<T: Int>(a, b) => a.rem(b) }
op! { Abs<T: Int>(a) => Int::abs(a) }
op! { Neg<T: Int>(a) => Int::neg(a) }
op! { Min<T: Int>(a, b) => if b < a { b } else { a } }
op! { Max<T: Int>(a, b) => if b > a { b } else { a } }
op! { AddSat(a: i32, b: i32) -> i32 => a.saturating_add(b) }
op! { SubSat(a: i32, b: i32) -> i32 => a.saturating_sub(b) }
op! { MinRelu<T: Int>(a, b) => a.min(b).max(T::wrap(0)) }
op! { MaxRelu<T: Int>(a, b) => a.max(b).max(T::wrap(0)) }

/// An operation on every integer type of 16, 32 and 64 bits.
pub(crate) trait IntOp1: Op1<i16, i16> + Op1<i32, i32> + Op1<i64, i64> {}
impl<O: Op1<i16, i16> + Op1<i32, i32> + Op1<i64, i64>> IntOp1 for O {}

macro_rules! every_integer {
    ($name:ident, $op:ident, $($t:ty => ($($args:ty),*)),*) => {
        /// An operation on every integer type of 16, 32 and 64 bits.
        pub(crate) trait $name: $($op<$($args),*> +)* {}
        impl<O: $($op<$($args),*> +)*> $name for O {}
    };
}
every_integer!(IntOp2, Op2,
    u16 => (u16, u16, u16), i16 => (i16, i16, i16), u32 => (u32, u32, u32),
    i32 => (i32, i32, i32), u64 => (u64, u64, u64), i64 => (i64, i64, i64));
every_integer!(IntOp3, Op3,
    u16 => (u16, u16, u16, u16), i16 => (i16, i16, i16, i16), u32 => (u32, u32, u32, u32),
    i32 => (i32, i32, i32, i32), u64 => (u64, u64, u64, u64), i64 => (i64, i64, i64, i64));

/// `d = O(a)` for a signed type.
fn int1<O: IntOp1>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    for_type!(f.ty(), f, { S16 => i16, S32 => i32, S64 => i64 }, T => Map1<O, T, T>)
}

/// `d = O(a, b)` for any integer type.
pub(crate) fn int2<O: IntOp2>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    for_type!(f.ty(), f, { U16 => u16, S16 => i16, U32 => u32, S32 => i32, U64 => u64, S64 => i64 },
        T => Map2<O, T, T, T>)
}

/// `d = O(a, b, c)` for any integer type.
fn int3<O: IntOp3>(f: &mut Form<'_, '_>) -> Lowered {
    operands3(f)?;
    for_type!(f.ty(), f, { U16 => u16, S16 => i16, U32 => u32, S32 => i32, U64 => u64, S64 => i64 },
        T => Map3<O, T, T, T, T>)
}

fn signed2<O: Op2<i32, i32, i32>>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    f.run::<Map2<O, i32, i32, i32>>()
}

/// Two halves of a word, each on its own.
struct Pair<O>(std::marker::PhantomData<O>);

impl<O: Op2<u16, u16, u16>> Op2<u32, u32, u32> for Pair<O> {
    #[inline(always)]
    fn apply(a: u32, b: u32) -> u32 {
        let low: u16 = O::apply(a as u16, b as u16);
        let high: u16 = O::apply((a >> 16) as u16, (b >> 16) as u16);
        u32::from(high) << 16 | u32::from(low)
    }
}

impl<O: Op2<i16, i16, i16>> Op2<i32, i32, i32> for Pair<O> {
    #[inline(always)]
    fn apply(a: i32, b: i32) -> i32 {
        let low: i16 = O::apply(a as i16, b as i16);
        let high: i16 = O::apply((a >> 16) as i16, (b >> 16) as i16);
        i32::from(high) << 16 | i32::from(low as u16)
    }
}

fn pair2<O: Op2<u16, u16, u16> + Op2<i16, i16, i16>>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    for_type!(f.ty(), f, { U16x2 => u32, S16x2 => i32 }, T => Map2<Pair<O>, T, T, T>)
}

fn signed_pair2<O: Op2<i16, i16, i16>>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    f.run::<Map2<Pair<O>, i32, i32, i32>>()
}

/// The type of twice the size.
fn widened(f: &Form<'_, '_>) -> Type {
    match f.ty() {
        Type::U16 => Type::U32,
        Type::S16 => Type::S32,
        Type::U32 => Type::U64,
        _ => Type::S64,
    }
}

struct MulWide;
struct MadWide;

macro_rules! wide {
    ($($n:ty => $w:ty),*) => {$(
        impl Op2<$n, $n, $w> for MulWide {
            #[inline(always)]
            fn apply(a: $n, b: $n) -> $w {
                <$w>::from(a).wrapping_mul(<$w>::from(b))
            }
        }
        impl Op3<$n, $n, $w, $w> for MadWide {
            #[inline(always)]
            fn apply(a: $n, b: $n, c: $w) -> $w {
                <$w>::from(a).wrapping_mul(<$w>::from(b)).wrapping_add(c)
            }
        }
    )*};
}
wide!(u16 => u32, i16 => i32, u32 => u64, i32 => i64);

fn wide_operands(f: &mut Form<'_, '_>) -> Lowered {
    let (ty, wide) = (f.ty(), widened(f));
    f.inst.d = f.dst(wide)?;
    f.inst.a = f.src(ty)?;
    f.inst.b = f.src(ty)?;
    Ok(())
}

fn mul_wide(f: &mut Form<'_, '_>) -> Lowered {
    wide_operands(f)?;
    match f.ty() {
        Type::U16 => f.run::<Map2<MulWide, u16, u16, u32>>(),
        Type::S16 => f.run::<Map2<MulWide, i16, i16, i32>>(),
        Type::U32 => f.run::<Map2<MulWide, u32, u32, u64>>(),
        _ => f.run::<Map2<MulWide, i32, i32, i64>>(),
    }
}

fn mad_wide(f: &mut Form<'_, '_>) -> Lowered {
    wide_operands(f)?;
    let wide = widened(f);
    f.inst.c = f.src(wide)?;
    match f.ty() {
        Type::U16 => f.run::<Map3<MadWide, u16, u16, u32, u32>>(),
        Type::S16 => f.run::<Map3<MadWide, i16, i16, i32, i32>>(),
        Type::U32 => f.run::<Map3<MadWide, u32, u32, u64, u64>>(),
        _ => f.run::<Map3<MadWide, i32, i32, i64, i64>>(),
    }
}

op! { MadHighSat(a: i32, b: i32, c: i32) -> i32 => (((i64::from(a) * i64::from(b)) >> 32) as i32).saturating_add(c) }

fn mad_high_sat(f: &mut Form<'_, '_>) -> Lowered {
    operands3(f)?;
    f.run::<Map3<MadHighSat, i32, i32, i32, i32>>()
}

/// The product of the low 24 bits: 48 bits, of which `.lo` has the lower 32 and `.hi` the upper 32.
struct Mul24<const HIGH: bool>;

impl<const HIGH: bool> Op2<u32, u32, u32> for Mul24<HIGH> {
    #[inline(always)]
    fn apply(a: u32, b: u32) -> u32 {
        let product = u64::from(a & 0xff_ffff) * u64::from(b & 0xff_ffff);
        (if HIGH { product >> 16 } else { product }) as u32
    }
}

impl<const HIGH: bool> Op2<i32, i32, i32> for Mul24<HIGH> {
    #[inline(always)]
    fn apply(a: i32, b: i32) -> i32 {
        let product = i64::from(a << 8 >> 8) * i64::from(b << 8 >> 8);
        (if HIGH { product >> 16 } else { product }) as i32
    }
}

fn mul24(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    match (f.ty(), f.has("hi")) {
        (Type::U32, false) => f.run::<Map2<Mul24<false>, u32, u32, u32>>(),
        (Type::U32, true) => f.run::<Map2<Mul24<true>, u32, u32, u32>>(),
        (_, false) => f.run::<Map2<Mul24<false>, i32, i32, i32>>(),
        (_, true) => f.run::<Map2<Mul24<true>, i32, i32, i32>>(),
    }
}

struct Mad24<const HIGH: bool>;

impl<const HIGH: bool> Op3<u32, u32, u32, u32> for Mad24<HIGH> {
    #[inline(always)]
    fn apply(a: u32, b: u32, c: u32) -> u32 {
        let product: u32 = Mul24::<HIGH>::apply(a, b);
        product.wrapping_add(c)
    }
}

impl<const HIGH: bool> Op3<i32, i32, i32, i32> for Mad24<HIGH> {
    #[inline(always)]
    fn apply(a: i32, b: i32, c: i32) -> i32 {
        let product: i32 = Mul24::<HIGH>::apply(a, b);
        product.wrapping_add(c)
    }
}

fn mad24(f: &mut Form<'_, '_>) -> Lowered {
    operands3(f)?;
    match (f.ty(), f.has("hi")) {
        (Type::U32, false) => f.run::<Map3<Mad24<false>, u32, u32, u32, u32>>(),
        (Type::U32, true) => f.run::<Map3<Mad24<true>, u32, u32, u32, u32>>(),
        (_, false) => f.run::<Map3<Mad24<false>, i32, i32, i32, i32>>(),
        (_, true) => f.run::<Map3<Mad24<true>, i32, i32, i32, i32>>(),
    }
}

op! { Mad24HighSat(a: i32, b: i32, c: i32) -> i32 => {
    let product: i32 = Mul24::<true>::apply(a, b);
    product.saturating_add(c)
} }

fn mad24_high_sat(f: &mut Form<'_, '_>) -> Lowered {
    operands3(f)?;
    f.run::<Map3<Mad24HighSat, i32, i32, i32, i32>>()
}

// ---- Carry: one bit a lane beside the registers (PTX ISA, "Extended-Precision Integer Arithmetic Instructions")

/// An operation with a carry going in and coming out.
pub(crate) trait Carry: 'static {
    fn apply<T: Int>(a: T, b: T, c: T, carry: bool) -> (T, bool);
}

pub(crate) struct AddCarry;
pub(crate) struct SubBorrow;
pub(crate) struct MadCarry<const HIGH: bool>;

impl Carry for AddCarry {
    #[inline(always)]
    fn apply<T: Int>(a: T, b: T, _: T, carry: bool) -> (T, bool) {
        let sum = a.wide() + b.wide() + i128::from(carry);
        (T::wrap(sum), sum >> T::BITS != 0)
    }
}

impl Carry for SubBorrow {
    #[inline(always)]
    fn apply<T: Int>(a: T, b: T, _: T, borrow: bool) -> (T, bool) {
        let difference = a.wide() - b.wide() - i128::from(borrow);
        (T::wrap(difference), difference < 0)
    }
}

impl<const HIGH: bool> Carry for MadCarry<HIGH> {
    #[inline(always)]
    fn apply<T: Int>(a: T, b: T, c: T, carry: bool) -> (T, bool) {
        let (a, b) = (a.wide(), b.wide());
        let mask = u128::MAX >> (128 - T::BITS);
        let part = match (HIGH, T::SIGNED) {
            (true, true) => (a.wrapping_mul(b) >> T::BITS) as u128,
            (true, false) => (a as u128).wrapping_mul(b as u128) >> T::BITS,
            (false, _) => a.wrapping_mul(b) as u128,
        };
        let sum = (part & mask) + (c.wide() as u128 & mask) + u128::from(carry);
        (T::wrap(sum as i128), sum >> T::BITS != 0)
    }
}

struct WithCarry<O, T, const IN: bool, const OUT: bool>(std::marker::PhantomData<(O, T)>);

impl<O: Carry, T: Int, const IN: bool, const OUT: bool> Exec for WithCarry<O, T, IN, OUT> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let read = |slot| T::Word::read(&warp.regs, slot);
        let (a, b, c) = (read(inst.a), read(inst.b), read(inst.c));
        let mut out = Lanes::<T::Word>::default();
        let mut carries = 0;
        for lane in 0..LANES {
            let carry = IN && warp.carry >> lane & 1 != 0;
            let get = |r: &Lanes<T::Word>| T::get(r.0[lane]);
            let (value, carry) = O::apply(get(a), get(b), get(c), carry);
            out.0[lane] = value.put();
            carries |= u32::from(carry) << lane;
        }
        warp.regs.write(inst.d, mask, &out);
        if OUT {
            warp.carry = (warp.carry & !mask) | (carries & mask);
        }
        Flow::Next
    }
}

/// What is read of the condition code register and written to it, for the checks.
fn condition_code(f: &mut Form<'_, '_>, reads: bool, writes: bool) {
    let carry = f.body.carry();
    f.reads.extend(reads.then_some(carry));
    f.writes.extend(writes.then_some(carry));
}

/// `.cc` works on the bits, so signed and unsigned are the same.
fn carry<O: Carry, const IN: bool, const OUT: bool>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    f.inst.c = f.inst.b;
    condition_code(f, IN, OUT);
    for_type!(f.ty(), f, { U32 => u32, S32 => u32, U64 => u64, S64 => u64 },
        T => WithCarry<O, T, IN, OUT>)
}

/// As [`carry`], with three sources; a high product depends on the sign.
fn carry3<O: Carry, const IN: bool, const OUT: bool>(f: &mut Form<'_, '_>) -> Lowered {
    operands3(f)?;
    condition_code(f, IN, OUT);
    for_type!(f.ty(), f, { U32 => u32, S32 => i32, U64 => u64, S64 => i64 },
        T => WithCarry<O, T, IN, OUT>)
}

// ---- Dot products of bytes

/// `c` plus the sum of N products of the parts of `a` with bytes of `b`; the bits of [`Inst::aux`] are
/// 1 for signed `a`, 2 for signed `b`, 4 for the upper bytes of `b`.
struct Dot<const N: u32>;

impl<const N: u32> Exec for Dot<N> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let words = &warp.regs.words;
        let (a, b, c) = (&words[inst.a as usize], &words[inst.b as usize], &words[inst.c as usize]);
        let part = |word: u32, index: u32, bits: u32, signed: bool| {
            let top = word << ((32 - bits * (index + 1)) % 32);
            if signed {
                i64::from(top as i32 >> (32 - bits))
            } else {
                i64::from(top >> (32 - bits))
            }
        };
        let (signed_a, signed_b) = (inst.aux & 1 != 0, inst.aux & 2 != 0);
        let first = if inst.aux & 4 != 0 { N } else { 0 };
        let mut out = Lanes::default();
        for lane in 0..LANES {
            let mut sum = i64::from(c.0[lane]);
            for index in 0..N {
                sum += part(a.0[lane], index, 32 / N, signed_a)
                    * part(b.0[lane], first + index, 8, signed_b);
            }
            out.0[lane] = sum as u32;
        }
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn dot<const N: u32>(f: &mut Form<'_, '_>) -> Lowered {
    let types = f.types();
    let (a, b) = (types[0], types[1]);
    let sum = if a == Type::U32 && b == Type::U32 { Type::U32 } else { Type::S32 };
    f.inst.d = f.dst(sum)?;
    f.inst.a = f.src(a)?;
    f.inst.b = f.src(b)?;
    f.inst.c = f.src(sum)?;
    f.inst.aux =
        u32::from(a == Type::S32) | u32::from(b == Type::S32) << 1 | u32::from(f.has("hi")) << 2;
    f.run::<Dot<N>>()
}

#[cfg(test)]
mod tests {
    use crate::testing::eval;

    #[test]
    fn sums_products_and_quotients() {
        assert_eq!(eval("add.u32 %d, %a, %b;", &[u32::MAX, 2]), 1);
        assert_eq!(eval("add.sat.s32 %d, %a, %b;", &[0x7fff_ffff, 2]), 0x7fff_ffff);
        assert_eq!(eval("sub.s32 %d, %a, %b;", &[3, 5]), -2i32 as u32);
        assert_eq!(eval("mul.lo.s32 %d, %a, %b;", &[-3i32 as u32, 5]), -15i32 as u32);
        assert_eq!(eval("mul.hi.u32 %d, %a, %b;", &[1 << 31, 6]), 3);
        assert_eq!(eval("mul.hi.s32 %d, %a, %b;", &[-1i32 as u32, 6]), u32::MAX);
        assert_eq!(eval("mad.lo.u32 %d, %a, %b, %c;", &[3, 5, 7]), 22);
        assert_eq!(eval("div.s32 %d, %a, %b;", &[-7i32 as u32, 2]), -3i32 as u32);
        assert_eq!(eval("rem.s32 %d, %a, %b;", &[-7i32 as u32, 2]), -1i32 as u32);
        assert_eq!(eval("div.u32 %d, %a, %b;", &[7, 0]), u32::MAX);
        assert_eq!(eval("sad.u32 %d, %a, %b, %c;", &[3, 5, 10]), 12);
        assert_eq!(eval("mul24.lo.u32 %d, %a, %b;", &[0xff00_0003, 5]), 15);
    }

    #[test]
    fn signs_and_order() {
        assert_eq!(eval("min.s32 %d, %a, %b;", &[-7i32 as u32, 2]), -7i32 as u32);
        assert_eq!(eval("min.u32 %d, %a, %b;", &[-7i32 as u32, 2]), 2);
        assert_eq!(eval("max.s32 %d, %a, %b;", &[-7i32 as u32, 2]), 2);
        assert_eq!(eval("abs.s32 %d, %a;", &[-7i32 as u32]), 7);
        assert_eq!(eval("neg.s32 %d, %a;", &[7]), -7i32 as u32);
    }

    #[test]
    fn wide_forms_and_sixteen_bits() {
        let text =
            "{ .reg .u64 %x; mul.wide.u32 %x, %a, %b; shr.u64 %x, %x, 32; cvt.u32.u64 %d, %x; }";
        assert_eq!(eval(text, &[u32::MAX, u32::MAX]), u32::MAX - 1);
        let text = "{ .reg .s64 %x; mul.wide.s32 %x, %a, %b; mad.wide.s32 %x, %a, %b, %x; cvt.u32.u64 %d, %x; }";
        assert_eq!(eval(text, &[-2i32 as u32, 3]), -12i32 as u32);
        let text = "{ .reg .s16 %x, %y; cvt.u16.u32 %x, %a; cvt.u16.u32 %y, %b; mul.wide.s16 %d, %x, %y; }";
        assert_eq!(eval(text, &[0xffff, 3]), -3i32 as u32);
        let text = "{ .reg .u16 %x, %y; cvt.u16.u32 %x, %a; cvt.u16.u32 %y, %b; add.u16 %x, %x, %y; cvt.u32.u16 %d, %x; }";
        assert_eq!(eval(text, &[0xffff, 3]), 2);
    }

    #[test]
    fn carries_go_from_one_instruction_to_the_next() {
        let text = "{ .reg .u32 %t; add.cc.u32 %t, %a, %b; addc.u32 %d, %c, 0; }";
        assert_eq!(eval(text, &[u32::MAX, 1, 7]), 8);
        assert_eq!(eval(text, &[u32::MAX, 0, 7]), 7);
        let text = "{ .reg .u32 %t; sub.cc.u32 %t, %a, %b; subc.u32 %d, %c, 0; }";
        assert_eq!(eval(text, &[0, 1, 7]), 6);
        let text = "{ .reg .u32 %t; mad.lo.cc.u32 %t, %a, %b, %c; madc.hi.u32 %d, %a, %b, 0; }";
        assert_eq!(eval(text, &[u32::MAX, u32::MAX, u32::MAX]), u32::MAX);
    }

    #[test]
    fn dot_products() {
        assert_eq!(eval("dp4a.u32.u32 %d, %a, %b, %c;", &[0x0102_0304, 0x0101_0101, 5]), 15);
        assert_eq!(eval("dp4a.s32.s32 %d, %a, %b, %c;", &[0xff02_0304, 0x0101_0101, 5]), 13);
        assert_eq!(eval("dp2a.lo.u32.u32 %d, %a, %b, %c;", &[0x0002_0003, 0x0909_0504, 1]), 23);
        assert_eq!(eval("dp2a.hi.u32.u32 %d, %a, %b, %c;", &[0x0002_0003, 0x0504_0909, 1]), 23);
    }
}
