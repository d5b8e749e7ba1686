//! Calls of device functions and the way back (PTX ISA, "Control Flow Instructions: call, ret").

use std::marker::PhantomData;

use super::Lowered;
use super::control::{Branch, Exit};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Mask, Registers, Word, lanes};
use crate::exec::stack::{Frame, MAX_DEPTH};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::lower::call::{ReturnTo, Target};
use crate::lower::callee::{Callee, Span};
use crate::lower::form::Form;
use crate::lower::kernel::Kernel;
use crate::lower::symbols::Symbol;
use crate::lower::table::{Row, row};
use crate::memory::FIRST_OFFSET;
use crate::memory::region::Region;
use crate::parse::ast::Operand;
use crate::types::{Class, Type};

pub(crate) const ROWS: &[Row] =
    &[row("call[.uni] (ret), function, (params), targets", call), row("ret[.uni]", ret)];

/// Operands of `call`: results, what is called, arguments, and the prototype or the list of targets.
struct Operands<'f, 's> {
    results: &'f [Operand<'s>],
    function: &'s str,
    arguments: &'f [Operand<'s>],
    targets: Option<&'s str>,
}

fn operands<'f, 's>(f: &mut Form<'f, 's>) -> Result<Operands<'f, 's>, crate::error::Fault> {
    let group = |f: &mut Form<'f, 's>| -> Result<&'f [Operand<'s>], crate::error::Fault> {
        match f.peek() {
            Some(Operand::Group(list)) => {
                f.take()?;
                Ok(list)
            }
            _ => Ok(&[]),
        }
    };
    let results = group(f)?;
    let Operand::Name(function) = *f.take()? else {
        return Err(f.fault("expected the function to call"));
    };
    let arguments = group(f)?;
    let targets = match f.peek() {
        Some(&Operand::Name(name)) => {
            f.take()?;
            Some(name)
        }
        _ => None,
    };
    f.finish()?;
    Ok(Operands { results, function, arguments, targets })
}

fn call(f: &mut Form<'_, '_>) -> Lowered {
    let Operands { results, function, arguments, targets } = operands(f)?;
    if let Some(Symbol::Register(_)) = f.body.find(function) {
        return indirect(f, &Operands { results, function, arguments, targets });
    }
    let ins = f.ins;
    match f.body.call(ins, function, results, arguments)? {
        Target::InPlace => {
            f.skip = true;
            Ok(())
        }
        Target::Callee(callee) => {
            f.inst.aux = callee;
            passed(f, results, arguments)?;
            f.run::<Call>()
        }
        Target::Runtime(function) => {
            passed(f, results, arguments)?;
            function.lower(f)
        }
    }
}

/// Appends address slot and size of each result and argument to [`Inst::list`]; their number goes to [`Inst::b`].
fn passed<'s>(f: &mut Form<'_, 's>, results: &[Operand<'s>], arguments: &[Operand<'s>]) -> Lowered {
    let mut list = Vec::new();
    for actual in results.iter().chain(arguments) {
        let ins = f.ins;
        let (Symbol::CallParam { offset, bytes }, _) = f.body.param_variable(ins, actual)? else {
            return Err(f.fault("expected a `.param` variable"));
        };
        list.extend([f.body.local_address(Class::Double, offset as i64), bytes as u32]);
    }
    f.inst.b = results.len() as u32;
    f.inst.list = list.into_boxed_slice();
    Ok(())
}

fn indirect<'s>(f: &mut Form<'_, 's>, operands: &Operands<'_, 's>) -> Lowered {
    let Some(name) = operands.targets else {
        return Err(f.fault("an indirect call needs a `.callprototype` or a `.calltargets`"));
    };
    if !f.body.scopes.has_prototype(name) {
        return Err(
            f.fault(format!("`{name}` is neither a call prototype nor a list of call targets"))
        );
    }
    let line = f.ins.line;
    f.body.taken_callees(line)?;
    let register = Operand::Name(operands.function);
    f.inst.a = f.source_of(&register, Type::B64)?;
    passed(f, operands.results, operands.arguments)?;
    f.run::<CallIndirect>()
}

/// In an entry the end of the thread, in a device function the way back.
fn ret(f: &mut Form<'_, '_>) -> Lowered {
    f.falls = false;
    match f.body.return_to() {
        ReturnTo::Nobody => f.run::<Exit>(),
        ReturnTo::Label(label) => {
            f.targets.push(label);
            f.run::<Branch>()
        }
        ReturnTo::Caller => f.run::<Return>(),
    }
}

/// A value that a call passes in a register.
pub(crate) struct Copy<T>(PhantomData<T>);

impl<T: Word> Exec for Copy<T> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let value = *T::read(&warp.regs, inst.a);
        warp.regs.write(inst.d, mask, &value);
        Flow::Next
    }
}

/// Why a call cannot be made.
type Refused = (FindingKind, String);

/// Calls the function with number [`Inst::aux`].
struct Call;

impl Exec for Call {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let kernel = env.launch.kernel;
        let callee = &kernel.callees[inst.aux as usize];
        for lane in lanes(mask) {
            if let Err((kind, message)) = enter(warp, inst, lane, inst.aux, kernel) {
                return env.fault(kind, lane, message);
            }
            env.targets.0[lane] = callee.entry;
        }
        Flow::Call
    }
}

/// Calls the function whose address is in register [`Inst::a`], lane by lane.
struct CallIndirect;

impl Exec for CallIndirect {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let kernel = env.launch.kernel;
        for lane in lanes(mask) {
            let address = warp.regs.doubles[inst.a as usize].0[lane];
            let Some(index) = kernel.callees.iter().position(|c| c.address == address) else {
                let message =
                    format!("call of {address:#x}, which is not the address of a function");
                return env.fault(FindingKind::Operand, lane, message);
            };
            let callee = &kernel.callees[index];
            let entered = signature(inst, callee)
                .and_then(|()| enter(warp, inst, lane, index as u32, kernel));
            if let Err((kind, message)) = entered {
                return env.fault(kind, lane, message);
            }
            env.targets.0[lane] = callee.entry;
        }
        Flow::Call
    }
}

/// Slot of the address and size of each variable that a call passes: results, then arguments.
pub(super) fn passed_by(
    inst: &Inst,
) -> (impl Iterator<Item = (u32, u64)> + '_, impl Iterator<Item = (u32, u64)> + '_) {
    let (results, arguments) = inst.list.split_at(2 * inst.b as usize);
    let pair = |p: &[u32]| (p[0], u64::from(p[1]));
    (results.chunks_exact(2).map(pair), arguments.chunks_exact(2).map(pair))
}

/// Compares what an indirect call passes with what the function takes.
fn signature(inst: &Inst, callee: &Callee) -> Result<(), Refused> {
    let (results, arguments) = passed_by(inst);
    let bytes = |spans: &[Span]| spans.iter().map(|s| s.bytes).collect::<Vec<_>>();
    let given =
        (results.map(|r| r.1).collect::<Vec<_>>(), arguments.map(|a| a.1).collect::<Vec<_>>());
    let taken = (bytes(&callee.results), bytes(&callee.params));
    if given == taken {
        return Ok(());
    }
    let message = format!(
        "`{}` returns {:?} bytes for {:?}, and is called for {:?} with {:?}",
        callee.name, taken.0, taken.1, given.0, given.1
    );
    Err((FindingKind::Operand, message))
}

/// The local memory of one lane.
struct LaneMemory<'w> {
    region: &'w Region,
    start: usize,
    bytes: u64,
}

impl<'w> LaneMemory<'w> {
    fn new(region: &'w Region, lane: usize) -> Self {
        let bytes = region.bytes / LANES as u64;
        LaneMemory { region, start: lane * bytes as usize, bytes }
    }

    /// Copies bytes and whether they were written. Both ranges lie inside, because lowering made them.
    fn copy(&self, from: u64, to: u64, bytes: u64) {
        for at in 0..bytes as usize {
            let (from, to) = (self.start + from as usize + at, self.start + to as usize + at);
            self.region.data.store::<u8>(to, self.region.data.load(from));
            self.region.shadow.store::<u8>(to, self.region.shadow.load(from));
        }
    }
}

/// Makes a frame for a lane and copies the arguments into it.
fn enter(
    warp: &mut Warp,
    inst: &Inst,
    lane: usize,
    index: u32,
    kernel: &Kernel,
) -> Result<(), Refused> {
    let callee = &kernel.callees[index as usize];
    let Warp { regs, written, whole, stack: Some(stack), local: Some(local), .. } = warp else {
        return Err((FindingKind::StackOverflow, "the kernel has no stack".into()));
    };
    let stack = &mut stack.lanes[lane];
    let memory = LaneMemory::new(local, lane);
    let base = stack.top;
    let left = memory.bytes.saturating_sub(base);
    if stack.frames.len() >= MAX_DEPTH || left < callee.frame_bytes {
        let (depth, needs) = (stack.frames.len(), callee.frame_bytes);
        let message = format!(
            "call of `{}` at depth {depth} needs {needs} bytes, and its stack has {left} of {} left",
            callee.name,
            memory.bytes - kernel.stack_bottom
        );
        return Err((FindingKind::StackOverflow, message));
    }
    memory.region.mark(memory.start + base as usize, callee.frame_bytes as usize, 0, u8::MAX);
    for ((slot, bytes), param) in passed_by(inst).1.zip(&callee.params) {
        let from = regs.doubles[slot as usize].0[lane] - FIRST_OFFSET;
        memory.copy(from, base + param.offset, bytes);
    }
    let end = base + callee.frame_bytes;
    let frame = Frame { callee: index, site: inst.site, base, end, kept: stack.kept.len() };
    if callee.recursive {
        keep(callee, regs, written, lane, &mut stack.kept);
    }
    for &register in &callee.tracked {
        written[register as usize] &= !(1 << lane);
        whole.set(register, false);
    }
    for &(class, slot, offset) in &callee.addresses {
        regs.set_lane(class, slot, lane, (FIRST_OFFSET + base).wrapping_add(offset as u64));
    }
    stack.frames.push(frame);
    stack.top = end;
    Ok(())
}

/// The registers of a function: class and slot, addresses in its frame among them.
fn registers(callee: &Callee) -> impl Iterator<Item = (Class, u32)> {
    let classes = [Class::Word, Class::Double, Class::Pred];
    let own = classes
        .into_iter()
        .zip(&callee.registers)
        .flat_map(|(c, slots)| slots.iter().map(move |&s| (c, s)));
    own.chain(callee.addresses.iter().map(|&(class, slot, _)| (class, slot)))
}

fn keep(callee: &Callee, regs: &Registers, written: &[Mask], lane: usize, kept: &mut Vec<u64>) {
    kept.extend(registers(callee).map(|(class, slot)| regs.lane(class, slot, lane)));
    kept.extend(callee.tracked.iter().map(|&r| u64::from(written[r as usize] >> lane & 1)));
}

/// Puts back what [`keep`] has put away.
fn restore(callee: &Callee, regs: &mut Registers, written: &mut [Mask], lane: usize, kept: &[u64]) {
    let mut kept = kept.iter().copied();
    for ((class, slot), value) in registers(callee).zip(&mut kept) {
        regs.set_lane(class, slot, lane, value);
    }
    for (&register, value) in callee.tracked.iter().zip(&mut kept) {
        let bit = 1 << lane;
        let word = &mut written[register as usize];
        *word = if value != 0 { *word | bit } else { *word & !bit };
    }
}

/// Ends a call of each lane and copies its results out of the frame.
struct Return;

impl Exec for Return {
    fn exec(warp: &mut Warp, _: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let kernel = env.launch.kernel;
        for lane in lanes(mask) {
            let Some(site) = leave(warp, lane, kernel) else {
                return env.fault(FindingKind::StackOverflow, lane, "return without a call");
            };
            env.targets.0[lane] = site + 1;
        }
        Flow::Return
    }
}

fn leave(warp: &mut Warp, lane: usize, kernel: &Kernel) -> Option<u32> {
    let Warp { regs, written, whole, stack: Some(stack), local: Some(local), .. } = warp else {
        return None;
    };
    let stack = &mut stack.lanes[lane];
    let frame = stack.frames.pop()?;
    let callee = &kernel.callees[frame.callee as usize];
    if callee.recursive {
        restore(callee, regs, written, lane, &stack.kept[frame.kept..]);
        callee.tracked.iter().for_each(|&register| whole.set(register, false));
        stack.kept.truncate(frame.kept);
    }
    stack.top = frame.base;
    let memory = LaneMemory::new(local, lane);
    for ((slot, bytes), result) in
        passed_by(&kernel.code[frame.site as usize]).0.zip(&callee.results)
    {
        let to = regs.doubles[slot as usize].0[lane] - FIRST_OFFSET;
        memory.copy(frame.base + result.offset, to, bytes);
    }
    Some(frame.site)
}
