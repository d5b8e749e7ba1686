//! Hints about caches and about what runs next (PTX ISA, "prefetch", "applypriority", "discard", "createpolicy",
//! "griddepcontrol"). They change no value, but for `discard`, whose bytes are undefined afterwards.

use super::{Lowered, Map1, Nothing, Op1};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Mask, lanes};
use crate::exec::warp::Warp;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::memory::access::{
    Access, Generic, Global, Memory, Refused, Resolve, addresses, permitted, refuse,
};
use crate::memory::region::{INIT, UNDEFINED};
use crate::types::{Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row("prefetch[.global|local].L1|L2 [a]", hint),
    row("prefetch[.global].L2::evict_last|L2::evict_normal [a]", hint).from_sm(80),
    row("prefetchu.L1 [a]", hint),
    row("applypriority[.global].L2::evict_normal [a], size", sized_hint).from_sm(80),
    row("discard[.global].L2 [a], size", discard).from_sm(80),
    row("createpolicy.range[.global].L2::evict_last|L2::evict_normal|L2::evict_first[.L2::evict_first|L2::evict_unchanged].b64 d, [a], primary, total", range)
        .from_sm(80),
    row("griddepcontrol.wait|launch_dependents", depends).from_sm(90),
];

fn space(f: &Form<'_, '_>) -> Space {
    f.pick(&[("global", Space::Global), ("local", Space::Local)]).unwrap_or(Space::Generic)
}

fn hint(f: &mut Form<'_, '_>) -> Lowered {
    f.address(space(f))?;
    f.run::<Nothing>()
}

/// Bytes that `applypriority` and `discard` work on.
const LINE: i64 = 128;

fn line(f: &mut Form<'_, '_>) -> Lowered {
    f.address(space(f))?;
    match f.integer()? {
        LINE => Ok(()),
        other => Err(f.fault(format!("`{}` takes {LINE} bytes, not {other}", f.ins.opcode))),
    }
}

fn sized_hint(f: &mut Form<'_, '_>) -> Lowered {
    line(f)?;
    f.run::<Nothing>()
}

fn discard(f: &mut Form<'_, '_>) -> Lowered {
    line(f)?;
    if f.has("global") { f.run::<Discard<Global>>() } else { f.run::<Discard<Generic>>() }
}

/// Nobody may read the bytes before they are written again.
struct Discard<R>(std::marker::PhantomData<R>);

impl<R: Resolve + 'static> Exec for Discard<R> {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let addresses = addresses(&warp.regs, inst);
        let bytes = LINE as u64;
        for lane in lanes(mask) {
            let address = addresses.0[lane];
            let memory =
                Memory { launch: env.launch, shared: &env.shared, local: warp.local.as_ref() };
            let found = address
                .is_multiple_of(bytes)
                .then(|| R::find(&memory, &mut { u32::MAX }, lane, address, bytes))
                .flatten()
                .filter(|(region, offset)| {
                    permitted(region, *offset, bytes as usize, Access::Store)
                });
            let Some((region, offset)) = found else {
                return refuse::<R>(
                    env,
                    warp.local.as_ref(),
                    Refused { lane, address, bytes, access: Access::Store },
                );
            };
            region.mark(offset, bytes as usize, 0, INIT | UNDEFINED);
        }
        Flow::Next
    }
}

/// A policy is opaque and changes nothing here.
struct Policy;

impl Op1<u64, u64> for Policy {
    #[inline(always)]
    fn apply(address: u64) -> u64 {
        address | 1
    }
}

fn range(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.d = f.dst(Type::B64)?;
    let (slot, wide, _, _) = f.address_parts(space(f))?;
    if !wide {
        return Err(f.fault("the address of a policy has 64 bits"));
    }
    f.inst.a = slot;
    f.src(Type::U32)?;
    f.src(Type::U32)?;
    f.run::<Map1<Policy, u64, u64>>()
}

/// Launches follow one another here, so that what came before is complete.
fn depends(f: &mut Form<'_, '_>) -> Lowered {
    f.run::<Nothing>()
}
