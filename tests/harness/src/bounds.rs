//! How far a right kernel may be from the f64 reference: computed from types, sizes and magnitudes.
//!
//! # Derivation
//!
//! A kernel computes in f32, u = 2⁻²⁴ being half a unit in the last place of 1. A product of k factors (1 + δ), |δ| ≤ u,
//! is 1 + θ with |θ| ≤ γ(k) = k·u / (1 − k·u) (Higham, "Accuracy and Stability of Numerical Algorithms", lemma 3.1). Every
//! step below is an upper bound; no step is fitted to a run. Symbols are those of [`RowMagnitudes`]: one row of one head
//! with n keys, taken in T = ceil(n / tile) tiles.
//!
//! **Scores.** A key's score is a sum of d products, off by at most e₁ = γ(r + 4) · A with A = `max_abs_dot`: r roundings on a
//! product's way through the sum, and 4 scalings (sm_scale and k_scale multiplied, log2(e) rounded, multiplied in, the
//! factor applied). 4 lanes that add ceil(d / 4) products each, one by one, and are joined in 2 steps round r = ceil(d / 4) + 2 times.
//! A tensor core adds 16 products and the accumulator at once, each truncated at 24 fractional bits of the largest, then
//! truncates the sum: 17 + 2 times 2⁻²⁴ of A at most (two chained steps of 8 products no more than 22 times), so that
//! r = 22 · ceil(d / 16) + 1 with the join of two chains.
//! The soft cap is 1-Lipschitz and adds its own e₂ = 8·u·(cap + `max_score`) for its ex2 (2 ulp), rcp, the quotient
//! and the products; ALiBi adds e₃ = 4·u·`max_alibi`.
//!
//! **Weights.** prob = ex2(logit − maximum): rounding the logit, the difference and, each time the maximum
//! moves, the difference of maxima (these telescope, in a chunk and again in the merge) costs e₄ = 9·u·`max_logit`. ex2.approx
//! is off by 2 ulp (PTX ISA, "Floating Point Instructions: ex2"), 4u. A shift that all keys share cancels between numerator and sum.
//! So a weight is off by the factor exp(±e), e = e₁ + e₂ + e₃ + e₄, times 1 + θ.
//!
//! **Sums.** A weight enters with 4u for its ex2 and 1 product, and passes R = T + 2 rescales at most (tiles, and the merges
//! of warps and of chunks) of 5u each: 4u for the factor, 1 product. The row sum is kept per lane, m additions for each tile
//! (2 or 4), and joined in 5 steps and the merges: θ ≤ γ(m·T + 5·R + 12). The accumulator adds the keys one by one (n roundings) or 16 at a
//! time on the tensor cores (22·T, as above): θ ≤ γ(n + 5·R + 7) or γ(22·T + 5·R + 7). So the sum is within a factor 1 ± E_s, E_s = exp(e)·(1 + γ) − 1,
//! the numerator within E_n·abs_out, and the quotient (rcp, v_scale, product: 4u) off by E_n·abs_out + (E_s + 4·u)·|out| at
//! most, times 1 / (1 − E_s).
//!
//! **16-bit probabilities** are rounded before they meet v but not before they are summed: u_p·abs_out more,
//! and below their normal range an absolute error on weights whose largest is 1: underflow_p · Σ|v| / row_sum.
//! The f32 weights themselves flush below 2⁻¹²⁶.
//!
//! **Output.** Rounding to the query's type: u_q·(|out| + error) + underflow_q. Whatever its weights are, an
//! average is no larger than the largest |v|: the error never passes that plus |out|. (That is what remains of the bound when
//! scores are so large that e says nothing.)
//!
//! **lse** = maximum + ln(sum): ln(1 / (1 − E_s)) for the sum, lg2.approx (PTX ISA: 2⁻²² absolute near 1, else relative, the
//! argument up to 2⁸ larger where rescaling has a threshold) and the roundings of the last sum and product.
//!
//! An empty row has no error: out 0, lse −inf.
//!
//! These are worst cases, and tight enough all the same: `tests/bounds.rs` shows that a scale off by 0.2 %, a key dropped, stale
//! or misplaced, a rescale left out, a sum of rounded probabilities all exceed them.

use crate::dtype::Dtype;
use crate::problem::{Attention, Merge};
use crate::reference::{Expected, RowMagnitudes};

/// Half a unit in the last place of 1 in f32.
const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// How a kernel computes, as far as its errors depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arithmetic {
    /// Type to which probabilities are rounded before they are multiplied with V.
    pub probs: Dtype,
    /// Keys of a tile: between two of them the maximum may move.
    pub tile: usize,
    /// Products are added by matrix instructions, 16 at a time.
    pub matrix: bool,
}

impl Arithmetic {
    /// f32 FMA on the CUDA cores, a head's products spread over four lanes; probabilities not rounded.
    pub const fn cuda_cores(tile: usize) -> Self {
        Self { probs: Dtype::F32, tile, matrix: false }
    }

    /// Tensor cores in tiles of 16 keys, probabilities rounded to `probs`.
    pub const fn tensor_cores(probs: Dtype) -> Self {
        Self { probs, tile: 16, matrix: true }
    }

    /// e of the module's derivation.
    fn score_error(&self, row: &RowMagnitudes, head_dim: usize, soft_cap: Option<f64>) -> f64 {
        let roundings =
            if self.matrix { 22 * head_dim.div_ceil(16) + 1 } else { head_dim.div_ceil(4) + 2 };
        let e1 = gamma(roundings + 4) * row.max_abs_dot;
        let e2 = soft_cap.map_or(0.0, |cap| 8.0 * UNIT * (cap + row.max_score));
        let e3 = 4.0 * UNIT * row.max_alibi;
        let e4 = 9.0 * UNIT * row.max_logit;
        e1 + e2 + e3 + e4
    }

    /// γ of the row sum and γ of the accumulator.
    fn sum_errors(&self, num_keys: usize) -> (f64, f64) {
        let tiles = num_keys.div_ceil(self.tile);
        let rescales = 5 * (tiles + 2);
        let (sum, acc) = if self.matrix { (4 * tiles, 22 * tiles) } else { (2 * tiles, num_keys) };
        (gamma(sum + rescales + 12), gamma(acc + rescales + 7))
    }
}

/// Largest |θ| of a product of `count` factors 1 + δ; infinite when there are too many to say.
fn gamma(count: usize) -> f64 {
    let sum = count as f64 * UNIT;
    if sum < 1.0 { sum / (1.0 - sum) } else { f64::INFINITY }
}

/// Largest error allowed of each output and each lse.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// Like the output.
    pub out: Vec<f64>,
    /// Like the lse.
    pub lse: Vec<f64>,
}

/// Bounds of attention's results, outputs rounded to the query's type.
pub fn attention(problem: &Attention, expected: &Expected, arithmetic: &Arithmetic) -> Bounds {
    let score_error = |row: &RowMagnitudes| {
        arithmetic.score_error(row, problem.head_dim(), problem.mask.soft_cap)
    };
    bounds(expected, arithmetic, problem.q.dtype, score_error)
}

/// Bounds of a merge's f32 results: every part is a key, its lse the logit.
pub fn merge(problem: &Merge, expected: &Expected) -> Bounds {
    let arithmetic = Arithmetic::cuda_cores(1);
    let score_error = |row: &RowMagnitudes| arithmetic.score_error(row, 0, None);
    bounds(expected, &arithmetic, problem.outs.dtype, score_error)
}

fn bounds(
    expected: &Expected,
    arithmetic: &Arithmetic,
    out_dtype: Dtype,
    score_error: impl Fn(&RowMagnitudes) -> f64,
) -> Bounds {
    let head_dim = expected.out.len().checked_div(expected.rows.len()).unwrap_or(0);
    let mut bounds = Bounds { out: Vec::new(), lse: Vec::new() };
    for (index, row) in expected.rows.iter().enumerate() {
        if row.num_keys == 0 {
            bounds.out.resize(bounds.out.len() + head_dim, 0.0);
            bounds.lse.push(0.0);
            continue;
        }
        let (sum, acc) = arithmetic.sum_errors(row.num_keys);
        let score = score_error(row).exp();
        let (sum_error, acc_error) = (score * (1.0 + sum) - 1.0, score * (1.0 + acc) - 1.0);
        // 1 / (1 - E_s); a sum that may be anything leaves the hull below as the only bound.
        let inverse = if sum_error < 1.0 { 1.0 / (1.0 - sum_error) } else { f64::INFINITY };
        let (lse, ln_sum) = (expected.lse[index].abs(), (row.num_keys as f64).ln() + 8.0);
        let lg2 = 2f64.powi(-22) * (1.0 + ln_sum);
        bounds.lse.push(inverse.ln() + lg2 + UNIT * (3.0 * lse + 2.0 * row.max_logit));
        for element in index * head_dim..(index + 1) * head_dim {
            let (out, abs_out) = (expected.out[element].abs(), expected.abs_out[element]);
            let (probs, least) = match arithmetic.probs {
                Dtype::F32 => (0.0, 2f64.powi(-126)),
                dtype => (dtype.unit_roundoff(), dtype.underflow() + 2f64.powi(-126)),
            };
            let numerator =
                (acc_error + probs) * abs_out + least * expected.sum_abs_v[element] / row.row_sum;
            let error = (numerator + (sum_error + 4.0 * UNIT) * out) * inverse;
            // The average itself, computed: its weights add up to 1 within the sums' roundings.
            let hull = (out + expected.max_abs_v[element]) * (1.0 + acc + sum + probs);
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
    /// Largest |got − want| over its bound; infinite for a NaN (in any of the three) or a wrong infinity. At most 1 is a pass.
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
