//! The last accesses of the threads of one CTA to each word of some memory: the last write, and for each warp
//! its last read.
//!
//! A word is four bytes. Of a word's last write and of each warp's last read, one record says when it was, by
//! the clock of the warp, and another who it was. A read by several lanes of a warp between two of its clocks
//! keeps the first and the last of them. Accesses to different bytes of one word are told apart, but only the
//! latest of them is kept.

mod fresh;
mod guesses;
mod laid;
mod places;
mod recent;

use std::ops::Range;

use super::order::seen::Seen;
use super::order::{LAST_CLOCK, Order};
use super::stretch::{Stretch, stretches};
use crate::exec::lanes::{Lanes, Mask, lanes};
pub(crate) use guesses::Guess;
use guesses::Guesses;
pub(crate) use laid::How;
use recent::{READ, RECORDED, Recent, WRITTEN};

/// Program counters that a record can hold.
const PC_BITS: u32 = 22;
const PC_MASK: u32 = (1 << PC_BITS) - 1;

/// When a word was accessed: clock (23), bytes of the word (4), and flags. Zero is never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Stamp(u32);

/// The first lane's instruction is not the last lane's.
const MIXED: u32 = 1;
/// The agent of asynchronous copies wrote, and it is its clock.
const COPIED: u32 = 1 << 1;
/// See [`Access::atomic`] and [`Access::strong`].
const ATOMIC: u32 = 1 << 2;
const STRONG: u32 = 1 << 3;
/// See [`Access::whole`].
const WHOLE: u32 = 1 << 4;

impl Stamp {
    #[inline(always)]
    fn new(clock: u32, bytes: u32, access: Access) -> Stamp {
        let flag = |set: bool, flag| if set { flag } else { 0 };
        let flags = flag(access.strong, STRONG) | flag(access.atomic, ATOMIC);
        let flags = flags | flag(access.whole, WHOLE);
        Stamp(clock << 9 | bytes << 5 | flags)
    }

    #[inline(always)]
    fn is(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    fn clock(self) -> u32 {
        self.0 >> 9
    }

    fn bytes(self) -> u32 {
        self.0 >> 5 & 15
    }

    /// Whether two accesses that no order parts race: they share a byte, and not both are strong.
    fn conflicts(self, other: Stamp) -> bool {
        self.bytes() & other.bytes() != 0 && self.0 & other.0 & STRONG == 0
    }
}

/// Who wrote: warp (5 bits), lane (5), program counter.
fn writer(warp: u32, lane: usize, pc: u32) -> u32 {
    (warp & 31) << 27 | (lane as u32 & 31) << PC_BITS | pc
}

/// Who read: first lane, last lane, program counter of the last.
fn reader(first: usize, last: usize, pc: u32) -> u32 {
    (first as u32 & 31) << 27 | (last as u32 & 31) << PC_BITS | pc
}

fn upper(who: u32) -> u32 {
    who >> 27
}

fn lower(who: u32) -> usize {
    (who >> PC_BITS & 31) as usize
}

/// Records of one kind for all words.
#[derive(Debug, Default)]
struct Records {
    when: Vec<Stamp>,
    who: Vec<u32>,
    /// Words from the first to before the last that have a record.
    low: usize,
    high: usize,
}

impl Records {
    fn reset(&mut self, words: usize) {
        if self.when.len() != words {
            self.when = vec![Stamp::default(); words];
            self.who = vec![0; words];
        } else if self.low < self.high {
            self.when[self.low..self.high].fill(Stamp::default());
        }
        (self.low, self.high) = (words, 0);
    }

    /// Makes the records where there are none yet.
    #[inline(always)]
    fn prepare(&mut self, words: usize) {
        if self.when.is_empty() {
            self.reset(words);
        }
    }

    #[inline(always)]
    fn cover(&mut self, start: usize, end: usize) {
        self.low = self.low.min(start);
        self.high = self.high.max(end);
    }
}

/// An access of a warp.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Access {
    pub(crate) warp: u32,
    pub(crate) pc: u32,
    pub(crate) writes: bool,
    /// Atomic, volatile, relaxed, acquire or release. Strong accesses do not race with each other.
    pub(crate) strong: bool,
    /// Reads and writes at once. Whether a plain read races with it is known later, see [`Guess`].
    pub(crate) atomic: bool,
    /// The warp as a whole makes it: a load by all its lanes at once, or copies for which they have waited at once; without
    /// [`Checks::LOCKSTEP`](crate::Checks::LOCKSTEP) also a store. It comes before all that the warp does then.
    pub(crate) whole: bool,
}

/// Two accesses to one word that nothing orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Race {
    /// The lane whose access came second.
    pub(crate) lane: usize,
    /// Of the word.
    pub(crate) offset: u64,
    /// The access that came first.
    pub(crate) other_warp: u32,
    pub(crate) other_lane: usize,
    /// Where it is known.
    pub(crate) other_pc: Option<u32>,
    pub(crate) other_wrote: bool,
    /// Whether that was a copy in flight, and no warp.
    pub(crate) other_copied: bool,
}

/// The records of all words.
#[derive(Debug, Default)]
pub(crate) struct Words {
    words: usize,
    /// Without records where nothing has been written.
    writes: Records,
    /// By warp; without records where a warp has read nothing.
    reads: Vec<Records>,
    recent: Recent,
    guesses: Guesses,
}

/// A read of some lane at a word that an atomic operation changes now.
#[cold]
fn guess_of(
    word: usize,
    (warp, lane): (usize, usize),
    (when, who): (Stamp, u32),
    now: &Now<'_>,
) -> Guess {
    let (warp, pc, whole) = (warp as u32, who & PC_MASK, when.is(WHOLE));
    let access = Access { warp, pc, writes: false, strong: false, atomic: false, whole };
    let race = Race {
        lane,
        offset: word as u64 * 4,
        other_warp: now.access.warp,
        other_lane: now.lane,
        other_pc: Some(now.access.pc),
        other_wrote: true,
        other_copied: false,
    };
    Guess { access, bytes: when.bytes().count_ones().into(), race }
}

/// What an access needs to know of the present.
struct Now<'a> {
    access: Access,
    lane: usize,
    stamp: Stamp,
    seen: &'a [Seen],
    agent: u32,
    /// All that any warp has done up to this clock is known.
    all: u32,
}

impl Words {
    /// Forgets everything: there are so many words, of so many warps.
    pub(crate) fn reset(&mut self, words: usize, warps: usize) {
        self.words = words;
        self.reads.resize_with(warps, Records::default);
        let all = std::iter::once(&mut self.writes).chain(&mut self.reads);
        for records in all.filter(|records| !records.when.is_empty()) {
            records.reset(words);
        }
        self.recent.reset(words, warps);
        self.guesses.clear();
    }

    /// A plain read that races with an atomic operation, as its thread has not gone on to one there.
    pub(crate) fn guess(&self) -> Option<Guess> {
        self.guesses.first()
    }

    /// Checks and remembers an access at offsets of bytes, all of them inside.
    #[inline(always)]
    pub(crate) fn access(
        &mut self,
        order: &Order,
        access: Access,
        at: &Lanes<u64>,
        mask: Mask,
        bytes: u64,
    ) -> Option<Race> {
        if order.clock(access.warp) == LAST_CLOCK || access.pc > PC_MASK {
            return None;
        }
        let mut race = None;
        stretches(at, mask, bytes, |stretch| {
            if race.is_none() {
                race = self.stretch(order, access, &stretch);
            }
        });
        race
    }

    /// As [`Words::access`], for lanes at a constant distance.
    pub(crate) fn stretch(
        &mut self,
        order: &Order,
        access: Access,
        stretch: &Stretch,
    ) -> Option<Race> {
        self.touch(order, access, stretch);
        // Atomic operations answer guesses, word by word.
        if !access.atomic && self.side_by_side(order, access, stretch) {
            return None;
        }
        self.each_word(order, access, stretch)
    }

    /// Notes that words are accessed whose records hold, or are about to hold, all that the check needs.
    fn touch(&mut self, order: &Order, access: Access, stretch: &Stretch) {
        let Access { warp, writes, .. } = access;
        let (start, end) = stretch.bounds();
        let (start, end) = (start as usize / 4, end.div_ceil(4) as usize);
        self.recent.begin(order, warp, stretch.mask.trailing_zeros() as usize);
        let flags = self.recent.look(warp, start, end).flags;
        if flags & WRITTEN != 0 {
            self.settle_writes(start, end);
        }
        if writes {
            if flags & READ != 0 {
                (0..self.reads.len()).for_each(|warp| self.settle(warp));
            }
            self.recent.mark_write(warp, order.clock(warp), start, end);
            self.writes.prepare(self.words);
        } else {
            self.recent.mark(warp, start, end, RECORDED);
            self.reads[warp as usize].prepare(self.words);
        }
    }

    #[inline(never)]
    fn each_word(&mut self, order: &Order, access: Access, stretch: &Stretch) -> Option<Race> {
        let clock = order.clock(access.warp);
        let agent = order.agent();
        let first = stretch.mask.trailing_zeros() as usize;
        let all = if order.is_uniform(access.warp) { order.least(access.warp, first) } else { 0 };
        for (place, lane) in (0..).zip(lanes(stretch.mask)) {
            let at = stretch.at(place);
            let part = if stretch.bytes >= 4 { 15 } else { ((1 << stretch.bytes) - 1) << (at % 4) };
            let stamp = Stamp::new(clock, part, access);
            let seen = order.seen(access.warp, lane);
            let now = Now { access, lane, stamp, seen, agent, all };
            let words = stretch.bytes.div_ceil(4) as usize;
            for word in at as usize / 4..at as usize / 4 + words {
                let race = self.written(word, &now).or_else(|| {
                    if access.writes { self.write(word, &now) } else { self.read(word, &now) }
                });
                if race.is_some() {
                    return race;
                }
            }
        }
        None
    }

    /// A race with the last write of a word.
    fn written(&mut self, word: usize, now: &Now<'_>) -> Option<Race> {
        let (when, who) = (*self.writes.when.get(word)?, self.writes.who[word]);
        if when.clock() <= now.all && !when.is(COPIED) || !when.conflicts(now.stamp) {
            return None;
        }
        let copied = when.is(COPIED);
        let guesses = !now.access.writes && when.is(ATOMIC);
        if guesses && copied {
            return None;
        }
        let (warp, lane) = if copied { (now.agent, 0) } else { (upper(who), lower(who)) };
        let own = !copied && warp == now.access.warp;
        let in_turn = own && (lane == now.lane || when.is(WHOLE));
        if in_turn || now.seen[warp as usize].covers(lane, when.clock()) {
            return None;
        }
        let race = Race {
            lane: now.lane,
            offset: word as u64 * 4,
            other_warp: warp,
            other_lane: lower(who),
            other_pc: Some(who & PC_MASK),
            other_wrote: true,
            other_copied: copied,
        };
        if guesses {
            let bytes = now.stamp.bytes().count_ones().into();
            self.guesses.add(Guess { access: now.access, bytes, race });
            return None;
        }
        Some(race)
    }

    fn write(&mut self, word: usize, now: &Now<'_>) -> Option<Race> {
        for (warp, records) in self.reads.iter().enumerate() {
            let Some(&when) = records.when.get(word) else { continue };
            let known = when.clock() <= now.seen[warp].floor();
            if known || !when.conflicts(now.stamp) {
                continue;
            }
            let who = records.who[word];
            let (first, last) = (upper(who) as usize, lower(who));
            let own = warp == now.access.warp as usize;
            if own && when.is(WHOLE) {
                continue;
            }
            let before =
                |lane: usize| own && lane == now.lane || now.seen[warp].covers(lane, when.clock());
            for lane in [last, first].into_iter().filter(|lane| !before(*lane)) {
                let known = lane == last || !when.is(MIXED);
                if !now.access.atomic {
                    return Some(Race {
                        lane: now.lane,
                        offset: word as u64 * 4,
                        other_warp: warp as u32,
                        other_lane: lane,
                        other_pc: known.then_some(who & PC_MASK),
                        other_wrote: false,
                        other_copied: false,
                    });
                }
                if known {
                    self.guesses.add(guess_of(word, (warp, lane), (when, who), now));
                }
            }
        }
        if now.access.atomic {
            self.answer(word, now.access.warp, now.lane);
        }
        self.writes.cover(word, word + 1);
        self.writes.when[word] = now.stamp;
        self.writes.who[word] = writer(now.access.warp, now.lane, now.access.pc);
        None
    }

    /// A thread executes an atomic operation at a word: what it has read there was a guess, which races with no other.
    fn answer(&mut self, word: usize, warp: u32, lane: usize) {
        self.guesses.answer(word as u64 * 4, warp, lane);
        let records = &mut self.reads[warp as usize];
        let Some(&when) = records.when.get(word).filter(|when| !when.is(STRONG)) else { return };
        let who = records.who[word];
        let (first, last, pc) = (upper(who) as usize, lower(who), who & PC_MASK);
        if lane == first && first != last {
            records.when[word] = Stamp(when.0 & !MIXED);
            records.who[word] = reader(last, last, pc);
        } else if lane == last && first != last && !when.is(MIXED) {
            records.who[word] = reader(first, first, pc);
        } else if lane == last {
            records.when[word] = Stamp::default();
        }
    }

    fn read(&mut self, word: usize, now: &Now<'_>) -> Option<Race> {
        let Access { warp, pc, .. } = now.access;
        let records = &mut self.reads[warp as usize];
        records.cover(word, word + 1);
        let (when, who) = (records.when[word], records.who[word]);
        let same = |stamp: Stamp| stamp.0 & !MIXED;
        if same(when) != same(now.stamp) {
            records.when[word] = now.stamp;
            records.who[word] = reader(now.lane, now.lane, pc);
            return None;
        }
        // Again between two clocks, perhaps by another lane: the first stays.
        let (first, last) = (upper(who) as usize, lower(who));
        let mixed = if pc == who & PC_MASK { 0 } else { MIXED };
        let (first, last, mixed) = match now.lane {
            lane if lane == first && first == last => (lane, lane, 0),
            lane if lane == first => (first, last, when.0 & MIXED),
            lane => (first, lane, when.0 & MIXED | mixed),
        };
        let pc = if last == now.lane { pc } else { who & PC_MASK };
        records.when[word].0 |= mixed;
        records.who[word] = reader(first, last, pc);
        None
    }

    /// Remembers a read of long ago.
    pub(crate) fn remember_read(&mut self, access: Access, clock: u32, stretch: &Stretch) {
        let Access { warp, pc, .. } = access;
        let words = self.words;
        let records = &mut self.reads[warp as usize];
        records.prepare(words);
        for (place, lane) in (0..).zip(lanes(stretch.mask)) {
            let at = stretch.at(place) as usize;
            let part = if stretch.bytes >= 4 { 15 } else { ((1 << stretch.bytes) - 1) << (at % 4) };
            let range = at / 4..(at + stretch.bytes as usize).div_ceil(4);
            self.recent.mark(warp, range.start, range.end, RECORDED);
            records.cover(range.start, range.end);
            for word in range {
                if records.when[word].clock() <= clock {
                    records.when[word] = Stamp::new(clock, part, access);
                    records.who[word] = reader(lane, lane, pc);
                }
            }
        }
    }

    /// A copy that a lane issued has landed, at this clock of the agent; `atomic` if it was added to what was there.
    pub(crate) fn landed(
        &mut self,
        clock: u32,
        at: Range<usize>,
        (lane, pc): (usize, u32),
        atomic: bool,
    ) {
        let flags = COPIED | if atomic { ATOMIC | STRONG } else { 0 };
        let range = at.start / 4..at.end.div_ceil(4);
        self.settle_writes(range.start, range.end);
        self.recent.mark_copy(clock, range.start, range.end);
        self.writes.prepare(self.words);
        self.writes.cover(range.start, range.end);
        for word in range {
            self.writes.when[word] = Stamp(clock << 9 | 15 << 5 | flags);
            self.writes.who[word] = writer(0, lane, pc);
        }
    }
}
