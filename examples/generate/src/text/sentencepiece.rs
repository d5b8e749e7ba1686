//! SentencePiece with scores, `tokenizer.ggml.model` "llama".
//!
//! Its tokenizer joins neighbouring pieces, best score of the joined piece first. That is BPE
//! whose merges are every way to split a piece into two pieces, ranked by the piece's score.

use anyhow::{Context, Result, anyhow, ensure};
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{NormalizerWrapper, Prepend, Replace, Sequence};

use super::pieces::{TokenType, fallback_byte};
use super::{Built, Defaults};
use crate::gguf::Metadata;

/// SentencePiece's visible space.
const SPACE: &str = "▁";

/// The tokenizer, the bytes of each token and the defaults of the format.
pub fn build(metadata: &Metadata, names: &[String], types: &[TokenType]) -> Result<Built> {
    let scores = metadata
        .floats("tokenizer.ggml.scores")?
        .context("metadata tokenizer.ggml.scores is missing")?;
    ensure!(
        scores.len() == names.len(),
        "tokenizer.ggml.scores has {} elements for {} tokens",
        scores.len(),
        names.len()
    );
    let vocab: Vocab = names.iter().cloned().zip(0..).collect();
    let merges = merges(names, types, &scores, &vocab);
    let mut builder = BPE::builder().byte_fallback(true).fuse_unk(true);
    let unknown = types.iter().position(|&kind| kind == TokenType::Unknown);
    if let Some(unknown) = unknown {
        builder = builder.unk_token(names[unknown].clone());
    }
    let model = builder
        .vocab_and_merges(vocab, merges)
        .build()
        .map_err(|error| anyhow!("the SentencePiece vocabulary: {error}"))?;
    let mut tokenizer = Tokenizer::new(model);
    let mut steps = Vec::new();
    if metadata.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true) {
        steps.push(NormalizerWrapper::Prepend(Prepend::new(SPACE.to_owned())));
    }
    let replace = Replace::new(" ", SPACE).map_err(|error| anyhow!("{error}"))?;
    steps.push(NormalizerWrapper::Replace(replace));
    tokenizer
        .with_normalizer(Some(Sequence::new(steps)))
        .map_err(|error| anyhow!("the SentencePiece normalizer: {error}"))?;

    let bytes = names.iter().zip(types).map(|(name, &kind)| token_bytes(name, kind)).collect();
    let has = |id: u32| usize::try_from(id).is_ok_and(|id| id < names.len());
    let default = |id: u32| Some(id).filter(|&id| has(id));
    Ok((tokenizer, bytes, Defaults { bos: default(1), eos: default(2), add_bos: true }))
}

/// Every split of every piece into two pieces, best score first, then in the vocabulary's order.
fn merges(
    names: &[String],
    types: &[TokenType],
    scores: &[f64],
    vocab: &Vocab,
) -> Vec<(String, String)> {
    let is_text = |id: usize| {
        matches!(types[id], TokenType::Normal | TokenType::UserDefined | TokenType::Unused)
    };
    let part = |text: &str| {
        let id = vocab.get(text).and_then(|&id| usize::try_from(id).ok());
        id.is_some_and(is_text)
    };
    let mut order: Vec<usize> = (0..names.len()).filter(|&id| is_text(id)).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order
        .into_iter()
        .flat_map(|id| {
            let name = names[id].as_str();
            let cuts = name.char_indices().map(|(at, _)| name.split_at(at)).skip(1);
            cuts.filter(|(left, right)| part(left) && part(right))
                .map(|(left, right)| (left.to_owned(), right.to_owned()))
        })
        .collect()
}

fn token_bytes(name: &str, kind: TokenType) -> Vec<u8> {
    match kind {
        TokenType::Control | TokenType::Unknown => Vec::new(),
        TokenType::Byte => fallback_byte(name).map_or_else(Vec::new, |byte| vec![byte]),
        _ => name.replace(SPACE, " ").into_bytes(),
    }
}
