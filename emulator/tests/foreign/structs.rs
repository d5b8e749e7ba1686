//! Parameters by value, constant and module memory.

use crate::gpu::{Draw, Gpu, Params, Shape, Source, U32, assert_close, source};

const SOURCE: Source = source!("structs");

/// One `Layer` of cuda/structs.cu with its inputs.
struct Layer {
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    rows: usize,
    columns: usize,
}

impl Layer {
    fn upload(&self, gpu: &Gpu) -> (Params, u64) {
        let out = gpu.output::<f32>("out", self.rows);
        let bias = self.bias.as_ref().map_or(0, |b| gpu.input("bias", b));
        let mut layer = Params::new().add(gpu.input("weight", &self.weight)).add(bias).add(out);
        layer = layer.add(self.rows as i16).add(self.columns as i16);
        layer.align(8);
        (layer, out)
    }
}

#[test]
fn a_struct_full_of_pointers() {
    SOURCE.each(|gpu| {
        let mut draw = Draw::new(gpu.seed);
        let columns = 24;
        let mut layer = |rows: usize, columns: usize, bias: bool| Layer {
            weight: draw.normals(rows * columns, |v| v as f32),
            bias: bias.then(|| draw.normals(rows, |v| v as f32)),
            rows,
            columns,
        };
        let layers = [layer(33, columns, true), layer(64, 7, false), layer(1, columns, true)];
        let input = draw.normals(columns, |v| v as f32);
        let (scale, slope) = (0.75f64, 0.125f32);
        let uploaded = layers.each_ref().map(|l| l.upload(gpu));
        let mut network = Params::new().add(1u8).add(scale);
        network = uploaded.iter().fold(network, |n, (layer, _)| n.add_struct(layer));
        network = network
            .add(gpu.input("input", &input))
            .add(2i32)
            .add(0i32)
            .add(1i32)
            .add(slope)
            .add(1u8);
        network.align(8);
        assert_eq!(network.0.len(), 144);
        gpu.run("layers", Shape::new(3, 64), &network);
        for (layer, (_, out)) in layers.iter().zip(&uploaded) {
            let got: Vec<f64> =
                gpu.read::<f32>(*out, layer.rows).into_iter().map(f64::from).collect();
            let term = |r: usize, i: usize| {
                f64::from(layer.weight[r * layer.columns + i]) * f64::from(input[i])
            };
            let bias = |r: usize| layer.bias.as_ref().map_or(0.0, |b| f64::from(b[r]));
            let rows = || 0..layer.rows;
            let sum = |r| bias(r) + (0..layer.columns).map(|i| term(r, i)).sum::<f64>();
            let size =
                |r| bias(r).abs() + (0..layer.columns).map(|i| term(r, i).abs()).sum::<f64>();
            let leaky = |v: f64| if v < 0.0 { v * f64::from(slope) } else { v };
            let want: Vec<f64> = rows().map(|r| leaky(scale * sum(r))).collect();
            assert_close("out", &got, &want, |r| (layer.columns as f64 + 3.0) * U32 * size(r));
        }
    });
}

#[test]
fn constant_memory_small_parameters_and_a_counter_in_the_module() {
    SOURCE.each(|gpu| {
        let n = 100usize;
        let x = Draw::new(gpu.seed + 1).normals(n, |v| v as f32);
        let extra = Params::new().add(1u8).add(-20i16).add(300i32).add(-4000i64);
        let taps = [0.0625, 0.25, 0.375, 0.25, 0.0625];
        let filtered = |i: usize, f: &dyn Fn(f64) -> f64| {
            (0..5)
                .filter_map(|t| Some(taps[t] * f(f64::from(*x.get((i + t).checked_sub(2)?)?))))
                .sum::<f64>()
        };
        for (turn, (skip, added)) in
            [(7u8, 1.0 - 20.0 + 300.0 - 4000.0), (8, 0.0)].into_iter().enumerate()
        {
            let (out, seen) = (gpu.output::<f32>("out", n), gpu.output::<u32>("seen", 1));
            let params = Params::new().add(gpu.input("x", &x)).add(out).add(n as i16).add(skip);
            let params = params.add_struct(&extra).add(seen);
            gpu.run("filter", Shape::new(4, 32), &params);
            assert_eq!(gpu.read::<u32>(seen, 1)[0], 41 + turn as u32);
            let got: Vec<f64> = gpu.read::<f32>(out, n).into_iter().map(f64::from).collect();
            let want: Vec<f64> = (0..n).map(|i| filtered(i, &|v| v) + added).collect();
            assert_close("out", &got, &want, |i| {
                8.0 * U32 * (filtered(i, &f64::abs) + added.abs())
            });
        }
    });
}
