//! Integers saturated to a few bits and packed (PTX ISA, "Data Movement and Conversion Instructions: cvt.pack").

use super::Lowered;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("cvt.pack.sat.u16|s16.s32 d, a, b", pack).from_sm(72),
    row("cvt.pack.sat.u8|s8.s32.b32 d, a, b, c", pack).from_sm(72),
    row("cvt.pack.sat.u4|s4|u2|s2.s32.b32 d, a, b, c", pack).from_sm(75),
];

/// Name, bits and sign of what is packed.
const PARTS: [(&str, (u32, bool)); 8] = [
    ("u16", (16, false)),
    ("s16", (16, true)),
    ("u8", (8, false)),
    ("s8", (8, true)),
    ("u4", (4, false)),
    ("s4", (4, true)),
    ("u2", (2, false)),
    ("s2", (2, true)),
];

/// `b` in the low bits, `a` above it, above both the low bits of `c`. [`Inst::m`] is the size of a
/// part, [`Inst::aux`] is 1 for signed parts.
struct Pack;

impl Exec for Pack {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let words = &warp.regs.words;
        let (a, b, c) = (&words[inst.a as usize], &words[inst.b as usize], &words[inst.c as usize]);
        let size = inst.m;
        let ones = (1i32 << size) - 1;
        let (min, max) = if inst.aux != 0 { (-(ones >> 1) - 1, ones >> 1) } else { (0, ones) };
        let part = |word: u32| ((word as i32).clamp(min, max) & ones) as u32;
        let mut out = Lanes::default();
        for lane in 0..LANES {
            let above = if size < 16 { c.0[lane] << (2 * size) } else { 0 };
            out.0[lane] = above | part(a.0[lane]) << size | part(b.0[lane]);
        }
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn pack(f: &mut Form<'_, '_>) -> Lowered {
    let (size, signed) = f.pick(&PARTS).ok_or_else(|| f.fault("`cvt.pack` without a type"))?;
    f.inst.d = f.dst(Type::U32)?;
    f.inst.a = f.src(Type::S32)?;
    f.inst.b = f.src(Type::S32)?;
    f.inst.c = if size < 16 { f.src(Type::B32)? } else { f.inst.b };
    (f.inst.m, f.inst.aux) = (size, signed.into());
    f.run::<Pack>()
}

#[cfg(test)]
mod tests {
    use crate::testing::eval;

    #[test]
    fn parts_are_clamped_and_pushed_up() {
        let minus = |x: i32| -x as u32;
        assert_eq!(eval("cvt.pack.sat.s16.s32 %d, %a, %b;", &[70_000, minus(2)]), 0x7fff_fffe);
        assert_eq!(
            eval("cvt.pack.sat.u8.s32.b32 %d, %a, %b, %c;", &[300, minus(1), 0x1234_5678]),
            0x5678_ff00
        );
        assert_eq!(eval("cvt.pack.sat.s4.s32.b32 %d, %a, %b, %c;", &[minus(9), 3, 0x12]), 0x1283);
        assert_eq!(eval("cvt.pack.sat.u2.s32.b32 %d, %a, %b, 0;", &[1, 9]), 0b0111);
    }
}
