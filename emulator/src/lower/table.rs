//! The operation table: what each opcode may look like, and the function that lowers it.
//!
//! A row's syntax is written as in the PTX ISA: `add[.ftz][.sat].f32|f64 d, a, b` means the opcode
//! `add`, an optional `.ftz`, an optional `.sat`, then one of `.f32` and `.f64`. What follows the
//! first blank documents the operands; the lowering function checks them. An instruction that no
//! row of its opcode matches is an error, so nothing is executed that nobody has thought about.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::form::Form;
use crate::counters::InstructionClass;
use crate::error::Fault;
use crate::ops::FAMILIES;
use crate::parse::ast::Instruction;
use crate::types::{Space, Type};

/// Lowers one instruction: takes the operands and sets the handler.
pub(crate) type Lower = fn(&mut Form<'_, '_>) -> Result<(), Fault>;

/// One form of an instruction.
pub(crate) struct Row {
    pub(crate) syntax: &'static str,
    pub(crate) lower: Lower,
    /// The lowest architecture that has it, 0 for any.
    pub(crate) sm: u32,
}

/// Rows that are counted as one class.
pub(crate) struct Family {
    pub(crate) class: InstructionClass,
    pub(crate) rows: &'static [Row],
}

/// A row for any architecture.
pub(crate) const fn row(syntax: &'static str, lower: Lower) -> Row {
    Row { syntax, lower, sm: 0 }
}

impl Row {
    /// The row for architectures from `sm` up.
    #[allow(clippy::wrong_self_convention)] // Reads as a sentence in the table.
    pub(crate) const fn from_sm(self, sm: u32) -> Row {
        Row { sm, ..self }
    }
}

/// One element of a pattern: alternatives, one of which has to be there unless the element is optional.
struct Element {
    names: Vec<&'static str>,
    optional: bool,
}

/// A row with its syntax taken apart.
pub(crate) struct Pattern {
    pub(crate) row: &'static Row,
    pub(crate) class: InstructionClass,
    elements: Vec<Element>,
}

type Table = HashMap<&'static str, Vec<Pattern>>;

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut table = Table::new();
        for family in FAMILIES {
            for row in family.rows {
                let (opcode, elements) = take_apart(row.syntax);
                table.entry(opcode).or_default().push(Pattern {
                    row,
                    class: family.class,
                    elements,
                });
            }
        }
        table
    })
}

/// Opcode and elements of a row's syntax.
fn take_apart(syntax: &'static str) -> (&'static str, Vec<Element>) {
    let head = syntax.split(' ').next().unwrap_or(syntax);
    let opcode_end = head.find(['.', '[']).unwrap_or(head.len());
    let (opcode, mut rest) = head.split_at(opcode_end);
    let mut elements = Vec::new();
    while !rest.is_empty() {
        let optional = rest.starts_with('[');
        rest = rest.trim_start_matches(['[', '.']);
        let end =
            rest.find(if optional { &[']'][..] } else { &['.', '['][..] }).unwrap_or(rest.len());
        elements.push(Element { names: rest[..end].split('|').collect(), optional });
        rest = rest[end..].trim_start_matches(']');
    }
    (opcode, elements)
}

impl Pattern {
    /// The modifiers in the order of the row if they stand in another one that means the same: ptxas takes
    /// many orders. Types, state spaces and layouts keep theirs, as each belongs to an operand.
    fn in_order<'s>(&self, modifiers: &[&'s str]) -> Option<Vec<&'s str>> {
        let mut left = modifiers.to_vec();
        let mut ordered = Vec::with_capacity(left.len());
        for element in &self.elements {
            match left.iter().position(|m| element.names.contains(m)) {
                Some(at) => ordered.push(left.remove(at)),
                None if element.optional => {}
                None => return None,
            }
        }
        let kept = KINDS.iter().all(|of_kind| {
            let of = |list: &[&'s str]| -> Vec<&'s str> {
                list.iter().copied().filter(|m| of_kind(m)).collect()
            };
            of(modifiers) == of(&ordered)
        });
        (left.is_empty() && kept).then_some(ordered)
    }

    /// How many modifiers match, and whether that is all of them and all that is required.
    fn matches(&self, modifiers: &[&str]) -> (usize, bool) {
        let mut at = 0;
        for element in &self.elements {
            let here = modifiers.get(at);
            if here.is_some_and(|m| element.names.contains(m)) {
                at += 1;
            } else if !element.optional {
                return (at, false);
            }
        }
        (at, at == modifiers.len())
    }
}

/// Kinds of modifiers of which each says something of one operand, so that their order counts: types, state spaces,
/// layouts.
const KINDS: [fn(&str) -> bool; 3] =
    [|m| Type::parse(m).is_some(), |m| Space::parse(m).is_some(), |m| matches!(m, "row" | "col")];

/// The first row that an instruction matches, and its modifiers in the order of the row if they are in another.
pub(crate) fn find<'s>(
    ins: &Instruction<'s>,
) -> Result<(&'static Pattern, Option<Vec<&'s str>>), Fault> {
    let Some(patterns) = table().get(ins.opcode) else {
        return Err(Fault::new(ins.line, format!("unknown instruction `{}`", ins.opcode)));
    };
    if let Some(found) = patterns.iter().find(|p| p.matches(&ins.modifiers).1) {
        return Ok((found, None));
    }
    if let Some((found, order)) =
        patterns.iter().find_map(|p| Some((p, p.in_order(&ins.modifiers)?)))
    {
        return Ok((found, Some(order)));
    }
    let reached = patterns.iter().map(|p| p.matches(&ins.modifiers).0).max().unwrap_or(0);
    let before: String = ins.modifiers[..reached].iter().map(|m| format!(".{m}")).collect();
    let forms: Vec<_> = patterns.iter().map(|p| format!("`{}`", p.row.syntax)).collect();
    let problem = match ins.modifiers.get(reached) {
        Some(modifier) => format!("`.{modifier}` may not follow `{}{before}`", ins.opcode),
        None => format!("`{}{before}` is incomplete", ins.opcode),
    };
    Err(Fault::new(ins.line, format!("{problem}; known here: {}", forms.join(", "))))
}

/// The syntax of every row.
#[cfg(test)]
pub(crate) fn all() -> impl Iterator<Item = &'static Row> {
    FAMILIES.iter().flat_map(|f| f.rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_come_apart() {
        let (opcode, elements) = take_apart("cvt[.rn|rz][.ftz].f16|bf16.f32 d, a");
        assert_eq!(opcode, "cvt");
        let shown: Vec<_> = elements.iter().map(|e| (e.names.join("|"), e.optional)).collect();
        let expected = [("rn|rz", true), ("ftz", true), ("f16|bf16", false), ("f32", false)];
        assert_eq!(shown, expected.map(|(n, o)| (n.to_owned(), o)));
    }

    #[test]
    fn types_spaces_and_layouts_keep_their_places() {
        let finds = |opcode, modifiers: &str| {
            let modifiers = modifiers.split(' ').collect();
            find(&Instruction { guard: None, opcode, modifiers, operands: Vec::new(), line: 1 })
                .is_ok()
        };
        assert!(finds("cp", "async ca shared global") && !finds("cp", "async ca global shared"));
        assert!(finds("ld", "global v4 nc u32") && finds("barrier", "red aligned popc u32"));
        assert!(!finds("cvt", "rna f32 tf32") && !finds("set", "eq b32 u32"));
        assert!(!finds("mma", "sync aligned m16n8k16 col row f32 f16 f16 f32"));
        assert!(!finds("cp", "async bulk shared::cta global bulk_group"));
    }

    #[test]
    fn every_row_is_lower_case_and_documented() {
        for row in all() {
            assert!(row.syntax.starts_with(|c: char| c.is_ascii_lowercase()), "{}", row.syntax);
        }
    }
}
