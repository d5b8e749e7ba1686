//! Numbers as operations see them: integers of any width, floats with or without flushing.

use crate::exec::lanes::{Ftz, Value};

/// An integer of PTX.
pub(crate) trait Int: Value + Ord {
    const BITS: u32;
    const SIGNED: bool;
    fn wide(self) -> i128;
    fn wrap(wide: i128) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// Division by zero, of which the PTX ISA says nothing, gives all ones (H100).
    fn div(self, other: Self) -> Self;
    /// The remainder of a division by zero is all ones (H100).
    fn rem(self, other: Self) -> Self;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    fn is_negative(self) -> bool;
}

macro_rules! ints {
    ($($t:ty, $signed:expr;)*) => {$(
        impl Int for $t {
            const BITS: u32 = <$t>::BITS;
            const SIGNED: bool = $signed;
            #[inline(always)]
            fn wide(self) -> i128 {
                self as i128
            }
            #[inline(always)]
            fn wrap(wide: i128) -> Self {
                wide as $t
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                if other == 0 { !0 } else { self.wrapping_div(other) }
            }
            #[inline(always)]
            fn rem(self, other: Self) -> Self {
                if other == 0 { !0 } else { self.wrapping_rem(other) }
            }
            #[inline(always)]
            fn neg(self) -> Self {
                (0 as $t).wrapping_sub(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                if self.is_negative() { Int::neg(self) } else { self }
            }
            #[inline(always)]
            #[allow(unused_comparisons)]
            fn is_negative(self) -> bool {
                self < 0
            }
        }
    )*};
}

ints! { u8, false; i8, true; u16, false; i16, true; u32, false; i32, true; u64, false; i64, true; }

/// Bits without a meaning, of 16, 32 or 64.
pub(crate) trait Bits: Value {
    fn and(self, other: Self) -> Self;
    fn or(self, other: Self) -> Self;
    fn xor(self, other: Self) -> Self;
    fn not(self) -> Self;
    fn is_zero(self) -> bool;
    fn from_bool(value: bool) -> Self;
}

macro_rules! bits {
    ($($t:ty),*) => {$(
        impl Bits for $t {
            #[inline(always)]
            fn and(self, other: Self) -> Self {
                self & other
            }
            #[inline(always)]
            fn or(self, other: Self) -> Self {
                self | other
            }
            #[inline(always)]
            fn xor(self, other: Self) -> Self {
                self ^ other
            }
            #[inline(always)]
            fn not(self) -> Self {
                !self
            }
            #[inline(always)]
            fn is_zero(self) -> bool {
                self == 0
            }
            #[inline(always)]
            fn from_bool(value: bool) -> Self {
                value as $t
            }
        }
    )*};
}

bits! { u16, u32, u64 }

/// A single-precision number, flushed or not: both are computed alike.
pub(crate) trait Single: Value {
    fn value(self) -> f32;
    fn of(value: f32) -> Self;
}

impl Single for f32 {
    #[inline(always)]
    fn value(self) -> f32 {
        self
    }
    #[inline(always)]
    fn of(value: f32) -> f32 {
        value
    }
}

impl Single for Ftz {
    #[inline(always)]
    fn value(self) -> f32 {
        self.0
    }
    #[inline(always)]
    fn of(value: f32) -> Ftz {
        Ftz(value)
    }
}

/// Directions of rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rounding {
    NearestEven,
    Zero,
    Down,
    Up,
    /// To the nearest, ties away from zero.
    NearestAway,
}

impl Rounding {
    /// By the name of the modifier, for floats (`rn`) and integers (`rni`) alike.
    pub(crate) const NAMES: [(&'static str, Rounding); 9] = [
        ("rn", Rounding::NearestEven),
        ("rz", Rounding::Zero),
        ("rm", Rounding::Down),
        ("rp", Rounding::Up),
        ("rni", Rounding::NearestEven),
        ("rzi", Rounding::Zero),
        ("rmi", Rounding::Down),
        ("rpi", Rounding::Up),
        ("rna", Rounding::NearestAway),
    ];

    /// As a number that fits into an instruction.
    pub(crate) const fn code(self) -> u32 {
        self as u32
    }

    #[inline(always)]
    pub(crate) fn from_code(code: u32) -> Rounding {
        match code {
            0 => Rounding::NearestEven,
            1 => Rounding::Zero,
            2 => Rounding::Down,
            3 => Rounding::Up,
            _ => Rounding::NearestAway,
        }
    }
}

/// The sum in double precision, rounded to odd: a later rounding to 51 bits or fewer is then exact.
#[inline(always)]
pub(crate) fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    // Knuth's exact error of the sum.
    let t = sum - a;
    let error = (a - (sum - t)) + (b - t);
    odd(sum, error)
}

/// `value` with its last bit set if `error` was lost, truncated first.
#[inline(always)]
fn odd(value: f64, error: f64) -> f64 {
    let bits = value.to_bits();
    // The sum was rounded away from zero if the error has the other sign.
    let away = error != 0.0 && ((error < 0.0) != (value < 0.0)) && value != 0.0;
    let truncated = if away { bits.wrapping_sub(1) } else { bits };
    let lost = error != 0.0 && value.is_finite() && error.is_finite();
    f64::from_bits(if lost { truncated | 1 } else { bits })
}

/// `a · b + c` in double precision, rounded to odd, for factors whose product is exact in double.
#[inline(always)]
pub(crate) fn fma_odd(a: f64, b: f64, c: f64) -> f64 {
    add_odd(a * b, c)
}

/// Single precision rounded to odd.
#[inline(always)]
pub(crate) fn to_single_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    let bits = near.to_bits();
    let away = back.abs() > x.abs();
    let truncated = if away { bits.wrapping_sub(1) } else { bits };
    let inexact = back != x && !x.is_nan();
    f32::from_bits(if inexact { truncated | 1 } else { bits })
}

/// Single precision from a double that is exact or rounded to odd, in any direction.
#[inline(always)]
pub(crate) fn to_single(x: f64, rounding: Rounding) -> f32 {
    let near = x as f32;
    if near.is_nan() {
        return near;
    }
    let back = f64::from(near);
    let next_up = |y: f32| y.next_up();
    match rounding {
        Rounding::NearestEven => near,
        Rounding::Down if back > x => near.next_down(),
        Rounding::Up if back < x => next_up(near),
        Rounding::Zero if back > x && x > 0.0 => near.next_down(),
        Rounding::Zero if back < x && x < 0.0 => next_up(near),
        Rounding::NearestAway => near,
        _ => near,
    }
}

/// Bits of a half-precision number nearest to `x`, ties to even. NaN becomes 0x7fff.
#[inline(always)]
pub(crate) fn half_from(x: f32) -> u32 {
    let bits = x.to_bits();
    let sign = bits >> 16 & 0x8000;
    let abs = bits & 0x7fff_ffff;
    let rounded = abs.wrapping_add(0xfff + (abs >> 13 & 1));
    let normal = rounded.wrapping_sub(0x3800_0000) >> 13;
    // Adding 0.5 leaves the bits of a subnormal half at the end, rounded by the adder.
    let tiny = (f32::from_bits(abs) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let finite = if abs < 0x3880_0000 { tiny } else { normal };
    let large = if abs >= 0x4780_0000 { 0x7c00 } else { finite };
    if abs > 0x7f80_0000 { 0x7fff } else { large | sign }
}

/// The value of a half-precision number.
#[inline(always)]
pub(crate) fn half_value(bits: u32) -> f32 {
    let shifted = (bits & 0x7fff) << 13;
    let scaled = f32::from_bits(shifted) * f32::from_bits(0x7780_0000);
    let abs = if shifted >= 0x0f80_0000 { shifted | 0x7f80_0000 } else { scaled.to_bits() };
    f32::from_bits(abs | (bits & 0x8000) << 16)
}

/// Bits of the bfloat16 nearest to `x`, ties to even. NaN becomes 0x7fff.
#[inline(always)]
pub(crate) fn brain_from(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if bits & 0x7fff_ffff > 0x7f80_0000 { 0x7fff } else { rounded }
}

/// The value of a bfloat16.
#[inline(always)]
pub(crate) fn brain_value(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}

/// Floating-point formats of 8 bits (OCP 8-bit Floating Point Specification).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eight {
    /// No infinity; 0x7f and 0xff are NaN; largest 448.
    E4m3,
    /// Like half precision with 2 bits of mantissa; largest finite 57344.
    E5m2,
}

/// The value of a number of 8 bits.
#[inline(always)]
pub(crate) fn eight_value(bits: u32, format: Eight) -> f32 {
    match format {
        Eight::E5m2 => half_value(bits << 8),
        Eight::E4m3 if bits & 0x7f == 0x7f => f32::NAN,
        Eight::E4m3 => {
            // The bits at the place of a half's, whose exponents are 8 larger.
            let half = (bits & 0x80) << 8 | (bits & 0x7f) << 7;
            half_value(half) * 256.0
        }
    }
}

/// Bits of the nearest number of 8 bits, ties to even, beyond the largest the largest. NaN stays NaN.
#[inline(always)]
pub(crate) fn eight_from(x: f32, format: Eight) -> u32 {
    let (bias, mantissa, largest, nan) = match format {
        Eight::E4m3 => (7, 3, 0x7e, 0x7f),
        Eight::E5m2 => (15, 2, 0x7b, 0x7f),
    };
    let sign = x.to_bits() >> 24 & 0x80;
    if x.is_nan() {
        return nan;
    }
    let abs = f64::from(x.abs());
    // The step of the numbers around x: 2^(exponent - mantissa), not below that of the subnormals.
    let exponent = ((abs.to_bits() >> 52) as i32 - 1023).max(1 - bias);
    let scale = f64::from_bits(((1023 + mantissa - exponent) as u64) << 52);
    let steps = (abs * scale).round_ties_even().min(1e6) as u32;
    let code = (((exponent + bias - 1) as u32) << mantissa) + steps;
    code.min(largest) | sign
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_way_there_and_back() {
        for bits in 0..=0xffffu32 {
            let value = half_value(bits);
            let exponent = bits >> 10 & 31;
            let expected = match exponent {
                31 if bits & 0x3ff != 0 => 0x7fff,
                _ => bits,
            };
            assert_eq!(half_from(value), expected, "{bits:#x}");
        }
        assert_eq!(half_value(0x3c00), 1.0);
        assert_eq!(half_value(0x0001), 2f32.powi(-24));
        assert_eq!(half_value(0xfbff), -65504.0);
    }

    #[test]
    fn every_number_of_eight_bits_survives_the_way_there_and_back() {
        for format in [Eight::E4m3, Eight::E5m2] {
            for bits in 0..=0xffu32 {
                let value = eight_value(bits, format);
                let expected = match format {
                    _ if value.is_nan() => 0x7f,
                    Eight::E5m2 if value.is_infinite() => bits - 1,
                    _ => bits,
                };
                assert_eq!(eight_from(value, format), expected, "{format:?} {bits:#x} {value}");
            }
        }
        assert_eq!(eight_value(0x7e, Eight::E4m3), 448.0);
        assert_eq!(eight_value(0x01, Eight::E4m3), 2f32.powi(-9));
        // Ties go to the even neighbour.
        assert_eq!(eight_from(1.0625, Eight::E4m3), 0x38);
        assert_eq!(eight_from(1.1875, Eight::E4m3), 0x3a);
        assert_eq!(eight_from(464.0, Eight::E4m3), 0x7e);
    }

    #[test]
    fn halves_round_to_even() {
        assert_eq!(half_from(65519.99), 0x7bff);
        assert_eq!(half_from(65520.0), 0x7c00);
        assert_eq!(half_from(1.0 + 2f32.powi(-11)), 0x3c00);
        assert_eq!(half_from(1.0 + 3.0 * 2f32.powi(-11)), 0x3c02);
        assert_eq!(half_from(2f32.powi(-25)), 0);
        assert_eq!(half_from(1.5 * 2f32.powi(-24)), 2);
        assert_eq!(brain_from(1.0 + 2f32.powi(-8)), 0x3f80);
        assert_eq!(brain_from(f32::NAN), 0x7fff);
        assert_eq!(brain_from(f32::MAX), 0x7f80);
    }

    #[test]
    fn directed_rounding_brackets_the_value() {
        let x = 1.0 + 2f64.powi(-30);
        assert_eq!(to_single(x, Rounding::Down), 1.0);
        assert_eq!(to_single(x, Rounding::Up), 1.0 + f32::EPSILON);
        assert_eq!(to_single(-x, Rounding::Zero), -1.0);
        assert_eq!(to_single(-x, Rounding::Down), -1.0 - f32::EPSILON);
        assert_eq!(to_single(1e39, Rounding::Zero), f32::MAX);
        assert_eq!(to_single(-1e39, Rounding::Up), f32::MIN);
        assert_eq!(to_single(1e39, Rounding::Up), f32::INFINITY);
    }

    #[test]
    fn odd_rounding_keeps_what_was_lost() {
        let sum = add_odd(1.0, 2f64.powi(-80));
        assert_eq!(sum.to_bits(), 1f64.to_bits() | 1);
        let sum = add_odd(1.0, -2f64.powi(-80));
        assert_eq!(sum.to_bits(), 1f64.to_bits() - 1);
        assert_eq!(to_single_odd(1.0 + 2f64.powi(-40)).to_bits(), 1f32.to_bits() | 1);
    }
}
