//! Memory on the stack of a thread (PTX ISA, "Stack Manipulation Instructions"). A function that allocates has code of its
//! own (see [`crate::lower::callee`]), so that its frame ends with it.

use super::Lowered;
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Mask, lanes};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::lower::form::Form;
use crate::lower::table::{Row, row};
use crate::memory::FIRST_OFFSET;
use crate::types::{Class, Type};

pub(crate) const ROWS: &[Row] = &[
    row("alloca.u32|u64 d, size, align", alloca),
    row("stacksave.u32|u64 d", save),
    row("stackrestore.u32|u64 a", restore),
];

fn alloca(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(ty)?;
    f.inst.a = f.src(ty)?;
    f.inst.imm = 8;
    if f.peek().is_some() {
        f.inst.imm = f.integer()?;
    }
    if !(8..=1 << 10).contains(&f.inst.imm) || f.inst.imm.count_ones() != 1 {
        return Err(f.fault(format!("{} is no power of two from 8 to 1024", f.inst.imm)));
    }
    takes_part(f, ty);
    f.run::<Alloca>()
}

/// Notes the type of the operand, and that the kernel has a stack.
fn takes_part(f: &mut Form<'_, '_>, ty: Type) {
    f.inst.m = (ty == Type::U64).into();
    f.body.allocates = true;
}

/// The class of the operand.
fn class(inst: &Inst) -> Class {
    if inst.m != 0 { Class::Double } else { Class::Word }
}

/// Takes memory aligned to [`Inst::imm`] from the stack of each lane; nobody has written it.
struct Alloca;

impl Exec for Alloca {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        for lane in lanes(mask) {
            let Warp { regs, stack: Some(stack), local: Some(local), .. } = warp else {
                return env.fault(FindingKind::StackOverflow, lane, "the kernel has no stack");
            };
            let bytes = regs.lane(class(inst), inst.a, lane);
            let (own, top) = (local.bytes / LANES as u64, &mut stack.lanes[lane].top);
            // It is the address that has to be aligned.
            let start = (FIRST_OFFSET + *top).next_multiple_of(inst.imm as u64) - FIRST_OFFSET;
            let left = own.saturating_sub(start);
            if bytes > left {
                let message = format!(
                    "`alloca` of {bytes} bytes, and the stack of the thread has {left} left"
                );
                return env.fault(FindingKind::StackOverflow, lane, message);
            }
            *top = start + bytes;
            local.mark((lane as u64 * own + start) as usize, bytes as usize, 0, u8::MAX);
            regs.set_lane(class(inst), inst.d, lane, FIRST_OFFSET + start);
        }
        Flow::Next
    }
}

fn save(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.d = f.dst(ty)?;
    takes_part(f, ty);
    f.run::<Save>()
}

/// Gives each lane the end of its stack.
struct Save;

impl Exec for Save {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        for lane in lanes(mask) {
            let Warp { regs, stack: Some(stack), .. } = warp else {
                return env.fault(FindingKind::StackOverflow, lane, "the kernel has no stack");
            };
            regs.set_lane(class(inst), inst.d, lane, FIRST_OFFSET + stack.lanes[lane].top);
        }
        Flow::Next
    }
}

fn restore(f: &mut Form<'_, '_>) -> Lowered {
    let ty = f.ty();
    f.inst.a = f.src(ty)?;
    takes_part(f, ty);
    f.run::<Restore>()
}

/// Gives back what was allocated since the stack ended at the address of each lane.
struct Restore;

impl Exec for Restore {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        for lane in lanes(mask) {
            let Warp { regs, stack: Some(stack), local: Some(local), .. } = warp else {
                return env.fault(FindingKind::StackOverflow, lane, "the kernel has no stack");
            };
            let address = regs.lane(class(inst), inst.a, lane);
            let (bottom, top) = (stack.bottom_of(lane), stack.lanes[lane].top);
            let wanted = address.wrapping_sub(FIRST_OFFSET);
            if !(bottom..=top).contains(&wanted) {
                let message = format!(
                    "`stackrestore` of {address:#x}, which is no end that the stack has had"
                );
                return env.fault(FindingKind::Operand, lane, message);
            }
            stack.lanes[lane].top = wanted;
            let own = local.bytes as usize / LANES;
            local.mark(lane * own + wanted as usize, (top - wanted) as usize, 0, u8::MAX);
        }
        Flow::Next
    }
}

#[cfg(test)]
mod tests {
    use crate::finding::FindingKind;
    use crate::testing::{eval, finding};

    #[test]
    fn memory_comes_from_the_stack_and_goes_back() {
        let text = "{ .reg .u32 %p0, %p1, %s, %t; stacksave.u32 %s; alloca.u32 %p0, 12; alloca.u32 %p1, 4, 64;
            st.local.u32 [%p0+8], 5; st.local.u32 [%p1], 7; ld.local.u32 %t, [%p0+8]; ld.local.u32 %d, [%p1];
            add.u32 %d, %d, %t; and.b32 %t, %p1, 63; add.u32 %d, %d, %t; stackrestore.u32 %s; stacksave.u32 %t;
            sub.u32 %t, %t, %s; add.u32 %d, %d, %t; }";
        assert_eq!(eval(text, &[]), 12);
        let text = "{ .reg .u64 %p0, %s; stacksave.u64 %s; alloca.u64 %p0, 16; st.local.u32 [%p0], 1;
            stackrestore.u64 %s; alloca.u64 %p0, 16; stackrestore.u64 %s; alloca.u64 %p0, 16; st.local.u32 [%p0], 3;
            ld.local.u32 %d, [%p0]; }";
        assert_eq!(eval(text, &[]), 3);
    }

    #[test]
    fn what_the_stack_has_not_is_a_finding() {
        let found = finding("alloca.u32 %a, 65536;");
        assert_eq!(found.kind, FindingKind::StackOverflow, "{found}");
        let found = finding("mov.u32 %a, 8; stackrestore.u32 %a;");
        assert_eq!(found.kind, FindingKind::Operand, "{found}");
        let again = "{ .reg .u32 %s; stacksave.u32 %s; alloca.u32 %a, 8; st.local.u32 [%a], 1; stackrestore.u32 %s;
            alloca.u32 %b, 8; ld.local.u32 %c, [%b]; ld.param.u64 %x, [out]; st.global.u32 [%x], %c; }";
        let found = finding(again);
        assert_eq!(found.kind, FindingKind::UninitialisedMemory, "{found}");
    }

    #[test]
    fn a_function_gives_back_what_it_allocated() {
        let text = ".version 8.6\n.target sm_90\n.address_size 64\n\
            .func grow() { .reg .u32 %p; alloca.u32 %p, 4096; st.local.u32 [%p], 1; ret; }\n\
            .entry k() { .reg .u32 %i; .reg .pred %more; mov.u32 %i, 0;\n\
            $next: call grow; add.u32 %i, %i, 1; setp.lt.u32 %more, %i, 16; @%more bra $next; ret; }";
        let module = crate::Module::parse("k.ptx", text).unwrap_or_else(|e| panic!("{e}"));
        let launch = crate::Launch::default();
        assert!(crate::Device::new().launch(&module, "k", &launch).is_ok());
    }
}
