//! Everything that a handler sees beside its own warp.

use super::barrier::{Barriers, CLUSTER};
use super::bulk::Bulk;
use super::lanes::{Lanes, Mask};
use super::mbarrier::Mbarriers;
use super::patterns::Patterns;
use super::tally::Tally;
use crate::checks::global_races::{GlobalRaces, Log};
use crate::checks::order::Order;
use crate::checks::words::Words;
use crate::counters::Counters;
use crate::error::Source;
use crate::finding::{FindingKind, Report};
use crate::launch::{Checks, MmaMode};
use crate::lower::kernel::Kernel;
use crate::memory::device::Table;
use crate::memory::region::Region;
use crate::random::Random;

use super::inst::{Flow, Inst};

/// What all CTAs of a launch share.
pub(crate) struct LaunchContext<'l> {
    pub(crate) kernel: &'l Kernel,
    pub(crate) memory: &'l Table,
    /// Addresses of the module's variables.
    pub(crate) globals: &'l [u64],
    /// Memory for the grid's own barrier, 0 if the kernel does not ask for it.
    pub(crate) grid_workspace: u64,
    /// The parameters of the entry, all of them initialised and read-only.
    pub(crate) params: &'l Region,
    pub(crate) source: &'l Source,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Threads of a CTA.
    pub(crate) threads: u32,
    /// Warps of a CTA.
    pub(crate) warps: u32,
    /// Bytes of shared memory of a CTA, declared and dynamic.
    pub(crate) shared_bytes: u32,
    pub(crate) dynamic_shared_bytes: u32,
    pub(crate) checks: Checks,
    pub(crate) traffic: bool,
    pub(crate) sm: u32,
    pub(crate) mma: MmaMode,
    pub(crate) seed: u64,
    pub(crate) step_limit: u64,
    /// Ranges, as address and bytes, to which no undefined value may be stored.
    pub(crate) outputs: [&'l [(u64, u64)]; 2],
    /// Ranges to which one may be, although the host has written there.
    pub(crate) scratch: &'l [(u64, u64)],
    /// Whether CTAs have to wait for each other's round before they touch what others see.
    pub(crate) deferring: bool,
}

/// What a handler may use: the CTA's shared memory and barriers, the launch, and where to report.
pub(crate) struct Env<'l> {
    pub(crate) launch: &'l LaunchContext<'l>,
    /// `%ctaid`
    pub(crate) cta: [u32; 3],
    /// Number of the CTA in the grid.
    pub(crate) linear: u64,
    pub(crate) shared: Region,
    pub(crate) barriers: Barriers,
    /// Order of what the threads do; absent where no check of races is on.
    pub(crate) order: Option<Box<Order>>,
    /// Accesses to shared memory; absent where that check is off.
    pub(crate) races: Option<Box<Words>>,
    /// Accesses to global memory in this round; absent where that check is off, and while the round commits.
    pub(crate) log: Option<Box<Log>>,
    /// Number of that log among those of the launch.
    pub(crate) log_number: usize,
    /// The logs of all CTAs, while the round commits.
    pub(crate) global_races: Option<Box<GlobalRaces>>,
    pub(crate) mbarriers: Mbarriers,
    /// Bulk copies in flight.
    pub(crate) bulk: Bulk,
    /// Set while the round commits: instructions that order CTAs may run.
    pub(crate) committing: bool,
    /// Why the last handler returned [`Flow::Fault`].
    pub(crate) report: Option<Box<Report>>,
    /// The instruction that the report is about, if not the one that ran.
    pub(crate) blamed: Option<u32>,
    /// Lanes that stay, after [`Flow::Meet`].
    pub(crate) waiting: Mask,
    /// Lanes that they wait for, after [`Flow::Meet`].
    pub(crate) wanted: Mask,
    /// Lanes whose result of this instruction is undefined; taken and cleared by the scheduler where it tracks registers.
    pub(crate) undefined: Mask,
    /// Lanes of the warp that have not exited; none where only the order of the PTX ISA counts.
    pub(crate) live: Mask,
    /// Whether all of them execute the store that is about to be checked.
    pub(crate) stored_at_once: bool,
    /// The barrier, after [`Flow::Barrier`].
    pub(crate) barrier: u32,
    /// Where each lane goes, after [`Flow::Scatter`].
    pub(crate) targets: Lanes<u32>,
    /// For each instruction, the allocation that it accessed last. Like the two below, lent by [`Desk`](super::desk::Desk) while the
    /// CTA runs, and empty otherwise.
    pub(crate) hints: Vec<u32>,
    /// By access.
    pub(crate) patterns: Patterns,
    /// How often each instruction ran.
    pub(crate) tally: Tally,
    /// Traffic and branches.
    pub(crate) counters: Counters,
    /// What `printf` has written.
    pub(crate) printed: String,
    pub(crate) random: Random,
}

impl Env<'_> {
    /// Counts what the lanes of a warp wait for behind an instruction, `copied` bytes of asynchronous copies, and its bulk copies.
    #[inline(always)]
    pub(crate) fn count_in_flight(&mut self, (warp, inst): (u32, &Inst), mask: Mask, copied: u64) {
        let loaded = u64::from(inst.waiting) * u64::from(mask.count_ones());
        let bytes = loaded + copied + self.bulk.bytes_in_flight(warp);
        self.counters.peak_bytes_in_flight = self.counters.peak_bytes_in_flight.max(bytes);
    }

    /// Records why the launch has to end.
    #[cold]
    pub(crate) fn fault(
        &mut self,
        kind: FindingKind,
        lane: usize,
        message: impl Into<String>,
    ) -> Flow {
        self.report(Report {
            kind,
            lane,
            message: message.into(),
            address: None,
            notes: Vec::new(),
        })
    }

    /// As [`Env::fault`], with everything a report holds.
    #[cold]
    pub(crate) fn report(&mut self, report: Report) -> Flow {
        self.report.get_or_insert_with(|| Box::new(report));
        Flow::Fault
    }

    /// Threads arrive at the barrier of the cluster, or have exited, so that nobody waits for them there.
    pub(crate) fn arrive_in_cluster(&mut self, arriving: u32) {
        if self.barriers.arrive_in_cluster(arriving, self.launch.threads)
            && let Some(order) = &mut self.order
        {
            order.completed(CLUSTER, false);
        }
    }

    /// Lanes of a warp exit, so that no barrier for all threads waits for them.
    pub(crate) fn exit(&mut self, warp: u32, mask: Mask) {
        let Env { barriers, order, launch, .. } = &mut *self;
        if let Some(order) = order
            && !launch.checks.contains(Checks::STRICT_ORDER)
        {
            order.exit(warp, mask);
        }
        for id in barriers.exit(mask.count_ones()) {
            if let Some(order) = order {
                order.completed(id, true);
            }
        }
        self.arrive_in_cluster(0);
    }

    /// Tells the race check which phases of mbarriers have completed.
    pub(crate) fn settle_phases(&mut self) {
        while let Some(address) = self.mbarriers.take_completed() {
            if let Some(order) = &mut self.order {
                order.phase_completed(address);
            }
        }
    }

    /// Whether an instruction that other CTAs see has to wait for the end of the round.
    #[inline(always)]
    pub(crate) fn must_defer(&self) -> bool {
        self.launch.deferring && !self.committing
    }
}
