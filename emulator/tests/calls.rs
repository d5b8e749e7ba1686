//! Device functions: in place, with code of their own, by address, recursive.

mod common;

use common::{Run, kernel_with, refused, store};
use ptx_emulator::FindingKind;

const ADD: &str = ".func (.param .b32 r) plus(.param .b32 x, .param .b32 y) {
    .reg .u32 %a, %b;
    ld.param.u32 %a, [x];
    ld.param.u32 %b, [y];
    add.u32 %a, %a, %b;
    st.param.b32 [r], %a;
    ret;
}
.func (.param .b32 r) times(.param .b32 x, .param .b32 y) {
    .reg .u32 %a, %b;
    ld.param.u32 %a, [x];
    ld.param.u32 %b, [y];
    mul.lo.u32 %a, %a, %b;
    st.param.b32 [r+0], %a;
    ret;
}
";

fn call(target: &str, prototype: &str) -> String {
    format!(
        "{{ .param .b32 p0; .param .b32 p1; .param .b32 ret0;
          st.param.b32 [p0], %thread; st.param.b32 [p1+0], 7;
          call (ret0), {target}, (p0, p1){prototype};
          ld.param.b32 %r1, [ret0+0]; }}"
    )
}

#[test]
fn a_function_gets_copies_and_gives_one_back() {
    let text = kernel_with(ADD, &(call("plus", "") + &store("%r1")));
    assert_eq!(Run::block(40).run(&text, &[]), (7..47).collect::<Vec<_>>());
}

#[test]
fn a_guarded_call_is_made_by_some_lanes() {
    let body = "setp.gt.u32 %p1, %thread, 4; mov.u32 %r1, 100;
        { .param .b32 p0; .param .b32 p1; .param .b32 ret0;
          st.param.b32 [p0], %thread; st.param.b32 [p1], 7;
          @%p1 call (ret0), times, (p0, p1);
          @%p1 ld.param.b32 %r1, [ret0]; }";
    let expected: Vec<u32> = (0..32).map(|t| if t > 4 { 7 * t } else { 100 }).collect();
    assert_eq!(
        Run::block(32).run(&kernel_with(ADD, &(body.to_owned() + &store("%r1"))), &[]),
        expected
    );
}

#[test]
fn functions_are_called_through_a_table() {
    let before = ADD.to_owned() + ".global .align 8 .u64 table[2] = {plus, times};";
    let body = "and.b32 %r2, %thread, 1; mov.u64 %d1, table; mad.wide.u32 %d1, %r2, 8, %d1; ld.global.u64 %d2, [%d1];
        proto: .callprototype (.param .b32 _) _ (.param .b32 _, .param .b32 _);";
    let text = kernel_with(&before, &(body.to_owned() + &call("%d2", ", proto") + &store("%r1")));
    let expected: Vec<u32> = (0..64).map(|t| if t % 2 == 0 { t + 7 } else { 7 * t }).collect();
    assert_eq!(Run::block(64).run(&text, &[]), expected);
}

#[test]
fn an_address_can_be_taken_and_listed() {
    let body =
        "list: .calltargets plus, times; mov.u64 %d2, times;".to_owned() + &call("%d2", ", list");
    let text = kernel_with(ADD, &(body + &store("%r1")));
    assert_eq!(Run::block(3).run(&text, &[]), [0, 7, 14]);
}

#[test]
fn a_call_of_no_function_is_found() {
    let body =
        "proto: .callprototype (.param .b32 _) _ (.param .b32 _, .param .b32 _); mov.u64 %d2, plus;
        setp.eq.u32 %p1, %thread, 9; @%p1 add.u64 %d2, %d2, 1;";
    let text = kernel_with(ADD, &(body.to_owned() + &call("%d2", ", proto") + &store("%r1")));
    let finding =
        Run::block(32).finds(&text, &[], FindingKind::Operand, "is not the address of a function");
    assert_eq!(finding.site.lane, 9);
}

#[test]
fn a_call_with_other_parameters_is_found() {
    let body = "proto: .callprototype _ (.param .b32 _); mov.u64 %d2, plus;
        { .param .b32 p0; st.param.b32 [p0], %thread; call %d2, (p0), proto; }";
    let text = kernel_with(ADD, body);
    Run::block(32).finds(&text, &[], FindingKind::Operand, "`plus` returns [4] bytes for [4, 4]");
}

/// n! by recursion, each call with a local array of its own that it reads after the inner call.
const FACTORIAL: &str = ".func (.param .b32 r) factorial(.param .b32 n) {
    .local .align 4 .b8 own[8];
    .reg .u32 %n, %m, %q;
    .reg .u64 %l;
    .reg .pred %done;
    ld.param.u32 %n, [n];
    mov.u64 %l, own;
    st.local.u32 [%l+4], %n;
    setp.le.u32 %done, %n, 1;
    @%done bra $one;
    sub.u32 %m, %n, 1;
    { .param .b32 p0; .param .b32 ret0; st.param.b32 [p0], %m;
      call (ret0), factorial, (p0);
      ld.param.b32 %q, [ret0]; }
    ld.local.u32 %m, [own+4];
    setp.ne.u32 %done, %m, %n;
    @%done trap;
    mul.lo.u32 %q, %q, %n;
    st.param.b32 [r], %q;
    ret;
$one:
    st.param.b32 [r], 1;
    ret;
}
";

fn factorial(argument: &str) -> String {
    format!(
        "{{ .param .b32 p0; .param .b32 ret0; st.param.b32 [p0], {argument};
          call.uni (ret0), factorial, (p0); ld.param.b32 %r1, [ret0]; }}"
    )
}

#[test]
fn a_function_calls_itself() {
    let text = kernel_with(
        FACTORIAL,
        &("rem.u32 %r2, %thread, 11;".to_owned() + &factorial("%r2") + &store("%r1")),
    );
    let expected: Vec<u32> = (0..64).map(|t| (1..=t % 11).product()).collect();
    for seed in 0..4 {
        assert_eq!(Run::block(64).seed(seed).run(&text, &[]), expected);
    }
}

#[test]
fn lanes_meet_again_behind_calls_of_different_depth() {
    // The barrier is aligned: all lanes have to be there at once.
    let body = "rem.u32 %r2, %thread, 7; setp.gt.u32 %p1, %r2, 2; mov.u32 %r1, 0; @!%p1 bra $skip;"
        .to_owned()
        + &factorial("%r2")
        + "$skip: bar.sync 0; vote.sync.ballot.b32 %r3, %p1, -1;"
        + &store("%r3");
    let ballot = (0..32).filter(|t| t % 7 > 2).fold(0, |m, t| m | 1 << t);
    assert_eq!(Run::block(32).run(&kernel_with(FACTORIAL, &body), &[]), [ballot; 32]);
}

#[test]
fn a_recursion_without_end_is_found() {
    let before = ".func forever() { .local .b8 own[32]; call forever, (); ret; }";
    let text = kernel_with(before, "call forever, ();");
    let finding =
        Run::block(1).finds(&text, &[], FindingKind::StackOverflow, "call of `forever` at depth");
    assert!(finding.message.contains("32 bytes"), "{finding}");
}

#[test]
fn registers_of_an_inner_call_are_unwritten() {
    let before = ".func f(.param .b32 n) {
        .reg .u32 %n, %x; .reg .pred %p;
        ld.param.u32 %n, [n];
        setp.eq.u32 %p, %n, 0;
        @!%p mov.u32 %x, %n;
        @%p bra $use;
        { .param .b32 p0; st.param.b32 [p0], 0; call f, (p0); }
        $use: add.u32 %x, %x, 1;
        setp.ne.u32 %p, %x, 0;
        @%p trap;
        ret; }";
    let body = "{ .param .b32 p0; st.param.b32 [p0], 1; call f, (p0); }";
    let text = kernel_with(before, body);
    Run::block(1).finds(&text, &[], FindingKind::UninitialisedRegister, "%x");
}

#[test]
fn parameters_pass_in_registers_too() {
    let before = ".func (.reg .u32 r, .reg .u64 w) f(.reg .u32 a, .reg .u64 b) {
        add.u32 r, a, 1; cvt.u64.u32 w, a; add.u64 w, w, b; ret; }";
    let body = "mov.u64 %d1, 5; call (%r1, %d2), f, (%thread, %d1); cvt.u32.u64 %r2, %d2; add.u32 %r1, %r1, %r2;
        call (%r1, _), f, (%r1, 3);";
    let text = kernel_with(before, &(body.to_owned() + &store("%r1")));
    assert_eq!(Run::block(4).run(&text, &[]), [7, 9, 11, 13]);
}

#[test]
fn calls_nest_deeper_than_is_lowered_in_place() {
    let mut before = ".func (.param .b32 r) f0(.param .b32 n) { .reg .u32 %n; ld.param.u32 %n, [n]; st.param.b32 [r], %n; ret; }\n".to_owned();
    for level in 1..60 {
        before += &format!(
            ".func (.param .b32 r) f{level}(.param .b32 n) {{ .reg .u32 %n; ld.param.u32 %n, [n]; add.u32 %n, %n, 1;
             {{ .param .b32 p0; .param .b32 q; st.param.b32 [p0], %n; call (q), f{}, (p0); ld.param.b32 %n, [q]; }}
             st.param.b32 [r], %n; ret; }}\n",
            level - 1
        );
    }
    let body = "{ .param .b32 p0; .param .b32 q; st.param.b32 [p0], %thread; call (q), f59, (p0); ld.param.b32 %r1, [q]; }";
    let text = kernel_with(&before, &(body.to_owned() + &store("%r1")));
    assert_eq!(Run::block(3).run(&text, &[]), [59, 60, 61]);
}

#[test]
fn a_struct_comes_back_by_value() {
    let before =
        ".func (.param .align 8 .b8 r[16]) pair(.param .align 16 .b8 s[16], .param .b64 at) {
        .reg .b64 %a, %b, %at;
        ld.param.v2.b64 {%a, %b}, [s];
        ld.param.b64 %at, [at];
        st.u64 [%at], %a;
        st.param.b64 [r+8], %a;
        st.param.b64 [r], %b;
        ret; }";
    let body = ".local .align 8 .b8 depot[8];
        .reg .b64 %SP, %SPL;
        mov.u64 %SPL, depot;
        cvta.local.u64 %SP, %SPL;
        cvt.u64.u32 %d1, %thread;
        { .param .align 16 .b8 p0[16]; .param .b64 p1; .param .align 8 .b8 q[16];
          st.param.b64 [p0], %d1; st.param.b64 [p0+8], 1000; st.param.b64 [p1], %SP;
          call.uni (q), pair, (p0, p1);
          ld.param.b64 %d2, [q]; ld.param.b64 %d3, [q+8]; }
        ld.local.u64 %d4, [%SPL];
        add.u64 %d2, %d2, %d3; mad.lo.u64 %d2, %d4, 10000, %d2; cvt.u32.u64 %r1, %d2;";
    let text = kernel_with(before, &(body.to_owned() + &store("%r1")));
    assert_eq!(Run::block(3).run(&text, &[]), [1000, 11001, 21002]);
}

#[test]
fn what_cannot_be_called_is_refused() {
    assert!(refused(&kernel_with("", "call g, ();")).contains("function `g` is not declared"));
    assert!(
        refused(&kernel_with(".func g();", "call g, ();")).contains("`g` has no body in this file")
    );
    assert!(
        refused(&kernel_with(ADD, "call plus, ();"))
            .contains("`plus` takes 2 parameters and returns 1")
    );
    assert!(refused(&kernel_with(ADD, "call %d1, ();")).contains("needs a `.callprototype`"));
}
