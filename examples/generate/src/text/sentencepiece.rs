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

#[cfg(test)]
mod tests {
    use candle_core::quantized::gguf_file::Value;

    use super::super::Vocabulary;
    use super::*;

    const PIECES: [&str; 16] = [
        "▁", "a", "b", "▁▁", "aa", "ab", "▁a", "ba", "aba", "▁ab", "abab", "bb", "▁▁a", "aab",
        "bba", "▁b",
    ];

    /// `scores` are those of [`PIECES`]; before them come `<unk>`, `<s>`, `</s>` and the bytes.
    fn metadata(scores: [f32; 16]) -> Metadata {
        let mut names: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
        names.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
        names.extend(PIECES.map(str::to_owned));
        let types = (0..names.len()).map(|id| match id {
            0 => 2,
            1 | 2 => 3,
            3..259 => 6,
            _ => 1,
        });
        let scores = [0.0; 259].into_iter().chain(scores);
        let array = |values: Vec<Value>| Value::Array(values);
        Metadata::from_values([
            ("tokenizer.ggml.model", Value::String("llama".into())),
            ("tokenizer.ggml.token_type", array(types.map(Value::I32).collect())),
            ("tokenizer.ggml.scores", array(scores.map(Value::F32).collect())),
            ("tokenizer.ggml.tokens", array(names.into_iter().map(Value::String).collect())),
        ])
    }

    /// SentencePiece's rule word for word: join the neighbours whose union scores best, the
    /// leftmost of equals, until no union is a piece.
    fn naive(scores: [f32; 16], text: &str) -> Vec<u32> {
        let text = format!("▁{}", text.replace(' ', "▁"));
        let mut pieces: Vec<String> = text.chars().map(String::from).collect();
        loop {
            let union = |i: usize| format!("{}{}", pieces[i], pieces[i + 1]);
            let score = |i: usize| PIECES.iter().position(|p| *p == union(i)).map(|id| scores[id]);
            let candidates = (0..pieces.len() - 1).filter_map(|i| Some((i, score(i)?)));
            let better =
                |a: &(usize, f32), b: &(usize, f32)| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0));
            let Some((i, _)) = candidates.max_by(better) else { break };
            pieces[i] = union(i);
            pieces.remove(i + 1);
        }
        let id = |piece: &String| PIECES.iter().position(|p| p == piece).unwrap() as u32 + 259;
        std::iter::once(1).chain(pieces.iter().map(id)).collect()
    }

    #[test]
    fn pieces_are_joined_by_score() {
        let mut state = 12345u32;
        let mut random = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for _ in 0..20 {
            let mut scores: [f32; 16] = std::array::from_fn(|id| -(id as f32));
            for i in (1..16).rev() {
                scores.swap(i, random(i + 1));
            }
            let vocabulary = Vocabulary::read(&metadata(scores)).unwrap();
            for _ in 0..50 {
                let length = 1 + random(12);
                let text: String = (0..length).map(|_| [' ', 'a', 'b'][random(3)]).collect();
                let ids = vocabulary.encode(&text).unwrap();
                assert_eq!(ids, naive(scores, &text), "{text:?} with {scores:?}");
            }
        }
    }

    #[test]
    fn bytes_and_special_tokens_come_back() {
        let scores = std::array::from_fn(|id| -(id as f32));
        let vocabulary = Vocabulary::read(&metadata(scores)).unwrap();
        for text in ["a b", "naïve 🦀\n", "ab\u{0}c", "x"] {
            let ids = vocabulary.encode(text).unwrap();
            let bytes: Vec<u8> = ids.iter().flat_map(|&id| vocabulary.bytes(id)).copied().collect();
            assert_eq!(String::from_utf8(bytes).unwrap(), format!(" {text}"));
        }
        assert_eq!(vocabulary.encode("").unwrap(), [1]);
        assert_eq!(vocabulary.encode("<s>a</s>b").unwrap(), [1, 265, 2, 274]);
        assert!(vocabulary.is_stop(2) && !vocabulary.is_stop(1));
        assert!(vocabulary.bytes(2).is_empty() && vocabulary.bytes(u32::MAX).is_empty());
    }

    #[test]
    fn a_vocabulary_without_the_space_prefix() {
        let scores = std::array::from_fn(|id| -(id as f32));
        let Metadata(mut values) = metadata(scores);
        values.insert("tokenizer.ggml.add_space_prefix".into(), Value::Bool(false));
        values.insert("tokenizer.ggml.add_bos_token".into(), Value::Bool(false));
        let vocabulary = Vocabulary::read(&Metadata(values)).unwrap();
        assert_eq!(vocabulary.encode("ab").unwrap(), [264]);
    }
}
