//! What became of one recorded call.

use std::fmt;
use std::path::Path;
use std::time::Instant;

use pagedptx::Device;
use pagedptx_harness::EmulatorOptions;
use pagedptx_harness::cases::{Case, Criteria, Recorded};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::problem::{Attention, Tensor};
use pagedptx_harness::runner::{self, Failure, Output, expect_same_bytes};
use serde_json::{Value, json};

use crate::any_driver::AnyDriver;

/// Outcome of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Pass,
    Fail,
    Unsupported,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Unsupported => "UNSUPPORTED",
        }
    }
}

/// Largest errors over their tolerances; append compares bits and has no lse.
#[derive(Debug, Clone, Copy, Default)]
struct Ratios {
    out: Option<f64>,
    lse: Option<f64>,
}

/// Outcome of a case, with the figures behind it.
#[derive(Debug)]
pub struct Verdict {
    case: String,
    kind: &'static str,
    pub status: Status,
    ratios: Ratios,
    features: Vec<String>,
    note: String,
    /// None where the driver does not count them.
    launches: Option<u64>,
    seconds: f64,
}

/// Runs a file and compares.
pub fn judge(file: &Path, seed: u64) -> Verdict {
    let start = Instant::now();
    let name = file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
    let mut verdict = Verdict {
        case: name,
        kind: "unreadable",
        status: Status::Fail,
        ratios: Ratios::default(),
        features: Vec::new(),
        note: String::new(),
        launches: None,
        seconds: 0.0,
    };
    match Case::read(file) {
        Err(error) => verdict.note = error.to_string(),
        Ok(case) => verdict.run(&case, seed),
    }
    verdict.seconds = start.elapsed().as_secs_f64();
    verdict
}

impl Verdict {
    fn run(&mut self, case: &Case, seed: u64) {
        self.kind = case.kind();
        // A device of its own: a fault in one case does not fail the next.
        let options = EmulatorOptions { seed, ..EmulatorOptions::default() };
        let device = AnyDriver::from_env(options).and_then(Device::new);
        let result = device.map_err(Failure::from).and_then(|device| {
            let ratios = self.compare(&device, case);
            self.launches = device.driver().launches();
            ratios
        });
        match result {
            Ok(ratios) => {
                self.ratios = ratios;
                // Written so that a NaN fails.
                let within = |ratio: Option<f64>| ratio.is_none_or(|ratio| ratio <= 1.0);
                let passes = within(ratios.out) && within(ratios.lse);
                self.status = if passes { Status::Pass } else { Status::Fail };
            }
            Err(Failure::Unsupported { features }) => {
                self.features = features;
                self.status = Status::Unsupported;
            }
            Err(failure) => self.note = failure.to_string(),
        }
    }

    fn compare(&mut self, device: &Device<AnyDriver>, case: &Case) -> Result<Ratios, Failure> {
        match case {
            Case::Attention { problem, expected, .. } => {
                let output = runner::attend(device, problem)?;
                if (0..problem.num_seqs()).any(|seq| problem.query_len(seq) > 1) {
                    self.note = "query rows run as sequences of their own".to_owned();
                }
                Ok(ratios(&output, expected, problem))
            }
            Case::Append { problem, k_after, v_after } => {
                let caches = runner::append(device, problem)?;
                expect_caches(&caches, (k_after, v_after))?;
                Ok(Ratios { out: Some(0.0), lse: None })
            }
            Case::Merge { .. } => Err(Failure::Unsupported { features: vec!["merge".to_owned()] }),
            Case::Stepwise { problem, expected, k_after, v_after } => {
                let (output, k_cache, v_cache) = runner::stepwise(device, problem)?;
                expect_caches(&(k_cache, v_cache), (k_after, v_after))?;
                let last = problem.num_tokens() - 1;
                let step = problem.attention(last..last + 1, k_after.clone(), v_after.clone());
                Ok(ratios(&output, expected, &step))
            }
        }
    }

    /// One JSON object; ratios that are infinite or do not apply are null.
    pub fn json(&self) -> Value {
        json!({
            "case": self.case,
            "kind": self.kind,
            "status": self.status.name(),
            "out_over_tolerance": self.ratios.out,
            "lse_over_tolerance": self.ratios.lse,
            "unsupported": self.features,
            "note": self.note,
            "launches": self.launches,
            "seconds": self.seconds,
        })
    }
}

/// `problem` tells how the kernel computes and what the output is rounded to.
fn ratios(output: &Output, expected: &Recorded, problem: &Attention) -> Ratios {
    let arithmetic = runner::arithmetic(problem.q.dtype, problem.k_cache.dtype);
    let criteria = Criteria {
        q_dtype: problem.q.dtype,
        sixteen_bit_probs: arithmetic.probs != Dtype::F32,
        lse_with_sink: false,
    };
    let (out, lse) = expected.excess(&output.out.values(), &output.lse(), &criteria);
    Ratios { out: Some(out), lse: Some(lse) }
}

fn expect_caches(got: &(Tensor, Tensor), want: (&Tensor, &Tensor)) -> Result<(), Failure> {
    expect_same_bytes("k_cache", &got.0, want.0)?;
    expect_same_bytes("v_cache", &got.1, want.1)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<11} {:<36}", self.status.name(), self.case)?;
        for (what, ratio) in [("out", self.ratios.out), ("lse", self.ratios.lse)] {
            match ratio {
                Some(ratio) => write!(f, "  {what} {ratio:<8.4}")?,
                None => write!(f, "  {what} {:<8}", "-")?,
            }
        }
        if !self.features.is_empty() {
            write!(f, "  needs {}", self.features.join(", "))?;
        }
        if !self.note.is_empty() {
            write!(f, "  ({})", self.note)?;
        }
        Ok(())
    }
}
