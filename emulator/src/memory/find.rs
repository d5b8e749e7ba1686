//! Finds the memory that a whole warp accesses, in one step where all lanes stay in one region.

use super::access::{Access, Memory, Refused};
use super::cells::spots::Spots;
use super::region::{FORBIDDEN, IN_FLIGHT, INIT, READ_ONLY, Region};
use super::{FIRST_OFFSET, GLOBAL_BASE, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::exec::lanes::{LANES, Lanes, Mask, lanes};
use crate::types::Space;

/// Where the lanes of `mask` access `BYTES` bytes each, if all of that is aligned and inside one region.
/// `hint` is the allocation that was found last.
#[inline(always)]
pub(crate) fn place<'m, const BYTES: usize>(
    memory: &Memory<'m>,
    space: Space,
    hint: &mut u32,
    addresses: &Lanes<u64>,
    mask: Mask,
    spots: &mut Spots<BYTES>,
) -> Option<&'m Region> {
    let first = addresses.0[mask.trailing_zeros() as usize % LANES];
    let (region, window) = match space {
        Space::Shared => (memory.shared, 0),
        Space::Param => (memory.launch.params, 0),
        Space::Local => return place_in_local(memory, 0, addresses, mask, spots),
        Space::Global | Space::Const => (global::<BYTES>(memory, hint, first)?, 0),
        _ => {
            let inside = |window: u64| first.wrapping_sub(window) < WINDOW_BYTES;
            if first >= GLOBAL_BASE {
                (global::<BYTES>(memory, hint, first)?, 0)
            } else if inside(SHARED_WINDOW) {
                (memory.shared, SHARED_WINDOW)
            } else if inside(LOCAL_WINDOW) {
                return place_in_local(memory, LOCAL_WINDOW, addresses, mask, spots);
            } else if inside(PARAM_WINDOW) {
                (memory.launch.params, PARAM_WINDOW)
            } else {
                return None;
            }
        }
    };
    spots.place(addresses, mask, window + region.base, region.bytes).then_some(region)
}

#[inline(never)]
fn place_in_local<'m, const BYTES: usize>(
    memory: &Memory<'m>,
    window: u64,
    addresses: &Lanes<u64>,
    mask: Mask,
    spots: &mut Spots<BYTES>,
) -> Option<&'m Region> {
    let region = memory.local?;
    let own = region.bytes / LANES as u64;
    let placed = spots.place(addresses, mask, window + FIRST_OFFSET, own) && spots.part(own);
    placed.then_some(region)
}

/// The allocation that an address lies in.
#[inline(always)]
fn global<'m, const BYTES: usize>(
    memory: &Memory<'m>,
    hint: &mut u32,
    address: u64,
) -> Option<&'m Region> {
    let table = memory.launch.memory;
    let hinted = table.allocations.get(*hint as usize).map(|allocation| &allocation.region);
    if let Some(region) = hinted.filter(|region| region.offset(address, BYTES as u64).is_some()) {
        return Some(region);
    }
    let index = table.live(address, BYTES as u64)?;
    *hint = index as u32;
    Some(&table.allocations[index].region)
}

/// Visits the lanes of `mask` one after the other, for those that lie in different regions or of which one is at fault:
/// that one is given back.
#[inline(always)]
pub(crate) fn one_by_one<'m, const BYTES: usize>(
    memory: &Memory<'m>,
    space: Space,
    addresses: &Lanes<u64>,
    mask: Mask,
    (access, checked): (Access, bool),
    mut visit: impl FnMut(usize, &'m Region, &Spots<BYTES>),
) -> Result<(), Refused> {
    let (mut hint, mut spots) = (0, Spots::nowhere());
    for lane in lanes(mask) {
        let region = place(memory, space, &mut hint, addresses, 1 << lane, &mut spots)
            .filter(|region| !checked || region.permits(&spots, access) >> lane & 1 != 0);
        let Some(region) = region else {
            return Err(Refused { lane, address: addresses.0[lane], bytes: BYTES as u64, access });
        };
        visit(lane, region, &spots);
    }
    Ok(())
}

impl Region {
    /// Lanes of `mask` whose access the shadow allows.
    #[inline(always)]
    pub(crate) fn permits<const BYTES: usize>(&self, spots: &Spots<BYTES>, access: Access) -> Mask {
        let (of, want) = match access {
            Access::Load => (INIT | FORBIDDEN | IN_FLIGHT, INIT),
            Access::Store => (FORBIDDEN | READ_ONLY | IN_FLIGHT, 0),
            Access::Atomic => (INIT | FORBIDDEN | READ_ONLY | IN_FLIGHT, INIT),
        };
        self.shadow.at(spots).equal(of, want)
    }

    /// Stores to the places of the lanes of `mask` and marks them as written.
    #[inline(always)]
    pub(crate) fn store_spots<const BYTES: usize, const WORDS: usize>(
        &self,
        spots: &Spots<BYTES>,
        mask: Mask,
        words: [&Lanes<u32>; WORDS],
    ) {
        self.data.at(spots).store(mask, words);
        self.shadow.at(spots).fill(mask, INIT);
    }

    /// As [`Region::store_spots`]; tells the lanes whose store left every byte as it was.
    #[inline(always)]
    pub(crate) fn store_spots_compared<const BYTES: usize, const WORDS: usize>(
        &self,
        spots: &Spots<BYTES>,
        mask: Mask,
        words: [&Lanes<u32>; WORDS],
    ) -> Mask {
        if !spots.are_apart(mask) {
            return self.store_compared_slowly(spots, mask, words) & mask;
        }
        let keep = if BYTES < 4 { (1 << (8 * BYTES % 32)) - 1 } else { u32::MAX };
        let mut have = [Lanes([0; LANES]); WORDS];
        self.data.at(spots).load(have.each_mut());
        let mut same = 0;
        for lane in 0..LANES {
            let mut differs = 0;
            for word in 0..WORDS {
                differs |= have[word].0[lane] ^ words[word].0[lane] & keep;
            }
            same |= u32::from(differs == 0) << lane;
        }
        same &= self.permits(spots, Access::Load);
        self.store_spots(spots, mask, words);
        same & mask
    }

    /// As [`Region::store_spots_compared`], where a lane may find what one before it has just stored.
    #[inline(never)]
    fn store_compared_slowly<const BYTES: usize, const WORDS: usize>(
        &self,
        spots: &Spots<BYTES>,
        mask: Mask,
        words: [&Lanes<u32>; WORDS],
    ) -> Mask {
        let keep = if BYTES < 4 { (1 << (8 * BYTES % 32)) - 1 } else { u32::MAX };
        let (data, shadow) = (self.data.at(spots), self.shadow.at(spots));
        let mut same = 0;
        for lane in lanes(mask) {
            let mut new = [0; WORDS];
            for word in 0..WORDS {
                new[word] = words[word].0[lane] & keep;
            }
            let readable = shadow.lane_equals(lane, INIT | FORBIDDEN | IN_FLIGHT, INIT);
            same |= u32::from(readable && data.load_lane(lane) == new) << lane;
            data.store_lane(lane, new);
            shadow.fill_lane(lane, INIT);
        }
        same
    }
}
