//! What happens when no warp of a CTA can go on by itself, and when all have exited: copies land, waits time out.

use super::cta::{Cta, CtaStop};
use super::env::Env;
use super::warp::State;
use crate::checks::access::in_flight::source_changed;
use crate::finding::{FindingKind, Report};
use crate::memory::access::Memory;

impl Cta<'_> {
    /// Lets something asynchronous happen; whether that may have helped a warp.
    pub(super) fn resume(&mut self) -> bool {
        let waits = self
            .warps
            .iter()
            .flat_map(|w| &w.groups)
            .any(|g| matches!(g.state, State::Retry { .. }));
        // While warps wait for other CTAs, copies land now and then, so that nobody waits for ever.
        if !waits || (self.deferred().next().is_some() && self.env.random.below(2) == 0) {
            return false;
        }
        match self.env.land_incoming(None) {
            Ok(true) => true,
            Ok(false) => self.deferred().next().is_none() && self.env.mbarriers.wake(),
            Err((copy, message)) => {
                let (warp, lane) = copy.thread;
                self.fail(FindingKind::BarrierMisuse, warp, lane, copy.site, message);
                false
            }
        }
    }

    /// Lets copies land whose arrival at an mbarrier some thread has waited for in vain.
    pub(super) fn land_wanted(&mut self) {
        let wanted = self.env.mbarriers.take_wanted();
        if wanted.is_empty() || self.finding.is_some() {
            return;
        }
        for index in 0..self.warps.len() {
            let copies = &mut self.warps[index].copies;
            let Env { shared, mbarriers, races, order, log, launch, .. } = &mut self.env;
            let memory = Memory { launch, shared, local: None };
            let own = log.as_ref().and_then(|log| log.written());
            let mut changed = None;
            let landed = copies.land_arrivals(
                shared,
                mbarriers,
                |at| wanted.contains(&at),
                |copied, lane, mbarrier| {
                    if let (Some(own), None) = (own, changed) {
                        let found = copied.changed(&memory, 1 << lane, |page| own.holds(page));
                        changed = found.map(|found| (found, copied.site));
                    }
                    let Some(order) = order else { return };
                    let (_, clock) = order.landed_at(mbarrier);
                    if let Some(races) = races {
                        let at = copied.to().offset(lane) as usize;
                        races.landed(clock, at..at + copied.bytes(), (lane, copied.site), false);
                    }
                },
            );
            self.env.settle_phases();
            if let Some(((lane, address), site)) = changed {
                source_changed(&mut self.env, lane, address, site);
                self.finding = Some(self.finding_at(index, site));
                return;
            }
            if let Err((lane, site, message)) = landed {
                self.fail(FindingKind::BarrierMisuse, index as u32, lane, site, message);
                return;
            }
        }
    }

    /// The end of a CTA of which all threads have exited.
    pub(super) fn finish(&mut self) -> CtaStop {
        if let Some(((warp, lane), site, message)) = self.env.finish_bulk() {
            self.fail(FindingKind::InFlight, warp, lane, site, message);
            return CtaStop::Fault;
        }
        if let Some((warp, site)) = self.env.report_guess() {
            self.finding = Some(self.finding_at(warp as usize, site));
            return CtaStop::Fault;
        }
        CtaStop::Done
    }

    fn fail(&mut self, kind: FindingKind, warp: u32, lane: usize, site: u32, message: String) {
        self.env.report(Report { kind, lane, message, address: None, notes: Vec::new() });
        self.finding = Some(self.finding_at(warp as usize, site));
    }
}
