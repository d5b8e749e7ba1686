//! f64 rounded in a named direction, and its gross approximations (PTX ISA, "Floating-Point Instructions").
//!
//! The processor rounds to nearest; other directions go through [`super::exact`].

use std::marker::PhantomData;

use super::exact::Number;
use super::float::{INVALID, quiet};
use super::number::Rounding;
use super::{Lowered, Map1, Op1, operands1, operands2, operands3};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Lanes, Mask, lanes};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};

pub(crate) const ROWS: &[Row] = &[
    row("add.rz|rm|rp.f64 d, a, b", two::<Sum>),
    row("sub.rz|rm|rp.f64 d, a, b", two::<Difference>),
    row("mul.rz|rm|rp.f64 d, a, b", two::<Product>),
    row("div.rz|rm|rp.f64 d, a, b", two::<Quotient>),
    row("fma.rz|rm|rp.f64 d, a, b, c", three::<Fused>),
    row("mad.rz|rm|rp.f64 d, a, b, c", three::<Fused>),
    row("rcp.rz|rm|rp.f64 d, a", one::<Reciprocal>),
    row("sqrt.rz|rm|rp.f64 d, a", one::<Root>),
    row("rcp.approx.ftz.f64 d, a", gross::<false>),
    row("rsqrt.approx.ftz.f64 d, a", gross::<true>),
];

/// An operation of which the result is exact, or known well enough to be rounded in any direction.
trait Exact: 'static {
    /// The operands in the order in which a NaN among them is passed on (as for rounding to nearest, and measured on
    /// an H100).
    const NANS: [usize; 3];
    fn apply(a: Number, b: Number, c: Number, rounding: Rounding) -> Number;
}

macro_rules! exact {
    ($($name:ident($a:ident, $b:ident, $c:ident, $rounding:ident), $nans:expr => $result:expr;)*) => {$(
        struct $name;
        impl Exact for $name {
            const NANS: [usize; 3] = $nans;
            fn apply($a: Number, $b: Number, $c: Number, $rounding: Rounding) -> Number {
                $result
            }
        }
    )*};
}

exact! {
    Sum(a, b, _c, rounding), [1, 0, 2] => a.add(b, rounding);
    Difference(a, b, _c, rounding), [1, 0, 2] => a.add(b.negate(), rounding);
    Product(a, b, _c, _rounding), [1, 0, 2] => a.mul(b);
    Quotient(a, b, _c, _rounding), [0, 1, 2] => a.div(b);
    Fused(a, b, c, rounding), [1, 2, 0] => a.mul(b).add(c, rounding);
    Reciprocal(a, _b, _c, _rounding), [0, 1, 2] => Number::of_integer(1).div(a);
    Root(a, _b, _c, _rounding), [0, 1, 2] => a.sqrt();
}

/// [`Inst::aux`] is the rounding. Operands that are not used repeat the first.
struct Directed<E>(PhantomData<E>);

impl<E: Exact> Exec for Directed<E> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let doubles = &warp.regs.doubles;
        let operands = [inst.a, inst.b, inst.c].map(|slot| &doubles[slot as usize]);
        let rounding = Rounding::from_code(inst.aux);
        let mut out = Lanes::default();
        for lane in lanes(mask) {
            let bits = operands.map(|operand| operand.0[lane]);
            // A NaN that comes in goes out.
            let mut inputs = E::NANS.map(|index| f64::from_bits(bits[index])).into_iter();
            out.0[lane] = match inputs.find(|x| x.is_nan()) {
                Some(nan) => quiet(nan).to_bits(),
                None => {
                    let [a, b, c] = bits.map(Number::of_bits);
                    let result = E::apply(a, b, c, rounding);
                    if result.is_nan() { INVALID } else { result.to_bits(rounding) }
                }
            };
        }
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn run<E: Exact>(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.aux = f.pick(&Rounding::NAMES).unwrap_or(Rounding::NearestEven).code();
    f.run::<Directed<E>>()
}

fn one<E: Exact>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    (f.inst.b, f.inst.c) = (f.inst.a, f.inst.a);
    run::<E>(f)
}

fn two<E: Exact>(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    f.inst.c = f.inst.a;
    run::<E>(f)
}

fn three<E: Exact>(f: &mut Form<'_, '_>) -> Lowered {
    operands3(f)?;
    run::<E>(f)
}

/// 1/a or 1/√a of the upper word of `a` alone, into the upper word of `d`; subnormal numbers are zeros.
struct Gross<const ROOT: bool>;

impl<const ROOT: bool> Op1<u64, u64> for Gross<ROOT> {
    #[inline(always)]
    fn apply(a: u64) -> u64 {
        let flush = |x: f64| if x.is_subnormal() { 0f64.copysign(x) } else { x };
        let a = flush(f64::from_bits(a >> 32 << 32));
        let value = flush(1.0 / if ROOT { a.sqrt() } else { a });
        // To the nearest number that the upper word holds; that of the largest is infinite, as it should be.
        let rounded = value.to_bits().wrapping_add(1 << 31) >> 32 << 32;
        if value.is_nan() { 0x7fff_ffff << 32 } else { rounded }
    }
}

fn gross<const ROOT: bool>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    f.run::<Map1<Gross<ROOT>, u64, u64>>()
}

#[cfg(test)]
mod tests {
    use crate::testing::eval_f64;

    #[test]
    fn each_direction() {
        let third = 1.0 / 3.0;
        assert_eq!(eval_f64("div.rm.f64 %x, %x, %y;", 1.0, 3.0), third);
        assert_eq!(eval_f64("div.rp.f64 %x, %x, %y;", 1.0, 3.0), third.next_up());
        assert_eq!(eval_f64("rcp.rz.f64 %x, %y;", 0.0, -3.0), -third);
        assert_eq!(eval_f64("add.rp.f64 %x, %x, %y;", 1.0, 1e-300), 1f64.next_up());
        assert_eq!(eval_f64("sub.rz.f64 %x, %x, %y;", 1.0, 1e-300), 1f64.next_down());
        assert_eq!(eval_f64("mul.rz.f64 %x, %x, %y;", 1e300, 1e300), f64::MAX);
        assert_eq!(eval_f64("fma.rm.f64 %x, %x, %x, %y;", 1.0, -1e-300), 1f64.next_down());
        assert_eq!(eval_f64("sqrt.rp.f64 %x, %y;", 0.0, 2.0), 2f64.sqrt());
        assert_eq!(eval_f64("sqrt.rm.f64 %x, %y;", 0.0, 2.0), 2f64.sqrt().next_down());
        assert!(eval_f64("add.rm.f64 %x, %x, %y;", 1.0, -1.0).is_sign_negative());
        assert!(eval_f64("add.rz.f64 %x, %x, %y;", f64::INFINITY, f64::NEG_INFINITY).is_nan());
    }

    #[test]
    fn gross_approximations_use_the_upper_word() {
        let got =
            eval_f64("rcp.approx.ftz.f64 %x, %y;", 0.0, f64::from_bits(0x4008_0000_ffff_ffff));
        assert_eq!(got.to_bits(), 0x3fd5_5555 << 32);
        assert_eq!(eval_f64("rsqrt.approx.ftz.f64 %x, %y;", 0.0, 4.0), 0.5);
        assert_eq!(
            eval_f64("rcp.approx.ftz.f64 %x, %y;", 0.0, f64::NAN).to_bits(),
            0x7fff_ffff << 32
        );
    }
}
