//! Bulk copies of a CTA that have been issued and have not landed (PTX ISA, "cp.async.bulk").
//!
//! A copy lands as late as the program allows: one that an mbarrier tracks when a thread that waits
//! there has found its phase incomplete, one of a bulk group when its thread waits for the group. Until
//! then its destination in shared memory is poisoned, and so is a write to a source in shared memory.

use super::env::Env;
use crate::checks::global_races::One;
use crate::checks::words;
use crate::counters::Traffic;
use crate::finding::{FindingKind, Report};
use crate::memory::access::{
    Access, Global, Memory, Refused, Resolve, Shared, permitted, refuse, report_own_race,
    report_race,
};
use crate::memory::region::{ASYNC_PROXY, IN_FLIGHT, INIT, READ_ONLY, spread};

use super::inst::Flow;
use crate::ops::atomic::{self, Combine};

/// Every address and size of a bulk copy is a multiple of this. A copy of no bytes goes from anywhere to anywhere.
pub(crate) const UNIT: u64 = 16;

/// Which thread issued a copy: warp and lane.
pub(crate) type Thread = (u32, usize);

/// A copy into shared memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming {
    pub(crate) from: u64,
    /// Whether the source is in shared memory too.
    pub(crate) from_shared: bool,
    pub(crate) to: u64,
    pub(crate) bytes: u32,
    /// What it is added to its destination by, and the bytes of an element.
    pub(crate) reduction: Option<(u32, Combine)>,
    /// The mbarrier that learns of it.
    pub(crate) mbarrier: u64,
    pub(crate) thread: Thread,
    /// The instruction.
    pub(crate) site: u32,
}

/// A copy out of shared memory.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) bytes: u32,
    pub(crate) thread: Thread,
    pub(crate) site: u32,
    /// Number of its group among those of the thread; none before the commit.
    group: Option<u64>,
    /// The bytes, once they have been read.
    data: Option<Vec<u8>>,
    /// Whether the destination has them already, as that of a reduction does.
    landed: bool,
}

/// A copy out of shared memory, as it is issued.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Issue {
    pub(crate) from: u64,
    pub(crate) to: u64,
    pub(crate) bytes: u32,
    pub(crate) thread: Thread,
    pub(crate) site: u32,
}

/// The bulk copies of a CTA.
#[derive(Debug, Default)]
pub(crate) struct Bulk {
    incoming: Vec<Incoming>,
    outgoing: Vec<Outgoing>,
    /// Groups committed by each thread that has committed any.
    groups: Vec<(Thread, u64)>,
}

impl Bulk {
    pub(crate) fn clear(&mut self) {
        self.incoming.clear();
        self.outgoing.clear();
        self.groups.clear();
    }

    /// Bytes of global memory that copies issued by a warp have still to bring.
    #[inline(always)]
    pub(crate) fn bytes_in_flight(&self, warp: u32) -> u64 {
        if self.incoming.is_empty() { 0 } else { self.bytes_issued_by(warp) }
    }

    #[inline(never)]
    fn bytes_issued_by(&self, warp: u32) -> u64 {
        let own = |copy: &&Incoming| copy.thread.0 == warp && !copy.from_shared;
        self.incoming.iter().filter(own).map(|copy| u64::from(copy.bytes)).sum()
    }

    /// Makes one group of all copies of the thread that are in none.
    pub(crate) fn commit(&mut self, thread: Thread) {
        let count = match self.groups.iter_mut().find(|(t, _)| *t == thread) {
            Some((_, count)) => count,
            None => {
                self.groups.push((thread, 0));
                let last = self.groups.len() - 1;
                &mut self.groups[last].1
            }
        };
        for copy in self.outgoing.iter_mut().filter(|c| c.thread == thread && c.group.is_none()) {
            copy.group = Some(*count);
        }
        *count += 1;
    }

    /// Groups below this number are complete once all but the latest `pending` are.
    fn limit(&self, thread: Thread, pending: u64) -> u64 {
        let committed =
            self.groups.iter().find(|(t, _)| *t == thread).map_or(0, |&(_, count)| count);
        committed.saturating_sub(pending)
    }
}

impl Env<'_> {
    /// Checks a copy into shared memory and takes it on.
    pub(crate) fn issue_incoming(&mut self, copy: Incoming) -> Option<Flow> {
        let lane = copy.thread.1;
        let Incoming { from, to, bytes, from_shared, .. } = copy;
        if let Some(flow) = self.check_units(lane, &[("source", from), ("destination", to)], bytes)
        {
            return Some(flow);
        }
        if !self.mbarriers.is_live(copy.mbarrier) {
            let message = format!(
                "bulk copy that completes at {:#x}, which holds no mbarrier object",
                copy.mbarrier
            );
            return Some(self.fault(FindingKind::BarrierMisuse, lane, message));
        }
        if bytes == 0 {
            return None;
        }
        let source = if from_shared {
            self.check_range::<Shared>(lane, from, bytes, Access::Load)
        } else {
            self.check_range::<Global>(lane, from, bytes, Access::Load)
        };
        let access = if copy.reduction.is_some() { Access::Atomic } else { Access::Store };
        if copy.reduction.is_some() {
            // Reductions may be on their way to the same bytes: each element is an operation of its own.
            self.set_in_flight(|other| other.reduction.is_some(), false);
        }
        let mut refused = source.or_else(|| self.check_range::<Shared>(lane, to, bytes, access));
        if copy.reduction.is_some() {
            self.set_in_flight(|other| other.reduction.is_some(), true);
            refused = refused.or_else(|| self.check_proxy(lane, to, bytes));
        }
        if let Some(flow) = refused {
            return Some(flow);
        }
        if from_shared && let Some(flow) = self.check_proxy(lane, from, bytes) {
            return Some(flow);
        }
        if from_shared {
            let reads = self.check_issue(copy.thread, copy.site, (from, bytes), Access::Load);
            if reads.is_some() {
                return reads;
            }
        }
        let writes = self.check_issue(copy.thread, copy.site, (to, bytes), access);
        if writes.is_some() {
            return writes;
        }
        if !from_shared {
            let race = self.note_copy((copy.thread, copy.site), (from, bytes), false, None);
            if race.is_some() {
                return race;
            }
            if self.launch.traffic {
                let mut traffic = Traffic::default();
                traffic.count_range(from, bytes.into());
                self.counters.add_copy(&traffic);
            }
        }
        let offset = (to - self.shared.base) as usize;
        let gone = if copy.reduction.is_some() { 0 } else { INIT };
        self.shared.mark(offset, bytes as usize, IN_FLIGHT, gone);
        self.bulk.incoming.push(copy);
        None
    }

    /// Marks the destinations of some copies as in flight, or lifts the mark.
    fn set_in_flight(&self, which: impl Fn(&Incoming) -> bool, set: bool) {
        for copy in self.bulk.incoming.iter().filter(|copy| which(copy)) {
            let (set, clear) = if set { (IN_FLIGHT, 0) } else { (0, IN_FLIGHT) };
            let offset = (copy.to - self.shared.base) as usize;
            self.shared.mark(offset, copy.bytes as usize, set, clear);
        }
    }

    /// Checks a copy out of shared memory and takes it on.
    pub(crate) fn issue_outgoing(&mut self, copy: Issue) -> Option<Flow> {
        let refused = self.check_outgoing(copy, Access::Store);
        if refused.is_some() || copy.bytes == 0 {
            return refused;
        }
        let race = self.note_copy((copy.thread, copy.site), (copy.to, copy.bytes), true, None);
        if race.is_none() {
            self.take_outgoing(copy, false);
        }
        race
    }

    /// As [`Env::issue_outgoing`] for a copy that is added to what its destination holds: `combine` does that, element
    /// by element. The destination changes at once, as other CTAs may add to it too.
    pub(crate) fn issue_reduction(
        &mut self,
        copy: Issue,
        element: u32,
        combine: Combine,
    ) -> Option<Flow> {
        let refused = self.check_outgoing(copy, Access::Atomic);
        if refused.is_some() || copy.bytes == 0 {
            return refused;
        }
        let memory = Memory { launch: self.launch, shared: &self.shared, local: None };
        let found = Global::find(&memory, &mut { u32::MAX }, 0, copy.to, copy.bytes.into());
        if let Some((region, to)) = found {
            let from = (copy.from - self.shared.base) as usize;
            for at in (0..copy.bytes as usize).step_by(element as usize) {
                let size = element as usize;
                let old = atomic::load(region, to + at, size);
                let new = combine(old, atomic::load(&self.shared, from + at, size), 0);
                atomic::store(region, to + at, size, new);
            }
        }
        self.take_outgoing(copy, true);
        None
    }

    fn check_outgoing(&mut self, copy: Issue, access: Access) -> Option<Flow> {
        let Issue { from, to, bytes, thread, site } = copy;
        let lane = thread.1;
        let refused = self.check_units(lane, &[("source", from), ("destination", to)], bytes);
        if bytes == 0 {
            return refused;
        }
        refused
            .or_else(|| self.check_range::<Shared>(lane, from, bytes, Access::Load))
            .or_else(|| self.check_range::<Global>(lane, to, bytes, access))
            .or_else(|| self.check_proxy(lane, from, bytes))
            .or_else(|| self.check_issue(thread, site, (from, bytes), Access::Load))
    }

    fn take_outgoing(&mut self, copy: Issue, landed: bool) {
        let Issue { from, to, bytes, thread, site } = copy;
        if self.launch.traffic {
            self.counters.global_stores.count_range(to, bytes.into());
        }
        self.shared.mark((from - self.shared.base) as usize, bytes as usize, READ_ONLY, 0);
        let (group, data) = (None, None);
        self.bulk.outgoing.push(Outgoing { from, to, bytes, thread, site, group, data, landed });
    }

    /// Notes what a copy accesses of global memory, at the clock of its thread or at one of the agent, and checks it.
    fn note_copy(
        &mut self,
        (thread, pc): (Thread, u32),
        (address, bytes): (u64, u32),
        writes: bool,
        landed: Option<(u32, u32)>,
    ) -> Option<Flow> {
        let (order, log) = (self.order.as_ref()?, self.log.as_mut()?);
        let race = log.note_one(order, One { thread, pc, address, bytes, writes }, landed)?;
        Some(report_own_race(self, &race))
    }

    /// Checks that the thread may touch these bytes of shared memory now, as far as other warps are concerned.
    fn check_issue(
        &mut self,
        thread: Thread,
        site: u32,
        (start, bytes): (u64, u32),
        access: Access,
    ) -> Option<Flow> {
        let (warp, lane) = thread;
        let (writes, atomic) = (access != Access::Load, access == Access::Atomic);
        let access = words::Access { warp, pc: site, writes, strong: atomic, atomic, whole: false };
        let race = self.shared_run(access, lane, (start, bytes))?;
        Some(report_race(self, (access, bytes.into()), &race))
    }

    fn check_units(&mut self, lane: usize, addresses: &[(&str, u64)], bytes: u32) -> Option<Flow> {
        if u64::from(bytes) % UNIT != 0 {
            let message = format!("bulk copy of {bytes} bytes, which is not a multiple of {UNIT}");
            return Some(self.fault(FindingKind::Operand, lane, message));
        }
        let &(what, address) = addresses.iter().find(|(_, address)| address % UNIT != 0)?;
        let message = format!("bulk copy whose {what} {address:#x} is not a multiple of {UNIT}");
        let notes = Vec::new();
        Some(self.report(Report {
            kind: FindingKind::Misaligned,
            lane,
            message,
            address: Some(address),
            notes,
        }))
    }

    /// Checks every unit of a range as an access of its own.
    fn check_range<R: Resolve>(
        &mut self,
        lane: usize,
        start: u64,
        bytes: u32,
        access: Access,
    ) -> Option<Flow> {
        let memory = Memory { launch: self.launch, shared: &self.shared, local: None };
        let allowed = |address: u64, bytes: u64| {
            let found = R::find(&memory, &mut { u32::MAX }, lane, address, bytes);
            found.is_some_and(|(region, offset)| permitted(region, offset, bytes as usize, access))
        };
        if bytes == 0 || allowed(start, bytes.into()) {
            return None;
        }
        let mut units = (0..u64::from(bytes) / UNIT).map(|i| start.wrapping_add(i * UNIT));
        let address = units.find(|&address| !allowed(address, UNIT)).unwrap_or(start);
        Some(refuse::<R>(self, None, Refused { lane, address, bytes: UNIT, access }))
    }

    /// Finds bytes that were written through the generic proxy and that no proxy fence has followed.
    fn check_proxy(&mut self, lane: usize, from: u64, bytes: u32) -> Option<Flow> {
        if !self.shared.is_marked() {
            return None;
        }
        let start = (from - self.shared.base) as usize;
        let hidden =
            (start..start + bytes as usize).find(|&at| self.shared.state(at) & ASYNC_PROXY == 0)?;
        let address = self.shared.base + hidden as u64;
        let message = format!(
            "bulk copy from shared memory of a byte at {address:#x} that was written without a \
             `fence.proxy.async` since"
        );
        Some(self.report(Report {
            kind: FindingKind::Race,
            lane,
            message,
            address: Some(address),
            notes: Vec::new(),
        }))
    }

    /// Makes every write so far to shared memory visible to bulk copies.
    pub(crate) fn fence_async_proxy(&mut self) {
        // INIT is the lowest bit of each byte, so that a shift makes the other one of it.
        let shift = ASYNC_PROXY.trailing_zeros();
        let all = self.shared.shadow.len();
        self.shared.alter(0, all, |word| word | (word & spread(INIT)) << shift);
    }

    /// Lets one copy land, of those that complete at this mbarrier if one is given.
    pub(crate) fn land_incoming(
        &mut self,
        mbarrier: Option<u64>,
    ) -> Result<bool, (Incoming, String)> {
        let wanted = |c: &Incoming| mbarrier.is_none_or(|m| m == c.mbarrier);
        let count = self.bulk.incoming.iter().filter(|c| wanted(c)).count();
        if count == 0 {
            return Ok(false);
        }
        let pick = self.random.below(count);
        let Some(index) =
            (0..self.bulk.incoming.len()).filter(|&i| wanted(&self.bulk.incoming[i])).nth(pick)
        else {
            return Ok(false);
        };
        let copy = self.bulk.incoming.remove(index);
        let mut data = vec![0; copy.bytes as usize];
        let memory = Memory { launch: self.launch, shared: &self.shared, local: None };
        let bytes = u64::from(copy.bytes);
        let source = if copy.from_shared {
            Shared::find(&memory, &mut { u32::MAX }, 0, copy.from, bytes)
        } else {
            Global::find(&memory, &mut { u32::MAX }, 0, copy.from, bytes)
        };
        if let Some((region, offset)) = source {
            region.data.read(offset, &mut data);
        }
        let offset = (copy.to - self.shared.base) as usize;
        match copy.reduction {
            Some((element, combine)) => {
                for (at, new) in data.chunks_exact(element as usize).enumerate() {
                    let (at, bytes) = (offset + at * element as usize, element as usize);
                    let mut word = [0; 8];
                    word[..bytes].copy_from_slice(new);
                    let old = atomic::load(&self.shared, at, bytes);
                    atomic::store(
                        &self.shared,
                        at,
                        bytes,
                        combine(old, u64::from_le_bytes(word), 0),
                    );
                }
            }
            None => self.shared.data.write(offset, &data),
        }
        self.shared.mark(offset, data.len(), INIT | ASYNC_PROXY, IN_FLIGHT);
        if copy.reduction.is_some() {
            self.set_in_flight(|other| other.reduction.is_some(), true);
        }
        if let Some(order) = &mut self.order {
            let (agent, clock) = order.landed_at(copy.mbarrier);
            if let Some(races) = &mut self.races {
                let by = (copy.thread.1, copy.site);
                races.landed(clock, offset..offset + data.len(), by, copy.reduction.is_some());
            }
            if !copy.from_shared {
                let at = (copy.thread, copy.site);
                self.note_copy(at, (copy.from, copy.bytes), false, Some((agent, clock)));
            }
        }
        let done = self.mbarriers.complete(copy.mbarrier, copy.bytes);
        self.settle_phases();
        done.map_err(|message| (copy, message))?;
        Ok(true)
    }

    /// Completes the thread's bulk groups but the latest `pending`, or only their reads.
    pub(crate) fn wait_bulk_groups(
        &mut self,
        thread: Thread,
        pending: u64,
        reads: bool,
    ) -> Option<Flow> {
        let limit = self.bulk.limit(thread, pending);
        let mut index = 0;
        while index < self.bulk.outgoing.len() {
            let copy = &self.bulk.outgoing[index];
            if copy.thread != thread || copy.group.is_none_or(|group| group >= limit) {
                index += 1;
                continue;
            }
            let (site, range) = (copy.site, (copy.from, copy.bytes));
            self.read_outgoing(index);
            // The copy reads until now; others may write after whoever waited for that.
            let race = self.check_issue(thread, site, range, Access::Load);
            if race.is_some() {
                return race;
            }
            if reads {
                index += 1;
            } else {
                self.land_outgoing(index);
            }
        }
        None
    }

    /// Reads the source of a copy, which the program may then write again.
    fn read_outgoing(&mut self, index: usize) {
        let copy = &mut self.bulk.outgoing[index];
        if copy.data.is_some() {
            return;
        }
        let mut data = vec![0; copy.bytes as usize];
        let offset = (copy.from - self.shared.base) as usize;
        self.shared.data.read(offset, &mut data);
        copy.data = Some(data);
        self.shared.mark(offset, self.bulk.outgoing[index].bytes as usize, 0, READ_ONLY);
        // Another copy may still read some of it.
        for other in self.bulk.outgoing.iter().filter(|c| c.data.is_none()) {
            self.shared.mark(
                (other.from - self.shared.base) as usize,
                other.bytes as usize,
                READ_ONLY,
                0,
            );
        }
    }

    fn land_outgoing(&mut self, index: usize) {
        let copy = self.bulk.outgoing.remove(index);
        if copy.landed {
            return;
        }
        let clock = self.order.as_ref().map(|order| (copy.thread.0, order.clock(copy.thread.0)));
        self.note_copy((copy.thread, copy.site), (copy.to, copy.bytes), true, clock);
        let memory = Memory { launch: self.launch, shared: &self.shared, local: None };
        let found = Global::find(&memory, &mut { u32::MAX }, 0, copy.to, copy.bytes.into());
        if let (Some((region, offset)), Some(data)) = (found, &copy.data) {
            region.data.write(offset, data);
            region.mark(offset, data.len(), INIT, 0);
        }
    }

    /// Lands what the end of the CTA lets land; a copy that still uses shared memory is a fault of the program.
    pub(crate) fn finish_bulk(&mut self) -> Option<(Thread, u32, String)> {
        if let Some(copy) = self.bulk.incoming.first() {
            let message = format!(
                "the CTA ends while a bulk copy of {} bytes to shared memory at {:#x} is in flight",
                copy.bytes, copy.to
            );
            return Some((copy.thread, copy.site, message));
        }
        if let Some(copy) = self.bulk.outgoing.iter().find(|c| c.data.is_none()) {
            let message = format!(
                "the CTA ends while a bulk copy of {} bytes may still read shared memory at {:#x}: nobody waited for it",
                copy.bytes, copy.from
            );
            return Some((copy.thread, copy.site, message));
        }
        while !self.bulk.outgoing.is_empty() {
            self.land_outgoing(0);
        }
        None
    }
}
