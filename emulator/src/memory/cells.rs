//! Bytes that the host's threads may read and write at the same time.
//!
//! CTAs run on several threads of the host over one memory. A kernel that races must not make the
//! emulator itself undefined, so every access is a relaxed atomic of its natural size, which on
//! every host we know compiles to the plain load or store. This module and its children are the only ones of
//! the crate that turn offsets into pointers.

#![allow(unsafe_code)]

mod ranges;
pub(crate) mod spots;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod vectors;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{AcqRel, Acquire, Relaxed},
};

/// Alignment of the first byte; every offset that is a multiple of an access's size up to this is aligned.
/// Not more, because the C library hands out zero pages lazily only up to its own alignment.
const ALIGN: usize = 16;

/// A zero-initialised array of bytes with a fixed length (C1: `start` is valid for `len` bytes, aligned to
/// [`ALIGN`], until drop; made in [`Cells::zeroed`] only).
#[derive(Debug)]
pub(crate) struct Cells {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes are owned (C1) and reached through atomics alone.
unsafe impl Send for Cells {}
// SAFETY: as above; a shared reference gives atomic accesses only.
unsafe impl Sync for Cells {}

/// An integer that can be loaded and stored in one access.
pub(crate) trait Cell: Copy + PartialEq + 'static {
    const BYTES: usize;
    /// # Safety
    /// `at` is valid for `BYTES` bytes, aligned to them, and reached through atomics alone.
    unsafe fn load(at: *mut u8) -> Self;
    /// # Safety
    /// As for [`Cell::load`].
    unsafe fn store(at: *mut u8, value: Self);
}

macro_rules! cell {
    ($($t:ty, $atomic:ty;)*) => {$(
        impl Cell for $t {
            const BYTES: usize = size_of::<$t>();
            #[inline(always)]
            unsafe fn load(at: *mut u8) -> $t {
                // SAFETY: the caller's promise.
                unsafe { <$atomic>::from_ptr(at.cast()) }.load(Relaxed)
            }
            #[inline(always)]
            unsafe fn store(at: *mut u8, value: $t) {
                // SAFETY: the caller's promise.
                unsafe { <$atomic>::from_ptr(at.cast()) }.store(value, Relaxed);
            }
        }
    )*};
}

cell! { u8, AtomicU8; u16, AtomicU16; u32, AtomicU32; u64, AtomicU64; }

impl Cells {
    /// `len` zero bytes, or nothing if the host has no memory for them. Pages nobody touches cost nothing.
    pub(crate) fn zeroed(len: usize) -> Option<Cells> {
        if len == 0 {
            return Some(Cells { start: NonNull::dangling(), len });
        }
        let layout = Layout::from_size_align(len, ALIGN).ok()?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Cells { start, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value at a byte offset that is a multiple of its size.
    #[inline(always)]
    pub(crate) fn load<T: Cell>(&self, offset: usize) -> T {
        self.check::<T>(offset);
        // SAFETY: `check` keeps the access inside the allocation and aligned (C1).
        unsafe { T::load(self.start.as_ptr().add(offset)) }
    }

    /// Stores a value at a byte offset that is a multiple of its size.
    #[inline(always)]
    pub(crate) fn store<T: Cell>(&self, offset: usize, value: T) {
        self.check::<T>(offset);
        // SAFETY: `check` keeps the access inside the allocation and aligned (C1).
        unsafe { T::store(self.start.as_ptr().add(offset), value) }
    }

    /// Eight bytes at a byte offset that is a multiple of that.
    #[inline(always)]
    fn atomic(&self, offset: usize) -> &AtomicU64 {
        self.check::<u64>(offset);
        // SAFETY: `check` keeps the access inside the allocation and aligned (C1), where all is reached through atomics.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    /// As [`Cells::load`]; whoever has put this there by [`Cells::exchange`] had done all it did before.
    pub(crate) fn load_acquire(&self, offset: usize) -> u64 {
        self.atomic(offset).load(Acquire)
    }

    /// Puts a value where another still is; tells whether it was.
    pub(crate) fn exchange(&self, offset: usize, from: u64, to: u64) -> bool {
        self.atomic(offset).compare_exchange(from, to, AcqRel, Relaxed).is_ok()
    }

    /// Panics where an access would leave the bytes: callers check and report first, so this is our own bug.
    #[inline(always)]
    fn check<T: Cell>(&self, offset: usize) {
        assert!(
            offset < self.len && self.len - offset >= T::BYTES && offset.is_multiple_of(T::BYTES),
            "access outside of the cells"
        );
    }

    /// Tells the processor that the bytes around an offset, which may be any number, will be read soon.
    #[inline(always)]
    pub(crate) fn prefetch(&self, offset: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: nothing is read, and an address that is not one has no effect.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(
                    self.start.as_ptr().wrapping_add(offset as usize).cast(),
                )
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = offset;
    }

    /// Copies bytes out.
    pub(crate) fn read(&self, offset: usize, into: &mut [u8]) {
        let mut at = offset;
        let head = (offset.next_multiple_of(8) - offset).min(into.len());
        let (head, rest) = into.split_at_mut(head);
        for byte in head {
            *byte = self.load::<u8>(at);
            at += 1;
        }
        let mut words = rest.chunks_exact_mut(8);
        for word in &mut words {
            word.copy_from_slice(&self.load::<u64>(at).to_le_bytes());
            at += 8;
        }
        for byte in words.into_remainder() {
            *byte = self.load::<u8>(at);
            at += 1;
        }
    }

    /// Copies bytes in.
    pub(crate) fn write(&self, offset: usize, from: &[u8]) {
        let mut at = offset;
        let (head, rest) = from.split_at((offset.next_multiple_of(8) - offset).min(from.len()));
        for &byte in head {
            self.store(at, byte);
            at += 1;
        }
        let mut words = rest.chunks_exact(8);
        for word in &mut words {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(word);
            self.store(at, u64::from_le_bytes(bytes));
            at += 8;
        }
        for &byte in words.remainder() {
            self.store(at, byte);
            at += 1;
        }
    }

    /// Makes every byte this one.
    pub(crate) fn fill(&mut self, byte: u8) {
        // SAFETY: C1, and nobody else reaches the bytes while the cells are borrowed for this alone.
        unsafe { self.start.as_ptr().write_bytes(byte, self.len) }
    }

    /// Applies `change` to every byte of a range, eight at a time where possible.
    pub(crate) fn update(&self, offset: usize, len: usize, change: impl Fn(u64) -> u64) {
        let end = offset + len;
        let mut at = offset;
        while at < end {
            if at.is_multiple_of(8) && end - at >= 8 {
                self.store(at, change(self.load::<u64>(at)));
                at += 8;
            } else {
                self.store(at, change(self.load::<u8>(at).into()) as u8);
                at += 1;
            }
        }
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        if self.len != 0 {
            // SAFETY: allocated in `zeroed` with this very layout (C1).
            unsafe {
                dealloc(self.start.as_ptr(), Layout::from_size_align_unchecked(self.len, ALIGN))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_any_offset_and_length_come_back() {
        let cells = Cells::zeroed(64).unwrap();
        for offset in 0..12 {
            for len in 0..40 {
                let from: Vec<u8> = (0..len).map(|i| (i * 7 + offset) as u8).collect();
                cells.write(offset, &from);
                let mut into = vec![0; len];
                cells.read(offset, &mut into);
                assert_eq!(from, into);
            }
        }
    }

    #[test]
    fn update_reaches_each_byte_once() {
        let cells = Cells::zeroed(40).unwrap();
        cells.update(3, 30, |w| w + 0x0101_0101_0101_0101);
        let mut all = [0; 40];
        cells.read(0, &mut all);
        assert!(all.iter().enumerate().all(|(i, &b)| b == u8::from((3..33).contains(&i))));
    }

    #[test]
    fn any_place_may_be_told_beforehand() {
        let cells = Cells::zeroed(16).unwrap();
        for offset in [0, 15, 16, 1 << 20, u64::MAX >> 1, u64::MAX] {
            cells.prefetch(offset);
        }
        assert_eq!(cells.load::<u64>(8), 0);
    }

    #[test]
    #[should_panic(expected = "outside")]
    fn an_access_past_the_end_panics() {
        Cells::zeroed(16).unwrap().load::<u64>(16);
    }
}
