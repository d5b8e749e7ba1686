//! Decode attention, shape by shape: what the emulator counts, what `ptxas` says, what memory would allow, and, with a GPU,
//! what it measures beside them.
//!
//! `cargo bench --bench attention` prints a table, `-- --json` one JSON object a line. Counters do not depend on the machine.
//! Calls too large to emulate are cut to their first sequences or tokens ([`Shape::slice`]); the output says so (`emulated`).
//!
//! With a feature `cudarc` or `cust` (`PAGEDPTX_DRIVER=cudarc|cust` chooses between them) each shape is timed on the GPU: calls
//! rotate through pools and tables until their K and V exceed four times the L2 cache, so that every call reads
//! memory; after a warm-up the median of the device's own times counts. A kernel that only reads the same bytes
//! (benches/read.ptx) runs in the same process, and rates are given in percent of its rate. Also: the time of a call within a
//! captured graph, which has no gaps between launches; the host's time for a call; and the time to load the kernel.

#[path = "attention/counters.rs"]
mod counters;
#[cfg(any(feature = "cust", feature = "cudarc"))]
#[path = "attention/gpu.rs"]
mod gpu;
#[path = "attention/ptxas.rs"]
mod ptxas;
#[path = "attention/roofline.rs"]
mod roofline;
#[path = "attention/shapes.rs"]
mod shapes;
#[path = "attention/table.rs"]
mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use pagedptx_harness::call::Shape;
use serde::Serialize;

use counters::Count;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Decode attention: counters of the emulator, `ptxas` figures, roofline; with a GPU, times.
#[derive(Parser)]
struct Args {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Only cases whose name contains this, e.g. `1x1024` or `bf16`.
    #[arg(long, default_value = "")]
    only: String,
    /// 16-token tiles times KV heads that are emulated at most, per shape.
    #[arg(long, default_value_t = 26_000)]
    tiles: u64,
    /// Instructions per tile of each section of the kernel too.
    #[arg(long)]
    sections: bool,
    /// Number of the GPU.
    #[cfg(any(feature = "cust", feature = "cudarc"))]
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One line of the report.
#[derive(Serialize)]
struct Row {
    case: String,
    peer: &'static str,
    kernel: &'static str,
    batch: usize,
    q_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    lengths: Vec<u32>,
    q_dtype: String,
    kv_dtype: String,
    /// `emulator`, or the GPU that the times are of.
    device: String,
    /// The slice that was emulated, where the whole is too slow.
    emulated: Option<String>,
    warp_instructions_per_tile: f64,
    /// `null` for a kernel without a loop over tiles.
    loop_instructions_per_tile: Option<f64>,
    matrix_instructions_per_tile: f64,
    load_sectors_over_ideal: f64,
    load_bytes_over_kv_bytes: f64,
    shared_conflicts: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    sections: Vec<(String, f64)>,
    ideal_bytes: u64,
    kv_bytes_in_flight_per_sm: BTreeMap<&'static str, u32>,
    ptxas: BTreeMap<&'static str, ptxas::Figures>,
    predicted_us: BTreeMap<&'static str, f64>,
    #[serde(flatten)]
    measured: Option<Measured>,
}

/// What a GPU measured.
#[derive(Serialize)]
struct Measured {
    median_us: f64,
    gb_per_s: f64,
    percent_of_read_ceiling: f64,
    host_us: f64,
    in_graph_us: f64,
    read_ceiling_gb_per_s: f64,
    load_ms: f64,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attention: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Outcome<()> {
    #[cfg(any(feature = "cust", feature = "cudarc"))]
    let gpu = gpu::open(args.device)?;
    let ptxas = ptxas::find();
    if ptxas.is_none() {
        eprintln!(
            "attention: ptxas is not installed, its figures and the bytes in flight are left out"
        );
    }
    let mut header = !args.json;
    let mut found = false;
    for (shape, dtype) in shapes::all()? {
        let case = format!("{dtype} {shape}");
        if !case.contains(&args.only) {
            continue;
        }
        found = true;
        #[cfg_attr(not(any(feature = "cust", feature = "cudarc")), allow(unused_mut))]
        let mut row = count(case, &shape, &dtype, args, ptxas.as_deref())
            .map_err(|e| format!("{dtype} {shape}: {e}"))?;
        #[cfg(any(feature = "cust", feature = "cudarc"))]
        {
            row.measured = Some(gpu.measure(&shape, &dtype)?);
            row.device = gpu.name().to_owned();
        }
        if args.json {
            println!("{}", serde_json::to_string(&row)?);
        } else {
            if std::mem::take(&mut header) {
                table::print_header(&row);
            }
            table::print_row(&row);
        }
    }
    if !found {
        return Err(format!("no case has {:?} in its name", args.only).into());
    }
    Ok(())
}

/// All of a row that needs no GPU.
fn count(
    case: String,
    shape: &Shape,
    dtype: &str,
    args: &Args,
    ptxas: Option<&Path>,
) -> Outcome<Row> {
    let slice = shape.slice(args.tiles);
    let (count, bytes): (Count, usize) = match dtype {
        "f32" => (counters::count::<f32>(&slice)?, 4),
        "f16" => (counters::count::<half::f16>(&slice)?, 2),
        "bf16" => (counters::count::<half::bf16>(&slice)?, 2),
        other => return Err(format!("dtype {other} in shapes.json").into()),
    };
    let figures = match ptxas {
        Some(path) => ptxas::figures(path, count.kernel, count.threads)?,
        None => BTreeMap::new(),
    };
    Ok(Row {
        case,
        peer: "pagedptx",
        kernel: count.kernel.entry,
        batch: shape.lengths.len(),
        q_heads: shape.q_heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        block_size: shape.block_size,
        lengths: shape.lengths.clone(),
        q_dtype: dtype.to_owned(),
        kv_dtype: dtype.to_owned(),
        device: "emulator".to_owned(),
        emulated: (slice != *shape).then(|| slice.to_string()),
        warp_instructions_per_tile: count.warp_instructions_per_tile(),
        loop_instructions_per_tile: count.loop_instructions_per_tile(),
        matrix_instructions_per_tile: count.matrix_instructions_per_tile(),
        load_sectors_over_ideal: count.load_sectors_over_ideal(),
        load_bytes_over_kv_bytes: count.load_bytes_over_kv_bytes(),
        shared_conflicts: count.shared_conflicts(),
        sections: if args.sections { count.sections() } else { Vec::new() },
        ideal_bytes: shape.kv_bytes(bytes),
        kv_bytes_in_flight_per_sm: ptxas::bytes_in_flight(
            count.kernel,
            count.threads,
            shape.head_dim,
            &figures,
        ),
        ptxas: figures,
        predicted_us: roofline::predict(shape.kv_bytes(bytes)),
        measured: None,
    })
}
