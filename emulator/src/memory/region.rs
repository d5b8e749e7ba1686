//! A run of bytes with a shadow byte for each: what a kernel may do with it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::cells::{Cell, Cells};
use super::clean::Clean;

/// The byte has been written.
pub(crate) const INIT: u8 = 1;
/// No kernel may touch the byte.
pub(crate) const FORBIDDEN: u8 = 2;
/// No kernel may write the byte.
pub(crate) const READ_ONLY: u8 = 4;
/// An asynchronous copy will write the byte at a time nobody has waited for yet.
pub(crate) const IN_FLIGHT: u8 = 8;

/// Of a byte that is not [`INIT`]: a kernel has stored an undefined value.
pub(crate) const UNDEFINED: u8 = 32;
/// In shared memory: a copy through the async proxy sees what the byte holds.
pub(crate) const ASYNC_PROXY: u8 = 16;

/// What decides whether a kernel may load a byte.
pub(crate) const LOADED: u8 = INIT | FORBIDDEN | IN_FLIGHT;

/// `bits` in each byte of a word.
pub(crate) const fn spread(bits: u8) -> u64 {
    bits as u64 * 0x0101_0101_0101_0101
}

/// Memory with shadow: a device allocation, the shared memory of a CTA, the local memory of a warp.
#[derive(Debug)]
pub(crate) struct Region {
    /// Address of the first byte.
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    pub(crate) data: Cells,
    /// Of global memory, changed by [`Region::mark`] and [`Region::mark_written`] only, or by what does as the latter.
    pub(crate) shadow: Cells,
    /// Of global memory, which pages may be loaded from at once.
    clean: Option<Clean>,
    /// What the host calls it.
    pub(crate) label: Option<String>,
    /// Whether the host has ever written to it.
    pub(crate) filled: AtomicBool,
    /// Whether stores and copies mark their bytes. Where they do not, because no check is on, every byte counts as written.
    marked: bool,
    /// Whether the shadow of some byte may have been changed to something else than stores and copies leave there.
    altered: AtomicBool,
}

impl Region {
    /// Zero bytes, none of them initialised, or nothing if the host has no memory.
    pub(crate) fn new(base: u64, bytes: u64) -> Option<Region> {
        // Rounded up so that shadow words at the end can be read whole.
        let len = usize::try_from(bytes.checked_next_multiple_of(32)?).ok()?;
        Some(Region {
            base,
            bytes,
            data: Cells::zeroed(len)?,
            shadow: Cells::zeroed(len)?,
            clean: None,
            label: None,
            filled: AtomicBool::new(false),
            marked: true,
            altered: AtomicBool::new(false),
        })
    }

    /// As [`Region::new`], for global memory.
    pub(crate) fn global(base: u64, bytes: u64) -> Option<Region> {
        let clean = Some(Clean::new(usize::try_from(bytes).ok()?)?);
        Some(Region { clean, ..Region::new(base, bytes)? })
    }

    /// Whether it is known of pages whether they may be loaded from.
    #[inline(always)]
    pub(crate) fn has_pages(&self) -> bool {
        self.clean.is_some()
    }

    /// Whether all bytes of the pages from that of byte `start`, which is inside, to that of the one before `end` are known to be such
    /// that kernels may load them: these [`LOADED`] bits are `INIT`.
    #[inline(always)]
    pub(crate) fn is_clean(&self, start: usize, end: usize) -> bool {
        let Some(clean) = &self.clean else { return false };
        clean.holds(start, end.min(self.bytes as usize), |start, end| {
            let end = end.min(self.bytes as usize);
            self.shadow.equal(start, end - start, LOADED, INIT)
        })
    }

    /// Whether stores and copies mark their bytes.
    #[inline(always)]
    pub(crate) fn is_marked(&self) -> bool {
        self.marked
    }

    /// Lets stores and copies mark their bytes from now on, or not. Forgets every write if they do, and takes all for written if not.
    /// All bytes become zero: what nobody has written may not depend on what ran before.
    pub(crate) fn begin(&mut self, marked: bool) {
        self.data.fill(0);
        // As long as nothing is marked, all is written.
        if marked || self.marked || *self.altered.get_mut() {
            self.shadow.fill(if marked { 0 } else { INIT });
        }
        (self.marked, self.altered) = (marked, AtomicBool::new(false));
    }

    /// Offset of an access of `bytes` at `address` if it lies inside.
    #[inline(always)]
    pub(crate) fn offset(&self, address: u64, bytes: u64) -> Option<usize> {
        let offset = address.wrapping_sub(self.base);
        (offset < self.bytes && self.bytes - offset >= bytes).then_some(offset as usize)
    }

    /// Whether every shadow byte of an aligned access equals `want` in the bits of `of`.
    #[inline(always)]
    pub(crate) fn all(&self, offset: usize, bytes: usize, of: u8, want: u8) -> bool {
        let (of, want) = (spread(of), spread(want));
        match bytes {
            1 => u64::from(self.shadow.load::<u8>(offset)) & (of & 0xff) == want & 0xff,
            2 => u64::from(self.shadow.load::<u16>(offset)) & (of & 0xffff) == want & 0xffff,
            4 => {
                u64::from(self.shadow.load::<u32>(offset)) & (of & 0xffff_ffff)
                    == want & 0xffff_ffff
            }
            _ => (0..bytes).step_by(8).all(|at| self.shadow.load::<u64>(offset + at) & of == want),
        }
    }

    /// Marks an aligned access as written.
    #[inline(always)]
    pub(crate) fn mark_written(&self, offset: usize, bytes: usize) {
        match bytes {
            1 => self.shadow.store(offset, INIT),
            2 => self.shadow.store(offset, spread(INIT) as u16),
            4 => self.shadow.store(offset, spread(INIT) as u32),
            _ => (0..bytes).step_by(8).for_each(|at| self.shadow.store(offset + at, spread(INIT))),
        }
    }

    /// Sets and clears shadow bits of a range.
    pub(crate) fn mark(&self, offset: usize, bytes: usize, set: u8, clear: u8) {
        self.alter(offset, bytes, |word| (word & !spread(clear)) | spread(set));
        // What is merely written leaves a clean page clean.
        if (set, clear) != (INIT, 0)
            && let Some(clean) = &self.clean
        {
            clean.forget(offset, offset + bytes);
        }
    }

    /// Changes the shadow of a range, eight bytes at a time where possible. Of global memory, that is for [`Region::mark`] to do.
    pub(crate) fn alter(&self, offset: usize, bytes: usize, change: impl Fn(u64) -> u64) {
        self.altered.store(true, Relaxed);
        self.shadow.update(offset, bytes, change);
    }

    /// Shadow of one byte.
    pub(crate) fn state(&self, offset: usize) -> u8 {
        self.shadow.load(offset)
    }

    #[inline(always)]
    pub(crate) fn load<T: Cell>(&self, offset: usize) -> T {
        self.data.load(offset)
    }

    #[inline(always)]
    pub(crate) fn store<T: Cell>(&self, offset: usize, value: T) {
        self.data.store(offset, value);
    }

    /// Forgets every write, so that all is as in a new region.
    pub(crate) fn clear(&mut self) {
        self.begin(true);
    }
}
