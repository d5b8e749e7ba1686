//! Asynchronous copies of a warp that have been issued and not yet waited for.
//!
//! `cp.async` reads its source when it is issued and writes shared memory as late as the program
//! allows: when a thread waits for the group that the copy belongs to. Until then the bytes are marked
//! [`IN_FLIGHT`], so that any access to them is a finding. Groups are counted per thread.

use super::lanes::{LANES, Mask, lanes};
use super::mbarrier::Mbarriers;
use crate::memory::region::{IN_FLIGHT, Region};

/// Group of a copy that its thread has not committed yet.
const OPEN: u32 = u32::MAX;

/// One instruction's copies: up to 16 bytes a lane.
#[derive(Debug)]
struct Issued {
    /// Lanes whose copy has still to land.
    mask: Mask,
    /// Bytes that a lane writes.
    bytes: usize,
    /// Where they go, as an offset into shared memory.
    offsets: [u32; LANES],
    data: [[u32; 4]; LANES],
    /// The group of each lane's copy, [`OPEN`] before it is committed.
    groups: [u32; LANES],
    /// How many instructions of the warp had issued copies before.
    number: u64,
    /// The instruction.
    site: u32,
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
    bytes_in_flight: u64,
    /// Most bytes that were in flight at a time.
    pub(crate) peak_bytes: u64,
}

/// One lane's copy, as it is issued.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LaneCopy {
    pub(crate) lane: usize,
    /// Offset into shared memory.
    pub(crate) offset: usize,
    /// What it will write, zero past the source's end.
    pub(crate) data: [u32; 4],
}

impl Issued {
    /// Writes what the lanes copy.
    fn land(&mut self, shared: &Region, landing: Mask) {
        for lane in lanes(landing) {
            let offset = self.offsets[lane] as usize;
            for word in 0..self.bytes / 4 {
                shared.store(offset + 4 * word, self.data[lane][word]);
            }
            shared.mark_written(offset, self.bytes);
        }
        self.mask &= !landing;
    }
}

impl Copies {
    pub(crate) fn clear(&mut self) {
        self.spare.append(&mut self.issued);
        self.committed = [0; LANES];
        self.arrivals.clear();
        self.bytes_in_flight = 0;
        self.peak_bytes = 0;
    }

    /// Issues the copies of one instruction, `bytes` (4, 8 or 16) a lane.
    pub(crate) fn issue(
        &mut self,
        shared: &Region,
        bytes: usize,
        site: u32,
        copies: impl Iterator<Item = LaneCopy>,
    ) {
        let mut entry = self.spare.pop().unwrap_or_else(|| {
            Box::new(Issued {
                mask: 0,
                bytes,
                offsets: [0; LANES],
                data: [[0; 4]; LANES],
                groups: [OPEN; LANES],
                number: 0,
                site,
            })
        });
        entry.site = site;
        entry.number = self.count;
        self.count += 1;
        entry.mask = 0;
        entry.bytes = bytes;
        entry.groups = [OPEN; LANES];
        for LaneCopy { lane, offset, data } in copies {
            entry.mask |= 1 << lane;
            entry.offsets[lane] = offset as u32;
            entry.data[lane] = data;
            shared.mark(offset, bytes, IN_FLIGHT, 0);
        }
        self.bytes_in_flight += bytes as u64 * u64::from(entry.mask.count_ones());
        self.peak_bytes = self.peak_bytes.max(self.bytes_in_flight);
        if entry.mask == 0 {
            self.spare.push(entry);
        } else {
            self.issued.push(entry);
        }
    }

    /// The lanes of `mask` close their open group, which may be empty.
    pub(crate) fn commit(&mut self, mask: Mask) {
        // The newest copies are the open ones; older entries may hold some too where lanes went apart.
        for entry in self.issued.iter_mut().rev() {
            for lane in lanes(entry.mask & mask) {
                if entry.groups[lane] == OPEN {
                    entry.groups[lane] = self.committed[lane];
                }
            }
        }
        for lane in lanes(mask) {
            self.committed[lane] += 1;
        }
    }

    /// The lanes of `mask` wait until at most `newest` of their committed groups are outstanding.
    /// `landed` is told where each instruction's copies of which lanes have landed, and their size.
    pub(crate) fn wait(
        &mut self,
        shared: &Region,
        mask: Mask,
        newest: u32,
        mut landed: impl FnMut(&[u32; LANES], Mask, usize),
    ) {
        let limits: [u32; LANES] =
            std::array::from_fn(|lane| self.committed[lane].saturating_sub(newest));
        let mut index = 0;
        while index < self.issued.len() {
            let entry = &mut self.issued[index];
            let landing = lanes(entry.mask & mask)
                .filter(|&lane| entry.groups[lane] < limits[lane])
                .fold(0, |landing, lane| landing | 1 << lane);
            entry.land(shared, landing);
            if landing != 0 {
                landed(&entry.offsets, landing, entry.bytes);
            }
            self.bytes_in_flight -= entry.bytes as u64 * u64::from(landing.count_ones());
            if entry.mask == 0 {
                let done = self.issued.remove(index);
                self.spare.push(done);
            } else {
                index += 1;
            }
        }
    }

    /// Lets the copies that the lane has issued so far arrive at an mbarrier when they have landed.
    pub(crate) fn arrive_later(&mut self, lane: usize, mbarrier: u64, site: u32) {
        self.arrivals.push(Arrival { lane, mbarrier, before: self.count, site });
    }

    /// Lets copies land whose arrivals are waited for, and makes these arrivals at the mbarriers.
    /// `landed` is told what has landed: offset and size, lane, instruction and mbarrier.
    /// An arrival that cannot be made gives its lane, its instruction and the reason.
    pub(crate) fn land_arrivals(
        &mut self,
        shared: &Region,
        mbarriers: &mut Mbarriers,
        wanted: impl Fn(u64) -> bool,
        mut landed: impl FnMut((usize, u64), usize, u32, u64),
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
                    let at = (entry.offsets[lane] as usize, entry.bytes as u64);
                    landed(at, lane, entry.site, mbarrier);
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
