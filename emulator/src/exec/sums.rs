//! Sums of products that `mul` and `fma` in a row add up, taken one after the other instead of an instruction at a time: a sum then
//! need not be put into its register and taken out again between two products of it.

use std::num::NonZero;

use super::inst::Inst;

/// What an instruction in single precision, rounded to nearest, adds to such a sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Term {
    /// It begins with a product: `d = a · b`.
    First,
    /// It goes on with one, rounded once: `d = a · b + c`.
    Next,
}

/// `N` sums of as many products each, which have one factor in common.
#[derive(Debug)]
pub(crate) struct Together<const N: usize> {
    pub(super) sums: [Sum; N],
    pub(super) products: Products<N>,
}

/// The common factor of products, and the other one of each sum.
type Products<const N: usize> = Box<[(u32, [u32; N])]>;

/// The register of a sum, and the one that it begins with, if it does not with a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) d: u32,
    pub(super) c: Option<u32>,
}

/// What some instructions in a row do. In what order their sums are taken makes no difference: none of them reads what another writes.
#[derive(Debug)]
pub(crate) struct Sums {
    pub(super) pairs: Box<[Together<2>]>,
    pub(super) others: Box<[Together<1>]>,
    /// The highest slot that any of them names.
    pub(super) highest: u32,
    count: NonZero<u8>,
}

/// A sum on its way into [`Sums`].
struct Found {
    sum: Sum,
    factors: Vec<[u32; 2]>,
}

impl Sums {
    /// The sums that as many instructions as possible add up from the first one on, all of them without a guard, if these are several.
    /// `terms` has what each of them adds to one.
    pub(crate) fn of(code: &[Inst], terms: impl Iterator<Item = Option<Term>>) -> Option<Sums> {
        let mut found: Vec<Found> = Vec::new();
        let (mut read, mut count) = (Vec::new(), 0_u8);
        for (inst, term) in code.iter().zip(terms) {
            let (Some(term), false) = (term, count == u8::MAX) else { break };
            let &Inst { a, b, c, d, .. } = inst;
            let is_sum = |slot: u32| found.iter().any(|found| found.sum.d == slot);
            if [a, b].into_iter().any(|slot| slot == d || is_sum(slot)) || read.contains(&d) {
                break;
            }
            let known = found.iter().position(|found| found.sum.d == d);
            match (term, known) {
                (Term::Next, Some(known)) if c == d => found[known].factors.push([a, b]),
                (_, Some(_)) => break,
                (Term::Next, None) if is_sum(c) => break,
                (_, None) => {
                    let c = (term == Term::Next).then_some(c);
                    read.extend(c.filter(|&c| c != d));
                    found.push(Found { sum: Sum { d, c }, factors: vec![[a, b]] });
                }
            }
            read.extend([a, b]);
            count += 1;
        }
        let count = NonZero::new(count).filter(|count| count.get() > 1)?;
        let sums = found.iter().flat_map(|found| [found.sum.d].into_iter().chain(found.sum.c));
        let highest = read.iter().copied().chain(sums).max()?;
        let (mut pairs, mut others) = (Vec::new(), Vec::new());
        while let Some(one) = found.pop() {
            let other = found.iter().rposition(|other| one.products_with(other).is_some());
            let pair = other.map(|other| found.swap_remove(other));
            match pair.and_then(|other| Some(([other.sum, one.sum], other.products_with(&one)?))) {
                Some((sums, products)) => pairs.push(Together { sums, products }),
                None => others.push(one.alone()),
            }
        }
        Some(Sums { pairs: pairs.into(), others: others.into(), highest, count })
    }

    /// How many instructions they stand for.
    #[inline(always)]
    pub(crate) fn count(&self) -> NonZero<u8> {
        self.count
    }
}

impl Found {
    /// The products of two sums, if they have a factor in common each.
    fn products_with(&self, other: &Found) -> Option<Products<2>> {
        if self.factors.len() != other.factors.len() {
            return None;
        }
        let pairs = self.factors.iter().zip(&other.factors);
        let common = |(&[a, b], &[x, y]): (&[u32; 2], &[u32; 2])| match () {
            () if a == x => Some((a, [b, y])),
            () if b == y => Some((b, [a, x])),
            () if a == y => Some((a, [b, x])),
            () => (b == x).then_some((b, [a, y])),
        };
        pairs.map(common).collect()
    }

    fn alone(self) -> Together<1> {
        let products = self.factors.into_iter().map(|[a, b]| (a, [b])).collect();
        Together { sums: [self.sum], products }
    }
}

#[cfg(test)]
mod tests {
    use crate::random::Random;
    use crate::testing::warp;

    /// Registers that `lines` work on: zeros, infinities, numbers that are none, and others, not the same in any two lanes.
    fn program(lines: &str) -> String {
        let mut text = ".reg .f32 %f<10>; mov.u32 %a, %laneid; setp.lt.u32 %q, %a, 32;".to_owned();
        for register in 0..10_u32 {
            let special = ["0x7f800000", "0x80000000", "0x7fc12345", "0xff800001", "0x00000003"];
            let special = special[register as usize % 5];
            text += &format!(
                "mul.lo.u32 %b, %a, {}; and.b32 %b, %b, 0x83ffffff; xor.b32 %b, %b, 0x3c000000;
                 add.u32 %c, %a, {register}; rem.u32 %c, %c, 7; setp.eq.u32 %p, %c, 3;
                 selp.b32 %b, {special}, %b, %p; mov.b32 %f{register}, %b;",
                0x9e37_79b9_u32.wrapping_mul(register + 1)
            );
        }
        text += lines;
        for register in 0..10 {
            text += &format!(
                "mov.b32 %b, %f{register}; shf.l.wrap.b32 %d, %d, %d, 5; xor.b32 %d, %d, %b;"
            );
        }
        text
    }

    #[test]
    fn sums_are_those_of_one_instruction_after_the_other() {
        let mut random = Random::new(3, 9);
        for round in 0..150 {
            let mut lines = Vec::new();
            // Sums mostly go on, and factors are mostly of other registers.
            let sums = 1 + random.below(4);
            for _ in 0..2 + random.below(14) {
                let mut any = |from: usize, to: usize| from + random.below(to - from);
                let far = any(0, 10) == 0;
                let d = any(0, if far { 10 } else { sums });
                let first = if far { 0 } else { sums };
                let (a, b, c) = (any(first, 10), any(first, 10), any(0, 10));
                lines.push(match any(0, 8) {
                    0 => format!("mul.rn.f32 %f{d}, %f{a}, %f{b};"),
                    1 => format!("fma.rn.f32 %f{d}, %f{a}, %f{b}, %f{c};"),
                    2 if round % 3 == 0 => format!("fma.rn.ftz.f32 %f{d}, %f{a}, %f{b}, %f{d};"),
                    _ => format!("fma.rn.f32 %f{d}, %f{a}, %f{b}, %f{d};"),
                });
            }
            let one_by_one: Vec<_> = lines.iter().map(|line| format!("@%q {line}")).collect();
            let (together, one_by_one) = (lines.join("\n"), one_by_one.join("\n"));
            assert_eq!(warp(&program(&together)), warp(&program(&one_by_one)), "{together}");
        }
    }
}
