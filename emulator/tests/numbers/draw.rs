//! Operands that find faults: bits at random, and numbers at the edges of their format.

/// A generator of 64 bits (xorshift*).
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Draw {
        Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.bits() % limit
    }

    /// An integer of `width` bits: small, large, near a power of two, or any.
    pub fn integer(&mut self, width: u32) -> u64 {
        let mask = u64::MAX >> (64 - width);
        let any = self.bits();
        let near = self.below(5).wrapping_sub(2);
        mask & match self.below(6) {
            0 => near,
            1 => near.wrapping_add(1 << (width - 1)),
            2 => near.wrapping_add(1 << (any % u64::from(width))),
            3 => any >> (any & 63),
            _ => any,
        }
    }

    /// A number with `exponent` and `fraction` bits: zero, subnormal, infinite, NaN, with few bits set,
    /// of moderate size, or any.
    pub fn float(&mut self, exponent: u32, fraction: u32) -> u64 {
        let any = self.bits() >> (63 - exponent - fraction);
        let field = ((1u64 << exponent) - 1) << fraction;
        let fraction_field = (1u64 << fraction) - 1;
        match self.below(10) {
            0 => any & !field,
            1 => any & !fraction_field,
            2 => any | field,
            3 => (any | field) & !fraction_field,
            4 => any & !(field | fraction_field) | (field & (field >> 1)),
            5..8 => {
                // Within the width of a mantissa around 1, where sums cancel and round.
                let span = u64::from(fraction) + 2;
                let one = (1 << (exponent - 1)) - 1;
                let place = (one + self.below(2 * span + 1)).saturating_sub(span).min(2 * one);
                any & !field | place << fraction
            }
            _ => any,
        }
    }

    pub fn rows(&mut self, count: usize, mut one: impl FnMut(&mut Draw) -> u64) -> Vec<[u64; 3]> {
        (0..count).map(|_| [one(self), one(self), one(self)]).collect()
    }
}
