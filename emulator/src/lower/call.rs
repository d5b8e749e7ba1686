//! Calls being lowered: in place, or of functions with code of their own.

use super::body::Body;
use super::callee::{Callee, Frame, Pending, Span, frame_of, function_address};
use super::flow::Passage;
use super::form::Form;
use super::plan::{Meta, Plan};
use super::symbols::{Register, Symbol};
use crate::counters::InstructionClass;
use crate::error::Fault;
use crate::exec::inst::Inst;
use crate::ops::call::Copy;
use crate::ops::control::Branch;
use crate::ops::runtime;
use crate::parse::ast::{Function, Instruction, Operand, Variable};
use crate::types::{Class, Space, Type};

/// Calls inside calls that are lowered in place.
const MAX_IN_PLACE: usize = 24;
/// Code beyond which no call is lowered in place any more.
const LARGE_CODE: usize = 1 << 17;

type Result<T> = std::result::Result<T, Fault>;

/// A call that is being lowered in place.
#[derive(Debug)]
pub(super) struct InPlace {
    /// Label behind the call.
    end: u32,
}

/// What `ret` does where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReturnTo {
    /// It ends the thread.
    Nobody,
    /// It branches behind the call.
    Label(u32),
    /// It goes where the frame says.
    Caller,
}

/// How a call names what it calls.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Index among the functions with code of their own.
    Callee(u32),
    /// The call was lowered in place.
    InPlace,
    /// A function that the driver links.
    Runtime(&'static runtime::Function),
}

impl<'s> Body<'s> {
    pub(crate) fn return_to(&self) -> ReturnTo {
        match (self.calls.last(), &self.frame) {
            (Some(call), _) => ReturnTo::Label(call.end),
            (None, Some(_)) => ReturnTo::Caller,
            (None, None) => ReturnTo::Nobody,
        }
    }

    /// Lowers a call of a named function in place, or finds the code that the function has of its own.
    pub(crate) fn call(
        &mut self,
        ins: &Instruction<'s>,
        name: &'s str,
        results: &[Operand<'s>],
        arguments: &[Operand<'s>],
    ) -> Result<Target> {
        let fault = |message: String| Fault::new(ins.line, message);
        let index = self
            .scene
            .graph
            .find(name)
            .ok_or_else(|| fault(format!("function `{name}` is not declared")))?;
        let tree = self.scene.tree;
        let function = &tree.functions[index];
        if function.body.is_none() {
            let known = runtime::find(name).map(Target::Runtime);
            return known
                .ok_or_else(|| fault(format!("function `{name}` has no body in this file")));
        }
        if results.len() != function.returns.len() || arguments.len() != function.params.len() {
            let (r, a) = (function.returns.len(), function.params.len());
            return Err(fault(format!("`{name}` takes {a} parameters and returns {r}")));
        }
        let deep = self.calls.len() >= MAX_IN_PLACE || self.code.len() > LARGE_CODE;
        if deep || self.scene.graph.has_own_code(index) {
            return self.callee(index, ins.line).map(Target::Callee);
        }
        self.in_place(ins, function, results, arguments)?;
        Ok(Target::InPlace)
    }

    /// Index among the functions with code of their own; its code is made later.
    pub(crate) fn callee(&mut self, function: usize, line: u32) -> Result<u32> {
        if let Some(&known) = self.pending_of.get(&function) {
            return Ok(known);
        }
        let tree = self.scene.tree;
        let declared = &tree.functions[function];
        if let Some(formal) =
            declared.returns.iter().chain(&declared.params).find(|v| v.space != Space::Param)
        {
            let message = format!(
                "`{}` passes `{}` in a register, which is not supported for a function that is recursive, \
                 deeply nested, or called through its address",
                declared.name, formal.name
            );
            return Err(Fault::new(line, message));
        }
        let index = self.pending.len() as u32;
        self.pending_of.insert(function, index);
        self.pending.push(Pending {
            function,
            entry: 0,
            registers: 0..0,
            frame: frame_of(declared),
        });
        Ok(index)
    }

    /// Gives code of its own to every function whose address is taken.
    pub(crate) fn taken_callees(&mut self, line: u32) -> Result<()> {
        for &function in self.scene.graph.taken() {
            if self.scene.tree.functions[function].body.is_some() {
                self.callee(function, line)?;
            }
        }
        Ok(())
    }

    /// Makes the code of every function that was found to need code of its own.
    pub(super) fn callees(&mut self) -> Result<()> {
        let mut index = 0;
        while index < self.pending.len() {
            self.callee_body(index)?;
            index += 1;
        }
        Ok(())
    }

    fn callee_body(&mut self, index: usize) -> Result<()> {
        let tree = self.scene.tree;
        let function = &tree.functions[self.pending[index].function];
        let first = self.registers.len() as u32;
        let frame = std::mem::take(&mut self.pending[index].frame);
        self.pending[index].entry = self.code.len() as u32;
        self.scopes.open_function();
        let spans = frame.results.iter().chain(&frame.params);
        let formals: Vec<_> =
            function.returns.iter().chain(&function.params).zip(spans.copied()).collect();
        self.frame = Some(frame);
        for (formal, Span { offset, bytes }) in formals {
            self.declare(formal.name, Symbol::CallParam { offset, bytes }, formal.line)?;
        }
        self.block(function.body.as_deref().unwrap_or_default())?;
        self.end_of_body("ret", function.line)?;
        self.scopes.close();
        let mut frame = self.frame.take().unwrap_or_default();
        frame.bytes = frame.bytes.next_multiple_of(16);
        self.pending[index].frame = frame;
        self.pending[index].registers = first..self.registers.len() as u32;
        Ok(())
    }

    /// Lowers a device function in place of a call. `results` and `arguments` name the caller's variables.
    fn in_place(
        &mut self,
        ins: &Instruction<'s>,
        function: &'s Function<'s>,
        results: &[Operand<'s>],
        arguments: &[Operand<'s>],
    ) -> Result<()> {
        let end = self.new_label();
        if let Some((guard, negated)) = ins.guard {
            self.branch_around((guard, !negated), end, ins.line)?;
        }
        let mut bound = Vec::new();
        for (variable, actual) in function.params.iter().zip(arguments) {
            let symbol = self.bind(ins, variable, actual)?;
            if let Symbol::Register(index) = symbol {
                self.copy(index, actual, true, ins.line)?;
            }
            bound.push((variable, symbol));
        }
        let mut returned = Vec::new();
        for (variable, actual) in function.returns.iter().zip(results) {
            let symbol = self.bind(ins, variable, actual)?;
            if let Symbol::Register(index) = symbol {
                returned.push((index, actual));
            }
            bound.push((variable, symbol));
        }
        let inner_end = self.new_label();
        self.calls.push(InPlace { end: inner_end });
        self.scopes.open_function();
        for (variable, symbol) in bound {
            self.declare(variable.name, symbol, variable.line)?;
        }
        let result = self.block(function.body.as_deref().unwrap_or_default());
        self.scopes.close();
        self.calls.pop();
        result?;
        self.place_label(inner_end);
        for (index, actual) in returned {
            self.copy(index, actual, false, ins.line)?;
        }
        self.place_label(end);
        Ok(())
    }

    /// What a formal parameter stands for: the caller's `.param` variable itself, or a register of its own.
    fn bind(
        &mut self,
        ins: &Instruction<'s>,
        formal: &Variable<'s>,
        actual: &Operand<'s>,
    ) -> Result<Symbol> {
        let fault = |message: String| Fault::new(ins.line, message);
        if formal.space == Space::Reg && formal.ty == Type::B128 {
            return Err(fault("a register of 128 bits cannot be a parameter".into()));
        }
        if formal.space == Space::Reg && formal.bytes != formal.ty.bytes().into() {
            return Err(fault("a vector of registers cannot be a parameter".into()));
        }
        if formal.space == Space::Reg {
            self.registers.push(Register { ty: formal.ty, name: formal.name.to_owned() });
            return Ok(Symbol::Register(self.registers.len() as u32 - 1));
        }
        let (symbol, name) = self.param_variable(ins, actual)?;
        match symbol {
            Symbol::CallParam { bytes, .. } if bytes == formal.bytes => Ok(symbol),
            _ => Err(fault(format!(
                "`{name}` and `{}` of {} bytes differ in size",
                formal.name, formal.bytes
            ))),
        }
    }

    /// The `.param` variable that a call passes.
    pub(crate) fn param_variable(
        &mut self,
        ins: &Instruction<'s>,
        actual: &Operand<'s>,
    ) -> Result<(Symbol, &'s str)> {
        let fault = |message: String| Fault::new(ins.line, message);
        let Operand::Name(name) = *actual else {
            return Err(fault("expected the name of a `.param` variable".into()));
        };
        let symbol = self.find(name).ok_or_else(|| fault(format!("`{name}` is not declared")))?;
        match symbol {
            Symbol::CallParam { .. } => Ok((symbol, name)),
            _ => Err(fault(format!("`{name}` is not a `.param` variable"))),
        }
    }

    /// Copies an argument into a formal register, or a result out of one.
    fn copy(&mut self, formal: u32, actual: &Operand<'s>, inward: bool, line: u32) -> Result<()> {
        let ty = self.registers[formal as usize].ty;
        let slot = self.slot(formal);
        let operands = vec![actual.clone()];
        let ins = Instruction { guard: None, opcode: "mov", modifiers: Vec::new(), operands, line };
        let mut form = Form::new(self, &ins);
        if ty.class() == Class::Pred {
            return Err(form.fault("a predicate cannot be a parameter"));
        }
        if inward {
            form.inst.a = form.src(ty)?;
            form.inst.d = slot;
            form.writes.push(formal);
        } else {
            form.inst.d = form.dst(ty)?;
            form.inst.a = slot;
            form.reads.push(formal);
        }
        match ty.class() {
            Class::Double => form.run::<Copy<u64>>()?,
            _ => form.run::<Copy<u32>>()?,
        }
        let Form { inst, reads, writes, .. } = form;
        self.push(
            inst,
            line,
            InstructionClass::Move,
            Meta {
                reads,
                writes,
                passage: Passage::Through,
                loads: 0,
                guarded: false,
                partial: false,
                targets: vec![],
                falls: true,
                term: None,
                strand: None,
            },
        );
        Ok(())
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
        form.run::<Branch>()?;
        let Form { inst, reads, .. } = form;
        let meta = Meta {
            reads,
            writes: Vec::new(),
            passage: Passage::Defined,
            loads: 0,
            guarded: true,
            partial: false,
            targets: vec![end],
            falls: true,
            term: None,
            strand: None,
        };
        self.push(inst, line, InstructionClass::Control, meta);
        Ok(())
    }

    pub(super) fn push(&mut self, mut inst: Inst, line: u32, class: InstructionClass, meta: Meta) {
        inst.site = self.code.len() as u32;
        (inst.strand, inst.home) = (inst.site, inst.site);
        self.code.push(inst);
        self.lines.push(line);
        self.classes.push(class);
        self.metas.push(meta);
    }
}

/// The functions with code of their own, as the scheduler needs them.
pub(super) fn finished(body: &Body<'_>, plan: &Plan) -> Vec<Callee> {
    let finish = |pending: &Pending| {
        let function = &body.scene.tree.functions[pending.function];
        let mut registers: [Vec<u32>; 3] = Default::default();
        let mut tracked = Vec::new();
        for index in pending.registers.clone() {
            let slot = plan.slot_of[index as usize];
            if slot != 0 {
                registers[super::body::class_index(body.registers[index as usize].class())]
                    .push(slot);
            }
            tracked.extend(plan.tracked_of[index as usize]);
        }
        let Frame { bytes, results, params, addresses } = &pending.frame;
        let mut addresses: Vec<_> =
            addresses.iter().map(|(&(class, offset), &slot)| (class, slot, offset)).collect();
        addresses.sort_unstable();
        Callee {
            name: function.name.to_owned(),
            entry: pending.entry,
            frame_bytes: *bytes,
            results: results.clone(),
            params: params.clone(),
            recursive: body.scene.graph.is_recursive(pending.function),
            registers,
            tracked,
            addresses,
            address: function_address(pending.function),
        }
    };
    body.pending.iter().map(finish).collect()
}
