//! Kernels by Triton: a softmax, flash attention, split-KV decode.

use half::{bf16, f16};

use crate::attention::Problem;
use crate::gpu::{Draw, Gpu, Params, Shape, Source, U16, U32, UBF, assert_close, source};

/// Triton appends two pointers to scratch memory, which these kernels do not use.
fn launch(gpu: &Gpu, grid: [u32; 3], params: Params) {
    let (entry, shape) = gpu.triton();
    gpu.run(entry, Shape { grid, ..shape }, &params.add(0u64).add(0u64));
}

#[test]
fn softmax() {
    const SOURCE: Source = source!("triton_softmax");
    let (rows, stride) = (10usize, 210usize);
    for cols in [1usize, 32, 200] {
        SOURCE.each(|gpu| {
            let mut draw = Draw::new(gpu.seed + cols as u64);
            let mut x = vec![f32::NAN; rows * stride];
            let (mut want, mut size) = (Vec::new(), 0f64);
            for row in x.chunks_mut(stride) {
                row[..cols].fill_with(|| (draw.normal() * 5.0) as f32);
                let top = row[..cols].iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
                let powers: Vec<f64> =
                    row[..cols].iter().map(|&v| (f64::from(v) - f64::from(top)).exp()).collect();
                let sum: f64 = powers.iter().sum();
                want.extend(powers.into_iter().map(|p| p / sum));
                size = row[..cols].iter().fold(size, |a, &v| a.max(f64::from(top - v)));
            }
            let out = gpu.output::<f32>("out", rows * stride);
            let params = Params::new().add(gpu.input("x", &x)).add(out);
            launch(gpu, [3, 1, 1], params.add(rows as i32).add(cols as i32).add(stride as i32));
            let mut got = vec![0f32; rows * stride];
            gpu.device.read(out, bytemuck::cast_slice_mut(&mut got)).expect("inside");
            let got: Vec<f64> =
                got.chunks(stride).flat_map(|r| &r[..cols]).map(|&v| f64::from(v)).collect();
            // Exponentials are off by 2 ulp and by the rounding of their argument; the sum by 12 steps; then a division.
            let relative = 2.0 * (4.0 + 3.0 * size + 12.0 + 2.0) * U32;
            assert_close("out", &got, &want, |at| {
                relative * want[at] + f64::from(f32::MIN_POSITIVE)
            });
        });
    }
}

/// Flash attention of `length` tokens at once, as problems of one token each over one block that holds them all.
fn flash<T: bytemuck::Pod>(
    source: &Source,
    causal: bool,
    rounding: f64,
    from: fn(f64) -> T,
    to: fn(&T) -> f64,
) {
    let (heads, kv_heads, dim) = (4usize, 2usize, 64usize);
    for length in [1usize, 64, 100] {
        source.each(|gpu| {
            let n = length as i32;
            let lens: Vec<i32> = (1..=n).map(|i| if causal { i } else { n }).collect();
            let mut p =
                Problem::draw(gpu.seed + 7, &[n], length, [heads, kv_heads, dim], |v| to(&from(v)));
            let block = p.tables[0] as usize;
            p.q = Draw::new(gpu.seed + 8).normals(length * heads * dim, |v| to(&from(v)));
            p.tables = lens.iter().flat_map(|_| [block as i32, i32::MAX]).collect();
            p.lens = lens;
            let row = kv_heads * dim;
            let cut = |cache: &[f64]| {
                cache[block * length * row..][..length * row]
                    .iter()
                    .map(|&v| from(v))
                    .collect::<Vec<T>>()
            };
            let q: Vec<T> = p.q.iter().map(|&v| from(v)).collect();
            let (out, lse) =
                (gpu.output::<T>("out", q.len()), gpu.output::<f32>("lse", heads * length));
            let params = Params::new()
                .add(gpu.input("q", &q))
                .add(gpu.input("k", &cut(&p.k)))
                .add(gpu.input("v", &cut(&p.v)));
            let params =
                params.add(out).add(lse).add(p.scale).add(n).add(heads as i32).add(kv_heads as i32);
            launch(gpu, [length.div_ceil(64) as u32, heads as u32, 1], params);
            let want = p.expected(0.0);
            let got: Vec<f64> = gpu.read::<T>(out, q.len()).iter().map(to).collect();
            // Sums of products on tensor cores are truncated: twice the error of rounding. Probabilities are rounded to
            // 16 bits, then the output is.
            let score_error = 2.0 * p.score_error(&want);
            assert_close(
                "out",
                &got,
                &want.out,
                p.tolerance(&want, score_error, 2.0 * rounding + 2.0 * length as f64 * U32),
            );
            let got = gpu.read::<f32>(lse, heads * length);
            let got: Vec<f64> = (0..length * heads)
                .map(|at| f64::from(got[at % heads * length + at / heads]))
                .collect();
            let slack = score_error + (length as f64 + 8.0) * U32;
            assert_close("lse", &got, &want.lse, |at| {
                slack + 8.0 * U32 * (1.0 + want.lse[at].abs())
            });
        });
    }
}

#[test]
fn flash_f16_causal() {
    flash(&source!("triton_flash_f16_causal"), true, U16, f16::from_f64, |v: &f16| v.to_f64());
}

#[test]
fn flash_bf16() {
    flash(&source!("triton_flash_bf16_full"), false, UBF, bf16::from_f64, |v: &bf16| v.to_f64());
}

/// Split decode and its merge. `rounding` is what the probabilities' format and `extra` what the products' inputs lose.
fn split<T: bytemuck::Pod>(
    source: &Source,
    shape: [usize; 3],
    [rounding, extra]: [f64; 2],
    from: fn(f64) -> T,
    to: fn(&T) -> f64,
) {
    const MERGE: Source = source!("triton_merge");
    let [heads, kv_heads, dim] = shape;
    let splits = 4usize;
    source.each(|gpu| {
        let p = Problem::draw(gpu.seed + 9, &[1, 47, 64, 200], 16, shape, |v| to(&from(v)));
        let up = |name: &str, values: &[f64]| {
            gpu.input(name, &values.iter().map(|&v| from(v)).collect::<Vec<T>>())
        };
        let rows = p.lens.len() * heads;
        let (partial, lse) = (
            gpu.output::<f32>("partial_out", rows * splits * dim),
            gpu.output::<f32>("partial_lse", rows * splits),
        );
        let params = Params::new()
            .add(up("q", &p.q))
            .add(up("k", &p.k))
            .add(up("v", &p.v))
            .add(partial)
            .add(lse);
        let params =
            params.add(gpu.input("tables", &p.tables)).add(gpu.input("lens", &p.lens)).add(p.scale);
        let params = params.add(p.max_blocks as i32).add(heads as i32).add(kv_heads as i32);
        launch(gpu, [p.lens.len() as u32, kv_heads as u32, splits as u32], params);
        let (parts, logs) =
            (gpu.read::<f32>(partial, rows * splits * dim), gpu.read::<f32>(lse, rows * splits));
        let (sm_80, sm_90) = (MERGE.sm_80, MERGE.sm_90);
        let text = if gpu.arch == "sm_80" { sm_80 } else { sm_90 };
        let merge = Gpu::with(gpu, "triton_merge.ptx", text);
        let out = merge.output::<f16>("out", rows * dim);
        let params = Params::new()
            .add(merge.input("partial_out", &parts))
            .add(merge.input("partial_lse", &logs))
            .add(out);
        launch(&merge, [rows as u32, 1, 1], params);
        let want = p.expected(0.0);
        let got: Vec<f64> = merge.read::<f16>(out, rows * dim).iter().map(|v| v.to_f64()).collect();
        let score_error = 2.0 * p.score_error(&want) + extra * want.terms;
        let rounding = rounding + extra + U16 + 400.0 * U32;
        assert_close("out", &got, &want.out, p.tolerance(&want, score_error, rounding));
    });
}

#[test]
fn split_bf16_with_seven_heads_a_group() {
    split(&source!("triton_split_bf16"), [14, 2, 128], [UBF, 0.0], bf16::from_f64, |v: &bf16| {
        v.to_f64()
    });
}

#[test]
fn split_f32_through_tf32() {
    // Both operands of each product are cut to 10 bits of mantissa.
    split(
        &source!("triton_split_fp32"),
        [8, 2, 128],
        [0.0, 2.0 / 1024.0],
        |v| v as f32,
        |v: &f32| f64::from(*v),
    );
}
