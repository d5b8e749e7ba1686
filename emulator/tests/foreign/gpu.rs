//! What every test here needs: a device with a module on it, packed parameters, seeded inputs.

use std::fmt::Debug;

use bytemuck::Pod;
use ptx_emulator::{Device, Launch, MmaMode, Module};

/// A PTX file for both architectures.
pub struct Source {
    pub name: &'static str,
    pub sm_80: &'static str,
    pub sm_90: &'static str,
}

/// The two PTX files compiled from one source.
macro_rules! source {
    ($name:literal) => {
        crate::gpu::Source {
            name: $name,
            sm_80: include_str!(concat!("ptx/sm_80/", $name, ".ptx")),
            sm_90: include_str!(concat!("ptx/sm_90/", $name, ".ptx")),
        }
    };
}
pub(crate) use source;

/// A device with one module.
pub struct Gpu {
    pub device: Device,
    module: Module,
    pub arch: &'static str,
    pub seed: u64,
    pub mma: MmaMode,
    text: &'static str,
}

impl Source {
    /// Runs a test for both architectures, under several seeds and with both ways to add up matrix products.
    pub fn each(&self, test: impl Fn(&Gpu)) {
        for (arch, text) in [("sm_80", self.sm_80), ("sm_90", self.sm_90)] {
            for (seed, mma) in [(0, MmaMode::Fast), (1, MmaMode::BitAccurate), (2, MmaMode::Fast)] {
                let name = format!("{arch}/{}.ptx", self.name);
                let module = Module::parse(&name, text).unwrap_or_else(|e| panic!("{e}"));
                test(&Gpu { device: Device::new(), module, arch, seed, mma, text });
            }
        }
    }
}

/// Where and how large a launch is.
#[derive(Clone, Copy)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
}

impl Shape {
    pub fn new(ctas: u32, threads: u32) -> Shape {
        Shape { grid: [ctas, 1, 1], block: [threads, 1, 1], shared: 0 }
    }

    pub fn grid(x: u32, y: u32, threads: u32) -> Shape {
        Shape { grid: [x, y, 1], block: [threads, 1, 1], shared: 0 }
    }

    pub fn with_shared(self, bytes: usize) -> Shape {
        Shape { shared: u32::try_from(bytes).expect("shared memory fits"), ..self }
    }
}

impl Gpu {
    /// A fresh device with another module, otherwise as this one.
    pub fn with(&self, name: &str, text: &'static str) -> Gpu {
        let module = Module::parse(name, text).unwrap_or_else(|e| panic!("{e}"));
        Gpu { device: Device::new(), module, arch: self.arch, seed: self.seed, mma: self.mma, text }
    }

    /// A buffer that holds `values`.
    pub fn input<T: Pod>(&self, name: &str, values: &[T]) -> u64 {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let address = self.device.allocate(bytes.len()).expect("memory");
        self.device.write(address, bytes).expect("inside");
        self.device.name(address, name).expect("live");
        address
    }

    /// A buffer for `count` values that nobody has written.
    pub fn output<T: Pod>(&self, name: &str, count: usize) -> u64 {
        let address = self.device.allocate(count * size_of::<T>()).expect("memory");
        self.device.name(address, name).expect("live");
        address
    }

    /// What a buffer holds, every byte of which has been written.
    pub fn read<T: Pod>(&self, address: u64, count: usize) -> Vec<T> {
        let written = self.device.is_initialised(address, count * size_of::<T>()).expect("inside");
        assert!(written, "{}: the kernel left a part of its output unwritten", self.arch);
        let mut values = vec![T::zeroed(); count];
        self.device.read(address, bytemuck::cast_slice_mut(&mut values)).expect("inside");
        values
    }

    /// Launches with all checks on; a finding fails the test.
    pub fn run(&self, entry: &str, shape: Shape, params: &Params) {
        let launch = Launch {
            grid: shape.grid,
            block: shape.block,
            dynamic_shared_bytes: shape.shared,
            params: &params.0,
            seed: self.seed,
            mma: self.mma,
            ..Launch::default()
        };
        let result = self.device.launch(&self.module, entry, &launch);
        let report = result.unwrap_or_else(|e| panic!("{entry}, seed {}: {e}", self.seed));
        assert!(report.counters.instructions.warps > 0);
    }

    /// Threads and dynamic shared memory as the first line of a file by Triton says, and the entry's name.
    pub fn triton(&self) -> (&'static str, Shape) {
        let line = self.text.lines().next().expect("a header");
        let (entry, rest) =
            line.trim_start_matches("// ").split_once(": ").expect("entry: numbers");
        let number = |word: &str| {
            let before = rest.split(word).next().unwrap_or("");
            before.split_whitespace().last().and_then(|n| n.parse().ok()).expect("a number")
        };
        (entry, Shape { grid: [1; 3], block: [number("threads"), 1, 1], shared: number("bytes") })
    }
}

/// Parameters, packed at their natural alignment.
#[derive(Default, Clone)]
pub struct Params(pub Vec<u8>);

impl Params {
    pub fn new() -> Params {
        Params::default()
    }

    /// One more parameter: a number or a pointer.
    pub fn add<T: Pod>(mut self, value: T) -> Params {
        self.align(size_of::<T>());
        self.0.extend_from_slice(bytemuck::bytes_of(&value));
        self
    }

    /// A struct by value, aligned to 8 bytes.
    pub fn add_struct(mut self, value: &Params) -> Params {
        self.align(8);
        self.0.extend_from_slice(&value.0);
        self
    }

    /// Pads to a multiple of `bytes`.
    pub fn align(&mut self, bytes: usize) {
        self.0.resize(self.0.len().next_multiple_of(bytes), 0);
    }
}

/// A seeded source of inputs (splitmix64).
pub struct Draw(u64);

impl Draw {
    pub fn new(seed: u64) -> Draw {
        Draw(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, both possible.
    pub fn int(&mut self, low: i64, high: i64) -> i64 {
        low + (self.bits() % (high - low + 1) as u64) as i64
    }

    /// Uniform in [0, 1).
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// N(0, 1) by Box and Muller.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    pub fn normals<T>(&mut self, count: usize, round: impl Fn(f64) -> T) -> Vec<T> {
        (0..count).map(|_| round(self.normal())).collect()
    }
}

/// Half a unit in the last place of f32, relative.
pub const U32: f64 = 1.0 / (1u64 << 24) as f64;
/// The same of f16 and bf16.
pub const U16: f64 = 1.0 / 2048.0;
pub const UBF: f64 = 1.0 / 256.0;

/// Fails where a value is farther from the expected one than its own tolerance.
pub fn assert_close(what: &str, got: &[f64], want: &[f64], tolerance: impl Fn(usize) -> f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let allowed = tolerance(i);
        let same = g == w || (g - w).abs() <= allowed;
        assert!(
            same,
            "{what}[{i}]: {g:e} is {:e} away from {w:e}, allowed are {allowed:e}",
            (g - w).abs()
        );
    }
}

/// Fails at the first element that differs.
pub fn assert_equal<T: PartialEq + Debug>(what: &str, got: &[T], want: &[T]) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert_eq!(g, w, "{what}[{i}]");
    }
}
