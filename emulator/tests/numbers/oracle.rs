//! What arithmetic gives, by LLVM's software floats (`rustc_apfloat`).

use rustc_apfloat::ieee::{BFloat, Double, Half, Single};
use rustc_apfloat::{Float, Round};

/// A type of PTX that computes in a floating-point format.
pub trait Format: Float + Copy {
    const NAME: &'static str;
    const REGISTER: &'static str;
    const EXPONENT: u32;
    const FRACTION: u32;
}

macro_rules! formats {
    ($($t:ty, $name:literal, $register:literal, $exponent:literal, $fraction:literal;)*) => {$(
        impl Format for $t {
            const NAME: &'static str = $name;
            const REGISTER: &'static str = $register;
            const EXPONENT: u32 = $exponent;
            const FRACTION: u32 = $fraction;
        }
    )*};
}

formats! {
    Half, "f16", "b16", 5, 10;
    BFloat, "bf16", "b16", 8, 7;
    Single, "f32", "b32", 8, 23;
    Double, "f64", "b64", 11, 52;
}

/// The modifiers that say how to round, and what they mean; none is to nearest.
pub const ROUNDINGS: [(&str, Round); 5] = [
    ("", Round::NearestTiesToEven),
    (".rn", Round::NearestTiesToEven),
    (".rz", Round::TowardZero),
    (".rm", Round::TowardNegative),
    (".rp", Round::TowardPositive),
];

/// The number that bits stand for.
pub fn number<T: Format>(bits: u64) -> T {
    T::from_bits(bits.into())
}

/// Zero with the same sign if the number is subnormal.
pub fn flush<T: Format>(x: T) -> T {
    if x.is_denormal() { T::ZERO.copy_sign(x) } else { x }
}

/// Clamped to [0, 1]; NaN and -0 become 0.
pub fn saturate<T: Format>(x: T) -> T {
    let one = T::from_u128(1).value;
    match () {
        _ if x.is_nan() || x.is_negative() => T::ZERO,
        _ if x > one => one,
        _ => x,
    }
}

/// Negative numbers become 0, NaN stays.
pub fn relu<T: Format>(x: T) -> T {
    if x.is_negative() && !x.is_nan() { T::ZERO } else { x }
}

/// Equal bits, or any two NaN.
pub fn same<T: Format>(got: u64, want: u64) -> bool {
    got == want || (number::<T>(got).is_nan() && number::<T>(want).is_nan())
}
