//! Conversions among numbers (PTX ISA, "Data Movement and Conversion Instructions: cvt").

use super::exact;
use super::float::quiet;
use super::half::{Brain, Half};
use super::number::{Rounding, brain_from, brain_value, half_from, half_value, to_single};
use super::{Lowered, Map1, Map2, Op1, masked, op};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, Ftz, LANES, Lanes, Mask, Value, flush};
use crate::exec::warp::Warp;
use crate::exec::wide;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::{Class, Kind, Type};

pub(crate) const ROWS: &[Row] = &[
    row(
        "cvt[.rn|rz|rm|rp|rni|rzi|rmi|rpi][.ftz][.sat].u8|s8|u16|s16|u32|s32|u64|s64|f16|bf16|f32|f64.u8|s8|u16|s16|u32|s32|u64|s64|f16|bf16|f32|f64 d, a",
        cvt,
    ),
    row("cvt.rn|rz[.relu][.satfinite].f16|bf16.f32 d, a", narrow_one).from_sm(80),
    row("cvt.rn|rz.satfinite.relu.f16|bf16.f32 d, a", narrow_one).from_sm(80),
    row("cvt.rn|rz[.relu][.satfinite].f16x2|bf16x2.f32 d, a, b", narrow_two).from_sm(80),
    row("cvt.rn|rz.satfinite.relu.f16x2|bf16x2.f32 d, a, b", narrow_two).from_sm(80),
    row("cvt.rna[.satfinite].tf32.f32 d, a", tensor_float).from_sm(80),
    row("cvt.rn|rz[.relu].tf32.f32 d, a", tensor_float).from_sm(90),
    row("cvt.rn|rz.satfinite[.relu].tf32.f32 d, a", tensor_float).from_sm(100),
];

// ---- The general case, one lane at a time

/// The types of `cvt`; an instruction holds indices into this.
const TYPES: [Type; 12] = [
    Type::U8,
    Type::S8,
    Type::U16,
    Type::S16,
    Type::U32,
    Type::S32,
    Type::U64,
    Type::S64,
    Type::F16,
    Type::Bf16,
    Type::F32,
    Type::F64,
];

/// How a general conversion is done.
#[derive(Clone, Copy)]
struct Plan {
    from: Type,
    to: Type,
    rounding: Rounding,
    ftz: bool,
    sat: bool,
    /// A float keeps its type and is not rounded.
    keep: bool,
}

/// A number between its two types: integers fit i128, floats are exact in f64.
enum Number {
    Int(i128),
    Float(f64),
}

impl Plan {
    fn of(inst: &Inst) -> Plan {
        Plan {
            from: TYPES[inst.p as usize % TYPES.len()],
            to: TYPES[inst.m as usize % TYPES.len()],
            rounding: Rounding::from_code(inst.aux & 7),
            ftz: inst.aux & 8 != 0,
            sat: inst.aux & 16 != 0,
            keep: inst.aux & KEEP != 0,
        }
    }

    fn read(self, raw: u64) -> Number {
        // Flushing makes a NaN the canonical one of f32 on the way.
        let ftz = |x: f32| if self.ftz { f32::from_bits(Ftz(x).put()) } else { x };
        let bits = self.from.bits();
        match self.from {
            Type::F16 => Number::Float(half_value(raw as u32 & 0xffff).into()),
            Type::Bf16 => Number::Float(brain_value(raw as u32 & 0xffff).into()),
            Type::F32 => Number::Float(ftz(f32::from_bits(raw as u32)).into()),
            Type::F64 => Number::Float(f64::from_bits(raw)),
            _ if self.from.kind() == Kind::Signed => {
                Number::Int(((raw << (64 - bits)) as i64 >> (64 - bits)).into())
            }
            _ => Number::Int((raw << (64 - bits) >> (64 - bits)).into()),
        }
    }

    fn apply(self, raw: u64) -> u64 {
        match (self.read(raw), self.to.kind()) {
            (Number::Int(x), Kind::Float) if self.to == Type::F64 => self.double(x),
            (Number::Int(x), Kind::Float) => self.float(int_to_double_odd(x)),
            (Number::Int(x), _) => (if self.sat { self.clamp(x) } else { x }) as u64,
            (Number::Float(x), Kind::Float) => self.float(x),
            (Number::Float(x), _) => self.integer(x),
        }
    }

    fn clamp(self, x: i128) -> i128 {
        let bits = self.to.bits();
        match self.to.kind() {
            Kind::Signed => x.clamp(-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
            _ => x.clamp(0, (1 << bits) - 1),
        }
    }

    fn integer(self, x: f64) -> u64 {
        if x.is_nan() {
            let wide = self.from == Type::F64 || self.to.bits() == 64;
            return if wide { 1 << (self.to.bits() - 1) } else { 0 };
        }
        // `as` saturates at i128, far outside of every type.
        self.clamp(rounded_to_integer(x, self.rounding) as i128) as u64
    }

    fn double(self, x: i128) -> u64 {
        let bits = exact::Number::of_integer(x).to_bits(self.rounding);
        if self.sat { f64::from_bits(bits).clamp(0.0, 1.0).to_bits() } else { bits }
    }

    /// An f64 that is NaN made quiet, and cut to the type: its sign and the upper bits of its fraction stay (H100).
    fn narrow_nan(self, nan: f64) -> u64 {
        let bits = quiet(nan).to_bits();
        let cut = |to_bits: u32, exponent: u32| {
            let fraction = bits & ((1 << 52) - 1);
            let kept = to_bits - 1 - exponent;
            let ones = ((1 << exponent) - 1) << kept;
            bits >> 63 << (to_bits - 1) | ones | fraction >> (52 - kept)
        };
        match self.to {
            Type::F64 => bits,
            Type::F32 => cut(32, 8),
            Type::F16 => cut(16, 5),
            _ => cut(16, 8),
        }
    }

    fn float(self, x: f64) -> u64 {
        // Between floats of one type the rounding is to an integral value.
        let integral = self.from == self.to && !self.keep;
        let x = if integral { rounded_to_integer(x, self.rounding) } else { x };
        if x.is_nan() && self.from == Type::F64 && !self.sat && !self.keep {
            return self.narrow_nan(x);
        }
        let x = match self.sat {
            true if x > 0.0 => x.min(1.0),
            true => 0.0,
            false => x,
        };
        let ftz = |x: f32| if self.ftz { flush(x) } else { x };
        match self.to {
            Type::F64 => x.to_bits(),
            Type::F32 => ftz(to_single(x, self.rounding)).put().into(),
            Type::F16 => narrow(x, self.rounding, half_from, half_value).into(),
            _ => narrow(x, self.rounding, brain_from, brain_value).into(),
        }
    }
}

/// An integer as a double, rounded to odd where 53 bits do not hold it.
fn int_to_double_odd(x: i128) -> f64 {
    let magnitude = x.unsigned_abs();
    let spare = (128 - magnitude.leading_zeros()).saturating_sub(53);
    let kept = magnitude >> spare;
    let lost = magnitude != kept << spare;
    let value = ((kept | u128::from(lost)) as f64) * 2f64.powi(spare as i32);
    if x < 0 { -value } else { value }
}

fn rounded_to_integer(x: f64, rounding: Rounding) -> f64 {
    match rounding {
        Rounding::NearestEven => x.round_ties_even(),
        Rounding::Zero => x.trunc(),
        Rounding::Down => x.floor(),
        Rounding::Up => x.ceil(),
        Rounding::NearestAway => x.round(),
    }
}

/// A double to 16 bits in any direction: to the nearest, then a step back where that overshot.
fn narrow(x: f64, rounding: Rounding, from: fn(f32) -> u32, value: fn(u32) -> f32) -> u32 {
    let near = from(super::number::to_single_odd(x));
    let back = f64::from(value(near));
    if back.is_nan() || back == x {
        return near;
    }
    let negative = x.is_sign_negative();
    let down = match rounding {
        Rounding::Zero => !negative,
        Rounding::Down => true,
        Rounding::Up => false,
        _ => return near,
    };
    // Bits of one sign are ordered like magnitudes.
    match (down, back > x) {
        (true, true) if negative => near + 1,
        (true, true) => near - 1,
        (false, false) if negative => near - 1,
        (false, false) => near + 1,
        _ => near,
    }
}

struct General;

impl Exec for General {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let plan = Plan::of(inst);
        let signed = plan.to.kind() == Kind::Signed;
        let (bits, register) = (plan.to.bits(), inst.imm as u32);
        let wide = inst.aux & WIDE_SOURCE != 0;
        let class = if wide { Class::Double } else { plan.from.class() };
        let mut out = Lanes::<u64>::default();
        for lane in 0..LANES {
            let value = plan.apply(warp.regs.lane(class, inst.a, lane));
            let top = value << (64 - bits);
            let extended =
                if signed { (top as i64 >> (64 - bits)) as u64 } else { top >> (64 - bits) };
            out.0[lane] = extended << (64 - register) >> (64 - register);
        }
        if register == 64 {
            warp.regs.write(inst.d, mask, &out);
        } else {
            warp.regs.write(inst.d, mask, &Lanes(out.0.map(|x| x as u32)));
        }
        Flow::Next
    }
}

// ---- Common cases, a warp at a time

/// Integers of other widths, extended by their sign or cut off.
struct Resize;

macro_rules! resize {
    ($($from:ty => $($to:ty),*;)*) => {$($(
        impl Op1<$from, $to> for Resize {
            #[inline(always)]
            fn apply(a: $from) -> $to {
                a as $to
            }
        }
    )*)*};
}
resize! {
    u8 => u32, u64; i8 => u16, u32, u64; u16 => u32, u64; i16 => u32, u64; u32 => u8, u16, u32, u64;
    i32 => u64; u64 => u8, u16, u32, u64;
}

op! { HalfToFtz(a: Half) -> Ftz => Ftz(a.0) }
op! { BrainToSingle(a: u16) -> u32 => u32::from(a) << 16 }
op! { SingleToHalf(a: f32) -> Half => Half(a) }
op! { SingleToBrain(a: f32) -> Brain => Brain(a) }
op! { SignedToSingle(a: i32) -> f32 => a as f32 }
op! { UnsignedToSingle(a: u32) -> f32 => a as f32 }

struct HalfToSingle;

impl Exec for HalfToSingle {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if mask != ALL {
            return masked::<u32>(warp, inst, mask, env);
        }
        let words = &mut warp.regs.words;
        let slots = [inst.a as usize, inst.d as usize];
        if let Ok([halves, singles]) = words.get_disjoint_mut(slots) {
            wide::singles(&halves.0, &mut singles.0);
        } else {
            half_in_place(&mut words[slots[0]]);
        }
        Flow::Next
    }
}

#[cold]
#[inline(never)]
fn half_in_place(register: &mut Lanes<u32>) {
    let halves = *register;
    wide::singles(&halves.0, &mut register.0);
}

/// The handler of a common conversion; false where only the general one will do.
fn common(
    f: &mut Form<'_, '_>,
    from: Type,
    to: Type,
    register: u32,
) -> Result<bool, crate::error::Fault> {
    use Type::{Bf16, F16, F32, S32, U32};
    let nearest = f.has("rn");
    if f.has("sat") {
        return Ok(false);
    }
    match (from, to, f.has("ftz")) {
        (F16, F32, false) => f.run::<HalfToSingle>()?,
        (F16, F32, true) => f.run::<Map1<HalfToFtz, Half, Ftz>>()?,
        // These two keep a NaN as it is.
        (Bf16, F32, false) => f.run::<Map1<BrainToSingle, u16, u32>>()?,
        (F32, F32, false) if f.inst.aux & KEEP != 0 => f.run::<Map1<Resize, u32, u32>>()?,
        (F32, F16, _) if nearest => f.run::<Map1<SingleToHalf, f32, Half>>()?,
        (F32, Bf16, false) if nearest => f.run::<Map1<SingleToBrain, f32, Brain>>()?,
        (S32, F32, _) if nearest => f.run::<Map1<SignedToSingle, i32, f32>>()?,
        (U32, F32, _) if nearest => f.run::<Map1<UnsignedToSingle, u32, f32>>()?,
        _ if from.kind() != Kind::Float && to.kind() != Kind::Float => {
            return resized(f, from, to, register);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// Integer to integer. Extension goes by the source's sign up to the destination's width and by the
/// destination's sign beyond; where these differ the general case does it.
fn resized(
    f: &mut Form<'_, '_>,
    from: Type,
    to: Type,
    register: u32,
) -> Result<bool, crate::error::Fault> {
    let widens = to.bits() > from.bits();
    let signed = from.kind() == Kind::Signed;
    if register > to.bits() && to.kind() == Kind::Signed || (from.bits(), to.bits()) == (16, 8) {
        return Ok(false);
    }
    match (from.bits(), to.bits().max(if widens { 16 } else { 0 }), signed && widens) {
        (8, 16 | 32, false) => f.run::<Map1<Resize, u8, u32>>()?,
        (8, 64, false) => f.run::<Map1<Resize, u8, u64>>()?,
        (8, 16, true) => f.run::<Map1<Resize, i8, u16>>()?,
        (8, 32, true) => f.run::<Map1<Resize, i8, u32>>()?,
        (8, 64, true) => f.run::<Map1<Resize, i8, u64>>()?,
        (16, 16 | 32, false) => f.run::<Map1<Resize, u16, u32>>()?,
        (16, 64, false) => f.run::<Map1<Resize, u16, u64>>()?,
        (16, 32, true) => f.run::<Map1<Resize, i16, u32>>()?,
        (16, 64, true) => f.run::<Map1<Resize, i16, u64>>()?,
        (32, 8, _) => f.run::<Map1<Resize, u32, u8>>()?,
        (32, 16, _) => f.run::<Map1<Resize, u32, u16>>()?,
        (32, 32, _) => f.run::<Map1<Resize, u32, u32>>()?,
        (32, 64, false) => f.run::<Map1<Resize, u32, u64>>()?,
        (32, 64, true) => f.run::<Map1<Resize, i32, u64>>()?,
        (64, 8, _) => f.run::<Map1<Resize, u64, u8>>()?,
        (64, 16, _) => f.run::<Map1<Resize, u64, u16>>()?,
        (64, 32, _) => f.run::<Map1<Resize, u64, u32>>()?,
        (64, 64, _) => f.run::<Map1<Resize, u64, u64>>()?,
        _ => return Ok(false),
    }
    // A destination register in the other file than the destination type needs the general case.
    let file = if register == 64 { Class::Double } else { Class::Word };
    Ok(to.class() == file)
}

/// Whether every value of an integer type is one of another.
fn holds_all(to: Type, from: Type) -> bool {
    let integers = to.kind() != Kind::Float && from.kind() != Kind::Float;
    let (signed, wider) = (to.kind() == Kind::Signed, to.bits() > from.bits());
    integers && if to.kind() == from.kind() { to.bits() >= from.bits() } else { signed && wider }
}

fn cvt(f: &mut Form<'_, '_>) -> Lowered {
    let types = f.types();
    let (to, from) = (types[0], types[1]);
    let (to_float, from_float) = (to.kind() == Kind::Float, from.kind() == Kind::Float);
    let rounding = f.pick(&Rounding::NAMES);
    let integral = ["rni", "rzi", "rmi", "rpi"].iter().any(|m| f.has(m));
    let same = to == from;
    let narrows =
        to_float && (!from_float || to.bits() < from.bits() || (to.bits() == from.bits() && !same));
    let problem = match (rounding, integral) {
        (None, _) if from_float && !to_float => Some("needs one of .rni .rzi .rmi .rpi"),
        (None, _) if narrows => Some("needs one of .rn .rz .rm .rp"),
        (Some(_), true) if !from_float || (to_float && !same) => {
            Some("does not round to an integer")
        }
        (Some(_), false) if !narrows => Some("does not round"),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(f.fault(format!("`cvt` from .{} to .{} {problem}", from.name(), to.name())));
    }
    if f.has("ftz") && to != Type::F32 && from != Type::F32 {
        return Err(f.fault("`.ftz` goes with f32 only"));
    }
    let brain = [from, to].contains(&Type::Bf16);
    if f.has("sat") && (brain || holds_all(to, from)) {
        let (from, to) = (from.name(), to.name());
        return Err(f.fault(format!("`.sat` does not go with .{to} from .{from}")));
    }
    if brain && from.bits().min(to.bits()) == 8 {
        return Err(f.fault("no conversion between bf16 and integers of 8 bits"));
    }
    let between = [(Type::F32, Type::Bf16), (Type::Bf16, Type::F32)].contains(&(from, to));
    if brain && f.body.sm < if between && !f.has("ftz") { 80 } else { 90 } {
        return Err(f.fault("this conversion of bf16 needs sm_90"));
    }
    // Registers hold bf16 and f16 as bits of 16.
    let (slot, register) = f.dst_wide(to)?;
    f.inst.d = slot;
    let (source, declared) = f.src_wide(from)?;
    f.inst.a = source;
    let crossing = declared.class() != from.class();
    let code = |ty: Type| TYPES.iter().position(|&t| t == ty).unwrap_or(0) as u32;
    (f.inst.p, f.inst.m) = (code(from), code(to));
    f.inst.imm = register.bits().into();
    // A subnormal f32 lies below half of the smallest f16: flushing it would tell in `.rm` and `.rp` only, and there
    // an H100 does not.
    let to_half = (from, to) == (Type::F32, Type::F16);
    f.inst.aux = rounding.unwrap_or(Rounding::NearestEven).code()
        | if f.has("ftz") && !to_half { 8 } else { 0 }
        | if f.has("sat") { 16 } else { 0 }
        | if crossing { WIDE_SOURCE } else { 0 };
    if same && to_float && rounding.is_none() {
        f.inst.aux |= KEEP;
    }
    if !crossing && common(f, from, to, register.bits())? {
        return Ok(());
    }
    f.run::<General>()
}

/// Flag in [`Inst::aux`]: a float keeps its type and is not rounded.
const KEEP: u32 = 32;
/// Flag in [`Inst::aux`]: the source is the low part of a register of 64 bits.
const WIDE_SOURCE: u32 = 64;

// ---- Rounding f32 to formats of 16 bits, one or two at a time

/// Bits of [`Inst::aux`] of the forms below.
const TOWARD_ZERO: u32 = 1;
const RELU: u32 = 2;
const FINITE: u32 = 4;

fn narrow_flags(f: &Form<'_, '_>) -> u32 {
    let flag = |name, bit| if f.has(name) { bit } else { 0 };
    flag("rz", TOWARD_ZERO) | flag("relu", RELU) | flag("satfinite", FINITE)
}

/// One f32 to 16 bits with the flags of the instruction.
fn narrowed(x: f32, flags: u32, brain: bool) -> u32 {
    let x = if flags & RELU != 0 && x < 0.0 { 0.0 } else { x };
    let x = if flags & RELU != 0 && x == 0.0 { 0.0 } else { x };
    let largest = if brain { f32::from_bits(0x7f7f_0000) } else { 65504.0 };
    let x = if flags & FINITE != 0 && !x.is_nan() { x.clamp(-largest, largest) } else { x };
    let rounding = if flags & TOWARD_ZERO != 0 { Rounding::Zero } else { Rounding::NearestEven };
    match brain {
        true => narrow(x.into(), rounding, brain_from, brain_value),
        false => narrow(x.into(), rounding, half_from, half_value),
    }
}

struct NarrowOne<const BRAIN: bool>;

impl<const BRAIN: bool> Exec for NarrowOne<BRAIN> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let a = &warp.regs.words[inst.a as usize];
        let out = Lanes(a.0.map(|x| narrowed(f32::from_bits(x), inst.aux, BRAIN)));
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn narrow_one(f: &mut Form<'_, '_>) -> Lowered {
    let to = f.types()[0];
    f.inst.d = f.dst_wide(to)?.0;
    f.inst.a = f.src(Type::F32)?;
    f.inst.aux = narrow_flags(f);
    if to == Type::Bf16 { f.run::<NarrowOne<true>>() } else { f.run::<NarrowOne<false>>() }
}

/// `a` in the high half, `b` in the low half.
struct NarrowTwo<const BRAIN: bool>;

impl<const BRAIN: bool> Exec for NarrowTwo<BRAIN> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let words = &warp.regs.words;
        let (a, b) = (&words[inst.a as usize], &words[inst.b as usize]);
        let one = |x: u32| narrowed(f32::from_bits(x), inst.aux, BRAIN);
        let out = Lanes(std::array::from_fn(|lane| one(a.0[lane]) << 16 | one(b.0[lane])));
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

op! { HalvesNearest(a: f32, b: f32) -> u32 => half_from(a) << 16 | half_from(b) }
op! { BrainsNearest(a: f32, b: f32) -> u32 => brain_from(a) << 16 | brain_from(b) }

fn narrow_two(f: &mut Form<'_, '_>) -> Lowered {
    let to = f.types()[0];
    f.inst.d = f.dst(to)?;
    f.inst.a = f.src(Type::F32)?;
    f.inst.b = f.src(Type::F32)?;
    f.inst.aux = narrow_flags(f);
    match (to == Type::Bf16x2, f.inst.aux == 0) {
        (true, true) => f.run::<Map2<BrainsNearest, f32, f32, u32>>(),
        (false, true) => f.run::<Map2<HalvesNearest, f32, f32, u32>>(),
        (true, false) => f.run::<NarrowTwo<true>>(),
        (false, false) => f.run::<NarrowTwo<false>>(),
    }
}

/// [`Inst::aux`]: the flags above; [`Inst::m`] is 1 for ties away from zero.
struct TensorFloat;

impl Exec for TensorFloat {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let a = &warp.regs.words[inst.a as usize];
        let convert = |bits: u32| {
            let x = f32::from_bits(bits);
            // An H100 has an instruction for the other two roundings; for `.rna` ptxas works on the bits as if they
            // were those of a number, and NaN may become infinity or the largest number.
            match (x.is_nan(), inst.m == 1, inst.aux & FINITE != 0) {
                (true, true, false) => return bits & !0x1fff,
                (true, true, true) => return (bits & !0x1fff) - 0x2000,
                (true, false, _) => return 0x7fff_e000,
                _ => {}
            }
            let bits = if inst.aux & RELU != 0 && x < 0.0 { 0 } else { bits };
            let half = match (inst.m, inst.aux & TOWARD_ZERO) {
                (1, _) => 0x1000,
                (_, TOWARD_ZERO) => 0,
                _ => 0xfff + (bits >> 13 & 1),
            };
            let rounded = if x.is_infinite() { bits } else { bits.wrapping_add(half) & !0x1fff };
            let infinite = rounded & 0x7fff_ffff == 0x7f80_0000;
            if infinite && inst.aux & FINITE != 0 {
                rounded & 0x8000_0000 | 0x7f7f_e000
            } else {
                rounded
            }
        };
        let out = Lanes(a.0.map(convert));
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn tensor_float(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B32)?;
    f.inst.a = f.src(Type::F32)?;
    f.inst.aux = narrow_flags(f);
    f.inst.m = f.has("rna").into();
    f.run::<TensorFloat>()
}

#[cfg(test)]
mod tests {
    use crate::testing::eval;

    #[test]
    fn integers_to_integers() {
        assert_eq!(eval("cvt.s32.s8 %d, %a;", &[0x80]), 0xffff_ff80);
        assert_eq!(eval("cvt.u32.u8 %d, %a;", &[0x1ff]), 0xff);
        assert_eq!(eval("cvt.s8.s32 %d, %a;", &[0x1ff]), u32::MAX);
        assert_eq!(eval("cvt.sat.s8.s32 %d, %a;", &[0x1ff]), 127);
        assert_eq!(eval("cvt.sat.u8.s32 %d, %a;", &[-5i32 as u32]), 0);
        let text = "{ .reg .s64 %x; cvt.s64.s32 %x, %a; shr.s64 %x, %x, 32; cvt.u32.u64 %d, %x; }";
        assert_eq!(eval(text, &[1 << 31]), u32::MAX);
        // The low half of a wider register.
        let text = "{ .reg .b64 %x, %y; mov.b64 %x, 0x1122334480000001; cvt.s64.s32 %y, %x; mov.b64 {_, %d}, %y; }";
        assert_eq!(eval(text, &[]), u32::MAX);
        let text = "{ .reg .u64 %x; cvt.u64.u32 %x, %a; shr.u64 %x, %x, 32; cvt.u32.u64 %d, %x; }";
        assert_eq!(eval(text, &[1 << 31]), 0);
        let text = "{ .reg .b16 %h; cvt.s16.s8 %h, %a; cvt.u32.u16 %d, %h; }";
        assert_eq!(eval(text, &[0x80]), 0xff80);
    }

    #[test]
    fn floats_to_integers() {
        let cvt = |text: &str, x: f32| eval(text, &[x.to_bits()]) as i32;
        assert_eq!(cvt("cvt.rni.s32.f32 %d, %fa;", 2.5), 2);
        assert_eq!(cvt("cvt.rzi.s32.f32 %d, %fa;", -2.9), -2);
        assert_eq!(cvt("cvt.rmi.s32.f32 %d, %fa;", -2.1), -3);
        assert_eq!(cvt("cvt.rpi.s32.f32 %d, %fa;", 2.1), 3);
        assert_eq!(cvt("cvt.rzi.s32.f32 %d, %fa;", 1e20), i32::MAX);
        assert_eq!(cvt("cvt.rzi.u32.f32 %d, %fa;", -5.0), 0);
        assert_eq!(cvt("cvt.rzi.s32.f32 %d, %fa;", f32::NAN), 0);
    }

    #[test]
    fn integers_to_floats_and_back() {
        let cvt =
            |text: &str, x: u32| f32::from_bits(eval(&format!("{text} mov.b32 %d, %fd;"), &[x]));
        assert_eq!(cvt("cvt.rn.f32.s32 %fd, %a;", -3i32 as u32), -3.0);
        assert_eq!(cvt("cvt.rn.f32.u32 %fd, %a;", u32::MAX), 4294967296.0);
        assert_eq!(cvt("cvt.rz.f32.u32 %fd, %a;", u32::MAX), 4294967040.0);
        assert_eq!(
            cvt("{ .reg .u64 %x; mov.b64 %x, {%a, %a}; cvt.rn.f32.u64 %fd, %x; }", u32::MAX),
            18446744073709551616.0
        );
    }

    #[test]
    fn floats_to_floats() {
        let text = "{ .reg .b16 %h; cvt.rn.f16.f32 %h, %fa; cvt.u32.u16 %d, %h; }";
        assert_eq!(eval(text, &[1.5f32.to_bits()]), 0x3e00);
        let text = "{ .reg .b16 %h; cvt.rz.f16.f32 %h, %fa; cvt.u32.u16 %d, %h; }";
        assert_eq!(eval(text, &[65535f32.to_bits()]), 0x7bff);
        let text = "{ .reg .b16 %h; cvt.u16.u32 %h, %a; cvt.f32.f16 %fd, %h; mov.b32 %d, %fd; }";
        assert_eq!(eval(text, &[0x3e00]), 1.5f32.to_bits());
        let text = "cvt.rni.f32.f32 %fd, %fa; mov.b32 %d, %fd;";
        assert_eq!(eval(text, &[2.5f32.to_bits()]), 2f32.to_bits());
        let text = "cvt.sat.f32.f32 %fd, %fa; mov.b32 %d, %fd;";
        assert_eq!(eval(text, &[0.75f32.to_bits()]), 0.75f32.to_bits());
        assert_eq!(eval(text, &[2.5f32.to_bits()]), 1f32.to_bits());
        let text = "{ .reg .f64 %x; cvt.f64.f32 %x, %fa; add.f64 %x, %x, 0d3E00000000000000; cvt.rp.f32.f64 %fd, %x; mov.b32 %d, %fd; }";
        assert_eq!(eval(text, &[1f32.to_bits()]), 1f32.to_bits() + 1);
    }

    #[test]
    fn pairs_put_the_first_operand_into_the_high_half() {
        let (a, b) = (1f32.to_bits(), (-2f32).to_bits());
        assert_eq!(eval("cvt.rn.f16x2.f32 %d, %fa, %fb;", &[a, b]), 0x3c00_c000);
        assert_eq!(eval("cvt.rn.bf16x2.f32 %d, %fa, %fb;", &[a, b]), 0x3f80_c000);
        assert_eq!(eval("cvt.rn.relu.bf16x2.f32 %d, %fa, %fb;", &[a, b]), 0x3f80_0000);
        assert_eq!(
            eval("cvt.rn.satfinite.f16x2.f32 %d, %fa, %fb;", &[1e9f32.to_bits(), b]),
            0x7bff_c000
        );
    }

    #[test]
    fn tensor_floats() {
        assert_eq!(eval("cvt.rna.tf32.f32 %d, %fa;", &[0x3f80_1000]), 0x3f80_2000);
        assert_eq!(eval("cvt.rn.tf32.f32 %d, %fa;", &[0x3f80_1000]), 0x3f80_0000);
        assert_eq!(eval("cvt.rz.tf32.f32 %d, %fa;", &[0x3f80_1fff]), 0x3f80_0000);
    }
}
