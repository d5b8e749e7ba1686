//! What the emulator counts of a call.

use pagedptx::kernels::KernelSource;
use pagedptx::{Device, Result};
use pagedptx_harness::call::{Call, RandomElement, Shape};
use pagedptx_harness::counting;
use pagedptx_harness::{EmulatorDriver, EmulatorOptions};
use ptx_emulator::Counters;

/// A call on the emulator: its kernel and its counters.
pub struct Count {
    pub kernel: &'static KernelSource,
    /// Threads of a CTA.
    pub threads: u32,
    pub counters: Counters,
    /// Tiles of 16 tokens times KV heads.
    tiles: u64,
    kv_bytes: u64,
}

/// Runs a call once, all checks on.
pub fn count<T: RandomElement>(shape: &Shape) -> Result<Count> {
    // As many multiprocessors as an H100 has: CTAs that find no work count too.
    let options = EmulatorOptions { num_multiprocessors: 132, ..EmulatorOptions::default() };
    let device = Device::new(EmulatorDriver::new(options))?;
    let stream = device.stream()?;
    let mut plan = shape.plan::<_, T>(&stream)?;
    Call::<_, T>::new(&stream, shape, 0)?.decode(&mut plan)?;
    let counters = device.driver().last_counters();
    let (tiles, kv_bytes) = (shape.tiles(), shape.kv_bytes(size_of::<T>()));
    Ok(Count { kernel: plan.kernel(), threads: plan.threads(), counters, tiles, kv_bytes })
}

impl Count {
    /// PTX warp instructions of the launch over the tiles.
    pub fn warp_instructions_per_tile(&self) -> f64 {
        self.counters.instructions.warps as f64 / self.tiles as f64
    }

    /// The same of the main loop, where the kernel has one.
    pub fn loop_instructions_per_tile(&self) -> Option<f64> {
        counting::loop_instructions(self.kernel.ptx, &self.counters, self.tiles)
    }

    pub fn matrix_instructions_per_tile(&self) -> f64 {
        self.counters.matrix_instructions as f64 / self.tiles as f64
    }

    /// Sectors that loads touch, over those that the bytes they name would fill, instruction by instruction.
    pub fn load_sectors_over_ideal(&self) -> f64 {
        let loads = self.counters.global_loads;
        loads.sectors as f64 / loads.ideal_sectors as f64
    }

    /// Bytes of all sectors that loads touch, of queries, tables and partial results too, over the bytes of live K and V.
    pub fn load_bytes_over_kv_bytes(&self) -> f64 {
        self.counters.global_loads.sectors as f64 * 32.0 / self.kv_bytes as f64
    }

    /// Passes over the banks of shared memory beyond the fewest possible.
    pub fn shared_conflicts(&self) -> u64 {
        self.counters.shared.wavefronts - self.counters.shared.ideal_wavefronts
    }

    /// Instructions per tile of each section of the kernel.
    pub fn sections(&self) -> Vec<(String, f64)> {
        counting::sections(self.kernel.ptx, &self.counters)
            .into_iter()
            .map(|(title, count)| (title, count as f64 / self.tiles as f64))
            .collect()
    }
}
