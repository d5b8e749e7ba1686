//! Matrix instructions: `mma`, and what moves 8 by 8 matrices between lanes and shared memory
//! (PTX ISA, "Warp Level Matrix Multiply-Accumulate Instructions").

use super::Lowered;
use super::number::{half_from, half_value};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Registers, Value};
use crate::exec::warp::Warp;
use crate::exec::wide::{self, BRAINS, Fragments, HALVES, TENSOR};
use crate::finding::FindingKind;
use crate::launch::MmaMode;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::tensor::dot::Model;
use crate::tensor::format::Format;
use crate::tensor::layout;
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("mma.sync.aligned.m16n8k8|m16n8k16.row.col.f32|f16.f16.f16.f32|f16 d, a, b, c", mma_float)
        .from_sm(75),
    row("mma.sync.aligned.m16n8k8|m16n8k16.row.col.f32.bf16.bf16.f32 d, a, b, c", mma_float)
        .from_sm(80),
    row("mma.sync.aligned.m16n8k4|m16n8k8.row.col.f32.tf32.tf32.f32 d, a, b, c", mma_float)
        .from_sm(80),
    row(
        "mma.sync.aligned.m16n8k16|m16n8k32.row.col.f32|f16.e4m3|e5m2.e4m3|e5m2.f32|f16 d, a, b, c",
        mma_float,
    )
    .from_sm(89),
];

/// Rows and k of a shape such as `m16n8k16`; n is always 8.
pub(super) fn shape(f: &Form<'_, '_>) -> (usize, usize) {
    let shape = f.ins.modifiers.iter().find_map(|m| {
        let (rows, k) = m.strip_prefix('m')?.split_once("n8k")?;
        Some((rows.parse().ok()?, k.parse().ok()?))
    });
    shape.expect("the table's rows name a shape")
}

/// Takes `d, a, b, c` into the instruction's list; `accumulator` and `operand` are register types.
pub(super) fn fragments(
    f: &mut Form<'_, '_>,
    accumulator: Type,
    operand: Type,
    counts: [usize; 3],
) -> Lowered {
    let [a, b, c] = counts;
    f.dst_list(accumulator, c, false)?;
    f.src_list(operand, a, false)?;
    f.src_list(operand, b, false)?;
    f.src_list(accumulator, c, false)?;
    Ok(())
}

fn format(ty: Type) -> Format {
    match ty {
        Type::F16 => Format::F16,
        Type::Bf16 => Format::Bf16,
        Type::Tf32 => Format::Tf32,
        Type::E4m3 => Format::E4m3,
        _ => Format::E5m2,
    }
}

fn mma_float(f: &mut Form<'_, '_>) -> Lowered {
    let (_, k) = shape(f);
    let [d, a, b, c] = f.types()[..] else {
        return Err(f.fault("`mma` names four types"));
    };
    if d != c {
        return Err(f.fault(format!(
            "an accumulator of .{} with a result of .{} is not supported",
            c.name(),
            d.name()
        )));
    }
    let registers = |elements: usize| elements * a.bits() as usize / 32 / 32;
    let accumulator = if d == Type::F32 { Type::F32 } else { Type::B32 };
    let accumulators = if d == Type::F32 { 4 } else { 2 };
    fragments(f, accumulator, Type::B32, [registers(16 * k), registers(8 * k), accumulators])?;
    f.inst.imm = i64::from(code(format(a))) | i64::from(code(format(b))) << 8;
    match (a, k, d) {
        (Type::F16, 8, Type::F32) => f.run::<MmaF32<HALVES, 2, 8>>(),
        (Type::F16, 16, Type::F32) => f.run::<MmaF32<HALVES, 2, 16>>(),
        (Type::Bf16, 8, Type::F32) => f.run::<MmaF32<BRAINS, 2, 8>>(),
        (Type::Bf16, 16, Type::F32) => f.run::<MmaF32<BRAINS, 2, 16>>(),
        (Type::Tf32, 4, Type::F32) => f.run::<MmaF32<TENSOR, 1, 4>>(),
        (Type::Tf32, 8, Type::F32) => f.run::<MmaF32<TENSOR, 1, 8>>(),
        (Type::F16, 8, _) => f.run::<MmaAny<8, true>>(),
        (Type::F16, 16, _) | (_, 16, Type::F16) => f.run::<MmaAny<16, true>>(),
        (_, 16, _) => f.run::<MmaAny<16, false>>(),
        (_, _, Type::F16) => f.run::<MmaAny<32, true>>(),
        _ => f.run::<MmaAny<32, false>>(),
    }
}

fn code(format: Format) -> u8 {
    match format {
        Format::F16 => 0,
        Format::Bf16 => 1,
        Format::Tf32 => 2,
        Format::E4m3 => 3,
        Format::E5m2 => 4,
        Format::F32 => 5,
    }
}

fn decode(code: u8) -> Format {
    [Format::F16, Format::Bf16, Format::Tf32, Format::E4m3, Format::E5m2, Format::F32]
        [usize::from(code)]
}

/// Refuses an `.aligned` instruction that only some lanes have reached.
#[inline(always)]
pub(super) fn expect_all(env: &mut Env<'_>, mask: Mask, what: &str) -> Option<Flow> {
    if mask == ALL {
        return None;
    }
    let lane = (!mask).trailing_zeros() as usize;
    let message =
        format!("`{what}` needs all 32 lanes together, but only lanes {mask:#010x} are here");
    Some(env.fault(FindingKind::Divergence, lane, message))
}

// ---- Floating point with an f32 accumulator

/// `m16n8kK` with numbers of a kind, `P` to a register, and an f32 accumulator.
struct MmaF32<const KIND: u32, const P: usize, const K: usize>;

impl<const KIND: u32, const P: usize, const K: usize> Exec for MmaF32<KIND, P, K> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "mma.sync.aligned") {
            return flow;
        }
        if env.launch.mma == MmaMode::BitAccurate {
            return any::<K, false>(&mut warp.regs, inst, env.launch.sm);
        }
        // The registers of D, A, B and C, one after the other.
        let (a, b) = (16 * K / P / LANES, 8 * K / P / LANES);
        let list = &inst.list[..8 + a + b];
        let slot = |index: usize| list[index];
        let fragments = Fragments {
            d: std::array::from_fn(slot),
            a: std::array::from_fn(|index| slot(4 + index % a)),
            b: std::array::from_fn(|index| slot(4 + a + index % b)),
            c: std::array::from_fn(|index| slot(4 + a + b + index)),
        };
        wide::products::<KIND, P, K>(&mut warp.regs.words, &fragments);
        Flow::Next
    }
}

// ---- Any formats, bit by bit

/// `m16n8kK` with the formats in [`Inst::imm`]; an f16 accumulator if `F16`.
struct MmaAny<const K: usize, const F16: bool>;

impl<const K: usize, const F16: bool> Exec for MmaAny<K, F16> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "mma.sync.aligned") {
            return flow;
        }
        if env.launch.mma == MmaMode::BitAccurate {
            return any::<K, F16>(&mut warp.regs, inst, env.launch.sm);
        }
        fast::<K, F16>(&mut warp.regs, inst)
    }
}

/// Encodings of A by row and of B by column, with their formats.
struct Codes<const K: usize> {
    formats: (Format, Format),
    a: [[u32; K]; 16],
    b: [[u32; K]; 8],
    first_c: usize,
}

impl<const K: usize> Codes<K> {
    fn gather(regs: &Registers, inst: &Inst, accumulators: usize) -> Self {
        let formats = (decode(inst.imm as u8), decode((inst.imm >> 8) as u8));
        let bits = formats.0.bits();
        let packed = (32 / bits) as usize;
        let ones = (1_u64 << bits) as u32;
        let keep = ones.wrapping_sub(1);
        let (a_elements, b_elements) = (16 * K / LANES, 8 * K / LANES);
        let first_b = accumulators + a_elements / packed;
        let element = |first: usize, lane: usize, index: usize| {
            let word = regs.words[inst.list[first + index / packed] as usize].0[lane];
            word >> (bits * (index % packed) as u32) & keep
        };
        let mut codes = Codes {
            formats,
            a: [[0; K]; 16],
            b: [[0; K]; 8],
            first_c: first_b + b_elements / packed,
        };
        for lane in 0..LANES {
            for index in 0..a_elements {
                let (row, column) = layout::a(lane, index, bits, 16);
                codes.a[row][column] = element(accumulators, lane, index);
            }
            for index in 0..b_elements {
                let (k, n) = layout::b(lane, index, bits);
                codes.b[n][k] = element(first_b, lane, index);
            }
        }
        codes
    }
}

/// Applies `dot(a row, b column, c bits)` to every element of an f32 or f16 accumulator.
fn accumulate<const K: usize, const F16: bool>(
    regs: &mut Registers,
    inst: &Inst,
    codes: &Codes<K>,
    dot: impl Fn(&[u32; K], &[u32; K], u32) -> u32,
) -> Flow {
    let registers = if F16 { 2 } else { 4 };
    let mut out = [Lanes::<u32>::default(); 4];
    for lane in 0..LANES {
        for element in 0..4 {
            let (row, column) = layout::c(lane, element);
            let (register, shift) =
                if F16 { (element / 2, 16 * (element as u32 % 2)) } else { (element, 0) };
            let c = regs.words[inst.list[codes.first_c + register] as usize].0[lane];
            let c = if F16 { c >> shift & 0xffff } else { c };
            out[register].0[lane] |= dot(&codes.a[row], &codes.b[column], c) << shift;
        }
    }
    for (i, out) in out.iter().take(registers).enumerate() {
        regs.write(inst.list[i], ALL, out);
    }
    Flow::Next
}

/// As the tensor cores of `sm` add.
#[inline(never)]
fn any<const K: usize, const F16: bool>(regs: &mut Registers, inst: &Inst, sm: u32) -> Flow {
    let codes = Codes::<K>::gather(regs, inst, if F16 { 2 } else { 4 });
    let model = Model::of(codes.formats.0, sm / 10, sm % 10);
    accumulate::<K, F16>(regs, inst, &codes, |a, b, c| {
        if F16 {
            model.dot_f16(codes.formats, a, b, c as u16).into()
        } else {
            model.dot_f32(codes.formats, a, b, f32::from_bits(c)).to_bits()
        }
    })
}

/// Exact products summed in f32 by fused multiply-add; an f16 result is rounded once.
fn fast<const K: usize, const F16: bool>(regs: &mut Registers, inst: &Inst) -> Flow {
    let codes = Codes::<K>::gather(regs, inst, if F16 { 2 } else { 4 });
    let (first, second) = codes.formats;
    accumulate::<K, F16>(regs, inst, &codes, |a, b, c| {
        let c = if F16 { half_value(c) } else { f32::from_bits(c) };
        let sum = a
            .iter()
            .zip(b)
            .fold(c, |sum, (&a, &b)| (first.value(a) as f32).mul_add(second.value(b) as f32, sum));
        if F16 { half_from(sum) } else { sum.put() }
    })
}

#[cfg(test)]
mod tests {
    use crate::testing::warp;

    #[test]
    fn a_result_may_go_to_registers_of_the_accumulator_in_another_order() {
        for (order, places) in
            [([0, 1, 2, 3], "%y0, %y1, %y2, %y3"), ([2, 3, 0, 1], "%y2, %y3, %y0, %y1")]
        {
            let text = format!(
                "mov.u32 %a, %tid.x; {{ .reg .f32 %y<4>; .reg .b32 %z; mov.b32 %z, 0; cvt.rn.f32.u32 %y0, %a;
                 add.f32 %y1, %y0, 0f42800000; add.f32 %y2, %y0, 0f43000000; add.f32 %y3, %y0, 0f43400000;
                 mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {{{places}}}, {{%z, %z, %z, %z}}, {{%z, %z}},
                 {{%y0, %y1, %y2, %y3}};
                 cvt.rzi.u32.f32 %d, %y0; cvt.rzi.u32.f32 %b, %y1; shl.b32 %b, %b, 8; or.b32 %d, %d, %b;
                 cvt.rzi.u32.f32 %b, %y2; shl.b32 %b, %b, 16; or.b32 %d, %d, %b;
                 cvt.rzi.u32.f32 %b, %y3; shl.b32 %b, %b, 24; or.b32 %d, %d, %b; }}"
            );
            for (lane, got) in warp(&text).into_iter().enumerate() {
                // Accumulator i holds 64 i more than the lane's number, and goes to register `order[i]`.
                let sums = (0..4).map(|i| ((64 * i + lane) as u32) << (8 * order[i]));
                assert_eq!(got, sums.sum::<u32>(), "{order:?}, lane {lane}");
            }
        }
    }
}
