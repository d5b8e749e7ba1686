//! The command line: `run` and `inspect`.

mod inspect;
mod output;
mod params;
mod run;
mod spec;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs PTX kernels on the CPU and checks every access.
#[derive(Debug, Parser)]
#[command(name = "ptx-emulator", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the launch that a JSON file describes: counters on standard output, findings on standard error.
    ///
    /// Exit status: 0 clean, 1 findings, 2 unusable input.
    Run {
        /// The launch description.
        launch: PathBuf,
        /// Runs it this many times, with the file's seed and the numbers after it, each on a fresh device.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
    },
    /// Lists entries, parameters, registers, shared memory and unsupported instructions.
    Inspect {
        /// The PTX file.
        file: PathBuf,
    },
}

/// How a command ended when its input was usable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Clean,
    Findings,
}

/// Why nothing could be run: one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unusable(String);

impl Unusable {
    fn new(message: impl Into<String>) -> Unusable {
        Unusable(message.into())
    }
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let result = match &arguments.command {
        Command::Run { launch, seeds } => run::run(launch, *seeds),
        Command::Inspect { file } => inspect::inspect(file),
    };
    match result {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Err(unusable) => {
            complain(&format!("error: {unusable}"));
            ExitCode::from(2)
        }
    }
}

/// Help and version go where clap sends them; a mistake is told in one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    }
    let text = error.to_string();
    let told = text
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let told = if told.starts_with("error:") {
        told
    } else {
        "error: a command is needed: run or inspect".into()
    };
    complain(&told);
    ExitCode::from(2)
}

/// Writes to standard error; if nobody listens, the exit status still tells.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Writes a line to standard output.
fn say(text: &str) -> Result<(), Unusable> {
    writeln!(io::stdout(), "{text}").map_err(|e| Unusable::new(format!("standard output: {e}")))
}
