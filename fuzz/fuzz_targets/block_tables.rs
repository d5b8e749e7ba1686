//! Any tables, lengths and slots through the safe API: refused exactly when they are wrong, and what is taken runs without a
//! finding.
#![no_main]

use arbitrary::Arbitrary;
use half::f16;
use libfuzzer_sys::fuzz_target;
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, Error, KvPool, PoolShape, Result, Sequence, SlotMapping, append,
    decode,
};
use pagedptx_harness::{EmulatorDriver, EmulatorOptions};

#[derive(Debug, Arbitrary)]
struct Input {
    num_blocks: u8,
    block_size: u8,
    num_kv_heads: u8,
    group_size: u8,
    head_dim: u8,
    max_seqs: u8,
    max_blocks: u8,
    max_tokens: u8,
    seed: u64,
    steps: Vec<Step>,
}

#[derive(Debug, Arbitrary)]
enum Step {
    Tables(Vec<Row>),
    Padded { width: u8, table: Vec<u32>, lens: Vec<u16> },
    Slots(Vec<Slot>),
    Append,
    Decode { rows: u8, lse: bool, scale: f32 },
    CopyBlocks(Vec<(u8, u8)>),
}

#[derive(Debug, Arbitrary)]
struct Row {
    blocks: Vec<Id>,
    len: u16,
}

/// A block id: mostly one of the pool.
#[derive(Debug, Arbitrary)]
enum Id {
    Near(u8),
    Any(u32),
}

#[derive(Debug, Arbitrary)]
enum Slot {
    Near(u8),
    Skip,
    Any(i64),
}

impl Id {
    fn get(&self, shape: &PoolShape) -> u32 {
        match *self {
            // One past the last block is drawn too.
            Id::Near(id) => u32::from(id) % (shape.num_blocks as u32 + 1),
            Id::Any(id) => id,
        }
    }
}

/// Whether a table's rows may be set: T1 and T2 of `BlockTables`, worked out from the input alone.
fn fit(rows: &[(Vec<u32>, u32)], shape: &PoolShape, max_seqs: usize, max_blocks: usize) -> bool {
    rows.len() <= max_seqs
        && rows.iter().all(|(blocks, len)| {
            let used = (*len as usize).div_ceil(shape.block_size);
            used <= blocks.len().min(max_blocks) && blocks[..used].iter().all(|&id| (id as usize) < shape.num_blocks)
        })
}

/// Fails where a right call was refused, a wrong one taken, or a kernel touched what it must not.
fn judge(result: Result<()>, right: bool, what: &str) -> bool {
    match &result {
        Err(Error::Driver { .. }) => panic!("{what}: {result:?}"),
        _ => assert_eq!(result.is_ok(), right, "{what}: {result:?}"),
    }
    result.is_ok()
}

fn run(input: &Input) -> Result<()> {
    let shape = PoolShape {
        num_blocks: usize::from(input.num_blocks % 6) + 1,
        block_size: usize::from(input.block_size % 18) + 1,
        num_kv_heads: usize::from(input.num_kv_heads % 3) + 1,
        head_dim: (usize::from(input.head_dim % 9) + 1) * 8,
    };
    let num_q_heads = shape.num_kv_heads * (usize::from(input.group_size % 9) + 1);
    let (max_seqs, max_blocks) = (usize::from(input.max_seqs % 5) + 1, usize::from(input.max_blocks % 5) + 1);
    let max_tokens = usize::from(input.max_tokens % 9) + 1;
    let row = shape.num_kv_heads * shape.head_dim;
    let slots_of_pool = shape.num_blocks * shape.block_size;

    let device = Device::new(EmulatorDriver::new(EmulatorOptions { seed: input.seed, threads: 1, ..EmulatorOptions::default() }))?;
    let stream = device.stream()?;
    let mut pool = KvPool::<_, f16>::new(&stream, shape)?;
    let values: Vec<f16> = (0..slots_of_pool * row).map(|i| f16::from_f32((i % 7) as f32 - 3.0)).collect();
    pool.write_k(&values)?;
    pool.write_v(&values)?;
    let mut plan = DecodePlan::<_, f16, f16>::new(&stream, shape, num_q_heads, max_seqs, max_blocks)?;
    let mut tables = BlockTables::new(&stream, shape, max_seqs, max_blocks)?;
    let mut mapping = SlotMapping::new(&stream, shape, max_tokens)?;
    let new = Buffer::from_slice(&stream, &vec![f16::ONE; max_tokens * row])?;
    let q = Buffer::from_slice(&stream, &vec![f16::ONE; max_seqs * num_q_heads * shape.head_dim])?;
    let mut lse = Buffer::uninit(&stream, max_seqs * num_q_heads)?;

    for step in input.steps.iter().take(8) {
        match step {
            Step::Tables(rows) => {
                let rows: Vec<(Vec<u32>, u32)> = rows
                    .iter()
                    .map(|r| (r.blocks.iter().map(|id| id.get(&shape)).collect(), u32::from(r.len) % 128))
                    .collect();
                let right = fit(&rows, &shape, max_seqs, max_blocks);
                let result = tables.set(rows.iter().map(|(blocks, len)| Sequence { blocks, len: *len }));
                let taken = judge(result, right, "BlockTables::set");
                assert_eq!(tables.num_seqs(), if taken { rows.len() } else { 0 });
            }
            Step::Padded { width, table, lens } => {
                let width = usize::from(*width);
                let lens: Vec<u32> = lens.iter().map(|&l| l.into()).collect();
                let rows = || table.chunks(width.max(1)).map(<[u32]>::to_vec).chain(std::iter::repeat(Vec::new()));
                let rows: Vec<(Vec<u32>, u32)> = rows().zip(lens.iter().copied()).collect();
                let right = width * lens.len() == table.len() && fit(&rows, &shape, max_seqs, max_blocks);
                judge(tables.set_padded(table, width, &lens), right, "BlockTables::set_padded");
            }
            Step::Slots(slots) => {
                let slots: Vec<i64> = slots
                    .iter()
                    .map(|slot| match *slot {
                        Slot::Near(s) => i64::from(s) % (slots_of_pool as i64 + 1),
                        Slot::Skip => -1,
                        Slot::Any(s) => s,
                    })
                    .collect();
                let mut written: Vec<i64> = slots.iter().copied().filter(|&s| s >= 0).collect();
                written.sort_unstable();
                let once = written.windows(2).all(|pair| pair[0] != pair[1]);
                let right = slots.len() <= max_tokens && once && written.iter().all(|&s| s < slots_of_pool as i64);
                judge(mapping.set(&slots), right, "SlotMapping::set");
            }
            Step::Append => {
                judge(append(&mut pool, &mapping, &new, &new), true, "append");
            }
            Step::Decode { rows, lse: with_lse, scale } => {
                let rows = usize::from(*rows) % (max_seqs + 1);
                let mut out = Buffer::uninit(&stream, rows * num_q_heads * shape.head_dim)?;
                let lse = with_lse.then_some(&mut lse);
                let right = rows >= tables.num_seqs() && scale.is_finite();
                let args = DecodeArgs { q: &q, out: &mut out, lse, sm_scale: *scale };
                judge(decode(&mut plan, &pool, &tables, args), right, "decode");
            }
            Step::CopyBlocks(pairs) => {
                let ids: Vec<u32> = (0..=shape.num_blocks as u32).collect();
                let pick = |at: u8| ids[usize::from(at) % ids.len()];
                let pairs: Vec<(u32, u32)> = pairs.iter().take(8).map(|&(a, b)| (pick(a), pick(b))).collect();
                if let Err(error @ Error::Driver { .. }) = pool.copy_blocks(&pairs) {
                    panic!("copy_blocks: {error}");
                }
            }
        }
        stream.synchronize().expect("no finding");
    }
    Ok(())
}

fuzz_target!(|input: Input| run(&input).expect("shapes are in range"));
