//! Writes the shipped PTX, one file per entry: `cargo run --example expand -- DIR [PREFIX]`.
//!
//! The files are what a driver gets: for `ptxas`, for a disassembler, for reading.

use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, fs};

use pagedptx::kernels::KERNELS;

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let Some(dir) = args.next().map(PathBuf::from) else {
        eprintln!("usage: expand DIR [PREFIX]");
        return ExitCode::from(2);
    };
    let prefix = args.next().unwrap_or_default();
    let prefix = prefix.to_string_lossy();
    if let Err(error) = fs::create_dir_all(&dir) {
        eprintln!("{}: {error}", dir.display());
        return ExitCode::from(2);
    }
    let (mut files, mut bytes) = (0, 0);
    for kernel in KERNELS.iter().filter(|kernel| kernel.entry.starts_with(&*prefix)) {
        let path = dir.join(format!("{}.ptx", kernel.entry));
        if let Err(error) = fs::write(&path, kernel.ptx) {
            eprintln!("{}: {error}", path.display());
            return ExitCode::from(2);
        }
        files += 1;
        bytes += kernel.ptx.len();
    }
    println!("{files} entries, {bytes} bytes of PTX");
    ExitCode::SUCCESS
}
