//! No sizes, strides, addresses or contents make a call panic or wrap, however large: they are taken or are error values. On a device that has
//! any amount of memory and does nothing, with checks for overflow on.

mod nothing;

use half::f16;
use pagedptx::raw::{self, Append, Decode, Pool, Rows, Table, Workspace};
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, DeviceAddress, DeviceTables, Dtype,
    Element, KvPool, PoolShape, Result, Sequence, SlotMapping, append, decode, decode_checked,
};
use proptest::prelude::*;

use crate::nothing::Nothing;

/// Mostly small or near a power of two that is allowed, now and then anything.
fn size() -> impl Strategy<Value = usize> {
    let near = |exponent: u32, off: usize| (1_usize << exponent).wrapping_add(off).wrapping_sub(2);
    prop_oneof![
        20 => 1..20_usize,
        10 => (0..32_u32, 0..5_usize).prop_map(move |(exponent, off)| near(exponent, off)),
        1 => (32..64_u32, 0..5_usize).prop_map(move |(exponent, off)| near(exponent, off)),
        1 => any::<usize>(),
    ]
}

/// As [`size`], mostly multiples of 8.
fn stride() -> impl Strategy<Value = u64> {
    prop_oneof![4 => size().prop_map(|size| (size as u64).wrapping_mul(8)), 1 => any::<u64>()]
}

prop_compose! {
    fn shapes()(
        num_blocks in size(),
        block_size in size(),
        num_kv_heads in size(),
        head_dim in prop_oneof![9 => (1..33_usize).prop_map(|groups| 8 * groups), 1 => size()],
    ) -> PoolShape {
        PoolShape { num_blocks, block_size, num_kv_heads, head_dim }
    }
}

/// Everything of the safe layer, from a pool to its launches.
fn safe<Q: Element, K: Element>(
    device: &Device<Nothing>,
    shape: PoolShape,
    [num_q_heads, max_seqs, max_blocks, max_tokens]: [usize; 4],
    (ids, lens, slots): (&[u32], &[u32], &[i64]),
) -> Result<()> {
    let stream = device.stream()?;
    let mut pool = KvPool::<_, K>::new(&stream, shape)?;
    pool.copy_blocks(&[(ids[0], ids[1])])
        .or_else(|_| pool.copy_blocks(&[(0, shape.num_blocks as u32 - 1)]))?;
    let mapping = SlotMapping::new(&stream, shape, max_tokens).and_then(|mut mapping| {
        mapping.set(slots)?;
        Ok(mapping)
    });
    if let Ok(mapping) = mapping {
        // As large as wanted: the device has any amount of memory.
        let new = Buffer::<_, Q>::uninit(&stream, 1 << 40)?;
        append(&mut pool, &mapping, &new, &new)?;
    }
    let mut plan = DecodePlan::<_, Q, K>::new(&stream, shape, num_q_heads, max_seqs, max_blocks)?;
    let q = Buffer::<_, Q>::uninit(&stream, 1 << 60)?;
    let mut out = Buffer::<_, Q>::uninit(&stream, 1 << 60)?;
    let (block_table, seq_lens) =
        (Buffer::uninit(&stream, 1 << 60)?, Buffer::uninit(&stream, max_seqs)?);
    let mut tables = DeviceTables::new(shape, block_table, seq_lens, max_blocks)?;
    decode_checked(
        &mut plan,
        &pool,
        &tables,
        DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: 1.0 },
    )?;
    let _ = tables.set_num_seqs(num_q_heads);
    decode_checked(
        &mut plan,
        &pool,
        &tables,
        DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: -0.0 },
    )?;
    let mut tables = BlockTables::new(&stream, shape, max_seqs, max_blocks)?;
    // A row of the host's copy is as long as the table is wide.
    if max_blocks < 1 << 16 {
        tables.set(lens.iter().map(|&len| Sequence { blocks: ids, len }))?;
        decode(
            &mut plan,
            &pool,
            &tables,
            DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: f32::MAX },
        )?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every size of a pool, plan, table and mapping, and every content, is taken or an error.
    #[test]
    fn no_size_makes_the_safe_layer_panic(
        shape in shapes(),
        group in size(),
        sizes in (size(), size(), size()),
        ids in prop::collection::vec(prop_oneof![3 => 0..20_u32, 1 => any::<u32>()], 2..9),
        lens in prop::collection::vec(prop_oneof![3 => 0..99_u32, 1 => any::<u32>()], 0..4),
        slots in prop::collection::vec(prop_oneof![3 => 0..99_i64, 1 => any::<i64>()], 0..4),
        shared in prop_oneof![4 => Just(227_u32 << 10), 1 => any::<u32>()],
    ) {
        let device = Device::new(Nothing::new(shared)).unwrap();
        let sizes = [shape.num_kv_heads.wrapping_mul(group), sizes.0, sizes.1, sizes.2];
        let _ = shape.num_slots();
        let contents = (&ids[..], &lens[..], &slots[..]);
        let _ = safe::<f16, f16>(&device, shape, sizes, contents);
        let _ = safe::<f32, f16>(&device, shape, sizes, contents);
        let _ = safe::<f32, f32>(&device, shape, sizes, contents);
    }

    /// Every size, stride and address of the raw layer is taken or an error.
    #[test]
    fn no_size_makes_the_raw_layer_panic(
        shape in shapes(),
        group in size(),
        (max_seqs, max_blocks, num_seqs, width, num_tokens) in (size(), size(), size(), size(), size()),
        strides in (stride(), stride(), stride(), stride(), stride()),
        layout in 0..3,
        dtypes in (0..3_usize, 0..3_usize),
        address in prop_oneof![9 => Just(1 << 20), 1 => any::<u64>(), 1 => (0..99_u64).prop_map(|blocks| (16 * blocks).wrapping_neg())],
        sm_scale: f32,
    ) {
        let device = Device::new(Nothing::new(227 << 10)).unwrap();
        let dtype = |index: usize| [Dtype::F32, Dtype::F16, Dtype::Bf16][index];
        let (dtype, kv_dtype) = (dtype(dtypes.0), dtype(dtypes.1));
        let num_q_heads = shape.num_kv_heads.wrapping_mul(group);
        let address = DeviceAddress(address);
        let pool = match layout {
            0 => Pool::nhd(address, address, kv_dtype, shape),
            1 => Pool::hnd(address, address, kv_dtype, shape),
            _ => Pool {
                k: address,
                v: address,
                dtype: kv_dtype,
                shape,
                block_stride: strides.0,
                token_stride: strides.1,
                head_stride: strides.2,
            },
        };
        let rows = Rows::contiguous(address, dtype, num_q_heads, shape.head_dim);
        let q = if layout == 2 { Rows { token_stride: strides.3, head_stride: strides.4, ..rows } } else { rows };
        let args = Decode {
            q,
            out: rows,
            lse: Some(address),
            pool,
            table: Table { block_table: address, seq_lens: address, num_seqs, max_blocks_per_seq: width },
            num_q_heads,
            sm_scale,
            workspace: Workspace { address, max_seqs, max_blocks_per_seq: max_blocks },
            error_word: None,
        };
        let new = Rows::contiguous(address, dtype, shape.num_kv_heads, shape.head_dim);
        let appended = Append { k_new: new, v_new: new, pool, slot_mapping: address, num_tokens };
        // SAFETY: the device does nothing.
        let _ = unsafe { raw::decode(&device, &(), &args) };
        // SAFETY: as above.
        let _ = unsafe { raw::append(&device, &(), &appended) };
        let _ = raw::workspace_bytes(dtype, kv_dtype, shape, num_q_heads, max_seqs, max_blocks);
        let _ = raw::check_error_word(strides.0, shape, max_blocks);
    }
}
