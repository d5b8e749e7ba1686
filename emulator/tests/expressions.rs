//! Constant expressions (PTX ISA, "Constant Expressions") and initial values, wherever a number may stand.

mod common;

use common::{Run, kernel, kernel_with, refused, store};

fn word(before: &str, body: &str) -> u32 {
    let text = kernel_with(before, &format!("{body}\n{}", store("%r1")));
    Run::block(1).run(&text, &[])[0]
}

#[test]
fn operands_may_be_expressions() {
    assert_eq!(word("", "mov.u32 %r2, 100; mad.lo.u32 %r1, %r2, (3+4)*2, 1<<4|1;"), 1417);
    assert_eq!(word("", "mov.u32 %r1, WARP_SZ-1;"), 31);
    assert_eq!(word("", "mov.b32 %r1, ~5;"), 0xffff_fffa);
    assert_eq!(word("", "mov.b32 %r1, !0;"), 1);
    assert_eq!(
        word("", "mov.f32 %f1, .5; add.f32 %f1, %f1, -.25+1.5; mov.b32 %r1, %f1;"),
        1.75f32.to_bits()
    );
    let called = ".func (.reg .u32 sum) add(.reg .u32 a, .reg .u32 b) { add.u32 sum, a, b; ret; }";
    assert_eq!(word(called, "mov.u32 %r2, 1; call (%r1), add, (%r2, (2+3)*4);"), 21);
}

#[test]
fn offsets_may_be_expressions() {
    let table = ".global .align 4 .u32 table[8] = {10, 11, 12, 13, 14, 15, 16, 17};";
    assert_eq!(word(table, "ld.global.u32 %r1, [table+4*3];"), 13);
    assert_eq!(word(table, "mov.u64 %d1, table+2*4+4; ld.global.u32 %r1, [%d1+(4+4)];"), 15);
    assert_eq!(word(table, "mov.u64 %d1, table+16; ld.global.u32 %r1, [%d1-4*2+4];"), 13);
}

#[test]
fn initial_values_may_be_expressions() {
    let table = ".global .align 4 .u32 table[4] = {2*3, 1<<4, ~1, 5>3};";
    for (index, value) in [6, 16, 0xffff_fffe, 1].into_iter().enumerate() {
        assert_eq!(word(table, &format!("ld.global.u32 %r1, [table+4*{index}];")), value);
    }
    let table = ".global .f32 table[3] = {-1.0, .5, -0f40000000};";
    for (index, value) in [-1.0f32, 0.5, -2.0].into_iter().enumerate() {
        assert_eq!(word(table, &format!("ld.global.u32 %r1, [table+4*{index}];")), value.to_bits());
    }
}

/// PTX ISA, "Initializers": the operator `mask()`.
#[test]
fn bytes_of_addresses_are_initial_values() {
    let bytes: Vec<_> =
        (0..8).map(|i| format!("{:#x}(generic(x)+4)", 0xff_u64 << (8 * i))).collect();
    let table = format!(
        ".global .align 4 .u32 x[2] = {{3, 5}}; .global .align 8 .u8 at[8] = {{{}}};",
        bytes.join(", ")
    );
    assert_eq!(word(&table, "ld.global.u64 %d1, [at]; ld.u32 %r1, [%d1];"), 5);
    let wrong = kernel_with(".global .u32 x; .global .u8 at[1] = {0xfe(x)};", "ret;");
    assert!(refused(&wrong).contains("the mask 0xfe is not that of one byte"));
}

#[test]
fn what_is_no_number_is_refused() {
    for (text, part) in [
        ("mov.u32 %r1, 1/0;", "`/` by zero"),
        ("mov.u32 %r1, 1.5+1.5;", "a literal of 64 bits cannot be a .u32"),
        ("mov.f32 %f1, 1+1;", "expected a value of type .f32"),
        ("mov.f32 %f1, WARP_SZ;", "expected a value of type .f32"),
        ("ld.global.u32 %r1, [%d1+1.5];", "expected an integer"),
        ("mov.u32 %r1, 4*%r2;", "expected a number, found `%r2`"),
        ("mov.u32 %r1, (%r2);", "expected a number, found `%r2`"),
    ] {
        let message = refused(&kernel(text));
        assert!(message.contains(part), "{text}: {message}");
    }
}
