//! One instruction being lowered: its modifiers, its operands one after the other, and the result.
//!
//! Operands are taken in the order in which they are written; [`Form::dst`] and its kin check the
//! type, note which registers are read and written, and give the slot to put into the instruction.

use std::any::TypeId;
use std::borrow::Cow;
use std::num::NonZero;

use super::body::Body;
use super::kernel::ConstantValue;
use super::special::{self, Clock, Found};
use super::strands::Strand;
use super::symbols::{Symbol, VECTOR_PARTS};
use crate::error::Fault;
use crate::exec::inst::{self, Exec, Flow, Inst, Repeat, UNTRACKED, handler};
use crate::exec::sums::Term;
use crate::parse::ast::{Base, Instruction, Operand};
use crate::types::{Class, Kind, Space, Type};

/// Flag in [`Inst::aux`] of memory instructions: the address register has 64 bits.
pub(crate) const WIDE_ADDRESS: u32 = 1;

/// Flag in [`Inst::aux`] of memory instructions: volatile, relaxed, acquire or release.
pub(crate) const STRONG: u32 = 1 << 16;

/// Flag in [`Inst::aux`] of strong memory instructions: the scope includes other CTAs.
pub(crate) const WIDER: u32 = 1 << 17;
/// Flag in [`Inst::aux`] of strong memory instructions: an acquire operation.
pub(crate) const ACQUIRES: u32 = 1 << 18;
/// Flag in [`Inst::aux`] of strong memory instructions: a release operation.
pub(crate) const RELEASES: u32 = 1 << 19;
/// The whole warp loads, whichever lanes give addresses: see [`crate::checks::words::Access::whole`].
pub(crate) const WHOLE: u32 = 1 << 20;

/// Where an address operand points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Through a register or an absolute address, in the space that the instruction names.
    Dynamic,
    /// Into the entry's parameters, at an offset known now.
    EntryParam,
    /// Into a `.param` variable of a call, which is local memory.
    CallParam,
}

/// An instruction being lowered.
pub(crate) struct Form<'f, 's> {
    pub(crate) body: &'f mut Body<'s>,
    pub(crate) ins: &'f Instruction<'s>,
    /// The instruction being made.
    pub(crate) inst: Inst,
    at: usize,
    pub(crate) reads: Vec<u32>,
    pub(crate) writes: Vec<u32>,
    pub(crate) targets: Vec<u32>,
    /// Whether lanes may go on with the next instruction.
    pub(crate) falls: bool,
    /// Whether lanes may be left without a defined result, so that a write proves nothing.
    pub(crate) partial: bool,
    /// Whether nothing is to be emitted: the instruction is complete already, or a hint.
    pub(crate) skip: bool,
    /// What it adds to a sum of products, if that is all it does.
    pub(crate) term: Option<Term>,
    /// The strand of accesses that it may belong to.
    pub(crate) strand: Option<Strand>,
}

/// The handler of an instruction that has none yet; the table's tests see to it that it is never left in place.
struct Unset;

impl Exec for Unset {
    fn exec(
        _: &mut crate::exec::warp::Warp,
        _: &Inst,
        _: u32,
        env: &mut crate::exec::env::Env<'_>,
    ) -> Flow {
        env.fault(crate::finding::FindingKind::Trap, 0, "instruction without a handler")
    }
}

type Result<T> = std::result::Result<T, Fault>;

impl<'f, 's> Form<'f, 's> {
    pub(crate) fn new(body: &'f mut Body<'s>, ins: &'f Instruction<'s>) -> Self {
        let inst = Inst {
            run: handler::<Unset>(),
            guard: 0,
            flip: 0,
            d: 0,
            p: 0,
            a: 0,
            b: 0,
            c: 0,
            m: 0,
            aux: 0,
            tracked: UNTRACKED,
            plain: [0; 2],
            series: None,
            site: 0,
            strand: 0,
            home: 0,
            waiting: 0,
            imm: 0,
            list: Box::default(),
        };
        Form {
            body,
            ins,
            inst,
            at: 0,
            reads: Vec::new(),
            writes: Vec::new(),
            targets: Vec::new(),
            falls: true,
            partial: false,
            skip: false,
            term: None,
            strand: None,
        }
    }

    /// Sets what the instruction does.
    pub(crate) fn run<E: Exec>(&mut self) -> Result<()> {
        self.inst.run = handler::<E>();
        Ok(())
    }

    /// As [`Form::run`], for an operation of which instructions often follow each other.
    pub(crate) fn run_often<E: Repeat>(&mut self) -> Result<()> {
        let kind = TypeId::of::<E>();
        let known = self.body.series.iter().position(|(other, _)| *other == kind);
        let index = known.or_else(|| {
            self.body.series.push((kind, inst::each::<E>()?));
            Some(self.body.series.len() - 1)
        });
        let index = index.and_then(|index| u16::try_from(index).ok());
        self.inst.series = index.map(|index| (index, NonZero::<u8>::MIN));
        self.run::<E>()
    }

    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.ins.line, message)
    }

    /// Resolves the guard predicate.
    pub(crate) fn guard(&mut self) -> Result<()> {
        let Some((name, negated)) = self.ins.guard else { return Ok(()) };
        let index = self.register(&Operand::Name(name), Type::Pred, false)?;
        self.reads.push(index);
        self.inst.guard = self.body.slot(index);
        self.inst.flip = if negated { u32::MAX } else { 0 };
        Ok(())
    }

    // ---- Modifiers

    /// Whether the modifier is there.
    pub(crate) fn has(&self, modifier: &str) -> bool {
        self.ins.modifiers.contains(&modifier)
    }

    /// The value that belongs to the first of these modifiers that is there.
    pub(crate) fn pick<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        choices.iter().find(|(name, _)| self.has(name)).map(|&(_, value)| value)
    }

    /// The types among the modifiers, in order.
    pub(crate) fn types(&self) -> Vec<Type> {
        self.ins.modifiers.iter().filter_map(|m| Type::parse(m)).collect()
    }

    /// The last type among the modifiers.
    pub(crate) fn ty(&self) -> Type {
        self.types().last().copied().unwrap_or(Type::B32)
    }

    // ---- Operands

    /// The next operand, if there is one; it is not taken.
    pub(crate) fn peek(&self) -> Option<&'f Operand<'s>> {
        self.ins.operands.get(self.at)
    }

    /// The next operand.
    pub(crate) fn take(&mut self) -> Result<&'f Operand<'s>> {
        let operand = self.peek().ok_or_else(|| {
            self.fault(format!(
                "`{}` needs more than {} operands",
                self.ins.opcode,
                self.ins.operands.len()
            ))
        })?;
        self.at += 1;
        Ok(operand)
    }

    /// Checks that no operand is left.
    pub(crate) fn finish(&self) -> Result<()> {
        if self.at == self.ins.operands.len() {
            return Ok(());
        }
        let (taken, given) = (self.at, self.ins.operands.len());
        Err(self.fault(format!("`{}` takes {taken} operands here, not {given}", self.ins.opcode)))
    }

    /// A register operand of the type, or a wider one where `wide` allows it.
    fn register(&mut self, operand: &Operand<'s>, ty: Type, wide: bool) -> Result<u32> {
        let Some(index) = self.named(operand)? else {
            let message = match *operand {
                Operand::Name(name) if self.body.find(name).is_some() => {
                    format!("`{name}` is not a register")
                }
                Operand::Name(name) => format!("`{name}` is not declared"),
                _ => format!("expected a register of type .{}", ty.name()),
            };
            return Err(self.fault(message));
        };
        self.check_type(index, ty, wide)?;
        Ok(index)
    }

    /// The register that an operand names, by itself or as a part of a vector, if it names one.
    fn named(&mut self, operand: &Operand<'s>) -> Result<Option<u32>> {
        match *operand {
            Operand::Name(name) => match self.body.find(name) {
                Some(Symbol::Register(index)) => Ok(Some(index)),
                Some(Symbol::Vector { .. }) => {
                    Err(self.fault(format!("`{name}` is a vector, where one register is wanted")))
                }
                _ => Ok(None),
            },
            Operand::Component(name, part) => {
                let Some((first, count)) = self.vector(name) else { return Ok(None) };
                let mut parts = VECTOR_PARTS.iter().take(count as usize);
                let index = parts.position(|names| names.contains(&part));
                let index =
                    index.ok_or_else(|| self.fault(format!("`{name}` has no part `{part}`")))?;
                Ok(Some(first + index as u32))
            }
            _ => Ok(None),
        }
    }

    /// The first register and the number of registers of a vector.
    fn vector(&mut self, name: &str) -> Option<(u32, u32)> {
        match self.body.find(name)? {
            Symbol::Vector { first, count } => Some((first, count)),
            _ => None,
        }
    }

    fn check_type(&self, index: u32, ty: Type, wide: bool) -> Result<()> {
        let register = &self.body.registers[index as usize];
        let have = register.ty;
        let wider = wide
            && have.bits() >= ty.bits()
            && ![have, ty].contains(&Type::Pred)
            && have != Type::B128;
        if ty.accepts(have) || wider {
            return Ok(());
        }
        let name = &register.name;
        Err(self.fault(format!(
            "`{name}` is .{}, but the instruction wants .{}",
            have.name(),
            ty.name()
        )))
    }

    fn write_slot(&mut self, operand: &Operand<'s>, ty: Type, wide: bool) -> Result<(u32, Type)> {
        if *operand == Operand::Name("_") {
            return Ok((self.body.sink(ty.class()), ty));
        }
        let index = self.register(operand, ty, wide)?;
        self.writes.push(index);
        Ok((self.body.slot(index), self.body.registers[index as usize].ty))
    }

    /// A destination of exactly this type (or bits of its size); `_` is allowed.
    pub(crate) fn dst(&mut self, ty: Type) -> Result<u32> {
        let operand = self.take()?;
        Ok(self.write_slot(operand, ty, false)?.0)
    }

    /// As [`Form::dst`], for an operand that was taken before.
    pub(crate) fn dst_of(&mut self, operand: &Operand<'s>, ty: Type) -> Result<u32> {
        Ok(self.write_slot(operand, ty, false)?.0)
    }

    /// A destination of this size or larger, as `ld` and `cvt` have it; also gives the type it was declared with.
    pub(crate) fn dst_wide(&mut self, ty: Type) -> Result<(u32, Type)> {
        let operand = self.take()?;
        self.write_slot(operand, ty, true)
    }

    /// A destination that may be followed by `|p`: its slot and that of the predicate.
    pub(crate) fn dst_pair(&mut self, ty: Type) -> Result<(u32, Option<u32>)> {
        let operand = self.take()?;
        let Operand::Pair(first, second) = *operand else {
            return Ok((self.write_slot(operand, ty, false)?.0, None));
        };
        let (d, _) = self.write_slot(&Operand::Name(first), ty, false)?;
        let (p, _) = self.write_slot(&Operand::Name(second), Type::Pred, false)?;
        Ok((d, Some(p)))
    }

    /// A source of exactly this type: a register, a literal, a special register, the address of a variable.
    pub(crate) fn src(&mut self, ty: Type) -> Result<u32> {
        let operand = self.take()?;
        self.source(operand, ty, false).map(|(slot, _)| slot)
    }

    /// A source of this size or larger, as `st` and `cvt` have it; also gives the type it was declared with.
    pub(crate) fn src_wide(&mut self, ty: Type) -> Result<(u32, Type)> {
        let operand = self.take()?;
        self.source(operand, ty, true)
    }

    /// A destination of 128 bits: appends the slots of its halves, the lower one first, to [`Inst::list`].
    pub(crate) fn dst_quad(&mut self) -> Result<()> {
        let operand = self.take()?;
        if *operand == Operand::Name("_") {
            let sink = self.body.sink(Class::Double);
            self.extend_list([sink, sink]);
            return Ok(());
        }
        let index = self.register(operand, Type::B128, false)?;
        self.writes.extend([index, index + 1]);
        self.extend_list([index, index + 1].map(|i| self.body.slot(i)));
        Ok(())
    }

    /// A source of 128 bits, as [`Form::dst_quad`].
    pub(crate) fn src_quad(&mut self) -> Result<()> {
        let operand = self.take()?;
        let index = self.register(operand, Type::B128, false)?;
        self.reads.extend([index, index + 1]);
        self.extend_list([index, index + 1].map(|i| self.body.slot(i)));
        Ok(())
    }

    fn extend_list(&mut self, slots: [u32; 2]) {
        let mut list = std::mem::take(&mut self.inst.list).into_vec();
        list.extend(slots);
        self.inst.list = list.into_boxed_slice();
    }

    /// A source predicate: its slot, and all ones if it is negated.
    pub(crate) fn src_pred(&mut self) -> Result<(u32, u32)> {
        let operand = self.take()?;
        let (name, flip) = match *operand {
            Operand::Not(name) => (name, u32::MAX),
            // A launch without clusters.
            Operand::Name("%is_explicit_cluster") if self.body.sm >= 90 => {
                return Ok((0, u32::MAX));
            }
            Operand::Name(name) => (name, 0),
            Operand::Int(value) => return Ok((0, if value != 0 { 0 } else { u32::MAX })),
            _ => return Err(self.fault("expected a predicate")),
        };
        let index = self.register(&Operand::Name(name), Type::Pred, false)?;
        self.reads.push(index);
        Ok((self.body.slot(index), flip))
    }

    /// As [`Form::src`], for an operand that was taken before.
    pub(crate) fn source_of(&mut self, operand: &Operand<'s>, ty: Type) -> Result<u32> {
        self.source(operand, ty, false).map(|(slot, _)| slot)
    }

    fn source(&mut self, operand: &Operand<'s>, ty: Type, wide: bool) -> Result<(u32, Type)> {
        if let Some(index) = self.named(operand)? {
            self.check_type(index, ty, wide)?;
            self.reads.push(index);
            return Ok((self.body.slot(index), self.body.registers[index as usize].ty));
        }
        if let Operand::Name(name) | Operand::SymbolOffset(name, _) = *operand
            && let Some(Symbol::Local { offset, .. } | Symbol::CallParam { offset, .. }) =
                self.body.find(name)
        {
            let extra = if let Operand::SymbolOffset(_, extra) = *operand { extra } else { 0 };
            self.address_type(name, ty)?;
            return Ok((
                self.body.local_address(ty.class(), (offset as i64).wrapping_add(extra)),
                ty,
            ));
        }
        let (value, ty) = self.constant(operand, ty)?;
        Ok((self.body.constant(ty.class(), value), ty))
    }

    /// The value of an operand that is no register, and the type that it has in the instruction.
    fn constant(&mut self, operand: &Operand<'s>, ty: Type) -> Result<(ConstantValue, Type)> {
        match *operand {
            Operand::Name(name) => {
                if let Some(found) = special::find(name, None) {
                    return self.special(found, name, ty);
                }
                self.symbol_address(name, 0, ty)
            }
            Operand::SymbolOffset(name, offset) => self.symbol_address(name, offset, ty),
            // A register hides the special register of its name.
            Operand::Component(name, component) if self.body.find(name).is_some() => {
                Err(self.fault(format!("`{name}` is declared here, and has no part `{component}`")))
            }
            Operand::Component(name, component) => match special::find(name, Some(component)) {
                Some(found) => self.special(found, name, ty),
                None => Err(self.fault(format!("unknown special register `{name}.{component}`"))),
            },
            _ => Ok((ConstantValue::Bits(self.literal(operand, ty)?), ty)),
        }
    }

    fn special(&self, found: Found, name: &str, ty: Type) -> Result<(ConstantValue, Type)> {
        let (needs, has) = (special::needs_sm(name), self.body.sm);
        if needs > has {
            return Err(self.fault(format!("`{name}` needs sm_{needs}, not sm_{has}")));
        }
        if !matches!(self.ins.opcode, "mov" | "cvt") {
            return Err(self.fault(format!("`{name}` can be read by `mov` and `cvt` only")));
        }
        // The number of the grid was of 32 bits once, and may still be read as that.
        let low = name == "%gridid" && ty.bits() == 32;
        if let (Found::Fixed(special, _), 16) = (found, ty.bits())
            && let Some(half) = special.low_half().filter(|_| ty.kind() != Kind::Float)
        {
            return Ok((ConstantValue::Special(half), ty));
        }
        match found {
            Found::Fixed(special, have)
                if (ty.bits() == have.bits() || low) && ty.kind() != Kind::Float =>
            {
                Ok((ConstantValue::Special(special), ty))
            }
            Found::Fixed(_, have) => Err(self.fault(format!(
                "`{name}` is .{}, but the instruction wants .{}",
                have.name(),
                ty.name()
            ))),
            Found::Changing(..) => Err(self.fault(format!("`{name}` can be read by `mov` only"))),
        }
    }

    /// The clock that the next operand names, if it does; it is taken then.
    pub(crate) fn clock(&mut self) -> Option<(Clock, Type)> {
        let Some(Operand::Name(name)) = self.peek() else { return None };
        let Some(Found::Changing(clock, ty)) = special::find(name, None) else { return None };
        self.at += 1;
        Some((clock, ty))
    }

    fn symbol_address(
        &mut self,
        name: &str,
        offset: i64,
        ty: Type,
    ) -> Result<(ConstantValue, Type)> {
        let Some(symbol) = self.body.find(name) else {
            let why = special::refusal(name).unwrap_or("is not declared");
            return Err(self.fault(format!("`{name}` {why}")));
        };
        self.address_type(name, ty)?;
        let value = match symbol {
            Symbol::Shared { address, .. } => {
                ConstantValue::Bits(address.wrapping_add(offset as u64))
            }
            Symbol::EntryParam { offset: at, .. } => {
                ConstantValue::Bits(u64::from(at).wrapping_add(offset as u64))
            }
            Symbol::Global { index, .. } => ConstantValue::Global(index, offset),
            Symbol::Function(index) if offset == 0 => ConstantValue::Function(index),
            _ => return Err(self.fault(format!("an offset may not follow `{name}`"))),
        };
        Ok((value, ty))
    }

    fn address_type(&self, name: &str, ty: Type) -> Result<()> {
        if matches!(ty.bits(), 32 | 64) && ty.kind() != Kind::Float {
            return Ok(());
        }
        Err(self.fault(format!("the address of `{name}` is not a .{}", ty.name())))
    }

    /// The bits of a literal as a value of the type.
    fn literal(&self, operand: &Operand<'s>, ty: Type) -> Result<u64> {
        let bits = ty.bits();
        match *operand {
            Operand::Int(value) if !matches!(ty.kind(), Kind::Float | Kind::Pred) => {
                if bits >= 64 {
                    return Ok(value);
                }
                let (signed, limit) = (value as i64, 1i64 << bits);
                if signed >= -(limit / 2) && signed < limit {
                    return Ok(value & (limit as u64 - 1));
                }
                Err(self.fault(format!("{signed} does not fit .{}", ty.name())))
            }
            Operand::Single(value) => match ty {
                Type::F64 => Ok(f64::from(f32::from_bits(value)).to_bits()),
                _ if bits == 32 => Ok(value.into()),
                _ => Err(self.fault(format!("a literal of 32 bits cannot be a .{}", ty.name()))),
            },
            Operand::Double(value) => match ty {
                Type::F32 => Ok((f64::from_bits(value) as f32).to_bits().into()),
                _ if bits == 64 => Ok(value),
                _ => Err(self.fault(format!("a literal of 64 bits cannot be a .{}", ty.name()))),
            },
            _ => Err(self.fault(format!("expected a value of type .{}", ty.name()))),
        }
    }

    /// A literal integer.
    pub(crate) fn integer(&mut self) -> Result<i64> {
        match *self.take()? {
            Operand::Int(value) => Ok(value as i64),
            _ => Err(self.fault("expected an integer literal")),
        }
    }

    /// How many elements a vector has that is the operand of this number, in braces or as a register.
    pub(crate) fn parts(&mut self, operand: usize) -> Option<u32> {
        match *self.ins.operands.get(operand)? {
            Operand::Vector(ref items) => Some(items.len() as u32),
            Operand::Name(name) => self.vector(name).map(|(_, count)| count),
            _ => None,
        }
    }

    /// The elements of a vector operand, or the operand itself.
    fn elements(&mut self) -> Result<Cow<'f, [Operand<'s>]>> {
        let operand = self.take()?;
        if let Operand::Name(name) = *operand
            && let Some((_, count)) = self.vector(name)
        {
            let parts = VECTOR_PARTS.iter().take(count as usize);
            return Ok(parts.map(|[part, _]| Operand::Component(name, part)).collect());
        }
        Ok(Cow::Borrowed(match operand {
            Operand::Vector(items) => items,
            single => std::slice::from_ref(single),
        }))
    }

    fn counted(&mut self, count: usize) -> Result<Cow<'f, [Operand<'s>]>> {
        let items = self.elements()?;
        if items.len() == count {
            return Ok(items);
        }
        Err(self.fault(format!("expected a vector of {count} elements, found {}", items.len())))
    }

    /// Appends the slots of a vector of `count` destinations to [`Inst::list`]; gives the type of the first.
    pub(crate) fn dst_list(&mut self, ty: Type, count: usize, wide: bool) -> Result<Type> {
        let mut list = std::mem::take(&mut self.inst.list).into_vec();
        let mut declared = None;
        for item in &*self.counted(count)? {
            let (slot, have) = self.write_slot(item, ty, wide)?;
            if declared.is_some_and(|d: Type| d.bits() != have.bits()) {
                return Err(self.fault("registers of different sizes in one vector"));
            }
            // `_` takes the size of the others.
            declared = if *item == Operand::Name("_") { declared } else { Some(have) };
            list.push(slot);
        }
        self.inst.list = list.into_boxed_slice();
        Ok(declared.unwrap_or(ty))
    }

    /// Appends the slots of a vector of `count` sources to [`Inst::list`]; gives the type of the first.
    pub(crate) fn src_list(&mut self, ty: Type, count: usize, wide: bool) -> Result<Type> {
        let mut list = std::mem::take(&mut self.inst.list).into_vec();
        let mut declared = None;
        for item in &*self.counted(count)? {
            let (slot, have) = self.source(item, ty, wide)?;
            if declared.is_some_and(|d: Type| d.class() != have.class()) {
                return Err(self.fault("registers of different sizes in one vector"));
            }
            declared = Some(have);
            list.push(slot);
        }
        self.inst.list = list.into_boxed_slice();
        Ok(declared.unwrap_or(ty))
    }

    /// An address operand: sets [`Inst::a`], [`Inst::imm`] and [`WIDE_ADDRESS`] in [`Inst::aux`].
    pub(crate) fn address(&mut self, space: Space) -> Result<Place> {
        let (slot, wide, offset, place) = self.address_parts(space)?;
        self.inst.a = slot;
        self.inst.imm = offset;
        self.inst.aux |= if wide { WIDE_ADDRESS } else { 0 };
        Ok(place)
    }

    /// Slot of the base, whether it has 64 bits, offset, and where it points.
    pub(crate) fn address_parts(&mut self, space: Space) -> Result<(u32, bool, i64, Place)> {
        let Operand::Address(base, offset) = self.take()? else {
            return Err(self.fault("expected an address in brackets"));
        };
        let name = match *base {
            Base::Absolute => {
                let slot = self.body.constant(Class::Double, ConstantValue::Bits(0));
                return Ok((slot, true, *offset, Place::Dynamic));
            }
            Base::Name(name) => name,
        };
        match self.body.find(name) {
            None => Err(self.fault(format!("`{name}` is not declared"))),
            Some(Symbol::Register(index)) => {
                let have = self.body.registers[index as usize].ty;
                if !matches!(have.bits(), 32 | 64) || have.kind() == Kind::Float {
                    return Err(self
                        .fault(format!("`{name}` is .{} and cannot be an address", have.name())));
                }
                self.reads.push(index);
                Ok((self.body.slot(index), have.bits() == 64, *offset, Place::Dynamic))
            }
            Some(symbol) => self.variable_address(name, symbol, space, *offset),
        }
    }

    fn variable_address(
        &mut self,
        name: &str,
        symbol: Symbol,
        space: Space,
        offset: i64,
    ) -> Result<(u32, bool, i64, Place)> {
        let (lives, place, value) = match symbol {
            Symbol::EntryParam { offset, .. } => {
                (Space::Param, Place::EntryParam, ConstantValue::Bits(offset.into()))
            }
            Symbol::CallParam { offset: at, .. } | Symbol::Local { offset: at, .. } => {
                let (lives, place) = match symbol {
                    Symbol::Local { .. } => (Space::Local, Place::Dynamic),
                    _ => (Space::Param, Place::CallParam),
                };
                self.lives_in(name, lives, space)?;
                let slot = self.body.local_address(Class::Double, at as i64);
                return Ok((slot, true, offset, place));
            }
            Symbol::Shared { address, .. } => {
                (Space::Shared, Place::Dynamic, ConstantValue::Bits(address))
            }
            Symbol::Global { index, constant } => {
                let space = if constant { Space::Const } else { Space::Global };
                (space, Place::Dynamic, ConstantValue::Global(index, 0))
            }
            Symbol::Register(_)
            | Symbol::Vector { .. }
            | Symbol::ModuleShared { .. }
            | Symbol::Function(_) => {
                return Err(self.fault(format!("`{name}` is not a variable")));
            }
        };
        self.lives_in(name, lives, space)?;
        Ok((self.body.constant(Class::Double, value), true, offset, place))
    }

    fn lives_in(&self, name: &str, lives: Space, wanted: Space) -> Result<()> {
        if lives == wanted || (wanted == Space::Generic && lives == Space::Global) {
            return Ok(());
        }
        let (lives, wanted) = (lives.name(), wanted.name());
        Err(self
            .fault(format!("`{name}` is in {lives} memory, but the instruction wants {wanted}")))
    }

    /// A label operand, as an index that becomes a program counter when the body is complete.
    pub(crate) fn label(&mut self) -> Result<u32> {
        let Operand::Name(name) = *self.take()? else { return Err(self.fault("expected a label")) };
        self.label_named(name)
    }

    /// As [`Form::label`], for a name from elsewhere.
    pub(crate) fn label_named(&mut self, name: &str) -> Result<u32> {
        let label = self.body.scopes.label(name);
        let label = label.ok_or_else(|| self.fault(format!("label `{name}` is not declared")))?;
        self.targets.push(label);
        Ok(label)
    }
}
