//! The operations, one file a family: table rows, the functions that lower them, and what they do.
//!
//! # Adding an operation
//!
//! 1. A row in the `ROWS` of its family: the syntax as in the PTX ISA, and a lowering function.
//!    `row("bfind.u32|s32|u64|s64 d, a", bfind)`
//! 2. A function. Most operations are lane by lane and need only the arithmetic: implement [`Op1`],
//!    [`Op2`] or [`Op3`] (the macro [`op!`] does it in a line) and name a lowering function that
//!    exists: `int2::<Add>`. Others implement [`Exec`] themselves; its method is `#[inline(always)]`,
//!    reads registers through the slots of the instruction, writes the lanes of `mask` only, and
//!    returns what the scheduler is to do.
//! 3. A test in the family's file: PTX text in, expected bits out ([`crate::testing`]).
//!
//! What the row does not name is refused with file and line; what the lowering function does not
//! take is refused by [`Form::finish`].

pub(crate) mod atomic;
pub(crate) mod barrier;
pub(crate) mod bits;
pub(crate) mod bulk;
pub(crate) mod cache;
pub(crate) mod call;
pub(crate) mod cluster;
pub(crate) mod compare;
pub(crate) mod control;
pub(crate) mod convert;
pub(crate) mod convert_eight;
pub(crate) mod copy;
pub(crate) mod directed;
pub(crate) mod exact;
pub(crate) mod float;
pub(crate) mod format;
pub(crate) mod half;
pub(crate) mod integer;
pub(crate) mod ldmatrix;
pub(crate) mod matrix;
pub(crate) mod matrix_double;
pub(crate) mod matrix_integer;
pub(crate) mod matrix_quad;
pub(crate) mod mbarrier;
pub(crate) mod memory;
pub(crate) mod mixed;
pub(crate) mod moves;
pub(crate) mod number;
pub(crate) mod pack;
pub(crate) mod runtime;
pub(crate) mod shuffle;
pub(crate) mod special;
pub(crate) mod stack;
pub(crate) mod video;
pub(crate) mod wmma;

use std::marker::PhantomData;

use crate::counters::InstructionClass;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst, Repeat};
use crate::exec::lanes::{ALL, Files, LANES, Mask, STEP, Value, Word, merge};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::Family;

/// Every family of the table.
pub(crate) const FAMILIES: &[Family] = &[
    Family { class: InstructionClass::Integer, rows: integer::ROWS },
    Family { class: InstructionClass::Integer, rows: video::ROWS },
    Family { class: InstructionClass::Bits, rows: bits::ROWS },
    Family { class: InstructionClass::Float, rows: float::ROWS },
    Family { class: InstructionClass::Float, rows: mixed::ROWS },
    Family { class: InstructionClass::Double, rows: float::DOUBLE_ROWS },
    Family { class: InstructionClass::Double, rows: directed::ROWS },
    Family { class: InstructionClass::Half, rows: half::ROWS },
    Family { class: InstructionClass::Special, rows: special::ROWS },
    Family { class: InstructionClass::Compare, rows: compare::ROWS },
    Family { class: InstructionClass::Convert, rows: convert::ROWS },
    Family { class: InstructionClass::Convert, rows: convert_eight::ROWS },
    Family { class: InstructionClass::Convert, rows: pack::ROWS },
    Family { class: InstructionClass::Move, rows: moves::ROWS },
    Family { class: InstructionClass::Memory, rows: memory::ROWS },
    Family { class: InstructionClass::Memory, rows: cache::ROWS },
    Family { class: InstructionClass::Atomic, rows: atomic::ROWS },
    Family { class: InstructionClass::Copy, rows: copy::ROWS },
    Family { class: InstructionClass::Matrix, rows: matrix::ROWS },
    Family { class: InstructionClass::Matrix, rows: matrix_integer::ROWS },
    Family { class: InstructionClass::Matrix, rows: matrix_double::ROWS },
    Family { class: InstructionClass::Matrix, rows: matrix_quad::ROWS },
    Family { class: InstructionClass::Memory, rows: ldmatrix::ROWS },
    Family { class: InstructionClass::Warp, rows: shuffle::ROWS },
    Family { class: InstructionClass::Barrier, rows: barrier::ROWS },
    Family { class: InstructionClass::Control, rows: control::ROWS },
    Family { class: InstructionClass::Control, rows: call::ROWS },
    Family { class: InstructionClass::Control, rows: stack::ROWS },
    Family { class: InstructionClass::Matrix, rows: wmma::ROWS },
    Family { class: InstructionClass::Copy, rows: bulk::ROWS },
    Family { class: InstructionClass::Barrier, rows: bulk::FENCE_ROWS },
    Family { class: InstructionClass::Barrier, rows: mbarrier::ROWS },
    Family { class: InstructionClass::Barrier, rows: cluster::ROWS },
    Family { class: InstructionClass::Move, rows: cluster::MOVE_ROWS },
];

/// What a lowering function gives back.
pub(crate) type Lowered = Result<(), crate::error::Fault>;

/// An operation on one lane with one operand.
pub(crate) trait Op1<A, D>: 'static {
    fn apply(a: A) -> D;
}

/// An operation on one lane with two operands.
pub(crate) trait Op2<A, B, D>: 'static {
    fn apply(a: A, b: B) -> D;
}

/// An operation on one lane with three operands.
pub(crate) trait Op3<A, B, C, D>: 'static {
    fn apply(a: A, b: B, c: C) -> D;
}

/// `op! { Add<T: Int>(a, b) => a.wrapping_add(b) }` makes a type `Add` that is the operation for every `T`.
macro_rules! op {
    ($(#[$meta:meta])* $name:ident<$t:ident: $bound:path>($a:ident) => $body:expr) => {
        $(#[$meta])*
        pub(crate) struct $name;
        impl<$t: $bound> $crate::ops::Op1<$t, $t> for $name {
            #[inline(always)]
            fn apply($a: $t) -> $t {
                $body
            }
        }
    };
    ($(#[$meta:meta])* $name:ident<$t:ident: $bound:path>($a:ident, $b:ident) => $body:expr) => {
        $(#[$meta])*
        pub(crate) struct $name;
        impl<$t: $bound> $crate::ops::Op2<$t, $t, $t> for $name {
            #[inline(always)]
            fn apply($a: $t, $b: $t) -> $t {
                $body
            }
        }
    };
    ($(#[$meta:meta])* $name:ident<$t:ident: $bound:path>($a:ident, $b:ident, $c:ident) => $body:expr) => {
        $(#[$meta])*
        pub(crate) struct $name;
        impl<$t: $bound> $crate::ops::Op3<$t, $t, $t, $t> for $name {
            #[inline(always)]
            fn apply($a: $t, $b: $t, $c: $t) -> $t {
                $body
            }
        }
    };
    ($(#[$meta:meta])* $name:ident($($a:ident: $t:ty),*) -> $d:ty => $body:expr) => {
        $(#[$meta])*
        pub(crate) struct $name;
        op!(@typed $name ($($a: $t),*) -> $d => $body);
    };
    (@typed $name:ident ($a:ident: $ta:ty) -> $d:ty => $body:expr) => {
        impl $crate::ops::Op1<$ta, $d> for $name {
            #[inline(always)]
            fn apply($a: $ta) -> $d {
                $body
            }
        }
    };
    (@typed $name:ident ($a:ident: $ta:ty, $b:ident: $tb:ty) -> $d:ty => $body:expr) => {
        impl $crate::ops::Op2<$ta, $tb, $d> for $name {
            #[inline(always)]
            fn apply($a: $ta, $b: $tb) -> $d {
                $body
            }
        }
    };
    (@typed $name:ident ($a:ident: $ta:ty, $b:ident: $tb:ty, $c:ident: $tc:ty) -> $d:ty => $body:expr) => {
        impl $crate::ops::Op3<$ta, $tb, $tc, $d> for $name {
            #[inline(always)]
            fn apply($a: $ta, $b: $tb, $c: $tc) -> $d {
                $body
            }
        }
    };
}
pub(crate) use op;

/// One operand, lane by lane: `d = O(a)`.
pub(crate) struct Map1<O, A, D>(PhantomData<(O, A, D)>);
/// Two operands, lane by lane: `d = O(a, b)`.
pub(crate) struct Map2<O, A, B, D>(PhantomData<(O, A, B, D)>);
/// Three operands, lane by lane: `d = O(a, b, c)`.
pub(crate) struct Map3<O, A, B, C, D>(PhantomData<(O, A, B, C, D)>);

/// Runs an instruction for all lanes and gives those that take no part their old values back. The instruction's handler is
/// one that writes nothing but [`Inst::d`], whatever it finds in the other lanes.
#[inline(never)]
fn masked<W: Word>(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
    let before = *W::read(&warp.regs, inst.d);
    let flow = inst.execute(warp, ALL, env);
    merge(W::slot(&mut warp.regs, inst.d), !mask, &before);
    flow
}

impl<O: Op1<A, D>, A: Value, D: Value> Exec for Map1<O, A, D> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if mask != ALL {
            return masked::<D::Word>(warp, inst, mask, env);
        }
        let mut files = warp.regs.files();
        for at in 0..LANES / STEP {
            let a = files.part::<A::Word>(inst.a, at);
            let mut out = [D::Word::default(); STEP];
            for lane in 0..STEP {
                out[lane] = O::apply(A::get(a[lane])).put();
            }
            files.set_part(inst.d, at, out);
        }
        Flow::Next
    }
}

impl<O: Op2<A, B, D>, A: Value, B: Value, D: Value> Exec for Map2<O, A, B, D> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if mask != ALL {
            return masked::<D::Word>(warp, inst, mask, env);
        }
        Self::all(&mut warp.regs.files(), inst);
        Flow::Next
    }
}

impl<O: Op2<A, B, D>, A: Value, B: Value, D: Value> Repeat for Map2<O, A, B, D> {
    #[inline(always)]
    fn all(files: &mut Files<'_>, inst: &Inst) {
        for at in 0..LANES / STEP {
            let a = files.part::<A::Word>(inst.a, at);
            let b = files.part::<B::Word>(inst.b, at);
            let mut out = [D::Word::default(); STEP];
            for lane in 0..STEP {
                out[lane] = O::apply(A::get(a[lane]), B::get(b[lane])).put();
            }
            files.set_part(inst.d, at, out);
        }
    }
}

impl<O: Op3<A, B, C, D>, A: Value, B: Value, C: Value, D: Value> Exec for Map3<O, A, B, C, D> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if mask != ALL {
            return masked::<D::Word>(warp, inst, mask, env);
        }
        Self::all(&mut warp.regs.files(), inst);
        Flow::Next
    }
}

impl<O: Op3<A, B, C, D>, A: Value, B: Value, C: Value, D: Value> Repeat for Map3<O, A, B, C, D> {
    #[inline(always)]
    fn all(files: &mut Files<'_>, inst: &Inst) {
        for at in 0..LANES / STEP {
            let a = files.part::<A::Word>(inst.a, at);
            let b = files.part::<B::Word>(inst.b, at);
            let c = files.part::<C::Word>(inst.c, at);
            let mut out = [D::Word::default(); STEP];
            for lane in 0..STEP {
                out[lane] = O::apply(A::get(a[lane]), B::get(b[lane]), C::get(c[lane])).put();
            }
            files.set_part(inst.d, at, out);
        }
    }
}

/// An instruction that does nothing here: what it asks for holds without it.
pub(crate) struct Nothing;

impl Exec for Nothing {
    #[inline(always)]
    fn exec(_: &mut Warp, _: &Inst, _: Mask, _: &mut Env<'_>) -> Flow {
        Flow::Next
    }
}

/// A destination and two sources of the instruction's type.
pub(crate) fn operands2(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(ty)?;
    f.inst.a = f.src(ty)?;
    f.inst.b = f.src(ty)?;
    Ok(())
}

/// A destination and three sources of the instruction's type.
pub(crate) fn operands3(f: &mut Form<'_, '_>) -> Lowered {
    operands2(f)?;
    let ty = f.ty();
    f.inst.c = f.src(ty)?;
    Ok(())
}

/// A destination and a source of the instruction's type.
pub(crate) fn operands1(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(ty)?;
    f.inst.a = f.src(ty)?;
    Ok(())
}

/// `for_type!(ty, f, { U32 => u32, F32 => f32 }, T => Handler<T>)` sets the handler for the type.
macro_rules! for_type {
    ($ty:expr, $f:expr, { $($variant:ident => $rust:ty),* $(,)? }, $t:ident => $handler:ty) => {
        match $ty {
            $($crate::types::Type::$variant => {
                type $t = $rust;
                $f.run::<$handler>()
            })*
            other => Err($f.fault(format!("`{}` does not take .{}", $f.ins.opcode, other.name()))),
        }
    };
}
pub(crate) use for_type;
