//! Decode calls of a size that no reference follows: what benches time and count.
//!
//! Pools are filled with random values and named by shuffled block ids; what comes out is not looked at.

use half::{bf16, f16};
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Driver, Element, KvPool, PoolShape, Result,
    Sequence, Stream,
};

/// One decode call: lengths of its sequences and its heads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Query heads.
    pub q_heads: usize,
    /// KV heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// Tokens of each sequence.
    pub lengths: Vec<u32>,
}

impl Shape {
    /// 16-token tiles times KV heads.
    pub fn tiles(&self) -> u64 {
        self.lengths.iter().map(|len| u64::from(len.div_ceil(16))).sum::<u64>()
            * self.kv_heads as u64
    }

    /// Bytes of live K and V, the ideal traffic.
    pub fn kv_bytes(&self, element_bytes: usize) -> u64 {
        let tokens: u64 = self.lengths.iter().map(|&len| u64::from(len)).sum();
        2 * tokens * (self.kv_heads * self.head_dim * element_bytes) as u64
    }

    /// The first sequences of the call, or the beginning of the first one, with at most `max_tiles` tiles. Heads stay, as the
    /// way in which a sequence is cut into chunks depends on them.
    pub fn slice(&self, max_tiles: u64) -> Self {
        let mut slice = self.clone();
        while slice.tiles() > max_tiles && slice.lengths.len() > 1 {
            slice.lengths.pop();
        }
        while slice.tiles() > max_tiles && slice.lengths[0] > 16 {
            slice.lengths[0] = slice.lengths[0].div_ceil(2);
        }
        slice
    }

    /// Blocks of the longest sequence, the width of its table.
    pub fn table_width(&self) -> usize {
        self.lengths
            .iter()
            .map(|len| len.div_ceil(self.block_size as u32))
            .max()
            .unwrap_or(0)
            .max(1) as usize
    }

    /// A pool with a block for each that the sequences need.
    pub fn pool(&self) -> PoolShape {
        let blocks = self.lengths.iter().map(|len| len.div_ceil(self.block_size as u32) as usize);
        PoolShape {
            num_blocks: blocks.sum::<usize>().max(1),
            block_size: self.block_size,
            num_kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        }
    }

    /// A plan for this call.
    ///
    /// # Errors
    ///
    /// Those of [`DecodePlan::new`].
    pub fn plan<'s, D: Driver, T: Element>(
        &self,
        stream: &'s Stream<D>,
    ) -> Result<DecodePlan<'s, D, T, T>> {
        let (seqs, width) = (self.lengths.len(), self.table_width());
        DecodePlan::new(stream, self.pool(), self.q_heads, seqs, width)
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { q_heads, kv_heads, head_dim, block_size, lengths } = self;
        let first = lengths.first().copied().unwrap_or(0);
        if lengths.iter().all(|len| *len == first) {
            write!(f, "{}x{first}", lengths.len())?;
        } else {
            let text: Vec<_> = lengths.iter().map(u32::to_string).collect();
            f.write_str(&text.join("+"))?;
        }
        write!(f, " q{q_heads} kv{kv_heads} d{head_dim} b{block_size}")
    }
}

/// The memory of a call.
pub struct Call<'s, D: Driver, T: Element> {
    /// Keys and values.
    pub pool: KvPool<'s, D, T>,
    tables: BlockTables<'s, D>,
    q: Buffer<'s, D, T>,
    out: Buffer<'s, D, T>,
    sm_scale: f32,
}

impl<'s, D: Driver, T: RandomElement> Call<'s, D, T> {
    /// Values of about N(0, 1), and blocks in an order that differs from seed to seed.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn new(stream: &'s Stream<D>, shape: &Shape, seed: u64) -> Result<Self> {
        let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (seed + 1));
        // What a kernel does depends little on values: a million drawn ones are repeated, so that pools of gigabytes are soon filled.
        let mut values = |len: usize| -> Vec<T> {
            let drawn: Vec<T> = (0..len.min(1 << 20)).map(|_| T::draw(&mut random)).collect();
            drawn.iter().copied().cycle().take(len).collect()
        };
        let mut pool = KvPool::new(stream, shape.pool())?;
        let elems = pool.k().len();
        pool.write_k(&values(elems))?;
        pool.write_v(&values(elems))?;
        let q = values(shape.lengths.len() * shape.q_heads * shape.head_dim);
        let q = Buffer::from_slice(stream, &q)?;
        let out = Buffer::zeroed(stream, q.len())?;
        let mut blocks: Vec<u32> = (0..shape.pool().num_blocks as u32).collect();
        for last in (1..blocks.len()).rev() {
            blocks.swap(last, random.next() as usize % (last + 1));
        }
        let (seqs, width) = (shape.lengths.len(), shape.table_width());
        let mut tables = BlockTables::new(stream, shape.pool(), seqs, width)?;
        let mut rest = &blocks[..];
        tables.set(shape.lengths.iter().map(|&len| {
            let (blocks, others) = rest.split_at(len.div_ceil(shape.block_size as u32) as usize);
            rest = others;
            Sequence { blocks, len }
        }))?;
        let sm_scale = 1.0 / (shape.head_dim as f32).sqrt();
        Ok(Self { pool, tables, q, out, sm_scale })
    }

    /// Enqueues the call.
    ///
    /// # Errors
    ///
    /// Those of [`pagedptx::decode()`].
    pub fn decode(&mut self, plan: &mut DecodePlan<'s, D, T, T>) -> Result<()> {
        let Self { pool, tables, q, out, sm_scale } = self;
        let args = DecodeArgs { q, out, lse: None, sm_scale: *sm_scale };
        pagedptx::decode(plan, pool, tables, args)
    }
}

/// xorshift64.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// An element that can be drawn.
pub trait RandomElement: Element {
    /// A value of mean 0 and variance 1: the sum of four uniform ones.
    fn draw(random: &mut Random) -> Self;
}

macro_rules! random_element {
    ($($type:ty: $from:expr),*) => {
        $(impl RandomElement for $type {
            fn draw(random: &mut Random) -> Self {
                let bits = random.next();
                let sum: u64 = [0, 16, 32, 48].map(|shift| bits >> shift & 0xFFFF).iter().sum();
                $from((sum as f32 / 65_536.0 - 2.0) * 1.732_050_8)
            }
        })*
    };
}
random_element!(f32: core::convert::identity, f16: f16::from_f32, bf16: bf16::from_f32);
