//! What a GPU measures of a call.

use std::time::Instant;

use pagedptx::driver::{CudaDriver, Driver, Events};
use pagedptx::{Buffer, Device, Element, KvPool, LaunchShape, Stream};
use pagedptx_harness::call::{Call, RandomElement, Shape};

use crate::{Measured, Outcome};

const WARM_UP: usize = 20;
const RUNS: usize = 200;

/// A GPU, with the driver left open.
pub trait Gpu {
    /// Its name.
    fn name(&self) -> &str;

    /// Times a call.
    fn measure(&self, shape: &Shape, dtype: &str) -> Outcome<Measured>;
}

/// The GPU with this number, behind the driver that `PAGEDPTX_DRIVER` names or the build has.
pub fn open(number: usize) -> Outcome<Box<dyn Gpu>> {
    match std::env::var("PAGEDPTX_DRIVER").as_deref() {
        #[cfg(feature = "cust")]
        Ok("cust") => with::<pagedptx::driver::Cust>(number),
        #[cfg(feature = "cudarc")]
        Ok("cudarc") => with::<pagedptx::driver::Cudarc>(number),
        Ok(other) => Err(format!("PAGEDPTX_DRIVER={other} is no GPU driver of this build").into()),
        #[cfg(feature = "cudarc")]
        Err(_) => with::<pagedptx::driver::Cudarc>(number),
        #[cfg(not(feature = "cudarc"))]
        Err(_) => with::<pagedptx::driver::Cust>(number),
    }
}

fn with<L: 'static>(number: usize) -> Outcome<Box<dyn Gpu>> {
    Ok(Box::new(Device::new(CudaDriver::<L>::new(number)?)?))
}

impl<L> Gpu for Device<CudaDriver<L>> {
    fn name(&self) -> &str {
        &self.properties().name
    }

    fn measure(&self, shape: &Shape, dtype: &str) -> Outcome<Measured> {
        let stream = self.stream()?;
        match dtype {
            "f32" => measure::<L, f32>(&stream, shape),
            "f16" => measure::<L, half::f16>(&stream, shape),
            "bf16" => measure::<L, half::bf16>(&stream, shape),
            other => Err(format!("dtype {other} in shapes.json").into()),
        }
    }
}

fn measure<L, T: RandomElement>(
    stream: &Stream<CudaDriver<L>>,
    shape: &Shape,
) -> Outcome<Measured> {
    let pool = shape.pool();
    let pool_bytes = 2 * pool.num_slots()? * shape.kv_heads * shape.head_dim * size_of::<T>();
    let cold = 4 * stream.device().driver().l2_cache_bytes()?;
    let count = cold.div_ceil(pool_bytes).max(1);
    let mut calls = (0..count as u64)
        .map(|seed| Call::<_, T>::new(stream, shape, seed))
        .collect::<pagedptx::Result<Vec<_>>>()?;
    let before = Instant::now();
    let mut plan = shape.plan::<_, T>(stream)?;
    let load_ms = 1e3 * before.elapsed().as_secs_f64();

    let (median_us, host_us) = times(stream, count, |i| calls[i].decode(&mut plan))?;
    let mut graph =
        stream.capture(|| calls.iter_mut().try_for_each(|call| call.decode(&mut plan)))?;
    let (all_us, _) = times(stream, 1, |_| graph.replay())?;

    let ceiling = Ceiling::new(stream)?;
    let (read_us, _) = times(stream, count, |i| ceiling.read(&calls[i].pool))?;
    let gb_per_s = shape.kv_bytes(size_of::<T>()) as f64 / median_us / 1e3;
    let read_ceiling_gb_per_s = pool_bytes as f64 / read_us / 1e3;
    Ok(Measured {
        median_us,
        gb_per_s,
        percent_of_read_ceiling: 100.0 * gb_per_s / read_ceiling_gb_per_s,
        host_us,
        in_graph_us: all_us / count as f64,
        read_ceiling_gb_per_s,
        load_ms,
    })
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

/// The kernel that only reads.
struct Ceiling<'s, L> {
    stream: &'s Stream<CudaDriver<L>>,
    kernel: <CudaDriver<L> as Driver>::Kernel,
    out: Buffer<'s, CudaDriver<L>, u32>,
}

impl<'s, L> Ceiling<'s, L> {
    fn new(stream: &'s Stream<CudaDriver<L>>) -> pagedptx::Result<Self> {
        let kernel = stream.device().driver().load("read", include_str!("../read.ptx"))?;
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
