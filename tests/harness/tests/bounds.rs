//! The bounds let every right kernel pass and no wrong one: both sides are tried on a model of a tiled kernel
//! in f32 (online softmax, warps, ex2 off by 2 ulp) and on mutated inputs of the reference.

use pagedptx_harness::bounds::{self, Arithmetic, Bounds, worst};
use pagedptx_harness::draw::{Fill, Spec};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::problem::{Attention, Mask, Merge, Tensor};
use pagedptx_harness::reference::{self, Expected};

/// What is wrong with the model kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The accumulator keeps its old maximum.
    NoRescale,
    /// The first tile of the second warp is never taken.
    SkippedTile,
    /// The probability of a key is that of its neighbour.
    ShiftedProb,
    /// Warps' sums are added without their factors.
    NoMergeFactor,
    /// The row sum adds up probabilities rounded to 16 bit, as matrix instructions would: lse shows it.
    RoundedSum,
}

/// One row of one head in f32: `warps` warps take tiles in turn and are merged at the end.
struct Model {
    arithmetic: Arithmetic,
    warps: usize,
    fault: Fault,
    /// State of the errors drawn for ex2.
    noise: u64,
}

/// Maximum (base 2), sum of each lane and accumulator of a part.
type Part = (f32, [f32; 32], Vec<f32>);

/// The sum over the lanes of a warp, in 5 steps.
fn join(mut lanes: [f32; 32]) -> f32 {
    for distance in [16, 8, 4, 2, 1] {
        (0..distance).for_each(|lane| lanes[lane] += lanes[lane + distance]);
    }
    lanes[0]
}

/// Four lanes take four dims in turn and are joined in 2 steps.
fn dot(q: &[f32], key: &[f32]) -> f32 {
    let mut lanes = [0f32; 4];
    for (dim, (q, k)) in q.iter().zip(key).enumerate() {
        lanes[dim / 4 % 4] = q.mul_add(*k, lanes[dim / 4 % 4]);
    }
    (lanes[0] + lanes[1]) + (lanes[2] + lanes[3])
}

impl Model {
    /// 2^x with an error of -2 to 2 ulp.
    fn ex2(&mut self, x: f32) -> f32 {
        self.noise = self.noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
        let ulps = (self.noise >> 33) % 5;
        let exact = f64::from(x).exp2() as f32;
        if exact < f32::MIN_POSITIVE {
            return 0.0;
        }
        if exact == 1.0 { 1.0 } else { f32::from_bits(exact.to_bits() + ulps as u32 - 2) }
    }

    fn row(
        &mut self,
        q: &[f32],
        keys: &[&[f32]],
        values: &[&[f32]],
        scale: f32,
    ) -> (Vec<f64>, f64) {
        let scale_log2 = scale * std::f32::consts::LOG2_E;
        let mut parts: Vec<Part> =
            vec![(f32::NEG_INFINITY, [0.0; 32], vec![0.0; q.len()]); self.warps];
        let tile = self.arithmetic.tile;
        for (index, first) in (0..keys.len()).step_by(tile).enumerate() {
            if self.fault == Fault::SkippedTile && index == 1 {
                continue;
            }
            let range = first..(first + tile).min(keys.len());
            let scores: Vec<f32> =
                keys[range.clone()].iter().map(|k| dot(q, k) * scale_log2).collect();
            let warp = index % self.warps;
            let part = parts[warp].clone();
            parts[warp] = self.tile(part, &scores, &values[range]);
        }
        self.merge(&parts)
    }

    fn tile(
        &mut self,
        (row_max, mut row_sum, mut acc): Part,
        scores: &[f32],
        values: &[&[f32]],
    ) -> Part {
        let new_max = scores.iter().copied().fold(row_max, f32::max);
        let rescale = self.ex2(row_max - new_max);
        row_sum.iter_mut().for_each(|sum| *sum *= rescale);
        if self.fault != Fault::NoRescale {
            acc.iter_mut().for_each(|acc| *acc *= rescale);
        }
        let mut probs: Vec<f32> = scores.iter().map(|score| self.ex2(score - new_max)).collect();
        let rounded = |prob: &f32| self.arithmetic.probs.round(f64::from(*prob)) as f32;
        for (sum, prob) in row_sum.iter_mut().zip(&probs) {
            *sum += if self.fault == Fault::RoundedSum { rounded(prob) } else { *prob };
        }
        if self.fault == Fault::ShiftedProb {
            probs.rotate_right(1);
        }
        for (prob, value) in probs.iter().zip(values) {
            let prob = self.arithmetic.probs.round(f64::from(*prob)) as f32;
            acc.iter_mut().zip(*value).for_each(|(acc, v)| *acc = prob.mul_add(*v, *acc));
        }
        (new_max, row_sum, acc)
    }

    fn merge(&mut self, parts: &[Part]) -> (Vec<f64>, f64) {
        let row_max = parts.iter().map(|part| part.0).fold(f32::NEG_INFINITY, f32::max);
        if row_max == f32::NEG_INFINITY {
            return (vec![0.0; parts[0].2.len()], f64::NEG_INFINITY);
        }
        let (mut sum, mut acc) = (0f32, vec![0f32; parts[0].2.len()]);
        for (part_max, part_sum, part_acc) in parts {
            let exact = if self.fault == Fault::NoMergeFactor { row_max } else { *part_max };
            let factor = self.ex2(exact - row_max);
            sum = join(*part_sum).mul_add(factor, sum);
            acc.iter_mut().zip(part_acc).for_each(|(acc, part)| *acc = part.mul_add(factor, *acc));
        }
        let inverse = 1.0 / sum;
        let lse = (row_max + sum.log2()) * std::f32::consts::LN_2;
        (acc.iter().map(|acc| f64::from(acc * inverse)).collect(), f64::from(lse))
    }
}

/// Runs the model over a decode problem, outputs rounded to the query's type.
fn run(
    problem: &Attention,
    arithmetic: Arithmetic,
    fault: Fault,
    warps: usize,
) -> (Vec<f64>, Vec<f64>) {
    let f32s =
        |tensor: &Tensor| -> Vec<f32> { tensor.values().iter().map(|&x| x as f32).collect() };
    let (q, k, v) = (f32s(&problem.q), f32s(&problem.k_cache), f32s(&problem.v_cache));
    let head_dim = problem.head_dim();
    let mut model = Model { arithmetic, warps, fault, noise: 1 };
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for seq in 0..problem.num_seqs() {
        for head in 0..problem.num_q_heads() {
            let row_of =
                |token| problem.kv_index(problem.slot(seq, token), head / problem.group_size());
            let tokens = 0..problem.seq_lens[seq];
            let keys: Vec<_> =
                tokens.clone().map(|token| &k[row_of(token)..][..head_dim]).collect();
            let values: Vec<_> = tokens.map(|token| &v[row_of(token)..][..head_dim]).collect();
            let q = &q[(seq * problem.num_q_heads() + head) * head_dim..][..head_dim];
            let (out, lse) = model.row(q, &keys, &values, problem.sm_scale as f32);
            outs.extend(out.iter().map(|&x| problem.q.dtype.round(x)));
            lses.push(lse);
        }
    }
    (outs, lses)
}

fn arithmetics(dtype: Dtype) -> Vec<Arithmetic> {
    let tiles = [1, 16, 32];
    let mut all: Vec<_> = tiles.into_iter().map(Arithmetic::cuda_cores).collect();
    if dtype != Dtype::F32 {
        all.push(Arithmetic::tensor_cores(dtype));
    }
    all
}

const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];

/// Lengths from nothing to several hundred tokens, head dimensions small, odd and large.
fn specs(dtype: Dtype, fill: Fill) -> Vec<Spec> {
    let mut specs = vec![
        Spec::decode(dtype, (4, 2), 64, &[0, 1, 15, 16, 17, 300]),
        Spec::decode(dtype, (1, 1), 128, &[600]),
        Spec::decode(dtype, (3, 3), 40, &[33, 130]),
    ];
    for (seed, spec) in (1..).zip(&mut specs) {
        spec.fill = fill;
        spec.seed = seed;
    }
    specs
}

/// Worst out and lse over their bounds.
fn ratios(expected: &Expected, bounds: &Bounds, out: &[f64], lse: &[f64]) -> (f64, f64) {
    (worst(out, &expected.out, &bounds.out).ratio, worst(lse, &expected.lse, &bounds.lse).ratio)
}

/// Every right kernel passes, whatever the inputs, types, tile sizes and number of warps.
#[test]
fn right_kernels_are_within_bounds() {
    for dtype in DTYPES {
        for fill in Fill::ALL {
            for spec in specs(dtype, fill) {
                let problem = spec.build();
                let expected = reference::attention(&problem);
                for arithmetic in arithmetics(dtype) {
                    let bounds = bounds::attention(&problem, &expected, &arithmetic);
                    for warps in [1, 4] {
                        let (out, lse) = run(&problem, arithmetic, Fault::None, warps);
                        let (out, lse) = ratios(&expected, &bounds, &out, &lse);
                        assert!(out <= 1.0 && lse <= 1.0, "{spec:?} {arithmetic:?}: {out} {lse}");
                    }
                }
            }
        }
    }
}

/// A kernel with a fault in its softmax exceeds the bounds on ordinary and on sharp inputs, in every arithmetic.
#[test]
fn faulty_kernels_exceed_the_bounds() {
    let faults = [Fault::NoRescale, Fault::SkippedTile, Fault::ShiftedProb, Fault::NoMergeFactor];
    for dtype in DTYPES {
        for fill in [Fill::Normal, Fill::Sharp] {
            let mut spec = Spec::decode(dtype, (4, 2), 64, &[130, 300]);
            spec.fill = fill;
            let problem = spec.build();
            let expected = reference::attention(&problem);
            for arithmetic in arithmetics(dtype).into_iter().filter(|it| it.tile > 1) {
                let bounds = bounds::attention(&problem, &expected, &arithmetic);
                for fault in faults {
                    let (out, lse) = run(&problem, arithmetic, fault, 4);
                    let (out, lse) = ratios(&expected, &bounds, &out, &lse);
                    assert!(
                        out.max(lse) > 1.0,
                        "{fault:?} {fill:?} {dtype} {arithmetic:?}: {out} {lse}"
                    );
                }
            }
        }
    }
}

/// Probabilities may be rounded to 16 bit before they meet v, but not before they are summed.
#[test]
fn sums_of_rounded_probabilities_exceed_the_bound_of_lse() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let problem = Spec::decode(dtype, (8, 2), 128, &[20, 130, 300]).build();
        let expected = reference::attention(&problem);
        let arithmetic = Arithmetic::tensor_cores(dtype);
        let bounds = bounds::attention(&problem, &expected, &arithmetic);
        let (out, lse) = run(&problem, arithmetic, Fault::RoundedSum, 4);
        let (out, lse) = ratios(&expected, &bounds, &out, &lse);
        assert!(out <= 1.0 && lse > 1.0, "{dtype}: out {out}, lse {lse}");
    }
}

/// What a wrong kernel would see instead of its inputs.
type Mutation = (&'static str, fn(&mut Attention));

/// Overwrites every sequence's newest key or value, in all heads, with that of token 3.
fn stale(problem: &mut Attention, key: bool) {
    let elements = problem.num_kv_heads() * problem.head_dim();
    for seq in 0..problem.num_seqs() {
        let index = |token| problem.kv_index(problem.slot(seq, token), 0);
        let (to, from) = (index(problem.seq_lens[seq] - 1), index(3));
        let cache = if key { &mut problem.k_cache } else { &mut problem.v_cache };
        for offset in 0..elements {
            let value = cache.get(from + offset);
            cache.set(to + offset, value);
        }
    }
}

/// Removes a block of a sequence.
fn skip_block(problem: &mut Attention, seq: usize, block: usize) {
    let row = seq * problem.max_blocks_per_seq;
    problem.block_table[row + block..row + problem.max_blocks_per_seq].rotate_left(1);
    problem.seq_lens[seq] -= problem.block_size();
}

const MUTATIONS: [Mutation; 10] = [
    ("scale 0.2 % too large", |problem| problem.sm_scale *= 1.002),
    ("scale 0.2 % too small", |problem| problem.sm_scale /= 1.002),
    ("newest key dropped", |problem| problem.seq_lens.iter_mut().for_each(|len| *len -= 1)),
    ("newest keys stale", |problem| stale(problem, true)),
    ("newest values stale", |problem| stale(problem, false)),
    ("first block skipped", |problem| skip_block(problem, 0, 0)),
    ("middle block skipped", |problem| skip_block(problem, 0, 2)),
    ("block id off by one", |problem| problem.block_table.swap(1, 2)),
    ("tables of two sequences exchanged", |problem| {
        let width = problem.max_blocks_per_seq;
        (0..width).for_each(|index| problem.block_table.swap(index, width + index));
        problem.seq_lens.swap(0, 1);
    }),
    ("heads of the pool exchanged", |problem| {
        let elements = problem.head_dim() * problem.q.dtype.bytes();
        problem.q.bytes.rotate_left(2 * elements);
    }),
];

/// Outputs of inputs that are off, though computed exactly, exceed the bounds.
#[test]
fn wrong_inputs_exceed_the_bounds() {
    for dtype in DTYPES {
        // Sharp rows are short: among hundreds of keys the newest one's weight would be e^-20.
        let shapes =
            [(Fill::Normal, [130, 90]), (Fill::Normal, [400, 65]), (Fill::Sharp, [49, 20])];
        for (fill, lens) in shapes {
            let mut spec = Spec::decode(dtype, (8, 2), 64, &lens);
            spec.fill = fill;
            let problem = spec.build();
            let expected = reference::attention(&problem);
            for (name, mutate) in MUTATIONS {
                let mut mutated = problem.clone();
                mutate(&mut mutated);
                if name == "block id off by one" {
                    // Exchanged blocks of one sequence hold the same keys: only a foreign block shows.
                    mutated.block_table[2] = mutated.block_table[problem.max_blocks_per_seq];
                }
                let got = reference::attention(&mutated);
                let rounded: Vec<f64> = got.out.iter().map(|&x| dtype.round(x)).collect();
                for arithmetic in arithmetics(dtype) {
                    let bounds = bounds::attention(&problem, &expected, &arithmetic);
                    let (out, lse) = ratios(&expected, &bounds, &rounded, &got.lse);
                    assert!(
                        out.max(lse) > 1.0,
                        "{name}, {dtype} {fill:?} {lens:?} {arithmetic:?}: {out} {lse}"
                    );
                }
            }
        }
    }
}

/// Masks off by one key exceed the bounds.
#[test]
fn wrong_masks_exceed_the_bounds() {
    let base = Mask {
        causal: true,
        window: Some(40),
        soft_cap: Some(5.0),
        alibi: Some(vec![0.25, 0.01]),
        sinks: Some(vec![0.5, 2.0]),
    };
    let mut spec = Spec::decode(Dtype::F32, (2, 1), 64, &[90]);
    spec.seqs = vec![(3, 90)];
    spec.mask = base.clone();
    let problem = spec.build();
    let expected = reference::attention(&problem);
    let bounds = bounds::attention(&problem, &expected, &Arithmetic::cuda_cores(16));
    let mutations: [(&str, Mask); 6] = [
        ("window", Mask { window: Some(41), ..base.clone() }),
        ("causal", Mask { causal: false, ..base.clone() }),
        ("soft cap", Mask { soft_cap: Some(5.01), ..base.clone() }),
        ("no soft cap", Mask { soft_cap: None, ..base.clone() }),
        ("slopes of other heads", Mask { alibi: Some(vec![0.01, 0.25]), ..base.clone() }),
        ("no sinks", Mask { sinks: None, ..base.clone() }),
    ];
    for (name, mask) in mutations {
        let got = reference::attention(&Attention { mask, ..problem.clone() });
        let (out, lse) = ratios(&expected, &bounds, &got.out, &got.lse);
        assert!(out.max(lse) > 1.0, "{name}: {out} {lse}");
    }
}

/// Empty rows have no tolerance at all.
#[test]
fn empty_rows_are_exact() {
    let problem = Spec::decode(Dtype::F16, (2, 1), 8, &[0]).build();
    let expected = reference::attention(&problem);
    let bounds = bounds::attention(&problem, &expected, &Arithmetic::cuda_cores(1));
    assert_eq!(ratios(&expected, &bounds, &[0.0; 16], &[f64::NEG_INFINITY; 2]), (0.0, 0.0));
    let mut out = [0.0; 16];
    out[7] = 6e-8;
    assert_eq!(ratios(&expected, &bounds, &out, &[-1e30; 2]), (f64::INFINITY, f64::INFINITY));
    assert_eq!(ratios(&expected, &bounds, &[f64::NAN; 16], &[0.0; 2]).0, f64::INFINITY);
}

/// Merging in f32 is within bounds; a part left out or a sink counted for each part is not.
#[test]
fn merges() {
    let spec = Spec::decode(Dtype::F32, (4, 4), 32, &[64]);
    let chunks: Vec<_> = [(0, 40), (40, 50), (50, 50), (50, 64)].to_vec();
    let whole = spec.build();
    let (mut outs, mut lses) = (Vec::new(), Vec::new());
    for (start, end) in chunks {
        let mut chunk = whole.clone();
        chunk.mask.causal = false;
        chunk.seq_lens = vec![end];
        chunk.mask.window = Some(end - start);
        // The row's position is end - 1, so that the window is the chunk; an empty chunk has no window.
        if start == end {
            chunk.seq_lens = vec![0];
            chunk.mask.window = None;
        }
        let part = reference::attention(&chunk);
        outs.extend(part.out);
        lses.extend(part.lse.iter().map(|&lse| lse as f32));
    }
    let problem =
        Merge { outs: Tensor::from_values(Dtype::F32, &[4, 1, 4, 32], &outs), lses, sinks: None };
    let merged = reference::merge(&problem);
    let bounds = bounds::merge(&problem, &merged);
    let unsplit = reference::attention(&whole);
    let (out, lse) = ratios(&merged, &bounds, &unsplit.out, &unsplit.lse);
    assert!(out <= 1.0 && lse <= 1.0, "the merge of all parts is the whole: {out} {lse}");

    let mut without_last = problem.clone();
    without_last.lses[12..].fill(f32::NEG_INFINITY);
    let got = reference::merge(&without_last);
    assert!(ratios(&merged, &bounds, &got.out, &got.lse).0 > 1.0, "a part left out");
    let sunk =
        |sinks: f32| reference::merge(&Merge { sinks: Some(vec![sinks; 4]), ..problem.clone() });
    let (once, each) = (sunk(1.0), sunk(1.0 + 4f32.ln()));
    let bounds = bounds::merge(&problem, &once);
    assert!(ratios(&once, &bounds, &each.out, &each.lse).0 > 1.0, "a sink for each part");
}
