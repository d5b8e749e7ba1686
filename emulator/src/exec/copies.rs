//! Asynchronous copies of a warp that have been issued and not yet waited for.
//!
//! `cp.async` reads its source when it is issued and writes shared memory as late as the program
//! allows: when a thread waits for the group that the copy belongs to. Until then the bytes are marked
//! [`IN_FLIGHT`], so that any access to them is a finding. Groups are counted per thread.

use super::lanes::{ALL, LANES, Lanes, Mask, lanes};
use super::mbarrier::Mbarriers;
use crate::checks::stretch::PAGE;
use crate::kept;
use crate::memory::access::{Global, Memory, Resolve};
use crate::memory::cells::spots::{Kept, Spots};
use crate::memory::region::{IN_FLIGHT, INIT, Region};

/// Group of a copy that its thread has not committed yet.
const OPEN: u32 = u32::MAX;

/// One instruction's copies: up to 16 bytes a lane.
#[derive(Debug)]
pub(crate) struct Issued {
    /// Lanes whose copy has still to land.
    mask: Mask,
    /// Where they go in shared memory.
    to: Kept,
    /// Where they come from, of the lanes in `followed`, and the least and the greatest of these.
    sources: Lanes<u64>,
    sources_span: (u64, u64),
    /// Lanes that copy as much as they write, whose sources may be looked at again.
    followed: Mask,
    /// Lanes that read nothing.
    empty: Mask,
    /// What is written, zero past the source's end.
    pub(crate) data: [[u32; 4]; LANES],
    /// Bytes of each lane that are undefined, bit by bit, if any are.
    undefined: Option<Box<Lanes<u32>>>,
    /// The group of each lane's copy, [`OPEN`] before it is committed. Of no meaning before any is.
    groups: [u32; LANES],
    /// Least and greatest of them, or [`OPEN`].
    span: (u32, u32),
    /// Lanes whose copy is not committed.
    open: Mask,
    /// How many instructions of the warp had issued copies before.
    number: u64,
    /// The instruction.
    pub(crate) site: u32,
    /// See [`Copied::kept`](super::patterns::Copied::kept).
    pub(crate) pattern: kept::Kept,
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
    /// Least and greatest of them.
    span: (u32, u32),
    /// Instructions that have issued copies.
    count: u64,
    /// Copies with a lower number are all committed.
    open_from: u64,
    arrivals: Vec<Arrival>,
    pub(crate) bytes_in_flight: u64,
}

/// What one instruction copies, up to 16 bytes a lane.
pub(crate) struct Batch<'a> {
    pub(crate) site: u32,
    pub(crate) pattern: kept::Kept,
    pub(crate) mask: Mask,
    pub(crate) from: Sources<'a>,
    /// Lanes that copy all of their bytes from there, which is to be looked at again.
    pub(crate) followed: Mask,
    /// Lanes that read nothing.
    pub(crate) empty: Mask,
    /// Bytes of each lane that are undefined, bit by bit, if any are.
    pub(crate) undefined: Option<Box<Lanes<u32>>>,
}

/// Addresses in global memory.
pub(crate) struct Sources<'a> {
    /// What they begin at, and how far each is from there.
    pub(crate) first: u64,
    pub(crate) distances: &'a Lanes<u64>,
    /// The least and the greatest.
    pub(crate) span: (u64, u64),
}

impl Issued {
    /// One that is not in use.
    fn spare() -> Box<Issued> {
        Box::new(Issued {
            mask: 0,
            to: Kept::nowhere(),
            sources: Lanes::default(),
            sources_span: (0, 0),
            followed: 0,
            empty: 0,
            data: [[0; 4]; LANES],
            undefined: None,
            groups: [OPEN; LANES],
            span: (OPEN, OPEN),
            open: 0,
            number: 0,
            site: 0,
            pattern: kept::Kept::default(),
        })
    }

    /// Bytes that a lane writes.
    #[inline(always)]
    pub(crate) fn bytes(&self) -> usize {
        self.to.bytes()
    }

    /// Where the lanes' bytes go, as offsets into shared memory.
    #[inline(always)]
    pub(crate) fn to(&self) -> &Kept {
        &self.to
    }

    /// Writes what the lanes copy.
    #[inline(always)]
    fn land(&mut self, shared: &Region, landing: Mask) {
        match self.bytes() {
            16 => self.land_at::<16, 4>(shared, self.to.spots(), landing),
            8 => self.land_at::<8, 2>(shared, self.to.spots(), landing),
            _ => self.land_at::<4, 1>(shared, self.to.spots(), landing),
        }
        self.mask &= !landing;
    }

    #[inline(always)]
    fn land_at<const BYTES: usize, const WORDS: usize>(
        &self,
        shared: &Region,
        spots: Spots<'_, BYTES>,
        landing: Mask,
    ) {
        shared.data.at(spots).store_rows::<WORDS>(landing, &self.data);
        if shared.is_marked() {
            shared.shadow.at(spots).fill(landing, INIT);
        }
        if let Some(undefined) = &self.undefined {
            self.unmark(shared, undefined, landing);
        }
    }

    /// Leaves undefined bytes unwritten.
    #[cold]
    fn unmark(&self, shared: &Region, undefined: &Lanes<u32>, landing: Mask) {
        for lane in lanes(landing) {
            let missing = (0..self.bytes()).filter(|byte| undefined.0[lane] >> byte & 1 != 0);
            let at = self.to.offset(lane) as usize;
            missing.for_each(|byte| shared.mark(at + byte, 1, 0, INIT));
        }
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
            let (low, high) = self.sources_span;
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
            let found = Global::find(memory, &mut 0, lane, from, self.bytes() as u64);
            let (region, offset) = found?;
            let word = (0..self.bytes() / 4)
                .find(|&word| region.load::<u32>(offset + 4 * word) != self.data[lane][word])?;
            Some((lane, from + 4 * word as u64))
        })
    }
}

/// The least and the greatest number.
#[inline(never)]
fn span(numbers: &[u32; LANES]) -> (u32, u32) {
    numbers.iter().fold((u32::MAX, 0), |span, &number| (span.0.min(number), span.1.max(number)))
}

/// Lanes whose number is below the limit.
#[inline(never)]
fn below(numbers: &[u32; LANES], limits: &[u32; LANES]) -> Mask {
    let mut mask = 0;
    for lane in 0..LANES {
        mask |= u32::from(numbers[lane] < limits[lane]) << lane;
    }
    mask
}

impl Copies {
    pub(crate) fn clear(&mut self) {
        self.spare.append(&mut self.issued);
        (self.committed, self.span) = ([0; LANES], (0, 0));
        self.arrivals.clear();
        self.bytes_in_flight = 0;
    }

    /// An entry to be filled with the data of copies and issued, or discarded.
    #[inline(always)]
    pub(crate) fn take_spare(&mut self) -> Box<Issued> {
        self.spare.pop().unwrap_or_else(Issued::spare)
    }

    /// Exchanges the entries that are not in use for others.
    #[allow(clippy::vec_box)]
    pub(crate) fn exchange_spare(&mut self, others: &mut Vec<Box<Issued>>) {
        std::mem::swap(&mut self.spare, others);
    }

    pub(crate) fn discard(&mut self, entry: Box<Issued>) {
        self.spare.push(entry);
    }

    /// Issues the copies of one instruction, `BYTES` (4, 8 or 16) a lane, to these places.
    #[inline(always)]
    pub(crate) fn issue<const BYTES: usize>(
        &mut self,
        mut entry: Box<Issued>,
        shared: &Region,
        to: Spots<'_, BYTES>,
        batch: Batch<'_>,
    ) {
        let Batch { site, pattern, mask, from, followed, empty, undefined } = batch;
        entry.to.set(to);
        if shared.is_marked() {
            shared.shadow.at(to).fill(mask, IN_FLIGHT);
        }
        entry.undefined = undefined;
        (entry.followed, entry.empty) = (followed, empty);
        if followed != 0 {
            // Made apart and then put there, for the compiler cannot tell that the two are not the same.
            let mut sources = *from.distances;
            for lane in 0..LANES {
                sources.0[lane] = sources.0[lane].wrapping_add(from.first);
            }
            (entry.sources, entry.sources_span) = (sources, from.span);
        }
        entry.span = (OPEN, OPEN);
        (entry.site, entry.pattern) = (site, pattern);
        (entry.mask, entry.open) = (mask, mask);
        entry.number = self.count;
        self.count += 1;
        self.bytes_in_flight += BYTES as u64 * u64::from(mask.count_ones());
        self.issued.push(entry);
    }

    /// The lanes of `mask` close their open group, which may be empty.
    #[inline(always)]
    pub(crate) fn commit(&mut self, mask: Mask) {
        // The newest copies are the open ones; older entries may hold some too where lanes went apart.
        let open_from = self.open_from;
        for entry in self.issued.iter_mut().rev().take_while(|entry| entry.number >= open_from) {
            let closing = entry.open & mask;
            if closing == ALL {
                (entry.groups, entry.span) = (self.committed, self.span);
            } else if closing != 0 {
                if entry.span.0 == OPEN {
                    entry.groups = [OPEN; LANES];
                }
                for lane in 0..LANES {
                    let group = entry.groups[lane];
                    entry.groups[lane] =
                        if closing >> lane & 1 != 0 { self.committed[lane] } else { group };
                }
                entry.span = span(&entry.groups);
            }
            entry.open &= !mask;
        }
        for lane in 0..LANES {
            self.committed[lane] += mask >> lane & 1;
        }
        if mask == ALL {
            (self.span, self.open_from) = ((self.span.0 + 1, self.span.1 + 1), self.count);
        } else {
            self.span = span(&self.committed);
        }
    }

    /// Whether no copy is in flight.
    pub(crate) fn is_empty(&self) -> bool {
        self.issued.is_empty()
    }

    /// Lets copies land that read nothing, of lanes that are about to copy `bytes` to some of the same bytes again, at these addresses.
    #[cold]
    pub(crate) fn overtake(&mut self, shared: &Region, mask: Mask, to: &Lanes<u64>, bytes: u64) {
        for entry in self.issued.iter_mut().filter(|entry| entry.empty & entry.mask & mask != 0) {
            let (own, at) = (entry.bytes() as u64, entry.to.all());
            let overlaps = |lane: &usize| {
                let start = to.0[*lane].wrapping_sub(shared.base);
                start < at.0[*lane] + own && at.0[*lane] < start.saturating_add(bytes)
            };
            let again = lanes(entry.empty & entry.mask & mask).filter(overlaps);
            let landing = again.fold(0, |mask, lane| mask | 1 << lane);
            entry.land(shared, landing);
            self.bytes_in_flight -= own * u64::from(landing.count_ones());
        }
        self.spare.extend(self.issued.extract_if(.., |entry| entry.mask == 0));
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
        let (kept, mut limits) = (newest.unwrap_or(0), [0; LANES]);
        for lane in 0..LANES {
            limits[lane] = self.committed[lane].saturating_sub(kept);
        }
        let (least, most) = (self.span.0.saturating_sub(kept), self.span.1.saturating_sub(kept));
        let (mut landed_first, mut landed_apart) = (0, false);
        for (index, entry) in self.issued.iter_mut().enumerate() {
            let mut landing = entry.empty;
            if newest.is_some() {
                landing = if entry.span.0 >= most {
                    // Where all lanes copy, what they copy later is of no earlier groups.
                    if entry.mask == ALL {
                        break;
                    }
                    0
                } else if entry.span.1 < least {
                    ALL
                } else {
                    below(&entry.groups, &limits)
                };
            }
            landing &= entry.mask & mask;
            if landing != 0 {
                entry.land(shared, landing);
                landed(entry, landing);
                self.bytes_in_flight -= entry.bytes() as u64 * u64::from(landing.count_ones());
            }
            if entry.mask == 0 {
                landed_apart |= landed_first != index;
                landed_first += usize::from(landed_first == index);
            }
        }
        self.spare.extend(self.issued.drain(..landed_first));
        if landed_apart {
            self.spare.extend(self.issued.extract_if(.., |entry| entry.mask == 0));
        }
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
                    self.bytes_in_flight -= entry.bytes() as u64;
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
