//! The primary context of a device, and making it current.

use core::ffi::{CStr, c_char, c_int};
use core::marker::PhantomData;
use core::{mem, ptr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::driver::DeviceProperties;
use crate::driver::cuda::sys::{Api, DISABLE_TIMING, Failure, Handle, NOT_READY};
use crate::error::{Error, Result};

// `CUdevice_attribute`.
const MULTIPROCESSOR_COUNT: c_int = 16;
const L2_CACHE_SIZE: c_int = 38;
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;
const MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: c_int = 97;
const MEMORY_POOLS_SUPPORTED: c_int = 115;

/// A device's primary context, retained while this value exists.
///
/// - C1. `raw` is a live context of `device` until the value is dropped, whoever else releases it.
/// - C2. Code that a stream of ours may still run stays loaded: modules are unloaded when this value is dropped, which all
///   streams and kernels keep alive, behind the last work of every stream. Unloading them earlier would mean to wait
///   for the whole context, and that ends every capture under way in it, also on other threads and of other libraries.
pub(crate) struct Context {
    pub api: &'static Api,
    device: c_int,
    raw: Handle,
    pub properties: DeviceProperties,
    /// Whether the device has memory pools, which stream-ordered allocation needs.
    pub has_pools: bool,
    left: Mutex<Left>,
}

/// What dropped kernels and streams leave to the context.
#[derive(Default)]
struct Left {
    modules: Vec<Handle>,
    /// Events behind the last work of streams that are gone.
    ends: Vec<Handle>,
    /// Whether the end of a stream is not known: what it may run stays loaded.
    endless: bool,
}

// SAFETY: events and modules may be used from any thread.
unsafe impl Send for Left {}

// SAFETY: the driver's functions may be called from any thread, and a context may be current on any
// number of threads; nothing else is behind the handle (test `any_thread`).
unsafe impl Send for Context {}
// SAFETY: as above, and `left` is behind a lock.
unsafe impl Sync for Context {}

impl core::fmt::Debug for Context {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { device, raw, properties, .. } = self;
        f.debug_struct("Context")
            .field("device", device)
            .field("raw", raw)
            .field("properties", properties)
            .finish_non_exhaustive()
    }
}

impl Context {
    /// Retains the primary context of the device with this number.
    pub fn retain(ordinal: usize) -> Result<Self> {
        let api = Api::get()?;
        let (mut count, mut device) = (0, 0);
        // SAFETY: a valid pointer.
        unsafe { api.device_count(&mut count) }?;
        let count = usize::try_from(count).unwrap_or(0);
        if count == 0 {
            return Err(Error::Unsupported {
                what: "no CUDA device: the driver counts 0".to_owned(),
            });
        }
        if ordinal >= count {
            return Err(Error::TooLarge {
                what: "the device's number",
                value: ordinal as u64,
                limit: count as u64 - 1,
            });
        }
        // SAFETY: a valid pointer; the number is below the count, which is a c_int.
        unsafe { api.device(&mut device, ordinal as c_int) }?;
        Self::retain_device(api, device)
    }

    /// Retains the context `raw` of another library, which has to be a device's primary one.
    ///
    /// # Safety
    ///
    /// `raw` is a live context.
    pub unsafe fn retain_raw(raw: Handle) -> Result<Self> {
        let api = Api::get()?;
        let mut device = 0;
        {
            // SAFETY: the caller's promise.
            let _current = unsafe { Current::enter(api, raw) }?;
            // SAFETY: a valid pointer.
            unsafe { api.current_device(&mut device) }?;
        }
        let context = Self::retain_device(api, device)?;
        if context.raw != raw {
            return Err(Error::Unsupported {
                what: format!("the context is not the primary one of device {device}"),
            });
        }
        Ok(context)
    }

    fn retain_device(api: &'static Api, device: c_int) -> Result<Self> {
        let properties = properties(api, device)?;
        let has_pools = attribute(api, device, MEMORY_POOLS_SUPPORTED)? != 0;
        let mut raw = ptr::null_mut();
        // SAFETY: a valid pointer and a device that the driver gave.
        unsafe { api.retain_primary(&mut raw, device) }?;
        Ok(Self { api, device, raw, properties, has_pools, left: Mutex::default() })
    }

    /// The `CUcontext`.
    pub fn raw(&self) -> Handle {
        self.raw
    }

    /// The `CUdevice`.
    #[cfg(feature = "cudarc")]
    pub fn device(&self) -> c_int {
        self.device
    }

    pub fn l2_cache_bytes(&self) -> Result<usize> {
        let bytes = attribute(self.api, self.device, L2_CACHE_SIZE)?;
        Ok(usize::try_from(bytes).unwrap_or(0))
    }

    /// Nothing that is done under the lock panics.
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a module whose kernel is gone; its code may be running (C2).
    pub fn leave_module(&self, module: Handle) {
        self.left().modules.push(module);
    }

    /// Notes that a stream is gone and that nobody will know when its work has ended.
    pub fn leave_running(&self) {
        self.left().endless = true;
    }

    /// Notes that nothing more will be enqueued on a stream through its value. The context has to be current.
    ///
    /// # Safety
    ///
    /// `stream` is a live stream of the context, on which nobody records unless `records`.
    pub unsafe fn leave_stream(&self, stream: Handle, records: bool) {
        let mut left = self.left();
        let api = self.api;
        left.ends.retain(|&end| {
            // SAFETY: an event of ours.
            let waits =
                matches!(unsafe { api.query_event(end) }, Err(Failure { code: NOT_READY, .. }));
            if !waits {
                // SAFETY: as above; it is used no more.
                let _ = unsafe { api.destroy_event(end) };
            }
            waits
        });
        let mut end = ptr::null_mut();
        // SAFETY: a valid pointer.
        if records || unsafe { api.create_event(&mut end, DISABLE_TIMING) }.is_err() {
            left.endless = true;
            return;
        }
        left.ends.push(end);
        // SAFETY: an event of ours and the caller's promise.
        left.endless |= unsafe { api.record_event(end, stream) }.is_err();
    }

    /// Makes the context current on this thread until the value returned is dropped.
    pub fn enter(&self) -> Result<Current<'_>, Failure> {
        // SAFETY: C1.
        unsafe { Current::enter(self.api, self.raw) }
    }
}

impl Drop for Context {
    /// Waits for what the streams that are gone still run, if there is code to unload. What cannot be waited for stays loaded.
    fn drop(&mut self) {
        let Left { modules, ends, endless } =
            mem::take(self.left.get_mut().unwrap_or_else(PoisonError::into_inner));
        if let Ok(_current) = self.enter() {
            let api = self.api;
            let waits = !modules.is_empty() && !endless;
            // SAFETY: events of ours.
            let idle =
                waits && ends.iter().all(|&end| unsafe { api.synchronize_event(end) }.is_ok());
            for end in ends {
                // SAFETY: an event of ours, used no more.
                let _ = unsafe { api.destroy_event(end) };
            }
            for module in modules.into_iter().filter(|_| idle) {
                // SAFETY: a module left by its kernel; all streams of this context are gone, and what they ran has ended.
                let _ = unsafe { api.unload_module(module) };
            }
        }
        // SAFETY: `retain_device` retained it once. A failure leaves it retained, which harms nobody.
        let _ = unsafe { self.api.release_primary(self.device) };
    }
}

/// While it exists, a context is current on this thread.
///
/// Costs one driver call if the context is current already, as it is in the loop of an engine that uses one device.
pub(crate) struct Current<'a> {
    api: &'a Api,
    pushed: bool,
    /// The stack of contexts belongs to a thread.
    not_send: PhantomData<*const ()>,
}

impl<'a> Current<'a> {
    /// # Safety
    ///
    /// `raw` is a live context.
    unsafe fn enter(api: &'a Api, raw: Handle) -> Result<Self, Failure> {
        let mut current = ptr::null_mut();
        // SAFETY: a valid pointer.
        unsafe { api.current_context(&mut current) }?;
        let pushed = current != raw;
        if pushed {
            // SAFETY: the caller's promise.
            unsafe { api.push_context(raw) }?;
        }
        Ok(Self { api, pushed, not_send: PhantomData })
    }
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        if self.pushed {
            let mut popped = ptr::null_mut();
            // SAFETY: a valid pointer; what is popped is what `enter` pushed on this thread, values of this type
            // being dropped in reverse order of their making.
            let _ = unsafe { self.api.pop_context(&mut popped) };
        }
    }
}

fn properties(api: &Api, device: c_int) -> Result<DeviceProperties> {
    let mut name = [0 as c_char; 256];
    // SAFETY: a buffer of the length given, and a device that the driver gave.
    unsafe { api.device_name(name.as_mut_ptr(), name.len() as c_int, device) }?;
    let number = |which| attribute(api, device, which).map(|value| value.max(0).unsigned_abs());
    // SAFETY: `name` is not changed while the reference lives, and ends in the zero it was filled with if not earlier.
    let name = unsafe {
        name[name.len() - 1] = 0;
        CStr::from_ptr(name.as_ptr())
    };
    Ok(DeviceProperties {
        name: name.to_string_lossy().into_owned(),
        compute_capability: (number(COMPUTE_CAPABILITY_MAJOR)?, number(COMPUTE_CAPABILITY_MINOR)?),
        num_multiprocessors: number(MULTIPROCESSOR_COUNT)?,
        shared_bytes_per_cta: number(MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
    })
}

fn attribute(api: &Api, device: c_int, which: c_int) -> Result<c_int, Failure> {
    let mut value = 0;
    // SAFETY: a valid pointer and a device that the driver gave.
    unsafe { api.device_attribute(&mut value, which, device) }?;
    Ok(value)
}
