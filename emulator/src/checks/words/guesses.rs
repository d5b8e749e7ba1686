//! Plain reads that race with atomic operations, unless their threads go on to an atomic operation at the same word: loops
//! around `atom.cas` begin with such a guess, as CUDA's headers have it.

use std::collections::BTreeMap;

use super::{Access, Race};

/// Reads at most that wait for their threads.
const MOST: usize = 4096;

/// A read that is a race if it was no guess.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guess {
    /// The read.
    pub(crate) access: Access,
    pub(crate) bytes: u64,
    /// The race, of which the read counts as the second access.
    pub(crate) race: Race,
}

/// Those of some memory, by word, warp and lane.
#[derive(Debug, Default)]
pub(super) struct Guesses(BTreeMap<(u64, u32, usize), Guess>);

impl Guesses {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A thread has read what an atomic operation changes, and nothing orders the two.
    #[cold]
    pub(super) fn add(&mut self, guess: Guess) {
        let Guess { access, race, .. } = guess;
        if self.0.len() < MOST {
            self.0.entry((race.offset, access.warp, race.lane)).or_insert(guess);
        }
    }

    /// A thread executes an atomic operation at a word: what it has read there was a guess.
    pub(super) fn answer(&mut self, offset: u64, warp: u32, lane: usize) {
        if !self.0.is_empty() {
            self.0.remove(&(offset, warp, lane));
        }
    }

    /// The first that no thread has gone on from.
    pub(super) fn first(&self) -> Option<Guess> {
        self.0.values().next().copied()
    }
}
