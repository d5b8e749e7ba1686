//! Attention and KV writes through pagedptx: the shipped kernels over a paged pool.
//!
//! Every layer has a pool of its own and all share one block table, as in a serving engine. The
//! blocks come in a shuffled order from a pool larger than the run needs, and slots that no token
//! owns are never written: on the emulator, reading one is a finding that ends the run.
//!
//! The n tokens of a prompt are n rows that share one sequence's blocks, row i seeing the tokens up
//! to itself. A head_dim that no kernel has is padded with zeros, which add nothing to q·k, and
//! the scale stays that of the model.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use pagedptx::{
    BlockAllocator, BlockTables, Buffer, DecodeArgs, DecodePlan, Driver, Element, Error, KvPool,
    PoolShape, Sequence, SlotMapping, Stream,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;

use super::{Attention, Shape, Stats};

/// Order of the blocks: any will do, the same one every time makes runs repeatable.
const SHUFFLE_SEED: u64 = 0x7061_6765;
/// Blocks in the pool for each 4 that the run needs.
const BLOCKS_PER_4: usize = 5;

/// Attention over a pool of `K`.
pub struct Paged<'s, D: Driver, K: Element> {
    shape: Shape,
    /// `head_dim` of the pool.
    padded_dim: usize,
    block_size: usize,
    pools: Vec<KvPool<'s, D, K>>,
    prompt_plan: DecodePlan<'s, D, f32, K>,
    /// For one row: a launch has as many CTAs as its plan's capacities ask for, used or not.
    step_plan: DecodePlan<'s, D, f32, K>,
    allocator: BlockAllocator,
    /// Blocks of the one sequence.
    blocks: Vec<u32>,
    tables: BlockTables<'s, D>,
    slots: SlotMapping<'s, D>,
    /// Positions that `tables` and `slots` are set for.
    current: Range<usize>,
    q: Buffer<'s, D, f32>,
    k: Buffer<'s, D, f32>,
    v: Buffer<'s, D, f32>,
    out: Buffer<'s, D, f32>,
    stats: Stats,
}

impl<'s, D: Driver, K: Element> Paged<'s, D, K> {
    /// An empty cache with room for `shape.max_tokens` tokens, in blocks of `block_size`.
    pub fn new(stream: &'s Stream<D>, shape: Shape, block_size: usize) -> Result<Self> {
        let needed = shape.max_tokens.div_ceil(block_size);
        let num_blocks = (needed * BLOCKS_PER_4).div_ceil(4);
        let padded_dim = shape.head_dim.next_multiple_of(8);
        let num_kv_heads = shape.num_kv_heads;
        let pool = PoolShape { num_blocks, block_size, num_kv_heads, head_dim: padded_dim };
        pool.check()?;

        let mut order: Vec<u32> = (0..u32::try_from(num_blocks)?).collect();
        order.shuffle(&mut rand::rngs::StdRng::seed_from_u64(SHUFFLE_SEED));
        let q_elems = shape.max_rows * shape.num_q_heads * padded_dim;
        let kv_elems = shape.max_rows * num_kv_heads * padded_dim;
        let pools = (0..shape.layers).map(|_| KvPool::new(stream, pool));
        Ok(Self {
            shape,
            padded_dim,
            block_size,
            pools: pools.collect::<pagedptx::Result<_>>()?,
            prompt_plan: DecodePlan::new(stream, pool, shape.num_q_heads, shape.max_rows, needed)?,
            step_plan: DecodePlan::new(stream, pool, shape.num_q_heads, 1, needed)?,
            allocator: BlockAllocator::with_order(order)?,
            blocks: Vec::new(),
            tables: BlockTables::new(stream, pool, shape.max_rows, needed)?,
            slots: SlotMapping::new(stream, pool, shape.max_rows)?,
            current: 0..0,
            q: Buffer::uninit(stream, q_elems)?,
            k: Buffer::uninit(stream, kv_elems)?,
            v: Buffer::uninit(stream, kv_elems)?,
            out: Buffer::uninit(stream, q_elems)?,
            stats: Stats::default(),
        })
    }

    /// Gives the new tokens their slots, and each its row of the block table. The first layer's
    /// call does it for all layers.
    fn place(&mut self, positions: Range<usize>) -> Result<()> {
        if self.current == positions {
            return Ok(());
        }
        let Shape { max_tokens, max_rows, .. } = self.shape;
        let (start, end) = (positions.start, positions.end);
        ensure!(start == self.current.end, "token {start} follows token {}", self.current.end);
        ensure!(end <= max_tokens, "token {end} of at most {max_tokens}");
        ensure!(positions.len() <= max_rows, "{} tokens at once of {max_rows}", positions.len());
        while self.blocks.len() * self.block_size < end {
            self.blocks.push(self.allocator.allocate()?);
        }
        let slot = |position: usize| -> Result<i64> {
            let block = usize::try_from(self.blocks[position / self.block_size])?;
            Ok(i64::try_from(block * self.block_size + position % self.block_size)?)
        };
        let slots = positions.clone().map(slot).collect::<Result<Vec<_>>>()?;
        self.slots.set(&slots)?;
        let last = u32::try_from(end).context("more tokens than 32 bits count")?;
        let blocks = &self.blocks;
        let rows = last - u32::try_from(positions.len())?..last;
        self.tables.set(rows.map(|position| Sequence { blocks, len: position + 1 }))?;
        self.current = positions;
        Ok(())
    }

    /// [rows, head_dim] to [rows, padded_dim], zeros at the end of each row.
    fn pad(&self, rows: &[f32]) -> Vec<f32> {
        let dim = self.shape.head_dim;
        let mut padded = vec![0.0; rows.len() / dim * self.padded_dim];
        for (to, from) in padded.chunks_exact_mut(self.padded_dim).zip(rows.chunks_exact(dim)) {
            to[..dim].copy_from_slice(from);
        }
        padded
    }

    fn run(&mut self, layer: usize, q: &[f32], k: &[f32], v: &[f32]) -> Result<Vec<f32>> {
        self.q.write(&self.pad(q))?;
        self.k.write(&self.pad(k))?;
        self.v.write(&self.pad(v))?;
        let pool = &mut self.pools[layer];
        count(&mut self.stats, pagedptx::append(pool, &self.slots, &self.k, &self.v))?;
        let sm_scale = self.shape.sm_scale;
        let args = DecodeArgs { q: &self.q, out: &mut self.out, lse: None, sm_scale };
        let one_row = self.tables.num_seqs() == 1;
        let plan = if one_row { &mut self.step_plan } else { &mut self.prompt_plan };
        count(&mut self.stats, pagedptx::decode(plan, pool, &self.tables, args))?;
        let mut padded = vec![0.0; q.len() / self.shape.head_dim * self.padded_dim];
        self.out.read(&mut padded)?;
        let heads = padded.chunks_exact(self.padded_dim);
        Ok(heads.flat_map(|head| &head[..self.shape.head_dim]).copied().collect())
    }
}

/// Counts a launch, and a finding if it failed on the device.
fn count(stats: &mut Stats, launched: pagedptx::Result<()>) -> pagedptx::Result<()> {
    let failed = matches!(launched, Err(Error::Driver { .. }));
    stats.launches += u64::from(launched.is_ok() || failed);
    stats.findings += u64::from(failed);
    launched
}

impl<D: Driver, K: Element> Attention for Paged<'_, D, K> {
    fn attend(
        &mut self,
        layer: usize,
        q: &[f32],
        k: &[f32],
        v: &[f32],
        positions: Range<usize>,
    ) -> Result<Vec<f32>> {
        let start = Instant::now();
        self.place(positions)?;
        let out = self.run(layer, q, k, v);
        self.stats.seconds += start.elapsed().as_secs_f64();
        out
    }

    fn stats(&self) -> Stats {
        self.stats
    }
}
