//! The body of an entry being lowered: statements to instructions.
//!
//! A body is lowered twice. The first time finds out which registers are read and written where;
//! from that a [`Plan`] gives each register a slot; the second time makes the code. Device
//! functions are lowered in place of each call, so that a program counter alone says where a lane is.

use std::any::TypeId;
use std::collections::HashMap;

use super::call::InPlace;
use super::callee::{Frame, Pending};
use super::flow::Passage;
use super::form::Form;
use super::in_flight::loaded_bytes;
use super::kernel::{Constant, ConstantValue, Param, SharedVariable};
use super::plan::{Meta, Plan};
use super::scene::Scene;
use super::symbols::{Register, Scopes, Symbol, VECTOR_PARTS};
use super::table;
use crate::counters::InstructionClass;
use crate::error::Fault;
use crate::exec::inst::{Each, Inst};
use crate::memory::FIRST_OFFSET;
use crate::parse::ast::{Function, Instruction, Statement, Variable};
use crate::types::{Class, Space, Type};

/// Slot of predicates written `_`; slot 0 is the constant true.
const SINK_PRED: u32 = 1;
/// Slot of other registers written `_`.
pub(crate) const SINK: u32 = 0;

type Result<T> = std::result::Result<T, Fault>;

/// An entry being lowered.
pub(crate) struct Body<'s> {
    pub(super) scene: &'s Scene<'s>,
    plan: Option<&'s Plan>,
    pub(crate) scopes: Scopes<'s>,
    pub(crate) registers: Vec<Register>,
    pub(crate) code: Vec<Inst>,
    /// What runs several instructions of a kind, by [`Inst::series`].
    pub(crate) series: Vec<(TypeId, Each)>,
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
    /// Calls that are being lowered in place, innermost last.
    pub(super) calls: Vec<InPlace>,
    /// Functions with code of their own, and which of them each function is.
    pub(super) pending: Vec<Pending>,
    pub(super) pending_of: HashMap<usize, u32>,
    /// Whether anything takes memory from the stack, or asks where it ends.
    pub(crate) allocates: bool,
    /// The frame of the one being lowered.
    pub(super) frame: Option<Frame>,
    /// The condition code register, if anything uses it. It only stands here for the checks: see [`Warp::carry`].
    ///
    /// [`Warp::carry`]: crate::exec::warp::Warp::carry
    carry: Option<u32>,
    /// Architecture that the module is written for.
    pub(crate) sm: u32,
    /// Whether its target has instructions of its own (`sm_90a`).
    pub(crate) specific: bool,
}

pub(super) fn class_index(class: Class) -> usize {
    match class {
        Class::Word => 0,
        Class::Double => 1,
        Class::Pred => 2,
    }
}

impl<'s> Body<'s> {
    /// Lowers an entry, for its metas alone if there is no plan yet.
    pub(crate) fn lower(
        scene: &'s Scene<'s>,
        entry: &'s Function<'s>,
        plan: Option<&'s Plan>,
    ) -> Result<Body<'s>> {
        let mut body = Body {
            scene,
            plan,
            scopes: Scopes::new(&scene.names),
            registers: Vec::new(),
            code: Vec::new(),
            lines: Vec::new(),
            classes: Vec::new(),
            metas: Vec::new(),
            series: Vec::new(),
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
            pending: Vec::new(),
            pending_of: HashMap::new(),
            allocates: false,
            frame: None,
            carry: None,
            sm: scene.tree.sm,
            specific: scene.tree.specific,
        };
        body.scopes.open_function();
        for param in &entry.params {
            body.entry_param(param)?;
        }
        let statements = entry.body.as_deref().unwrap_or_default();
        body.block(statements)?;
        body.end_of_body("exit", entry.line)?;
        body.callees()?;
        body.resolve_labels()?;
        Ok(body)
    }

    /// Index of the condition code register.
    pub(crate) fn carry(&mut self) -> u32 {
        let next = self.registers.len() as u32;
        *self.carry.get_or_insert_with(|| {
            self.registers.push(Register { ty: Type::Pred, name: "CC.CF".to_owned() });
            next
        })
    }

    pub(super) fn declare(&mut self, name: &'s str, symbol: Symbol, line: u32) -> Result<()> {
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
        let Some(symbol) = self.scopes.find(name) else {
            return self.scene.graph.find(name).map(Symbol::Function);
        };
        match symbol {
            Symbol::ModuleShared { index } => {
                Some(self.shared_variable(&self.scene.tree.variables[index]))
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

    pub(super) fn block(&mut self, statements: &'s [Statement<'s>]) -> Result<()> {
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
                Statement::CallTargets { name, line, .. }
                | Statement::CallPrototype { name, line }
                    if !self.scopes.add_prototype(name) =>
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
            Statement::BranchTargets { .. }
            | Statement::CallTargets { .. }
            | Statement::CallPrototype { .. } => Ok(()),
            Statement::Instruction(ins) => self.instruction(ins),
            Statement::Block(inner) => {
                self.scopes.open();
                let result = self.block(inner);
                self.scopes.close();
                result
            }
            Statement::Registers { ty, elements, names, line } => {
                self.declare_registers(*ty, *elements, names, *line)
            }
            Statement::Variable(variable) => self.declare_variable(variable),
        }
    }

    fn declare_registers(
        &mut self,
        ty: Type,
        elements: u32,
        names: &[(&'s str, Option<u32>)],
        line: u32,
    ) -> Result<()> {
        let is_vector = elements > 1;
        // 128 bits are two registers of 64, the lower one first.
        let each = if ty == Type::B128 { 2 } else { elements };
        for &(name, count) in names {
            let first = self.registers.len() as u32;
            let end = first as usize + (count.unwrap_or(1) * each) as usize;
            self.scene.check_length(self.code.len(), end, line)?;
            let named = |name: String| {
                let upper = (ty == Type::B128)
                    .then(|| Register { ty: Type::B64, name: format!("{name} (upper half)") });
                let element = move |index: u32| match VECTOR_PARTS[index as usize] {
                    [part, _] if is_vector => format!("{name}.{part}"),
                    _ => name.clone(),
                };
                (0..elements).map(move |i| Register { ty, name: element(i) }).chain(upper)
            };
            let added = match count {
                None => {
                    self.registers.extend(named(name.to_owned()));
                    self.scopes.add(name, Symbol::of_registers(first, each, is_vector))
                }
                Some(count) => {
                    self.registers.extend((0..count).flat_map(|i| named(format!("{name}{i}"))));
                    self.scopes.add_range(name, first, count, (each, is_vector))
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
        if self.frame.as_ref().map_or(self.local_bytes, |f| f.bytes) > 1 << 19 {
            return Err(Fault::new(variable.line, "more than 512 KiB of local memory per thread"));
        }
        self.declare(variable.name, symbol, variable.line)
    }

    fn local_variable(&mut self, variable: &Variable<'s>) -> u64 {
        let end = match &mut self.frame {
            Some(frame) => &mut frame.bytes,
            None => &mut self.local_bytes,
        };
        let offset = end.next_multiple_of(variable.align.max(1));
        *end = offset + variable.bytes;
        offset
    }

    /// The address of byte `offset` of the local memory of the entry, or of the function with code of its own.
    pub(crate) fn local_address(&mut self, class: Class, offset: i64) -> u32 {
        let Some(frame) = &mut self.frame else {
            return self
                .constant(class, ConstantValue::Bits(FIRST_OFFSET.wrapping_add(offset as u64)));
        };
        let next = &mut self.slots[class_index(class)];
        *frame.addresses.entry((class, offset)).or_insert_with(|| {
            *next += 1;
            *next - 1
        })
    }

    /// Falling off the end of a body is an `exit` or a `ret`.
    pub(super) fn end_of_body(&mut self, opcode: &'static str, line: u32) -> Result<()> {
        let ins =
            Instruction { guard: None, opcode, modifiers: Vec::new(), operands: Vec::new(), line };
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

    /// The constant that a slot for words holds, if it is one that is known by now.
    pub(crate) fn constant_bits(&self, slot: u32) -> Option<u64> {
        let found = |constant: &&Constant| constant.class == Class::Word && constant.slot == slot;
        match self.constants.iter().find(found)?.value {
            ConstantValue::Bits(bits) => Some(bits),
            _ => None,
        }
    }

    // ---- Instructions

    pub(super) fn instruction(&mut self, ins: &Instruction<'s>) -> Result<()> {
        self.scene.check_length(self.code.len() + 1, self.registers.len(), ins.line)?;
        let (pattern, order) = table::find(ins)?;
        let reordered = order.map(|modifiers| Instruction {
            modifiers,
            operands: ins.operands.clone(),
            ..*ins
        });
        let ins = reordered.as_ref().unwrap_or(ins);
        if pattern.row.sm > self.sm {
            let (needs, has) = (pattern.row.sm, self.sm);
            return Err(Fault::new(
                ins.line,
                format!("this form of `{}` needs sm_{needs}, not sm_{has}", ins.opcode),
            ));
        }
        let clusters = |m: &&&str| **m == "cluster" || m.ends_with("::cluster");
        if let Some(modifier) = ins.modifiers.iter().find(clusters).filter(|_| self.sm < 90) {
            return Err(Fault::new(
                ins.line,
                format!("`.{modifier}` needs sm_90, not sm_{}", self.sm),
            ));
        }
        let mut form = Form::new(self, ins);
        form.guard()?;
        (pattern.row.lower)(&mut form)?;
        form.finish()?;
        let Form { inst, reads, writes, targets, falls, partial, skip, term, strand, .. } = form;
        if skip {
            return Ok(());
        }
        let guarded = ins.guard.is_some();
        let passage = Passage::of(pattern.class, ins.opcode, &ins.modifiers);
        let falls = falls || guarded;
        let loads = loaded_bytes(ins);
        let meta =
            Meta { reads, writes, passage, loads, guarded, partial, targets, falls, term, strand };
        self.push(inst, ins.line, pattern.class, meta);
        Ok(())
    }
}
