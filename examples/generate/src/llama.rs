//! The forward pass of a Llama model. candle multiplies the matrices; attention is elsewhere.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};

use crate::attention::Attention;
use crate::config::Config;
use crate::gguf::Gguf;
use crate::rope::Rope;

/// A model with all weights in f32.
pub struct Llama {
    config: Config,
    rope: Rope,
    embedding: Tensor,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    output: Linear,
    vocabulary: usize,
}

struct Layer {
    attn_norm: Vec<f32>,
    /// Q, K and V, one below the other.
    qkv: Linear,
    attn_output: Linear,
    ffn_norm: Vec<f32>,
    /// Gate and up, one below the other.
    gate_up: Linear,
    down: Linear,
}

/// y = x Wᵀ + b; W is [out, in], as in the file.
struct Linear {
    weight: Tensor,
    bias: Option<Vec<f32>>,
}

impl Linear {
    /// Reads `name.weight`, and `name.bias` where the file has one.
    fn read(file: &mut Gguf, name: &str, out_dim: usize, in_dim: usize) -> Result<Self> {
        let weight = file.tensor(&format!("{name}.weight"), &[out_dim, in_dim])?;
        let bias = file.optional_vector(&format!("{name}.bias"), out_dim)?;
        Ok(Self { weight, bias })
    }

    /// Several products with the same x as one: candle reads /proc/cpuinfo anew for each product,
    /// which takes as long as a small one.
    fn joined(parts: &[Self]) -> Result<Self> {
        let weights: Vec<&Tensor> = parts.iter().map(|part| &part.weight).collect();
        let weight = Tensor::cat(&weights, 0)?;
        let mut bias = None;
        if parts.iter().any(|part| part.bias.is_some()) {
            let of = |part: &Self| -> Result<Vec<f32>> {
                let zeros = || Ok(vec![0.0; part.weight.dim(0)?]);
                part.bias.clone().map_or_else(zeros, Ok)
            };
            bias = Some(parts.iter().map(of).collect::<Result<Vec<_>>>()?.concat());
        }
        Ok(Self { weight, bias })
    }

    fn forward(&self, x: &[f32]) -> Result<Vec<f32>> {
        let (out_dim, in_dim) = self.weight.dims2()?;
        let x = Tensor::from_slice(x, (x.len() / in_dim, in_dim), &Device::Cpu)?;
        let mut y: Vec<f32> = x.matmul(&self.weight.t()?)?.flatten_all()?.to_vec1()?;
        if let Some(bias) = &self.bias {
            for row in y.chunks_exact_mut(out_dim) {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
        Ok(y)
    }
}

impl Layer {
    fn read(file: &mut Gguf, config: &Config, index: usize) -> Result<Self> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (width, hidden) = (config.embedding, config.feed_forward);
        let q_elems = config.num_q_heads * config.head_dim;
        let kv_elems = config.num_kv_heads * config.head_dim;
        let qkv = [
            Linear::read(file, &name("attn_q"), q_elems, width)?,
            Linear::read(file, &name("attn_k"), kv_elems, width)?,
            Linear::read(file, &name("attn_v"), kv_elems, width)?,
        ];
        let gate_up = [
            Linear::read(file, &name("ffn_gate"), hidden, width)?,
            Linear::read(file, &name("ffn_up"), hidden, width)?,
        ];
        Ok(Self {
            attn_norm: file.vector(&name("attn_norm.weight"), width)?,
            qkv: Linear::joined(&qkv)?,
            attn_output: Linear::read(file, &name("attn_output"), width, q_elems)?,
            ffn_norm: file.vector(&name("ffn_norm.weight"), width)?,
            gate_up: Linear::joined(&gate_up)?,
            down: Linear::read(file, &name("ffn_down"), width, hidden)?,
        })
    }
}

impl Llama {
    /// Reads every tensor of the file.
    pub fn read(mut file: Gguf, config: Config, vocabulary: usize) -> Result<Self> {
        let width = config.embedding;
        let freq_factors = file.optional_vector("rope_freqs.weight", config.rope_dim / 2)?;
        let positive = |factors: &Vec<f32>| factors.iter().all(|&x| x > 0.0 && x.is_finite());
        ensure!(
            freq_factors.as_ref().is_none_or(positive),
            "tensor rope_freqs.weight holds a factor that is not above 0"
        );
        let rope = Rope::new(&config, freq_factors.as_deref());
        let embedding = file.tensor("token_embd.weight", &[vocabulary, width])?;
        let output = if file.has("output.weight") {
            Linear::read(&mut file, "output", vocabulary, width)?
        } else {
            Linear { weight: embedding.clone(), bias: None }
        };
        let output_norm = file.vector("output_norm.weight", width)?;
        let mut layers = Vec::new();
        for index in 0..config.layers {
            layers.push(Layer::read(&mut file, &config, index)?);
        }
        file.finish()?;
        Ok(Self { config, rope, embedding, layers, output_norm, output, vocabulary })
    }

    /// The model's shapes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs the tokens at `positions` and returns the logits after the last of them.
    pub fn forward(
        &self,
        ids: &[u32],
        positions: Range<usize>,
        attention: &mut dyn Attention,
    ) -> Result<Vec<f32>> {
        let mut x = self.embed(ids)?;
        for (index, layer) in self.layers.iter().enumerate() {
            self.attention_block(index, layer, &mut x, positions.clone(), attention)?;
            self.feed_forward_block(layer, &mut x)?;
        }
        let last = x.len().checked_sub(self.config.embedding).context("no token to run")?;
        self.output.forward(&self.norm(&x[last..], &self.output_norm))
    }

    fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let mut x = Vec::with_capacity(ids.len() * self.config.embedding);
        for &id in ids {
            let row = usize::try_from(id)?;
            ensure!(row < self.vocabulary, "token id {id} of a vocabulary of {}", self.vocabulary);
            x.extend(self.embedding.get(row)?.to_vec1::<f32>()?);
        }
        Ok(x)
    }

    fn attention_block(
        &self,
        index: usize,
        layer: &Layer,
        x: &mut [f32],
        positions: Range<usize>,
        attention: &mut dyn Attention,
    ) -> Result<()> {
        let q_elems = self.config.num_q_heads * self.config.head_dim;
        let kv_elems = self.config.num_kv_heads * self.config.head_dim;
        let qkv = layer.qkv.forward(&self.norm(x, &layer.attn_norm))?;
        let (mut q, mut k, mut v) = (Vec::new(), Vec::new(), Vec::new());
        for row in qkv.chunks_exact(q_elems + 2 * kv_elems) {
            q.extend_from_slice(&row[..q_elems]);
            k.extend_from_slice(&row[q_elems..][..kv_elems]);
            v.extend_from_slice(&row[q_elems + kv_elems..]);
        }
        self.rope.apply(&mut q, q_elems, positions.start);
        self.rope.apply(&mut k, kv_elems, positions.start);
        let out = attention
            .attend(index, &q, &k, &v, positions)
            .with_context(|| format!("attention of layer {index}"))?;
        add(x, &layer.attn_output.forward(&out)?);
        Ok(())
    }

    fn feed_forward_block(&self, layer: &Layer, x: &mut [f32]) -> Result<()> {
        let gate_up = layer.gate_up.forward(&self.norm(x, &layer.ffn_norm))?;
        let mut hidden = Vec::with_capacity(gate_up.len() / 2);
        for row in gate_up.chunks_exact(2 * self.config.feed_forward) {
            let (gate, up) = row.split_at(self.config.feed_forward);
            hidden.extend(gate.iter().zip(up).map(|(g, u)| g / (1.0 + (-g).exp()) * u));
        }
        add(x, &layer.down.forward(&hidden)?);
        Ok(())
    }

    /// RMS norm of each row.
    fn norm(&self, x: &[f32], weight: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(x.len());
        for row in x.chunks_exact(weight.len()) {
            let squares: f64 = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            let scale = (squares / weight.len() as f64 + self.config.norm_eps).sqrt().recip();
            out.extend(row.iter().zip(weight).map(|(x, w)| x * scale as f32 * w));
        }
        out
    }
}

fn add(x: &mut [f32], y: &[f32]) {
    x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
}
