//! Calls that stay calls, a table of functions, a jump table.

use crate::gpu::{Draw, Params, Shape, Source, U32, assert_close, assert_equal, source};

const SOURCE: Source = source!("calls");

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[test]
fn lanes_call_different_functions() {
    SOURCE.each(|gpu| {
        let n = 128usize;
        let mut draw = Draw::new(gpu.seed);
        let x: Vec<u32> = (0..n).map(|_| draw.int(1, 100_000) as u32).collect();
        let (quotient, rest) = (gpu.output::<f64>("quotient", n), gpu.output::<i32>("rest", n));
        let (divisor, mixed) = (gpu.output::<u32>("divisor", n), gpu.output::<f32>("mixed", n));
        let params =
            Params::new().add(gpu.input("x", &x)).add(quotient).add(rest).add(divisor).add(mixed);
        gpu.run("calls", Shape::new(2, 64), &params);
        let (mut want_quotient, mut want_rest) = (Vec::new(), Vec::new());
        for (i, &v) in x.iter().enumerate() {
            let by = (i % 7 + 1) as i32;
            let swapped = v % 3 == 0;
            want_quotient.push(if swapped { f64::from(v) } else { f64::from(v) / f64::from(by) });
            want_rest.push(if swapped { i as i32 } else { v as i32 % by });
        }
        assert_equal("quotient", &gpu.read::<f64>(quotient, n), &want_quotient);
        assert_equal("rest", &gpu.read::<i32>(rest, n), &want_rest);
        let want: Vec<u32> = x.iter().map(|&v| gcd(v, 360)).collect();
        assert_equal("divisor", &gpu.read::<u32>(divisor, n), &want);
        let got: Vec<f64> = gpu.read::<f32>(mixed, n).into_iter().map(f64::from).collect();
        let function = |(i, &v): (usize, &u32)| {
            let (a, b) = (f64::from(v % 1000), i as f64);
            [a + b, a - b, a.hypot(b)][(v % 3) as usize]
        };
        let want: Vec<f64> = x.iter().enumerate().map(function).collect();
        // Two products, a sum and a root.
        assert_close("mixed", &got, &want, |i| 3.0 * U32 * want[i].abs());
    });
}

/// What case `v` of the switch makes of `r`.
fn case(v: i32, r: i32) -> i32 {
    let bits = r as u32;
    match v {
        0 => r * 3 + 1,
        1 => bits.count_ones() as i32 + (r << 4),
        2 => bits.leading_zeros() as i32 ^ 0x55,
        3 => (bits.reverse_bits() >> 3) as i32,
        4 => r * r - 7,
        5 => {
            if r == 0 {
                0
            } else {
                (bits.trailing_zeros() as i32 + 1) * 11
            }
        }
        6 => ((u64::from(bits.wrapping_mul(0x9e37_79b9)) * 1000) >> 32) as i32,
        7 => {
            let bytes = (u64::from(!bits) << 32 | u64::from(bits)).to_le_bytes();
            i32::from_le_bytes([5, 1, 7, 3].map(|at| bytes[at]))
        }
        8 => (0xdead_beefu32 << 9 | bits >> 23) as i32,
        9 => bits
            .to_le_bytes()
            .into_iter()
            .zip([4, 3, 2, 1])
            .fold(5, |sum, (byte, by)| sum + i32::from(byte as i8) * by),
        10 => (r - 100).abs() + 3,
        _ => -1,
    }
}

#[test]
fn a_dense_switch() {
    SOURCE.each(|gpu| {
        let n = 512usize;
        let mut draw = Draw::new(gpu.seed + 1);
        let x: Vec<i32> = (0..n).map(|_| draw.int(-1, 12) as i32).collect();
        let out = gpu.output::<i32>("out", n);
        gpu.run("jumps", Shape::new(2, 256), &Params::new().add(gpu.input("x", &x)).add(out));
        let want: Vec<i32> = x.iter().enumerate().map(|(i, &v)| case(v, i as i32)).collect();
        assert_equal("out", &gpu.read::<i32>(out, n), &want);
    });
}
