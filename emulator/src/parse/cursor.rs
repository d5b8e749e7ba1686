//! A position in the token list.

use crate::error::Fault;
use crate::lex::{Spanned, Token};

pub(super) struct Cursor<'s> {
    tokens: Vec<Spanned<'s>>,
    at: usize,
}

impl<'s> Cursor<'s> {
    /// `tokens` ends with [`Token::End`], as the lexer makes it.
    pub(super) fn new(tokens: Vec<Spanned<'s>>) -> Self {
        Cursor { tokens, at: 0 }
    }

    fn spanned(&self, ahead: usize) -> Spanned<'s> {
        self.tokens[(self.at + ahead).min(self.tokens.len() - 1)]
    }

    pub(super) fn peek(&self) -> Token<'s> {
        self.spanned(0).token
    }

    pub(super) fn peek_ahead(&self, ahead: usize) -> Token<'s> {
        self.spanned(ahead).token
    }

    pub(super) fn next(&mut self) -> Token<'s> {
        let token = self.peek();
        self.at = (self.at + 1).min(self.tokens.len());
        token
    }

    /// Goes back before the token that was taken last.
    pub(super) fn back(&mut self) {
        self.at = self.at.saturating_sub(1);
    }

    /// Line of the token that comes next.
    pub(super) fn line(&self) -> u32 {
        self.spanned(0).line
    }

    /// Line of the token that was taken last.
    pub(super) fn last_line(&self) -> u32 {
        self.tokens[self.at.saturating_sub(1).min(self.tokens.len() - 1)].line
    }

    pub(super) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.last_line(), message)
    }

    /// The next token as a reader would name it.
    pub(super) fn shown(&self) -> String {
        match self.peek() {
            Token::Ident(name) => format!("`{name}`"),
            Token::Dot(name) => format!("`.{name}`"),
            Token::Int(value) | Token::Unsigned(value) => format!("`{value}`"),
            Token::Single(bits) => format!("`0f{bits:08x}`"),
            Token::Double(bits) => format!("`{}`", f64::from_bits(bits)),
            Token::Text(text) => format!("{text:?}"),
            Token::Punct(c) => format!("`{c}`"),
            Token::End => "the end of the file".into(),
        }
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Token::Punct(c);
        if found {
            self.next();
        }
        found
    }

    pub(super) fn expect(&mut self, c: char) -> Result<(), Fault> {
        if self.eat(c) {
            return Ok(());
        }
        Err(Fault::new(self.last_line(), format!("expected `{c}`, found {}", self.shown())))
    }

    pub(super) fn expect_dot(&mut self, name: &str) -> Result<(), Fault> {
        if self.peek() == Token::Dot(name) {
            self.next();
            return Ok(());
        }
        Err(Fault::new(self.line(), format!("expected `.{name}`, found {}", self.shown())))
    }

    pub(super) fn ident(&mut self) -> Result<&'s str, Fault> {
        match self.peek() {
            Token::Ident(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(Fault::new(self.line(), format!("expected a name, found {}", self.shown()))),
        }
    }

    /// An integer literal without a sign.
    pub(super) fn int(&mut self) -> Result<u64, Fault> {
        match self.peek() {
            Token::Int(value) | Token::Unsigned(value) => {
                self.next();
                Ok(value)
            }
            _ => {
                Err(Fault::new(self.line(), format!("expected an integer, found {}", self.shown())))
            }
        }
    }
}
