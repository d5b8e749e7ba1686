//! Decode as a candle operation: q, K and V are candle's tensors, the launch is ours, on candle's stream.
//!
//! `cargo run -p candle-custom-op` runs the operation's CPU form against candle's own matrix products and softmax;
//! with `--features cuda` (where candle's is built, with nvcc) it runs on the GPU against the CPU form.
#![cfg_attr(not(feature = "cuda"), forbid(unsafe_code))]

#[cfg(feature = "cuda")]
mod cuda;
mod op;

use candle_core::{D, DType, Device, Result, Tensor};
use op::PagedDecode;

const NUM_BLOCKS: usize = 12;
const BLOCK_SIZE: usize = 16;
const NUM_KV_HEADS: usize = 2;
const NUM_Q_HEADS: usize = 8;
const HEAD_DIM: usize = 64;

/// Blocks and length of each sequence; the first two share a block.
const SEQUENCES: [(&[u32], u32); 4] =
    [(&[3, 7, 1], 40), (&[3, 5], 17), (&[11, 0, 9, 2], 64), (&[], 0)];

fn main() -> Result<()> {
    #[cfg(feature = "cuda")]
    let device = Device::new_cuda(0)?;
    #[cfg(not(feature = "cuda"))]
    let device = Device::Cpu;
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let pool = (NUM_BLOCKS, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM);
        let q = Tensor::randn(0f32, 1.0, (SEQUENCES.len(), NUM_Q_HEADS, HEAD_DIM), &Device::Cpu)?;
        let k = Tensor::randn(0f32, 1.0, pool, &Device::Cpu)?;
        let v = Tensor::randn(0f32, 1.0, pool, &Device::Cpu)?;
        let [q, k, v] = [q.to_dtype(dtype)?, k.to_dtype(dtype)?, v.to_dtype(dtype)?];
        let op = PagedDecode::new(&SEQUENCES, NUM_BLOCKS, BLOCK_SIZE, &device)?;
        let [q_there, k_there, v_there] =
            [q.to_device(&device)?, k.to_device(&device)?, v.to_device(&device)?];
        let out = q_there.apply_op3_no_bwd(&k_there, &v_there, &op)?.to_device(&Device::Cpu)?;
        let expected = dense(&q, &k, &v)?;
        let difference = (out.to_dtype(DType::F32)? - expected)?.abs()?.max_all()?;
        // Rounding of the output and of what is summed: a few units in the last place of values around 1.
        let tolerance = if dtype == DType::F32 { 1e-5 } else { 2e-2 };
        let difference: f32 = difference.to_scalar()?;
        println!("{dtype:?} on {:?}: largest difference {difference:e}", device.location());
        if difference > tolerance || difference.is_nan() {
            candle_core::bail!("{dtype:?}: more than {tolerance:e}");
        }
    }
    Ok(())
}

/// The same by candle's own operations on gathered K and V, in f32.
fn dense(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    let group = NUM_Q_HEADS / NUM_KV_HEADS;
    let mut rows = Vec::new();
    for (seq, (blocks, len)) in SEQUENCES.iter().enumerate() {
        if *len == 0 {
            rows.push(Tensor::zeros((NUM_Q_HEADS, HEAD_DIM), DType::F32, &Device::Cpu)?);
            continue;
        }
        let ids = Tensor::new(*blocks, &Device::Cpu)?;
        let gather = |cache: &Tensor| -> Result<Tensor> {
            let tokens = cache.index_select(&ids, 0)?.flatten(0, 1)?.narrow(0, 0, *len as usize)?;
            tokens.to_dtype(DType::F32)?.transpose(0, 1)?.contiguous()
        };
        let q = q.get(seq)?.to_dtype(DType::F32)?.reshape((NUM_KV_HEADS, group, HEAD_DIM))?;
        let scores = (q.matmul(&gather(k)?.t()?)? / (HEAD_DIM as f64).sqrt())?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        rows.push(weights.matmul(&gather(v)?)?.reshape((NUM_Q_HEADS, HEAD_DIM))?);
    }
    Tensor::stack(&rows, 0)
}
