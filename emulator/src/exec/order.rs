//! What mbarriers and asynchronous copies order in shared memory.
//!
//! An arrival releases what its warp has done, a wait that finds its phase complete acquires what all who arrived
//! had done. Bytes that an asynchronous copy brings are written by an agent of its own, which stands behind the
//! warps of the CTA in every clock: only who waits at the mbarrier that the copy completes at has seen them. The
//! agent's copies are in one order, that of their landing.

use super::lanes::Lanes;
use super::races::{Race, Record, SharedRaces, join};
use crate::memory::access::Access;

/// What has been seen at one mbarrier.
#[derive(Debug)]
pub(super) struct Object {
    address: u64,
    /// By those who have arrived in any phase.
    arriving: Vec<u32>,
    /// By those whose phase is complete.
    complete: Vec<u32>,
}

impl SharedRaces {
    fn object(&mut self, address: u64) -> &mut Object {
        let columns = self.columns();
        let objects = &mut self.mbarriers;
        let index = objects.iter().position(|o| o.address == address).unwrap_or_else(|| {
            let none = || vec![0; columns];
            objects.push(Object { address, arriving: none(), complete: none() });
            objects.len() - 1
        });
        &mut objects[index]
    }

    /// A warp arrives at an mbarrier: everything that it has done comes before those who wait there.
    pub(crate) fn arrive_at(&mut self, address: u64, warp: u32) {
        let seen = self.seen(warp).to_vec();
        join(&mut self.object(address).arriving, &seen);
        self.tick(warp);
    }

    /// A phase of the mbarrier is complete.
    pub(crate) fn phase_completed(&mut self, address: u64) {
        let object = self.object(address);
        object.complete.clone_from(&object.arriving);
    }

    /// A warp has found a phase complete.
    pub(crate) fn waited_at(&mut self, address: u64, warp: u32) {
        let seen = std::mem::take(&mut self.object(address).complete);
        join(self.seen(warp), &seen);
        self.object(address).complete = seen;
    }

    /// Checks a copy that a thread issues now as an access of its own, and remembers it if it reads.
    pub(crate) fn issue(
        &mut self,
        (warp, lane): (u32, usize),
        pc: u32,
        address: u64,
        bytes: u64,
        access: Access,
    ) -> Option<Race> {
        let mut at = Lanes::<u64>::default();
        (0..bytes).step_by(16).find_map(|offset| {
            at.0[lane] = address + offset;
            self.access((warp, pc), &at, 1 << lane, 16.min(bytes - offset), access)
        })
    }

    /// A copy that a lane issued at `pc` has landed, and the mbarrier has learnt of it.
    pub(crate) fn landed(&mut self, at: (usize, u64), lane: usize, pc: u32, mbarrier: u64) {
        let (offset, bytes) = at;
        let agent = self.warps as u32;
        self.agent_clock += 1;
        let clock = self.agent_clock;
        let record = Record::new(clock, agent, lane, 15, pc);
        for word in offset / 4..(offset + bytes as usize).div_ceil(4) {
            self.writes[word] = record;
        }
        let arriving = &mut self.object(mbarrier).arriving[agent as usize];
        *arriving = (*arriving).max(clock);
    }
}
