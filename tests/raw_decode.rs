//! Decode from raw memory: pools, queries and outputs of any strides, and tables that nobody checked, on both kinds of
//! kernels, against the safe layer's results bit for bit, on the emulator or the driver that `PAGEDPTX_DRIVER` names.

mod any_driver;

use pagedptx::raw::{self, Decode, Pool, Rows, Table, Workspace};
use pagedptx::{
    Buffer, DeviceAddress, Driver, Dtype, Error, PoolShape, Result, Stream, TableEntry,
};
use pagedptx_harness::draw::Spec;
use pagedptx_harness::dtype;
use pagedptx_harness::problem::{Attention, Tensor};
use pagedptx_harness::{EmulatorOptions, runner};

use crate::any_driver::{AnyDriver, device};

/// Types of queries and of the pool: two pairs for the CUDA cores, one for the tensor cores.
const PAIRS: [(dtype::Dtype, dtype::Dtype); 3] = [
    (dtype::Dtype::F32, dtype::Dtype::F32),
    (dtype::Dtype::Bf16, dtype::Dtype::F32),
    (dtype::Dtype::F16, dtype::Dtype::F16),
];

/// What no kernel reads or writes: gaps between rows.
const GAP: u8 = 0xA5;

/// 1,000 tokens make 8 chunks on the CUDA cores and 2 on the tensor cores, so that partial results are merged as well.
fn problem((q_dtype, kv_dtype): (dtype::Dtype, dtype::Dtype)) -> Attention {
    let mut spec = Spec::decode(q_dtype, (6, 2), 72, &[17, 0, 1_000]);
    spec.kv_dtype = kv_dtype;
    spec.build()
}

fn shape(problem: &Attention) -> PoolShape {
    PoolShape {
        num_blocks: problem.num_blocks(),
        block_size: problem.block_size(),
        num_kv_heads: problem.num_kv_heads(),
        head_dim: problem.head_dim(),
    }
}

/// Elements from one index of a dimension to the next, for all dimensions but the last.
type Strides = [usize; 3];

/// The bytes of each row of a tensor of three dimensions before the last, and where strides put it, in bytes.
fn rows(tensor: &Tensor, strides: Strides) -> impl Iterator<Item = (usize, &[u8])> {
    let [a, b, c, row] = tensor.shape[..] else { panic!("four dimensions") };
    let size = tensor.dtype.bytes();
    (0..a * b * c).map(move |index| {
        let at = index / (b * c) * strides[0] + index / c % b * strides[1] + index % c * strides[2];
        (at * size, &tensor.bytes[index * row * size..][..row * size])
    })
}

/// Bytes from the first row's start to the last one's end.
fn extent(tensor: &Tensor, strides: Strides) -> usize {
    rows(tensor, strides).map(|(at, bytes)| at + bytes.len()).max().expect("a row")
}

/// A tensor, its rows moved to where strides put them.
fn spread(tensor: &Tensor, strides: Strides) -> Vec<u8> {
    let mut bytes = vec![GAP; extent(tensor, strides)];
    for (at, row) in rows(tensor, strides) {
        bytes[at..][..row.len()].copy_from_slice(row);
    }
    bytes
}

/// Device memory of a tensor, of which only the rows are written where gaps are `untouched`.
fn upload<'s>(
    stream: &'s Stream<AnyDriver>,
    tensor: &Tensor,
    strides: Strides,
    untouched: bool,
) -> Result<Buffer<'s, AnyDriver, u8>> {
    if !untouched {
        return Buffer::from_slice(stream, &spread(tensor, strides));
    }
    let buffer = Buffer::<_, u8>::uninit(stream, extent(tensor, strides))?;
    for (at, row) in rows(tensor, strides) {
        let address = DeviceAddress(buffer.address().0 + at as u64);
        // SAFETY: rows lie in the buffer, which is as long as their extent.
        unsafe { stream.device().driver().write(stream.raw(), address, row)? };
    }
    Ok(buffer)
}

/// The bytes of a tensor's rows, one after the other, or all, gaps included.
fn download(
    buffer: &Buffer<'_, AnyDriver, u8>,
    tensor: &Tensor,
    strides: Strides,
    untouched: bool,
) -> Result<Vec<u8>> {
    if !untouched {
        return buffer.to_vec();
    }
    let (stream, mut bytes) = (buffer.stream(), Vec::new());
    for (at, row) in rows(tensor, strides) {
        let mut got = vec![0; row.len()];
        let address = DeviceAddress(buffer.address().0 + at as u64);
        // SAFETY: as in `upload`.
        unsafe { stream.device().driver().read(stream.raw(), address, &mut got)? };
        bytes.extend(got);
    }
    Ok(bytes)
}

/// Queries or outputs as a tensor of four dimensions.
fn with_sequences(tensor: &Tensor) -> Tensor {
    Tensor { shape: [&[1], &tensor.shape[..]].concat(), ..tensor.clone() }
}

/// How a call lies in memory, in elements: block, token and head strides of the pool, token and head strides of queries and outputs.
#[derive(Clone, Copy)]
struct Layout {
    pool: [usize; 3],
    q: [usize; 2],
    out: [usize; 2],
    /// Whether gaps are neither written nor read, so that they cost the emulator no memory.
    untouched: bool,
}

/// Runs a problem from raw memory; returns the bytes of `out`, gaps included if they were written, and the error word if one is wanted.
fn run(problem: &Attention, layout: Layout, checked: bool) -> Result<(Vec<u8>, u64)> {
    let device = device(EmulatorOptions::default());
    let stream = device.stream()?;
    let Layout { pool: [block, token, head], q: q_strides, out: out_strides, untouched } = layout;
    // The strides of a [block, slot, head] index; HND has a head's larger than a token's.
    let k = upload(&stream, &problem.k_cache, [block, token, head], untouched)?;
    let v = upload(&stream, &problem.v_cache, [block, token, head], untouched)?;
    let [q_strides, out_strides] = [q_strides, out_strides].map(|[token, head]| [0, token, head]);
    let q = upload(&stream, &with_sequences(&problem.q), q_strides, untouched)?;
    let poison = Tensor { bytes: vec![GAP; problem.q.bytes.len()], ..problem.q.clone() };
    let poison = with_sequences(&poison);
    let out = upload(&stream, &poison, out_strides, untouched)?;
    let ids: Vec<u32> = problem.block_table.iter().map(|id| id.cast_unsigned()).collect();
    let lens: Vec<u32> =
        problem.seq_lens.iter().map(|&len| u32::try_from(len).expect("short")).collect();
    let (ids, lens) = (Buffer::from_slice(&stream, &ids)?, Buffer::from_slice(&stream, &lens)?);

    let (q_dtype, kv_dtype) =
        (runner::crate_dtype(problem.q.dtype), runner::crate_dtype(problem.k_cache.dtype));
    let (shape, num_q_heads) = (shape(problem), problem.num_q_heads());
    let (max_seqs, max_blocks_per_seq) = (problem.num_seqs(), problem.max_blocks_per_seq);
    let bytes =
        raw::workspace_bytes(q_dtype, kv_dtype, shape, num_q_heads, max_seqs, max_blocks_per_seq)?;
    let workspace = Buffer::<_, u8>::zeroed(&stream, bytes)?;
    let word = Buffer::<_, u64>::zeroed(&stream, 1)?;
    let strided = |address, dtype, [token, head]: [usize; 2]| Rows {
        address,
        dtype,
        token_stride: token as u64,
        head_stride: head as u64,
    };
    let args = Decode {
        q: strided(q.address(), q_dtype, layout.q),
        out: strided(out.address(), q_dtype, layout.out),
        lse: None,
        pool: Pool {
            k: k.address(),
            v: v.address(),
            dtype: kv_dtype,
            shape,
            block_stride: block as u64,
            token_stride: token as u64,
            head_stride: head as u64,
        },
        table: Table {
            block_table: ids.address(),
            seq_lens: lens.address(),
            num_seqs: max_seqs,
            max_blocks_per_seq,
        },
        num_q_heads,
        sm_scale: problem.sm_scale as f32,
        workspace: Workspace { address: workspace.address(), max_seqs, max_blocks_per_seq },
        error_word: checked.then(|| word.address()),
    };
    // SAFETY: all buffers are of this device and alive, of the sizes that the strides ask for, and no two of them
    // overlap; what the tables hold is right or an error word is given; the workspace is new.
    unsafe { raw::decode(&device, stream.raw(), &args)? };
    Ok((download(&out, &poison, out_strides, untouched)?, word.to_vec()?[0]))
}

/// NHD without gaps, queries and outputs likewise.
fn contiguous(problem: &Attention) -> Layout {
    let PoolShape { block_size, num_kv_heads, head_dim, .. } = shape(problem);
    let token = num_kv_heads * head_dim;
    let rows = [problem.num_q_heads() * head_dim, head_dim];
    Layout { pool: [block_size * token, token, head_dim], q: rows, out: rows, untouched: false }
}

fn safe(problem: &Attention) -> Tensor {
    let device = device(EmulatorOptions::default());
    runner::attend(&device, problem).unwrap_or_else(|failure| panic!("{failure}")).out
}

/// Whatever the order of heads and tokens in the pool and the gaps between rows, the results are those of a contiguous NHD
/// pool, and nothing is written between the rows of the output.
#[test]
fn strides_change_no_bit() {
    for pair in PAIRS {
        let problem = problem(pair);
        let expected = safe(&problem);
        let PoolShape { block_size, num_kv_heads, head_dim, .. } = shape(&problem);
        let nhd = contiguous(&problem);
        let hnd = Pool::hnd(DeviceAddress::NULL, DeviceAddress::NULL, Dtype::F32, shape(&problem));
        let hnd =
            [hnd.block_stride, hnd.token_stride, hnd.head_stride].map(|stride| stride as usize);
        let hnd = Layout { pool: hnd, ..nhd };
        let token = (head_dim + 8) * num_kv_heads + 16;
        let gaps = Layout {
            pool: [token * block_size + 8, token, head_dim + 8],
            q: [problem.num_q_heads() * (head_dim + 8) + 24, head_dim + 8],
            out: [problem.num_q_heads() * (head_dim + 4) + 12, head_dim + 4],
            untouched: false,
        };
        let heads_first = [head_dim + 4, problem.num_seqs() * (head_dim + 4)];
        let heads_first = Layout { out: heads_first, ..nhd };
        for (name, layout) in
            [("NHD", nhd), ("HND", hnd), ("gaps", gaps), ("heads first", heads_first)]
        {
            let (out, word) = run(&problem, layout, false)
                .unwrap_or_else(|error| panic!("{pair:?}, {name}: {error}"));
            let [token, head] = layout.out;
            let want = spread(&with_sequences(&expected), [0, token, head]);
            assert!(out == want, "{pair:?}, {name}");
            assert_eq!(word, 0);
        }
    }
}

/// Up to the limits strides change no bit either: offsets beyond 32 bits of elements or bytes are right, whatever they belong to.
#[test]
fn strides_up_to_the_limits_change_no_bit() {
    for (pair, group_size) in PAIRS.map(|pair| (pair, 2)).into_iter().chain([(PAIRS[2], 20)]) {
        for block_size in [16, 5] {
            let mut spec = Spec::decode(pair.0, (2 * group_size, 2), 72, &[17, 1_000]);
            (spec.kv_dtype, spec.block_size) = (pair.1, block_size);
            let problem = spec.build();
            let expected = safe(&problem).bytes;
            let near = Layout { untouched: true, ..contiguous(&problem) };
            // Of heads as much as 2³² elements hold, of blocks 2³² and more.
            let head = ((1 << 30) - 8).min(((1 << 32) / problem.num_q_heads()) & !7);
            let block = ((9 << 29) / problem.num_blocks()) & !7;
            for (name, layout) in [
                ("tokens", Layout { pool: [144, 1 << 27, 72], ..near }),
                ("heads", Layout { pool: [block_size * 72, 72, (1 << 31) - 8], ..near }),
                ("blocks", Layout { pool: [block, 144, 72], ..near }),
                ("tokens of q", Layout { q: [(1 << 32) - 8, 72], ..near }),
                ("heads of q", Layout { q: [72, head], ..near }),
                ("tokens of out", Layout { out: [(1 << 32) - 4, 72], ..near }),
                ("heads of out", Layout { out: [72, head], ..near }),
            ] {
                match run(&problem, layout, true) {
                    Ok(got) => assert!(got == (expected.clone(), 0), "{spec:?}, {name}"),
                    Err(Error::OutOfMemory { bytes }) => {
                        eprintln!("skipped: {name} of {pair:?}, there are no {bytes} bytes");
                    }
                    Err(error) => panic!("{spec:?}, {name}: {error}"),
                }
            }
        }
    }
}

/// Block ids and lengths out of range are reported, and leave the other sequences' results alone; no access leaves the pool
/// or the table.
#[test]
fn tables_that_nobody_checked_are_clamped_and_reported() {
    for pair in PAIRS {
        let problem = problem(pair);
        let expected = safe(&problem);
        let width = problem.max_blocks_per_seq;
        let row_bytes = expected.bytes.len() / problem.num_seqs();
        let bad_id = |id| {
            let mut bad = problem.clone();
            bad.block_table[2 * width + 20] = id;
            bad
        };
        let mut bad_len = problem.clone();
        bad_len.seq_lens[1] = width * problem.block_size() + 1;
        // The row is read up to its end, and what it holds there is as wild as a freed block's id.
        let mut both = bad_len.clone();
        both.block_table[2 * width] = -1;
        let num_blocks = problem.num_blocks() as u32;
        let limit = u64::from(num_blocks) - 1;
        let id = |value| (TableEntry::BlockId, 2, value, limit);
        let max_len = width * problem.block_size();
        let len = (TableEntry::SeqLen, 1, max_len as u32 + 1, max_len as u64);
        for (name, bad, row, (entry, seq, value, limit)) in [
            ("one past the last id", bad_id(num_blocks as i32), 2, id(num_blocks)),
            ("a negative id", bad_id(-1), 2, id(u32::MAX)),
            ("the largest id", bad_id(i32::MAX), 2, id(i32::MAX as u32)),
            ("a length", bad_len, 1, len),
            ("both", both, 1, len),
        ] {
            let (out, got) = run(&bad, contiguous(&bad), true)
                .unwrap_or_else(|error| panic!("{pair:?}, {name}: {error}"));
            let report = raw::check_error_word(got, shape(&bad), width);
            let want = Error::DeviceTable { entry, seq, value, limit };
            assert_eq!(report, Err(want), "{pair:?}, {name}");
            for seq in (0..problem.num_seqs()).filter(|&seq| seq != row) {
                if name == "both" && seq == 2 {
                    continue;
                }
                let rows = |bytes: &[u8]| bytes[seq * row_bytes..][..row_bytes].to_vec();
                assert!(rows(&out) == rows(&expected.bytes), "{pair:?}, {name}, sequence {seq}");
            }
        }
        let (out, word) = run(&problem, contiguous(&problem), true).expect("nothing is wrong");
        assert_eq!(word, 0);
        assert!(out == expected.bytes, "{pair:?}");
    }
}

/// A call of two heads a KV head over pools of two tokens, whose addresses nobody may use.
fn nowhere(dtype: Dtype) -> Decode {
    let shape = PoolShape { num_blocks: 1, block_size: 2, num_kv_heads: 2, head_dim: 64 };
    let address = DeviceAddress(1 << 20);
    Decode {
        q: Rows::contiguous(address, dtype, 4, 64),
        out: Rows::contiguous(address, dtype, 4, 64),
        lse: None,
        pool: Pool::nhd(address, address, dtype, shape),
        table: Table {
            block_table: address,
            seq_lens: address,
            num_seqs: 1,
            max_blocks_per_seq: 1,
        },
        num_q_heads: 4,
        sm_scale: 1.0,
        workspace: Workspace { address, max_seqs: 1, max_blocks_per_seq: 1 },
        error_word: None,
    }
}

/// What a call is refused with before anything is launched.
fn refusal(args: &Decode) -> Error {
    let device = device(EmulatorOptions::default());
    let stream = device.stream().unwrap();
    // SAFETY: it is refused: nothing is enqueued.
    unsafe { raw::decode(&device, stream.raw(), args) }.expect_err("nothing is there")
}

/// Strides are refused where the kernels' offsets in bytes would no longer fit into 32 bits.
#[test]
fn strides_beyond_32_bits_of_bytes_are_refused() {
    for dtype in [Dtype::F16, Dtype::F32] {
        let too_large = |what, value, limit| Error::TooLarge { what, value, limit };
        let mut args = nowhere(dtype);
        args.pool.token_stride = (1 << 27) + 8;
        let what = "token stride of the pool";
        assert_eq!(refusal(&args), too_large(what, (1 << 27) + 8, 1 << 27));
        let mut args = nowhere(dtype);
        args.pool.head_stride = 1 << 31;
        let what = "head stride of the pool";
        assert_eq!(refusal(&args), too_large(what, 1 << 31, (1 << 31) - 1));
        let mut args = nowhere(dtype);
        args.q.head_stride = 1 << 30;
        assert_eq!(refusal(&args), too_large("head stride of q", 1 << 30, (1 << 30) - 1));
        let mut args = nowhere(dtype);
        args.out.head_stride = 1 << 30;
        assert_eq!(refusal(&args), too_large("head stride of out", 1 << 30, (1 << 30) - 1));
        let mut args = nowhere(dtype);
        args.q.token_stride = 1 << 32;
        assert_eq!(refusal(&args), too_large("token stride of q", 1 << 32, (1 << 32) - 1));
    }
}

/// An address that a launch would use is not null, which the kernels read as "not given"; without sequences none is used.
#[test]
fn null_addresses_are_refused() {
    type Set = fn(&mut Decode, DeviceAddress);
    let sets: [(&str, Set); 9] = [
        ("q", |args, null| args.q.address = null),
        ("out", |args, null| args.out.address = null),
        ("k", |args, null| args.pool.k = null),
        ("v", |args, null| args.pool.v = null),
        ("workspace", |args, null| args.workspace.address = null),
        ("error_word", |args, null| args.error_word = Some(null)),
        ("lse", |args, null| args.lse = Some(null)),
        ("block_table", |args, null| args.table.block_table = null),
        ("seq_lens", |args, null| args.table.seq_lens = null),
    ];
    let device = device(EmulatorOptions::default());
    let stream = device.stream().unwrap();
    for (what, set) in sets {
        let mut args = nowhere(Dtype::F16);
        set(&mut args, DeviceAddress::NULL);
        assert_eq!(refusal(&args), Error::Null { what });
        args.table.num_seqs = 0;
        // SAFETY: without sequences nothing is enqueued.
        assert_eq!(unsafe { raw::decode(&device, stream.raw(), &args) }, Ok(()));
    }
}

/// A workspace ends where addresses do at the latest.
#[test]
fn a_workspace_beyond_all_addresses_is_refused() {
    let mut args = nowhere(Dtype::F32);
    args.workspace.address = DeviceAddress(u64::MAX - 15);
    assert_eq!(refusal(&args), Error::Overflow { what: "address of the workspace's end" });
}

/// Outputs whose strides say that rows overlap are refused, whichever of heads and sequences lie closer.
#[test]
fn overlapping_rows_of_the_output_are_refused() {
    let of_two = |token_stride, head_stride| {
        let mut args = nowhere(Dtype::F16);
        (args.table.num_seqs, args.workspace.max_seqs) = (2, 2);
        args.out = Rows { token_stride, head_stride, ..args.out };
        refusal(&args)
    };
    let overlap = |what, stride, needed| Error::Overlap { what, stride, needed };
    let (token, head) = ("token stride of out", "head stride of out");
    assert_eq!(of_two(256, 60), overlap(head, 60, 64));
    assert_eq!(of_two(252, 64), overlap(token, 252, 256));
    assert_eq!(of_two(64, 64), overlap(token, 64, 256));
    assert_eq!(of_two(60, 256), overlap(token, 60, 64));
    assert_eq!(of_two(64, 124), overlap(head, 124, 128));
    assert_eq!(of_two(0, 64), overlap(token, 0, 64));
}

/// Outputs have the queries' type: another one is an error that names both.
#[test]
fn an_output_of_another_type_is_refused() {
    let mut args = nowhere(Dtype::F16);
    args.out.dtype = Dtype::F32;
    assert_eq!(refusal(&args).to_string(), "type of out is f32, f16 is expected");
}

/// Strides and addresses that the kernels cannot take are errors that name them, whatever the types.
#[test]
fn strides_that_kernels_do_not_take_are_refused() {
    for pair in PAIRS {
        let problem = problem(pair);
        let nhd = contiguous(&problem);
        let refused = |layout| run(&problem, layout, false).map(|_| ());
        let odd_pool = Layout { pool: [nhd.pool[0], nhd.pool[1] + 4, nhd.pool[2]], ..nhd };
        let stride = nhd.pool[1] as u64 + 4;
        assert_eq!(
            refused(odd_pool),
            Err(Error::Stride { what: "token stride of the pool", stride, unit: 8 })
        );
        let odd_out = Layout { out: [nhd.out[0], nhd.out[1] + 2], ..nhd };
        let stride = nhd.out[1] as u64 + 2;
        assert_eq!(
            refused(odd_out),
            Err(Error::Stride { what: "head stride of out", stride, unit: 4 })
        );
    }
}
