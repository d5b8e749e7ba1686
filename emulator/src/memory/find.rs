//! Finds the memory that a whole warp accesses, in one step where all lanes stay in one region.

use std::cell::Cell;

use super::access::{Access, Memory, Refused};
use super::cells::spots::{Form, Room, Spots};
use super::region::{FORBIDDEN, IN_FLIGHT, INIT, LOADED, READ_ONLY, Region};
use super::{FIRST_OFFSET, GLOBAL_BASE, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, lanes};
use crate::types::Space;

/// Where the lanes of `mask` access `BYTES` bytes each, if all of that is aligned and inside one region.
/// `hint` is the allocation that was found last.
#[inline(always)]
pub(crate) fn place<'m, 'o, const BYTES: usize>(
    memory: &Memory<'m>,
    space: Space,
    hint: &mut u32,
    addresses: &Lanes<u64>,
    mask: Mask,
    room: &'o mut Room,
) -> Option<(&'m Region, Spots<'o, BYTES>)> {
    let first = addresses.0[mask.trailing_zeros() as usize % LANES];
    match whole::<BYTES>(memory, space, hint, first)? {
        (region, Window::Of(window)) => {
            let spots = room.place(addresses, mask, window + region.base, region.bytes)?;
            Some((region, spots))
        }
        (region, Window::Apart(window)) => {
            let own = region.bytes / LANES as u64;
            Some((region, room.place_apart(addresses, mask, window + FIRST_OFFSET, own)?))
        }
    }
}

/// As [`place`], for an access that is known to have the form of one before and begins at `first`. Local memory is none of its.
#[inline(always)]
pub(crate) fn place_known<'m, 'f, const BYTES: usize>(
    memory: &Memory<'m>,
    space: Space,
    hint: &mut u32,
    form: &'f Form,
    first: u64,
) -> Option<(&'m Region, Spots<'f, BYTES>)> {
    let (region, Window::Of(window)) = whole::<BYTES>(memory, space, hint, first)? else {
        return None;
    };
    Some((region, form.spots(first, window + region.base, region.bytes)?))
}

/// Where a region's addresses begin.
enum Window {
    Of(u64),
    /// Of a part of it for each lane.
    Apart(u64),
}

/// The region that an access lies in whose first lane is at this address.
#[inline(always)]
fn whole<'m, const BYTES: usize>(
    memory: &Memory<'m>,
    space: Space,
    hint: &mut u32,
    first: u64,
) -> Option<(&'m Region, Window)> {
    match space {
        Space::Shared => Some((memory.shared, Window::Of(0))),
        Space::Param => Some((memory.launch.params, Window::Of(0))),
        Space::Local => Some((memory.local?, Window::Apart(0))),
        Space::Global | Space::Const => {
            Some((global::<BYTES>(memory, hint, first)?, Window::Of(0)))
        }
        _ => {
            let inside = |window: u64| first.wrapping_sub(window) < WINDOW_BYTES;
            if first >= GLOBAL_BASE {
                Some((global::<BYTES>(memory, hint, first)?, Window::Of(0)))
            } else if inside(SHARED_WINDOW) {
                Some((memory.shared, Window::Of(SHARED_WINDOW)))
            } else if inside(LOCAL_WINDOW) {
                Some((memory.local?, Window::Apart(LOCAL_WINDOW)))
            } else if inside(PARAM_WINDOW) {
                Some((memory.launch.params, Window::Of(PARAM_WINDOW)))
            } else {
                None
            }
        }
    }
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
    mut visit: impl FnMut(usize, &'m Region, Spots<'_, BYTES>),
) -> Result<(), Refused> {
    let (mut hint, mut room) = (0, Room::new());
    for lane in lanes(mask) {
        let place = place(memory, space, &mut hint, addresses, 1 << lane, &mut room)
            .filter(|(region, spots)| !checked || region.permits(*spots, access) >> lane & 1 != 0);
        let Some((region, spots)) = place else {
            return Err(Refused { lane, address: addresses.0[lane], bytes: BYTES as u64, access });
        };
        visit(lane, region, spots);
    }
    Ok(())
}

impl Region {
    /// Lanes of `mask` whose access the shadow allows.
    #[inline(always)]
    pub(crate) fn permits<const BYTES: usize>(
        &self,
        spots: Spots<'_, BYTES>,
        access: Access,
    ) -> Mask {
        if access == Access::Load
            && self.has_pages()
            && spots.span().is_some_and(|(start, end)| self.is_clean(start, end))
        {
            return ALL;
        }
        let (of, want) = match access {
            Access::Load => (LOADED, INIT),
            Access::Store => (FORBIDDEN | READ_ONLY | IN_FLIGHT, 0),
            Access::Atomic => (INIT | FORBIDDEN | READ_ONLY | IN_FLIGHT, INIT),
        };
        self.shadow.at(spots).equal(of, want)
    }

    /// Stores to the places of the lanes of `mask` and marks them as written.
    #[inline(always)]
    pub(crate) fn store_spots<const BYTES: usize, const WORDS: usize>(
        &self,
        spots: Spots<'_, BYTES>,
        mask: Mask,
        words: [&Lanes<u32>; WORDS],
    ) {
        self.data.at(spots).store(mask, words);
        if self.is_marked() {
            self.shadow.at(spots).fill(mask, INIT);
        }
    }

    /// As [`Region::store_spots`]; tells the lanes whose store left every byte as it was.
    #[inline(always)]
    pub(crate) fn store_spots_compared<const BYTES: usize, const WORDS: usize>(
        &self,
        spots: Spots<'_, BYTES>,
        mask: Mask,
        words: [&Lanes<u32>; WORDS],
    ) -> Mask {
        if !spots.are_apart(mask) {
            return self.store_compared_slowly(spots, mask, words) & mask;
        }
        let keep = if BYTES < 4 { (1 << (8 * BYTES % 32)) - 1 } else { u32::MAX };
        let mut have = [Lanes([0; LANES]); WORDS];
        self.data.at(spots).load(have.each_mut().map(Cell::from_mut));
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
        spots: Spots<'_, BYTES>,
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
            let readable = shadow.lane_equals(lane, LOADED, INIT);
            same |= u32::from(readable && data.load_lane(lane) == new) << lane;
            data.store_lane(lane, new);
            shadow.fill_lane(lane, INIT);
        }
        same
    }
}
