//! Video instructions (PTX ISA, "Video Instructions"): parts of words are extended, combined, saturated, and then added
//! to a third operand or put into a part of it. What lies between is exact, wider than any register.

use super::Lowered;
use crate::error::Fault;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Lanes, Mask};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::parse::ast::Operand;
use crate::types::Type;

/// The syntax of a scalar instruction, and of one on the halves or bytes of a word.
macro_rules! scalar {
    ($opcode:literal) => {
        concat!($opcode, ".u32|s32.u32|s32.u32|s32[.sat][.add|min|max] d, a, b, c")
    };
}
macro_rules! packed {
    ($opcode:literal) => {
        concat!($opcode, ".u32|s32.u32|s32.u32|s32[.sat|add] d, a, b, c")
    };
}

pub(crate) const ROWS: &[Row] = &[
    row(scalar!("vadd"), scalar),
    row(scalar!("vsub"), scalar),
    row(scalar!("vabsdiff"), scalar),
    row(scalar!("vmin"), scalar),
    row(scalar!("vmax"), scalar),
    row("vshl.u32|s32.u32|s32.u32[.sat].clamp|wrap[.add|min|max] d, a, b, c", scalar),
    row("vshr.u32|s32.u32|s32.u32[.sat].clamp|wrap[.add|min|max] d, a, b, c", scalar),
    row("vset.u32|s32.u32|s32.eq|ne|lt|le|gt|ge[.add|min|max] d, a, b, c", scalar),
    row("vmad.u32|s32.u32|s32.u32|s32[.po][.sat][.shr7|shr15] d, a, b, c", multiply),
    row(packed!("vadd2"), packed::<2>),
    row(packed!("vsub2"), packed::<2>),
    row(packed!("vavrg2"), packed::<2>),
    row(packed!("vabsdiff2"), packed::<2>),
    row(packed!("vmin2"), packed::<2>),
    row(packed!("vmax2"), packed::<2>),
    row("vset2.u32|s32.u32|s32.eq|ne|lt|le|gt|ge[.add] d, a, b, c", packed::<2>),
    row(packed!("vadd4"), packed::<4>),
    row(packed!("vsub4"), packed::<4>),
    row(packed!("vavrg4"), packed::<4>),
    row(packed!("vabsdiff4"), packed::<4>),
    row(packed!("vmin4"), packed::<4>),
    row(packed!("vmax4"), packed::<4>),
    row("vset4.u32|s32.u32|s32.eq|ne|lt|le|gt|ge[.add] d, a, b, c", packed::<4>),
];

/// Combines two numbers of at most 33 bits.
type Combine = fn(i128, i128) -> i128;

/// All operations, by opcode or comparison.
const OPERATIONS: &[(&str, Combine)] = &[
    ("vadd", |a, b| a + b),
    ("vsub", |a, b| a - b),
    // Halves round up where the sum is not negative, and down elsewhere.
    ("vavrg", |a, b| (a + b + i128::from(a + b >= 0)) >> 1),
    ("vabsdiff", |a, b| (a - b).abs()),
    ("vmin", i128::min),
    ("vmax", i128::max),
    ("vshl", |a, b| a << b),
    ("vshr", |a, b| a >> b),
    ("eq", |a, b| (a == b).into()),
    ("ne", |a, b| (a != b).into()),
    ("lt", |a, b| (a < b).into()),
    ("le", |a, b| (a <= b).into()),
    ("gt", |a, b| (a > b).into()),
    ("ge", |a, b| (a >= b).into()),
];

/// The number of the operation that the instruction names, among [`OPERATIONS`].
fn operation(f: &Form<'_, '_>) -> Result<u32, Fault> {
    let opcode = f.ins.opcode.trim_end_matches(['2', '4']);
    let named = |name| if opcode == "vset" { f.has(name) } else { opcode == name };
    let found = OPERATIONS.iter().position(|(name, _)| named(name));
    Ok(found.ok_or_else(|| f.fault("no such video instruction"))? as u32)
}

/// Flags in [`Inst::aux`].
const SIGNED_A: u32 = 1;
const SIGNED_B: u32 = 2;
const SIGNED_D: u32 = 4;
const SATURATES: u32 = 8;
const ADDS: u32 = 16;
const TAKES_MIN: u32 = 32;
const TAKES_MAX: u32 = 64;
const MERGES: u32 = 128;
const WRAPS: u32 = 256;
/// Of a product.
const SUBTRACTS: u32 = 512;
const NEGATES_C: u32 = 1024;
const PLUS_ONE: u32 = 2048;

/// What the modifiers say; the result of a comparison is unsigned.
fn flags(f: &Form<'_, '_>) -> u32 {
    let (types, compares) = (f.types(), f.ins.opcode.starts_with("vset"));
    let (d, a) = if compares { (Type::U32, types[0]) } else { (types[0], types[1]) };
    [
        (SIGNED_A, a == Type::S32),
        (SIGNED_B, f.ty() == Type::S32),
        (SIGNED_D, d == Type::S32),
        (SATURATES, f.has("sat")),
        (ADDS, f.has("add")),
        (TAKES_MIN, f.has("min")),
        (TAKES_MAX, f.has("max")),
        (WRAPS, f.has("wrap")),
        (PLUS_ONE, f.has("po")),
    ]
    .into_iter()
    .fold(0, |all, (flag, set)| if set { all | flag } else { all })
}

/// `bits` bits of a word from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: u32,
    bits: u32,
}

const WORD: Part = Part { first: 0, bits: 32 };

impl Part {
    /// `b2` or `h1`
    fn parse(name: &str) -> Option<Part> {
        let index: u32 = name.get(1..)?.parse().ok()?;
        let bits = if name.starts_with('b') { 8 } else { 16 };
        let known = name.len() == 2 && name.starts_with(['b', 'h']) && index < 32 / bits;
        known.then_some(Part { first: bits * index, bits })
    }

    fn pack(self) -> u32 {
        self.first << 8 | self.bits
    }

    fn unpack(packed: u32) -> Part {
        Part { first: packed >> 8, bits: packed & 0xff }
    }

    /// The part of a word, extended.
    fn of(self, word: u32, signed: bool) -> i128 {
        let unused = 32 - self.bits;
        let top = word >> self.first << unused;
        if signed { (top as i32 >> unused).into() } else { (top >> unused).into() }
    }

    /// The nearest value that the part can hold.
    fn saturate(self, value: i128, signed: bool) -> i128 {
        let (low, high) = if signed {
            (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)
        } else {
            (0, (1 << self.bits) - 1)
        };
        value.clamp(low, high)
    }

    /// `into` with the part replaced by the low bits of `value`.
    fn put(self, value: i128, into: u32) -> u32 {
        let mask = u32::MAX >> (32 - self.bits) << self.first;
        into & !mask | (value as u32) << self.first & mask
    }
}

/// An operand with the name of a part behind it, if it has one.
fn selected<'s>(operand: &Operand<'s>) -> (Operand<'s>, Option<&'s str>) {
    match *operand {
        Operand::Component(name, part) if part.starts_with(['b', 'h']) => {
            (Operand::Name(name), Some(part))
        }
        Operand::Negated(name, part) => (Operand::Name(name), part),
        ref other => (other.clone(), None),
    }
}

/// The part that an operand names, and the operand without it.
fn part_of<'s>(f: &Form<'_, 's>, operand: &Operand<'s>) -> Result<(Operand<'s>, Part), Fault> {
    let (rest, name) = selected(operand);
    let part = name.map_or(Some(WORD), Part::parse);
    let unknown = || f.fault(format!("`.{}` is no part of a word", name.unwrap_or_default()));
    Ok((rest, part.ok_or_else(unknown)?))
}

/// A source of which a part counts: its slot, and the part.
fn source(f: &mut Form<'_, '_>) -> Result<(u32, u32), Fault> {
    let operand = f.take()?;
    let (operand, part) = part_of(f, operand)?;
    Ok((f.source_of(&operand, Type::U32)?, part.pack()))
}

fn scalar(f: &mut Form<'_, '_>) -> Lowered {
    let operand = f.take()?;
    let (operand, part) = part_of(f, operand)?;
    f.inst.d = f.dst_of(&operand, Type::U32)?;
    let (a, part_a) = source(f)?;
    let (b, part_b) = source(f)?;
    (f.inst.a, f.inst.b, f.inst.c) = (a, b, b);
    f.inst.aux = flags(f);
    let second = f.inst.aux & (ADDS | TAKES_MIN | TAKES_MAX) != 0;
    if part != WORD {
        if second {
            return Err(f.fault("a result is put into a part or combined, not both"));
        }
        f.inst.aux |= MERGES;
    }
    if second || part != WORD {
        f.inst.c = f.src(Type::U32)?;
    }
    f.inst.list = Box::new([operation(f)?, part_a, part_b, part.pack()]);
    f.run::<Scalar>()
}

/// [`Inst::list`] holds the operation and the parts of the sources and of the result.
struct Scalar;

impl Exec for Scalar {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let has = |flag| inst.aux & flag != 0;
        let (name, combine) = OPERATIONS[inst.list[0] as usize];
        let [part_a, part_b, part_d] = [1, 2, 3].map(|index| Part::unpack(inst.list[index]));
        let [a, b, c] = [inst.a, inst.b, inst.c].map(|slot| warp.regs.words[slot as usize]);
        let apply = |lane: usize| {
            let mut right = part_b.of(b.0[lane], has(SIGNED_B));
            if matches!(name, "vshl" | "vshr") {
                right = if has(WRAPS) { right & 31 } else { right.min(32) };
            }
            let mut value = combine(part_a.of(a.0[lane], has(SIGNED_A)), right);
            if has(SATURATES) {
                value = part_d.saturate(value, has(SIGNED_D));
            }
            let third = WORD.of(c.0[lane], has(SIGNED_D));
            match () {
                () if has(MERGES) => return part_d.put(value, c.0[lane]),
                () if has(ADDS) => value += third,
                () if has(TAKES_MIN) => value = value.min(third),
                () if has(TAKES_MAX) => value = value.max(third),
                () => {}
            }
            value as u32
        };
        let out = Lanes(std::array::from_fn(apply));
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn multiply(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::U32)?;
    let negative: Vec<bool> =
        f.ins.operands.iter().map(|o| matches!(o, Operand::Negated(..))).collect();
    let [_, minus_a, minus_b, minus_c] = negative[..] else {
        return Err(f.fault("`vmad` takes 4 operands"));
    };
    let minus_product = minus_a != minus_b;
    if f.has("po") && (minus_a || minus_b || minus_c) || minus_product && minus_c {
        return Err(f.fault("at most one of product, third operand and `.po` changes the sum"));
    }
    let (a, part_a) = source(f)?;
    let (b, part_b) = source(f)?;
    let (c, part_c) = source(f)?;
    if part_c != WORD.pack() {
        return Err(f.fault("the third operand is a whole word"));
    }
    (f.inst.a, f.inst.b, f.inst.c) = (a, b, c);
    f.inst.aux =
        flags(f) | if minus_product { SUBTRACTS } else { 0 } | if minus_c { NEGATES_C } else { 0 };
    f.inst.m = f.pick(&[("shr7", 7), ("shr15", 15)]).unwrap_or(0);
    f.inst.list = Box::new([part_a, part_b]);
    f.run::<Multiply>()
}

/// A product and a sum, shifted to the right by [`Inst::m`]; [`Inst::list`] holds the parts of the factors.
struct Multiply;

impl Exec for Multiply {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let has = |flag| inst.aux & flag != 0;
        let signed = has(SIGNED_A) || has(SIGNED_B) || has(SUBTRACTS) || has(NEGATES_C);
        let [part_a, part_b] = [0, 1].map(|index| Part::unpack(inst.list[index]));
        let [a, b, c] = [inst.a, inst.b, inst.c].map(|slot| warp.regs.words[slot as usize]);
        let apply = |lane: usize| {
            let product = part_a.of(a.0[lane], has(SIGNED_A)) * part_b.of(b.0[lane], has(SIGNED_B));
            let product = if has(SUBTRACTS) { -product } else { product };
            // The complement of the word plus one, as the ISA has it: the least number stays what it is.
            let third = if has(NEGATES_C) { !c.0[lane] } else { c.0[lane] };
            let ones = i128::from(has(NEGATES_C)) + i128::from(has(PLUS_ONE));
            let sum = product + WORD.of(third, signed) + ones;
            let sum = sum >> inst.m;
            (if has(SATURATES) { WORD.saturate(sum, signed) } else { sum }) as u32
        };
        let out = Lanes(std::array::from_fn(apply));
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

/// The digits behind `.h` or `.b`, the last one for the lowest element.
fn digits<const N: usize>(f: &Form<'_, '_>, name: &str, limit: u32) -> Result<Vec<u32>, Fault> {
    let unknown = || f.fault(format!("`.{name}` names no elements of this instruction"));
    let rest = name.strip_prefix(if N == 2 { 'h' } else { 'b' }).ok_or_else(unknown)?;
    let digits: Option<Vec<u32>> = rest.chars().rev().map(|c| c.to_digit(limit)).collect();
    digits.filter(|d| !d.is_empty() && d.len() <= N).ok_or_else(unknown)
}

/// A source of N elements, each one of the 2 N of both sources: its slot, and which they are, four bits each.
fn elements<const N: usize>(f: &mut Form<'_, '_>, first: u32) -> Result<(u32, u32), Fault> {
    let operand = f.take()?;
    let (operand, name) = selected(operand);
    let chosen = match name {
        Some(name) => digits::<N>(f, name, 2 * N as u32)?,
        None => (first..first + N as u32).collect(),
    };
    if chosen.len() != N {
        return Err(f.fault(format!("{N} elements of the sources have to be named")));
    }
    let packed = chosen.iter().rev().fold(0, |all, digit| all << 4 | digit);
    Ok((f.source_of(&operand, Type::U32)?, packed))
}

fn packed<const N: usize>(f: &mut Form<'_, '_>) -> Lowered {
    let operand = f.take()?;
    let (operand, name) = selected(operand);
    let written = match name {
        Some(name) => digits::<N>(f, name, N as u32)?,
        None => (0..N as u32).collect(),
    };
    if !written.is_sorted_by(|low, high| low < high) {
        return Err(f.fault("the elements of the result are named from the highest to the lowest"));
    }
    f.inst.d = f.dst_of(&operand, Type::U32)?;
    let (a, from_a) = elements::<N>(f, 0)?;
    let (b, from_b) = elements::<N>(f, N as u32)?;
    (f.inst.a, f.inst.b) = (a, b);
    f.inst.c = f.src(Type::U32)?;
    f.inst.aux = flags(f);
    let written = written.iter().fold(0, |mask, element| mask | 1 << element);
    f.inst.list = Box::new([operation(f)?, from_a, from_b, written]);
    f.run::<Packed<N>>()
}

/// [`Inst::list`] holds the operation, the elements that each source is made of, and a mask of those that are written.
struct Packed<const N: usize>;

impl<const N: usize> Exec for Packed<N> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let has = |flag| inst.aux & flag != 0;
        let (_, combine) = OPERATIONS[inst.list[0] as usize];
        let (from_a, from_b, written) = (inst.list[1], inst.list[2], inst.list[3]);
        let [a, b, c] = [inst.a, inst.b, inst.c].map(|slot| warp.regs.words[slot as usize]);
        let (bits, count) = (32 / N as u32, N as u32);
        let part = |index: u32| Part { first: bits * index, bits };
        let apply = |lane: usize| {
            let element = |chosen: u32, index: u32, signed: bool| {
                let number = chosen >> (4 * index) & 15;
                let word = if number < count { a.0[lane] } else { b.0[lane] };
                part(number % count).of(word, signed)
            };
            let mut out = c.0[lane];
            for index in (0..count).filter(|index| written >> index & 1 != 0) {
                let left = element(from_a, index, has(SIGNED_A));
                let mut value = combine(left, element(from_b, index, has(SIGNED_B)));
                if has(SATURATES) {
                    value = part(index).saturate(value, has(SIGNED_D));
                }
                out = if has(ADDS) {
                    out.wrapping_add(value as u32)
                } else {
                    part(index).put(value, out)
                };
            }
            out
        };
        let out = Lanes(std::array::from_fn(apply));
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::eval;

    #[test]
    fn parts_are_extended_and_merged() {
        let inputs = [0x80ff_7f01, 0x0001_0180, 0x1111_1111];
        let is = |text: &str, want: u32| assert_eq!(eval(text, &inputs), want, "{text}");
        is("vadd.s32.s32.s32 %d, %a.b2, %b.b0;", -129i32 as u32);
        is("vadd.u32.u32.u32 %d, %a.b2, %b.b0;", 0xff + 0x80);
        is("vsub.s32.u32.s32 %d.h1, %a.h0, %b.b0, %c;", 0x7f81_1111);
        is("vadd.s32.s32.s32.sat %d.b3, %a.b2, %b.b0, %c;", 0x8011_1111);
        is("vabsdiff.u32.s32.s32.add %d, %a.h1, %b.h1, %c;", 0x1111_1111 + 0x7f02);
        is("vmax.s32.s32.u32.min %d, %a, %b.b0, %c;", 0x80);
        is("vset.s32.u32.lt.add %d, %a.b3, %b.b0, %c;", 0x1111_1112);
        is("vset.u32.u32.lt %d.b1, %a.b3, %b.b0, %c;", 0x1111_0011);
        is("vshl.u32.u32.u32.sat.clamp %d, %a.h1, %b.b1;", 0x1_01fe);
        is("vshl.u32.u32.u32.clamp %d, %a, %b.b0;", 0);
        is("vshr.s32.s32.u32.wrap %d, %a, %b.b0;", 0x80ff_7f01);
        is("vshr.s32.s32.u32.clamp %d, %a, %b.b0;", u32::MAX);
    }

    #[test]
    fn products_are_scaled_and_saturate() {
        let is = |text: &str, inputs: [u32; 3], want: u32| {
            assert_eq!(eval(text, &inputs), want, "{text} of {inputs:x?}");
        };
        is("vmad.s32.s32.s32 %d, %a.h0, -%b.h0, %c;", [0xfffe, 3, 10], 16);
        is("vmad.u32.u32.u32.po %d, %a.b1, %b.b0, %c;", [0xff00, 0xff, 7], 255 * 255 + 8);
        is("vmad.s32.u32.u32 %d, %a, %b, -%c;", [3, 5, 20], -5i32 as u32);
        is("vmad.u32.u32.u32.sat %d, %a, %b, %c;", [1 << 20, 1 << 20, 0], u32::MAX);
        is("vmad.s32.s32.s32.sat %d, %a, %b, %c;", [u32::MAX << 20, 1 << 20, 0], 1 << 31);
        is("vmad.u32.u32.u32.shr15 %d, %a, %b, %c;", [1 << 20, 1 << 20, 1 << 15], (1 << 25) + 1);
        is("vmad.s32.s32.s32.shr7 %d, %a, %b, %c;", [-1i32 as u32, 1, 0], u32::MAX);
    }

    #[test]
    fn elements_are_chosen_from_both_words() {
        let inputs = [0x8001_7fff, 0x0003_8000, 0x0101_0101];
        let is = |text: &str, want: u32| assert_eq!(eval(text, &inputs), want, "{text}");
        is("vadd2.s32.s32.s32 %d, %a, %b, %c;", 0x8004_ffff);
        is("vadd2.s32.s32.s32.sat %d, %a.h00, %b.h33, %c;", 0x7fff_7fff);
        is("vadd2.u32.u32.u32.add %d.h1, %a, %b, %c;", 0x0101_0101 + 0x8004);
        is("vsub2.s32.u32.u32.add %d, %a, %b, %c;", 0x0101_0101 + 0x7ffe - 1);
        is("vavrg2.s32.s32.s32 %d.h0, %a, %b, %c;", 0x0101_ffff);
        is("vabsdiff4.u32.u32.u32.add %d, %a, %b, %c;", 0x0101_0101 + 0x80 + 2 + 1 + 0xff);
        is("vmax4.s32.s32.s32 %d.b310, %a.b7777, %b.b3210, %c;", 0x0001_7f00);
        is("vset4.u32.u32.ge %d.b21, %a, %b, %c;", 0x0100_0001);
        is("vset2.u32.s32.lt.add %d, %a, %b, %c;", 0x0101_0101);
    }
}
