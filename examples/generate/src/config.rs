//! What a llama model is, read from the metadata of its file.

use anyhow::{Context, Result, bail, ensure};

use crate::gguf::Metadata;

/// Shapes and constants of a Llama model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub embedding: usize,
    /// Width of the gated MLP.
    pub feed_forward: usize,
    /// Query heads.
    pub num_q_heads: usize,
    /// KV heads; divides `num_q_heads`.
    pub num_kv_heads: usize,
    /// Elements of one head.
    pub head_dim: usize,
    /// Factor on q·k before the softmax.
    pub sm_scale: f32,
    /// Epsilon of the RMS norms.
    pub norm_eps: f64,
    /// Rotated elements of each head; even.
    pub rope_dim: usize,
    /// Base of the rotation's frequencies.
    pub rope_base: f64,
    /// Positions are divided by this.
    pub rope_factor: f64,
    /// Tokens that the model was made for.
    pub context: usize,
}

impl Config {
    /// Reads and checks the metadata of a llama model.
    pub fn read(metadata: &Metadata) -> Result<Self> {
        let architecture = required(metadata.str("general.architecture")?, "general.architecture")?;
        ensure!(
            architecture == "llama",
            "general.architecture is {architecture:?}, only \"llama\" is supported"
        );
        let experts = metadata.count("llama.expert_count")?.unwrap_or(0);
        ensure!(experts == 0, "llama.expert_count is {experts}, mixtures are not supported");

        let embedding = positive(metadata, "llama.embedding_length")?;
        let num_q_heads = positive(metadata, "llama.attention.head_count")?;
        let num_kv_heads = metadata.count("llama.attention.head_count_kv")?.unwrap_or(num_q_heads);
        ensure!(
            num_kv_heads > 0 && num_q_heads.is_multiple_of(num_kv_heads),
            "llama.attention.head_count_kv is {num_kv_heads}, which does not divide the \
             {num_q_heads} query heads"
        );
        let head_dim = head_dim(metadata, embedding, num_q_heads)?;
        let scale = metadata.float("llama.attention.scale")?.filter(|&scale| scale != 0.0);
        let norm_eps = required(
            metadata.float("llama.attention.layer_norm_rms_epsilon")?,
            "llama.attention.layer_norm_rms_epsilon",
        )?;
        ensure!(norm_eps > 0.0, "llama.attention.layer_norm_rms_epsilon is {norm_eps}");
        let rope_dim = metadata.count("llama.rope.dimension_count")?.unwrap_or(head_dim);
        ensure!(
            rope_dim <= head_dim && rope_dim.is_multiple_of(2),
            "llama.rope.dimension_count is {rope_dim}, want an even number up to {head_dim}"
        );
        let rope_base = metadata.float("llama.rope.freq_base")?.unwrap_or(10_000.0);
        ensure!(rope_base > 0.0, "llama.rope.freq_base is {rope_base}, want more than 0");

        Ok(Self {
            layers: positive(metadata, "llama.block_count")?,
            embedding,
            feed_forward: positive(metadata, "llama.feed_forward_length")?,
            num_q_heads,
            num_kv_heads,
            head_dim,
            sm_scale: scale.unwrap_or_else(|| (head_dim as f64).sqrt().recip()) as f32,
            norm_eps,
            rope_dim,
            rope_base,
            rope_factor: rope_factor(metadata)?,
            context: context(metadata)?,
        })
    }
}

fn required<T>(value: Option<T>, key: &str) -> Result<T> {
    value.with_context(|| format!("metadata {key} is missing"))
}

fn positive(metadata: &Metadata, key: &str) -> Result<usize> {
    let value = required(metadata.count(key)?, key)?;
    ensure!(value > 0, "metadata {key} is 0");
    Ok(value)
}

fn head_dim(metadata: &Metadata, embedding: usize, num_q_heads: usize) -> Result<usize> {
    let Some(key_length) = metadata.count("llama.attention.key_length")? else {
        ensure!(
            embedding.is_multiple_of(num_q_heads),
            "llama.embedding_length is {embedding}, not a multiple of the {num_q_heads} query heads"
        );
        return Ok(embedding / num_q_heads);
    };
    let value_length = metadata.count("llama.attention.value_length")?.unwrap_or(key_length);
    ensure!(
        key_length > 0 && key_length == value_length,
        "llama.attention.key_length is {key_length} and value_length {value_length}, want one \
         head_dim above 0"
    );
    Ok(key_length)
}

/// By how much positions are divided. Scaling that depends on the frequency comes as the tensor
/// `rope_freqs.weight` and leaves this at 1.
fn rope_factor(metadata: &Metadata) -> Result<f64> {
    let legacy = metadata.float("llama.rope.scale_linear")?;
    let factor = metadata.float("llama.rope.scaling.factor")?.or(legacy).unwrap_or(1.0);
    let attention = metadata.float("llama.rope.scaling.attn_factor")?.unwrap_or(1.0);
    ensure!(attention == 1.0, "llama.rope.scaling.attn_factor is {attention}, only 1 is supported");
    let kind = metadata.str("llama.rope.scaling.type")?;
    match kind.as_deref() {
        Some("none") => Ok(1.0),
        None | Some("linear") => {
            // Converters write a factor of 0 for "no scaling".
            let factor = if factor == 0.0 { 1.0 } else { factor };
            ensure!(factor > 0.0, "llama.rope.scaling.factor is {factor}, want more than 0");
            Ok(factor)
        }
        Some(other) => bail!("llama.rope.scaling.type is {other:?}, want \"none\" or \"linear\""),
    }
}

/// Inside a sliding window attention is full attention; beyond it this program would be wrong.
fn context(metadata: &Metadata) -> Result<usize> {
    let context = positive(metadata, "llama.context_length")?;
    let window = metadata.count("llama.attention.sliding_window")?.filter(|&window| window > 0);
    Ok(window.map_or(context, |window| window.min(context)))
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::gguf_file::Value;

    use super::*;

    fn base() -> Vec<(&'static str, Value)> {
        vec![
            ("general.architecture", Value::String("llama".into())),
            ("llama.block_count", Value::U32(2)),
            ("llama.context_length", Value::U32(64)),
            ("llama.embedding_length", Value::U32(48)),
            ("llama.feed_forward_length", Value::U32(96)),
            ("llama.attention.head_count", Value::U32(4)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ]
    }

    fn read(changes: &[(&'static str, Option<Value>)]) -> Result<Config> {
        let mut values = base();
        for (key, value) in changes {
            values.retain(|(known, _)| known != key);
            values.extend(value.clone().map(|value| (*key, value)));
        }
        Config::read(&Metadata::from_values(values))
    }

    #[test]
    fn defaults_are_those_of_the_format() {
        let config = read(&[]).unwrap();
        assert_eq!((config.num_kv_heads, config.head_dim, config.rope_dim), (4, 12, 12));
        assert_eq!((config.rope_base, config.rope_factor), (10_000.0, 1.0));
        assert_eq!(config.sm_scale, (1.0 / 12f64.sqrt()) as f32);
    }

    #[test]
    fn keys_override_defaults() {
        let config = read(&[
            ("llama.attention.head_count_kv", Some(Value::U32(2))),
            ("llama.attention.key_length", Some(Value::U32(20))),
            ("llama.rope.dimension_count", Some(Value::U32(10))),
            ("llama.rope.scaling.type", Some(Value::String("linear".into()))),
            ("llama.rope.scaling.factor", Some(Value::F32(4.0))),
            ("llama.attention.sliding_window", Some(Value::U32(32))),
        ])
        .unwrap();
        assert_eq!((config.num_kv_heads, config.head_dim, config.rope_dim), (2, 20, 10));
        assert_eq!((config.rope_factor, config.context), (4.0, 32));
    }

    #[test]
    fn errors_name_the_key_and_the_value() {
        let string = |text: &str| Some(Value::String(text.into()));
        for (key, value, want) in [
            ("general.architecture", None, "general.architecture is missing"),
            ("general.architecture", string("gemma3"), "\"gemma3\""),
            ("llama.block_count", None, "llama.block_count is missing"),
            ("llama.block_count", Some(Value::U32(0)), "llama.block_count is 0"),
            ("llama.block_count", Some(Value::I32(-1)), "llama.block_count is I32(-1)"),
            ("llama.block_count", string("30"), "llama.block_count is the string \"30\""),
            ("llama.attention.head_count", Some(Value::Array(vec![])), "head_count is an array"),
            ("llama.attention.head_count_kv", Some(Value::U32(3)), "head_count_kv is 3"),
            ("llama.attention.head_count", Some(Value::U32(5)), "is 48, not a multiple of the 5"),
            ("llama.attention.value_length", Some(Value::U32(8)), ""),
            ("llama.expert_count", Some(Value::U32(8)), "llama.expert_count is 8"),
            ("llama.rope.dimension_count", Some(Value::U32(7)), "dimension_count is 7"),
            ("llama.rope.scaling.type", string("yarn"), "\"yarn\""),
            ("llama.rope.freq_base", Some(Value::F32(f32::NAN)), "want a finite number"),
        ] {
            let result = read(&[(key, value.clone())]);
            if want.is_empty() {
                assert!(result.is_ok(), "{key} alone is ignored without key_length");
                continue;
            }
            let text = result.expect_err(key).to_string();
            assert!(text.contains(want), "{key} = {value:?}: {text}");
        }
    }
}
