//! Where lists keep what many of their entries share.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that nothing else has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Id(u64);

impl Id {
    pub(crate) fn new() -> Id {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Id(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Id {
    fn default() -> Self {
        Id::new()
    }
}

/// A place in the list of that number; the default is a place in none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kept {
    id: u64,
    index: u32,
}

impl Kept {
    pub(crate) fn new(id: &Id, index: u32) -> Kept {
        Kept { id: id.0, index }
    }

    #[inline(always)]
    pub(crate) fn is_of(&self, id: &Id) -> bool {
        self.id == id.0
    }

    #[inline(always)]
    pub(crate) fn index(&self) -> u32 {
        self.index
    }
}
