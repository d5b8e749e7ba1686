//! What `ptxas` says of a kernel, where it is installed, and how many of its warps an SM holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pagedptx::kernels::KernelSource;

/// Figures of one kernel on one target.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Figures {
    pub registers: u32,
    pub spill_bytes: u32,
    pub shared_bytes: u32,
    pub warps_per_sm: u32,
}

/// Limits of one SM. CUDA C++ Programming Guide, "Compute Capabilities", technical specifications.
struct Sm {
    target: &'static str,
    warps: u32,
    ctas: u32,
    shared_bytes: u32,
}

const SMS: [Sm; 3] = [
    Sm { target: "sm_80", warps: 64, ctas: 32, shared_bytes: 164 << 10 },
    Sm { target: "sm_90", warps: 64, ctas: 32, shared_bytes: 228 << 10 },
    Sm { target: "sm_120", warps: 48, ctas: 24, shared_bytes: 100 << 10 },
];
const REGISTERS_PER_SM: u32 = 65_536;
/// Registers are given to a warp in units of 256, shared memory to a CTA in units of 128 bytes, 1 KB of it to the system.
const REGISTER_UNIT: u32 = 256;
const SHARED_UNIT: u32 = 128;
const RESERVED_SHARED_BYTES: u32 = 1 << 10;

/// Warps of a kernel that an SM holds at once.
fn warps_per_sm(sm: &Sm, threads: u32, registers: u32, shared_bytes: u32) -> u32 {
    let warps = threads.div_ceil(32);
    let registers_per_warp = (registers * 32).next_multiple_of(REGISTER_UNIT).max(1);
    let by_registers = REGISTERS_PER_SM / registers_per_warp / warps;
    let by_shared =
        sm.shared_bytes / (shared_bytes + RESERVED_SHARED_BYTES).next_multiple_of(SHARED_UNIT);
    by_registers.min(by_shared).min(sm.ctas).min(sm.warps / warps) * warps
}

/// `ptxas` of `PATH`, or the one that the Python package `nvidia-cuda-nvcc` brings.
pub fn find() -> Option<PathBuf> {
    let on_path = Command::new("ptxas").arg("--version").output();
    if on_path.is_ok_and(|output| output.status.success()) {
        return Some("ptxas".into());
    }
    let script = "import nvidia; print(list(nvidia.__path__)[0])";
    let output = Command::new("python3").args(["-c", script]).output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let path = folder.join("cu13/bin/ptxas");
    path.is_file().then_some(path)
}

/// Assembles a kernel for every target of the report; its dynamic shared memory counts for residency.
pub fn figures(
    ptxas: &Path,
    kernel: &KernelSource,
    threads: u32,
) -> Result<BTreeMap<&'static str, Figures>, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let source = folder.path().join("kernel.ptx");
    std::fs::write(&source, kernel.ptx).map_err(|error| error.to_string())?;
    let mut all = BTreeMap::new();
    for sm in &SMS {
        let output = Command::new(ptxas)
            .args(["-v", "-o"])
            .arg(folder.path().join("kernel.cubin"))
            .arg(format!("-arch={}", sm.target))
            .arg(&source)
            .output()
            .map_err(|error| error.to_string())?;
        let log = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            return Err(format!("ptxas for {}: {log}", sm.target));
        }
        let registers = number_before(&log, " registers")
            .ok_or_else(|| format!("ptxas for {} names no registers: {log}", sm.target))?;
        let static_shared = number_before(&log, " bytes smem").unwrap_or(0);
        let spills = number_before(&log, " bytes spill stores").unwrap_or(0)
            + number_before(&log, " bytes spill loads").unwrap_or(0);
        let shared_bytes = static_shared + kernel.shared_bytes(threads);
        all.insert(
            sm.target,
            Figures {
                registers,
                spill_bytes: spills,
                shared_bytes,
                warps_per_sm: warps_per_sm(sm, threads, registers, shared_bytes),
            },
        );
    }
    Ok(all)
}

/// The number that stands right before `unit` in a log.
fn number_before(log: &str, unit: &str) -> Option<u32> {
    let end = log.find(unit)?;
    let digits = log[..end].rsplit(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

/// KV bytes that copies have in flight on an SM at every point of the steady loop, at least; `ptx/README.md`, "Bytes in
/// flight", derives it. A warp of `g8` or `g16` has a ring of its own in the CTA's dynamic shared memory: all stages
/// but one are in flight at the least. A wide CTA shares one ring, of which all stages but 2 are; a CTA on the CUDA cores one, of which all tiles but 2 are, half
/// a stage each.
pub fn bytes_in_flight(
    kernel: &KernelSource,
    threads: u32,
    head_dim: usize,
    figures: &BTreeMap<&'static str, Figures>,
) -> BTreeMap<&'static str, u32> {
    let elem_bytes = if kernel.entry.ends_with("f32") { 4 } else { 2 };
    let row_bytes = elem_bytes * head_dim.next_multiple_of(32) as u32;
    let stage_bytes = 2 * 16 * row_bytes;
    let warps = threads / 32;
    let flying = if kernel.entry.starts_with("decode_d") {
        // Rows are 16 to 32 bytes longer than their elements.
        kernel.dynamic_shared_bytes / (stage_bytes + 2 * 16 * 16) - 1
    } else if kernel.entry.ends_with("wide") {
        kernel.dynamic_shared_bytes / stage_bytes - 2
    } else {
        kernel.dynamic_shared_bytes / stage_bytes - warps
    };
    let of = |figures: &Figures| figures.warps_per_sm / warps * flying * stage_bytes;
    figures.iter().map(|(target, figures)| (*target, of(figures))).collect()
}
