//! What the driver gives to every kernel: `printf`, `assert`, the barrier of a cooperative grid.

mod common;

use common::{Run, kernel, kernel_with, refused, store};
use ptx_emulator::{Device, FindingKind, Launch, Module};

const TEXTS: &str = ".extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);
.extern .func __assertfail (.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n, .param .b64 s) .noreturn;
.global .align 1 .b8 $format[24] = {108, 97, 110, 101, 32, 37, 100, 58, 32, 37, 46, 50, 102, 32, 37, 115, 10, 0};
.global .align 1 .b8 $word[4] = {111, 107, 33, 0};";

/// `printf("lane %d: %.2f %s\n", tid, tid / 4.0, "ok!")` where `guard` holds; the result goes to the output.
fn printing(guard: &str) -> String {
    let body = format!(
        ".local .align 8 .b8 args[24]; .reg .f64 %e<3>; .reg .u64 %s<6>;
        mov.b32 %r1, -1; setp.lt.u32 %p1, %thread, 2;
        {guard} bra $quiet;
        mov.u64 %s0, args; cvta.local.u64 %s1, %s0; mov.u64 %s2, $format; cvta.global.u64 %s3, %s2;
        mov.u64 %s4, $word; cvta.global.u64 %s5, %s4;
        cvt.rn.f64.u32 %e1, %thread; mul.f64 %e2, %e1, 0.25;
        st.local.u32 [args], %thread; st.local.f64 [args+8], %e2; st.local.u64 [args+16], %s5;
        {{ .param .b64 p0; .param .b64 p1; .param .b32 q; st.param.b64 [p0], %s3; st.param.b64 [p1], %s1;
          call.uni (q), vprintf, (p0, p1); ld.param.b32 %r1, [q]; }}
        $quiet: {}",
        store("%r1")
    );
    kernel_with(TEXTS, &body)
}

/// Launches over `ctas` CTAs of four threads; what is printed, and the output.
fn print(text: &str, ctas: u32, seed: u64) -> (String, Vec<i32>) {
    let module = Module::parse("k.ptx", text).unwrap_or_else(|e| panic!("{e}"));
    let device = Device::new();
    let out = device.allocate(16).unwrap();
    let params: Vec<u8> = [out, out].iter().flat_map(|a| a.to_le_bytes()).collect();
    let launch =
        Launch { grid: [ctas, 1, 1], block: [4, 1, 1], params: &params, seed, ..Launch::default() };
    let report = device.launch(&module, "k", &launch).unwrap_or_else(|e| panic!("{e}"));
    let mut back = [0; 16];
    device.read(out, &mut back).unwrap();
    let words = back.chunks(4).map(|c| i32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
    (report.printed, words)
}

#[test]
fn printf_writes_lane_by_lane_and_returns_how_many_arguments_it_took() {
    let (text, words) = print(&printing("@!%p1"), 1, 0);
    assert_eq!(text, "lane 0: 0.00 ok!\nlane 1: 0.25 ok!\n");
    assert_eq!(words, [3, 3, -1, -1]);
}

#[test]
fn what_a_grid_prints_depends_on_the_seed_alone_and_is_bounded() {
    let text = printing("@!%p1").replace("st.global.b32 [%a], %r1;", "");
    let (once, again) = (print(&text, 300, 3).0, print(&text, 300, 3).0);
    assert_eq!(once, again);
    assert_eq!(once.lines().count(), 600);
    let most = print(&text, 60_000, 0).0.len();
    assert!((1 << 20) - 100 < most && most <= 1 << 20, "{most} bytes");
}

#[test]
fn printf_reads_its_arguments_as_a_load_would() {
    let run = Run::block(4);
    let unwritten = printing("@!%p1").replace("st.local.f64 [args+8], %e2;", "");
    run.finds(&unwritten, &[], FindingKind::UninitialisedMemory, "call.uni");
    let null = printing("@!%p1").replace("mov.u64 %s2, $format;", "mov.u64 %s2, 64;");
    run.finds(&null, &[], FindingKind::OutOfBounds, "out of bounds");
    let odd = printing("@!%p1").replace("101, 32, 37, 100", "101, 32, 37, 113");
    run.finds(&odd, &[], FindingKind::Operand, "`%q`");
}

#[test]
fn a_failed_assertion_is_a_finding_with_its_text() {
    let body = "mov.u64 %d1, $word; cvta.global.u64 %d2, %d1; setp.ne.u32 %p1, %thread, 5; @%p1 bra $fine;
        { .param .b64 m; .param .b64 f; .param .b32 l; .param .b64 n; .param .b64 s;
          st.param.b64 [m], %d2; st.param.b64 [f], %d2; st.param.b32 [l], 77; st.param.b64 [n], %d2; st.param.b64 [s], 1;
          call.uni __assertfail, (m, f, l, n, s); }
        $fine:";
    let text = "assertion `ok!` failed at ok!:77 in `ok!`";
    let finding = Run::block(32).finds(&kernel_with(TEXTS, body), &[], FindingKind::Trap, text);
    assert_eq!(finding.site.lane, 5);
    assert!(Run::block(4).try_run(&kernel_with(TEXTS, body), &[]).is_ok());
}

#[test]
fn functions_of_the_runtime_keep_their_signatures() {
    let text = kernel_with(
        ".extern .func vprintf (.param .b64 f);\n.extern .func (.param .b64 r) malloc (.param .b64 n);",
        "{ .param .b64 p; st.param.b64 [p], 0; call.uni vprintf, (p); }",
    );
    let error = refused(&text);
    assert!(error.contains("`vprintf` returns [4] bytes for [8, 8]"), "{error}");
    let text =
        text.replace("call.uni vprintf, (p);", "{ .param .b64 q; call.uni (q), malloc, (p); }");
    let error = refused(&text);
    assert!(error.contains("`malloc` has no body"), "{error}");
}

/// What `cooperative_groups::this_grid().sync()` compiles to: each CTA adds to a counter in memory of the grid's own and
/// waits for its top bit to change. Every CTA then reads what the one before it has written.
#[test]
fn the_ctas_of_a_cooperative_grid_meet() {
    let body = format!(
        "mov.u32 %r1, %envreg2; mov.u32 %r2, %envreg1; cvt.u64.u32 %d1, %r1; cvt.u64.u32 %d2, %r2;
        bfi.b64 %d3, %d2, %d1, 32, 32; add.u64 %d3, %d3, 4;
        mov.u32 %r3, %ctaid.x; mov.u32 %r4, %nctaid.x;
        mul.wide.u32 %d4, %r3, 4; add.u64 %d4, %d4, %out; setp.ne.u32 %p1, %thread, 0; @!%p1 st.global.u32 [%d4], %r3;
        barrier.sync 0; @%p1 bra $met;
        setp.eq.u32 %p2, %r3, 0; sub.u32 %r5, 0x80000001, %r4; selp.u32 %r5, %r5, 1, %p2;
        fence.acq_rel.gpu; atom.global.add.u32 %r6, [%d3], %r5;
        $wait: ld.volatile.global.u32 %r7, [%d3]; xor.b32 %r7, %r7, %r6; setp.ge.s32 %p3, %r7, 0; @%p3 bra $wait;
        fence.acq_rel.gpu;
        $met: barrier.sync 0;
        add.u32 %r8, %r3, 1; rem.u32 %r8, %r8, %r4; mul.wide.u32 %d5, %r8, 4; add.u64 %d5, %d5, %out;
        ld.global.u32 %r9, [%d5]; {}",
        "mad.wide.u32 %d6, %r3, 4, %out; @!%p1 st.global.u32 [%d6+64], %r9;"
    );
    for seed in 0..4 {
        let run = Run { grid: 16, ..Run::block(64) };
        let out =
            run.seed(seed).out(32).try_run(&kernel(&body), &[]).unwrap_or_else(|e| panic!("{e}"));
        let expected: Vec<u32> = (0..16).map(|cta| (cta + 1) % 16).collect();
        assert_eq!(out[16..], expected);
    }
}

#[test]
fn unknown_registers_of_the_driver_are_refused() {
    let error = refused(&kernel("mov.u32 %r1, %envreg7;"));
    assert!(error.contains("`%envreg7`"), "{error}");
}
