//! Writes the kernels, one file per entry: `cargo run --example expand -- DIR [PREFIX]`.
//!
//! For `ptxas`, for a disassembler, for reading: what a driver gets has neither these comments nor the indentation, line for line.

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
    let (mut files, mut bytes, mut shipped) = (0, 0, 0);
    for kernel in KERNELS.iter().filter(|kernel| kernel.entry.starts_with(&*prefix)) {
        let file = format!("{}.ptx", kernel.entry);
        // The build script left it there.
        let from = PathBuf::from(env!("OUT_DIR")).join("readable").join(&file);
        let to = dir.join(file);
        match fs::copy(&from, &to) {
            Ok(copied) => bytes += copied,
            Err(error) => {
                eprintln!("{} to {}: {error}", from.display(), to.display());
                return ExitCode::from(2);
            }
        }
        files += 1;
        shipped += kernel.ptx.len();
    }
    println!("{files} entries, {bytes} bytes of PTX, of which {shipped} ship");
    ExitCode::SUCCESS
}
