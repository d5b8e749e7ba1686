//! Values that come from shared or local memory, or from registers, which nobody has written.
//!
//! Kernels load whole tiles and discard what lies beyond the end, and shuffle and store what only some lanes have, so that to
//! read such a value alone is no fault. A warp that does it notes the lanes of the registers that have got undefined values, follows these through
//! arithmetic, shuffles and matrix products, and reports the load once one of them decides something: an address,
//! a branch, an output, an atomic operation, a barrier. Stored to other memory, an undefined value leaves the bytes as good as
//! unwritten.
//!
//! Undefined bits are followed one by one through moves, selections, shuffles and bit operations: which bits of the result
//! depend on them is found by running the instruction again with other values for them. Arithmetic makes the whole result of
//! a lane undefined. A branch that an undefined value decides is no finding if it only goes around such instructions
//! ([`crate::checks::detours`]). A warp without undefined values pays nothing for this.

use std::collections::HashMap;

use crate::checks::access::explain;
use crate::checks::detours::Detour;
use crate::checks::outputs::may_be_undefined;
use crate::exec::env::Env;
use crate::exec::inst::{Flow, Inst};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Registers, lanes};
use crate::exec::warp::Warp;
use crate::finding::{FindingKind, Report};
use crate::lower::flow::{Passage, Slot};
use crate::lower::form::WIDE_ADDRESS;
use crate::memory::FIRST_OFFSET;
use crate::memory::access::{Memory, Refused, Resolve};
use crate::memory::region::{INIT, UNDEFINED};
use crate::types::Class;

/// Values that undefined bits are tried with, in pairs that differ in every bit.
const TRIALS: usize = 4;
/// Half of it is a positive number in every format of a matrix product, so that sums of products of it cannot cancel.
const POSITIVE: u64 = 0x3c3c_3c3c_3c3c_3c3c;

/// A load of undefined bytes, or a read of an undefined register.
#[derive(Debug, Clone)]
struct Origin {
    pc: u32,
    kind: FindingKind,
    lane: usize,
    address: Option<u64>,
    message: String,
}

/// Undefined bits of a register, and the index of the load that made some of them so.
#[derive(Debug, Clone)]
struct Mark {
    bits: Lanes<u64>,
    origin: u32,
}

/// Lanes in which something is undefined, and the index of a load that made it so.
#[derive(Debug, Clone, Copy, Default)]
struct Undefined {
    lanes: Mask,
    origin: u32,
}

/// What the instruction about to run does to the marks of the registers that it writes.
#[derive(Debug, Default)]
enum Pending {
    /// Nothing, or it has been done.
    #[default]
    Done,
    /// Makes them undefined in these lanes.
    Set(Undefined),
    /// Makes these bits undefined, on account of a load.
    Bits(Box<Lanes<u64>>, u32),
    /// Has them found out by running it again on these operands. The lanes of the second are undefined in any case.
    Try { operands: Vec<Operand>, guard: Undefined },
}

/// A register that an instruction reads, with what it held before and which bits of that are undefined.
#[derive(Debug)]
struct Operand {
    slot: Slot,
    value: Value,
    bits: Option<Lanes<u64>>,
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
    marks: HashMap<Slot, Mark>,
    origins: Vec<Origin>,
    pending: Pending,
    /// Lanes that an undefined value has sent one way or another.
    detours: Vec<Detour>,
}

impl Taint {
    /// Makes these bits undefined in the lanes of `written`, and all others of these lanes defined.
    fn set(&mut self, slot: Slot, written: Mask, bits: &Lanes<u64>, origin: u32) {
        let undefined = lanes(written).any(|lane| bits.0[lane] != 0);
        if !undefined && !self.marks.contains_key(&slot) {
            return;
        }
        let mark =
            self.marks.entry(slot).or_insert_with(|| Mark { bits: Lanes::default(), origin });
        lanes(written).for_each(|lane| mark.bits.0[lane] = bits.0[lane]);
        if undefined {
            mark.origin = origin;
        } else if mark.bits.0 == [0; LANES] {
            self.marks.remove(&slot);
        }
    }

    /// As [`Taint::set`], whole lanes.
    fn set_lanes(&mut self, slot: Slot, written: Mask, undefined: Undefined) {
        let whole = |lane: usize| if undefined.lanes >> lane & 1 != 0 { u64::MAX } else { 0 };
        self.set(slot, written, &Lanes(std::array::from_fn(whole)), undefined.origin);
    }

    /// The lanes of `among` in which any of these registers has undefined bits.
    fn union(&self, slots: &[Slot], among: Mask) -> Undefined {
        let marks = slots.iter().filter_map(|slot| self.marks.get(slot));
        marks.fold(Undefined::default(), |sum, mark| sum.with(mark.undefined(), among))
    }

    /// Lanes with undefined bits in any of these registers, and those that an undefined value has sent where they are.
    pub(crate) fn lanes(&self, slots: impl Iterator<Item = Slot>) -> Mask {
        let marks = slots.filter_map(|slot| self.marks.get(&slot));
        marks.fold(self.sent(), |lanes, mark| lanes | some(&mark.bits))
    }

    /// Lanes that an undefined value has sent where they are.
    fn sent(&self) -> Mask {
        self.detours.iter().fold(0, |lanes, detour| lanes | detour.lanes)
    }

    /// Bits of a register that are undefined where they are stored.
    pub(crate) fn stored(&self, slot: Slot) -> Lanes<u64> {
        let mut bits = self.bits(slot);
        lanes(self.sent()).for_each(|lane| bits.0[lane] = u64::MAX);
        bits
    }

    /// Undefined bits of a register.
    pub(crate) fn bits(&self, slot: Slot) -> Lanes<u64> {
        self.marks.get(&slot).map_or_else(Lanes::default, |mark| mark.bits)
    }

    /// Makes undefined what lanes that come to the end of a detour may have written there.
    fn arrive(&mut self, pc: u32, active: Mask) {
        if self.detours.is_empty() {
            return;
        }
        let mut detours = std::mem::take(&mut self.detours);
        for detour in &mut detours {
            let lanes = detour.arrived(pc, active);
            let undefined = Undefined { lanes, origin: detour.origin };
            detour.writes.iter().for_each(|&slot| self.set_lanes(slot, lanes, undefined));
        }
        detours.retain(|detour| detour.lanes != 0);
        self.detours = detours;
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
    fn undefined(&self) -> Undefined {
        Undefined { lanes: some(&self.bits), origin: self.origin }
    }
}

impl Undefined {
    fn with(self, other: Undefined, among: Mask) -> Undefined {
        let lanes = other.lanes & among;
        Undefined {
            lanes: self.lanes | lanes,
            origin: if lanes != 0 { other.origin } else { self.origin },
        }
    }
}

/// Lanes with any of these bits.
fn some(bits: &Lanes<u64>) -> Mask {
    (0..LANES).fold(0, |mask, lane| mask | u32::from(bits.0[lane] != 0) << lane)
}

/// Notes which bits of these registers a load has left undefined, in the lanes of `mask`. `refused` is how it would be
/// refused if everything had to be defined.
pub(crate) fn loaded<R: Resolve>(
    warp: &mut Warp,
    env: &Env<'_>,
    pc: u32,
    mask: Mask,
    refused: Refused,
    registers: impl Iterator<Item = (Slot, Lanes<u64>)>,
) {
    let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
    let (_, message) = explain::<R>(&memory, refused);
    let Refused { lane, address, .. } = refused;
    let taint = warp.taint.get_or_insert_default();
    let (kind, address) = (FindingKind::UninitialisedMemory, Some(address));
    let origin = taint.origin(Origin { pc, kind, lane, address, message });
    for (slot, bits) in registers {
        taint.set(slot, mask, &bits, origin);
    }
}

/// Notes that an instruction reads a register in lanes that have never written it, if that is no fault by itself.
#[cold]
#[inline(never)]
pub(crate) fn unwritten(
    warp: &mut Warp,
    env: &Env<'_>,
    pc: u32,
    (slot, lanes): (Slot, Mask),
    message: &str,
) -> bool {
    let kernel = env.launch.kernel;
    let inst = &kernel.code[pc as usize];
    let harmless = match kernel.flow.step(pc).passage {
        Passage::Defined => false,
        Passage::Load => false,
        Passage::Store | Passage::StoreInside | Passage::Atomic => slot != address_slot(inst),
        _ => true,
    };
    if harmless {
        let taint = warp.taint.get_or_insert_default();
        let (kind, lane) = (FindingKind::UninitialisedRegister, lanes.trailing_zeros() as usize);
        let origin = Origin { pc, kind, lane, address: None, message: message.to_owned() };
        let origin = taint.origin(origin);
        taint.set_lanes(slot, lanes, Undefined { lanes, origin });
    }
    harmless
}

/// The register with the address of a load or store.
fn address_slot(inst: &Inst) -> Slot {
    let class = if inst.aux & WIDE_ADDRESS != 0 { Class::Double } else { Class::Word };
    Slot::new(class, inst.a)
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
    taint.arrive(pc, active);
    let guard = step.guard.map_or(Undefined::default(), |g| taint.union(&[g], active));
    if guard.lanes != 0 && !step.passage.is_plain() {
        let branch = step.passage == Passage::Branch;
        let covered = branch && taint.detours.iter().any(|d| d.covers(pc, guard.lanes));
        match branch.then(|| Detour::new(kernel, pc, guard.lanes, guard.origin)).flatten() {
            _ if covered => {}
            Some(detour) => taint.detours.push(detour),
            None => {
                blame(taint, env, guard, pc, "decides whether it runs");
                return Err(());
            }
        }
    }
    let operands = match step.passage {
        Passage::Load | Passage::Store | Passage::StoreInside | Passage::Atomic => {
            taint.union(&[address_slot(inst)], mask)
        }
        _ => taint.union(step.reads, mask),
    };
    if operands.lanes != 0 {
        match step.passage {
            Passage::Load | Passage::Store | Passage::StoreInside | Passage::Atomic => {
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
        Passage::Load
        | Passage::Store
        | Passage::StoreInside
        | Passage::Atomic
        | Passage::Branch
        | Passage::Defined => {
            step.writes.iter().for_each(|&w| taint.set_lanes(w, mask, Undefined::default()));
            Pending::Done
        }
        Passage::Across if operands.lanes != 0 => {
            Pending::Set(Undefined { lanes: ALL, ..operands })
        }
        Passage::Halves | Passage::Pair(_) if operands.lanes != 0 && guard.lanes & mask == 0 => {
            let bits = |&slot: &Slot| taint.bits(slot);
            let reads: Vec<_> = step.reads.iter().map(bits).collect();
            Pending::Bits(Box::new(in_parts(step.passage, &reads)), operands.origin)
        }
        Passage::Tried | Passage::Product if operands.lanes != 0 => {
            let operand = |&slot: &Slot| {
                let bits = taint.marks.get(&slot).map(|mark| mark.bits);
                Operand { slot, value: read(regs, slot), bits }
            };
            Pending::Try { operands: step.reads.iter().map(operand).collect(), guard }
        }
        _ => Pending::Set(operands.with(guard, mask)),
    };
    // Lanes whose undefined guard keeps them from executing are undefined all the same.
    step.writes.iter().for_each(|&w| taint.set_lanes(w, guard.lanes & !mask, guard));
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
        Pending::Set(undefined) => {
            step.writes.iter().for_each(|&w| taint.set_lanes(w, mask, undefined));
        }
        Pending::Bits(bits, origin) => {
            step.writes.iter().for_each(|&w| taint.set(w, mask, &bits, origin));
        }
        Pending::Try { operands, guard } => {
            let origin = taint.union(step.reads, ALL).origin;
            let results = tried(warp, env, (pc, mask), &operands);
            if let Some(taint) = &mut warp.taint {
                for (&slot, bits) in step.writes.iter().zip(&results) {
                    taint.set(slot, mask, bits, origin);
                    taint.set_lanes(slot, mask & guard.lanes, guard);
                }
            }
        }
    }
    if warp.taint.as_ref().is_some_and(|t| t.marks.is_empty() && t.detours.is_empty()) {
        warp.taint = None;
    }
}

/// The undefined bits of a result of which each part depends on a part of the operands, or on one of them.
fn in_parts(passage: Passage, reads: &[Lanes<u64>]) -> Lanes<u64> {
    let mut out = Lanes::default();
    for lane in 0..LANES {
        let part = |undefined: bool, bits: u64| if undefined { bits } else { 0 };
        let all = reads.iter().fold(0, |all, bits| all | bits.0[lane]);
        out.0[lane] = match (passage, reads) {
            (Passage::Pair(width), [upper, lower]) => {
                let low = (1 << width) - 1;
                part(upper.0[lane] != 0, low << width) | part(lower.0[lane] != 0, low)
            }
            (Passage::Halves, _) => {
                part(all & 0xffff != 0, 0xffff) | part(all >> 16 != 0, 0xffff_0000)
            }
            _ => part(all != 0, u64::MAX),
        };
    }
    out
}

/// Finds which bits of the results depend on undefined operands, by running the instruction again, in the lanes of `mask`, with
/// other values for them.
fn tried(
    warp: &mut Warp,
    env: &mut Env<'_>,
    (pc, mask): (u32, Mask),
    operands: &[Operand],
) -> Vec<Lanes<u64>> {
    let kernel = env.launch.kernel;
    let (step, inst) = (kernel.flow.step(pc), &kernel.code[pc as usize]);
    let product = step.passage == Passage::Product;
    let results: Vec<_> = step.writes.iter().map(|&w| (w, read(&warp.regs, w))).collect();
    let (undefined, waiting, carry) = (env.undefined, env.waiting, warp.carry);
    let mut differ = vec![Lanes::default(); results.len()];
    let mut first: Vec<Value> = Vec::new();
    for trial in 0..if product { 2 } else { TRIALS } {
        let mut number = 0;
        for Operand { slot, value, bits } in operands {
            let tried = match (product, bits) {
                (true, None) => value.filled(&Lanes([u64::MAX; LANES]), POSITIVE),
                (true, Some(bits)) => {
                    let positive = value.filled(&Lanes([u64::MAX; LANES]), POSITIVE);
                    if trial == 0 { positive } else { positive.filled(bits, 0) }
                }
                (false, None) => *value,
                (false, Some(bits)) => {
                    number += 1;
                    value.filled(bits, pattern(number, trial))
                }
            };
            write(&mut warp.regs, *slot, tried);
        }
        let flow = inst.execute(warp, mask, env);
        let got: Vec<Value> = step.writes.iter().map(|&w| read(&warp.regs, w)).collect();
        for (index, differ) in differ.iter_mut().enumerate() {
            if flow == Flow::Fault {
                *differ = Lanes([u64::MAX; LANES]);
            } else if let Some(first) = first.get(index) {
                first.differences(&got[index], product, differ);
            }
        }
        if trial == 0 {
            first = got;
        }
    }
    operands.iter().for_each(|operand| write(&mut warp.regs, operand.slot, operand.value));
    results.iter().for_each(|(slot, value)| write(&mut warp.regs, *slot, *value));
    (env.undefined, env.waiting, warp.carry) = (undefined, waiting, carry);
    env.report = None;
    differ
}

/// What the `number`th undefined operand is in a trial: any two of them take all four pairs of bits at every slot.
fn pattern(number: usize, trial: usize) -> u64 {
    let bits = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(2 * number as u64 + 1);
    let bits = bits ^ bits >> 29;
    if trial >> (number & 1) & 1 == 0 { bits } else { !bits }
}

impl Value {
    /// With other content for these bits.
    fn filled(mut self, bits: &Lanes<u64>, content: u64) -> Value {
        let mixed = |old: u64, lane: usize| old & !bits.0[lane] | content & bits.0[lane];
        match &mut self {
            Value::Word(words) => {
                (0..LANES).for_each(|l| words.0[l] = mixed(words.0[l].into(), l) as u32);
            }
            Value::Double(words) => (0..LANES).for_each(|l| words.0[l] = mixed(words.0[l], l)),
            Value::Pred(mask) => {
                let lane = |l: usize| mixed((*mask >> l & 1).into(), l) as u32 & 1;
                *mask = (0..LANES).fold(0, |mask, l| mask | lane(l) << l);
            }
        }
        self
    }

    /// Adds the bits in which the two differ, or whole lanes.
    fn differences(&self, other: &Value, whole: bool, differ: &mut Lanes<u64>) {
        for lane in 0..LANES {
            let bits = match (self, other) {
                (Value::Word(a), Value::Word(b)) => (a.0[lane] ^ b.0[lane]).into(),
                (Value::Double(a), Value::Double(b)) => a.0[lane] ^ b.0[lane],
                (Value::Pred(a), Value::Pred(b)) => ((a ^ b) >> lane & 1).into(),
                _ => u64::MAX,
            };
            differ.0[lane] |= if whole && bits != 0 { u64::MAX } else { bits };
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
fn blame(taint: &Taint, env: &mut Env<'_>, undefined: Undefined, pc: u32, what: &str) -> Flow {
    let Origin { pc: load, kind, lane, address, message } =
        taint.origins[undefined.origin as usize].clone();
    let user = undefined.lanes.trailing_zeros();
    let note = format!("lane {user} needs the value here: it {what}");
    env.blamed = Some(load);
    env.report(Report { kind, lane, message, address, notes: vec![(Some(pc), note)] })
}

/// Forgets that anything was written where the undefined `bits` of a register have been stored, `bytes` at the address of each
/// lane; in global memory that may be a finding.
pub(crate) fn stored<R: Resolve>(
    warp: &Warp,
    env: &mut Env<'_>,
    pc: u32,
    (slot, bits): (Slot, &Lanes<u64>),
    addresses: &Lanes<u64>,
    bytes: usize,
) -> Flow {
    let Some(taint) = &warp.taint else { return Flow::Next };
    let origin = taint.marks.get(&slot).map(|mark| mark.origin);
    let Some(origin) = origin.or_else(|| Some(taint.detours.first()?.origin)) else {
        return Flow::Next;
    };
    let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
    let mut leaked = 0;
    for lane in lanes(some(bits)) {
        for byte in (0..bytes).filter(|byte| bits.0[lane] >> (8 * byte) & 0xff != 0) {
            let address = addresses.0[lane].wrapping_add(byte as u64);
            match R::find(&memory, &mut 0, lane, address, 1) {
                Some((region, at))
                    if region.base == FIRST_OFFSET || may_be_undefined(env.launch, region, at) =>
                {
                    region.mark(at, 1, UNDEFINED, INIT);
                }
                Some(_) => leaked |= 1 << lane,
                None => {}
            }
        }
    }
    if leaked == 0 {
        return Flow::Next;
    }
    blame(taint, env, Undefined { lanes: leaked, origin }, pc, "is stored to global memory")
}
