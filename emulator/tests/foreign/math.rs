//! Arithmetic as nvcc lowers it.

use half::{bf16, f16};

use crate::gpu::{Draw, Gpu, Params, Shape, Source, assert_equal, source};

const SOURCE: Source = source!("math");

/// Runs `entry` on one input array, `functions` outputs an element.
fn map<T: bytemuck::Pod>(gpu: &Gpu, entry: &str, x: &[T], functions: usize) -> Vec<Vec<T>> {
    let out = gpu.output::<T>("out", functions * x.len());
    let params = Params::new().add(gpu.input("x", x)).add(out).add(x.len() as i32);
    gpu.run(entry, Shape::new(x.len().div_ceil(128) as u32, 128), &params);
    gpu.read::<T>(out, functions * x.len()).chunks(x.len()).map(<[T]>::to_vec).collect()
}

/// The distance of two floats of one format in units of the last place of `want`, which has `bits` of mantissa.
fn ulps(got: f64, want: f64, bits: i32) -> f64 {
    if got == want || (got.is_nan() && want.is_nan()) {
        return 0.0;
    }
    let exponent = (want.abs().log2().floor() as i32).max(if bits == 23 { -126 } else { -1022 });
    (got - want).abs() / 2f64.powi(exponent - bits)
}

#[test]
fn functions_of_f32() {
    // The largest error in ulp that the CUDA C++ Programming Guide names for each ("Mathematical Functions", "Standard
    // Functions"), relative to the rounded result, so half an ulp more against the exact one.
    type Exact = fn(f64) -> f64;
    let functions: [(&str, f64, Exact); 15] = [
        ("expf", 1.0, f64::exp),
        ("logf", 1.0, |v| v.abs().ln()),
        ("sinf", 2.0, f64::sin),
        ("cosf", 2.0, f64::cos),
        ("tanhf", 2.0, f64::tanh),
        ("erff", 2.0, libm::erf),
        ("powf", 4.0, |v| v.abs().powf(f64::from(1.7f32))),
        ("cbrtf", 1.0, f64::cbrt),
        ("fmodf", 0.0, |v| v % f64::from(0.37f32)),
        ("division", 0.0, |v| v / f64::from(3.7f32)),
        ("sqrtf", 0.0, |v| v.abs().sqrt()),
        ("rsqrtf", 2.0, |v| 1.0 / v.abs().sqrt()),
        ("rounding", 0.0, |v| {
            v.round_ties_even() + v.floor() * 4.0 + v.ceil() * 16.0 + v.trunc() * 64.0
        }),
        ("atan2f", 3.0, |v| v.atan2(f64::from(0.8f32))),
        ("saturate", 0.0, |v| v.clamp(0.0, 1.0)),
    ];
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed);
        let mut x: Vec<f32> = (0..400).map(|_| uniform(&mut draw, -20.0, 20.0) as f32).collect();
        // Sines of large arguments take the path through a table in constant memory and an array in local memory.
        x.extend([1e-30, -1e-5, 0.5, 1.0, 88.0, -100.0, 1e5, -3.3e7, 123_456.7, 9.9e12]);
        let got = map(gpu, "functions_f32", &x, 16);
        for ((name, allowed, exact), got) in functions.iter().zip(&got) {
            for (&v, &g) in x.iter().zip(got) {
                if *name == "rounding" && v.abs() > 1e4 {
                    continue; // the sum of four roundings is exact for small numbers only
                }
                let want = exact(f64::from(v));
                if want.abs() > f64::from(f32::MAX) {
                    assert_eq!(f64::from(g), f64::INFINITY.copysign(want), "{name}({v})");
                    continue;
                }
                let error = ulps(f64::from(g), want, 23);
                assert!(error <= allowed + 0.5, "{name}({v:e}) = {g:e}, {error} ulp from {want:e}");
            }
        }
        // 6 ulp outside (-10.001, -2.264), where arguments here are positive.
        for (&v, &g) in x.iter().zip(&got[15]) {
            let want = libm::lgamma(f64::from(v.abs() + 0.5));
            assert!(
                ulps(f64::from(g), want, 23) <= 6.5 || (g.is_infinite() && want > 3.4e38),
                "lgammaf({v}) = {g}, not {want}"
            );
        }
    });
}

#[test]
fn functions_of_f64() {
    type Exact = fn(f64) -> f64;
    let functions: [(&str, f64, Exact); 8] = [
        ("exp", 1.0, f64::exp),
        ("log", 1.0, |v| v.abs().ln()),
        ("sin", 2.0, f64::sin),
        ("reciprocal", 0.0, |v| 1.0 / v),
        ("division", 0.0, |v| v / 3.7),
        ("sqrt", 0.0, |v| v.abs().sqrt()),
        ("fma", 0.0, |v| v.mul_add(v, -0.5)),
        ("rounding", 0.0, |v| f64::from(v as f32) + v.floor() + v.round_ties_even()),
    ];
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 1);
        let mut x: Vec<f64> = (0..300).map(|_| uniform(&mut draw, -50.0, 50.0)).collect();
        x.extend([0.5, 2.5, -3.5, 1e-10, 1e6, -7.25e8, 3e-200, 700.0, -740.0, -1e6]);
        let got = map(gpu, "functions_f64", &x, 8);
        for ((name, allowed, exact), got) in functions.iter().zip(&got) {
            for (&v, &g) in x.iter().zip(got) {
                let error = ulps(g, exact(v), 52);
                // The reference's own functions are good to one ulp.
                let slack = if *allowed > 0.0 { 1.0 } else { 0.0 };
                assert!(
                    error <= allowed + slack,
                    "{name}({v:e}) = {g:e}, {error} ulp from {:e}",
                    exact(v)
                );
            }
        }
    });
}

fn integer_results(a: i64, b: i64) -> [i64; 12] {
    let (ua, ub) = (a as u64, b as u64);
    let (ia, ib) = (a as i32, b as i32);
    let wide = u128::from(ua).wrapping_mul(u128::from(ub)).wrapping_add(u128::from(ua));
    let first = |v: i64| if v == 0 { 0 } else { i64::from(v.trailing_zeros()) + 1 };
    let average = ((i64::from((a >> 2) as i32)) + i64::from((b >> 2) as i32)) >> 1;
    [
        a / b,
        a % b,
        (ua / ub) as i64,
        i64::from(ia.wrapping_div(ib | 1)),
        i64::from(ua as u32 % (ub as u32 | 1)),
        i64::from(
            i32::from(a as i16) * i32::from(b as i16) + i32::from(a as i8) % i32::from(b as i8 | 1),
        ),
        ((i128::from(a) * i128::from(b)) >> 64) as i64,
        (wide >> 77) as i64 ^ wide as i64,
        i64::from(ua.count_ones()) + 100 * i64::from(ua.leading_zeros()) + 10_000 * first(a),
        ua.reverse_bits() as i64 ^ (a >> (b & 63)) ^ (ua << (ub & 31)) as i64,
        a.max(b) - i64::from(ia.min(ib)) + i64::from(((a >> 33) as i32).abs()) + average,
        ((i64::from(ia) * i64::from(ib)) >> 32)
            + i64::from((ua as u32 & 0xff_ffff).wrapping_mul(ub as u32 & 0xff_ffff)),
    ]
}

#[test]
fn integer_arithmetic_of_every_width() {
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 2);
        let mut pairs: Vec<(i64, i64)> = (0..300)
            .map(|_| {
                let (left, right) = (draw.int(0, 50), draw.int(0, 60));
                let b = draw.bits() as i64 >> right;
                (
                    (draw.bits() as i64 >> left).clamp(i64::MIN / 4, i64::MAX / 4),
                    if b == 0 { 7 } else { b.clamp(i64::MIN / 4, i64::MAX / 4) },
                )
            })
            .collect();
        pairs.extend([
            (0, 1),
            (-1, 1),
            (1, -1),
            (-7, 2),
            (7, -2),
            (1 << 40, 3),
            (5, 1 << 40),
            (0x7fff_ffff, -1),
            (-0x8000_0000, 3),
        ]);
        let (x, y): (Vec<i64>, Vec<i64>) = pairs.iter().copied().unzip();
        let (n, out) = (x.len(), gpu.output::<i64>("out", 12 * x.len()));
        let params =
            Params::new().add(gpu.input("x", &x)).add(gpu.input("y", &y)).add(out).add(n as i32);
        gpu.run("integers", Shape::new(n.div_ceil(64) as u32, 64), &params);
        let got = gpu.read::<i64>(out, 12 * n);
        for (i, &(a, b)) in pairs.iter().enumerate() {
            let mine: Vec<i64> = (0..12).map(|f| got[f * n + i]).collect();
            assert_equal(&format!("integers({a}, {b})"), &mine, &integer_results(a, b));
        }
    });
}

fn uniform(draw: &mut Draw, low: f64, high: f64) -> f64 {
    low + (high - low) * draw.unit()
}

/// Magnitudes from 2^-6 to 8, so that sums and products are exact in f64 before they are rounded.
fn moderate(draw: &mut Draw) -> f64 {
    let sign = if draw.bits() & 1 == 0 { 1.0 } else { -1.0 };
    sign * 2f64.powf(uniform(draw, -6.0, 3.0))
}

#[test]
fn packed_halves() {
    SOURCE.each(|gpu| {
        let n = 200usize;
        let mut draw = Draw::new(gpu.seed + 3);
        let mut halves =
            || (0..2 * n).map(|_| f16::from_f64(moderate(&mut draw))).collect::<Vec<_>>();
        let (x, y) = (halves(), halves());
        let mut brains =
            || (0..2 * n).map(|_| bf16::from_f64(moderate(&mut draw))).collect::<Vec<_>>();
        let (bx, by) = (brains(), brains());
        let (out, bout) = (gpu.output::<f16>("out", 24 * n), gpu.output::<bf16>("bout", 12 * n));
        let params = Params::new().add(gpu.input("x", &x)).add(gpu.input("y", &y)).add(out);
        let params =
            params.add(gpu.input("bx", &bx)).add(gpu.input("by", &by)).add(bout).add(n as i32);
        gpu.run("packed", Shape::new(4, 64), &params);
        let got = gpu.read::<f16>(out, 24 * n);
        for i in 0..2 * n {
            let (a, b) = (x[i].to_f64(), y[i].to_f64());
            let want = [
                a + b,
                a - b,
                a * b,
                a.mul_add(b, a),
                a.max(b),
                a.abs().min(-b),
                a.exp2(),
                if a > b { 1.0 } else { 0.0 },
                a.mul_add(b, b).max(0.0),
                if i % 2 == 0 { a } else { b },
                (a + b).clamp(0.0, 1.0),
                a.abs().sqrt(),
            ];
            for (f, &want) in want.iter().enumerate() {
                let (got, want) = (got[f * 2 * n + i].to_f64(), f16::from_f64(want).to_f64());
                // exp2 and sqrt are approximated in f32 first: the rounding may fall to the other side.
                let apart = if f == 6 || f == 11 { want.abs() / 1024.0 } else { 0.0 };
                assert!(
                    (got - want).abs() <= apart,
                    "packed function {f} of {a} and {b}: {got}, not {want}"
                );
            }
        }
        let got = gpu.read::<bf16>(bout, 12 * n);
        for i in 0..2 * n {
            let (a, b) = (bx[i].to_f64(), by[i].to_f64());
            for (f, want) in
                [a + b, a - b, a * b, a.mul_add(b, a), a.max(b), a.min(b)].into_iter().enumerate()
            {
                let (got, want) = (got[f * 2 * n + i].to_f64(), bf16::from_f64(want).to_f64());
                assert_eq!(got, want, "packed bf16 function {f} of {a} and {b}");
            }
        }
    });
}

/// Every finite value of an 8-bit float with its code: `mantissa` bits of mantissa, `codes` positive finite codes.
fn table(mantissa: u32, bias: i32, codes: u8) -> Vec<f64> {
    let value = |code: u8| {
        let (exponent, fraction) =
            (i32::from(code >> mantissa), f64::from(code & ((1 << mantissa) - 1)));
        let scale = 2f64.powi(exponent.max(1) - bias - mantissa as i32);
        scale * (fraction + if exponent > 0 { f64::from(1 << mantissa) } else { 0.0 })
    };
    (0..codes).map(value).collect()
}

/// The code of the value nearest to `v`, ties to the even code, saturating.
fn encode(table: &[f64], v: f64) -> u8 {
    let apart = |code: &usize| ((table[*code] - v.abs()).abs(), code % 2);
    let nearest = (0..table.len())
        .min_by(|a, b| apart(a).partial_cmp(&apart(b)).expect("finite"))
        .expect("not empty");
    nearest as u8 | if v.is_sign_negative() { 0x80 } else { 0 }
}

fn decode(table: &[f64], code: u8) -> f32 {
    let v = table[usize::from(code & 0x7f)] as f32;
    if code & 0x80 != 0 { -v } else { v }
}

/// An f16 next to `v`: the largest one not above it, or the smallest one not below it.
fn directed(v: f64, up: bool) -> f32 {
    let nearest = f16::from_f64(v);
    let step = |to: f16, away: bool| {
        f16::from_bits(if away { to.to_bits() + 1 } else { to.to_bits() - 1 })
    };
    let n = nearest.to_f64();
    let moved = match (n < v, n > v) {
        (true, _) if up => step(nearest, n >= 0.0),
        (_, true) if !up => step(nearest, n < 0.0),
        _ => nearest,
    };
    moved.to_f32()
}

#[test]
fn conversions_each_way() {
    let (e4m3, e5m2) = (table(3, 7, 127), table(2, 15, 124));
    assert_eq!((e4m3[126], e5m2[123]), (448.0, 57344.0));
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 4);
        let mut x: Vec<f32> = (0..400).map(|_| uniform(&mut draw, -600.0, 600.0) as f32).collect();
        x.extend((0..100).map(|_| (draw.normal() * 0.01) as f32));
        x.extend([
            0.0,
            0.5,
            1.5,
            2.5,
            -2.5,
            448.0,
            464.0,
            465.0,
            1.0 / 1024.0,
            -0.0009765625,
            0.0029296875,
        ]);
        let n = x.len();
        let (out, ints) = (gpu.output::<f32>("out", 8 * n), gpu.output::<i64>("ints", 6 * n));
        let bytes = gpu.output::<u32>("bytes", 3 * n);
        let params =
            Params::new().add(gpu.input("x", &x)).add(out).add(ints).add(bytes).add(n as i32);
        gpu.run("conversions", Shape::new(n.div_ceil(64) as u32, 64), &params);
        let (out, ints, bytes) = (
            gpu.read::<f32>(out, 8 * n),
            gpu.read::<i64>(ints, 6 * n),
            gpu.read::<u32>(bytes, 3 * n),
        );
        for (i, &v) in x.iter().enumerate() {
            let wide = f64::from(v);
            let down = |exact: f64| {
                if f64::from(exact as f32) > exact {
                    (exact as f32).next_down()
                } else {
                    exact as f32
                }
            };
            let bits = f64::from(v.to_bits());
            let toward_zero =
                if f64::from(bits as f32) > bits { (bits as f32).next_down() } else { bits as f32 };
            let want = [
                f16::from_f32(v).to_f32(),
                directed(wide, v < 0.0),
                directed(wide, true),
                bf16::from_f32(v).to_f32(),
                down(wide * 1.0000001),
                (v * 1e9) as i64 as f32,
                toward_zero,
                f16::from_f64(f64::from((v * 100.0) as i32)).to_f32(),
            ];
            let mine: Vec<f32> = (0..8).map(|f| out[f * n + i]).collect();
            assert_equal(&format!("floats from {v}"), &mine, &want);
            let want = [
                i64::from(v.round_ties_even() as i32),
                (v * 1e6).ceil() as i64,
                i64::from(v as u32),
                i64::from(f16::from_f32(v).to_f32().floor() as i16),
                i64::from(v as i32 as i8) + i64::from(v as i32 as u8),
                v.abs() as i64,
            ];
            let mine: Vec<i64> = (0..6).map(|f| ints[f * n + i]).collect();
            assert_equal(&format!("integers from {v}"), &mine, &want);
            let (four, five) = (encode(&e4m3, wide), encode(&e5m2, wide));
            let floats = [decode(&e4m3, four).to_bits(), decode(&e5m2, five).to_bits()];
            let want = [u32::from(four) | u32::from(five) << 8, floats[0], floats[1]];
            let mine: Vec<u32> = (0..3).map(|f| bytes[f * n + i]).collect();
            assert_equal(&format!("bytes from {v}"), &mine, &want);
        }
    });
}
