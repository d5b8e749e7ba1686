//! The shapes that the benchmark reports.

/// One attention call: lengths of its sequences and its heads.
#[derive(Debug, Clone)]
pub struct Shape {
    pub q_heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub block_size: usize,
    pub lengths: Vec<usize>,
}

impl Shape {
    fn uniform(
        batch: usize,
        heads: (usize, usize),
        head_dim: usize,
        block_size: usize,
        len: usize,
    ) -> Self {
        Self {
            q_heads: heads.0,
            kv_heads: heads.1,
            head_dim,
            block_size,
            lengths: vec![len; batch],
        }
    }

    /// 16-token tiles times KV heads.
    pub fn tiles(&self) -> u64 {
        self.lengths.iter().map(|len| len.div_ceil(16) as u64).sum::<u64>() * self.kv_heads as u64
    }

    /// Bytes of live K and V, the ideal traffic.
    pub fn kv_bytes(&self, element_bytes: usize) -> u64 {
        let tokens: usize = self.lengths.iter().sum();
        (2 * tokens * self.kv_heads * self.head_dim * element_bytes) as u64
    }

    /// A slice of the call small enough to emulate: fewer KV heads (with their query heads), then fewer sequences, then shorter
    /// ones, until it has at most `max_tiles` tiles. The slice keeps group size, head_dim and block size.
    pub fn slice(&self, max_tiles: u64) -> Self {
        let group = self.q_heads / self.kv_heads;
        let mut slice = self.clone();
        while slice.tiles() > max_tiles {
            if slice.kv_heads > 1 {
                slice.kv_heads = slice.kv_heads.div_ceil(2);
                slice.q_heads = group * slice.kv_heads;
            } else if slice.lengths.len() > 1 {
                slice.lengths.truncate(slice.lengths.len().div_ceil(2));
            } else {
                slice.lengths[0] = slice.lengths[0].div_ceil(2);
            }
        }
        slice
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { q_heads, kv_heads, head_dim, block_size, lengths } = self;
        let first = lengths[0];
        if lengths.iter().all(|len| *len == first) {
            write!(f, "{} x {first}", lengths.len())?;
        } else {
            let text: Vec<_> = lengths.iter().map(usize::to_string).collect();
            f.write_str(&text.join("+"))?;
        }
        write!(f, ", {q_heads}/{kv_heads} heads of {head_dim}, block {block_size}")
    }
}

/// The shapes of the report, the ragged one last.
pub fn all() -> Vec<Shape> {
    let mut shapes = vec![
        Shape::uniform(1, (32, 8), 128, 16, 1024),
        Shape::uniform(8, (32, 4), 128, 16, 4096),
        Shape::uniform(32, (32, 8), 128, 16, 1024),
        Shape::uniform(64, (64, 8), 128, 16, 2048),
        Shape::uniform(16, (28, 4), 128, 16, 1024),
        Shape::uniform(16, (32, 32), 128, 16, 512),
        Shape::uniform(8, (71, 1), 64, 16, 1024),
        Shape::uniform(4, (16, 8), 256, 16, 2048),
    ];
    let lengths = vec![4641, 45118, 1730, 1696];
    shapes.push(Shape { q_heads: 32, kv_heads: 8, head_dim: 128, block_size: 16, lengths });
    shapes
}
