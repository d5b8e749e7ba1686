//! What mbarriers order.
//!
//! An arrival releases what its lanes know, a wait that finds its phase complete acquires what all who arrived
//! had known.

use super::{Joint, Order};
use crate::exec::lanes::Mask;

/// What has come together at one mbarrier.
#[derive(Debug, Default)]
struct Object {
    address: u64,
    /// From those who have arrived in any phase.
    arriving: Joint,
    /// From those whose phase is complete.
    complete: Joint,
}

/// The mbarriers of a CTA.
#[derive(Debug, Default)]
pub(super) struct Phases(Vec<Object>);

impl Phases {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn object(&mut self, address: u64) -> &mut Object {
        let index = self.0.iter().position(|o| o.address == address).unwrap_or_else(|| {
            self.0.push(Object { address, ..Object::default() });
            self.0.len() - 1
        });
        &mut self.0[index]
    }
}

impl Order {
    /// Lanes arrive at an mbarrier: everything that they have done comes before those who wait there.
    pub(crate) fn arrive_at(&mut self, address: u64, warp: u32, mask: Mask) {
        let joint = &mut self.mbarriers.object(address).arriving;
        self.warps[warp as usize].pass_on(warp as usize, mask, joint);
    }

    /// A phase of the mbarrier is complete.
    pub(crate) fn phase_completed(&mut self, address: u64) {
        let object = self.mbarriers.object(address);
        object.complete = object.arriving.clone();
    }

    /// Lanes have found a phase complete.
    pub(crate) fn waited_at(&mut self, address: u64, warp: u32, mask: Mask) {
        let joint = &self.mbarriers.object(address).complete;
        let own = &mut self.warps[warp as usize];
        own.separate(mask);
        for class in own.classes.iter_mut().filter(|class| class.mask & mask != 0) {
            class.take(joint);
        }
    }

    /// A copy has landed, and an mbarrier learns of it; gives the agent and its clock.
    pub(crate) fn landed_at(&mut self, mbarrier: u64) -> (u32, u32) {
        let agent = self.agent();
        self.agent_clock += 1;
        let clock = self.agent_clock;
        self.mbarriers.object(mbarrier).arriving.knows.raise(agent as usize, 1, 1, clock);
        (agent, clock)
    }
}
