//! Every `cvt` among integers, f16, bf16, f32, f64, tf32 and the formats of 8 bits.

use rustc_apfloat::ieee::{BFloat, Double, Float8E4M3FN, Float8E5M2, Half, Single};
use rustc_apfloat::{Float, FloatConvert, Round};

use crate::draw::Draw;
use crate::oracle::{Format, flush, number, relu, same, saturate};
use crate::run::{Kernel, check};

const ROWS: usize = 1500;

/// A type of `cvt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Int { width: u32, signed: bool },
    Half,
    Brain,
    Single,
    Double,
}

use Type::Int;

const FLOATS: [Type; 4] = [Type::Half, Type::Brain, Type::Single, Type::Double];

fn integers() -> impl Iterator<Item = Type> {
    [8, 16, 32, 64].into_iter().flat_map(|width| [false, true].map(|signed| Int { width, signed }))
}

impl Type {
    fn name(self) -> String {
        match self {
            Int { width, signed } => format!("{}{width}", if signed { "s" } else { "u" }),
            Type::Half => "f16".into(),
            Type::Brain => "bf16".into(),
            Type::Single => "f32".into(),
            Type::Double => "f64".into(),
        }
    }

    fn width(self) -> u32 {
        match self {
            Int { width, .. } => width,
            Type::Half | Type::Brain => 16,
            Type::Single => 32,
            Type::Double => 64,
        }
    }

    /// The register that holds it: 8 bits live in one of 16.
    fn register(self) -> &'static str {
        match self.width() {
            8 | 16 => "b16",
            32 => "b32",
            _ => "b64",
        }
    }

    fn draw(self, draw: &mut Draw) -> u64 {
        match self {
            Int { width, .. } => draw.integer(width),
            Type::Half => draw.float(Half::EXPONENT, Half::FRACTION),
            Type::Brain => draw.float(BFloat::EXPONENT, BFloat::FRACTION),
            Type::Single => draw.float(Single::EXPONENT, Single::FRACTION),
            Type::Double => draw.float(Double::EXPONENT, Double::FRACTION),
        }
    }

    fn integer(self, bits: u64) -> i128 {
        let Int { width, signed } = self else { unreachable!("{self:?} is no integer") };
        let low = bits & (u64::MAX >> (64 - width));
        if signed && low >> (width - 1) != 0 { i128::from(low) - (1 << width) } else { low.into() }
    }

    fn limits(self) -> (i128, i128) {
        match self {
            Int { width, signed: true } => (-(1 << (width - 1)), (1 << (width - 1)) - 1),
            Int { width, .. } => (0, (1 << width) - 1),
            _ => unreachable!("{self:?} has no limits"),
        }
    }

    /// The number as a double, which holds every narrower one exactly.
    fn double(self, bits: u64) -> Double {
        fn widen<T: Format + FloatConvert<Double>>(bits: u64) -> Double {
            number::<T>(bits).convert(&mut false).value
        }
        match self {
            Type::Half => widen::<Half>(bits & 0xffff),
            Type::Brain => widen::<BFloat>(bits & 0xffff),
            Type::Single => widen::<Single>(bits),
            Type::Double => number(bits),
            Int { .. } => unreachable!("{self:?} is no float"),
        }
    }

    /// A double rounded to the type.
    fn round(self, x: Double, round: Round) -> u64 {
        fn narrow<T: Format>(x: Double, round: Round) -> u64
        where
            Double: FloatConvert<T>,
        {
            let result: T = x.convert_r(round, &mut false).value;
            result.to_bits() as u64
        }
        match self {
            Type::Half => narrow::<Half>(x, round),
            Type::Brain => narrow::<BFloat>(x, round),
            Type::Single => narrow::<Single>(x, round),
            Type::Double => x.to_bits() as u64,
            Int { .. } => unreachable!("{self:?} is no float"),
        }
    }

    /// An integer rounded to the type.
    fn round_integer(self, x: i128, round: Round) -> u64 {
        fn to<T: Format>(x: i128, round: Round) -> u64 {
            T::from_i128_r(x, round).value.to_bits() as u64
        }
        match self {
            Type::Half => to::<Half>(x, round),
            Type::Brain => to::<BFloat>(x, round),
            Type::Single => to::<Single>(x, round),
            Type::Double => to::<Double>(x, round),
            Int { .. } => unreachable!("{self:?} is no float"),
        }
    }

    /// Applies a function of the type's own numbers to bits.
    fn map(self, bits: u64, sat: bool, ftz: bool) -> u64 {
        fn both<T: Format>(bits: u64, sat: bool, ftz: bool) -> u64 {
            let x = number::<T>(bits);
            let x = if ftz && T::NAME == "f32" { flush(x) } else { x };
            (if sat { saturate(x) } else { x }).to_bits() as u64
        }
        match self {
            Type::Half => both::<Half>(bits, sat, ftz),
            Type::Brain => both::<BFloat>(bits, sat, ftz),
            Type::Single => both::<Single>(bits, sat, ftz),
            Type::Double => both::<Double>(bits, sat, ftz),
            Int { .. } => unreachable!("{self:?} is no float"),
        }
    }

    fn same(self, got: u64, want: u64) -> bool {
        match self {
            Int { .. } => got == want,
            Type::Half => same::<Half>(got, want),
            Type::Brain => same::<BFloat>(got, want),
            Type::Single => same::<Single>(got, want),
            Type::Double => same::<Double>(got, want),
        }
    }
}

const TO_FLOAT: [(&str, Round); 4] = [
    (".rn", Round::NearestTiesToEven),
    (".rz", Round::TowardZero),
    (".rm", Round::TowardNegative),
    (".rp", Round::TowardPositive),
];

const TO_INTEGER: [(&str, Round); 4] = [
    (".rni", Round::NearestTiesToEven),
    (".rzi", Round::TowardZero),
    (".rmi", Round::TowardNegative),
    (".rpi", Round::TowardPositive),
];

const NONE: [(&str, Round); 1] = [("", Round::NearestTiesToEven)];

/// All numbers of 8 and 16 bits, others drawn.
fn rows(ty: Type) -> Vec<[u64; 3]> {
    match ty.width() {
        width @ (8 | 16) => {
            (0..1 << width).step_by(if width == 16 { 7 } else { 1 }).map(|x| [x, 0, 0]).collect()
        }
        _ => {
            let mut draw = Draw::new(61);
            (0..ROWS).map(|_| [ty.draw(&mut draw), 0, 0]).collect()
        }
    }
}

/// `width` bits in a register: extended by the sign if the type is signed.
fn in_register(value: u64, ty: Type, register: u32) -> u64 {
    let Int { width, signed } = ty else { return value };
    let spare = 64 - width;
    let extended =
        if signed { ((value << spare) as i64 >> spare) as u64 } else { value << spare >> spare };
    extended & (u64::MAX >> (64 - register))
}

fn one(from: Type, to: Type, modifiers: &str, expected: impl Fn(u64) -> u64) {
    let brain = from == Type::Brain || to == Type::Brain;
    let target = if brain { "sm_90" } else { "sm_80" };
    let text = format!("cvt{modifiers}.{}.{} %d, %a;", to.name(), from.name());
    let kernel =
        Kernel { text: &text, result: to.register(), operands: &[from.register()], target };
    let register = to.register()[1..].parse().unwrap();
    let rows = rows(from);
    check(
        &kernel,
        &rows,
        |row| in_register(expected(row[0]), to, register),
        |got, want| to.same(got, want),
    );
    // A wider register for integers, as nvcc and hand-written kernels use them; ptxas 13.0 has none for bf16.
    if let Int { width: ..32, .. } = to
        && from != Type::Brain
    {
        let kernel = Kernel { result: "b32", ..kernel };
        check(&kernel, &rows, |row| in_register(expected(row[0]), to, 32), |got, want| got == want);
    }
}

#[test]
fn integers_to_integers() {
    for from in integers() {
        for to in integers() {
            one(from, to, "", |bits| from.integer(bits) as u64);
            let ((min, max), (least, most)) = (to.limits(), from.limits());
            // `.sat` is for types that do not hold every value of the source.
            if least < min || most > max {
                one(from, to, ".sat", |bits| from.integer(bits).clamp(min, max) as u64);
            }
        }
    }
}

/// There is no conversion between bf16 and 8 bits, and none of bf16 saturates.
fn missing(from: Type, to: Type) -> bool {
    [from, to].contains(&Type::Brain) && from.width().min(to.width()) == 8
}

#[test]
fn integers_to_floats() {
    for from in integers() {
        for to in FLOATS.into_iter().filter(|&to| !missing(from, to)) {
            for (modifier, round) in TO_FLOAT {
                one(from, to, modifier, |bits| to.round_integer(from.integer(bits), round));
                if to != Type::Brain {
                    let clamped =
                        |bits| to.map(to.round_integer(from.integer(bits), round), true, false);
                    one(from, to, &format!("{modifier}.sat"), clamped);
                }
            }
        }
    }
}

/// Clamped to the type; NaN is 0, or the upper bit alone from f64 or to 64 bits.
#[test]
fn floats_to_integers() {
    for from in FLOATS {
        for to in integers().filter(|&to| !missing(from, to)) {
            let Int { width, .. } = to else { continue };
            let (min, max) = to.limits();
            for (modifier, round) in TO_INTEGER {
                let convert = |x: Double| -> u64 {
                    if x.is_nan() {
                        return if from == Type::Double || width == 64 {
                            1 << (width - 1)
                        } else {
                            0
                        };
                    }
                    let wide = x.to_i128_r(128, round, &mut false).value;
                    wide.clamp(min, max) as u64
                };
                one(from, to, modifier, |bits| convert(from.double(bits)));
                if from != Type::Brain {
                    one(from, to, &format!("{modifier}.sat"), |bits| convert(from.double(bits)));
                }
                if from == Type::Single {
                    one(from, to, &format!("{modifier}.ftz"), |bits| {
                        convert(from.double(from.map(bits, false, true)))
                    });
                }
            }
        }
    }
}

#[test]
fn floats_to_floats() {
    for from in FLOATS {
        for to in FLOATS {
            let exact = from.width() < to.width();
            let roundings = if exact { &NONE[..] } else { &TO_FLOAT[..] };
            if from == to {
                // A float to its own type, kept or rounded to an integral value.
                for (modifier, round) in NONE.into_iter().chain(TO_INTEGER) {
                    let integral = |bits: u64| {
                        let x = from.double(bits);
                        let x =
                            if modifier.is_empty() { x } else { x.round_to_integral(round).value };
                        from.round(x, Round::TowardZero)
                    };
                    one(from, to, modifier, integral);
                    if from == Type::Single {
                        let flushed =
                            |bits| from.map(integral(from.map(bits, false, true)), false, true);
                        one(from, to, &format!("{modifier}.ftz"), flushed);
                    }
                    if from != Type::Brain {
                        one(from, to, &format!("{modifier}.sat"), |bits| {
                            from.map(integral(bits), true, false)
                        });
                    }
                }
                continue;
            }
            for (modifier, round) in roundings {
                let convert = |bits: u64| to.round(from.double(bits), *round);
                one(from, to, modifier, convert);
                if from == Type::Single || to == Type::Single {
                    // An H100 does not flush what becomes f16: rounded up or down, it is the smallest number.
                    let flushes = from == Type::Single && to != Type::Half;
                    let input = |bits| if flushes { from.map(bits, false, true) } else { bits };
                    one(from, to, &format!("{modifier}.ftz"), |bits| {
                        to.map(convert(input(bits)), false, true)
                    });
                }
                if ![from, to].contains(&Type::Brain) {
                    one(from, to, &format!("{modifier}.sat"), |bits| {
                        to.map(convert(bits), true, false)
                    });
                }
            }
        }
    }
}

/// The result beyond the largest number, negative, or none, as `.satfinite` and `.relu` want it.
fn finish<T: Float + Copy>(x: Single, result: T, finite: bool, clamp: bool, nan: u64) -> u64 {
    match () {
        _ if x.is_nan() => nan,
        _ if clamp && x.is_negative() => 0,
        _ if finite && !result.is_finite() => T::largest().copy_sign(result).to_bits() as u64,
        _ => result.to_bits() as u64,
    }
}

fn singles() -> Vec<[u64; 3]> {
    let mut draw = Draw::new(62);
    let mut rows = draw.rows(6000, |d| d.float(8, 23));
    // Around the largest numbers and the steps of the narrow formats.
    for (row, top) in rows.iter_mut().step_by(5).zip(
        [65504f32, 65520.0, 448.0, 464.0, 57344.0, 61440.0, f32::MAX, 3.3895e38]
            .into_iter()
            .cycle(),
    ) {
        row[0] = u64::from(top.to_bits() ^ (row[0] as u32 & 0x8000_0000))
            .wrapping_add(draw.below(5))
            .wrapping_sub(2);
    }
    rows
}

/// f32 to f16 and bf16 with `.relu` and `.satfinite`, in either order, one and two at a time.
#[test]
fn to_sixteen_bits() {
    fn narrow<T: Format>()
    where
        Single: FloatConvert<T>,
    {
        let ty = T::NAME;
        for (modifier, round) in [(".rn", Round::NearestTiesToEven), (".rz", Round::TowardZero)] {
            for flags in ["", ".relu", ".satfinite", ".relu.satfinite", ".satfinite.relu"] {
                let (finite, clamp) = (flags.contains("satfinite"), flags.contains("relu"));
                let convert = |bits: u64| {
                    let x: Single = number(bits);
                    let result: T = x.convert_r(round, &mut false).value;
                    finish(x, result, finite, clamp, 0x7fff)
                };
                let text = format!("cvt{modifier}{flags}.{ty}.f32 %d, %a;");
                let kernel =
                    Kernel { text: &text, result: "b16", operands: &["b32"], target: "sm_80" };
                check(&kernel, &singles(), |row| convert(row[0]), |got, want| got == want);
                let text = format!("cvt{modifier}{flags}.{ty}x2.f32 %d, %a, %b;");
                let kernel =
                    Kernel { text: &text, result: "b32", operands: &["b32"; 2], target: "sm_80" };
                let both = |row: &[u64; 3]| convert(row[0]) << 16 | convert(row[1]);
                check(&kernel, &singles(), both, |got, want| got == want);
            }
        }
    }
    narrow::<Half>();
    narrow::<BFloat>();
}

/// tf32 is f32 rounded to 10 bits of fraction: a multiple of its last place, the nearest one on the right side.
#[test]
fn to_tensor_floats() {
    let cases = [
        (".rna", "", "sm_80"),
        (".rna", ".satfinite", "sm_80"),
        (".rn", "", "sm_90"),
        (".rn", ".relu", "sm_90"),
        (".rz", "", "sm_90"),
        (".rz", ".relu", "sm_90"),
        (".rn", ".satfinite", "sm_100"),
    ];
    for (rounding, flags, target) in cases {
        let convert = |bits: u64| -> u64 {
            let x = f32::from_bits(bits as u32);
            if x.is_nan() {
                // So on an H100, where `.rna` is put together from operations on integers.
                return match (rounding, flags) {
                    (".rna", "") => bits & 0xffff_e000,
                    (".rna", _) => (bits & 0xffff_e000) - 0x2000,
                    _ => 0x7fff_e000,
                };
            }
            if flags == ".relu" && x.is_sign_negative() {
                return 0;
            }
            if x.is_infinite() {
                return if flags == ".satfinite" { (bits & 1 << 31) | 0x7f7f_e000 } else { bits };
            }
            // The step between tf32 numbers of this exponent, and of all subnormals.
            let exponent = (x.to_bits() >> 23 & 0xff).max(1) as i32 - 127;
            let step = 2f64.powi(exponent - 10);
            let steps = f64::from(x).abs() / step;
            let steps = match rounding {
                ".rna" => (steps + 0.5).floor(),
                ".rn" => steps.round_ties_even(),
                _ => steps.floor(),
            };
            let result = (steps * step) as f32;
            let result = if result.is_infinite() && flags == ".satfinite" {
                f32::from_bits(0x7f7f_e000)
            } else {
                result
            };
            u64::from(result.copysign(x).to_bits())
        };
        let text = format!("cvt{rounding}{flags}.tf32.f32 %d, %a;");
        let kernel = Kernel { text: &text, result: "b32", operands: &["b32"], target };
        check(&kernel, &singles(), |row| convert(row[0]), |got, want| got == want);
    }
}

#[test]
fn to_eight_bits() {
    fn narrow<T: Float + Copy>(ty: &str)
    where
        Single: FloatConvert<T>,
        Half: FloatConvert<Single>,
    {
        for flags in [".satfinite", ".satfinite.relu", ".relu.satfinite"] {
            let clamp = flags.contains("relu");
            let convert = |x: Single| {
                let result: T = x.convert(&mut false).value;
                // Beyond the largest number there is none in e4m3: LLVM gives NaN.
                let over = if x.is_nan() {
                    result
                } else if !result.is_finite() {
                    T::largest().copy_sign(T::ZERO)
                } else {
                    result
                };
                let over = if x.is_negative() && !over.is_negative() { -over } else { over };
                finish(x, over, true, clamp, 0x7f)
            };
            let text = format!("cvt.rn{flags}.{ty}.f32 %d, %a, %b;");
            let kernel =
                Kernel { text: &text, result: "b16", operands: &["b32"; 2], target: "sm_90" };
            let both = |row: &[u64; 3]| convert(number(row[0])) << 8 | convert(number(row[1]));
            check(&kernel, &singles(), both, |got, want| got == want);
            // Every half.
            let rows: Vec<[u64; 3]> =
                (0..0x1_0000).map(|x| [x << 16 | (x ^ 0x5555), 0, 0]).collect();
            let half = |bits: u64| convert(number::<Half>(bits & 0xffff).convert(&mut false).value);
            let text = format!("cvt.rn{flags}.{ty}.f16x2 %d, %a;");
            let kernel = Kernel { text: &text, result: "b16", operands: &["b32"], target: "sm_90" };
            check(
                &kernel,
                &rows,
                |row| half(row[0] >> 16) << 8 | half(row[0]),
                |got, want| got == want,
            );
        }
    }
    narrow::<Float8E4M3FN>("e4m3x2");
    narrow::<Float8E5M2>("e5m2x2");
}

/// All codes of 8 bits.
#[test]
fn from_eight_bits() {
    fn widen<T: Float + FloatConvert<Half>>(ty: &str) {
        let rows: Vec<[u64; 3]> = (0..0x1_0000).map(|x| [x, 0, 0]).collect();
        for flag in ["", ".relu"] {
            let convert = |code: u64| {
                let x: Half = T::from_bits((code & 0xff).into()).convert(&mut false).value;
                let x = if flag.is_empty() { x } else { relu(x) };
                if x.is_nan() { 0x7fff } else { x.to_bits() as u64 }
            };
            let text = format!("cvt.rn{flag}.f16x2.{ty} %d, %a;");
            let kernel = Kernel { text: &text, result: "b32", operands: &["b16"], target: "sm_90" };
            check(
                &kernel,
                &rows,
                |row| convert(row[0] >> 8) << 16 | convert(row[0]),
                |got, want| got == want,
            );
        }
    }
    widen::<Float8E4M3FN>("e4m3x2");
    widen::<Float8E5M2>("e5m2x2");
}
