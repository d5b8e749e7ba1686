//! Decode attention, shape by shape: what the emulator counts, what `ptxas` says, what memory would allow.
//!
//! `cargo bench --bench attention` prints a table, `-- --json` one JSON object a line. Counters do not depend on the machine.
//! Calls too large to emulate are cut to a slice of fewer KV heads, sequences or tokens ([`shapes::Shape::slice`]); the
//! output says so (`emulated`).

#[path = "ptxas.rs"]
mod ptxas;
#[path = "roofline.rs"]
mod roofline;
#[path = "shapes.rs"]
mod shapes;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Parser;
use half::{bf16, f16};
use pagedptx::kernels::KernelSource;
use pagedptx::{DecodePlan, Device, PoolShape};
use pagedptx_harness::EmulatorDriver;
use pagedptx_harness::draw::Spec;
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::runner;
use ptx_emulator::Counters;
use serde::Serialize;

use shapes::Shape;

/// Decode attention on the emulator: counters, `ptxas` figures, roofline.
#[derive(Parser)]
struct Args {
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Only shapes whose text contains this, e.g. "heads of 128".
    #[arg(long, default_value = "")]
    shape: String,
    /// 16-token tiles times KV heads that are emulated at most, per shape.
    #[arg(long, default_value_t = 6_000)]
    tiles: u64,
    /// What cargo passes to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One line of the report.
#[derive(Serialize)]
struct Row {
    kernel: &'static str,
    batch: usize,
    q_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    block_size: usize,
    lengths: Vec<usize>,
    q_dtype: &'static str,
    kv_dtype: &'static str,
    device: &'static str,
    /// The slice that was emulated, where the whole is too slow.
    emulated: Option<String>,
    warp_instructions_per_tile: f64,
    loop_instructions_per_tile: f64,
    matrix_instructions_per_tile: f64,
    load_sectors_over_ideal: f64,
    shared_conflicts: u64,
    bytes_over_ideal: f64,
    ideal_bytes: u64,
    kv_bytes_in_flight_per_sm: BTreeMap<&'static str, u32>,
    ptxas: BTreeMap<&'static str, ptxas::Figures>,
    predicted_us: Vec<roofline::Prediction>,
}

/// Prints the report.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let ptxas = ptxas::find();
    if ptxas.is_none() && !args.json {
        println!("ptxas is not installed: its figures are left out");
    }
    let shapes = shapes::all();
    let chosen = shapes.iter().filter(|shape| shape.to_string().contains(&args.shape));
    for shape in chosen {
        for dtype in [Dtype::F16, Dtype::Bf16] {
            let row = match measure(shape, dtype, args.tiles, ptxas.as_ref()) {
                Ok(row) => row,
                Err(error) => {
                    eprintln!("{shape}, {dtype}: {error}");
                    return ExitCode::FAILURE;
                }
            };
            if args.json {
                println!("{}", serde_json::to_string(&row).expect("a row is plain data"));
            } else {
                print(shape, &row);
            }
        }
    }
    ExitCode::SUCCESS
}

fn measure(
    shape: &Shape,
    dtype: Dtype,
    max_tiles: u64,
    ptxas: Option<&std::path::PathBuf>,
) -> Result<Row, String> {
    let slice = shape.slice(max_tiles);
    let heads = (slice.q_heads, slice.kv_heads);
    let mut spec = Spec::decode(dtype, heads, slice.head_dim, &slice.lengths);
    spec.block_size = slice.block_size;
    let driver = EmulatorDriver::default();
    let device = Device::new(driver).map_err(|error| error.to_string())?;
    runner::attend(&device, &spec.build()).map_err(|failure| failure.to_string())?;
    let counters = device.driver().last_counters();
    let kernel = kernel(&device, &slice, dtype).map_err(|error| error.to_string())?;

    let tiles = slice.tiles() as f64;
    let figures = match ptxas {
        Some(path) => {
            ptxas::figures(path, kernel.ptx, kernel.threads, kernel.dynamic_shared_bytes)?
        }
        None => BTreeMap::new(),
    };
    let loads = counters.global_loads;
    let shared = counters.shared;
    Ok(Row {
        kernel: kernel.entry,
        batch: shape.lengths.len(),
        q_heads: shape.q_heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
        block_size: shape.block_size,
        lengths: shape.lengths.clone(),
        q_dtype: dtype_name(dtype),
        kv_dtype: dtype_name(dtype),
        device: "emulator",
        emulated: (slice.tiles() != shape.tiles()).then(|| slice.to_string()),
        warp_instructions_per_tile: counters.instructions.warps as f64 / tiles,
        loop_instructions_per_tile: loop_instructions(kernel, &counters),
        matrix_instructions_per_tile: counters.matrix_instructions as f64 / tiles,
        load_sectors_over_ideal: loads.sectors as f64 / loads.ideal_sectors as f64,
        shared_conflicts: shared.wavefronts - shared.ideal_wavefronts,
        bytes_over_ideal: loads.bytes as f64 / slice.kv_bytes(2) as f64,
        ideal_bytes: shape.kv_bytes(2),
        kv_bytes_in_flight_per_sm: ptxas::bytes_in_flight(kernel, slice.head_dim, &figures),
        ptxas: figures,
        predicted_us: roofline::predict(shape.kv_bytes(2)),
    })
}

fn dtype_name(dtype: Dtype) -> &'static str {
    if dtype == Dtype::F16 { "f16" } else { "bf16" }
}

/// The kernel that the crate's plan picks for a call.
fn kernel(
    device: &Device<EmulatorDriver>,
    shape: &Shape,
    dtype: Dtype,
) -> pagedptx::Result<&'static KernelSource> {
    let stream = device.stream()?;
    let pool = PoolShape {
        num_blocks: 1,
        block_size: shape.block_size,
        num_kv_heads: shape.kv_heads,
        head_dim: shape.head_dim,
    };
    let index = match dtype {
        Dtype::F16 => DecodePlan::<_, f16, f16>::new(&stream, pool, shape.q_heads, 1, 1)?.kernel(),
        _ => DecodePlan::<_, bf16, bf16>::new(&stream, pool, shape.q_heads, 1, 1)?.kernel(),
    };
    Ok(index)
}

/// PTX instructions that warps executed between the label `$next_tile` and the branch back to it, over the times
/// that they passed the label.
fn loop_instructions(kernel: &KernelSource, counters: &Counters) -> f64 {
    let line_of = |found: &dyn Fn(&str) -> bool| {
        kernel.ptx.lines().position(found).map(|index| index as u32 + 1)
    };
    let first = line_of(&|line| line.starts_with("$next_tile:"));
    let last = line_of(&|line| line.contains("bra") && line.contains("$next_tile;"));
    let (Some(first), Some(last)) = (first, last) else { return f64::NAN };
    let inside = || counters.lines.iter().filter(|(line, _)| (first..=last).contains(line));
    let turns = inside().next().map_or(0, |(_, count)| count.warps);
    inside().map(|(_, count)| count.warps).sum::<u64>() as f64 / turns as f64
}

/// Four lines of text.
fn print(shape: &Shape, row: &Row) {
    println!("{shape}, {} ({})", row.kv_dtype, row.kernel);
    if let Some(slice) = &row.emulated {
        println!("    emulated: {slice}");
    }
    println!(
        "    per tile: {:.1} warp instructions, {:.1} in the loop, {:.1} on matrices; sectors {:.4} of ideal, bytes {:.4}, \
         shared conflicts {}",
        row.warp_instructions_per_tile,
        row.loop_instructions_per_tile,
        row.matrix_instructions_per_tile,
        row.load_sectors_over_ideal,
        row.bytes_over_ideal,
        row.shared_conflicts,
    );
    for (target, figures) in &row.ptxas {
        let flight = row.kv_bytes_in_flight_per_sm.get(target).copied().unwrap_or(0);
        println!(
            "    {target}: {} registers, {} bytes spilled, {} bytes shared, {} warps an SM, {} KB in flight",
            figures.registers,
            figures.spill_bytes,
            figures.shared_bytes,
            figures.warps_per_sm,
            flight >> 10,
        );
    }
    let times: Vec<_> =
        row.predicted_us.iter().map(|p| format!("{} {:.1} us", p.device, p.microseconds)).collect();
    println!("    {:.1} MB at peak bandwidth: {}", row.ideal_bytes as f64 / 1e6, times.join(", "));
}
