//! Device memory bound to a stream.

use core::marker::PhantomData;

use bytemuck::Pod;

use crate::device::Stream;
use crate::driver::Driver;
use crate::error::{Error, Result, filled};
use crate::types::DeviceAddress;

/// `len` elements of `T` in device memory, freed (stream-ordered) when dropped.
///
/// - B1. The allocation holds at least `len * size_of::<T>()` bytes while the value exists, and until
///   all work enqueued on its stream before the drop has run, and while a [`crate::Graph`] may name it.
/// - B2. No reference into it is ever formed on the host; its contents may be any bits, so `T` is [`Pod`].
pub struct Buffer<'s, D: Driver, T: Pod> {
    stream: &'s Stream<D>,
    address: DeviceAddress,
    /// What graphs know the allocation by.
    serial: u64,
    len: usize,
    elements: PhantomData<T>,
}

debug!(['s, D: Driver, T: Pod] Buffer<'s, D, T> { address, len });

impl<'s, D: Driver, T: Pod> Buffer<'s, D, T> {
    /// Allocates `len` elements with undefined contents.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfMemory`], [`Error::Overflow`] and those of the driver.
    pub fn uninit(stream: &'s Stream<D>, len: usize) -> Result<Self> {
        let bytes =
            len.checked_mul(size_of::<T>()).ok_or(Error::Overflow { what: "bytes of a buffer" })?;
        let address = if bytes == 0 {
            DeviceAddress::NULL
        } else {
            stream.driver().allocate(stream.raw(), bytes)?
        };
        let serial = stream.keeper().next_serial();
        Ok(Self { stream, address, serial, len, elements: PhantomData })
    }

    /// Allocates `len` elements whose bytes are all zero.
    ///
    /// # Errors
    ///
    /// As [`Buffer::uninit`].
    pub fn zeroed(stream: &'s Stream<D>, len: usize) -> Result<Self> {
        let mut buffer = Self::uninit(stream, len)?;
        buffer.clear("allocation")?;
        Ok(buffer)
    }

    /// Allocates and copies `host`.
    ///
    /// # Errors
    ///
    /// As [`Buffer::uninit`].
    pub fn from_slice(stream: &'s Stream<D>, host: &[T]) -> Result<Self> {
        let mut buffer = Self::uninit(stream, host.len())?;
        buffer.write(host)?;
        Ok(buffer)
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device address of the first element, null if there is none.
    pub fn address(&self) -> DeviceAddress {
        self.address
    }

    /// The stream it is bound to.
    pub fn stream(&self) -> &'s Stream<D> {
        self.stream
    }

    /// Overwrites the first `host.len()` elements.
    ///
    /// # Errors
    ///
    /// [`Error::TooShort`] if `host` is longer than the buffer, and those of the driver.
    pub fn write(&mut self, host: &[T]) -> Result<()> {
        self.expect_len("buffer", host.len())?;
        if size_of_val(host) == 0 {
            return Ok(());
        }
        // SAFETY: B1, and host.len() <= len was just checked (test `buffer::too_long_a_copy_is_an_error`).
        unsafe {
            self.stream.driver().write(self.stream.raw(), self.address, bytemuck::cast_slice(host))
        }
    }

    /// Copies the first `host.len()` elements to the host, after all work enqueued so far.
    ///
    /// # Errors
    ///
    /// [`Error::TooShort`] if `host` is longer than the buffer, and those of the driver.
    pub fn read(&self, host: &mut [T]) -> Result<()> {
        self.expect_len("buffer", host.len())?;
        if size_of_val(host) == 0 {
            return Ok(());
        }
        // SAFETY: B1, and host.len() <= len was just checked (test `buffer::too_long_a_copy_is_an_error`).
        unsafe {
            self.stream.driver().read(
                self.stream.raw(),
                self.address,
                bytemuck::cast_slice_mut(host),
            )
        }
    }

    /// All elements, copied to the host after all work enqueued so far.
    ///
    /// # Errors
    ///
    /// [`Error::HostMemory`] and those of the driver.
    pub fn to_vec(&self) -> Result<Vec<T>> {
        let mut host = filled(T::zeroed(), self.len)?;
        self.read(&mut host)?;
        Ok(host)
    }

    /// Sets every byte to `value` (0xFF makes floating-point elements NaN: a poison for tests).
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn fill_bytes(&mut self, value: u8) -> Result<()> {
        let bytes = self.len * size_of::<T>();
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: B1, the whole buffer.
        unsafe { self.stream.driver().fill(self.stream.raw(), self.address, value, bytes) }
    }

    /// Sets every byte to 0, as a part of `operation`: fails while the stream records, which would leave the bytes as they are.
    pub(crate) fn clear(&mut self, operation: &'static str) -> Result<()> {
        let _outside = self.stream.keeper().outside_capture(operation)?;
        self.fill_bytes(0)
    }

    /// Copies `len` elements within the buffer.
    pub(crate) fn copy_within(&mut self, dst: usize, src: usize, len: usize) -> Result<()> {
        let last =
            dst.max(src).checked_add(len).ok_or(Error::Overflow { what: "a copied range" })?;
        self.expect_len("buffer", last)?;
        assert!(dst.abs_diff(src) >= len, "copied ranges overlap");
        let size = size_of::<T>();
        let at = |index: usize| DeviceAddress(self.address.0 + (index * size) as u64);
        // SAFETY: B1, both ranges end within `len` and are disjoint (checked above).
        unsafe { self.stream.driver().copy(self.stream.raw(), at(dst), at(src), len * size) }
    }

    /// Fails unless the buffer has at least `needed` elements.
    pub(crate) fn expect_len(&self, what: &'static str, needed: usize) -> Result<()> {
        if self.len < needed {
            return Err(Error::TooShort { what, len: self.len, needed });
        }
        Ok(())
    }
}

impl<D: Driver, T: Pod> Drop for Buffer<'_, D, T> {
    fn drop(&mut self) {
        if self.address != DeviceAddress::NULL {
            // SAFETY: the address came from `allocate` on this stream (only `uninit` sets it, with its serial number), and
            // nothing but a graph can enqueue work on it after the drop (B1).
            unsafe { self.stream.release(self.address, self.serial) }
        }
    }
}
