//! Threads that wait for each other for ever: which, where, and for whom.
//!
//! It is exact within a CTA: no warp of it can take another step. CTAs that wait for each other spin, and meet the
//! step limit.

use super::membermask::shown;
use crate::counters::InstructionClass;
use crate::exec::barrier::CLUSTER;
use crate::exec::cta::{Cta, CtaStop};
use crate::exec::warp::{State, Warp};
use crate::finding::{FindingKind, Report};

fn barrier_name(id: u32) -> String {
    if id == CLUSTER { "the barrier of the cluster".into() } else { format!("barrier {id}") }
}

impl Cta<'_> {
    /// No warp can go on: either the round has to end, or the threads wait for ever.
    pub(crate) fn stuck(&mut self) -> CtaStop {
        if self.deferred().next().is_some() {
            return CtaStop::Suspended;
        }
        let waiting = |warp: &Warp| warp.groups.first().map(|g| (warp.index as usize, *g));
        let Some((index, group)) = self.warps.iter().find_map(waiting) else {
            return CtaStop::Done;
        };
        let lane = group.mask.trailing_zeros() as usize;
        let (kind, message) = self.explain(index, group.pc, group.state);
        let notes = self.waiting_notes();
        self.env.report(Report { kind, lane, message, address: None, notes });
        self.finding = Some(self.finding_at(index, group.pc));
        CtaStop::Fault
    }

    fn explain(&self, index: usize, pc: u32, state: State) -> (FindingKind, String) {
        let warp = &self.warps[index];
        match state {
            State::Meet { wanted } => {
                let exited = wanted & !warp.live;
                let here = warp
                    .groups
                    .iter()
                    .filter(|g| g.state == state && g.pc == pc)
                    .fold(0, |m, g| m | g.mask);
                let missing = wanted & !here;
                let message = format!(
                    "lanes {} have to be here too and never arrive{}",
                    shown(missing),
                    if exited & missing != 0 { " (some have exited)" } else { "" }
                );
                let barrier =
                    self.env.launch.kernel.classes[pc as usize] == InstructionClass::Barrier;
                (if barrier { FindingKind::Barrier } else { FindingKind::Membermask }, message)
            }
            State::Barrier { id, .. } => {
                let (arrived, expected) = self.env.barriers.progress(id);
                let message = format!(
                    "{} waits for ever: {arrived} of {expected} threads have arrived, \
                     and no other thread of the CTA can",
                    barrier_name(id)
                );
                (FindingKind::Barrier, message)
            }
            State::Retry { .. } => {
                (FindingKind::Deadlock, "the thread waits for an mbarrier for ever".into())
            }
            _ => (FindingKind::Deadlock, "every thread of the CTA waits for another".into()),
        }
    }

    /// Who waits where, for the whole CTA.
    fn waiting_notes(&self) -> Vec<(Option<u32>, String)> {
        let mut notes = Vec::new();
        for warp in &self.warps {
            for group in &warp.groups {
                let what = match group.state {
                    State::Meet { wanted } => {
                        format!("wait for lanes {}", shown(wanted & !group.mask))
                    }
                    State::Barrier { id, .. } => format!("wait at {}", barrier_name(id)),
                    State::Retry { .. } => "wait for an mbarrier".into(),
                    _ => "wait".into(),
                };
                let text = format!("warp {}: lanes {} {what}", warp.index, shown(group.mask));
                notes.push((Some(group.pc), text));
            }
            let exited = warp.present & !warp.live;
            if exited != 0 {
                notes.push((
                    None,
                    format!("warp {}: lanes {} have exited", warp.index, shown(exited)),
                ));
            }
        }
        for (address, state) in self.env.mbarriers.waiting() {
            notes.push((None, format!("the mbarrier at {address:#x} {state}")));
        }
        if notes.len() > 16 {
            let more = notes.len() - 16;
            notes.truncate(16);
            notes.push((None, format!("and {more} groups more")));
        }
        notes
    }
}
