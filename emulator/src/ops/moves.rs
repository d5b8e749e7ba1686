//! Moves, packing, and addresses (PTX ISA, "Data Movement and Conversion Instructions").

use std::marker::PhantomData;

use super::{Lowered, Map1, Op1};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, Registers, Word};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::special::Clock;
use crate::lower::table::{Row, row};
use crate::memory::{GLOBAL_BASE, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::types::{Kind, Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row("mov.pred|b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64 d, a", mov),
    row("mov.v2|v4.b8|b16|b32|b64|u8|u16|u32|u64|s8|s16|s32|s64|f32|f64 d, a", mov_vector),
    row("mov.b128 d, a", mov_quad).from_sm(70),
    row("cvta[.to].const|global|local|shared|shared::cta|shared::cluster|param|param::entry.u32|u64 d, a", cvta),
    row("isspacep.const|global|local|shared|shared::cta|shared::cluster|param|param::entry p, a", isspacep),
    row("createpolicy.fractional.L2::evict_last|L2::evict_normal|L2::evict_first|L2::evict_unchanged[.L2::evict_first|L2::evict_unchanged].b64 d[, fraction]", policy).from_sm(80),
    row("createpolicy.cvt.L2.b64 d, a", policy_from).from_sm(80),
];

/// The operand itself.
pub(super) struct Copy;

impl<T> Op1<T, T> for Copy {
    #[inline(always)]
    fn apply(a: T) -> T {
        a
    }
}

struct MovPred;

impl Exec for MovPred {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let value = warp.regs.pred(inst.a, inst.aux);
        warp.regs.write_pred(inst.d, mask, value);
        Flow::Next
    }
}

fn mov(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    if ty == Type::Pred {
        f.inst.d = f.dst(ty)?;
        (f.inst.a, f.inst.aux) = f.src_pred()?;
        return f.run::<MovPred>();
    }
    match (f.parts(0), f.parts(1)) {
        (Some(to), _) if ty.kind() == Kind::Bits => return unpack(f, to),
        (_, Some(from)) if ty.kind() == Kind::Bits => return pack(f, from),
        _ => {}
    }
    f.inst.d = f.dst(ty)?;
    if let Some((clock, have)) = f.clock() {
        return read_clock(f, clock, have);
    }
    f.inst.a = f.src(ty)?;
    if ty.bits() == 64 { f.run::<Map1<Copy, u64, u64>>() } else { f.run::<Map1<Copy, u32, u32>>() }
}

/// The elements of a vector: the first half of [`Inst::list`] from the second, all at once.
struct MovVector<W>(PhantomData<W>);

impl<W: Word> Exec for MovVector<W> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let (to, from) = inst.list.split_at(inst.list.len() / 2);
        let values: Vec<Lanes<W>> = from.iter().map(|&slot| *W::read(&warp.regs, slot)).collect();
        for (&slot, value) in to.iter().zip(&values) {
            warp.regs.write(slot, mask, value);
        }
        Flow::Next
    }
}

fn mov_vector(f: &mut Form<'_, '_>) -> Lowered {
    let (ty, count) = (f.ty(), if f.has("v2") { 2 } else { 4 });
    if !ty.makes_vectors_of(count) {
        return Err(f.fault(format!("{count} elements of .{} make no vector", ty.name())));
    }
    f.dst_list(ty, count as usize, false)?;
    f.src_list(ty, count as usize, false)?;
    if ty.bits() == 64 { f.run::<MovVector<u64>>() } else { f.run::<MovVector<u32>>() }
}

/// Steps of the warp: a clock that goes on and is the same in every run.
struct ReadClock<W>(PhantomData<W>);

impl<W: Word> Exec for ReadClock<W> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        // Steps are added up when a turn ends; counting reads makes the clock go on within one.
        warp.clock_reads += 1;
        let time = warp.steps + warp.clock_reads;
        let out = Lanes([W::from_u64(time >> inst.aux); LANES]);
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn read_clock(f: &mut Form<'_, '_>, clock: Clock, have: Type) -> Lowered {
    if f.ty().bits() != have.bits() {
        return Err(f.fault(format!("the clock is .{}", have.name())));
    }
    match clock {
        Clock::Low => f.run::<ReadClock<u32>>(),
        Clock::High => {
            f.inst.aux = 32;
            f.run::<ReadClock<u32>>()
        }
        Clock::Whole => f.run::<ReadClock<u64>>(),
    }
}

/// 128 bits between registers of 128 and pairs of 64: the first half of [`Inst::list`] from the second.
struct MovQuad;

impl Exec for MovQuad {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let halves = [2, 3].map(|i| warp.regs.doubles[inst.list[i] as usize]);
        for (index, half) in halves.iter().enumerate() {
            warp.regs.write(inst.list[index], mask, half);
        }
        Flow::Next
    }
}

fn mov_quad(f: &mut Form<'_, '_>) -> Lowered {
    match f.parts(0) {
        Some(_) => _ = f.dst_list(Type::B64, 2, false)?,
        None => f.dst_quad()?,
    }
    match f.parts(1) {
        Some(_) => _ = f.src_list(Type::B64, 2, false)?,
        None => f.src_quad()?,
    }
    f.run::<MovQuad>()
}

/// The type of one part of a packed value.
fn part_type(f: &Form<'_, '_>, parts: u32) -> Result<Type, crate::error::Fault> {
    match f.ty().bits() / parts.max(1) {
        8 if parts > 1 => Ok(Type::B8),
        16 if parts > 1 => Ok(Type::B16),
        32 if parts > 1 => Ok(Type::B32),
        _ => Err(f.fault(format!("{parts} parts do not make a .{}", f.ty().name()))),
    }
}

/// Parts of `BITS` bits into a register, the first into the lowest bits.
struct Pack<W, const BITS: u32>(PhantomData<W>);

impl<W: Word, const BITS: u32> Exec for Pack<W, BITS> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let mut out = Lanes::<W>::default();
        for (index, &slot) in inst.list.iter().enumerate() {
            let part = &warp.regs.words[slot as usize];
            for lane in 0..LANES {
                out.0[lane] = out.0[lane].or_at(part.0[lane], index as u32 * BITS);
            }
        }
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

/// A register into parts of `BITS` bits.
struct Unpack<W, const BITS: u32>(PhantomData<W>);

impl<W: Word, const BITS: u32> Exec for Unpack<W, BITS> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let source = *W::read(&warp.regs, inst.a);
        for (index, &slot) in inst.list.iter().enumerate() {
            let mut out = Lanes::<u32>::default();
            for lane in 0..LANES {
                out.0[lane] = source.0[lane].bits_at::<BITS>(index as u32 * BITS);
            }
            warp.regs.write(slot, mask, &out);
        }
        Flow::Next
    }
}

/// A word into its halves, in one go as the usual case.
struct Halves;

impl Exec for Halves {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let slots = [inst.a as usize, inst.list[0] as usize, inst.list[1] as usize];
        if mask == ALL
            && let Ok([source, low, high]) = warp.regs.words.get_disjoint_mut(slots)
        {
            for lane in 0..LANES {
                low.0[lane] = source.0[lane] & 0xffff;
                high.0[lane] = source.0[lane] >> 16;
            }
            return Flow::Next;
        }
        masked_halves(&mut warp.regs, inst, mask);
        Flow::Next
    }
}

/// As [`Halves`], of some lanes, and into registers that may be the same.
#[inline(never)]
fn masked_halves(regs: &mut Registers, inst: &Inst, mask: Mask) {
    let source = regs.words[inst.a as usize];
    regs.write(inst.list[0], mask, &Lanes(source.0.map(|word| word & 0xffff)));
    regs.write(inst.list[1], mask, &Lanes(source.0.map(|word| word >> 16)));
}

fn pack(f: &mut Form<'_, '_>, parts: u32) -> Lowered {
    let (ty, part) = (f.ty(), part_type(f, parts)?);
    f.inst.d = f.dst(ty)?;
    f.src_list(part, parts as usize, false)?;
    match (ty.bits(), part.bits()) {
        (16, 8) => f.run::<Pack<u32, 8>>(),
        (32, 16) => f.run::<Pack<u32, 16>>(),
        (32, 8) => f.run::<Pack<u32, 8>>(),
        (64, 32) => f.run::<Pack<u64, 32>>(),
        (64, 16) => f.run::<Pack<u64, 16>>(),
        _ => Err(f.fault("these parts cannot be packed")),
    }
}

fn unpack(f: &mut Form<'_, '_>, parts: u32) -> Lowered {
    let (ty, part) = (f.ty(), part_type(f, parts)?);
    f.dst_list(part, parts as usize, false)?;
    f.inst.a = f.src(ty)?;
    match (ty.bits(), part.bits()) {
        (16, 8) => f.run::<Unpack<u32, 8>>(),
        (32, 16) => f.run::<Halves>(),
        (32, 8) => f.run::<Unpack<u32, 8>>(),
        (64, 32) => f.run::<Unpack<u64, 32>>(),
        (64, 16) => f.run::<Unpack<u64, 16>>(),
        _ => Err(f.fault("these parts cannot be unpacked")),
    }
}

/// `a` plus the constant [`Inst::imm`].
struct Offset;

impl Exec for Offset {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let a = &warp.regs.doubles[inst.a as usize];
        let mut out = Lanes::default();
        for lane in 0..LANES {
            out.0[lane] = a.0[lane].wrapping_add(inst.imm as u64);
        }
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn named_space(f: &Form<'_, '_>) -> Space {
    f.ins.modifiers.iter().find_map(|m| Space::parse(m)).unwrap_or(Space::Generic)
}

fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED_WINDOW,
        Space::Local => LOCAL_WINDOW,
        Space::Param => PARAM_WINDOW,
        _ => 0,
    }
}

fn cvta(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    if ty.bits() != 64 {
        return Err(f.fault("generic addresses have 64 bits"));
    }
    let start = window(named_space(f)) as i64;
    f.inst.d = f.dst(ty)?;
    f.inst.a = f.src(ty)?;
    f.inst.imm = if f.has("to") { -start } else { start };
    f.run::<Offset>()
}

/// Whether a generic address lies in the space that [`Inst::aux`] names.
struct IsSpace;

impl Exec for IsSpace {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let a = &warp.regs.doubles[inst.a as usize];
        let start = inst.imm as u64;
        let mut holds = 0;
        for lane in 0..LANES {
            let address = a.0[lane];
            let inside = if start == 0 {
                address >= GLOBAL_BASE
            } else {
                address.wrapping_sub(start) < WINDOW_BYTES
            };
            holds |= u32::from(inside) << lane;
        }
        warp.regs.write_pred(inst.d, mask, holds);
        Flow::Next
    }
}

fn isspacep(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.imm = window(named_space(f)) as i64;
    f.inst.d = f.dst(Type::Pred)?;
    f.inst.a = f.src(Type::U64)?;
    f.run::<IsSpace>()
}

/// Cache policies are opaque and change no result; one marks where it came from.
const POLICY: u64 = 0x1000_0000_0000_0001;

struct Policy;

impl Exec for Policy {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        warp.regs.write(inst.d, mask, &Lanes([POLICY; LANES]));
        Flow::Next
    }
}

fn policy(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B64)?;
    if f.peek().is_some() {
        f.src(Type::F32)?;
    }
    f.run::<Policy>()
}

fn policy_from(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B64)?;
    f.src(Type::B64)?;
    f.run::<Policy>()
}

#[cfg(test)]
mod tests {
    use crate::Module;
    use crate::testing::eval;

    #[test]
    fn packing() {
        let text = "{ .reg .b64 %x; .reg .b32 %l, %h; mov.b64 %x, {%a, %b}; mov.b64 {%l, %h}, %x; sub.u32 %d, %h, %l; }";
        assert_eq!(eval(text, &[3, 10]), 7);
        let text = "{ .reg .b16 %l, %h; mov.b32 {%l, %h}, %a; mov.b32 %d, {%h, %l}; }";
        assert_eq!(eval(text, &[0x1234_5678]), 0x5678_1234);
        let text = "{ .reg .b8 %c<4>; mov.b32 {%c0, %c1, %c2, %c3}, %a; mov.b32 %d, {%c3, %c0, %c1, %c1}; }";
        assert_eq!(eval(text, &[0x1234_5678]), 0x5656_7812);
        let text = "{ .reg .b8 %l, %h; .reg .b16 %s; cvt.u16.u32 %s, %a; mov.b16 {%l, %h}, %s; mov.b16 %s, {%h, %l};
            cvt.u32.u16 %d, %s; }";
        assert_eq!(eval(text, &[0x1234_5678]), 0x7856);
        let text =
            "{ .reg .b16 %l, %h; mov.b32 {%l, _}, %a; mov.b32 {_, %h}, %a; mov.b32 %d, {%h, %l}; }";
        assert_eq!(eval(text, &[0x1234_5678]), 0x5678_1234);
    }

    /// Elements of vectors are registers like others; the vectors themselves stand where lists of registers may.
    #[test]
    fn vectors_of_registers() {
        let text = "{ .reg .v4 .b32 v, w; .reg .v2 .b32 %t<3>; .reg .b64 %q;
            mov.b32 v.x, 1; mov.b32 v.y, 2; add.u32 v.b, v.x, v.g; mov.b32 v.w, 4;
            mov.v4.b32 w, {v.w, v.z, v.y, v.x}; mov.v4.b32 w, {w.y, w.x, w.w, w.z};
            mov.v2.b32 %t2, {w.x, 7}; mov.b64 %q, %t2; mov.b64 %t1, %q;
            mad.lo.u32 %d, w.x, 10, w.r; mad.lo.u32 %d, %d, 10, w.y; mad.lo.u32 %d, %d, 10, w.z; mad.lo.u32 %d, %d, 10, w.a;
            mad.lo.u32 %d, %d, 10, %t1.x; mad.lo.u32 %d, %d, 10, %t1.y; }";
        // v = 1 2 3 4; w = 4 3 2 1, then 3 4 1 2; %t2 = 3 7.
        assert_eq!(eval(text, &[]), 3_341_237);
        let text = "{ .reg .v2 .b64 v; .reg .b128 %q; mov.b64 v.x, 5; mov.b64 v.y, 6; mov.b128 %q, v; mov.b128 v, %q;
            mov.b64 {%a, _}, v.x; mov.b64 {%b, _}, v.y; mad.lo.u32 %d, %a, 10, %b; }";
        assert_eq!(eval(text, &[]), 56);
    }

    /// Registers that are wider than a part would run into the next one.
    #[test]
    fn parts_are_as_wide_as_their_registers() {
        for text in [
            "mov.b32 %d, {%h0, %h1, %h2, %h3};",
            "mov.b32 %d, {%a, %b, %c, %d};",
            "mov.b32 {%h0, %h1, %h2, %h3}, %a;",
            "mov.b16 %h0, {%h1, %h2};",
        ] {
            let text = format!(
                ".version 8.0\n.target sm_80\n.address_size 64\n.entry k() {{ .reg .b16 %h<4>;
                 .reg .b32 %a, %b, %c, %d;\n{text}\nret; }}"
            );
            let error = Module::parse("k.ptx", &text).unwrap_err().to_string();
            assert!(error.contains("but the instruction wants .b8"), "{error}");
        }
    }

    #[test]
    fn special_registers_and_predicates() {
        assert_eq!(eval("mov.u32 %d, %ntid.x;", &[]), 32);
        assert_eq!(eval("mov.u32 %d, %nctaid.y;", &[]), 1);
        assert_eq!(eval("mov.u32 %d, %lanemask_le;", &[]), 1);
        assert_eq!(eval("mov.pred %p, 1; not.pred %q, %p; selp.u32 %d, 1, 2, %q;", &[]), 2);
        let text = "{ .reg .u32 %t0, %t1; mov.u32 %t0, %clock; mov.u32 %t1, %clock; sub.u32 %d, %t1, %t0; }";
        assert_eq!(eval(text, &[]), 1);
    }

    #[test]
    fn windows() {
        let text = "{ .shared .b32 s; .reg .u64 %x, %y; mov.u64 %x, s; cvta.shared.u64 %y, %x; isspacep.shared %p, %y;
            cvta.to.shared.u64 %y, %y; setp.eq.and.u64 %p, %x, %y, %p; selp.u32 %d, 1, 0, %p; }";
        assert_eq!(eval(text, &[]), 1);
    }
}
