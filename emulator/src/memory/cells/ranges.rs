//! Ranges of bytes, compared many at a time.

use super::Cells;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use super::vectors;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use crate::exec::wide;
use crate::memory::region::spread;

impl Cells {
    /// Whether every byte of a range equals `want` in the bits of `of`.
    pub(crate) fn equal(&self, offset: usize, len: usize, of: u8, want: u8) -> bool {
        assert!(offset <= self.len && len <= self.len - offset, "a range outside of the cells");
        let (mut at, end, mut differs) = (offset, offset + len, 0);
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        if wide::is_available() {
            let whole = len / 32 * 32;
            // SAFETY: AVX2 is there, and the range inside the allocation (C1).
            differs |= unsafe { differing(self.start.as_ptr(), at as u64, whole as u64, want) };
            at += whole;
        }
        while at < end {
            if at.is_multiple_of(8) && end - at >= 8 {
                differs |= self.load::<u64>(at) ^ spread(want);
                at += 8;
            } else {
                differs |= u64::from(self.load::<u8>(at) ^ want);
                at += 1;
            }
        }
        differs & spread(of) == 0
    }
}

/// The bits in which any eight of `len` bytes, a multiple of 32, differ from those with `want` in each.
///
/// # Safety
/// V1 of [`vectors`], for `len` bytes.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[target_feature(enable = "avx2")]
unsafe fn differing(base: *const u8, offset: u64, len: u64, want: u8) -> u64 {
    use std::arch::x86_64 as host;

    let wanted = vectors::splat(want);
    let mut sum = host::_mm256_setzero_si256();
    let mut add = |at: u64| {
        // SAFETY: the caller's promise.
        let differs = host::_mm256_xor_si256(unsafe { vectors::load(base, offset + at) }, wanted);
        sum = host::_mm256_or_si256(sum, differs);
    };
    let most = len / 128 * 128;
    for at in (0..most).step_by(128) {
        add(at);
        add(at + 32);
        add(at + 64);
        add(at + 96);
    }
    (most..len).step_by(32).for_each(add);
    let mut parts = [0_u64; 4];
    // SAFETY: the array has the 32 bytes that are stored.
    unsafe { host::_mm256_storeu_si256(parts.as_mut_ptr().cast(), sum) };
    parts.iter().fold(0, |all, part| all | part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_any_offset_and_length_are_compared() {
        let cells = Cells::zeroed(160).unwrap();
        cells.update(0, 160, |w| w | 0x0505_0505_0505_0505);
        for (offset, len) in [(0, 160), (3, 100), (33, 9), (40, 0), (64, 64), (100, 60)] {
            assert!(cells.equal(offset, len, 5, 5) && cells.equal(offset, len, 6, 4));
            assert!(!cells.equal(offset, len, 7, 4) || len == 0);
            for at in [offset, offset + len / 2, offset + len - usize::from(len > 0)] {
                cells.store(at, 1_u8);
                assert!(cells.equal(offset, len, 3, 1));
                assert!(cells.equal(offset, len, 4, 4) == (len == 0));
                cells.store(at, 5_u8);
            }
        }
    }
}
