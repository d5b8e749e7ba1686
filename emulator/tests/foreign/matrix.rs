//! Matrix products through `ldmatrix` and `mma`.

use half::{bf16, f16};

use crate::gpu::{Draw, Params, Shape, Source, U32, assert_close, source};

const LDMATRIX: Source = source!("ldmatrix");

/// A matrix product in f64 with the magnitude of each element: A is m x k row-major, `b(row, column)` any.
pub fn product(
    m: usize,
    n: usize,
    k: usize,
    a: &[f64],
    b: impl Fn(usize, usize) -> f64,
) -> (Vec<f64>, Vec<f64>) {
    let sum = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
        (0..m * n).map(|at| (0..k).map(|i| f(a[at / n * k + i] * b(i, at % n))).sum()).collect()
    };
    (sum(&|v| v), sum(&f64::abs))
}

/// What sums on tensor cores may lose, relative to the sum of magnitudes: each instruction aligns its products and the sum
/// so far to the largest and truncates them at 23 bits or more below it, then rounds.
pub fn lost(k: usize, depth: usize) -> f64 {
    let steps = k.div_ceil(depth) as f64;
    (k as f64 + 2.0 * steps + 1.0) * 2.0 * U32
}

pub fn wide<T: Copy + Into<f64>>(values: &[T]) -> Vec<f64> {
    values.iter().map(|&v| v.into()).collect()
}

/// The tiled product of cuda/ldmatrix.cu on one element type; rows past `m` of the last tile are zero-filled.
fn tiled<T: bytemuck::Pod + Into<f64>>(entry: &str, round: fn(f64) -> T) {
    let (m, n, k) = (100usize, 128usize, 96usize);
    LDMATRIX.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 5);
        let (a, b) = (draw.normals(m * k, round), draw.normals(k * n, round));
        let c = gpu.output::<f32>("c", m * n);
        let params = Params::new().add(gpu.input("a", &a)).add(gpu.input("b", &b)).add(c);
        let params = params.add(m as i32).add(n as i32).add(k as i32);
        gpu.run(entry, Shape::grid(2, 2, 128), &params);
        let (a, b) = (wide(&a), wide(&b));
        let (want, size) = product(m, n, k, &a, |i, j| b[i * n + j]);
        assert_close("c", &wide(&gpu.read::<f32>(c, m * n)), &want, |at| lost(k, 8) * size[at]);
    });
}

#[test]
fn tiles_of_f16_by_ldmatrix() {
    tiled("gemm_f16", f16::from_f64);
}

#[test]
fn tiles_of_bf16_by_ldmatrix() {
    tiled("gemm_bf16", bf16::from_f64);
}
