//! The body of an entry being lowered: statements to instructions.
//!
//! A body is lowered twice. The first time finds out which registers are read and written where;
//! from that a [`Plan`] gives each register a slot; the second time makes the code. Device
//! functions are lowered in place of each call, so that a program counter alone says where a lane is.

use std::collections::HashMap;

use super::form::Form;
use super::kernel::{Constant, ConstantValue, Param, SharedVariable};
use super::plan::{Meta, Plan};
use super::symbols::{Register, Scopes, Symbol};
use super::table;
use crate::counters::InstructionClass;
use crate::error::Fault;
use crate::exec::inst::Inst;
use crate::memory::FIRST_OFFSET;
use crate::parse::ast::{Function, Instruction, Operand, Statement, Tree, Variable};
use crate::types::{Class, Space, Type};

/// Calls inside calls; a recursion runs into this.
const MAX_CALLS: usize = 24;
/// Instructions of an entry with all its calls in place.
const MAX_CODE: usize = 1 << 22;
/// Slot of predicates written `_`; slot 0 is the constant true.
const SINK_PRED: u32 = 1;
/// Slot of other registers written `_`.
pub(crate) const SINK: u32 = 0;

type Result<T> = std::result::Result<T, Fault>;

/// A call that is being lowered in place.
#[derive(Debug)]
struct Inline {
    name: String,
    /// Label behind the call.
    end: u32,
}

/// An entry being lowered.
pub(crate) struct Body<'s> {
    tree: &'s Tree<'s>,
    plan: Option<&'s Plan>,
    pub(crate) scopes: Scopes<'s>,
    pub(crate) registers: Vec<Register>,
    pub(crate) code: Vec<Inst>,
    pub(crate) lines: Vec<u32>,
    pub(crate) classes: Vec<InstructionClass>,
    pub(crate) metas: Vec<Meta>,
    /// Program counter of each label.
    pub(crate) labels: Vec<Option<u32>>,
    constant_slots: HashMap<(Class, ConstantValue), u32>,
    pub(crate) constants: Vec<Constant>,
    /// Slots in use, by class: words, doubles, predicates.
    pub(crate) slots: [u32; 3],
    pub(crate) params: Vec<Param>,
    pub(crate) param_bytes: u32,
    pub(crate) shared: Vec<SharedVariable>,
    /// Addresses of shared variables, by line and name of their declaration.
    shared_at: HashMap<(u32, &'s str), u64>,
    pub(crate) shared_end: u64,
    pub(crate) local_bytes: u64,
    calls: Vec<Inline>,
    /// Architecture that the module is written for.
    pub(crate) sm: u32,
}

fn class_index(class: Class) -> usize {
    match class {
        Class::Word => 0,
        Class::Double => 1,
        Class::Pred => 2,
    }
}

impl<'s> Body<'s> {
    /// Lowers an entry, for its metas alone if there is no plan yet.
    pub(crate) fn lower(
        tree: &'s Tree<'s>,
        entry: &'s Function<'s>,
        plan: Option<&'s Plan>,
    ) -> Result<Body<'s>> {
        let mut body = Body {
            tree,
            plan,
            scopes: Scopes::new(),
            registers: Vec::new(),
            code: Vec::new(),
            lines: Vec::new(),
            classes: Vec::new(),
            metas: Vec::new(),
            labels: Vec::new(),
            constant_slots: HashMap::new(),
            constants: Vec::new(),
            slots: plan.map_or([1, 1, 2], |p| p.slots),
            params: Vec::new(),
            param_bytes: 0,
            shared: Vec::new(),
            shared_at: HashMap::new(),
            shared_end: FIRST_OFFSET,
            local_bytes: 0,
            calls: Vec::new(),
            sm: tree.sm,
        };
        body.module_variables()?;
        body.scopes.open_function();
        for param in &entry.params {
            body.entry_param(param)?;
        }
        let statements = entry.body.as_deref().unwrap_or_default();
        body.block(statements)?;
        body.end_of_body(entry.line)?;
        body.resolve_labels()?;
        Ok(body)
    }

    fn module_variables(&mut self) -> Result<()> {
        let mut globals = 0;
        for (index, variable) in self.tree.variables.iter().enumerate() {
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
            self.declare(variable.name, symbol, variable.line)?;
        }
        Ok(())
    }

    fn declare(&mut self, name: &'s str, symbol: Symbol, line: u32) -> Result<()> {
        if self.scopes.add(name, symbol) {
            return Ok(());
        }
        Err(Fault::new(line, format!("`{name}` is declared twice")))
    }

    fn entry_param(&mut self, param: &'s Variable<'s>) -> Result<()> {
        let too_many = || Fault::new(param.line, "parameters of more than 32764 bytes");
        let offset = u64::from(self.param_bytes).next_multiple_of(param.align);
        let end = offset + param.bytes;
        if end > 32_764 {
            return Err(too_many());
        }
        let (offset, bytes) = (offset as u32, param.bytes as u32);
        self.param_bytes = end as u32;
        self.params.push(Param { name: param.name.to_owned(), offset, bytes });
        self.declare(param.name, Symbol::EntryParam { offset, bytes }, param.line)
    }

    /// What a name stands for here.
    pub(crate) fn find(&mut self, name: &str) -> Option<Symbol> {
        match self.scopes.find(name)? {
            Symbol::ModuleShared { index } => {
                Some(self.shared_variable(&self.tree.variables[index]))
            }
            symbol => Some(symbol),
        }
    }

    /// The address of a shared variable, given to it at its first use.
    fn shared_variable(&mut self, variable: &Variable<'s>) -> Symbol {
        let align = variable.align.max(1);
        if variable.unsized_array {
            let end = self.plan.map_or(FIRST_OFFSET, |p| p.shared_end);
            return Symbol::Shared { address: end.next_multiple_of(align.max(16)), bytes: 0 };
        }
        let key = (variable.line, variable.name);
        let bytes = variable.bytes;
        if let Some(&address) = self.shared_at.get(&key) {
            return Symbol::Shared { address, bytes };
        }
        let address = self.shared_end.next_multiple_of(align);
        self.shared_end = address + bytes;
        self.shared_at.insert(key, address);
        self.shared.push(SharedVariable { name: variable.name.to_owned(), address, bytes });
        Symbol::Shared { address, bytes }
    }

    // ---- Statements

    fn block(&mut self, statements: &'s [Statement<'s>]) -> Result<()> {
        // Labels are seen before they are reached, so they come first.
        for statement in statements {
            match statement {
                Statement::Label { name, line } => {
                    let label = self.new_label();
                    if !self.scopes.add_label(name, label) {
                        return Err(Fault::new(*line, format!("label `{name}` is declared twice")));
                    }
                }
                Statement::BranchTargets { name, labels, line }
                    if !self.scopes.add_table(name, labels.clone()) =>
                {
                    return Err(Fault::new(*line, format!("`{name}` is declared twice")));
                }
                _ => {}
            }
        }
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &'s Statement<'s>) -> Result<()> {
        match statement {
            Statement::Label { name, .. } => {
                if let Some(label) = self.scopes.label(name) {
                    self.place_label(label);
                }
                Ok(())
            }
            Statement::BranchTargets { .. } => Ok(()),
            Statement::Instruction(ins) => self.instruction(ins),
            Statement::Block(inner) => {
                self.scopes.open();
                let result = self.block(inner);
                self.scopes.close();
                result
            }
            Statement::Registers { ty, names, line } => self.declare_registers(*ty, names, *line),
            Statement::Variable(variable) => self.declare_variable(variable),
        }
    }

    fn declare_registers(
        &mut self,
        ty: Type,
        names: &[(&'s str, Option<u32>)],
        line: u32,
    ) -> Result<()> {
        if ty.bits() > 64 {
            return Err(Fault::new(
                line,
                format!("registers of type .{} are not supported", ty.name()),
            ));
        }
        for &(name, count) in names {
            let first = self.registers.len() as u32;
            if first as usize + count.unwrap_or(1) as usize > MAX_CODE {
                return Err(Fault::new(line, format!("more than {MAX_CODE} registers")));
            }
            let added = match count {
                None => {
                    self.registers.push(Register { ty, name: name.to_owned() });
                    self.scopes.add(name, Symbol::Register(first))
                }
                Some(count) => {
                    let named = |i| Register { ty, name: format!("{name}{i}") };
                    self.registers.extend((0..count).map(named));
                    self.scopes.add_range(name, first, count)
                }
            };
            if !added {
                return Err(Fault::new(line, format!("`{name}` is declared twice")));
            }
        }
        Ok(())
    }

    fn declare_variable(&mut self, variable: &'s Variable<'s>) -> Result<()> {
        let symbol = match variable.space {
            Space::Shared => self.shared_variable(variable),
            Space::Local => {
                let offset = self.local_variable(variable);
                Symbol::Local { offset, bytes: variable.bytes }
            }
            Space::Param => {
                let offset = self.local_variable(variable);
                Symbol::CallParam { offset, bytes: variable.bytes }
            }
            space => {
                let message = format!(
                    "a variable in {} memory inside a function is not supported",
                    space.name()
                );
                return Err(Fault::new(variable.line, message));
            }
        };
        if self.local_bytes > 1 << 19 {
            return Err(Fault::new(variable.line, "more than 512 KiB of local memory per thread"));
        }
        self.declare(variable.name, symbol, variable.line)
    }

    fn local_variable(&mut self, variable: &Variable<'s>) -> u64 {
        let offset = self.local_bytes.next_multiple_of(variable.align.max(1));
        self.local_bytes = offset + variable.bytes;
        offset
    }

    /// Falling off the end of an entry ends the thread.
    fn end_of_body(&mut self, line: u32) -> Result<()> {
        let ins = Instruction {
            guard: None,
            opcode: "exit",
            modifiers: Vec::new(),
            operands: Vec::new(),
            line,
        };
        self.instruction(&ins)
    }

    // ---- Labels

    pub(crate) fn new_label(&mut self) -> u32 {
        self.labels.push(None);
        self.labels.len() as u32 - 1
    }

    pub(crate) fn place_label(&mut self, label: u32) {
        self.labels[label as usize] = Some(self.code.len() as u32);
    }

    fn resolve_labels(&mut self) -> Result<()> {
        for (pc, meta) in self.metas.iter_mut().enumerate() {
            let inst = &mut self.code[pc];
            for target in &mut meta.targets {
                let pc = self.labels[*target as usize];
                *target = pc.ok_or_else(|| {
                    Fault::new(self.lines[0], "branch to a label that is never reached")
                })?;
            }
            if meta.targets.is_empty() {
                continue;
            }
            if inst.list.is_empty() {
                inst.aux = meta.targets[0];
            } else {
                inst.list = meta.targets.clone().into_boxed_slice();
            }
        }
        Ok(())
    }

    // ---- Slots

    /// The slot of a register.
    pub(crate) fn slot(&self, register: u32) -> u32 {
        self.plan.map_or(0, |plan| plan.slot_of[register as usize])
    }

    /// The slot that takes what nobody wants.
    pub(crate) fn sink(&self, class: Class) -> u32 {
        if class == Class::Pred { SINK_PRED } else { SINK }
    }

    /// A slot that holds a constant.
    pub(crate) fn constant(&mut self, class: Class, value: ConstantValue) -> u32 {
        if let Some(&slot) = self.constant_slots.get(&(class, value.clone())) {
            return slot;
        }
        let next = &mut self.slots[class_index(class)];
        let slot = *next;
        *next += 1;
        self.constant_slots.insert((class, value.clone()), slot);
        self.constants.push(Constant { class, slot, value });
        slot
    }

    // ---- Instructions

    fn instruction(&mut self, ins: &Instruction<'s>) -> Result<()> {
        if self.code.len() >= MAX_CODE {
            return Err(Fault::new(ins.line, format!("more than {MAX_CODE} instructions")));
        }
        let pattern = table::find(ins)?;
        if pattern.row.sm > self.sm {
            let (needs, has) = (pattern.row.sm, self.sm);
            return Err(Fault::new(
                ins.line,
                format!("this form of `{}` needs sm_{needs}, not sm_{has}", ins.opcode),
            ));
        }
        let mut form = Form::new(self, ins);
        form.guard()?;
        (pattern.row.lower)(&mut form)?;
        form.finish()?;
        let Form { mut inst, reads, writes, targets, falls, partial, skip, .. } = form;
        if skip {
            return Ok(());
        }
        let guarded = ins.guard.is_some();
        inst.site = self.code.len() as u32;
        self.code.push(inst);
        self.lines.push(ins.line);
        self.classes.push(pattern.class);
        let proves = !guarded && !partial;
        self.metas.push(Meta { reads, writes, guarded, proves, targets, falls: falls || guarded });
        Ok(())
    }

    /// The label behind the call that is being lowered in place; none in the entry itself.
    pub(crate) fn return_label(&self) -> Option<u32> {
        self.calls.last().map(|call| call.end)
    }

    /// Lowers a device function in place of a call. `results` and `arguments` name `.param` variables of the caller.
    pub(crate) fn call(
        &mut self,
        ins: &Instruction<'s>,
        name: &'s str,
        results: &[Operand<'s>],
        arguments: &[Operand<'s>],
    ) -> Result<()> {
        let fault = |message: String| Fault::new(ins.line, message);
        let tree = self.tree;
        let function = tree
            .functions
            .iter()
            .filter(|f| !f.entry && f.name == name)
            .max_by_key(|f| f.body.is_some());
        let function =
            function.ok_or_else(|| fault(format!("function `{name}` is not declared")))?;
        let Some(statements) = &function.body else {
            return Err(fault(format!("function `{name}` has no body in this file")));
        };
        if self.calls.len() >= MAX_CALLS || self.calls.iter().any(|c| c.name == name) {
            return Err(fault(format!("recursive call of `{name}` is not supported")));
        }
        if results.len() != function.returns.len() || arguments.len() != function.params.len() {
            let (r, a) = (function.returns.len(), function.params.len());
            return Err(fault(format!("`{name}` takes {a} parameters and returns {r}")));
        }
        let formal = function.returns.iter().chain(&function.params);
        let mut bound = Vec::new();
        for (variable, actual) in formal.zip(results.iter().chain(arguments)) {
            bound.push((variable.name, self.bind(ins, variable, actual)?, variable.line));
        }
        let end = self.new_label();
        if let Some((guard, negated)) = ins.guard {
            self.branch_around((guard, !negated), end, ins.line)?;
        }
        self.calls.push(Inline { name: name.to_owned(), end });
        self.scopes.open_function();
        for (name, symbol, line) in bound {
            self.declare(name, symbol, line)?;
        }
        let result = self.block(statements);
        self.scopes.close();
        self.calls.pop();
        self.place_label(end);
        result
    }

    /// What a formal parameter stands for: the caller's `.param` variable itself.
    fn bind(
        &mut self,
        ins: &Instruction<'s>,
        formal: &Variable<'s>,
        actual: &Operand<'s>,
    ) -> Result<Symbol> {
        let fault = |message: String| Fault::new(ins.line, message);
        let Operand::Name(actual) = *actual else {
            return Err(fault("a call passes `.param` variables only".into()));
        };
        let symbol =
            self.find(actual).ok_or_else(|| fault(format!("`{actual}` is not declared")))?;
        match symbol {
            Symbol::CallParam { bytes, .. }
                if bytes == formal.bytes && formal.space == Space::Param =>
            {
                Ok(symbol)
            }
            Symbol::CallParam { bytes, .. } if formal.space == Space::Param => Err(fault(format!(
                "`{actual}` has {bytes} bytes, `{}` has {}",
                formal.name, formal.bytes
            ))),
            _ => Err(fault(format!(
                "`{actual}` is not a `.param` variable; other ways to pass are not supported"
            ))),
        }
    }

    fn branch_around(&mut self, guard: (&'s str, bool), end: u32, line: u32) -> Result<()> {
        let ins = Instruction {
            guard: Some(guard),
            opcode: "bra",
            modifiers: Vec::new(),
            operands: Vec::new(),
            line,
        };
        let mut form = Form::new(self, &ins);
        form.guard()?;
        form.run::<crate::ops::control::Branch>()?;
        let Form { mut inst, reads, .. } = form;
        inst.site = self.code.len() as u32;
        self.code.push(inst);
        self.lines.push(line);
        self.classes.push(InstructionClass::Control);
        let meta = Meta {
            reads,
            writes: Vec::new(),
            guarded: true,
            proves: false,
            targets: vec![end],
            falls: true,
        };
        self.metas.push(meta);
        Ok(())
    }
}
