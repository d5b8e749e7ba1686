//! Conversions to and from numbers of 8 bits (PTX ISA, "Data Movement and Conversion Instructions: cvt").

use super::number::{Eight, eight_from, eight_value, half_from, half_value};
use super::{Lowered, Map1, Map2, Op1, Op2};
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("cvt.rn.satfinite[.relu].e4m3x2|e5m2x2.f32 d, a, b", eight_pair).from_sm(89),
    row("cvt.rn.relu.satfinite.e4m3x2|e5m2x2.f32 d, a, b", eight_pair).from_sm(89),
    row("cvt.rn.satfinite[.relu].e4m3x2|e5m2x2.f16x2 d, a", eight_from_halves).from_sm(89),
    row("cvt.rn.relu.satfinite.e4m3x2|e5m2x2.f16x2 d, a", eight_from_halves).from_sm(89),
    row("cvt.rn[.relu].f16x2.e4m3x2|e5m2x2 d, a", halves_from_eight).from_sm(89),
];

struct ToEight<const E5: bool, const RELU: bool>;

const fn format(e5: bool) -> Eight {
    if e5 { Eight::E5m2 } else { Eight::E4m3 }
}

fn relu<const RELU: bool>(x: f32) -> f32 {
    if RELU && x <= 0.0 { 0.0 } else { x }
}

impl<const E5: bool, const RELU: bool> Op2<f32, f32, u16> for ToEight<E5, RELU> {
    #[inline(always)]
    fn apply(a: f32, b: f32) -> u16 {
        let one = |x: f32| eight_from(relu::<RELU>(x), format(E5));
        (one(a) << 8 | one(b)) as u16
    }
}

impl<const E5: bool, const RELU: bool> Op1<u32, u16> for ToEight<E5, RELU> {
    #[inline(always)]
    fn apply(a: u32) -> u16 {
        let one = |x: u32| eight_from(relu::<RELU>(half_value(x)), format(E5));
        (one(a >> 16) << 8 | one(a & 0xffff)) as u16
    }
}

struct FromEight<const E5: bool, const RELU: bool>;

impl<const E5: bool, const RELU: bool> Op1<u16, u32> for FromEight<E5, RELU> {
    #[inline(always)]
    fn apply(a: u16) -> u32 {
        let one = |x: u32| half_from(relu::<RELU>(eight_value(x, format(E5))));
        one(u32::from(a >> 8)) << 16 | one(u32::from(a & 0xff))
    }
}

fn eight_pair(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B16)?;
    f.inst.a = f.src(Type::F32)?;
    f.inst.b = f.src(Type::F32)?;
    match (f.has("e5m2x2"), f.has("relu")) {
        (false, false) => f.run::<Map2<ToEight<false, false>, f32, f32, u16>>(),
        (false, true) => f.run::<Map2<ToEight<false, true>, f32, f32, u16>>(),
        (true, false) => f.run::<Map2<ToEight<true, false>, f32, f32, u16>>(),
        (true, true) => f.run::<Map2<ToEight<true, true>, f32, f32, u16>>(),
    }
}

fn eight_from_halves(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B16)?;
    f.inst.a = f.src(Type::F16x2)?;
    match (f.has("e5m2x2"), f.has("relu")) {
        (false, false) => f.run::<Map1<ToEight<false, false>, u32, u16>>(),
        (false, true) => f.run::<Map1<ToEight<false, true>, u32, u16>>(),
        (true, false) => f.run::<Map1<ToEight<true, false>, u32, u16>>(),
        (true, true) => f.run::<Map1<ToEight<true, true>, u32, u16>>(),
    }
}

fn halves_from_eight(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::F16x2)?;
    f.inst.a = f.src(Type::B16)?;
    match (f.has("e5m2x2"), f.has("relu")) {
        (false, false) => f.run::<Map1<FromEight<false, false>, u16, u32>>(),
        (false, true) => f.run::<Map1<FromEight<false, true>, u16, u32>>(),
        (true, false) => f.run::<Map1<FromEight<true, false>, u16, u32>>(),
        (true, true) => f.run::<Map1<FromEight<true, true>, u16, u32>>(),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::eval;

    #[test]
    fn formats_of_eight_bits() {
        let pair = |ty: &str, a: f32, b: f32| {
            let text = format!(
                "{{ .reg .b16 %h; cvt.rn.satfinite.{ty}.f32 %h, %fa, %fb; cvt.u32.u16 %d, %h; }}"
            );
            eval(&text, &[a.to_bits(), b.to_bits()])
        };
        assert_eq!(pair("e4m3x2", 1.0, -448.0), 0x38fe);
        assert_eq!(pair("e4m3x2", 1e6, 2f32.powi(-9)), 0x7e01);
        assert_eq!(pair("e5m2x2", 1.0, 57344.0), 0x3c7b);
        assert_eq!(pair("e5m2x2", f32::INFINITY, f32::NAN), 0x7b7f);
        let back = |ty: &str, bits: u32| {
            eval(
                &format!("{{ .reg .b16 %h; cvt.u16.u32 %h, %a; cvt.rn.f16x2.{ty} %d, %h; }}"),
                &[bits],
            )
        };
        assert_eq!(back("e4m3x2", 0x38fe), 0x3c00_df00);
        assert_eq!(back("e5m2x2", 0x3c7c), 0x3c00_7c00);
    }
}
