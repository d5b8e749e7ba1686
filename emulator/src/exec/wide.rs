//! Code for the vector instructions of the processor at hand, outside of handlers.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod vectors;

#[cfg(target_arch = "x86_64")]
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::lanes::{LANES, Lanes, Value};
use super::sums::{Sum, Sums, Together};
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

/// What registers of A and B hold for `mma`: two numbers in binary16, two of bf16, or one of tf32.
pub(crate) const HALVES: u32 = 0;
pub(crate) const BRAINS: u32 = 1;
pub(crate) const TENSOR: u32 = 2;

/// The registers of an `mma` with four registers of C and D; of A and B the first of these, as many as there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fragments {
    pub(crate) d: [u32; 4],
    pub(crate) a: [u32; 4],
    pub(crate) b: [u32; 2],
    pub(crate) c: [u32; 4],
}

/// Number `index` of those in a word.
fn number<const KIND: u32>(word: u32, index: usize) -> f32 {
    match (KIND, index) {
        (HALVES, 0) => half_value(word & 0xffff),
        (HALVES, _) => half_value(word >> 16),
        (BRAINS, 0) => f32::from_bits(word << 16),
        (BRAINS, _) => f32::from_bits(word & 0xffff_0000),
        _ => f32::from_bits(word & 0xffff_e000),
    }
}

/// Whether [`vectors`] may be used: tests run everything without, too.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[inline(always)]
fn may_be_used() -> bool {
    #[cfg(test)]
    return tests::USED.get();
    #[cfg(not(test))]
    true
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
            if may_be_used() && is_available() {
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

    /// Adds the products of A and B to C, `K` for each element, fused, in the order of k = P t + e + 4 P r: of A, number e of register
    /// 2 r (2 r + 1 for the lower rows) in lane t of the row's four; of B, number e of register r in lane t of the column's four.
    fn products<const KIND: u32, const P: usize, const K: usize>(registers: &mut [Lanes<u32>], fragments: &Fragments) {
        let Fragments { d, a, b, c } = *fragments;
        let mut sums = c.map(|slot| registers[slot as usize]);
        for k in 0..K {
            let (register, t, index) = (k / (4 * P), k / P % 4, k % P);
            for element in 0..4 {
                let rows = &registers[a[2 * register + element / 2] as usize].0;
                let columns = &registers[b[register] as usize].0;
                for lane in 0..LANES {
                    let (row, column) = (lane / 4, 2 * (lane % 4) + element % 2);
                    let left = number::<KIND>(rows[4 * row + t], index);
                    let right = number::<KIND>(columns[4 * column + t], index);
                    let sum = f32::from_bits(sums[element].0[lane]);
                    sums[element].0[lane] = left.mul_add(right, sum).to_bits();
                }
            }
        }
        for (slot, sums) in d.into_iter().zip(sums) {
            registers[slot as usize] = Lanes(sums.0.map(|sum| f32::from_bits(sum).put()));
        }
    }

    /// What the instructions do that sums of products stand for.
    fn add_up(registers: &mut [Lanes<u32>], sums: &Sums) {
        sums.pairs.iter().for_each(|pair| add_up_slowly(registers, pair));
        sums.others.iter().for_each(|sum| add_up_slowly(registers, sum));
    }
}

fn add_up_slowly<const N: usize>(registers: &mut [Lanes<u32>], together: &Together<N>) {
    for (index, &Sum { d, c }) in together.sums.iter().enumerate() {
        for lane in 0..LANES {
            let value = |slot: u32| f32::from_bits(registers[slot as usize].0[lane]);
            // The sum of this and a product is the product, rounded once, also if that is zero.
            let mut sum = c.map_or(-0.0, value);
            for &(common, others) in &together.products {
                sum = value(common).mul_add(value(others[index]), sum);
            }
            registers[d as usize].0[lane] = sum.put();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::random::Random;
    use crate::tensor::layout;

    thread_local! {
        /// Whether functions of [`vectors`](super::vectors) may be used.
        pub(super) static USED: Cell<bool> = const { Cell::new(true) };
    }

    /// Does that with functions of [`vectors`](super::vectors) and without.
    fn in_both_ways(check: impl Fn()) {
        check();
        USED.set(false);
        check();
        USED.set(true);
    }

    #[test]
    fn halves_have_the_values_that_arithmetic_gives() {
        in_both_ways(check_halves);
    }

    fn check_halves() {
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
        }
    }

    #[test]
    fn lanes_are_moved_as_by_loops() {
        in_both_ways(check_moves);
    }

    fn check_moves() {
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
        }
    }

    /// Products of random registers, some of which are parts of several fragments, against sums over rows and columns.
    fn check_products<const KIND: u32, const P: usize, const K: usize>() {
        let mut random = Random::new(7, KIND.into());
        for _ in 0..200 {
            let draw = |_| Lanes(std::array::from_fn(|_| random.next() as u32));
            let before: Vec<Lanes<u32>> = (0..14).map(draw).collect();
            let mut slots: Vec<u32> = (0..14).collect();
            random.shuffle(&mut slots);
            let mut any = |_| random.below(14) as u32;
            let d = *slots.first_chunk().unwrap();
            let all = Fragments {
                d,
                a: [0; 4].map(&mut any),
                b: [0; 2].map(&mut any),
                c: [0; 4].map(&mut any),
            };
            let (mut left, mut right) = ([[0.0; K]; 16], [[0.0; K]; 8]);
            let bits = 32 / P as u32;
            for lane in 0..LANES {
                for index in 0..16 * K / LANES {
                    let (row, k) = layout::a(lane, index, bits, 16);
                    let word = before[all.a[index / P] as usize].0[lane];
                    left[row][k] = number::<KIND>(word, index % P);
                }
                for index in 0..8 * K / LANES {
                    let (k, column) = layout::b(lane, index, bits);
                    let word = before[all.b[index / P] as usize].0[lane];
                    right[column][k] = number::<KIND>(word, index % P);
                }
            }
            let mut after = before.clone();
            products::<KIND, P, K>(&mut after, &all);
            for lane in 0..LANES {
                for element in 0..4 {
                    let (row, column) = layout::c(lane, element);
                    let old = f32::from_bits(before[all.c[element] as usize].0[lane]);
                    let sum =
                        (0..K).fold(old, |sum, k| left[row][k].mul_add(right[column][k], sum));
                    let new = f32::from_bits(after[d[element] as usize].0[lane]);
                    assert_eq!(new.to_bits(), sum.put());
                }
            }
            let others = slots[4..].iter().map(|&slot| slot as usize);
            assert!(others.into_iter().all(|slot| after[slot].0 == before[slot].0));
        }
    }

    #[test]
    fn products_are_those_of_rows_and_columns() {
        in_both_ways(|| {
            check_products::<HALVES, 2, 8>();
            check_products::<HALVES, 2, 16>();
            check_products::<BRAINS, 2, 8>();
            check_products::<BRAINS, 2, 16>();
            check_products::<TENSOR, 1, 4>();
            check_products::<TENSOR, 1, 8>();
        });
    }
}
