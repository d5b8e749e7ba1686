//! What the lowering of every entry looks things up in: made once for a module.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::callee::Graph;
use super::symbols::Symbol;
use crate::error::Fault;
use crate::parse::ast::Tree;
use crate::types::Space;

/// Instructions of all entries of a module, with calls in place.
const MAX_CODE: usize = 1 << 22;
/// Registers of the same.
const MAX_REGISTERS: usize = 1 << 23;

/// A module as its entries see it.
#[derive(Debug)]
pub(crate) struct Scene<'s> {
    pub(crate) tree: &'s Tree<'s>,
    /// Variables of the module.
    pub(crate) names: HashMap<&'s str, Symbol>,
    pub(crate) graph: Graph<'s>,
    /// Instructions and registers that its entries may still come to.
    left: Cell<[usize; 2]>,
}

impl<'s> Scene<'s> {
    pub(crate) fn new(tree: &'s Tree<'s>) -> Result<Scene<'s>, Fault> {
        let mut names = HashMap::new();
        let mut globals = 0;
        for (index, variable) in tree.variables.iter().enumerate() {
            let symbol = match variable.space {
                Space::Shared => Symbol::ModuleShared { index },
                Space::Global | Space::Const => {
                    globals += 1;
                    Symbol::Global { index: globals - 1, constant: variable.space == Space::Const }
                }
                space => {
                    let message =
                        format!("a variable in {} memory outside a function", space.name());
                    return Err(Fault::new(variable.line, message));
                }
            };
            if names.insert(variable.name, symbol).is_some() {
                let message = format!("`{}` is declared twice", variable.name);
                return Err(Fault::new(variable.line, message));
            }
        }
        let mut defined = HashSet::new();
        for function in tree.functions.iter().filter(|f| f.body.is_some()) {
            if names.contains_key(function.name) || !defined.insert(function.name) {
                let message = format!("`{}` is declared twice", function.name);
                return Err(Fault::new(function.line, message));
            }
        }
        Ok(Scene {
            tree,
            names,
            graph: Graph::new(tree),
            left: Cell::new([MAX_CODE, MAX_REGISTERS]),
        })
    }

    /// Refuses an entry that has come to so many instructions and registers, if the module may not have as many more.
    pub(super) fn check_length(
        &self,
        code: usize,
        registers: usize,
        line: u32,
    ) -> Result<(), Fault> {
        let [code_left, registers_left] = self.left.get();
        let (most, what) = if code > code_left {
            (MAX_CODE, "instructions")
        } else if registers > registers_left {
            (MAX_REGISTERS, "registers")
        } else {
            return Ok(());
        };
        Err(Fault::new(line, format!("more than {most} {what} in one module, calls in place")))
    }

    /// Takes an entry's instructions and registers from what the module may have.
    pub(super) fn spend(&self, code: usize, registers: usize) {
        let [code_left, registers_left] = self.left.get();
        self.left.set([code_left.saturating_sub(code), registers_left.saturating_sub(registers)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower;
    use crate::parse::parse;

    #[test]
    fn a_name_is_defined_once() {
        for (text, line) in [
            (".func f() { ret; }\n.func f() { ret; }\n", 5),
            (".entry f() { ret; }\n.func f() { ret; }\n", 5),
            (".func f() { ret; }\n.global .u32 f;\n", 4),
        ] {
            let text = format!(".version 8.0\n.target sm_80\n.address_size 64\n{text}");
            let fault = Scene::new(&parse(&text).unwrap()).err().unwrap();
            assert_eq!((fault.message.as_str(), fault.line), ("`f` is declared twice", line));
        }
        let text = ".version 8.0\n.target sm_80\n.address_size 64\n.func f();\n.func f() { ret; }\n.func f();\n";
        assert!(Scene::new(&parse(text).unwrap()).is_ok());
    }

    #[test]
    fn what_all_entries_come_to_is_limited() {
        let entry =
            |name: &str| format!(".entry {name}() {{ .reg .b32 %r<40>; mov.u32 %r0, 1; ret; }}\n");
        let text =
            format!(".version 8.0\n.target sm_80\n.address_size 64\n{}{}", entry("a"), entry("b"));
        let tree = parse(&text).unwrap();
        let lower = |limits: [usize; 2]| {
            let scene = Scene::new(&tree).unwrap();
            scene.left.set(limits);
            tree.functions.iter().try_for_each(|f| lower::entry(&scene, f).map(drop))
        };
        // Two instructions and the end of the body, twice, and forty registers, twice.
        assert!(lower([6, 80]).is_ok());
        let told = |limits| lower(limits).unwrap_err().message;
        assert!(told([5, 80]).contains("instructions in one module"), "{}", told([5, 80]));
        assert!(told([6, 79]).contains("registers in one module"), "{}", told([6, 79]));
    }
}
