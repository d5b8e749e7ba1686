//! Constant expressions (PTX ISA, "Constant Expressions"): wherever a number may stand, an expression of numbers may.

use super::cursor::Cursor;
use crate::error::Fault;
use crate::lex::Token;

/// Deeper nesting than anybody writes; keeps bad text from exhausting the stack.
const MAX_DEPTH: u32 = 32;

/// A number: what an expression is made of, and what it comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    /// `.s64`
    Signed(i64),
    /// `.u64`
    Unsigned(u64),
    /// The bits of an f32 that stands alone.
    Single(u32),
    /// `.f64`
    Double(f64),
}

use Number::{Double, Signed, Single, Unsigned};

/// Whether an expression begins here that is no name.
pub(super) fn begins(cursor: &Cursor<'_>) -> bool {
    match cursor.peek() {
        Token::Int(_) | Token::Unsigned(_) | Token::Single(_) | Token::Double(_) => true,
        Token::Ident(name) => name == WARP_SIZE,
        Token::Punct('-') => {
            !matches!(cursor.peek_ahead(1), Token::Ident(name) if name != WARP_SIZE)
        }
        Token::Punct('!') => !matches!(cursor.peek_ahead(1), Token::Ident(_)),
        Token::Punct(c) => matches!(c, '(' | '+' | '~'),
        _ => false,
    }
}

/// A constant of the PTX ISA.
const WARP_SIZE: &str = "WARP_SZ";

/// An expression of any type.
pub(super) fn number(cursor: &mut Cursor<'_>) -> Result<Number, Fault> {
    choice(cursor, 0)
}

/// An expression of integers, in two's complement.
pub(super) fn integer(cursor: &mut Cursor<'_>) -> Result<i64, Fault> {
    if !begins(cursor) {
        let found = cursor.shown();
        return Err(Fault::new(cursor.line(), format!("expected an integer, found {found}")));
    }
    match number(cursor)? {
        Signed(value) => Ok(value),
        Unsigned(value) => Ok(value as i64),
        Single(_) | Double(_) => {
            Err(cursor.fault("expected an integer, found a number of floating point"))
        }
    }
}

/// `a ? b : c`, or what binds closer.
fn choice(cursor: &mut Cursor<'_>, depth: u32) -> Result<Number, Fault> {
    let first = binary(cursor, depth, 0)?;
    if !cursor.eat('?') {
        return Ok(first);
    }
    let yes = choice(cursor, depth + 1)?;
    cursor.expect(':')?;
    let no = choice(cursor, depth + 1)?;
    Ok(if holds(first) { yes } else { no })
}

/// The operator that comes next, how close it binds and how many tokens it takes.
fn operator<'s>(cursor: &Cursor<'s>) -> Option<(&'static str, u32, u32)> {
    let first = match cursor.peek() {
        Token::Punct(c) => c,
        // A lone `%`, which begins names otherwise.
        Token::Ident("%") => '%',
        _ => return None,
    };
    let next = match cursor.peek_ahead(1) {
        Token::Punct(c) => c,
        _ => ' ',
    };
    let found = match (first, next) {
        ('|', '|') => ("||", 1, 2),
        ('&', '&') => ("&&", 2, 2),
        ('=', '=') => ("==", 6, 2),
        ('!', '=') => ("!=", 6, 2),
        ('<', '<') => ("<<", 8, 2),
        ('>', '>') => (">>", 8, 2),
        ('<', '=') => ("<=", 7, 2),
        ('>', '=') => (">=", 7, 2),
        ('|', _) => ("|", 3, 1),
        ('^', _) => ("^", 4, 1),
        ('&', _) => ("&", 5, 1),
        ('<', _) => ("<", 7, 1),
        ('>', _) => (">", 7, 1),
        ('+', _) => ("+", 9, 1),
        ('-', _) => ("-", 9, 1),
        ('*', _) => ("*", 10, 1),
        ('/', _) => ("/", 10, 1),
        ('%', _) => ("%", 10, 1),
        _ => return None,
    };
    Some(found)
}

/// Operators that bind closer than `least`, from left to right.
fn binary(cursor: &mut Cursor<'_>, depth: u32, least: u32) -> Result<Number, Fault> {
    let mut left = unary(cursor, depth)?;
    while let Some((name, binds, tokens)) = operator(cursor).filter(|&(_, binds, _)| binds > least)
    {
        for _ in 0..tokens {
            cursor.next();
        }
        let right = binary(cursor, depth, binds)?;
        left = apply(name, left, right).map_err(|problem| cursor.fault(problem))?;
    }
    Ok(left)
}

fn unary(cursor: &mut Cursor<'_>, depth: u32) -> Result<Number, Fault> {
    if depth > MAX_DEPTH {
        return Err(cursor.fault(format!("an expression nested deeper than {MAX_DEPTH}")));
    }
    let token = cursor.next();
    let Token::Punct(sign) = token else {
        return match token {
            Token::Int(value) => Ok(i64::try_from(value).map_or(Unsigned(value), Signed)),
            Token::Unsigned(value) => Ok(Unsigned(value)),
            Token::Single(bits) => Ok(Single(bits)),
            Token::Double(bits) => Ok(Double(f64::from_bits(bits))),
            Token::Ident(WARP_SIZE) => Ok(Signed(32)),
            _ => Err(unexpected(cursor)),
        };
    };
    if sign == '(' {
        if let Token::Dot(ty @ ("s64" | "u64")) = cursor.peek() {
            cursor.next();
            cursor.expect(')')?;
            let value = unary(cursor, depth + 1)?;
            let bits = bits(value).map_err(|problem| cursor.fault(problem))?;
            return Ok(if ty == "s64" { Signed(bits as i64) } else { Unsigned(bits) });
        }
        let value = choice(cursor, depth + 1)?;
        cursor.expect(')')?;
        return Ok(value);
    }
    if !matches!(sign, '-' | '+' | '~' | '!') {
        return Err(unexpected(cursor));
    }
    let value = unary(cursor, depth + 1)?;
    Ok(match (sign, value) {
        ('+', value) => value,
        ('-', Signed(value)) => Signed(value.wrapping_neg()),
        ('-', Unsigned(value)) => Unsigned(value.wrapping_neg()),
        ('-', Single(bits)) => Single(bits ^ 1 << 31),
        ('-', Double(value)) => Double(-value),
        ('~', Signed(value)) => Unsigned(!value as u64),
        ('~', Unsigned(value)) => Unsigned(!value),
        ('!', value) => Signed((!holds(value)).into()),
        _ => return Err(cursor.fault("`~` takes integers")),
    })
}

/// The token that was taken last is none of a number.
fn unexpected(cursor: &mut Cursor<'_>) -> Fault {
    cursor.back();
    Fault::new(cursor.line(), format!("expected a number, found {}", cursor.shown()))
}

fn holds(number: Number) -> bool {
    match number {
        Signed(value) => value != 0,
        Unsigned(value) => value != 0,
        Single(bits) => f32::from_bits(bits) != 0.0,
        Double(value) => value != 0.0,
    }
}

fn bits(number: Number) -> Result<u64, String> {
    match number {
        Signed(value) => Ok(value as u64),
        Unsigned(value) => Ok(value),
        Single(_) | Double(_) => {
            Err("expected an integer, found a number of floating point".into())
        }
    }
}

/// A number of floating point, if it is one.
fn float(number: Number) -> Option<f64> {
    match number {
        Single(bits) => Some(f32::from_bits(bits).into()),
        Double(value) => Some(value),
        Signed(_) | Unsigned(_) => None,
    }
}

/// What an operator makes of two numbers; integers are unsigned if either is, those of `%` always.
fn apply(name: &str, left: Number, right: Number) -> Result<Number, String> {
    let truth = |holds: bool| Ok(Signed(holds.into()));
    match name {
        "&&" => return truth(holds(left) && holds(right)),
        "||" => return truth(holds(left) || holds(right)),
        _ => {}
    }
    if let (Some(a), Some(b)) = (float(left), float(right)) {
        return match name {
            "+" => Ok(Double(a + b)),
            "-" => Ok(Double(a - b)),
            "*" => Ok(Double(a * b)),
            "/" => Ok(Double(a / b)),
            "==" => truth(a == b),
            "!=" => truth(a != b),
            "<" => truth(a < b),
            "<=" => truth(a <= b),
            ">" => truth(a > b),
            ">=" => truth(a >= b),
            _ => Err(format!("`{name}` takes integers")),
        };
    }
    let (a, b) = (bits(left)?, bits(right)?);
    // The type of a shift is that of what is shifted.
    let shifts = matches!(name, "<<" | ">>");
    let unsigned = matches!(left, Unsigned(_)) || !shifts && matches!(right, Unsigned(_));
    let whole = |bits: u64| Ok(if unsigned { Unsigned(bits) } else { Signed(bits as i64) });
    let (signed_a, signed_b) = (a as i64, b as i64);
    let order = if unsigned { a.cmp(&b) } else { signed_a.cmp(&signed_b) };
    match name {
        "+" => whole(a.wrapping_add(b)),
        "-" => whole(a.wrapping_sub(b)),
        "*" => whole(a.wrapping_mul(b)),
        "/" | "%" if b == 0 => Err(format!("`{name}` by zero")),
        "/" if unsigned => whole(a / b),
        "%" => Ok(Unsigned(a % b)),
        "/" => whole(signed_a.wrapping_div(signed_b) as u64),
        "&" => whole(a & b),
        "|" => whole(a | b),
        "^" => whole(a ^ b),
        "<<" | ">>" if b > 63 => Err(format!("`{name}` by {b}, which is not one of 0 to 63")),
        "<<" => whole(a << b),
        ">>" if unsigned => whole(a >> b),
        ">>" => whole((signed_a >> b) as u64),
        "==" => truth(order.is_eq()),
        "!=" => truth(order.is_ne()),
        "<" => truth(order.is_lt()),
        "<=" => truth(order.is_le()),
        ">" => truth(order.is_gt()),
        _ => truth(order.is_ge()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lex::lex;

    fn value(text: &str) -> Result<Number, String> {
        let mut cursor = Cursor::new(lex(text).map_err(|fault| fault.message)?);
        let value = number(&mut cursor).map_err(|fault| fault.message)?;
        assert_eq!(cursor.peek(), Token::End, "{text}");
        Ok(value)
    }

    /// Precedence as in C; operands and result of `%` are unsigned, and so is what `~` makes. ptxas has the same values.
    #[test]
    fn expressions_have_the_values_that_ptxas_gives_them() {
        let whole = [
            ("2+3*4", 14),
            ("(2+3)*4", 20),
            ("-7/2", -3),
            ("-7 % 3", 0),
            ("7 % -3", 7),
            ("7 % 3 > -1", 0),
            ("~1/2", i64::MAX),
            ("(6|1)>-1", 1),
            ("(1?-1:2U)/2", 0),
            ("1<<4|3", 19),
            ("-1>>1", -1),
            ("~5", -6),
            ("!0+!7", 1),
            ("10-4-3", 3),
            ("6&3==2", 0),
            ("1^7&3", 2),
            ("5>3 ? 2 : 4", 2),
            ("0 ? 1 : 0 ? 2 : 3", 3),
            ("1 && 0 || 1", 1),
            ("5>=5", 1),
            ("1.5 < 2.5", 1),
            ("WARP_SZ-1", 31),
            ("-(3)", -3),
            ("(.s64)-1/2", 0),
            ("3 != 3", 0),
            ("- -3", 3),
        ];
        for (text, expected) in whole {
            assert_eq!(value(text).and_then(bits), Ok(expected as u64), "{text}");
        }
        assert_eq!(value("-1U>>63"), Ok(Unsigned(1)));
        assert_eq!(value("0xffffffffffffffff/2"), Ok(Unsigned(u64::MAX / 2)));
        assert_eq!(value("(.u64)-1>0"), Ok(Signed(1)));
        assert_eq!(value("1.5+0f3f800000"), Ok(Double(2.5)));
        assert_eq!(value("-0f3f800000"), Ok(Single(0xbf80_0000)));
    }

    #[test]
    fn what_has_no_value_is_an_error() {
        for text in ["1/0", "1%", "1 % 0", "~1.5", "1<<64", "1+", "(1", "1+2.5", "x", "1 ? 2"] {
            assert!(value(text).is_err(), "{text}");
        }
        let deep = |open: &str| format!("{}1", open.repeat(1 << 20));
        for open in ["(", "-", "1?", "1?1:", "(.s64)", "1+("] {
            assert!(value(&deep(open)).unwrap_err().contains("nested deeper"), "{open}");
        }
    }
}
