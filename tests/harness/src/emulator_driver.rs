//! The CPU emulator as a [`Driver`]: every launch is checked access by access and counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pagedptx::{DeviceAddress, DeviceProperties, Driver, Error, LaunchShape, Result};
use ptx_emulator::{Checks, Counters, Launch, MmaMode, Module};

use crate::runner::TestDriver;

impl TestDriver for EmulatorDriver {
    fn forbid(&self, address: DeviceAddress, bytes: usize) -> Result<()> {
        self.device.forbid(address.0, bytes).map_err(|error| failed("forbid", error.to_string()))
    }
}

/// A device that runs PTX on the CPU.
///
/// A finding of the emulator is the error of the launch that shows it, and of every call after it, as on a
/// device whose context is lost.
pub struct EmulatorDriver {
    device: ptx_emulator::Device,
    properties: DeviceProperties,
    options: Options,
    state: Mutex<State>,
}

/// How an [`EmulatorDriver`] runs launches.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seed of the order of CTAs and warps; launch n runs with `seed + n`.
    pub seed: u64,
    /// Host threads, 0 = all cores; nothing depends on it but time.
    pub threads: usize,
    /// Which checks a launch makes; all by default.
    pub checks: Checks,
    /// Count memory traffic.
    pub traffic: bool,
    /// How matrix instructions add up.
    pub mma: MmaMode,
    /// Architecture, as 80 or 90.
    pub sm: u32,
    /// Multiprocessors that the device says it has.
    pub num_multiprocessors: u32,
    /// Replacements in the PTX text: mutants for tests of tests.
    pub rewrites: Vec<Rewrite>,
}

impl Default for Options {
    /// An sm_90 of 4 multiprocessors with all checks on, and no order but that of the PTX ISA.
    fn default() -> Self {
        Self {
            seed: 0,
            threads: 0,
            checks: Checks::ALL.with(Checks::STRICT_ORDER),
            traffic: true,
            mma: MmaMode::Fast,
            sm: 90,
            num_multiprocessors: 4,
            rewrites: Vec::new(),
        }
    }
}

/// A replacement in the PTX text of some kernels.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite {
    /// What the names of those kernels begin with.
    pub entries: &'static str,
    /// A text that occurs in each of them.
    pub from: &'static str,
    /// What takes its place, everywhere.
    pub to: &'static str,
}

#[derive(Default)]
struct State {
    launches: u64,
    counters: Counters,
    last_counters: Counters,
    fault: Option<String>,
}

/// A loaded kernel: its module and its entry.
#[derive(Debug, Clone)]
pub struct EmulatorKernel {
    module: Arc<Module>,
    entry: &'static str,
}

impl Default for EmulatorDriver {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl EmulatorDriver {
    /// An emulated device.
    pub fn new(mut options: Options) -> Self {
        if options.threads == 0 {
            // Asked once: it reads files, which takes about as long as a small launch.
            options.threads = std::thread::available_parallelism().map_or(1, usize::from);
        }
        Self {
            device: ptx_emulator::Device::new(),
            properties: DeviceProperties {
                name: "emulator".to_owned(),
                compute_capability: (options.sm / 10, options.sm % 10),
                num_multiprocessors: options.num_multiprocessors,
                shared_bytes_per_cta: shared_bytes_per_cta(options.sm),
            },
            options,
            state: Mutex::default(),
        }
    }

    /// Counters of the latest launch, each line's included.
    pub fn last_counters(&self) -> Counters {
        self.state().last_counters.clone()
    }

    /// Sum of the counters of all launches so far, without those of single lines.
    pub fn counters(&self) -> Counters {
        self.state().counters.clone()
    }

    /// Number of launches so far, the failed one included.
    pub fn launches(&self) -> u64 {
        self.state().launches
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails once a launch has failed.
    fn expect_alive(&self) -> Result<()> {
        match &self.state().fault {
            None => Ok(()),
            Some(message) => Err(failed("an earlier launch", message.clone())),
        }
    }
}

/// Shared memory that one CTA may ask for (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
fn shared_bytes_per_cta(sm: u32) -> u32 {
    let kibibytes = match sm {
        80 | 87 => 163,
        90 | 100 | 103 | 110 => 227,
        _ => 99,
    };
    kibibytes * 1024
}

/// Adds all counts but those of single lines, which belong to one kernel each.
fn add(total: &mut Counters, launch: &Counters) {
    total.instructions += launch.instructions;
    for (total, launch) in total.classes.iter_mut().zip(launch.classes) {
        *total += launch;
    }
    let traffic = [
        (&mut total.global_loads, launch.global_loads),
        (&mut total.global_copies, launch.global_copies),
        (&mut total.global_stores, launch.global_stores),
    ];
    for (total, launch) in traffic {
        total.bytes += launch.bytes;
        total.sectors += launch.sectors;
        total.ideal_sectors += launch.ideal_sectors;
    }
    total.shared.wavefronts += launch.shared.wavefronts;
    total.shared.ideal_wavefronts += launch.shared.ideal_wavefronts;
    total.barriers += launch.barriers;
    total.matrix_instructions += launch.matrix_instructions;
    total.divergent_branches += launch.divergent_branches;
}

fn failed(operation: &'static str, message: String) -> Error {
    Error::Driver { operation, message }
}

fn not_ours(operation: &'static str, error: ptx_emulator::MemoryError) -> Error {
    failed(operation, error.to_string())
}

// SAFETY: D1: the emulator's allocations are disjoint, 256-byte aligned and live until freed. D2, D3, D4, D6: every call
// runs to its end before it returns, on copies of what it is given. D5: the emulator turns every wrong access into a
// finding, and `expect_alive` makes it stick; no host memory is reachable from a kernel.
unsafe impl Driver for EmulatorDriver {
    type Stream = ();
    type Kernel = EmulatorKernel;

    fn properties(&self) -> &DeviceProperties {
        &self.properties
    }

    fn create_stream(&self) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, (): &(), bytes: usize) -> Result<DeviceAddress> {
        self.expect_alive()?;
        self.device.allocate(bytes).map(DeviceAddress).map_err(|_| Error::OutOfMemory { bytes })
    }

    unsafe fn free(&self, (): &(), address: DeviceAddress) {
        // `free` has no way to report; an address that is no allocation shows in the caller's next use.
        let _ = self.device.free(address.0);
    }

    unsafe fn write(&self, (): &(), dst: DeviceAddress, src: &[u8]) -> Result<()> {
        self.expect_alive()?;
        self.device.write(dst.0, src).map_err(|error| not_ours("write", error))
    }

    unsafe fn read(&self, (): &(), src: DeviceAddress, dst: &mut [u8]) -> Result<()> {
        self.expect_alive()?;
        self.device.read(src.0, dst).map_err(|error| not_ours("read", error))
    }

    unsafe fn fill(&self, (): &(), dst: DeviceAddress, value: u8, bytes: usize) -> Result<()> {
        self.expect_alive()?;
        self.device.write(dst.0, &vec![value; bytes]).map_err(|error| not_ours("fill", error))
    }

    unsafe fn copy(
        &self,
        (): &(),
        dst: DeviceAddress,
        src: DeviceAddress,
        bytes: usize,
    ) -> Result<()> {
        self.expect_alive()?;
        let mut host = vec![0; bytes];
        self.device.read(src.0, &mut host).map_err(|error| not_ours("copy", error))?;
        self.device.write(dst.0, &host).map_err(|error| not_ours("copy", error))
    }

    fn load(&self, entry: &'static str, ptx: &'static str) -> Result<EmulatorKernel> {
        let mut text = ptx.to_owned();
        let rewrites = &self.options.rewrites;
        for Rewrite { from, to, .. } in rewrites.iter().filter(|it| entry.starts_with(it.entries)) {
            if !text.contains(from) {
                return Err(failed("rewrite", format!("{from:?} does not occur in {entry}")));
            }
            text = text.replace(from, to);
        }
        let module = Module::parse(&format!("{entry}.ptx"), &text)
            .map_err(|error| failed("load", error.to_string()))?;
        Ok(EmulatorKernel { module: Arc::new(module), entry })
    }

    unsafe fn launch(
        &self,
        (): &(),
        kernel: &EmulatorKernel,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        self.expect_alive()?;
        let launches = {
            let mut state = self.state();
            state.launches += 1;
            state.launches
        };
        let launch = Launch {
            grid: shape.grid,
            block: shape.block,
            dynamic_shared_bytes: shape.dynamic_shared_bytes,
            params,
            seed: self.options.seed.wrapping_add(launches - 1),
            threads: self.options.threads,
            checks: self.options.checks,
            traffic: self.options.traffic,
            mma: self.options.mma,
            sm: Some(self.options.sm),
            ..Launch::default()
        };
        match self.device.launch(&kernel.module, kernel.entry, &launch) {
            Ok(report) => {
                let mut state = self.state();
                add(&mut state.counters, &report.counters);
                state.last_counters = report.counters;
                Ok(())
            }
            Err(error) => {
                let message = error.to_string();
                self.state().fault = Some(message.clone());
                Err(failed("launch", message))
            }
        }
    }

    fn synchronize(&self, (): &()) -> Result<()> {
        self.expect_alive()
    }
}
