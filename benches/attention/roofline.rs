//! A stated roofline: what the memory alone would allow.

use std::collections::BTreeMap;

/// Peak bandwidth of device memory. NVIDIA data sheets: A100 80 GB SXM, H100 SXM, H200 SXM, B200.
const PEAK_GB_PER_S: [(&str, f64); 4] =
    [("A100", 2039.0), ("H100", 3350.0), ("H200", 4800.0), ("B200", 8000.0)];

/// Microseconds of a call that streams so many bytes at peak bandwidth, if nothing else costs anything.
pub fn predict(bytes: u64) -> BTreeMap<&'static str, f64> {
    PEAK_GB_PER_S.iter().map(|&(device, peak)| (device, bytes as f64 / peak / 1e3)).collect()
}
