//! Running a grid: CTAs on all cores of the host, with the same result on any number of them.
//!
//! CTAs run in rounds. In a round, each resident CTA runs until all its warps have exited or stand
//! at an instruction that orders CTAs (an atomic, a volatile, relaxed, acquire or release access to
//! global memory). Then these instructions are executed one after the other in an order that the
//! seed fixes. In between CTAs share no ordered access, so it does not matter which thread of the
//! host ran which; a kernel whose CTAs never synchronise needs one round per set of resident CTAs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::cta::{Cta, CtaStop};
use super::env::LaunchContext;
use super::patterns::Patterns;
use crate::checks::global_races::GlobalRaces;
use crate::counters::{Count, Counters, InstructionClass};
use crate::finding::{Finding, FindingKind};
use crate::launch::{Checks, Report};
use crate::random::Random;

/// Rounds shorter than this are run on one thread: starting others would take longer.
const WORTH_THREADS: Duration = Duration::from_micros(150);

/// Bytes that a launch prints; what goes beyond them is dropped.
const MAX_PRINTED: usize = 1 << 20;

/// What a CTA counts for at least, so that a wild grid of empty CTAs ends.
const CTA_STEPS: u64 = 1_000;

/// What ended a grid early.
pub(crate) enum GridError {
    Findings(Vec<Finding>),
    NoMemory,
}

/// Runs all CTAs of a launch.
pub(crate) fn run(
    launch: &LaunchContext<'_>,
    threads: usize,
    resident: usize,
    total_limit: u64,
) -> Result<Report, GridError> {
    let total = launch.grid.iter().map(|&n| u64::from(n)).product::<u64>();
    let mut waiting = 0..total;
    let mut ctas: Vec<Cta<'_>> = Vec::new();
    let mut idle: Vec<Cta<'_>> = Vec::new();
    let mut totals = Totals::new(launch);
    let check_races = launch.checks.contains(Checks::GLOBAL_RACES);
    let mut races = check_races.then(|| Box::new(GlobalRaces::new()));
    let mut random = Random::new(launch.seed, u64::MAX);
    let mut last_round = WORTH_THREADS;
    let mut patterns = Vec::new();
    loop {
        let stride = Stride::new(total, launch.seed);
        while ctas.len() < resident.max(1)
            && let Some(next) = waiting.next()
        {
            let mut cta = match idle.pop() {
                Some(cta) => cta,
                None => Cta::new(launch).ok_or(GridError::NoMemory)?,
            };
            cta.start(stride.place(next));
            if let Some(races) = &mut races {
                let (number, log) = races.open(stride.place(next));
                (cta.env.log_number, cta.env.log) = (number, Some(log));
            }
            ctas.push(cta);
        }
        if ctas.is_empty() {
            return Ok(totals.finish(launch));
        }
        let started = Instant::now();
        let workers = if last_round < WORTH_THREADS { 1 } else { threads.min(ctas.len()) };
        if patterns.len() < workers {
            patterns.resize_with(workers, Patterns::default);
        }
        round(&mut ctas, &mut patterns[..workers]);
        last_round = started.elapsed() * if workers > 1 { workers as u32 } else { 1 };
        if let Some(races) = &mut races {
            compare(&mut ctas, races, total)?;
        }
        collect_findings(&mut ctas)?;
        commit(&mut ctas, &mut random, &mut races);
        collect_findings(&mut ctas)?;
        let (done, running) = ctas.into_iter().partition(|c| c.stop == CtaStop::Done);
        ctas = running;
        for mut cta in Vec::from_iter::<Vec<Cta<'_>>>(done) {
            totals.add(&mut cta);
            if totals.steps > total_limit {
                let message = format!(
                    "the launch has executed more than {total_limit} instructions, each CTA counted with \
                     {CTA_STEPS} or more, and {} of its {total} CTAs have not started",
                    waiting.end - waiting.start
                );
                let finding = cta.stop_launch(FindingKind::StepLimit, message);
                return Err(GridError::Findings(vec![finding]));
            }
            if let Some(races) = &mut races {
                races.close(cta.env.log_number);
            }
            idle.push(cta);
        }
        for cta in &mut ctas {
            cta.env.log = races.as_mut().and_then(|races| races.take(cta.env.log_number));
        }
    }
}

/// A permutation of the CTAs that the seed picks; seed 0 leaves them in order.
struct Stride {
    total: u64,
    factor: u64,
    offset: u64,
}

impl Stride {
    fn new(total: u64, seed: u64) -> Stride {
        if seed == 0 || total < 2 {
            return Stride { total, factor: 1, offset: 0 };
        }
        let mut random = Random::new(seed, 1 << 32);
        let gcd = |mut a: u64, mut b: u64| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let mut factor = random.next() % total;
        while gcd(factor, total) != 1 {
            factor = (factor + 1) % total;
        }
        Stride { total, factor, offset: random.next() % total }
    }

    fn place(&self, index: u64) -> u64 {
        let (index, factor) = (u128::from(index), u128::from(self.factor));
        ((index * factor + u128::from(self.offset)) % u128::from(self.total)) as u64
    }
}

/// Lets every resident CTA run until it has to wait for others, on as many threads as there are patterns.
fn round(ctas: &mut [Cta<'_>], patterns: &mut [Patterns]) {
    // A CTA behind one with a finding cannot change what is reported, so it need not run.
    let first_fault = AtomicUsize::new(usize::MAX);
    let run_one = |index: usize, cta: &mut Cta<'_>, patterns: &mut Patterns| {
        if index > first_fault.load(Ordering::Relaxed) {
            return;
        }
        std::mem::swap(&mut cta.env.patterns, patterns);
        cta.run();
        std::mem::swap(&mut cta.env.patterns, patterns);
        if cta.stop == CtaStop::Fault {
            first_fault.fetch_min(index, Ordering::Relaxed);
        }
    };
    if let [patterns] = patterns {
        ctas.iter_mut().enumerate().for_each(|(index, cta)| run_one(index, cta, patterns));
        return;
    }
    let queue = Mutex::new(ctas.iter_mut().enumerate());
    let work = |patterns: &mut Patterns| {
        loop {
            let next = match queue.lock() {
                Ok(mut queue) => queue.next(),
                Err(_) => return,
            };
            let Some((index, cta)) = next else { return };
            run_one(index, cta, patterns);
        }
    };
    let Some((first, others)) = patterns.split_first_mut() else { return };
    std::thread::scope(|scope| {
        for patterns in others {
            scope.spawn(|| work(patterns));
        }
        work(first);
    });
}

/// The findings of the first CTA that has any, in the order of the round.
fn collect_findings(ctas: &mut [Cta<'_>]) -> Result<(), GridError> {
    let found = ctas.iter_mut().find_map(|cta| cta.finding.take());
    found.map_or(Ok(()), |finding| Err(GridError::Findings(vec![finding])))
}

/// Compares what the CTAs have accessed in this round. A race is told before what else was found, of which
/// it may be the cause. CTAs behind the first with a finding count for nothing: not all of them have run.
fn compare(ctas: &mut [Cta<'_>], races: &mut GlobalRaces, total: u64) -> Result<(), GridError> {
    let fault = ctas.iter().position(|cta| cta.finding.is_some());
    let count = fault.map_or(ctas.len(), |index| index + 1);
    for cta in &mut *ctas {
        cta.note_guesses();
        if let Some(log) = cta.env.log.take() {
            races.put(cta.env.log_number, log);
        }
    }
    if total == 1 {
        ctas.iter().for_each(|cta| races.skip(cta.env.log_number));
        return Ok(());
    }
    for index in 0..count {
        if let Some(race) = races.merge(ctas[index].env.log_number) {
            let mut findings: Vec<Finding> =
                fault.and_then(|f| ctas[f].finding.take()).into_iter().collect();
            ctas[index].race(&race);
            findings.splice(0..0, ctas[index].finding.take());
            return Err(GridError::Findings(findings));
        }
    }
    Ok(())
}

/// Executes, one after the other, the instructions that order CTAs.
fn commit(ctas: &mut [Cta<'_>], random: &mut Random, races: &mut Option<Box<GlobalRaces>>) {
    let mut pending: Vec<_> = ctas
        .iter()
        .enumerate()
        .flat_map(|(cta, c)| c.deferred().map(move |(warp, mask)| (cta, warp, mask)))
        .collect();
    random.shuffle(&mut pending);
    for (cta, warp, mask) in pending {
        if ctas[cta].finding.is_none() {
            ctas[cta].env.global_races = races.take();
            ctas[cta].commit(warp, mask);
            *races = ctas[cta].env.global_races.take();
        }
    }
}

/// Counts of the CTAs that have ended.
struct Totals {
    counts: Vec<Count>,
    counters: Counters,
    printed: String,
    /// Instructions of their warps, each CTA with at least [`CTA_STEPS`].
    steps: u64,
}

impl Totals {
    fn new(launch: &LaunchContext<'_>) -> Totals {
        Totals {
            steps: 0,
            counts: vec![Count::default(); launch.kernel.code.len()],
            counters: Counters::default(),
            printed: String::new(),
        }
    }

    fn add(&mut self, cta: &mut Cta<'_>) {
        let steps = cta.warps.iter().map(|warp| warp.steps).sum::<u64>();
        self.steps = self.steps.saturating_add(steps.max(CTA_STEPS));
        cta.env.tally.drain_into(&mut self.counts);
        self.counters.add_traffic(&std::mem::take(&mut cta.env.counters));
        if self.printed.len() + cta.env.printed.len() <= MAX_PRINTED {
            self.printed.push_str(&cta.env.printed);
        }
        cta.env.printed.clear();
    }

    fn finish(mut self, launch: &LaunchContext<'_>) -> Report {
        let counters = &mut self.counters;
        let kernel = launch.kernel;
        let mut lines = std::collections::BTreeMap::<u32, Count>::new();
        for (pc, &count) in self.counts.iter().enumerate() {
            counters.instructions += count;
            let class = kernel.classes[pc];
            counters.classes[class as usize] += count;
            match class {
                InstructionClass::Barrier => counters.barriers += count.warps,
                InstructionClass::Matrix => counters.matrix_instructions += count.warps,
                _ => {}
            }
            if count.warps > 0 {
                *lines.entry(kernel.lines[pc]).or_default() += count;
            }
        }
        counters.lines = lines.into_iter().collect();
        Report { counters: self.counters, printed: self.printed }
    }
}
