//! Comparisons and selections (PTX ISA, "Comparison and Selection Instructions").

use std::marker::PhantomData;

use super::half::{Brain, Half, HalfFtz};
use super::number::Single;
use super::{Lowered, Map3, Op3, for_type};
use crate::error::Fault;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Ftz, LANES, Lanes, Mask, Value, Word};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::{Class, Kind, Type};

/// The syntax of a comparison: opcode, operators for all types or for floats, then the types and operands.
macro_rules! comparison {
    ($opcode:literal, all, $rest:literal) => {
        concat!(
            $opcode,
            ".eq|ne|lt|le|gt|ge|lo|ls|hi|hs|equ|neu|ltu|leu|gtu|geu|num|nan[.and|or|xor]",
            $rest
        )
    };
    ($opcode:literal, float, $rest:literal) => {
        concat!($opcode, ".eq|ne|lt|le|gt|ge|equ|neu|ltu|leu|gtu|geu|num|nan[.and|or|xor]", $rest)
    };
}

pub(crate) const ROWS: &[Row] = &[
    row(comparison!("setp", all, ".b16|b32|b64|u16|u32|u64|s16|s32|s64|f64 p|q, a, b, c"), setp),
    row(comparison!("setp", float, "[.ftz].f32 p|q, a, b, c"), setp),
    row(comparison!("setp", float, "[.ftz].f16 p, a, b, c"), setp),
    row(comparison!("setp", float, "[.ftz].f16x2 p|q, a, b, c"), setp_pair),
    row(comparison!("setp", float, ".bf16 p, a, b, c"), setp).from_sm(90),
    row(comparison!("setp", float, ".bf16x2 p|q, a, b, c"), setp_pair).from_sm(90),
    row(
        comparison!(
            "set",
            all,
            ".u32|s32|f32|f16.b16|b32|b64|u16|u32|u64|s16|s32|s64|f64 d, a, b, c"
        ),
        set,
    ),
    row(comparison!("set", float, "[.ftz].u32|s32|f32|f16.f32 d, a, b, c"), set),
    row(comparison!("set", float, "[.ftz].u16|s16|u32|s32|f16.f16 d, a, b, c"), set),
    row(comparison!("set", float, "[.ftz].u32|s32|f16x2.f16x2 d, a, b, c"), set_pair),
    row(
        comparison!("set", all, ".bf16.b16|b32|b64|u16|u32|u64|s16|s32|s64|f16|f64 d, a, b, c"),
        set,
    )
    .from_sm(90),
    row(comparison!("set", float, ".bf16.f32 d, a, b, c"), set).from_sm(90),
    row(comparison!("set", float, ".u16|s16|u32|s32|bf16.bf16 d, a, b, c"), set).from_sm(90),
    row(comparison!("set", float, ".u32|s32|bf16x2.bf16x2 d, a, b, c"), set_pair).from_sm(90),
    row("selp.b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64 d, a, b, p", selp),
    row("slct.b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64.s32 d, a, b, c", slct),
    row("slct[.ftz].b16|b32|b64|u16|u32|u64|s16|s32|s64|f32|f64.f32 d, a, b, c", slct),
];

/// What a comparison needs of its operands: their order, and whether they have one.
pub(crate) trait Ordered: Value {
    fn lt(self, other: Self) -> bool;
    fn le(self, other: Self) -> bool;
    fn eq(self, other: Self) -> bool;
    fn is_nan(self) -> bool;
}

macro_rules! ordered_ints {
    ($($t:ty),*) => {$(
        impl Ordered for $t {
            #[inline(always)]
            fn lt(self, other: Self) -> bool {
                self < other
            }
            #[inline(always)]
            fn le(self, other: Self) -> bool {
                self <= other
            }
            #[inline(always)]
            fn eq(self, other: Self) -> bool {
                self == other
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
        }
    )*};
}
ordered_ints!(u16, i16, u32, i32, u64, i64);

macro_rules! ordered_floats {
    ($($t:ty, $x:ident => $value:expr;)*) => {$(
        impl Ordered for $t {
            #[inline(always)]
            fn lt(self, other: Self) -> bool {
                let value = |$x: $t| $value;
                value(self) < value(other)
            }
            #[inline(always)]
            fn le(self, other: Self) -> bool {
                let value = |$x: $t| $value;
                value(self) <= value(other)
            }
            #[inline(always)]
            fn eq(self, other: Self) -> bool {
                let value = |$x: $t| $value;
                value(self) == value(other)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                let value = |$x: $t| $value;
                value(self).is_nan()
            }
        }
    )*};
}
ordered_floats! { f32, x => x.value(); Ftz, x => x.value(); f64, x => x; Half, x => x.0; HalfFtz, x => x.0; Brain, x => x.0; }

/// Comparison operators. The unordered ones hold for NaN too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Test {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Num,
    Nan,
}

/// Name, test, and whether NaN operands make it hold.
const TESTS: [(&str, Test, bool); 18] = [
    ("eq", Test::Eq, false),
    ("ne", Test::Ne, false),
    ("lt", Test::Lt, false),
    ("le", Test::Le, false),
    ("gt", Test::Gt, false),
    ("ge", Test::Ge, false),
    ("lo", Test::Lt, false),
    ("ls", Test::Le, false),
    ("hi", Test::Gt, false),
    ("hs", Test::Ge, false),
    ("equ", Test::Eq, true),
    ("neu", Test::Ne, true),
    ("ltu", Test::Lt, true),
    ("leu", Test::Le, true),
    ("gtu", Test::Gt, true),
    ("geu", Test::Ge, true),
    ("num", Test::Num, false),
    ("nan", Test::Nan, true),
];

/// The lanes in which a test holds. `code` is an index into [`TESTS`].
#[inline(always)]
fn compare<T: Ordered>(a: &Lanes<T::Word>, b: &Lanes<T::Word>, code: u32) -> Mask {
    let (_, test, unordered) = TESTS[code as usize % TESTS.len()];
    let lanes = |holds: fn(T, T) -> bool| {
        let mut mask = 0;
        for lane in 0..LANES {
            mask |= u32::from(holds(T::get(a.0[lane]), T::get(b.0[lane]))) << lane;
        }
        mask
    };
    // Comparisons of Rust are false for NaN, except inequality.
    let holds = match test {
        Test::Eq => lanes(|x, y| Ordered::eq(x, y)),
        Test::Ne => !lanes(|x, y| Ordered::eq(x, y)),
        Test::Lt => lanes(|x, y| Ordered::lt(x, y)),
        Test::Gt => lanes(|x, y| Ordered::lt(y, x)),
        Test::Le => lanes(|x, y| Ordered::le(x, y)),
        Test::Ge => lanes(|x, y| Ordered::le(y, x)),
        Test::Num => u32::MAX,
        Test::Nan => 0,
    };
    let holds_for_nan = matches!(test, Test::Ne | Test::Num);
    if holds_for_nan == unordered {
        return holds;
    }
    let nan = lanes(|x, y| x.is_nan() || y.is_nan());
    if unordered { holds | nan } else { holds & !nan }
}

/// Bits of [`Inst::aux`]: the test, then how the result combines with predicate `c` (1 and, 2 or, 3 xor), then
/// whether `c` is negated and whether there is a second result.
const COMBINE: u32 = 8;
const NEGATED: u32 = 16;
const SECOND: u32 = 17;

#[inline(always)]
fn combined(warp: &Warp, inst: &Inst, test: Mask) -> Mask {
    let flip = if inst.aux >> NEGATED & 1 != 0 { u32::MAX } else { 0 };
    let other = warp.regs.pred(inst.c, flip);
    match inst.aux >> COMBINE & 3 {
        0 => test,
        1 => test & other,
        2 => test | other,
        _ => test ^ other,
    }
}

struct Setp<T>(PhantomData<T>);

impl<T: Ordered> Exec for Setp<T> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let (a, b) = (T::Word::read(&warp.regs, inst.a), T::Word::read(&warp.regs, inst.b));
        let test = compare::<T>(a, b, inst.aux & 0xff);
        let first = combined(warp, inst, test);
        if inst.aux >> SECOND & 1 != 0 {
            let second = combined(warp, inst, !test);
            warp.regs.write_pred(inst.p, mask, second);
        }
        warp.regs.write_pred(inst.d, mask, first);
        Flow::Next
    }
}

/// Sets the handler for a type that is compared, flushed or not.
macro_rules! for_compared {
    ($ty:expr, $f:expr, $t:ident => $handler:ident<$_:ident>) => {
        match ($ty, $f.has("ftz")) {
            (Type::F32, true) => $f.run::<$handler<Ftz>>(),
            (Type::F16, true) => $f.run::<$handler<HalfFtz>>(),
            (ty, _) => for_type!(ty, $f, {
                B16 => u16, B32 => u32, B64 => u64, U16 => u16, U32 => u32, U64 => u64,
                S16 => i16, S32 => i32, S64 => i64, F32 => f32, F64 => f64, F16 => Half, Bf16 => Brain
            }, $t => $handler<$t>),
        }
    };
}

/// As `for_compared!`, for pairs.
macro_rules! for_pairs {
    ($ty:expr, $f:expr, $t:ident => $handler:ident<$_:ident>) => {
        match ($ty, $f.has("ftz")) {
            (Type::F16x2, true) => $f.run::<$handler<HalfFtz>>(),
            (ty, _) => for_type!(ty, $f, { F16x2 => Half, Bf16x2 => Brain }, $t => $handler<$t>),
        }
    };
}

/// The test and the way it combines, into [`Inst::aux`].
fn test_of(f: &mut Form<'_, '_>, ty: Type) -> Lowered {
    let found = TESTS.iter().position(|(name, ..)| f.ins.modifiers.first() == Some(name));
    let code = found.ok_or_else(|| f.fault("comparison without an operator"))?;
    let (name, test, unordered) = TESTS[code];
    let float = ty.kind() == Kind::Float;
    let fits = match ty.kind() {
        Kind::Bits => matches!(name, "eq" | "ne"),
        Kind::Signed => !matches!(name, "lo" | "ls" | "hi" | "hs"),
        _ => true,
    };
    let only_float = unordered || matches!(test, Test::Num | Test::Nan);
    if !fits || (only_float && !float) || (float && matches!(name, "lo" | "ls" | "hi" | "hs")) {
        return Err(f.fault(format!("`.{name}` does not compare .{}", ty.name())));
    }
    let combine = f.pick(&[("and", 1), ("or", 2), ("xor", 3)]).unwrap_or(0);
    f.inst.aux = code as u32 | combine << COMBINE;
    Ok(())
}

/// Operands `a` and `b`, and the predicate that a combined test takes.
fn compared(f: &mut Form<'_, '_>, ty: Type) -> Lowered {
    f.inst.a = f.src(ty)?;
    f.inst.b = f.src(ty)?;
    if f.inst.aux >> COMBINE & 3 != 0 {
        let (slot, flip) = f.src_pred()?;
        f.inst.c = slot;
        f.inst.aux |= (flip & 1) << NEGATED;
    }
    Ok(())
}

fn setp(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    test_of(f, ty)?;
    let (d, p) = f.dst_pair(Type::Pred)?;
    f.inst.d = d;
    if let Some(p) = p {
        if ty.bits() == 16 && ty.kind() == Kind::Float {
            return Err(f.fault(format!("a comparison of .{} has one result", ty.name())));
        }
        f.inst.p = p;
        f.inst.aux |= 1 << SECOND;
    }
    compared(f, ty)?;
    for_compared!(ty, f, T => Setp<T>)
}

/// The lanes in which a test holds for the halves at `shift` of two registers.
#[inline(always)]
fn compare_halves<T: Ordered<Word = u32>>(warp: &Warp, inst: &Inst, shift: u32) -> Mask {
    let half = |slot: u32| {
        let word = &warp.regs.words[slot as usize];
        Lanes(std::array::from_fn(|lane| word.0[lane] >> shift & 0xffff))
    };
    combined(warp, inst, compare::<T>(&half(inst.a), &half(inst.b), inst.aux & 0xff))
}

/// Two comparisons, one of each half: the first result is of the low one.
struct SetpPair<T>(PhantomData<T>);

impl<T: Ordered<Word = u32>> Exec for SetpPair<T> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let low = compare_halves::<T>(warp, inst, 0);
        let high = compare_halves::<T>(warp, inst, 16);
        warp.regs.write_pred(inst.p, mask, high);
        warp.regs.write_pred(inst.d, mask, low);
        Flow::Next
    }
}

fn setp_pair(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    test_of(f, ty)?;
    let (d, p) = f.dst_pair(Type::Pred)?;
    f.inst.d = d;
    f.inst.p = p.unwrap_or_else(|| f.body.sink(Class::Pred));
    compared(f, ty)?;
    for_pairs!(ty, f, T => SetpPair<T>)
}

/// A comparison whose result is a number: [`Inst::m`] where it holds, else 0.
struct Set<T>(PhantomData<T>);

impl<T: Ordered> Exec for Set<T> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let (a, b) = (T::Word::read(&warp.regs, inst.a), T::Word::read(&warp.regs, inst.b));
        let test = compare::<T>(a, b, inst.aux & 0xff);
        let holds = combined(warp, inst, test);
        let value = |lane| if holds >> lane & 1 != 0 { inst.m } else { 0 };
        warp.regs.write(inst.d, mask, &Lanes(std::array::from_fn(value)));
        Flow::Next
    }
}

/// As [`Set`], for each half.
struct SetPair<T>(PhantomData<T>);

impl<T: Ordered<Word = u32>> Exec for SetPair<T> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let low = compare_halves::<T>(warp, inst, 0);
        let high = compare_halves::<T>(warp, inst, 16);
        let value = |lane: usize| {
            let half = |holds: Mask| if holds >> lane & 1 != 0 { inst.m } else { 0 };
            half(low) | half(high) << 16
        };
        warp.regs.write(inst.d, mask, &Lanes(std::array::from_fn(value)));
        Flow::Next
    }
}

/// Takes the operands of `set`; gives the type that it compares. `ones` is the integer for true.
fn set_operands(f: &mut Form<'_, '_>, ones: u32) -> Result<Type, Fault> {
    let types = f.types();
    let (result, ty) = (types[0], types[1]);
    test_of(f, ty)?;
    f.inst.d = f.dst(result)?;
    compared(f, ty)?;
    f.inst.m = match result {
        Type::F32 => 0x3f80_0000,
        Type::F16 | Type::F16x2 => 0x3c00,
        Type::Bf16 | Type::Bf16x2 => 0x3f80,
        Type::U16 | Type::S16 => 0xffff,
        _ => ones,
    };
    Ok(ty)
}

fn set(f: &mut Form<'_, '_>) -> Lowered {
    let ty = set_operands(f, u32::MAX)?;
    for_compared!(ty, f, T => Set<T>)
}

fn set_pair(f: &mut Form<'_, '_>) -> Lowered {
    let ty = set_operands(f, 0xffff)?;
    for_pairs!(ty, f, T => SetPair<T>)
}

/// `a` where predicate `c` holds, else `b`. [`Inst::aux`] flips the predicate.
struct Selp<W>(PhantomData<W>);

impl<W: Word> Exec for Selp<W> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let pred = warp.regs.pred(inst.c, inst.aux);
        // Copies first: what lies apart can be compared with itself only.
        let (a, b) = (*W::read(&warp.regs, inst.a), *W::read(&warp.regs, inst.b));
        let mut out = [W::default(); LANES];
        for lane in 0..LANES {
            let take = pred >> lane & 1 != 0;
            out[lane] = if take { a.0[lane] } else { b.0[lane] };
        }
        let out = Lanes(out);
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn selp(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(ty)?;
    f.inst.a = f.src(ty)?;
    f.inst.b = f.src(ty)?;
    (f.inst.c, f.inst.aux) = f.src_pred()?;
    if ty.bits() == 64 { f.run::<Selp<u64>>() } else { f.run::<Selp<u32>>() }
}

/// `a` where `c` is not negative, else `b`.
struct Slct;

macro_rules! slct {
    ($($c:ty, $x:ident => $holds:expr;)*) => {$(
        impl<W: Value> Op3<W, W, $c, W> for Slct {
            #[inline(always)]
            fn apply(a: W, b: W, $x: $c) -> W {
                if $holds { a } else { b }
            }
        }
    )*};
}
slct! { i32, c => c >= 0; f32, c => c >= 0.0; Ftz, c => c.0 >= 0.0; }

fn slct(f: &mut Form<'_, '_>) -> Lowered {
    let types = f.types();
    let (ty, by) = (types[0], types[1]);
    f.inst.d = f.dst(ty)?;
    f.inst.a = f.src(ty)?;
    f.inst.b = f.src(ty)?;
    f.inst.c = f.src(by)?;
    let wide = ty.bits() == 64;
    match (by, f.has("ftz"), wide) {
        (Type::S32, _, false) => f.run::<Map3<Slct, u32, u32, i32, u32>>(),
        (Type::S32, _, true) => f.run::<Map3<Slct, u64, u64, i32, u64>>(),
        (_, false, false) => f.run::<Map3<Slct, u32, u32, f32, u32>>(),
        (_, false, true) => f.run::<Map3<Slct, u64, u64, f32, u64>>(),
        (_, true, false) => f.run::<Map3<Slct, u32, u32, Ftz, u32>>(),
        (_, true, true) => f.run::<Map3<Slct, u64, u64, Ftz, u64>>(),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::eval;

    fn holds(test: &str, a: u32, b: u32) -> bool {
        eval(&format!("setp.{test} %p, %a, %b; selp.u32 %d, 1, 0, %p;"), &[a, b]) == 1
    }

    fn holds_f32(test: &str, a: f32, b: f32) -> bool {
        let text = format!("setp.{test} %p, %fa, %fb; selp.u32 %d, 1, 0, %p;");
        eval(&text, &[a.to_bits(), b.to_bits()]) == 1
    }

    #[test]
    fn integers() {
        assert!(holds("lt.s32", -1i32 as u32, 0) && !holds("lt.u32", u32::MAX, 0));
        assert!(holds("hi.u32", u32::MAX, 0) && holds("hs.u32", 3, 3) && holds("ls.u32", 3, 3));
        assert!(
            holds("eq.b32", 3, 3)
                && holds("ne.s32", 3, 4)
                && holds("ge.s32", 3, 3)
                && holds("le.s32", 2, 3)
        );
    }

    #[test]
    fn floats_and_nan() {
        let nan = f32::NAN;
        assert!(!holds_f32("ne.f32", nan, 1.0) && holds_f32("neu.f32", nan, 1.0));
        assert!(!holds_f32("eq.f32", nan, nan) && holds_f32("equ.f32", nan, nan));
        assert!(holds_f32("num.f32", 1.0, 1.0) && holds_f32("nan.f32", nan, 1.0));
        assert!(
            holds_f32("gt.f32", 2.0, 1.0)
                && holds_f32("leu.f32", nan, 1.0)
                && !holds_f32("le.f32", nan, 1.0)
        );
        assert!(holds_f32("gt.f32", 1e-40, 0.0) && !holds_f32("gt.ftz.f32", 1e-40, 0.0));
    }

    #[test]
    fn pairs_of_results_and_combinations() {
        let text = "setp.lt.u32 %p|%q, %a, %b; selp.u32 %d, 10, 20, %q;";
        assert_eq!((eval(text, &[1, 2]), eval(text, &[2, 1])), (20, 10));
        let text = "setp.eq.u32 %q, %c, 1; setp.lt.and.u32 %p, %a, %b, !%q; selp.u32 %d, 1, 0, %p;";
        assert_eq!((eval(text, &[1, 2, 0]), eval(text, &[1, 2, 1])), (1, 0));
        let text = "setp.eq.u32 %q, %c, 1; setp.lt.xor.u32 %p, %a, %b, %q; selp.u32 %d, 1, 0, !%p;";
        assert_eq!((eval(text, &[1, 2, 0]), eval(text, &[1, 2, 1])), (0, 1));
    }

    #[test]
    fn selections() {
        assert_eq!(eval("slct.u32.s32 %d, %a, %b, %c;", &[1, 2, -1i32 as u32]), 2);
        assert_eq!(eval("slct.u32.f32 %d, %a, %b, %fc;", &[1, 2, 0x8000_0000]), 1);
        assert_eq!(eval("set.lt.u32.s32 %d, %a, %b;", &[-1i32 as u32, 2]), u32::MAX);
        assert_eq!(eval("set.gt.f32.s32 %fd, %a, %b; mov.b32 %d, %fd;", &[3, 2]), 1f32.to_bits());
    }
}
