//! The JSON object that a recorded file carries under the metadata key `meta`.

use serde::Deserialize;

use super::CaseError;
use crate::dtype::Dtype;

/// What a result may differ by, from an error model of a tiled kernel.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Tolerance {
    /// Absolute error of an output where probabilities stay f32.
    pub atol_f32: f64,
    /// Relative error of an output.
    pub rtol: f64,
    /// Absolute error of an output where probabilities are rounded to 16 bit.
    atol_p16: Option<f64>,
    /// Absolute error of an lse.
    pub lse_atol: f64,
    /// Relative error of an lse.
    pub lse_rtol: f64,
}

impl Tolerance {
    /// Absolute error of an output where probabilities are rounded to 16 bit.
    pub fn atol_p16(&self) -> f64 {
        self.atol_p16.unwrap_or(self.atol_f32)
    }
}

/// Kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Attention,
    Append,
    Merge,
    Stepwise,
}

/// The keys that are read; others are for people.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Meta {
    pub kind: Kind,
    pub q_dtype: Option<Dtype>,
    pub kv_dtype: Option<Dtype>,
    pub dtype: Option<Dtype>,
    pub scale: Option<f64>,
    pub causal: Option<bool>,
    pub window: Option<usize>,
    pub softcap: Option<f64>,
    pub split: Option<usize>,
    /// Numbers, but for an append, whose tolerance is a phrase.
    tol: Option<serde_json::Value>,
}

impl Meta {
    pub fn parse(text: &str) -> Result<Self, CaseError> {
        let meta: Self =
            serde_json::from_str(text).map_err(|error| CaseError::Meta(error.to_string()))?;
        if let Some(window @ 0) = meta.window {
            return Err(CaseError::Meta(format!("window is {window}, at least 1 is needed")));
        }
        if let Some(cap) = meta.softcap.filter(|cap| !(cap.is_finite() && *cap > 0.0)) {
            return Err(CaseError::Meta(format!("softcap is {cap}, a positive number is needed")));
        }
        Ok(meta)
    }

    pub fn tolerance(&self) -> Result<Tolerance, CaseError> {
        Tolerance::deserialize(need("tol", self.tol.as_ref())?)
            .map_err(|error| CaseError::Meta(format!("tol: {error}")))
    }
}

/// A key that this kind of call needs.
pub(super) fn need<T>(key: &'static str, value: Option<T>) -> Result<T, CaseError> {
    value.ok_or_else(|| CaseError::Meta(format!("missing key `{key}`")))
}
