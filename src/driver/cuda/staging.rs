//! Pinned memory between the host's slices and the device.
//!
//! Whether an asynchronous copy has read its source when the call returns depends on the source: from
//! pageable memory the driver "might" be synchronous, from pinned or registered memory it is not, and
//! on machines whose device reads pageable memory the difference is gone. Promise D3 must hold for every slice, and
//! without waiting for the stream. So no slice is ever handed to the driver: bytes pass through a ring of
//! pinned memory that is the stream's own, whose parts are reused when the event behind their copy has passed.

use core::ptr;
use std::collections::VecDeque;

use crate::driver::cuda::sys::{Api, DISABLE_TIMING, Failure, Handle, NOT_READY};

/// Bytes of the ring.
const CAPACITY: usize = 4 << 20;

/// Largest part taken at once: while one is being copied by the device, the next is being filled.
pub(crate) const MAX_CHUNK: usize = CAPACITY / 4;

/// A ring of pinned host memory for the copies of one stream.
///
/// - G1. `base` is `CAPACITY` bytes of pinned memory, owned by this value.
/// - G2. Bytes that a copy still to be run reads or writes lie in a part of `in_flight`, whose event is recorded behind
///   that copy. A ring for which that cannot be kept (a failed call) is forgotten, not reused and not freed.
pub(crate) struct Staging {
    api: &'static Api,
    base: *mut u8,
    /// Where the next part starts if it fits.
    head: usize,
    /// End of the last part that has passed.
    tail: usize,
    /// Parts in use, oldest first: where each ends, and the event behind its copy.
    in_flight: VecDeque<(usize, Handle)>,
    /// Events to record again.
    spare: Vec<Handle>,
}

// SAFETY: the memory and the events may be used from any thread, by one at a time.
unsafe impl Send for Staging {}

impl Staging {
    /// Allocates a ring. A context has to be current.
    pub fn new(api: &'static Api) -> Result<Self, Failure> {
        let mut base = ptr::null_mut();
        // SAFETY: a valid pointer.
        unsafe { api.allocate_host(&mut base, CAPACITY, 0) }?;
        let (in_flight, spare) = (VecDeque::new(), Vec::new());
        Ok(Self { api, base: base.cast(), head: 0, tail: 0, in_flight, spare })
    }

    /// Enqueues a copy of `src`, at most [`MAX_CHUNK`] bytes, to the device.
    ///
    /// # Safety
    ///
    /// The stream's context is current, and `dst .. dst + src.len()` is the device memory of one allocation. After an error
    /// the ring is forgotten (G2).
    pub unsafe fn send(&mut self, stream: Handle, dst: u64, src: &[u8]) -> Result<(), Failure> {
        let start = self.reserve(src.len())?;
        // SAFETY: `reserve` gave src.len() bytes of the ring that no copy uses (G1, G2).
        let part = unsafe { self.base.add(start) };
        // SAFETY: as above, and a host slice does not overlap the ring, to which no reference is ever given out.
        unsafe { ptr::copy_nonoverlapping(src.as_ptr(), part, src.len()) };
        // SAFETY: the part stays as it is until the event below has passed; the rest is the caller's promise.
        unsafe { self.api.copy_to_device(dst, part.cast(), src.len(), stream) }?;
        let event = self.event()?;
        self.head = start + src.len();
        self.in_flight.push_back((self.head, event));
        // SAFETY: an event of this context, which is current.
        unsafe { self.api.record_event(event, stream) }
    }

    /// Copies at most [`MAX_CHUNK`] bytes to `dst` after all work of the stream so far, and waits for that.
    ///
    /// # Safety
    ///
    /// The stream's context is current, and `src .. src + dst.len()` is the device memory of one allocation. After an error
    /// the ring is forgotten (G2).
    pub unsafe fn receive(
        &mut self,
        stream: Handle,
        src: u64,
        dst: &mut [u8],
    ) -> Result<(), Failure> {
        let start = self.reserve(dst.len())?;
        // SAFETY: `reserve` gave dst.len() bytes of the ring that no copy uses (G1, G2).
        let part = unsafe { self.base.add(start) };
        // SAFETY: nothing else uses the part until the wait below; the rest is the caller's promise.
        unsafe { self.api.copy_to_host(part.cast(), src, dst.len(), stream) }?;
        // SAFETY: no condition.
        unsafe { self.api.synchronize_stream(stream) }?;
        // SAFETY: the copy has run, so the part holds dst.len() bytes; the slice does not overlap the ring.
        unsafe { ptr::copy_nonoverlapping(part, dst.as_mut_ptr(), dst.len()) };
        Ok(())
    }

    /// The start of `len` contiguous bytes that no copy uses, waiting for the oldest copies as needed.
    fn reserve(&mut self, len: usize) -> Result<usize, Failure> {
        assert!(len <= MAX_CHUNK, "a part of {len} bytes");
        while self.oldest_has_passed()? {
            self.retire();
        }
        loop {
            if self.in_flight.is_empty() {
                (self.head, self.tail) = (0, 0);
                return Ok(0);
            }
            // A part that ended where the oldest begins would make a full ring look empty: hence > where they meet.
            if self.head > self.tail {
                if CAPACITY - self.head >= len {
                    return Ok(self.head);
                }
                if self.tail > len {
                    return Ok(0);
                }
            } else if self.tail - self.head > len {
                return Ok(self.head);
            }
            let (_, oldest) = self.in_flight[0];
            // SAFETY: an event that `send` recorded.
            unsafe { self.api.synchronize_event(oldest) }?;
            self.retire();
        }
    }

    fn oldest_has_passed(&self) -> Result<bool, Failure> {
        let Some(&(_, oldest)) = self.in_flight.front() else { return Ok(false) };
        // SAFETY: an event that `send` recorded.
        match unsafe { self.api.query_event(oldest) } {
            Ok(()) => Ok(true),
            Err(Failure { code: NOT_READY, .. }) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Gives the oldest part back; its event has passed.
    fn retire(&mut self) {
        if let Some((end, event)) = self.in_flight.pop_front() {
            self.tail = end;
            self.spare.push(event);
        }
    }

    fn event(&mut self) -> Result<Handle, Failure> {
        if let Some(event) = self.spare.pop() {
            return Ok(event);
        }
        let mut event = ptr::null_mut();
        // SAFETY: a valid pointer.
        unsafe { self.api.create_event(&mut event, DISABLE_TIMING) }?;
        Ok(event)
    }
}

impl Drop for Staging {
    /// Waits for the last copy; if that fails the memory is left to the context.
    fn drop(&mut self) {
        if let Some(&(_, newest)) = self.in_flight.back() {
            // SAFETY: an event that `send` recorded.
            if unsafe { self.api.synchronize_event(newest) }.is_err() {
                return;
            }
        }
        for event in self.in_flight.drain(..).map(|(_, event)| event).chain(self.spare.drain(..)) {
            // SAFETY: an event of ours, used no more.
            let _ = unsafe { self.api.destroy_event(event) };
        }
        // SAFETY: G1, and no copy uses it: the newest has passed, and a stream runs in order.
        let _ = unsafe { self.api.free_host(self.base.cast()) };
    }
}
