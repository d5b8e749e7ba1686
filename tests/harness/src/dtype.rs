//! Element types of recorded and drawn tensors, decoded and encoded by this module's own code.
//!
//! The kernels convert with PTX instructions and the crate with `half`; the judge shares neither.
//! Every float here is one `Minifloat` layout, so that there is one decoder and one rounding to check.

use serde::Deserialize;

/// Type of the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits, 4 of exponent, 3 of mantissa, no infinities, NaN only at 0x7F and 0xFF.
    E4m3,
    /// 8 bits, 5 of exponent, 2 of mantissa, IEEE infinities and NaN.
    E5m2,
    /// Signed 8-bit codes from −127 to 127.
    I8,
}

/// A binary floating-point layout: sign, `exponent_bits`, `mantissa_bits`.
#[derive(Debug, Clone, Copy)]
struct Minifloat {
    exponent_bits: u32,
    mantissa_bits: u32,
    /// The largest exponent field encodes infinities and NaN, as in IEEE 754.
    infinities: bool,
    /// Stores round values beyond the largest finite one (infinities too) to it.
    saturating: bool,
    /// The code that a store writes for NaN.
    nan: u32,
}

impl Minifloat {
    fn bias(self) -> i32 {
        (1 << (self.exponent_bits - 1)) - 1
    }

    /// The code of the largest finite value.
    fn max_code(self) -> u32 {
        let last_code = (1 << (self.exponent_bits + self.mantissa_bits)) - 1;
        if self.infinities { last_code - (1 << self.mantissa_bits) } else { last_code - 1 }
    }

    fn decode(self, code: u32) -> f64 {
        let sign_bit = self.exponent_bits + self.mantissa_bits;
        let sign = if code >> sign_bit & 1 == 1 { -1.0 } else { 1.0 };
        let magnitude = code & ((1 << sign_bit) - 1);
        if magnitude > self.max_code() {
            let infinity = self.max_code() + 1;
            return if self.infinities && magnitude == infinity {
                sign * f64::INFINITY
            } else {
                f64::NAN
            };
        }
        let exponent = magnitude >> self.mantissa_bits;
        let mantissa = magnitude & ((1 << self.mantissa_bits) - 1);
        let (significand, power) = match exponent {
            0 => (mantissa, 1),
            _ => (mantissa + (1 << self.mantissa_bits), exponent),
        };
        let ulp = exp2(power.cast_signed() - self.bias() - self.mantissa_bits.cast_signed());
        sign * f64::from(significand) * ulp
    }

    /// Rounds to nearest, ties to even.
    fn encode(self, value: f64) -> u32 {
        if value.is_nan() {
            return self.nan;
        }
        let sign = u32::from(value.is_sign_negative()) << (self.exponent_bits + self.mantissa_bits);
        let magnitude = value.abs();
        let limit = if self.saturating { self.max_code() } else { self.max_code() + 1 };
        if magnitude >= exp2(self.bias() + 2) {
            return sign | limit;
        }
        let binary_exponent = (magnitude.to_bits() >> 52).cast_signed() as i32 - 1023;
        let exponent = binary_exponent.max(1 - self.bias());
        let ulp = exp2(exponent - self.mantissa_bits.cast_signed());
        // Exact: both are powers of two away from the significand.
        let significand = (magnitude / ulp).round_ties_even() as u32;
        // A normal significand carries the hidden bit, which adds 1 to the exponent field; so does a
        // significand that rounding has carried to the next power of two.
        let field = (exponent + self.bias() - 1).cast_unsigned() << self.mantissa_bits;
        sign | (field + significand).min(limit)
    }
}

/// 2^exponent, for exponents of normal f64 numbers.
fn exp2(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).cast_unsigned()) << 52)
}

impl Dtype {
    /// All types.
    pub const ALL: [Self; 6] = [Self::F32, Self::F16, Self::Bf16, Self::E4m3, Self::E5m2, Self::I8];

    /// Name as recorded calls and entry names spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::E4m3 => "e4m3",
            Self::E5m2 => "e5m2",
            Self::I8 => "i8",
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::E4m3 | Self::E5m2 | Self::I8 => 1,
        }
    }

    const fn layout(self) -> Option<Minifloat> {
        let (exponent_bits, mantissa_bits, nan) = match self {
            Self::F32 => (8, 23, 0x7FC0_0000),
            Self::F16 => (5, 10, 0x7FFF),
            Self::Bf16 => (8, 7, 0x7FFF),
            Self::E4m3 => (4, 3, 0x7F),
            Self::E5m2 => (5, 2, 0x7F),
            Self::I8 => return None,
        };
        Some(Minifloat {
            exponent_bits,
            mantissa_bits,
            infinities: !matches!(self, Self::E4m3),
            saturating: matches!(self, Self::E4m3 | Self::E5m2),
            nan,
        })
    }

    /// Largest relative error of rounding to nearest within the normal range: half a unit in the last
    /// place of 1. Zero for `i8`, whose codes are exact.
    pub fn unit_roundoff(self) -> f64 {
        self.layout().map_or(0.0, |layout| 2f64.powi(-(layout.mantissa_bits.cast_signed() + 1)))
    }

    /// Largest absolute error of rounding to nearest below the normal range.
    pub fn underflow(self) -> f64 {
        self.layout().map_or(0.0, |layout| {
            2f64.powi(1 - layout.bias() - layout.mantissa_bits.cast_signed() - 1)
        })
    }

    /// The value of one element, given its little-endian bytes.
    ///
    /// # Panics
    ///
    /// When `bytes` is not one element long.
    pub fn decode(self, bytes: &[u8]) -> f64 {
        assert_eq!(bytes.len(), self.bytes(), "one {} element", self.name());
        let mut word = [0; 4];
        word[..bytes.len()].copy_from_slice(bytes);
        match self.layout() {
            Some(layout) => layout.decode(u32::from_le_bytes(word)),
            None => f64::from(bytes[0].cast_signed()),
        }
    }

    /// Appends the element nearest to `value` (ties to even) to `bytes`, little-endian.
    ///
    /// `e4m3` and `e5m2` saturate, NaN becoming 0x7F; `f16` and `bf16` overflow to infinity; `i8` is
    /// clamped to ±127, NaN becoming 0.
    pub fn encode(self, value: f64, bytes: &mut Vec<u8>) {
        let code = match self.layout() {
            Some(layout) => layout.encode(value),
            None => u32::from((value.round_ties_even().clamp(-127.0, 127.0) as i8).cast_unsigned()),
        };
        bytes.extend_from_slice(&code.to_le_bytes()[..self.bytes()]);
    }

    /// `value` rounded to this type.
    pub fn round(self, value: f64) -> f64 {
        let mut bytes = Vec::with_capacity(4);
        self.encode(value, &mut bytes);
        self.decode(&bytes)
    }

    /// The code that marks a slot which no live token owns: NaN, −127 for `i8`.
    pub fn poison(self) -> f64 {
        if self == Self::I8 { -127.0 } else { f64::NAN }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(dtype: Dtype, value: f64) -> u32 {
        let mut bytes = Vec::new();
        dtype.encode(value, &mut bytes);
        bytes.resize(4, 0);
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    }

    fn value(dtype: Dtype, code: u32) -> f64 {
        dtype.decode(&code.to_le_bytes()[..dtype.bytes()])
    }

    fn same(a: f64, b: f64) -> bool {
        a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
    }

    /// Every 16-bit code decodes as `half` decodes it.
    #[test]
    fn sixteen_bit_codes_decode_as_half_does() {
        for code in 0..=u16::MAX {
            let word = u32::from(code);
            assert!(
                same(value(Dtype::F16, word), half::f16::from_bits(code).to_f64()),
                "{code:#06x}"
            );
            assert!(
                same(value(Dtype::Bf16, word), half::bf16::from_bits(code).to_f64()),
                "{code:#06x}"
            );
        }
    }

    /// Halfway between two neighbours the even code wins, and a hair beside the middle the nearer one.
    #[test]
    fn every_code_is_the_nearest_to_its_neighbourhood() {
        for dtype in [Dtype::F16, Dtype::Bf16, Dtype::E4m3, Dtype::E5m2] {
            let last = dtype.layout().expect("a float").max_code();
            for low in 0..last {
                let (below, above) = (value(dtype, low), value(dtype, low + 1));
                let middle = f64::midpoint(below, above);
                let even = low + (low & 1);
                for sign in [1.0, -1.0] {
                    let sign_bit = if sign < 0.0 { 0x80 << (8 * (dtype.bytes() - 1)) } else { 0 };
                    assert_eq!(code(dtype, sign * below), sign_bit | low, "{dtype} {low:#x}");
                    assert_eq!(code(dtype, sign * middle), sign_bit | even, "{dtype} {low:#x}");
                    assert_eq!(code(dtype, sign * middle.next_down()), sign_bit | low);
                    assert_eq!(code(dtype, sign * middle.next_up()), sign_bit | (low + 1));
                }
            }
        }
    }

    /// Rounding to binary32 is what the hardware's conversion does, on values around every exponent.
    #[test]
    fn f32_rounds_as_the_hardware_does() {
        let mut bits = 0x1234_5678_9abc_def1_u64;
        for _ in 0..200_000 {
            bits = bits
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let exponent = 1023 - 160 + (bits >> 40) % 300;
            let x = f64::from_bits(bits & 0x800F_FFFF_FFFF_FFFF | exponent << 52);
            assert_eq!(code(Dtype::F32, x), (x as f32).to_bits(), "{x:e}");
            assert!(same(value(Dtype::F32, (x as f32).to_bits()), f64::from(x as f32)));
        }
    }

    /// The OCP 8-bit tables: largest finite value, least positive value, specials.
    #[test]
    fn eight_bit_landmarks() {
        assert_eq!(value(Dtype::E4m3, 0x7E), 448.0);
        assert_eq!(value(Dtype::E4m3, 0x01), 2f64.powi(-9));
        assert_eq!(value(Dtype::E4m3, 0x08), 2f64.powi(-6));
        assert_eq!(value(Dtype::E4m3, 0x38), 1.0);
        assert!(value(Dtype::E4m3, 0x7F).is_nan() && value(Dtype::E4m3, 0xFF).is_nan());
        assert_eq!(value(Dtype::E5m2, 0x7B), 57344.0);
        assert_eq!(value(Dtype::E5m2, 0x01), 2f64.powi(-16));
        assert_eq!(value(Dtype::E5m2, 0x3C), 1.0);
        assert_eq!(value(Dtype::E5m2, 0x7C), f64::INFINITY);
        assert!((0x7D..=0x7F).all(|c| value(Dtype::E5m2, c).is_nan()));
        assert_eq!(value(Dtype::I8, 0x81), -127.0);
    }

    /// Beyond the finite range: fp8 saturates, 16 bit overflows to infinity, int8 clamps.
    #[test]
    fn values_out_of_range() {
        for x in [1e6, f64::INFINITY, 464.1, 1e300] {
            assert_eq!(code(Dtype::E4m3, x), 0x7E);
            assert_eq!(code(Dtype::E4m3, -x), 0xFE);
        }
        assert_eq!(code(Dtype::E5m2, f64::NEG_INFINITY), 0xFB);
        assert_eq!(code(Dtype::E5m2, 1e9), 0x7B);
        assert_eq!(code(Dtype::E4m3, f64::NAN), 0x7F);
        assert_eq!(code(Dtype::E5m2, f64::NAN), 0x7F);
        assert_eq!(code(Dtype::F16, 65519.9), 0x7BFF);
        assert_eq!(code(Dtype::F16, 65520.0), 0x7C00);
        assert_eq!(code(Dtype::F16, -1e9), 0xFC00);
        assert_eq!(code(Dtype::Bf16, f64::INFINITY), 0x7F80);
        assert_eq!(code(Dtype::I8, 126.5), 126);
        assert_eq!(code(Dtype::I8, -300.0), 0x81);
        assert_eq!(code(Dtype::I8, f64::NAN), 0);
    }

    /// Every finite code survives decoding and encoding.
    #[test]
    fn codes_round_trip() {
        for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.bytes() < 4) {
            for bits in 0..1_u32 << (8 * dtype.bytes()) {
                let x = value(dtype, bits);
                // -128 is no code of ours: stores clamp to 127 on both sides.
                if x.is_finite() && (dtype, bits) != (Dtype::I8, 0x80) {
                    assert_eq!(code(dtype, x), bits, "{dtype}");
                }
            }
        }
    }
}
