//! Small integers in the formats of matrices.

/// Numbers that depend on the seed, from 0 up to a limit.
pub struct Numbers(pub u32);

impl Numbers {
    pub fn below(&mut self, limit: u32) -> i64 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        i64::from((self.0 >> 16) % limit)
    }
}

/// The bits of a small integer in a format.
pub fn encode(ty: &str, value: i64) -> u32 {
    let single = (value as f32).to_bits();
    match ty {
        "f32" | "tf32" => single,
        "bf16" => single >> 16,
        "f16" if value == 0 => 0,
        // Rebiased by hand; small integers are normal numbers with few digits.
        "f16" => (single >> 31) << 15 | ((single >> 23 & 0xff) - 112) << 10 | single >> 13 & 0x3ff,
        "e4m3" if value == 0 => 0,
        "e4m3" => (single >> 31) << 7 | ((single >> 23 & 0xff) - 120) << 3 | single >> 20 & 7,
        "e5m2" if value == 0 => 0,
        "e5m2" => (single >> 31) << 7 | ((single >> 23 & 0xff) - 112) << 2 | single >> 21 & 3,
        "s8" | "u8" => value as u8 as u32,
        "s4" | "u4" => value as u32 & 15,
        _ => value as u32,
    }
}

pub fn decode(ty: &str, bits: u32) -> i64 {
    match ty {
        "f32" => f32::from_bits(bits) as i64,
        "f16" if bits & 0x7fff == 0 => 0,
        "f16" => f32::from_bits(
            (bits >> 15) << 31 | ((bits >> 10 & 31) + 112) << 23 | (bits & 0x3ff) << 13,
        ) as i64,
        _ => i64::from(bits as i32),
    }
}

/// Elements packed into words, the first into the lowest bits.
pub fn pack(codes: &[u32], bits: usize) -> Vec<u32> {
    let each = 32 / bits;
    codes
        .chunks(each)
        .map(|c| c.iter().enumerate().fold(0, |w, (i, &x)| w | x << (i * bits)))
        .collect()
}

pub fn unpack(words: &[u32], bits: usize) -> Vec<u32> {
    let mask = if bits == 32 { u32::MAX } else { (1 << bits) - 1 };
    words.iter().flat_map(|&w| (0..32 / bits).map(move |i| w >> (i * bits) & mask)).collect()
}

/// `{%r4, %r5}`
pub fn registers(prefix: &str, first: usize, count: usize) -> String {
    let names: Vec<_> = (first..first + count).map(|i| format!("{prefix}{i}")).collect();
    format!("{{{}}}", names.join(", "))
}
