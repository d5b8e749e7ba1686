//! Approximate functions: within the error that the ISA allows of the true value, exact at its special values.

use crate::draw::Draw;
use crate::oracle::{Format, flush, number};
use crate::run::{Kernel, run};
use rustc_apfloat::Float;
use rustc_apfloat::ieee::{BFloat, Half, Single};

/// The error allowed, absolute or relative to the true value.
#[derive(Clone, Copy)]
enum Bound {
    Absolute(f64),
    Relative(f64),
}

fn close(got: f64, want: f64, bound: Bound) -> bool {
    if want.is_nan() || got.is_nan() {
        return want.is_nan() && got.is_nan();
    }
    if got == want {
        return got != 0.0 || got.is_sign_negative() == want.is_sign_negative();
    }
    let error = (got - want).abs();
    match bound {
        Bound::Absolute(limit) => error <= limit,
        // Below the smallest normal number a unit in the last place is no longer relative.
        Bound::Relative(limit) => error <= limit * want.abs() || error <= 2f64.powi(-148),
    }
}

fn single(bits: u64) -> f64 {
    f32::from_bits(bits as u32).into()
}

/// Special values of the ISA's tables.
const SPECIAL: [u32; 8] =
    [0, 0x8000_0000, 0x7f80_0000, 0xff80_0000, 0x7fff_ffff, 0x7fc0_0000, 0x0000_0001, 0x8000_0001];

/// Draws operands whose true results are numbers that f32 can hold or that flush.
fn sweep(name: &str, flags: &[&str], exact: fn(f64) -> f64, keep: fn(f64) -> bool, bound: Bound) {
    let mut draw = Draw::new(51);
    let drawn = (0..20_000).map(|_| draw.float(8, 23)).filter(|&x| keep(single(x)));
    let rows: Vec<[u64; 3]> =
        SPECIAL.map(u64::from).into_iter().chain(drawn).map(|x| [x, 0, 0]).collect();
    for flag in flags {
        let ftz = !flag.is_empty();
        let text = format!("{name}.approx{flag}.f32 %d, %a;");
        let kernel = Kernel { text: &text, result: "b32", operands: &["b32"], target: "sm_80" };
        for (row, got) in rows.iter().zip(run(&kernel, &rows)) {
            let flushed =
                |bits: u64| if ftz { flush(number::<Single>(bits)).to_bits() as u64 } else { bits };
            let want = exact(single(flushed(row[0])));
            let rounded = single(flushed((want as f32).to_bits().into()));
            // A result beyond the range of f32 is infinite; one that flushes is zero.
            let want =
                if rounded.is_infinite() || (ftz && rounded == 0.0) { rounded } else { want };
            let edge = ftz
                && want != 0.0
                && want.abs() < 2f64.powi(-126) * 1.001
                && got & 0x7fff_ffff == 0;
            assert!(
                edge || close(single(got), want, bound),
                "{text} of {:#x} is {got:#x}, not {want:e}",
                row[0]
            );
        }
    }
}

#[test]
fn functions_of_f32() {
    let both = ["", ".ftz"];
    let any = |_: f64| true;
    // Two units in the last place of f32 are 2^-22 relative.
    sweep("ex2", &both, f64::exp2, |x| x.abs() < 200.0, Bound::Relative(2f64.powi(-22)));
    sweep("lg2", &both, f64::log2, any, Bound::Absolute(2f64.powi(-17)));
    sweep("lg2", &both, f64::log2, |x| (0.5..=2.0).contains(&x), Bound::Absolute(2f64.powi(-22)));
    sweep("rcp", &both, |x| 1.0 / x, any, Bound::Relative(2f64.powi(-23)));
    sweep("rsqrt", &both, |x| 1.0 / x.sqrt(), any, Bound::Relative(2f64.powf(-22.9)));
    sweep("sqrt", &both, f64::sqrt, any, Bound::Relative(2f64.powi(-23)));
    sweep("sin", &[".ftz"], f64::sin, |x| x.abs() < 3.2, Bound::Absolute(2f64.powf(-20.9)));
    sweep("cos", &[".ftz"], f64::cos, |x| x.abs() < 3.2, Bound::Absolute(2f64.powf(-20.9)));
    sweep("tanh", &[""], f64::tanh, any, Bound::Relative(2f64.powi(-11)));
}

/// `div.approx` of a divisor beyond 2^126 gives 0, or NaN of an infinity; `div.full` knows no such limit.
#[test]
fn approximate_quotients() {
    let mut draw = Draw::new(52);
    let rows = draw.rows(20_000, |d| d.float(8, 23));
    for (mode, flag) in [("approx", ""), ("approx", ".ftz"), ("full", ""), ("full", ".ftz")] {
        let text = format!("div.{mode}{flag}.f32 %d, %a, %b;");
        let kernel = Kernel { text: &text, result: "b32", operands: &["b32"; 2], target: "sm_80" };
        for (row, got) in rows.iter().zip(run(&kernel, &rows)) {
            let ftz = !flag.is_empty();
            let flushed =
                |bits: u64| if ftz { flush(number::<Single>(bits)).to_bits() as u64 } else { bits };
            let (a, b) = (single(flushed(row[0])), single(flushed(row[1])));
            let huge = mode == "approx" && b.abs() > 2f64.powi(126);
            let want = if huge { a * 0f64.copysign(b) } else { a / b };
            let rounded = single(flushed((want as f32).to_bits().into()));
            let want =
                if rounded.is_infinite() || (ftz && rounded == 0.0) { rounded } else { want };
            let edge = ftz
                && want != 0.0
                && want.abs() < 2f64.powi(-126) * 1.001
                && got & 0x7fff_ffff == 0;
            let fine = edge || close(single(got), want, Bound::Relative(2f64.powi(-22)));
            assert!(fine, "{text} of {row:x?} is {got:#x}, not {want:e}");
        }
    }
}

/// Only the upper words count, subnormals are zeros, NaN is canonical (PTX ISA, "rcp.approx.ftz.f64").
#[test]
fn gross_approximations_of_f64() {
    let mut draw = Draw::new(53);
    let mut rows = draw.rows(5000, |d| d.float(11, 52));
    let special =
        [0, 1 << 63, 0x7ff0 << 48, 0xfff0 << 48, 0x7ff8 << 48, 1 << 40, 1 << 63 | 1 << 40];
    rows.extend(special.map(|x| [x, 0, 0]));
    for (name, exact) in [("rcp", (|x| 1.0 / x) as fn(f64) -> f64), ("rsqrt", |x| 1.0 / x.sqrt())] {
        let text = format!("{name}.approx.ftz.f64 %d, %a;");
        let kernel = Kernel { text: &text, result: "b64", operands: &["b64"], target: "sm_80" };
        for (row, got) in rows.iter().zip(run(&kernel, &rows)) {
            assert_eq!(
                got as u32, 0,
                "{text} of {:#x} has bits in the lower word: {got:#x}",
                row[0]
            );
            let zero_if_tiny = |x: f64| if x.is_subnormal() { 0f64.copysign(x) } else { x };
            let operand = f64::from_bits(row[0] >> 32 << 32);
            let want = zero_if_tiny(exact(zero_if_tiny(operand)));
            let fine = match want.is_nan() {
                true => got == 0x7fff_ffff_0000_0000,
                false => close(f64::from_bits(got), want, Bound::Relative(2f64.powi(-20))),
            };
            assert!(fine, "{text} of {:#x} is {got:#x}, not {want:e}", row[0]);
        }
    }
    let text = "rsqrt.approx.f64 %d, %a;";
    let kernel = Kernel { text, result: "b64", operands: &["b64"], target: "sm_80" };
    for (row, got) in rows.iter().zip(run(&kernel, &rows)) {
        let want = 1.0 / f64::from_bits(row[0]).sqrt();
        assert!(
            close(f64::from_bits(got), want, Bound::Relative(2f64.powi(-51))),
            "{text} of {:#x}",
            row[0]
        );
    }
}

/// All numbers of 16 bits, single and in pairs.
#[test]
fn functions_of_halves() {
    fn one<T: Format>(
        name: &str,
        flag: &str,
        target: &str,
        exact: fn(f64) -> f64,
        wide: fn(u64) -> f64,
        bound: Bound,
        tiny: f64,
    ) {
        let ftz = !flag.is_empty();
        let judge = |text: &str, bits: u64, got: u64| {
            let x = if ftz { flush(number::<T>(bits)).to_bits() as u64 } else { bits };
            let want = exact(wide(x));
            let got_value = wide(got);
            let largest = wide(T::largest().to_bits() as u64);
            let overflows = want.abs() >= largest && got_value.abs() >= largest;
            let underflows = (got_value - want).abs() <= tiny;
            assert!(
                close(got_value, want, bound)
                    || overflows
                    || (underflows && want.abs() < 2.0 * tiny * 2048.0),
                "{text} of {bits:#x} is {got:#x}, not {want:e}"
            );
        };
        let text = format!("{name}.approx{flag}.{} %d, %a;", T::NAME);
        let kernel = Kernel { text: &text, result: "b16", operands: &["b16"], target };
        let rows: Vec<[u64; 3]> = (0..0x1_0000).map(|x| [x, 0, 0]).collect();
        for (row, got) in rows.iter().zip(run(&kernel, &rows)) {
            judge(&text, row[0], got);
        }
        let text = format!("{name}.approx{flag}.{}x2 %d, %a;", T::NAME);
        let kernel = Kernel { text: &text, result: "b32", operands: &["b32"], target };
        let rows: Vec<[u64; 3]> = (0..0x1_0000).map(|x| [x | (x ^ 0x1234) << 16, 0, 0]).collect();
        for (row, got) in rows.iter().zip(run(&kernel, &rows)) {
            judge(&text, row[0] & 0xffff, got & 0xffff);
            judge(&text, row[0] >> 16, got >> 16);
        }
    }
    let half = |bits: u64| half::f16::from_bits(bits as u16).to_f64();
    let brain = |bits: u64| half::bf16::from_bits(bits as u16).to_f64();
    let (half_tiny, brain_tiny) = (2f64.powi(-24), 2f64.powi(-126));
    one::<Half>("ex2", "", "sm_80", f64::exp2, half, Bound::Relative(2f64.powf(-9.9)), half_tiny);
    one::<BFloat>(
        "ex2",
        ".ftz",
        "sm_90",
        f64::exp2,
        brain,
        Bound::Relative(2f64.powi(-7)),
        brain_tiny,
    );
    one::<Half>(
        "tanh",
        "",
        "sm_80",
        f64::tanh,
        half,
        Bound::Absolute(2f64.powf(-10.987)),
        half_tiny,
    );
    one::<BFloat>(
        "tanh",
        "",
        "sm_90",
        f64::tanh,
        brain,
        Bound::Absolute(2f64.powi(-8)),
        brain_tiny,
    );
}
