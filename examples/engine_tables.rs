//! An engine that owns its memory calls decode through the bottom layer, from the tables that it has: FlashInfer's
//! `indptr, indices, last_page_len`, and a padded block table with lengths. Both give the same output.
//!
//! `cargo run --example engine_tables` runs on the emulator; `PAGEDPTX_DRIVER=cudarc` with `--features cudarc` on a GPU.
//!
//! The engine here is a page of code: memory by the driver's own calls, as another engine would have it from its allocator.

#[path = "../tests/any_driver/mod.rs"]
mod any_driver;

use any_driver::AnyDriver;
use pagedptx::raw::{self, CsrTable, Decode, Pool, Rows, Table, Workspace};
use pagedptx::{Device, DeviceAddress, Driver, Dtype, PoolShape, Result};

const SHAPE: PoolShape =
    PoolShape { num_blocks: 16, block_size: 16, num_kv_heads: 2, head_dim: 64 };
const NUM_Q_HEADS: usize = 14;

/// Three sequences of 37, 16 and 70 tokens.
const CSR: CsrTable<'_> = CsrTable {
    indptr: &[0, 3, 4, 9],
    indices: &[4, 11, 2, 9, 0, 15, 7, 1, 8],
    last_page_len: &[5, 16, 6],
};

/// The engine: a device, one stream, and memory that it frees itself.
struct Engine<D: Driver> {
    device: Device<D>,
    stream: D::Stream,
}

impl<D: Driver> Engine<D> {
    /// Device memory with these contents.
    fn upload<T: bytemuck::NoUninit>(&self, host: &[T]) -> Result<DeviceAddress> {
        let bytes = bytemuck::cast_slice(host);
        let address = self.device.driver().allocate(&self.stream, bytes.len())?;
        // SAFETY: the allocation has as many bytes.
        unsafe { self.device.driver().write(&self.stream, address, bytes)? };
        Ok(address)
    }

    fn download(&self, address: DeviceAddress, len: usize) -> Result<Vec<f32>> {
        let mut host = vec![0_f32; len];
        let bytes = bytemuck::cast_slice_mut(&mut host);
        // SAFETY: the callers give an allocation of `len` elements.
        unsafe { self.device.driver().read(&self.stream, address, bytes)? };
        Ok(host)
    }
}

/// What an engine with FlashInfer's tables calls: it has them on the host, where it built them.
///
/// # Safety
///
/// `q` and `out` are [num_seqs, num_q_heads, head_dim] of f32, `pool` is as it says, all of them live on the
/// engine's stream, and `out` overlaps nothing else.
unsafe fn decode_csr<D: Driver>(
    engine: &Engine<D>,
    csr: CsrTable<'_>,
    pool: Pool,
    q: DeviceAddress,
    out: DeviceAddress,
) -> Result<()> {
    let num_seqs = csr.last_page_len.len();
    let width = csr.indptr.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
    let width = width.unwrap_or(0).max(0);
    let mut block_table = vec![0; num_seqs * width as usize];
    let mut seq_lens = vec![0; num_seqs];
    let PoolShape { num_blocks, block_size, .. } = pool.shape;
    raw::pad_csr(csr, num_blocks as u32, block_size as u32, &mut block_table, &mut seq_lens)?;
    let table = Table {
        block_table: engine.upload(&block_table)?,
        seq_lens: engine.upload(&seq_lens)?,
        num_seqs,
        max_blocks_per_seq: width as usize,
    };
    // SAFETY: the caller's promise, and `pad_csr` checked what the tables hold.
    unsafe { decode_padded(engine, table, pool, q, out)? };
    for address in [table.block_table, table.seq_lens] {
        // SAFETY: allocated above on this stream, behind whose work so far it is freed.
        unsafe { engine.device.driver().free(&engine.stream, address) }
    }
    Ok(())
}

/// What an engine with a padded table on the device calls.
///
/// # Safety
///
/// As [`decode_csr`]; the lengths are ones that the rows hold, and the block ids that they use below `num_blocks`.
unsafe fn decode_padded<D: Driver>(
    engine: &Engine<D>,
    table: Table,
    pool: Pool,
    q: DeviceAddress,
    out: DeviceAddress,
) -> Result<()> {
    let head_dim = pool.shape.head_dim;
    let (max_seqs, max_blocks_per_seq) = (table.num_seqs, table.max_blocks_per_seq);
    // An engine makes this once, for the most that it will ever call with.
    let bytes = raw::workspace_bytes(
        Dtype::F32,
        Dtype::F32,
        pool.shape,
        NUM_Q_HEADS,
        max_seqs,
        max_blocks_per_seq,
    )?;
    let workspace =
        Workspace { address: engine.upload(&vec![0_u8; bytes])?, max_seqs, max_blocks_per_seq };
    let args = Decode {
        q: Rows::contiguous(q, Dtype::F32, NUM_Q_HEADS, head_dim),
        out: Rows::contiguous(out, Dtype::F32, NUM_Q_HEADS, head_dim),
        lse: None,
        pool,
        table,
        num_q_heads: NUM_Q_HEADS,
        sm_scale: 1.0 / (head_dim as f32).sqrt(),
        workspace,
        error_word: None,
    };
    // SAFETY: the caller's promise; the workspace is new and has the bytes asked for.
    unsafe { raw::decode(&engine.device, &engine.stream, &args)? };
    // SAFETY: allocated above on this stream, behind whose work so far it is freed.
    unsafe { engine.device.driver().free(&engine.stream, workspace.address) }
    Ok(())
}

/// Reproducible values in −1..1.
fn noise(seed: u32, len: usize) -> Vec<f32> {
    let mut bits = seed;
    let next = || {
        bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        bits as i32 as f32 / i32::MAX as f32
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn main() -> Result<()> {
    let device = Device::new(AnyDriver::from_env(Default::default())?)?;
    println!("on {}", device.properties().name);
    let engine = Engine { stream: device.driver().create_stream()?, device };
    let elems = SHAPE.num_slots()? * SHAPE.num_kv_heads * SHAPE.head_dim;
    let k = engine.upload(&noise(1, elems))?;
    let v = engine.upload(&noise(2, elems))?;
    let pool = Pool::nhd(k, v, Dtype::F32, SHAPE);
    let rows = CSR.last_page_len.len() * NUM_Q_HEADS * SHAPE.head_dim;
    let q = engine.upload(&noise(3, rows))?;
    let (out_csr, out_padded) =
        (engine.upload(&vec![0_f32; rows])?, engine.upload(&vec![0_f32; rows])?);

    // SAFETY: allocated above with these sizes, on the engine's stream.
    unsafe { decode_csr(&engine, CSR, pool, q, out_csr)? };

    let block_table: [[u32; 5]; 3] = [[4, 11, 2, 0, 0], [9, 0, 0, 0, 0], [0, 15, 7, 1, 8]];
    let table = Table {
        block_table: engine.upload(&block_table)?,
        seq_lens: engine.upload(&[37_u32, 16, 70])?,
        num_seqs: 3,
        max_blocks_per_seq: 5,
    };
    // SAFETY: as above; the lengths need 3, 1 and 5 blocks, whose ids are below 16.
    unsafe { decode_padded(&engine, table, pool, q, out_padded)? };

    let (from_csr, from_padded) =
        (engine.download(out_csr, rows)?, engine.download(out_padded, rows)?);
    assert_eq!(from_csr, from_padded, "two forms of one table");
    assert!(from_csr.iter().all(|x| x.is_finite() && *x != 0.0));
    println!("{} values from either table, the same bits; first {}", rows, from_csr[0]);
    for address in [k, v, q, out_csr, out_padded, table.block_table, table.seq_lens] {
        // SAFETY: allocated above, freed once, behind all work.
        unsafe { engine.device.driver().free(&engine.stream, address) }
    }
    Ok(())
}
