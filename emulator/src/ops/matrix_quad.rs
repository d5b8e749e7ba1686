//! `mma.m8n8k4` on f16: four products of 8 by 8 by 4, each by 8 lanes (PTX ISA, "Matrix Fragments for mma.m8n8k4
//! with .f16 floating point type").

use super::Lowered;
use super::matrix::expect_all;
use super::number::{half_from, half_value};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Value};
use crate::exec::warp::Warp;
use crate::launch::MmaMode;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::tensor::dot::Model;
use crate::tensor::format::Format;
use crate::types::Type;

pub(crate) const ROWS: &[Row] =
    &[row("mma.sync.aligned.m8n8k4.row|col.row|col.f32|f16.f16.f16.f32|f16 d, a, b, c", mma)
        .from_sm(70)];

/// Flags in [`Inst::m`].
const A_BY_COLUMN: u32 = 1;
const B_BY_ROW: u32 = 2;
const SINGLE_D: u32 = 4;
const SINGLE_C: u32 = 8;

fn mma(f: &mut Form<'_, '_>) -> Lowered {
    let layouts: Vec<_> =
        f.ins.modifiers.iter().copied().filter(|m| matches!(*m, "row" | "col")).collect();
    let [d, .., c] = f.types()[..] else { return Err(f.fault("`mma` names four types")) };
    if (d, c) == (Type::F16, Type::F32) {
        return Err(f.fault("a result of .f16 has an accumulator of .f16"));
    }
    let accumulator = |ty| if ty == Type::F32 { (Type::F32, 8) } else { (Type::B32, 4) };
    f.dst_list(accumulator(d).0, accumulator(d).1, false)?;
    f.src_list(Type::B32, 2, false)?;
    f.src_list(Type::B32, 2, false)?;
    f.src_list(accumulator(c).0, accumulator(c).1, false)?;
    for (flag, set) in [
        (A_BY_COLUMN, layouts[0] == "col"),
        (B_BY_ROW, layouts[1] == "row"),
        (SINGLE_D, d == Type::F32),
        (SINGLE_C, c == Type::F32),
    ] {
        f.inst.m |= if set { flag } else { 0 };
    }
    f.run::<Quad>()
}

/// Which of the four products a lane belongs to: lanes 4q to 4q + 3 and the same 16 further.
fn product_of(lane: usize) -> usize {
    lane / 4 % 4
}

/// Line (row of A, column of B) and k of element `index` of a lane, whose registers run along k or along the lines.
fn operand_place(lane: usize, index: usize, along_lines: bool) -> (usize, usize) {
    let upper = 4 * (lane / 16);
    if along_lines { (upper + index, lane % 4) } else { (upper + lane % 4, index) }
}

/// Row and column of element `index` of an accumulator.
fn accumulator_place(lane: usize, index: usize, single: bool) -> (usize, usize) {
    let upper = 4 * (lane / 16);
    if !single {
        return (upper + lane % 4, index);
    }
    (upper + (lane & 1) + (index & 2), (index & 4) + (lane & 2) + (index & 1))
}

struct Quad;

impl Exec for Quad {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "mma.sync.aligned") {
            return flow;
        }
        let has = |flag: u32| inst.m & flag != 0;
        let results = if has(SINGLE_D) { 8 } else { 4 };
        let word = |index: usize, lane: usize| warp.regs.words[inst.list[index] as usize].0[lane];
        let half = |first: usize, index: usize, lane: usize| {
            word(first + index / 2, lane) >> (16 * (index % 2)) & 0xffff
        };
        // By product and line; accumulators as f32, which holds every f16.
        let mut a = [[[0; 4]; 8]; 4];
        let mut b = [[[0; 4]; 8]; 4];
        let mut c = [[[0.0; 8]; 8]; 4];
        for lane in 0..LANES {
            let product = product_of(lane);
            for index in 0..4 {
                let (row, k) = operand_place(lane, index, has(A_BY_COLUMN));
                a[product][row][k] = half(results, index, lane);
                let (column, k) = operand_place(lane, index, has(B_BY_ROW));
                b[product][column][k] = half(results + 2, index, lane);
            }
            for index in 0..8 {
                let (row, column) = accumulator_place(lane, index, has(SINGLE_C));
                c[product][row][column] = if has(SINGLE_C) {
                    f32::from_bits(word(results + 4 + index, lane))
                } else {
                    half_value(half(results + 4, index, lane))
                };
            }
        }
        let model = (env.launch.mma == MmaMode::BitAccurate)
            .then(|| Model::of(Format::F16, env.launch.sm / 10, env.launch.sm % 10));
        let formats = (Format::F16, Format::F16);
        let dot = |a: &[u32; 4], b: &[u32; 4], c: f32| match model {
            Some(model) if !has(SINGLE_D) => {
                half_value(model.dot_f16(formats, a, b, half_from(c) as u16).into())
            }
            Some(model) => model.dot_f32(formats, a, b, c),
            None => {
                a.iter().zip(b).fold(c, |sum, (&a, &b)| half_value(a).mul_add(half_value(b), sum))
            }
        };
        let mut out = [Lanes::<u32>::default(); 8];
        for lane in 0..LANES {
            let product = product_of(lane);
            for index in 0..8 {
                let (row, column) = accumulator_place(lane, index, has(SINGLE_D));
                let sum = dot(&a[product][row], &b[product][column], c[product][row][column]);
                if has(SINGLE_D) {
                    out[index].0[lane] = sum.put();
                } else {
                    out[index / 2].0[lane] |= half_from(sum) << (16 * (index % 2));
                }
            }
        }
        for (i, out) in out.iter().take(results).enumerate() {
            warp.regs.write(inst.list[i], ALL, out);
        }
        Flow::Next
    }
}
