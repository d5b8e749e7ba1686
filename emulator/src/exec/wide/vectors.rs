//! What the compiler does not make of loops by itself: the parts of vectors moved about, and numbers of 16 bits converted.
//!
//! Every function asks for features that [`super::is_available`] has looked for.

#![allow(unsafe_code)]

use std::arch::x86_64::{self as host, __m128i, __m256, __m256i};

use crate::exec::lanes::{LANES, Lanes, NAN32};

/// Eight of 32 lanes, those from a multiple of 8 on.
#[inline]
#[target_feature(enable = "avx2")]
fn eight(lanes: &[u32; LANES], first: usize) -> __m256i {
    let eight: &[u32; 8] = &lanes.as_chunks().0[first / 8 % (LANES / 8)];
    // SAFETY: the array has the 32 bytes that are loaded.
    unsafe { host::_mm256_loadu_si256(eight.as_ptr().cast()) }
}

/// The inverse of [`eight`].
#[inline]
#[target_feature(enable = "avx2")]
fn set_eight(lanes: &mut [u32; LANES], first: usize, value: __m256i) {
    let eight: &mut [u32; 8] = &mut lanes.as_chunks_mut().0[first / 8 % (LANES / 8)];
    // SAFETY: the array has the 32 bytes that are stored.
    unsafe { host::_mm256_storeu_si256(eight.as_mut_ptr().cast(), value) };
}

/// As [`set_eight`].
#[inline]
#[target_feature(enable = "avx2")]
fn set_eight_singles(lanes: &mut [f32; LANES], first: usize, value: __m256) {
    let eight: &mut [f32; 8] = &mut lanes.as_chunks_mut().0[first / 8 % (LANES / 8)];
    // SAFETY: the array has the 32 bytes that are stored.
    unsafe { host::_mm256_storeu_ps(eight.as_mut_ptr(), value) };
}

/// The values of numbers in binary16, the lower halves of words; [`NAN32`] for a NaN.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn singles(halves: &[u32; LANES], singles: &mut [u32; LANES]) {
    for first in (0..LANES).step_by(16) {
        // In each half of the vector the words of one, then those of the other.
        let lower =
            |first| host::_mm256_and_si256(eight(halves, first), host::_mm256_set1_epi32(0xffff));
        let packed = host::_mm256_packus_epi32(lower(first), lower(first + 8));
        let packed = host::_mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
        let parts =
            [host::_mm256_castsi256_si128(packed), host::_mm256_extracti128_si256::<1>(packed)];
        for (index, part) in parts.into_iter().enumerate() {
            let value = host::_mm256_cvtph_ps(part);
            let nan = host::_mm256_castsi256_ps(host::_mm256_set1_epi32(NAN32.cast_signed()));
            let is_nan = host::_mm256_cmp_ps::<{ host::_CMP_UNORD_Q }>(value, value);
            let value = host::_mm256_castps_si256(host::_mm256_blendv_ps(value, nan, is_nan));
            set_eight(singles, first + 8 * index, value);
        }
    }
}

/// The values of the lanes that `sources`, numbers below 32, name.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn permuted(values: &[u32; LANES], sources: &[u32; LANES], out: &mut [u32; LANES]) {
    let from = [eight(values, 0), eight(values, 8), eight(values, 16), eight(values, 24)];
    for first in (0..LANES).step_by(8) {
        // What is taken from each eight, if the number's upper bits, brought to the top, say that it is in there.
        let number = eight(sources, first);
        let mut taken = [host::_mm256_setzero_ps(); 4];
        for index in 0..4 {
            let eight = host::_mm256_permutevar8x32_epi32(from[index], number);
            taken[index] = host::_mm256_castsi256_ps(eight);
        }
        let odd = host::_mm256_castsi256_ps(host::_mm256_slli_epi32::<28>(number));
        let upper = host::_mm256_castsi256_ps(host::_mm256_slli_epi32::<27>(number));
        let low = host::_mm256_blendv_ps(taken[0], taken[1], odd);
        let high = host::_mm256_blendv_ps(taken[2], taken[3], odd);
        set_eight(out, first, host::_mm256_castps_si256(host::_mm256_blendv_ps(low, high, upper)));
    }
}

/// A matrix of 8 rows of 8 elements of 16 bits, transposed.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn transposed(matrix: &[u32; LANES], out: &mut [u32; LANES]) {
    // SAFETY: each array has the 16 bytes that are loaded.
    let row = |row: &[u32; 4]| unsafe { host::_mm_loadu_si128(row.as_ptr().cast()) };
    let (rows, _) = matrix.as_chunks::<4>();
    // Elements of a row and of the next in turn: of the first four columns, and of the others.
    let (mut left, mut right) = ([host::_mm_setzero_si128(); 4], [host::_mm_setzero_si128(); 4]);
    for pair in 0..4 {
        let (even, odd) = (row(&rows[2 * pair]), row(&rows[2 * pair + 1]));
        left[pair] = host::_mm_unpacklo_epi16(even, odd);
        right[pair] = host::_mm_unpackhi_epi16(even, odd);
    }
    let columns = [turned(left), turned(right)];
    for (row, column) in out.as_chunks_mut::<4>().0.iter_mut().zip(columns.as_flattened()) {
        // SAFETY: the array has the 16 bytes that are stored.
        unsafe { host::_mm_storeu_si128(row.as_mut_ptr().cast(), *column) };
    }
}

/// The columns of four rows of words.
#[inline]
#[target_feature(enable = "avx2")]
fn turned([a, b, c, d]: [__m128i; 4]) -> [__m128i; 4] {
    let (low, high) = (host::_mm_unpacklo_epi32(a, b), host::_mm_unpackhi_epi32(a, b));
    let (low_too, high_too) = (host::_mm_unpacklo_epi32(c, d), host::_mm_unpackhi_epi32(c, d));
    [
        host::_mm_unpacklo_epi64(low, low_too),
        host::_mm_unpackhi_epi64(low, low_too),
        host::_mm_unpacklo_epi64(high, high_too),
        host::_mm_unpackhi_epi64(high, high_too),
    ]
}

/// As [`super::bits`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn bits<const SHIFT: u32, const MASK: u32>(
    words: &[u32; LANES],
    out: &mut [f32; LANES],
) {
    for first in (0..LANES).step_by(8) {
        let count = host::_mm_cvtsi32_si128(SHIFT.cast_signed());
        let moved = host::_mm256_sll_epi32(eight(words, first), count);
        let mask = host::_mm256_set1_epi32(MASK.cast_signed());
        set_eight_singles(
            out,
            first,
            host::_mm256_castsi256_ps(host::_mm256_and_si256(moved, mask)),
        );
    }
}

/// As [`super::half_pairs`].
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn half_pairs(words: &[u32; LANES], out: &mut [[f32; LANES]; 2]) {
    for first in (0..LANES).step_by(8) {
        let pairs = eight(words, first);
        // Of four words each, the lower and the upper half in turn.
        let left = host::_mm256_cvtph_ps(host::_mm256_castsi256_si128(pairs));
        let right = host::_mm256_cvtph_ps(host::_mm256_extracti128_si256::<1>(pairs));
        // Of words 0, 1, 4, 5, 2, 3, 6, 7.
        let lower = host::_mm256_castps_pd(host::_mm256_shuffle_ps::<0b10_00_10_00>(left, right));
        let upper = host::_mm256_castps_pd(host::_mm256_shuffle_ps::<0b11_01_11_01>(left, right));
        for (out, part) in out.iter_mut().zip([lower, upper]) {
            let part = host::_mm256_permute4x64_pd::<0b11_01_10_00>(part);
            set_eight_singles(out, first, host::_mm256_castpd_ps(part));
        }
    }
}

/// For each t, the words t of columns 0, 2, 4, 6 of B, and above them those of columns 1, 3, 5, 7.
#[inline]
#[target_feature(enable = "avx2")]
fn columns(words: &[u32; LANES]) -> [__m256i; 4] {
    let [a, b, c, d] = [eight(words, 0), eight(words, 8), eight(words, 16), eight(words, 24)];
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

#[inline]
#[target_feature(enable = "avx2")]
fn set(row: &mut [f32; 8], value: __m256i) {
    // SAFETY: the array has the 32 bytes that are stored.
    unsafe { host::_mm256_storeu_si256(row.as_mut_ptr().cast(), value) };
}

/// As [`super::brain_rows`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn brain_rows(words: &[u32; LANES], even: &mut [[f32; 8]; 8], odd: &mut [[f32; 8]; 8]) {
    let upper = host::_mm256_set1_epi32(0xffff_0000_u32.cast_signed());
    for (t, both) in columns(words).into_iter().enumerate() {
        let left = host::_mm256_permute2x128_si256::<0x00>(both, both);
        set(&mut even[2 * t], host::_mm256_slli_epi32::<16>(left));
        set(&mut even[2 * t + 1], host::_mm256_and_si256(left, upper));
        let right = host::_mm256_permute2x128_si256::<0x11>(both, both);
        set(&mut odd[2 * t], host::_mm256_slli_epi32::<16>(right));
        set(&mut odd[2 * t + 1], host::_mm256_and_si256(right, upper));
    }
}

/// As [`super::half_rows`].
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn half_rows(words: &[u32; LANES], even: &mut [[f32; 8]; 8], odd: &mut [[f32; 8]; 8]) {
    let firsts = host::_mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
    let seconds = host::_mm256_setr_epi32(1, 3, 5, 7, 1, 3, 5, 7);
    for (t, both) in columns(words).into_iter().enumerate() {
        let left =
            host::_mm256_castps_si256(host::_mm256_cvtph_ps(host::_mm256_castsi256_si128(both)));
        set(&mut even[2 * t], host::_mm256_permutevar8x32_epi32(left, firsts));
        set(&mut even[2 * t + 1], host::_mm256_permutevar8x32_epi32(left, seconds));
        let right = host::_mm256_cvtph_ps(host::_mm256_extracti128_si256::<1>(both));
        let right = host::_mm256_castps_si256(right);
        set(&mut odd[2 * t], host::_mm256_permutevar8x32_epi32(right, firsts));
        set(&mut odd[2 * t + 1], host::_mm256_permutevar8x32_epi32(right, seconds));
    }
}

/// As [`super::tensor_rows`].
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn tensor_rows(words: &[u32; LANES], even: &mut [[f32; 8]; 4], odd: &mut [[f32; 8]; 4]) {
    let kept = host::_mm256_set1_epi32(0xffff_e000_u32.cast_signed());
    for (t, both) in columns(words).into_iter().enumerate() {
        let both = host::_mm256_and_si256(both, kept);
        set(&mut even[t], host::_mm256_permute2x128_si256::<0x00>(both, both));
        set(&mut odd[t], host::_mm256_permute2x128_si256::<0x11>(both, both));
    }
}

/// Adds to rows of C the products of one element of each row of A, that of lane `T` of the row's four, with those of B: `even` and
/// `odd` for the columns that the two registers of C hold.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn add_column<const T: i32>(
    row: &[f32; LANES],
    (even, odd): (&[f32; 8], &[f32; 8]),
    sums: &mut [[__m256; 4]; 2],
) {
    // SAFETY: the arrays have the 32 bytes that are loaded.
    let load = |eight: &[f32; 8]| unsafe { host::_mm256_loadu_ps(eight.as_ptr()) };
    let (even, odd) = (load(even), load(odd));
    for (index, two_rows) in row.as_chunks::<8>().0.iter().enumerate() {
        let factor = load(two_rows);
        let factor = match T {
            0 => host::_mm256_permute_ps::<0b00_00_00_00>(factor),
            1 => host::_mm256_permute_ps::<0b01_01_01_01>(factor),
            2 => host::_mm256_permute_ps::<0b10_10_10_10>(factor),
            _ => host::_mm256_permute_ps::<0b11_11_11_11>(factor),
        };
        sums[0][index] = host::_mm256_fmadd_ps(factor, even, sums[0][index]);
        sums[1][index] = host::_mm256_fmadd_ps(factor, odd, sums[1][index]);
    }
}

/// As [`super::add_products`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_products<const P: usize, const K: usize>(
    a: [&[[f32; LANES]; P]; 2],
    [even, odd]: [&[[f32; 8]; K]; 2],
    registers: &mut [Lanes<u32>],
    c: [u32; 2],
    d: [u32; 2],
) {
    let mut sums = [[host::_mm256_setzero_ps(); 4]; 2];
    // Before all else: what may panic in between would part the sums of the two halves.
    assert!(d.iter().all(|&slot| (slot as usize) < registers.len()), "slots are of registers");
    let (left, right) = (&registers[c[0] as usize].0, &registers[c[1] as usize].0);
    for index in 0..4 {
        sums[0][index] = host::_mm256_castsi256_ps(eight(left, 8 * index));
        sums[1][index] = host::_mm256_castsi256_ps(eight(right, 8 * index));
    }
    for register in 0..K / (4 * P) {
        let (rows, first) = (a[register % 2], 4 * P * register);
        for element in 0..P {
            add_column::<0>(
                &rows[element],
                (&even[first + element], &odd[first + element]),
                &mut sums,
            );
        }
        for element in 0..P {
            let k = first + P + element;
            add_column::<1>(&rows[element], (&even[k], &odd[k]), &mut sums);
        }
        for element in 0..P {
            let k = first + 2 * P + element;
            add_column::<2>(&rows[element], (&even[k], &odd[k]), &mut sums);
        }
        for element in 0..P {
            let k = first + 3 * P + element;
            add_column::<3>(&rows[element], (&even[k], &odd[k]), &mut sums);
        }
    }
    let [left, right] = sums;
    let out = &mut registers[d[0] as usize].0;
    for index in 0..4 {
        set_eight(out, 8 * index, host::_mm256_castps_si256(left[index]));
    }
    let out = &mut registers[d[1] as usize].0;
    for index in 0..4 {
        set_eight(out, 8 * index, host::_mm256_castps_si256(right[index]));
    }
}
