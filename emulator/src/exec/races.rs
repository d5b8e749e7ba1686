//! Races: two accesses to one byte, one of them a write, that nothing orders.
//!
//! Each word of four bytes remembers its last write and one read; lanes of one instruction do not race
//! with each other.

use super::lanes::{LANES, Lanes, Mask, lanes};
use crate::checks::order::{LAST_CLOCK, Order};
use crate::memory::FIRST_OFFSET;
use crate::memory::access::Access;

/// Program counters that a record can hold.
const PC_BITS: u32 = 22;

/// One access, packed: clock of the warp (24), warp (6), lane (5), bytes of the word (4), program counter (22).
/// The warp may be the agent of asynchronous copies, see [`Order::agent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Record(u64);

impl Record {
    fn new(clock: u32, warp: u32, lane: usize, bytes: u32, pc: u32) -> Record {
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

/// The accesses to the shared memory of one CTA.
#[derive(Debug, Default)]
pub(crate) struct SharedRaces {
    writes: Vec<Record>,
    reads: Vec<Record>,
}

impl SharedRaces {
    /// Forgets everything: a new CTA with `bytes` of shared memory starts.
    pub(crate) fn reset(&mut self, bytes: usize) {
        for records in [&mut self.writes, &mut self.reads] {
            records.clear();
            records.resize(bytes.div_ceil(4), Record::default());
        }
    }

    /// Checks and remembers one access of a warp, `bytes` a lane, by offset into shared memory.
    #[inline(always)]
    pub(crate) fn access(
        &mut self,
        order: &Order,
        (warp, pc): (u32, u32),
        addresses: &Lanes<u64>,
        mask: Mask,
        bytes: u64,
        access: Access,
    ) -> Option<Race> {
        let clock = order.clock(warp);
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
                    Access::Load => self.read(order, word, now),
                    _ => self.write(order, word, now),
                };
                if let Some((other, other_wrote)) = found {
                    return Some(Race {
                        lane,
                        address,
                        other_warp: other.warp(),
                        other_lane: other.lane(),
                        other_pc: other.pc(),
                        other_wrote,
                        other_copied: other.warp() == order.agent(),
                    });
                }
            }
        }
        None
    }

    /// Checks a copy that a thread issues now as an access of its own, and remembers it if it reads.
    pub(crate) fn issue(
        &mut self,
        order: &Order,
        (warp, lane): (u32, usize),
        pc: u32,
        (address, bytes): (u64, u64),
        access: Access,
    ) -> Option<Race> {
        let mut at = Lanes::<u64>::default();
        (0..bytes).step_by(16).find_map(|offset| {
            at.0[lane] = address + offset;
            self.access(order, (warp, pc), &at, 1 << lane, 16.min(bytes - offset), access)
        })
    }

    /// A copy that a lane issued at `pc` has landed, as far as `order` can tell at this clock of the agent.
    pub(crate) fn landed(
        &mut self,
        (agent, clock): (u32, u32),
        (offset, bytes): (usize, u64),
        lane: usize,
        pc: u32,
    ) {
        let record = Record::new(clock, agent, lane, 15, pc);
        for word in offset / 4..(offset + bytes as usize).div_ceil(4) {
            self.writes[word] = record;
        }
    }

    #[inline(always)]
    fn read(&mut self, order: &Order, word: usize, now: Record) -> Option<(Record, bool)> {
        let write = self.writes[word];
        if unordered(order, write, now) {
            return Some((write, true));
        }
        // Of readers that nothing orders, the first is kept: whoever writes must come after it.
        let read = self.reads[word];
        if read.warp() == now.warp() || !unordered(order, read, now) {
            self.reads[word] = now;
        }
        None
    }

    #[inline(always)]
    fn write(&mut self, order: &Order, word: usize, now: Record) -> Option<(Record, bool)> {
        for (record, wrote) in [(self.writes[word], true), (self.reads[word], false)] {
            if unordered(order, record, now) {
                return Some((record, wrote));
            }
        }
        self.writes[word] = now;
        None
    }
}

/// Whether nothing orders a recorded access before one that is made now.
#[inline(always)]
fn unordered(order: &Order, record: Record, now: Record) -> bool {
    if record.clock() == 0 || record.bytes() & now.bytes() == 0 {
        return false;
    }
    let same = record.warp() == now.warp();
    if same && (record.lane() == now.lane() || record.pc() == now.pc()) {
        return false;
    }
    let seen = &order.seen(now.warp(), now.lane() as usize)[record.warp() as usize];
    !seen.covers(record.lane() as usize, record.clock())
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
