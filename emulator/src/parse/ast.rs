//! What the parser yields: the text of a module as a tree, every node with its line.

use crate::types::{Space, Type};

/// A whole PTX file.
#[derive(Debug)]
pub(crate) struct Tree<'s> {
    /// `.target sm_90` as 90.
    pub(crate) sm: u32,
    /// Whether the target has instructions of its own: `sm_90a`.
    pub(crate) specific: bool,
    /// Variables declared outside functions.
    pub(crate) variables: Vec<Variable<'s>>,
    /// Entries and device functions, in order.
    pub(crate) functions: Vec<Function<'s>>,
}

/// An entry or a device function.
#[derive(Debug)]
pub(crate) struct Function<'s> {
    pub(crate) entry: bool,
    pub(crate) name: &'s str,
    pub(crate) returns: Vec<Variable<'s>>,
    pub(crate) params: Vec<Variable<'s>>,
    pub(crate) limits: BlockLimits,
    /// Absent for a declaration.
    pub(crate) body: Option<Vec<Statement<'s>>>,
    pub(crate) line: u32,
}

/// What `.reqntid` and `.maxntid` say about the CTA shape.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BlockLimits {
    pub(crate) required: Option<[u32; 3]>,
    pub(crate) maximum: Option<[u32; 3]>,
}

/// A variable or a parameter.
#[derive(Debug, Clone)]
pub(crate) struct Variable<'s> {
    pub(crate) space: Space,
    pub(crate) ty: Type,
    pub(crate) name: &'s str,
    /// Bytes; 0 for an array without a size.
    pub(crate) bytes: u64,
    /// Whether the array has no size: dynamic shared memory.
    pub(crate) unsized_array: bool,
    pub(crate) external: bool,
    pub(crate) align: u64,
    pub(crate) init: Vec<Init<'s>>,
    pub(crate) line: u32,
}

/// One value of an initialiser, in order of elements.
#[derive(Debug, Clone)]
pub(crate) enum Init<'s> {
    /// The bits of the element.
    Bits(u64),
    /// The address of another variable plus an offset, or one byte of that, by its number.
    Symbol(&'s str, i64, Option<usize>),
}

/// One statement of a function body.
#[derive(Debug)]
pub(crate) enum Statement<'s> {
    Label {
        name: &'s str,
        line: u32,
    },
    Instruction(Instruction<'s>),
    Variable(Variable<'s>),
    /// `.reg .v2 .b32 %a, %r<4>;`: elements of each, 1 without a vector, and names with the count in angle brackets, if any.
    Registers {
        ty: Type,
        elements: u32,
        names: Vec<(&'s str, Option<u32>)>,
        line: u32,
    },
    Block(Vec<Statement<'s>>),
    /// `table: .branchtargets A, B;`
    BranchTargets {
        name: &'s str,
        labels: Vec<&'s str>,
        line: u32,
    },
    /// `list: .calltargets F, G;`
    CallTargets {
        name: &'s str,
        functions: Vec<&'s str>,
        line: u32,
    },
    /// `type: .callprototype (…) _ (…);`
    CallPrototype {
        name: &'s str,
        line: u32,
    },
}

/// One instruction as written.
#[derive(Debug)]
pub(crate) struct Instruction<'s> {
    /// The guard predicate and whether it is negated.
    pub(crate) guard: Option<(&'s str, bool)>,
    pub(crate) opcode: &'s str,
    /// The names after the opcode's dots.
    pub(crate) modifiers: Vec<&'s str>,
    pub(crate) operands: Vec<Operand<'s>>,
    pub(crate) line: u32,
}

/// One operand as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Operand<'s> {
    /// A register, a symbol, a label, or `_`.
    Name(&'s str),
    /// `%tid.x`
    Component(&'s str, &'s str),
    /// An integer, in two's complement of 64 bits.
    Int(u64),
    /// A literal of 32 bits.
    Single(u32),
    /// A literal of 64 bits.
    Double(u64),
    /// `symbol+4`
    SymbolOffset(&'s str, i64),
    /// `!%p`
    Not(&'s str),
    /// `-%r1` or `-%r1.b0`
    Negated(&'s str, Option<&'s str>),
    /// `%p|%q`
    Pair(&'s str, &'s str),
    /// `{a, b}`
    Vector(Vec<Operand<'s>>),
    /// `[base+offset]`
    Address(Base<'s>, i64),
    /// `[map, {x, y}]`: coordinates in a tensor.
    Coordinates,
    /// `(a, b)` of a call.
    Group(Vec<Operand<'s>>),
}

/// What an address starts from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Base<'s> {
    /// A register or a symbol.
    Name(&'s str),
    /// Nothing: the offset is the address.
    Absolute,
}
