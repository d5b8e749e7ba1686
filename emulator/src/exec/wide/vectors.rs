//! What the compiler does not make of loops by itself: the parts of vectors moved about, and numbers of 16 bits converted.
//!
//! Every function asks for features that [`super::is_available`] has looked for.

#![allow(unsafe_code)]

use std::arch::x86_64::{self as host, __m128, __m128i, __m256, __m256i};

use super::{BRAINS, Fragments, HALVES};
use crate::exec::lanes::{LANES, Lanes, NAN32};
use crate::exec::sums::{Sum, Sums, Together};

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
            set_eight(singles, first + 8 * index, host::_mm256_castps_si256(settled(value)));
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

/// As [`super::number`], of the words of each four lanes one after the other, for each number in a word.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn numbers<const KIND: u32>(words: __m256i) -> [__m256; 2] {
    let singles = host::_mm256_castsi256_ps;
    let kept = |bits: u32| {
        singles(host::_mm256_and_si256(words, host::_mm256_set1_epi32(bits.cast_signed())))
    };
    match KIND {
        HALVES => {
            // Of four words each, the lower and the upper half in turn.
            let left = host::_mm256_cvtph_ps(host::_mm256_castsi256_si128(words));
            let right = host::_mm256_cvtph_ps(host::_mm256_extracti128_si256::<1>(words));
            let pairs = [
                host::_mm256_permute2f128_ps::<0x20>(left, right),
                host::_mm256_permute2f128_ps::<0x31>(left, right),
            ];
            [
                host::_mm256_shuffle_ps::<0b10_00_10_00>(pairs[0], pairs[1]),
                host::_mm256_shuffle_ps::<0b11_01_11_01>(pairs[0], pairs[1]),
            ]
        }
        BRAINS => [singles(host::_mm256_slli_epi32::<16>(words)), kept(0xffff_0000)],
        _ => [kept(0xffff_e000); 2],
    }
}

/// Rows of B: of each the even columns, then the odd ones.
#[repr(C, align(32))]
struct Rows<const K: usize>([[__m128; 2]; K]);

/// For each half of a vector, number `index` of the word of its lane `T`, as bf16 in the upper half of a word, four times.
const fn quadrupled<const T: i32>(index: usize) -> [u8; 32] {
    let (mut bytes, mut at) = ([0x80; 32], 0);
    while at < 32 {
        if at % 4 >= 2 {
            bytes[at] = (4 * T as usize + 2 * index + at % 2) as u8;
        }
        at += 1;
    }
    bytes
}

/// Of two rows of A, number `index` of lane `T` of each row's four, four times.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn factor<const KIND: u32, const T: i32>(words: __m256i, index: usize) -> __m256 {
    if KIND == BRAINS {
        let places = const { [quadrupled::<T>(0), quadrupled::<T>(1)] };
        // SAFETY: the array has the 32 bytes that are loaded.
        let places = unsafe { host::_mm256_loadu_si256(places[index].as_ptr().cast()) };
        return host::_mm256_castsi256_ps(host::_mm256_shuffle_epi8(words, places));
    }
    let rows = numbers::<KIND>(words)[index];
    match T {
        0 => host::_mm256_permute_ps::<0b00_00_00_00>(rows),
        1 => host::_mm256_permute_ps::<0b01_01_01_01>(rows),
        2 => host::_mm256_permute_ps::<0b10_10_10_10>(rows),
        _ => host::_mm256_permute_ps::<0b11_11_11_11>(rows),
    }
}

/// As [`super::products`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn products<const KIND: u32, const P: usize, const K: usize>(
    registers: &mut [Lanes<u32>],
    fragments: &Fragments,
) {
    let Fragments { d, a, b, c } = *fragments;
    // Once and for all, so that it is not looked at in each step.
    for slots in [d, a, c] {
        for slot in slots {
            assert!((slot as usize) < registers.len(), "slots are of registers");
        }
    }
    let mut rows = Rows([[host::_mm_setzero_ps(); 2]; K]);
    for register in 0..K / (4 * P) {
        let words = columns(&registers[b[register] as usize].0);
        for t in 0..4 {
            let both = numbers::<KIND>(words[t]);
            for index in 0..P {
                let [even, odd] = &mut rows.0[P * (4 * register + t) + index];
                *even = host::_mm256_castps256_ps128(both[index]);
                *odd = host::_mm256_extractf128_ps::<1>(both[index]);
            }
        }
    }
    // Eight sums at a time are as many as the processor's registers have room for, and as many as it needs to be busy.
    for first in [0, 16] {
        // The compiler would keep all rows at hand, on the stack again.
        let rows = std::hint::black_box(&rows);
        let mut sums = [[[host::_mm256_setzero_ps(); 2]; 2]; 2];
        for part in 0..2 {
            for half in 0..2 {
                for odd in 0..2 {
                    let old = eight(&registers[c[2 * half + odd] as usize].0, first + 8 * part);
                    sums[part][half][odd] = host::_mm256_castsi256_ps(old);
                }
            }
        }
        for register in 0..K / (4 * P) {
            let mut words = [[host::_mm256_setzero_si256(); 2]; 2];
            for part in 0..2 {
                for half in 0..2 {
                    let slot = a[2 * register + half] as usize;
                    words[part][half] = eight(&registers[slot].0, first + 8 * part);
                }
            }
            // A macro, as functions with features of the processor are not always made a part of others.
            macro_rules! add {
                ($($t:literal)*) => {$(
                    for index in 0..P {
                        let [even, odd] = &rows.0[4 * P * register + P * $t + index];
                        let (even, odd) = (host::_mm256_broadcast_ps(even), host::_mm256_broadcast_ps(odd));
                        for part in 0..2 {
                            for half in 0..2 {
                                let factor = factor::<KIND, $t>(words[part][half], index);
                                let sums = &mut sums[part][half];
                                sums[0] = host::_mm256_fmadd_ps(factor, even, sums[0]);
                                sums[1] = host::_mm256_fmadd_ps(factor, odd, sums[1]);
                            }
                        }
                    }
                )*};
            }
            add!(0 1 2 3);
        }
        let mut unordered = host::_mm256_setzero_ps();
        for [even, odd] in sums.as_flattened() {
            let either = host::_mm256_cmp_ps::<{ host::_CMP_UNORD_Q }>(*even, *odd);
            unordered = host::_mm256_or_ps(unordered, either);
        }
        if host::_mm256_movemask_ps(unordered) != 0 {
            sums.as_flattened_mut()
                .as_flattened_mut()
                .iter_mut()
                .for_each(|sum| *sum = settled(*sum));
        }
        // Only now: D may have registers of A or C.
        for part in 0..2 {
            for half in 0..2 {
                for odd in 0..2 {
                    let sum = host::_mm256_castps_si256(sums[part][half][odd]);
                    let slot = d[2 * half + odd] as usize;
                    set_eight(&mut registers[slot].0, first + 8 * part, sum);
                }
            }
        }
    }
}

/// Sums as instructions give them: of those that are no number, [`NAN32`].
#[inline]
#[target_feature(enable = "avx2")]
fn settled(sums: __m256) -> __m256 {
    let nan = host::_mm256_castsi256_ps(host::_mm256_set1_epi32(NAN32.cast_signed()));
    host::_mm256_blendv_ps(sums, nan, host::_mm256_cmp_ps::<{ host::_CMP_UNORD_Q }>(sums, sums))
}

/// As [`super::add_up`].
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn add_up(registers: &mut [Lanes<u32>], sums: &Sums) {
    // Once and for all, so that it is not looked at for each product.
    assert!((sums.highest as usize) < registers.len(), "slots are of registers");
    let registers = registers.as_mut_ptr();
    for pair in &sums.pairs {
        // SAFETY: no slot is above the highest one.
        unsafe { add_up_together(registers, pair) };
    }
    for sum in &sums.others {
        // SAFETY: as before.
        unsafe { add_up_together(registers, sum) };
    }
}

/// Adds up sums that have a factor in common.
///
/// # Safety
/// All slots are of the registers, which nobody else refers to.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn add_up_together<const N: usize>(registers: *mut Lanes<u32>, together: &Together<N>) {
    // SAFETY: the caller's promise; a register has four vectors.
    let part = |slot: u32, index: usize| unsafe {
        registers.add(slot as usize).cast::<f32>().add(8 * index)
    };
    // SAFETY: as before.
    let load = |slot: u32, index: usize| unsafe { host::_mm256_loadu_ps(part(slot, index)) };
    // The sum of this and a product is the product, rounded once, also if that is zero.
    let mut all = [[host::_mm256_set1_ps(-0.0); LANES / 8]; N];
    for (sums, Sum { c, .. }) in all.iter_mut().zip(&together.sums) {
        if let Some(c) = *c {
            for index in 0..LANES / 8 {
                sums[index] = load(c, index);
            }
        }
    }
    for &(common, others) in &together.products {
        for index in 0..LANES / 8 {
            let factor = load(common, index);
            for number in 0..N {
                let sum = &mut all[number][index];
                *sum = host::_mm256_fmadd_ps(factor, load(others[number], index), *sum);
            }
        }
    }
    // A sum that is no number stays none, so that it is early enough now to make it the one that each instruction gives.
    for (sums, &Sum { d, .. }) in all.iter().zip(&together.sums) {
        for index in 0..LANES / 8 {
            // SAFETY: as before.
            unsafe { host::_mm256_storeu_ps(part(d, index), settled(sums[index])) };
        }
    }
}
