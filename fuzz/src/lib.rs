//! What the fuzz targets share: small launches that have to end, and programs made of random pieces.

pub mod program;

use ptx_emulator::{Device, Launch, LaunchError, Module, Report};

/// Memory of the device that targets launch on.
pub const CAPACITY: u64 = 16 << 20;
/// Instructions a warp may execute.
pub const STEP_LIMIT: u64 = 2_000;
/// Instructions that a launch may execute: some CTAs of any grid.
pub const TOTAL_LIMIT: u64 = 50_000;

/// A launch that is over soon, whatever the kernel does.
pub fn limits() -> Launch<'static> {
    Launch { step_limit: STEP_LIMIT, total_limit: TOTAL_LIMIT, max_resident_ctas: 8, threads: 1, ..Launch::default() }
}

/// Launches, and again with two host threads on a device in the same state: the same seed has the same result.
pub fn launch_twice(devices: [&Device; 2], module: &Module, entry: &str, launch: &Launch<'_>) {
    let first = devices[0].launch(module, entry, launch);
    let second = devices[1].launch(module, entry, &Launch { threads: 2, ..launch.clone() });
    assert_eq!(told(&first), told(&second), "threads of the host change the result");
}

/// All that a result says, as text.
fn told(result: &Result<Report, LaunchError>) -> String {
    match result {
        Ok(report) => format!("{:?}", report.counters),
        Err(error) => error.to_string(),
    }
}
