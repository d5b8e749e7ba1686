//! Directives, variables and control flow as compilers write them.

mod common;

use common::{Run, kernel, kernel_with, refused, store};
use ptx_emulator::{FindingKind, Module};

#[test]
fn sibling_scopes_may_use_one_name() {
    let body = "mov.u32 %r1, 0;
        { .reg .u32 %t; mov.u32 %t, 3; add.u32 %r1, %r1, %t; { .reg .u32 %t; mov.u32 %t, 40; add.u32 %r1, %r1, %t; } add.u32 %r1, %r1, %t; }
        { .reg .u64 %t; mov.u64 %t, 100; { .reg .u32 %u; cvt.u32.u64 %u, %t; add.u32 %r1, %r1, %u; } }";
    assert_eq!(Run::block(1).run(&kernel(&(body.to_owned() + &store("%r1"))), &[]), [146]);
}

#[test]
fn labels_of_sibling_scopes_are_their_own() {
    let body = "mov.u32 %r1, 0;
        { $again: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 5; @%p1 bra $again; }
        { $again: add.u32 %r1, %r1, 10; setp.lt.u32 %p1, %r1, 50; @%p1 bra $again; }";
    assert_eq!(Run::block(1).run(&kernel(&(body.to_owned() + &store("%r1"))), &[]), [55]);
}

#[test]
fn a_jump_table_sends_lanes_where_their_index_says() {
    let body = "and.b32 %r2, %thread, 3; mov.u32 %r1, 0;
        table: .branchtargets $zero, $one, $two, $one;
        brx.idx %r2, table;
        $zero: mov.u32 %r1, 100; bra.uni $end;
        $one: mov.u32 %r1, 200;
        $two: add.u32 %r1, %r1, 1;
        $end: ";
    let text = kernel(&(body.to_owned() + &store("%r1")));
    let expected: Vec<u32> = (0..32).map(|t| [100, 201, 1, 201][t % 4]).collect();
    assert_eq!(Run::block(32).run(&text, &[]), expected);
    let wild = text.replace("and.b32 %r2, %thread, 3", "and.b32 %r2, %thread, 7");
    Run::block(32).finds(&wild, &[], FindingKind::Operand, "entry 4 of a table of 4");
}

#[test]
fn variables_have_their_initial_values() {
    let before = ".const .align 4 .b8 bytes[8] = {1, 0, 0, 0, 0xff, 0xff};
        .const .f32 numbers[2] = {0f3F800000, 2.0};
        .global .align 4 .u32 words[] = {5, 6, 7};
        .global .align 8 .u64 pointers[3] = {words, generic(words)+8, words+4};
        .global .align 1 .b8 $str[3] = {104, 105, 0};
        .global .align 4 .b8 zeros[8];";
    let body = "ld.const.u32 %r1, [bytes]; ld.const.u32 %r2, [bytes+4]; add.u32 %r1, %r1, %r2;
        ld.const.f32 %f1, [numbers+4]; cvt.rzi.u32.f32 %r2, %f1; add.u32 %r1, %r1, %r2;
        mov.u64 %d1, pointers; ld.global.u64 %d2, [%d1+8]; ld.u32 %r2, [%d2]; mad.lo.u32 %r1, %r2, 1000000, %r1;
        ld.global.u64 %d2, [%d1+16]; ld.global.u32 %r2, [%d2]; mad.lo.u32 %r1, %r2, 100000000, %r1;
        ld.global.u8 %r2, [$str+1]; mad.lo.u32 %r1, %r2, 1000000, %r1;
        ld.global.u32 %r2, [zeros+4]; add.u32 %r1, %r1, %r2;";
    let text = kernel_with(before, &(body.to_owned() + &store("%r1")));
    assert_eq!(
        Run::block(1).run(&text, &[]),
        [1 + 65535 + 2 + 7_000_000 + 600_000_000 + 105_000_000]
    );
}

#[test]
fn the_address_of_a_parameter_takes_an_index() {
    let text = ".version 8.0\n.target sm_80\n.address_size 64
        .visible .entry k(.param .u64 .ptr .global .align 4 in, .param .align 8 .b8 out[8]) .reqntid 32, 1, 1 .minnctapersm 1
        { .reg .u64 %o, %at; .reg .u32 %t, %x; .reg .b64 %i;
          mov.u32 %t, %tid.x; ld.param.u64 %o, [out];
          mov.b64 %at, out; and.b32 %x, %t, 1; mad.wide.u32 %at, %x, 4, %at; ld.param.u32 %x, [%at];
          mad.wide.u32 %o, %t, 4, %o; st.global.u32 [%o], %x; ret; }";
    let out = Run::block(32).run(text, &[]);
    assert!(out[0] != out[1] && out.chunks(2).all(|pair| pair == &out[..2]));
}

#[test]
fn local_arrays_belong_to_lanes() {
    let body = ".local .align 16 .b8 depot[64];
        .reg .b64 %SP, %SPL; mov.u64 %SPL, depot; cvta.local.u64 %SP, %SPL;
        and.b32 %r2, %thread, 15; mul.wide.u32 %d1, %r2, 4; add.u64 %d2, %SPL, %d1; add.u64 %d3, %SP, %d1;
        st.local.u32 [%d2], %thread; ld.u32 %r1, [%d3]; add.u32 %r1, %r1, 1; st.u32 [%d3], %r1; ld.local.u32 %r1, [%d2];";
    let text = kernel(&(body.to_owned() + &store("%r1")));
    assert_eq!(Run::block(64).run(&text, &[]), (1..65).collect::<Vec<_>>());
    let other = text.replace("ld.local.u32 %r1, [%d2]", "xor.b32 %r2, %r2, 1; mul.wide.u32 %d1, %r2, 4; add.u64 %d2, %SPL, %d1; ld.local.u32 %r1, [%d2]");
    Run::block(64).finds(&other, &[], FindingKind::UninitialisedMemory, "local memory");
}

#[test]
fn debug_information_is_read_over() {
    let text = ".version 8.4\n.target sm_90a, debug\n.address_size 64
        .file 1 \"/a b/kernel.py\", 1700000000, 1234
        .file 2 \"x.h\"
        .visible .entry k(.param .u64 .ptr .global .align 1 in, .param .u64 .ptr .global .align 1 out)
        .reqntid 32
        .noinline
        { .reg .b64 %o; .reg .b32 %t;
        $L__func_begin0:
        .loc 1 8 0
        .pragma \"nounroll\";
        ld.param.b64 %o, [out];
        .loc 2 216 16, function_name $L__info_string0, inlined_at 1 14 24
        mov.u32 %t, %tid.x;
        .loc 2 217 16, function_name $L__info_string0+4, inlined_at 1 14 24
        mad.wide.u32 %o, %t, 4, %o;
        st.global.b32 [ %o + 0 ], { %t };
        $L__tmp1:
        ret;
        $L__func_end0: }
        .section .debug_abbrev { .b8 1 .b8 17 .b8 1, 2
        .b32 $L__func_begin0 $L__info_string0: .b64 $L__func_end0+4 }
        .section .debug_macinfo { }";
    let text = text.replace(".noinline", "");
    assert_eq!(Run::block(32).run(&text, &[]), (0..32).collect::<Vec<_>>());
}

/// Neither directive ends with its line, so what follows there counts, and a part of it may stand on the next.
#[test]
fn positions_end_where_their_grammar_does() {
    let body = ".loc 1 2 3 mov.u32 %r1, 7; .loc 1 2 4, function_name $name,\n inlined_at 1 2\n 3 add.u32 %r1, %r1, 1; "
        .to_owned()
        + &store("%r1");
    let text = kernel_with(
        ".file 1 \"a.cu\" .global .u32 unused; .file 2 \"b.cu\", 5, 6 .global .u32 other;",
        &body,
    );
    assert_eq!(Run::block(1).run(&text, &[]), [8]);
    for (text, part) in [
        (".loc 1 2 mov.u32 %r1, 7;", "expected an integer, found `mov`"),
        (".loc 1 2 3, column 4", "unknown part `column` of `.loc`"),
    ] {
        let message = refused(&kernel(text));
        assert!(message.contains(part), "{message}");
    }
}

/// PTX ISA, "Special Registers": legacy code accesses 16-bit components of `%tid` and its kin.
#[test]
fn places_may_be_read_in_16_bits() {
    let body =
        "{ .reg .u16 %x, %y; mov.u16 %x, %tid.x; cvt.u32.u16 %r1, %ntid.x; mov.u16 %y, %nctaid.x;
        cvt.u32.u16 %r2, %x; cvt.u32.u16 %r3, %y; mov.u16 %y, %ctaid.x; cvt.u32.u16 %r4, %y;
        mad.lo.u32 %r1, %r1, 1000, %r2; mad.lo.u32 %r1, %r3, 1000000, %r1; add.u32 %r1, %r1, %r4; }"
            .to_owned() + &store("%r1");
    let out = Run { grid: 0x1_0003, ..Run::block(1) }.run(
        &kernel(&body).replace("st.global.b32", "@%p1 st.global.b32").replace(
            "{ .reg .u16",
            "mov.u32 %r5, %ctaid.x; setp.eq.u32 %p1, %r5, 0x10002; { .reg .u16",
        ),
        &[],
    );
    assert_eq!(out, [3_001_002]);
    let message = refused(&kernel("{ .reg .u16 %x; mov.u16 %x, %laneid; }"));
    assert!(message.contains("`%laneid` is .u32, but the instruction wants .u16"), "{message}");
}

#[test]
fn modifiers_may_stand_in_another_order() {
    let body = "ld.u32.global %r1, [%in]; add.sat.s32 %r2, %r1, 1; setp.u32.lt %p1, %r1, 9; selp.u32 %r1, %r2, 0, %p1;";
    assert_eq!(Run::block(1).run(&kernel(&(body.to_owned() + &store("%r1"))), &[5]), [6]);
    assert!(refused(&kernel("ld.u32.global.global %r1, [%in];")).contains("known here"));
    assert!(
        refused(&kernel("add.u32.rn %r1, %r1, %r1;")).contains("`.rn` may not follow `add.u32`")
    );
}

#[test]
fn what_is_unknown_is_named() {
    assert!(
        refused(&kernel("tensormap.replace.tile.rank.global.b1024.b32 [%in], 2;"))
            .contains("unknown instruction `tensormap`")
    );
    assert!(
        refused(&kernel("mbarrier.frobnicate.b64 [%d1];"))
            .contains("`.frobnicate` may not follow `mbarrier`")
    );
    assert!(refused(&kernel_with(".frob 7;", "")).contains("unknown directive `.frob`"));
    let later = ".global .u64 pointer = word;\n.global .u32 word = 5;";
    assert!(refused(&kernel_with(later, "")).contains("`word` is not declared before"));
}

#[test]
fn entries_and_functions_carry_their_attributes() {
    let text = ".version 8.6\n.target sm_90\n.address_size 64
        .extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
        .weak .func never() .noreturn { trap; }
        .visible .func unused(.param .b64 x) .noinline { ret; }
        .weak .entry k(.param .u64 in, .param .u64 out) .maxntid 64, 1, 1 .maxnreg 64 .minnctapersm 2 .reqnctapercluster 1, 1, 1 .explicitcluster { ret; }";
    let module = Module::parse("k.ptx", text).unwrap();
    assert_eq!(module.entries().collect::<Vec<_>>(), ["k"]);
    assert!(
        refused(&text.replace(".reqnctapercluster 1,", ".reqnctapercluster 2,"))
            .contains("clusters of [2, 1, 1] CTAs")
    );
}

#[test]
fn special_registers_agree_with_each_other() {
    let body = "mov.u32 %r1, %lanemask_eq; mov.u32 %r2, %lanemask_lt; mov.u32 %r3, %lanemask_gt; or.b32 %r1, %r1, %r2; or.b32 %r1, %r1, %r3;
        mov.u32 %r2, %lanemask_le; mov.u32 %r3, %lanemask_ge; and.b32 %r2, %r2, %r3; mov.u32 %r3, %lanemask_eq; xor.b32 %r2, %r2, %r3; add.u32 %r1, %r1, %r2;
        mov.u32 %r2, %laneid; mov.u32 %r3, %warpid; mad.lo.u32 %r2, %r3, WARP_SZ, %r2; sub.u32 %r2, %r2, %thread; add.u32 %r1, %r1, %r2;
        mov.u32 %r2, %smid; mov.u32 %r3, %nsmid; setp.lt.u32 %p1, %r2, %r3; selp.u32 %r2, 1, 0, %p1; add.u32 %r1, %r1, %r2;
        mov.u32 %r2, %nwarpid; add.u32 %r1, %r1, %r2;
        mov.u32 %r2, %dynamic_smem_size; add.u32 %r1, %r1, %r2; mov.u32 %r2, %total_smem_size; sub.u32 %r1, %r1, %r2;
        mov.u64 %d1, %globaltimer; mov.u64 %d2, %clock64; mov.u32 %r2, %clock; mov.u64 %d3, %clock64; setp.gt.u64 %p1, %d3, %d2; @!%p1 trap;";
    assert_eq!(Run::block(96).run(&kernel(&(body.to_owned() + &store("%r1"))), &[]), [3; 96]);
    let dynamic = Run { dynamic: 512, ..Run::block(32) };
    assert_eq!(dynamic.run(&kernel(&(body.to_owned() + &store("%r1"))), &[]), [1; 32]);
}

#[test]
fn hints_and_lengths_of_accesses_are_those_that_ptxas_takes() {
    let refused = |text: &str| refused(&kernel(text));
    let global = "is for global memory";
    assert!(refused("ld.shared.L1::no_allocate.u32 %r1, [%r2];").contains(global));
    assert!(refused("st.local.L2::cache_hint.u32 [%r2], %r1, %d1;").contains(global));
    assert!(refused("atom.shared.add.L2::cache_hint.u32 %r1, [%r2], 1, %d1;").contains(global));
    assert!(refused("ld.volatile.local.u32 %r1, [%r2];").contains("local memory has no order"));
    assert!(refused("st.mmio.relaxed.gpu.u32 [%in], 1;").contains("`.mmio` goes with"));
    let both = refused("ld.global.cs.L1::evict_last.u32 %r1, [%in];");
    assert!(both.contains("`.cs` and an eviction priority exclude each other"), "{both}");
    let wide = refused("ld.global.v4.u64 {%d1, %d2, %d3, %d4}, [%in];");
    assert!(wide.contains("more than 128 bits"), "{wide}");
    let body = "ld.global.cs.L2::cache_hint.L2::128B.u32 %r1, [%in], 0; st.mmio.relaxed.sys.global.u32 [%in], %r1;
        { .reg .u16 %b<8>; st.global.u32 [%in+4], 0x04030201; ld.global.v8.u8 {%b0, %b1, %b2, %b3, %b4, %b5, %b6, %b7}, [%in];
          cvt.u32.u16 %r1, %b0; cvt.u32.u16 %r2, %b7; mad.lo.u32 %r1, %r2, 100, %r1; }";
    let out = Run::block(1).run(&kernel(&(body.to_owned() + &store("%r1"))), &[7, 0]);
    assert_eq!(out, [407]);
}

#[test]
fn vectors_of_registers_are_loaded_and_stored_whole() {
    let body = ".reg .v4 .f32 %v<2>; .reg .v2 .f64 wide; .reg .b32 %i;
        mad.wide.u32 %d1, %thread, 16, %in; ld.global.v4.f32 %v1, [%d1];
        add.f32 %v0.x, %v1.w, %v1.x; mul.f32 %v0.y, %v1.y, %v1.z; mov.f32 %v0.z, 0f40000000; mov.f32 %v0.w, %v1.x;
        mad.wide.u32 %d2, %thread, 16, %out; st.global.v4.f32 [%d2], %v0;
        ld.global.v2.f64 wide, [%d1]; mov.v2.b64 wide, {wide.y, wide.x}; mov.b64 {%i, %r1}, wide.x;
        ld.global.b32 %r2, [%d1+8]; setp.ne.b32 %p1, %i, %r2; @%p1 trap;";
    let input: Vec<u32> = (0..128).map(|i| (i as f32).to_bits()).collect();
    let expected: Vec<u32> = (0..32)
        .map(|thread| 4.0 * thread as f32)
        .flat_map(|x| [2.0 * x + 3.0, (x + 1.0) * (x + 2.0), 2.0, x].map(f32::to_bits))
        .collect();
    let run = Run { out: 128, ..Run::block(32) };
    assert_eq!(run.run(&kernel(body), &input), expected);
    let text = kernel(&body.replace("mov.f32 %v0.w, %v1.x;", ""));
    run.finds(&text, &input, FindingKind::UninitialisedRegister, "read of register %v0.w");
}

#[test]
fn vectors_of_registers_are_taken_by_what_takes_them() {
    let with =
        |line: &str| refused(&kernel(&format!(".reg .v4 .f32 v, w; .reg .v2 .b32 pair; {line}")));
    for (line, told) in [
        ("add.f32 v, w, w;", "`v` is a vector, where one register is wanted"),
        ("mov.f32 %f1, v;", "`v` is a vector, where one register is wanted"),
        ("mov.b32 %r1, pair.z;", "`pair` has no part `z`"),
        ("mov.b32 %r1, pair.q;", "`pair` has no part `q`"),
        ("ld.global.v2.f32 v, [%in];", "expected a vector of 2 elements, found 4"),
        ("ld.global.f32 v, [%in];", "expected a vector of 1 elements, found 4"),
        ("mov.b32 v, %r1;", "`v.x` is .f32, but the instruction wants .b8"),
        (
            "mov.v4.b64 {%d1, %d2, %d3, %d4}, {%d1, %d2, %d3, %d4};",
            "4 elements of .b64 make no vector",
        ),
        (".reg .v4 .f64 z;", "4 elements of .f64 make no vector"),
        (".reg .v2 .pred z;", "2 elements of .pred make no vector"),
        (".reg .v8 .f32 z;", "`.v8` is not a type of a register"),
        ("ld.global.b32 %r1, [v];", "`v`"),
        ("ld.global.b32 %r1, table[2];", "an array's element as an operand is not supported"),
    ] {
        let message = with(line);
        assert!(message.contains(told), "{line}: {message}");
    }
}
