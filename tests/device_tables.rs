//! Tables that live on the device and that nobody checked, through the safe layer: nothing they hold reads outside the pool, and the
//! first offender is an error value that names it. Runs on the emulator or the driver that `PAGEDPTX_DRIVER` names.

mod any_driver;

use std::rc::Rc;

use half::{bf16, f16};
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, DeviceTables, Driver, Element, Error,
    KvPool, PoolShape, Result, Stream, TableEntry, decode, decode_checked,
};
use pagedptx_harness::EmulatorOptions;

use crate::any_driver::AnyDriver;

const SHAPE: PoolShape =
    PoolShape { num_blocks: 120, block_size: 16, num_kv_heads: 2, head_dim: 40 };
const WIDTH: usize = 40;
const NUM_SEQS: usize = 3;
const SM_SCALE: f32 = 0.25;

/// 550 tokens are two chunks or more.
const LENS: [u32; NUM_SEQS] = [33, 550, 40];

/// Sequence i has blocks 40 i to 40 i + 39, backwards. What lies past a sequence's tokens is no block's id.
fn ids() -> Vec<u32> {
    let mut ids: Vec<u32> = (0..120).map(|entry| entry / 40 * 40 + 39 - entry % 40).collect();
    for (row, len) in ids.chunks_mut(WIDTH).zip(LENS) {
        row[len.div_ceil(16) as usize..].fill(0xDEAD_BEEF);
    }
    ids
}

/// Everything of a call but its tables.
struct Call<'s, D: Driver, T: Element> {
    plan: DecodePlan<'s, D, T, T>,
    pool: KvPool<'s, D, T>,
    q: Buffer<'s, D, T>,
    out: Buffer<'s, D, T>,
}

impl<'s, D: Driver, T: Element> Call<'s, D, T> {
    fn new(stream: &'s Stream<D>, group_size: usize, value: fn(f32) -> T) -> Result<Self> {
        let mut pool = KvPool::new(stream, SHAPE)?;
        let values = |count: usize, step: usize| -> Vec<T> {
            (0..count).map(|i| value((i * step % 29) as f32 / 16.0 - 0.75)).collect()
        };
        pool.write_k(&values(pool.k().len(), 7))?;
        pool.write_v(&values(pool.v().len(), 11))?;
        let num_q_heads = SHAPE.num_kv_heads * group_size;
        let q = values(NUM_SEQS * num_q_heads * SHAPE.head_dim, 5);
        Ok(Self {
            plan: DecodePlan::new(stream, SHAPE, num_q_heads, NUM_SEQS, WIDTH)?,
            pool,
            out: Buffer::zeroed(stream, q.len())?,
            q: Buffer::from_slice(stream, &q)?,
        })
    }

    /// The output's bytes, sequence by sequence.
    fn run(&mut self, tables: &DeviceTables<'s, D>) -> Result<Vec<Vec<u8>>> {
        self.out.fill_bytes(0xFF)?;
        let args = DecodeArgs { q: &self.q, out: &mut self.out, lse: None, sm_scale: SM_SCALE };
        decode_checked(&mut self.plan, &self.pool, tables, args)?;
        self.rows()
    }

    fn rows(&self) -> Result<Vec<Vec<u8>>> {
        let out = self.out.to_vec()?;
        let bytes: &[u8] = bytemuck::cast_slice(&out);
        Ok(bytes.chunks(bytes.len() / NUM_SEQS).map(<[u8]>::to_vec).collect())
    }
}

fn device(seed: u64) -> Rc<Device<AnyDriver>> {
    any_driver::device(EmulatorOptions {
        seed,
        num_multiprocessors: 2,
        ..EmulatorOptions::default()
    })
}

fn tables<'s, D: Driver>(
    stream: &'s Stream<D>,
    ids: &[u32],
    lens: &[u32],
) -> Result<DeviceTables<'s, D>> {
    let (ids, lens) = (Buffer::from_slice(stream, ids)?, Buffer::from_slice(stream, lens)?);
    DeviceTables::new(SHAPE, ids, lens, WIDTH)
}

/// Wild contents, and what is reported of them.
fn wild() -> Vec<(&'static str, Vec<u32>, [u32; NUM_SEQS], Error)> {
    let report = |entry, seq, value| {
        let limit = if entry == TableEntry::BlockId { 119 } else { 640 };
        Error::DeviceTable { entry, seq, value, limit }
    };
    let id = |seq, value| report(TableEntry::BlockId, seq, value);
    let len = |seq, value| report(TableEntry::SeqLen, seq, value);
    let with = |changes: &[(usize, u32)]| {
        let mut ids = ids();
        changes.iter().for_each(|&(entry, id)| ids[entry] = id);
        ids
    };
    vec![
        ("one past the last block", with(&[(2, 120)]), LENS, id(0, 120)),
        ("a negative id", with(&[(WIDTH + 7, u32::MAX)]), LENS, id(1, u32::MAX)),
        (
            "the largest of several",
            with(&[(WIDTH, 121), (WIDTH + 1, 1 << 31), (WIDTH + 2, 177)]),
            LENS,
            id(1, 1 << 31),
        ),
        (
            "the first of two sequences",
            with(&[(WIDTH, 140), (2 * WIDTH + 1, 150)]),
            LENS,
            id(1, 140),
        ),
        ("one token too many", ids(), [641, 550, 40], len(0, 641)),
        ("a negative length", ids(), [33, 550, (-5_i32).cast_unsigned()], len(2, u32::MAX - 4)),
        ("a length before an id", with(&[(0, 199)]), [33, 1 << 30, 40], len(1, 1 << 30)),
    ]
}

/// Whatever tables on the device hold, no access leaves the pool or the table, the first offender is an error value that names sequence,
/// kind, value and limit, and all sequences that are in order have the bits that the host's tables give.
fn wild_tables<T: Element>(group_size: usize, value: fn(f32) -> T) {
    for seed in 0..2 {
        let device = device(seed);
        let stream = device.stream().unwrap();
        let mut call = Call::new(&stream, group_size, value).unwrap();
        let mut checked = BlockTables::new(&stream, SHAPE, NUM_SEQS, WIDTH).unwrap();
        checked.set_padded(&ids(), WIDTH, &LENS).unwrap();
        let args = DecodeArgs { q: &call.q, out: &mut call.out, lse: None, sm_scale: SM_SCALE };
        decode(&mut call.plan, &call.pool, &checked, args).unwrap();
        let want = call.rows().unwrap();

        let mut tables = tables(&stream, &ids(), &LENS).unwrap();
        assert_eq!(call.run(&tables).unwrap(), want, "tables in order");
        assert_eq!(tables.check(), Ok(()));
        for (name, ids, lens, report) in wild() {
            tables.block_table_mut().write(&ids).unwrap();
            tables.seq_lens_mut().write(&lens).unwrap();
            let got = call.run(&tables).unwrap();
            for seq in 0..NUM_SEQS {
                let used = lens[seq].div_ceil(16) as usize;
                let fine = used <= WIDTH && ids[seq * WIDTH..][..used].iter().all(|id| *id < 120);
                let is_reported =
                    matches!(report, Error::DeviceTable { seq: first, .. } if first == seq);
                assert!(!(fine && is_reported), "{name}: {seq}");
                assert!(!fine || got[seq] == want[seq], "{name}, seed {seed}: sequence {seq}");
            }
            assert_eq!(tables.check(), Err(report), "{name}, seed {seed}");
            assert_eq!(tables.check(), Ok(()), "{name}: a report is taken once");
        }
        // What was mended is as if it had never been wild.
        tables.block_table_mut().write(&ids()).unwrap();
        tables.seq_lens_mut().write(&LENS).unwrap();
        assert_eq!(call.run(&tables).unwrap(), want);
        assert_eq!(tables.check(), Ok(()));
    }
}

#[test]
fn wild_tables_on_the_cuda_cores() {
    wild_tables::<f32>(3, |value| value);
}

#[test]
fn wild_tables_on_the_tensor_cores() {
    wild_tables::<f16>(3, f16::from_f32);
    wild_tables::<bf16>(12, bf16::from_f32);
}

#[test]
fn wild_tables_with_wide_groups() {
    wild_tables::<f16>(20, f16::from_f32);
}

/// Reports of several launches are kept until they are asked for, and fewer sequences are not looked at beyond their number.
#[test]
fn reports_wait_and_sequences_past_the_number_are_not_read() {
    let device = device(0);
    let stream = device.stream().unwrap();
    let mut call = Call::new(&stream, 2, |value| value).unwrap();
    let mut tables = tables(&stream, &ids(), &[33, 550, 999]).unwrap();
    tables.set_num_seqs(2).unwrap();
    call.run(&tables).unwrap();
    assert_eq!(tables.check(), Ok(()));
    tables.set_num_seqs(3).unwrap();
    call.run(&tables).unwrap();
    tables.seq_lens_mut().write(&LENS).unwrap();
    call.run(&tables).unwrap();
    let error = tables.check().unwrap_err();
    assert_eq!(
        error.to_string(),
        "sequence 2 of a table on the device has length 999, the limit is 640; its results are wrong"
    );
}

/// Buffers that do not hold what the tables say, on construction or put in later, are errors, and nothing is launched.
#[test]
fn buffers_that_are_too_short_are_refused() {
    let device = device(0);
    let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
    let mut call = Call::new(&stream, 2, |value| value).unwrap();
    let too_short = |what, len, needed| Err(Error::TooShort { what, len, needed });
    assert_eq!(tables(&stream, &ids()[1..], &LENS).map(|_| ()), too_short("block_table", 119, 120));
    let lens = Buffer::from_slice(&other, &LENS).unwrap();
    let mixed = DeviceTables::new(SHAPE, Buffer::from_slice(&stream, &ids()).unwrap(), lens, WIDTH);
    assert_eq!(mixed.map(|_| ()), Err(Error::OtherStream { what: "the lengths" }));

    let mut tables = tables(&stream, &ids(), &LENS).unwrap();
    assert_eq!(tables.set_num_seqs(4), too_short("block_table", 120, 160));
    assert_eq!(tables.num_seqs(), 3);
    *tables.seq_lens_mut() = Buffer::zeroed(&stream, 2).unwrap();
    let launches = device.driver().launches();
    assert_eq!(call.run(&tables).map(|_| ()), too_short("seq_lens", 2, 3));
    *tables.seq_lens_mut() = Buffer::from_slice(&other, &LENS).unwrap();
    let refused = call.run(&tables).map(|_| ());
    assert_eq!(refused, Err(Error::OtherStream { what: "the lengths" }));
    assert_eq!(device.driver().launches(), launches);
}

/// Tables whose buffers were all replaced by those of another stream cannot be used there: their report is of the first one, which
/// would free it without regard to the launch.
#[test]
fn tables_do_not_move_to_another_stream() {
    let device = device(0);
    let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
    let mut tables = tables(&stream, &ids(), &LENS).unwrap();
    *tables.block_table_mut() = Buffer::from_slice(&other, &ids()).unwrap();
    *tables.seq_lens_mut() = Buffer::from_slice(&other, &LENS).unwrap();
    let mut call = Call::new(&other, 2, |value| value).unwrap();
    let launches = device.driver().launches();
    let refused = call.run(&tables).map(|_| ());
    assert_eq!(refused, Err(Error::OtherStream { what: "the report of the tables" }));
    assert_eq!(device.driver().launches(), launches);
}
