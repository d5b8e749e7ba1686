//! Bits: logic, shifts, fields, permutations (PTX ISA, "Logic and Shift Instructions" and the bit
//! operations among the integer ones).

use super::number::{Bits, Int};
use super::{Lowered, Map1, Map2, Map3, Op1, Op2, Op3, for_type, op, operands1, operands2};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("and.pred|b16|b32|b64 d, a, b", logic2::<And>),
    row("or.pred|b16|b32|b64 d, a, b", logic2::<Or>),
    row("xor.pred|b16|b32|b64 d, a, b", logic2::<Xor>),
    row("not.pred|b16|b32|b64 d, a", logic1::<Not>),
    row("cnot.b16|b32|b64 d, a", logic1::<Cnot>),
    row("shl.b16|b32|b64 d, a, b", shl),
    row("shr.b16|b32|b64|u16|u32|u64|s16|s32|s64 d, a, b", shr),
    row("shf.l|r.clamp|wrap.b32 d, a, b, c", shf),
    row("lop3.b32 d, a, b, c, lut", lop3),
    row("lop3.and|or.b32 d|p, a, b, c, lut, q", lop3_with_predicate).from_sm(70),
    row("prmt.b32 d, a, b, c", prmt),
    row("prmt.b32.f4e|b4e|rc8|ecl|ecr|rc16 d, a, b, c", prmt_mode),
    row("bfe.u32|s32|u64|s64 d, a, b, c", bfe),
    row("bfi.b32|b64 f, a, b, c, d", bfi),
    row("brev.b32|b64 d, a", brev),
    row("clz.b32|b64 d, a", count::<Clz>),
    row("popc.b32|b64 d, a", count::<Popc>),
    row("bfind.u32|s32|u64|s64 d, a", bfind),
    row("bfind.shiftamt.u32|s32|u64|s64 d, a", bfind),
    row("fns.b32 d, mask, base, offset", fns),
    row("bmsk.clamp|wrap.b32 d, a, b", bmsk),
    row("szext.clamp|wrap.u32|s32 d, a, b", szext),
];

op! { And<T: Bits>(a, b) => a.and(b) }
op! { Or<T: Bits>(a, b) => a.or(b) }
op! { Xor<T: Bits>(a, b) => a.xor(b) }
op! { Not<T: Bits>(a) => a.not() }
op! { Cnot<T: Bits>(a) => T::from_bool(a.is_zero()) }

/// Logic on predicates: the masks themselves.
struct PredLogic<O>(std::marker::PhantomData<O>);

impl<O: Op2<u32, u32, u32>> Exec for PredLogic<O> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let a = warp.regs.pred(inst.a, inst.aux);
        let b = warp.regs.pred(inst.b, inst.m);
        warp.regs.write_pred(inst.d, mask, O::apply(a, b));
        Flow::Next
    }
}

fn logic2<O>(f: &mut Form<'_, '_>) -> Lowered
where
    O: Op2<u16, u16, u16> + Op2<u32, u32, u32> + Op2<u64, u64, u64>,
{
    if f.ty() == Type::Pred {
        f.inst.d = f.dst(Type::Pred)?;
        (f.inst.a, f.inst.aux) = f.src_pred()?;
        (f.inst.b, f.inst.m) = f.src_pred()?;
        return f.run::<PredLogic<O>>();
    }
    operands2(f)?;
    for_type!(f.ty(), f, { B16 => u16, B32 => u32, B64 => u64 }, T => Map2<O, T, T, T>)
}

fn logic1<O: Op1<u16, u16> + Op1<u32, u32> + Op1<u64, u64>>(f: &mut Form<'_, '_>) -> Lowered {
    if f.ty() == Type::Pred {
        f.inst.d = f.dst(Type::Pred)?;
        (f.inst.a, f.inst.aux) = f.src_pred()?;
        (f.inst.b, f.inst.m) = (0, 0);
        // not p = p xor true
        return f.run::<PredLogic<Xor>>();
    }
    operands1(f)?;
    for_type!(f.ty(), f, { B16 => u16, B32 => u32, B64 => u64 }, T => Map1<O, T, T>)
}

// ---- Shifts: amounts beyond the width give zero, or the sign

struct Shl;
struct Shr;

macro_rules! shifts {
    ($($t:ty),*) => {$(
        impl Op2<$t, u32, $t> for Shl {
            #[inline(always)]
            fn apply(a: $t, b: u32) -> $t {
                if b < <$t>::BITS { a << (b % <$t>::BITS) } else { 0 }
            }
        }
        impl Op2<$t, u32, $t> for Shr {
            #[inline(always)]
            fn apply(a: $t, b: u32) -> $t {
                let beyond = if Int::is_negative(a) { !0 } else { 0 };
                if b < <$t>::BITS { a >> (b % <$t>::BITS) } else { beyond }
            }
        }
    )*};
}
shifts!(u16, i16, u32, i32, u64, i64);

fn shift_operands(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    f.inst.b = f.src(Type::U32)?;
    Ok(())
}

fn shl(f: &mut Form<'_, '_>) -> Lowered {
    shift_operands(f)?;
    for_type!(f.ty(), f, { B16 => u16, B32 => u32, B64 => u64 }, T => Map2<Shl, T, u32, T>)
}

fn shr(f: &mut Form<'_, '_>) -> Lowered {
    shift_operands(f)?;
    for_type!(f.ty(), f, {
        B16 => u16, B32 => u32, B64 => u64, U16 => u16, U32 => u32, U64 => u64, S16 => i16, S32 => i32, S64 => i64
    }, T => Map2<Shr, T, u32, T>)
}

/// `[b, a]` shifted; the upper or lower word of it.
struct Funnel<const LEFT: bool, const WRAP: bool>;

impl<const LEFT: bool, const WRAP: bool> Op3<u32, u32, u32, u32> for Funnel<LEFT, WRAP> {
    #[inline(always)]
    fn apply(a: u32, b: u32, c: u32) -> u32 {
        let n = if WRAP { c & 31 } else { c.min(32) };
        let both = u64::from(b) << 32 | u64::from(a);
        (if LEFT { both << n >> 32 } else { both >> n }) as u32
    }
}

fn shf(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    f.inst.b = f.src(Type::B32)?;
    f.inst.c = f.src(Type::U32)?;
    match (f.has("l"), f.has("wrap")) {
        (true, true) => f.run::<Map3<Funnel<true, true>, u32, u32, u32, u32>>(),
        (true, false) => f.run::<Map3<Funnel<true, false>, u32, u32, u32, u32>>(),
        (false, true) => f.run::<Map3<Funnel<false, true>, u32, u32, u32, u32>>(),
        (false, false) => f.run::<Map3<Funnel<false, false>, u32, u32, u32, u32>>(),
    }
}

/// Any function of three bits; [`Inst::aux`] is its table.
struct Lop3;

impl Exec for Lop3 {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let out = lop3_lanes(warp, inst);
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

#[inline(always)]
fn lop3_lanes(warp: &Warp, inst: &Inst) -> Lanes<u32> {
    let words = &warp.regs.words;
    let (a, b, c) = (&words[inst.a as usize], &words[inst.b as usize], &words[inst.c as usize]);
    let keep: [u32; 8] = std::array::from_fn(|i| if inst.aux >> i & 1 != 0 { u32::MAX } else { 0 });
    let mut out = Lanes::default();
    for lane in 0..LANES {
        let (a, b, c) = (a.0[lane], b.0[lane], c.0[lane]);
        let choose = |select: u32, one: u32, zero: u32| zero ^ (select & (one ^ zero));
        let low = choose(b, choose(c, keep[3], keep[2]), choose(c, keep[1], keep[0]));
        let high = choose(b, choose(c, keep[7], keep[6]), choose(c, keep[5], keep[4]));
        out.0[lane] = choose(a, high, low);
    }
    out
}

/// Takes the sources and the table.
fn lop3_sources(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.a = f.src(Type::B32)?;
    f.inst.b = f.src(Type::B32)?;
    f.inst.c = f.src(Type::B32)?;
    let table = f.integer()?;
    let known = u32::try_from(table).ok().filter(|t| *t < 256);
    f.inst.aux = known.ok_or_else(|| f.fault(format!("{table} is not a table of 8 bits")))?;
    Ok(())
}

fn lop3(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B32)?;
    lop3_sources(f)?;
    f.run::<Lop3>()
}

/// As [`Lop3`], and whether the result is not zero, combined with a predicate: its slot is [`Inst::m`],
/// [`Inst::imm`] flips it.
struct Lop3Pred<const AND: bool>;

impl<const AND: bool> Exec for Lop3Pred<AND> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let out = lop3_lanes(warp, inst);
        let mut set = 0;
        for lane in 0..LANES {
            set |= u32::from(out.0[lane] != 0) << lane;
        }
        let other = warp.regs.pred(inst.m, inst.imm as u32);
        warp.regs.write(inst.d, mask, &out);
        warp.regs.write_pred(inst.p, mask, if AND { set & other } else { set | other });
        Flow::Next
    }
}

fn lop3_with_predicate(f: &mut Form<'_, '_>) -> Lowered {
    let (d, p) = f.dst_pair(Type::B32)?;
    f.inst.d = d;
    f.inst.p = p.ok_or_else(|| f.fault("`lop3` with a predicate has two results"))?;
    lop3_sources(f)?;
    let (slot, flip) = f.src_pred()?;
    (f.inst.m, f.inst.imm) = (slot, flip.into());
    if f.has("and") { f.run::<Lop3Pred<true>>() } else { f.run::<Lop3Pred<false>>() }
}

/// The byte of `[b, a]` that a selector of four bits names; bit 3 replicates its sign.
#[inline(always)]
fn selected(both: u64, selector: u32) -> u32 {
    let byte = (both >> ((selector & 7) * 8)) as u32 & 0xff;
    let sign = if byte & 0x80 != 0 { 0xff } else { 0 };
    if selector & 8 != 0 { sign } else { byte }
}

op! { Prmt(a: u32, b: u32, c: u32) -> u32 => {
    let both = u64::from(b) << 32 | u64::from(a);
    selected(both, c) | selected(both, c >> 4) << 8 | selected(both, c >> 8) << 16 | selected(both, c >> 12) << 24
} }

fn prmt_operands(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B32)?;
    f.inst.a = f.src(Type::B32)?;
    f.inst.b = f.src(Type::B32)?;
    f.inst.c = f.src(Type::B32)?;
    Ok(())
}

fn prmt(f: &mut Form<'_, '_>) -> Lowered {
    prmt_operands(f)?;
    f.run::<Map3<Prmt, u32, u32, u32, u32>>()
}

/// Selectors of the special modes, by the low two bits of `c` (PTX ISA, "prmt", tables of the modes).
const PRMT_MODES: [(&str, [u32; 4]); 6] = [
    ("f4e", [0x3210, 0x4321, 0x5432, 0x6543]),
    ("b4e", [0x5670, 0x6701, 0x7012, 0x0123]),
    ("rc8", [0x0000, 0x1111, 0x2222, 0x3333]),
    ("ecl", [0x3210, 0x3211, 0x3222, 0x3333]),
    ("ecr", [0x0000, 0x1110, 0x2210, 0x3210]),
    ("rc16", [0x1010, 0x3232, 0x1010, 0x3232]),
];

struct PrmtMode;

impl Exec for PrmtMode {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let words = &warp.regs.words;
        let (a, b, c) = (&words[inst.a as usize], &words[inst.b as usize], &words[inst.c as usize]);
        let modes = &PRMT_MODES[inst.aux as usize].1;
        let mut out = Lanes::default();
        for lane in 0..LANES {
            out.0[lane] = Prmt::apply(a.0[lane], b.0[lane], modes[(c.0[lane] & 3) as usize]);
        }
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn prmt_mode(f: &mut Form<'_, '_>) -> Lowered {
    prmt_operands(f)?;
    f.inst.aux = PRMT_MODES.iter().position(|(name, _)| f.has(name)).unwrap_or(0) as u32;
    f.run::<PrmtMode>()
}

// ---- Fields

/// Of positions and lengths, which the PTX ISA restricts to 8 bits, an H100 takes those 8 in fields of 32 bits and all
/// 32 in fields of 64, where positions and lengths beyond the field do what its text says of those beyond the field.
const fn restricted(bits: u32, value: u32) -> u32 {
    if bits == 32 { value & 0xff } else { value }
}

struct Bfe;

macro_rules! bfe {
    ($($t:ty, $u:ty;)*) => {$(
        impl Op3<$t, u32, u32, $t> for Bfe {
            #[inline(always)]
            fn apply(a: $t, b: u32, c: u32) -> $t {
                let bits = <$t>::BITS;
                let (position, len) = (restricted(bits, b), restricted(bits, c));
                let taken = len.min(bits.saturating_sub(position));
                let field = if position < bits { a as $u >> position % bits } else { 0 };
                let kept = if taken < bits { field & ((1 as $u) << (taken % bits)).wrapping_sub(1) } else { field };
                // The sign is the field's last bit, or the last bit of the source if the field runs beyond it.
                let last = position.saturating_add(len).saturating_sub(1).min(bits - 1);
                let sign = <$t as Int>::SIGNED && len > 0 && a as $u >> last & 1 != 0;
                let fill = if taken < bits { (!(0 as $u)) << (taken % bits) } else { 0 };
                (if sign { kept | fill } else { kept }) as $t
            }
        }
    )*};
}
bfe! { u32, u32; i32, u32; u64, u64; i64, u64; }

fn bfe(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    f.inst.b = f.src(Type::U32)?;
    f.inst.c = f.src(Type::U32)?;
    for_type!(f.ty(), f, { U32 => u32, S32 => i32, U64 => u64, S64 => i64 }, T => Map3<Bfe, T, u32, u32, T>)
}

/// `b` with bits of `a` inserted at position `c`, length `m`.
struct Bfi<T>(std::marker::PhantomData<T>);

macro_rules! bfi {
    ($($t:ty, $file:ident;)*) => {$(
        impl Exec for Bfi<$t> {
            #[inline(always)]
            fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
                let regs = &warp.regs;
                let (a, b) = (&regs.$file[inst.a as usize], &regs.$file[inst.b as usize]);
                let (c, d) = (&regs.words[inst.c as usize], &regs.words[inst.m as usize]);
                let bits = <$t>::BITS;
                let mut out = Lanes::default();
                for lane in 0..LANES {
                    let (position, len) = (restricted(bits, c.0[lane]), restricted(bits, d.0[lane]));
                    let ones = if len < bits { ((1 as $t) << len % bits).wrapping_sub(1) } else { !0 };
                    let field = if position < bits { ones << position % bits } else { 0 };
                    let value = if position < bits { a.0[lane] << position % bits } else { 0 };
                    out.0[lane] = (b.0[lane] & !field) | (value & field);
                }
                warp.regs.write(inst.d, mask, &out);
                Flow::Next
            }
        }
    )*};
}
bfi! { u32, words; u64, doubles; }

fn bfi(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    f.inst.c = f.src(Type::U32)?;
    f.inst.m = f.src(Type::U32)?;
    for_type!(f.ty(), f, { B32 => u32, B64 => u64 }, T => Bfi<T>)
}

// ---- Counting and searching

struct Brev;
struct Clz;
struct Popc;
/// Position of the highest bit that differs from the sign, or the shift that brings it to the top.
struct Bfind<const SHIFT: bool>;

macro_rules! counting {
    ($($t:ty),*) => {$(
        impl Op1<$t, $t> for Brev {
            #[inline(always)]
            fn apply(a: $t) -> $t {
                a.reverse_bits()
            }
        }
        impl Op1<$t, u32> for Clz {
            #[inline(always)]
            fn apply(a: $t) -> u32 {
                a.leading_zeros()
            }
        }
        impl Op1<$t, u32> for Popc {
            #[inline(always)]
            fn apply(a: $t) -> u32 {
                a.count_ones()
            }
        }
    )*};
}
counting!(u32, u64);

macro_rules! bfind {
    ($($t:ty),*) => {$(
        impl<const SHIFT: bool> Op1<$t, u32> for Bfind<SHIFT> {
            #[inline(always)]
            fn apply(a: $t) -> u32 {
                let zeros = (if Int::is_negative(a) { !a } else { a }).leading_zeros();
                let found = if SHIFT { zeros } else { (<$t>::BITS - 1).wrapping_sub(zeros) };
                if zeros == <$t>::BITS { u32::MAX } else { found }
            }
        }
    )*};
}
bfind!(u32, i32, u64, i64);

fn brev(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    for_type!(f.ty(), f, { B32 => u32, B64 => u64 }, T => Map1<Brev, T, T>)
}

fn to_word_operands(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(Type::U32)?;
    f.inst.a = f.src(ty)?;
    Ok(())
}

fn count<O: Op1<u32, u32> + Op1<u64, u32>>(f: &mut Form<'_, '_>) -> Lowered {
    to_word_operands(f)?;
    for_type!(f.ty(), f, { B32 => u32, B64 => u64 }, T => Map1<O, T, u32>)
}

fn bfind(f: &mut Form<'_, '_>) -> Lowered {
    to_word_operands(f)?;
    if f.has("shiftamt") {
        return for_type!(f.ty(), f, { U32 => u32, S32 => i32, U64 => u64, S64 => i64 }, T => Map1<Bfind<true>, T, u32>);
    }
    for_type!(f.ty(), f, { U32 => u32, S32 => i32, U64 => u64, S64 => i64 }, T => Map1<Bfind<false>, T, u32>)
}

op! { Fns(mask: u32, base: u32, offset: i32) -> u32 => {
    let base = base & 31;
    if offset == 0 {
        if mask >> base & 1 != 0 { base } else { u32::MAX }
    } else {
        let (mut at, mut left) = (i64::from(base), offset.unsigned_abs());
        let step = if offset > 0 { 1 } else { -1 };
        // The bit at the base itself is the first one.
        loop {
            if !(0..32).contains(&at) {
                break u32::MAX;
            }
            if mask >> at & 1 != 0 {
                left -= 1;
                if left == 0 {
                    break at as u32;
                }
            }
            at += step;
        }
    }
} }

fn fns(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B32)?;
    f.inst.a = f.src(Type::B32)?;
    f.inst.b = f.src(Type::B32)?;
    f.inst.c = f.src(Type::S32)?;
    f.run::<Map3<Fns, u32, u32, i32, u32>>()
}

/// `b` ones from position `a`.
struct Bmsk<const WRAP: bool>;

impl<const WRAP: bool> Op2<u32, u32, u32> for Bmsk<WRAP> {
    #[inline(always)]
    fn apply(a: u32, b: u32) -> u32 {
        let (a, b) = if WRAP { (a & 31, b & 31) } else { (a.min(32), b.min(32)) };
        ((((1u64 << b) - 1) << a) & 0xffff_ffff) as u32
    }
}

fn bmsk(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    if f.has("wrap") {
        return f.run::<Map2<Bmsk<true>, u32, u32, u32>>();
    }
    f.run::<Map2<Bmsk<false>, u32, u32, u32>>()
}

/// The low `b` bits of `a`, extended by zeros or by their sign.
struct Szext<const WRAP: bool>;

impl<const WRAP: bool> Op2<u32, u32, u32> for Szext<WRAP> {
    #[inline(always)]
    fn apply(a: u32, b: u32) -> u32 {
        let n = if WRAP { b & 31 } else { b.min(32) };
        (u64::from(a) & ((1u64 << n) - 1)) as u32
    }
}

impl<const WRAP: bool> Op2<i32, u32, i32> for Szext<WRAP> {
    #[inline(always)]
    fn apply(a: i32, b: u32) -> i32 {
        let n = if WRAP { b & 31 } else { b.min(32) };
        if n == 0 { 0 } else { a << (32 - n) >> (32 - n) }
    }
}

fn szext(f: &mut Form<'_, '_>) -> Lowered {
    operands1(f)?;
    f.inst.b = f.src(Type::U32)?;
    match (f.ty(), f.has("wrap")) {
        (Type::U32, true) => f.run::<Map2<Szext<true>, u32, u32, u32>>(),
        (Type::U32, false) => f.run::<Map2<Szext<false>, u32, u32, u32>>(),
        (_, true) => f.run::<Map2<Szext<true>, i32, u32, i32>>(),
        (_, false) => f.run::<Map2<Szext<false>, i32, u32, i32>>(),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::eval;

    #[test]
    fn logic_and_shifts() {
        assert_eq!(eval("and.b32 %d, %a, %b;", &[0b1100, 0b1010]), 0b1000);
        assert_eq!(eval("or.b32 %d, %a, %b;", &[0b1100, 0b1010]), 0b1110);
        assert_eq!(eval("xor.b32 %d, %a, %b;", &[0b1100, 0b1010]), 0b0110);
        assert_eq!(eval("not.b32 %d, %a;", &[0]), u32::MAX);
        assert_eq!(eval("cnot.b32 %d, %a;", &[0]), 1);
        assert_eq!(eval("shl.b32 %d, %a, %b;", &[3, 31]), 1 << 31);
        assert_eq!(eval("shl.b32 %d, %a, %b;", &[3, 32]), 0);
        assert_eq!(eval("shr.u32 %d, %a, %b;", &[1 << 31, 40]), 0);
        assert_eq!(eval("shr.s32 %d, %a, %b;", &[1 << 31, 40]), u32::MAX);
        assert_eq!(eval("shf.l.wrap.b32 %d, %a, %b, %c;", &[0x8000_0000, 1, 1]), 3);
        assert_eq!(eval("shf.r.clamp.b32 %d, %a, %b, %c;", &[1, 7, 99]), 7);
        assert_eq!(
            eval("lop3.b32 %d, %a, %b, %c, 0xe8;", &[0b1100, 0b1010, 0b1001]),
            0b1000 | 0b1000
        );
        assert_eq!(eval("lop3.b32 %d, %a, %b, %c, 0x96;", &[0b1100, 0b1010, 0b0111]), 0b0001);
    }

    #[test]
    fn permutations() {
        let (a, b) = (0x3322_1100, 0x7766_5544);
        assert_eq!(eval("prmt.b32 %d, %a, %b, %c;", &[a, b, 0x7531]), 0x7755_3311);
        assert_eq!(eval("prmt.b32 %d, %a, %b, 0x5410;", &[a, b]), 0x5544_1100);
        assert_eq!(eval("prmt.b32 %d, %a, %b, %c;", &[0x80, b, 0x0008]), 0x8080_80ff);
        assert_eq!(eval("prmt.b32.f4e %d, %a, %b, %c;", &[a, b, 1]), 0x4433_2211);
        assert_eq!(eval("prmt.b32.rc16 %d, %a, %b, %c;", &[a, b, 1]), 0x3322_3322);
    }

    #[test]
    fn fields() {
        assert_eq!(eval("bfe.u32 %d, %a, 4, 8;", &[0x0000_0ab0]), 0xab);
        assert_eq!(eval("bfe.s32 %d, %a, 4, 8;", &[0x0000_0ab0]), 0xffff_ffab);
        assert_eq!(eval("bfe.s32 %d, %a, 28, 8;", &[0x8000_0000]), 0xffff_fff8);
        assert_eq!(eval("bfe.u32 %d, %a, 0, 0;", &[5]), 0);
        assert_eq!(eval("bfe.u32 %d, %a, 0, 32;", &[0x8000_0005]), 0x8000_0005);
        assert_eq!(eval("bfi.b32 %d, %a, %b, 8, 8;", &[0x1ff, 0x1111_1111]), 0x1111_ff11);
        assert_eq!(eval("brev.b32 %d, %a;", &[1]), 1 << 31);
        assert_eq!(eval("clz.b32 %d, %a;", &[1]), 31);
        assert_eq!(eval("popc.b32 %d, %a;", &[0xf0f]), 8);
        assert_eq!(eval("bfind.u32 %d, %a;", &[0x10]), 4);
        assert_eq!(eval("bfind.s32 %d, %a;", &[u32::MAX]), u32::MAX);
        assert_eq!(eval("bfind.shiftamt.u32 %d, %a;", &[0x10]), 27);
        assert_eq!(eval("fns.b32 %d, %a, 0, 2;", &[0b1010]), 3);
        assert_eq!(eval("bmsk.clamp.b32 %d, %a, %b;", &[4, 8]), 0xff0);
        assert_eq!(eval("szext.clamp.s32 %d, %a, %b;", &[0xff, 8]), u32::MAX);
    }
}
