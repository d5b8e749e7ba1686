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

use args::Args;
use attention::{Attention, Shape, dense::Dense};
use config::Config;
use gguf::Gguf;
use llama::Llama;
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
    let mut attention = backend(shape, args)?;
    let tokens = shape.max_tokens - prompt_ids.len();
    let emit = emitter(args.json);
    let (report, result) =
        run::generate(&model, &vocabulary, prompt_ids, tokens, attention.as_mut(), emit);
    if args.json {
        if result.is_ok() || report.findings > 0 {
            writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
        }
    } else {
        writeln!(std::io::stdout())?;
        eprintln!("{}", report.summary());
    }
    result.map_err(|error| Failure { findings: report.findings, error })
}

/// Shows text as it is made, unless JSON is wanted.
fn emitter(json: bool) -> impl FnMut(&str) -> Result<()> {
    let mut stdout = std::io::stdout();
    move |text: &str| {
        if !json && !text.is_empty() {
            stdout.write_all(text.as_bytes())?;
            stdout.flush()?;
        }
        Ok(())
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

fn backend(shape: Shape, args: &Args) -> Result<Box<dyn Attention>> {
    ensure!(args.dense, "only --dense");
    Ok(Box::new(Dense::new(shape, args.kv_dtype)))
}
