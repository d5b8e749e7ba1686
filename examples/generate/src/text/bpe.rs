//! GPT-2's byte-level BPE, `tokenizer.ggml.model` "gpt2".

use anyhow::{Context, Result, anyhow, bail};
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::pieces::{TokenType, spelled_byte};
use super::{Built, Defaults};
use crate::gguf::Metadata;

// How text is cut into words before merging, by the names that `tokenizer.ggml.pre` uses. The
// patterns are those of the models' own tokenizer files; what matches none is a word of its own.
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)";
const DIGIT: &str = r"\p{N}";
const DIGITS: &str = r"\p{N}+";
const THREE_DIGITS: &str = r"[0-9][0-9][0-9]";
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// How one family of models cuts text.
struct Cutting {
    patterns: &'static [&'static str],
    /// A word that is a token stays one, whatever the merges say.
    whole_words: bool,
    add_bos: bool,
}

fn cutting(pre: &str) -> Option<Cutting> {
    let plain = |patterns| Some(Cutting { patterns, whole_words: false, add_bos: false });
    let with_bos = |patterns| Some(Cutting { patterns, whole_words: true, add_bos: true });
    match pre {
        "default" => plain(&[PUNCTUATION, GPT2, DIGITS, THREE_DIGITS]),
        "gpt-2" | "olmo" | "mpt" | "phi-2" | "jais" | "trillion" => plain(&[GPT2]),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" | "minerva-7b" => {
            plain(&[DIGIT, GPT2])
        }
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "pixtral" => with_bos(&[LLAMA3]),
        "smaug-bpe" | "dbrx" => plain(&[LLAMA3]),
        "qwen2" | "deepseek-r1-qwen" | "stablelm2" | "megrez" => plain(&[QWEN2]),
        "tekken" => with_bos(&[TEKKEN]),
        _ => None,
    }
}

/// The tokenizer, the bytes of each token and the defaults of the format.
pub fn build(metadata: &Metadata, names: &[String], types: &[TokenType]) -> Result<Built> {
    let pre = metadata.str("tokenizer.ggml.pre")?.unwrap_or_else(|| "default".to_owned());
    let Some(cutting) = cutting(&pre) else {
        bail!("tokenizer.ggml.pre is {pre:?}, which is not known here")
    };
    let merges = metadata
        .strings("tokenizer.ggml.merges")?
        .context("metadata tokenizer.ggml.merges is missing")?
        .iter()
        .map(|merge| split_merge(merge))
        .collect::<Result<Vec<_>>>()?;
    let vocab: Vocab = names.iter().cloned().zip(0..).collect();
    let model = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .ignore_merges(cutting.whole_words)
        .build()
        .map_err(|error| anyhow!("tokenizer.ggml.merges: {error}"))?;

    let mut tokenizer = Tokenizer::new(model);
    let mut steps = Vec::new();
    for pattern in cutting.patterns {
        let pattern = SplitPattern::Regex((*pattern).to_owned());
        let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)
            .map_err(|error| anyhow!("the pattern of {pre:?}: {error}"))?;
        steps.push(PreTokenizerWrapper::Split(split));
    }
    steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, false)));
    tokenizer.with_pre_tokenizer(Some(Sequence::new(steps)));

    let bytes = names.iter().zip(types).map(|(name, &kind)| token_bytes(name, kind)).collect();
    let defaults = Defaults { bos: None, eos: None, add_bos: cutting.add_bos };
    Ok((tokenizer, bytes, defaults))
}

/// "left right"; the left part may itself start with a space in odd vocabularies.
fn split_merge(merge: &str) -> Result<(String, String)> {
    let first = merge.chars().next().map_or(0, char::len_utf8);
    let space = merge[first..].find(' ').map(|at| at + first);
    let space = space.with_context(|| format!("merge {merge:?} does not have two parts"))?;
    Ok((merge[..space].to_owned(), merge[space + 1..].to_owned()))
}

fn token_bytes(name: &str, kind: TokenType) -> Vec<u8> {
    match kind {
        TokenType::Control | TokenType::Unknown => Vec::new(),
        TokenType::UserDefined => name.as_bytes().to_vec(),
        _ => {
            let spelled: Option<Vec<u8>> = name.chars().map(spelled_byte).collect();
            spelled.unwrap_or_else(|| name.as_bytes().to_vec())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_split_at_their_space() {
        let parts = |merge| split_merge(merge).map(|(l, r)| format!("{l}|{r}"));
        assert_eq!(parts("Ġ t").unwrap(), "Ġ|t");
        assert_eq!(parts("  a").unwrap(), " |a");
        for bad in ["", "ab", " "] {
            assert!(parts(bad).unwrap_err().to_string().contains("two parts"), "{bad:?}");
        }
    }

    /// The words that a pre-tokenizer makes of a text.
    fn words(pre: &str, text: &str) -> Vec<String> {
        let mut pieces = vec![text.to_owned()];
        for pattern in cutting(pre).unwrap().patterns {
            let pattern = SplitPattern::Regex((*pattern).to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap();
            let cut = |piece: &String| {
                let mut text = tokenizers::PreTokenizedString::from(piece.as_str());
                tokenizers::PreTokenizer::pre_tokenize(&split, &mut text).unwrap();
                let (kind, unit) =
                    (tokenizers::OffsetReferential::Original, tokenizers::OffsetType::Byte);
                let words = text.get_splits(kind, unit).into_iter();
                words.map(|(word, _, _)| word.to_owned()).collect::<Vec<_>>()
            };
            pieces = pieces.iter().flat_map(cut).collect();
        }
        pieces
    }

    #[test]
    fn families_cut_digits_and_contractions_their_own_way() {
        let text = "We'LL pay 12345  now\n\nok";
        let want =
            ["We", "'", "LL", " pay", " ", "1", "2", "3", "4", "5", " ", " now", "\n", "\n", "ok"];
        assert_eq!(words("smollm", text), want);
        let want = ["We", "'LL", " pay", " ", "123", "45", " ", " now", "\n\n", "ok"];
        assert_eq!(words("llama-bpe", text), want);
        let want = ["We", "'", "LL", " pay", " 12345", " ", " now", "\n", "\n", "ok"];
        assert_eq!(words("gpt-2", text), want);
        assert!(cutting("no-such-model").is_none());
    }
}
