//! How the lanes of an access to shared memory lie to each other. An instruction in a loop keeps that while it moves on,
//! and with it the wavefronts that its accesses take.

use super::lanes::{LANES, Lanes, Mask};
use super::wide::{self, Routine};
use crate::counters::SharedTraffic;

/// For each instruction, the lanes of its last access to shared memory.
#[derive(Debug)]
pub(crate) struct Patterns(Vec<Option<Box<Pattern>>>);

#[derive(Debug)]
struct Pattern {
    /// Of each lane from lane 0.
    distances: Lanes<u32>,
    mask: Mask,
    /// Bytes of a lane, and where in its word lane 0 begins.
    place: (u64, u64),
    traffic: SharedTraffic,
}

impl Patterns {
    pub(crate) fn new(instructions: usize) -> Patterns {
        Patterns((0..instructions).map(|_| None).collect())
    }

    /// What an access takes, `bytes` a lane.
    ///
    /// A distance that all lanes move by is a multiple of `bytes`, and of a word if `place` stays. It turns the banks round
    /// and leaves the rest as it was.
    #[inline(always)]
    pub(crate) fn traffic(
        &mut self,
        site: u32,
        addresses: &Lanes<u64>,
        mask: Mask,
        bytes: u64,
    ) -> SharedTraffic {
        let place = (bytes, addresses.0[0] % 4);
        let known = &mut self.0[site as usize];
        match known {
            Some(known)
                if known.mask == mask
                    && known.place == place
                    && wide::call(Same { addresses, distances: &known.distances }) =>
            {
                known.traffic
            }
            _ => {
                let mut traffic = SharedTraffic::default();
                traffic.count(addresses, mask, bytes);
                let distances = addresses.0.map(|at| at.wrapping_sub(addresses.0[0]) as u32);
                *known =
                    Some(Box::new(Pattern { distances: Lanes(distances), mask, place, traffic }));
                traffic
            }
        }
    }
}

/// Whether lanes lie at these distances from lane 0.
struct Same<'a> {
    addresses: &'a Lanes<u64>,
    distances: &'a Lanes<u32>,
}

impl Routine for Same<'_> {
    type Out = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let mut differs = 0;
        for lane in 0..LANES {
            let distance = self.addresses.0[lane].wrapping_sub(self.addresses.0[0]) as u32;
            differs |= distance ^ self.distances.0[lane];
        }
        differs == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::lanes::ALL;
    use crate::random::Random;

    #[test]
    fn what_is_remembered_is_what_would_be_counted() {
        let mut random = Random::new(8, 1);
        let mut patterns = Patterns::new(2);
        for round in 0..3000 {
            let bytes = 1_u64 << (round % 5);
            let stride = bytes * random.below(9) as u64;
            for _ in 0..3 {
                let start = 1024 + bytes * random.below(300) as u64;
                let at = Lanes(std::array::from_fn(|lane| start + lane as u64 * stride));
                let mask = if random.below(3) == 0 { 0xffff_0f0f } else { ALL };
                let mut counted = SharedTraffic::default();
                counted.count(&at, mask, bytes);
                assert_eq!(patterns.traffic(round % 2, &at, mask, bytes), counted);
            }
        }
    }
}
