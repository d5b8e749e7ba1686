//! Statements of a function body and the operands of instructions.

use super::ast::{Base, Instruction, Operand, Statement};
use super::cursor::Cursor;
use super::expression::{self, Number};
use super::{ignored, parameters, variable};
use crate::error::Fault;
use crate::lex::Token;
use crate::types::{Space, Type};

/// Deeper nesting than any compiler writes; keeps bad text from exhausting the stack.
const MAX_DEPTH: u32 = 64;

/// Statements up to the closing brace, which is consumed.
pub(super) fn statements<'s>(
    cursor: &mut Cursor<'s>,
    depth: u32,
) -> Result<Vec<Statement<'s>>, Fault> {
    if depth > MAX_DEPTH {
        return Err(cursor.fault(format!("blocks nested deeper than {MAX_DEPTH}")));
    }
    let mut list = Vec::new();
    loop {
        match cursor.peek() {
            Token::End => return Err(cursor.fault("function without a closing brace")),
            Token::Punct('}') => {
                cursor.next();
                return Ok(list);
            }
            Token::Punct('{') => {
                cursor.next();
                list.push(Statement::Block(statements(cursor, depth + 1)?));
            }
            Token::Punct(';') => {
                cursor.next();
            }
            Token::Dot(name) => {
                cursor.next();
                directive(cursor, name, &mut list)?;
            }
            Token::Ident(name) if cursor.peek_ahead(1) == Token::Punct(':') => {
                cursor.next();
                let line = cursor.last_line();
                cursor.next();
                list.push(labelled(cursor, name, line)?);
            }
            _ => list.push(Statement::Instruction(instruction(cursor)?)),
        }
    }
}

/// A label, or what it names: a table of branch targets, a list of call targets, a call prototype.
fn labelled<'s>(cursor: &mut Cursor<'s>, name: &'s str, line: u32) -> Result<Statement<'s>, Fault> {
    let Token::Dot(kind @ ("branchtargets" | "calltargets" | "callprototype")) = cursor.peek()
    else {
        return Ok(Statement::Label { name, line });
    };
    cursor.next();
    if kind == "callprototype" {
        prototype(cursor)?;
        return Ok(Statement::CallPrototype { name, line });
    }
    let mut list = vec![cursor.ident()?];
    while cursor.eat(',') {
        list.push(cursor.ident()?);
    }
    cursor.expect(';')?;
    Ok(match kind {
        "branchtargets" => Statement::BranchTargets { name, labels: list, line },
        _ => Statement::CallTargets { name, functions: list, line },
    })
}

/// What an indirect call passes; sizes are compared with the function that is reached.
fn prototype(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    if cursor.peek() == Token::Punct('(') {
        parameters(cursor)?;
    }
    cursor.ident()?;
    if cursor.peek() == Token::Punct('(') {
        parameters(cursor)?;
    }
    while let Token::Dot(name) = cursor.peek() {
        cursor.next();
        match name {
            "noreturn" => {}
            "abi_preserve" | "abi_preserve_control" => {
                cursor.int()?;
            }
            _ => {
                return Err(
                    cursor.fault(format!("unknown directive `.{name}` of a call prototype"))
                );
            }
        }
    }
    cursor.expect(';')
}

fn directive<'s>(
    cursor: &mut Cursor<'s>,
    name: &'s str,
    list: &mut Vec<Statement<'s>>,
) -> Result<(), Fault> {
    match name {
        "loc" | "pragma" | "file" => ignored(cursor, name),
        "reg" => {
            list.push(registers(cursor)?);
            cursor.expect(';')
        }
        _ => {
            let Some(space) = Space::parse(name) else {
                return Err(cursor.fault(format!("unknown directive `.{name}`")));
            };
            list.extend(
                variable::declarators(cursor, space, false)?.into_iter().map(Statement::Variable),
            );
            cursor.expect(';')
        }
    }
}

fn registers<'s>(cursor: &mut Cursor<'s>) -> Result<Statement<'s>, Fault> {
    let mut word = || match cursor.next() {
        Token::Dot(name) => Ok(name),
        _ => Err(cursor.fault("`.reg` needs a type")),
    };
    let first = word()?;
    let (elements, name) = match first {
        "v2" => (2, word()?),
        "v4" => (4, word()?),
        _ => (1, first),
    };
    let line = cursor.last_line();
    let ty = Type::parse(name)
        .ok_or_else(|| cursor.fault(format!("`.{name}` is not a type of a register")))?;
    if elements > 1 && !ty.makes_vectors_of(elements) {
        return Err(cursor.fault(format!("{elements} elements of .{name} make no vector")));
    }
    let mut names = Vec::new();
    loop {
        let name = cursor.ident()?;
        let mut count = None;
        if cursor.eat('<') {
            let value = cursor.int()?;
            if value > 1 << 20 {
                return Err(cursor.fault(format!("{value} registers are more than {}", 1 << 20)));
            }
            count = Some(value as u32);
            cursor.expect('>')?;
        }
        names.push((name, count));
        if !cursor.eat(',') {
            return Ok(Statement::Registers { ty, elements, names, line });
        }
    }
}

fn instruction<'s>(cursor: &mut Cursor<'s>) -> Result<Instruction<'s>, Fault> {
    let mut guard = None;
    if cursor.eat('@') {
        let negated = cursor.eat('!');
        guard = Some((cursor.ident()?, negated));
    }
    let opcode = cursor.ident()?;
    let line = cursor.last_line();
    let mut modifiers = Vec::new();
    while let Token::Dot(name) = cursor.peek() {
        cursor.next();
        modifiers.push(name);
    }
    let mut operands = Vec::new();
    if !cursor.eat(';') {
        loop {
            let group = opcode == "call" && cursor.eat('(');
            operands.push(if group {
                list(cursor, ')').map(Operand::Group)?
            } else {
                operand(cursor)?
            });
            if cursor.eat(';') {
                break;
            }
            cursor.expect(',')?;
        }
    }
    Ok(Instruction { guard, opcode, modifiers, operands, line })
}

fn operand<'s>(cursor: &mut Cursor<'s>) -> Result<Operand<'s>, Fault> {
    match cursor.peek() {
        Token::Punct('[') => {
            cursor.next();
            address(cursor)
        }
        Token::Punct('{') => {
            cursor.next();
            list(cursor, '}').map(Operand::Vector)
        }
        _ => simple(cursor),
    }
}

fn list<'s>(cursor: &mut Cursor<'s>, close: char) -> Result<Vec<Operand<'s>>, Fault> {
    let mut items = Vec::new();
    if cursor.eat(close) {
        return Ok(items);
    }
    loop {
        items.push(simple(cursor)?);
        if cursor.eat(close) {
            return Ok(items);
        }
        cursor.expect(',')?;
    }
}

fn simple<'s>(cursor: &mut Cursor<'s>) -> Result<Operand<'s>, Fault> {
    match cursor.peek() {
        _ if expression::begins(cursor) => Ok(match expression::number(cursor)? {
            Number::Signed(value) => Operand::Int(value as u64),
            Number::Unsigned(value) => Operand::Int(value),
            Number::Single(bits) => Operand::Single(bits),
            Number::Double(value) => Operand::Double(value.to_bits()),
        }),
        Token::Punct('!') => {
            cursor.next();
            Ok(Operand::Not(cursor.ident()?))
        }
        Token::Punct('-') if matches!(cursor.peek_ahead(1), Token::Ident(_)) => {
            cursor.next();
            let name = cursor.ident()?;
            let Token::Dot(part) = cursor.peek() else { return Ok(Operand::Negated(name, None)) };
            cursor.next();
            Ok(Operand::Negated(name, Some(part)))
        }
        Token::Ident(name) => {
            cursor.next();
            after_name(cursor, name)
        }
        _ => Err(cursor.fault(format!("expected an operand, found {}", cursor.shown()))),
    }
}

fn after_name<'s>(cursor: &mut Cursor<'s>, name: &'s str) -> Result<Operand<'s>, Fault> {
    match cursor.peek() {
        Token::Dot(component) => {
            cursor.next();
            Ok(Operand::Component(name, component))
        }
        Token::Punct('|') => {
            cursor.next();
            Ok(Operand::Pair(name, cursor.ident()?))
        }
        Token::Punct('+') => {
            cursor.next();
            Ok(Operand::SymbolOffset(name, expression::integer(cursor)?))
        }
        // Assemblers do not agree on what an index counts.
        Token::Punct('[') => Err(cursor.fault(format!(
            "`{name}[…]`: an array's element as an operand is not supported, an address such as `[{name}+4]` is"
        ))),
        _ => Ok(Operand::Name(name)),
    }
}

/// The inside of brackets; the opening one is consumed.
fn address<'s>(cursor: &mut Cursor<'s>) -> Result<Operand<'s>, Fault> {
    let result = if let Token::Ident(name) = cursor.peek() {
        cursor.next();
        let offset = match cursor.peek() {
            Token::Punct('+') => {
                cursor.next();
                expression::integer(cursor)?
            }
            Token::Punct('-') => expression::integer(cursor)?,
            _ => 0,
        };
        Operand::Address(Base::Name(name), offset)
    } else {
        Operand::Address(Base::Absolute, expression::integer(cursor)?)
    };
    if cursor.eat(',') {
        operand(cursor)?;
        cursor.expect(']')?;
        return Ok(Operand::Coordinates);
    }
    cursor.expect(']')?;
    // A promise of the program: an address of memory that all devices share.
    if cursor.peek() == Token::Dot("unified") {
        cursor.next();
    }
    Ok(result)
}
