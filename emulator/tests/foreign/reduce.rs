//! Cooperative groups: reductions, aggregated atomics, groups by label.

use crate::gpu::{Draw, Gpu, Params, Shape, Source, U32, assert_close, assert_equal, source};

const SOURCE: Source = source!("reduce");

#[test]
fn sum_of_floats() {
    SOURCE.each(|gpu: &Gpu| {
        let x = Draw::new(gpu.seed).normals(5000, |v| v as f32);
        let out = gpu.input("out", &[0f32]);
        let params = Params::new().add(gpu.input("x", &x)).add(x.len() as i32).add(out);
        gpu.run("reduce_f32", Shape::new(3, 256), &params);
        let want: f64 = x.iter().map(|&v| f64::from(v)).sum();
        let magnitude: f64 = x.iter().map(|&v| f64::from(v.abs())).sum();
        // Each element passes through at most 7 additions of its thread, two trees of 5 and 3 atomics.
        let got = f64::from(gpu.read::<f32>(out, 1)[0]);
        assert_close("sum", &[got], &[want], |_| 20.0 * U32 * magnitude);
    });
}

#[test]
fn integer_reductions() {
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 10);
        let x: Vec<i32> = (0..1000).map(|_| draw.bits() as i32).collect();
        let ctas = x.len().div_ceil(256);
        let out = gpu.output::<i32>("out", 3 * ctas);
        let params = Params::new().add(gpu.input("x", &x)).add(x.len() as i32).add(out);
        gpu.run("reduce_s32", Shape::new(ctas as u32, 256), &params);
        let want: Vec<i32> = x
            .chunks(256)
            .flat_map(|part| {
                let sum = part.iter().fold(0i32, |a, &b| a.wrapping_add(b));
                [sum, *part.iter().max().expect("not empty"), part.iter().fold(0, |a, &b| a | b)]
            })
            .collect();
        assert_equal("reductions", &gpu.read::<i32>(out, 3 * ctas), &want);
    });
}

#[test]
fn compaction_keeps_each_positive_element_once() {
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 20);
        let x: Vec<i32> = (0..700).map(|_| draw.int(-50, 50) as i32).collect();
        let mut want: Vec<i32> = x.iter().copied().filter(|&v| v > 0).collect();
        let (kept, count) = (gpu.output::<i32>("kept", want.len()), gpu.input("count", &[0u32]));
        let params = Params::new().add(gpu.input("x", &x)).add(x.len() as i32).add(kept).add(count);
        gpu.run("compact", Shape::new(6, 128), &params);
        assert_eq!(gpu.read::<u32>(count, 1)[0] as usize, want.len());
        let mut got = gpu.read::<i32>(kept, want.len());
        got.sort_unstable();
        want.sort_unstable();
        assert_equal("kept", &got, &want);
    });
}

#[test]
fn groups_by_label_and_scans() {
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 30);
        let mut keys: Vec<i32> = (0..256).map(|_| draw.int(0, 9) as i32).collect();
        keys[64..96].copy_from_slice(&std::array::from_fn::<i32, 32, _>(|i| 1000 - i as i32)); // all different
        let (same, scanned) = (gpu.output::<i32>("same", 256), gpu.output::<i32>("scanned", 256));
        let params = Params::new().add(gpu.input("keys", &keys)).add(same).add(scanned);
        gpu.run("labels", Shape::new(2, 128), &params);
        let warp = |i: usize| &keys[i / 32 * 32..i / 32 * 32 + 32];
        let count = |i: usize, key: i32| warp(i).iter().filter(|&&k| k == key).count() as i32;
        let alone = |i: usize| warp(i).iter().all(|&k| count(i, k) == 1);
        let want: Vec<i32> =
            (0..256).map(|i| if alone(i) { -1 } else { count(i, keys[i]) }).collect();
        assert_equal("same", &gpu.read::<i32>(same, 256), &want);
        let want: Vec<i32> = (0..256).map(|i| keys[i / 8 * 8..=i].iter().sum()).collect();
        assert_equal("scanned", &gpu.read::<i32>(scanned, 256), &want);
    });
}
