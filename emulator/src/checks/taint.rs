//! Values that come from shared or local memory which nobody has written.
//!
//! Kernels load whole tiles and discard what lies beyond the end, so that such a load alone is no fault. A warp
//! that makes one notes the lanes of the registers that have got undefined values, follows these through
//! arithmetic, shuffles and matrix products, and reports the load once one of them decides something: an address,
//! a branch, what global memory holds, an atomic operation, a barrier. Stored to shared or local memory, an undefined value
//! leaves the bytes as good as unwritten.
//!
//! A register is followed as a whole, lane by lane: half of it being undefined makes it undefined, until an instruction of
//! [`Passage::Tried`] takes the other half out. A warp without undefined values pays nothing for this.

use crate::exec::env::Env;
use crate::exec::inst::Flow;
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Registers};
use crate::exec::warp::Warp;
use crate::finding::{FindingKind, Report};
use crate::lower::flow::{Passage, Slot};
use crate::lower::form::WIDE_ADDRESS;
use crate::memory::FIRST_OFFSET;
use crate::memory::access::{Memory, Refused, Resolve, explain};
use crate::memory::region::INIT;
use crate::types::Class;

/// Values that a register is tried with, in pairs that differ in every bit.
const TRIALS: usize = 4;
/// Half of it is a positive number in every format of a matrix product, so that sums of products of it cannot cancel.
const POSITIVE: u64 = 0x3c3c_3c3c_3c3c_3c3c;

/// A load of undefined bytes.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) pc: u32,
    pub(crate) lane: usize,
    pub(crate) address: u64,
    pub(crate) message: String,
}

/// Undefined lanes of a register, and the index of the load that made one of them so.
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    lanes: Mask,
    origin: u32,
}

/// What the instruction about to run does to the marks of the registers that it writes.
#[derive(Debug, Default)]
enum Pending {
    /// Nothing, or it has been done.
    #[default]
    Done,
    /// Sets them to this.
    Set(Mark),
    /// Has them found out by running it again on these operands. Lanes of the second mark stay undefined in any case.
    Try { operands: Vec<(Slot, Value, Mark)>, guard: Mark },
}

/// The content of a register.
#[derive(Debug, Clone, Copy)]
enum Value {
    Word(Lanes<u32>),
    Double(Lanes<u64>),
    Pred(Mask),
}

/// The undefined values of a warp.
#[derive(Debug, Default)]
pub(crate) struct Taint {
    marks: [Vec<Mark>; 3],
    /// Registers with undefined lanes.
    marked: usize,
    origins: Vec<Origin>,
    pending: Pending,
}

fn index(class: Class) -> usize {
    match class {
        Class::Word => 0,
        Class::Double => 1,
        Class::Pred => 2,
    }
}

impl Taint {
    fn mark(&self, slot: Slot) -> Mark {
        self.marks[index(slot.class())].get(slot.index() as usize).copied().unwrap_or_default()
    }

    /// Marks in the lanes of `written` those of `mark`, and takes the mark from the others of them.
    fn set(&mut self, slot: Slot, written: Mask, mark: Mark) {
        let marks = &mut self.marks[index(slot.class())];
        let slot = slot.index() as usize;
        if slot >= marks.len() {
            if mark.lanes & written == 0 {
                return;
            }
            marks.resize(slot + 1, Mark::default());
        }
        let had = marks[slot].lanes;
        let lanes = (had & !written) | (mark.lanes & written);
        let origin = if mark.lanes & written != 0 { mark.origin } else { marks[slot].origin };
        marks[slot] = Mark { lanes, origin };
        self.marked = self.marked + usize::from(lanes != 0) - usize::from(had != 0);
    }

    /// The lanes of `among` in which any of these registers is undefined.
    fn union(&self, slots: &[Slot], among: Mask) -> Mark {
        slots.iter().fold(Mark::default(), |sum, &slot| sum.with(self.mark(slot), among))
    }

    /// Undefined lanes of a register.
    pub(crate) fn lanes(&self, slot: Slot) -> Mask {
        self.mark(slot).lanes
    }

    fn origin(&mut self, origin: Origin) -> u32 {
        let known = self.origins.iter().position(|o| o.pc == origin.pc);
        known.unwrap_or_else(|| {
            self.origins.push(origin);
            self.origins.len() - 1
        }) as u32
    }
}

impl Mark {
    fn with(self, other: Mark, among: Mask) -> Mark {
        let lanes = other.lanes & among;
        Mark {
            lanes: self.lanes | lanes,
            origin: if lanes != 0 { other.origin } else { self.origin },
        }
    }
}

/// Notes that a load has given `lanes` of these registers undefined values. `refused` is how it would be refused if it
/// had to be defined.
pub(crate) fn loaded<R: Resolve>(
    warp: &mut Warp,
    env: &Env<'_>,
    pc: u32,
    refused: Refused,
    registers: impl Iterator<Item = (Slot, Mask)>,
) {
    let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
    let (_, message) = explain::<R>(&memory, refused);
    let Refused { lane, address, .. } = refused;
    let taint = warp.taint.get_or_insert_default();
    let origin = taint.origin(Origin { pc, lane, address, message });
    for (slot, lanes) in registers {
        taint.set(slot, lanes, Mark { lanes, origin });
    }
}

/// Looks at an instruction before it runs. `mask` are the lanes that execute it, of the `active` ones that have come to it.
/// An error if an undefined value decides something here; the report is in the environment then.
#[cold]
#[inline(never)]
pub(crate) fn before(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    active: Mask,
    mask: Mask,
) -> Result<(), ()> {
    let kernel = env.launch.kernel;
    let step = kernel.flow.step(pc);
    let inst = &kernel.code[pc as usize];
    let Warp { regs, taint: Some(taint), .. } = warp else { return Ok(()) };
    let guard = step.guard.map_or(Mark::default(), |g| taint.union(&[g], active));
    if guard.lanes != 0 && !step.passage.is_plain() {
        blame(taint, env, guard, pc, "decides whether it runs");
        return Err(());
    }
    let operands = match step.passage {
        Passage::Load | Passage::Store => {
            let class = if inst.aux & WIDE_ADDRESS != 0 { Class::Double } else { Class::Word };
            taint.union(&[Slot::new(class, inst.a)], mask)
        }
        _ => taint.union(step.reads, mask),
    };
    if operands.lanes != 0 {
        match step.passage {
            Passage::Load | Passage::Store => {
                blame(taint, env, operands, pc, "is its address");
                return Err(());
            }
            Passage::Defined => {
                blame(taint, env, operands, pc, "is its operand");
                return Err(());
            }
            _ => {}
        }
    }
    taint.pending = match step.passage {
        Passage::Load | Passage::Store | Passage::Defined => {
            step.writes.iter().for_each(|&w| taint.set(w, mask, Mark::default()));
            Pending::Done
        }
        Passage::Across if operands.lanes != 0 => Pending::Set(Mark { lanes: ALL, ..operands }),
        Passage::Tried | Passage::Product if operands.lanes != 0 => {
            let value = |slot: &Slot| (*slot, read(regs, *slot), taint.mark(*slot));
            Pending::Try { operands: step.reads.iter().map(value).collect(), guard }
        }
        _ => Pending::Set(operands.with(guard, active)),
    };
    // Lanes whose undefined guard keeps them from executing are undefined all the same.
    step.writes.iter().for_each(|&w| {
        let left = guard.lanes & !mask;
        taint.set(w, left, Mark { lanes: left, ..guard });
    });
    Ok(())
}

/// Marks what an instruction has written in the lanes of `mask`.
#[cold]
#[inline(never)]
pub(crate) fn after(warp: &mut Warp, env: &mut Env<'_>, pc: u32, mask: Mask) {
    let Some(taint) = &mut warp.taint else { return };
    let step = env.launch.kernel.flow.step(pc);
    match std::mem::take(&mut taint.pending) {
        Pending::Done => {}
        Pending::Set(mark) => step.writes.iter().for_each(|&w| taint.set(w, mask, mark)),
        Pending::Try { operands, guard } => {
            let marks = tried(warp, env, pc, mask, &operands);
            if let Some(taint) = &mut warp.taint {
                for (&slot, mark) in step.writes.iter().zip(marks) {
                    taint.set(slot, mask, mark.with(guard, mask));
                }
            }
        }
    }
    if warp.taint.as_ref().is_some_and(|taint| taint.marked == 0) {
        warp.taint = None;
    }
}

/// Finds which results depend on undefined operands, by running the instruction again with other values for them.
fn tried(
    warp: &mut Warp,
    env: &mut Env<'_>,
    pc: u32,
    mask: Mask,
    operands: &[(Slot, Value, Mark)],
) -> Vec<Mark> {
    let kernel = env.launch.kernel;
    let (step, inst) = (kernel.flow.step(pc), &kernel.code[pc as usize]);
    let registers = &mut warp.regs;
    let results: Vec<_> = step.writes.iter().map(|&w| (w, read(registers, w))).collect();
    let origin = operands.iter().find(|o| o.2.lanes != 0).map_or(0, |o| o.2.origin);
    let (undefined, carry) = (env.undefined, warp.carry);
    let mut marks = vec![Mark { lanes: 0, origin }; results.len()];
    let mut first: Vec<Value> = Vec::new();
    let trials = if step.passage == Passage::Product { 2 } else { TRIALS };
    for trial in 0..trials {
        let mut number = 0;
        for (slot, value, mark) in operands {
            let tried = if step.passage == Passage::Product {
                value.filled(ALL, POSITIVE).filled(if trial == 0 { 0 } else { mark.lanes }, 0)
            } else {
                number += usize::from(mark.lanes != 0);
                value.filled(mark.lanes, pattern(number, trial))
            };
            write(&mut warp.regs, *slot, tried);
        }
        let flow = inst.execute(warp, mask, env);
        let got: Vec<Value> = step.writes.iter().map(|&w| read(&warp.regs, w)).collect();
        for (index, mark) in marks.iter_mut().enumerate() {
            if flow != Flow::Next {
                mark.lanes = mask;
            } else if let Some(first) = first.get(index) {
                mark.lanes |= first.differs(&got[index]) & mask;
            }
        }
        if trial == 0 {
            first = got;
        }
    }
    operands.iter().for_each(|(slot, value, _)| write(&mut warp.regs, *slot, *value));
    results.iter().for_each(|(slot, value)| write(&mut warp.regs, *slot, *value));
    (env.undefined, warp.carry) = (undefined, carry);
    env.report = None;
    marks
}

/// What the `number`th undefined operand is in a trial: any two of them take all four pairs of bits at every slot.
fn pattern(number: usize, trial: usize) -> u64 {
    let bits = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * number as u64 + 1);
    let bits = bits ^ bits >> 29;
    if trial >> (number & 1) & 1 == 0 { bits } else { !bits }
}

impl Value {
    /// With `bits` in these lanes.
    fn filled(mut self, lanes: Mask, bits: u64) -> Value {
        let inside = |lane: usize| lanes >> lane & 1 != 0;
        match &mut self {
            Value::Word(words) => {
                (0..LANES).filter(|&l| inside(l)).for_each(|l| words.0[l] = bits as u32)
            }
            Value::Double(words) => {
                (0..LANES).filter(|&l| inside(l)).for_each(|l| words.0[l] = bits)
            }
            Value::Pred(mask) => *mask = *mask & !lanes | if bits & 1 != 0 { lanes } else { 0 },
        }
        self
    }

    /// Lanes in which the two differ.
    fn differs(&self, other: &Value) -> Mask {
        let all = |differ: &dyn Fn(usize) -> bool| {
            (0..LANES).fold(0, |m, lane| m | u32::from(differ(lane)) << lane)
        };
        match (self, other) {
            (Value::Word(a), Value::Word(b)) => all(&|l| a.0[l] != b.0[l]),
            (Value::Double(a), Value::Double(b)) => all(&|l| a.0[l] != b.0[l]),
            (Value::Pred(a), Value::Pred(b)) => a ^ b,
            _ => ALL,
        }
    }
}

fn read(regs: &Registers, slot: Slot) -> Value {
    let index = slot.index() as usize;
    match slot.class() {
        Class::Word => Value::Word(regs.words[index]),
        Class::Double => Value::Double(regs.doubles[index]),
        Class::Pred => Value::Pred(regs.preds[index]),
    }
}

fn write(regs: &mut Registers, slot: Slot, value: Value) {
    let index = slot.index() as usize;
    match value {
        Value::Word(words) => regs.words[index] = words,
        Value::Double(words) => regs.doubles[index] = words,
        Value::Pred(mask) => regs.preds[index] = mask,
    }
}

/// Reports the load that an undefined value came from, and what it decides.
fn blame(taint: &Taint, env: &mut Env<'_>, mark: Mark, pc: u32, what: &str) -> Flow {
    let Origin { pc: load, lane, address, message } = taint.origins[mark.origin as usize].clone();
    let user = mark.lanes.trailing_zeros();
    let note = format!("lane {user} needs the value here: it {what}");
    env.blamed = Some(load);
    env.report(Report {
        kind: FindingKind::UninitialisedMemory,
        lane,
        message,
        address: Some(address),
        notes: vec![(Some(pc), note)],
    })
}

/// Forgets that anything was written to `bytes` at the addresses of `lanes`, because what was stored there came from the
/// undefined lanes of `slot`; in global memory that is a finding.
pub(crate) fn stored<R: Resolve>(
    warp: &Warp,
    env: &mut Env<'_>,
    pc: u32,
    (slot, lanes): (Slot, Mask),
    addresses: &Lanes<u64>,
    bytes: usize,
) -> Flow {
    let Some(taint) = &warp.taint else { return Flow::Next };
    let mark = Mark { lanes, ..taint.mark(slot) };
    if lanes == 0 {
        return Flow::Next;
    }
    let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
    let mut leaked = false;
    for lane in crate::exec::lanes::lanes(mark.lanes) {
        let found = R::find(&memory, &mut 0, lane, addresses.0[lane], bytes as u64);
        let Some((region, offset)) = found else { continue };
        match region.base {
            FIRST_OFFSET => region.mark(offset, bytes, 0, INIT),
            _ => leaked = true,
        }
    }
    if leaked { blame(taint, env, mark, pc, "is stored to global memory") } else { Flow::Next }
}
