//! Races in shared memory.

use super::stretch::Stretch;
use super::words::{Access, Guess, Race};
use crate::exec::env::Env;
use crate::exec::inst::Flow;
use crate::exec::lanes::{Lanes, Mask};
use crate::memory::FIRST_OFFSET;
use crate::memory::access::{report_own_race, report_race};

impl Env<'_> {
    /// Checks and remembers an access of a warp, `bytes` a lane, by address in shared memory.
    #[inline(always)]
    pub(crate) fn shared_access(
        &mut self,
        access: Access,
        addresses: &Lanes<u64>,
        mask: Mask,
        bytes: u64,
    ) -> Flow {
        let Env { order, races, .. } = self;
        let (Some(order), Some(words)) = (order, races) else { return Flow::Next };
        let at = Lanes(addresses.0.map(|address| address.wrapping_sub(FIRST_OFFSET)));
        match words.access(order, access, &at, mask, bytes) {
            None => Flow::Next,
            Some(race) => report_race(self, (access, bytes), &race),
        }
    }

    /// Reports a plain read that races with an atomic operation of its CTA, of which all threads have exited: nobody goes on to
    /// another atomic operation there. Gives the warp and the instruction.
    pub(crate) fn report_guess(&mut self) -> Option<(u32, u32)> {
        if let Some(Guess { access, bytes, race }) = self.races.as_ref().and_then(|r| r.guess()) {
            report_race(self, (access, bytes), &race);
            return Some((access.warp, access.pc));
        }
        let race = self.log.as_ref()?.guess()?;
        report_own_race(self, &race);
        Some((race.access.warp, race.access.pc))
    }

    /// As [`Env::shared_access`], for a run of bytes of any length that one lane has a copy access.
    pub(crate) fn shared_run(
        &mut self,
        access: Access,
        lane: usize,
        (address, bytes): (u64, u32),
    ) -> Option<Race> {
        let Env { order, races, .. } = self;
        let stretch =
            Stretch { address: address - FIRST_OFFSET, mask: 1 << lane, stride: 0, bytes };
        races.as_mut()?.stretch(order.as_ref()?, access, &stretch)
    }
}
