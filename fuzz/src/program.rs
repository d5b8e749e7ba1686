//! Kernels that always parse, put together from templates: the fuzzer chooses instructions and operands.

use arbitrary::{Arbitrary, Unstructured};

/// Instruction templates. Letters stand for operands: `R` a 32-bit register, `D` a 64-bit one, `F` an f32 one, `G` an f64
/// one, `H` a 16-bit one, `P` a predicate, `I` a small number, `W` any 32-bit number, `A` a register with an address in
/// a buffer, `S` an address in shared memory, `L` a label. A capital right behind a full stop belongs to a modifier.
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
    "addc.cc.u64 D, D, D;",
    "madc.hi.cc.s32 R, R, R, R;",
    "mad24.hi.sat.s32 R, R, R, R;",
    "shf.l.wrap.b32 R, R, R, R;",
    "dp4a.u32.s32 R, R, R, R;",
    "bfind.shiftamt.s64 R, D;",
    "fns.b32 R, R, R, R;",
    "slct.f32.f32 F, F, F, F;",
    "set.le.and.f32.s32 F, R, R, P;",
    "copysign.f32 F, F, F;",
    "testp.subnormal.f64 P, G;",
    "max.NaN.f32 F, F, F;",
    "fma.rz.f64 G, G, G, G;",
    "rcp.approx.ftz.f64 G, G;",
    "sin.approx.f32 F, F;",
    "tanh.approx.bf16x2 R, R;",
    "ex2.approx.f16x2 R, R;",
    "min.NaN.xorsign.abs.bf16x2 R, R, R;",
    "cvt.rn.satfinite.e4m3x2.f32 H, F, F;",
    "cvt.rn.f16x2.e5m2x2 R, H;",
    "cvt.rna.tf32.f32 R, F;",
    "cvt.pack.sat.s8.s32.b32 R, R, R, R;",
    "mov.b64 D, {R, R};",
    "mov.b64 {R, R}, D;",
    "mov.b64 D, $format;",
    "cvta.shared.u64 D, D;",
    "cvta.to.global.u64 D, D;",
    "isspacep.shared P, A;",
    "mapa.shared::cluster.u32 R, S, R;",
    "prefetch.global.L2 [A];",
    "discard.global.L2 [A], 128;",
    "createpolicy.fractional.L2::evict_last.b64 D, 1.0;",
    "ld.global.L2::cache_hint.u32 R, [A], D;",
    "ld.mmio.relaxed.sys.global.u32 R, [A];",
    "st.shared::cluster.v4.u32 [S], {R, R, R, R};",
    "atom.acq_rel.gpu.global.cas.b64 D, [A], D, D;",
    "atom.global.cas.b16 H, [A], H, H;",
    "atom.global.add.noftz.f16x2 R, [A], R;",
    "atom.global.v4.f32.add {F, F, F, F}, [A], {F, F, F, F};",
    "atom.shared::cluster.inc.u32 R, [S], R;",
    "atom.min.u64 D, [A], D;",
    "red.release.gpu.global.add.u32 [A], R;",
    "red.global.v2.f32.add [A], {F, F};",
    "cp.async.mbarrier.arrive.noinc.shared.b64 [S];",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [S], [A], 16, [S];",
    "cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [S], [A], R, [S];",
    "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [S], [S], 16, [S];",
    "cp.async.bulk.global.shared::cta.bulk_group [A], [S], R;",
    "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [A], [S], 16;",
    "cp.reduce.async.bulk.global.shared::cta.bulk_group.min.s64 [A], [S], R;",
    "cp.async.bulk.prefetch.L2.global [A], 16;",
    "cp.async.bulk.commit_group;",
    "cp.async.bulk.wait_group I;",
    "cp.async.bulk.wait_group.read 0;",
    "fence.proxy.async;",
    "fence.mbarrier_init.release.cluster;",
    "mbarrier.inval.shared.b64 [S];",
    "mbarrier.expect_tx.relaxed.cta.shared.b64 [S], R;",
    "mbarrier.complete_tx.relaxed.cta.shared.b64 [S], R;",
    "mbarrier.arrive.expect_tx.shared.b64 D, [S], R;",
    "mbarrier.arrive_drop.shared.b64 D, [S];",
    "mbarrier.arrive.noComplete.shared.b64 D, [S], R;",
    "mbarrier.arrive.release.cluster.shared::cluster.b64 _, [S];",
    "mbarrier.try_wait.parity.shared.b64 P, [S], R;",
    "mbarrier.test_wait.acquire.cta.shared.b64 P, [S], D;",
    "mbarrier.pending_count.b64 R, D;",
    "bar.sync R, R;",
    "bar.red.popc.u32 R, 2, P;",
    "barrier.red.and.pred P, 3, 32, P;",
    "barrier.cluster.arrive.aligned;",
    "barrier.cluster.wait;",
    "match.all.sync.b64 R|P, D, R;",
    "vote.sync.uni.pred P, P, R;",
    "elect.sync R|P, -1;",
    "redux.sync.xor.b32 R, R, R;",
    "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [S], {R, R, R, R};",
    "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {R, R, R, R}, [S];",
    "movmatrix.sync.aligned.m8n8.trans.b16 R, R;",
    "mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {R, R}, {R, R}, {R}, {R, R};",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {F, F, F, F}, {R, R, R, R}, {R, R}, {F, F, F, F};",
    "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {F, F, F, F}, {R, R, R, R}, {R, R}, {F, F, F, F};",
    "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e5m2.f32 {F, F, F, F}, {R, R, R, R}, {R, R}, {F, F, F, F};",
    "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.u8.s8.s32 {R, R, R, R}, {R, R, R, R}, {R, R}, {R, R, R, R};",
    "mma.sync.aligned.m8n8k32.row.col.s32.s4.u4.s32 {R, R}, {R}, {R}, {R, R};",
    "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {R, R, R, R}, {R, R, R, R}, {R, R}, {R, R, R, R};",
    "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {G, G}, {G}, {G}, {G, G};",
    "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 {F, F, F, F, F, F, F, F}, {R, R}, {R, R}, {F, F, F, F, F, F, F, F};",
    "wmma.load.a.sync.aligned.row.m16n16k16.shared.f16 {R, R, R, R, R, R, R, R}, [S], R;",
    "wmma.load.c.sync.aligned.col.m16n16k16.global.f16 {R, R, R, R}, [A];",
    "wmma.load.b.sync.aligned.col.m8n8k32.u4 {R}, [A], R;",
    "wmma.mma.sync.aligned.row.col.m8n8k4.f64.f64.f64.f64 {G, G}, {G}, {G}, {G, G};",
    "wmma.store.d.sync.aligned.row.m16n16k16.global.f32 [A], {F, F, F, F, F, F, F, F}, I;",
    "griddepcontrol.wait;",
    "setmaxnreg.inc.sync.aligned.u32 64;",
    "pmevent.mask 3;",
    "alloca.u64 D, D;",
    "alloca.u32 R, R, 64;",
    "alloca.u32 R, I;",
    "stacksave.u64 D;",
    "stackrestore.u64 D;",
    "st.local.u32 [R], R;",
    "ld.local.u32 R, [D+I];",
    "vadd.s32.u32.s32.sat.max R, R.b1, R.h0, R;",
    "vshl.u32.s32.u32.sat.wrap R.h1, R.b3, R, R;",
    "vmad.s32.s32.u32.shr15 R, R.h1, -R, R;",
    "vset.u32.s32.le R.b2, R, R.b0, R;",
    "vabsdiff4.u32.u32.s32.add R.b310, R.b7610, R.b0123, R;",
    "vavrg2.s32.s32.u32.sat R, R.h31, R, R;",
    "fma.rn.relu.bf16x2 R, R, R, R;",
    "cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u64 [S], [S], 16, [S];",
    "cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.min.s32 [S], [S], R, [S];",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [S], [A], 16, [S], H;",
    "mov.u32 R, %clock;",
    "mov.u64 D, %globaltimer;",
    "{ .param .b32 i; .param .b32 o; st.param.b32 [i], R; call.uni (o), twice, (i); ld.param.b32 R, [o]; }",
    "{ .param .b32 i; .param .b32 o; st.param.b32 [i], R; @P call (o), twice, (i); ld.param.b32 R, [o]; }",
    "{ .param .b32 i; .param .b32 o; st.param.b32 [i], R; call (o), D, (i), one_word; ld.param.b32 R, [o]; }",
    "{ .param .b32 i; .param .b32 o; st.param.b32 [i], R; call.uni (o), grow, (i); ld.param.b32 R, [o]; }",
    "mov.b64 D, twice;",
    "mov.b64 D, grow;",
    "{ .param .b64 f; .param .b64 v; .param .b32 o; st.param.b64 [f], A; st.param.b64 [v], A; call.uni (o), vprintf, (f, v); ld.param.b32 R, [o]; }",
    "{ .param .b64 f; .param .b64 v; .param .b32 o; st.param.b64 [f], $format; st.param.b64 [v], D; call.uni (o), vprintf, (f, v); ld.param.b32 R, [o]; }",
    "brx.idx R, all;",
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
        Program::of(u, count, TEMPLATES)
    }
}

impl Program {
    /// A program of `count` instructions from these templates.
    fn of(u: &mut Unstructured<'_>, count: usize, templates: &[&str]) -> arbitrary::Result<Self> {
        let mut text = String::from(
            ".version 8.6\n.target sm_90a\n.address_size 64\n.extern .shared .align 16 .b8 dynamic[];\n\
             .extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);\n\
             .global .align 1 .b8 $format[16] = {37, 100, 32, 37, 53, 46, 50, 102, 32, 37, 115, 37, 108, 120, 10, 0};\n\
             .func (.param .b32 o) grow (.param .b32 i)\n{\n.reg .b32 %x, %at;\nld.param.b32 %x, [i];\n\
             alloca.u32 %at, %x;\nst.local.u8 [%at], 1;\nst.param.b32 [o], %at;\nret;\n}\n\
             .func (.param .b32 o) twice (.param .b32 i)\n{\n.reg .b32 %x, %y;\n.reg .pred %more;\n\
             ld.param.b32 %x, [i];\nsetp.lt.s32 %more, %x, 1000;\nadd.s32 %y, %x, %x;\n@!%more bra $back;\n\
             { .param .b32 p; .param .b32 q; st.param.b32 [p], %y; call (q), twice, (p); ld.param.b32 %y, [q]; }\n\
             $back: st.param.b32 [o], %y;\nret;\n}\n\
             .visible .entry fuzz(.param .u64 p, .param .u64 q, .param .u32 n)\n{\n\
             .reg .b32 %r<8>;\n.reg .b64 %rd<4>;\n.reg .f32 %f<4>;\n.reg .f64 %fd<2>;\n.reg .b16 %h<2>;\n.reg .pred %p<4>;\n\
             .shared .align 16 .b8 tile[512];\n.local .align 16 .b8 frame[64];\n\
             one_word: .callprototype (.param .b32 _) _ (.param .b32 _);\n",
        );
        let labels: Vec<String> = (0..=count).map(|line| format!("$l{line}")).collect();
        text.push_str(&format!("all: .branchtargets {};\n", labels.join(", ")));
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
            let mut before = ' ';
            for c in u.choose(templates)?.chars() {
                let operand = match c {
                    _ if before == '.' => c.into(),
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
                    'L' => format!("$l{}", u.int_in_range(0..=count)?),
                    other => other.into(),
                };
                text.push_str(&operand);
                before = c;
            }
            text.push('\n');
        }
        text = text.replace("0f0x", "0f");
        text.push_str(&format!("$l{count}: ret;\n}}\n"));
        Ok(Program(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptx_emulator::Module;

    #[test]
    fn every_template_is_valid() {
        for template in TEMPLATES {
            let Program(text) = Program::of(&mut Unstructured::new(&[1; 64]), 1, &[template]).expect("bytes enough");
            if let Err(error) = Module::parse("template.ptx", &text) {
                panic!("{template}: {error}");
            }
        }
    }
}
