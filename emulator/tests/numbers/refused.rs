//! Forms that `ptxas` 13.0 refuses for the target, and that are refused here as well.

use ptx_emulator::Module;

/// Registers: `%h` 16, `%r` 32, `%d` 64 bits, `%f` f32, `%p` predicates.
fn parse(target: &str, instruction: &str) -> Result<Module, String> {
    let text = format!(
        ".version 8.8\n.target {target}\n.address_size 64\n.visible .entry k() {{\n\
         .reg .b16 %h<5>;\n.reg .b32 %r<5>;\n.reg .b64 %d<5>;\n.reg .f32 %f<5>;\n.reg .pred %p<5>;\n\
         mov.b16 %h1, 0; mov.b16 %h2, 0; mov.b16 %h3, 0; mov.b32 %r1, 0; mov.b32 %r2, 0; mov.b32 %r3, 0;\n\
         mov.b64 %d1, 0; mov.f32 %f1, 0f00000000; mov.f32 %f2, 0f00000000; mov.f32 %f3, 0f00000000;\n\
         setp.eq.u32 %p1, 0, 0;\n\
         {instruction}\nret;\n}}\n"
    );
    Module::parse("form.ptx", &text).map_err(|e| e.to_string())
}

/// The instruction is named by the error, not something else on the way to it.
fn refused(target: &str, instructions: &[&str]) {
    for instruction in instructions {
        let error = parse(target, instruction).expect_err(instruction);
        assert!(error.contains(instruction), "{instruction}: {error}");
    }
}

#[test]
fn forms_of_later_targets() {
    let later = [
        "add.u16x2 %r4, %r1, %r2;",
        "min.s16x2 %r4, %r1, %r2;",
        "min.relu.s32 %r4, %r1, %r2;",
        "min.relu.s16x2 %r4, %r1, %r2;",
        "min.xorsign.abs.f32 %f4, %f1, %f2;",
        "max.xorsign.abs.bf16 %h4, %h1, %h2;",
        "add.bf16 %h4, %h1, %h2;",
        "mul.bf16x2 %r4, %r1, %r2;",
        "ex2.approx.ftz.bf16 %h4, %h1;",
        "tanh.approx.bf16x2 %r4, %r1;",
        "setp.lt.bf16 %p2, %h1, %h2;",
        "setp.lt.bf16x2 %p2|%p3, %r1, %r2;",
        "set.gt.bf16.bf16 %h4, %h1, %h2;",
        "set.gt.bf16.f32 %h4, %f1, %f2;",
        "set.gt.s32.bf16 %r4, %h1, %h2;",
        "cvt.bf16.bf16 %h4, %h1;",
        "cvt.rn.bf16.f16 %h4, %h1;",
        "cvt.rp.bf16.u32 %h4, %r1;",
        "cvt.f64.bf16 %d4, %h1;",
        "cvt.ftz.f32.bf16 %f4, %h1;",
        "cvt.rzi.s32.bf16 %r4, %h1;",
        "cvt.rn.tf32.f32 %r4, %f1;",
        "cvt.rz.relu.tf32.f32 %r4, %f1;",
        "cvt.rn.f16x2.e4m3x2 %r4, %h1;",
        "cvt.rn.satfinite.e5m2x2.f16x2 %h4, %r1;",
        "cvt.rn.satfinite.relu.e4m3x2.f32 %h4, %f1, %f2;",
    ];
    refused("sm_80", &later);
    for instruction in later {
        parse("sm_90", instruction).unwrap_or_else(|e| panic!("{instruction}: {e}"));
    }
    let latest = [
        "cvt.rn.satfinite.tf32.f32 %r4, %f1;",
        "min.f32 %f4, %f1, %f2, %f3;",
        "max.NaN.abs.f32 %f4, %f1, %f2, %f3;",
        "add.f32.f16 %f4, %h1, %f2;",
        "fma.rz.f32.bf16 %f4, %h1, %h2, %f3;",
    ];
    // `sm_90a` has what `sm_90` has not.
    let own = ["setmaxnreg.inc.sync.aligned.u32 240;"];
    refused("sm_90", &own);
    parse("sm_90a", own[0]).unwrap_or_else(|e| panic!("{e}"));
    refused("sm_90", &latest);
    for instruction in latest {
        parse("sm_100", instruction).unwrap_or_else(|e| panic!("{instruction}: {e}"));
    }
}

#[test]
fn forms_that_no_target_has() {
    let wrong = [
        "sub.s16x2 %r4, %r1, %r2;",
        "neg.s16x2 %r4, %r1;",
        "add.sat.u32 %r4, %r1, %r2;",
        "add.ftz.f64 %d4, %d1, %d1;",
        "mul.wide.s64 %d4, %d1, %d1;",
        "mad.hi.sat.u32 %r4, %r1, %r2, %r3;",
        "addc.cc.u16 %h4, %h1, %h2;",
        "min.xorsign.f32 %f4, %f1, %f2;",
        "min.xorsign.abs.f32 %f4, %f1, %f2, %f3;",
        "min.ftz.bf16 %h4, %h1, %h2;",
        "abs.ftz.bf16 %h4, %h1;",
        "fma.rn.sat.relu.f16 %h4, %h1, %h2, %h3;",
        "fma.rz.f16 %h4, %h1, %h2, %h3;",
        "fma.f32 %f4, %f1, %f2, %f3;",
        "div.f32 %f4, %f1, %f2;",
        "rcp.approx.f64 %d4, %d1;",
        "tanh.approx.ftz.f32 %f4, %f1;",
        "selp.f16 %h4, %h1, %h2, %p1;",
        "setp.lt.b32 %p2, %r1, %r2;",
        "setp.lo.s32 %p2, %r1, %r2;",
        "setp.ltu.s32 %p2, %r1, %r2;",
        "setp.lt.ftz.f64 %p2, %d1, %d1;",
        "setp.lt.f16 %p2|%p3, %h1, %h2;",
        "set.gt.f32.f16 %f4, %h1, %h2;",
        "slct.ftz.u32.s32 %r4, %r1, %r2, %r3;",
        "cvt.rn.f16.f16 %h4, %h1;",
        "cvt.rn.f32.f32 %f4, %f1;",
        "cvt.f16.f32 %h4, %f1;",
        "cvt.rzi.f16.f32 %h4, %f1;",
        "cvt.s32.f32 %r4, %f1;",
        "cvt.rn.s32.f32 %r4, %f1;",
        "cvt.f32.s32 %f4, %r1;",
        "cvt.rn.sat.bf16.f32 %h4, %f1;",
        "cvt.sat.bf16.bf16 %h4, %h1;",
        "cvt.rzi.sat.s32.bf16 %r4, %h1;",
        "cvt.sat.f32.bf16 %f4, %h1;",
        "cvt.rzi.s8.bf16 %h4, %h1;",
        "cvt.rn.bf16.u8 %h4, %h1;",
        "cvt.rna.f32.tf32 %f4, %r1;",
        "set.eq.b32.u32 %r4, %r1, %r2;",
        "set.eq.f16.bf16 %h4, %h1, %h2;",
        "set.eq.ftz.bf16.f32 %h4, %f1, %f2;",
        "cvt.rp.satfinite.f16.f32 %h4, %f1;",
        "cvt.rn.bf16x2.e4m3x2 %r4, %h1;",
        "cvt.rn.e4m3x2.f32 %h4, %f1, %f2;",
        "cvt.sat.s32.u8 %r4, %r1;",
        "cvt.sat.u32.u32 %r4, %r1;",
        "cvt.ftz.s32.u32 %r4, %r1;",
        "cvt.pack.sat.u8.s32 %r4, %r1, %r2;",
        "cvt.pack.u16.s32 %r4, %r1, %r2;",
        "dp4a.u32 %r4, %r1, %r2, %r3;",
        "bfe.b32 %r4, %r1, %r2, %r3;",
        "popc.u32 %r4, %r1;",
    ];
    refused("sm_90", &wrong);
}

/// `ptxas` 13.0 assembles these, which the ISA does not have, and an H100 gives results that are not of the operation:
/// `fma.rz.bf16` is no rounding of the sum, `subc.s16` takes the carry for a borrow.
#[test]
fn forms_that_the_assembler_lets_through() {
    let forms = [
        "fma.rz.bf16 %h4, %h1, %h2, %h3;",
        "fma.rm.relu.bf16 %h4, %h1, %h2, %h3;",
        "fma.rp.bf16x2 %r4, %r1, %r2, %r3;",
        "fma.rz.relu.bf16x2 %r4, %r1, %r2, %r3;",
        "addc.u16 %h4, %h1, %h2;",
        "subc.s16 %h4, %h1, %h2;",
        "madc.lo.u16 %h4, %h1, %h2, %h3;",
        "madc.hi.s16 %h4, %h1, %h2, %h3;",
    ];
    refused("sm_90", &forms);
}

/// Special registers are read by `mov` and `cvt` (PTX ISA, "Special Registers").
#[test]
fn special_registers_elsewhere() {
    let forms = [
        "setp.eq.u32 %p2, %laneid, 3;",
        "add.u32 %r4, %r1, %tid.x;",
        "mad.lo.u32 %r4, %ctaid.x, %r1, %r2;",
        "mul.wide.u32 %d4, %ntid.x, 4;",
        "selp.b32 %r4, %lanemask_lt, %r1, %p1;",
        "st.global.u32 [%d1], %smid;",
        "add.u64 %d4, %clock64, 1;",
    ];
    refused("sm_90", &forms);
    for form in ["mov.u32 %r4, %laneid;", "cvt.u64.u32 %d4, %tid.x;", "add.u32 %r4, %r1, WARP_SZ;"]
    {
        parse("sm_90", form).unwrap_or_else(|e| panic!("{form}: {e}"));
    }
}

/// A declared register hides the special register of its name, of which `ptxas` then takes `.x` for a part.
#[test]
fn parts_of_a_register() {
    let hidden = "{ .reg .b32 %tid; mov.u32 %tid, %tid.x; }";
    let error = parse("sm_90", hidden).expect_err("a part of a register");
    assert!(error.contains("`%tid` is declared here"), "{error}");
}
