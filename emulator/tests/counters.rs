//! What a launch counts of memory that is on its way, against sums made by hand.

mod common;

use common::kernel;
use ptx_emulator::{Counters, Device, Launch, Module};

/// The counters of one warp that runs the body; both parameters are buffers of 8 KiB.
fn counted(body: &str) -> Counters {
    let module = Module::parse("k.ptx", &kernel(body)).unwrap_or_else(|e| panic!("{e}"));
    let device = Device::new();
    let buffer = || {
        let at = device.allocate(8192).unwrap();
        device.write(at, &[1; 8192]).unwrap();
        at
    };
    let params = [buffer().to_le_bytes(), buffer().to_le_bytes()].concat();
    let launch = Launch { block: [32, 1, 1], params: &params, ..Launch::default() };
    device.launch(&module, "k", &launch).unwrap_or_else(|e| panic!("{e}")).counters
}

fn peak(body: &str) -> u64 {
    counted(body).peak_bytes_in_flight
}

#[test]
fn loads_are_in_flight_until_their_first_use() {
    let (one, two) = ("ld.global.u32 %r1, [%in];", "ld.global.u32 %r2, [%in+4];");
    let sum = "add.u32 %r3, %r1, 1;";
    assert_eq!(peak(&format!("{one} {sum}")), 32 * 4);
    assert_eq!(peak(&format!("{one} {two} {sum}")), 2 * 32 * 4);
    assert_eq!(peak(&format!("{one} {sum} {two}")), 32 * 4);
    // A store is a use too, and so is a write that throws the value away.
    assert_eq!(peak(&format!("{one} st.global.u32 [%out], %r1; {two}")), 32 * 4);
    assert_eq!(peak(&format!("{one} mov.u32 %r1, 0; {two}")), 32 * 4);
    let wide = "ld.global.v2.b64 {%d1, %d2}, [%in]; add.u64 %d3, %d1, 1;";
    assert_eq!(peak(wide), 32 * 16);
    let four = "ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in];";
    assert_eq!(peak(&format!("{wide} {four}")), 32 * (8 + 16));
    assert_eq!(peak("ld.global.u8 %r1, [%in]; ld.u32 %r2, [%in];"), 32 * 5);
    let own =
        ".shared .b32 s[32]; mov.u32 %r9, s; mad.lo.u32 %r9, %thread, 4, %r9; st.shared.u32 [%r9], 1;
        ld.shared.u32 %r1, [%r9];";
    assert_eq!(peak(own), 0);
    assert_eq!(peak(&format!("setp.lt.u32 %p1, %thread, 5; @%p1 {one}")), 5 * 4);
}

#[test]
fn loads_are_followed_around_loops_and_branches() {
    // Two values are on their way at each load of the loop: the one that it uses next and the one after that.
    let body = "ld.global.u32 %r1, [%in]; ld.global.u32 %r2, [%in+4]; mov.u32 %r4, 0;
        $next: add.u32 %r5, %r1, 1; ld.global.u32 %r1, [%in+8]; add.u32 %r5, %r2, 1; ld.global.u32 %r2, [%in+12];
        add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, 3; @%p1 bra $next;";
    assert_eq!(peak(body), 2 * 32 * 4);
    // Only one of the ways to the second load has the first behind it.
    let body =
        "setp.lt.u32 %p1, %thread, 64; @%p1 bra $skip; ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%in];
        $skip: ld.global.u32 %r5, [%in];";
    assert_eq!(peak(body), 32 * 4);
}

#[test]
fn bulk_copies_count_until_they_are_waited_for() {
    let begin = ".shared .align 16 .b8 s[2048]; .shared .align 8 .b64 m; mov.u32 %r9, s; mov.u32 %r8, m; setp.eq.u32 %p1, %thread, 0;
        @%p1 mbarrier.init.shared.b64 [%r8], 1; fence.proxy.async.shared::cta; bar.warp.sync 0xffffffff;";
    let copy = |to: u32, bytes: u32| {
        format!(
            "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r9+{to}], [%in], {bytes}, [%r8];"
        )
    };
    let wait = "@%p1 mbarrier.arrive.expect_tx.shared.b64 _, [%r8], 768;
        $w: mbarrier.try_wait.parity.shared.b64 %p2, [%r8], 0; @!%p2 bra $w;";
    let load = "ld.global.u32 %r1, [%out];";
    let (one, two) = (copy(0, 512), copy(512, 256));
    assert_eq!(peak(&format!("{begin} {one} {two} {wait}")), 768);
    assert_eq!(peak(&format!("{begin} {one} {load} {two} {wait}")), 768 + 128);
    assert_eq!(peak(&format!("{begin} {one} {two} {wait} {load}")), 768);
}

#[test]
fn copies_count_with_the_loads_around_them_and_apart() {
    let copy = ".shared .align 16 .b8 s[1024]; mov.u32 %r9, s; mad.lo.u32 %r9, %thread, 16, %r9; mad.wide.u32 %in, %thread, 16, %in;
        cp.async.cg.shared.global [%r9], [%in], 16;";
    assert_eq!(peak(copy), 512);
    let load = "ld.global.u32 %r1, [%out];";
    assert_eq!(peak(&format!("{copy} {load}")), 512 + 128);
    assert_eq!(peak(&format!("{load} {copy}")), 128 + 512);
    assert_eq!(peak(&format!("{copy} cp.async.wait_all; {load}")), 512);
    let counters = counted(&format!("{copy} {load}"));
    let all = |t: ptx_emulator::Traffic| (t.bytes, t.sectors, t.ideal_sectors);
    // Every lane loads the same word.
    assert_eq!(all(counters.global_loads), (512 + 128, 16 + 1, 16 + 1));
    assert_eq!(all(counters.global_copies), (512, 16, 16));
}

/// The sectors that a copy of 4 rows of 128 bytes fetches, made a number of times, and those that would do. 8 lanes copy a row, 16 bytes each;
/// `place` makes of a lane's `%row` and `%piece` where in shared memory it goes, `%place`. In `%half` is 16 for each second lane, 0 for others.
fn copied(copy: &str, times: u64, moved: u32, place: &str) -> (u64, u64) {
    let body = format!(
        ".shared .align 128 .b8 s[4096]; .reg .b32 %row, %piece, %place, %half; shr.u32 %row, %thread, 3; and.b32 %piece, %thread, 7;
        not.b32 %half, %thread; and.b32 %half, %half, 1; shl.b32 %half, %half, 4; {place} mov.u32 %r9, s; add.u32 %r9, %r9, %place;
        mad.wide.u32 %in, %thread, 16, %in; mov.u32 %r4, 0; $next: {copy}; cp.async.wait_all; add.u32 %r9, %r9, {moved};
        add.u32 %r4, %r4, 1; setp.lt.u32 %p1, %r4, {times}; @%p1 bra $next;"
    );
    let counters = counted(&body);
    assert_eq!(counters.global_loads, counters.global_copies);
    (counters.global_copies.sectors, counters.global_copies.ideal_sectors)
}

/// A row of 272 bytes after the other: each second one begins in the middle of a sector.
const DISPLACED: &str = "mul.lo.u32 %place, %row, 272; mad.lo.u32 %place, %piece, 16, %place;";

/// As [`DISPLACED`], with those rows moved back to where the sector begins.
const ALIGNED: &str = "mul.lo.u32 %place, %row, 272; and.b32 %place, %place, -32; mad.lo.u32 %place, %piece, 16, %place;";

/// The two pieces of a sector stay in one, in each second row the other way round.
const TURNED: &str = "and.b32 %place, %row, 1; xor.b32 %piece, %piece, %place; mul.lo.u32 %place, %row, 256; mad.lo.u32 %place, %piece, 16, %place;";

const PAST_L1: &str = "cp.async.cg.shared.global [%r9], [%in], 16";

/// What an H200 fetched for each such copy of a decode kernel: 24 sectors to displaced rows, 16 where the pieces of a sector stay together.
#[test]
fn copies_past_l1_fetch_sectors_twice_whose_halves_part() {
    for times in [1, 2, 7] {
        assert_eq!(copied(PAST_L1, times, 0, DISPLACED), (times * 24, times * 16));
        assert_eq!(copied(PAST_L1, times, 0, ALIGNED), (times * 16, times * 16));
        assert_eq!(copied(PAST_L1, times, 0, TURNED), (times * 16, times * 16));
    }
}

/// The same rule where copies begin now at the first half of a sector and now at the second, and where lanes read nothing.
#[test]
fn what_copies_past_l1_fetch_follows_where_they_go_and_what_they_read() {
    assert_eq!(copied(PAST_L1, 6, 16, DISPLACED), (6 * 24, 6 * 16));
    assert_eq!(copied(PAST_L1, 6, 16, ALIGNED), (3 * 16 + 3 * 32, 6 * 16));
    assert_eq!(copied(PAST_L1, 6, 32, ALIGNED), (6 * 16, 6 * 16));
    let half = format!("{PAST_L1}, %half");
    assert_eq!(copied(&half, 3, 0, DISPLACED), (3 * 16, 3 * 8));
}

/// Nothing is known of copies through L1 but the sectors that they touch.
#[test]
fn copies_through_l1_count_what_they_touch() {
    let copy = PAST_L1.replace(".cg", ".ca");
    assert_eq!(copied(&copy, 3, 0, DISPLACED), (3 * 16, 3 * 16));
}
