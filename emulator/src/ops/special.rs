//! exp2, log2, reciprocals, roots, sine, cosine, tanh.
//!
//! The approximate forms of f32 are bounded, not defined, by the PTX ISA. Here they are computed in
//! double precision and rounded once, which lies within every bound: `ex2.approx` 2 ulp, `lg2.approx`
//! 2⁻²² absolute, `rcp.approx` 1 ulp, `rsqrt.approx` 2⁻²² relative.

use std::marker::PhantomData;

use super::number::{Rounding, Single, to_single};
use super::{Lowered, Map1, Op1, operands1};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Ftz, LANES, Lanes, Mask, Value, flush};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};

pub(crate) const ROWS: &[Row] = &[
    row("ex2.approx[.ftz].f32 d, a", approx::<Exp2>),
    row("lg2.approx[.ftz].f32 d, a", approx::<Log2>),
    row("rcp.approx[.ftz].f32 d, a", approx::<Reciprocal>),
    row("rsqrt.approx[.ftz].f32 d, a", approx::<ReciprocalRoot>),
    row("sqrt.approx[.ftz].f32 d, a", approx::<Root>),
    row("sin.approx[.ftz].f32 d, a", approx::<Sine>),
    row("cos.approx[.ftz].f32 d, a", approx::<Cosine>),
    row("tanh.approx.f32 d, a", approx::<Tanh>).from_sm(75),
    row("rcp.rn|rz|rm|rp[.ftz].f32 d, a", rounded::<Reciprocal>),
    row("sqrt.rn|rz|rm|rp[.ftz].f32 d, a", rounded::<Root>),
    row("rcp.rn.f64 d, a", double::<Reciprocal>),
    row("sqrt.rn.f64 d, a", double::<Root>),
    row("rsqrt.approx.f64 d, a", double::<ReciprocalRoot>),
];

/// A function of one f32 through f64; the f64 is right to far more bits than an f32 has.
pub(crate) trait Function: 'static {
    fn of(x: f64) -> f64;
}

pub(crate) struct Exp2;
pub(crate) struct Log2;
struct Reciprocal;
struct ReciprocalRoot;
struct Root;
struct Sine;
struct Cosine;
pub(crate) struct Tanh;

/// Taylor coefficients of 2^r: ln(2)^n / n!.
const EXP2: [f64; 13] = {
    let mut terms = [1.0; 13];
    let mut n = 1;
    while n < 13 {
        terms[n] = terms[n - 1] * std::f64::consts::LN_2 / n as f64;
        n += 1;
    }
    terms
};

impl Function for Exp2 {
    /// 2^x = 2^n · 2^r with n the nearest integer; |r| ≤ 1/2 leaves a truncation error below 2⁻⁵².
    /// Straight arithmetic, so that the loop over lanes becomes vector code.
    #[inline(always)]
    fn of(x: f64) -> f64 {
        let x = if x > 1000.0 { 1000.0 } else { x };
        let x = if x < -1000.0 { -1000.0 } else { x };
        // Adding and taking away 1.5 · 2⁵² rounds to an integer, whose low bits are then in the mantissa.
        let magic = 6_755_399_441_055_744.0;
        let shifted = x + magic;
        let n = shifted - magic;
        let r = x - n;
        let mut sum = EXP2[12];
        let mut term = 12;
        while term > 0 {
            term -= 1;
            sum = sum.mul_add(r, EXP2[term]);
        }
        let exponent = (shifted.to_bits() << 52).wrapping_add(1023 << 52);
        sum * f64::from_bits(exponent)
    }
}

impl Function for Log2 {
    /// x = 2^e · m with m in [√½, √2); log2 m = 2/ln 2 · artanh s with s = (m − 1)/(m + 1), |s| < 0.172.
    #[inline(always)]
    fn of(x: f64) -> f64 {
        let bits = x.to_bits();
        // Bits of √½, so that the exponent counts from there.
        let centred = bits.wrapping_sub(0x3fe6_a09e_667f_3bcd);
        let e = (centred as i64 >> 52) as i32;
        let m = f64::from_bits(bits.wrapping_sub((i64::from(e) as u64) << 52));
        let s = (m - 1.0) / (m + 1.0);
        let square = s * s;
        let mut sum = 0.0_f64;
        let mut n = 21;
        while n > 0 {
            sum = sum.mul_add(square, 1.0 / n as f64);
            n -= 2;
        }
        let value = f64::from(e) + sum * s * (2.0 * std::f64::consts::LOG2_E);
        let positive = if x == f64::INFINITY { x } else { value };
        let at_zero = if x == 0.0 { f64::NEG_INFINITY } else { positive };
        if x < 0.0 || x.is_nan() { f64::NAN } else { at_zero }
    }
}

impl Function for Reciprocal {
    #[inline(always)]
    fn of(x: f64) -> f64 {
        1.0 / x
    }
}

impl Function for ReciprocalRoot {
    #[inline(always)]
    fn of(x: f64) -> f64 {
        1.0 / x.sqrt()
    }
}

impl Function for Root {
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x.sqrt()
    }
}

impl Function for Sine {
    fn of(x: f64) -> f64 {
        x.sin()
    }
}

impl Function for Cosine {
    fn of(x: f64) -> f64 {
        x.cos()
    }
}

impl Function for Tanh {
    fn of(x: f64) -> f64 {
        x.tanh()
    }
}

/// A function rounded to f32.
struct Nearest<O>(PhantomData<O>);

impl<O: Function, T: Single> Op1<T, T> for Nearest<O> {
    #[inline(always)]
    fn apply(a: T) -> T {
        T::of(O::of(f64::from(a.value())) as f32)
    }
}

fn approx<O: Function>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    if f.has("ftz") {
        return f.run::<Map1<Nearest<O>, Ftz, Ftz>>();
    }
    f.run::<Map1<Nearest<O>, f32, f32>>()
}

/// A function on which the side of the true value can be told from its f64 result.
trait Sided: Function {
    /// What is left: positive if the true value is larger than `y` in magnitude.
    fn rest(x: f64, y: f64) -> f64;
}

impl Sided for Reciprocal {
    #[inline(always)]
    fn rest(x: f64, y: f64) -> f64 {
        (-x).mul_add(y, 1.0)
    }
}

impl Sided for Root {
    #[inline(always)]
    fn rest(x: f64, y: f64) -> f64 {
        (-y).mul_add(y, x)
    }
}

/// A function rounded in any direction: [`Inst::aux`] is the rounding, plus 8 for `.ftz`.
struct Directed<O>(PhantomData<O>);

impl<O: Sided> Exec for Directed<O> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let a = &warp.regs.words[inst.a as usize];
        let rounding = Rounding::from_code(inst.aux & 7);
        let ftz = |x: f32| if inst.aux & 8 != 0 { flush(x) } else { x };
        let mut out = Lanes::default();
        for lane in 0..LANES {
            let x = f64::from(ftz(f32::from_bits(a.0[lane])));
            let y = O::of(x);
            let rest = O::rest(x, y);
            let odd = match rest {
                _ if !y.is_finite() || y == 0.0 || rest == 0.0 || rest.is_nan() => y,
                _ if rest < 0.0 => f64::from_bits((y.to_bits() - 1) | 1),
                _ => f64::from_bits(y.to_bits() | 1),
            };
            out.0[lane] = ftz(to_single(odd, rounding)).put();
        }
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn rounded<O: Sided>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    let rounding = f.pick(&Rounding::NAMES).unwrap_or(Rounding::NearestEven);
    f.inst.aux = rounding.code() | if f.has("ftz") { 8 } else { 0 };
    f.run::<Directed<O>>()
}

struct OnDouble<O>(PhantomData<O>);

impl<O: Function> Op1<f64, f64> for OnDouble<O> {
    #[inline(always)]
    fn apply(a: f64) -> f64 {
        O::of(a)
    }
}

fn double<O: Function>(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    f.run::<Map1<OnDouble<O>, f64, f64>>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use crate::testing::eval_f32;

    #[test]
    fn exp2_and_log2_agree_with_the_library_to_far_more_than_an_f32() {
        let mut random = Random::new(1, 2);
        for _ in 0..20_000 {
            let x = f64::from(f32::from_bits(random.next() as u32));
            if x.abs() < 300.0 {
                let (got, want) = (Exp2::of(x), x.exp2());
                assert!((got / want - 1.0).abs() < 1e-14, "2^{x}: {got} {want}");
            }
            let x = x.abs();
            if x.is_finite() && x > 0.0 {
                let (got, want) = (Log2::of(x), x.log2());
                assert!(
                    (got - want).abs() < 1e-13 * want.abs().max(1e-3),
                    "log2 {x}: {got} {want}"
                );
            }
        }
    }

    #[test]
    fn values_at_the_edges() {
        let ex2 = |x| eval_f32("ex2.approx.ftz.f32 %fd, %fa;", &[x]);
        assert_eq!((ex2(0.0), ex2(-3.0), ex2(10.0)), (1.0, 0.125, 1024.0));
        assert_eq!(
            (ex2(f32::NEG_INFINITY), ex2(f32::INFINITY), ex2(-130.0)),
            (0.0, f32::INFINITY, 0.0)
        );
        assert!(ex2(f32::NAN).is_nan());
        assert_eq!(eval_f32("ex2.approx.f32 %fd, %fa;", &[-130.0]), 2f64.powi(-130) as f32);
        let lg2 = |x| eval_f32("lg2.approx.f32 %fd, %fa;", &[x]);
        assert_eq!(
            (lg2(8.0), lg2(0.0), lg2(f32::INFINITY)),
            (3.0, f32::NEG_INFINITY, f32::INFINITY)
        );
        assert!(lg2(-1.0).is_nan());
        assert_eq!(lg2(2f64.powi(-140) as f32), -140.0);
        assert_eq!(eval_f32("rcp.approx.ftz.f32 %fd, %fa;", &[4.0]), 0.25);
        assert_eq!(eval_f32("rcp.rn.f32 %fd, %fa;", &[3.0]), 1.0 / 3.0);
        assert_eq!(eval_f32("rcp.rz.f32 %fd, %fa;", &[3.0]), (1.0f32 / 3.0).next_down());
        assert_eq!(eval_f32("rsqrt.approx.f32 %fd, %fa;", &[16.0]), 0.25);
        assert_eq!(eval_f32("sqrt.rn.f32 %fd, %fa;", &[2.0]), 2f32.sqrt());
        assert!(eval_f32("sqrt.rp.f32 %fd, %fa;", &[2.0]) >= 2f32.sqrt());
        assert_eq!(eval_f32("sin.approx.f32 %fd, %fa;", &[0.5]), 0.5f64.sin() as f32);
        assert_eq!(eval_f32("cos.approx.f32 %fd, %fa;", &[0.5]), 0.5f64.cos() as f32);
        assert_eq!(eval_f32("tanh.approx.f32 %fd, %fa;", &[0.5]), 0.5f64.tanh() as f32);
    }
}
