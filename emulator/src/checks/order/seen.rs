//! How far one thread has seen the accesses of others.

use std::sync::Arc;

use crate::exec::lanes::{LANES, Mask, lanes};

/// The clock up to which the accesses of each lane of one warp have been seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// All lanes up to here.
    floor: u32,
    /// Single lanes beyond; absent where there are none.
    beyond: Option<Arc<[u32; LANES]>>,
}

impl Seen {
    /// The clock up to which the accesses of all lanes have been seen.
    #[inline(always)]
    pub(crate) fn floor(&self) -> u32 {
        self.floor
    }

    /// Whether an access of a lane at a clock has been seen.
    #[inline(always)]
    pub(crate) fn covers(&self, lane: usize, clock: u32) -> bool {
        clock <= self.floor || self.covers_beyond(lane, clock)
    }

    #[cold]
    fn covers_beyond(&self, lane: usize, clock: u32) -> bool {
        self.beyond.as_ref().is_some_and(|lanes| clock <= lanes[lane & (LANES - 1)])
    }

    /// All lanes have been seen up to a clock.
    #[inline(always)]
    pub(crate) fn raise_all(&mut self, clock: u32) {
        self.floor = self.floor.max(clock);
        if self.beyond.is_some() {
            self.settle();
        }
    }

    /// The lanes of a mask have been seen up to a clock; `present` are those that the warp has.
    pub(crate) fn raise(&mut self, mask: Mask, present: Mask, clock: u32) {
        if mask & present == present {
            return self.raise_all(clock);
        }
        if clock <= self.floor {
            return;
        }
        let beyond = Arc::make_mut(self.beyond.get_or_insert_with(|| Arc::new([0; LANES])));
        lanes(mask).for_each(|lane| beyond[lane] = beyond[lane].max(clock));
    }

    /// Adds what another has seen.
    #[inline(always)]
    pub(crate) fn join(&mut self, other: &Seen) {
        self.floor = self.floor.max(other.floor);
        if self.beyond.is_some() || other.beyond.is_some() {
            self.join_beyond(other);
        }
    }

    #[cold]
    fn join_beyond(&mut self, other: &Seen) {
        if let Some(theirs) = &other.beyond {
            match &mut self.beyond {
                None => self.beyond = Some(theirs.clone()),
                Some(mine) if Arc::ptr_eq(mine, theirs) => {}
                Some(mine) => {
                    let mine = Arc::make_mut(mine);
                    mine.iter_mut().zip(theirs.iter()).for_each(|(m, t)| *m = (*m).max(*t));
                }
            }
        }
        self.settle();
    }

    /// Drops the single lanes if none of them is beyond all.
    fn settle(&mut self) {
        let floor = self.floor;
        if self.beyond.as_ref().is_some_and(|lanes| lanes.iter().all(|&clock| clock <= floor)) {
            self.beyond = None;
        }
    }
}

/// Adds what others have seen, warp by warp.
pub(crate) fn join_warps(into: &mut [Seen], from: &[Seen]) {
    into.iter_mut().zip(from).for_each(|(mine, theirs)| mine.join(theirs));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_are_told_apart_until_all_are_seen() {
        let mut seen = Seen::default();
        seen.raise(0b11, 0b1111, 5);
        assert!(seen.covers(0, 5) && seen.covers(1, 4) && !seen.covers(2, 1) && seen.covers(2, 0));
        let mut other = Seen::default();
        other.raise(0b1100, 0b1111, 4);
        other.join(&seen);
        assert!(other.covers(0, 5) && other.covers(3, 4) && !other.covers(3, 5));
        other.raise(0b1111, 0b1111, 7);
        assert_eq!(other, {
            let mut all = Seen::default();
            all.raise_all(7);
            all
        });
    }
}
