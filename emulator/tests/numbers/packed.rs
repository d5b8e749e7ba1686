//! Integers in pairs, and integers packed into a word.

use crate::draw::Draw;
use crate::run::{Kernel, check};

fn rows(seed: u64) -> Vec<[u64; 3]> {
    Draw::new(seed).rows(3000, |d| d.integer(16) | d.integer(16) << 16)
}

fn each(x: u64, y: u64, signed: bool, exact: &dyn Fn(i64, i64) -> i64) -> u64 {
    let half = |x: u64, i: u32| {
        let bits = (x >> (16 * i)) as u16;
        if signed { i64::from(bits as i16) } else { bits.into() }
    };
    let result = |i| u64::from(exact(half(x, i), half(y, i)) as u16) << (16 * i);
    result(0) | result(1)
}

#[test]
fn pairs_of_integers() {
    let one = |name: &str, signed: bool, exact: &dyn Fn(i64, i64) -> i64| {
        let ty = if signed { "s16x2" } else { "u16x2" };
        let text = format!("{name}.{ty} %d, %a, %b;");
        let kernel = Kernel { text: &text, result: "b32", operands: &["b32"; 2], target: "sm_90" };
        check(&kernel, &rows(31), |x| each(x[0], x[1], signed, exact), |got, want| got == want);
    };
    for signed in [false, true] {
        one("add", signed, &|a, b| a + b);
        one("min", signed, &|a, b| a.min(b));
        one("max", signed, &|a, b| a.max(b));
    }
    one("min.relu", true, &|a, b| a.min(b).max(0));
    one("max.relu", true, &|a, b| a.max(b).max(0));
}

/// Saturated to the size and packed, `a` above `b`, above them the low bits of `c` (PTX ISA, "cvt.pack").
#[test]
fn packing() {
    let mut draw = Draw::new(32);
    let rows = draw.rows(3000, |d| d.integer(32));
    for size in [2u32, 4, 8, 16] {
        for signed in [false, true] {
            let (low, high) = match signed {
                true => (-(1i64 << (size - 1)), (1 << (size - 1)) - 1),
                false => (0, (1 << size) - 1),
            };
            let part =
                |x: u64| (i64::from(x as u32 as i32).clamp(low, high) as u64) & ((1 << size) - 1);
            let ty = format!("{}{size}", if signed { "s" } else { "u" });
            let (text, count) = match size {
                16 => (format!("cvt.pack.sat.{ty}.s32 %d, %a, %b;"), 2),
                _ => (format!("cvt.pack.sat.{ty}.s32.b32 %d, %a, %b, %c;"), 3),
            };
            let kernel = Kernel {
                text: &text,
                result: "b32",
                operands: &["b32"; 3][..count],
                target: "sm_80",
            };
            let expected = |x: &[u64; 3]| {
                let rest = if size == 16 { 0 } else { x[2] << (2 * size) };
                (part(x[1]) | part(x[0]) << size | rest) & 0xffff_ffff
            };
            check(&kernel, &rows, expected, |got, want| got == want);
        }
    }
}
