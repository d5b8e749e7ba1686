//! Every error of the API, and that a call that fails has changed nothing.

use half::{bf16, f16};
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, Error, KvPool, PoolShape, Sequence,
    SlotMapping, Stream, append, decode,
};
use pagedptx_harness::EmulatorDriver;

const SHAPE: PoolShape = PoolShape { num_blocks: 6, block_size: 4, num_kv_heads: 2, head_dim: 16 };

fn device() -> Device<EmulatorDriver> {
    Device::new(EmulatorDriver::default()).unwrap()
}

#[test]
fn a_shape_outside_the_limits_is_an_error() {
    let with = |change: fn(&mut PoolShape)| {
        let mut shape = SHAPE;
        change(&mut shape);
        shape.check().unwrap_err()
    };
    assert_eq!(with(|s| s.num_blocks = 0), Error::Zero { what: "num_blocks" });
    assert_eq!(with(|s| s.block_size = 0), Error::Zero { what: "block_size" });
    assert_eq!(with(|s| s.num_kv_heads = 0), Error::Zero { what: "num_kv_heads" });
    for (head_dim, change) in [
        (0, (|s| s.head_dim = 0) as fn(&mut PoolShape)),
        (12, |s| s.head_dim = 12),
        (264, |s| s.head_dim = 264),
    ] {
        assert_eq!(with(change), Error::HeadDim { head_dim, limit: 256 });
    }
    let limit = i32::MAX as u64;
    assert_eq!(
        with(|s| s.num_blocks = 1 << 31),
        Error::TooLarge { what: "num_blocks", value: 1 << 31, limit }
    );
    assert_eq!(
        with(|s| s.block_size = usize::MAX),
        Error::TooLarge { what: "block_size", value: u64::MAX, limit }
    );
    assert_eq!(
        with(|s| s.num_kv_heads = 65_536),
        Error::TooLarge { what: "num_kv_heads", value: 65_536, limit: 65_535 }
    );
    let huge =
        |s: &mut PoolShape| (s.num_blocks, s.block_size) = (i32::MAX as usize, i32::MAX as usize);
    assert_eq!(with(huge), Error::Overflow { what: "elements of the pool" });
}

#[test]
fn memory_that_cannot_be_had_is_an_error() {
    let device = device();
    let stream = device.stream().unwrap();
    let shape = PoolShape { num_blocks: 1 << 30, block_size: 1 << 16, ..SHAPE };
    let bytes = shape.num_blocks * shape.block_size * 2 * 16 * 2;
    assert_eq!(KvPool::<_, f16>::new(&stream, shape).unwrap_err(), Error::OutOfMemory { bytes });
    assert_eq!(
        Buffer::<_, f32>::uninit(&stream, usize::MAX / 2).unwrap_err(),
        Error::Overflow { what: "bytes of a buffer" }
    );
}

mod buffer {
    use super::*;

    #[test]
    fn too_long_a_copy_is_an_error() {
        let device = device();
        let stream = device.stream().unwrap();
        let mut buffer = Buffer::from_slice(&stream, &[1_u32, 2, 3]).unwrap();
        let error = Error::TooShort { what: "buffer", len: 3, needed: 4 };
        assert_eq!(buffer.write(&[0; 4]), Err(error.clone()));
        assert_eq!(buffer.read(&mut [0; 4]), Err(error));
        assert_eq!(buffer.to_vec(), Ok(vec![1, 2, 3]));
    }

    #[test]
    fn an_empty_one_is_fine() {
        let device = device();
        let stream = device.stream().unwrap();
        let mut buffer = Buffer::<_, u32>::zeroed(&stream, 0).unwrap();
        assert!(buffer.is_empty());
        buffer.write(&[]).unwrap();
        assert_eq!(buffer.to_vec(), Ok(vec![]));
    }

    #[test]
    fn zeroed_and_filled_bytes_are_what_they_say() {
        let device = device();
        let stream = device.stream().unwrap();
        let mut buffer = Buffer::<_, u32>::zeroed(&stream, 3).unwrap();
        assert_eq!(buffer.to_vec(), Ok(vec![0; 3]));
        buffer.fill_bytes(0xFF).unwrap();
        assert_eq!(buffer.to_vec(), Ok(vec![u32::MAX; 3]));
    }
}

mod tables {
    use super::*;

    fn with_tables<R>(test: impl FnOnce(BlockTables<'_, EmulatorDriver>) -> R) -> R {
        let device = device();
        let stream = device.stream().unwrap();
        test(BlockTables::new(&stream, SHAPE, 2, 3).unwrap())
    }

    #[test]
    fn capacities_of_zero_are_an_error() {
        let device = device();
        let stream = device.stream().unwrap();
        let error = BlockTables::new(&stream, SHAPE, 0, 3).unwrap_err();
        assert_eq!(error, Error::Zero { what: "max_seqs" });
        let error = BlockTables::new(&stream, SHAPE, 2, 0).unwrap_err();
        assert_eq!(error, Error::Zero { what: "max_blocks_per_seq" });
    }

    #[test]
    fn a_block_id_outside_the_pool_is_an_error_only_where_a_token_uses_it() {
        with_tables(|mut tables| {
            let wild = Sequence { blocks: &[5, 6], len: 5 };
            let error = Error::BlockId { seq: 1, index: 1, id: 6, num_blocks: 6 };
            let fine = Sequence { blocks: &[0, u32::MAX, 77], len: 4 };
            assert_eq!(tables.set([fine, wild]), Err(error));
            assert_eq!((tables.num_seqs(), tables.seq_lens()), (0, &[][..]));
            tables.set([fine, Sequence { len: 4, ..wild }]).unwrap();
            assert_eq!((tables.num_seqs(), tables.seq_lens()), (2, &[4, 4][..]));
        });
    }

    #[test]
    fn a_length_that_the_blocks_cannot_hold_is_an_error() {
        with_tables(|mut tables| {
            let error =
                |len, blocks, limit| Error::SeqLen { seq: 0, len, blocks, block_size: 4, limit };
            assert_eq!(tables.set([Sequence { blocks: &[1], len: 5 }]), Err(error(5, 1, 4)));
            assert_eq!(tables.set([Sequence { blocks: &[], len: 1 }]), Err(error(1, 0, 0)));
            // More blocks than a row holds: the row's width is the limit.
            let long = Sequence { blocks: &[0, 1, 2, 3], len: 13 };
            assert_eq!(tables.set([long]), Err(error(13, 3, 12)));
            let longest = Sequence { blocks: &[0, 1, 2], len: u32::MAX };
            assert_eq!(tables.set([longest]), Err(error(u32::MAX, 3, 12)));
        });
    }

    #[test]
    fn too_many_sequences_are_an_error() {
        with_tables(|mut tables| {
            let error = Error::TooLarge { what: "number of sequences", value: 3, limit: 2 };
            assert_eq!(tables.set([Sequence { blocks: &[], len: 0 }; 3]), Err(error));
        });
    }

    #[test]
    fn a_padded_table_of_another_size_is_an_error() {
        with_tables(|mut tables| {
            let error = Error::Mismatch { what: "entries of the block table", got: 5, expected: 6 };
            assert_eq!(tables.set_padded(&[0; 5], 3, &[1, 1]), Err(error));
            tables.set_padded(&[0, 1, u32::MAX, 2, u32::MAX, 0], 3, &[8, 3]).unwrap();
            assert_eq!(tables.seq_lens(), [8, 3]);
        });
    }
}

mod slots {
    use super::*;

    fn with_slots<R>(test: impl FnOnce(SlotMapping<'_, EmulatorDriver>) -> R) -> R {
        let device = device();
        let stream = device.stream().unwrap();
        test(SlotMapping::new(&stream, SHAPE, 3).unwrap())
    }

    #[test]
    fn a_capacity_of_zero_is_an_error() {
        let device = device();
        let stream = device.stream().unwrap();
        let error = SlotMapping::new(&stream, SHAPE, 0).unwrap_err();
        assert_eq!(error, Error::Zero { what: "max_tokens" });
    }

    #[test]
    fn a_slot_outside_the_pool_is_an_error() {
        with_slots(|mut slots| {
            for slot in [24, i64::MAX] {
                let error = Error::Slot { token: 1, slot, num_slots: 24 };
                assert_eq!(slots.set(&[23, slot]), Err(error));
                assert_eq!(slots.num_tokens(), 0);
            }
            slots.set(&[23, -1, i64::MIN]).unwrap();
            assert_eq!(slots.num_tokens(), 3);
        });
    }

    #[test]
    fn a_slot_given_twice_is_an_error_but_skips_may_repeat() {
        with_slots(|mut slots| {
            assert_eq!(slots.set(&[7, 3, 7]), Err(Error::DuplicateSlot { slot: 7 }));
            slots.set(&[-1, 7, -1]).unwrap();
        });
    }

    #[test]
    fn too_many_tokens_are_an_error() {
        with_slots(|mut slots| {
            let error = Error::TooLarge { what: "number of tokens", value: 4, limit: 3 };
            assert_eq!(slots.set(&[0, 1, 2, 3]), Err(error));
        });
    }
}

/// All arguments of one decode call: 4 query heads on 2 KV heads, 2 sequences.
struct Call<'s> {
    pool: KvPool<'s, EmulatorDriver, f32>,
    plan: DecodePlan<'s, EmulatorDriver, f32, f32>,
    tables: BlockTables<'s, EmulatorDriver>,
    q: Buffer<'s, EmulatorDriver, f32>,
    out: Buffer<'s, EmulatorDriver, f32>,
    lse: Buffer<'s, EmulatorDriver, f32>,
}

impl<'s> Call<'s> {
    fn new(stream: &'s Stream<EmulatorDriver>) -> Self {
        let mut pool = KvPool::new(stream, SHAPE).unwrap();
        pool.write_k(&[0.5; 6 * 4 * 2 * 16]).unwrap();
        pool.write_v(&[0.25; 6 * 4 * 2 * 16]).unwrap();
        let mut tables = BlockTables::new(stream, SHAPE, 2, 3).unwrap();
        let short = Sequence { blocks: &[3], len: 2 };
        tables.set([short, Sequence { blocks: &[0, 5], len: 7 }]).unwrap();
        Self {
            pool,
            plan: DecodePlan::new(stream, SHAPE, 4, 2, 3).unwrap(),
            tables,
            q: Buffer::from_slice(stream, &[1.0; 2 * 4 * 16]).unwrap(),
            out: Buffer::zeroed(stream, 2 * 4 * 16).unwrap(),
            lse: Buffer::zeroed(stream, 2 * 4).unwrap(),
        }
    }

    fn decode(&mut self, sm_scale: f32) -> pagedptx::Result<()> {
        let args =
            DecodeArgs { q: &self.q, out: &mut self.out, lse: Some(&mut self.lse), sm_scale };
        decode(&mut self.plan, &self.pool, &self.tables, args)
    }

    /// Runs `change` on a good call and demands that decode then fails with `expected` and writes nothing.
    fn expect(stream: &'s Stream<EmulatorDriver>, change: impl FnOnce(&mut Self), expected: Error) {
        let mut call = Self::new(stream);
        change(&mut call);
        assert_eq!(call.decode(1.0), Err(expected));
        assert!(call.out.to_vec().unwrap().iter().all(|&x| x == 0.0), "out was written");
    }
}

#[test]
fn a_good_call_succeeds_and_writes_its_outputs() {
    let device = device();
    let stream = device.stream().unwrap();
    let mut call = Call::new(&stream);
    call.decode(1.0).unwrap();
    assert_eq!(call.out.to_vec().unwrap(), [0.25; 2 * 4 * 16]);
}

/// What a value is can be printed, whatever its driver.
#[test]
fn values_show_what_they_are() {
    let device = device();
    let stream = device.stream().unwrap();
    let pool = KvPool::<_, f16>::new(&stream, SHAPE).unwrap();
    let text = format!("{pool:?}");
    assert!(
        text.starts_with("KvPool { shape: PoolShape { num_blocks: 6, block_size: 4,"),
        "{text}"
    );
    assert!(text.contains("k: Buffer { address: ") && text.contains("len: 768, .. }"), "{text}");
    let text = format!("{stream:?}");
    assert!(text.contains("compute_capability: (9, 0)"), "{text}");
    let tables = BlockTables::new(&stream, SHAPE, 2, 3).unwrap();
    let text = format!("{tables:?}");
    assert!(text.contains("num_seqs: 0, max_seqs: 2, max_blocks_per_seq: 3"), "{text}");
}

#[test]
fn decode_of_no_sequences_does_nothing() {
    let device = device();
    let stream = device.stream().unwrap();
    let mut call = Call::new(&stream);
    call.tables.set([]).unwrap();
    call.decode(1.0).unwrap();
    assert_eq!(call.out.to_vec().unwrap(), [0.0; 2 * 4 * 16]);
}

#[test]
fn a_buffer_too_short_is_an_error() {
    let device = device();
    let stream = device.stream().unwrap();
    let stream = &stream;
    let short = |what, needed| Error::TooShort { what, len: needed - 1, needed };
    Call::expect(stream, |c| c.q = Buffer::zeroed(stream, 127).unwrap(), short("q", 128));
    Call::expect(stream, |c| c.out = Buffer::zeroed(stream, 127).unwrap(), short("out", 128));
    Call::expect(stream, |c| c.lse = Buffer::zeroed(stream, 7).unwrap(), short("lse", 8));
}

#[test]
fn an_argument_on_another_stream_is_an_error() {
    let device = device();
    let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
    let (stream, other) = (&stream, &other);
    let stranger = |what| Error::OtherStream { what };
    Call::expect(stream, |c| c.q = Call::new(other).q, stranger("q"));
    Call::expect(stream, |c| c.out = Call::new(other).out, stranger("out"));
    Call::expect(stream, |c| c.lse = Call::new(other).lse, stranger("lse"));
    Call::expect(stream, |c| c.pool = Call::new(other).pool, stranger("the pool"));
    Call::expect(stream, |c| c.tables = Call::new(other).tables, stranger("the block table"));
}

#[test]
fn a_pool_that_plan_or_tables_were_not_made_for_is_an_error() {
    let device = device();
    let stream = device.stream().unwrap();
    let stream = &stream;
    let expect = |shape: PoolShape, what, got, expected| {
        let error = Error::Mismatch { what, got, expected };
        Call::expect(stream, |c| c.pool = KvPool::new(stream, shape).unwrap(), error);
    };
    expect(PoolShape { num_kv_heads: 1, ..SHAPE }, "num_kv_heads of the pool", 1, 2);
    expect(PoolShape { head_dim: 24, ..SHAPE }, "head_dim of the pool", 24, 16);
    expect(PoolShape { block_size: 8, ..SHAPE }, "block_size of the pool", 8, 4);
    expect(PoolShape { num_blocks: 5, ..SHAPE }, "num_blocks of the pool", 5, 6);
    let mut call = Call::new(stream);
    call.pool = KvPool::new(stream, PoolShape { num_blocks: 9, ..SHAPE }).unwrap();
    call.pool.write_k(&[0.5; 6 * 4 * 2 * 16]).unwrap();
    call.pool.write_v(&[0.25; 6 * 4 * 2 * 16]).unwrap();
    call.decode(1.0).expect("a pool with more blocks holds all that the tables name");
}

#[test]
fn tables_beyond_the_capacities_of_the_plan_are_an_error() {
    let device = device();
    let stream = device.stream().unwrap();
    let stream = &stream;
    let plan = |seqs, blocks| DecodePlan::new(stream, SHAPE, 4, seqs, blocks).unwrap();
    let too_large = |what, value, limit| Error::TooLarge { what, value, limit };
    Call::expect(stream, |c| c.plan = plan(1, 3), too_large("num_seqs", 2, 1));
    let what = "tokens of a row of the block table";
    Call::expect(stream, |c| c.plan = plan(2, 2), too_large(what, 12, 8));
    let zero =
        |seqs, blocks| DecodePlan::<_, f32, f32>::new(stream, SHAPE, 4, seqs, blocks).unwrap_err();
    assert_eq!(zero(0, 3), Error::Zero { what: "max_seqs" });
    assert_eq!(zero(2, 0), Error::Zero { what: "max_blocks_per_seq" });
}

#[test]
fn a_scale_that_is_not_finite_is_an_error() {
    let device = device();
    let stream = device.stream().unwrap();
    for value in [f32::INFINITY, f32::NEG_INFINITY] {
        let error = Error::NotFinite { what: "sm_scale", value };
        assert_eq!(Call::new(&stream).decode(value), Err(error));
    }
    let error = Call::new(&stream).decode(f32::NAN).unwrap_err();
    assert!(matches!(error, Error::NotFinite { what: "sm_scale", value } if value.is_nan()));
}

#[test]
fn head_counts_that_do_not_divide_are_an_error() {
    let device = device();
    let stream = device.stream().unwrap();
    let plan = |heads| DecodePlan::<_, f32, bf16>::new(&stream, SHAPE, heads, 2, 3);
    let error = Error::HeadCounts { num_q_heads: 3, num_kv_heads: 2 };
    assert_eq!(plan(3).unwrap_err(), error);
    assert_eq!(plan(0).unwrap_err(), Error::Zero { what: "num_q_heads" });
    let limit = i32::MAX as u64 / 256;
    let error = Error::TooLarge { what: "num_q_heads", value: 1 << 31, limit };
    assert_eq!(plan(1 << 31).unwrap_err(), error);
}

#[test]
fn append_checks_its_arguments() {
    let device = device();
    let (stream, other) = (device.stream().unwrap(), device.stream().unwrap());
    let (stream, other) = (&stream, &other);
    let mut pool = KvPool::<_, f16>::new(stream, SHAPE).unwrap();
    let mut slots = SlotMapping::new(stream, SHAPE, 2).unwrap();
    slots.set(&[0, 1]).unwrap();
    let new = Buffer::<_, f32>::zeroed(stream, 64).unwrap();
    let short = Buffer::<_, f32>::zeroed(stream, 63).unwrap();
    let foreign = Buffer::<_, f32>::zeroed(other, 64).unwrap();

    let too_short = |what| Err(Error::TooShort { what, len: 63, needed: 64 });
    assert_eq!(append(&mut pool, &slots, &short, &new), too_short("k_new"));
    assert_eq!(append(&mut pool, &slots, &new, &short), too_short("v_new"));
    let stranger = |what| Err(Error::OtherStream { what });
    assert_eq!(append(&mut pool, &slots, &foreign, &new), stranger("k_new"));
    assert_eq!(append(&mut pool, &slots, &new, &foreign), stranger("v_new"));
    let foreign_slots = SlotMapping::new(other, SHAPE, 2).unwrap();
    assert_eq!(append(&mut pool, &foreign_slots, &new, &new), stranger("the slot mapping"));
    let smaller = PoolShape { num_blocks: 5, ..SHAPE };
    let mut small_pool = KvPool::<_, f16>::new(stream, smaller).unwrap();
    let error = Error::Mismatch { what: "num_blocks of the pool", got: 5, expected: 6 };
    assert_eq!(append(&mut small_pool, &slots, &new, &new), Err(error));
    append(&mut pool, &slots, &new, &new).unwrap();
}

#[test]
fn copied_blocks_are_equal_and_wrong_ids_are_errors() {
    let device = device();
    let stream = device.stream().unwrap();
    let stream = &stream;
    let mut pool = KvPool::<_, f32>::new(stream, SHAPE).unwrap();
    let block = 4 * 2 * 16;
    let host: Vec<f32> = (0..6 * block).map(|x| x as f32).collect();
    pool.write_k(&host).unwrap();
    pool.write_v(&host[..]).unwrap();

    let error = Error::BlockId { seq: 1, index: 1, id: 6, num_blocks: 6 };
    assert_eq!(pool.copy_blocks(&[(0, 1), (2, 6)]), Err(error));
    assert_eq!(pool.k().to_vec().unwrap(), host, "nothing is copied if any id is wrong");
    pool.copy_blocks(&[(5, 1), (2, 2)]).unwrap();
    let mut expected = host;
    expected.copy_within(5 * block.., block);
    assert_eq!(pool.k().to_vec().unwrap(), expected);
    assert_eq!(pool.v().to_vec().unwrap(), expected);
}

#[test]
fn a_driver_error_names_its_operation() {
    let device = device();
    let stream = device.stream().unwrap();
    // Slot 0 of the pool was never written: the emulator reports the read, as an error value.
    let pool = KvPool::<_, f32>::new(&stream, SHAPE).unwrap();
    let mut call = Call::new(&stream);
    call.pool = pool;
    let error = call.decode(1.0).and_then(|()| stream.synchronize()).unwrap_err();
    let Error::Driver { message, .. } = &error else { panic!("{error}") };
    assert!(message.contains("uninitialised"), "{message}");
}

#[test]
fn messages_name_the_value_and_its_limit() {
    let error = Error::SeqLen { seq: 3, len: 70, blocks: 4, block_size: 16, limit: 64 };
    assert_eq!(error.to_string(), "sequence 3 has 70 tokens, its 4 blocks of 16 hold 64");
}
