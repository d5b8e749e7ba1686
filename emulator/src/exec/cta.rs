//! Running one CTA: its warps in turn until they have exited or wait for other CTAs.

use super::barrier::Barriers;
use super::bulk::Bulk;
use super::desk::Body;
use super::env::{Env, LaunchContext};
use super::lanes::{ALL, LANES, Lanes, Mask};
use super::mbarrier::Mbarriers;
use super::patterns::Patterns;
use super::run::{self, Stop, run_warp};
use super::tally::Tally;
use super::warp::{State, Warp};
use crate::checks::global_races::Race;
use crate::counters::{Counters, InstructionClass};
use crate::finding::{Finding, FindingKind, Note, Report, Site};
use crate::launch::Checks;
use crate::lower::kernel::Uniform;
use crate::memory::FIRST_OFFSET;
use crate::memory::access::{addresses, report_global_race};
use crate::memory::region::Region;
use crate::random::Random;

/// What became of a CTA in a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CtaStop {
    Done,
    /// Some warps wait for the end of the round.
    Suspended,
    Fault,
}

/// A CTA and everything it owns. The object is used again for other CTAs of the launch.
pub(crate) struct Cta<'l> {
    pub(crate) warps: Vec<Warp>,
    pub(crate) env: Env<'l>,
    order: Vec<usize>,
    /// Whether a CTA has been started with it.
    used: bool,
    pub(crate) finding: Option<Finding>,
    pub(crate) stop: CtaStop,
}

/// Shortest and longest turn of a warp, in instructions; the seed decides between them.
const TURN: (u64, usize) = (512, 1024);

impl<'l> Cta<'l> {
    /// A CTA that still has to be given a place in the grid, perhaps with memory of one that has ended; nothing if the host has no
    /// memory for it.
    pub(super) fn new(launch: &'l LaunchContext<'l>, body: Option<Body>) -> Option<Cta<'l>> {
        let kernel = launch.kernel;
        let on = |check| launch.checks.contains(check);
        let used = body.is_some();
        let body = match body {
            Some(body) => body,
            None => {
                let shared = Region::new(FIRST_OFFSET, launch.shared_bytes.into())?;
                Body { shared, races: None, warps: Vec::new() }
            }
        };
        let races = body.races.or_else(|| Some(Box::default()));
        let env = Env {
            launch,
            cta: [0; 3],
            linear: 0,
            shared: body.shared,
            barriers: Barriers::default(),
            order: (on(Checks::SHARED_RACES) || on(Checks::GLOBAL_RACES)).then(Default::default),
            races: races.filter(|_| on(Checks::SHARED_RACES) && launch.shared_bytes > 0),
            log: None,
            log_number: 0,
            global_races: None,
            mbarriers: Mbarriers::default(),
            bulk: Bulk::default(),
            committing: false,
            report: None,
            blamed: None,
            waiting: 0,
            wanted: 0,
            undefined: 0,
            live: 0,
            stored_at_once: false,
            barrier: 0,
            targets: Lanes::default(),
            hints: Vec::new(),
            patterns: Patterns::default(),
            tally: Tally::default(),
            counters: Counters::default(),
            printed: String::new(),
            random: Random::new(0, 0),
        };
        let mut warps = body.warps;
        warps.resize_with(launch.warps as usize, || Warp::new(kernel));
        Some(Cta { warps, env, order: Vec::new(), used, finding: None, stop: CtaStop::Done })
    }

    /// Starts CTA number `linear` of the grid.
    pub(crate) fn start(&mut self, linear: u64) {
        self.place(linear);
        let launch = self.env.launch;
        let env = &mut self.env;
        let cta = env.cta;
        let marked = launch.checks != Checks::NONE;
        if self.used || !marked {
            env.shared.begin(marked);
        }
        if self.used {
            // With the same seed all comes out the same, what reads registers that nobody has written too.
            self.warps.iter_mut().for_each(|warp| warp.regs.clear());
        }
        self.used = true;
        env.barriers.reset();
        if let Some(races) = &mut env.races {
            races.reset(launch.shared_bytes.div_ceil(4) as usize, launch.warps as usize);
        }
        env.mbarriers.clear();
        env.bulk.clear();
        env.random = Random::new(launch.seed, linear);
        let uniform = Uniform { launch, cta, linear };
        let present = |index: usize| {
            let threads = launch.threads - index as u32 * LANES as u32;
            if threads >= LANES as u32 { ALL } else { (1 << threads) - 1 }
        };
        if let Some(order) = &mut env.order {
            order.reset(linear, (0..launch.warps as usize).map(present));
        }
        for (index, warp) in self.warps.iter_mut().enumerate() {
            warp.reset(launch.kernel, index as u32, present(index), &uniform);
        }
        self.order = (0..self.warps.len()).collect();
        self.finding = None;
        self.stop = CtaStop::Suspended;
    }

    /// Makes it CTA number `linear`, as findings show it.
    pub(crate) fn place(&mut self, linear: u64) {
        (self.env.cta, self.env.linear) = (place(self.env.launch.grid, linear), linear);
    }

    /// Runs until nothing can go on without other CTAs.
    pub(crate) fn run(&mut self) {
        self.stop = loop {
            let mut order = std::mem::take(&mut self.order);
            self.env.random.shuffle(&mut order);
            let mut progress = false;
            let mut alive = false;
            for &index in &order {
                let turn = TURN.0 + self.env.random.below(TURN.1) as u64;
                let warp = &mut self.warps[index];
                let (stop, moved) = run_warp(warp, &mut self.env, turn);
                progress |= moved;
                alive |= stop != Stop::Done;
                if let Stop::Fault(pc) = stop {
                    self.finding = Some(self.finding_at(index, pc));
                    break;
                }
            }
            self.order = order;
            self.land_wanted();
            if self.finding.is_some() {
                break CtaStop::Fault;
            }
            if !alive {
                break self.finish();
            }
            if !progress && !self.resume() {
                break if self.finding.is_some() { CtaStop::Fault } else { self.stuck() };
            }
        };
    }

    /// Executes what one warp has deferred to the end of the round.
    pub(crate) fn commit(&mut self, warp: usize, mask: Mask) {
        if let Some(Stop::Fault(pc)) = run::commit(&mut self.warps[warp], &mut self.env, mask) {
            self.finding = Some(self.finding_at(warp, pc));
            self.stop = CtaStop::Fault;
        }
    }

    /// Tells the log which atomic operations are about to be executed.
    pub(crate) fn note_guesses(&mut self) {
        let Some(log) = &mut self.env.log else { return };
        let kernel = self.env.launch.kernel;
        for warp in &self.warps {
            for group in warp.groups.iter().filter(|g| g.state == State::Defer) {
                if kernel.classes[group.pc as usize] == InstructionClass::Atomic {
                    let at = addresses(&warp.regs, &kernel.code[group.pc as usize]);
                    log.guessed(warp.index, group.mask, &at);
                }
            }
        }
    }

    /// Ends the launch with a race of this CTA's second access.
    pub(crate) fn race(&mut self, race: &Race) {
        report_global_race(&mut self.env, race);
        self.finding = Some(self.finding_at(race.second.warp as usize, race.second.pc));
        self.stop = CtaStop::Fault;
    }

    /// A finding about the launch as a whole, told at the first instruction of this CTA.
    pub(super) fn stop_launch(&mut self, kind: FindingKind, message: String) -> Finding {
        let report = Report { kind, lane: 0, message, address: None, notes: Vec::new() };
        self.env.report = Some(Box::new(report));
        self.finding_at(0, 0)
    }

    /// Warps and lanes that wait for the end of the round.
    pub(crate) fn deferred(&self) -> impl Iterator<Item = (usize, Mask)> {
        self.warps.iter().enumerate().flat_map(|(index, warp)| {
            warp.groups.iter().filter(|g| g.state == State::Defer).map(move |g| (index, g.mask))
        })
    }

    /// Completes the report of the environment with where it happened.
    pub(crate) fn finding_at(&mut self, warp: usize, pc: u32) -> Finding {
        let launch = self.env.launch;
        let pc = self.env.blamed.take().unwrap_or(pc);
        let report = self.env.report.take().unwrap_or_else(|| {
            let message = "the launch ended here without a reason".into();
            Box::new(Report {
                kind: FindingKind::Trap,
                lane: 0,
                message,
                address: None,
                notes: Vec::new(),
            })
        });
        let quote = |pc: u32| {
            let line = launch.kernel.lines[pc as usize];
            (line, launch.source.line(line).trim().to_owned())
        };
        let (line, text) = quote(pc);
        let thread = warp as u32 * LANES as u32 + report.lane as u32;
        let [nx, ny, _] = launch.block;
        let site = Site {
            file: launch.source.name.clone(),
            line,
            text,
            entry: launch.kernel.name.clone(),
            cta: self.env.cta,
            warp: warp as u32,
            lane: report.lane as u32,
            thread: [thread % nx, thread / nx % ny, thread / nx / ny],
        };
        let note = |(pc, message): (Option<u32>, String)| Note { line: pc.map(quote), message };
        let notes = report.notes.into_iter().map(note).collect();
        Finding { kind: report.kind, message: report.message, site, address: report.address, notes }
    }
}

/// `%ctaid` of a CTA by its number in the grid.
pub(crate) fn place(grid: [u32; 3], linear: u64) -> [u32; 3] {
    let [x, y, _] = grid.map(u64::from);
    [linear % x, linear / x % y, linear / x / y].map(|n| n as u32)
}
