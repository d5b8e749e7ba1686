//! Asynchronous copies of a warp that have been issued and not yet waited for.
//!
//! `cp.async` reads its source when it is issued and writes shared memory as late as the program
//! allows: when a thread waits for the group that the copy belongs to. Until then the bytes are marked
//! [`IN_FLIGHT`], so that any access to them is a finding. Groups are counted per thread.

use super::lanes::{ALL, LANES, Lanes, Mask, lanes};
use super::mbarrier::Mbarriers;
use crate::checks::stretch::PAGE;
use crate::memory::access::{Global, Memory, Resolve};
use crate::memory::cells::spots::Spots;
use crate::memory::region::{IN_FLIGHT, INIT, Region};

/// Group of a copy that its thread has not committed yet.
const OPEN: u32 = u32::MAX;

/// One instruction's copies: up to 16 bytes a lane.
#[derive(Debug)]
pub(crate) struct Issued {
    /// Lanes whose copy has still to land.
    mask: Mask,
    /// Bytes that a lane writes.
    pub(crate) bytes: usize,
    /// Where they go, as an offset into shared memory.
    pub(crate) offsets: Lanes<u64>,
    /// Where they come from, of the lanes in `followed`.
    sources: Lanes<u64>,
    /// Lanes that copy as much as they write, whose sources may be looked at again.
    followed: Mask,
    /// Lanes that read nothing.
    empty: Mask,
    data: [[u32; 4]; LANES],
    /// Bytes of each lane that are undefined, bit by bit, if any are.
    undefined: Option<Box<Lanes<u32>>>,
    /// The group of each lane's copy, [`OPEN`] before it is committed.
    groups: [u32; LANES],
    /// Lanes whose copy is not committed.
    open: Mask,
    /// How many instructions of the warp had issued copies before.
    number: u64,
    /// The instruction.
    pub(crate) site: u32,
}

/// An arrival at an mbarrier that the copies of a lane make when they have landed.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    lane: usize,
    mbarrier: u64,
    /// Only copies with a lower number count.
    before: u64,
    /// The instruction.
    site: u32,
}

/// The queue of one warp.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    // Boxed so that moving and recycling an entry does not move a kilobyte.
    #[allow(clippy::vec_box)]
    issued: Vec<Box<Issued>>,
    #[allow(clippy::vec_box)]
    spare: Vec<Box<Issued>>,
    /// Groups that each lane has committed.
    committed: [u32; LANES],
    /// Instructions that have issued copies.
    count: u64,
    arrivals: Vec<Arrival>,
    pub(crate) bytes_in_flight: u64,
}

/// What one instruction copies, up to 16 bytes a lane.
pub(crate) struct Batch<'a> {
    pub(crate) site: u32,
    pub(crate) mask: Mask,
    /// Addresses in shared memory.
    pub(crate) to: &'a Lanes<u64>,
    /// Addresses in global memory, and lanes that copy all of their bytes from there.
    pub(crate) from: (&'a Lanes<u64>, Mask),
    /// Lanes that read nothing.
    pub(crate) empty: Mask,
    /// What is written there, zero past the source's end.
    pub(crate) data: &'a [[u32; 4]; LANES],
    /// Bytes of each lane that are undefined, bit by bit, if any are.
    pub(crate) undefined: Option<Box<Lanes<u32>>>,
}

impl Issued {
    /// Writes what the lanes copy.
    fn land(&mut self, shared: &Region, landing: Mask) {
        match self.bytes {
            16 => self.land_as::<16, 4>(shared, landing),
            8 => self.land_as::<8, 2>(shared, landing),
            _ => self.land_as::<4, 1>(shared, landing),
        }
        self.mask &= !landing;
    }

    /// A lane of these whose source no longer holds what was copied, and where that is. `may` tells pages that the CTA may have
    /// written.
    pub(crate) fn changed(
        &self,
        memory: &Memory<'_>,
        lanes_of: Mask,
        may: impl Fn(u64) -> bool,
    ) -> Option<(usize, u64)> {
        let asked = lanes_of & self.followed;
        if asked == ALL {
            let (mut low, mut high) = (u64::MAX, 0);
            for &from in &self.sources.0 {
                (low, high) = (low.min(from), high.max(from));
            }
            let (first, last) = (low / PAGE, high / PAGE);
            if last - first < 4 && !(first..=last).any(&may) {
                return None;
            }
        }
        let mut last = None;
        lanes(asked).find_map(|lane| {
            let from = self.sources.0[lane];
            // Mostly a page holds what many lanes copy. An aligned copy lies in one page.
            let page = from / PAGE;
            let written = match last {
                Some((known, written)) if known == page => written,
                _ => may(page),
            };
            last = Some((page, written));
            if !written {
                return None;
            }
            let found = Global::find(memory, &mut 0, lane, from, self.bytes as u64);
            let (region, offset) = found?;
            let word = (0..self.bytes / 4)
                .find(|&word| region.load::<u32>(offset + 4 * word) != self.data[lane][word])?;
            Some((lane, from + 4 * word as u64))
        })
    }

    #[inline(always)]
    fn land_as<const BYTES: usize, const WORDS: usize>(&self, shared: &Region, landing: Mask) {
        if landing == 0 {
            return;
        }
        let mut spots = Spots::<BYTES>::nowhere();
        let placed = spots.place(&self.offsets, landing, 0, shared.bytes);
        debug_assert!(placed, "a copy is issued to places in shared memory only");
        let places = shared.data.at(&spots);
        for lane in lanes(landing) {
            places.store_lane::<WORDS>(lane, std::array::from_fn(|word| self.data[lane][word]));
        }
        shared.shadow.at(&spots).fill(landing, INIT);
        let Some(undefined) = &self.undefined else { return };
        for lane in lanes(landing) {
            let missing = (0..BYTES).filter(|byte| undefined.0[lane] >> byte & 1 != 0);
            missing.for_each(|byte| shared.mark(self.offsets.0[lane] as usize + byte, 1, 0, INIT));
        }
    }
}

impl Copies {
    pub(crate) fn clear(&mut self) {
        self.spare.append(&mut self.issued);
        self.committed = [0; LANES];
        self.arrivals.clear();
        self.bytes_in_flight = 0;
    }

    /// Issues the copies of one instruction, `BYTES` (4, 8 or 16) a lane, to these places in shared memory.
    #[inline(always)]
    pub(crate) fn issue<const BYTES: usize>(
        &mut self,
        shared: &Region,
        spots: &Spots<BYTES>,
        batch: Batch<'_>,
    ) {
        let Batch { site, mask, to, from, empty, data, undefined } = batch;
        let mut entry = self.spare.pop().unwrap_or_else(|| {
            Box::new(Issued {
                mask: 0,
                bytes: 0,
                offsets: Lanes::default(),
                sources: Lanes::default(),
                followed: 0,
                empty: 0,
                data: [[0; 4]; LANES],
                undefined: None,
                groups: [OPEN; LANES],
                open: 0,
                number: 0,
                site,
            })
        });
        for lane in 0..LANES {
            entry.offsets.0[lane] = to.0[lane].wrapping_sub(shared.base);
        }
        (entry.sources, entry.followed, entry.empty) = (*from.0, from.1, empty);
        (entry.data, entry.undefined) = (*data, undefined);
        entry.groups = [OPEN; LANES];
        (entry.site, entry.bytes, entry.mask, entry.open) = (site, BYTES, mask, mask);
        entry.number = self.count;
        self.count += 1;
        shared.shadow.at(spots).fill(mask, IN_FLIGHT);
        self.bytes_in_flight += BYTES as u64 * u64::from(mask.count_ones());
        self.issued.push(entry);
    }

    /// The lanes of `mask` close their open group, which may be empty.
    #[inline(always)]
    pub(crate) fn commit(&mut self, mask: Mask) {
        // The newest copies are the open ones; older entries may hold some too where lanes went apart.
        for entry in self.issued.iter_mut().rev().filter(|entry| entry.open & mask != 0) {
            let closing = entry.open & mask;
            for lane in 0..LANES {
                let group = entry.groups[lane];
                entry.groups[lane] =
                    if closing >> lane & 1 != 0 { self.committed[lane] } else { group };
            }
            entry.open &= !mask;
        }
        for lane in 0..LANES {
            self.committed[lane] += mask >> lane & 1;
        }
    }

    /// Whether no copy is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.issued.is_empty()
    }

    /// The lanes of `mask` wait until at most `newest` of their committed groups are outstanding, or else for their copies that read
    /// nothing.
    /// `landed` is told which instruction's copies of which lanes have landed.
    #[inline(always)]
    pub(crate) fn wait(
        &mut self,
        shared: &Region,
        mask: Mask,
        newest: Option<u32>,
        mut landed: impl FnMut(&Issued, Mask),
    ) {
        let limits: [u32; LANES] =
            std::array::from_fn(|lane| self.committed[lane].saturating_sub(newest.unwrap_or(0)));
        for entry in &mut self.issued {
            let mut landing: Mask = 0;
            for lane in 0..LANES {
                landing |= u32::from(entry.groups[lane] < limits[lane]) << lane;
            }
            landing = if newest.is_some() { landing } else { entry.empty };
            landing &= entry.mask & mask;
            if landing != 0 {
                entry.land(shared, landing);
                landed(entry, landing);
                self.bytes_in_flight -= entry.bytes as u64 * u64::from(landing.count_ones());
            }
        }
        self.spare.extend(self.issued.extract_if(.., |entry| entry.mask == 0));
    }

    /// Lets the copies that the lane has issued so far arrive at an mbarrier when they have landed.
    pub(crate) fn arrive_later(&mut self, lane: usize, mbarrier: u64, site: u32) {
        self.arrivals.push(Arrival { lane, mbarrier, before: self.count, site });
    }

    /// Lets copies land whose arrivals are waited for, and makes these arrivals at the mbarriers.
    /// `landed` is told what has landed: the instruction's copies, which lane's, and the mbarrier.
    /// An arrival that cannot be made gives its lane, its instruction and the reason.
    pub(crate) fn land_arrivals(
        &mut self,
        shared: &Region,
        mbarriers: &mut Mbarriers,
        wanted: impl Fn(u64) -> bool,
        mut landed: impl FnMut(&Issued, usize, u64),
    ) -> Result<(), (usize, u32, String)> {
        let mut index = 0;
        while index < self.arrivals.len() {
            let Arrival { lane, mbarrier, before, site } = self.arrivals[index];
            if !wanted(mbarrier) {
                index += 1;
                continue;
            }
            self.arrivals.remove(index);
            for entry in self.issued.iter_mut().filter(|e| e.number < before) {
                if entry.mask >> lane & 1 != 0 {
                    entry.land(shared, 1 << lane);
                    landed(entry, lane, mbarrier);
                    self.bytes_in_flight -= entry.bytes as u64;
                }
            }
            mbarriers.arrive(mbarrier, 1, false).map_err(|message| (lane, site, message))?;
        }
        // Emptied entries go where `wait` puts them.
        let (done, issued) =
            std::mem::take(&mut self.issued).into_iter().partition(|e| e.mask == 0);
        self.issued = issued;
        self.spare.extend::<Vec<_>>(done);
        Ok(())
    }
}
