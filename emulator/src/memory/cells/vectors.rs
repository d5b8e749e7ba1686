//! What several lanes load or store, by the vector instructions of x86-64.
//!
//! Rust has no atomic accesses of more than eight bytes, so these are written in assembly, of which the compiler knows
//! that it reads or writes memory and no more. Each of them stands for relaxed atomic accesses to the bytes that it
//! names, one by one: that is how the processor's memory model treats a vector access, whatever other threads do to the
//! same bytes meanwhile. Moreover, the processor carries out every aligned half of sixteen bytes in one piece, as the
//! accesses of eight bytes do that these replace.
//!
//! All of them ask of the caller (V1) that the processor has AVX2, and that `base + offset`, wrapping, points to as many valid bytes
//! as are named, which are reached through atomics, and through this module, alone.

use std::arch::asm;
use std::arch::x86_64::{self as host, __m256i};
use std::cell::Cell;
use std::mem::MaybeUninit;

use super::spots::Shape;
use crate::exec::lanes::{ALL, LANES, Lanes, Mask};

/// Offsets of eight lanes.
pub(super) type Eight = [u64; 8];

/// Puts a vector into one of a register's eights of lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn put(vector: __m256i, register: &Cell<Lanes<u32>>, eight: usize) {
    let words: *mut [u32; 8] = register.as_ptr().cast();
    // SAFETY: a register has four times the 32 bytes that are stored, and nobody refers to what is in a cell.
    unsafe { host::_mm256_storeu_si256(words.add(eight % (LANES / 8)).cast(), vector) };
}

/// The inverse of [`put`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn take(register: &Lanes<u32>, first: usize) -> __m256i {
    let words: &[u32; 8] = &register.0.as_chunks().0[first / 8 % (LANES / 8)];
    // SAFETY: the array has the 32 bytes that are loaded.
    unsafe { host::_mm256_loadu_si256(words.as_ptr().cast()) }
}

/// As `place_slowly`.
#[inline(never)]
#[target_feature(enable = "avx2")]
pub(super) fn place(
    Lanes(addresses): &Lanes<u64>,
    mask: Mask,
    (base, last): (u64, u64),
    bytes: u64,
    offsets: &mut MaybeUninit<Lanes<u64>>,
) -> Option<Shape> {
    let splat = |value: u64| host::_mm256_set1_epi64x(value.cast_signed());
    // SAFETY: the array has the 32 bytes of four lanes.
    let load = |four: &[u64; 4]| unsafe { host::_mm256_loadu_si256(four.as_ptr().cast()) };
    let (or, xor) = (|a, b| host::_mm256_or_si256(a, b), |a, b| host::_mm256_xor_si256(a, b));
    let (addresses, _) = addresses.as_chunks::<4>();
    let first =
        addresses[mask.trailing_zeros() as usize % LANES / 4][mask.trailing_zeros() as usize % 4];
    let target: *mut __m256i = offsets.as_mut_ptr().cast();
    let fits = |offset: u64| offset <= last && (offset | base) & (bytes - 1) == 0;
    let start = first.wrapping_sub(base);
    // All at one place: one lane alone, or what many kernels load for all of them.
    let alone = mask & mask.wrapping_sub(1) == 0;
    if alone || mask == ALL && addresses[7][3] == first {
        let mut differs = host::_mm256_setzero_si256();
        if !alone {
            for four in addresses {
                differs = or(differs, xor(load(four), splat(first)));
            }
        }
        if host::_mm256_testz_si256(differs, differs) != 0 {
            for index in 0..LANES / 4 {
                // SAFETY: the target has eight vectors, one for four lanes each.
                unsafe { host::_mm256_storeu_si256(target.add(index), splat(start)) };
            }
            return fits(start).then_some(Shape::Same);
        }
    }
    // Offsets and `last` are below 2⁶³, so that the top bit of a difference tells which one is larger.
    let (mut bits, mut beyond) = (splat(0), splat(0));
    // What a straight row has. That it is one shows where nothing differs from it.
    let (mut straight, mut differs) = (
        host::_mm256_add_epi64(
            splat(start),
            host::_mm256_setr_epi64x(
                0,
                bytes.cast_signed(),
                2 * bytes.cast_signed(),
                3 * bytes.cast_signed(),
            ),
        ),
        splat(0),
    );
    for index in 0..LANES / 4 {
        let mut address = load(&addresses[index]);
        if mask != ALL {
            // The bit of each lane comes to the top.
            let above = 63 - 4 * index as i64;
            let shifts = host::_mm256_setr_epi64x(above, above - 1, above - 2, above - 3);
            let taken =
                host::_mm256_castsi256_pd(host::_mm256_sllv_epi64(splat(mask.into()), shifts));
            let (address_too, first) =
                (host::_mm256_castsi256_pd(address), host::_mm256_castsi256_pd(splat(first)));
            address = host::_mm256_castpd_si256(host::_mm256_blendv_pd(first, address_too, taken));
        }
        let offset = host::_mm256_sub_epi64(address, splat(base));
        // SAFETY: the target has eight vectors, one for four lanes each.
        unsafe { host::_mm256_storeu_si256(target.add(index), offset) };
        bits = or(bits, offset);
        beyond = or(beyond, host::_mm256_sub_epi64(splat(last), offset));
        differs = or(differs, xor(offset, straight));
        straight = host::_mm256_add_epi64(straight, splat(4 * bytes));
    }
    let top = host::_mm256_and_si256(or(bits, beyond), splat(1 << 63));
    let low = host::_mm256_and_si256(or(bits, splat(base)), splat(bytes - 1));
    let bad = or(top, low);
    if last >> 63 != 0 || host::_mm256_testz_si256(bad, bad) == 0 {
        return None;
    }
    let is_straight = host::_mm256_testz_si256(differs, differs) != 0 && start.is_multiple_of(8);
    Some(if is_straight { Shape::Straight } else { Shape::Any })
}

/// Whether each offset, all below 2⁶³, is larger than the one before.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn increase(offsets: &[u64; LANES]) -> bool {
    let mut all = host::_mm256_set1_epi64x(-1);
    // Four lanes and those behind them.
    for first in [0, 4, 8, 12, 16, 20, 24, 27] {
        let five: &[u64; 5] =
            offsets[first..].first_chunk().expect("there are five lanes from there on");
        // SAFETY: the array has 40 bytes, of which the first and the last 32 are loaded.
        let [low, high] = unsafe {
            [
                host::_mm256_loadu_si256(five.as_ptr().cast()),
                host::_mm256_loadu_si256(five.as_ptr().add(1).cast()),
            ]
        };
        all = host::_mm256_and_si256(all, host::_mm256_cmpgt_epi64(high, low));
    }
    host::_mm256_movemask_epi8(all) == -1
}

/// Whether each offset, all below 2⁶³, is larger than the one before, column by column of four in a row: the accumulators of
/// a matrix product are stored like that.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn increase_by_columns(offsets: &[u64; LANES]) -> bool {
    let rows = offsets.as_chunks::<4>().0;
    // SAFETY: an array of 32 bytes is loaded.
    let load = |row: &[u64; 4]| unsafe { host::_mm256_loadu_si256(row.as_ptr().cast()) };
    // Behind the last of each column comes the first of the next, and behind the very last anything.
    let next = [offsets[1], offsets[2], offsets[3], i64::MAX as u64];
    let mut all = host::_mm256_cmpgt_epi64(load(&next), load(&rows[7]));
    for pair in rows.windows(2) {
        all = host::_mm256_and_si256(all, host::_mm256_cmpgt_epi64(load(&pair[1]), load(&pair[0])));
    }
    host::_mm256_movemask_epi8(all) == -1
}

/// The same byte everywhere.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn splat(byte: u8) -> __m256i {
    host::_mm256_set1_epi8(byte.cast_signed())
}

/// 32 bytes, from a multiple of 8 on.
///
/// # Safety
/// V1, for 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load(base: *const u8, offset: u64) -> __m256i {
    let out;
    // SAFETY: V1. The instruction loads the 32 bytes there, and changes nothing but its result.
    unsafe {
        asm!("vmovdqu {out}, [{base} + {offset}]", out = out(ymm_reg) out, base = in(reg) base, offset = in(reg) offset,
            options(nostack, preserves_flags, readonly));
    }
    out
}

/// As [`load`].
///
/// # Safety
/// V1, for 32 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store(base: *mut u8, offset: u64, value: __m256i) {
    // SAFETY: V1. The instruction stores to the 32 bytes there, and changes nothing else.
    unsafe {
        asm!("vmovdqu [{base} + {offset}], {value}", value = in(ymm_reg) value, base = in(reg) base,
            offset = in(reg) offset, options(nostack, preserves_flags));
    }
}

/// 16 bytes.
///
/// # Safety
/// V1, for 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_row(base: *const u8, offset: u64) -> [u32; 4] {
    let out: host::__m128i;
    // SAFETY: V1. The instruction loads the 16 bytes there, and changes nothing but its result.
    unsafe {
        asm!("vmovdqu {out}, [{base} + {offset}]", out = out(xmm_reg) out, base = in(reg) base, offset = in(reg) offset,
            options(nostack, preserves_flags, readonly));
    }
    let mut row = [0; 4];
    // SAFETY: the array has the 16 bytes that are stored.
    unsafe { host::_mm_storeu_si128(row.as_mut_ptr().cast(), out) };
    row
}

/// As [`load_row`].
///
/// # Safety
/// V1, for 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store_row(base: *mut u8, offset: u64, row: &[u32; 4]) {
    // SAFETY: the array has the 16 bytes that are loaded.
    let value = unsafe { host::_mm_loadu_si128(row.as_ptr().cast()) };
    // SAFETY: V1. The instruction stores to the 16 bytes there, and changes nothing else.
    unsafe {
        asm!("vmovdqu [{base} + {offset}], {value}", value = in(xmm_reg) value, base = in(reg) base,
            offset = in(reg) offset, options(nostack, preserves_flags));
    }
}

/// Loads a row of 16 bytes of each lane.
///
/// # Safety
/// V1, for 16 bytes of each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_rows_apart<const N: usize>(
    base: *const u8,
    offsets: &[u64],
    rows: &mut [[u32; 4]; N],
) {
    for (row, &offset) in rows.iter_mut().zip(offsets) {
        // SAFETY: the caller's promise.
        *row = unsafe { load_row(base, offset) };
    }
}

/// As [`load_rows_apart`], two lanes at a time.
///
/// # Safety
/// V1, for 32 bytes of every second lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_row_pairs<const N: usize>(
    base: *const u8,
    offsets: &[u64],
    rows: &mut [[u32; 4]; N],
) {
    for (pair, &[offset, _]) in rows.as_chunks_mut::<2>().0.iter_mut().zip(offsets.as_chunks().0) {
        // SAFETY: the caller's promise; and a pair of rows has the 32 bytes that are stored.
        unsafe { host::_mm256_storeu_si256(pair.as_mut_ptr().cast(), load(base, offset)) };
    }
}

/// Stores a row of 16 bytes of each lane, in order.
///
/// # Safety
/// V1, for 16 bytes of each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store_rows(base: *mut u8, offsets: &[u64; LANES], rows: &[[u32; 4]; LANES]) {
    for (row, &offset) in rows.iter().zip(offsets) {
        // SAFETY: the caller's promise.
        unsafe { store_row(base, offset, row) };
    }
}

/// As [`store_rows`], two lanes at a time.
///
/// # Safety
/// V1, for 32 bytes of every second lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store_row_pairs(
    base: *mut u8,
    offsets: &[u64; LANES],
    rows: &[[u32; 4]; LANES],
) {
    for (pair, &[offset, _]) in rows.as_chunks::<2>().0.iter().zip(offsets.as_chunks().0) {
        // SAFETY: a pair of rows has the 32 bytes that are loaded; and the caller's promise.
        unsafe { store(base, offset, host::_mm256_loadu_si256(pair.as_ptr().cast())) };
    }
}

/// Sets 16 bytes of each lane.
///
/// # Safety
/// V1, for 16 bytes of each lane, and for 32 of every second one if they come in pairs.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn fill_rows(base: *mut u8, offsets: &[u64; LANES], pairs: bool, byte: u8) {
    if pairs {
        for &[offset, _] in offsets.as_chunks().0 {
            // SAFETY: the caller's promise.
            unsafe { store(base, offset, splat(byte)) };
        }
    } else {
        for &offset in offsets {
            // SAFETY: the caller's promise.
            unsafe { fill_row(base, offset, byte) };
        }
    }
}

/// Sets 16 bytes.
///
/// # Safety
/// V1, for 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn fill_row(base: *mut u8, offset: u64, byte: u8) {
    // SAFETY: V1. The instruction stores to the 16 bytes there, and changes nothing else.
    unsafe {
        asm!("vmovdqu [{base} + {offset}], {value}", value = in(xmm_reg) host::_mm_set1_epi8(byte.cast_signed()),
            base = in(reg) base, offset = in(reg) offset, options(nostack, preserves_flags));
    }
}

/// The bits in which any eight bytes of 32 lanes of `BYTES`, at least 4, differ from those with `want` in each.
///
/// # Safety
/// V1, for `BYTES` bytes of each lane, which lie in this shape.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn differing<const BYTES: usize>(
    base: *const u8,
    offsets: &[u64; LANES],
    shape: Shape,
    want: u8,
) -> u64 {
    let wanted = splat(want);
    let mut sum = host::_mm256_setzero_si256();
    // SAFETY: the caller's promise.
    unsafe {
        if shape == Shape::Straight {
            for step in 0..BYTES as u64 {
                sum = host::_mm256_or_si256(
                    sum,
                    host::_mm256_xor_si256(load(base, offsets[0].wrapping_add(32 * step)), wanted),
                );
            }
        } else if BYTES == 4 {
            for at in offsets.as_chunks().0 {
                sum = host::_mm256_or_si256(
                    sum,
                    host::_mm256_xor_si256(load_fours(base, at), wanted),
                );
            }
        } else if BYTES == 8 {
            for &at in offsets.as_chunks().0 {
                sum = host::_mm256_or_si256(
                    sum,
                    host::_mm256_xor_si256(load_eights(base, at), wanted),
                );
            }
        } else if shape == Shape::Pairs && BYTES == 16 {
            for &[offset, _] in offsets.as_chunks().0 {
                sum =
                    host::_mm256_or_si256(sum, host::_mm256_xor_si256(load(base, offset), wanted));
            }
        } else {
            for &offset in offsets {
                for part in (0..BYTES as u64).step_by(16) {
                    sum = differing_row(base, offset.wrapping_add(part), wanted, sum);
                }
            }
        }
    }
    let sum = host::_mm_or_si128(
        host::_mm256_castsi256_si128(sum),
        host::_mm256_extracti128_si256::<1>(sum),
    );
    (host::_mm_cvtsi128_si64(sum) | host::_mm_extract_epi64::<1>(sum)).cast_unsigned()
}

/// The bits in which 16 bytes differ from `want`, added to those of `sum`.
///
/// # Safety
/// V1, for 16 bytes.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn differing_row(base: *const u8, offset: u64, want: __m256i, sum: __m256i) -> __m256i {
    let mut sum = sum;
    // SAFETY: V1. The first instruction loads the 16 bytes there; nothing but the results changes.
    unsafe {
        asm!("vpxor {differs:x}, {want:x}, [{base} + {offset}]", "vpor {sum}, {sum}, {differs}",
            differs = out(ymm_reg) _, want = in(ymm_reg) want, sum = inout(ymm_reg) sum, base = in(reg) base,
            offset = in(reg) offset, options(nostack, preserves_flags, readonly));
    }
    sum
}

/// 16 bytes of one lane, and of another above these.
///
/// # Safety
/// V1, for 16 bytes of each.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_rows(base: *const u8, low: u64, high: u64) -> __m256i {
    let out;
    // SAFETY: V1. The instructions load the 16 bytes of each, and change nothing but the result.
    unsafe {
        asm!("vmovdqu {out:x}, [{base} + {low}]", "vinserti128 {out}, {out}, [{base} + {high}], 1",
            out = out(ymm_reg) out, base = in(reg) base, low = in(reg) low, high = in(reg) high,
            options(nostack, preserves_flags, readonly));
    }
    out
}

/// Four bytes of each of eight lanes.
///
/// # Safety
/// V1, for 4 bytes of each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_fours(base: *const u8, at: &Eight) -> __m256i {
    let (low, high): (host::__m128i, host::__m128i);
    // SAFETY: V1. The instructions load the 4 bytes of each, and change nothing but the results.
    unsafe {
        asm!("vmovd {out}, [{base} + {a}]", "vpinsrd {out}, {out}, [{base} + {b}], 1",
            "vpinsrd {out}, {out}, [{base} + {c}], 2", "vpinsrd {out}, {out}, [{base} + {d}], 3",
            out = out(xmm_reg) low, base = in(reg) base, a = in(reg) at[0], b = in(reg) at[1], c = in(reg) at[2],
            d = in(reg) at[3], options(nostack, preserves_flags, readonly));
        asm!("vmovd {out}, [{base} + {a}]", "vpinsrd {out}, {out}, [{base} + {b}], 1",
            "vpinsrd {out}, {out}, [{base} + {c}], 2", "vpinsrd {out}, {out}, [{base} + {d}], 3",
            out = out(xmm_reg) high, base = in(reg) base, a = in(reg) at[4], b = in(reg) at[5], c = in(reg) at[6],
            d = in(reg) at[7], options(nostack, preserves_flags, readonly));
    }
    host::_mm256_set_m128i(high, low)
}

/// Eight bytes of each of four lanes.
///
/// # Safety
/// V1, for 8 bytes of each.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_eights(base: *const u8, [a, b, c, d]: [u64; 4]) -> __m256i {
    let (low, high): (host::__m128i, host::__m128i);
    // SAFETY: V1. The instructions load the 8 bytes of each, and change nothing but the results.
    unsafe {
        asm!("vmovq {low}, [{base} + {a}]", "vmovhps {low}, {low}, [{base} + {b}]", "vmovq {high}, [{base} + {c}]",
            "vmovhps {high}, {high}, [{base} + {d}]", low = out(xmm_reg) low, high = out(xmm_reg) high, base = in(reg) base,
            a = in(reg) a, b = in(reg) b, c = in(reg) c, d = in(reg) d, options(nostack, preserves_flags, readonly));
    }
    host::_mm256_set_m128i(high, low)
}

/// The first and second words of eight lanes with eight bytes each.
///
/// # Safety
/// V1, for 8 bytes of each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_two_columns(base: *const u8, at: &Eight) -> [__m256i; 2] {
    // Of lanes 0, 1, 4, 5 and of lanes 2, 3, 6, 7.
    // SAFETY: the caller's promise.
    let (left, right) = unsafe {
        (
            load_eights(base, [at[0], at[1], at[4], at[5]]),
            load_eights(base, [at[2], at[3], at[6], at[7]]),
        )
    };
    let (left, right) = (host::_mm256_castsi256_ps(left), host::_mm256_castsi256_ps(right));
    [
        host::_mm256_castps_si256(host::_mm256_shuffle_ps::<0b10_00_10_00>(left, right)),
        host::_mm256_castps_si256(host::_mm256_shuffle_ps::<0b11_01_11_01>(left, right)),
    ]
}

/// The words of eight lanes with 16 bytes each.
///
/// # Safety
/// V1, for 16 bytes of each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_four_columns(base: *const u8, at: &Eight) -> [__m256i; 4] {
    // SAFETY: the caller's promise.
    let [a, b, c, d] = unsafe {
        [
            load_rows(base, at[0], at[4]),
            load_rows(base, at[1], at[5]),
            load_rows(base, at[2], at[6]),
            load_rows(base, at[3], at[7]),
        ]
    };
    turned([a, b, c, d])
}

/// The columns of four rows in the lower halves of vectors, and of four in the upper ones.
#[inline]
#[target_feature(enable = "avx2")]
fn turned([a, b, c, d]: [__m256i; 4]) -> [__m256i; 4] {
    let (low, high) = (host::_mm256_unpacklo_epi32(a, b), host::_mm256_unpackhi_epi32(a, b));
    let (low_too, high_too) =
        (host::_mm256_unpacklo_epi32(c, d), host::_mm256_unpackhi_epi32(c, d));
    [
        host::_mm256_unpacklo_epi64(low, low_too),
        host::_mm256_unpackhi_epi64(low, low_too),
        host::_mm256_unpacklo_epi64(high, high_too),
        host::_mm256_unpackhi_epi64(high, high_too),
    ]
}

/// Loads 4 bytes of each lane into a register.
///
/// # Safety
/// V1, for 4 bytes of each lane; and for 32 times as many from the first offset on if they are straight.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_words(
    base: *const u8,
    offsets: &[u64; LANES],
    straight: bool,
    out: &Cell<Lanes<u32>>,
) {
    for (index, eight) in offsets.as_chunks().0.iter().enumerate() {
        // SAFETY: the caller's promise.
        let words = unsafe {
            if straight {
                load(base, offsets[0].wrapping_add(32 * index as u64))
            } else {
                load_fours(base, eight)
            }
        };
        put(words, out, index);
    }
}

/// As [`load_words`], 8 bytes of each lane into two registers.
///
/// # Safety
/// V1, for 8 bytes of each lane.
#[inline(never)]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_pairs(
    base: *const u8,
    offsets: &[u64; LANES],
    out: [&Cell<Lanes<u32>>; 2],
) {
    for (index, eight) in offsets.as_chunks().0.iter().enumerate() {
        // SAFETY: the caller's promise.
        let columns = unsafe { load_two_columns(base, eight) };
        for word in 0..2 {
            put(columns[word], out[word], index);
        }
    }
}

/// As [`load_words`], 16 bytes of each lane into four registers.
///
/// # Safety
/// V1, for 16 bytes of each lane.
#[inline(never)]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_quads(
    base: *const u8,
    offsets: &[u64; LANES],
    out: [&Cell<Lanes<u32>>; 4],
) {
    for (index, eight) in offsets.as_chunks().0.iter().enumerate() {
        // SAFETY: the caller's promise.
        let columns = unsafe { load_four_columns(base, eight) };
        for word in 0..4 {
            put(columns[word], out[word], index);
        }
    }
}

/// As [`load_quads`], eight lanes' bytes into each register as they are.
///
/// # Safety
/// V1, for 16 bytes of each lane.
#[inline(never)]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn load_matrices(
    base: *const u8,
    offsets: &[u64; LANES],
    out: [&Cell<Lanes<u32>>; 4],
) {
    for (index, &[low, high]) in offsets.as_chunks().0.iter().enumerate() {
        // SAFETY: the caller's promise.
        put(unsafe { load_rows(base, low, high) }, out[index / 4], index % 4);
    }
}

/// Stores the words of eight lanes, 16 bytes each, in the order of the lanes.
///
/// # Safety
/// V1, for 16 bytes of each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store_four_columns(base: *mut u8, at: &Eight, columns: [__m256i; 4]) {
    let rows = turned(columns);
    for index in 0..4 {
        // SAFETY: V1. The instruction stores to the 16 bytes there, and changes nothing else.
        unsafe {
            asm!("vmovdqu [{base} + {offset}], {row:x}", row = in(ymm_reg) rows[index], base = in(reg) base,
                offset = in(reg) at[index], options(nostack, preserves_flags));
        }
    }
    for index in 0..4 {
        // SAFETY: as before.
        unsafe {
            asm!("vextracti128 [{base} + {offset}], {row}, 1", row = in(ymm_reg) rows[index], base = in(reg) base,
                offset = in(reg) at[4 + index], options(nostack, preserves_flags));
        }
    }
}

/// Stores the words of eight lanes, 8 bytes each, in the order of the lanes.
///
/// # Safety
/// V1, for 8 bytes of each lane.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) unsafe fn store_two_columns(base: *mut u8, at: &Eight, [first, second]: [__m256i; 2]) {
    let (left, right) =
        (host::_mm256_unpacklo_epi32(first, second), host::_mm256_unpackhi_epi32(first, second));
    let pairs = [
        host::_mm256_castsi256_si128(left),
        host::_mm256_castsi256_si128(right),
        host::_mm256_extracti128_si256::<1>(left),
        host::_mm256_extracti128_si256::<1>(right),
    ];
    for index in 0..4 {
        // SAFETY: V1. The instructions store to the 8 bytes of two lanes, and change nothing else.
        unsafe {
            asm!("vmovq [{base} + {low}], {pair}", "vmovhps [{base} + {high}], {pair}", pair = in(xmm_reg) pairs[index],
                base = in(reg) base, low = in(reg) at[2 * index], high = in(reg) at[2 * index + 1],
                options(nostack, preserves_flags));
        }
    }
}
