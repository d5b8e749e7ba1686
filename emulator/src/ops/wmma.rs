//! `wmma`: fragments loaded and stored as whole matrices, and their products
//! (PTX ISA, "Matrix multiply-accumulate operation using wmma instructions").
//!
//! [`crate::tensor::wmma`] says which element of a matrix each register holds, which the ISA leaves open.

use std::marker::PhantomData;

use super::Lowered;
use super::matrix::expect_all;
use super::matrix_double::fused;
use super::number::{Rounding, half_from, half_value};
use crate::checks::access::unwritten;
use crate::checks::taint;
use crate::error::Fault;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Registers, Value};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::launch::MmaMode;
use crate::lower::flow::Slot;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::memory::access::{
    Access, Generic, Global, Memory, Refused, Resolve, Shared, addresses, observe, permitted,
    refuse,
};
use crate::tensor::dot::Model;
use crate::tensor::format::Format;
use crate::tensor::wmma::{Fragment, Matrix, Shape};
use crate::types::{Class, Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row("wmma.load.a|b.sync.aligned.row|col.m16n16k16|m8n32k16|m32n8k16[.global|shared|shared::cta].f16 r, [p], stride", load)
        .from_sm(70),
    row("wmma.load.a|b.sync.aligned.row|col.m16n16k16|m8n32k16|m32n8k16[.global|shared|shared::cta].u8|s8 r, [p], stride", load)
        .from_sm(72),
    row("wmma.load.a|b.sync.aligned.row|col.m16n16k16|m8n32k16|m32n8k16[.global|shared|shared::cta].bf16 r, [p], stride", load)
        .from_sm(80),
    row("wmma.load.a|b.sync.aligned.row|col.m16n16k8[.global|shared|shared::cta].tf32 r, [p], stride", load).from_sm(80),
    row("wmma.load.a|b|c.sync.aligned.row|col.m8n8k4[.global|shared|shared::cta].f64 r, [p], stride", load).from_sm(80),
    row("wmma.load.a.sync.aligned.row.m8n8k32[.global|shared|shared::cta].u4|s4 r, [p], stride", load).from_sm(75),
    row("wmma.load.b.sync.aligned.col.m8n8k32[.global|shared|shared::cta].u4|s4 r, [p], stride", load).from_sm(75),
    row("wmma.load.a.sync.aligned.row.m8n8k128[.global|shared|shared::cta].b1 r, [p], stride", load).from_sm(75),
    row("wmma.load.b.sync.aligned.col.m8n8k128[.global|shared|shared::cta].b1 r, [p], stride", load).from_sm(75),
    row("wmma.load.c.sync.aligned.row|col.m16n16k16|m8n32k16|m32n8k16[.global|shared|shared::cta].f16|f32|s32 r, [p], stride", load)
        .from_sm(70),
    row("wmma.load.c.sync.aligned.row|col.m16n16k8[.global|shared|shared::cta].f32 r, [p], stride", load).from_sm(80),
    row("wmma.load.c.sync.aligned.row|col.m8n8k32|m8n8k128[.global|shared|shared::cta].s32 r, [p], stride", load).from_sm(75),
    row("wmma.store.d.sync.aligned.row|col.m16n16k16|m8n32k16|m32n8k16[.global|shared|shared::cta].f16|f32|s32 [p], r, stride", store)
        .from_sm(70),
    row("wmma.store.d.sync.aligned.row|col.m16n16k8[.global|shared|shared::cta].f32 [p], r, stride", store).from_sm(80),
    row("wmma.store.d.sync.aligned.row|col.m8n8k4[.global|shared|shared::cta].f64 [p], r, stride", store).from_sm(80),
    row("wmma.store.d.sync.aligned.row|col.m8n8k32|m8n8k128[.global|shared|shared::cta].s32 [p], r, stride", store).from_sm(75),
    row("wmma.mma.sync.aligned.row|col.row|col.m16n16k16|m8n32k16|m32n8k16.f16|f32.f16|f32 d, a, b, c", mma_half).from_sm(70),
    row("wmma.mma.sync.aligned.row|col.row|col.m16n16k16|m8n32k16|m32n8k16.f32.bf16.bf16.f32 d, a, b, c", mma).from_sm(80),
    row("wmma.mma.sync.aligned.row|col.row|col.m16n16k8.f32.tf32.tf32.f32 d, a, b, c", mma).from_sm(80),
    row("wmma.mma.sync.aligned.row|col.row|col.m16n16k16|m8n32k16|m32n8k16.s32.u8|s8.u8|s8.s32[.satfinite] d, a, b, c", mma)
        .from_sm(72),
    row("wmma.mma.sync.aligned.row.col.m8n8k32.s32.u4|s4.u4|s4.s32[.satfinite] d, a, b, c", mma).from_sm(75),
    row("wmma.mma.xor|and.popc.sync.aligned.row.col.m8n8k128.s32.b1.b1.s32 d, a, b, c", mma).from_sm(75),
    row("wmma.mma.sync.aligned.row|col.row|col.m8n8k4[.rn|rz|rm|rp].f64.f64.f64.f64 d, a, b, c", mma).from_sm(80),
];

// ---- Lowering

fn shape(f: &Form<'_, '_>) -> Result<Shape, Fault> {
    let found = f.ins.modifiers.iter().find_map(|m| Shape::parse(m));
    found.ok_or_else(|| f.fault("expected a shape such as .m16n16k16"))
}

fn space(f: &Form<'_, '_>) -> Space {
    f.pick(&[("global", Space::Global), ("shared", Space::Shared), ("shared::cta", Space::Shared)])
        .unwrap_or(Space::Generic)
}

/// The fragment that registers of type `ty` hold, and the type of one register.
fn fragment(shape: Shape, matrix: Matrix, ty: Type) -> (Fragment, Type) {
    let half_operand = ty == Type::F16 && matrix != Matrix::C;
    let register = match ty {
        Type::F32 | Type::S32 | Type::F64 => ty,
        _ => Type::B32,
    };
    (Fragment::new(shape, matrix, ty.bits(), half_operand), register)
}

/// Notes what a load or a store moves: [`Inst::m`] is the shape, [`Inst::p`] the operand, the element and the order.
fn moved(f: &mut Form<'_, '_>, shape: Shape, matrix: Matrix, ty: Type, order: usize) {
    f.inst.m = (shape.m | shape.n << 8 | shape.k << 16) as u32;
    let half = u32::from(ty == Type::F16 && matrix != Matrix::C);
    let columns_first = u32::from(f.ins.modifiers[order] == "col");
    f.inst.p = matrix as u32 | half << 2 | columns_first << 3 | ty.bits() << 8;
}

/// What [`moved`] noted.
fn noted(inst: &Inst) -> (Fragment, bool) {
    let part = |shift: u32| (inst.m >> shift & 0xff) as usize;
    let matrix = match inst.p & 3 {
        0 => Matrix::A,
        1 => Matrix::B,
        _ => Matrix::C,
    };
    let shape = Shape { m: part(0), n: part(8), k: part(16) };
    (Fragment::new(shape, matrix, inst.p >> 8, inst.p & 4 != 0), inst.p & 8 != 0)
}

/// The distance between rows or columns in elements: [`Inst::b`] is its slot, or [`Inst::c`] tells that it is packed.
fn stride(f: &mut Form<'_, '_>) -> Lowered {
    if f.peek().is_some() {
        f.inst.b = f.src(Type::U32)?;
    } else {
        f.inst.c = 1;
    }
    Ok(())
}

fn load(f: &mut Form<'_, '_>) -> Lowered {
    let (shape, ty, space) = (shape(f)?, f.ty(), space(f));
    let matrix = match f.ins.modifiers[1] {
        "a" => Matrix::A,
        "b" => Matrix::B,
        _ => Matrix::C,
    };
    let (fragment, register) = fragment(shape, matrix, ty);
    f.dst_list(register, fragment.registers(), false)?;
    f.address(space)?;
    stride(f)?;
    moved(f, shape, matrix, ty, 4);
    match space {
        Space::Global => f.run::<Load<Global>>(),
        Space::Shared => f.run::<Load<Shared>>(),
        _ => f.run::<Load<Generic>>(),
    }
}

fn store(f: &mut Form<'_, '_>) -> Lowered {
    let (shape, ty, space) = (shape(f)?, f.ty(), space(f));
    let (fragment, register) = fragment(shape, Matrix::C, ty);
    f.address(space)?;
    f.src_list(register, fragment.registers(), false)?;
    stride(f)?;
    moved(f, shape, Matrix::C, ty, 4);
    match space {
        Space::Global => f.run::<Store<Global>>(),
        Space::Shared => f.run::<Store<Shared>>(),
        _ => f.run::<Store<Generic>>(),
    }
}

/// `d` and `c` types alone are named; A and B are f16.
fn mma_half(f: &mut Form<'_, '_>) -> Lowered {
    let [d, c] = f.types()[..] else { return Err(f.fault("`wmma.mma` names two types here")) };
    product(f, [d, Type::F16, Type::F16, c])
}

fn mma(f: &mut Form<'_, '_>) -> Lowered {
    let [d, a, b, c] = f.types()[..] else {
        return Err(f.fault("`wmma.mma` names four types here"));
    };
    if a != b && (a.bits() != b.bits() || a.bits() > 8) {
        return Err(f.fault(format!(
            "operands of .{} and .{} do not go together",
            a.name(),
            b.name()
        )));
    }
    product(f, [d, a, b, c])
}

/// Positions of the operands' types in [`Inst::imm`], a byte each: d, a, b, c; then flags.
const FLAGS: u32 = 32;
/// Sums saturate.
const SATURATE: i64 = 1 << FLAGS;
/// Products of single bits are conjunctions.
const AND: i64 = 2 << FLAGS;

const TYPES: [Type; 13] = [
    Type::F16,
    Type::Bf16,
    Type::Tf32,
    Type::F32,
    Type::F64,
    Type::S32,
    Type::U8,
    Type::S8,
    Type::U4,
    Type::S4,
    Type::B1,
    Type::B32,
    Type::B64,
];

fn product(f: &mut Form<'_, '_>, types: [Type; 4]) -> Lowered {
    let shape = shape(f)?;
    let [d, a, b, c] = types;
    let of = [(Matrix::C, d), (Matrix::A, a), (Matrix::B, b), (Matrix::C, c)];
    for (index, (matrix, ty)) in of.into_iter().enumerate() {
        let (fragment, register) = fragment(shape, matrix, ty);
        if index == 0 {
            f.dst_list(register, fragment.registers(), false)?;
        } else {
            f.src_list(register, fragment.registers(), false)?;
        }
        let code = TYPES.iter().position(|&t| t == ty).unwrap_or_default();
        f.inst.imm |= (code as i64) << (8 * index);
    }
    f.inst.imm |= if f.has("satfinite") { SATURATE } else { 0 };
    f.inst.imm |= if f.has("and") { AND } else { 0 };
    f.inst.m = (shape.m | shape.n << 8 | shape.k << 16) as u32;
    f.inst.aux = f.pick(&Rounding::NAMES).unwrap_or(Rounding::NearestEven).code();
    match d {
        Type::F64 => f.run::<MmaDouble>(),
        Type::S32 => f.run::<MmaInteger>(),
        _ => f.run::<MmaFloat>(),
    }
}

// ---- Loads and stores

/// Where the lines of a matrix lie: rows, or columns if it is stored so.
struct Lines {
    base: u64,
    /// Bytes from one to the next.
    step: u64,
    /// Bytes of one.
    bytes: u64,
    lines: usize,
}

/// Checks what all lanes have to agree on, and finds the lines.
fn lines(
    warp: &Warp,
    inst: &Inst,
    env: &mut Env<'_>,
    fragment: Fragment,
    columns_first: bool,
) -> Result<Lines, Flow> {
    let addresses = addresses(&warp.regs, inst);
    let (rows, columns) = fragment.size();
    let (lines, length) = if columns_first { (columns, rows) } else { (rows, columns) };
    let stride = |lane: usize| match inst.c {
        1 => length as u64,
        _ => warp.regs.words[inst.b as usize].0[lane].into(),
    };
    let (base, stride_elements) = (addresses.0[0], stride(0));
    for lane in 1..LANES {
        if (addresses.0[lane], stride(lane)) != (base, stride_elements) {
            let message = format!(
                "wmma with address {:#x} and stride {} here, but {base:#x} and {stride_elements} in lane 0",
                addresses.0[lane],
                stride(lane)
            );
            return Err(env.fault(FindingKind::Operand, lane, message));
        }
    }
    let bits = u64::from(fragment.bits);
    let (step, bytes) = (stride_elements * bits / 8, length as u64 * bits / 8);
    // The start of every line is aligned to the fragment; the CUDA programming guide lets 16 bytes do for the step.
    let align = (fragment.held as u64 * bits / 8).min(32);
    if base % align != 0 || step % align.min(16) != 0 || stride_elements * bits % 8 != 0 {
        let message = format!(
            "wmma at {base:#x} with {step} bytes from line to line: the address has to be a multiple of {align}, the step of {}",
            align.min(16)
        );
        return Err(env.fault(FindingKind::Misaligned, 0, message));
    }
    if stride_elements < length as u64 {
        let message =
            format!("wmma with a stride of {stride_elements} elements for lines of {length}");
        return Err(env.fault(FindingKind::Operand, 0, message));
    }
    Ok(Lines { base, step, bytes, lines })
}

impl Lines {
    /// Observes the access as if each lane moved an equal share in pieces of up to 16 bytes.
    fn observe<R: Resolve>(&self, env: &mut Env<'_>, place: (u32, &Inst), access: Access) -> Flow {
        let total = self.bytes * self.lines as u64;
        let piece = (total / LANES as u64).clamp(1, 16).min(self.bytes);
        let pieces = total / piece;
        let address = |index: u64| {
            self.base + index * piece / self.bytes * self.step + index * piece % self.bytes
        };
        let mut first = 0;
        while first < pieces {
            let here = (pieces - first).min(LANES as u64);
            let addresses =
                Lanes(std::array::from_fn(|lane| address(first + (lane as u64).min(here - 1))));
            let mask = if here == LANES as u64 { ALL } else { (1 << here) - 1 };
            let flow = observe::<R>(env, place, &addresses, mask, piece, access);
            if flow != Flow::Next {
                return flow;
            }
            first += here;
        }
        Flow::Next
    }
}

/// Bytes of one line at most: 128 bits, 32 elements of 32 bits.
const LINE: usize = 128;

/// One element of a line as its bits.
fn element(line: &[u8; LINE], index: usize, bits: u32) -> u64 {
    let at = index * bits as usize / 8;
    match bits {
        64 => u64::from_le_bytes(std::array::from_fn(|i| line[at + i])),
        32 => u32::from_le_bytes(std::array::from_fn(|i| line[at + i])).into(),
        16 => u16::from_le_bytes([line[at], line[at + 1]]).into(),
        8 => line[at].into(),
        _ => u64::from(line[at] >> (index * bits as usize % 8)) & ((1 << bits) - 1),
    }
}

/// Visits the aligned pieces of a line.
fn pieces(address: u64, bytes: u64) -> impl Iterator<Item = (u64, u64)> {
    let piece = (1 << address.trailing_zeros().min(4)).min(bytes);
    (0..bytes / piece).map(move |i| (i * piece, piece))
}

struct Load<R>(PhantomData<R>);

impl<R: Resolve + 'static> Exec for Load<R> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "wmma.load") {
            return flow;
        }
        let (fragment, columns_first) = noted(inst);
        let lines = match lines(warp, inst, env, fragment, columns_first) {
            Ok(lines) => lines,
            Err(flow) => return flow,
        };
        let (mut content, mut missing) = ([[0; LINE]; 32], [[0; LINE]; 32]);
        let mut first_missing = None;
        let mut hint = u32::MAX;
        for (index, line) in content.iter_mut().enumerate().take(lines.lines) {
            let start = lines.base.wrapping_add(index as u64 * lines.step);
            for (at, bytes) in pieces(start, lines.bytes) {
                let memory =
                    Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
                let address = start.wrapping_add(at);
                let found =
                    R::find(&memory, &mut hint, 0, address, bytes).filter(|(region, offset)| {
                        permitted(region, *offset, bytes as usize, Access::Load)
                    });
                let refused = Refused { lane: 0, address, bytes, access: Access::Load };
                let (region, offset) = match found {
                    Some(found) => found,
                    None => match unwritten::<R>(&memory, 0, address, bytes) {
                        Some((region, offset, bits)) => {
                            let here = &mut missing[index][at as usize..(at + bytes) as usize];
                            for (bit, byte) in here.iter_mut().enumerate() {
                                *byte = if bits >> bit & 1 != 0 { 0xff } else { 0 };
                            }
                            first_missing.get_or_insert(refused);
                            (region, offset)
                        }
                        None => return refuse::<R>(env, warp.local.as_ref(), refused),
                    },
                };
                region.data.read(offset, &mut line[at as usize..(at + bytes) as usize]);
            }
        }
        let flow = lines.observe::<R>(env, (warp.index, inst), Access::Load);
        if flow != Flow::Next {
            return flow;
        }
        let packed = if fragment.bits == 64 { 1 } else { 32 / fragment.bits as usize };
        let word = |content: &[[u8; LINE]; 32], register: usize, lane: usize| {
            (0..packed).fold(0, |word, i| {
                let (row, column) = fragment.place(lane, register * packed + i);
                let (line, at) = if columns_first { (column, row) } else { (row, column) };
                word | element(&content[line], at, fragment.bits) << (i * fragment.bits as usize)
            })
        };
        for (register, &slot) in inst.list.iter().enumerate() {
            let word = |lane: usize| word(&content, register, lane);
            if fragment.bits == 64 {
                warp.regs.write(slot, ALL, &Lanes::<u64>(std::array::from_fn(word)));
            } else {
                warp.regs.write(
                    slot,
                    ALL,
                    &Lanes::<u32>(std::array::from_fn(|lane| word(lane) as u32)),
                );
            }
        }
        let Some(refused) = first_missing else { return Flow::Next };
        let class = if fragment.bits == 64 { Class::Double } else { Class::Word };
        let undefined = inst.list.iter().enumerate().map(|(register, &slot)| {
            let bits = Lanes(std::array::from_fn(|lane| word(&missing, register, lane)));
            (Slot::new(class, slot), bits)
        });
        taint::loaded::<R>(warp, env, inst.site, ALL, refused, undefined);
        Flow::Undefined
    }
}

struct Store<R>(PhantomData<R>);

impl<R: Resolve + 'static> Exec for Store<R> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "wmma.store") {
            return flow;
        }
        let (fragment, columns_first) = noted(inst);
        let lines = match lines(warp, inst, env, fragment, columns_first) {
            Ok(lines) => lines,
            Err(flow) => return flow,
        };
        let mut content = [[0; LINE]; 32];
        let bytes = fragment.bits as usize / 8;
        let at = |lane: usize, index: usize| {
            let (row, column) = fragment.place(lane, index);
            let (line, at) = if columns_first { (column, row) } else { (row, column) };
            (line, at * bytes)
        };
        for lane in 0..LANES {
            for index in 0..fragment.held {
                let (line, at) = at(lane, index);
                let value = held(&warp.regs, &inst.list, fragment.bits, lane, index).to_le_bytes();
                content[line][at..at + bytes].copy_from_slice(&value[..bytes]);
            }
        }
        let mut hint = u32::MAX;
        for (index, line) in content.iter().enumerate().take(lines.lines) {
            let start = lines.base.wrapping_add(index as u64 * lines.step);
            for (at, bytes) in pieces(start, lines.bytes) {
                let memory =
                    Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
                let address = start.wrapping_add(at);
                let found =
                    R::find(&memory, &mut hint, 0, address, bytes).filter(|(region, offset)| {
                        permitted(region, *offset, bytes as usize, Access::Store)
                    });
                let Some((region, offset)) = found else {
                    let refused = Refused { lane: 0, address, bytes, access: Access::Store };
                    return refuse::<R>(env, warp.local.as_ref(), refused);
                };
                region.data.write(offset, &line[at as usize..(at + bytes) as usize]);
                region.mark_written(offset, bytes as usize);
            }
        }
        let flow = lines.observe::<R>(env, (warp.index, inst), Access::Store);
        let Some(marks) = &warp.taint else { return flow };
        let packed = fragment.held / inst.list.len();
        let class = if fragment.bits == 64 { Class::Double } else { Class::Word };
        for index in 0..fragment.held {
            let slot = Slot::new(class, inst.list[index / packed]);
            let address = |lane: usize| {
                let (line, at) = at(lane, index);
                lines.base.wrapping_add(line as u64 * lines.step).wrapping_add(at as u64)
            };
            let to = Lanes(std::array::from_fn(address));
            let shift = (index % packed) as u32 * fragment.bits % 64;
            let undefined = Lanes(marks.bits(slot).0.map(|bits| bits >> shift));
            let flow = taint::stored::<R>(warp, env, inst.site, (slot, &undefined), &to, bytes);
            if flow == Flow::Fault {
                return flow;
            }
        }
        flow
    }
}

// ---- Products

/// The bits of element `index` of a lane in registers that hold elements of `bits`.
fn held(regs: &Registers, slots: &[u32], bits: u32, lane: usize, index: usize) -> u64 {
    if bits == 64 {
        return regs.doubles[slots[index] as usize].0[lane];
    }
    let packed = (32 / bits) as usize;
    let word = u64::from(regs.words[slots[index / packed] as usize].0[lane]);
    word >> (bits * (index % packed) as u32) & ((1 << bits) - 1)
}

/// The operands of a product, as bits: A by row, B by column, C by row.
struct Operands {
    shape: Shape,
    a: Vec<u64>,
    b: Vec<u64>,
    c: Vec<u64>,
    d: Fragment,
}

/// Gathers the operands, or says which element of an f16 fragment its registers disagree about.
fn gather(regs: &Registers, inst: &Inst, types: [Type; 4]) -> Result<Operands, (usize, String)> {
    let part = |shift: u32| (inst.m >> shift & 0xff) as usize;
    let shape = Shape { m: part(0), n: part(8), k: part(16) };
    let [d, a, b, c] = types;
    let d = fragment(shape, Matrix::C, d).0;
    let mut slots = &inst.list[d.registers()..];
    let mut matrices = Vec::with_capacity(3);
    for (matrix, ty) in [(Matrix::A, a), (Matrix::B, b), (Matrix::C, c)] {
        let fragment = fragment(shape, matrix, ty).0;
        let (own, rest) = slots.split_at(fragment.registers());
        slots = rest;
        let (rows, columns) = fragment.size();
        let mut values = vec![0; rows * columns];
        for lane in 0..LANES {
            for index in 0..fragment.held {
                let (row, column) = fragment.place(lane, index);
                let at =
                    if matrix == Matrix::B { column * rows + row } else { row * columns + column };
                let value = held(regs, own, fragment.bits, lane, index);
                if index >= fragment.distinct() && values[at] != value {
                    let message = format!(
                        "registers {} and {} of the {matrix:?} fragment hold the same element and differ in it",
                        index % fragment.distinct() / 2,
                        index / 2
                    );
                    return Err((lane, message));
                }
                values[at] = value;
            }
        }
        matrices.push(values);
    }
    let [a, b, c] = <[Vec<u64>; 3]>::try_from(matrices).unwrap_or_default();
    Ok(Operands { shape, a, b, c, d })
}

/// Gathers, applies `dot(a row, b column, c)` to every element, and writes the fragment.
fn multiply(
    warp: &mut Warp,
    inst: &Inst,
    env: &mut Env<'_>,
    types: [Type; 4],
    dot: impl Fn(&[u64], &[u64], u64) -> u64,
) -> Flow {
    let operands = match gather(&warp.regs, inst, types) {
        Ok(operands) => operands,
        Err((lane, message)) => return env.fault(FindingKind::Operand, lane, message),
    };
    let Operands { shape: Shape { n, k, .. }, a, b, c, d } = operands;
    let packed = if d.bits == 64 { 1 } else { 32 / d.bits as usize };
    for (register, &slot) in inst.list[..d.registers()].iter().enumerate() {
        let value = |lane: usize, index: usize| {
            let (row, column) = d.place(lane, index);
            dot(&a[row * k..][..k], &b[column * k..][..k], c[row * n + column])
        };
        let word = |lane: usize| {
            (0..packed).fold(0, |word, i| {
                word | value(lane, register * packed + i) << (i * d.bits as usize)
            })
        };
        if d.bits == 64 {
            warp.regs.write(slot, ALL, &Lanes::<u64>(std::array::from_fn(word)));
        } else {
            warp.regs.write(
                slot,
                ALL,
                &Lanes::<u32>(std::array::from_fn(|lane| word(lane) as u32)),
            );
        }
    }
    Flow::Next
}

fn types(inst: &Inst) -> [Type; 4] {
    std::array::from_fn(|index| TYPES[(inst.imm >> (8 * index) & 0xff) as usize % TYPES.len()])
}

struct MmaFloat;

impl Exec for MmaFloat {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "wmma.mma") {
            return flow;
        }
        let types = types(inst);
        let format = match types[1] {
            Type::Bf16 => Format::Bf16,
            Type::Tf32 => Format::Tf32,
            _ => Format::F16,
        };
        let (half_result, half_accumulator) = (types[0] == Type::F16, types[3] == Type::F16);
        let accurate = env.launch.mma == MmaMode::BitAccurate;
        let mut model = Model::of(format, env.launch.sm / 10, env.launch.sm % 10);
        if format == Format::Tf32 {
            // ptxas makes two products of four elements of it for every target, and so an H100 adds.
            model.step = 4;
        }
        let value = |code: u64| match format {
            Format::F16 => half_value(code as u32),
            Format::Bf16 => f32::from_bits((code as u32) << 16),
            _ => f32::from_bits(code as u32 & 0xffff_e000),
        };
        multiply(warp, inst, env, types, |a, b, c| {
            let start =
                if half_accumulator { half_value(c as u32) } else { f32::from_bits(c as u32) };
            let sum = if accurate {
                let codes = |list: &[u64]| -> [u32; 16] {
                    std::array::from_fn(|i| list.get(i).map_or(0, |&code| code as u32))
                };
                let (a, b) = (&codes(a)[..a.len()], &codes(b)[..b.len()]);
                if half_result && half_accumulator {
                    return model.dot_f16((format, format), a, b, c as u16).into();
                }
                model.dot_f32((format, format), a, b, start)
            } else {
                a.iter().zip(b).fold(start, |sum, (&a, &b)| value(a).mul_add(value(b), sum))
            };
            if half_result { half_from(sum).into() } else { sum.put().into() }
        })
    }
}

struct MmaInteger;

impl Exec for MmaInteger {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "wmma.mma") {
            return flow;
        }
        let types = types(inst);
        let number = |code: u64, ty: Type| match ty {
            Type::S8 => i64::from(code as u8 as i8),
            Type::S4 => i64::from(((code << 4) as u8 as i8) >> 4),
            _ => code as i64,
        };
        let (saturate, and) = (inst.imm & SATURATE != 0, inst.imm & AND != 0);
        multiply(warp, inst, env, types, |a, b, c| {
            let term = |(&a, &b): (&u64, &u64)| match types[1] {
                Type::B1 if and => (a & b) as i64,
                Type::B1 => (a ^ b) as i64,
                _ => number(a, types[1]) * number(b, types[2]),
            };
            let sum = i64::from(c as u32 as i32) + a.iter().zip(b).map(term).sum::<i64>();
            let sum = if saturate { sum.clamp(i32::MIN.into(), i32::MAX.into()) } else { sum };
            u64::from(sum as u32)
        })
    }
}

struct MmaDouble;

impl Exec for MmaDouble {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "wmma.mma") {
            return flow;
        }
        let rounding = Rounding::from_code(inst.aux);
        multiply(warp, inst, env, types(inst), |a, b, c| {
            let step = |sum: f64, (&a, &b): (&u64, &u64)| {
                fused(f64::from_bits(a), f64::from_bits(b), sum, rounding)
            };
            a.iter().zip(b).fold(f64::from_bits(c), step).to_bits()
        })
    }
}
