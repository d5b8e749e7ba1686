//! Pages of global memory of whose bytes the shadow says that all may be loaded.
//!
//! Kernels load much of what the host has written once, so that the shadow of each byte would be looked at no more than
//! the byte itself. A page is looked through when it is loaded from first, and that is remembered until its shadow changes to
//! something else.

use super::cells::Cells;

/// Bytes of a page.
const PAGE: usize = 4096;
/// Pages that are looked up at most: for more, the shadow itself is as near.
const MOST: usize = 8;

/// All bytes of the page may be loaded.
const CLEAN: u64 = 1;
/// Some may not, or could not when the page was looked through.
const OTHER: u64 = 2;
/// Behind these, how often the shadow has changed to something else.
const CHANGE: u64 = 4;

/// What is known of the pages of a region.
///
/// No page is [`CLEAN`] for good that is not: who changes the shadow calls [`Clean::forget`] afterwards. Who looks through a page
/// notes the result only if the number of changes is still the one from before. If the change was counted before that, the look
/// came after it and has seen it; if it is counted later, it takes the note away again.
#[derive(Debug)]
pub(crate) struct Clean {
    /// Eight bytes for each page.
    pages: Cells,
}

impl Clean {
    /// Of a region of so many bytes, with nothing known; nothing if the host has no memory.
    pub(crate) fn new(bytes: usize) -> Option<Clean> {
        Some(Clean { pages: Cells::zeroed(bytes.div_ceil(PAGE).checked_mul(8)?)? })
    }

    /// Whether all bytes of all pages from that of byte `start` to that of the one before `end`, a later one, are known to be such
    /// that they may be loaded. `look` tells that of a range of bytes.
    #[inline(always)]
    pub(crate) fn holds(
        &self,
        start: usize,
        end: usize,
        look: impl Fn(usize, usize) -> bool,
    ) -> bool {
        let (first, last) = (start / PAGE, (end - 1) / PAGE);
        if last - first >= MOST {
            return false;
        }
        for page in first..last + 1 {
            let state = self.pages.load::<u64>(8 * page) % CHANGE;
            if state != CLEAN && (state == OTHER || !self.look_through(page, &look)) {
                return false;
            }
        }
        true
    }

    #[cold]
    fn look_through(&self, page: usize, look: impl Fn(usize, usize) -> bool) -> bool {
        let known = self.pages.load_acquire(8 * page);
        let clean = look(page * PAGE, page * PAGE + PAGE);
        let changes = known - known % CHANGE;
        self.pages.exchange(8 * page, known, changes | if clean { CLEAN } else { OTHER });
        clean
    }

    /// The shadow of bytes `start` to before `end` has changed.
    pub(crate) fn forget(&self, start: usize, end: usize) {
        for page in start / PAGE..end.div_ceil(PAGE) {
            loop {
                let known = self.pages.load::<u64>(8 * page);
                if self.pages.exchange(8 * page, known, known - known % CHANGE + CHANGE) {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

    #[test]
    fn pages_are_looked_through_once_until_they_change() {
        let clean = Clean::new(3 * PAGE + 7).unwrap();
        let looked = AtomicU64::new(0);
        let look = |start: usize, end: usize| {
            assert_eq!(end - start, PAGE);
            looked.fetch_add(1, Relaxed);
            start != PAGE
        };
        for _ in 0..2 {
            assert!(clean.holds(0, PAGE, look) && clean.holds(2 * PAGE + 1, 3 * PAGE + 7, look));
            assert!(!clean.holds(PAGE - 1, PAGE + 1, look) && !clean.holds(PAGE, PAGE + 1, look));
        }
        assert_eq!(looked.load(Relaxed), 4);
        clean.forget(PAGE - 1, PAGE + 1);
        assert!(clean.holds(0, 1, look) && clean.holds(2 * PAGE, 2 * PAGE + 1, look));
        assert!(!clean.holds(PAGE, PAGE + 1, look));
        assert_eq!(looked.load(Relaxed), 6);
        assert!(!Clean::new(16 * PAGE).unwrap().holds(0, 9 * PAGE, |_, _| true));
    }

    #[test]
    fn a_change_while_another_thread_looks_is_never_lost() {
        for seed in 0..200 {
            let (clean, dirty) = (Clean::new(PAGE).unwrap(), AtomicBool::new(false));
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let mut random = Random::new(seed, 1);
                    (0..random.below(300)).for_each(|_| std::hint::spin_loop());
                    dirty.store(true, Relaxed);
                    clean.forget(0, 1);
                });
                for _ in 0..20 {
                    clean.holds(0, 1, |_, _| !dirty.load(Relaxed));
                    clean.forget(0, 0);
                }
            });
            assert!(!clean.holds(0, 1, |_, _| !dirty.load(Relaxed)), "seed {seed}");
        }
    }
}
