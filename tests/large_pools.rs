//! Pools of more than 2³² elements, through the safe layer: no block's address wraps. On the emulator, which pays only for what is touched,
//! or the driver that `PAGEDPTX_DRIVER` names.

mod any_driver;

use half::f16;
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Element, Error, KvPool, PoolShape, Result,
    Sequence, SlotMapping, append, decode,
};
use pagedptx_harness::EmulatorOptions;

const BLOCK_SIZE: usize = 16;
const HEADS: usize = 2;
const HEAD_DIM: usize = 128;

/// Blocks of 2³² elements.
const MANY: u32 = (1_u64 << 32).div_euclid((BLOCK_SIZE * HEADS * HEAD_DIM) as u64) as u32;

/// Reproducible values in −1..1.
fn noise<T>(seed: u32, len: usize, value: fn(f32) -> T) -> Vec<T> {
    let bits = |i: u32| (seed ^ i.wrapping_mul(0x9E37_79B9)).wrapping_mul(0x85EB_CA6B);
    (0..len as u32)
        .map(|i| value((bits(i) ^ (bits(i) >> 15)) as i32 as f32 / i32::MAX as f32))
        .collect()
}

/// Appends 47 tokens to the last three of these blocks, copies two of them to the first two, and attends to these and the last.
/// Returns the bytes of the output.
fn step<Q: Element>(num_blocks: u32, blocks: [u32; 5], value: fn(f32) -> Q) -> Result<Vec<u8>> {
    let device = any_driver::device(EmulatorOptions::default());
    let stream = device.stream()?;
    let shape = PoolShape {
        num_blocks: num_blocks as usize,
        block_size: BLOCK_SIZE,
        num_kv_heads: HEADS,
        head_dim: HEAD_DIM,
    };
    let mut pool = KvPool::<_, f16>::new(&stream, shape)?;
    let [to_0, to_1, from_0, from_1, last] = blocks;
    let num_tokens = 3 * BLOCK_SIZE - 1;
    let slots: Vec<i64> = [from_0, from_1, last]
        .into_iter()
        .flat_map(|block| {
            (0..BLOCK_SIZE as i64).map(move |slot| i64::from(block) * BLOCK_SIZE as i64 + slot)
        })
        .take(num_tokens)
        .collect();
    let mut mapping = SlotMapping::new(&stream, shape, num_tokens)?;
    mapping.set(&slots)?;
    let new =
        |seed| Buffer::from_slice(&stream, &noise(seed, num_tokens * HEADS * HEAD_DIM, value));
    append(&mut pool, &mapping, &new(1)?, &new(2)?)?;
    pool.copy_blocks(&[(from_0, to_0), (from_1, to_1)])?;

    let mut plan = DecodePlan::<_, Q, f16>::new(&stream, shape, 2 * HEADS, 1, 3)?;
    let mut tables = BlockTables::new(&stream, shape, 1, 3)?;
    tables.set([Sequence { blocks: &[to_0, to_1, last], len: num_tokens as u32 }])?;
    let q = Buffer::from_slice(&stream, &noise(3, 2 * HEADS * HEAD_DIM, value))?;
    let mut out = Buffer::uninit(&stream, q.len())?;
    let args = DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: 0.5 };
    decode(&mut plan, &pool, &tables, args)?;
    Ok(bytemuck::cast_slice(&out.to_vec()?).to_vec())
}

/// Tokens appended, copied and attended to give the same bits wherever their blocks lie.
fn a_large_pool_gives_the_bits_of_a_small_one<Q: Element>(value: fn(f32) -> Q) {
    let small = step(5, [0, 1, 2, 3, 4], value).unwrap();
    let half = MANY / 2;
    // 2³¹ and 2³² elements lie between any two of these.
    for blocks in [
        [MANY + 2, 0, 1, MANY + 1, half],
        [half, MANY, 0, half - 1, MANY + 2],
        [0, half + 1, MANY, MANY - 1, 1],
    ] {
        match step(MANY + 3, blocks, value) {
            Ok(large) => assert!(large == small, "{blocks:?}"),
            Err(Error::OutOfMemory { bytes }) => {
                eprintln!("skipped: blocks {blocks:?}, there are no {bytes} bytes");
            }
            Err(error) => panic!("{blocks:?}: {error}"),
        }
    }
}

#[test]
fn a_large_pool_on_the_cuda_cores() {
    a_large_pool_gives_the_bits_of_a_small_one::<f32>(|value| value);
}

#[test]
fn a_large_pool_on_the_tensor_cores() {
    a_large_pool_gives_the_bits_of_a_small_one::<f16>(f16::from_f32);
}
