//! Matrix products through `wmma`.

use half::{bf16, f16};

use crate::gpu::{Draw, Params, Shape, Source, assert_close, assert_equal, source};
use crate::matrix::{lost, product, wide};

const WMMA: Source = source!("wmma");

/// A kernel `c = a b + c` in f32, with 8 products to a step: `b` column by column, and sums to begin with if it `adds`.
fn check_product<T: bytemuck::Pod + Into<f64>>(
    entry: &str,
    (m, n, k): (usize, usize, usize),
    shape: Shape,
    round: fn(f64) -> T,
    adds: bool,
) {
    WMMA.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + (m + n + k) as u64);
        let (a, b) = (draw.normals(m * k, round), draw.normals(k * n, round));
        let before = draw.normals(m * n, |v| v as f32);
        let c = if adds { gpu.input("c", &before) } else { gpu.output::<f32>("c", m * n) };
        let params = Params::new()
            .add(gpu.input("a", &a))
            .add(gpu.input("b", &b))
            .add(c)
            .add(n as i32)
            .add(k as i32);
        gpu.run(entry, shape, &params);
        let (a, b) = (wide(&a), wide(&b));
        let (mut want, mut size) = product(m, n, k, &a, |i, j| b[j * k + i]);
        for (at, &v) in before.iter().enumerate().filter(|_| adds) {
            want[at] += f64::from(v);
            size[at] += f64::from(v.abs());
        }
        assert_close("c", &wide(&gpu.read::<f32>(c, m * n)), &want, |at| lost(k, 8) * size[at]);
    });
}

#[test]
fn wmma_f16_with_f32_sums() {
    let shape = Shape::grid(3, 2, 32);
    check_product("wmma_f16_f32", (32, 48, 64), shape, f16::from_f64, false);
}

#[test]
fn wmma_bf16_adds_to_what_is_there() {
    check_product("wmma_bf16", (64, 24, 32), Shape::grid(3, 2, 32), bf16::from_f64, true);
}

#[test]
fn wmma_f16_with_f16_sums_through_shared_memory() {
    let (m, n, k, alpha) = (32usize, 16usize, 48usize, 0.5f32);
    WMMA.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 1);
        let (a, b) = (draw.normals(m * k, f16::from_f64), draw.normals(k * n, f16::from_f64));
        let c = gpu.output::<f16>("c", m * n);
        let params = Params::new().add(gpu.input("a", &a)).add(gpu.input("b", &b)).add(c);
        let params = params.add(m as i32).add(n as i32).add(k as i32).add(alpha);
        gpu.run("wmma_f16_f16", Shape::grid(1, 2, 32), &params);
        let (a, b) = (wide(&a), wide(&b));
        let (want, size) = product(m, n, k, &a, |i, j| b[i * n + j]);
        let want: Vec<f64> = want.iter().map(|v| v * f64::from(alpha)).collect();
        let got = wide(&gpu.read::<f16>(c, m * n));
        let got: Vec<f64> = (0..m * n).map(|at| got[at % n * m + at / n]).collect(); // column-major
        // Each instruction rounds its sums to f16, at depth 8 or 16, and the scaling rounds once more.
        let roundings = (k / 8 + 1) as f64;
        assert_close("c", &got, &want, |at| {
            f64::from(alpha) * (roundings / 2048.0 + lost(k, 8)) * size[at]
        });
    });
}

/// To 10 bits of mantissa, ties away from zero, as `cvt.rna.tf32.f32` does.
fn tf32(v: f32) -> f64 {
    f64::from(f32::from_bits((v.to_bits() + 0x1000) & !0x1fff))
}

#[test]
fn wmma_tf32_rounds_its_inputs() {
    let (m, n, k) = (16usize, 32usize, 40usize);
    WMMA.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 3);
        let (a, b) = (draw.normals(m * k, |v| v as f32), draw.normals(k * n, |v| v as f32));
        let c = gpu.output::<f32>("c", m * n);
        let params = Params::new()
            .add(gpu.input("a", &a))
            .add(gpu.input("b", &b))
            .add(c)
            .add(n as i32)
            .add(k as i32);
        gpu.run("wmma_tf32", Shape::grid(2, 1, 32), &params);
        let a: Vec<f64> = a.into_iter().map(tf32).collect();
        let (want, size) = product(m, n, k, &a, |i, j| tf32(b[j * k + i]));
        assert_close("c", &wide(&gpu.read::<f32>(c, m * n)), &want, |at| lost(k, 4) * size[at]);
    });
}

#[test]
fn wmma_s8_is_exact() {
    let (m, n, k) = (32usize, 32usize, 48usize);
    WMMA.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 4);
        let mut bytes = |count| (0..count).map(|_| draw.bits() as i8).collect::<Vec<i8>>();
        let (a, b) = (bytes(m * k), bytes(k * n));
        let c = gpu.output::<i32>("c", m * n);
        let params = Params::new()
            .add(gpu.input("a", &a))
            .add(gpu.input("b", &b))
            .add(c)
            .add(n as i32)
            .add(k as i32);
        gpu.run("wmma_s8", Shape::grid(2, 2, 32), &params);
        let element = |at: usize| {
            (0..k).map(|i| i32::from(a[at / n * k + i]) * i32::from(b[at % n * k + i])).sum()
        };
        let want: Vec<i32> = (0..m * n).map(element).collect();
        assert_equal("c", &gpu.read::<i32>(c, m * n), &want);
    });
}
