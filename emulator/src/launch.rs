//! What a launch is given and what it gives back.

use crate::counters::Counters;

/// Which checks a launch makes. Bounds, alignment, barriers and hangs are always checked,
/// because without them the machine itself could not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checks(u32);

impl Checks {
    /// Nothing beyond what is always checked.
    pub const NONE: Checks = Checks(0);
    /// Reads of registers that nobody has written.
    pub const REGISTERS: Checks = Checks(1);
    /// Reads of memory that nobody has written; forbidden and protected ranges; bytes in flight.
    pub const MEMORY: Checks = Checks(2);
    /// Races in shared memory.
    pub const SHARED_RACES: Checks = Checks(4);
    /// Races in global memory between CTAs.
    pub const GLOBAL_RACES: Checks = Checks(8);
    /// Races between the lanes of one warp of which all have written at once. GPUs execute such a warp in order, and kernels in use
    /// rely on that, but the PTX ISA asks for `bar.warp.sync`, and a compiler may count on it. Without this, they are not reported.
    pub const LOCKSTEP: Checks = Checks(32);
    /// All of these.
    pub const ALL: Checks = Checks(15 | 32);
    /// Besides, order that every GPU known keeps although the PTX ISA does not promise it is none: that copies for which all lanes of a
    /// warp have waited at once come before all that it does then, and what a thread has done before it exits, before barriers which do not
    /// wait for it.
    pub const STRICT_ORDER: Checks = Checks(16);

    const NAMES: [(&'static str, Checks); 8] = [
        ("all", Checks::ALL),
        ("none", Checks::NONE),
        ("registers", Checks::REGISTERS),
        ("memory", Checks::MEMORY),
        ("shared-races", Checks::SHARED_RACES),
        ("global-races", Checks::GLOBAL_RACES),
        ("lockstep", Checks::LOCKSTEP),
        ("strict-order", Checks::STRICT_ORDER),
    ];

    /// Whether every check of `other` is on.
    #[inline(always)]
    pub const fn contains(self, other: Checks) -> bool {
        self.0 & other.0 == other.0
    }

    /// These and those.
    pub const fn with(self, other: Checks) -> Checks {
        Checks(self.0 | other.0)
    }

    /// These but not those.
    pub const fn without(self, other: Checks) -> Checks {
        Checks(self.0 & !other.0)
    }

    /// Names joined by commas, `all` and `none` among them, as in `all,strict-order`; the name that is unknown otherwise.
    pub fn parse(text: &str) -> Result<Checks, String> {
        text.split(',').try_fold(Checks::NONE, |sum, name| {
            let found = Checks::NAMES.iter().find(|(n, _)| *n == name.trim());
            found.map(|&(_, c)| sum.with(c)).ok_or_else(|| name.trim().to_owned())
        })
    }
}

/// How matrix instructions add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MmaMode {
    /// Exact products, summed in f32 by fused multiply-add.
    #[default]
    Fast,
    /// Bit by bit as the tensor cores of the target do it.
    BitAccurate,
}

/// How to launch an entry.
#[derive(Debug, Clone)]
pub struct Launch<'p> {
    /// CTAs in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a CTA in x, y, z.
    pub block: [u32; 3],
    /// Bytes of shared memory beyond what the kernel declares.
    pub dynamic_shared_bytes: u32,
    /// The entry's parameters, packed in order at their natural alignment.
    pub params: &'p [u8],
    /// Fixes the order of CTAs and warps and all else that hardware leaves open.
    pub seed: u64,
    /// Instructions that one warp may execute. One that orders CTAs counts for 100.
    pub step_limit: u64,
    /// Instructions that all warps of the launch may execute together, a CTA counting for at least 1,000, so that a
    /// wild grid ends too. It is looked at when a CTA ends.
    pub total_limit: u64,
    /// Threads of the host; 0 for one a core. The result does not depend on it.
    pub threads: usize,
    /// Which checks to make.
    pub checks: Checks,
    /// Whether to count memory traffic.
    pub traffic: bool,
    /// The architecture, as 80 or 90; the module's own `.target` if absent.
    pub sm: Option<u32>,
    /// How matrix instructions add up.
    pub mma: MmaMode,
    /// Ranges, as address and bytes, of which every byte has to have been written when the launch ends, by the host or by a
    /// kernel; one that has not is a finding, and so is to store an undefined value there.
    pub required: &'p [(u64, u64)],
    /// Ranges that are read after the launch: to store an undefined value there is a finding. Elsewhere it is one in memory that the host
    /// has filled; in memory that it has not, the value is passed on, and it is one where a kernel loads it and it decides something.
    pub outputs: &'p [(u64, u64)],
    /// Ranges that the host has filled and nobody reads after the launch: undefined values are passed on there too.
    pub scratch: &'p [(u64, u64)],
    /// CTAs that are on the device at a time: how many may wait for each other.
    pub max_resident_ctas: usize,
}

impl Default for Launch<'_> {
    fn default() -> Self {
        Launch {
            grid: [1; 3],
            block: [1; 3],
            dynamic_shared_bytes: 0,
            params: &[],
            seed: 0,
            step_limit: 1 << 28,
            total_limit: 1 << 36,
            threads: 0,
            checks: Checks::ALL,
            traffic: true,
            sm: None,
            mma: MmaMode::Fast,
            required: &[],
            outputs: &[],
            scratch: &[],
            max_resident_ctas: 256,
        }
    }
}

/// What a launch gives back when nothing was found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Report {
    /// What was counted.
    pub counters: Counters,
    /// What the kernel printed with `printf`, in the order in which its CTAs ended; 1 MiB at most.
    pub printed: String,
}
