//! What a launch counts. Nothing here depends on time or on the machine.

use crate::exec::lanes::{LANES, Lanes, Mask, lanes};

/// The families of instructions that are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstructionClass {
    /// Integer arithmetic.
    Integer,
    /// Bits, shifts, permutations.
    Bits,
    /// Arithmetic on f32.
    Float,
    /// Arithmetic on f16 and bf16.
    Half,
    /// Arithmetic on f64.
    Double,
    /// exp2, log2, reciprocals, roots, sine, cosine, tanh.
    Special,
    /// Conversions.
    Convert,
    /// Comparisons and selections.
    Compare,
    /// Moves, packing, addresses.
    Move,
    /// Loads and stores.
    Memory,
    /// Atomic operations.
    Atomic,
    /// Asynchronous copies and what waits for them.
    Copy,
    /// Matrix instructions.
    Matrix,
    /// Shuffles, votes, warp reductions.
    Warp,
    /// Barriers and fences.
    Barrier,
    /// Branches and exits.
    Control,
}

impl InstructionClass {
    /// All classes.
    pub const ALL: [InstructionClass; 16] = {
        use InstructionClass::*;
        [
            Integer, Bits, Float, Half, Double, Special, Convert, Compare, Move, Memory, Atomic,
            Copy, Matrix, Warp, Barrier, Control,
        ]
    };

    /// The name in lower case.
    pub fn name(self) -> &'static str {
        use InstructionClass::*;
        match self {
            Integer => "integer",
            Bits => "bits",
            Float => "float",
            Half => "half",
            Double => "double",
            Special => "special",
            Convert => "convert",
            Compare => "compare",
            Move => "move",
            Memory => "memory",
            Atomic => "atomic",
            Copy => "copy",
            Matrix => "matrix",
            Warp => "warp",
            Barrier => "barrier",
            Control => "control",
        }
    }
}

/// How often an instruction ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// Times a warp executed it.
    pub warps: u64,
    /// Lanes that took part, summed.
    pub threads: u64,
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Count) {
        self.warps += other.warps;
        self.threads += other.threads;
    }
}

/// Traffic of one kind of access to global memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes that lanes asked for.
    pub bytes: u64,
    /// Sectors of 32 bytes that the warps' accesses touched, each instruction for itself.
    pub sectors: u64,
    /// Sectors that the distinct bytes of each instruction would fill.
    pub ideal_sectors: u64,
}

/// Traffic of shared memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SharedTraffic {
    /// Passes over the 32 banks that the accesses took.
    pub wavefronts: u64,
    /// Passes that they would take without conflicts.
    pub ideal_wavefronts: u64,
}

/// The counts of a launch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// All instructions.
    pub instructions: Count,
    /// Instructions of each class, in the order of [`InstructionClass::ALL`].
    pub classes: [Count; 16],
    /// Instructions of each line of the PTX file that ran, by line.
    pub lines: Vec<(u32, Count)>,
    /// Loads from global memory, asynchronous copies among them.
    pub global_loads: Traffic,
    /// Stores to global memory.
    pub global_stores: Traffic,
    /// Shared memory.
    pub shared: SharedTraffic,
    /// Barriers of a CTA, counted once a warp.
    pub barriers: u64,
    /// Matrix instructions, counted once a warp.
    pub matrix_instructions: u64,
    /// Branches that split the lanes of a warp.
    pub divergent_branches: u64,
    /// Most bytes that asynchronous copies of one warp had in flight at a time.
    pub peak_bytes_in_flight: u64,
}

impl Counters {
    /// The counts of one class.
    pub fn class(&self, class: InstructionClass) -> Count {
        self.classes[class as usize]
    }

    /// Adds the memory traffic and the branches of a part of a launch.
    pub(crate) fn add_traffic(&mut self, other: &Counters) {
        for (mine, theirs) in [
            (&mut self.global_loads, other.global_loads),
            (&mut self.global_stores, other.global_stores),
        ] {
            mine.bytes += theirs.bytes;
            mine.sectors += theirs.sectors;
            mine.ideal_sectors += theirs.ideal_sectors;
        }
        self.shared.wavefronts += other.shared.wavefronts;
        self.shared.ideal_wavefronts += other.shared.ideal_wavefronts;
        self.divergent_branches += other.divergent_branches;
        self.peak_bytes_in_flight = self.peak_bytes_in_flight.max(other.peak_bytes_in_flight);
    }
}

impl Traffic {
    /// Counts one access of a warp, `bytes` a lane, at aligned addresses.
    #[inline(always)]
    pub(crate) fn count(&mut self, addresses: &Lanes<u64>, mask: Mask, bytes: u64) {
        let active = u64::from(mask.count_ones());
        self.bytes += active * bytes;
        // Consecutive lanes at consecutive addresses: the usual case, in one vector loop.
        let mut steps = 0;
        for lane in 1..LANES {
            steps += u64::from(addresses.0[lane].wrapping_sub(addresses.0[lane - 1]) == bytes);
        }
        if mask == u32::MAX && steps == LANES as u64 - 1 {
            let (first, last) = (addresses.0[0], addresses.0[LANES - 1] + bytes - 1);
            self.sectors += (last >> 5) - (first >> 5) + 1;
            self.ideal_sectors += bytes;
        } else {
            self.scattered(addresses, mask, bytes);
        }
    }

    /// Counts a copy of one run of bytes.
    pub(crate) fn count_range(&mut self, start: u64, bytes: u64) {
        if bytes > 0 {
            self.bytes += bytes;
            self.sectors += ((start + bytes - 1) >> 5) - (start >> 5) + 1;
            self.ideal_sectors += bytes.div_ceil(32);
        }
    }

    /// As [`Traffic::count`], for any addresses.
    fn scattered(&mut self, addresses: &Lanes<u64>, mask: Mask, bytes: u64) {
        let (mut sorted, mut count) = ([0u64; LANES], 0);
        for lane in lanes(mask) {
            sorted[count] = addresses.0[lane];
            count += 1;
        }
        let sorted = &mut sorted[..count];
        sorted.sort_unstable();
        // Accesses are aligned to their size, so those up to 32 bytes lie in one sector each.
        let (mut sectors, mut distinct, mut before) = (0, 0, None);
        for &mut address in sorted {
            distinct += u64::from(before != Some(address));
            sectors += u64::from(before.map(|b: u64| b >> 5) != Some(address >> 5));
            before = Some(address);
        }
        self.sectors += sectors;
        self.ideal_sectors += (distinct * bytes).div_ceil(32);
    }
}

impl SharedTraffic {
    /// Counts one access of a warp to shared memory, `bytes` a lane.
    ///
    /// Accesses of 8 bytes are served half a warp at a time, of 16 bytes a quarter; within such a
    /// part, two different words of one bank take two wavefronts.
    #[inline(always)]
    pub(crate) fn count(&mut self, addresses: &Lanes<u64>, mask: Mask, bytes: u64) {
        let parts = (bytes / 4).clamp(1, 4) as usize;
        let size = LANES / parts;
        for part in 0..parts {
            let chunk = if parts == 1 { mask } else { mask >> (part * size) & ((1 << size) - 1) };
            if chunk == 0 {
                continue;
            }
            self.ideal_wavefronts += 1;
            let first = part * size;
            let mut steps = 0;
            for lane in 1..size {
                steps += usize::from(
                    addresses.0[first + lane].wrapping_sub(addresses.0[first + lane - 1]) == bytes,
                );
            }
            let straight = bytes >= 4 && steps == size - 1;
            self.wavefronts += if straight { 1 } else { conflicts(addresses, first, chunk, bytes) };
        }
    }
}

/// Wavefronts of the lanes of `chunk`, which start at lane `first`.
fn conflicts(addresses: &Lanes<u64>, first: usize, chunk: Mask, bytes: u64) -> u64 {
    let words = (bytes / 4).clamp(1, 4);
    let (mut seen, mut count) = ([0u64; 32], 0);
    let mut banks = [0u8; 32];
    for lane in lanes(chunk) {
        for word in 0..words {
            let index = (addresses.0[first + lane] >> 2) + word;
            if !seen[..count].contains(&index) && count < 32 {
                seen[count] = index;
                count += 1;
                banks[(index % 32) as usize] += 1;
            }
        }
    }
    banks.iter().copied().max().unwrap_or(1).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stride(base: u64, step: u64) -> Lanes<u64> {
        Lanes(std::array::from_fn(|lane| base + lane as u64 * step))
    }

    #[test]
    fn sectors_of_straight_strided_and_equal_addresses() {
        let mut traffic = Traffic::default();
        traffic.count(&stride(0x1000, 4), u32::MAX, 4);
        assert_eq!((traffic.bytes, traffic.sectors, traffic.ideal_sectors), (128, 4, 4));
        let mut traffic = Traffic::default();
        traffic.count(&stride(0x1010, 4), u32::MAX, 4);
        assert_eq!((traffic.sectors, traffic.ideal_sectors), (5, 4));
        let mut traffic = Traffic::default();
        traffic.count(&stride(0x1000, 256), u32::MAX, 16);
        assert_eq!((traffic.sectors, traffic.ideal_sectors), (32, 16));
        let mut traffic = Traffic::default();
        traffic.count(&stride(0x1000, 0), 0xff, 4);
        assert_eq!((traffic.bytes, traffic.sectors, traffic.ideal_sectors), (32, 1, 1));
    }

    #[test]
    fn wavefronts_with_and_without_conflicts() {
        let wavefronts = |step, bytes| {
            let mut shared = SharedTraffic::default();
            shared.count(&stride(1024, step), u32::MAX, bytes);
            (shared.wavefronts, shared.ideal_wavefronts)
        };
        assert_eq!(wavefronts(4, 4), (1, 1));
        assert_eq!(wavefronts(0, 4), (1, 1));
        assert_eq!(wavefronts(8, 4), (2, 1));
        assert_eq!(wavefronts(128, 4), (32, 1));
        assert_eq!(wavefronts(16, 16), (4, 4));
        assert_eq!(wavefronts(128, 16), (32, 4));
        assert_eq!(wavefronts(2, 2), (1, 1));
        assert_eq!(wavefronts(132, 4), (1, 1));
    }
}
