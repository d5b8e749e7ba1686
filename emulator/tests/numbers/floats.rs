//! f32 and f64: every operation that IEEE 754 defines, in every direction of rounding.

use rustc_apfloat::ieee::{BFloat, Double, Half, Quad, Single};
use rustc_apfloat::{Float, FloatConvert, Round};

use crate::draw::Draw;
use crate::oracle::{Format, ROUNDINGS, flush, number, same, saturate};
use crate::run::{Kernel, check};

const ROWS: usize = 3000;

/// Numbers at the edges, and for every third row operands whose sum cancels.
fn rows<T: Format>(seed: u64) -> Vec<[u64; 3]> {
    let mut draw = Draw::new(seed);
    let mut rows = draw.rows(ROWS, |d| d.float(T::EXPONENT, T::FRACTION));
    let sign = 1 << (T::EXPONENT + T::FRACTION);
    for (index, row) in rows.iter_mut().enumerate().filter(|(i, _)| i % 3 == 0) {
        let product: T = (number::<T>(row[0]) * number::<T>(row[1])).value;
        let near = (product.to_bits() as u64).wrapping_add(draw.below(3)).wrapping_sub(1);
        row[2] = near ^ sign;
        if index % 2 == 0 {
            row[1] = row[0].wrapping_add(draw.below(3)).wrapping_sub(1) ^ sign;
        }
    }
    rows
}

/// The NaN that an operation on f64 passes on: of two or three operands that are NaN, an H100 takes that of the
/// second, else of the third; of a quotient it takes that of the first.
fn passed_on(name: &str, row: &[u64]) -> Option<u64> {
    let order: &[usize] = match (name, row.len()) {
        (_, 1) => &[0],
        ("div", _) => &[0, 1],
        (_, 2) => &[1, 0],
        _ => &[1, 2, 0],
    };
    let nan = order.iter().map(|&i| row[i]).find(|&x| number::<Double>(x).is_nan());
    nan.map(|x| x | 1 << 51)
}

/// One operation under every combination of modifiers; `required` is whether rounding has to be named.
fn sweep<T: Format>(
    name: &str,
    operands: usize,
    required: bool,
    exact: impl Fn(T, T, T, Round) -> T,
) {
    let single = T::NAME == "f32";
    let flags: &[(&str, bool, bool)] = if single {
        &[
            ("", false, false),
            (".ftz", true, false),
            (".sat", false, true),
            (".ftz.sat", true, true),
        ]
    } else {
        &[("", false, false)]
    };
    let clamps = matches!(name, "add" | "sub" | "mul" | "fma");
    let registers = ["%a", "%b", "%c"][..operands].join(", ");
    for (seed, (rounding, round)) in ROUNDINGS.into_iter().enumerate() {
        if required && rounding.is_empty() {
            continue;
        }
        for &(flag, ftz, sat) in flags.iter().filter(|f| clamps || !f.2) {
            let text = format!("{name}{rounding}{flag}.{} %d, {registers};", T::NAME);
            let types = [T::REGISTER; 3];
            let kernel = Kernel {
                text: &text,
                result: T::REGISTER,
                operands: &types[..operands],
                target: "sm_80",
            };
            let expected = |row: &[u64; 3]| {
                let [a, b, c] =
                    row.map(|bits| if ftz { flush(number::<T>(bits)) } else { number::<T>(bits) });
                let result = exact(a, b, c, round);
                let result = if ftz { flush(result) } else { result };
                let result = if sat { saturate(result) } else { result };
                match (result.is_nan(), single) {
                    (true, true) => 0x7fff_ffff,
                    (true, false) => passed_on(name, &row[..operands]).unwrap_or(0xfff8 << 48),
                    _ => result.to_bits() as u64,
                }
            };
            check(&kernel, &rows::<T>(seed as u64 + 1), expected, |got, want| got == want);
        }
    }
}

#[test]
fn sums() {
    sweep::<Single>("add", 2, false, |a, b, _, r| a.add_r(b, r).value);
    sweep::<Single>("sub", 2, false, |a, b, _, r| a.sub_r(b, r).value);
    sweep::<Double>("add", 2, false, |a, b, _, r| a.add_r(b, r).value);
    sweep::<Double>("sub", 2, false, |a, b, _, r| a.sub_r(b, r).value);
}

#[test]
fn products_and_quotients() {
    sweep::<Single>("mul", 2, false, |a, b, _, r| a.mul_r(b, r).value);
    sweep::<Single>("div", 2, true, |a, b, _, r| a.div_r(b, r).value);
    sweep::<Double>("mul", 2, false, |a, b, _, r| a.mul_r(b, r).value);
    sweep::<Double>("div", 2, true, |a, b, _, r| a.div_r(b, r).value);
    sweep::<Single>("rcp", 1, true, |a, _, _, r| Single::from_u128(1).value.div_r(a, r).value);
    sweep::<Double>("rcp", 1, true, |a, _, _, r| Double::from_u128(1).value.div_r(a, r).value);
}

#[test]
fn fused_products() {
    sweep::<Single>("fma", 3, true, |a, b, c, r| a.mul_add_r(b, c, r).value);
    sweep::<Double>("fma", 3, true, |a, b, c, r| a.mul_add_r(b, c, r).value);
    sweep::<Single>("mad", 3, true, |a, b, c, r| a.mul_add_r(b, c, r).value);
    sweep::<Double>("mad", 3, true, |a, b, c, r| a.mul_add_r(b, c, r).value);
}

/// The root by its definition: the number next to it in the direction of rounding, whose square in
/// quadruple precision (exact for 53 bits) lies on the right side of the operand.
fn is_root<T>(x: T, got: T, round: Round) -> bool
where
    T: Format + FloatConvert<Quad>,
{
    if x.is_zero() || x == T::INFINITY {
        return got.bitwise_eq(x);
    }
    if x.is_nan() || x.is_negative() {
        return got.is_nan();
    }
    let quad = |y: T| -> Quad { y.convert(&mut false).value };
    let zero = Round::TowardZero;
    let square_minus_x = |y: Quad| y.mul_add_r(y, -quad(x), zero).value;
    let half = Quad::from_u128(1).value.scalbn_r(-1, zero);
    let (low, high) = (quad(got.next_down().value), quad(got.next_up().value));
    let middle = |a: Quad, b: Quad| ((a + b).value * half).value;
    let here = square_minus_x(quad(got));
    let nearest = square_minus_x(middle(low, quad(got))).is_negative()
        && !square_minus_x(middle(quad(got), high)).is_negative();
    let below = here.is_zero() || here.is_negative();
    match round {
        Round::TowardPositive => (here.is_zero() || !below) && square_minus_x(low).is_negative(),
        Round::TowardNegative | Round::TowardZero => {
            below && !square_minus_x(high).is_negative() && !square_minus_x(high).is_zero()
        }
        _ => nearest,
    }
}

fn roots<T: Format + FloatConvert<Quad>>() {
    for (modifier, round) in &ROUNDINGS[1..] {
        let text = format!("sqrt{modifier}.{} %d, %a;", T::NAME);
        let kernel =
            Kernel { text: &text, result: T::REGISTER, operands: &[T::REGISTER], target: "sm_80" };
        let rows = rows::<T>(7);
        for (row, got) in rows.iter().zip(crate::run::run(&kernel, &rows)) {
            let (x, y) = (number::<T>(row[0]), number::<T>(got));
            assert!(is_root(x, y, *round), "{text} of {x} is {y}");
        }
    }
}

#[test]
fn square_roots() {
    roots::<Single>();
    roots::<Double>();
}

/// Minimum or maximum as the ISA's semantics sections define them.
pub fn extreme<T: Format>(max: bool, nan: bool, xor: bool, operands: &[T]) -> T {
    let sign = operands.iter().fold(false, |sign, x| sign ^ x.is_negative());
    let mut best = T::NAN;
    for &x in operands {
        let x = if xor { x.abs() } else { x };
        // Of zeros the positive one is the larger.
        let below = x < best || (x == best && x.is_negative() && !best.is_negative());
        let above = x > best || (x == best && !x.is_negative() && best.is_negative());
        if best.is_nan() || (if max { above } else { below }) {
            best = x;
        }
    }
    if nan && operands.iter().any(|x| x.is_nan()) {
        return T::NAN;
    }
    if xor && !best.is_nan() && sign != best.is_negative() { -best } else { best }
}

#[test]
fn extremes() {
    for (max, name) in [(false, "min"), (true, "max")] {
        for flags in 0..8u32 {
            let (ftz, nan, xor) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            let modifiers = [(ftz, ".ftz"), (nan, ".NaN"), (xor, ".xorsign.abs")];
            let modifiers: String = modifiers.iter().filter(|m| m.0).map(|m| m.1).collect();
            let text = format!("{name}{modifiers}.f32 %d, %a, %b;");
            let kernel =
                Kernel { text: &text, result: "b32", operands: &["b32"; 2], target: "sm_90" };
            let expected = |row: &[u64; 3]| {
                let get = |bits| if ftz { flush(number::<Single>(bits)) } else { number(bits) };
                extreme(max, nan, xor, &[get(row[0]), get(row[1])]).to_bits() as u64
            };
            check(&kernel, &rows::<Single>(flags.into()), expected, same::<Single>);
        }
        let text = format!("{name}.f64 %d, %a, %b;");
        let kernel = Kernel { text: &text, result: "b64", operands: &["b64"; 2], target: "sm_80" };
        let expected = |row: &[u64; 3]| {
            let result = extreme(max, false, false, &[number::<Double>(row[0]), number(row[1])]);
            // Of two NaN the second one, on an H100.
            if result.is_nan() { row[1] | 1 << 51 } else { result.to_bits() as u64 }
        };
        check(&kernel, &rows::<Double>(3), expected, |got, want| got == want);
    }
}

#[test]
fn extremes_of_three() {
    for (max, name) in [(false, "min"), (true, "max")] {
        for flags in 0..8u32 {
            let (ftz, nan, abs) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
            let modifiers = [(ftz, ".ftz"), (nan, ".NaN"), (abs, ".abs")];
            let modifiers: String = modifiers.iter().filter(|m| m.0).map(|m| m.1).collect();
            let text = format!("{name}{modifiers}.f32 %d, %a, %b, %c;");
            let kernel =
                Kernel { text: &text, result: "b32", operands: &["b32"; 3], target: "sm_100" };
            let expected = |row: &[u64; 3]| {
                let get = |bits| if ftz { flush(number::<Single>(bits)) } else { number(bits) };
                let magnitude = |x: Single| if abs { x.abs() } else { x };
                let operands = row.map(|bits| magnitude(get(bits)));
                extreme(max, nan, false, &operands).to_bits() as u64
            };
            check(&kernel, &rows::<Single>(flags.into()), expected, same::<Single>);
        }
    }
}

#[test]
fn signs() {
    let sign32 = |row: &[u64; 3]| (row[0] & 0x8000_0000) | (row[1] & 0x7fff_ffff);
    let kernel = Kernel {
        text: "copysign.f32 %d, %a, %b;",
        result: "b32",
        operands: &["b32"; 2],
        target: "sm_80",
    };
    check(&kernel, &rows::<Single>(1), sign32, |got, want| got == want);
    let sign64 = |row: &[u64; 3]| (row[0] & 1 << 63) | (row[1] & !(1 << 63));
    let kernel = Kernel {
        text: "copysign.f64 %d, %a, %b;",
        result: "b64",
        operands: &["b64"; 2],
        target: "sm_80",
    };
    check(&kernel, &rows::<Double>(1), sign64, |got, want| got == want);
    for (name, negative) in [("abs", false), ("neg", true)] {
        for ftz in [false, true] {
            let text = format!("{name}{}.f32 %d, %a;", if ftz { ".ftz" } else { "" });
            let kernel = Kernel { text: &text, result: "b32", operands: &["b32"], target: "sm_80" };
            let expected = |row: &[u64; 3]| {
                let x = number::<Single>(row[0]);
                let x = if ftz { flush(x) } else { x };
                let result = if negative { -x } else { x.abs() };
                // So on an H100.
                if x.is_nan() { 0x7fff_ffff } else { result.to_bits() as u64 }
            };
            check(&kernel, &rows::<Single>(2), expected, |got, want| got == want);
        }
        let text = format!("{name}.f64 %d, %a;");
        let kernel = Kernel { text: &text, result: "b64", operands: &["b64"], target: "sm_80" };
        let expected = |row: &[u64; 3]| match (number::<Double>(row[0]).is_nan(), negative) {
            // Only made quiet, on an H100.
            (true, _) => row[0] | 1 << 51,
            (_, true) => row[0] ^ 1 << 63,
            (_, false) => row[0] & !(1 << 63),
        };
        check(&kernel, &rows::<Double>(2), expected, |got, want| got == want);
    }
}

/// Zeros count as normal (PTX ISA, "testp").
#[test]
fn properties() {
    fn one<T: Format>() {
        let holds = |name: &str, x: T| match name {
            "finite" => x.is_finite(),
            "infinite" => x.is_infinite(),
            "number" => !x.is_nan(),
            "notanumber" => x.is_nan(),
            "normal" => x.is_normal() || x.is_zero(),
            _ => x.is_denormal(),
        };
        for name in ["finite", "infinite", "number", "notanumber", "normal", "subnormal"] {
            let text = format!("testp.{name}.{} %p, %a; selp.b32 %d, 1, 0, %p;", T::NAME);
            let kernel =
                Kernel { text: &text, result: "b32", operands: &[T::REGISTER], target: "sm_80" };
            check(
                &kernel,
                &rows::<T>(5),
                |row| holds(name, number(row[0])).into(),
                |got, want| got == want,
            );
        }
    }
    one::<Single>();
    one::<Double>();
}

/// `add.f32.f16` and its kin: a narrow operand is widened exactly, the rest is arithmetic on f32.
#[test]
fn mixed_precision() {
    fn widen<N: Format + FloatConvert<Single>>(bits: u64) -> Single {
        number::<N>(bits & 0xffff).convert(&mut false).value
    }
    fn one<N: Format + FloatConvert<Single>>() {
        let ty = N::NAME;
        let mut draw = Draw::new(11);
        let mut narrow = draw.rows(ROWS, |d| d.float(N::EXPONENT, N::FRACTION));
        let wide = rows::<Single>(12);
        for (row, other) in narrow.iter_mut().zip(wide) {
            row[2] = other[2];
        }
        for (modifier, round) in ROUNDINGS {
            for (sat, clamp) in [("", false), (".sat", true)] {
                let finish = |x: Single| {
                    let x = if clamp { saturate(x) } else { x };
                    if x.is_nan() { 0x7fff_ffff } else { x.to_bits() as u64 }
                };
                let two = |name: &str, negate: bool| {
                    let text = format!("{name}{modifier}{sat}.f32.{ty} %d, %a, %c;");
                    let operands = ["b16", "b32", "b32"];
                    let kernel = Kernel {
                        text: &text,
                        result: "b32",
                        operands: &operands,
                        target: "sm_100",
                    };
                    let expected = |row: &[u64; 3]| {
                        let (a, c) = (widen::<N>(row[0]), number::<Single>(row[2]));
                        finish(a.add_r(if negate { -c } else { c }, round).value)
                    };
                    check(&kernel, &narrow, expected, |got, want| got == want);
                };
                two("add", false);
                two("sub", true);
                if modifier.is_empty() {
                    continue;
                }
                let text = format!("fma{modifier}{sat}.f32.{ty} %d, %a, %b, %c;");
                let operands = ["b16", "b16", "b32"];
                let kernel =
                    Kernel { text: &text, result: "b32", operands: &operands, target: "sm_100" };
                let expected = |row: &[u64; 3]| {
                    let (a, b) = (widen::<N>(row[0]), widen::<N>(row[1]));
                    finish(a.mul_add_r(b, number(row[2]), round).value)
                };
                check(&kernel, &narrow, expected, |got, want| got == want);
            }
        }
    }
    one::<Half>();
    one::<BFloat>();
}
