//! Histograms, one record updated in every way, and orders among CTAs.

use half::{bf16, f16};

use crate::gpu::{Draw, Params, Shape, Source, assert_equal, source};

const SOURCE: Source = source!("atomics");

#[test]
fn histogram_of_bytes() {
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed);
        let x: Vec<u8> = (0..4000).map(|_| (draw.bits() & draw.bits() & 0xff) as u8).collect();
        let bins = gpu.input("bins", &[3u32; 256]);
        let params = Params::new().add(gpu.input("x", &x)).add(x.len() as i32).add(bins);
        gpu.run("histogram", Shape::new(4, 128), &params);
        let mut want = [3u32; 256];
        x.iter().for_each(|&b| want[usize::from(b)] += 1);
        assert_equal("bins", &gpu.read::<u32>(bins, 256), &want);
    });
}

#[test]
fn every_atomic_on_one_record() {
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed + 1);
        let x: Vec<i32> = (0..300).map(|_| draw.int(-1000, 1000) as i32).collect();
        let record = Params::new()
            .add(5u64)
            .add(i32::MAX)
            .add(i32::MIN)
            .add(0u32)
            .add(u32::MAX)
            .add(0u32)
            .add(0u32);
        let record = record.add(0.25f64).add(1.0f32).add(0u32);
        let summary = gpu.input("summary", &record.0);
        let halves = gpu.input("halves", &[f16::ZERO; 8]);
        let brains = gpu.input("brains", &[bf16::ZERO; 8]);
        let params = Params::new()
            .add(gpu.input("x", &x))
            .add(x.len() as i32)
            .add(summary)
            .add(halves)
            .add(brains);
        gpu.run("summarise", Shape::new(3, 128), &params);

        let odd = x.iter().filter(|&&v| v & 1 != 0).count() as i32;
        let product = 2f32.powi(2 * odd - x.len() as i32);
        let want = Params::new()
            .add(x.iter().fold(5u64, |a, &b| a.wrapping_add(i64::from(b) as u64)))
            .add(x.iter().copied().min().expect("not empty"))
            .add(x.iter().copied().max().expect("not empty"))
            .add(x.iter().fold(0u32, |a, &b| a | b as u32))
            .add(x.iter().fold(u32::MAX, |a, &b| a & b as u32))
            .add(x.iter().fold(0u32, |a, &b| a ^ b as u32))
            .add((x.len() % 7) as u32)
            .add(0.25 + x.iter().map(|&v| f64::from(v) * 0.5).sum::<f64>())
            .add(product)
            .add(0u32);
        assert_equal("summary", &gpu.read::<u8>(summary, 48), &want.0);
        // Sums of small integers, exact in either format.
        let part =
            |j: usize| x.iter().enumerate().filter(move |(i, _)| i % 4 == j).map(|(_, &v)| v);
        let pairs = |mask| {
            (0..4).flat_map(move |j| {
                [part(j).count() as f32, part(j).map(|v| (v & mask) as f32).sum()]
            })
        };
        let got: Vec<f32> = gpu.read::<f16>(halves, 8).into_iter().map(f32::from).collect();
        assert_equal("halves", &got, &pairs(3).collect::<Vec<_>>());
        let got: Vec<f32> = gpu.read::<bf16>(brains, 8).into_iter().map(f32::from).collect();
        assert_equal("brains", &got, &pairs(1).collect::<Vec<_>>());
    });
}

#[test]
fn the_last_cta_adds_up_what_the_others_left() {
    for ctas in [1usize, 2, 37] {
        SOURCE.each(|gpu| {
            let x = Draw::new(gpu.seed + ctas as u64).normals(32 * ctas, |v| v as f32);
            let (partial, arrived) =
                (gpu.output::<f32>("partial", ctas), gpu.input("arrived", &[0u32]));
            let out = gpu.output::<f32>("out", 1);
            let params = Params::new().add(gpu.input("x", &x)).add(partial).add(arrived).add(out);
            gpu.run("last_cta", Shape::new(ctas as u32, 32), &params);
            let sums: Vec<f32> = x.chunks(32).map(|c| c.iter().fold(0f32, |a, b| a + b)).collect();
            assert_equal("partial", &gpu.read::<f32>(partial, ctas), &sums);
            assert_eq!(gpu.read::<f32>(out, 1)[0], sums.iter().fold(0f32, |a, b| a + b));
            assert_eq!(gpu.read::<u32>(arrived, 1)[0], 0);
        });
    }
}

#[test]
fn ctas_take_turns() {
    SOURCE.each(|gpu| {
        let (turn, value) = (gpu.input("turn", &[0u32]), gpu.input("value", &[7u32]));
        gpu.run("chain", Shape::new(9, 32), &Params::new().add(turn).add(value));
        assert_eq!(gpu.read::<u32>(turn, 1)[0], 9);
        assert_eq!(gpu.read::<u32>(value, 1)[0], (0..9).fold(7u32, |v, b| v * 3 + b));
    });
}
