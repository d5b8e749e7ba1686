//! Declarations of variables and parameters.

use super::ast::{Init, Variable};
use super::cursor::Cursor;
use super::expression::{self, Number};
use crate::error::Fault;
use crate::lex::Token;
use crate::types::{Space, Type};

/// What comes before the name and is shared by all names of one declaration.
struct Prefix {
    align: Option<u64>,
    vector: u64,
    ty: Type,
}

/// One or more variables after the state space, without the semicolon.
pub(super) fn declarators<'s>(
    cursor: &mut Cursor<'s>,
    space: Space,
    external: bool,
) -> Result<Vec<Variable<'s>>, Fault> {
    let prefix = prefix(cursor)?;
    let mut list = Vec::new();
    loop {
        let mut variable = named(cursor, space, &prefix)?;
        variable.external = external;
        list.push(variable);
        if !cursor.eat(',') {
            return Ok(list);
        }
    }
}

/// One parameter after its state space.
pub(super) fn declarator<'s>(cursor: &mut Cursor<'s>, space: Space) -> Result<Variable<'s>, Fault> {
    let prefix = prefix(cursor)?;
    named(cursor, space, &prefix)
}

fn prefix(cursor: &mut Cursor<'_>) -> Result<Prefix, Fault> {
    let (mut align, mut vector, mut ty) = (None, 1, None);
    while let Token::Dot(name) = cursor.peek() {
        cursor.next();
        match name {
            "align" => align = Some(alignment(cursor)?),
            "v2" => vector = 2,
            "v4" => vector = 4,
            // What a pointer parameter points to: a promise to ptxas, checked access by access here.
            "ptr" => skip_pointer_facts(cursor)?,
            _ => match Type::parse(name) {
                Some(found) if ty.is_none() => ty = Some(found),
                _ => return Err(cursor.fault(format!("unexpected `.{name}` in a declaration"))),
            },
        }
    }
    let ty = ty.ok_or_else(|| cursor.fault("declaration without a type"))?;
    Ok(Prefix { align, vector, ty })
}

fn alignment(cursor: &mut Cursor<'_>) -> Result<u64, Fault> {
    let value = cursor.int()?;
    if value.is_power_of_two() && value <= 1 << 16 {
        return Ok(value);
    }
    Err(cursor.fault(format!("alignment {value} is not a power of two up to 65536")))
}

fn skip_pointer_facts(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    if let Token::Dot("global" | "shared" | "local" | "const") = cursor.peek() {
        cursor.next();
    }
    if cursor.peek() == Token::Dot("align") {
        cursor.next();
        alignment(cursor)?;
    }
    Ok(())
}

fn named<'s>(
    cursor: &mut Cursor<'s>,
    space: Space,
    prefix: &Prefix,
) -> Result<Variable<'s>, Fault> {
    let name = cursor.ident()?;
    let line = cursor.last_line();
    let element = u64::from(prefix.ty.bytes()) * prefix.vector;
    let (mut bytes, mut unsized_array) = (element, false);
    while cursor.eat('[') {
        if cursor.eat(']') {
            unsized_array = true;
            continue;
        }
        let count = cursor.int()?;
        let product = bytes.checked_mul(count).filter(|&b| b <= 1 << 40);
        bytes = product.ok_or_else(|| {
            cursor.fault(format!("{count} elements of {bytes} bytes are too many"))
        })?;
        cursor.expect(']')?;
    }
    let init = if cursor.eat('=') { initialiser(cursor, prefix.ty)? } else { Vec::new() };
    if unsized_array {
        bytes = init.len() as u64 * element;
        unsized_array = init.is_empty();
    }
    if init.len() as u64 * u64::from(prefix.ty.bytes()) > bytes {
        return Err(Fault::new(line, format!("{} initial values do not fit `{name}`", init.len())));
    }
    let align = prefix.align.unwrap_or(element);
    Ok(Variable {
        space,
        ty: prefix.ty,
        name,
        bytes,
        unsized_array,
        external: false,
        align,
        init,
        line,
    })
}

fn initialiser<'s>(cursor: &mut Cursor<'s>, ty: Type) -> Result<Vec<Init<'s>>, Fault> {
    let mut list = Vec::new();
    let mut depth = 0u32;
    loop {
        if cursor.eat('{') {
            depth += 1;
            continue;
        }
        if cursor.peek() != Token::Punct('}') {
            list.push(initial_value(cursor, ty)?);
        }
        while depth > 0 && cursor.eat('}') {
            depth -= 1;
        }
        if depth == 0 {
            return Ok(list);
        }
        cursor.expect(',')?;
    }
}

fn initial_value<'s>(cursor: &mut Cursor<'s>, ty: Type) -> Result<Init<'s>, Fault> {
    match cursor.peek() {
        Token::Ident(_) if !expression::begins(cursor) => {
            let (name, offset) = address(cursor)?;
            Ok(Init::Symbol(name, offset, None))
        }
        // The operator `mask()`.
        Token::Int(mask) if cursor.peek_ahead(1) == Token::Punct('(') => {
            cursor.next();
            cursor.expect('(')?;
            let (name, offset) = address(cursor)?;
            cursor.expect(')')?;
            let byte = (0..8).find(|byte| mask == 0xff << (8 * byte));
            let byte = byte.ok_or_else(|| {
                cursor.fault(format!("the mask {mask:#x} is not that of one byte"))
            })?;
            Ok(Init::Symbol(name, offset, Some(byte)))
        }
        _ => Ok(Init::Bits(match (expression::number(cursor)?, ty) {
            (Number::Single(bits), _) => bits.into(),
            (Number::Double(value), Type::F32) => (value as f32).to_bits().into(),
            (Number::Double(value), _) => value.to_bits(),
            (Number::Signed(value), Type::F32) => (value as f32).to_bits().into(),
            (Number::Signed(value), Type::F64) => (value as f64).to_bits(),
            (Number::Signed(value), _) => value as u64,
            (Number::Unsigned(value), Type::F32) => (value as f32).to_bits().into(),
            (Number::Unsigned(value), Type::F64) => (value as f64).to_bits(),
            (Number::Unsigned(value), _) => value,
        })),
    }
}

/// `name+4`, `generic(name)+4`
fn address<'s>(cursor: &mut Cursor<'s>) -> Result<(&'s str, i64), Fault> {
    if cursor.peek() == Token::Ident("generic") {
        cursor.next();
        cursor.expect('(')?;
        let name = cursor.ident()?;
        let inner = offset(cursor)?;
        cursor.expect(')')?;
        return Ok((name, inner.wrapping_add(offset(cursor)?)));
    }
    let name = cursor.ident()?;
    Ok((name, offset(cursor)?))
}

/// What is added to a symbol, if anything.
fn offset(cursor: &mut Cursor<'_>) -> Result<i64, Fault> {
    match cursor.peek() {
        Token::Punct('+') => {
            cursor.next();
            expression::integer(cursor)
        }
        Token::Punct('-') => expression::integer(cursor),
        _ => Ok(0),
    }
}
