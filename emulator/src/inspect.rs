//! What a PTX file holds, and what of it cannot run: told without stopping at the first fault.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::error::{Fault, ParseError, Source};
use crate::lower::scene::Scene;
use crate::lower::{self, table};
use crate::module;
use crate::parse::ast::{Base, Function, Instruction, Operand, Statement, Variable};
use crate::parse::parse;
use crate::types::{Space, Type};

/// What [`inspect`] tells about a file.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Inspection {
    /// The architecture of `.target`: 80 for sm_80.
    pub sm: u32,
    /// The entries, in order.
    pub entries: Vec<EntryInfo>,
    /// Everything that this crate cannot execute, by line; each line once.
    pub unsupported: Vec<ParseError>,
}

/// An entry as it is declared.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EntryInfo {
    /// Its name.
    pub name: String,
    /// Line of its declaration.
    pub line: u32,
    /// Its parameters, packed as [`crate::Launch::params`] has to hold them.
    pub params: Vec<ParamInfo>,
    /// Declared registers by type, those of inner scopes included.
    pub registers: Vec<(Type, u32)>,
    /// Bytes of declared shared memory that it uses.
    pub shared_bytes: u64,
    /// Whether it uses dynamic shared memory.
    pub dynamic_shared: bool,
    /// Bytes of local memory that a thread declares.
    pub local_bytes: u64,
    /// `.reqntid`
    pub required_block: Option<[u32; 3]>,
    /// `.maxntid`
    pub max_block: Option<[u32; 3]>,
    /// Instructions as written, those of called functions not included.
    pub instructions: u64,
}

/// A parameter as it is declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamInfo {
    /// Its name.
    pub name: String,
    /// Where it lies in the packed parameters.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
    /// Its alignment.
    pub align: u64,
}

/// Reads a PTX file and lists what it holds. Only text whose grammar is broken is an error here; what is merely
/// unsupported is listed.
///
/// # Errors
///
/// [`ParseError`], as [`crate::Module::parse`] gives it for text that is not PTX.
pub fn inspect(name: &str, text: &str) -> Result<Inspection, ParseError> {
    let source = Arc::new(Source::new(name, text));
    let tree = parse(&source.text).map_err(|fault| fault.locate(&source))?;
    let mut faults = BTreeMap::new();
    for function in &tree.functions {
        each_instruction(function.body.as_deref().unwrap_or_default(), &mut |ins| {
            let fault = match table::find(ins) {
                Ok((pattern, _)) if pattern.row.sm > tree.sm => {
                    format!("needs sm_{}, not sm_{}", pattern.row.sm, tree.sm)
                }
                Ok(_) => return,
                // What else is known under this opcode is of no use in a list.
                Err(fault) => {
                    fault.message.split("; known here").next().unwrap_or_default().to_owned()
                }
            };
            faults.entry(ins.line).or_insert(fault);
        });
    }
    let entries = || tree.functions.iter().filter(|f| f.entry && f.body.is_some());
    let mut add = |fault: Fault| {
        faults.entry(fault.line).or_insert(fault.message);
    };
    match Scene::new(&tree) {
        Ok(scene) => {
            let faults = entries().filter_map(|f| lower::entry(&scene, f).err());
            faults.chain(module::variables(&scene).err()).for_each(add);
        }
        Err(fault) => add(fault),
    }
    let unsupported =
        faults.into_iter().map(|(line, message)| Fault { line, message }.locate(&source));
    let shared = tree.variables.iter().enumerate().filter(|(_, v)| v.space == Space::Shared);
    let shared = shared.map(|(index, variable)| (variable.name, (index, variable))).collect();
    Ok(Inspection {
        sm: tree.sm,
        entries: entries().map(|f| describe(&shared, f)).collect(),
        unsupported: unsupported.collect(),
    })
}

/// Calls `act` with every instruction of a body.
fn each_instruction<'a, 's>(body: &'a [Statement<'s>], act: &mut impl FnMut(&'a Instruction<'s>)) {
    for statement in body {
        match statement {
            Statement::Instruction(ins) => act(ins),
            Statement::Block(inner) => each_instruction(inner, act),
            _ => {}
        }
    }
}

/// What a body declares.
#[derive(Default)]
struct Declared {
    registers: BTreeMap<&'static str, (Option<Type>, u32)>,
    shared: u64,
    dynamic: bool,
    local: u64,
}

impl Declared {
    fn variable(&mut self, variable: &Variable<'_>) {
        let place =
            |end: u64| end.next_multiple_of(variable.align.max(1)).saturating_add(variable.bytes);
        match variable.space {
            Space::Shared if variable.unsized_array => self.dynamic = true,
            Space::Shared => self.shared = place(self.shared),
            Space::Local => self.local = place(self.local),
            _ => {}
        }
    }

    fn body(&mut self, body: &[Statement<'_>]) {
        for statement in body {
            match statement {
                Statement::Registers { ty, elements, names, .. } => {
                    let entry = self.registers.entry(ty.name()).or_insert((Some(*ty), 0));
                    let added = names.iter().map(|(_, count)| count.unwrap_or(1) * elements);
                    entry.1 = added.fold(entry.1, u32::saturating_add);
                }
                Statement::Variable(variable) => self.variable(variable),
                Statement::Block(inner) => self.body(inner),
                _ => {}
            }
        }
    }
}

/// The module's shared variables by name, each with its number.
type SharedVariables<'t> = HashMap<&'t str, (usize, &'t Variable<'t>)>;

fn describe(shared: &SharedVariables<'_>, function: &Function<'_>) -> EntryInfo {
    let body = function.body.as_deref().unwrap_or_default();
    let (mut used, mut instructions) = (BTreeSet::new(), 0);
    each_instruction(body, &mut |ins| {
        instructions += 1;
        ins.operands.iter().for_each(|operand| names(operand, &mut used));
    });
    let mut declared = Declared::default();
    let of_module: BTreeMap<_, _> =
        used.iter().filter_map(|name| shared.get(name).copied()).collect();
    of_module.into_values().for_each(|variable| declared.variable(variable));
    declared.body(body);
    let mut end = 0u64;
    let param = |p: &Variable<'_>| {
        let offset = end.next_multiple_of(p.align.max(1));
        end = offset.saturating_add(p.bytes);
        ParamInfo { name: p.name.to_owned(), offset, bytes: p.bytes, align: p.align }
    };
    EntryInfo {
        name: function.name.to_owned(),
        line: function.line,
        params: function.params.iter().map(param).collect(),
        registers: declared.registers.into_values().filter_map(|(ty, n)| Some((ty?, n))).collect(),
        shared_bytes: declared.shared,
        dynamic_shared: declared.dynamic,
        local_bytes: declared.local,
        required_block: function.limits.required,
        max_block: function.limits.maximum,
        instructions,
    }
}

/// The names that an operand mentions.
fn names<'s>(operand: &Operand<'s>, into: &mut BTreeSet<&'s str>) {
    match operand {
        Operand::Name(name)
        | Operand::SymbolOffset(name, _)
        | Operand::Address(Base::Name(name), _) => {
            into.insert(name);
        }
        Operand::Vector(list) | Operand::Group(list) => {
            list.iter().for_each(|operand| names(operand, into))
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Module;

    const TEXT: &str = "
.version 8.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.shared .align 4 .b8 other[1000];
.visible .entry first(.param .u8 a, .param .align 8 .b8 s[20], .param .u32 n)
.maxntid 256
{
    .reg .pred %p<3>;
    .reg .b32 %r<4>, %x;
    .shared .align 8 .b8 tile[24];
    .local .align 8 .b8 frame[16];
    mov.u32 %r1, dynamic;
    frobnicate.u32 %r1, %r2;
    { .reg .b32 %r<2>; add.zz.u32 %r0, %r1, 1; }
    ret;
}
.visible .entry second()
.reqntid 32, 2, 1
{
    .reg .b32 %r<2>;
    mov.u32 %r1, %undeclared;
    ret;
}
";

    #[test]
    fn all_faults_and_all_entries_are_listed() {
        let told = inspect("k.ptx", TEXT).unwrap();
        let faults: Vec<_> = told.unsupported.iter().map(|f| (f.line, f.text.as_str())).collect();
        let expected = [
            (15, "frobnicate.u32 %r1, %r2;"),
            (16, "{ .reg .b32 %r<2>; add.zz.u32 %r0, %r1, 1; }"),
            (23, "mov.u32 %r1, %undeclared;"),
        ];
        assert_eq!(faults, expected);
        assert!(
            told.unsupported[0].message.contains("frobnicate"),
            "{}",
            told.unsupported[0].message
        );
        let [first, second] = &told.entries[..] else { panic!("two entries") };
        let offsets: Vec<_> =
            first.params.iter().map(|p| (p.name.as_str(), p.offset, p.bytes)).collect();
        assert_eq!(offsets, [("a", 0, 1), ("s", 8, 20), ("n", 28, 4)]);
        assert_eq!(first.registers, [(Type::B32, 7), (Type::Pred, 3)]);
        assert_eq!((first.shared_bytes, first.dynamic_shared, first.local_bytes), (24, true, 16));
        assert_eq!((first.max_block, first.required_block), (Some([256, 1, 1]), None));
        assert_eq!((second.required_block, second.params.len()), (Some([32, 2, 1]), 0));
    }

    /// Whatever were done again for each entry, fault, function or variable would take minutes here.
    #[test]
    fn work_grows_with_the_length_of_the_file_alone() {
        const COUNT: usize = 4000;
        let mut text = String::from(".version 8.0\n.target sm_80\n.address_size 64\n");
        for i in 0..COUNT {
            text += &format!(
                ".shared .align 4 .b8 tile{i}[4];\n.global .align 8 .u64 at{i} = tile_of{i};\n\
                 .func tile_of{i}() {{ call tile_of{}; ret; }}\n\
                 .visible .entry entry{i}(.param .u64 a) {{ .reg .b32 %r<2>; mov.u32 %r0, tile{i};\n\
                 frobnicate.u32 %r1, %r0; ret; }}\n",
                (i + 1) % COUNT
            );
        }
        let told = inspect("k.ptx", &text).unwrap();
        assert_eq!((told.entries.len(), told.unsupported.len()), (COUNT, COUNT));
        assert!(told.unsupported.iter().all(|f| f.text.starts_with("frobnicate.u32")));
        assert!(told.entries.iter().all(|e| e.shared_bytes == 4));
        assert!(Module::parse("k.ptx", &text.replace("frobnicate", "mov")).is_ok());
    }

    #[test]
    fn variables_that_cannot_be_are_listed() {
        let head = ".version 8.0\n.target sm_80\n.address_size 64\n";
        for (text, part) in [
            (".extern .global .u32 x[];", "`x` is defined in another file"),
            (
                ".shared .u32 y; .global .u64 x = y;",
                "`y` is not a variable whose address fits here",
            ),
        ] {
            let told = inspect("k.ptx", &format!("{head}{text}\n.entry k() {{ ret; }}")).unwrap();
            let [fault] = &told.unsupported[..] else { panic!("{text}: {:?}", told.unsupported) };
            assert!(fault.line == 4 && fault.message.contains(part), "{fault}");
        }
    }

    #[test]
    fn text_that_is_not_ptx_is_an_error() {
        assert_eq!(inspect("k.ptx", "int main() {}").unwrap_err().line, 1);
    }
}
