//! Paged attention of one token per sequence, by nvcc, against softmax in f64.

use half::{bf16, f16};

use crate::gpu::{Draw, Gpu, Params, Shape, Source, U16, U32, UBF, assert_close, source};

const SOURCE: Source = source!("paged");

/// A drawn problem: values as f64, already rounded to what the kernel reads.
pub struct Problem {
    pub lens: Vec<i32>,
    pub tables: Vec<i32>,
    pub max_blocks: usize,
    pub block: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
    pub scale: f32,
    pub q: Vec<f64>,
    /// [blocks, block, kv_heads, dim]; NaN where no sequence's token lies.
    pub k: Vec<f64>,
    pub v: Vec<f64>,
    pub slopes: Option<Vec<f32>>,
}

/// The expected output, its magnitude sum p|v|, the largest |score|, the sum of |q k| behind it, and lse, for each head.
pub struct Expected {
    pub out: Vec<f64>,
    pub size: Vec<f64>,
    pub score: f64,
    pub terms: f64,
    pub lse: Vec<f64>,
}

impl Problem {
    /// Draws N(0, 1) values through `round`, blocks of each sequence in shuffled places.
    pub fn draw(
        seed: u64,
        lens: &[i32],
        block: usize,
        [heads, kv_heads, dim]: [usize; 3],
        round: impl Fn(f64) -> f64,
    ) -> Problem {
        let mut draw = Draw::new(seed);
        let used: Vec<usize> = lens.iter().map(|&l| (l as usize).div_ceil(block)).collect();
        let max_blocks = used.iter().copied().max().unwrap_or(0) + 1;
        let blocks = used.iter().sum::<usize>() + 2;
        let mut order: Vec<i32> = (0..blocks as i32).collect();
        for i in (1..blocks).rev() {
            order.swap(i, draw.int(0, i as i64) as usize);
        }
        let row = kv_heads * dim;
        let (mut k, mut v) =
            (vec![f64::NAN; blocks * block * row], vec![f64::NAN; blocks * block * row]);
        let mut tables = vec![i32::MAX; lens.len() * max_blocks];
        for (seq, &len) in lens.iter().enumerate() {
            for b in 0..used[seq] {
                let id = order.pop().expect("enough blocks");
                tables[seq * max_blocks + b] = id;
                let live = (len as usize - b * block).min(block) * row;
                let at = id as usize * block * row;
                k[at..at + live]
                    .iter_mut()
                    .chain(&mut v[at..at + live])
                    .for_each(|x| *x = round(draw.normal()));
            }
        }
        let q = draw.normals(lens.len() * heads * dim, &round);
        let scale = 1.0 / (dim as f32).sqrt();
        Problem {
            lens: lens.to_vec(),
            tables,
            max_blocks,
            block,
            heads,
            kv_heads,
            dim,
            scale,
            q,
            k,
            v,
            slopes: None,
        }
    }

    fn row<'a>(&self, cache: &'a [f64], seq: usize, token: usize, head: usize) -> &'a [f64] {
        let block = self.tables[seq * self.max_blocks + token / self.block] as usize;
        let at = ((block * self.block + token % self.block) * self.kv_heads
            + head / (self.heads / self.kv_heads))
            * self.dim;
        &cache[at..at + self.dim]
    }

    /// Softmax over all tokens of each sequence; `floor` is added to the sum of exponentials, as some kernels do.
    pub fn expected(&self, floor: f64) -> Expected {
        let mut all =
            Expected { out: Vec::new(), size: Vec::new(), score: 0.0, terms: 0.0, lse: Vec::new() };
        for (seq, &len) in self.lens.iter().enumerate() {
            for head in 0..self.heads {
                let q = &self.q[(seq * self.heads + head) * self.dim..][..self.dim];
                let slope = self.slopes.as_ref().map_or(0.0, |s| f64::from(s[head]));
                let mut scores = Vec::new();
                for t in 0..len as usize {
                    let products = || {
                        q.iter()
                            .zip(self.row(&self.k, seq, t, head))
                            .map(|(a, b)| a * b * f64::from(self.scale))
                    };
                    scores
                        .push(products().sum::<f64>() + slope * (t as f64 - f64::from(len) + 1.0));
                    all.terms = all.terms.max(products().map(f64::abs).sum());
                }
                let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                all.score = scores.iter().fold(all.score, |a, s| a.max(s.abs()));
                let sum = scores.iter().map(|s| (s - top).exp()).sum::<f64>() + floor;
                let (mut out, mut size) = (vec![0.0; self.dim], vec![0.0; self.dim]);
                for (t, s) in scores.iter().enumerate() {
                    let p = (s - top).exp() / sum;
                    for (d, v) in self.row(&self.v, seq, t, head).iter().enumerate() {
                        out[d] += p * v;
                        size[d] += p * v.abs();
                    }
                }
                all.out.extend(out);
                all.size.extend(size);
                all.lse.push(top + sum.ln());
            }
        }
        all
    }

    /// A bound on |out - expected| for sums in f32 in any order: `score_error` is what each score may be off, `rounding` is
    /// the relative error of the probabilities' and the output's format.
    pub fn tolerance<'a>(
        &self,
        want: &'a Expected,
        score_error: f64,
        rounding: f64,
    ) -> impl Fn(usize) -> f64 + 'a {
        let longest = f64::from(self.lens.iter().copied().max().unwrap_or(0));
        // Numerator and denominator each move by the error of their exponentials and of their sums.
        let relative = 2.0 * (score_error.exp_m1() + (longest + 16.0) * U32) + rounding;
        move |at| relative * want.size[at] + f64::from(f32::MIN_POSITIVE)
    }

    /// What a score in f32 may be off: its dot product in any order, and the argument and result of `ex2.approx`.
    pub fn score_error(&self, want: &Expected) -> f64 {
        (self.dim as f64 + 4.0) * U32 * want.terms + 4.0 * U32 * (2.0 * want.score + 2.0)
    }
}

fn upload<T: bytemuck::Pod>(
    gpu: &Gpu,
    name: &str,
    values: &[f64],
    convert: impl Fn(f64) -> T,
) -> u64 {
    gpu.input(name, &values.iter().map(|&v| convert(v)).collect::<Vec<T>>())
}

#[test]
fn f16_with_linear_biases() {
    let lens = [1, 16, 17, 130];
    SOURCE.each(|gpu| {
        let mut p = Problem::draw(gpu.seed, &lens, 16, [6, 2, 64], |v| f16::from_f64(v).to_f64());
        p.slopes = Some((0..6).map(|h| 2f32.powi(-h - 1)).collect());
        let out = gpu.output::<f16>("out", p.q.len());
        let params = Params::new().add(out).add(upload(gpu, "q", &p.q, f16::from_f64));
        let params = params.add(upload(gpu, "k", &p.k, f16::from_f64)).add(upload(
            gpu,
            "v",
            &p.v,
            f16::from_f64,
        ));
        let params = params
            .add(3i32)
            .add(p.scale)
            .add(gpu.input("tables", &p.tables))
            .add(gpu.input("lens", &p.lens));
        let params = params
            .add(p.max_blocks as i32)
            .add(gpu.input("alibi", p.slopes.as_deref().expect("set")));
        // Of 130 logits and 16 rows of 64 sums, which take each other's place, the rows are larger.
        let shared = 16 * 64 * 4;
        gpu.run("paged_f16_d64_b16", Shape::grid(6, 4, 128).with_shared(shared), &params);
        let want = p.expected(1e-6);
        let got: Vec<f64> = gpu.read::<f16>(out, p.q.len()).iter().map(|v| v.to_f64()).collect();
        assert_close("out", &got, &want.out, p.tolerance(&want, p.score_error(&want), U16));
    });
}

/// The value of an e4m3 code.
fn e4m3(code: u8) -> f64 {
    let (exponent, fraction) = (i32::from(code >> 3 & 15), f64::from(code & 7));
    let value =
        if exponent == 0 { fraction / 512.0 } else { (8.0 + fraction) * 2f64.powi(exponent - 10) };
    if code & 0x80 != 0 { -value } else { value }
}

#[test]
fn e4m3_cache_with_scales() {
    let (k_scale, v_scale) = (0.5f32, 0.375f32);
    let codes = |v: f64| {
        let nearest = (0..=255u8)
            .filter(|c| c & 0x7f != 0x7f)
            .min_by(|&a, &b| (e4m3(a) - v).abs().total_cmp(&(e4m3(b) - v).abs()));
        nearest.expect("not empty")
    };
    SOURCE.each(|gpu| {
        let mut p = Problem::draw(gpu.seed + 1, &[33, 1, 64], 32, [8, 2, 128], |v| e4m3(codes(v)));
        let byte = |v: f64| if v.is_nan() { 0x7f } else { codes(v) };
        let (k, v) = (upload(gpu, "k", &p.k, byte), upload(gpu, "v", &p.v, byte));
        let out = gpu.output::<bf16>("out", p.q.len());
        let params =
            Params::new().add(out).add(upload(gpu, "q", &p.q, bf16::from_f64)).add(k).add(v);
        let params = params
            .add(4i32)
            .add(p.scale)
            .add(gpu.input("tables", &p.tables))
            .add(gpu.input("lens", &p.lens));
        let params = params.add(p.max_blocks as i32).add(k_scale).add(v_scale);
        gpu.run(
            "paged_bf16_e4m3_d128_b32",
            Shape::grid(8, 3, 128).with_shared(8 * 128 * 4),
            &params,
        );
        p.k.iter_mut().for_each(|k| *k *= f64::from(k_scale));
        p.v.iter_mut().for_each(|v| *v *= f64::from(v_scale));
        let want = p.expected(1e-6);
        let got: Vec<f64> = gpu.read::<bf16>(out, p.q.len()).iter().map(|v| v.to_f64()).collect();
        assert_close("out", &got, &want.out, p.tolerance(&want, p.score_error(&want), UBF));
    });
}

#[test]
fn split_and_merged() {
    let lens = [1, 64, 65, 200];
    SOURCE.each(|gpu| {
        let p = Problem::draw(gpu.seed + 2, &lens, 16, [4, 4, 128], |v| bf16::from_f64(v).to_f64());
        let (rows, parts) = (p.lens.len() * p.heads, 4usize);
        let (sums, tops) = (
            gpu.output::<f32>("exp_sums", rows * parts),
            gpu.output::<f32>("max_logits", rows * parts),
        );
        let partial = gpu.output::<bf16>("partial", rows * parts * p.dim);
        let lens = gpu.input("lens", &p.lens);
        let params = Params::new().add(sums).add(tops).add(partial).add(upload(
            gpu,
            "q",
            &p.q,
            bf16::from_f64,
        ));
        let params = params.add(upload(gpu, "k", &p.k, bf16::from_f64)).add(upload(
            gpu,
            "v",
            &p.v,
            bf16::from_f64,
        ));
        let params = params
            .add(1i32)
            .add(p.scale)
            .add(gpu.input("tables", &p.tables))
            .add(lens)
            .add(p.max_blocks as i32);
        let mut shape = Shape::grid(4, 4, 128).with_shared(8 * 128 * 4);
        shape.grid[2] = parts as u32;
        gpu.run("paged_split_bf16_d128_b16", shape, &params);
        let out = gpu.output::<bf16>("out", p.q.len());
        let params =
            Params::new().add(out).add(sums).add(tops).add(partial).add(lens).add(parts as i32);
        gpu.run("paged_merge_bf16_d128", Shape::grid(4, 4, 128).with_shared(parts * 4), &params);
        let want = p.expected(0.0);
        let got: Vec<f64> = gpu.read::<bf16>(out, p.q.len()).iter().map(|v| v.to_f64()).collect();
        // The parts are rounded to bf16 before they are merged; 1e-6 is added to each sum of at least 1, twice.
        assert_close(
            "out",
            &got,
            &want.out,
            p.tolerance(&want, p.score_error(&want), 2.0 * UBF + 2e-6),
        );
    });
}
