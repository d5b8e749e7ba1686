//! Text to tokens. A token keeps its line; nothing is skipped but white space and comments.

use crate::error::Fault;

/// One token of PTX.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Token<'s> {
    /// A name: of an instruction, a register (`%r1`), a label (`$L1`), a symbol.
    Ident(&'s str),
    /// A name after a dot: `.u32`, `.L2::cache_hint`; without the dot.
    Dot(&'s str),
    /// An integer literal.
    Int(u64),
    /// An integer literal with `U`.
    Unsigned(u64),
    /// `0f` and eight hexadecimal digits.
    Single(u32),
    /// `0d` and sixteen hexadecimal digits, or a decimal literal with a point or an exponent.
    Double(u64),
    /// Text between quotes.
    Text(&'s str),
    /// Any other single character that PTX uses.
    Punct(char),
    /// The end of the text.
    End,
}

/// A token and the line it starts on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spanned<'s> {
    pub(crate) token: Token<'s>,
    pub(crate) line: u32,
}

struct Lexer<'s> {
    text: &'s str,
    at: usize,
    line: u32,
}

/// Splits the text into tokens, the last of which is [`Token::End`].
pub(crate) fn lex(text: &str) -> Result<Vec<Spanned<'_>>, Fault> {
    let mut lexer = Lexer { text, at: 0, line: 1 };
    let mut tokens = Vec::with_capacity(text.len() / 4);
    loop {
        lexer.skip_blank()?;
        let line = lexer.line;
        let token = lexer.token()?;
        tokens.push(Spanned { token, line });
        if token == Token::End {
            return Ok(tokens);
        }
    }
}

fn name_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%')
}

fn name_rest(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$')
}

impl<'s> Lexer<'s> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(self.at + ahead).copied().unwrap_or(0)
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.line, message)
    }

    fn skip_blank(&mut self) -> Result<(), Fault> {
        loop {
            match (self.peek(0), self.peek(1)) {
                (b'\n', _) => {
                    self.line += 1;
                    self.at += 1;
                }
                (b' ' | b'\t' | b'\r' | 0x0c, _) => self.at += 1,
                (b'/', b'/') => {
                    let rest = &self.text[self.at..];
                    self.at += rest.find('\n').unwrap_or(rest.len());
                }
                (b'/', b'*') => {
                    let rest = &self.text[self.at..];
                    let Some(end) = rest[2..].find("*/") else {
                        return Err(self.fault("comment without an end"));
                    };
                    let comment = &rest[..end + 4];
                    self.line += comment.bytes().filter(|&c| c == b'\n').count() as u32;
                    self.at += comment.len();
                }
                // Tools hand over PTX with the terminating zero of a C string.
                (0, _) if self.at + 1 == self.text.len() => self.at += 1,
                _ => return Ok(()),
            }
        }
    }

    fn take_while(&mut self, keep: impl Fn(u8) -> bool) -> &'s str {
        let start = self.at;
        while self.at < self.text.len() && keep(self.peek(0)) {
            self.at += 1;
        }
        &self.text[start..self.at]
    }

    fn token(&mut self) -> Result<Token<'s>, Fault> {
        if self.at >= self.text.len() {
            return Ok(Token::End);
        }
        let c = self.peek(0);
        if name_start(c) {
            let start = self.at;
            self.at += 1;
            self.take_while(name_rest);
            return Ok(Token::Ident(&self.text[start..self.at]));
        }
        if c.is_ascii_digit() {
            return self.number();
        }
        // What follows a name is a modifier, such as `.2d`.
        let follows = self.text.as_bytes()[..self.at].last().is_some_and(|&c| name_rest(c));
        if c == b'.' && self.peek(1).is_ascii_digit() && !follows {
            return self.decimal(self.at);
        }
        if c == b'.' && (name_rest(self.peek(1))) {
            self.at += 1;
            return Ok(Token::Dot(self.dotted()));
        }
        if c == b'"' {
            let rest = &self.text[self.at + 1..];
            let Some(end) = rest.find('"') else {
                return Err(self.fault("text without a closing quote"));
            };
            let text = &rest[..end];
            self.line += text.bytes().filter(|&c| c == b'\n').count() as u32;
            self.at += end + 2;
            return Ok(Token::Text(text));
        }
        if b"{}()[]<>,;:@!|+-*/=&~^?".contains(&c) {
            self.at += 1;
            return Ok(Token::Punct(c as char));
        }
        let c = self.text[self.at..].chars().next().unwrap_or('?');
        Err(self.fault(format!("unexpected character {c:?}")))
    }

    /// A name after a dot; `::` joins its parts (`L2::128B`, `param::entry`).
    fn dotted(&mut self) -> &'s str {
        let start = self.at;
        loop {
            self.take_while(name_rest);
            if self.peek(0) == b':' && self.peek(1) == b':' && name_rest(self.peek(2)) {
                self.at += 2;
            } else {
                return &self.text[start..self.at];
            }
        }
    }

    fn number(&mut self) -> Result<Token<'s>, Fault> {
        let start = self.at;
        let second = self.peek(1);
        if self.peek(0) == b'0' && matches!(second, b'f' | b'F' | b'd' | b'D') {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit());
            let single = matches!(second, b'f' | b'F');
            let wanted = if single { 8 } else { 16 };
            if digits.len() != wanted {
                return Err(
                    self.fault(format!("`{}` needs {wanted} digits", &self.text[start..self.at]))
                );
            }
            let bits = u64::from_str_radix(digits, 16).map_err(|e| self.fault(e.to_string()))?;
            return Ok(if single { Token::Single(bits as u32) } else { Token::Double(bits) });
        }
        let radix = match (self.peek(0), second) {
            (b'0', b'x' | b'X') => 16,
            (b'0', b'b' | b'B') => 2,
            _ => 10,
        };
        if radix != 10 {
            self.at += 2;
        }
        let digits = self.take_while(|c| (c as char).is_digit(radix));
        let (c, next) = (self.peek(0), self.peek(1));
        let point = c == b'.' && !next.is_ascii_alphabetic();
        if radix == 10 && (point || matches!(c, b'e' | b'E')) {
            return self.decimal(start);
        }
        let octal = radix == 10 && digits.len() > 1 && digits.starts_with('0');
        let value = u64::from_str_radix(digits, if octal { 8 } else { radix });
        let unsigned = self.peek(0) == b'U';
        self.at += usize::from(unsigned);
        let text = &self.text[start..self.at];
        if name_rest(self.peek(0)) {
            return Err(self.fault(format!("`{text}` runs into a name")));
        }
        value
            .map(if unsigned { Token::Unsigned } else { Token::Int })
            .map_err(|_| self.fault(format!("`{text}` is not an integer of 64 bits")))
    }

    fn decimal(&mut self, start: usize) -> Result<Token<'s>, Fault> {
        if self.peek(0) == b'.' {
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        if matches!(self.peek(0), b'e' | b'E') {
            self.at += 1;
            if matches!(self.peek(0), b'+' | b'-') {
                self.at += 1;
            }
            self.take_while(|c| c.is_ascii_digit());
        }
        let text = &self.text[start..self.at];
        let value: f64 =
            text.parse().map_err(|_| self.fault(format!("`{text}` is not a number")))?;
        Ok(Token::Double(value.to_bits()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &str) -> Vec<Token<'_>> {
        lex(text).unwrap().iter().map(|t| t.token).collect()
    }

    #[test]
    fn names_modifiers_and_numbers() {
        let got = tokens("ld.global.L1::no_allocate.v4.u32 %r1, [%rd2+0x10]; // c");
        assert_eq!(got[0], Token::Ident("ld"));
        assert_eq!(got[2], Token::Dot("L1::no_allocate"));
        assert_eq!(got[5], Token::Ident("%r1"));
        assert!(got.contains(&Token::Int(16)));
        assert_eq!(tokens("0f3F800000")[0], Token::Single(0x3f80_0000));
        assert_eq!(tokens("0d3FF0000000000000")[0], Token::Double(1f64.to_bits()));
        assert_eq!(tokens("1.5e1")[0], Token::Double(15f64.to_bits()));
        assert_eq!(
            tokens("017 0b11 12U")[..3],
            [Token::Int(15), Token::Int(3), Token::Unsigned(12)]
        );
        assert_eq!(
            tokens("-.5 a.2d")[1..],
            [Token::Double(0.5f64.to_bits()), Token::Ident("a"), Token::Dot("2d"), Token::End]
        );
    }

    #[test]
    fn lines_count_through_comments() {
        let got = lex("a /* x\n y */ b\n c").unwrap();
        assert_eq!(got.iter().map(|t| t.line).collect::<Vec<_>>(), [1, 2, 3, 3]);
    }

    #[test]
    fn bad_text_is_an_error() {
        for text in ["/* open", "\"open", "0f12", "99999999999999999999", "12ab", "a ` b", "é"] {
            assert!(lex(text).is_err(), "{text}");
        }
    }
}
