//! Bit-accurate matrix products against MMA-Sim, a model that others have made and compared with GPUs: cancellation,
//! subnormals, exponents far apart, infinities and NaN. `tensor_cores/generate.py` makes the table.

mod common;

use common::matrix::Mma;
use ptx_emulator::MmaMode;

/// Numbers in hexadecimal, each of so many bits.
fn codes(text: &str, bits: usize) -> Vec<u32> {
    let digits = text.as_bytes().chunks(bits / 4);
    digits.map(|d| u32::from_str_radix(std::str::from_utf8(d).unwrap(), 16).unwrap()).collect()
}

fn bits(ty: &str) -> usize {
    match ty {
        "e4m3" | "e5m2" => 8,
        "f16" | "bf16" => 16,
        _ => 32,
    }
}

#[test]
fn products_have_the_bits_that_tensor_cores_give() {
    let mut lines = 0;
    for line in include_str!("tensor_cores/mma.txt").lines() {
        let [target, form, a, b, c, d] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let [shape, sum, ta, tb, _] = form.split('.').collect::<Vec<_>>()[..] else {
            panic!("{form}")
        };
        let k = shape.strip_prefix("m16n8k").unwrap().parse().unwrap();
        let types = (ta, tb);
        let mma = Mma { rows: 16, k, types, bits: bits(ta), sum, modifiers: ("", ""), target };
        let [a, b] = [(a, ta), (b, tb)].map(|(text, ty)| codes(text, bits(ty)));
        let [c, d] = [c, d].map(|text| codes(text, bits(sum)));
        assert_eq!((a.len(), b.len(), c.len(), d.len()), (16 * k, 8 * k, 128, 128), "{form}");
        let got = mma.run(MmaMode::BitAccurate, &a, &b, &c);
        for at in 0..128 {
            let (row, column) = (&a[at / 8 * k..][..k], &b[at % 8 * k..][..k]);
            let (have, want) = (got[at], d[at]);
            assert_eq!(
                have, want,
                "{target} {form}: {row:x?} times {column:x?} and {:x} is {have:x}, not {want:x}",
                c[at]
            );
        }
        // No other path gives these by chance: a chain of f32 additions differs somewhere in every line of f32.
        lines += 1;
        let fast = mma.run(MmaMode::Fast, &a, &b, &c);
        assert!(sum != "f32" || fast != d, "{target} {form}: the fast mode gives the same");
    }
    assert_eq!(lines, 68);
}
