//! What a launch counts. Nothing here depends on time or on the machine.

use crate::exec::lanes::{ALL, LANES, Lanes, Mask, lanes};
use crate::exec::wide::{self, Routine};

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
    /// Sectors of 32 bytes that the warps' accesses touched, each instruction for itself. A sector whose two
    /// halves `cp.async.cg` brings to different sectors of shared memory counts twice, as an H200 fetches it.
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

impl std::ops::AddAssign<&Traffic> for Traffic {
    fn add_assign(&mut self, other: &Traffic) {
        self.bytes += other.bytes;
        self.sectors += other.sectors;
        self.ideal_sectors += other.ideal_sectors;
    }
}

impl std::ops::AddAssign for SharedTraffic {
    fn add_assign(&mut self, other: SharedTraffic) {
        self.wavefronts += other.wavefronts;
        self.ideal_wavefronts += other.ideal_wavefronts;
    }
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
    /// What of these loads asynchronous copies made.
    pub global_copies: Traffic,
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
    /// Most bytes that one warp had in flight at a time: of loads from global memory between the instruction and the first
    /// one that uses the register, and of asynchronous copies (`cp.async`, and `cp.async.bulk` to shared memory) until they are waited
    /// for. What only some of the paths to an instruction have loaded does not count there.
    pub peak_bytes_in_flight: u64,
}

impl Counters {
    /// The counts of one class.
    pub fn class(&self, class: InstructionClass) -> Count {
        self.classes[class as usize]
    }

    /// Adds what an asynchronous copy loads from global memory.
    #[inline(always)]
    pub(crate) fn add_copy(&mut self, traffic: &Traffic) {
        self.global_loads += traffic;
        self.global_copies += traffic;
    }

    /// Adds the memory traffic and the branches of a part of a launch.
    pub(crate) fn add_traffic(&mut self, other: &Counters) {
        self.global_loads += &other.global_loads;
        self.global_copies += &other.global_copies;
        self.global_stores += &other.global_stores;
        self.shared += other.shared;
        self.divergent_branches += other.divergent_branches;
        self.peak_bytes_in_flight = self.peak_bytes_in_flight.max(other.peak_bytes_in_flight);
    }
}

impl Traffic {
    /// Counts one access of a warp, `bytes` a lane, at aligned addresses.
    #[inline(always)]
    pub(crate) fn count(&mut self, addresses: &Lanes<u64>, mask: Mask, bytes: u64) {
        let (sectors, ideal) = wide::call(Sectors { addresses, mask, bytes });
        self.bytes += u64::from(mask.count_ones()) * bytes;
        self.sectors += sectors;
        self.ideal_sectors += ideal;
    }

    /// Counts a copy of one run of bytes.
    pub(crate) fn count_range(&mut self, start: u64, bytes: u64) {
        if bytes > 0 {
            self.bytes += bytes;
            self.sectors += ((start + bytes - 1) >> 5) - (start >> 5) + 1;
            self.ideal_sectors += bytes.div_ceil(32);
        }
    }
}

/// Sectors of 32 bytes that an access of a warp touches, and those that its distinct bytes would fill.
struct Sectors<'a> {
    addresses: &'a Lanes<u64>,
    mask: Mask,
    bytes: u64,
}

impl Routine for Sectors<'_> {
    type Out = (u64, u64);

    #[inline(always)]
    fn run(self) -> (u64, u64) {
        let Sectors { addresses: Lanes(at), mask, bytes } = self;
        // Lanes that do not go on where the lane before them ends.
        let mut starts: Mask = 1;
        for lane in 1..LANES {
            starts |= u32::from(at[lane] != at[lane - 1].wrapping_add(bytes)) << lane;
        }
        if starts == 1 && mask == ALL {
            let (first, last) = (at[0], at[LANES - 1] + bytes - 1);
            return ((last >> 5) - (first >> 5) + 1, bytes);
        }
        let starts = mask & (starts | !(mask << 1));
        let mut runs = [0; LANES];
        let (mut count, mut sorted, mut before) = (0, true, Run(0));
        for lane in lanes(starts) {
            let rest = (u64::from(starts | !mask) | 1 << LANES) >> (lane + 1);
            let run = Run::new(at[lane], (u64::from(rest.trailing_zeros()) + 1) * bytes);
            if run.start() >= before.start() && run.end() <= before.end() {
                continue;
            }
            sorted &= run.0 > before.0;
            before = run;
            runs[count % LANES] = run.0;
            count += 1;
        }
        let runs = &mut runs[..count];
        if !sorted {
            runs.sort_unstable();
        }
        union(runs)
    }
}

/// Sectors that copies past L1 fetch, 16 bytes a lane at aligned addresses. Of lanes that copy the same bytes the first counts.
pub(crate) fn fetched(from: &Lanes<u64>, to: &Lanes<u64>, mask: Mask) -> u64 {
    wide::call(Fetched { from, to, mask })
}

struct Fetched<'a> {
    from: &'a Lanes<u64>,
    to: &'a Lanes<u64>,
    mask: Mask,
}

impl Routine for Fetched<'_> {
    type Out = u64;

    #[inline(always)]
    fn run(self) -> u64 {
        let Fetched { from: Lanes(from), to: Lanes(to), mask } = self;
        let (mut order, mut count, mut sorted, mut last) = ([0; LANES], 0, true, 0);
        for lane in lanes(mask) {
            sorted &= from[lane] >= last;
            last = from[lane];
            order[count % LANES] = lane;
            count += 1;
        }
        let order = &mut order[..count];
        if !sorted {
            order.sort_unstable_by_key(|&lane| (from[lane], lane));
        }
        let (mut fetched, mut piece, mut way) = (0, None, None);
        for &lane in &*order {
            if piece.replace(from[lane]) != Some(from[lane]) {
                let this = (from[lane] >> 5, to[lane] >> 5);
                fetched += u64::from(way.replace(this) != Some(this));
            }
        }
        fetched
    }
}

/// A run of at most 1024 bytes, packed so that runs are sorted as numbers are. No memory lies beyond 2⁵² bytes.
#[derive(Clone, Copy)]
struct Run(u64);

impl Run {
    #[inline(always)]
    fn new(start: u64, bytes: u64) -> Run {
        Run(start << 11 | bytes)
    }

    #[inline(always)]
    fn start(self) -> u64 {
        self.0 >> 11
    }

    #[inline(always)]
    fn end(self) -> u64 {
        self.start() + (self.0 & 0x7ff)
    }
}

/// Sectors of sorted runs of bytes, which may overlap, and those that their bytes would fill.
#[inline(always)]
fn union(runs: &[u64]) -> (u64, u64) {
    let (mut sectors, mut bytes, mut done) = (0, 0, 0);
    for &run in runs {
        let (start, end) = (Run(run).start().max(done), Run(run).end());
        if start >= end {
            continue;
        }
        // The sector in which the bytes before ended has been counted.
        let counted = done > 0 && (done - 1) >> 5 == start >> 5;
        sectors += ((end - 1) >> 5) - (start >> 5) + u64::from(!counted);
        bytes += end - start;
        done = end;
    }
    (sectors, bytes.div_ceil(32))
}

impl SharedTraffic {
    /// Counts one access of a warp to shared memory, `bytes` a lane.
    ///
    /// Accesses of 8 bytes are served half a warp at a time, of 16 bytes a quarter; within such a
    /// part, two different words of one bank take two wavefronts.
    #[inline(always)]
    pub(crate) fn count(&mut self, addresses: &Lanes<u64>, mask: Mask, bytes: u64) {
        let (taken, ideal) = match bytes {
            0..=4 => wide::call(Wavefronts::<LANES> { addresses, mask }),
            5..=8 => wide::call(Wavefronts::<16> { addresses, mask }),
            _ => wide::call(Wavefronts::<8> { addresses, mask }),
        };
        self.wavefronts += taken;
        self.ideal_wavefronts += ideal;
    }
}

/// Wavefronts that an access takes and the least that it could, served in parts of `SIZE` lanes.
///
/// A part as a whole is as wide as the banks: there are as many units of memory side by side, each as wide as what a
/// lane accesses (at least a word), as the part has lanes.
struct Wavefronts<'a, const SIZE: usize> {
    addresses: &'a Lanes<u64>,
    mask: Mask,
}

impl<const SIZE: usize> Routine for Wavefronts<'_, SIZE> {
    type Out = (u64, u64);

    #[inline(always)]
    fn run(self) -> (u64, u64) {
        let unit = (LANES / SIZE * 4).trailing_zeros();
        let (mut taken, mut parts) = (0, 0);
        for part in 0..LANES / SIZE {
            let active = self.mask >> (part * SIZE) & (u32::MAX >> (LANES - SIZE));
            if active == 0 {
                continue;
            }
            let mut units = [0; SIZE];
            for lane in 0..SIZE {
                units[lane] = (self.addresses.0[part * SIZE + lane] >> unit) as u32;
            }
            let mut used: Mask = 0;
            for lane in 0..SIZE {
                used |= (active >> lane & 1) << (units[lane] % SIZE as u32);
            }
            parts += 1;
            let apart = used.count_ones() == active.count_ones();
            taken += if apart { 1 } else { conflicts(&units, active) };
        }
        (taken, parts)
    }
}

/// The most different units that lie one above the other.
#[inline(always)]
fn conflicts<const SIZE: usize>(units: &[u32; SIZE], active: Mask) -> u64 {
    // Often lanes share units, and no two units a column.
    let mut last = [0; SIZE];
    for lane in lanes(active) {
        last[units[lane % SIZE] as usize % SIZE] = units[lane % SIZE];
    }
    let alone = |lane: usize| last[units[lane % SIZE] as usize % SIZE] == units[lane % SIZE];
    if lanes(active).all(alone) {
        return 1;
    }
    let mut counts = [0_u8; SIZE];
    let mut left = active;
    while left != 0 {
        let unit = units[left.trailing_zeros() as usize % SIZE];
        counts[unit as usize % SIZE] += 1;
        let mut same: Mask = 0;
        for lane in 0..SIZE {
            same |= u32::from(units[lane] == unit) << lane;
        }
        left &= !same;
    }
    counts.into_iter().max().unwrap_or(1).into()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::random::Random;

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

    /// Addresses as kernels have them: rows in any order, repeated, overlapping, with gaps, for some of the lanes.
    fn drawn(random: &mut Random, bytes: u64) -> (Lanes<u64>, Mask) {
        let (rows, pitch) = (1 + random.below(8), (1 + random.below(40)) as u64 * bytes);
        let width = 1 << random.below(6);
        let bases: Vec<u64> = (0..32).map(|_| 4096 + random.below(rows) as u64 * pitch).collect();
        let at = |lane: usize| bases[lane / width] + (lane % width) as u64 * bytes;
        let mask =
            if random.below(2) == 0 { ALL } else { random.next() as u32 | 1 << random.below(32) };
        (Lanes(std::array::from_fn(at)), mask)
    }

    #[test]
    fn counts_agree_with_sets_of_bytes_sectors_and_words() {
        let mut random = Random::new(3, 4);
        for round in 0..4000 {
            let bytes = 1_u64 << (round % 6);
            let (at, mask) = drawn(&mut random, bytes);
            let of = |lanes: Mask| crate::exec::lanes::lanes(lanes).map(|lane| at.0[lane]);
            let mut traffic = Traffic::default();
            traffic.count(&at, mask, bytes);
            let sectors: BTreeSet<u64> = of(mask).map(|a| a / 32).collect();
            let distinct: BTreeSet<u64> = of(mask).collect();
            let ideal = (distinct.len() as u64 * bytes).div_ceil(32);
            let got = (traffic.sectors, traffic.ideal_sectors);
            assert_eq!(
                got,
                (sectors.len() as u64, ideal),
                "{bytes} bytes at {at:x?}, lanes {mask:x}"
            );

            if bytes == 16 {
                let (to, _) = drawn(&mut random, bytes);
                let mut places = BTreeMap::new();
                for lane in lanes(mask) {
                    places.entry(at.0[lane]).or_insert(to.0[lane]);
                }
                let ways: BTreeSet<_> =
                    places.into_iter().map(|(from, to)| (from / 32, to / 32)).collect();
                assert_eq!(fetched(&at, &to, mask), ways.len() as u64, "{at:x?} to {to:x?}");
            }

            let mut shared = SharedTraffic::default();
            shared.count(&at, mask, bytes);
            let (mut taken, mut parts) = (0, 0);
            let size = 32 / (bytes / 4).clamp(1, 4);
            for part in (0..32).step_by(size as usize) {
                let mut words = BTreeSet::new();
                for first in of(mask & (((1_u64 << size) - 1) << part) as u32) {
                    words.extend((first..first + bytes.min(16)).map(|byte| byte / 4));
                }
                let mut banks = [0; 32];
                words.iter().for_each(|word| banks[*word as usize % 32] += 1);
                taken += banks.iter().max().unwrap();
                parts += u64::from(!words.is_empty());
            }
            let got = (shared.wavefronts, shared.ideal_wavefronts);
            assert_eq!(got, (taken, parts), "{bytes} bytes at {at:x?}, lanes {mask:x}");
        }
    }
}
