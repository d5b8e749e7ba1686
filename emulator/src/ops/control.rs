//! Where lanes go next (PTX ISA, "Control Flow Instructions").

use super::copy::land_empty;
use super::matrix::expect_all;
use super::{Lowered, Nothing};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{Mask, lanes};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::parse::ast::Operand;
use crate::types::Type;

pub(crate) const ROWS: &[Row] = &[
    row("bra[.uni] label", bra),
    row("brx.idx[.uni] index, table", brx),
    row("exit", exit),
    row("trap", trap),
    row("brkpt", trap),
    row("nanosleep.u32 t", nanosleep).from_sm(70),
    row("pmevent[.mask] a", pmevent),
    row("setmaxnreg.inc|dec.sync.aligned.u32 count", setmaxnreg).from_sm(90),
];

/// Lanes that execute it go to [`Inst::aux`]. [`Inst::m`] is 1 where the text promises that all lanes do.
pub(crate) struct Branch;

impl Exec for Branch {
    #[inline(always)]
    fn exec(_: &mut Warp, _: &Inst, _: Mask, _: &mut Env<'_>) -> Flow {
        Flow::Branch
    }
}

fn bra(f: &mut Form<'_, '_>) -> Lowered {
    f.label()?;
    f.falls = false;
    f.inst.m = f.has("uni").into();
    f.run::<Branch>()
}

/// Lanes go to the entry of [`Inst::list`] that their index names.
struct BranchIndexed;

impl Exec for BranchIndexed {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let indices = warp.regs.words[inst.a as usize];
        for lane in lanes(mask) {
            let Some(&target) = inst.list.get(indices.0[lane] as usize) else {
                let message = format!(
                    "branch to entry {} of a table of {}",
                    indices.0[lane],
                    inst.list.len()
                );
                return env.fault(FindingKind::Operand, lane, message);
            };
            env.targets.0[lane] = target;
        }
        Flow::Scatter
    }
}

fn brx(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.a = f.src(Type::U32)?;
    let Operand::Name(name) = *f.take()? else {
        return Err(f.fault("expected the name of a branch table"));
    };
    let table = f.body.scopes.table(name).map(<[&str]>::to_vec);
    let table = table.ok_or_else(|| f.fault(format!("branch table `{name}` is not declared")))?;
    let labels = table.iter().map(|label| f.label_named(label)).collect::<Result<Vec<_>, _>>()?;
    f.inst.list = labels.into_boxed_slice();
    f.falls = false;
    f.run::<BranchIndexed>()
}

/// Ends the lanes that execute it.
pub(crate) struct Exit;

impl Exec for Exit {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if land_empty(warp, inst.site, mask, env) == Flow::Fault {
            return Flow::Fault;
        }
        env.exit(warp.index, mask);
        Flow::Exit
    }
}

fn exit(f: &mut Form<'_, '_>) -> Lowered {
    f.falls = false;
    f.run::<Exit>()
}

struct Trap;

impl Exec for Trap {
    fn exec(_: &mut Warp, _: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        env.fault(FindingKind::Trap, mask.trailing_zeros() as usize, "the kernel traps here")
    }
}

fn trap(f: &mut Form<'_, '_>) -> Lowered {
    f.run::<Trap>()
}

/// Time has no meaning here, and a turn ends by itself.
fn nanosleep(f: &mut Form<'_, '_>) -> Lowered {
    f.src(Type::U32)?;
    f.run::<Nothing>()
}

/// How many registers a thread has makes no difference here; the number and who asks for it are checked.
fn setmaxnreg(f: &mut Form<'_, '_>) -> Lowered {
    if !f.body.specific {
        return Err(f.fault(format!("`setmaxnreg` needs sm_{}a", f.body.sm)));
    }
    let count = f.integer()?;
    if !(24..=256).contains(&count) || count % 8 != 0 {
        return Err(f.fault(format!("{count} registers are no multiple of 8 from 24 to 256")));
    }
    f.run::<SetRegisters>()
}

struct SetRegisters;

impl Exec for SetRegisters {
    fn exec(_: &mut Warp, _: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        expect_all(env, mask, "setmaxnreg.sync.aligned").unwrap_or(Flow::Next)
    }
}

/// Counters of the hardware are no part of a launch; which of the 16 events, or a mask of them, is checked.
fn pmevent(f: &mut Form<'_, '_>) -> Lowered {
    let (event, limit) = (f.integer()?, if f.has("mask") { 1 << 16 } else { 16 });
    if !(0..limit).contains(&event) {
        return Err(f.fault(format!("{event} is not one of the numbers below {limit}")));
    }
    f.run::<Nothing>()
}

#[cfg(test)]
mod tests {
    use crate::finding::FindingKind;
    use crate::module::Module;
    use crate::testing::{eval, finding};

    #[test]
    fn registers_are_asked_for_by_whole_warps() {
        assert_eq!(eval("setmaxnreg.inc.sync.aligned.u32 240; mov.u32 %d, 1;", &[]), 1);
        let found = finding(
            "mov.u32 %a, %tid.x; setp.lt.u32 %p, %a, 8; @%p setmaxnreg.dec.sync.aligned.u32 24;",
        );
        assert_eq!(found.kind, FindingKind::Divergence, "{found}");
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for text in [
            "setmaxnreg.inc.sync.aligned.u32 20",
            "setmaxnreg.dec.sync.aligned.u32 28",
            "pmevent 16",
            "pmevent.mask 65536",
        ] {
            let text = format!(
                ".version 8.0\n.target sm_90a\n.address_size 64\n.entry k() {{ {text}; ret; }}"
            );
            let told = Module::parse("k.ptx", &text).unwrap_err().to_string();
            assert!(
                told.contains("registers are no multiple") || told.contains("is not one of"),
                "{told}"
            );
        }
        assert_eq!(eval("pmevent 15; pmevent.mask 65535; mov.u32 %d, 1;", &[]), 1);
    }
}
