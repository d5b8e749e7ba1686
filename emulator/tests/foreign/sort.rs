//! Sorting networks and an insertion into a local array.

use crate::gpu::{Draw, Params, Shape, Source, assert_equal, source};

const SOURCE: Source = source!("sort");

#[test]
fn each_warp_sorts_its_keys_and_carries_values() {
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed);
        let keys: Vec<u32> = (0..256)
            .map(|i| if i < 128 { draw.bits() as u32 } else { draw.int(0, 5) as u32 })
            .collect();
        let values: Vec<f32> = (0..256).map(|i| i as f32).collect();
        let (k, v) = (gpu.input("keys", &keys), gpu.input("values", &values));
        gpu.run("sort_warp", Shape::new(2, 128), &Params::new().add(k).add(v));
        let (got_keys, got_values) = (gpu.read::<u32>(k, 256), gpu.read::<f32>(v, 256));
        for warp in 0..8 {
            let run = warp * 32..warp * 32 + 32;
            let mut want = keys[run.clone()].to_vec();
            want.sort_unstable();
            assert_equal("keys", &got_keys[run.clone()], &want);
            let mut seen: Vec<usize> =
                got_values[run.clone()].iter().map(|&v| v as usize).collect();
            assert!(run.clone().all(|i| keys[got_values[i] as usize] == got_keys[i]));
            seen.sort_unstable();
            assert_equal("values", &seen, &run.collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_cta_sorts_through_shared_memory() {
    for count in [1usize, 100, 128] {
        SOURCE.each(|gpu| {
            let mut draw = Draw::new(gpu.seed + count as u64);
            let mut keys: Vec<i64> = (0..count).map(|_| draw.bits() as i64).collect();
            let k = gpu.input("keys", &keys);
            let params = Params::new().add(k).add(count as i32);
            gpu.run("sort_cta", Shape::new(1, 64).with_shared(128 * 8), &params);
            keys.sort_unstable();
            assert_equal("keys", &gpu.read::<i64>(k, count), &keys);
        });
    }
}

#[test]
fn largest_of_each_row() {
    let (rows, n) = (64usize, 40usize);
    for k in [1usize, 5, 8] {
        SOURCE.each(|gpu| {
            let mut draw = Draw::new(gpu.seed + k as u64);
            let x: Vec<f32> = (0..rows * n).map(|_| draw.int(-20, 20) as f32).collect();
            let (top, index) =
                (gpu.output::<f32>("top", rows * k), gpu.output::<i32>("index", rows * k));
            let params = Params::new()
                .add(gpu.input("rows", &x))
                .add(top)
                .add(index)
                .add(n as i32)
                .add(k as i32);
            gpu.run("top_k", Shape::new(2, 32), &params);
            let (top, index) = (gpu.read::<f32>(top, rows * k), gpu.read::<i32>(index, rows * k));
            for (row, values) in x.chunks(n).enumerate() {
                // Among equals the earlier stays first.
                let mut order: Vec<usize> = (0..n).collect();
                order.sort_by(|&a, &b| values[b].total_cmp(&values[a]).then(a.cmp(&b)));
                let want: Vec<i32> = order[..k].iter().map(|&i| i as i32).collect();
                assert_equal("index", &index[row * k..][..k], &want);
                let want: Vec<f32> = order[..k].iter().map(|&i| values[i]).collect();
                assert_equal("top", &top[row * k..][..k], &want);
            }
        });
    }
}
