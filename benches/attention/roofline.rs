//! A stated roofline: what the memory alone would allow.

use serde::Serialize;

/// Peak bandwidth of device memory. NVIDIA data sheets: A100 80 GB SXM, H100 SXM, H200 SXM, B200.
const PEAK_GB_PER_S: [(&str, f64); 4] =
    [("A100", 2039.0), ("H100", 3350.0), ("H200", 4800.0), ("B200", 8000.0)];

/// Time that a call takes if it streams its bytes at peak bandwidth and nothing else costs anything.
#[derive(Debug, Clone, Serialize)]
pub struct Prediction {
    pub device: &'static str,
    pub microseconds: f64,
}

/// The roofline of a call that moves so many bytes.
pub fn predict(bytes: u64) -> Vec<Prediction> {
    PEAK_GB_PER_S
        .iter()
        .map(|&(device, peak)| Prediction { device, microseconds: bytes as f64 / peak / 1e3 })
        .collect()
}
