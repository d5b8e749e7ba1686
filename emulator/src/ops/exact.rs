//! Exact arithmetic on f64, rounded once at the end in any direction.
//!
//! A number is taken apart into sign, exponent and an integer mantissa; the operations are exact on
//! integers of 128 bits, or keep in the last bit whether anything was lost ("sticky"). This serves
//! the forms for which the processor has no instruction.

use super::number::Rounding;

/// Bits of the fraction of an f64.
const FRACTION_BITS: u32 = 52;
const SIGN: u64 = 1 << 63;
const INFINITY: u64 = f64::INFINITY.to_bits();
/// The exponent of the last place of subnormal numbers.
const LAST_PLACE: i32 = f64::MIN_EXP - f64::MANTISSA_DIGITS as i32;

/// A number: `mantissa · 2^exponent`, or what is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    negative: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nan,
    Infinite,
    /// A mantissa of 0 is zero. Bit 0 may stand for everything below it.
    Finite {
        exponent: i32,
        mantissa: u128,
    },
}

use Kind::{Finite, Infinite, Nan};

/// Where operations put the leading bit of a mantissa: low enough that a sum of two does not overflow.
const TOP: u32 = 125;

/// `value >> by`, with bit 0 set if a bit was lost.
fn shift_right(value: u128, by: u32) -> u128 {
    match by {
        0 => value,
        1..128 => value >> by | u128::from(value << (128 - by) != 0),
        _ => u128::from(value != 0),
    }
}

impl Number {
    const NAN: Number = Number { negative: false, kind: Nan };

    fn finite(negative: bool, exponent: i32, mantissa: u128) -> Number {
        Number { negative, kind: Finite { exponent, mantissa } }
    }

    /// An integer.
    pub(crate) fn of_integer(value: i128) -> Number {
        Number::finite(value < 0, 0, value.unsigned_abs())
    }

    /// The number that the bits of an f64 stand for.
    pub(crate) fn of_bits(bits: u64) -> Number {
        let negative = bits & SIGN != 0;
        let magnitude = bits & !SIGN;
        if magnitude >= INFINITY {
            return Number { negative, kind: if magnitude == INFINITY { Infinite } else { Nan } };
        }
        let biased = (magnitude >> FRACTION_BITS) as i32;
        let fraction = magnitude & ((1 << FRACTION_BITS) - 1);
        let mantissa = if biased > 0 { fraction | 1 << FRACTION_BITS } else { fraction };
        Number::finite(negative, LAST_PLACE + biased.max(1) - 1, mantissa.into())
    }

    /// The bits of the f64 that the number rounds to.
    pub(crate) fn to_bits(self, rounding: Rounding) -> u64 {
        let magnitude = match self.kind {
            Nan => f64::NAN.to_bits(),
            Infinite => INFINITY,
            Finite { exponent, mantissa } => {
                let bits = round(self.negative, exponent, mantissa, rounding);
                let away = match rounding {
                    Rounding::NearestEven | Rounding::NearestAway => true,
                    Rounding::Zero => false,
                    Rounding::Down => self.negative,
                    Rounding::Up => !self.negative,
                };
                // What is too large becomes infinite, or the largest number.
                bits.min(if away { INFINITY } else { INFINITY - 1 })
            }
        };
        magnitude | if self.negative { SIGN } else { 0 }
    }

    pub(crate) fn is_nan(self) -> bool {
        self.kind == Nan
    }

    pub(crate) fn negate(self) -> Number {
        Number { negative: !self.negative, ..self }
    }

    /// The mantissa moved so that its leading bit is bit [`TOP`].
    fn normal(exponent: i32, mantissa: u128) -> (i32, u128) {
        let by = mantissa.leading_zeros() as i32 - (127 - TOP as i32);
        if by >= 0 {
            (exponent - by, mantissa << by)
        } else {
            (exponent - by, shift_right(mantissa, by.unsigned_abs()))
        }
    }

    /// The sum. `rounding` decides the sign of a zero that is left of numbers with opposite signs.
    pub(crate) fn add(self, other: Number, rounding: Rounding) -> Number {
        let (a, b) = match (self.kind, other.kind) {
            (Nan, _) | (_, Nan) => return Number::NAN,
            (Infinite, Infinite) if self.negative != other.negative => return Number::NAN,
            (Infinite, _) => return self,
            (_, Infinite) => return other,
            (Finite { exponent: e, mantissa: m }, Finite { exponent: f, mantissa: n }) => {
                ((e, m), (f, n))
            }
        };
        if a.1 == 0 && b.1 == 0 {
            let negative = if self.negative == other.negative {
                self.negative
            } else {
                rounding == Rounding::Down
            };
            return Number::finite(negative, 0, 0);
        }
        if a.1 == 0 || b.1 == 0 {
            return if a.1 == 0 { other } else { self };
        }
        let (a, b) = (Number::normal(a.0, a.1), Number::normal(b.0, b.1));
        // The smaller one is shifted; what it loses lies far below any rounding position, because
        // numbers of nearly equal size lose nothing: mantissas have at most 106 bits of the 126.
        let exponent = a.0.max(b.0);
        let x = shift_right(a.1, exponent.abs_diff(a.0)) as i128;
        let y = shift_right(b.1, exponent.abs_diff(b.0)) as i128;
        let signed = |value: i128, negative| if negative { -value } else { value };
        let sum = signed(x, self.negative) + signed(y, other.negative);
        let negative = if sum == 0 { rounding == Rounding::Down } else { sum < 0 };
        Number::finite(negative, exponent, sum.unsigned_abs())
    }

    /// The product; exact for mantissas of up to 64 bits.
    pub(crate) fn mul(self, other: Number) -> Number {
        let negative = self.negative != other.negative;
        match (self.kind, other.kind) {
            (Nan, _) | (_, Nan) => Number::NAN,
            (Infinite, Finite { mantissa: 0, .. }) | (Finite { mantissa: 0, .. }, Infinite) => {
                Number::NAN
            }
            (Infinite, _) | (_, Infinite) => Number { negative, kind: Infinite },
            (Finite { exponent: e, mantissa: m }, Finite { exponent: f, mantissa: n }) => {
                Number::finite(negative, e + f, m * n)
            }
        }
    }

    /// The quotient, for mantissas of up to 53 bits.
    pub(crate) fn div(self, other: Number) -> Number {
        let negative = self.negative != other.negative;
        match (self.kind, other.kind) {
            (Nan, _) | (_, Nan) | (Infinite, Infinite) => Number::NAN,
            (Finite { mantissa: 0, .. }, Finite { mantissa: 0, .. }) => Number::NAN,
            (Infinite, _) | (_, Finite { mantissa: 0, .. }) => Number { negative, kind: Infinite },
            (_, Infinite) => Number::finite(negative, 0, 0),
            (Finite { exponent: e, mantissa: m }, Finite { exponent: f, mantissa: n }) => {
                let by = m.leading_zeros();
                let dividend = if m == 0 { 0 } else { m << by };
                let rest = u128::from(dividend % n != 0);
                Number::finite(negative, e - by as i32 - f, (dividend / n) | rest)
            }
        }
    }

    /// The square root, for mantissas of up to 53 bits.
    pub(crate) fn sqrt(self) -> Number {
        match self.kind {
            Nan => Number::NAN,
            Finite { mantissa: 0, .. } => self,
            _ if self.negative => Number::NAN,
            Infinite => self,
            Finite { exponent, mantissa } => {
                // An even exponent, so that it can be halved.
                let by = mantissa.leading_zeros() - 1;
                let by = by - (exponent - by as i32).rem_euclid(2) as u32;
                let square = mantissa << by;
                let root = square.isqrt();
                let rest = u128::from(root * root != square);
                Number::finite(false, (exponent - by as i32) / 2 - 1, root << 1 | rest)
            }
        }
    }
}

/// `mantissa / 2^by` as an integer.
fn round_off(negative: bool, mantissa: u128, by: u32, rounding: Rounding) -> u128 {
    // Everything beyond 127 bits is sticky.
    let (mantissa, by) =
        if by > 127 { (shift_right(mantissa, by - 127), 127) } else { (mantissa, by) };
    if by == 0 {
        return mantissa;
    }
    let kept = mantissa >> by;
    let lost = mantissa & ((1 << by) - 1);
    let half = 1 << (by - 1);
    let up = match rounding {
        Rounding::NearestEven => lost > half || (lost == half && kept & 1 != 0),
        Rounding::NearestAway => lost >= half,
        Rounding::Zero => false,
        Rounding::Down => negative && lost != 0,
        Rounding::Up => !negative && lost != 0,
    };
    kept + u128::from(up)
}

/// The bits of a magnitude; those of infinity or more if it is too large.
fn round(negative: bool, exponent: i32, mantissa: u128, rounding: Rounding) -> u64 {
    if mantissa == 0 {
        return 0;
    }
    let leading = exponent + 127 - mantissa.leading_zeros() as i32;
    let place = (leading - FRACTION_BITS as i32).max(LAST_PLACE);
    if place - LAST_PLACE > 2 * f64::MAX_EXP {
        return u64::MAX;
    }
    let kept = match place - exponent {
        by @ 1.. => round_off(negative, mantissa, by.unsigned_abs(), rounding),
        by => mantissa << by.unsigned_abs(),
    };
    // The leading bit of a normal number adds one to the exponent below it.
    (u64::from((place - LAST_PLACE).unsigned_abs()) << FRACTION_BITS) + kept as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: [Rounding; 5] = [
        Rounding::NearestEven,
        Rounding::Zero,
        Rounding::Down,
        Rounding::Up,
        Rounding::NearestAway,
    ];

    #[test]
    fn bits_survive_the_way_there_and_back() {
        let values = [0.0, 1.0, f64::MIN_POSITIVE, 5e-324, 1.5e-310, f64::MAX, f64::INFINITY, 0.1];
        for bits in values.into_iter().flat_map(|x: f64| [x.to_bits(), (-x).to_bits()]) {
            for rounding in EVERY {
                assert_eq!(Number::of_bits(bits).to_bits(rounding), bits, "{rounding:?}");
            }
        }
    }

    #[test]
    fn integers_round_in_every_direction() {
        // One unit in the last place of 2^53 is 2: a tie.
        let value = |x: i128, rounding| f64::from_bits(Number::of_integer(x).to_bits(rounding));
        let odd = (1 << 53) + 1;
        let got = EVERY.map(|rounding| value(odd, rounding) as i128 - odd);
        assert_eq!(got, [-1, -1, -1, 1, 1]);
        let got = EVERY.map(|rounding| value(-odd, rounding) as i128 + odd);
        assert_eq!(got, [1, 1, -1, 1, -1]);
    }
}
