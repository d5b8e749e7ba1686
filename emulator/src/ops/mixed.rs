//! Arithmetic on f32 with operands of 16 bits, and extremes of three f32 (PTX ISA, "Mixed Precision
//! Floating-Point Instructions", "min" and "max").

use std::marker::PhantomData;

use super::float::{AddExact, Exact, Extreme, FmaExact, SAT, SubExact, saturate};
use super::half::{Brain, Half, Narrow};
use super::number::{Rounding, Single, to_single};
use super::{Lowered, Map3, Op2, Op3};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Ftz, LANES, Lanes, Mask, Value};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("add[.rn|rz|rm|rp][.sat].f32.f16|bf16 d, a, c", mixed2::<AddExact>).from_sm(100),
    row("sub[.rn|rz|rm|rp][.sat].f32.f16|bf16 d, a, c", mixed2::<SubExact>).from_sm(100),
    row("fma.rn|rz|rm|rp[.sat].f32.f16|bf16 d, a, b, c", mixed3).from_sm(100),
];

/// The first `NARROW` operands have 16 bits, the others are f32. [`Inst::aux`]: rounding, [`SAT`].
struct Mixed<E, N, const NARROW: usize>(PhantomData<(E, N)>);

impl<E: Exact, N: Narrow, const NARROW: usize> Exec for Mixed<E, N, NARROW> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        let operands = [inst.a, inst.b, inst.c].map(|slot| &warp.regs.words[slot as usize]);
        let rounding = Rounding::from_code(inst.aux & 7);
        let mut out = Lanes::default();
        for lane in 0..LANES {
            let get = |index: usize| {
                let word = operands[index].0[lane];
                f64::from(if index < NARROW { N::get(word).value() } else { f32::from_bits(word) })
            };
            let result = to_single(E::exact(get(0), get(1), get(2), rounding), rounding);
            out.0[lane] = (if inst.aux & SAT != 0 { saturate(result) } else { result }).put();
        }
        warp.regs.write(inst.d, mask, &out);
        Flow::Next
    }
}

fn flags(f: &mut Form<'_, '_>) -> Type {
    let rounding = f.pick(&Rounding::NAMES).unwrap_or(Rounding::NearestEven);
    f.inst.aux = rounding.code() | if f.has("sat") { SAT } else { 0 };
    f.ty()
}

fn mixed2<E: Exact>(f: &mut Form<'_, '_>) -> Lowered {
    let narrow = flags(f);
    f.inst.d = f.dst(Type::F32)?;
    f.inst.a = f.src(narrow)?;
    f.inst.b = f.src(Type::F32)?;
    f.inst.c = f.inst.b;
    if narrow == Type::F16 { f.run::<Mixed<E, Half, 1>>() } else { f.run::<Mixed<E, Brain, 1>>() }
}

fn mixed3(f: &mut Form<'_, '_>) -> Lowered {
    let narrow = flags(f);
    f.inst.d = f.dst(Type::F32)?;
    f.inst.a = f.src(narrow)?;
    f.inst.b = f.src(narrow)?;
    f.inst.c = f.src(Type::F32)?;
    if narrow == Type::F16 {
        return f.run::<Mixed<FmaExact, Half, 2>>();
    }
    f.run::<Mixed<FmaExact, Brain, 2>>()
}

/// The extreme of three; with `ABS` of their magnitudes.
pub(crate) struct ExtremeOfThree<const MAX: bool, const NAN: bool, const ABS: bool>;

impl<T: Single, const MAX: bool, const NAN: bool, const ABS: bool> Op3<T, T, T, T>
    for ExtremeOfThree<MAX, NAN, ABS>
{
    #[inline(always)]
    fn apply(a: T, b: T, c: T) -> T {
        let [a, b, c] = [a, b, c].map(|x| if ABS { T::of(x.value().abs()) } else { x });
        let two = <Extreme<MAX, NAN, false> as Op2<T, T, T>>::apply(a, b);
        <Extreme<MAX, NAN, false> as Op2<T, T, T>>::apply(two, c)
    }
}

/// `min` and `max` with a third source, the first two taken already.
pub(crate) fn extreme_of_three<const MAX: bool>(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.c = f.src(Type::F32)?;
    if f.body.sm < 100 {
        return Err(f.fault(format!(
            "`{}` of three operands needs sm_100, not sm_{}",
            f.ins.opcode, f.body.sm
        )));
    }
    match (f.has("ftz"), f.has("NaN"), f.has("abs")) {
        (false, false, false) => {
            f.run::<Map3<ExtremeOfThree<MAX, false, false>, f32, f32, f32, f32>>()
        }
        (true, false, false) => {
            f.run::<Map3<ExtremeOfThree<MAX, false, false>, Ftz, Ftz, Ftz, Ftz>>()
        }
        (false, true, false) => {
            f.run::<Map3<ExtremeOfThree<MAX, true, false>, f32, f32, f32, f32>>()
        }
        (true, true, false) => {
            f.run::<Map3<ExtremeOfThree<MAX, true, false>, Ftz, Ftz, Ftz, Ftz>>()
        }
        (false, false, true) => {
            f.run::<Map3<ExtremeOfThree<MAX, false, true>, f32, f32, f32, f32>>()
        }
        (true, false, true) => {
            f.run::<Map3<ExtremeOfThree<MAX, false, true>, Ftz, Ftz, Ftz, Ftz>>()
        }
        (false, true, true) => f.run::<Map3<ExtremeOfThree<MAX, true, true>, f32, f32, f32, f32>>(),
        (true, true, true) => f.run::<Map3<ExtremeOfThree<MAX, true, true>, Ftz, Ftz, Ftz, Ftz>>(),
    }
}
