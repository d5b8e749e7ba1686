//! Times decode on a GPU: `cargo bench --features cudarc --bench attention -- [--json FILE] [--only TEXT]`.
//!
//! Each shape of benches/shapes.json is run from pools and tables that rotate until their K and V exceed four times the L2
//! cache, so that every call reads memory; after a warm-up the median of the device's own times counts. A kernel that only
//! reads the same bytes (benches/read.ptx) runs in the same process, and rates are given in percent of its rate. Also:
//! the time of a call within a captured graph, which has no gaps between launches; the host's time for a call; and the
//! time to load the kernel.
//!
//! `PAGEDPTX_DRIVER=cust|cudarc` chooses between the drivers that are built in.
//!
//! Without such a feature, `cargo bench --bench attention -- [--json] [--shape TEXT]` counts on the emulator
//! instead (`attention/counters.rs`): figures that do not depend on a machine.

#[cfg(not(any(feature = "cust", feature = "cudarc")))]
#[path = "attention/counters.rs"]
mod counters;

#[cfg(not(any(feature = "cust", feature = "cudarc")))]
fn main() -> std::process::ExitCode {
    counters::main()
}

#[cfg(any(feature = "cust", feature = "cudarc"))]
fn main() {
    if let Err(error) = gpu::main() {
        eprintln!("attention: {error}");
        std::process::exit(1);
    }
}

#[cfg(any(feature = "cust", feature = "cudarc"))]
mod gpu {
    use std::error::Error;
    use std::time::Instant;

    use clap::Parser;
    use half::{bf16, f16};
    use pagedptx::driver::{CudaDriver, Driver, Events};
    use pagedptx::{
        BlockTables, Buffer, DecodeArgs, DecodePlan, Device, Element, KvPool, LaunchShape,
        PoolShape, Sequence, Stream, decode,
    };
    use serde::{Deserialize, Serialize};

    type Outcome<T> = Result<T, Box<dyn Error>>;

    const WARM_UP: usize = 20;
    const RUNS: usize = 200;

    #[derive(Parser)]
    struct Options {
        /// Write the results to this file
        #[arg(long)]
        json: Option<std::path::PathBuf>,
        /// Shapes whose name contains this
        #[arg(long, default_value = "")]
        only: String,
        /// Number of the device
        #[arg(long, default_value_t = 0)]
        device: usize,
        /// Given by cargo
        #[arg(long, hide = true)]
        bench: bool,
    }

    #[derive(Deserialize, Clone)]
    struct Case {
        seqs: usize,
        len: u32,
        q_heads: usize,
        kv_heads: usize,
        head_dim: usize,
        block_size: usize,
        dtype: String,
    }

    impl Case {
        /// As benches/peers.py names it.
        fn name(&self) -> String {
            let Self { seqs, len, q_heads, kv_heads, head_dim, block_size, dtype } = self;
            format!("{dtype} {seqs}x{len} q{q_heads} kv{kv_heads} d{head_dim} b{block_size}")
        }

        fn blocks_per_seq(&self) -> usize {
            (self.len as usize).div_ceil(self.block_size)
        }

        fn shape(&self) -> PoolShape {
            PoolShape {
                num_blocks: self.seqs * self.blocks_per_seq(),
                block_size: self.block_size,
                num_kv_heads: self.kv_heads,
                head_dim: self.head_dim,
            }
        }
    }

    /// One measurement.
    #[derive(Serialize)]
    struct Row {
        case: String,
        operation: &'static str,
        peer: &'static str,
        median_us: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        in_graph_us: Option<f64>,
        host_us: f64,
        gb_per_s: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        percent_of_ceiling: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        load_ms: Option<f64>,
    }

    #[derive(Serialize)]
    struct Report {
        device: String,
        versions: serde_json::Value,
        rows: Vec<Row>,
    }

    pub fn main() -> Outcome<()> {
        match std::env::var("PAGEDPTX_DRIVER").as_deref() {
            #[cfg(feature = "cust")]
            Ok("cust") => run::<pagedptx::driver::Cust>(),
            #[cfg(feature = "cudarc")]
            Ok("cudarc") => run::<pagedptx::driver::Cudarc>(),
            Ok(other) => {
                Err(format!("PAGEDPTX_DRIVER={other} is no GPU driver of this build").into())
            }
            #[cfg(feature = "cudarc")]
            Err(_) => run::<pagedptx::driver::Cudarc>(),
            #[cfg(not(feature = "cudarc"))]
            Err(_) => run::<pagedptx::driver::Cust>(),
        }
    }

    fn run<L>() -> Outcome<()> {
        let options = Options::parse();
        let device = Device::new(CudaDriver::<L>::new(options.device)?)?;
        let stream = device.stream()?;
        println!("{}", device.properties().name);
        let cases: Vec<Case> = serde_json::from_str(include_str!("shapes.json"))?;
        let mut rows = Vec::new();
        for case in cases.iter().filter(|case| case.name().contains(&options.only)) {
            let mut both = match case.dtype.as_str() {
                "f32" => measure::<L, f32>(&stream, case)?,
                "f16" => measure::<L, f16>(&stream, case)?,
                "bf16" => measure::<L, bf16>(&stream, case)?,
                other => return Err(format!("dtype {other} in shapes.json").into()),
            };
            for row in &both {
                print_row(row);
            }
            rows.append(&mut both);
        }
        if let Some(path) = options.json {
            let device = device.properties().name.clone();
            let versions = serde_json::json!({ "pagedptx": env!("CARGO_PKG_VERSION") });
            let report = Report { device, versions, rows };
            std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")?;
        }
        Ok(())
    }

    fn print_row(row: &Row) {
        let Row { case, peer, median_us, host_us, gb_per_s, .. } = row;
        print!("{case:40} {peer:14} {median_us:9.2} us {gb_per_s:7.0} GB/s, host {host_us:.2} us");
        if let Some(percent) = row.percent_of_ceiling {
            print!(", {percent:.1} % of the ceiling");
        }
        if let Some(us) = row.in_graph_us {
            print!(", in a graph {us:.2} us");
        }
        if let Some(ms) = row.load_ms {
            print!(", loaded in {ms:.1} ms");
        }
        println!();
    }

    /// Memory of one rotation.
    struct Rotation<'s, L, T: Element> {
        pool: KvPool<'s, CudaDriver<L>, T>,
        tables: BlockTables<'s, CudaDriver<L>>,
        q: Buffer<'s, CudaDriver<L>, T>,
        out: Buffer<'s, CudaDriver<L>, T>,
    }

    fn measure<'s, L, T: Element + From16>(
        stream: &'s Stream<CudaDriver<L>>,
        case: &Case,
    ) -> Outcome<Vec<Row>> {
        let shape = case.shape();
        let pool_bytes = 2 * shape.num_slots()? * case.kv_heads * case.head_dim * size_of::<T>();
        let cold = 4 * stream.device().driver().l2_cache_bytes()?;
        let count = cold.div_ceil(pool_bytes).max(1);
        let mut rotations = (0..count)
            .map(|rotation| Rotation::new(stream, case, rotation))
            .collect::<Outcome<Vec<_>>>()?;
        let before = Instant::now();
        let (seqs, width) = (case.seqs, case.blocks_per_seq());
        let mut plan = DecodePlan::<_, T, T>::new(stream, shape, case.q_heads, seqs, width)?;
        let load_ms = 1e3 * before.elapsed().as_secs_f64();
        let sm_scale = 1.0 / (case.head_dim as f32).sqrt();

        let mut step = |rotation: &mut Rotation<'s, L, T>| {
            let Rotation { pool, tables, q, out } = rotation;
            decode(&mut plan, pool, tables, DecodeArgs { q, out, lse: None, sm_scale })
        };
        let (median_us, host_us) = times(stream, count, |i| step(&mut rotations[i]))?;
        let mut graph = stream.capture(|| rotations.iter_mut().try_for_each(&mut step))?;
        let (all_us, _) = times(stream, 1, |_| graph.replay())?;

        let ceiling = Ceiling::new(stream)?;
        let (read_us, read_host_us) = times(stream, count, |i| ceiling.read(&rotations[i].pool))?;

        let live =
            2 * case.seqs * case.len as usize * case.kv_heads * case.head_dim * size_of::<T>();
        let rate = |us: f64| live as f64 / us / 1e3;
        let read_rate = pool_bytes as f64 / read_us / 1e3;
        let row = |operation, peer, median_us, host_us, gb_per_s| Row {
            case: case.name(),
            operation,
            peer,
            median_us,
            in_graph_us: None,
            host_us,
            gb_per_s,
            percent_of_ceiling: None,
            load_ms: None,
        };
        Ok(vec![
            Row {
                in_graph_us: Some(all_us / count as f64),
                percent_of_ceiling: Some(100.0 * rate(median_us) / read_rate),
                load_ms: Some(load_ms),
                ..row("decode", "pagedptx", median_us, host_us, rate(median_us))
            },
            row("read", "read ceiling", read_us, read_host_us, read_rate),
        ])
    }

    /// Medians over many calls of `call(i % count)`: the device's time and the host's, in microseconds.
    fn times<D: Events>(
        stream: &Stream<D>,
        count: usize,
        mut call: impl FnMut(usize) -> pagedptx::Result<()>,
    ) -> Outcome<(f64, f64)> {
        let driver = stream.device().driver();
        (0..WARM_UP).try_for_each(|i| call(i % count))?;
        stream.synchronize()?;
        let (mut events, mut host) = (Vec::new(), Vec::new());
        for i in 0..RUNS {
            let start = driver.record(stream.raw())?;
            let before = Instant::now();
            call(i % count)?;
            host.push(1e6 * before.elapsed().as_secs_f64());
            events.push((start, driver.record(stream.raw())?));
        }
        let device = events
            .iter()
            .map(|(start, end)| Ok(1e3 * f64::from(driver.milliseconds_between(start, end)?)))
            .collect::<pagedptx::Result<Vec<_>>>()?;
        Ok((median(device), median(host)))
    }

    fn median(mut values: Vec<f64>) -> f64 {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    }

    impl<'s, L, T: Element + From16> Rotation<'s, L, T> {
        /// Random values, and blocks in an order that differs from rotation to rotation.
        fn new(stream: &'s Stream<CudaDriver<L>>, case: &Case, rotation: usize) -> Outcome<Self> {
            let shape = case.shape();
            let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ (rotation as u64 + 1));
            let mut values =
                |len| (0..len).map(|_| T::from_bits16(random.next())).collect::<Vec<_>>();
            let mut pool = KvPool::new(stream, shape)?;
            let elems = shape.num_slots()? * case.kv_heads * case.head_dim;
            pool.write_k(&values(elems))?;
            pool.write_v(&values(elems))?;
            let q = Buffer::from_slice(stream, &values(case.seqs * case.q_heads * case.head_dim))?;
            let out = Buffer::zeroed(stream, q.len())?;
            let mut blocks: Vec<u32> = (0..shape.num_blocks as u32).collect();
            for last in (1..blocks.len()).rev() {
                blocks.swap(last, random.next() as usize % (last + 1));
            }
            let width = case.blocks_per_seq();
            let mut tables = BlockTables::new(stream, shape, case.seqs, width)?;
            let rows = blocks.chunks(width);
            tables.set(rows.map(|blocks| Sequence { blocks, len: case.len }))?;
            Ok(Self { pool, tables, q, out })
        }
    }

    /// xorshift64.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    /// Values of about −1..1 from random bits.
    trait From16 {
        fn from_bits16(bits: u64) -> Self;
    }

    macro_rules! from_16 {
        ($($type:ty: $from:expr),*) => {
            $(impl From16 for $type {
                fn from_bits16(bits: u64) -> Self {
                    $from((bits >> 48) as f32 / 32768.0 - 1.0)
                }
            })*
        };
    }
    from_16!(f32: core::convert::identity, f16: f16::from_f32, bf16: bf16::from_f32);

    /// The kernel that only reads.
    struct Ceiling<'s, L> {
        stream: &'s Stream<CudaDriver<L>>,
        kernel: <CudaDriver<L> as Driver>::Kernel,
        out: Buffer<'s, CudaDriver<L>, u32>,
    }

    impl<'s, L> Ceiling<'s, L> {
        fn new(stream: &'s Stream<CudaDriver<L>>) -> pagedptx::Result<Self> {
            let kernel = stream.device().driver().load("read", include_str!("read.ptx"))?;
            Ok(Self { stream, kernel, out: Buffer::zeroed(stream, 1)? })
        }

        fn read<T: Element>(&self, pool: &KvPool<'s, CudaDriver<L>, T>) -> pagedptx::Result<()> {
            let chunks = (pool.k().len() * size_of::<T>() / 64) as u64 & !31;
            let params = [pool.k().address().0, pool.v().address().0, self.out.address().0, chunks];
            let shape = LaunchShape {
                grid: [8 * self.stream.device().properties().num_multiprocessors, 1, 1],
                block: [256, 1, 1],
                dynamic_shared_bytes: 0,
                overlaps_previous: false,
            };
            let driver = self.stream.device().driver();
            let params = bytemuck::bytes_of(&params);
            // SAFETY: read.ptx reads `chunks` times 64 bytes of K and V, which have as many, and writes one word of `out`.
            unsafe { driver.launch(self.stream.raw(), &self.kernel, &shape, params) }
        }
    }
}
