//! Encodings of matrix operands.

/// Encoding of an operand of a floating-point matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// IEEE binary16.
    F16,
    /// bfloat16.
    Bf16,
    /// 19 bits in the high part of 32: the low 13 bits of a register are ignored.
    Tf32,
    /// 8 bits, 4 of exponent, 3 of mantissa; no infinity, NaN is 0x7F and 0xFF.
    E4m3,
    /// 8 bits, 5 of exponent, 2 of mantissa, as the high half of binary16.
    E5m2,
    /// IEEE binary32, for accumulators.
    F32,
}

/// A value taken apart: `(-1)^negative * significand * 2^(exponent - fraction_bits)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// A finite value, zero included (significand 0).
    Finite {
        /// Sign bit.
        negative: bool,
        /// Integer significand, hidden bit included.
        significand: u32,
        /// Unbiased exponent; a subnormal has the smallest normal one.
        exponent: i32,
    },
    /// An infinity.
    Infinite {
        /// Sign bit.
        negative: bool,
    },
    /// Not a number.
    Nan,
}

impl Format {
    /// Bits of an element as it lies in a register.
    pub const fn bits(self) -> u32 {
        match self {
            Self::F16 | Self::Bf16 => 16,
            Self::Tf32 | Self::F32 => 32,
            Self::E4m3 | Self::E5m2 => 8,
        }
    }

    /// Bits of the mantissa without the hidden one.
    pub const fn fraction_bits(self) -> u32 {
        match self {
            Self::F16 | Self::Tf32 => 10,
            Self::Bf16 => 7,
            Self::E4m3 => 3,
            Self::E5m2 => 2,
            Self::F32 => 23,
        }
    }

    const fn exponent_bits(self) -> u32 {
        match self {
            Self::F16 | Self::E5m2 => 5,
            Self::E4m3 => 4,
            Self::Bf16 | Self::Tf32 | Self::F32 => 8,
        }
    }

    /// Takes the encoding `code` (in the low [`Format::bits`]) apart.
    pub const fn parts(self, code: u32) -> Parts {
        let code = if matches!(self, Self::Tf32) { code >> 13 } else { code };
        let (fraction_bits, exponent_bits) = (self.fraction_bits(), self.exponent_bits());
        let fraction = code & ((1 << fraction_bits) - 1);
        let biased = (code >> fraction_bits) & ((1 << exponent_bits) - 1);
        let negative = (code >> (fraction_bits + exponent_bits)) & 1 == 1;
        let bias = (1 << (exponent_bits - 1)) - 1;
        let largest = (1 << exponent_bits) - 1;
        if matches!(self, Self::E4m3) {
            if biased == largest && fraction == 7 {
                return Parts::Nan;
            }
        } else if biased == largest {
            return if fraction == 0 { Parts::Infinite { negative } } else { Parts::Nan };
        }
        if biased == 0 {
            return Parts::Finite { negative, significand: fraction, exponent: 1 - bias };
        }
        let significand = fraction | 1 << fraction_bits;
        Parts::Finite { negative, significand, exponent: biased as i32 - bias }
    }

    /// The value as f64, which holds every one exactly.
    pub fn value(self, code: u32) -> f64 {
        let sign = |negative| if negative { -1.0 } else { 1.0 };
        match self.parts(code) {
            Parts::Nan => f64::NAN,
            Parts::Infinite { negative } => sign(negative) * f64::INFINITY,
            Parts::Finite { negative, significand, exponent } => {
                let scale = f64::powi(2.0, exponent - self.fraction_bits() as i32);
                sign(negative) * f64::from(significand) * scale
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_f32_class_has_the_value_that_rust_gives_it() {
        let samples = [0, 1, 0x007F_FFFF, 0x0080_0000, 0x3F80_0001, 0x7F7F_FFFF, 0x7F80_0000];
        for code in samples {
            for sign in [0, 1 << 31] {
                let code = code | sign;
                assert_eq!(Format::F32.value(code), f64::from(f32::from_bits(code)), "{code:#x}");
            }
        }
        assert!(Format::F32.value(0x7F80_0001).is_nan());
    }

    #[test]
    fn bf16_and_tf32_are_the_high_bits_of_f32() {
        for high in 0..=u16::MAX {
            let expected = f64::from(f32::from_bits(u32::from(high) << 16));
            for value in [
                Format::Bf16.value(high.into()),
                Format::Tf32.value(u32::from(high) << 16 | 0x1FFF),
            ] {
                // tf32 has three more mantissa bits, zero here.
                assert!(value == expected || value.is_nan() && expected.is_nan(), "{high:#x}");
            }
        }
    }

    #[test]
    fn eight_bit_floats_have_the_values_of_the_ocp_tables() {
        // OCP 8-bit floating point specification, tables of E4M3 and E5M2: largest, smallest normal, subnormals.
        let e4m3 = [(0x7E, 448.0), (0x08, 0.015625), (0x07, 0.013671875), (0x01, 0.001953125)];
        let e5m2 = [(0x7B, 57344.0), (0x04, 6.103515625e-5), (0x01, 1.52587890625e-5)];
        for (code, value) in e4m3 {
            assert_eq!(Format::E4m3.value(code), value);
            assert_eq!(Format::E4m3.value(code | 0x80), -value);
        }
        for (code, value) in e5m2 {
            assert_eq!(Format::E5m2.value(code), value);
        }
        assert_eq!(Format::E5m2.value(0xFC), f64::NEG_INFINITY);
        assert!(Format::E4m3.value(0x7F).is_nan() && Format::E5m2.value(0x7D).is_nan());
        // E5M2 is binary16 without its low byte.
        for code in (0..=0xFF).filter(|code| code & 0x7F <= 0x7C) {
            assert_eq!(Format::E5m2.value(code), Format::F16.value(code << 8));
        }
    }
}
