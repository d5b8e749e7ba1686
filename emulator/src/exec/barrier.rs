//! The sixteen barriers of a CTA, and that of its cluster, which has no other CTA.

use super::lanes::Mask;

/// Barriers of a CTA.
pub(crate) const BARRIERS: usize = 16;

/// The barrier of the cluster, after those.
pub(crate) const CLUSTER: u32 = BARRIERS as u32;
/// All of them.
pub(crate) const OBJECTS: usize = BARRIERS + 1;

/// What arriving at a barrier brought about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Others are still missing.
    Waiting,
    /// This was the last one: everyone goes on.
    Complete,
    /// The barrier cannot be used like this.
    Misuse(String),
}

/// A reduction that `barrier.red` makes over the predicates of the threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Votes {
    /// Threads whose predicate was true.
    pub(crate) true_threads: u32,
    /// Threads that voted.
    pub(crate) threads: u32,
}

/// Phases whose votes are kept for warps that have not come back for them.
const KEPT: usize = 32;

#[derive(Debug, Clone, Default)]
struct Barrier {
    /// Completed phases.
    phase: u64,
    /// Threads that have arrived in this phase.
    arrived: u32,
    /// Threads that this phase needs.
    expected: u32,
    /// Whether it is for all threads of the CTA: it does not wait for those that exit.
    for_all: bool,
    votes: Votes,
    /// Votes of the last phases, by phase modulo their number.
    results: [Votes; KEPT],
}

impl Barrier {
    /// Its last thread has arrived.
    fn complete(&mut self) {
        self.results[self.phase as usize % KEPT] = self.votes;
        self.phase += 1;
        self.arrived = 0;
        self.votes = Votes::default();
    }
}

/// All barriers of one CTA.
#[derive(Debug, Clone, Default)]
pub(crate) struct Barriers {
    all: Vec<Barrier>,
    /// Threads of the CTA that have exited; barriers without a count and that of the cluster do not wait for them.
    exited: u32,
}

impl Barriers {
    pub(crate) fn reset(&mut self) {
        self.all.clear();
        self.all.resize(OBJECTS, Barrier::default());
        self.exited = 0;
    }

    /// Lanes of a warp arrive at barrier `id`; they count for `arriving` of the threads that it is for: so many, or all `threads` of the
    /// CTA that have not exited.
    pub(crate) fn arrive(
        &mut self,
        id: u32,
        mask: Mask,
        votes: Mask,
        (arriving, count, threads): (u32, Option<u32>, u32),
    ) -> Arrival {
        let expected = count.unwrap_or(threads - self.exited);
        let barrier = &mut self.all[id as usize % OBJECTS];
        if barrier.arrived > 0 && barrier.expected != expected {
            return Arrival::Misuse(format!(
                "barrier {id} is waited for with {expected} threads here and with {} elsewhere",
                barrier.expected
            ));
        }
        barrier.for_all = count.is_none() && (barrier.arrived == 0 || barrier.for_all);
        barrier.expected = expected;
        barrier.arrived += arriving;
        barrier.votes.true_threads += (votes & mask).count_ones();
        barrier.votes.threads += mask.count_ones();
        if barrier.arrived < expected {
            return Arrival::Waiting;
        }
        if barrier.arrived > expected {
            let arrived = barrier.arrived;
            return Arrival::Misuse(format!(
                "barrier {id} is for {expected} threads and {arrived} arrive"
            ));
        }
        barrier.complete();
        Arrival::Complete
    }

    /// Threads exit; gives the barriers that they alone have held up (PTX ISA, "exit").
    pub(crate) fn exit(&mut self, exiting: u32) -> impl Iterator<Item = u32> {
        self.exited += exiting;
        (0..BARRIERS as u32).zip(&mut self.all).filter_map(move |(id, barrier)| {
            if barrier.arrived == 0 || !barrier.for_all {
                return None;
            }
            barrier.expected -= exiting;
            (barrier.arrived == barrier.expected).then(|| {
                barrier.complete();
                id
            })
        })
    }

    /// Threads arrive at the barrier of the cluster, or have exited; whether that completes a phase.
    pub(crate) fn arrive_in_cluster(&mut self, arriving: u32, threads: u32) -> bool {
        let barrier = &mut self.all[CLUSTER as usize];
        barrier.arrived += arriving;
        barrier.expected = threads - self.exited;
        let complete = barrier.arrived > 0 && barrier.arrived >= barrier.expected;
        if complete {
            barrier.phase += 1;
            barrier.arrived = 0;
        }
        complete
    }

    /// Completed phases of a barrier.
    pub(crate) fn phase(&self, id: u32) -> u64 {
        self.all[id as usize % OBJECTS].phase
    }

    /// What the threads of a completed phase voted.
    pub(crate) fn result(&self, id: u32, phase: u64) -> Votes {
        self.all[id as usize % OBJECTS].results[phase as usize % KEPT]
    }

    /// Threads that barrier `id` has and needs.
    pub(crate) fn progress(&self, id: u32) -> (u32, u32) {
        let barrier = &self.all[id as usize % OBJECTS];
        (barrier.arrived, barrier.expected)
    }
}
