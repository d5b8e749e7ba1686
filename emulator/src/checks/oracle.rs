//! The race checks against the definition: vector clocks of every thread, all accesses remembered.

use super::order::{Order, Scope, Sides, Strong};
use super::words::{Access, How, Race, Words};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, lanes};
use crate::exec::patterns::{Patterns, Slot};
use crate::random::Random;

const WARPS: usize = 3;
const THREADS: usize = WARPS * LANES;
/// Two blocks of words and a part of a third, see [`super::words`].
const WORDS: usize = 140;
const OBJECT: u64 = 1 << 20;

type Clock = [u32; THREADS];

#[derive(Debug, Clone, Copy)]
struct Event {
    thread: usize,
    clock: u32,
    access: Access,
    start: u64,
    end: u64,
}

/// Every thread's knowledge, as the definition has it.
struct Oracle {
    knows: Vec<Clock>,
    released: Vec<Option<Clock>>,
    brought: Vec<Option<Clock>>,
    object: Option<Clock>,
    events: Vec<Event>,
}

fn join(into: &mut Clock, from: &Clock) {
    into.iter_mut().zip(from).for_each(|(mine, theirs)| *mine = (*mine).max(*theirs));
}

fn joined(mut a: Option<Clock>, b: Option<&Clock>) -> Option<Clock> {
    match (&mut a, b) {
        (Some(a), Some(b)) => join(a, b),
        (None, Some(b)) => a = Some(*b),
        _ => {}
    }
    a
}

impl Oracle {
    fn new() -> Oracle {
        let own = |thread: usize| {
            let mut clock = [0; THREADS];
            clock[thread] = 1;
            clock
        };
        Oracle {
            knows: (0..THREADS).map(own).collect(),
            released: vec![None; THREADS],
            brought: vec![None; THREADS],
            object: None,
            events: Vec::new(),
        }
    }

    fn tick(&mut self, thread: usize) {
        self.knows[thread][thread] += 1;
    }

    /// All threads of a set come to know, and have pending, what each of them does.
    fn together(&mut self, threads: &[usize]) {
        let (mut all, mut released, mut brought) = ([0; THREADS], None, None);
        for &thread in threads {
            join(&mut all, &self.knows[thread]);
            released = joined(released, self.released[thread].as_ref());
            brought = joined(brought, self.brought[thread].as_ref());
        }
        for &thread in threads {
            join(&mut self.knows[thread], &all);
            (self.released[thread], self.brought[thread]) = (released, brought);
            self.tick(thread);
        }
    }

    fn fence(&mut self, thread: usize) {
        if let Some(brought) = self.brought[thread].take() {
            join(&mut self.knows[thread], &brought);
        }
        self.released[thread] = Some(self.knows[thread]);
        self.tick(thread);
    }

    /// An atomic operation on the one object there is.
    fn atomic(&mut self, thread: usize, sides: Sides) {
        if let Some(object) = self.object {
            if sides.acquire {
                join(&mut self.knows[thread], &object);
            } else {
                self.brought[thread] = joined(self.brought[thread], Some(&object));
            }
        }
        let passed = if sides.release { Some(self.knows[thread]) } else { self.released[thread] };
        self.object = joined(passed, self.object.as_ref());
        self.tick(thread);
    }

    /// Earlier accesses that race with one of this thread now, which is remembered.
    fn access(&mut self, thread: usize, access: Access, start: u64, end: u64) -> Vec<Event> {
        let races = |e: &&Event| {
            let plain = |a: &Access, b: &Access| !a.writes && b.atomic;
            (e.access.writes || access.writes)
                && !(e.access.strong && access.strong)
                && !plain(&e.access, &access)
                && !plain(&access, &e.access)
                && e.start < end
                && start < e.end
                && e.thread != thread
                && self.knows[thread][e.thread] < e.clock
        };
        let found = self.events.iter().filter(races).copied().collect();
        let clock = self.knows[thread][thread];
        self.events.push(Event { thread, clock, access, start, end });
        found
    }
}

struct Both {
    oracle: Oracle,
    order: Order,
    words: Words,
    patterns: Patterns,
    /// Accesses that were found to be clean without a look at each word.
    at_once: usize,
}

fn threads(warp: usize, mask: Mask) -> Vec<usize> {
    lanes(mask).map(|lane| warp * LANES + lane).collect()
}

impl Both {
    fn new() -> Both {
        let mut order = Order::default();
        order.reset(0, [ALL; WARPS].into_iter());
        let mut words = Words::default();
        words.reset(WORDS, WARPS);
        let patterns = Patterns::default();
        Both { oracle: Oracle::new(), order, words, patterns, at_once: 0 }
    }

    fn synchronise(&mut self, random: &mut Random, mask: Mask, whole: bool) {
        let warp = random.below(WARPS);
        let mask = if whole { ALL } else { mask };
        match random.below(if whole { 3 } else { 6 }) {
            0 => {
                self.order.sync_lanes(warp as u32, mask);
                self.oracle.together(&threads(warp, mask));
            }
            1 => {
                for warp in 0..WARPS as u32 {
                    self.order.meet(3, warp, ALL);
                }
                self.order.completed(3, true);
                for warp in 0..WARPS as u32 {
                    self.order.leave(3, warp, ALL);
                }
                self.oracle.together(&(0..THREADS).collect::<Vec<_>>());
            }
            2 => {
                // Two warps meet, the third goes on.
                let two: Vec<usize> = (0..WARPS).filter(|&other| other != warp).collect();
                for &warp in &two {
                    self.order.meet(4, warp as u32, ALL);
                }
                self.order.completed(4, false);
                for &warp in &two {
                    self.order.leave(4, warp as u32, ALL);
                }
                let both = two.iter().flat_map(|&warp| threads(warp, ALL));
                self.oracle.together(&both.collect::<Vec<_>>());
            }
            3 => {
                self.order.fence(
                    warp as u32,
                    mask,
                    Scope::Cta,
                    Sides { acquire: true, release: true },
                );
                threads(warp, mask).into_iter().for_each(|thread| self.oracle.fence(thread));
            }
            _ => {
                let lane = random.below(LANES);
                let sides = Sides { acquire: random.below(2) == 0, release: random.below(2) == 0 };
                let strong = Strong {
                    warp: warp as u32,
                    lane,
                    address: OBJECT,
                    reads: true,
                    writes: true,
                    sides,
                };
                self.order.strong(strong);
                self.oracle.atomic(warp * LANES + lane, sides);
            }
        }
    }

    /// An access of a warp: what is found, and what the definition has for each lane up to it.
    fn access(
        &mut self,
        access: Access,
        at: &Lanes<u64>,
        mask: Mask,
        bytes: u64,
    ) -> (Option<Race>, Vec<(usize, Event)>) {
        let mut all = Vec::new();
        for lane in lanes(mask) {
            let thread = access.warp as usize * LANES + lane;
            let races = self.oracle.access(thread, access, at.0[lane], at.0[lane] + bytes);
            all.extend(races.into_iter().map(|event| (lane, event)));
        }
        // Half of the accesses come as those of an instruction whose pattern is known.
        let slot = Slot::of(0, access.warp);
        self.patterns.of(slot, at, mask, bytes);
        let pattern = self.patterns.of(slot, at, mask, bytes);
        let place = (pattern.first(at), mask);
        let known = access.pc.is_multiple_of(2);
        if known && self.words.by_pattern(&self.order, access, pattern, place, How::Both) {
            self.at_once += 1;
            return (None, all);
        }
        (self.words.access(&self.order, access, at, mask, bytes), all)
    }
}

/// Runs one random program up to its first race; whether one was found, and how many accesses were found to be clean at once.
/// `whole`: plain accesses to words, and barriers of whole warps, for which nothing may be missed.
fn run(seed: u64, whole: bool) -> (bool, usize) {
    let mut random = Random::new(seed, 17);
    let mut both = Both::new();
    for step in 0..60 {
        let mask = if random.below(2) == 0 { ALL } else { random.next() as Mask | 1 };
        if random.below(3) != 0 {
            both.synchronise(&mut random, mask, whole);
            continue;
        }
        let bytes = if whole { 4 } else { [1, 2, 4, 8, 16][random.below(5)] };
        let limit = (WORDS as u64 * 4 - bytes) / bytes;
        let (base, step_bytes) = (random.below(limit as usize) as u64, random.below(3) as u64);
        let at =
            Lanes(std::array::from_fn(|lane| (base + lane as u64 * step_bytes) % limit * bytes));
        let strong = !whole && random.below(4) == 0;
        let access = Access {
            warp: random.below(WARPS) as u32,
            pc: step,
            writes: random.below(2) == 0,
            strong,
            atomic: false,
            whole: !whole && random.below(4) == 0,
        };
        // Lanes of one write meet only where that is meant.
        let lanes = if access.writes && random.below(8) != 0 { distinct(&at, mask) } else { mask };
        let (found, all) = both.access(access, &at, lanes, bytes);
        if let Some(race) = found {
            let other = |event: &Event| {
                event.thread == race.other_warp as usize * LANES + race.other_lane
                    && event.access.writes == race.other_wrote
                    && race.other_pc.is_none_or(|pc| pc == event.access.pc)
            };
            let real = all.iter().any(|(lane, event)| *lane == race.lane && other(event));
            assert!(real, "seed {seed}, step {step}: {race:?} is none of {all:?}");
            return (true, both.at_once);
        }
        if whole {
            assert!(all.is_empty(), "seed {seed}, step {step}: missed {all:?} of {access:?}");
        } else if !all.is_empty() {
            return (false, both.at_once);
        }
    }
    (false, both.at_once)
}

/// Races found in 4,000 programs, and accesses that were clean at once.
fn run_all(whole: bool) -> (usize, usize) {
    let add = |(races, clean), (raced, at_once)| (races + usize::from(raced), clean + at_once);
    (0..4000).map(|seed| run(seed, whole)).fold((0, 0), add)
}

/// Lanes of a mask whose address no lane before has.
fn distinct(at: &Lanes<u64>, mask: Mask) -> Mask {
    let first =
        |&lane: &usize| lanes(mask).take_while(|&l| l < lane).all(|l| at.0[l] != at.0[lane]);
    lanes(mask).filter(first).fold(0, |m, lane| m | 1 << lane)
}

#[test]
fn what_is_found_races_by_the_definition() {
    let (races, clean) = run_all(false);
    assert!(races > 1000 && clean > 1000, "{races} races, {clean} accesses clean at once");
}

#[test]
fn the_first_race_of_whole_warps_is_found() {
    let (races, clean) = run_all(true);
    assert!(races > 1000 && clean > 1000, "{races} races, {clean} accesses clean at once");
}
