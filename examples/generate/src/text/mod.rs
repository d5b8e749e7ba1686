//! Text to token ids and back, from what a GGUF file says of its vocabulary.

mod bpe;
pub mod chat;
mod pieces;
mod sentencepiece;
pub mod stream;

use std::collections::HashSet;

use anyhow::{Context, Result, anyhow, bail, ensure};
use tokenizers::{AddedToken, Tokenizer};

use crate::gguf::Metadata;
use pieces::TokenType;

/// Tokens that end an answer whatever the file's `eos_token_id` says, if they are control tokens:
/// chat formats end a turn with one of these.
const TURN_ENDS: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "</s>",
];

/// A tokenizer, the bytes of each token and what its format assumes when a file does not say.
type Built = (Tokenizer, Vec<Vec<u8>>, Defaults);

struct Defaults {
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
}

/// A model's vocabulary.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    /// The bytes that each token stands for; empty for control tokens.
    bytes: Vec<Vec<u8>>,
    /// What the file calls each token.
    names: Vec<String>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    stops: HashSet<u32>,
    /// Every byte can be said: text comes back as it went in.
    lossless: bool,
}

impl Vocabulary {
    /// Reads the vocabulary and builds its tokenizer.
    pub fn read(metadata: &Metadata) -> Result<Self> {
        let names = metadata
            .strings("tokenizer.ggml.tokens")?
            .context("metadata tokenizer.ggml.tokens is missing")?;
        ensure!(!names.is_empty(), "metadata tokenizer.ggml.tokens is empty");
        let types = pieces::types(metadata, names.len())?;
        let kind = metadata
            .str("tokenizer.ggml.model")?
            .context("metadata tokenizer.ggml.model is missing")?;
        let (mut tokenizer, bytes, defaults) = match kind.as_str() {
            "gpt2" => bpe::build(metadata, &names, &types)?,
            "llama" => sentencepiece::build(metadata, &names, &types)?,
            other => bail!("tokenizer.ggml.model is {other:?}, want \"gpt2\" or \"llama\""),
        };
        add_special_tokens(&mut tokenizer, &names, &types)?;

        let id = |key: &str, default: Option<u32>| special_id(metadata, key, default, names.len());
        let bos = id("bos", defaults.bos)?;
        let eos = id("eos", defaults.eos)?;
        let mut stops: HashSet<u32> = eos.into_iter().collect();
        stops.extend(id("eot", None)?);
        stops.extend(id("eom", None)?);
        for (id, (name, kind)) in (0..).zip(names.iter().zip(&types)) {
            if *kind == TokenType::Control && TURN_ENDS.contains(&name.as_str()) {
                stops.insert(id);
            }
        }
        let add_bos = metadata.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(defaults.add_bos);
        Ok(Self { tokenizer, bytes, names, bos, eos, add_bos, stops, lossless: kind == "gpt2" })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The bytes that a token adds to the text: none for a control token.
    pub fn bytes(&self, id: u32) -> &[u8] {
        usize::try_from(id).ok().and_then(|id| self.bytes.get(id)).map_or(&[], Vec::as_slice)
    }

    /// The name of the token that starts a text.
    pub fn bos_name(&self) -> &str {
        self.name(self.bos)
    }

    /// The name of the token that ends a text.
    pub fn eos_name(&self) -> &str {
        self.name(self.eos)
    }

    fn name(&self, id: Option<u32>) -> &str {
        id.and_then(|id| self.names.get(usize::try_from(id).ok()?)).map_or("", String::as_str)
    }

    /// Whether an answer ends with this token.
    pub fn is_stop(&self, id: u32) -> bool {
        self.stops.contains(&id)
    }

    /// The ids of a prompt, with BOS in front where the model wants it and the text does not
    /// already spell it. Special tokens in the text are recognised. An empty text is BOS alone.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        if text.is_empty() {
            let bos = self.bos.context("an empty prompt needs a BOS token, the model has none")?;
            return Ok(vec![bos]);
        }
        let encoding = self
            .tokenizer
            .encode(text, false)
            .map_err(|error| anyhow!("cannot tokenize the prompt: {error}"))?;
        let mut ids = encoding.get_ids().to_vec();
        if self.lossless {
            self.check_lossless(text, &ids)?;
        }
        if self.add_bos && ids.first() != self.bos.as_ref() {
            ids.splice(0..0, self.bos);
        }
        Ok(ids)
    }

    /// A byte-level vocabulary that lacks a byte drops it in silence: say so instead.
    fn check_lossless(&self, text: &str, ids: &[u32]) -> Result<()> {
        let said: Vec<u8> = ids
            .iter()
            .flat_map(|&id| match self.bytes(id) {
                [] => self.name(Some(id)).as_bytes(),
                bytes => bytes,
            })
            .copied()
            .collect();
        ensure!(
            said == text.as_bytes(),
            "the vocabulary cannot express the prompt: it comes back as {:?}",
            String::from_utf8_lossy(&said)
        );
        Ok(())
    }
}

/// The id that the file gives a special token.
fn special_id(
    metadata: &Metadata,
    token: &str,
    default: Option<u32>,
    vocabulary: usize,
) -> Result<Option<u32>> {
    let key = format!("tokenizer.ggml.{token}_token_id");
    // Converters write 2^32 - 1 for "none".
    let Some(id) = metadata.count(&key)?.map(u32::try_from).transpose()?.or(default) else {
        return Ok(None);
    };
    if id == u32::MAX {
        return Ok(None);
    }
    ensure!(
        usize::try_from(id)? < vocabulary,
        "{key} is {id}, the vocabulary has {vocabulary} tokens"
    );
    Ok(Some(id))
}

/// Control and user-defined tokens are found in the text before anything else is done to it.
fn add_special_tokens(
    tokenizer: &mut Tokenizer,
    names: &[String],
    types: &[TokenType],
) -> Result<()> {
    let tokens = names.iter().zip(types).filter_map(|(name, kind)| match kind {
        TokenType::Control => Some(AddedToken::from(name, true).normalized(false)),
        TokenType::UserDefined => Some(AddedToken::from(name, false).normalized(false)),
        _ => None,
    });
    tokenizer
        .add_tokens(tokens.filter(|token| !token.content.is_empty()))
        .map_err(|error| anyhow!("cannot add the special tokens: {error}"))?;
    Ok(())
}
