//! Tokens to a tree. Every directive that the grammar below does not name is an error.

pub(crate) mod ast;
mod body;
mod cursor;
mod expression;
mod variable;

use ast::{BlockLimits, Function, Tree};
use cursor::Cursor;

use crate::error::Fault;
use crate::lex::{Token, lex};
use crate::types::Space;

/// Parses a whole file.
pub(crate) fn parse(text: &str) -> Result<Tree<'_>, Fault> {
    let mut cursor = Cursor::new(lex(text)?);
    let (sm, specific) = header(&mut cursor)?;
    let mut tree = Tree { sm, specific, variables: Vec::new(), functions: Vec::new() };
    while cursor.peek() != Token::End {
        item(&mut cursor, &mut tree)?;
    }
    Ok(tree)
}

/// `.version`, `.target` and `.address_size`, in this order. Gives 90 for `sm_90`, and whether an `a` or `f` follows.
fn header(cursor: &mut Cursor<'_>) -> Result<(u32, bool), Fault> {
    cursor.expect_dot("version")?;
    let version = match cursor.next() {
        Token::Double(bits) => f64::from_bits(bits),
        _ => return Err(cursor.fault("`.version` needs a number such as 8.0")),
    };
    if !(1.0..10.0).contains(&version) {
        return Err(cursor.fault(format!("PTX version {version} is not one of 1.0 to 9.9")));
    }
    cursor.expect_dot("target")?;
    let target = cursor.ident()?;
    let sm = target.strip_prefix("sm_").and_then(|t| t.trim_end_matches(['a', 'f']).parse().ok());
    let Some(sm) = sm else { return Err(cursor.fault(format!("unknown target `{target}`"))) };
    while cursor.eat(',') {
        match cursor.ident()? {
            "debug" | "texmode_independent" | "texmode_unified" => {}
            other => return Err(cursor.fault(format!("unknown target option `{other}`"))),
        }
    }
    cursor.expect_dot("address_size")?;
    match cursor.next() {
        Token::Int(64) => Ok((sm, target.ends_with(['a', 'f']))),
        _ => Err(cursor.fault("only `.address_size 64` is supported")),
    }
}

/// One item at module level.
fn item<'s>(cursor: &mut Cursor<'s>, tree: &mut Tree<'s>) -> Result<(), Fault> {
    let mut external = false;
    loop {
        let Token::Dot(name) = cursor.peek() else {
            return Err(cursor.fault(format!("expected a directive, found {}", cursor.shown())));
        };
        match name {
            "visible" | "weak" | "common" => {
                cursor.next();
            }
            "extern" => {
                cursor.next();
                external = true;
            }
            "entry" | "func" => {
                cursor.next();
                tree.functions.push(function(cursor, name == "entry")?);
                return Ok(());
            }
            "file" | "section" | "loc" | "pragma" => {
                cursor.next();
                return ignored(cursor, name);
            }
            _ if Space::parse(name).is_some() => {
                cursor.next();
                let space = Space::parse(name).unwrap_or(Space::Generic);
                tree.variables.extend(variable::declarators(cursor, space, external)?);
                return cursor.expect(';');
            }
            _ => return Err(cursor.fault(format!("unknown directive `.{name}`"))),
        }
    }
}

/// Directives for debuggers and hints to ptxas, which change no result; read and dropped.
fn ignored(cursor: &mut Cursor<'_>, name: &str) -> Result<(), Fault> {
    match name {
        "pragma" => {
            while let Token::Text(_) = cursor.peek() {
                cursor.next();
                cursor.eat(',');
            }
            cursor.expect(';')
        }
        "section" => {
            cursor.next();
            if let Token::Dot(_) | Token::Ident(_) = cursor.peek() {
                cursor.next();
            }
            cursor.expect('{')?;
            while !cursor.eat('}') {
                if cursor.next() == Token::End {
                    return Err(cursor.fault("`.section` without a closing brace"));
                }
            }
            Ok(())
        }
        "file" => {
            cursor.int()?;
            let Token::Text(_) = cursor.next() else {
                return Err(cursor.fault("`.file` without a name"));
            };
            // Time and size. Compilers leave the comma out.
            for _ in 0..2 {
                if cursor.eat(',') || matches!(cursor.peek(), Token::Int(_)) {
                    cursor.int()?;
                }
            }
            Ok(())
        }
        _ => {
            position(cursor)?;
            while cursor.eat(',') {
                match cursor.ident()? {
                    "function_name" => {
                        cursor.ident()?;
                        if cursor.eat('+') {
                            cursor.int()?;
                        }
                    }
                    "inlined_at" => position(cursor)?,
                    other => return Err(cursor.fault(format!("unknown part `{other}` of `.loc`"))),
                }
            }
            Ok(())
        }
    }
}

/// File, line and column.
fn position(cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    (0..3).try_for_each(|_| cursor.int().map(drop))
}

fn function<'s>(cursor: &mut Cursor<'s>, entry: bool) -> Result<Function<'s>, Fault> {
    let line = cursor.last_line();
    let returns =
        if !entry && cursor.peek() == Token::Punct('(') { parameters(cursor)? } else { Vec::new() };
    let name = cursor.ident()?;
    let params = if cursor.peek() == Token::Punct('(') { parameters(cursor)? } else { Vec::new() };
    let mut limits = BlockLimits::default();
    while let Token::Dot(name) = cursor.peek() {
        cursor.next();
        match name {
            "maxntid" => limits.maximum = Some(shape(cursor)?),
            "reqntid" => limits.required = Some(shape(cursor)?),
            "minnctapersm"
            | "maxnctapersm"
            | "maxnreg"
            | "abi_preserve"
            | "abi_preserve_control" => {
                cursor.int()?;
            }
            "noreturn" | "noinline" | "explicitcluster" => {}
            "maxclusterrank" => {
                cursor.int()?;
            }
            "reqnctapercluster" => {
                let shape = shape(cursor)?;
                if shape != [1; 3] {
                    return Err(
                        cursor.fault(format!("clusters of {shape:?} CTAs are not supported"))
                    );
                }
            }
            "pragma" => ignored(cursor, name)?,
            _ => return Err(cursor.fault(format!("unknown directive `.{name}` of a function"))),
        }
    }
    let body = if cursor.eat(';') {
        None
    } else {
        cursor.expect('{')?;
        Some(body::statements(cursor, 0)?)
    };
    Ok(Function { entry, name, returns, params, limits, body, line })
}

/// Parameters or results in parentheses.
fn parameters<'s>(cursor: &mut Cursor<'s>) -> Result<Vec<ast::Variable<'s>>, Fault> {
    cursor.expect('(')?;
    let mut list = Vec::new();
    while cursor.peek() != Token::Punct(')') {
        let Token::Dot(name) = cursor.next() else { return Err(cursor.fault("expected `.param`")) };
        let space = match name {
            "param" => Space::Param,
            "reg" => Space::Reg,
            _ => return Err(cursor.fault(format!("a parameter cannot be in `.{name}`"))),
        };
        list.push(variable::declarator(cursor, space)?);
        if !cursor.eat(',') {
            break;
        }
    }
    cursor.expect(')')?;
    Ok(list)
}

fn shape(cursor: &mut Cursor<'_>) -> Result<[u32; 3], Fault> {
    let mut shape = [1; 3];
    for (axis, size) in shape.iter_mut().enumerate() {
        if axis > 0 && !cursor.eat(',') {
            break;
        }
        let value = cursor.int()?;
        *size = u32::try_from(value)
            .map_err(|_| cursor.fault(format!("{value} threads are too many")))?;
    }
    Ok(shape)
}
