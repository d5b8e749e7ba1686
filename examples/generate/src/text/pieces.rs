//! What the tokens of a vocabulary are, and the bytes they stand for.

use anyhow::{Result, bail, ensure};

use crate::gguf::Metadata;

/// What a token is, as `tokenizer.ggml.token_type` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// A piece of text.
    Normal,
    /// Stands for what has no token.
    Unknown,
    /// Steers the model, no text.
    Control,
    /// Text that is never split.
    UserDefined,
    /// Never made.
    Unused,
    /// One byte, spelled `<0x41>`.
    Byte,
}

/// The type of each token; all are normal in a file that does not say.
pub fn types(metadata: &Metadata, tokens: usize) -> Result<Vec<TokenType>> {
    let Some(types) = metadata.integers("tokenizer.ggml.token_type")? else {
        return Ok(vec![TokenType::Normal; tokens]);
    };
    ensure!(
        types.len() == tokens,
        "tokenizer.ggml.token_type has {} elements for {tokens} tokens",
        types.len()
    );
    let read = |kind| {
        Ok(match kind {
            0 | 1 => TokenType::Normal,
            2 => TokenType::Unknown,
            3 => TokenType::Control,
            4 => TokenType::UserDefined,
            5 => TokenType::Unused,
            6 => TokenType::Byte,
            other => bail!("tokenizer.ggml.token_type holds {other}, want 0 to 6"),
        })
    };
    types.into_iter().map(read).collect()
}

/// The byte that GPT-2's vocabularies spell with this character: printable Latin-1 characters
/// are themselves, the other 68 bytes are in order the characters from U+0100 on.
pub fn spelled_byte(spelling: char) -> Option<u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = u32::from(spelling);
    match u8::try_from(code) {
        Ok(byte) => Some(byte).filter(printable),
        Err(_) => {
            let rank = usize::try_from(code - 0x100).ok()?;
            (0..=u8::MAX).filter(|byte| !printable(byte)).nth(rank)
        }
    }
}

/// The byte that SentencePiece spells `<0x41>`.
pub fn fallback_byte(name: &str) -> Option<u8> {
    let digits = name.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    use super::*;

    #[test]
    fn spelled_bytes_are_a_bijection_with_the_tokenizer_s_alphabet() {
        let alphabet = ByteLevel::alphabet();
        let bytes: HashSet<u8> = alphabet.iter().filter_map(|&c| spelled_byte(c)).collect();
        assert_eq!((alphabet.len(), bytes.len()), (256, 256));
        assert_eq!(spelled_byte('A'), Some(b'A'));
        assert_eq!(spelled_byte('Ġ'), Some(b' '));
        assert_eq!(spelled_byte('Ċ'), Some(b'\n'));
        assert_eq!(spelled_byte('Ń'), Some(0xad));
        for other in [' ', '\n', '\u{ad}', 'ń', '▁', '一'] {
            assert_eq!(spelled_byte(other), None, "{other:?}");
        }
    }

    #[test]
    fn fallback_bytes_have_two_digits() {
        assert_eq!(fallback_byte("<0x0A>"), Some(10));
        for other in ["<0xA>", "<0x0A0>", "0x0A", "<0x0A", "<0xZZ>", ""] {
            assert_eq!(fallback_byte(other), None, "{other:?}");
        }
    }
}
