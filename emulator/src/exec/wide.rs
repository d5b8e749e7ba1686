//! Code for the vector instructions of the processor at hand, outside of handlers.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod vectors;

#[cfg(target_arch = "x86_64")]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::lanes::{LANES, Lanes, Value};
use crate::ops::number::half_value;

/// Work whose loops over lanes are to become vector code. Implementations are `#[inline(always)]`, so that [`call`]
/// can compile them for the processor.
pub(crate) trait Routine {
    type Out;
    fn run(self) -> Self::Out;
}

/// The features that handlers and routines are compiled for. Every processor of x86-64 since 2013 has them.
macro_rules! with_features {
    ($($item:tt)*) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma,bmi1,bmi2,f16c,lzcnt,popcnt")]
        $($item)*
    };
}
pub(super) use with_features;

/// Whether the processor has every one of these features.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(crate) fn is_available() -> bool {
    FOUND.load(Relaxed) || detect()
}

/// Set once the features have been found.
#[cfg(target_arch = "x86_64")]
static FOUND: AtomicBool = AtomicBool::new(false);

#[cfg(target_arch = "x86_64")]
#[cold]
fn detect() -> bool {
    let found = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("popcnt");
    FOUND.store(found, Relaxed);
    found
}

with_features! {
    #[inline(never)]
    fn wide<R: Routine>(routine: R) -> R::Out {
        routine.run()
    }
}

#[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
#[inline(never)]
fn portable<R: Routine>(routine: R) -> R::Out {
    routine.run()
}

/// Runs a routine in the form that suits this processor.
#[inline(always)]
#[allow(unsafe_code)]
pub(crate) fn call<R: Routine>(routine: R) -> R::Out {
    #[cfg(target_arch = "x86_64")]
    if is_available() {
        // SAFETY: `is_available` has just found every feature that `wide` is compiled for on this processor.
        return unsafe { wide(routine) };
    }
    #[cfg(any(not(target_arch = "x86_64"), feature = "portable"))]
    return portable(routine);
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    unreachable!("`Module::parse` refuses a processor that lacks these features");
}

/// The factors of an `mma`, taken apart, in memory that need not be cleared each time.
#[derive(Debug, Clone)]
pub(crate) struct Factors {
    /// For each register of A and each element in it.
    pub(crate) a: [[f32; LANES]; 8],
    /// Rows of B, the even and the odd columns twice each.
    pub(crate) even: [[f32; 8]; 16],
    pub(crate) odd: [[f32; 8]; 16],
}

impl Default for Factors {
    fn default() -> Self {
        Factors { a: [[0.0; LANES]; 8], even: [[0.0; 8]; 16], odd: [[0.0; 8]; 16] }
    }
}

/// The words t of columns 0, 2, 4, 6 and of columns 1, 3, 5, 7 of B, twice each.
fn columns(words: &[u32; LANES], t: usize, index: usize) -> [u32; 2] {
    [words[8 * (index % 4) + t], words[8 * (index % 4) + 4 + t]]
}

/// Functions that have those of [`vectors`] do the work where the processor can, or else the loops that they are written with.
macro_rules! vectors {
    ($($(#[$meta:meta])* fn $name:ident $(<$(const $generic:ident: $kind:ty),*>)? ($($argument:ident: $type:ty),*) $slowly:block)*) => {$(
        $(#[$meta])*
        #[inline(always)]
        pub(crate) fn $name $(<$(const $generic: $kind),*>)? ($($argument: $type),*) {
            #[cold]
            #[inline(never)]
            fn slowly $(<$(const $generic: $kind),*>)? ($($argument: $type),*) $slowly

            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            if is_available() {
                #[allow(unsafe_code)]
                // SAFETY: `is_available` has just found every feature that the functions of `vectors` are compiled for.
                return unsafe { vectors::$name $(::<$($generic),*>)? ($($argument),*) };
            }
            slowly $(::<$($generic),*>)? ($($argument),*)
        }
    )*};
}

vectors! {
    /// The values of numbers in binary16, the lower halves of words, as single-precision operations give them.
    fn singles(halves: &[u32; LANES], singles: &mut [u32; LANES]) {
        for lane in 0..LANES {
            singles[lane] = half_value(halves[lane] & 0xffff).put();
        }
    }

    /// The values of the lanes that `sources`, numbers below 32, name.
    fn permuted(values: &[u32; LANES], sources: &[u32; LANES], out: &mut [u32; LANES]) {
        for lane in 0..LANES {
            out[lane] = values[sources[lane] as usize % LANES];
        }
    }

    /// A matrix of 8 rows of 8 elements of 16 bits, transposed.
    fn transposed(words: &[u32; LANES], out: &mut [u32; LANES]) {
        for t in 0..4 {
            for word in 0..4 {
                // Two rows' elements of columns 2 word and 2 word + 1.
                let (even, odd) = (words[8 * t + word], words[8 * t + 4 + word]);
                out[8 * word + t] = even & 0xffff | odd << 16;
                out[8 * word + 4 + t] = even >> 16 | odd & 0xffff_0000;
            }
        }
    }

    /// The rows of B for `mma` that a register of two bf16 a lane holds: the even and the odd columns, twice each.
    fn brain_rows(words: &[u32; LANES], even: &mut [[f32; 8]; 8], odd: &mut [[f32; 8]; 8]) {
        for t in 0..4 {
            for index in 0..8 {
                let [left, right] = columns(words, t, index);
                even[2 * t][index] = f32::from_bits(left << 16);
                even[2 * t + 1][index] = f32::from_bits(left & 0xffff_0000);
                odd[2 * t][index] = f32::from_bits(right << 16);
                odd[2 * t + 1][index] = f32::from_bits(right & 0xffff_0000);
            }
        }
    }

    /// As [`brain_rows`], of f16.
    fn half_rows(words: &[u32; LANES], even: &mut [[f32; 8]; 8], odd: &mut [[f32; 8]; 8]) {
        for t in 0..4 {
            for index in 0..8 {
                let [left, right] = columns(words, t, index);
                even[2 * t][index] = half_value(left & 0xffff);
                even[2 * t + 1][index] = half_value(left >> 16);
                odd[2 * t][index] = half_value(right & 0xffff);
                odd[2 * t + 1][index] = half_value(right >> 16);
            }
        }
    }

    /// As [`brain_rows`], of one tf32.
    fn tensor_rows(words: &[u32; LANES], even: &mut [[f32; 8]; 4], odd: &mut [[f32; 8]; 4]) {
        for t in 0..4 {
            for index in 0..8 {
                let [left, right] = columns(words, t, index);
                even[t][index] = f32::from_bits(left & 0xffff_e000);
                odd[t][index] = f32::from_bits(right & 0xffff_e000);
            }
        }
    }

    /// Bits of words, moved up by `SHIFT`, those of `MASK`.
    fn bits<const SHIFT: u32, const MASK: u32>(words: &[u32; LANES], out: &mut [f32; LANES]) {
        for lane in 0..LANES {
            out[lane] = f32::from_bits(words[lane] << SHIFT & MASK);
        }
    }

    /// The values of numbers in binary16, of which words hold two: of the lower halves, and of the upper ones.
    fn half_pairs(words: &[u32; LANES], out: &mut [[f32; LANES]; 2]) {
        for lane in 0..LANES {
            out[0][lane] = half_value(words[lane] & 0xffff);
            out[1][lane] = half_value(words[lane] >> 16);
        }
    }

    /// Adds to two registers of C for `mma`, which hold the even and the odd columns of 8 rows, the products of `K` columns of A
    /// and rows of B, fused, in the order of k = P t + e + 4 P r: of A, element e of register r of lane t of a row's four; of
    /// B, four columns twice. `c` and `d` are registers before and after.
    fn add_products<const P: usize, const K: usize>(
        a: [&[[f32; LANES]; P]; 2],
        b: [&[[f32; 8]; K]; 2],
        registers: &mut [Lanes<u32>],
        c: [u32; 2],
        d: [u32; 2]
    ) {
        let mut sums = [registers[c[0] as usize], registers[c[1] as usize]];
        for k in 0..K {
            let (register, t, element) = (k / (4 * P), k / P % 4, k % P);
            for half in 0..2 {
                for lane in 0..LANES {
                    let factor = a[register % 2][element][lane / 4 * 4 + t];
                    let sum = f32::from_bits(sums[half].0[lane]);
                    sums[half].0[lane] = factor.mul_add(b[half][k][lane % 4], sum).to_bits();
                }
            }
        }
        for half in 0..2 {
            registers[d[half] as usize] = sums[half];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn halves_have_the_values_that_arithmetic_gives() {
        for first in (0..1 << 16).step_by(LANES) {
            let halves = std::array::from_fn(|lane| 0xabcd_0000 | (first + lane) as u32);
            let mut out = [0; LANES];
            singles(&halves, &mut out);
            for lane in 0..LANES {
                assert_eq!(
                    out[lane],
                    half_value(halves[lane] & 0xffff).put(),
                    "{:#x}",
                    halves[lane]
                );
            }
            // The other half of a pair goes the other way.
            let pairs =
                std::array::from_fn(|lane| (first + lane) as u32 | !((first + lane) as u32) << 16);
            let mut out = [[0.0; LANES]; 2];
            half_pairs(&pairs, &mut out);
            let (mut even, mut odd) = ([[0.0; 8]; 8], [[0.0; 8]; 8]);
            half_rows(&pairs, &mut even, &mut odd);
            let same = |got: f32, bits: u32| {
                let want = half_value(bits);
                assert!(
                    got.to_bits() == want.to_bits() || got.is_nan() && want.is_nan(),
                    "{bits:#x}"
                );
            };
            for lane in 0..LANES {
                same(out[0][lane], pairs[lane] & 0xffff);
                same(out[1][lane], pairs[lane] >> 16);
            }
            for t in 0..4 {
                for index in 0..8 {
                    let [left, right] = columns(&pairs, t, index);
                    same(even[2 * t][index], left & 0xffff);
                    same(even[2 * t + 1][index], left >> 16);
                    same(odd[2 * t][index], right & 0xffff);
                    same(odd[2 * t + 1][index], right >> 16);
                }
            }
        }
    }

    #[test]
    fn lanes_are_moved_as_by_loops() {
        let mut random = Random::new(5, 6);
        for _ in 0..200 {
            let mut draw = || -> [u32; LANES] { std::array::from_fn(|_| random.next() as u32) };
            let (values, sources) = (draw(), draw().map(|source| source % LANES as u32));
            let mut out = [0; LANES];
            permuted(&values, &sources, &mut out);
            assert_eq!(out, sources.map(|source| values[source as usize]));
            transposed(&values, &mut out);
            let element = |words: &[u32; LANES], row: usize, column: usize| {
                words[4 * row + column / 2] >> (16 * (column % 2)) & 0xffff
            };
            assert!((0..64).all(|i| element(&out, i / 8, i % 8) == element(&values, i % 8, i / 8)));
            let (mut even, mut odd) = ([[0.0; 8]; 8], [[0.0; 8]; 8]);
            brain_rows(&values, &mut even, &mut odd);
            let (mut even_too, mut odd_too) = ([[0.0; 8]; 4], [[0.0; 8]; 4]);
            tensor_rows(&values, &mut even_too, &mut odd_too);
            for t in 0..4 {
                for index in 0..8 {
                    let [left, right] = columns(&values, t, index);
                    let brains = [even[2 * t], even[2 * t + 1], odd[2 * t], odd[2 * t + 1]];
                    let upper = 0xffff_0000;
                    let want = [left << 16, left & upper, right << 16, right & upper];
                    assert_eq!(brains.map(|row| row[index].to_bits()), want);
                    let tensor = [even_too[t][index], odd_too[t][index]].map(f32::to_bits);
                    assert_eq!(tensor, [left & 0xffff_e000, right & 0xffff_e000]);
                }
            }
        }
    }
}
