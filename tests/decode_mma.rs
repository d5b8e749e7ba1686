//! What the tensor-core decode promises beyond right results: equal bits whatever runs it, launches that depend on capacities only, no
//! host work per call, tables that nobody checked, and the counts of its loop. What does not count runs on the driver that
//! `PAGEDPTX_DRIVER` names.

mod any_driver;

use std::cell::RefCell;
use std::rc::Rc;

use half::bf16;
use pagedptx::kernels::KERNELS;
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, Driver, Error, KvPool, LaunchShape,
    PoolShape, Result, Sequence, TableEntry, decode, raw,
};
use pagedptx_harness::call::{Call, RandomElement, Shape};
use pagedptx_harness::draw::Spec;
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::runner::{self, Output};
use pagedptx_harness::{EmulatorDriver, EmulatorKernel, EmulatorOptions, Watch, Watched, counting};

use crate::any_driver::AnyDriver;

fn device(num_multiprocessors: u32, seed: u64) -> Rc<Device<AnyDriver>> {
    any_driver::device(EmulatorOptions { num_multiprocessors, seed, ..EmulatorOptions::default() })
}

fn attend(spec: &Spec, num_multiprocessors: u32, seed: u64) -> Output {
    runner::attend(&device(num_multiprocessors, seed), &spec.build())
        .unwrap_or_else(|failure| panic!("{spec:?}: {failure}"))
}

/// A sequence has the same bits on few multiprocessors and on many, which is on few CTAs and on many, under every seed, first and last in
/// the batch.
#[test]
fn bits_do_not_depend_on_the_device_the_seed_or_the_place_in_the_batch() {
    for (dtype, heads) in [
        (Dtype::F16, (4, 2)),
        (Dtype::Bf16, (16, 2)),
        (Dtype::F16, (12, 1)),
        (Dtype::Bf16, (20, 1)),
    ] {
        let lens = [530, 17, 0, 260];
        let spec = Spec::decode(dtype, heads, 64, &lens);
        let want = attend(&spec, 1, 0);
        for (seed, num_multiprocessors) in [(1, 1), (2, 2), (3, 3), (4, 7), (5, 132), (6, 132)] {
            let got = attend(&spec, num_multiprocessors, seed);
            assert_eq!(
                got.bits(),
                want.bits(),
                "{heads:?}, {num_multiprocessors} SMs, seed {seed}"
            );
        }
        // The first sequence again, now the last one: `Spec` draws the contents of a sequence in order, so they are moved by hand.
        let mut problem = spec.build();
        let (width, last) = (problem.max_blocks_per_seq, lens.len() - 1);
        problem.seq_lens.swap(0, last);
        for entry in 0..width {
            problem.block_table.swap(entry, last * width + entry);
        }
        let row = problem.q.bytes.len() / lens.len();
        let (head, tail) = problem.q.bytes.split_at_mut(last * row);
        head[..row].swap_with_slice(&mut tail[..row]);
        let swapped = runner::attend(&device(3, 9), &problem).unwrap_or_else(|it| panic!("{it}"));
        assert_eq!(swapped.out.rows(last..last + 1), want.out.rows(0..1), "{heads:?}");
        assert_eq!(swapped.out.rows(0..1), want.out.rows(last..last + 1), "{heads:?}");
    }
}

/// Every variant runs with all of the emulator's checks on under several seeds, with equal bits.
#[test]
fn every_variant_is_clean_under_every_seed() {
    for head_dim in (32..=256).step_by(32) {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            for group_size in [3, 11, 18] {
                let mut spec = Spec::decode(dtype, (group_size, 1), head_dim - 8, &[530, 21]);
                spec.block_size = if head_dim % 64 == 0 { 16 } else { 7 };
                let want = attend(&spec, 2, 10);
                for seed in [11, 12] {
                    assert_eq!(attend(&spec, 2, seed).bits(), want.bits(), "{spec:?}");
                }
            }
        }
    }
}

/// Sequences in one chunk and in several agree within the bounds of both: the rule asks for fewer chunks where there are more heads.
#[test]
fn chunked_and_unchunked_agree() {
    for dtype in [Dtype::F16, Dtype::Bf16] {
        let (heads, dim, len) = (64, 16, 1_024);
        let many = Spec::decode(dtype, (2 * heads, heads), dim, &[len]).build();
        let mut one = Spec::decode(dtype, (2, 1), dim, &[len]).build();
        one.block_table = many.block_table.clone();
        one.max_blocks_per_seq = many.max_blocks_per_seq;
        one.q.bytes = many.q.bytes[..one.q.bytes.len()].to_vec();
        for (from, to) in [(&many.k_cache, &mut one.k_cache), (&many.v_cache, &mut one.v_cache)] {
            let rows = from.bytes.chunks(heads * dim * dtype.bytes());
            to.shape[0] = many.num_blocks();
            to.bytes = rows.flat_map(|row| row[..dim * dtype.bytes()].to_vec()).collect();
        }
        // Both hold against the reference, whose bounds are computed.
        let chunked =
            runner::check_attention(&device(4, 0), &one).unwrap_or_else(|it| panic!("{it}"));
        let whole =
            runner::check_attention(&device(4, 0), &many).unwrap_or_else(|it| panic!("{it}"));
        let expected = pagedptx_harness::reference::attention(&one);
        let arithmetic = runner::arithmetic(dtype, dtype);
        let bounds = pagedptx_harness::bounds::attention(&one, &expected, &arithmetic);
        for (index, (a, b)) in chunked.out.values().iter().zip(whole.out.values()).enumerate() {
            assert!(
                (a - b).abs() <= 2.0 * bounds.out[index],
                "{dtype}: element {index}, {a} and {b}"
            );
        }
        assert_ne!(
            chunked.out.bytes,
            whole.out.bytes[..chunked.out.bytes.len()],
            "not two ways of summing"
        );
    }
}

/// One launch and its counts.
fn counted<T: RandomElement>(shape: &Shape) -> (ptx_emulator::Counters, &'static str) {
    // As many multiprocessors as an H100 has: CTAs without work count too.
    let options = EmulatorOptions { num_multiprocessors: 132, ..EmulatorOptions::default() };
    let device = Device::new(EmulatorDriver::new(options)).unwrap();
    let stream = device.stream().unwrap();
    let mut plan = shape.plan::<_, T>(&stream).unwrap();
    Call::<_, T>::new(&stream, shape, 0).unwrap().decode(&mut plan).unwrap();
    (device.driver().last_counters(), plan.kernel().ptx)
}

fn shape(heads: (usize, usize), block_size: usize, lengths: &[u32]) -> Shape {
    let (q_heads, kv_heads) = heads;
    Shape { q_heads, kv_heads, head_dim: 128, block_size, lengths: lengths.to_vec() }
}

/// At head_dim 128, blocks of 16, groups to 8 and lengths of 4,096 and more: at most 160 warp instructions per tile in the loop and 220
/// over the launch, at most 1.01 of the ideal sectors, no bank conflict.
#[test]
fn a_tile_costs_what_is_said() {
    let check = |shape: &Shape, (counters, ptx): (ptx_emulator::Counters, &str)| {
        let tiles = shape.tiles();
        let launch = counters.instructions.warps as f64 / tiles as f64;
        let in_loop = counting::loop_instructions(ptx, &counters, tiles).unwrap();
        let loads = counters.global_loads;
        let sectors = loads.sectors as f64 / loads.ideal_sectors as f64;
        assert!(launch <= 220.0, "{shape}: {launch} per tile");
        assert!(in_loop <= 160.0, "{shape}: {in_loop} per tile in the loop");
        assert!(sectors <= 1.01, "{shape}: sectors {sectors} of ideal");
        let shared = counters.shared;
        assert_eq!(shared.wavefronts, shared.ideal_wavefronts, "{shape}: bank conflicts");
    };
    for heads in [(8, 8), (32, 8), (64, 8)] {
        let shape = shape(heads, 16, &[4096]);
        check(&shape, counted::<bf16>(&shape));
    }
    let ragged = shape((16, 2), 16, &[4641, 4100, 9001]);
    check(&ragged, counted::<half::f16>(&ragged));
}

/// Blocks of 16 move within 2 % of the bytes of blocks of 128.
#[test]
fn small_blocks_move_no_more_bytes() {
    let bytes = |block_size| {
        counted::<bf16>(&shape((32, 8), block_size, &[4096, 1000])).0.global_loads.sectors
    };
    let (small, large) = (bytes(16) as f64, bytes(128) as f64);
    assert!((small / large - 1.0).abs() <= 0.02, "{small} sectors against {large}");
}

/// The whole crate's PTX is at most 6 MB of text.
#[test]
fn the_kernels_are_at_most_6_mb() {
    let bytes: usize = KERNELS.iter().map(|kernel| kernel.ptx.len()).sum();
    assert!(bytes <= 6_000_000, "{bytes} bytes of PTX");
}

/// A call of the driver; of a launch, grid and parameters too.
type Recorded = (&'static str, [u32; 3], Vec<u8>);

/// Keeps every call.
#[derive(Default)]
struct Recorder(RefCell<Vec<Recorded>>);

// SAFETY: launches go on as they came.
unsafe impl Watch for Recorder {
    fn call(&self, name: &'static str) {
        self.0.borrow_mut().push((name, [0; 3], Vec::new()));
    }

    unsafe fn launch(
        &self,
        emulator: &EmulatorDriver,
        kernel: &EmulatorKernel,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        self.0.borrow_mut().push(("launch", shape.grid, params.to_vec()));
        // SAFETY: the caller's promise.
        unsafe { emulator.launch(&(), kernel, shape, params) }
    }
}

/// A call is one launch and nothing else, and its grid and parameters do not depend on lengths: a captured one stays valid while
/// sequences grow.
#[test]
fn a_call_is_one_launch_that_depends_on_capacities_only() {
    let device = Device::new(Watched::<Recorder>::default()).unwrap();
    let stream = device.stream().unwrap();
    let pool_shape = PoolShape { num_blocks: 40, block_size: 16, num_kv_heads: 2, head_dim: 64 };
    let mut pool = KvPool::<_, bf16>::new(&stream, pool_shape).unwrap();
    let zeros = vec![bf16::ZERO; pool.k().len()];
    pool.write_k(&zeros).unwrap();
    pool.write_v(&zeros).unwrap();
    let mut plan = DecodePlan::<_, bf16, bf16>::new(&stream, pool_shape, 8, 2, 20).unwrap();
    let mut tables = BlockTables::new(&stream, pool_shape, 2, 20).unwrap();
    let q = Buffer::from_slice(&stream, &vec![bf16::ONE; 2 * 8 * 64]).unwrap();
    let mut out = Buffer::zeroed(&stream, q.len()).unwrap();
    let blocks: Vec<u32> = (0..40).collect();
    let mut launches = Vec::new();
    for lens in [[1, 0], [300, 17], [320, 320]] {
        let seqs = blocks.chunks(20).zip(lens);
        tables.set(seqs.map(|(blocks, len)| Sequence { blocks, len })).unwrap();
        device.driver().watch.0.borrow_mut().clear();
        let args = DecodeArgs { q: &q, out: &mut out, lse: None, sm_scale: 0.125 };
        decode(&mut plan, &pool, &tables, args).unwrap();
        launches.push(device.driver().watch.0.take());
    }
    assert_eq!(launches[0].len(), 1, "{:?}", launches[0]);
    assert_eq!(launches[0][0].0, "launch");
    assert_eq!(launches[0], launches[1]);
    assert_eq!(launches[0], launches[2]);
}

/// A table on the device that nobody checked: wild ids and lengths touch nothing outside the pool, become an error value, and leave the
/// other sequences' results as they are.
#[test]
fn wild_tables_on_the_device_are_clamped_and_reported() {
    const WIDTH: usize = 3;
    let shape = PoolShape { num_blocks: 5, block_size: 16, num_kv_heads: 1, head_dim: 64 };
    let run = |table: [u32; 3 * WIDTH], lens: [u32; 3]| {
        let device = device(2, 3);
        let stream = device.stream().unwrap();
        let elems = shape.num_blocks * shape.block_size * shape.head_dim;
        let values: Vec<bf16> = (0..elems).map(|i| bf16::from_f32((i % 13) as f32 / 8.0)).collect();
        let (k, v) = (
            Buffer::from_slice(&stream, &values).unwrap(),
            Buffer::from_slice(&stream, &values).unwrap(),
        );
        let q = Buffer::from_slice(&stream, &values[..3 * 2 * 64]).unwrap();
        let out = Buffer::<_, bf16>::zeroed(&stream, q.len()).unwrap();
        let (table, lens) = (
            Buffer::from_slice(&stream, &table).unwrap(),
            Buffer::from_slice(&stream, &lens).unwrap(),
        );
        let bytes =
            raw::workspace_bytes(pagedptx::Dtype::Bf16, pagedptx::Dtype::Bf16, shape, 2, 3, WIDTH)
                .unwrap();
        let workspace = Buffer::<_, u8>::zeroed(&stream, bytes).unwrap();
        let word = Buffer::<_, u64>::zeroed(&stream, 1).unwrap();
        let rows = |address| raw::Rows::contiguous(address, pagedptx::Dtype::Bf16, 2, 64);
        let args = raw::Decode {
            q: rows(q.address()),
            out: rows(out.address()),
            lse: None,
            pool: raw::Pool::nhd(k.address(), v.address(), pagedptx::Dtype::Bf16, shape),
            table: raw::Table {
                block_table: table.address(),
                seq_lens: lens.address(),
                num_seqs: 3,
                max_blocks_per_seq: WIDTH,
            },
            num_q_heads: 2,
            sm_scale: 0.125,
            workspace: raw::Workspace {
                address: workspace.address(),
                max_seqs: 3,
                max_blocks_per_seq: WIDTH,
            },
            error_word: Some(word.address()),
        };
        // SAFETY: all memory is the buffers' above, of the sizes given, and lives to the end of this function.
        unsafe { raw::decode(&device, stream.raw(), &args) }.unwrap();
        let report = raw::check_error_word(word.to_vec().unwrap()[0], shape, WIDTH);
        (out.to_vec().unwrap()[2 * 2 * 64..].to_vec(), report)
    };
    let fine = [0, 1, 2, 3, 4, 0, 2, 3, 1];
    let (third, report) = run(fine, [33, 48, 40]);
    assert_eq!(report, Ok(()));
    let id =
        |seq, value| Err(Error::DeviceTable { entry: TableEntry::BlockId, seq, value, limit: 4 });
    let len =
        |seq, value| Err(Error::DeviceTable { entry: TableEntry::SeqLen, seq, value, limit: 48 });
    for (table, lens, want) in [
        ([0, 5, 2, 3, 4, 0, 2, 3, 1], [33, 48, 40], id(0, 5)),
        ([0, u32::MAX, 1 << 31, 3, 4, 0, 2, 3, 1], [48, 48, 40], id(0, u32::MAX)),
        ([0, 1, 2, 9, 4, 7, 2, 3, 1], [33, 48, 40], id(1, 9)),
        (fine, [49, 1, 40], len(0, 49)),
        (fine, [u32::MAX, 1 << 31, 40], len(0, u32::MAX)),
        ([i32::MAX as u32, 1, 2, 3, 4, 0, 2, 3, 1], [33, u32::MAX, 40], len(1, u32::MAX)),
        // Ids that no token uses are not read.
        ([0, 1, 77, 3, u32::MAX, 99, 2, 3, 1], [32, 16, 40], Ok(())),
    ] {
        let (got, report) = run(table, lens);
        assert_eq!(report, want, "{table:?} {lens:?}");
        assert_eq!(got, third, "{table:?} {lens:?}: the sequence that is in order");
    }
}
