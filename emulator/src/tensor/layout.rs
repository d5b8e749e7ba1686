//! Which matrix element each lane's registers hold, for the `mma` shapes of 8 or 16 rows.
//!
//! PTX ISA 9.0, "Matrix Fragments for mma.m16n8k…": with g = lane / 4 and t = lane % 4 and P elements to
//! a 32-bit register, all shapes follow one rule.

/// Row and column.
pub type Place = (usize, usize);

/// Element `element` (in register order) of lane `lane`'s fragment of A, `bits` an element.
/// A has `rows` 8 or 16; for 16, registers alternate between the upper and the lower 8 rows.
pub const fn a(lane: usize, element: usize, bits: u32, rows: usize) -> Place {
    let packed = packed(bits);
    let (register, within) = (element / packed, element % packed);
    let halves = rows / 8;
    let row = lane / 4 + 8 * (register % halves);
    let column = packed * (lane % 4) + within + 4 * packed * (register / halves);
    (row, column)
}

/// Element `element` of lane `lane`'s fragment of B, (k, n).
pub const fn b(lane: usize, element: usize, bits: u32) -> Place {
    let packed = packed(bits);
    let (register, within) = (element / packed, element % packed);
    (packed * (lane % 4) + within + 4 * packed * register, lane / 4)
}

/// Element `element` of lane `lane`'s fragment of C and D: pairs of neighbouring columns, the second pair 8 rows down.
pub const fn c(lane: usize, element: usize) -> Place {
    (lane / 4 + 8 * (element / 2), 2 * (lane % 4) + element % 2)
}

/// Elements of a 32-bit register; 64-bit elements have a register each.
const fn packed(bits: u32) -> usize {
    if bits >= 32 { 1 } else { (32 / bits) as usize }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_element_of_a_matrix_has_one_place() {
        // (bits, rows of A, k)
        for (bits, rows, k) in [
            (16, 16, 8),
            (16, 16, 16),
            (32, 16, 4),
            (32, 16, 8),
            (8, 16, 16),
            (8, 16, 32),
            (8, 8, 16),
            (64, 8, 4),
            (64, 16, 16),
        ] {
            let lanes = || 0..32;
            let a_places: HashSet<_> = lanes()
                .flat_map(|lane| (0..rows * k / 32).map(move |e| a(lane, e, bits, rows)))
                .collect();
            assert_eq!(a_places.len(), rows * k);
            assert!(a_places.iter().all(|&(row, column)| row < rows && column < k));
            let b_places: HashSet<_> =
                lanes().flat_map(|lane| (0..8 * k / 32).map(move |e| b(lane, e, bits))).collect();
            assert_eq!(b_places.len(), 8 * k);
            assert!(b_places.iter().all(|&(row, column)| row < k && column < 8));
            let c_places: HashSet<_> =
                lanes().flat_map(|lane| (0..rows * 8 / 32).map(move |e| c(lane, e))).collect();
            assert_eq!(c_places.len(), rows * 8);
        }
    }

    #[test]
    fn places_are_those_of_the_isa() {
        // m16n8k16, 16 bit: a4, a5 are row g, columns 8 + 2t, 8 + 2t + 1 (lane 6: g = 1, t = 2).
        assert_eq!((a(6, 4, 16, 16), a(6, 5, 16, 16)), ((1, 12), (1, 13)));
        assert_eq!((a(6, 2, 16, 16), a(6, 7, 16, 16)), ((9, 4), (9, 13)));
        assert_eq!((b(6, 0, 16), b(6, 3, 16)), ((4, 1), (13, 1)));
        // m16n8k32, 8 bit: a4..a7 are row g + 8, columns 4t..4t + 3; b4 is row 4t + 16.
        assert_eq!((a(6, 5, 8, 16), a(6, 8, 8, 16)), ((9, 9), (1, 24)));
        assert_eq!(b(6, 4, 8), (24, 1));
        // m16n8k8, tf32: a1 is row g + 8, a2 column t + 4.
        assert_eq!((a(6, 1, 32, 16), a(6, 2, 32, 16)), ((9, 2), (1, 6)));
        assert_eq!((c(6, 1), c(6, 2)), ((1, 5), (9, 4)));
    }
}
