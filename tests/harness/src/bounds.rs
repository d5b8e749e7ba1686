//! How far a right kernel may be from the f64 reference: computed from types, sizes and magnitudes.
//!
//! # Derivation
//!
//! A kernel computes in f32, u = 2⁻²⁴ being half a unit in the last place of 1 (tensor cores truncate
//! instead of rounding: u = 2⁻²³). A product of k factors (1 + δ), |δ| ≤ u, is 1 + θ with |θ| ≤ γ(k) = k·u / (1 − k·u)
//! (Higham, "Accuracy and Stability of Numerical Algorithms", lemma 3.1). Every step below is an upper bound;
//! no step is fitted to a run. Symbols are those of [`RowMagnitudes`]: one row of one head with n keys.
//!
//! **Scores.** A key's score is a sum of d products in any order: each passes at most d − 1 additions that
//! round, 1 product and 4 scalings (sm_scale and k_scale multiplied, log2(e) rounded, multiplied in, the factor
//! applied). It is off by at most e₁ = γ(d + 4) · A, A = `max_abs_dot`. A tensor core adds 8 or 16 products and
//! the accumulator at once, each truncated at 24 fractional bits of the largest, then truncates the sum: at most 11 · 2⁻²⁴ · A
//! per 8 products, less than d · 2⁻²³ · A in all for d ≥ 8 with the scalings.
//! The soft cap is 1-Lipschitz and adds its own e₂ = 8·u·(cap + `max_score`) for its ex2 (2 ulp), rcp, the quotient
//! and the products; ALiBi adds e₃ = 4·u·`max_alibi`.
//!
//! **Weights.** prob = ex2(logit − maximum): rounding the logit, the difference and, each time the maximum
//! moves, the difference of maxima (these telescope, in a chunk and again in the merge) costs e₄ = 9·u·`max_logit`. ex2.approx
//! is off by 2 ulp (PTX ISA, "Floating Point Instructions: ex2"), 4u. A shift that all keys share cancels between numerator and sum.
//! So a weight is off by the factor exp(±e), e = e₁ + e₂ + e₃ + e₄, times 1 + θ.
//!
//! **Sums.** On its way into a sum a weight (times v) passes at most n − 1 additions that round, 1 product and 4u
//! for ex2, and for every tile of the online softmax, every warp and every chunk that is merged, one rescale: 4u for
//! its factor, 1 product. With T = ceil(n / tile) + 2 such rescales, θ ≤ γ(n + 5 + 5·T). Numerator and sum are both within
//! a factor 1 ± E, E = exp(e)·(1 + γ) − 1, of the truth; the quotient (rcp, v_scale, product: 4u) is off by
//! E·(abs_out + |out|) + 4·u·|out|.
//!
//! **16-bit probabilities** are rounded before they meet v but not before they are summed: u_p·abs_out more,
//! and below their normal range an absolute error on weights whose largest is 1: underflow_p · Σ|v| / row_sum.
//! The f32 weights themselves flush below 2⁻¹²⁶.
//!
//! **Output.** Rounding to the query's type: u_q·(|out| + error) + underflow_q. Whatever its weights are, an
//! average is no larger than the largest |v|: the error never passes that plus |out|. (That is what remains of the bound when
//! scores are so large that e says nothing.)
//!
//! **lse** = maximum + ln(sum): ln(1 + E) for the sum, lg2.approx (PTX ISA: 2⁻²² absolute near 1, else relative, the
//! argument up to 2⁸ larger where rescaling has a threshold) and the roundings of the last sum and product.
//!
//! An empty row has no error: out 0, lse −inf.
//!
//! These bounds are worst cases, 10 to 100 times what a run shows in f32. `tests/bounds.rs` shows that they are tight
//! enough all the same: a scale off by 0.2 %, a key dropped, stale or misplaced, a rescale left out all exceed them.

use crate::dtype::Dtype;
use crate::problem::{Attention, Merge};
use crate::reference::{Expected, RowMagnitudes};

/// How a kernel computes, as far as its errors depend on it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arithmetic {
    /// Relative error of one f32 operation.
    pub unit: f64,
    /// Type to which probabilities are rounded before they are multiplied with V.
    pub probs: Dtype,
    /// Keys of a tile: between two of them the maximum may move.
    pub tile: usize,
}

impl Arithmetic {
    /// f32 FMA on the CUDA cores, probabilities not rounded.
    pub fn cuda_cores(tile: usize) -> Self {
        Self { unit: 2f64.powi(-24), probs: Dtype::F32, tile }
    }

    /// Tensor cores, probabilities rounded to `probs`.
    pub fn tensor_cores(probs: Dtype, tile: usize) -> Self {
        Self { unit: 2f64.powi(-23), probs, tile }
    }

    /// Largest |θ| of a product of `count` factors 1 + δ; infinite when there are too many to say.
    fn gamma(&self, count: usize) -> f64 {
        let sum = count as f64 * self.unit;
        if sum < 1.0 { sum / (1.0 - sum) } else { f64::INFINITY }
    }

    /// E of the module's derivation.
    fn weight_error(&self, row: &RowMagnitudes, head_dim: usize, soft_cap: Option<f64>) -> f64 {
        let e1 = self.gamma(head_dim + 4) * row.max_abs_dot;
        let e2 = soft_cap.map_or(0.0, |cap| 8.0 * self.unit * (cap + row.max_score));
        let e3 = 4.0 * self.unit * row.max_alibi;
        let e4 = 9.0 * self.unit * row.max_logit;
        let rescales = row.num_keys.div_ceil(self.tile) + 2;
        (e1 + e2 + e3 + e4).exp() * (1.0 + self.gamma(row.num_keys + 5 + 5 * rescales)) - 1.0
    }
}

/// Largest error allowed of each output and each lse.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Like the output.
    pub out: Vec<f64>,
    /// Like the lse.
    pub lse: Vec<f64>,
}

/// Bounds of attention's results, outputs rounded to `out_dtype`.
pub fn attention(problem: &Attention, expected: &Expected, arithmetic: &Arithmetic) -> Bounds {
    let weight_error = |row: &RowMagnitudes| {
        arithmetic.weight_error(row, problem.head_dim(), problem.mask.soft_cap)
    };
    bounds(expected, arithmetic, problem.q.dtype, weight_error)
}

/// Bounds of a merge's f32 results: every part is a key, its lse the logit.
pub fn merge(problem: &Merge, expected: &Expected) -> Bounds {
    let arithmetic = Arithmetic::cuda_cores(1);
    let weight_error = |row: &RowMagnitudes| arithmetic.weight_error(row, 0, None);
    bounds(expected, &arithmetic, problem.outs.dtype, weight_error)
}

fn bounds(
    expected: &Expected,
    arithmetic: &Arithmetic,
    out_dtype: Dtype,
    weight_error: impl Fn(&RowMagnitudes) -> f64,
) -> Bounds {
    let u = arithmetic.unit;
    let head_dim = expected.out.len().checked_div(expected.rows.len()).unwrap_or(0);
    let mut bounds = Bounds { out: Vec::new(), lse: Vec::new() };
    for (index, row) in expected.rows.iter().enumerate() {
        if row.num_keys == 0 {
            bounds.out.resize(bounds.out.len() + head_dim, 0.0);
            bounds.lse.push(0.0);
            continue;
        }
        let weight = weight_error(row);
        let (lse, ln_sum) = (expected.lse[index].abs(), (row.num_keys as f64).ln() + 8.0);
        let lg2 = 2f64.powi(-22) * (1.0 + ln_sum);
        bounds.lse.push(weight.ln_1p() + lg2 + u * (3.0 * lse + 2.0 * row.max_logit));
        for element in index * head_dim..(index + 1) * head_dim {
            let (out, abs_out) = (expected.out[element].abs(), expected.abs_out[element]);
            let (probs, least) = match arithmetic.probs {
                Dtype::F32 => (0.0, 2f64.powi(-126)),
                dtype => (dtype.unit_roundoff(), dtype.underflow() + 2f64.powi(-126)),
            };
            let error = weight * (abs_out + out)
                + 4.0 * u * out
                + probs * abs_out
                + least * expected.sum_abs_v[element] / row.row_sum;
            // The average itself, computed: its weights add up to 1 within the sums' roundings.
            let hull = (out + expected.max_abs_v[element]) * (1.0 + arithmetic.gamma(row.num_keys));
            let error = error.min(hull);
            let rounding = out_dtype.unit_roundoff() * (out + error) + out_dtype.underflow();
            bounds.out.push(error + rounding);
        }
    }
    bounds
}

/// Where a result is worst.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Excess {
    /// Largest |got − want| over its bound; infinite for a NaN or a wrong infinity. At most 1 is a pass.
    pub ratio: f64,
    /// Index of that element.
    pub index: usize,
    /// What it should be.
    pub want: f64,
    /// What it is.
    pub got: f64,
    /// Its bound.
    pub bound: f64,
}

/// The worst of all elements of a result.
///
/// # Panics
///
/// When the lengths differ.
pub fn worst(got: &[f64], want: &[f64], bound: &[f64]) -> Excess {
    assert_eq!((got.len(), want.len()), (bound.len(), bound.len()), "got, want, bound");
    let mut worst = Excess { ratio: 0.0, index: 0, want: 0.0, got: 0.0, bound: 0.0 };
    for (index, ((&got, &want), &bound)) in got.iter().zip(want).zip(bound).enumerate() {
        let difference = (got - want).abs();
        let ratio = if got == want {
            0.0
        } else if difference.is_finite() && bound > 0.0 {
            difference / bound
        } else {
            f64::INFINITY
        };
        if ratio > worst.ratio {
            worst = Excess { ratio, index, want, got, bound };
        }
    }
    worst
}
