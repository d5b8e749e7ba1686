//! f16 and bf16, single and in pairs.

use rustc_apfloat::ieee::{BFloat, Half};
use rustc_apfloat::{Float, Round};

use crate::draw::Draw;
use crate::floats::extreme;
use crate::oracle::{Format, flush, number, relu, saturate};
use crate::run::{Kernel, check};

const NEAREST: Round = Round::NearestTiesToEven;

/// Three operands of 32 bits, each a pair of numbers at the edges.
fn rows<T: Format>(count: usize) -> Vec<[u64; 3]> {
    let mut draw = Draw::new(21);
    draw.rows(count, |d| {
        let one = d.float(T::EXPONENT, T::FRACTION);
        one | d.float(T::EXPONENT, T::FRACTION) << 16
    })
}

/// How a result is treated.
#[derive(Clone, Copy)]
struct Flags {
    text: &'static str,
    ftz: bool,
    sat: bool,
    relu: bool,
}

const fn flags(text: &'static str, ftz: bool, sat: bool, relu: bool) -> Flags {
    Flags { text, ftz, sat, relu }
}

const PLAIN: Flags = flags("", false, false, false);
const SUMS: [Flags; 4] = [
    PLAIN,
    flags(".ftz", true, false, false),
    flags(".sat", false, true, false),
    flags(".ftz.sat", true, true, false),
];
const FUSED: [Flags; 2] =
    [flags(".relu", false, false, true), flags(".ftz.relu", true, false, true)];
const FLUSH: [Flags; 2] = [PLAIN, flags(".ftz", true, false, false)];

/// The operation on single numbers, then on pairs.
fn sweep<T: Format>(
    name: &str,
    operands: usize,
    flags: Flags,
    target: &str,
    exact: impl Fn(T, T, T) -> T,
) {
    let one = |row: [u64; 3]| {
        let [a, b, c] = row.map(|bits| number::<T>(bits & 0xffff));
        let [a, b, c] = if flags.ftz { [flush(a), flush(b), flush(c)] } else { [a, b, c] };
        let result = exact(a, b, c);
        let result = if flags.ftz { flush(result) } else { result };
        let result = if flags.sat { saturate(result) } else { result };
        let result = if flags.relu { relu(result) } else { result };
        if result.is_nan() { 0x7fff } else { result.to_bits() as u64 }
    };
    let registers = ["%a", "%b", "%c"][..operands].join(", ");
    let equal = |got, want| got == want;
    let ty = T::NAME;
    let text = format!("{name}{}.{ty} %d, {registers};", flags.text);
    let kernel = Kernel { text: &text, result: "b16", operands: &["b16"; 3][..operands], target };
    check(&kernel, &rows::<T>(4000), |row| one(*row), equal);
    let text = format!("{name}{}.{ty}x2 %d, {registers};", flags.text);
    let kernel = Kernel { text: &text, result: "b32", operands: &["b32"; 3][..operands], target };
    let both = |row: &[u64; 3]| one(*row) | one(row.map(|bits| bits >> 16)) << 16;
    check(&kernel, &rows::<T>(4000), both, equal);
}

#[test]
fn sums_and_products() {
    for rounding in ["", ".rn"] {
        let name = |op| format!("{op}{rounding}");
        for flags in SUMS {
            sweep::<Half>(&name("add"), 2, flags, "sm_80", |a, b, _| a.add_r(b, NEAREST).value);
            sweep::<Half>(&name("sub"), 2, flags, "sm_80", |a, b, _| a.sub_r(b, NEAREST).value);
            sweep::<Half>(&name("mul"), 2, flags, "sm_80", |a, b, _| a.mul_r(b, NEAREST).value);
        }
        sweep::<BFloat>(&name("add"), 2, PLAIN, "sm_90", |a, b, _| a.add_r(b, NEAREST).value);
        sweep::<BFloat>(&name("sub"), 2, PLAIN, "sm_90", |a, b, _| a.sub_r(b, NEAREST).value);
        sweep::<BFloat>(&name("mul"), 2, PLAIN, "sm_90", |a, b, _| a.mul_r(b, NEAREST).value);
    }
}

#[test]
fn fused_products() {
    for flags in SUMS.into_iter().chain(FUSED) {
        sweep::<Half>("fma.rn", 3, flags, "sm_80", |a, b, c| a.mul_add_r(b, c, NEAREST).value);
    }
    for flags in [PLAIN, FUSED[0]] {
        sweep::<BFloat>("fma.rn", 3, flags, "sm_80", |a, b, c| a.mul_add_r(b, c, NEAREST).value);
    }
}

#[test]
fn extremes() {
    for (max, name) in [(false, "min"), (true, "max")] {
        for bits in 0..4u32 {
            let (nan, xor) = (bits & 1 != 0, bits & 2 != 0);
            let rest = ["", ".NaN", ".xorsign.abs", ".NaN.xorsign.abs"][bits as usize];
            for ftz in FLUSH {
                // Written before the rest, so that it is part of the name here.
                let name = format!("{name}{}{rest}", ftz.text);
                let flags = Flags { text: "", ..ftz };
                sweep::<Half>(&name, 2, flags, "sm_86", |a, b, _| extreme(max, nan, xor, &[a, b]));
            }
            let name = format!("{name}{rest}");
            sweep::<BFloat>(&name, 2, PLAIN, "sm_86", |a, b, _| extreme(max, nan, xor, &[a, b]));
        }
    }
}

/// All numbers of 16 bits, as rows of single numbers.
fn all() -> Vec<[u64; 3]> {
    (0..0x1_0000).map(|bits| [bits, 0, 0]).collect()
}

#[test]
fn signs_of_all_numbers() {
    fn one<T: Format>(ftz: &[&str]) {
        for (name, negate) in [("abs", false), ("neg", true)] {
            for flag in ftz {
                let text = format!("{name}{flag}.{} %d, %a;", T::NAME);
                let kernel =
                    Kernel { text: &text, result: "b16", operands: &["b16"], target: "sm_80" };
                let expected = |row: &[u64; 3]| {
                    let x = number::<T>(row[0]);
                    let x = if flag.is_empty() { x } else { flush(x) };
                    let result = if negate { -x } else { x.abs() };
                    // So on an H100.
                    if x.is_nan() { 0x7fff } else { result.to_bits() as u64 }
                };
                check(&kernel, &all(), expected, |got, want| got == want);
                let text = format!("{name}{flag}.{}x2 %d, %a;", T::NAME);
                let kernel =
                    Kernel { text: &text, result: "b32", operands: &["b32"], target: "sm_80" };
                let both = |row: &[u64; 3]| {
                    let half = |bits: u64| expected(&[bits & 0xffff, 0, 0]);
                    half(row[0]) | half(row[0] >> 16) << 16
                };
                check(&kernel, &rows::<T>(2000), both, |got, want| got == want);
            }
        }
    }
    one::<Half>(&["", ".ftz"]);
    one::<BFloat>(&[""]);
}
