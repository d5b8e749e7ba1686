//! mbarrier objects, and bulk copies that complete at them.

mod common;

use common::{Run, kernel_with, store};
use ptx_emulator::{FindingKind, LaunchError};

const SHARED: &str =
    ".shared .align 16 .b8 data[1024];\n.shared .align 8 .b64 full;\n.shared .align 8 .b64 empty;";

/// Thread 0 makes `full` with a count, then all go on.
fn with_barrier(count: u32, body: &str) -> String {
    let init = format!(
        "setp.eq.u32 %p1, %thread, 0; @%p1 mbarrier.init.shared::cta.b64 [full], {count};
         fence.mbarrier_init.release.cluster; bar.sync 0;\n"
    );
    kernel_with(SHARED, &(init + body))
}

/// Waits until the phase of a parity is complete.
fn wait(kind: &str, parity: &str) -> String {
    format!(
        "{{ $again: mbarrier.{kind}.parity.shared::cta.b64 %p7, [full], {parity}; @!%p7 bra $again; }}\n"
    )
}

#[test]
fn what_one_warp_writes_another_reads() {
    for kind in ["test_wait", "try_wait"] {
        let body =
            "mov.u32 %r1, data; mad.lo.u32 %r2, %thread, 4, %r1; st.shared.u32 [%r2], %thread;
            mbarrier.arrive.shared::cta.b64 %d1, [full];"
                .to_owned()
                + &wait(kind, "0")
                + "sub.u32 %r3, 95, %thread; mad.lo.u32 %r2, %r3, 4, %r1; ld.shared.u32 %r4, [%r2];"
                + &store("%r4");
        let text = with_barrier(96, &body);
        for seed in 0..8 {
            assert_eq!(
                Run::block(96).seed(seed).run(&text, &[]),
                (0..96).rev().collect::<Vec<_>>()
            );
        }
    }
}

#[test]
fn tokens_name_phases() {
    // Two phases; a token of the first is complete in the second.
    let body = "mbarrier.arrive.shared.b64 %d1, [full];
        mbarrier.pending_count.b64 %r1, %d1;
        $a: mbarrier.test_wait.shared.b64 %p2, [full], %d1; @!%p2 bra $a;
        mbarrier.arrive.shared.b64 %d2, [full], 1;
        $b: mbarrier.try_wait.shared.b64 %p2, [full], %d2, 1000; @!%p2 bra $b;
        selp.u32 %r2, 1, 0, %p2; setp.ge.u32 %p3, %r1, 1; setp.le.u32 %p4, %r1, 64; and.pred %p3, %p3, %p4;
        selp.u32 %r1, 1, 0, %p3; add.u32 %r1, %r1, %r2;"
        .to_owned()
        + &store("%r1");
    assert_eq!(Run::block(64).run(&with_barrier(64, &body), &[]), [2; 64]);
}

#[test]
fn a_generic_address_does_as_well() {
    let body = "mov.u64 %d3, full; cvta.shared.u64 %d3, %d3; mbarrier.arrive.b64 %d1, [%d3];
        $a: mbarrier.test_wait.b64 %p2, [%d3], %d1; @!%p2 bra $a; mov.u32 %r1, 5;"
        .to_owned()
        + &store("%r1");
    assert_eq!(Run::block(32).run(&with_barrier(32, &body), &[]), [5; 32]);
    let body = "mbarrier.arrive.b64 %d1, [%out];";
    Run::block(32).finds(
        &with_barrier(32, body),
        &[],
        FindingKind::WrongSpace,
        "not in shared memory",
    );
}

#[test]
fn who_drops_out_is_not_waited_for() {
    // The upper warp leaves after the first phase.
    let body = "setp.ge.u32 %p2, %thread, 32; @%p2 bra $leave;
        mbarrier.arrive.shared.b64 _, [full];"
        .to_owned()
        + &wait("try_wait", "0")
        + "mbarrier.arrive.shared.b64 _, [full];"
        + &wait("test_wait", "1")
        + "mov.u32 %r1, 2;"
        + &store("%r1")
        + "ret; $leave: mbarrier.arrive_drop.shared.b64 %d1, [full]; mov.u32 %r1, 1;"
        + &store("%r1");
    let out = Run::block(64).run(&with_barrier(64, &body), &[]);
    assert!(out[..32].iter().all(|&x| x == 2) && out[32..].iter().all(|&x| x == 1));
}

/// Thread 0 copies 512 bytes in; everyone waits and reads.
fn bulk_in(expect: u32, before_wait: &str, bytes: &str) -> String {
    let body = format!(
        "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [full], {expect};
         @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [data], [%in], {bytes}, [full];
         {before_wait}
         mov.u32 %r1, data; mad.lo.u32 %r1, %thread, 4, %r1; ld.shared.u32 %r2, [%r1];"
    );
    with_barrier(1, &(body + &store("%r2")))
}

#[test]
fn a_bulk_copy_lands_before_its_phase_completes() {
    let input: Vec<u32> = (0..128).map(|i| i * i).collect();
    let wait_all = wait("try_wait", "0");
    for seed in 0..8 {
        assert_eq!(Run::block(128).seed(seed).run(&bulk_in(512, &wait_all, "512"), &input), input);
    }
}

#[test]
fn a_copy_to_many_goes_to_the_only_cta_of_the_cluster() {
    let input: Vec<u32> = (0..128).map(|i| i ^ 5).collect();
    let to_many = |ctas: u32| {
        bulk_in(512, &wait("try_wait", "0"), "512")
            .replace("complete_tx::bytes [data]", "complete_tx::bytes.multicast::cluster [data]")
            .replace("512, [full];\n", &format!("512, [full], {ctas};\n"))
    };
    assert_eq!(Run::block(128).run(&to_many(1), &input), input);
    Run::block(128).finds(&to_many(3), &input, FindingKind::Operand, "a cluster that has one");
}

#[test]
fn a_copy_of_no_bytes_goes_from_nowhere_to_nowhere() {
    let body = "@%p1 mbarrier.arrive.shared::cta.b64 _, [full]; mov.u32 %r2, 0; mov.u64 %d1, 0;
         @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%d1], %r2, [full];
         @%p1 cp.reduce.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes.add.u32 [%r2], [%r2], %r2, [full];
         cp.async.bulk.global.shared::cta.bulk_group [%d1], [%r2], %r2;
         cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [%d1], [%r2], %r2;
         cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;";
    let text = body.to_owned() + &wait("try_wait", "0") + "mov.u32 %r1, 3;" + &store("%r1");
    assert_eq!(Run::block(64).run(&with_barrier(1, &text), &[0]), [3; 64]);
}

#[test]
fn a_bulk_copy_out_needs_its_fence_and_its_wait() {
    let out = |fence: &str, rest: &str| {
        kernel_with(
            SHARED,
            &format!(
                "mov.u32 %r1, data; mad.lo.u32 %r1, %thread, 4, %r1; st.shared.u32 [%r1], %thread;
                 {fence} bar.sync 0; setp.ne.u32 %p1, %thread, 0; @%p1 ret;
                 cp.async.bulk.global.shared::cta.bulk_group [%out], [data], 256;
                 cp.async.bulk.commit_group;\n{rest}"
            ),
        )
    };
    let fence = "fence.proxy.async.shared::cta;";
    for wait in ["wait_group 0", "wait_group.read 0"] {
        let text = out(fence, &format!("cp.async.bulk.{wait};"));
        assert_eq!(Run::block(64).run(&text, &[]), (0..64).collect::<Vec<_>>());
    }
    let waits = "cp.async.bulk.wait_group 0;";
    Run::block(64).finds(&out("", waits), &[], FindingKind::Race, "without a `fence.proxy.async`");
    Run::block(64).finds(&out(fence, ""), &[], FindingKind::InFlight, "nobody waited for it");
    let early = "st.shared.u32 [data+16], 1; cp.async.bulk.wait_group 0;";
    Run::block(64).finds(
        &out(fence, early),
        &[],
        FindingKind::InFlight,
        "which a bulk copy has still to read",
    );
    let late =
        "cp.async.bulk.wait_group.read 0; st.shared.u32 [data+16], 1; cp.async.bulk.wait_group 0;";
    assert_eq!(Run::block(64).run(&out(fence, late), &[]), (0..64).collect::<Vec<_>>());
    let unread = "cp.async.bulk.wait_group 1;";
    Run::block(64).finds(&out(fence, unread), &[], FindingKind::InFlight, "nobody waited for it");
}

#[test]
fn bytes_in_flight_are_poison() {
    let input = [7; 128];
    let text = bulk_in(512, "bar.sync 0;", "512");
    Run::block(128).finds(&text, &input, FindingKind::InFlight, "has still to land");
}

#[test]
fn expecting_another_number_of_bytes_is_found() {
    let input = [7; 128];
    let wait_all = wait("try_wait", "0");
    let more = bulk_in(1024, &wait_all, "512");
    Run::block(128).finds(
        &more,
        &input,
        FindingKind::Deadlock,
        "for 512 bytes that no copy in flight brings",
    );
    let less = bulk_in(256, &wait_all, "512");
    Run::block(128).finds(
        &less,
        &input,
        FindingKind::Deadlock,
        "256 bytes more have arrived than were expected",
    );
}

#[test]
fn bad_bulk_copies_are_found() {
    let input = [7; 128];
    let wait_all = wait("try_wait", "0");
    let with = |bytes| bulk_in(512, &wait_all, bytes);
    Run::block(128).finds(
        &with("500"),
        &input,
        FindingKind::Operand,
        "500 bytes, which is not a multiple of 16",
    );
    Run::block(128).finds(&with("528"), &input, FindingKind::OutOfBounds, "past the end");
    let shifted = with("512").replace("[%in], 512", "[%in+4], 512");
    Run::block(128).finds(&shifted, &input, FindingKind::Misaligned, "is not a multiple of 16");
    let nowhere = with("512").replace("512, [full]", "512, [empty]");
    Run::block(128).finds(&nowhere, &input, FindingKind::BarrierMisuse, "holds no mbarrier object");
    let over = with("512").replace("[data], [%in]", "[data+768], [%in]");
    Run::block(128).finds(&over, &input, FindingKind::OutOfBounds, "");
    let ends = with_barrier(
        1,
        "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [full], 512;
         @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [data], [%in], 512, [full];",
    );
    Run::block(128).finds(&ends, &input, FindingKind::InFlight, "the CTA ends while a bulk copy");
}

#[test]
fn misuse_is_found() {
    let misuse = |count, body: &str, part: &str| {
        Run::block(32).finds(&with_barrier(count, body), &[], FindingKind::BarrierMisuse, part);
    };
    misuse(2, "mbarrier.arrive.shared.b64 %d1, [full], 3;", "3 arrivals at the mbarrier");
    misuse(32, "@%p1 mbarrier.init.shared.b64 [full], 3;", "which holds a live mbarrier object");
    misuse(32, "mbarrier.arrive.shared.b64 %d1, [empty];", "holds no mbarrier object");
    misuse(32, "ld.shared.u64 %d1, [full];", "which is part of an mbarrier object");
    misuse(32, "@%p1 st.shared.u32 [full+4], 3;", "which is part of an mbarrier object");
    misuse(
        1,
        "@%p1 mbarrier.arrive.noComplete.shared.b64 %d1, [full], 1;",
        ".noComplete completes phase 0",
    );
    misuse(
        32,
        "mbarrier.test_wait.parity.shared.b64 %p2, [full], 2;",
        "parity 2 is neither 0 nor 1",
    );
    let stale =
        "@!%p1 ret; mbarrier.arrive.shared.b64 %d1, [full]; mbarrier.arrive.shared.b64 _, [full];
        mbarrier.test_wait.shared.b64 %p2, [full], %d1;";
    misuse(1, stale, "state of phase 0 tested");
    misuse(
        32,
        "bar.sync 0; @%p1 mbarrier.inval.shared.b64 [full]; bar.sync 0; mbarrier.arrive.shared.b64 %d1, [full];",
        "holds no",
    );
    let zero = kernel_with(SHARED, "mbarrier.init.shared.b64 [full], %thread;");
    Run::block(1).finds(&zero, &[], FindingKind::BarrierMisuse, "a count of 0");
    let odd = kernel_with(SHARED, "mbarrier.init.shared.b64 [full+4], 1;");
    Run::block(1).finds(&odd, &[], FindingKind::Misaligned, "");
}

#[test]
fn an_arrival_that_never_comes_is_a_deadlock() {
    let text = with_barrier(
        33,
        &("mbarrier.arrive.shared.b64 %d1, [full];".to_owned() + &wait("try_wait", "0")),
    );
    Run::block(32).finds(
        &text,
        &[],
        FindingKind::Deadlock,
        "in phase 0 waits for 1 of 33 arrivals",
    );
}

#[test]
fn an_invalidated_barrier_leaves_memory_to_use() {
    let body = "bar.sync 0; @%p1 mbarrier.inval.shared.b64 [full]; bar.sync 0;
        @%p1 st.shared.u64 [full], 42; bar.sync 0; ld.shared.u32 %r1, [full];"
        .to_owned()
        + &store("%r1");
    assert_eq!(Run::block(64).run(&with_barrier(1, &body), &[]), [42; 64]);
}

/// A producer warp and a consumer warp around a ring of two stages, 64 steps.
#[test]
fn a_ring_of_stages_goes_round() {
    let before = ".shared .align 16 .b8 ring[1024];\n.shared .align 8 .b64 full[2];\n.shared .align 8 .b64 empty[2];";
    let body = "setp.eq.u32 %p1, %thread, 0;
        @!%p1 bra $ready;
        mbarrier.init.shared.b64 [full], 1; mbarrier.init.shared.b64 [full+8], 1;
        mbarrier.init.shared.b64 [empty], 32; mbarrier.init.shared.b64 [empty+8], 32;
        fence.mbarrier_init.release.cluster;
        $ready: bar.sync 0;
        mov.u32 %r10, full; mov.u32 %r11, empty; mov.u32 %r12, ring; mov.u32 %r1, 0; mov.u32 %r9, 0;
        setp.lt.u32 %p2, %thread, 32; @%p2 bra $producer;
        sub.u32 %r20, %thread, 32;
        $consume: and.b32 %r2, %r1, 1; shr.u32 %r3, %r1, 1; and.b32 %r3, %r3, 1;
        mad.lo.u32 %r4, %r2, 8, %r10;
        $wait_full: mbarrier.try_wait.parity.shared.b64 %p3, [%r4], %r3; @!%p3 bra $wait_full;
        mad.lo.u32 %r5, %r2, 512, %r12; mad.lo.u32 %r5, %r20, 16, %r5; ld.shared.u32 %r6, [%r5];
        add.u32 %r9, %r9, %r6;
        mad.lo.u32 %r4, %r2, 8, %r11; mbarrier.arrive.shared.b64 _, [%r4];
        add.u32 %r1, %r1, 1; setp.lt.u32 %p4, %r1, 64; @%p4 bra $consume;
        sub.u32 %thread, %thread, 32;"
        .to_owned()
        + &store("%r9")
        + "ret;
        $producer: @!%p1 ret;
        $produce: and.b32 %r2, %r1, 1; shr.u32 %r3, %r1, 1; and.b32 %r3, %r3, 1; xor.b32 %r3, %r3, 1;
        mad.lo.u32 %r4, %r2, 8, %r11;
        $wait_empty: mbarrier.try_wait.parity.shared.b64 %p3, [%r4], %r3; @!%p3 bra $wait_empty;
        mad.lo.u32 %r4, %r2, 8, %r10; mbarrier.arrive.expect_tx.shared.b64 _, [%r4], 512;
        mad.lo.u32 %r5, %r2, 512, %r12; mad.wide.u32 %d1, %r1, 512, %in;
        cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r5], [%d1], 512, [%r4];
        add.u32 %r1, %r1, 1; setp.lt.u32 %p4, %r1, 64; @%p4 bra $produce;";
    let text = kernel_with(before, &body);
    let input: Vec<u32> = (0..64 * 128).map(|i| i ^ 0x55).collect();
    let expected: Vec<u32> =
        (0..32).map(|t| (0..64).map(|s| input[s * 128 + 4 * t]).sum()).collect();
    for seed in 0..8 {
        assert_eq!(Run::block(64).out(32).seed(seed).run(&text, &input), expected);
    }
}

/// Each thread copies 16 bytes and lets the copy arrive for it.
fn copies_arrive(count: u32, arrive: &str, after: &str) -> String {
    let body = format!(
        "mov.u32 %r1, data; mad.lo.u32 %r1, %thread, 16, %r1; mad.wide.u32 %d1, %thread, 16, %in;
         cp.async.cg.shared.global [%r1], [%d1], 16;
         {arrive}
         {after}
         mov.u32 %r1, data; sub.u32 %r2, 63, %thread; mad.lo.u32 %r1, %r2, 16, %r1; ld.shared.u32 %r3, [%r1];"
    );
    with_barrier(count, &(body + &store("%r3")))
}

#[test]
fn copies_arrive_at_a_barrier() {
    let input: Vec<u32> = (0..256).collect();
    let expected: Vec<u32> = (0..64).map(|t| (63 - t) * 4).collect();
    let wait_all = wait("test_wait", "0");
    let counted = copies_arrive(64, "cp.async.mbarrier.arrive.noinc.shared.b64 [full];", &wait_all);
    let extra =
        "cp.async.mbarrier.arrive.shared::cta.b64 [full]; mbarrier.arrive.shared.b64 _, [full];";
    let extra = copies_arrive(64, extra, &wait_all);
    for seed in 0..8 {
        assert_eq!(Run::block(64).seed(seed).run(&counted, &input), expected);
        assert_eq!(Run::block(64).seed(seed).run(&extra, &input), expected);
    }
}

#[test]
fn copies_that_nobody_waits_for_are_poison() {
    let input = [1; 256];
    let early =
        copies_arrive(64, "cp.async.mbarrier.arrive.noinc.shared.b64 [full];", "bar.sync 0;");
    Run::block(64).finds(&early, &input, FindingKind::InFlight, "has still to land");
    // The copy comes after the arrival, which does not cover it.
    let text = copies_arrive(64, "", &wait("test_wait", "0"));
    let late = text
        .replace("cp.async.cg", "cp.async.mbarrier.arrive.noinc.shared.b64 [full]; cp.async.cg");
    Run::block(64).finds(&late, &input, FindingKind::InFlight, "has still to land");
    let twice = "cp.async.mbarrier.arrive.noinc.shared.b64 [full]; cp.async.mbarrier.arrive.noinc.shared.b64 [full];";
    let twice =
        copies_arrive(1, &("@!%p1 bra $on;".to_owned() + twice + "$on:"), &wait("try_wait", "0"));
    // Two phases have passed where one was waited for: the parity never comes round.
    Run::block(64).finds(&twice, &input, FindingKind::Deadlock, "in phase 2 waits for 1 of 1");
}

/// Under every seed the program is faulty; under some of them the finding is a race whose text has `part` in it.
#[track_caller]
fn races(text: &str, input: &[u32], part: &str) {
    let mut named = false;
    for seed in 0..8 {
        match Run::block(128).seed(seed).try_run(text, input) {
            Err(LaunchError::Findings(list)) => {
                let finding = &list[0];
                assert!(
                    matches!(finding.kind, FindingKind::Race | FindingKind::InFlight),
                    "{finding}"
                );
                named |= finding.kind == FindingKind::Race && finding.to_string().contains(part);
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("seed {seed}: nothing was found"),
        }
    }
    assert!(named, "no race with `{part}`");
}

#[test]
fn a_relaxed_arrival_orders_nothing() {
    let body = |order: &str| {
        format!(
            "mov.u32 %r1, data; mad.lo.u32 %r2, %thread, 4, %r1; st.shared.u32 [%r2], %thread;
             mbarrier.arrive{order}.shared::cta.b64 %d1, [full];"
        ) + &wait("try_wait", "0")
            + "xor.b32 %r3, %thread, 64; mad.lo.u32 %r2, %r3, 4, %r1; ld.shared.u32 %r4, [%r2];"
            + &store("%r4")
    };
    let want: Vec<u32> = (0..128).map(|i| i ^ 64).collect();
    assert_eq!(Run::block(128).run(&with_barrier(128, &body(".release.cta")), &[]), want);
    races(&with_barrier(128, &body(".relaxed.cta")), &[], "nothing orders the two");
    let wait = wait("try_wait", "0").replace(".parity", ".parity.relaxed.cta");
    let relaxed =
        body("").replace("mbarrier.try_wait.parity", "mbarrier.try_wait.parity.relaxed.cta");
    assert!(relaxed.contains(wait.trim_end()));
    races(&with_barrier(128, &relaxed), &[], "nothing orders the two");
}

#[test]
fn an_object_is_made_before_it_is_used() {
    let body =
        "setp.eq.u32 %p1, %thread, 0; @%p1 mbarrier.init.shared::cta.b64 [full], 128; bar.sync 0;
        mbarrier.arrive.shared.b64 _, [full];"
            .to_owned()
            + &wait("try_wait", "0");
    assert_eq!(Run::block(128).out(0).run(&kernel_with(SHARED, &body), &[]), []);
    // Who comes late enough finds the object, but nothing says so.
    let late =
        "mov.u32 %r9, 0; $delay: add.u32 %r9, %r9, 1; setp.lt.u32 %p2, %r9, 4000; @%p2 bra $delay;";
    let body = body.replacen("bar.sync 0;", &format!("@%p1 bra $go; {late} $go: "), 1);
    races(&kernel_with(SHARED, &body), &[], "mbarrier.init");
    let body = format!(
        "setp.ge.u32 %p4, %thread, 96; @%p4 bra $late; mbarrier.arrive.shared.b64 _, [full]; {} ret;
         $late: {late} setp.eq.u32 %p3, %thread, 127; @%p3 mbarrier.inval.shared.b64 [full];",
        wait("try_wait", "0")
    );
    races(&with_barrier(96, &body), &[], "mbarrier.arrive");
}

#[test]
fn who_reads_a_bulk_copy_has_waited_for_it() {
    // Thread 0 alone waits; the others come by when it has landed.
    let input = [7; 128];
    let wait = wait("try_wait", "0");
    let alone = |after: &str| format!("@!%p1 bra $over; {wait} $over: {after}");
    let clean = bulk_in(512, &alone("bar.sync 0;"), "512");
    assert_eq!(Run::block(128).run(&clean, &input), input);
    let late = "@%p1 bra $go; mov.u32 %r9, 0; $delay: add.u32 %r9, %r9, 1; setp.lt.u32 %p2, %r9, 4000; @%p2 bra $delay; $go:";
    races(&bulk_in(512, &alone(late), "512"), &input, "a copy issued by lane 0");
}

#[test]
fn who_starts_a_bulk_copy_waits_for_the_readers_of_what_it_overwrites() {
    // Everyone reads the first tile; the second one overwrites it.
    let text = |before: &str| {
        let again = format!(
            "{} mov.u32 %r1, data; mad.lo.u32 %r1, %thread, 4, %r1; ld.shared.u32 %r5, [%r1]; {before}
             @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [full], 512;
             @%p1 cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes [data], [%in+512], 512, [full];
             {}",
            wait("try_wait", "0"),
            wait("try_wait", "1").replace("$again", "$once")
        );
        bulk_in(512, &again, "512")
    };
    let input: Vec<u32> = (0..256).collect();
    assert_eq!(Run::block(128).run(&text("bar.sync 0;"), &input), input[128..]);
    races(&text(""), &input, "store of shared memory");
}
