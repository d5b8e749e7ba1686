//! Comparisons of every type with every operator, and selections.

use std::cmp::Ordering;

use rustc_apfloat::ieee::{BFloat, Double, Half, Single};

use crate::draw::Draw;
use crate::oracle::{Format, flush, number};
use crate::run::{Kernel, check};

/// Operators that hold if the order of the operands is among those; none is that of NaN.
const OPERATORS: [(&str, &[Option<Ordering>]); 14] = {
    const LT: Option<Ordering> = Some(Ordering::Less);
    const EQ: Option<Ordering> = Some(Ordering::Equal);
    const GT: Option<Ordering> = Some(Ordering::Greater);
    [
        ("eq", &[EQ]),
        ("ne", &[LT, GT]),
        ("lt", &[LT]),
        ("le", &[LT, EQ]),
        ("gt", &[GT]),
        ("ge", &[GT, EQ]),
        ("equ", &[EQ, None]),
        ("neu", &[LT, GT, None]),
        ("ltu", &[LT, None]),
        ("leu", &[LT, EQ, None]),
        ("gtu", &[GT, None]),
        ("geu", &[GT, EQ, None]),
        ("num", &[LT, EQ, GT]),
        ("nan", &[None]),
    ]
};

const ROWS: usize = 1000;

/// The type's name, its register, `.ftz` if it has it.
struct Compared<'t> {
    name: &'t str,
    register: &'t str,
    order: &'t dyn Fn(u64, u64) -> Option<Ordering>,
    target: &'t str,
}

fn order<T: Format>(ftz: bool) -> impl Fn(u64, u64) -> Option<Ordering> {
    move |a, b| {
        let get = |x| if ftz { flush(number::<T>(x)) } else { number::<T>(x) };
        get(a).partial_cmp(&get(b))
    }
}

fn float_rows<T: Format>() -> Vec<[u64; 3]> {
    let mut draw = Draw::new(41);
    let mut rows = draw.rows(ROWS, |d| d.float(T::EXPONENT, T::FRACTION));
    for row in rows.iter_mut().step_by(3) {
        row[1] = row[0].wrapping_add(draw.below(3)).wrapping_sub(1)
            & (u64::MAX >> (63 - T::EXPONENT - T::FRACTION));
    }
    rows
}

/// Plain, with both results, and combined with a third predicate (bit 0 of `c`) in each way.
fn sweep(compared: &Compared<'_>, rows: &[[u64; 3]], operators: &[(&str, &[Option<Ordering>])]) {
    let Compared { name, register, order, target } = *compared;
    let operands = [register; 3];
    let text = |head: String, tail: &str| format!("{head}{tail}");
    for (operator, holds) in operators {
        let test = |row: &[u64; 3]| holds.contains(&order(row[0], row[1]));
        let plain = text(format!("setp.{operator}{name} %p, %a, %b;"), "selp.b32 %d, 1, 0, %p;");
        let kernel = Kernel { text: &plain, result: "b32", operands: &operands, target };
        check(&kernel, rows, |row| test(row).into(), |got, want| got == want);
        for (combine, function) in [
            ("and", (|x, y| x & y) as fn(bool, bool) -> bool),
            ("or", |x, y| x | y),
            ("xor", |x, y| x ^ y),
        ] {
            let odd = match register {
                "b16" => "{ .reg .b16 %t; and.b16 %t, %c, 1; setp.ne.b16 %q, %t, 0; }",
                "b32" => "{ .reg .b32 %t; and.b32 %t, %c, 1; setp.ne.b32 %q, %t, 0; }",
                _ => "{ .reg .b64 %t; and.b64 %t, %c, 1; setp.ne.b64 %q, %t, 0; }",
            };
            // setp.f16 has one result, the others have two: the second of the complement.
            let second = register != "b16" || name.contains('s') || name.contains('u');
            let pair = if second { "%p|%q" } else { "%p" };
            let high = if second { "selp.b32 %t, 2, 0, %q;" } else { "mov.b32 %t, 0;" };
            let both = format!(
                "{odd} setp.{operator}.{combine}{name} {pair}, %a, %b, !%q; \
                 {{ .reg .b32 %t; {high} selp.b32 %d, 1, 0, %p; or.b32 %d, %d, %t; }}"
            );
            let expected = |row: &[u64; 3]| {
                let (holds, other) = (test(row), row[2] & 1 == 0);
                let complement = second && function(!holds, other);
                u64::from(function(holds, other)) | u64::from(complement) << 1
            };
            let kernel = Kernel { text: &both, result: "b32", operands: &operands, target };
            check(&kernel, rows, expected, |got, want| got == want);
        }
    }
}

#[test]
fn integers() {
    for (width, register) in [(16, "b16"), (32, "b32"), (64, "b64")] {
        let mut draw = Draw::new(42);
        let mut rows = draw.rows(ROWS, |d| d.integer(width));
        rows.iter_mut().step_by(3).for_each(|row| row[1] = row[0]);
        let unsigned = |a: u64, b: u64| Some(a.cmp(&b));
        let signed = |a: u64, b: u64| {
            let value = |x: u64| (x << (64 - width)) as i64;
            Some(value(a).cmp(&value(b)))
        };
        let one = |name: String, order: &dyn Fn(u64, u64) -> Option<Ordering>, operators: &[_]| {
            sweep(&Compared { name: &name, register, order, target: "sm_80" }, &rows, operators);
        };
        one(format!(".b{width}"), &unsigned, &OPERATORS[..2]);
        one(format!(".s{width}"), &signed, &OPERATORS[..6]);
        one(format!(".u{width}"), &unsigned, &OPERATORS[..6]);
        // lo, ls, hi, hs are what unsigned numbers may say for lt, le, gt, ge.
        let renamed: Vec<(&str, &[Option<Ordering>])> =
            [("lo", 2), ("ls", 3), ("hi", 4), ("hs", 5)]
                .map(|(name, like)| (name, OPERATORS[like].1))
                .to_vec();
        one(format!(".u{width}"), &unsigned, &renamed);
    }
}

#[test]
fn floats() {
    fn one<T: Format>(flags: &[(&str, bool)], target: &str) {
        for &(flag, ftz) in flags {
            let name = format!("{flag}.{}", T::NAME);
            let compared =
                Compared { name: &name, register: T::REGISTER, order: &order::<T>(ftz), target };
            sweep(&compared, &float_rows::<T>(), &OPERATORS);
        }
    }
    one::<Single>(&[("", false), (".ftz", true)], "sm_80");
    one::<Double>(&[("", false)], "sm_80");
    one::<Half>(&[("", false), (".ftz", true)], "sm_80");
    one::<BFloat>(&[("", false)], "sm_90");
}

fn pair_rows<T: Format>() -> Vec<[u64; 3]> {
    let (low, high) = (float_rows::<T>(), float_rows::<T>());
    let rotated = high.into_iter().cycle().skip(17);
    low.into_iter()
        .zip(rotated)
        .map(|(l, h)| [l[0] | h[0] << 16, l[1] | h[1] << 16, l[2] | h[2] << 16])
        .collect()
}

/// Two results: of the low halves, then of the high ones.
#[test]
fn pairs() {
    fn one<T: Format>(flag: &str, ftz: bool, target: &str) {
        let rows = pair_rows::<T>();
        let ty = T::NAME;
        for (operator, holds) in OPERATORS {
            let order = order::<T>(ftz);
            let halves = |row: &[u64; 3]| {
                [0, 16].map(|shift| {
                    holds.contains(&order(row[0] >> shift & 0xffff, row[1] >> shift & 0xffff))
                })
            };
            let text = format!(
                "setp.{operator}{flag}.{ty}x2 %p|%q, %a, %b; selp.b32 %d, 1, 0, %p; \
                 {{ .reg .b32 %t; selp.b32 %t, 2, 0, %q; or.b32 %d, %d, %t; }}"
            );
            let kernel = Kernel { text: &text, result: "b32", operands: &["b32"; 2], target };
            let bits = |row: &[u64; 3]| {
                let [low, high] = halves(row);
                u64::from(low) | u64::from(high) << 1
            };
            check(&kernel, &rows, bits, |got, want| got == want);
            let one = T::from_u128(1).value.to_bits() as u64;
            for (result, value) in
                [(format!("{ty}x2"), one), ("u32".into(), 0xffff), ("s32".into(), 0xffff)]
            {
                let text = format!("set.{operator}{flag}.{result}.{ty}x2 %d, %a, %b;");
                let kernel = Kernel { text: &text, result: "b32", operands: &["b32"; 2], target };
                let expected = |row: &[u64; 3]| {
                    let [low, high] = halves(row).map(|holds| if holds { value } else { 0 });
                    low | high << 16
                };
                check(&kernel, &rows, expected, |got, want| got == want);
            }
        }
    }
    one::<Half>("", false, "sm_80");
    one::<Half>(".ftz", true, "sm_80");
    one::<BFloat>("", false, "sm_90");
}

/// `set`: all ones or 1.0 where the comparison holds.
#[test]
fn results_as_numbers() {
    let one = |ty: &str,
               register: &str,
               rows: &[[u64; 3]],
               order: &dyn Fn(u64, u64) -> Option<Ordering>,
               results: &[(&str, &str, u64)]| {
        for &(result, out, value) in results {
            for (operator, holds) in [OPERATORS[0], OPERATORS[2], OPERATORS[5]] {
                let target = if result == "bf16" || ty == "bf16" { "sm_90" } else { "sm_80" };
                let text = format!("set.{operator}.{result}.{ty} %d, %a, %b;");
                let kernel = Kernel { text: &text, result: out, operands: &[register; 2], target };
                let expected =
                    |row: &[u64; 3]| if holds.contains(&order(row[0], row[1])) { value } else { 0 };
                check(&kernel, rows, expected, |got, want| got == want);
                let text = format!(
                    "setp.ne.b{width} %q, %c, 0; set.{operator}.and.{result}.{ty} %d, %a, %b, %q;",
                    width = &register[1..]
                );
                let kernel = Kernel { text: &text, result: out, operands: &[register; 3], target };
                let expected = |row: &[u64; 3]| {
                    if row[2] != 0 && holds.contains(&order(row[0], row[1])) { value } else { 0 }
                };
                check(&kernel, rows, expected, |got, want| got == want);
            }
        }
    };
    let ones = u64::from(u32::MAX);
    let wide = [("u32", "b32", ones), ("s32", "b32", ones), ("f32", "b32", 0x3f80_0000)];
    let narrow = [("f16", "b16", 0x3c00), ("bf16", "b16", 0x3f80)];
    let halves = [
        ("u16", "b16", 0xffff),
        ("s16", "b16", 0xffff),
        ("u32", "b32", ones),
        ("s32", "b32", ones),
    ];
    let integers = Draw::new(43).rows(ROWS, |d| d.integer(32));
    let unsigned = |a: u64, b: u64| Some(a.cmp(&b));
    one("u32", "b32", &integers, &unsigned, &wide);
    one("u32", "b32", &integers, &unsigned, &narrow);
    one("f32", "b32", &float_rows::<Single>(), &order::<Single>(false), &wide);
    one("f32", "b32", &float_rows::<Single>(), &order::<Single>(false), &narrow);
    one("f64", "b64", &float_rows::<Double>(), &order::<Double>(false), &wide);
    one("f16", "b16", &float_rows::<Half>(), &order::<Half>(false), &halves);
    one("f16", "b16", &float_rows::<Half>(), &order::<Half>(false), &narrow[..1]);
    one("bf16", "b16", &float_rows::<BFloat>(), &order::<BFloat>(false), &halves);
    one("bf16", "b16", &float_rows::<BFloat>(), &order::<BFloat>(false), &narrow[1..]);
}

#[test]
fn selections() {
    for (width, types) in [(16, "b16 u16 s16"), (32, "b32 u32 s32 f32"), (64, "b64 u64 s64 f64")] {
        let register = format!("b{width}");
        let rows = Draw::new(44).rows(ROWS, |d| d.integer(width));
        for ty in types.split(' ') {
            let operands = [register.as_str(), &register, "b32"];
            let text = format!("setp.lt.s32 %p, %c, 0; selp.{ty} %d, %a, %b, !%p;");
            let kernel =
                Kernel { text: &text, result: &register, operands: &operands, target: "sm_80" };
            let by_sign = |row: &[u64; 3]| if row[2] as u32 as i32 >= 0 { row[0] } else { row[1] };
            check(&kernel, &rows, by_sign, |got, want| got == want);
            let text = format!("slct.{ty}.s32 %d, %a, %b, %c;");
            let kernel = Kernel { text: &text, ..kernel };
            check(&kernel, &rows, by_sign, |got, want| got == want);
            // -0 and, flushed, negative subnormals count as not negative; NaN is neither.
            for (flag, ftz) in [("", false), (".ftz", true)] {
                let text = format!("slct{flag}.{ty}.f32 %d, %a, %b, %c;");
                let kernel = Kernel { text: &text, ..kernel };
                let mut draw = Draw::new(45);
                let rows: Vec<_> =
                    rows.iter().map(|row| [row[0], row[1], draw.float(8, 23)]).collect();
                let expected = |row: &[u64; 3]| {
                    let c = f32::from_bits(row[2] as u32);
                    let c = if ftz && c.is_subnormal() { 0.0 } else { c };
                    if c >= 0.0 { row[0] } else { row[1] }
                };
                check(&kernel, &rows, expected, |got, want| got == want);
            }
        }
    }
}
