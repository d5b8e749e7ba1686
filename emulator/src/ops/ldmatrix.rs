//! Loads, stores and transposition of 8 by 8 matrices of 16-bit elements across the lanes of a warp
//! (PTX ISA, "ldmatrix", "stmatrix", "movmatrix").
//!
//! Lane l holds elements 2 (l % 4) and 2 (l % 4) + 1 of row l / 4; transposed, of column l / 4. The address of row r of
//! matrix m comes from lane 8 m + r.

use std::marker::PhantomData;

use super::Lowered;
use super::matrix::expect_all;
use crate::checks::access::unwritten;
use crate::checks::taint;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Registers, lanes};
use crate::exec::patterns;
use crate::exec::warp::Warp;
use crate::exec::wide;
use crate::launch::Checks;
use crate::lower::flow::Slot;
use crate::lower::form::{Form, WHOLE};
use crate::lower::table::{Row, row};
use crate::memory::access::{
    Access, Generic, Memory, Perform, Refused, Resolve, Shared, access_known, addresses,
    check_races, count, observe, refuse,
};
use crate::memory::cells::spots::{Room, Spots};
use crate::memory::find;
use crate::memory::region::Region;
use crate::types::{Class, Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row("ldmatrix.sync.aligned.m8n8.x1|x2|x4[.trans][.shared|shared::cta].b16 d, [p]", ldmatrix)
        .from_sm(75),
    row("stmatrix.sync.aligned.m8n8.x1|x2|x4[.trans][.shared|shared::cta].b16 [p], r", stmatrix)
        .from_sm(90),
    row("movmatrix.sync.aligned.m8n8.trans.b16 d, a", movmatrix).from_sm(75),
];

/// Bytes of a row: 8 elements of 16 bits.
const ROW_BYTES: usize = 16;
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
    f.inst.aux |= if f.has("trans") { TRANSPOSED | WHOLE } else { WHOLE };
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

/// The words that lanes hold of a matrix, turned into those of the transposed one. Untransposed, lane l holds the
/// l-th word in memory.
#[inline(always)]
fn transposed(words: &Lanes<u32>) -> Lanes<u32> {
    let mut out = Lanes([0; LANES]);
    wide::transposed(&words.0, &mut out.0);
    out
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
        let lanes = address_lanes(inst.list.len());
        let what = Loading { inst };
        let known = access_known::<R, ROW_BYTES>(warp, inst, lanes, env, Access::Load, what);
        if let Some(flow) = known {
            return flow;
        }
        let at = addresses(&warp.regs, inst);
        let mut missing = None;
        let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
        let checked = env.launch.checks.contains(Checks::MEMORY);
        let mut room = Room::new();
        let together = find::place::<ROW_BYTES>(&memory, R::SPACE, &mut 0, &at, lanes, &mut room)
            .filter(|(region, spots)| {
                !checked || lanes & !region.permits(*spots, Access::Load) == 0
            });
        if let Some((region, spots)) = together {
            _ = Loading { inst }.perform(&mut warp.regs, region, spots);
        } else {
            match load_apart::<R>(warp, env, inst, &at, lanes) {
                Ok(found) => missing = found,
                Err(flow) => return flow,
            }
        }
        let flow =
            observe::<R>(env, (warp.index, inst), &at, lanes, ROW_BYTES as u64, Access::Load);
        match missing {
            Some(missing) if flow == Flow::Next => undefined::<R>(warp, env, inst, &at, &missing),
            _ => flow,
        }
    }
}

/// Loads matrices, whose rows are at these places, into the registers that an instruction names.
struct Loading<'a> {
    inst: &'a Inst,
}

impl Perform<ROW_BYTES> for Loading<'_> {
    #[inline(always)]
    fn perform(self, regs: &mut Registers, region: &Region, spots: Spots<'_, ROW_BYTES>) -> Mask {
        let Loading { inst } = self;
        let places = region.data.at(spots);
        if let Ok(slots) = <[u32; 4]>::try_from(&*inst.list)
            && inst.aux & TRANSPOSED == 0
        {
            let cells = regs.cells();
            let [a, b, c, d] = slots;
            let cell = |slot: u32| &cells[slot as usize];
            places.load_matrices([cell(a), cell(b), cell(c), cell(d)]);
            return 0;
        }
        for (index, &slot) in inst.list.iter().enumerate().take(4) {
            let Lanes(register) = &mut regs.words[slot as usize];
            if inst.aux & TRANSPOSED == 0 {
                let (rows, _) = register.as_chunks_mut();
                let rows = rows.first_chunk_mut().expect("a register has 8 rows of 4 words");
                places.load_rows::<4, 8>(8 * index, rows);
            } else {
                let mut rows = [[0; 4]; 8];
                places.load_rows::<4, 8>(8 * index, &mut rows);
                let words = rows.as_flattened().first_chunk();
                wide::transposed(words.expect("8 rows are a register"), register);
            }
        }
        0
    }
}

/// As [`Load`] where the rows are not in one region, or some of them have not been written: which elements.
#[inline(never)]
fn load_apart<R: Resolve>(
    warp: &mut Warp,
    env: &mut Env<'_>,
    inst: &Inst,
    at: &Lanes<u64>,
    mask: Mask,
) -> Result<Option<[[u32; 4]; LANES]>, Flow> {
    let (mut rows, mut missing) = ([[0; 4]; LANES], None);
    let memory = Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
    let how = (Access::Load, env.launch.checks.contains(Checks::MEMORY));
    let visited =
        find::one_by_one::<ROW_BYTES>(&memory, R::SPACE, at, mask, how, |lane, region, spots| {
            rows[lane] = region.data.at(spots).load_lane(lane);
        });
    if let Err(refused) = visited {
        match load_unwritten::<R>(&memory, at, mask, &mut rows) {
            Ok(found) => missing = Some(found),
            Err(lane) => {
                let refused = Refused { lane, address: at.0[lane], ..refused };
                return Err(refuse::<R>(env, warp.local.as_ref(), refused));
            }
        }
    }
    for (rows, &slot) in rows.chunks_exact(8).zip(&inst.list) {
        warp.regs.words[slot as usize] = matrix(rows, inst);
    }
    Ok(missing)
}

/// What each lane gets of a matrix of eight rows.
#[inline(always)]
fn matrix(rows: &[[u32; 4]], inst: &Inst) -> Lanes<u32> {
    let mut out = Lanes([0; LANES]);
    out.0.copy_from_slice(rows.as_flattened());
    if inst.aux & TRANSPOSED != 0 { transposed(&out) } else { out }
}

/// Loads rows some of which nobody has written, and gives ones where they are not; the first lane at fault if there is another
/// fault.
#[cold]
fn load_unwritten<R: Resolve>(
    memory: &Memory<'_>,
    at: &Lanes<u64>,
    mask: Mask,
    rows: &mut [[u32; 4]; LANES],
) -> Result<[[u32; 4]; LANES], usize> {
    let mut missing = [[0; 4]; LANES];
    for lane in lanes(mask) {
        let found = unwritten::<R>(memory, lane, at.0[lane], ROW_BYTES as u64);
        let (region, offset, bytes) = found.ok_or(lane)?;
        for word in 0..4 {
            rows[lane][word] = region.load(offset + 4 * word);
            let bits = (0..4).filter(|at| bytes >> (4 * word + at) & 1 != 0);
            missing[lane][word] = bits.fold(0, |bits, at| bits | 0xff << (8 * at));
        }
    }
    Ok(missing)
}

/// Notes which lanes have got elements that nobody has written.
#[cold]
fn undefined<R: Resolve>(
    warp: &mut Warp,
    env: &Env<'_>,
    inst: &Inst,
    at: &Lanes<u64>,
    missing: &[[u32; 4]; LANES],
) -> Flow {
    let lane = missing.iter().position(|row| *row != [0; 4]).unwrap_or(0);
    let bytes = ROW_BYTES as u64;
    let refused = Refused { lane, address: at.0[lane], bytes, access: Access::Load };
    let registers = missing.chunks_exact(8).zip(&inst.list).map(|(rows, &slot)| {
        (Slot::new(Class::Word, slot), Lanes(matrix(rows, inst).0.map(u64::from)))
    });
    taint::loaded::<R>(warp, env, inst.site, ALL, refused, registers);
    Flow::Undefined
}

fn memory<'m>(warp: &'m Warp, env: &'m Env<'_>) -> Memory<'m> {
    Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() }
}

struct Store<R>(PhantomData<R>);

impl<R: Resolve + 'static> Exec for Store<R> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "stmatrix.sync.aligned") {
            return flow;
        }
        let at = addresses(&warp.regs, inst);
        let lanes = address_lanes(inst.list.len());
        let mut words = [Lanes([0; LANES]); 4];
        for (index, &slot) in inst.list.iter().enumerate() {
            let mut matrix = warp.regs.words[slot as usize];
            if inst.aux & TRANSPOSED != 0 {
                matrix = transposed(&matrix);
            }
            for row in 0..8 {
                for (word, words) in words.iter_mut().enumerate() {
                    words.0[(8 * index + row) % LANES] = matrix.0[4 * row + word];
                }
            }
        }
        let unchanging =
            match store_rows(&memory(warp, env), R::SPACE, &at, lanes, words.each_ref()) {
                Ok(unchanging) => unchanging,
                Err(refused) => return refuse::<R>(env, warp.local.as_ref(), refused),
            };
        if warp.taint.is_some() && store_undefined::<R>(warp, env, inst, &at) == Flow::Fault {
            return Flow::Fault;
        }
        let slot = patterns::Slot::of(inst.home, warp.index);
        let known = count::<R>(env, slot, &at, lanes, ROW_BYTES as u64, Access::Store);
        let changing = lanes & !unchanging;
        env.stored_at_once = env.live != 0;
        let place = (warp.index, inst, known);
        check_races::<R>(env, place, &at, changing, ROW_BYTES as u64, Access::Store)
    }
}

/// Leaves the words of rows unwritten where the elements that were stored are undefined.
#[cold]
fn store_undefined<R: Resolve>(
    warp: &Warp,
    env: &mut Env<'_>,
    inst: &Inst,
    at: &Lanes<u64>,
) -> Flow {
    let Some(taint) = &warp.taint else { return Flow::Next };
    for (index, &slot) in inst.list.iter().enumerate() {
        let slot = Slot::new(Class::Word, slot);
        let mut matrix = Lanes(taint.bits(slot).0.map(|bits| bits as u32));
        if inst.aux & TRANSPOSED != 0 {
            matrix = transposed(&matrix);
        }
        // The word of each lane, at its place.
        let word = |lane: usize| at.0[8 * index + lane / 4].wrapping_add(lane as u64 % 4 * 4);
        let (at, bits) = (Lanes(std::array::from_fn(word)), Lanes(matrix.0.map(u64::from)));
        let flow = taint::stored::<R>(warp, env, inst.site, (slot, &bits), &at, 4);
        if flow == Flow::Fault {
            return flow;
        }
    }
    Flow::Next
}

/// Gives the lanes whose row is stored as it was: writing the same value twice is no race.
#[inline(always)]
fn store_rows(
    memory: &Memory<'_>,
    space: Space,
    at: &Lanes<u64>,
    mask: Mask,
    words: [&Lanes<u32>; 4],
) -> Result<Mask, Refused> {
    let checked = memory.launch.checks.contains(Checks::MEMORY);
    let mut room = Room::new();
    let together = find::place::<ROW_BYTES>(memory, space, &mut 0, at, mask, &mut room)
        .filter(|(region, spots)| !checked || mask & !region.permits(*spots, Access::Store) == 0);
    if let Some((region, spots)) = together {
        if !memory.launch.checks.contains(Checks::SHARED_RACES)
            && !memory.launch.checks.contains(Checks::GLOBAL_RACES)
        {
            region.store_spots(spots, mask, words);
            return Ok(0);
        }
        return Ok(region.store_spots_compared(spots, mask, words));
    }
    let (how, mut unchanging) = ((Access::Store, checked), 0);
    find::one_by_one::<ROW_BYTES>(memory, space, at, mask, how, |lane, region, spots| {
        unchanging |= region.store_spots_compared(spots, 1 << lane, words);
    })?;
    Ok(unchanging)
}

struct Transpose;

impl Exec for Transpose {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if let Some(flow) = expect_all(env, mask, "movmatrix.sync.aligned") {
            return flow;
        }
        let out = transposed(&warp.regs.words[inst.a as usize]);
        warp.regs.write(inst.d, ALL, &out);
        Flow::Next
    }
}
