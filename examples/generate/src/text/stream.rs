//! Bytes to text as they come: a character may be spread over several tokens.

/// Holds back the bytes of a character that is not complete yet.
#[derive(Debug, Default)]
pub struct Utf8Stream {
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// The text that these bytes complete. Bytes that can never become text come out as U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut done = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            done += chunk.valid().len();
            let invalid = chunk.invalid();
            let at_the_end = done + invalid.len() == self.pending.len();
            let held_back = at_the_end && may_continue(invalid);
            if !invalid.is_empty() && !held_back {
                text.push(char::REPLACEMENT_CHARACTER);
                done += invalid.len();
            }
        }
        self.pending.drain(..done);
        text
    }

    /// What is left when no more bytes come.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

/// Whether the bytes are the start of a character.
fn may_continue(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_does_not_depend_on_where_it_is_cut() {
        let cases: [&[u8]; 5] = [
            "naïve 日本語 🦀!".as_bytes(),
            b"a\xffb\xf0\x9f\xa6c\xe6\x97",
            b"\x80\x80\xf0\x9f",
            b"",
            b"\xed\xa0\x80\xf4\x90\x80\x80",
        ];
        for bytes in cases {
            let want = String::from_utf8_lossy(bytes);
            for cut in 1..=bytes.len().max(1) {
                let mut stream = Utf8Stream::default();
                let mut text: String = bytes.chunks(cut).map(|part| stream.push(part)).collect();
                text.push_str(&stream.finish());
                assert_eq!(text, want, "cut {cut}");
            }
        }
    }

    #[test]
    fn a_character_comes_out_whole_with_its_last_byte() {
        let mut stream = Utf8Stream::default();
        let parts: Vec<String> = "é🦀".bytes().map(|byte| stream.push(&[byte])).collect();
        assert_eq!(parts, ["", "é", "", "", "", "🦀"]);
        assert_eq!(stream.push(b"\xf0\x9f"), "");
        assert_eq!(stream.push(b"x"), "\u{fffd}x");
        assert_eq!(stream.finish(), "");
    }
}
