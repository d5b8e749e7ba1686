//! Names and what they stand for, scope by scope.

use std::collections::{HashMap, HashSet};

use crate::types::{Class, Type};

/// A declared register.
#[derive(Debug, Clone)]
pub(crate) struct Register {
    pub(crate) ty: Type,
    pub(crate) name: String,
}

impl Register {
    pub(crate) fn class(&self) -> Class {
        self.ty.class()
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Symbol {
    /// Index among the registers of the function.
    Register(u32),
    /// Registers that are the elements of a vector, one after the other.
    Vector { first: u32, count: u32 },
    /// Offset among the parameters of the entry.
    EntryParam { offset: u32, bytes: u32 },
    /// A `.param` variable of a call, kept in local memory at this offset.
    CallParam { offset: u64, bytes: u64 },
    /// A `.local` variable at this offset.
    Local { offset: u64, bytes: u64 },
    /// A `.shared` variable at this address.
    Shared { address: u64, bytes: u64 },
    /// A `.shared` variable of the module, which gets an address where it is used.
    ModuleShared { index: usize },
    /// A `.global` or `.const` variable of the module.
    Global { index: usize, constant: bool },
    /// A device function, by its index in the module.
    Function(usize),
}

impl Symbol {
    /// A name of `count` registers, the first of which is number `first`.
    pub(crate) fn of_registers(first: u32, count: u32, is_vector: bool) -> Symbol {
        if is_vector { Symbol::Vector { first, count } } else { Symbol::Register(first) }
    }
}

/// What the elements of a vector are called.
pub(crate) const VECTOR_PARTS: [[&str; 2]; 4] = [["x", "r"], ["y", "g"], ["z", "b"], ["w", "a"]];

/// `.reg .b32 %r<10>;`
#[derive(Debug, Clone, Copy)]
struct Range {
    first: u32,
    count: u32,
    /// Registers that each name stands for: two for 128 bits, the elements of a vector.
    each: u32,
    is_vector: bool,
}

impl Range {
    /// What name number `index` stands for.
    fn symbol(self, index: u32) -> Symbol {
        Symbol::of_registers(self.first + index * self.each, self.each, self.is_vector)
    }
}

/// One pair of braces.
#[derive(Debug, Default)]
struct Scope<'s> {
    names: HashMap<&'s str, Symbol>,
    ranges: HashMap<&'s str, Range>,
    labels: HashMap<&'s str, u32>,
    tables: HashMap<&'s str, Vec<&'s str>>,
    prototypes: HashSet<&'s str>,
    /// The body of a device function sees nothing of its caller.
    opaque: bool,
}

/// The scopes that are open at one point of the text, innermost last.
#[derive(Debug)]
pub(crate) struct Scopes<'s> {
    /// The module's names, seen from everywhere.
    module: &'s HashMap<&'s str, Symbol>,
    stack: Vec<Scope<'s>>,
}

impl<'s> Scopes<'s> {
    /// With the module's scope open.
    pub(crate) fn new(module: &'s HashMap<&'s str, Symbol>) -> Self {
        Scopes { module, stack: Vec::new() }
    }

    pub(crate) fn open(&mut self) {
        self.stack.push(Scope::default());
    }

    /// Opens the scope of a function body: beyond it, only the module's names are seen.
    pub(crate) fn open_function(&mut self) {
        self.stack.push(Scope { opaque: true, ..Scope::default() });
    }

    pub(crate) fn close(&mut self) {
        self.stack.pop();
    }

    fn innermost(&mut self) -> &mut Scope<'s> {
        if self.stack.is_empty() {
            self.stack.push(Scope::default());
        }
        let last = self.stack.len() - 1;
        &mut self.stack[last]
    }

    /// The scopes that a name is looked up in before the module's, innermost first.
    fn visible(&self) -> impl Iterator<Item = &Scope<'s>> {
        let function = self.stack.iter().rposition(|s| s.opaque).unwrap_or(0);
        self.stack[function..].iter().rev()
    }

    /// Adds a name; false if the scope has it already.
    pub(crate) fn add(&mut self, name: &'s str, symbol: Symbol) -> bool {
        let names = &mut self.innermost().names;
        !names.contains_key(name) && names.insert(name, symbol).is_none()
    }

    /// Adds `count` names `name0`, `name1`, … of `each` registers, a vector or not; the first is number `first`.
    pub(crate) fn add_range(
        &mut self,
        name: &'s str,
        first: u32,
        count: u32,
        (each, is_vector): (u32, bool),
    ) -> bool {
        self.innermost().ranges.insert(name, Range { first, count, each, is_vector }).is_none()
    }

    pub(crate) fn add_label(&mut self, name: &'s str, label: u32) -> bool {
        self.innermost().labels.insert(name, label).is_none()
    }

    pub(crate) fn add_table(&mut self, name: &'s str, labels: Vec<&'s str>) -> bool {
        self.innermost().tables.insert(name, labels).is_none()
    }

    /// Adds a call prototype or a list of call targets.
    pub(crate) fn add_prototype(&mut self, name: &'s str) -> bool {
        self.innermost().prototypes.insert(name)
    }

    pub(crate) fn has_prototype(&self, name: &str) -> bool {
        self.visible().any(|scope| scope.prototypes.contains(name))
    }

    pub(crate) fn find(&self, name: &str) -> Option<Symbol> {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let inner = self.visible().find_map(|scope| {
            if let Some(&symbol) = scope.names.get(name) {
                return Some(symbol);
            }
            // `%r12` may be number 12 of `%r<20>`, or number 2 of `%r1<5>`.
            (1..=digits).find_map(|length| {
                let (prefix, index) = name.split_at(name.len() - length);
                let range = scope.ranges.get(prefix)?;
                let canonical = index == "0" || !index.starts_with('0');
                let index: u32 = index.parse().ok()?;
                (canonical && index < range.count).then(|| range.symbol(index))
            })
        });
        inner.or_else(|| self.module.get(name).copied())
    }

    pub(crate) fn label(&self, name: &str) -> Option<u32> {
        self.visible().find_map(|scope| scope.labels.get(name).copied())
    }

    pub(crate) fn table(&self, name: &str) -> Option<&[&'s str]> {
        self.visible().find_map(|scope| scope.tables.get(name).map(Vec::as_slice))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_scopes() {
        let module = HashMap::from([("global", Symbol::Register(9))]);
        let mut scopes = Scopes::new(&module);
        scopes.open_function();
        assert!(scopes.add_range("%r", 100, 12, (1, false)));
        assert_eq!(scopes.find("%r11"), Some(Symbol::Register(111)));
        assert_eq!(scopes.find("%r12"), None);
        assert_eq!(scopes.find("%r01"), None);
        assert!(scopes.add_range("%q", 200, 4, (2, false)));
        assert_eq!(scopes.find("%q3"), Some(Symbol::Register(206)));
        assert!(scopes.add_range("%v", 300, 4, (4, true)));
        assert_eq!(scopes.find("%v3"), Some(Symbol::Vector { first: 312, count: 4 }));
        scopes.open();
        assert!(scopes.add("%r3", Symbol::Register(7)));
        assert!(!scopes.add("%r3", Symbol::Register(8)));
        assert_eq!(scopes.find("%r3"), Some(Symbol::Register(7)));
        scopes.close();
        assert_eq!(scopes.find("%r3"), Some(Symbol::Register(103)));
        scopes.open_function();
        assert_eq!(scopes.find("%r3"), None);
        assert_eq!(scopes.find("global"), Some(Symbol::Register(9)));
    }
}
