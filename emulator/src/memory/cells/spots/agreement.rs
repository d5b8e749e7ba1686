//! What vectors do with the places of a warp is what loops do.

use super::*;
use crate::random::Random;

const LEN: usize = 4096;

/// Addresses of all kinds of layouts, some of them out of place.
fn addresses(random: &mut Random, bytes: u64, base: u64) -> Lanes<u64> {
    let kind = random.below(6);
    let start = base + bytes * random.below(100) as u64;
    Lanes(std::array::from_fn(|lane| match kind {
        0 => start,
        1 => start + lane as u64 * bytes,
        2 => start + lane as u64 * 2 * bytes,
        3 if random.below(2) == 0 => start + (lane as u64 / 2 * 5 + lane as u64 % 2) * bytes,
        3 if random.below(40) == 0 => start + 1,
        4 if random.below(40) == 0 => base + LEN as u64 - bytes * random.below(2) as u64,
        _ => base + bytes * random.below(LEN / bytes as usize) as u64,
    }))
}

fn vectors_do_as_loops<const BYTES: usize, const WORDS: usize>() {
    let mut random = Random::new(BYTES as u64, 3);
    let cells = Cells::zeroed(LEN).unwrap();
    let mut placed = 0;
    for round in 0..400 {
        let base = 64 * BYTES as u64;
        let at = addresses(&mut random, BYTES as u64, base);
        let mask = if round % 3 == 0 { random.next() as u32 | 1 } else { ALL };
        let (mut room, mut form) = (Room::new(), Form::none());
        let mut offsets = MaybeUninit::uninit();
        let limits = (base, (LEN - BYTES) as u64);
        let shape = place_slowly(&at, mask, limits, BYTES as u64, &mut offsets);
        let placed_now = room.place::<BYTES>(&at, mask, base, LEN as u64);
        assert_eq!(placed_now.is_some(), shape.is_some());
        // The same, by its form.
        let first = at.0[mask.trailing_zeros() as usize];
        form.set(&at, mask, BYTES as u64);
        assert!(form.fits(&at, first) && form.spots::<BYTES>(first, base, LEN as u64).is_none());
        form.study();
        let known = form.spots::<BYTES>(first, base, LEN as u64);
        assert_eq!(known.is_some(), shape.is_some());
        let (Some(shape), Some(spots)) = (shape, placed_now) else { continue };
        placed += 1;
        // Some lanes at one place need not be recognised.
        assert!(spots.shape == shape || mask != ALL && shape == Shape::Same);
        let spots = if round % 2 == 0 { spots } else { known.expect("it is as the other") };
        let in_pairs = at.0.as_chunks().0.iter().all(|[a, b]| a + BYTES as u64 == *b);
        let pairs = shape == Shape::Any && in_pairs && spots.shape == Shape::Pairs;
        assert!(spots.shape == shape || pairs || mask != ALL);
        let places = cells.at(spots);
        let given = Lanes(std::array::from_fn(|lane| at.0[lane].wrapping_sub(base)));
        let offset = |lane: usize| places.offsets()[lane].wrapping_add(spots.start);
        assert!(lanes(mask).all(|lane| offset(lane) == given.0[lane]));
        let ends = || (0..LANES).map(|lane| offset(lane) as usize);
        let span = ends().min().zip(ends().max().map(|last| last + BYTES));
        assert!(spots.span() == span || spots.facts.is_none() && spots.span().is_none());
        let before = |lane: usize| lanes(mask & !(ALL << lane));
        let distinct = |lane: usize| before(lane).all(|other| given.0[other] != given.0[lane]);
        assert!(!spots.are_apart(mask) || lanes(mask).all(distinct));
        // What a form knows of lanes, it knows exactly.
        assert!(spots.facts.is_none_or(|facts| facts.apart == lanes(mask).all(distinct)));

        let words = [(); WORDS].map(|()| Lanes([(); LANES].map(|()| random.next() as u32)));
        places.store(mask, words.each_ref());
        let mut expected = vec![0; LEN];
        cells.read(0, &mut expected);
        for lane in lanes(mask) {
            let bytes = words.each_ref().map(|word| word.0[lane].to_le_bytes());
            let offset = given.0[lane] as usize;
            expected[offset..offset + BYTES].copy_from_slice(&bytes.as_flattened()[..BYTES]);
        }
        let whole = |lane: usize| {
            let later =
                (lane + 1..LANES).any(|l| mask >> l & 1 != 0 && given.0[l] == given.0[lane]);
            mask >> lane & 1 != 0 && !later
        };
        for lane in (0..LANES).filter(|&lane| whole(lane)) {
            let stored: [u32; WORDS] = places.load_lane(lane);
            let keep = if BYTES < 4 { (1 << (8 * BYTES % 32)) - 1 } else { u32::MAX };
            assert_eq!(stored, words.each_ref().map(|word| word.0[lane] & keep));
        }
        let mut loaded = [Lanes([0; LANES]); WORDS];
        places.load(loaded.each_mut().map(cell::Cell::from_mut));
        for lane in 0..LANES {
            assert_eq!(loaded.each_ref().map(|word| word.0[lane]), places.load_lane(lane));
        }
        places.fill(mask, 5);
        assert_eq!(places.equal(7, 5) & mask, mask);
        assert_eq!(places.equal(6, 4), places.equal_lanes(6, 4));
        cells.store(given.0[mask.trailing_zeros() as usize] as usize / 8 * 8, 0_u64);
        assert_eq!(places.equal(2, 0), places.equal_lanes(2, 0));
    }
    assert!(placed > 100, "{placed}");
}

#[test]
fn vectors_of_every_size_do_as_loops() {
    vectors_do_as_loops::<1, 1>();
    vectors_do_as_loops::<2, 1>();
    vectors_do_as_loops::<4, 1>();
    vectors_do_as_loops::<8, 2>();
    vectors_do_as_loops::<16, 4>();
    vectors_do_as_loops::<32, 8>();
}

#[test]
fn rows_come_and_go_as_they_lie() {
    let mut random = Random::new(1, 4);
    let (from, to) = (Cells::zeroed(LEN).unwrap(), Cells::zeroed(LEN).unwrap());
    (0..LEN / 8).for_each(|at| from.store(8 * at, random.next()));
    let at = Lanes(std::array::from_fn(|lane| 16 * (lane as u64 * 37 % 64)));
    let mut room = Room::new();
    let spots = room.place::<16>(&at, ALL, 0, LEN as u64).unwrap();
    let mut rows = [[0; 4]; LANES];
    from.at(spots).load_rows::<4, LANES>(0, &mut rows);
    let mut registers = [Lanes([0; LANES]); 4];
    from.at(spots).load_matrices(registers.each_mut().map(cell::Cell::from_mut));
    assert_eq!(rows.as_flattened(), registers.map(|register| register.0).as_flattened());
    for mask in [ALL, 0x0f0f_f00d] {
        to.at(spots).store_rows::<4>(mask, &rows);
        for lane in lanes(mask) {
            assert_eq!(to.at(spots).load_lane::<4>(lane), from.at(spots).load_lane::<4>(lane));
        }
    }
}

#[test]
fn forms_are_told_apart() {
    let mut random = Random::new(2, 4);
    for round in 0..300 {
        let mask = if round % 2 == 0 { ALL } else { random.next() as u32 | 1 << 31 };
        let at: [u64; LANES] = std::array::from_fn(|_| 4 * random.below(1 << 20) as u64);
        let (mut form, first) = (Form::none(), at[mask.trailing_zeros() as usize]);
        form.set(&Lanes(at), mask, 4);
        form.study();
        let moved = |by: u64| Lanes(at.map(|at| at.wrapping_add(by)));
        let narrow = |by: u32| Lanes(at.map(|at| (at as u32).wrapping_sub(by)));
        // From any register that holds them less a constant.
        let fits = |numbers: &Lanes<u64>| form.fits(numbers, form.first_of(numbers));
        let fits_narrow = |numbers: &Lanes<u32>| form.fits(numbers, form.first_of(numbers));
        assert!(fits(&moved(1 << 40)) && fits_narrow(&narrow(77)));
        let lane = random.below(LANES);
        let (mut other, mut narrow) = (moved(0), narrow(0));
        other.0[lane] = other.0[lane].wrapping_add(1 << 33);
        narrow.0[lane] ^= 8;
        let counts = mask >> lane & 1 != 0;
        assert!(fits(&other) != counts && fits_narrow(&narrow) != counts);
        // One byte less on either side does not do.
        let low = lanes(mask).map(|lane| at[lane]).min().unwrap();
        let high = lanes(mask).map(|lane| at[lane]).max().unwrap();
        let len = high + 4 - low;
        assert!(form.spots::<4>(first, low, len).is_some());
        assert!(form.spots::<4>(first, low + 4, len).is_none());
        assert!(form.spots::<4>(first, low, len - 1).is_none());
        assert!(form.spots::<4>(first + 1, low, len + 1).is_none());
        assert!(form.spots::<8>(first, low, len + 8).is_none());
    }
}
