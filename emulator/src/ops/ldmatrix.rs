//! Loads, stores and transposition of 8 by 8 matrices of 16-bit elements across the lanes of a warp
//! (PTX ISA, "ldmatrix", "stmatrix", "movmatrix").
//!
//! Lane l holds elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4; transposed, of column l / 4. The address of row r of
//! matrix m comes from lane 8 m + r.

use std::marker::PhantomData;

use super::Lowered;
use super::matrix::expect_all;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, Lanes, Mask};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::memory::access::{
    Access, Generic, Memory, Refused, Resolve, Shared, addresses, check_races, count, observe,
    permitted, refuse,
};
use crate::types::{Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row("ldmatrix.sync.aligned.m8n8.x1|x2|x4[.trans][.shared|shared::cta].b16 d, [p]", ldmatrix)
        .from_sm(75),
    row("stmatrix.sync.aligned.m8n8.x1|x2|x4[.trans][.shared|shared::cta].b16 [p], r", stmatrix)
        .from_sm(90),
    row("movmatrix.sync.aligned.m8n8.trans.b16 d, a", movmatrix).from_sm(75),
];

/// Bytes of a row: 8 elements of 16 bits.
const ROW_BYTES: u64 = 16;
/// Flag in [`Inst::aux`]: transposed.
const TRANSPOSED: u32 = 1 << 8;

fn matrices(f: &Form<'_, '_>) -> usize {
    f.pick(&[("x1", 1), ("x2", 2), ("x4", 4)]).expect("the table's rows demand one of these")
}

fn space(f: &Form<'_, '_>) -> Space {
    if f.has("shared") || f.has("shared::cta") { Space::Shared } else { Space::Generic }
}

fn ldmatrix(f: &mut Form<'_, '_>) -> Lowered {
    let (count, space) = (matrices(f), space(f));
    f.dst_list(Type::B32, count, false)?;
    f.address(space)?;
    f.inst.aux |= if f.has("trans") { TRANSPOSED } else { 0 };
    if space == Space::Shared { f.run::<Load<Shared>>() } else { f.run::<Load<Generic>>() }
}

fn stmatrix(f: &mut Form<'_, '_>) -> Lowered {
    let (count, space) = (matrices(f), space(f));
    f.address(space)?;
    f.src_list(Type::B32, count, false)?;
    f.inst.aux |= if f.has("trans") { TRANSPOSED } else { 0 };
    if space == Space::Shared { f.run::<Store<Shared>>() } else { f.run::<Store<Generic>>() }
}

fn movmatrix(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B32)?;
    f.inst.a = f.src(Type::B32)?;
    f.run::<Transpose>()
}

/// Eight rows of four words.
type Matrix = [[u32; 4]; 8];

/// The word that each lane holds of a matrix.
#[inline(always)]
fn spread(matrix: &Matrix, transposed: bool) -> Lanes<u32> {
    let element =
        |row: usize, column: usize| matrix[row][column / 2] >> (16 * (column % 2)) & 0xffff;
    Lanes(std::array::from_fn(|lane| {
        let (g, t) = (lane / 4, lane % 4);
        if transposed { element(2 * t, g) | element(2 * t + 1, g) << 16 } else { matrix[g][t] }
    }))
}

/// The matrix that lanes hold: the inverse of [`spread`], which for the transposed form is itself.
#[inline(always)]
fn collect(words: &Lanes<u32>, transposed: bool) -> Matrix {
    let plain: Matrix = std::array::from_fn(|g| std::array::from_fn(|t| words.0[4 * g + t]));
    if !transposed {
        return plain;
    }
    let turned = spread(&plain, true);
    std::array::from_fn(|g| std::array::from_fn(|t| turned.0[4 * g + t]))
}

/// Lanes whose addresses count.
fn address_lanes(matrices: usize) -> Mask {
    if matrices == 4 { ALL } else { (1 << (8 * matrices)) - 1 }
}

struct Load<R>(PhantomData<R>);

impl<R: Resolve + 'static> Exec for Load<R> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "ldmatrix.sync.aligned") {
            return flow;
        }
        let addresses = addresses(&warp.regs, inst);
        let mut hint = u32::MAX;
        for (index, &slot) in inst.list.iter().enumerate() {
            let mut matrix = Matrix::default();
            for (row, words) in matrix.iter_mut().enumerate() {
                let lane = 8 * index + row;
                let address = addresses.0[lane];
                let memory =
                    Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
                let found = address
                    .is_multiple_of(ROW_BYTES)
                    .then(|| R::find(&memory, &mut hint, lane, address, ROW_BYTES))
                    .flatten()
                    .filter(|(region, offset)| {
                        permitted(region, *offset, ROW_BYTES as usize, Access::Load)
                    });
                let Some((region, offset)) = found else {
                    let refused = Refused { lane, address, bytes: ROW_BYTES, access: Access::Load };
                    return refuse::<R>(env, warp.local.as_ref(), refused);
                };
                for (word, to) in words.iter_mut().enumerate() {
                    *to = region.load(offset + 4 * word);
                }
            }
            let out = spread(&matrix, inst.aux & TRANSPOSED != 0);
            warp.regs.write(slot, ALL, &out);
        }
        let rows = address_lanes(inst.list.len());
        observe::<R>(env, (warp.index, inst), &addresses, rows, ROW_BYTES, Access::Load)
    }
}

struct Store<R>(PhantomData<R>);

impl<R: Resolve + 'static> Exec for Store<R> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "stmatrix.sync.aligned") {
            return flow;
        }
        let addresses = addresses(&warp.regs, inst);
        let mut hint = u32::MAX;
        // Rows that are stored as they were: writing the same value twice is no race.
        let mut unchanging: Mask = 0;
        for (index, &slot) in inst.list.iter().enumerate() {
            let matrix = collect(&warp.regs.words[slot as usize], inst.aux & TRANSPOSED != 0);
            for (row, words) in matrix.iter().enumerate() {
                let lane = 8 * index + row;
                let address = addresses.0[lane];
                let memory =
                    Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
                let found = address
                    .is_multiple_of(ROW_BYTES)
                    .then(|| R::find(&memory, &mut hint, lane, address, ROW_BYTES))
                    .flatten()
                    .filter(|(region, offset)| {
                        permitted(region, *offset, ROW_BYTES as usize, Access::Store)
                    });
                let Some((region, offset)) = found else {
                    let refused =
                        Refused { lane, address, bytes: ROW_BYTES, access: Access::Store };
                    return refuse::<R>(env, warp.local.as_ref(), refused);
                };
                let mut same = permitted(region, offset, ROW_BYTES as usize, Access::Load);
                for (word, &from) in words.iter().enumerate() {
                    same &= region.load::<u32>(offset + 4 * word) == from;
                    region.store(offset + 4 * word, from);
                }
                unchanging |= u32::from(same) << lane;
                region.mark_written(offset, ROW_BYTES as usize);
            }
        }
        let rows = address_lanes(inst.list.len());
        count::<R>(env, &addresses, rows, ROW_BYTES, Access::Store);
        let changing = rows & !unchanging;
        check_races::<R>(env, (warp.index, inst), &addresses, changing, ROW_BYTES, Access::Store)
    }
}

struct Transpose;

impl Exec for Transpose {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "movmatrix.sync.aligned") {
            return flow;
        }
        let matrix = collect(&warp.regs.words[inst.a as usize], false);
        let out = spread(&matrix, true);
        warp.regs.write(inst.d, ALL, &out);
        Flow::Next
    }
}
