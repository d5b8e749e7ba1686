//! Whether places are apart.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use super::vectors;
use crate::exec::lanes::{LANES, Lanes, Mask};
use crate::exec::wide::{self, Routine};

/// Whether no two lanes of a mask share any of the `1 << shift` bytes at each of these offsets, multiples of that; may say no where
/// they do not.
#[inline(always)]
pub(super) fn are_apart(offsets: &Lanes<u64>, mask: Mask, shift: u32) -> bool {
    increase(offsets) || wide::call(Distinct { offsets, mask, shift })
}

/// Whether the places of the lanes of a mask are different, multiples of a power of two; may say no where they lie more than 128
/// of these from the first.
struct Distinct<'a> {
    offsets: &'a Lanes<u64>,
    mask: Mask,
    shift: u32,
}

impl Routine for Distinct<'_> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Distinct { offsets: Lanes(offsets), mask, shift } = self;
        let first = (offsets[mask.trailing_zeros() as usize % LANES] >> shift).wrapping_sub(128);
        let mut taken = [0_u64; 4];
        for lane in 0..LANES {
            let place = (offsets[lane] >> shift).wrapping_sub(first);
            let one = u64::from(mask >> lane & 1);
            for part in 0..4 {
                let bit = place.wrapping_sub(64 * part as u64);
                taken[part] |= if bit < 64 { one << bit } else { 0 };
            }
        }
        taken.iter().map(|part| part.count_ones()).sum::<u32>() == mask.count_ones()
    }
}

/// Whether each offset is larger than the one before, row by row of four or column by column.
#[inline(always)]
fn increase(Lanes(offsets): &Lanes<u64>) -> bool {
    with_vectors! {
        // SAFETY: AVX2 is there.
        return unsafe { vectors::increase(offsets) || vectors::increase_by_columns(offsets) };
    }
    let lane = |at: usize| at % 8 * 4 + at / 8;
    let by_columns = || (1..LANES).all(|at| offsets[lane(at - 1)] < offsets[lane(at)]);
    offsets.is_sorted_by(|a, b| a < b) || by_columns()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lanes::{ALL, lanes};
    use crate::memory::cells::spots::Room;

    #[test]
    fn lanes_in_any_order_are_apart() {
        let mut random = crate::random::Random::new(7, 7);
        let mut apart = 0;
        for round in 0..400 {
            let mut places: Vec<u64> = (0..150).collect();
            random.shuffle(&mut places);
            let mut at = Lanes(std::array::from_fn(|lane| 4096 + 8 * places[lane]));
            if round % 3 != 0 {
                at.0[random.below(LANES)] = at.0[random.below(LANES)];
            }
            let mask = if round % 2 == 0 { ALL } else { random.next() as Mask | 1 };
            let mut room = Room::new();
            let spots = room.place::<8>(&at, mask, 0, 1 << 16).unwrap();
            let mut all: Vec<_> = lanes(mask).map(|lane| at.0[lane]).collect();
            all.sort_unstable();
            let differ = all.is_sorted_by(|a, b| a < b);
            let far = all[all.len() - 1] - all[0] >= 128 * 8;
            assert!(spots.are_apart(mask) == differ || differ && far);
            apart += usize::from(spots.are_apart(mask));
        }
        assert!((100..300).contains(&apart), "{apart}");
    }

    #[test]
    fn offsets_that_increase_by_rows_or_columns() {
        let at = |f: fn(u64) -> u64| increase(&Lanes(std::array::from_fn(|lane| f(lane as u64))));
        assert!(at(|lane| 512 * (lane / 4) + 8 * (lane % 4)));
        assert!(at(|lane| 512 * (lane % 4) + 8 * (lane / 4)));
        assert!(!at(|lane| 56 * (lane % 4) + 8 * (lane / 4)));
        assert!(!at(|lane| if lane == 9 { 512 + 8 } else { 512 * (lane % 4) + 8 * (lane / 4) }));
        assert!(!at(|lane| 512 * (lane / 8) + 8 * (lane % 4)));
    }
}
