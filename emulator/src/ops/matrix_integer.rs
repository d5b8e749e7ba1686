//! `mma` on integers of 8, 4 and 1 bits (PTX ISA, "Warp Level Matrix Multiply-Accumulate Instructions").

use super::Lowered;
use super::matrix::{expect_all, fragments, shape};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Registers};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::tensor::layout;
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("mma.sync.aligned.m8n8k16.row.col[.satfinite].s32.u8|s8.u8|s8.s32 d, a, b, c", mma)
        .from_sm(75),
    row(
        "mma.sync.aligned.m16n8k16|m16n8k32.row.col[.satfinite].s32.u8|s8.u8|s8.s32 d, a, b, c",
        mma,
    )
    .from_sm(80),
    row("mma.sync.aligned.m8n8k32.row.col[.satfinite].s32.u4|s4.u4|s4.s32 d, a, b, c", mma)
        .from_sm(75),
    row(
        "mma.sync.aligned.m16n8k32|m16n8k64.row.col[.satfinite].s32.u4|s4.u4|s4.s32 d, a, b, c",
        mma,
    )
    .from_sm(80),
    row("mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.xor.popc d, a, b, c", mma).from_sm(75),
    row("mma.sync.aligned.m8n8k128.row.col.s32.b1.b1.s32.and.popc d, a, b, c", mma).from_sm(80),
    row("mma.sync.aligned.m16n8k128|m16n8k256.row.col.s32.b1.b1.s32.xor|and.popc d, a, b, c", mma)
        .from_sm(80),
];

/// Flags in [`Inst::imm`].
const SIGNED_A: i64 = 1;
const SIGNED_B: i64 = 2;
const SATURATE: i64 = 4;
const AND: i64 = 8;

/// [`Inst::m`] is the number of rows, [`Inst::p`] is k, [`Inst::b`] the bits of an element.
fn mma(f: &mut Form<'_, '_>) -> Lowered {
    let (rows, k) = shape(f);
    let types = f.types();
    let bits = types[1].bits() as usize;
    // 32 lanes hold 32 bits each.
    let registers = |elements: usize| elements * bits / (32 * LANES);
    fragments(f, Type::S32, Type::B32, [registers(rows * k), registers(8 * k), rows * 8 / LANES])?;
    (f.inst.m, f.inst.p, f.inst.b) = (rows as u32, k as u32, bits as u32);
    let signed = |ty: Type| matches!(ty, Type::S8 | Type::S4);
    for (flag, set) in [
        (SIGNED_A, signed(types[1])),
        (SIGNED_B, signed(types[2])),
        (SATURATE, f.has("satfinite")),
        (AND, f.has("and")),
    ] {
        f.inst.imm |= if set { flag } else { 0 };
    }
    if bits == 1 { f.run::<Bits>() } else { f.run::<Integers>() }
}

/// Where the operands begin in [`Inst::list`], and how many accumulators a lane has.
struct Places {
    accumulators: usize,
    first_b: usize,
    first_c: usize,
}

fn places(inst: &Inst) -> Places {
    let (rows, k, bits) = (inst.m as usize, inst.p as usize, inst.b as usize);
    let accumulators = rows * 8 / LANES;
    let first_b = accumulators + rows * k * bits / (32 * LANES);
    Places { accumulators, first_b, first_c: first_b + 8 * k * bits / (32 * LANES) }
}

/// Adds `dot(row, column)` to every accumulator.
fn accumulate(warp: &mut Warp, inst: &Inst, dot: impl Fn(usize, usize) -> i64) -> Flow {
    let Places { accumulators, first_c, .. } = places(inst);
    let mut out = [Lanes::<u32>::default(); 4];
    for lane in 0..LANES {
        for (element, out) in out.iter_mut().enumerate().take(accumulators) {
            let (row, column) = layout::c(lane, element);
            let c = warp.regs.words[inst.list[first_c + element] as usize].0[lane];
            let sum = i64::from(c as i32) + dot(row, column);
            let saturated = sum.clamp(i32::MIN.into(), i32::MAX.into());
            out.0[lane] = if inst.imm & SATURATE != 0 { saturated } else { sum } as u32;
        }
    }
    for (i, out) in out.iter().take(accumulators).enumerate() {
        warp.regs.write(inst.list[i], ALL, out);
    }
    Flow::Next
}

/// Longest row of A in elements of 4 bits.
const LONGEST: usize = 64;

/// The elements of one operand, lane by lane, to the places that `place` gives.
fn spread(
    regs: &Registers,
    slots: &[u32],
    (bits, signed): (u32, bool),
    lines: &mut [[i32; LONGEST]],
    place: impl Fn(usize, usize) -> (usize, usize),
) {
    let packed = (32 / bits) as usize;
    for (register, &slot) in slots.iter().enumerate() {
        for (lane, &word) in regs.words[slot as usize].0.iter().enumerate() {
            for within in 0..packed {
                let top = word >> (bits as usize * within) << (32 - bits);
                let value =
                    if signed { top as i32 >> (32 - bits) } else { (top >> (32 - bits)) as i32 };
                let (line, at) = place(lane, register * packed + within);
                lines[line][at] = value;
            }
        }
    }
}

/// Integers of 8 or 4 bits.
struct Integers;

impl Exec for Integers {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "mma.sync.aligned") {
            return flow;
        }
        let Places { accumulators, first_b, first_c } = places(inst);
        let (rows, k, bits) = (inst.m as usize, inst.p as usize, inst.b);
        let mut a = [[0; LONGEST]; 16];
        let mut b = [[0; LONGEST]; 8];
        let signed = |flag| (bits, inst.imm & flag != 0);
        let (of_a, of_b) = (&inst.list[accumulators..first_b], &inst.list[first_b..first_c]);
        spread(&warp.regs, of_a, signed(SIGNED_A), &mut a, |lane, index| {
            layout::a(lane, index, bits, rows)
        });
        spread(&warp.regs, of_b, signed(SIGNED_B), &mut b, |lane, index| {
            let (k, n) = layout::b(lane, index, bits);
            (n, k)
        });
        accumulate(warp, inst, |row, column| {
            // 64 products of 8 bits fit in 32.
            let products = a[row][..k].iter().zip(&b[column][..k]).map(|(a, b)| a * b);
            products.sum::<i32>().into()
        })
    }
}

/// Single bits: how many of them are set in both, or in one of the two.
struct Bits;

impl Exec for Bits {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "mma.sync.aligned") {
            return flow;
        }
        let Places { accumulators, first_b, first_c } = places(inst);
        let (rows, words) = (inst.m as usize, inst.p as usize / 32);
        let word = |slot: u32, lane: usize| warp.regs.words[slot as usize].0[lane];
        let mut a = [[0; 8]; 16];
        let mut b = [[0; 8]; 8];
        for lane in 0..LANES {
            for (register, &slot) in inst.list[accumulators..first_b].iter().enumerate() {
                let (row, column) = layout::a(lane, 32 * register, 1, rows);
                a[row][column / 32] = word(slot, lane);
            }
            for (register, &slot) in inst.list[first_b..first_c].iter().enumerate() {
                let (k, n) = layout::b(lane, 32 * register, 1);
                b[n][k / 32] = word(slot, lane);
            }
        }
        accumulate(warp, inst, |row, column| {
            let pairs = a[row][..words].iter().zip(&b[column][..words]);
            let count = |(a, b): (&u32, &u32)| if inst.imm & AND != 0 { a & b } else { a ^ b };
            pairs.map(|pair| i64::from(count(pair).count_ones())).sum()
        })
    }
}
