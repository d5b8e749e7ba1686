//! Running a grid: CTAs on all cores of the host, with the same result on any number of them.
//!
//! CTAs run in rounds. In a round, each resident CTA runs until all its warps have exited or stand
//! at an instruction that orders CTAs (an atomic, a volatile, relaxed, acquire or release access to
//! global memory). Then these instructions are executed one after the other in an order that the
//! seed fixes. In between CTAs share no ordered access, so it does not matter which thread of the
//! host ran which; a kernel whose CTAs never synchronise needs one round per set of resident CTAs. Only CTAs that wait for the end of
//! a round keep registers and shared memory; those of one that has ended serve the next on the same thread of the host.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::cta::{Cta, CtaStop};
use super::desk::{Desk, Desks};
use super::env::LaunchContext;
use crate::checks::global_races::{GlobalRaces, Log};
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
    let stride = Stride::new(total, launch.seed);
    let mut slots: Vec<Slot<'_>> = Vec::new();
    let mut totals = Totals::default();
    let check_races = launch.checks.contains(Checks::GLOBAL_RACES);
    let mut races = check_races.then(|| Box::new(GlobalRaces::new()));
    let mut random = Random::new(launch.seed, u64::MAX);
    let mut last_round = WORTH_THREADS;
    let mut workers: Vec<Worker<'_>> = Vec::new();
    loop {
        while slots.len() < resident.max(1)
            && let Some(next) = waiting.next()
        {
            let linear = stride.place(next);
            let (log_number, log) = match &mut races {
                Some(races) => {
                    let (number, log) = races.open(linear);
                    (number, Some(log))
                }
                None => (0, None),
            };
            slots.push(Slot { linear, log_number, log, cta: None, ended: None });
        }
        if slots.is_empty() {
            return Ok(totals.finish(launch, workers));
        }
        let started = Instant::now();
        let count = if last_round < WORTH_THREADS { 1 } else { threads.min(slots.len()) };
        while workers.len() < count {
            workers.push(Worker::new(launch));
        }
        round(launch, &mut slots, &mut workers[..count])?;
        last_round = started.elapsed() * if count > 1 { count as u32 } else { 1 };
        if let Some(races) = &mut races {
            compare(launch, &mut slots, &mut workers[0], races, total)?;
        }
        collect_findings(&mut slots)?;
        commit(&mut slots, &mut workers[0], &mut random, &mut races);
        collect_findings(&mut slots)?;
        let (ended, running) = slots.into_iter().partition(|slot| slot.ended.is_some());
        slots = running;
        for slot in Vec::from_iter::<Vec<Slot<'_>>>(ended) {
            if let Some(ended) = slot.ended {
                totals.add(ended);
            }
            if totals.steps > total_limit {
                let message = format!(
                    "the launch has executed more than {total_limit} instructions, each CTA counted with \
                     {CTA_STEPS} or more, and {} of its {total} CTAs have not started",
                    waiting.end - waiting.start
                );
                let mut cta = workers[0].cta(launch)?;
                cta.place(slot.linear);
                let finding = cta.stop_launch(FindingKind::StepLimit, message);
                return Err(GridError::Findings(vec![finding]));
            }
            if let Some(races) = &mut races {
                races.close(slot.log_number);
            }
        }
        for slot in &mut slots {
            slot.log = races.as_mut().and_then(|races| races.take(slot.log_number));
        }
    }
}

/// A resident CTA: before it starts, while it waits for the end of a round, or when it has ended.
struct Slot<'l> {
    /// Its number in the grid.
    linear: u64,
    log_number: usize,
    /// What it accesses in global memory, while it does not run.
    log: Option<Box<Log>>,
    cta: Option<Box<Cta<'l>>>,
    ended: Option<Ended>,
}

/// What is left of a CTA that has ended, but for how often each instruction ran.
struct Ended {
    steps: u64,
    counters: Counters,
    printed: String,
}

/// What a thread of the host keeps from CTA to CTA.
struct Worker<'l> {
    desk: Desk,
    /// CTAs that have ended, to be used again.
    #[allow(clippy::vec_box)] // A CTA is large.
    spare: Vec<Box<Cta<'l>>>,
}

impl<'l> Worker<'l> {
    fn new(launch: &LaunchContext<'_>) -> Worker<'l> {
        Worker { desk: Desks::take(launch.kernel, launch.warps as usize), spare: Vec::new() }
    }

    /// A CTA that still has to be started.
    fn cta(&mut self, launch: &'l LaunchContext<'l>) -> Result<Box<Cta<'l>>, GridError> {
        if let Some(cta) = self.spare.pop() {
            return Ok(cta);
        }
        let body = self.desk.body(launch.shared_bytes.into());
        Cta::new(launch, body).map(Box::new).ok_or(GridError::NoMemory)
    }

    /// Lets the CTA of a slot run until it has to wait for others. Tells whether it goes on.
    fn run(
        &mut self,
        launch: &'l LaunchContext<'l>,
        slot: &mut Slot<'l>,
    ) -> Result<bool, GridError> {
        let mut cta = match slot.cta.take() {
            Some(cta) => cta,
            None => {
                let mut cta = self.cta(launch)?;
                cta.start(slot.linear);
                cta
            }
        };
        (cta.env.log_number, cta.env.log) = (slot.log_number, slot.log.take());
        self.desk.exchange(&mut cta);
        cta.run();
        self.desk.exchange(&mut cta);
        cta.note_guesses();
        slot.log = cta.env.log.take();
        let stop = cta.stop;
        if stop == CtaStop::Done {
            slot.ended = Some(Ended {
                steps: cta.warps.iter().map(|warp| warp.steps).sum(),
                counters: std::mem::take(&mut cta.env.counters),
                printed: std::mem::take(&mut cta.env.printed),
            });
            self.spare.push(cta);
        } else {
            slot.cta = Some(cta);
        }
        Ok(stop != CtaStop::Fault)
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

/// Lets every resident CTA run until it has to wait for others, on as many threads as there are workers.
fn round<'l>(
    launch: &'l LaunchContext<'l>,
    slots: &mut [Slot<'l>],
    workers: &mut [Worker<'l>],
) -> Result<(), GridError> {
    // A CTA behind one with a finding cannot change what is reported, so it need not run.
    let first_fault = AtomicUsize::new(usize::MAX);
    let run_one = |worker: &mut Worker<'l>, index: usize, slot: &mut Slot<'l>| {
        if index <= first_fault.load(Ordering::Relaxed) && !worker.run(launch, slot)? {
            first_fault.fetch_min(index, Ordering::Relaxed);
        }
        Ok(())
    };
    if let [worker] = workers {
        return slots.iter_mut().enumerate().try_for_each(|(i, slot)| run_one(worker, i, slot));
    }
    let queue = Mutex::new(slots.iter_mut().enumerate());
    let work = |worker: &mut Worker<'l>| {
        loop {
            let Ok(mut all) = queue.lock() else { return Ok(()) };
            let Some((index, slot)) = all.next() else { return Ok(()) };
            drop(all);
            run_one(worker, index, slot)?;
        }
    };
    let Some((first, others)) = workers.split_first_mut() else { return Ok(()) };
    std::thread::scope(|scope| {
        let others: Vec<_> = others.iter_mut().map(|w| scope.spawn(|| work(w))).collect();
        let mut result = work(first);
        for other in others {
            match other.join() {
                Ok(done) => result = result.and(done),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        result
    })
}

/// The findings of the first CTA that has any, in the order of the round.
fn collect_findings(slots: &mut [Slot<'_>]) -> Result<(), GridError> {
    let found = slots.iter_mut().find_map(|slot| slot.cta.as_mut()?.finding.take());
    found.map_or(Ok(()), |finding| Err(GridError::Findings(vec![finding])))
}

/// Compares what the CTAs have accessed in this round. A race is told before what else was found, of which
/// it may be the cause. CTAs behind the first with a finding count for nothing: not all of them have run.
fn compare<'l>(
    launch: &'l LaunchContext<'l>,
    slots: &mut [Slot<'l>],
    worker: &mut Worker<'l>,
    races: &mut GlobalRaces,
    total: u64,
) -> Result<(), GridError> {
    let found = |slot: &Slot<'_>| slot.cta.as_ref().is_some_and(|cta| cta.finding.is_some());
    let fault = slots.iter().position(found);
    let count = fault.map_or(slots.len(), |index| index + 1);
    for slot in &mut *slots {
        if let Some(log) = slot.log.take() {
            races.put(slot.log_number, log);
        }
    }
    if total == 1 {
        slots.iter().for_each(|slot| races.skip(slot.log_number));
        return Ok(());
    }
    for index in 0..count {
        if let Some(race) = races.merge(slots[index].log_number) {
            let other = fault.and_then(|fault| slots[fault].cta.as_mut()?.finding.take());
            let mut cta = match slots[index].cta.take() {
                Some(cta) => cta,
                None => worker.cta(launch)?,
            };
            cta.place(slots[index].linear);
            cta.race(&race);
            return Err(GridError::Findings(cta.finding.take().into_iter().chain(other).collect()));
        }
    }
    Ok(())
}

/// Executes, one after the other, the instructions that order CTAs.
fn commit(
    slots: &mut [Slot<'_>],
    worker: &mut Worker<'_>,
    random: &mut Random,
    races: &mut Option<Box<GlobalRaces>>,
) {
    let mut pending: Vec<_> = slots
        .iter()
        .enumerate()
        .flat_map(|(index, slot)| {
            let deferred = slot.cta.iter().flat_map(|cta| cta.deferred());
            deferred.map(move |(warp, mask)| (index, warp, mask))
        })
        .collect();
    random.shuffle(&mut pending);
    for (index, warp, mask) in pending {
        if let Some(cta) = slots[index].cta.as_mut().filter(|cta| cta.finding.is_none()) {
            cta.env.global_races = races.take();
            worker.desk.exchange(cta);
            cta.commit(warp, mask);
            worker.desk.exchange(cta);
            *races = cta.env.global_races.take();
        }
    }
}

/// Counts of the CTAs that have ended.
#[derive(Default)]
struct Totals {
    counters: Counters,
    printed: String,
    /// Instructions of their warps, each CTA with at least [`CTA_STEPS`].
    steps: u64,
}

impl Totals {
    fn add(&mut self, cta: Ended) {
        self.steps = self.steps.saturating_add(cta.steps.max(CTA_STEPS));
        self.counters.add_traffic(&cta.counters);
        if self.printed.len() + cta.printed.len() <= MAX_PRINTED {
            self.printed.push_str(&cta.printed);
        }
    }

    fn finish(mut self, launch: &LaunchContext<'_>, workers: Vec<Worker<'_>>) -> Report {
        let kernel = launch.kernel;
        let mut counts = vec![Count::default(); kernel.code.len()];
        for mut worker in workers {
            worker.desk.tally.drain_into(&mut counts);
            worker.spare.drain(..).for_each(|cta| worker.desk.keep(*cta));
            Desks::put(kernel, worker.desk);
        }
        let counters = &mut self.counters;
        // By line. Mostly the code is in the order of its lines.
        let mut lines: Vec<(u32, Count)> = Vec::with_capacity(counts.len());
        for (pc, &count) in counts.iter().enumerate() {
            counters.instructions += count;
            let class = kernel.classes[pc];
            counters.classes[class as usize] += count;
            match class {
                InstructionClass::Barrier => counters.barriers += count.warps,
                InstructionClass::Matrix => counters.matrix_instructions += count.warps,
                _ => {}
            }
            if count.warps > 0 {
                lines.push((kernel.lines[pc], count));
            }
        }
        lines.sort_by_key(|&(line, _)| line);
        lines.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 += later.1;
            }
            same
        });
        counters.lines = lines;
        Report { counters: self.counters, printed: self.printed }
    }
}
