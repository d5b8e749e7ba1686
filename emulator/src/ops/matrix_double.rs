//! `mma` in f64 (PTX ISA, "Warp Level Matrix Multiply-Accumulate Instructions").

use super::exact::Number;
use super::float::Fma;
use super::matrix::{expect_all, fragments, shape};
use super::number::Rounding;
use super::{Lowered, Op3};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::tensor::layout;
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("mma.sync.aligned.m8n8k4.row.col[.rn|rz|rm|rp].f64.f64.f64.f64 d, a, b, c", mma).from_sm(80),
    row("mma.sync.aligned.m16n8k4|m16n8k8|m16n8k16.row.col[.rn|rz|rm|rp].f64.f64.f64.f64 d, a, b, c", mma).from_sm(90),
];

/// [`Inst::m`] is the number of rows, [`Inst::p`] is k, [`Inst::aux`] the rounding.
fn mma(f: &mut Form<'_, '_>) -> Lowered {
    let (rows, k) = shape(f);
    let counts = [rows * k / LANES, 8 * k / LANES, rows * 8 / LANES];
    fragments(f, Type::F64, Type::F64, counts)?;
    (f.inst.m, f.inst.p) = (rows as u32, k as u32);
    f.inst.aux = f.pick(&Rounding::NAMES).unwrap_or(Rounding::NearestEven).code();
    f.run::<Mma>()
}

/// `a * b + c`, rounded once.
#[inline(always)]
pub(super) fn fused(a: f64, b: f64, c: f64, rounding: Rounding) -> f64 {
    if rounding == Rounding::NearestEven {
        return Fma::apply(a, b, c);
    }
    let [a, b, c] = [a, b, c].map(|x| Number::of_bits(x.to_bits()));
    f64::from_bits(a.mul(b).add(c, rounding).to_bits(rounding))
}

/// A chain of fused multiply-adds in the order of k.
struct Mma;

impl Exec for Mma {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "mma.sync.aligned") {
            return flow;
        }
        let (rows, k) = (inst.m as usize, inst.p as usize);
        let rounding = Rounding::from_code(inst.aux);
        let accumulators = rows * 8 / LANES;
        let first_b = accumulators + rows * k / LANES;
        let first_c = first_b + 8 * k / LANES;
        let value = |index: usize, lane: usize| {
            f64::from_bits(warp.regs.doubles[inst.list[index] as usize].0[lane])
        };
        let mut a = [[0.0; 16]; 16];
        let mut b = [[0.0; 16]; 8];
        for lane in 0..LANES {
            for index in 0..rows * k / LANES {
                let (row, column) = layout::a(lane, index, 64, rows);
                a[row][column] = value(accumulators + index, lane);
            }
            for index in 0..8 * k / LANES {
                let (k, n) = layout::b(lane, index, 64);
                b[n][k] = value(first_b + index, lane);
            }
        }
        let mut out = [Lanes::<u64>::default(); 4];
        for lane in 0..LANES {
            for (element, out) in out.iter_mut().enumerate().take(accumulators) {
                let (row, column) = layout::c(lane, element);
                let factors = a[row][..k].iter().zip(&b[column][..k]);
                let sum = factors.fold(value(first_c + element, lane), |sum, (&a, &b)| {
                    fused(a, b, sum, rounding)
                });
                out.0[lane] = sum.to_bits();
            }
        }
        for (i, out) in out.iter().take(accumulators).enumerate() {
            warp.regs.write(inst.list[i], ALL, out);
        }
        Flow::Next
    }
}
