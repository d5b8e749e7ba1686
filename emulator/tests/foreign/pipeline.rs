//! Copies behind barriers and pipelines.

use crate::gpu::{Draw, Params, Shape, Source, U32, assert_close, assert_equal, source};

const SOURCE: Source = source!("pipeline");

#[test]
fn copies_that_arrive_on_a_barrier() {
    SOURCE.each(|gpu| {
        let x = Draw::new(gpu.seed).normals(5 * 256, |v| v as f32);
        let out = gpu.output::<f32>("out", x.len());
        let params = Params::new().add(gpu.input("x", &x)).add(out).add(5i32);
        gpu.run("barrier_copy", Shape::new(2, 128), &params);
        let want: Vec<f32> =
            (0..x.len()).map(|i| x[i] + x[i / 256 * 256 + 255 - i % 256]).collect();
        assert_equal("out", &gpu.read::<f32>(out, x.len()), &want);
    });
}

#[test]
fn producer_and_consumers() {
    for steps in [1usize, 2, 3, 9] {
        SOURCE.each(|gpu| {
            let mut draw = Draw::new(gpu.seed + steps as u64);
            let x: Vec<i32> = (0..96 * steps).map(|_| draw.bits() as i32).collect();
            let out = gpu.output::<i64>("out", 96);
            let params = Params::new().add(gpu.input("x", &x)).add(out).add(steps as i32);
            gpu.run("barrier_roles", Shape::new(1, 128), &params);
            let sum =
                |i: usize| (0..steps).map(|s| (s as i64 + 1) * i64::from(x[96 * s + i])).sum();
            let want: Vec<i64> = (0..96).map(sum).collect();
            assert_equal("out", &gpu.read::<i64>(out, 96), &want);
        });
    }
}

/// sum over tiles of x[tile][i] * (tile + 1), and the same of absolute values.
fn weighted(x: &[f32], width: usize) -> (Vec<f64>, Vec<f64>) {
    let term = |t: usize, i: usize| f64::from(x[t * width + i]) * (t as f64 + 1.0);
    let tiles = x.len() / width;
    let sum = |f: &dyn Fn(f64) -> f64| {
        (0..width).map(|i| (0..tiles).map(|t| f(term(t, i))).sum()).collect()
    };
    (sum(&|v| v), sum(&f64::abs))
}

#[test]
fn a_pipeline_of_the_cta() {
    for tiles in [1usize, 2, 7] {
        SOURCE.each(|gpu| {
            let x = Draw::new(gpu.seed + tiles as u64).normals(64 * tiles, |v| v as f32);
            let out = gpu.output::<f32>("out", 64);
            let params = Params::new().add(gpu.input("x", &x)).add(out).add(tiles as i32);
            gpu.run("pipeline_shared", Shape::new(1, 64).with_shared(2 * 64 * 4), &params);
            let (want, magnitude) = weighted(&x, 64);
            let got: Vec<f64> = gpu.read::<f32>(out, 64).into_iter().map(f64::from).collect();
            assert_close("out", &got, &want, |i| 2.0 * tiles as f64 * U32 * magnitude[i]);
        });
    }
}

#[test]
fn a_pipeline_of_each_thread() {
    for tiles in [1usize, 4, 9] {
        SOURCE.each(|gpu| {
            let x = Draw::new(gpu.seed + tiles as u64).normals(256 * tiles, |v| v as f32);
            let out = gpu.output::<f32>("out", 256);
            let params = Params::new().add(gpu.input("x", &x)).add(out).add(tiles as i32);
            gpu.run("pipeline_thread", Shape::new(1, 64), &params);
            let (want, magnitude) = weighted(&x, 256);
            let got: Vec<f64> = gpu.read::<f32>(out, 256).into_iter().map(f64::from).collect();
            assert_close("out", &got, &want, |i| 2.0 * tiles as f64 * U32 * magnitude[i]);
        });
    }
}
