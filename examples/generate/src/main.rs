//! `generate`: a Llama-architecture GGUF model writes text on the CPU.
//!
//! candle holds the weights and multiplies the matrices; every attention step and every KV write
//! runs the PTX kernels of pagedptx on an emulator, over a paged pool whose blocks are handed out
//! in a shuffled order. `--dense` is the same model with plain CPU attention.

#![forbid(unsafe_code)]

mod args;
mod attention;
mod config;
#[cfg(test)]
mod damage_tests;
mod fetch;
mod gguf;
mod header;
mod llama;
mod rope;
mod run;
mod text;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Error, Result, ensure};
use clap::Parser;
use half::{bf16, f16};
use pagedptx::Device;
use pagedptx_harness::EmulatorDriver;

use args::{Args, KvDtype};
use attention::{Attention, Shape, dense::Dense, paged::Paged};
use config::Config;
use gguf::Gguf;
use llama::Llama;
use run::Report;
use text::Vocabulary;

/// Exit status after a fault in a kernel.
const FAULT: u8 = 1;
/// Exit status after input that cannot be used: a bad model file, a prompt that does not fit.
const UNUSABLE: u8 = 2;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { findings: 0, error }) => {
            // One line: causes joined by colons, line breaks of foreign messages folded.
            let text = format!("{error:#}");
            eprintln!("error: {}", text.split_whitespace().collect::<Vec<_>>().join(" "));
            ExitCode::from(UNUSABLE)
        }
        Err(Failure { error, .. }) => {
            eprintln!("error: {error:#}");
            ExitCode::from(FAULT)
        }
    }
}

/// Why a run ended early.
struct Failure {
    /// Faults that the emulator found in a kernel.
    findings: u64,
    error: Error,
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { findings: 0, error: error.into() }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let path = match &args.model {
        Some(path) => path.clone(),
        None => fetch::default_model()?,
    };
    let (model, vocabulary, prompt) =
        load(&path, args).with_context(|| path.display().to_string())?;
    let prompt_ids = vocabulary.encode(&prompt)?;
    let shape = shape(model.config(), prompt_ids.len(), args.tokens)?;
    let tokens = shape.max_tokens - prompt_ids.len();
    let job = Job { model, vocabulary, prompt_ids, tokens, json: args.json };
    let block_size = usize::try_from(args.block_size)?;
    let (report, result) = if args.dense {
        job.run(&mut Dense::new(shape, args.kv_dtype))
    } else {
        let device = Device::new(EmulatorDriver::default())?;
        let stream = device.stream()?;
        match args.kv_dtype {
            KvDtype::F32 => job.run(&mut Paged::<_, f32>::new(&stream, shape, block_size)?),
            KvDtype::F16 => job.run(&mut Paged::<_, f16>::new(&stream, shape, block_size)?),
            KvDtype::Bf16 => job.run(&mut Paged::<_, bf16>::new(&stream, shape, block_size)?),
        }
    };
    let worth_reporting = result.is_ok() || report.findings > 0;
    if args.json && worth_reporting {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    if !args.json && !report.text.is_empty() {
        writeln!(std::io::stdout())?;
    }
    if !args.json && worth_reporting {
        eprintln!("{}", report.summary());
    }
    result.map_err(|error| Failure { findings: report.findings, error })
}

/// Everything of a run but its attention.
struct Job {
    model: Llama,
    vocabulary: Vocabulary,
    prompt_ids: Vec<u32>,
    tokens: usize,
    json: bool,
}

impl Job {
    /// Generates, showing text as it is made unless JSON is wanted.
    fn run(self, attention: &mut dyn Attention) -> (Report, Result<()>) {
        let mut stdout = std::io::stdout();
        let emit = |text: &str| {
            if !self.json && !text.is_empty() {
                stdout.write_all(text.as_bytes())?;
                stdout.flush()?;
            }
            Ok(())
        };
        let Self { model, vocabulary, prompt_ids, tokens, .. } = &self;
        run::generate(model, vocabulary, prompt_ids.clone(), *tokens, attention, emit)
    }
}

/// The model, its vocabulary, and the prompt in the model's own form.
fn load(path: &Path, args: &Args) -> Result<(Llama, Vocabulary, String)> {
    let file = Gguf::open(path)?;
    let metadata = file.metadata();
    let config = Config::read(&metadata)?;
    let vocabulary = Vocabulary::read(&metadata)?;
    let prompt = if args.raw {
        args.prompt.clone()
    } else {
        text::chat::prompt(&metadata, &vocabulary, &args.prompt)?
    };
    let model = Llama::read(file, config, vocabulary.len())?;
    Ok((model, vocabulary, prompt))
}

fn shape(config: &Config, prompt: usize, tokens: usize) -> Result<Shape> {
    ensure!(
        prompt < config.context,
        "the prompt has {prompt} tokens, the model's context {} leaves none to generate",
        config.context
    );
    Ok(Shape {
        layers: config.layers,
        num_q_heads: config.num_q_heads,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        sm_scale: config.sm_scale,
        max_tokens: config.context.min(prompt.saturating_add(tokens)),
        max_rows: run::MAX_ROWS.min(prompt),
    })
}
