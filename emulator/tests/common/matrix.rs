//! One `mma.sync` of a warp on matrices in memory.

use ptx_emulator::MmaMode;

use super::elements::{pack, registers, unpack};
use super::{Run, kernel_for};

/// A shape of `mma.sync` of 8 columns, with its types.
pub struct Mma<'t> {
    pub rows: usize,
    pub k: usize,
    /// Types of A and B.
    pub types: (&'t str, &'t str),
    pub bits: usize,
    /// Type of the accumulators.
    pub sum: &'t str,
    /// What stands between the layouts and the types, and behind the types.
    pub modifiers: (&'t str, &'t str),
    pub target: &'t str,
}

/// The row and column of A that element `i` of a lane is (PTX ISA, "Matrix Fragments for mma.m16n8k…"): `each`
/// elements to a register, registers alternate between the upper and the lower 8 rows.
fn of_a(lane: usize, i: usize, rows: usize, each: usize) -> (usize, usize) {
    let (group, thread) = (lane / 4, lane % 4);
    let lower = rows == 16 && i / each % 2 == 1;
    let half = i / (each * (rows / 8));
    (if lower { group + 8 } else { group }, thread * each + i % each + half * 4 * each)
}

/// The row and column of B that element `i` of a lane is.
fn of_b(lane: usize, i: usize, each: usize) -> (usize, usize) {
    (lane % 4 * each + i % each + i / each * 4 * each, lane / 4)
}

/// The row and column of C and D that element `i` of a lane is.
pub fn of_c(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { lane / 4 } else { lane / 4 + 8 }, lane % 4 * 2 + i % 2)
}

impl Mma<'_> {
    /// The bits of D, row by row, from those of A and C row by row, and of B column by column.
    #[track_caller]
    pub fn run(&self, mode: MmaMode, a: &[u32], b: &[u32], c: &[u32]) -> Vec<u32> {
        let Mma { rows, k, types: (ta, tb), bits, sum, modifiers, .. } = *self;
        let each = 32 / bits;
        let sum_bits = if sum == "f16" { 16 } else { 32 };
        let [na, nb, nc] = [rows * k * bits, 8 * k * bits, rows * 8 * sum_bits].map(|n| n / 1024);
        let mut input = Vec::new();
        for lane in 0..32 {
            let part = |count: usize, bits, at: &dyn Fn(usize) -> u32| -> Vec<u32> {
                pack(&(0..count).map(at).collect::<Vec<_>>(), bits)
            };
            input.extend(part(na * each, bits, &|i| {
                let (row, column) = of_a(lane, i, rows, each);
                a[row * k + column]
            }));
            input.extend(part(nb * each, bits, &|i| {
                let (row, column) = of_b(lane, i, each);
                b[column * k + row]
            }));
            input.extend(part(rows / 4, sum_bits, &|i| {
                let (row, column) = of_c(lane, i);
                c[row * 8 + column]
            }));
        }
        let words = na + nb + nc;
        let (pa, pc) = ("%r", if sum == "f32" { "%f" } else { "%r" });
        let mut body = format!("mad.wide.u32 %in, %thread, {}, %in;\n", 4 * words);
        for i in 0..words {
            let register = if i < na + nb { format!("{pa}{i}") } else { format!("{pc}{i}") };
            body += &format!("ld.global.b32 {register}, [%in+{}];\n", 4 * i);
        }
        body += &format!(
            "mma.sync.aligned.m{rows}n8k{k}.row.col{}.{sum}.{ta}.{tb}.{sum}{} {}, {}, {}, {};\n",
            modifiers.0,
            modifiers.1,
            registers(pc, na + nb, nc),
            registers(pa, 0, na),
            registers(pa, na, nb),
            registers(pc, na + nb, nc),
        );
        body += &format!("mad.wide.u32 %out, %thread, {}, %out;\n", 4 * nc);
        for i in 0..nc {
            body += &format!("st.global.b32 [%out+{}], {pc}{};\n", 4 * i, na + nb + i);
        }
        let text = kernel_for(self.target, &body);
        let out = Run::block(32).out(32 * nc).mma(mode).run(&text, &input);
        let mut d = vec![0; rows * 8];
        for (lane, words) in out.chunks(nc).enumerate() {
            for (i, code) in unpack(words, sum_bits).into_iter().enumerate() {
                let (row, column) = of_c(lane, i);
                d[row * 8 + column] = code;
            }
        }
        d
    }
}
