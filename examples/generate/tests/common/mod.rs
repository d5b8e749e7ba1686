//! Small Llama models that the tests write themselves, and what they must answer.

#![allow(dead_code, reason = "each test binary uses a part")]

pub mod gguf;
pub mod reference;

use gguf::{File, Kind, Value};

/// A small model: its shapes, its odd features and every weight as the file holds it.
#[derive(Clone)]
pub struct Model {
    pub layers: usize,
    pub embedding: usize,
    pub feed_forward: usize,
    pub num_q_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    pub rope_dim: usize,
    pub rope_base: f64,
    /// Factor of linear rope scaling.
    pub rope_factor: f64,
    /// Whether there are `rope_freqs.weight` and biases.
    pub rope_freqs: bool,
    pub biases: bool,
    /// Whether `output.weight` is the embedding.
    pub tied: bool,
    /// Type of the matrices; a row that is no whole number of blocks is f16.
    pub kind: Kind,
    pub vocabulary: Vocabulary,
    pub seed: u64,
}

/// The vocabulary of a small model.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Vocabulary {
    /// `llama`: 3 special tokens, 256 bytes, some pieces.
    SentencePiece,
    /// `gpt2`: 2 special tokens, the printable ASCII characters and space, some merges.
    Bpe,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            layers: 2,
            embedding: 64,
            feed_forward: 96,
            num_q_heads: 4,
            num_kv_heads: 2,
            head_dim: 16,
            rope_dim: 16,
            rope_base: 10_000.0,
            rope_factor: 1.0,
            rope_freqs: false,
            biases: false,
            tied: false,
            kind: Kind::F32,
            vocabulary: Vocabulary::SentencePiece,
            seed: 1,
        }
    }
}

/// Deterministic numbers: SplitMix64 (Steele, Lea, Flood 2014).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1.
    pub fn signed(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// Uniform in 0..n.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next_u64() % n as u64) as usize
    }
}

impl Model {
    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.token_names().len()
    }

    /// The file, and its weights by name as f32.
    pub fn file(&self) -> File {
        let mut file = File::default();
        self.metadata(&mut file);
        self.tokenizer(&mut file);
        self.tensors(&mut file);
        file
    }

    fn metadata(&self, file: &mut File) {
        let count = |n: usize| Value::U32(u32::try_from(n).unwrap());
        file.set("general.architecture", Value::Str("llama".into()));
        file.set("llama.block_count", count(self.layers));
        file.set("llama.context_length", count(256));
        file.set("llama.embedding_length", count(self.embedding));
        file.set("llama.feed_forward_length", count(self.feed_forward));
        file.set("llama.attention.head_count", count(self.num_q_heads));
        file.set("llama.attention.head_count_kv", count(self.num_kv_heads));
        file.set("llama.attention.key_length", count(self.head_dim));
        file.set("llama.attention.value_length", count(self.head_dim));
        file.set("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5));
        file.set("llama.rope.dimension_count", count(self.rope_dim));
        file.set("llama.rope.freq_base", Value::F32(self.rope_base as f32));
        if self.rope_factor != 1.0 {
            file.set("llama.rope.scaling.type", Value::Str("linear".into()));
            file.set("llama.rope.scaling.factor", Value::F32(self.rope_factor as f32));
        }
    }

    fn token_names(&self) -> Vec<String> {
        let text = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        match self.vocabulary {
            Vocabulary::SentencePiece => {
                let mut names = text(&["<unk>", "<s>", "</s>"]);
                names.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
                names.extend(text(&["▁", "a", "b", "c", "▁a", "ab", "bc", "▁ab", "abc", "▁abc"]));
                names
            }
            Vocabulary::Bpe => {
                let mut names = text(&["<|end|>", "<|start|>"]);
                names.extend((b'!'..=b'~').map(|byte| char::from(byte).to_string()));
                names.extend(text(&["Ġ", "Ċ", "Ġt", "he", "Ġthe", "in", "ing", "12"]));
                names
            }
        }
    }

    fn tokenizer(&self, file: &mut File) {
        let names = self.token_names();
        let ids = |bos, eos, file: &mut File| {
            file.set("tokenizer.ggml.bos_token_id", Value::U32(bos));
            file.set("tokenizer.ggml.eos_token_id", Value::U32(eos));
        };
        let template = "{{ bos_token }}[{{ messages[0]['content'] }}]";
        match self.vocabulary {
            Vocabulary::SentencePiece => {
                let scores = (0..names.len()).map(|id| if id < 259 { 0.0 } else { -(id as f32) });
                let kinds = (0..names.len()).map(|id| match id {
                    0 => 2,
                    1 | 2 => 3,
                    3..259 => 6,
                    _ => 1,
                });
                file.set("tokenizer.ggml.model", Value::Str("llama".into()));
                file.set("tokenizer.ggml.scores", Value::F32s(scores.collect()));
                file.set("tokenizer.ggml.token_type", Value::I32s(kinds.collect()));
                ids(1, 2, file);
            }
            Vocabulary::Bpe => {
                let merges = ["Ġ t", "h e", "Ġt he", "i n", "in g", "1 2"];
                let kinds = (0..names.len()).map(|id| if id < 2 { 3 } else { 1 });
                file.set("tokenizer.ggml.model", Value::Str("gpt2".into()));
                file.set("tokenizer.ggml.pre", Value::Str("smollm".into()));
                let merges = merges.map(str::to_owned).to_vec();
                file.set("tokenizer.ggml.merges", Value::Strs(merges));
                file.set("tokenizer.ggml.token_type", Value::I32s(kinds.collect()));
                ids(1, 0, file);
            }
        }
        file.set("tokenizer.ggml.tokens", Value::Strs(names));
        file.set("tokenizer.chat_template", Value::Str(template.into()));
    }

    fn tensors(&self, file: &mut File) {
        let numbers = &mut Numbers(self.seed);
        let (width, hidden, tokens) = (self.embedding, self.feed_forward, self.tokens());
        let (q, kv) = (self.num_q_heads * self.head_dim, self.num_kv_heads * self.head_dim);
        let mut matrix = |file: &mut File, name: &str, rows: usize, cols: usize, size: f32| {
            let values: Vec<f32> = (0..rows * cols).map(|_| size * numbers.signed()).collect();
            let kind = if cols.is_multiple_of(self.kind.block()) { self.kind } else { Kind::F16 };
            file.tensor(name, &[rows, cols], kind, &values);
        };
        matrix(file, "token_embd.weight", tokens, width, 1.0);
        if !self.tied {
            matrix(file, "output.weight", tokens, width, 1.0);
        }
        for layer in 0..self.layers {
            let mut part = |name: &str, rows: usize, cols: usize| {
                let size = 3.0 / (cols as f32).sqrt();
                matrix(file, &format!("blk.{layer}.{name}.weight"), rows, cols, size);
            };
            part("attn_q", q, width);
            part("attn_k", kv, width);
            part("attn_v", kv, width);
            part("attn_output", width, q);
            part("ffn_gate", hidden, width);
            part("ffn_up", hidden, width);
            part("ffn_down", width, hidden);
        }
        let mut vector = |file: &mut File, name: &str, len: usize, middle: f32| {
            let values: Vec<f32> = (0..len).map(|_| middle + 0.5 * numbers.signed()).collect();
            file.tensor(name, &[len], Kind::F32, &values);
        };
        vector(file, "output_norm.weight", width, 1.0);
        for layer in 0..self.layers {
            vector(file, &format!("blk.{layer}.attn_norm.weight"), width, 1.0);
            vector(file, &format!("blk.{layer}.ffn_norm.weight"), width, 1.0);
            if self.biases {
                vector(file, &format!("blk.{layer}.attn_q.bias"), q, 0.0);
                vector(file, &format!("blk.{layer}.ffn_up.bias"), hidden, 0.0);
            }
        }
        if self.rope_freqs {
            vector(file, "rope_freqs.weight", self.rope_dim / 2, 2.0);
        }
    }
}
