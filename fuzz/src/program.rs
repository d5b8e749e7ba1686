//! Kernels that always parse, put together from templates: the fuzzer chooses instructions and operands.

use arbitrary::{Arbitrary, Unstructured};

/// Instruction templates. Letters stand for operands: `R` a 32-bit register, `D` a 64-bit one, `F` an f32 one, `G` an f64
/// one, `H` a 16-bit one, `P` a predicate, `I` a small number, `W` any 32-bit number, `A` a register with an address in
/// a buffer, `S` an address in shared memory, `L` a label.
const TEMPLATES: &[&str] = &[
    "mov.u32 R, W;",
    "mov.u32 R, %tid.x;",
    "mov.u32 R, %laneid;",
    "mov.u32 R, %ctaid.x;",
    "mov.u32 R, %lanemask_lt;",
    "mov.f32 F, 0fW;",
    "add.s32 R, R, R;",
    "sub.u32 R, R, W;",
    "mul.lo.s32 R, R, R;",
    "mul.hi.u32 R, R, R;",
    "mad.lo.s32 R, R, R, R;",
    "mul.wide.u32 D, R, R;",
    "mad.wide.s32 D, R, I, D;",
    "div.s32 R, R, R;",
    "rem.u32 R, R, R;",
    "min.s32 R, R, R;",
    "abs.s32 R, R;",
    "and.b32 R, R, R;",
    "or.b64 D, D, D;",
    "shl.b32 R, R, R;",
    "shr.s64 D, D, R;",
    "bfe.u32 R, R, R, R;",
    "bfi.b32 R, R, R, R, R;",
    "prmt.b32 R, R, R, R;",
    "lop3.b32 R, R, R, R, 0x1e;",
    "popc.b32 R, R;",
    "clz.b64 R, D;",
    "brev.b32 R, R;",
    "add.cc.u32 R, R, R;",
    "addc.u32 R, R, R;",
    "selp.b32 R, R, R, P;",
    "setp.lt.s32 P, R, R;",
    "setp.geu.f32 P, F, F;",
    "setp.eq.and.u32 P, R, R, P;",
    "fma.rn.f32 F, F, F, F;",
    "add.rz.ftz.f32 F, F, F;",
    "div.rn.f32 F, F, F;",
    "ex2.approx.ftz.f32 F, F;",
    "sqrt.rn.f64 G, G;",
    "cvt.rzi.s32.f32 R, F;",
    "cvt.rn.f32.u64 F, D;",
    "cvt.f64.f32 G, F;",
    "cvt.rn.f16.f32 H, F;",
    "cvt.rn.bf16x2.f32 R, F, F;",
    "fma.rn.f16x2 R, R, R, R;",
    "cvt.u64.u32 D, R;",
    "cvt.s8.s32 R, R;",
    "ld.global.u32 R, [A+I];",
    "ld.global.v4.u32 {R, R, R, R}, [A];",
    "ld.global.nc.L1::no_allocate.u64 D, [A+I];",
    "ld.volatile.global.u32 R, [A];",
    "ld.acquire.gpu.u32 R, [A];",
    "ld.u8 R, [A+I];",
    "st.global.u32 [A+I], R;",
    "st.global.v2.f32 [A], {F, F};",
    "st.release.gpu.u32 [A], R;",
    "atom.global.add.u32 R, [A], R;",
    "atom.global.cas.b32 R, [A], R, R;",
    "atom.global.add.f32 F, [A], F;",
    "red.global.max.s32 [A+I], R;",
    "ld.shared.u32 R, [S+I];",
    "ld.shared.v2.u32 {R, R}, [S];",
    "st.shared.u32 [S+I], R;",
    "st.shared.u8 [S], R;",
    "atom.shared.exch.b32 R, [S], R;",
    "ld.local.u32 R, [frame+I];",
    "st.local.u32 [frame+I], R;",
    "cp.async.ca.shared.global [S], [A], 16;",
    "cp.async.cg.shared.global [S], [A], 16, R;",
    "cp.async.commit_group;",
    "cp.async.wait_group I;",
    "cp.async.wait_all;",
    "bar.sync 0;",
    "bar.arrive 1, 64;",
    "bar.warp.sync R;",
    "shfl.sync.bfly.b32 R|P, R, R, 31, R;",
    "shfl.sync.idx.b32 R, R, I, 31, -1;",
    "vote.sync.ballot.b32 R, P, -1;",
    "match.any.sync.b32 R, R, -1;",
    "redux.sync.add.s32 R, R, -1;",
    "activemask.b32 R;",
    "ldmatrix.sync.aligned.m8n8.x2.shared.b16 {R, R}, [S];",
    "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {F, F, F, F}, {R, R, R, R}, {R, R}, {F, F, F, F};",
    "mbarrier.init.shared.b64 [S], I;",
    "mbarrier.arrive.shared.b64 D, [S];",
    "mbarrier.test_wait.shared.b64 P, [S], D;",
    "membar.gl;",
    "fence.acq_rel.gpu;",
    "nanosleep.u32 R;",
    "@P bra L;",
    "@!P bra L;",
    "bra L;",
    "bra.uni L;",
    "@P exit;",
    "exit;",
    "trap;",
];

/// A kernel of up to 48 instructions. Its parameters are two pointers and a number.
#[derive(Debug)]
pub struct Program(pub String);

/// Bytes of the parameters of a program.
pub const PARAM_BYTES: usize = 20;

impl<'a> Arbitrary<'a> for Program {
    fn arbitrary(u: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let count = u.int_in_range(1..=48)?;
        let mut text = String::from(
            ".version 8.0\n.target sm_90\n.address_size 64\n.extern .shared .align 16 .b8 dynamic[];\n\
             .visible .entry fuzz(.param .u64 p, .param .u64 q, .param .u32 n)\n{\n\
             .reg .b32 %r<8>;\n.reg .b64 %rd<4>;\n.reg .f32 %f<4>;\n.reg .f64 %fd<2>;\n.reg .b16 %h<2>;\n.reg .pred %p<4>;\n\
             .shared .align 16 .b8 tile[512];\n.local .align 16 .b8 frame[64];\n",
        );
        // Most programs start with everything set, the rest meet the check of registers.
        if u.ratio(7, 8)? {
            text.push_str("ld.param.u64 %rd0, [p];\nld.param.u64 %rd1, [q];\nld.param.u32 %r0, [n];\nmov.u32 %r1, %tid.x;\n");
            text.push_str("mov.u32 %r2, tile;\nmov.u32 %r3, 0;\nmov.b64 %rd2, 0;\nmov.b64 %rd3, 64;\n");
            text.push_str("mad.wide.u32 %rd1, %r1, 16, %rd1;\nmad.lo.u32 %r2, %r1, 16, %r2;\n");
            (4..8).for_each(|i| text.push_str(&format!("mov.u32 %r{i}, {i};\n")));
            (0..4).for_each(|i| text.push_str(&format!("mov.f32 %f{i}, 0f3F80000{i};\nsetp.eq.u32 %p{i}, %r1, {i};\n")));
            text.push_str("mov.f64 %fd0, 0d3FF0000000000000;\nmov.f64 %fd1, 0d4000000000000000;\n");
            text.push_str("mov.u16 %h0, 1;\nmov.u16 %h1, 15360;\n");
        }
        for line in 0..count {
            text.push_str(&format!("$l{line}: "));
            for c in u.choose(TEMPLATES)?.chars() {
                // Capitals are operands, unless they belong to a modifier such as `L1`.
                let operand = match c {
                    'R' => format!("%r{}", u.int_in_range(0..=7)?),
                    'D' => format!("%rd{}", u.int_in_range(2..=3)?),
                    'F' => format!("%f{}", u.int_in_range(0..=3)?),
                    'G' => format!("%fd{}", u.int_in_range(0..=1)?),
                    'H' => format!("%h{}", u.int_in_range(0..=1)?),
                    'P' => format!("%p{}", u.int_in_range(0..=3)?),
                    'I' => format!("{}", u.int_in_range(0..=15)? * 4),
                    'W' => format!("0x{:08X}", u.arbitrary::<u32>()?),
                    'A' => format!("%rd{}", u.int_in_range(0..=3)?),
                    'S' => (*u.choose(&["tile", "dynamic", "%r2", "%r2", "%r6"])?).into(),
                    'L' if !text.ends_with("::no_allocate") && !text.ends_with("nc.") => format!("$l{}", u.int_in_range(0..=count)?),
                    other => other.into(),
                };
                text.push_str(&operand);
            }
            text.push('\n');
        }
        text = text.replace("0f0x", "0f");
        text.push_str(&format!("$l{count}: ret;\n}}\n"));
        Ok(Program(text))
    }
}
