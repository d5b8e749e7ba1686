//! Races: two accesses to one byte, one of them a write, that nothing orders.
//!
//! Each word of four bytes remembers its last write and one read; lanes of one instruction do not race
//! with each other.

use super::lanes::{LANES, Lanes, Mask, lanes};
use super::wide::{self, Routine};
use crate::checks::order::{LAST_CLOCK, Order};
use crate::memory::FIRST_OFFSET;
use crate::memory::access::Access;

/// Program counters that a record can hold.
const PC_BITS: u32 = 22;
/// Where the lane, the clock and the warp of a record begin.
const LANE: u32 = 26;
const CLOCK: u32 = 31;
const WARP: u32 = 55;

/// One access, packed: warp (6), clock of the warp (24), lane (5), bytes of the word (4), program counter (22).
/// The warp may be the agent of asynchronous copies, see [`Order::agent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Record(u64);

impl Record {
    #[inline(always)]
    fn new(clock: u32, warp: u32, lane: usize, bytes: u32, pc: u32) -> Record {
        let place = u64::from(warp & 63) << WARP | (lane as u64 & 31) << LANE;
        let pc = u64::from(pc & ((1 << PC_BITS) - 1));
        Record(place | u64::from(clock) << CLOCK | u64::from(bytes) << PC_BITS | pc)
    }

    fn clock(self) -> u32 {
        (self.0 >> CLOCK) as u32 & LAST_CLOCK
    }

    fn warp(self) -> u32 {
        (self.0 >> WARP) as u32
    }

    fn lane(self) -> u32 {
        (self.0 >> LANE) as u32 & 31
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
        let first = Record::new(clock, warp, 0, 15, pc);
        let past = order.floors(warp).map_or(Past::UNKNOWN, |floors| Past::new(warp, floors));
        let check = Check { races: self, order, past, first, addresses, mask, bytes };
        let (lane, other, other_wrote) = match access {
            Access::Load => wide::call(Reading(check)),
            _ => wide::call(Writing(check)),
        }?;
        Some(Race {
            lane,
            address: addresses.0[lane & (LANES - 1)],
            other_warp: other.warp(),
            other_lane: other.lane(),
            other_pc: other.pc(),
            other_wrote,
            other_copied: other.warp() == order.agent(),
        })
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
}

/// Whether nothing orders a recorded access before one that is made now.
#[inline(never)]
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

/// Accesses that come before what a warp does now, as far as a few comparisons tell.
#[derive(Clone, Copy)]
struct Past {
    /// The least record of the warp itself.
    own: u64,
    /// Distance from there of the first that the warp has not seen.
    unseen: u64,
    /// The latest clock, in its place, up to which everybody's accesses have been seen.
    floor: u64,
}

impl Past {
    /// Where lanes of the warp know different things.
    const UNKNOWN: Past = Past { own: 0, unseen: 0, floor: 0 };

    fn new(warp: u32, (own, least): (u32, u32)) -> Past {
        let place = |clock: u32| u64::from(clock) << CLOCK;
        Past { own: u64::from(warp) << WARP, unseen: place(own + 1), floor: place(least) }
    }

    /// Whether the record is known to come before.
    #[inline(always)]
    fn has(self, Record(record): Record) -> bool {
        let clock = record & u64::from(LAST_CLOCK) << CLOCK;
        (clock <= self.floor) | (record.wrapping_sub(self.own) < self.unseen)
    }

    /// Whether two records are of one warp.
    #[inline(always)]
    fn same_warp(Record(one): Record, Record(other): Record) -> bool {
        (one ^ other) >> WARP == 0
    }
}

/// An access to be checked, and what to know for it.
struct Check<'a> {
    races: &'a mut SharedRaces,
    order: &'a Order,
    past: Past,
    /// The record of lane 0, were it for a whole word.
    first: Record,
    addresses: &'a Lanes<u64>,
    mask: Mask,
    bytes: u64,
}

/// The lane at fault, the access that it races with, and whether that wrote.
type Found = Option<(usize, Record, bool)>;

/// Words that are compared at a time.
const GROUP: usize = 4;

/// Records of as many words.
type Group = [Record; GROUP];

/// What an access does to words.
trait Action {
    /// For words whose records are known to come before: makes the new records. Else nothing is done.
    fn together(past: Past, writes: &mut Group, reads: &mut Group, now: &Group) -> bool;
    /// For any word; gives what races.
    fn alone(check: &mut Check<'_>, word: usize, now: Record) -> Option<(Record, bool)>;
}

struct Reads;
struct Writes;

impl Action for Reads {
    #[inline(always)]
    fn together(past: Past, writes: &mut Group, reads: &mut Group, now: &Group) -> bool {
        let mut before = true;
        for word in 0..GROUP {
            before &= past.has(writes[word]);
        }
        if before {
            for word in 0..GROUP {
                let read = reads[word];
                let replaced = Past::same_warp(read, now[word]) | past.has(read);
                before &= replaced;
                reads[word] = if replaced { now[word] } else { read };
            }
        }
        before
    }

    fn alone(check: &mut Check<'_>, word: usize, now: Record) -> Option<(Record, bool)> {
        let write = check.races.writes[word];
        if !check.past.has(write) && unordered(check.order, write, now) {
            return Some((write, true));
        }
        // Of readers that nothing orders, the first is kept: whoever writes must come after it.
        let read = check.races.reads[word];
        let replaced = Past::same_warp(read, now) || check.past.has(read);
        if replaced || !unordered(check.order, read, now) {
            check.races.reads[word] = now;
        }
        None
    }
}

impl Action for Writes {
    #[inline(always)]
    fn together(past: Past, writes: &mut Group, reads: &mut Group, now: &Group) -> bool {
        let mut before = true;
        for word in 0..GROUP {
            before &= past.has(writes[word]) & past.has(reads[word]);
        }
        if before {
            *writes = *now;
        }
        before
    }

    fn alone(check: &mut Check<'_>, word: usize, now: Record) -> Option<(Record, bool)> {
        for (record, wrote) in [(check.races.writes[word], true), (check.races.reads[word], false)]
        {
            if !check.past.has(record) && unordered(check.order, record, now) {
                return Some((record, wrote));
            }
        }
        check.races.writes[word] = now;
        None
    }
}

struct Reading<'a>(Check<'a>);
struct Writing<'a>(Check<'a>);

impl Routine for Reading<'_> {
    type Out = Found;

    #[inline(always)]
    fn run(mut self) -> Found {
        self.0.run::<Reads>()
    }
}

impl Routine for Writing<'_> {
    type Out = Found;

    #[inline(always)]
    fn run(mut self) -> Found {
        self.0.run::<Writes>()
    }
}

impl Check<'_> {
    #[inline(always)]
    fn run<A: Action>(&mut self) -> Found {
        match self.bytes {
            4 => self.groups::<A, 1>(),
            8 => self.groups::<A, 2>(),
            16 => self.groups::<A, 4>(),
            _ => lanes(self.mask).find_map(|lane| {
                let words = 0..(self.bytes as usize).div_ceil(4);
                self.words::<A>(lane, words)
            }),
        }
    }

    /// For lanes of `WORDS` words each.
    #[inline(always)]
    fn groups<A: Action, const WORDS: usize>(&mut self) -> Found {
        let count = GROUP / WORDS;
        for lane in (0..LANES).step_by(count) {
            let active = self.mask >> lane & ((1 << count) - 1);
            if active == 0 {
                continue;
            }
            let Lanes(at) = self.addresses;
            let mut straight = active == (1 << count) - 1;
            for next in 1..count {
                straight &= at[lane + next] == at[lane].wrapping_add((4 * WORDS * next) as u64);
            }
            let first = (at[lane].wrapping_sub(FIRST_OFFSET) / 4) as usize;
            let place = |word: usize| (lane + word / WORDS) as u64;
            let now = std::array::from_fn(|word| Record(self.first.0 | place(word) << LANE));
            if straight
                && let Some(writes) = group_at(&mut self.races.writes, first)
                && let Some(reads) = group_at(&mut self.races.reads, first)
                && A::together(self.past, writes, reads, &now)
            {
                continue;
            }
            let found = lanes(active).find_map(|next| self.words::<A>(lane + next, 0..WORDS));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Some words of one lane.
    fn words<A: Action>(&mut self, lane: usize, words: std::ops::Range<usize>) -> Found {
        let offset = (self.addresses.0[lane % LANES] - FIRST_OFFSET) as usize;
        let part = if self.bytes >= 4 { 15 } else { ((1 << self.bytes) - 1) << (offset % 4) };
        let whole = self.first.0 & !(15 << PC_BITS);
        let now = Record(whole | (lane as u64) << LANE | part << PC_BITS);
        let found = words.into_iter().find_map(|word| A::alone(self, offset / 4 + word, now));
        found.map(|(other, wrote)| (lane, other, wrote))
    }
}

#[inline(always)]
fn group_at(records: &mut [Record], first: usize) -> Option<&mut Group> {
    records.get_mut(first..)?.first_chunk_mut()
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
