//! The operation: tables checked on the host, tensors checked at each call.
#![forbid(unsafe_code)]

use candle_core::{
    CpuStorage, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, WithDType, bail,
};
use pagedptx::PoolShape;

/// Attention of one query token per sequence, as `op(q, k_cache, v_cache)`: q [num_seqs, num_q_heads, head_dim], the caches
/// [num_blocks, block_size, num_kv_heads, head_dim], all of one type and contiguous.
///
/// - O1. `host` and the tensors hold the same table, whose ids are below `num_blocks` and whose lengths their rows hold.
///   Nothing writes the tensors: they are private and given to no in-place operation.
pub struct PagedDecode {
    pub(crate) num_blocks: usize,
    pub(crate) block_size: usize,
    host: Vec<(Vec<u32>, u32)>,
    /// u32 [num_seqs, max_blocks_per_seq], of 1 row and column at least.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code))]
    pub(crate) block_table: Tensor,
    /// u32 \[num_seqs\].
    #[cfg_attr(not(feature = "cuda"), expect(dead_code))]
    pub(crate) seq_lens: Tensor,
    #[cfg(feature = "cuda")]
    pub(crate) launcher: Option<crate::cuda::Launcher>,
}

impl PagedDecode {
    /// An operation on these sequences: blocks, and tokens.
    pub fn new(
        sequences: &[(&[u32], u32)],
        num_blocks: usize,
        block_size: usize,
        device: &Device,
    ) -> Result<Self> {
        let width = sequences.iter().map(|(blocks, _)| blocks.len()).max().unwrap_or(0).max(1);
        let mut table = Vec::new();
        for (seq, (blocks, len)) in sequences.iter().enumerate() {
            if blocks.len() * block_size < *len as usize {
                bail!("sequence {seq} has {len} tokens in {} blocks of {block_size}", blocks.len());
            }
            if let Some(id) = blocks.iter().find(|id| **id as usize >= num_blocks) {
                bail!("sequence {seq} has block {id}, the pool has {num_blocks}");
            }
            table.extend_from_slice(blocks);
            table.resize((seq + 1) * width, 0);
        }
        let lens: Vec<u32> = sequences.iter().map(|(_, len)| *len).collect();
        Ok(Self {
            num_blocks,
            block_size,
            host: sequences.iter().map(|(blocks, len)| (blocks.to_vec(), *len)).collect(),
            block_table: Tensor::from_vec(table, (sequences.len(), width), device)?,
            seq_lens: Tensor::from_vec(lens, sequences.len(), device)?,
            #[cfg(feature = "cuda")]
            launcher: crate::cuda::Launcher::new(device)?,
        })
    }

    /// Checks the three tensors and returns the pool's shape and the number of query heads.
    pub(crate) fn check(&self, q: &Layout, k: &Layout, v: &Layout) -> Result<(PoolShape, usize)> {
        let (num_seqs, num_q_heads, head_dim) = q.shape().dims3()?;
        let (num_blocks, block_size, num_kv_heads, kv_dim) = k.shape().dims4()?;
        if k.shape() != v.shape() || (num_blocks, block_size) != (self.num_blocks, self.block_size)
        {
            bail!("caches of {:?} and {:?}, the tables are for others", k.shape(), v.shape());
        }
        if num_seqs != self.host.len() || kv_dim != head_dim || num_q_heads % num_kv_heads != 0 {
            bail!("q of {:?} for {} sequences over {:?}", q.shape(), self.host.len(), k.shape());
        }
        if ![q, k, v].into_iter().all(Layout::is_contiguous) {
            bail!("q and the caches have to be contiguous");
        }
        Ok((PoolShape { num_blocks, block_size, num_kv_heads, head_dim }, num_q_heads))
    }

    /// The operation by plain loops, one row of q at a time.
    fn attend<T: WithDType>(
        &self,
        [q, k, v]: [&[T]; 3],
        shape: PoolShape,
        num_q_heads: usize,
    ) -> Vec<T> {
        let PoolShape { num_kv_heads, head_dim, .. } = shape;
        let mut out = Vec::with_capacity(q.len());
        for (row, q) in q.chunks(head_dim).enumerate() {
            let (blocks, len) = &self.host[row / num_q_heads];
            let kv_head = row % num_q_heads / (num_q_heads / num_kv_heads);
            let element = |token: usize| {
                let slot = blocks[token / self.block_size] as usize * self.block_size;
                ((slot + token % self.block_size) * num_kv_heads + kv_head) * head_dim
            };
            let score = |token: usize| {
                let k = &k[element(token)..][..head_dim];
                let dot: f64 = q.iter().zip(k).map(|(q, k)| q.to_f64() * k.to_f64()).sum();
                dot / (head_dim as f64).sqrt()
            };
            let scores: Vec<f64> = (0..*len as usize).map(score).collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - max).exp()).collect();
            let total: f64 = weights.iter().sum();
            out.extend((0..head_dim).map(|dim| {
                let weighted = |(token, w): (usize, &f64)| w * v[element(token) + dim].to_f64();
                let sum: f64 = weights.iter().enumerate().map(weighted).sum();
                T::from_f64(if *len == 0 { 0.0 } else { sum / total })
            }));
        }
        out
    }
}

/// The elements of a contiguous tensor.
fn elements<'a, T: WithDType>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [T]> {
    let start = layout.start_offset();
    Ok(&storage.as_slice::<T>()?[start..start + layout.shape().elem_count()])
}

impl CustomOp3 for PagedDecode {
    fn name(&self) -> &'static str {
        "paged-decode"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        q_layout: &Layout,
        k: &CpuStorage,
        k_layout: &Layout,
        v: &CpuStorage,
        v_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        use candle_core::backend::BackendStorage;
        let (shape, num_q_heads) = self.check(q_layout, k_layout, v_layout)?;
        macro_rules! attend {
            ($type:ty) => {{
                let tensors =
                    [elements(q, q_layout)?, elements(k, k_layout)?, elements(v, v_layout)?];
                <$type>::to_cpu_storage_owned(self.attend::<$type>(tensors, shape, num_q_heads))
            }};
        }
        let out = match q.dtype() {
            DType::F32 => attend!(f32),
            DType::F16 => attend!(half::f16),
            DType::BF16 => attend!(half::bf16),
            other => bail!("no decode of {other:?}"),
        };
        Ok((out, q_layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        q: &candle_core::CudaStorage,
        q_layout: &Layout,
        k: &candle_core::CudaStorage,
        k_layout: &Layout,
        v: &candle_core::CudaStorage,
        v_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let checked = self.check(q_layout, k_layout, v_layout)?;
        let out =
            crate::cuda::decode(self, checked, [(q, q_layout), (k, k_layout), (v, v_layout)])?;
        Ok((out, q_layout.shape().clone()))
    }
}
