//! What the lanes of a warp and the threads of a CTA do together.

mod common;

use common::{Run, kernel, store};
use ptx_emulator::FindingKind;

fn words(body: &str, block: u32, input: &[u32]) -> Vec<u32> {
    let load = "mad.wide.u32 %d1, %thread, 4, %in; ld.global.u32 %r1, [%d1];";
    Run::block(block).run(&kernel(&(load.to_owned() + body + &store("%r2"))), input)
}

fn input(count: u32) -> Vec<u32> {
    (0..count).map(|i| i.wrapping_mul(0x9e37_79b9) ^ i).collect()
}

#[test]
fn redux_of_every_kind() {
    let x = input(32);
    let signed = || x.iter().map(|&v| v as i32);
    let sum = x.iter().fold(0u32, |s, &v| s.wrapping_add(v));
    let expected = [
        ("add.u32", sum),
        ("add.s32", sum),
        ("min.u32", *x.iter().min().unwrap()),
        ("max.u32", *x.iter().max().unwrap()),
        ("min.s32", signed().min().unwrap() as u32),
        ("max.s32", signed().max().unwrap() as u32),
        ("and.b32", x.iter().fold(u32::MAX, |s, v| s & v)),
        ("or.b32", x.iter().fold(0, |s, v| s | v)),
        ("xor.b32", x.iter().fold(0, |s, v| s ^ v)),
    ];
    for (kind, value) in expected {
        assert_eq!(
            words(&format!("redux.sync.{kind} %r2, %r1, -1;"), 32, &x),
            [value; 32],
            "{kind}"
        );
    }
    // Halves of the warp, each with its own mask, in different branches.
    let halves = "setp.lt.u32 %p1, %thread, 16; @%p1 bra $low; redux.sync.add.u32 %r2, %r1, 0xffff0000; bra.uni $end;
        $low: redux.sync.add.u32 %r2, %r1, 0x0000ffff; $end:";
    let sums: Vec<u32> =
        x.chunks(16).map(|half| half.iter().fold(0u32, |s, &v| s.wrapping_add(v))).collect();
    let out = words(halves, 32, &x);
    assert!(out[..16].iter().all(|&v| v == sums[0]) && out[16..].iter().all(|&v| v == sums[1]));
}

#[test]
fn match_finds_equal_lanes() {
    let x: Vec<u32> = (0..32).map(|i| i % 5).collect();
    let same = |lane: usize, among: u32| {
        (0..32).filter(|&i| among >> i & 1 != 0 && x[i] == x[lane]).fold(0u32, |m, i| m | 1 << i)
    };
    let all: Vec<u32> = (0..32).map(|lane| same(lane, u32::MAX)).collect();
    assert_eq!(words("match.any.sync.b32 %r2, %r1, 0xffffffff;", 32, &x), all);
    let wide = "mov.b64 %d2, {%thread, %r1}; mov.b64 %d2, {0, %r1}; match.any.sync.b64 %r2, %d2, 0xffffffff;";
    assert_eq!(words(wide, 32, &x), all);
    let part = "mov.u32 %r2, 0; setp.ge.u32 %p1, %thread, 24; @%p1 bra $end; match.any.sync.b32 %r2, %r1, 0x00ffffff; $end:";
    let expected: Vec<u32> =
        (0..32).map(|lane| if lane < 24 { same(lane, 0x00ff_ffff) } else { 0 }).collect();
    assert_eq!(words(part, 32, &x), expected);
    let every = "match.all.sync.b32 %r2|%p1, %r1, -1; @%p1 add.u32 %r2, %r2, 1;";
    assert_eq!(words(every, 32, &x), [0; 32]);
    assert_eq!(words(every, 32, &[9; 32]), [0; 32], "the mask of all lanes plus one");
    assert_eq!(words("match.all.sync.b32 %r2, %r1, -1;", 32, &[9; 32]), [u32::MAX; 32]);
}

#[test]
fn one_lane_is_elected() {
    let body = "elect.sync %r2|%p1, 0xfffffff0; @%p1 add.u32 %r2, %r2, 100;";
    let text = kernel(
        &("setp.lt.u32 %p2, %thread, 4; mov.u32 %r2, 7; @%p2 bra $end;".to_owned()
            + body
            + "$end:"
            + &store("%r2")),
    );
    let expected: Vec<u32> = (0..32)
        .map(|t| {
            if t < 4 {
                7
            } else if t == 4 {
                104
            } else {
                4
            }
        })
        .collect();
    assert_eq!(Run::block(32).run(&text, &[]), expected);
}

#[test]
fn activemask_names_lanes_that_are_here() {
    let body = "setp.lt.u32 %p1, %thread, 12; mov.u32 %r2, 0; @%p1 activemask.b32 %r2;";
    let expected: Vec<u32> = (0..32).map(|t| if t < 12 { 0xfff } else { 0 }).collect();
    assert_eq!(words(body, 32, &input(32)), expected);
    assert_eq!(words("activemask.b32 %r2;", 40, &input(40))[39], 0xff);
}

#[test]
fn votes_of_every_kind() {
    let x: Vec<u32> = (0..32).map(|i| u32::from(i % 3 == 0)).collect();
    let vote = |kind: &str| {
        format!(
            "setp.ne.u32 %p1, %r1, 0; vote.sync.{kind}.pred %p2, %p1, -1; selp.u32 %r2, 1, 0, %p2;"
        )
    };
    for (kind, mixed, ones, zeros) in [("all", 0, 1, 0), ("any", 1, 1, 0), ("uni", 0, 1, 1)] {
        assert_eq!(words(&vote(kind), 32, &x), [mixed; 32], "{kind}");
        assert_eq!(words(&vote(kind), 32, &[1; 32]), [ones; 32], "{kind}");
        assert_eq!(words(&vote(kind), 32, &[0; 32]), [zeros; 32], "{kind}");
    }
    let negated = "setp.ne.u32 %p1, %r1, 0; vote.sync.ballot.b32 %r2, !%p1, -1;";
    let expected = (0..32).filter(|i| i % 3 != 0).fold(0u32, |m, i| m | 1 << i);
    assert_eq!(words(negated, 32, &x), [expected; 32]);
}

#[test]
fn a_lane_outside_its_mask_is_found() {
    for body in [
        "redux.sync.add.u32 %r2, %r1, 0xffff;",
        "match.any.sync.b32 %r2, %r1, 0xffff;",
        "elect.sync %r2|%p1, 0xffff;",
    ] {
        let text = kernel(&("mov.u32 %r1, 1;".to_owned() + body));
        let finding = Run::block(32).finds(&text, &[], FindingKind::Membermask, "");
        assert_eq!(finding.site.lane, 16, "{body}");
    }
    let never = "mov.u32 %r1, 1; setp.lt.u32 %p1, %thread, 8; @%p1 redux.sync.add.u32 %r2, %r1, -1; @!%p1 bra $end; $end: bar.sync 0;";
    Run::block(32).finds(&kernel(never), &[], FindingKind::Membermask, "");
}

#[test]
fn barriers_count_votes() {
    let x: Vec<u32> = (0..96).map(|i| u32::from(i % 4 == 0)).collect();
    let count = "setp.ne.u32 %p1, %r1, 0; bar.red.popc.u32 %r2, 0, %p1;";
    assert_eq!(words(count, 96, &x), [24; 96]);
    let negated = "setp.ne.u32 %p1, %r1, 0; barrier.cta.red.popc.aligned.u32 %r2, 3, 96, !%p1;";
    assert_eq!(words(negated, 96, &x), [72; 96]);
    for (kind, mixed, ones) in [("and", 0, 1), ("or", 1, 1)] {
        let body = format!(
            "setp.ne.u32 %p1, %r1, 0; barrier.red.{kind}.pred %p2, 1, %p1; selp.u32 %r2, 1, 0, %p2;"
        );
        assert_eq!(words(&body, 96, &x), [mixed; 96]);
        assert_eq!(words(&body, 96, &[1; 96]), [ones; 96]);
        assert_eq!(words(&body, 96, &[0; 96]), [0; 96]);
    }
}

/// The first warp produces and arrives, the second waits; a third has nothing to do with it.
fn producer(consumer_count: u32, producer_count: u32) -> String {
    let body = format!(
        "setp.ge.u32 %p1, %thread, 64; mov.u32 %r2, 5; @%p1 bra $end;
         mov.u32 %r3, data; setp.ge.u32 %p1, %thread, 32; @%p1 bra $consumer;
         mad.lo.u32 %r3, %thread, 4, %r3; st.shared.u32 [%r3], %thread; barrier.cta.arrive 1, {producer_count}; bra.uni $end;
         $consumer: bar.sync 1, {consumer_count}; sub.u32 %r4, 63, %thread; mad.lo.u32 %r3, %r4, 4, %r3; ld.shared.u32 %r2, [%r3];
         $end:"
    );
    common::kernel_with(".shared .align 4 .b8 data[128];", &(body + &store("%r2")))
}

#[test]
fn named_barriers_have_counts() {
    let expected: Vec<u32> =
        (0..96).map(|t| if (32..64).contains(&t) { 63 - t } else { 5 }).collect();
    for seed in 0..4 {
        assert_eq!(Run::block(96).seed(seed).run(&producer(64, 64), &[]), expected);
    }
    Run::block(96).finds(&producer(64, 96), &[], FindingKind::BarrierMisuse, "96");
    Run::block(96).finds(&producer(96, 96), &[], FindingKind::Barrier, "64 of 96 threads");
    Run::block(96).finds(&producer(33, 33), &[], FindingKind::BarrierMisuse, "33");
    Run::block(96).finds(&kernel("bar.sync %thread;"), &[], FindingKind::BarrierMisuse, "");
    Run::block(96).finds(
        &kernel("mov.u32 %r1, 16; bar.sync %r1;"),
        &[],
        FindingKind::BarrierMisuse,
        "16",
    );
}

#[test]
fn hints_and_sleeps_change_nothing() {
    let body = "prefetch.global.L1 [%in]; prefetch.L2 [%in]; prefetch.global.L2::evict_last [%in]; prefetchu.L1 [%in];
        applypriority.global.L2::evict_normal [%in], 128; griddepcontrol.wait; griddepcontrol.launch_dependents; nanosleep.u32 100;
        createpolicy.range.global.L2::evict_last.L2::evict_first.b64 %d2, [%in], 16, 32; fence.proxy.alias; fence.proxy.async;
        createpolicy.fractional.L2::evict_first.b64 %d3, 0.5; mov.u32 %r2, 8;";
    assert_eq!(words(body, 32, &input(32)), [8; 32]);
}

#[test]
fn discarded_bytes_are_undefined() {
    let body = "setp.eq.u32 %p1, %thread, 0; @%p1 discard.global.L2 [%in], 128; bar.sync 0; ld.global.u32 %r2, [%in+64];";
    Run::block(32).finds(&kernel(body), &[1; 32], FindingKind::UninitialisedMemory, "");
    Run::block(32).finds(
        &kernel("discard.L2 [%in+64], 128;"),
        &[1; 64],
        FindingKind::Misaligned,
        "128",
    );
}

#[test]
fn spaces_of_addresses_are_told_apart() {
    let body = ".local .align 8 .b8 own[8];
        mov.u64 %d1, own; cvta.local.u64 %d1, %d1; mov.u64 %d2, data; cvta.shared::cta.u64 %d2, %d2; cvta.const.u64 %d3, table;
        isspacep.local %p1, %d1; isspacep.shared::cta %p2, %d2; isspacep.shared::cluster %p3, %d2; isspacep.global %p4, %in; isspacep.const %p5, %d3;
        isspacep.shared %p6, %in; isspacep.global %p7, %d1;
        selp.u32 %r1, 1, 0, %p1; selp.u32 %r2, 2, 0, %p2; or.b32 %r1, %r1, %r2; selp.u32 %r2, 4, 0, %p3; or.b32 %r1, %r1, %r2;
        selp.u32 %r2, 8, 0, %p4; or.b32 %r1, %r1, %r2; selp.u32 %r2, 16, 0, %p5; or.b32 %r1, %r1, %r2;
        selp.u32 %r2, 32, 0, %p6; or.b32 %r1, %r1, %r2; selp.u32 %r2, 64, 0, %p7; or.b32 %r1, %r1, %r2;
        cvta.to.const.u64 %d3, %d3; ld.const.u32 %r2, [%d3]; mad.lo.u32 %r1, %r2, 1000, %r1;
        cvta.to.shared.u64 %d2, %d2; st.shared.u32 [%d2], 3; ld.shared.u32 %r2, [data]; mad.lo.u32 %r1, %r2, 100, %r1;
        cvta.param.u64 %d4, in; isspacep.param %p1, %d4; @!%p1 trap; cvta.to.param.u64 %d4, %d4; ld.param.u64 %d5, [%d4]; setp.eq.u64 %p2, %d5, %in; @!%p2 trap;";
    let before = ".shared .align 8 .b8 data[8];\n.const .u32 table[1] = {7};";
    let text = common::kernel_with(before, &(body.to_owned() + &store("%r1")));
    assert_eq!(Run::block(1).run(&text, &[]), [7331]);
}
