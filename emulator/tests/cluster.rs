//! What kernels say to their cluster, which is their CTA alone.

mod common;

use common::{Run, kernel, kernel_with, refused, store};
use ptx_emulator::FindingKind;

const SHARED: &str = ".shared .align 16 .b8 data[512];";

/// Every thread writes its word, meets the others and reads that of another warp, twice.
fn exchange(arrive: &str, wait: &str) -> String {
    let round = |k: u32| {
        format!(
            "add.u32 %r3, %thread, {k}; st.shared.u32 [%r2], %r3; barrier.cluster.arrive{arrive}; add.u32 %r6, %r6, 1;
             barrier.cluster.wait{wait}; xor.b32 %r3, %r2, 256; ld.shared.u32 %r4, [%r3]; add.u32 %r5, %r5, %r4;
             barrier.cluster.arrive{arrive}; barrier.cluster.wait{wait};\n"
        )
    };
    let body = format!(
        "mov.u32 %r1, data; mad.lo.u32 %r2, %thread, 4, %r1; mov.u32 %r5, 0; mov.u32 %r6, 0;\n{}{}{}",
        round(100),
        round(1000),
        store("%r5")
    );
    kernel_with(SHARED, &body)
}

#[test]
fn the_barrier_of_the_cluster_is_one_of_the_cta() {
    let want: Vec<u32> = (0..128).map(|i| 2 * (i ^ 64) + 1100).collect();
    for seed in 0..6 {
        for (arrive, wait) in [
            ("", ""),
            (".aligned", ".aligned"),
            (".release.aligned", ".acquire.aligned"),
            (".release", ".acquire"),
        ] {
            assert_eq!(Run::block(128).seed(seed).run(&exchange(arrive, wait), &[]), want);
        }
        let relaxed = exchange(".relaxed.aligned", ".aligned");
        Run::block(128).seed(seed).finds(
            &relaxed,
            &[],
            FindingKind::Race,
            "nothing orders the two",
        );
    }
}

#[test]
fn who_has_exited_is_not_waited_for() {
    let body = "setp.ge.u32 %p1, %thread, 40; @%p1 bra $out; barrier.cluster.arrive; barrier.cluster.wait;
        barrier.cluster.arrive; barrier.cluster.wait; mov.u32 %r1, 7; bra $all; $out: mov.u32 %r1, 8; $all:"
        .to_owned()
        + &store("%r1");
    for seed in 0..6 {
        let out = Run::block(96).seed(seed).run(&kernel(&body), &[]);
        assert!(out.iter().enumerate().all(|(i, &x)| x == if i < 40 { 7 } else { 8 }));
    }
}

#[test]
fn arrivals_and_waits_take_turns() {
    let find = |body: &str, kind, part: &str| {
        Run::block(64).finds(&kernel(body), &[], kind, part);
    };
    let misuse = FindingKind::BarrierMisuse;
    find(
        "barrier.cluster.arrive; barrier.cluster.arrive;",
        misuse,
        "a second `barrier.cluster.arrive`",
    );
    find("barrier.cluster.wait;", misuse, "without a `barrier.cluster.arrive`");
    let stuck = "setp.ge.u32 %p1, %thread, 32; @%p1 bra $other; barrier.cluster.arrive; barrier.cluster.wait; ret;
        $other: bar.sync 1;";
    find(
        stuck,
        FindingKind::Barrier,
        "the barrier of the cluster waits for ever: 32 of 64 threads",
    );
}

#[test]
fn the_only_rank_is_this_cta() {
    let body = "mov.u32 %r1, data; st.shared.u32 [data], 5; bar.warp.sync -1; mapa.shared::cluster.u32 %r2, %r1, 0;
        ld.shared::cluster.u32 %r3, [%r2]; cvt.u64.u32 %d1, %r1; cvta.shared.u64 %d1, %d1; mapa.u64 %d2, %d1, %r0;
        ld.u32 %r4, [%d2]; getctarank.u64 %r5, %d1; getctarank.shared::cluster.u32 %r6, %r1; mov.u32 %r7, %cluster_nctarank;
        mov.pred %p1, %is_explicit_cluster; selp.u32 %r8, 100, 0, %p1;
        add.u32 %r3, %r3, %r4; add.u32 %r3, %r3, %r5; add.u32 %r3, %r3, %r6; add.u32 %r3, %r3, %r7; add.u32 %r3, %r3, %r8;"
        .to_owned()
        + &store("%r3");
    let text = kernel_with(SHARED, &format!("mov.u32 %r0, 0; {body}"));
    assert_eq!(Run::block(32).run(&text, &[]), [11; 32]);
    let other = text.replace("mov.u32 %r0, 0;", "mov.u32 %r0, 1;");
    Run::block(32).finds(&other, &[], FindingKind::Operand, "clusters are not modelled");
    let wrong = text.replace("cvta.shared.u64 %d1, %d1;", "mov.u64 %d1, %out;");
    Run::block(32).finds(&wrong, &[], FindingKind::WrongSpace, "not an address in shared memory");
}

/// What lanes that do not take part have in their registers is nobody's business.
#[test]
fn addresses_of_some_lanes_are_mapped() {
    let body = "mov.u32 %r1, data; mov.u32 %r0, 0; mov.u64 %d1, 0; st.shared.u32 [data], 5; bar.warp.sync -1;
        mov.u32 %r2, 9; mov.u64 %d2, 9; setp.ne.u32 %p1, %thread, 3; @%p1 bra $join;
        cvt.u64.u32 %d1, %r1; cvta.shared.u64 %d1, %d1;
        mapa.u64 %d2, %d1, %r0; ld.u32 %r2, [%d2]; mapa.shared::cluster.u32 %r3, %r1, %r0; ld.shared.u32 %r3, [%r3];
        add.u32 %r2, %r2, %r3; bra $join; $join:"
        .to_owned()
        + &store("%r2");
    let want: Vec<u32> = (0..8).map(|i| if i == 3 { 10 } else { 9 }).collect();
    let text = kernel_with(SHARED, &body);
    assert_eq!(Run::block(8).run(&text, &[]), want);
    let others =
        text.replace("mov.u32 %r0, 0;", "setp.eq.u32 %p2, %thread, 3; selp.u32 %r0, 0, 7, %p2;");
    assert_eq!(Run::block(8).run(&others, &[]), want);
}

#[test]
fn larger_clusters_name_themselves() {
    for (form, part) in [
        (
            "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%d1, {%r2, %r3}], [%r4];",
            "`.tensor`",
        ),
        (
            "st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r0], %r1, [%r2];",
            "`.async`",
        ),
        (
            "red.async.relaxed.cluster.shared::cluster.mbarrier::complete_tx::bytes.add.u32 [%r0], %r1, [%r2];",
            "`.async`",
        ),
        ("wgmma.fence.sync.aligned;", "`wgmma`"),
        ("multimem.st.global.u32 [%d1], %r0;", "`multimem`"),
        (
            "mma.sp.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f0}, {%r0}, {%r1}, {%f0}, %r4, 0;",
            "`.sp`",
        ),
        ("tcgen05.fence::before_thread_sync;", "`tcgen05`"),
    ] {
        let message = refused(&kernel(&format!("{{ .reg .b16 %h; {form} }}")));
        assert!(message.contains(part), "{message}");
    }
    let early = refused(&kernel("barrier.cluster.arrive;").replace("sm_90", "sm_80"));
    assert!(early.contains("needs sm_90"), "{early}");
    let early = refused(&kernel("mov.u32 %r1, %cluster_ctarank;").replace("sm_90", "sm_80"));
    assert!(early.contains("`%cluster_ctarank` needs sm_90"), "{early}");
}
