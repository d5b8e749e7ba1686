//! How tensor cores add: one step sums a few products and the accumulator as integers.
//!
//! A step aligns all products and the accumulator to the largest exponent among them, truncates each term to F fraction
//! bits below it, adds exactly and truncates the sum to the result's precision. What differs among architectures is F and how
//! many products one step takes. Sources: M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh, "Numerical behavior of NVIDIA
//! tensor cores" (2021); F. A. Khattak, M. Mikaitis, arXiv 2512.07004; P. Xie et al., arXiv 2511.10909. Alignment is
//! by the sum of the factors' exponents, not by the product's own.
//!
//! Hopper and data-center Blackwell have no fp8 unit that `mma.sync` reaches: ptxas makes of it two products of f16, whose
//! sum is added to the accumulator at the end (`cuobjdump -sass` shows it). Ada and desktop Blackwell have one.

use super::format::{Format, Parts};
use crate::ops::number::{Eight, eight_value, half_from, half_value};

/// Arithmetic of one family of instructions on one architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Model {
    /// Products of one step; longer rows take several, one after the other.
    pub step: usize,
    /// Fraction bits kept below the largest exponent.
    pub fraction_bits: u32,
    /// Fraction bits of an f32 result.
    pub result_bits: u32,
    /// Smallest exponent that terms are aligned to, for a result of f32 and of f16.
    pub min_exponents: (i32, i32),
    /// Whether operands of 8 bits become f16, and are summed without the accumulator.
    pub widened: bool,
}

const HALVES: (Format, Format) = (Format::F16, Format::F16);

/// A canonical NaN, which every invalid sum gives.
const NAN: u32 = 0x7FFF_FFFF;

impl Model {
    /// The model for operands of `format` on compute capability `major.minor`.
    pub const fn of(format: Format, major: u32, minor: u32) -> Self {
        let eight = matches!(format, Format::E4m3 | Format::E5m2);
        // Ada sums fp8 with 13 bits in and out.
        if eight && major == 8 && minor == 9 {
            return Self {
                step: 16,
                fraction_bits: 13,
                result_bits: 13,
                min_exponents: (-132, -20),
                widened: false,
            };
        }
        let late = major >= 9;
        let native = eight && major >= 12;
        Self {
            step: match format {
                _ if native => 32,
                Format::Tf32 if late => 8,
                Format::Tf32 => 4,
                _ if late => 16,
                _ => 8,
            },
            fraction_bits: if late { 25 } else { 24 },
            result_bits: 23,
            min_exponents: if late { (-133, -21) } else { (-132, -20) },
            widened: eight && !native,
        }
    }

    /// `c + Σ a·b` with an f32 accumulator; `a` and `b` hold encodings and have equal lengths.
    pub fn dot_f32(self, formats: (Format, Format), a: &[u32], b: &[u32], c: f32) -> f32 {
        assert_eq!(a.len(), b.len(), "rows of A and columns of B have one length");
        if self.widened {
            let sum =
                self.halves(formats, a, b, |model, a, b, sum| model.dot_f32(HALVES, a, b, sum));
            let sum = c + sum;
            return if sum.is_nan() { f32::from_bits(NAN) } else { sum };
        }
        let mut accumulator = c;
        for (a, b) in a.chunks(self.step).zip(b.chunks(self.step)) {
            accumulator = match self.sum(formats, a, b, (Format::F32, accumulator.to_bits())) {
                Ok(sum) => sum.to_f32(self.result_bits),
                Err(special) => special,
            };
        }
        accumulator
    }

    /// `c + Σ a·b` with an f16 accumulator (as its bits), rounded to nearest even after each step.
    pub fn dot_f16(self, formats: (Format, Format), a: &[u32], b: &[u32], c: u16) -> u16 {
        assert_eq!(a.len(), b.len(), "rows of A and columns of B have one length");
        if self.widened {
            let sum =
                self.halves(formats, a, b, |model, a, b, sum| model.dot_f16(HALVES, a, b, sum));
            return half_from(half_value(c.into()) + half_value(sum.into())) as u16;
        }
        let mut accumulator = c;
        for (a, b) in a.chunks(self.step).zip(b.chunks(self.step)) {
            accumulator = match self.sum(formats, a, b, (Format::F16, accumulator.into())) {
                Ok(sum) => sum.to_f16(),
                Err(special) if special.is_nan() => 0x7FFF,
                Err(special) => 0x7C00 | u16::from(special < 0.0) << 15,
            };
        }
        accumulator
    }

    /// Two products of f16, the second added to the first: of the first and second elements of each group of four,
    /// and of the third and fourth, as they lie in the registers of a lane.
    fn halves<T: Default>(
        self,
        formats: (Format, Format),
        a: &[u32],
        b: &[u32],
        dot: impl Fn(Self, &[u32], &[u32], T) -> T,
    ) -> T {
        let model = Self { widened: false, ..self };
        let half = |format, codes: &[u32], part: usize| -> Vec<u32> {
            let eight = if format == Format::E4m3 { Eight::E4m3 } else { Eight::E5m2 };
            let of_part = codes.iter().enumerate().filter(|(k, _)| k % 4 / 2 == part);
            of_part.map(|(_, &code)| half_from(eight_value(code, eight))).collect()
        };
        (0..2).fold(T::default(), |sum, part| {
            dot(model, &half(formats.0, a, part), &half(formats.1, b, part), sum)
        })
    }

    /// One step, exact but for the truncation of each term; `Err` holds a NaN or an infinity.
    fn sum(
        self,
        formats: (Format, Format),
        a: &[u32],
        b: &[u32],
        c: (Format, u32),
    ) -> Result<Sum, f32> {
        // (negative, significand, exponent of its lowest bit, exponent to align by)
        let mut terms = [(false, 0_u64, 0_i32, i32::MIN); 33];
        let mut infinity: Option<bool> = None;
        let mut invalid = false;
        let mut largest =
            if c.0 == Format::F16 { self.min_exponents.1 } else { self.min_exponents.0 };
        let mut meet_infinity = |negative| {
            invalid |= infinity.is_some_and(|other| other != negative);
            infinity = Some(negative);
        };
        let bits = (formats.0.fraction_bits() + formats.1.fraction_bits()) as i32;
        let mut any_nan = false;
        for (term, (&a, &b)) in terms.iter_mut().zip(a.iter().zip(b)) {
            match (formats.0.parts(a), formats.1.parts(b)) {
                (
                    Parts::Finite { negative: na, significand: sa, exponent: ea },
                    Parts::Finite { negative: nb, significand: sb, exponent: eb },
                ) => {
                    let product = u64::from(sa) * u64::from(sb);
                    if product != 0 {
                        *term = (na != nb, product, ea + eb - bits, ea + eb);
                        largest = largest.max(ea + eb);
                    }
                }
                (Parts::Nan, _) | (_, Parts::Nan) => any_nan = true,
                (Parts::Infinite { negative }, Parts::Infinite { negative: other }) => {
                    meet_infinity(negative != other);
                }
                (
                    Parts::Infinite { negative: inf },
                    Parts::Finite { negative, significand, .. },
                )
                | (
                    Parts::Finite { negative, significand, .. },
                    Parts::Infinite { negative: inf },
                ) => {
                    if significand == 0 {
                        any_nan = true;
                    } else {
                        meet_infinity(inf != negative);
                    }
                }
            }
        }
        match c.0.parts(c.1) {
            Parts::Nan => any_nan = true,
            Parts::Infinite { negative } => meet_infinity(negative),
            Parts::Finite { negative, significand, exponent } if significand != 0 => {
                let lowest = exponent - c.0.fraction_bits() as i32;
                terms[a.len()] = (negative, significand.into(), lowest, exponent);
                largest = largest.max(exponent);
            }
            Parts::Finite { .. } => {}
        }
        if any_nan || invalid {
            return Err(f32::from_bits(NAN));
        }
        if let Some(negative) = infinity {
            return Err(if negative { f32::NEG_INFINITY } else { f32::INFINITY });
        }

        let unit = largest - self.fraction_bits as i32;
        let total = terms[..=a.len()]
            .iter()
            .map(|&(negative, significand, lowest, _)| {
                let shift = lowest - unit;
                let magnitude = if shift >= 0 {
                    // Only an absent term, whose exponent means nothing, can be shifted too far.
                    significand.checked_shl(shift.unsigned_abs()).unwrap_or(0) as i64
                } else {
                    significand.checked_shr(shift.unsigned_abs()).unwrap_or(0) as i64
                };
                if negative { -magnitude } else { magnitude }
            })
            .sum();
        Ok(Sum { total, unit })
    }
}

/// `total * 2^unit`, exact.
#[derive(Debug, Clone, Copy)]
struct Sum {
    total: i64,
    unit: i32,
}

impl Sum {
    /// Exponent of the leading bit; `None` for zero.
    fn exponent(self) -> Option<i32> {
        self.total.unsigned_abs().checked_ilog2().map(|bit| bit as i32 + self.unit)
    }

    /// Truncated toward zero to `fraction_bits` below its leading bit, or to a subnormal.
    fn to_f32(self, fraction_bits: u32) -> f32 {
        let Some(exponent) = self.exponent() else { return 0.0 };
        let lowest = exponent.max(-126) - fraction_bits as i32;
        let shift = lowest - self.unit;
        let magnitude = self.total.unsigned_abs();
        let kept = if shift <= 0 { magnitude } else { (magnitude >> shift) << shift };
        // At most 24 significant bits are left, so both conversions are exact or overflow to infinity.
        let value = kept as f64 * f64::powi(2.0, self.unit);
        let value = if value >= f64::powi(2.0, 128) { f64::INFINITY } else { value };
        (if self.total < 0 { -value } else { value }) as f32
    }

    /// Rounded to nearest even as binary16.
    fn to_f16(self) -> u16 {
        let sign = u16::from(self.total < 0) << 15;
        let Some(exponent) = self.exponent() else { return 0 };
        let lowest = exponent.max(-14) - 10;
        let shift = lowest - self.unit;
        let magnitude = u128::from(self.total.unsigned_abs());
        let mut kept = if shift <= 0 {
            magnitude << (-shift).min(64)
        } else if shift >= 100 {
            0
        } else {
            let floor = magnitude >> shift;
            let rest = magnitude & ((1 << shift) - 1);
            let half = 1_u128 << (shift - 1);
            floor + u128::from(rest > half || rest == half && floor & 1 == 1)
        };
        let mut exponent = lowest + 10;
        if kept == 1 << 11 {
            kept = 1 << 10;
            exponent += 1;
        }
        if exponent > 15 {
            return sign | 0x7C00;
        }
        let biased = if kept >> 10 == 0 { 0 } else { (exponent + 15) as u16 };
        sign | biased << 10 | (kept as u16 & 0x3FF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F16: (Format, Format) = (Format::F16, Format::F16);
    /// 1.0 in binary16.
    const ONE: u32 = 0x3C00;

    /// 2^exponent as binary16, subnormals included.
    fn f16_pow2(exponent: i32) -> u32 {
        if exponent >= -14 { ((exponent + 15) as u32) << 10 } else { 1 << (exponent + 24) }
    }

    /// Products of 2^exponent each, 16 of them.
    fn sixteen(model: Model, exponent: i32, c: f32) -> f32 {
        let half = exponent / 2;
        model.dot_f32(F16, &[f16_pow2(half); 16], &[f16_pow2(exponent - half); 16], c)
    }

    #[test]
    fn architectures_keep_the_published_number_of_alignment_bits() {
        // Fasi et al., section on extra bits: below one, Ampere keeps a term of 2^-24 and loses one of 2^-25, which Hopper keeps.
        let (ampere, hopper) = (Model::of(Format::F16, 8, 0), Model::of(Format::F16, 9, 0));
        let ulp = f32::EPSILON;
        assert_eq!(sixteen(ampere, -24, 1.0), 1.0 + 8.0 * ulp);
        assert_eq!(sixteen(ampere, -25, 1.0), 1.0);
        assert_eq!(sixteen(hopper, -25, 1.0), 1.0 + 4.0 * ulp);
        assert_eq!(sixteen(hopper, -26, 1.0), 1.0);
    }

    #[test]
    fn zeros_stay_out_of_sums_of_tiny_numbers() {
        // The products are absent, and the unit of the sum lies far below 2^-64.
        let tiny = f32::from_bits(1);
        let bf16 = (Format::Bf16, Format::Bf16);
        for sm in [(8, 0), (9, 0)] {
            let model = Model::of(Format::Bf16, sm.0, sm.1);
            assert_eq!(model.dot_f32(bf16, &[0; 16], &[0; 16], tiny), tiny);
            assert_eq!(
                model.dot_f32(bf16, &[1, 0], &[0x3f80, 0x3f80], 0.0),
                f32::from_bits(1 << 16)
            );
        }
    }

    #[test]
    fn results_are_rounded_toward_zero() {
        let hopper = Model::of(Format::F16, 9, 0);
        let just_below = f32::from_bits(f32::EPSILON.to_bits() - 1);
        // 1 + (ulp - ulp/4): round to nearest would give 1 + ulp.
        let (a, b) = ([f16_pow2(-12); 3], [f16_pow2(-12), f16_pow2(-13), 0]);
        let sum = hopper.dot_f32(F16, &a, &b, 1.0);
        assert!(just_below > 0.0 && sum == 1.0, "{sum}");
        assert_eq!(hopper.dot_f32(F16, &a.map(|x| x | 0x8000), &b, -1.0), -1.0);
    }

    #[test]
    fn ampere_takes_sixteen_products_in_two_steps_and_hopper_in_one() {
        // 2^11·2^11 in the first half, its negative in the second, 2^-10 in the first: one step loses it to
        // alignment (2^-10 is 2^32 below), two steps lose it in the first.
        // With the small term in the second half of the cancelled sum, two steps keep it.
        let mut a = [0; 16];
        let mut b = [0; 16];
        (a[0], b[0]) = (f16_pow2(11), f16_pow2(11));
        (a[1], b[1]) = (f16_pow2(11) | 0x8000, f16_pow2(11));
        (a[8], b[8]) = (f16_pow2(-10), ONE);
        assert_eq!(Model::of(Format::F16, 8, 6).dot_f32(F16, &a, &b, 0.0), 2_f32.powi(-10));
        assert_eq!(Model::of(Format::F16, 9, 0).dot_f32(F16, &a, &b, 0.0), 0.0);
    }

    #[test]
    fn ada_sums_fp8_with_thirteen_bits() {
        let e4m3 = (Format::E4m3, Format::E4m3);
        let one = 0x38;
        let ada = Model::of(Format::E4m3, 8, 9);
        // 1 + 2^-16 in one step: 2^-16 lies below 13 bits.
        assert_eq!(ada.dot_f32(e4m3, &[one, 0x04], &[one, 0x01], 0.0), 1.0);
        assert_eq!(ada.dot_f32(e4m3, &[one, 0x08], &[one, 0x04], 0.0), 1.0 + 2_f32.powi(-13));
        // The accumulator, too, comes out with 13 bits.
        assert_eq!(ada.dot_f32(e4m3, &[one], &[one], 1.0 + f32::EPSILON), 2.0);
        let hopper = Model::of(Format::E4m3, 9, 0);
        assert_eq!(hopper.dot_f32(e4m3, &[one, 0x04], &[one, 0x01], 0.0), 1.0 + 2_f32.powi(-16));
        // On Hopper the accumulator comes last, and is rounded to nearest: 2^24 + 3 is halfway.
        let large = 16_777_216.0;
        assert_eq!(hopper.dot_f32(e4m3, &[one, one, one], &[one; 3], large), large + 4.0);
        assert_eq!(
            Model::of(Format::E4m3, 12, 0).dot_f32(e4m3, &[one; 3], &[one; 3], large),
            large + 2.0
        );
    }

    #[test]
    fn special_values_are_those_of_ieee() {
        let model = Model::of(Format::F16, 9, 0);
        let (infinity, nan) = (0x7C00, 0x7E00);
        let dot = |a: &[u32], b: &[u32], c| model.dot_f32(F16, a, b, c);
        assert_eq!(dot(&[infinity], &[ONE], 0.0), f32::INFINITY);
        assert_eq!(dot(&[infinity], &[ONE | 0x8000], f32::MAX), f32::NEG_INFINITY);
        assert_eq!(dot(&[infinity], &[0], 0.0).to_bits(), NAN);
        assert_eq!(dot(&[infinity, infinity], &[ONE, ONE | 0x8000], 0.0).to_bits(), NAN);
        assert_eq!(dot(&[nan], &[ONE], 0.0).to_bits(), NAN);
        assert_eq!(dot(&[infinity], &[ONE], f32::NEG_INFINITY).to_bits(), NAN);
        let bf16 = (Format::Bf16, Format::Bf16);
        let huge = 0x7F7F; // the largest bf16
        let overflow = Model::of(Format::Bf16, 8, 0).dot_f32(bf16, &[huge], &[huge], 0.0);
        assert_eq!(overflow, f32::INFINITY);
        assert_eq!(model.dot_f16(F16, &[0x7BFF; 4], &[ONE; 4], 0), 0x7C00);
    }

    #[test]
    fn an_f16_accumulator_is_rounded_to_nearest_even() {
        let model = Model::of(Format::F16, 9, 0);
        // 1 + 2^-11 ties to 1, 1 + 3·2^-11 ties to 1 + 2^-9, 1 + 2^-11 + 2^-14 rounds up.
        let dot = |a: &[u32]| model.dot_f16(F16, a, &vec![ONE; a.len()], ONE as u16);
        assert_eq!(dot(&[f16_pow2(-11)]), 0x3C00);
        assert_eq!(dot(&[f16_pow2(-11), f16_pow2(-10)]), 0x3C02);
        assert_eq!(dot(&[f16_pow2(-11), f16_pow2(-14)]), 0x3C01);
        let smallest = [f16_pow2(-24)];
        assert_eq!(model.dot_f16(F16, &smallest, &[ONE], 0), 1, "a subnormal result");
    }

    /// The model once more, in f64 as the papers write it: significands in [1, 2) scaled by powers of two.
    fn by_the_paper(model: Model, format: Format, a: &[u32], b: &[u32], c: f32) -> f32 {
        let split = |value: f64, min: i32| {
            let exponent = (value.abs().log2().floor() as i32).max(min);
            (value / f64::powi(2.0, exponent), exponent)
        };
        let min = if format == Format::F16 { -14 } else { -126 };
        let mut accumulator = c;
        for (a, b) in a.chunks(model.step).zip(b.chunks(model.step)) {
            let mut terms: Vec<(f64, i32)> = Vec::new();
            for (&a, &b) in a.iter().zip(b) {
                let (a, b) = (format.value(a), format.value(b));
                if a * b != 0.0 {
                    let ((sa, ea), (sb, eb)) = (split(a, min), split(b, min));
                    terms.push((sa * sb, ea + eb));
                }
            }
            if accumulator != 0.0 {
                terms.push(split(accumulator.into(), -126));
            }
            let largest =
                terms.iter().map(|term| term.1).max().unwrap_or(0).max(model.min_exponents.0);
            let one = f64::powi(2.0, model.fraction_bits as i32);
            let sum: f64 = terms
                .iter()
                .map(|&(s, e)| (s * one * f64::powi(2.0, e - largest)).trunc() / one)
                .sum();
            let value = sum * f64::powi(2.0, largest);
            let (significand, exponent) = if value == 0.0 { (0.0, 0) } else { split(value, -126) };
            let one = f64::powi(2.0, model.result_bits as i32);
            accumulator = ((significand * one).trunc() / one * f64::powi(2.0, exponent)) as f32;
        }
        accumulator
    }

    #[test]
    fn random_rows_agree_with_the_papers_formula_and_not_with_an_fma_chain() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u32
        };
        let mut differs_from_chain = 0;
        let rounds = 4000;
        for round in 0..rounds {
            let format = if round % 2 == 0 { Format::F16 } else { Format::Bf16 };
            let model = Model::of(format, if round % 4 < 2 { 8 } else { 9 }, 0);
            // Exponents near 0, both signs, all mantissas.
            let mut element = || {
                let bits = random();
                let fraction = format.fraction_bits();
                let bias = if format == Format::F16 { 15 } else { 127 };
                (bits & 0x8000)
                    | (bias - 3 + (bits >> 16) % 7) << fraction
                    | bits & ((1 << fraction) - 1)
            };
            let a: Vec<u32> = (0..16).map(|_| element()).collect();
            let b: Vec<u32> = (0..16).map(|_| element()).collect();
            let c = f32::from_bits(0x3F80_0000 | random() & 0x7F_FFFF | random() & 1 << 31);
            let got = model.dot_f32((format, format), &a, &b, c);
            assert_eq!(
                got.to_bits(),
                by_the_paper(model, format, &a, &b, c).to_bits(),
                "{a:x?} {b:x?}"
            );
            let chain = a.iter().zip(&b).fold(c, |sum, (&a, &b)| {
                (format.value(a) as f32).mul_add(format.value(b) as f32, sum)
            });
            differs_from_chain += u32::from(chain != got);
        }
        assert!(differs_from_chain > rounds / 4, "{differs_from_chain} of {rounds}");
    }
}
