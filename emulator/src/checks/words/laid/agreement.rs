//! Many words at a time against one by one.

use super::super::writer;
use super::*;
use crate::exec::lanes::{LANES, Lanes, lanes};
use crate::random::Random;

const WORDS: usize = 512;

fn layout(at: &Lanes<u64>, mask: Mask, bytes: u64) -> (Layout, usize) {
    let first = at.0[mask.trailing_zeros() as usize];
    let distances = Lanes(at.0.map(|at| at.wrapping_sub(first)));
    let all = || lanes(mask).map(|lane| distances.0[lane].cast_signed());
    let span = (all().min().unwrap(), all().max().unwrap());
    (Layout::new(&distances, mask, bytes, span).unwrap(), first as usize / 4)
}

/// Accesses of two warps, with synchronisation every now and then; gives how many were done at once.
fn run(seed: u64) -> usize {
    let mut random = Random::new(seed, 3);
    let mut order = Order::default();
    order.reset(0, [ALL, ALL].into_iter());
    let (mut one, mut other) = (Words::default(), Words::default());
    one.reset(WORDS, 2);
    other.reset(WORDS, 2);
    let mut at_once = 0;
    for _ in 0..60 {
        match random.below(8) {
            0 => order.sync_lanes(random.below(2) as u32, ALL),
            1 => {
                (0..2).for_each(|warp| order.meet(0, warp, ALL));
                order.completed(0, true);
                (0..2).for_each(|warp| order.leave(0, warp, ALL));
            }
            _ => {}
        }
        let bytes = [4, 8, 16][random.below(3)] as u64;
        let (start, stride) = (random.below(8) as u64 * 64, random.below(3) as u64);
        let group = 1 << random.below(6);
        let at = Lanes(std::array::from_fn(|lane| start + lane as u64 / group * bytes * stride));
        let mask = if random.below(4) == 0 { random.next() as u32 | 1 << 4 } else { ALL };
        let access = Access {
            warp: random.below(2) as u32,
            pc: random.below(9) as u32,
            writes: random.below(3) == 0,
            strong: false,
            atomic: false,
            whole: random.below(3) == 0,
        };
        let (layout, base) = layout(&at, mask, bytes);
        let place = (&Arc::new(layout), &mut Kept::default());
        let whole = lanes(mask).all(|lane| at.0[lane] as usize / 4 < WORDS - LANES);
        assert!(whole, "the test stays inside");
        let race = one.access(&order, access, &at, mask, bytes);
        if other.laid_out(&order, access, place, (base, ALL), How::Both) {
            assert_eq!(race, None, "seed {seed}");
            at_once += 1;
        } else {
            assert_eq!(other.access(&order, access, &at, mask, bytes), race, "seed {seed}");
        }
        if race.is_some() {
            break;
        }
    }
    at_once
}

#[test]
fn many_words_at_once_are_as_one_by_one() {
    let at_once: usize = (0..3000).map(run).sum();
    assert!(at_once > 3000, "{at_once}");
}

#[test]
fn a_part_of_the_lanes_writes_its_words_alone() {
    let mut order = Order::default();
    order.reset(0, [ALL].into_iter());
    let mut words = Words::default();
    words.reset(WORDS, 1);
    let at = Lanes(std::array::from_fn(|lane| 64 + 4 * lane as u64));
    let (layout, base) = layout(&at, ALL, 4);
    let access =
        Access { warp: 0, pc: 5, writes: true, strong: false, atomic: false, whole: false };
    let place = (&Arc::new(layout), &mut Kept::default());
    assert!(words.laid_out(&order, access, place, (base, 0b101), How::Both));
    words.settle_writes(18, 19);
    let written = |&word: &usize| words.writes.when[word].0 != 0;
    assert_eq!((0..WORDS).filter(written).collect::<Vec<_>>(), [16, 18]);
}

#[test]
fn writes_that_are_kept_get_into_the_records_in_order() {
    let mut random = Random::new(2, 5);
    let mut order = Order::default();
    order.reset(0, [ALL, ALL].into_iter());
    let mut words = Words::default();
    words.reset(WORDS, 2);
    let mut expected = [(Stamp::default(), 0); WORDS];
    let mut at = Lanes::default();
    let (mut place, mut base) = (Arc::new(layout(&at, 1, 4).0), 0);
    let mut kept = Kept::default();
    for step in 0..20_000 {
        if step % 3 == 0 {
            order.sync_lanes(random.below(2) as u32, ALL);
        }
        if random.below(9) == 0 {
            let (group, pitch) = (4 << random.below(3), 4 * random.below(30) as u64);
            at = Lanes(std::array::from_fn(|lane| {
                let lane = lane as u64;
                4 * (lane % group) + lane / group * (4 * group + pitch)
            }));
            (place, base) = (Arc::new(layout(&at, ALL, 4).0), 0);
            kept = Kept::default();
        }
        if random.below(3) == 0 {
            base = random.below(WORDS - place.span(0).1 + 1);
        }
        let mask = if random.below(4) == 0 { random.next() as Mask | 1 } else { ALL };
        let warp = random.below(2) as u32;
        let pc = step % 1000;
        let access = Access { warp, pc, writes: true, strong: false, atomic: false, whole: false };
        assert!(words.laid_out(&order, access, (&place, &mut kept), (base, mask), How::Record));
        let stamp = Stamp::new(order.clock(warp), 15, access);
        for lane in lanes(mask) {
            expected[base + at.0[lane] as usize / 4] = (stamp, writer(warp, lane, pc));
        }
        let start = random.below(WORDS - 16);
        match random.below(200) {
            0 => {
                words.landed(9, 4 * start..4 * start + 64, (3, pc), false);
                let copied = (Stamp(9 << 9 | 15 << 5 | COPIED), writer(0, 3, pc));
                expected[start..start + 16].fill(copied);
            }
            1 => {
                words.settle_writes(start, start + 16);
                let records = |word: usize| (words.writes.when[word], words.writes.who[word]);
                assert!((start..start + 16).all(|word| records(word) == expected[word]));
            }
            _ => {}
        }
    }
    words.settle_writes(0, WORDS);
    let records = words.writes.when.iter().copied().zip(words.writes.who.iter().copied());
    assert!(records.eq(expected));
}
