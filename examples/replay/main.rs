//! Runs recorded calls through the crate and says how each compares with its expected output.
//!
//! ```text
//! cargo run --release --example replay -- FILE...
//! ```
//!
//! A line for each file: PASS, FAIL or UNSUPPORTED, the case, the largest error of the output and of the lse over their
//! tolerances (at most 1 passes). A call that needs a feature the crate does not have is UNSUPPORTED and names it; it is never
//! a pass. The exit status is 1 when any case fails.

#[path = "../../tests/any_driver/mod.rs"]
mod any_driver;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::verdict::{Status, judge};

/// Runs recorded calls (.safetensors) through pagedptx on the emulator, or on the driver that PAGEDPTX_DRIVER names.
#[derive(Debug, Parser)]
struct Arguments {
    /// Recorded calls.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print one JSON object for each case instead of a line.
    #[arg(long)]
    json: bool,
    /// Seed of the order in which the emulator runs CTAs and warps.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut failed = false;
    for file in &arguments.files {
        let verdict = judge(file, arguments.seed);
        failed |= verdict.status == Status::Fail;
        if arguments.json {
            println!("{}", verdict.json());
        } else {
            println!("{verdict}");
        }
    }
    ExitCode::from(u8::from(failed))
}
