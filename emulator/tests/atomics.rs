//! `atom` and `red`: every operation and type in every space, vectors, 128 bits, reductions in bulk.

mod common;

use common::{Run, kernel, kernel_with, refused, store};
use ptx_emulator::FindingKind;

/// Runs `atom` by one lane on 16 bytes that begin as `old`, with `%d10` … as operands: what it returned, what is there
/// now, both as 64 bits.
fn atom(space: &str, operation: &str, ty: &str, old: u64, operands: &[u64]) -> (u64, u64) {
    let register = match ty {
        "f64" => "f64".into(),
        "f32" => "f32".into(),
        "f16" | "bf16" | "b16" => "b16".into(),
        _ => format!("b{}", if ty.contains("64") { 64 } else { 32 }),
    };
    let bits: u32 = register[1..].parse().unwrap();
    let (place, address) = match space {
        ".global" => ("", "%out+16"),
        ".shared" => (".shared .align 16 .b8 cell[16];", "cell"),
        _ => {
            (".shared .align 16 .b8 cell[16]; mov.u64 %d9, cell; cvta.shared.u64 %d9, %d9;", "%d9")
        }
    };
    let inside = if space.is_empty() { ".shared" } else { space };
    let cell = if space.is_empty() { "cell" } else { address };
    let mut body = format!(
        "{{ {place} .reg .{register} %v<4>; mov.b64 %d1, {old}; st{inside}.b64 [{cell}], %d1;\n"
    );
    for (i, operand) in operands.iter().enumerate() {
        body += &format!(
            "mov.b64 %d1, {operand}; st.global.b64 [%out], %d1; ld.global.{} %v{}, [%out];\n",
            width(bits),
            i + 1
        );
    }
    let list: Vec<_> = (1..=operands.len()).map(|i| format!("%v{i}")).collect();
    body += &format!(
        "atom{space}.{operation}.{ty} %v0, [{address}], {};
         mov.b64 %d1, 0; st.global.b64 [%out], %d1; st.global.{} [%out], %v0;
         ld{inside}.b64 %d2, [{cell}]; st.global.b64 [%out+8], %d2; }}",
        list.join(", "),
        width(bits)
    );
    let out = Run::block(1).out(8).run(&kernel(&body), &[]);
    let long = |i: usize| u64::from(out[i + 1]) << 32 | u64::from(out[i]);
    (long(0), long(2))
}

fn width(bits: u32) -> String {
    format!("b{bits}")
}

const SPACES: [&str; 3] = [".global", ".shared", ""];

#[test]
fn integers() {
    let minus = |x: i64| x as u64;
    for space in SPACES {
        let cases: &[(&str, &str, u64, &[u64], u64)] = &[
            ("add", "u32", 0xffff_fffe, &[5], 3),
            ("add", "s32", 7, &[minus(-9) & 0xffff_ffff], minus(-2) & 0xffff_ffff),
            ("add", "u64", u64::MAX, &[3], 2),
            ("and", "b32", 12, &[10], 8),
            ("or", "b32", 12, &[10], 14),
            ("xor", "b32", 12, &[10], 6),
            ("and", "b64", 12 << 40, &[10 << 40], 8 << 40),
            ("or", "b64", 12 << 40, &[10 << 40], 14 << 40),
            ("xor", "b64", 12 << 40, &[10 << 40], 6 << 40),
            ("exch", "b32", 4, &[5], 5),
            ("exch", "b64", 4 << 40, &[5 << 40], 5 << 40),
            ("cas", "b16", 4, &[4, 9], 9),
            ("cas", "b16", 4, &[5, 9], 4),
            ("cas", "b32", 4, &[4, 9], 9),
            ("cas", "b64", 4 << 40, &[4 << 40, 9 << 50], 9 << 50),
            ("cas", "b64", 4 << 40, &[4, 9 << 50], 4 << 40),
            ("inc", "u32", 4, &[5], 5),
            ("inc", "u32", 5, &[5], 0),
            ("inc", "u32", 9, &[5], 0),
            ("dec", "u32", 4, &[5], 3),
            ("dec", "u32", 0, &[5], 5),
            ("dec", "u32", 9, &[5], 5),
            ("min", "u32", 7, &[0xffff_fff0], 7),
            ("min", "s32", 7, &[0xffff_fff0], 0xffff_fff0),
            ("max", "u32", 7, &[0xffff_fff0], 0xffff_fff0),
            ("max", "s32", 7, &[0xffff_fff0], 7),
            ("min", "u64", 7, &[minus(-2)], 7),
            ("min", "s64", 7, &[minus(-2)], minus(-2)),
            ("max", "u64", 7, &[minus(-2)], minus(-2)),
            ("max", "s64", 7, &[minus(-2)], 7),
        ];
        for &(operation, ty, old, operands, new) in cases {
            let got = atom(space, operation, ty, old, operands);
            assert_eq!(got, (old, new), "atom{space}.{operation}.{ty}");
        }
    }
}

#[test]
fn floats() {
    let single = |x: f32| u64::from(x.to_bits());
    let tiny = u64::from(3_u32);
    for space in SPACES {
        let add = |ty: &str, old, b| atom(space, "add", ty, old, &[b]).1;
        assert_eq!(add("f32", single(1.5), single(2.25)), single(3.75));
        assert_eq!(add("f64", 1.5_f64.to_bits(), 2.25_f64.to_bits()), 3.75_f64.to_bits());
        // In global memory, f32 loses its subnormals, with their sign; elsewhere it keeps them.
        let flushed = space == ".global";
        assert_eq!(add("f32", tiny, tiny), if flushed { 0 } else { 6 });
        let (smallest, less) = (f32::MIN_POSITIVE, f32::MIN_POSITIVE * 1.5);
        assert_eq!(
            add("f32", single(-less), single(smallest)),
            if flushed { 0x8000_0000 } else { single(smallest - less) }
        );
        // Halves keep theirs: 2^-24 + 2^-24, and 1 + 2^-11 ties to even.
        let halves = |ty: &str, old, b| atom(space, "add.noftz", ty, old, &[b]).1;
        assert_eq!(halves("f16", 1, 1), 2);
        assert_eq!(halves("f16", 0x3c00, 0x1000), 0x3c00);
        assert_eq!(halves("f16x2", 0x3c00_0001, 0x3c00_0001), 0x4000_0002);
        assert_eq!(halves("bf16", 0x3f80, 0x4000), 0x4040);
        assert_eq!(halves("bf16x2", 0x3f80_0001, 0x4000_0001), 0x4040_0002);
    }
    // A generic address of global memory.
    let body = "mov.b32 %r1, 3; st.global.b32 [%out], %r1; red.add.f32 [%out], 0f00000003;";
    assert_eq!(Run::block(1).run(&kernel(body), &[]), [0]);
}

/// Vectors: (type, register, elements, operation, old, operand, new), 16 bytes each.
#[test]
fn vectors() {
    let singles = |x: [f32; 4]| x.map(f32::to_bits);
    let cases = [
        (
            "f32",
            "f32",
            4,
            "add",
            singles([1.0, 2.0, 3.0, 4.0]),
            singles([0.5, -2.0, 0.25, 1.0]),
            singles([1.5, 0.0, 3.25, 5.0]),
        ),
        (
            "f32",
            "f32",
            2,
            "add",
            singles([1.0, 2.0, 9.0, 9.0]),
            singles([0.5, 1.0, 7.0, 7.0]),
            singles([1.5, 3.0, 9.0, 9.0]),
        ),
        ("f16", "b16", 8, "add.noftz", [0x4000_3c00; 4], [0x3c00_3c00; 4], [0x4200_4000; 4]),
        (
            "f16",
            "b16",
            4,
            "min.noftz",
            [0x4000_3c00, 0x4000_3c00, 7, 7],
            [0x3c00_bc00; 4],
            [0x3c00_bc00, 0x3c00_bc00, 7, 7],
        ),
        (
            "bf16",
            "b16",
            2,
            "max.noftz",
            [0x3f80_4000, 7, 7, 7],
            [0x4000_bf80; 4],
            [0x4000_4000, 7, 7, 7],
        ),
        ("f16x2", "b32", 4, "max.noftz", [0x4000_3c00; 4], [0x3c00_bc00; 4], [0x4000_3c00; 4]),
        (
            "bf16x2",
            "b32",
            2,
            "min.noftz",
            [0x3f80_4000, 0x3f80_4000, 7, 7],
            [0x4000_bf80; 4],
            [0x3f80_bf80, 0x3f80_bf80, 7, 7],
        ),
    ];
    for (ty, register, count, operation, old, operand, new) in cases {
        let names = |prefix: &str| {
            let list: Vec<_> = (0..count).map(|i| format!("%{prefix}{i}")).collect();
            list.join(", ")
        };
        let bits: usize = register[1..].parse().unwrap();
        let load: String = (0..count)
            .map(|i| format!("ld.global.b{bits} %b{i}, [%in+{}];\n", 16 + i * bits / 8))
            .collect();
        for reduce in [false, true] {
            let instruction = if reduce {
                format!(
                    "red.relaxed.gpu.global.{operation}.v{count}.{ty} [%out], {{{}}};",
                    names("b")
                )
            } else {
                format!(
                    "atom.global.{operation}.v{count}.{ty} {{{}}}, [%out], {{{}}};",
                    names("a"),
                    names("b")
                )
            };
            let keep: String = (0..count)
                .map(|i| format!("st.global.b{bits} [%out+{}], %a{i};\n", 16 + i * bits / 8))
                .collect();
            let body = format!(
                "{{ .reg .{register} %a<8>, %b<8>; ld.global.v4.b32 {{%r1,%r2,%r3,%r4}}, [%in];
                 st.global.v4.b32 [%out], {{%r1,%r2,%r3,%r4}}; {load} {instruction} {} }}",
                if reduce { "" } else { &keep }
            );
            let input = [old, operand].concat();
            let out = Run::block(1).out(8).run(&kernel(&body), &input);
            assert_eq!(out[..4], new, "{instruction}");
            let words = if reduce { 0 } else { count * bits / 32 };
            assert_eq!(out[4..4 + words], old[..words], "{instruction}");
        }
    }
    let misplaced = "mov.f32 %f1, 0f00000000; red.global.add.v2.f32 [%out+4], {%f1, %f1};";
    Run::block(1).out(8).finds(&kernel(misplaced), &[], FindingKind::Misaligned, "multiple of 8");
    let shared = "{ .shared .align 16 .b8 s[16]; red.shared.add.v2.f32 [s], {%f1, %f1}; }";
    assert!(refused(&kernel(shared)).contains("red.shared"), "{}", refused(&kernel(shared)));
}

#[test]
fn all_of_128_bits() {
    let run = |operation: &str| {
        let body = format!(
            "{{ .reg .b128 %q<4>; mov.b128 %q0, {{1, 2}}; st.global.b128 [%out], %q0;
             mov.b64 %d1, 3; mov.b64 %d2, 4; mov.b128 %q1, {{%d1, %d2}}; mov.b64 %d3, 1; mov.b128 %q2, {{%d3, %d1}};
             {operation} st.global.b128 [%out+16], %q3; }}"
        );
        Run::block(1).out(8).run(&kernel(&body), &[])
    };
    let old = [1, 0, 2, 0];
    let new = [3, 0, 4, 0];
    let both = |now: [u32; 4]| [now, old].concat();
    assert_eq!(run("atom.global.exch.b128 %q3, [%out], %q1;"), both(new));
    assert_eq!(run("atom.cas.b128 %q3, [%out], %q0, %q1;"), both(new));
    // The lower half is equal, the upper one is not.
    assert_eq!(run("atom.global.gpu.cas.b128 %q3, [%out], %q2, %q1;"), both(old));
    let odd = "{ .reg .b128 %q; atom.exch.b128 %q, [%out+8], %q; }";
    Run::block(1).out(8).finds(&kernel(odd), &[], FindingKind::UninitialisedRegister, "%q");
    let odd = "{ .reg .b128 %q; mov.b128 %q, {0, 0}; atom.exch.b128 %q, [%out+8], %q; }";
    Run::block(1).out(8).finds(&kernel(odd), &[], FindingKind::Misaligned, "multiple of 16");
}

#[test]
fn registers_of_128_bits_move_whole_and_in_halves() {
    let body = "{ .reg .b128 %q<12>; ld.global.b128 %q10, [%in]; mov.b128 %q2, %q10; mov.b128 {%d1, %d2}, %q2;
        mov.b128 %q2, {%d2, %d1}; st.b128 [%out], %q2; mov.b128 {_, %d3}, %q10; st.global.b64 [%out+16], %d3;
        .shared .align 16 .b128 s; st.shared.b128 [s], %q10; ld.volatile.shared.b128 %q11, [s]; st.global.b128 [%out+32], %q11; }";
    let input = [1, 2, 3, 4];
    let out = Run::block(1).out(12).run(&kernel(body), &input);
    assert_eq!(out[..6], [3, 4, 1, 2, 3, 4]);
    assert_eq!(out[8..], input);
    let wrong = [
        ("{ .reg .b128 %q; ld.global.v2.b128 {%q, %q}, [%in]; }", "longer than any access"),
        ("{ .reg .b128 %q; ld.global.b64 %q, [%in]; }", "`%q` is .b128"),
        ("ld.global.b128 %d1, [%in];", "`%d1` is .b64"),
        ("{ .reg .b128 %q; add.u64 %q, %d1, %d2; }", "`%q` is .b128"),
    ];
    for (body, part) in wrong {
        let message = refused(&kernel(body));
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn forms_of_later_targets() {
    for form in [
        "red.global.add.noftz.bf16 [%out], %h;",
        "atom.global.add.noftz.bf16x2 %r1, [%out], %r1;",
        "red.global.add.v2.f32 [%out], {%f1, %f1};",
        "{ .reg .b128 %q; atom.exch.b128 %q, [%out], %q; }",
        "atom.cluster.add.u32 %r1, [%out], %r1;",
    ] {
        let text = kernel(&format!(
            "{{ .reg .b16 %h; mov.b16 %h, 0; mov.f32 %f1, 0f00000000; mov.b32 %r1, 0; {form} }}"
        ));
        let message = refused(&text.replace("sm_90", "sm_80"));
        assert!(message.contains("needs sm_90"), "{message}");
    }
}

// ---- Reductions in bulk

const SHARED: &str = ".shared .align 16 .b8 data[512];";

/// Every thread writes word `tid`; thread 0 adds them to what the output holds.
fn reduction(operation: &str, rest: &str) -> String {
    kernel_with(
        SHARED,
        &format!(
            "mov.u32 %r1, data; mad.lo.u32 %r2, %thread, 4, %r1; ld.global.u32 %r3, [%in]; st.shared.u32 [%r2], %thread;
             fence.proxy.async.shared::cta; bar.sync 0; setp.ne.u32 %p1, %thread, 0; @%p1 bra $end;
             cp.reduce.async.bulk.global.shared::cta.bulk_group.{operation} [%out], [data], 512;
             cp.async.bulk.commit_group; {rest} $end:"
        ),
    )
}

#[test]
fn copies_in_bulk_add_to_what_is_there() {
    let wait = "cp.async.bulk.wait_group 0;";
    let run = Run { grid: 3, ..Run::block(128) };
    for (operation, expected) in [
        ("add.u32", [0, 3, 381]),
        ("or.b32", [0, 1, 127]),
        ("max.s32", [0, 1, 127]),
        ("min.u32", [0, 0, 0]),
        ("inc.u32", [0, 1, 3]),
    ] {
        let text = reduction(operation, wait);
        for seed in 0..4 {
            let out = run.seed(seed).run_on(&text, &[0; 1], &[0; 128]);
            assert_eq!([out[0], out[1], out[127]], expected, "{operation}");
        }
    }
    // Halves of words: 2^-24 each, twice.
    let text = reduction("add.noftz.f16", wait)
        .replace("st.shared.u32 [%r2], %thread", "st.shared.u32 [%r2], 0x00010001");
    let out = Run { grid: 2, ..run }.run_on(&text, &[0], &[0; 128]);
    assert!(out.iter().all(|&w| w == 0x0002_0002));
}

#[test]
fn the_source_of_a_reduction_is_read_until_its_group_is_waited_for() {
    let text = reduction("add.u32", "st.shared.u32 [data], 7; cp.async.bulk.wait_group 0;");
    Run::block(128).finds(&text, &[0], FindingKind::InFlight, "still to read");
    let text = reduction("add.u32", "cp.async.bulk.wait_group.read 0; st.shared.u32 [data], 7;");
    assert_eq!(Run::block(128).run_on(&text, &[0], &[0; 128])[127], 127);
    let text = reduction("add.u32", "cp.async.bulk.wait_group 0;")
        .replace("bar.sync 0;", "discard.global.L2 [%out], 128; bar.sync 0;");
    Run::block(128).finds(&text, &[0], FindingKind::UninitialisedMemory, "atomic access");
}

/// Thread 32 w makes 128 words of 10 w + 1 and adds them to what shared memory holds, word i being i; everyone waits.
fn reduction_in_shared(operation: &str, proxy: &str) -> String {
    let shared = ".shared .align 16 .b8 data[512]; .shared .align 16 .b8 add[2048]; .shared .align 8 .b64 done;";
    let body = format!(
        "mov.u32 %r1, data; mad.lo.u32 %r2, %thread, 4, %r1; st.shared.u32 [%r2], %thread;
         shr.u32 %r3, %thread, 5; mad.lo.u32 %r4, %r3, 10, 1; and.b32 %r5, %thread, 31; setp.eq.u32 %p1, %r5, 0;
         mov.u32 %r6, add; mad.lo.u32 %r6, %r3, 512, %r6; mad.lo.u32 %r7, %r5, 16, %r6;
         st.shared.v4.u32 [%r7], {{%r4, %r4, %r4, %r4}};
         setp.eq.u32 %p2, %thread, 0; @%p2 mbarrier.init.shared.b64 [done], 4; {proxy} bar.sync 0;
         @%p1 mbarrier.arrive.expect_tx.shared.b64 _, [done], 512;
         @%p1 cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.{operation} [data], [%r6], 512, [done];
         $wait: mbarrier.try_wait.parity.shared.b64 %p3, [done], 0; @!%p3 bra $wait;
         ld.shared.u32 %r8, [%r2];"
    );
    kernel_with(shared, &(body + &store("%r8")))
}

#[test]
fn copies_in_bulk_add_to_shared_memory_together() {
    let proxy = "fence.proxy.async.shared::cta;";
    let adds: [u32; 4] = [1, 11, 21, 31];
    type Fold = fn(u32, u32) -> u32;
    let cases: [(&str, Fold); 5] = [
        ("add.u32", |old, b| old + b),
        ("min.u32", u32::min),
        ("max.s32", u32::max),
        ("xor.b32", |old, b| old ^ b),
        ("add.s32", |old, b| old + b),
    ];
    for (operation, fold) in cases {
        for seed in 0..4 {
            let out = Run::block(128).seed(seed).run(&reduction_in_shared(operation, proxy), &[]);
            let want: Vec<u32> = (0..128).map(|i| adds.into_iter().fold(i, fold)).collect();
            assert_eq!(out, want, "{operation}");
        }
    }
    // 64 bits: pairs of words with a carry between them.
    let text = reduction_in_shared("add.u64", proxy)
        .replace("mad.lo.u32 %r4, %r3, 10, 1;", "mov.u32 %r4, -1;");
    let out = Run::block(128).run(&text, &[]);
    for pair in 0..64u32 {
        let want = (u64::from(2 * pair + 1) << 32 | u64::from(2 * pair)).wrapping_sub(4);
        let have = u64::from(out[2 * pair as usize + 1]) << 32 | u64::from(out[2 * pair as usize]);
        assert_eq!(have, want, "{pair}");
    }
    Run::block(128).finds(
        &reduction_in_shared("add.u32", ""),
        &[],
        FindingKind::Race,
        "fence.proxy.async",
    );
    let early = reduction_in_shared("add.u32", proxy)
        .replace("$wait: ", "@%p1 ld.shared.u32 %r9, [data]; $wait: ");
    Run::block(128).finds(&early, &[], FindingKind::InFlight, "");
}
