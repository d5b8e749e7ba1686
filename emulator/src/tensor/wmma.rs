//! Fragments of `wmma`: which element of a matrix each lane's registers hold.
//!
//! The PTX ISA leaves this open and fixes only the number of registers. Chosen here is what the `mma`
//! fragments of [`super::layout`] give when the shape is cut into their 16-row and 8-column pieces. The ISA has
//! more registers for f16 operands than elements; those of a fragment of fewer repeat the elements from the start.

use super::layout::{self, Place};

/// Rows of A, columns of B, and their common length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The letters are those of the ISA.
pub struct Shape {
    pub m: usize,
    pub n: usize,
    pub k: usize,
}

/// Which operand a fragment belongs to; C stands for D too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The letters are those of the ISA.
pub enum Matrix {
    A,
    B,
    C,
}

/// A kind of fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fragment {
    /// The operation's shape.
    pub shape: Shape,
    /// The operand.
    pub matrix: Matrix,
    /// Bits of an element.
    pub bits: u32,
    /// Elements that a lane's registers hold, repetitions included.
    pub held: usize,
}

impl Shape {
    /// The shape spelled `m16n16k16`.
    pub fn parse(name: &str) -> Option<Shape> {
        let (m, rest) = name.strip_prefix('m')?.split_once('n')?;
        let (n, k) = rest.split_once('k')?;
        Some(Shape { m: m.parse().ok()?, n: n.parse().ok()?, k: k.parse().ok()? })
    }
}

impl Fragment {
    /// The fragment of a matrix with elements of `bits`; `half_operand` for A and B of type f16.
    pub const fn new(shape: Shape, matrix: Matrix, bits: u32, half_operand: bool) -> Fragment {
        let fragment = Fragment { shape, matrix, bits, held: 0 };
        let (rows, columns) = fragment.size();
        let held = if half_operand { 16 } else { rows * columns / 32 };
        Fragment { held, ..fragment }
    }

    /// Rows and columns of the matrix.
    pub const fn size(self) -> (usize, usize) {
        let Shape { m, n, k } = self.shape;
        match self.matrix {
            Matrix::A => (m, k),
            Matrix::B => (k, n),
            Matrix::C => (m, n),
        }
    }

    /// Registers of a lane; an f64 has one of 64 bits.
    pub const fn registers(self) -> usize {
        if self.bits == 64 { self.held } else { self.held * self.bits as usize / 32 }
    }

    /// Different elements of a lane.
    pub const fn distinct(self) -> usize {
        let (rows, columns) = self.size();
        rows * columns / 32
    }

    /// Row and column of element `element` of a lane, in register order.
    pub const fn place(self, lane: usize, element: usize) -> Place {
        let Shape { m, k, .. } = self.shape;
        let element = element % self.distinct();
        match self.matrix {
            Matrix::A => {
                let rows = if m < 16 { 8 } else { 16 };
                let each = rows * k / 32;
                let (row, column) = layout::a(lane, element % each, self.bits, rows);
                (row + rows * (element / each), column)
            }
            Matrix::B => {
                let each = 8 * k / 32;
                let (row, column) = layout::b(lane, element % each, self.bits);
                (row, column + 8 * (element / each))
            }
            Matrix::C => {
                let rows = if m < 16 { 8 } else { 16 };
                let each = rows * 8 / 32;
                let (row, column) = layout::c(lane, element % each);
                let piece = element / each;
                if m == 32 { (row + 16 * piece, column) } else { (row, column + 8 * piece) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn all() -> Vec<Fragment> {
        let mut list = Vec::new();
        for name in ["m16n16k16", "m8n32k16", "m32n8k16"] {
            let shape = Shape::parse(name).unwrap();
            for (bits, half) in [(16, true), (16, false), (8, false)] {
                list.extend(
                    [Matrix::A, Matrix::B].map(|matrix| Fragment::new(shape, matrix, bits, half)),
                );
            }
            list.extend([16, 32].map(|bits| Fragment::new(shape, Matrix::C, bits, false)));
        }
        for (name, bits) in [("m16n16k8", 32), ("m8n8k4", 64), ("m8n8k32", 4), ("m8n8k128", 1)] {
            let shape = Shape::parse(name).unwrap();
            list.extend(
                [Matrix::A, Matrix::B].map(|matrix| Fragment::new(shape, matrix, bits, false)),
            );
            list.push(Fragment::new(shape, Matrix::C, bits.max(32), false));
        }
        list
    }

    #[test]
    fn every_element_is_held_equally_often() {
        for fragment in all() {
            let mut seen = HashMap::new();
            for lane in 0..32 {
                (0..fragment.held)
                    .for_each(|e| *seen.entry(fragment.place(lane, e)).or_insert(0) += 1);
            }
            let (rows, columns) = fragment.size();
            assert_eq!(seen.len(), rows * columns, "{fragment:?}");
            let times = fragment.held * 32 / (rows * columns);
            assert!(
                seen.iter().all(|(&(r, c), &n)| r < rows && c < columns && n == times),
                "{fragment:?}"
            );
        }
    }

    /// Registers per fragment from the tables of the PTX ISA, "Matrix Fragments for WMMA".
    #[test]
    fn fragments_have_the_registers_of_the_isa() {
        let of = |name, matrix, bits, half| {
            Fragment::new(Shape::parse(name).unwrap(), matrix, bits, half).registers()
        };
        for name in ["m16n16k16", "m8n32k16", "m32n8k16"] {
            assert_eq!((of(name, Matrix::A, 16, true), of(name, Matrix::B, 16, true)), (8, 8));
            assert_eq!((of(name, Matrix::C, 16, false), of(name, Matrix::C, 32, false)), (4, 8));
        }
        let operands =
            |name, bits| (of(name, Matrix::A, bits, false), of(name, Matrix::B, bits, false));
        assert_eq!(operands("m16n16k16", 16), (4, 4));
        assert_eq!(operands("m8n32k16", 16), (2, 8));
        assert_eq!(operands("m32n8k16", 16), (8, 2));
        assert_eq!(operands("m16n16k16", 8), (2, 2));
        assert_eq!(operands("m8n32k16", 8), (1, 4));
        assert_eq!(operands("m32n8k16", 8), (4, 1));
        assert_eq!(operands("m16n16k8", 32), (4, 4));
        assert_eq!(operands("m8n8k4", 64), (1, 1));
        assert_eq!(operands("m8n8k32", 4), (1, 1));
        assert_eq!(operands("m8n8k128", 1), (1, 1));
        assert_eq!(
            (of("m16n16k8", Matrix::C, 32, false), of("m8n8k4", Matrix::C, 64, false)),
            (8, 2)
        );
    }
}
