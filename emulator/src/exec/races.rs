//! Races: two accesses to one byte, one of them a write, that nothing orders.
//!
//! In shared memory, order comes from barriers of the CTA (vector clocks over its warps), from
//! `bar.warp.sync` among the lanes of a warp, and from atomics, which are taken to release and acquire.
//! Each word of four bytes remembers its last write and one read; lanes of one instruction do not race
//! with each other. What this misses is listed in the crate's README.

use std::collections::HashMap;

use super::barrier::BARRIERS;
use super::lanes::{LANES, Lanes, Mask, lanes};
use super::order::Object;
use crate::memory::FIRST_OFFSET;
use crate::memory::access::Access;

/// Clocks stop here; accesses beyond are not checked any more.
const LAST_CLOCK: u32 = (1 << 24) - 1;
/// Program counters that a record can hold.
const PC_BITS: u32 = 22;

/// One access, packed: clock of the warp (24), warp (6), lane (5), bytes of the word (4), program counter (22).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Record(u64);

impl Record {
    pub(super) fn new(clock: u32, warp: u32, lane: usize, bytes: u32, pc: u32) -> Record {
        let place = u64::from(warp & 63) << 5 | lane as u64 & 31;
        let pc = u64::from(pc & ((1 << PC_BITS) - 1));
        Record(u64::from(clock) << 37 | place << 26 | u64::from(bytes) << PC_BITS | pc)
    }

    fn clock(self) -> u32 {
        (self.0 >> 37) as u32
    }

    fn warp(self) -> u32 {
        (self.0 >> 31) as u32 & 63
    }

    fn lane(self) -> u32 {
        (self.0 >> 26) as u32 & 31
    }

    fn bytes(self) -> u32 {
        (self.0 >> PC_BITS) as u32 & 15
    }

    fn pc(self) -> u32 {
        self.0 as u32 & ((1 << PC_BITS) - 1)
    }
}

/// A race that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Race {
    /// The lane whose access came second.
    pub(crate) lane: usize,
    pub(crate) address: u64,
    /// The access that came first.
    pub(crate) other_warp: u32,
    pub(crate) other_lane: u32,
    pub(crate) other_pc: u32,
    pub(crate) other_wrote: bool,
    /// Whether that was a copy in flight, and no warp.
    pub(crate) other_copied: bool,
}

/// The order of accesses to the shared memory of one CTA.
#[derive(Debug, Default)]
pub(crate) struct SharedRaces {
    pub(super) warps: usize,
    /// For each warp, the clock up to which it has seen each other warp and, last, the agent of asynchronous copies;
    /// its own clock at its own place.
    clocks: Vec<u32>,
    pub(super) writes: Vec<Record>,
    reads: Vec<Record>,
    /// What the threads that have arrived at each barrier had seen, and what those of its last phase had.
    arriving: Vec<Vec<u32>>,
    complete: Vec<Vec<u32>>,
    /// What came before the last atomic at an address.
    atomics: HashMap<u64, Vec<u32>>,
    pub(super) mbarriers: Vec<Object>,
    /// Asynchronous copies that have landed at an mbarrier.
    pub(super) agent_clock: u32,
}

pub(super) fn join(into: &mut [u32], from: &[u32]) {
    for (mine, theirs) in into.iter_mut().zip(from) {
        *mine = (*mine).max(*theirs);
    }
}

impl SharedRaces {
    /// Forgets everything: a new CTA of `warps` warps with `bytes` of shared memory starts.
    pub(crate) fn reset(&mut self, warps: usize, bytes: usize) {
        self.warps = warps;
        let columns = self.columns();
        self.clocks.clear();
        self.clocks.resize(warps * columns, 0);
        for warp in 0..warps {
            self.clocks[warp * columns + warp] = 1;
        }
        for records in [&mut self.writes, &mut self.reads] {
            records.clear();
            records.resize(bytes.div_ceil(4), Record::default());
        }
        for list in [&mut self.arriving, &mut self.complete] {
            list.resize(BARRIERS, Vec::new());
            list.iter_mut().for_each(|seen| {
                seen.clear();
                seen.resize(columns, 0);
            });
        }
        self.atomics.clear();
        self.mbarriers.clear();
        self.agent_clock = 0;
    }

    /// Clocks that each warp keeps.
    #[inline(always)]
    pub(super) fn columns(&self) -> usize {
        self.warps + 1
    }

    /// Where the clocks of a warp are.
    fn row(&self, warp: u32) -> std::ops::Range<usize> {
        let start = warp as usize * self.columns();
        start..start + self.columns()
    }

    pub(super) fn seen(&mut self, warp: u32) -> &mut [u32] {
        let row = self.row(warp);
        &mut self.clocks[row]
    }

    fn own(&self, warp: u32) -> u32 {
        self.clocks[warp as usize * self.columns() + warp as usize]
    }

    /// The lanes of a warp are ordered: what they did before comes before what they do next.
    #[inline(always)]
    pub(crate) fn tick(&mut self, warp: u32) {
        let own = &mut self.seen(warp)[warp as usize];
        *own = (*own + 1).min(LAST_CLOCK);
    }

    /// A warp arrives at a barrier: everything that it has done comes before those that leave it.
    pub(crate) fn arrive(&mut self, id: u32, warp: u32) {
        let row = self.row(warp);
        join(&mut self.arriving[id as usize], &self.clocks[row]);
        self.tick(warp);
    }

    /// The last thread has arrived.
    pub(crate) fn completed(&mut self, id: u32) {
        let none = vec![0; self.columns()];
        let seen = std::mem::replace(&mut self.arriving[id as usize], none);
        self.complete[id as usize] = seen;
    }

    /// A warp leaves a barrier.
    pub(crate) fn leave(&mut self, id: u32, warp: u32) {
        let row = self.row(warp);
        join(&mut self.clocks[row], &self.complete[id as usize]);
    }

    /// A warp releases and acquires at an address.
    pub(crate) fn synchronise(&mut self, address: u64, warp: u32) {
        let (row, columns) = (self.row(warp), self.columns());
        let object = self.atomics.entry(address).or_insert_with(|| vec![0; columns]);
        join(&mut self.clocks[row.clone()], object);
        join(object, &self.clocks[row]);
        self.tick(warp);
    }

    /// Whether a recorded access is ordered before one that this thread makes now.
    #[inline(always)]
    fn ordered(&self, record: Record, warp: u32, lane: usize, pc: u32) -> bool {
        let clock = record.clock();
        if record.warp() == warp {
            return clock < self.own(warp) || record.lane() == lane as u32 || record.pc() == pc;
        }
        self.clocks[warp as usize * self.columns() + record.warp() as usize] >= clock
    }

    /// Checks and remembers one access of a warp, `bytes` a lane, by offset into shared memory.
    #[inline(always)]
    pub(crate) fn access(
        &mut self,
        (warp, pc): (u32, u32),
        addresses: &Lanes<u64>,
        mask: Mask,
        bytes: u64,
        access: Access,
    ) -> Option<Race> {
        let clock = self.own(warp);
        if clock == LAST_CLOCK || pc >> PC_BITS != 0 {
            return None;
        }
        for lane in lanes(mask) {
            let address = addresses.0[lane & (LANES - 1)];
            let offset = (address - FIRST_OFFSET) as usize;
            let part = if bytes >= 4 { 15 } else { ((1 << bytes) - 1) << (offset % 4) };
            let now = Record::new(clock, warp, lane, part, pc);
            let words = (bytes as usize).div_ceil(4);
            for word in offset / 4..offset / 4 + words {
                let found = match access {
                    Access::Load => self.read(word, now),
                    _ => self.write(word, now),
                };
                if let Some((other, other_wrote)) = found {
                    return Some(Race {
                        lane,
                        address,
                        other_warp: other.warp(),
                        other_lane: other.lane(),
                        other_pc: other.pc(),
                        other_wrote,
                        other_copied: other.warp() as usize == self.warps,
                    });
                }
            }
        }
        None
    }

    #[inline(always)]
    fn unordered(&self, record: Record, now: Record) -> bool {
        record.clock() != 0
            && record.bytes() & now.bytes() != 0
            && !self.ordered(record, now.warp(), now.lane() as usize, now.pc())
    }

    #[inline(always)]
    fn read(&mut self, word: usize, now: Record) -> Option<(Record, bool)> {
        let write = self.writes[word];
        if self.unordered(write, now) {
            return Some((write, true));
        }
        // Of readers that nothing orders, the first is kept: whoever writes must come after it.
        let read = self.reads[word];
        if read.warp() == now.warp() || !self.unordered(read, now) {
            self.reads[word] = now;
        }
        None
    }

    #[inline(always)]
    fn write(&mut self, word: usize, now: Record) -> Option<(Record, bool)> {
        for (record, wrote) in [(self.writes[word], true), (self.reads[word], false)] {
            if self.unordered(record, now) {
                return Some((record, wrote));
            }
        }
        self.writes[word] = now;
        None
    }
}

#[cfg(test)]
mod tests {
    use crate::finding::FindingKind;
    use crate::testing::{Program, finding_in};

    /// `%i` is the address of the thread's own word, `%j` that of the thread `distance` further.
    fn text(distance: u32, between: &str, after: &str) -> String {
        format!(
            "{{ .shared .align 4 .b8 s[1024]; .reg .u32 %i, %j, %s; mov.u32 %a, %tid.x; mov.u32 %s, s;
             shl.b32 %i, %a, 2; add.u32 %i, %i, %s; add.u32 %j, %i, {distance}; xor.b32 %j, %i, {distance};
             st.shared.u32 [%i], 0; bar.sync 0; st.shared.u32 [%i], %a; {between} ld.shared.u32 %d, [%j]; {after} }}"
        )
    }

    fn clean(text: &str) {
        for seed in 0..5 {
            let program = Program::new(text);
            if let Err(error) = program.run_grid([2, 1, 1], [128, 1, 1], 1, seed, &[0; 4]) {
                panic!("{error}");
            }
        }
    }

    #[test]
    fn a_missing_barrier_between_warps_is_found() {
        let block = [128, 1, 1];
        let found = finding_in(&text(256, "", ""), block);
        assert_eq!(found.kind, FindingKind::Race);
        assert!(found.to_string().contains("st.shared.u32"), "{found}");
        assert_eq!(finding_in(&text(256, "bar.warp.sync -1;", ""), block).kind, FindingKind::Race);
        assert_eq!(
            finding_in(&text(256, "bar.sync 0;", "st.shared.u32 [%i], 1;"), block).kind,
            FindingKind::Race
        );
        clean(&text(256, "bar.sync 0;", ""));
        clean(&text(256, "bar.sync 0;", "bar.sync 0; st.shared.u32 [%i], 1;"));
        clean(
            &text(
                256,
                "barrier.sync 3, 128;",
                "bar.red.popc.u32 %b, 1, %p; st.shared.u32 [%i], 1;",
            )
            .replace("mov.u32 %a", "setp.eq.u32 %p, 1, 1; mov.u32 %a"),
        );
    }

    #[test]
    fn a_missing_barrier_within_a_warp_is_found() {
        let block = [32, 1, 1];
        assert_eq!(finding_in(&text(4, "", ""), block).kind, FindingKind::Race);
        clean(&text(4, "bar.warp.sync -1;", ""));
        clean(&text(4, "bar.sync 0;", ""));
        clean(&text(0, "", "st.shared.u32 [%i], 1;"));
    }

    #[test]
    fn neighbours_in_one_word_do_not_race() {
        clean("{ .shared .align 4 .b8 s[256]; .reg .u32 %i; mov.u32 %a, %tid.x; mov.u32 %i, s; add.u32 %i, %i, %a;
            st.shared.u8 [%i], %a; ld.shared.u8 %d, [%i]; }");
    }

    #[test]
    fn atomics_order_what_they_connect() {
        clean("{ .shared .b32 s; .shared .b32 n; mov.u32 %a, %tid.x; setp.ne.u32 %p, %a, 0; @%p bra $wait;
            st.shared.u32 [n], 0; $wait: bar.sync 0; atom.shared.add.u32 %b, [n], 1; setp.ne.u32 %p, %b, 0; @%p bra $end;
            st.shared.u32 [s], %a; $end: bar.sync 0; ld.shared.u32 %d, [s]; }");
    }
}
