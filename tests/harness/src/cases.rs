//! Recorded calls: `.safetensors` files that hold the inputs of one call and its expected output.
//!
//! A file is checked whole before it becomes a [`Case`]: whatever the reference or a driver indexes with is
//! in range, whatever the metadata and the tensors both say agrees.

mod file;
mod meta;

use std::path::{Path, PathBuf};

use crate::dtype::Dtype;
use crate::problem::{Append, Attention, Merge, Stepwise, Tensor};

pub use meta::Tolerance;

/// Why a file is not a recorded call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaseError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The container is damaged.
    #[error("not a safetensors file: {0}")]
    Container(#[from] safetensors::SafeTensorError),
    /// The metadata has no JSON object under the key `meta`, or one that lacks a key.
    #[error("metadata: {0}")]
    Meta(String),
    /// A tensor that this kind of call needs is missing.
    #[error("tensor {name} is missing")]
    Missing {
        /// Name of the tensor.
        name: &'static str,
    },
    /// A tensor's type is not the one that the call needs.
    #[error("tensor {name} has type {got}, {expected} is needed")]
    Type {
        /// Name of the tensor.
        name: &'static str,
        /// The type in the file.
        got: String,
        /// The type needed.
        expected: String,
    },
    /// A tensor's shape is not the one that the call needs.
    #[error("tensor {name} has shape {got:?}, {expected} is needed")]
    Shape {
        /// Name of the tensor.
        name: &'static str,
        /// The shape in the file.
        got: Vec<usize>,
        /// The shape needed, in words.
        expected: String,
    },
    /// A number that is used as an index or a length is out of range.
    #[error("{name}[{index}] is {value}, {expected}")]
    Value {
        /// Name of the tensor or key.
        name: &'static str,
        /// Index of the element.
        index: usize,
        /// The value found.
        value: i64,
        /// The range needed, in words.
        expected: String,
    },
}

/// Expected output of a recorded attention, merge or stepwise call, in f64.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    /// [total_q, num_q_heads, head_dim] (merge: [rows, heads, head_dim]).
    pub out: Vec<f64>,
    /// [total_q, num_q_heads], without the sink.
    pub lse: Vec<f64>,
    /// Like `lse`, with the sink; only where there are sinks.
    pub lse_sink: Option<Vec<f64>>,
    /// What a result may differ by.
    pub tolerance: Tolerance,
}

/// Expected partial results of fixed chunks of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Parts {
    /// Tokens of a chunk, counted from the sequence's start.
    pub split: usize,
    /// [parts, total_q, num_q_heads, head_dim].
    pub out: Vec<f64>,
    /// [parts, total_q, num_q_heads].
    pub lse: Vec<f64>,
}

/// One recorded call.
#[derive(Debug, Clone, PartialEq)]
pub enum Case {
    /// Attention over a paged cache.
    Attention {
        /// The inputs.
        problem: Attention,
        /// The expected output.
        expected: Recorded,
        /// The expected partial results, in files that have them.
        parts: Option<Parts>,
    },
    /// New keys and values written to slots.
    Append {
        /// The inputs.
        problem: Append,
        /// The whole key cache afterwards, bit for bit.
        k_after: Tensor,
        /// The whole value cache afterwards, bit for bit.
        v_after: Tensor,
    },
    /// Partial results joined.
    Merge {
        /// The inputs.
        problem: Merge,
        /// The expected output.
        expected: Recorded,
    },
    /// A sequence built token by token.
    Stepwise {
        /// The inputs.
        problem: Stepwise,
        /// The expected output of all steps.
        expected: Recorded,
        /// The whole key cache afterwards, bit for bit.
        k_after: Tensor,
        /// The whole value cache afterwards, bit for bit.
        v_after: Tensor,
    },
}

impl Case {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> Result<Self, CaseError> {
        let bytes = std::fs::read(path)
            .map_err(|source| CaseError::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes)
    }

    /// Parses and checks the bytes of a file.
    pub fn parse(bytes: &[u8]) -> Result<Self, CaseError> {
        file::parse(bytes)
    }

    /// The kind, as files name it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Attention { .. } => "attention",
            Self::Append { .. } => "append",
            Self::Merge { .. } => "merge",
            Self::Stepwise { .. } => "stepwise",
        }
    }
}

impl Recorded {
    /// Largest |got − expected| over its tolerance, and the same for lse; infinite for a NaN or a wrong
    /// infinity, at most 1 for a pass.
    ///
    /// `out` is first rounded to `q_dtype`; `sixteen_bit_probs` says whether the kernel rounds
    /// probabilities to 16 bit. `lse` may hold the lse with or without the sink: `with_sink` says which.
    pub fn excess(&self, out: &[f64], lse: &[f64], options: &Criteria) -> (f64, f64) {
        let tolerance = &self.tolerance;
        let atol =
            if options.sixteen_bit_probs { tolerance.atol_p16() } else { tolerance.atol_f32 };
        let rounded = out.iter().map(|&x| options.q_dtype.round(x));
        let expected_lse = match (&self.lse_sink, options.lse_with_sink) {
            (Some(lse_sink), true) => lse_sink,
            _ => &self.lse,
        };
        (
            largest_excess(rounded, &self.out, atol, tolerance.rtol),
            largest_excess(
                lse.iter().copied(),
                expected_lse,
                tolerance.lse_atol,
                tolerance.lse_rtol,
            ),
        )
    }
}

/// How a result is held against a recorded one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Criteria {
    /// Type to which outputs are rounded.
    pub q_dtype: Dtype,
    /// The kernel rounds probabilities to 16 bit.
    pub sixteen_bit_probs: bool,
    /// The lse given counts the sink.
    pub lse_with_sink: bool,
}

fn largest_excess(
    got: impl ExactSizeIterator<Item = f64>,
    want: &[f64],
    atol: f64,
    rtol: f64,
) -> f64 {
    if got.len() != want.len() {
        return f64::INFINITY;
    }
    let excess = |(got, &want): (f64, &f64)| {
        if got == want {
            0.0
        } else if got.is_finite() && want.is_finite() {
            (got - want).abs() / (atol + rtol * want.abs())
        } else {
            f64::INFINITY
        }
    };
    got.zip(want).map(excess).fold(0.0, f64::max)
}
