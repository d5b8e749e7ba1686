//! Loading PTX, and launching it.

use core::ffi::{c_int, c_uint, c_void};
use core::ptr;
use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::driver::LaunchShape;
use crate::driver::cuda::context::Context;
use crate::driver::cuda::stream::CudaStream;
use crate::driver::cuda::sys::{
    self, Failure, Handle, LaunchAttribute, LaunchConfig, UNSUPPORTED_PTX_VERSION,
};
use crate::error::{Error, Result};

// `CUjit_option`.
const ERROR_LOG_BUFFER: c_int = 5;
const ERROR_LOG_BUFFER_SIZE_BYTES: c_int = 6;

// `CUfunction_attribute`.
const SHARED_SIZE_BYTES: c_int = 1;
const MAX_DYNAMIC_SHARED_SIZE_BYTES: c_int = 8;

/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
const PROGRAMMATIC_STREAM_SERIALIZATION: c_uint = 6;

/// Oldest compute capability with programmatic dependent launch.
const MIN_OVERLAP_CAPABILITY: (u32, u32) = (9, 0);

/// Dynamic shared memory that every kernel may use without opting in.
const DYNAMIC_SHARED_BYTES_BY_DEFAULT: u32 = 48 << 10;

/// A loaded kernel.
///
/// - K1. `function` belongs to `module`, which stays loaded until no stream is left that may run it.
/// - K2. `function` has one parameter, of `param_bytes` bytes.
#[derive(Debug)]
pub struct CudaKernel {
    context: Arc<Context>,
    module: Handle,
    function: Handle,
    param_bytes: usize,
    dynamic_shared_limit: u32,
    launched: AtomicBool,
}

// SAFETY: modules and functions may be used from any thread.
unsafe impl Send for CudaKernel {}
// SAFETY: as above; no method mutates.
unsafe impl Sync for CudaKernel {}

impl CudaKernel {
    pub(crate) fn load(context: &Arc<Context>, entry: &str, ptx: &str) -> Result<Self> {
        let param_bytes = param_bytes(entry, ptx)?;
        let _current = context.enter()?;
        let module = load_module(context, entry, ptx)?;
        // From here on `kernel` unloads the module if a step fails.
        let mut kernel = Self {
            context: Arc::clone(context),
            module,
            function: ptr::null_mut(),
            param_bytes,
            dynamic_shared_limit: 0,
            launched: AtomicBool::new(false),
        };
        let name = c_string(entry)?;
        // SAFETY: valid pointers and a loaded module.
        unsafe { context.api.function(&mut kernel.function, module, name.as_ptr()) }?;
        kernel.dynamic_shared_limit = kernel.raise_shared_limit()?;
        Ok(kernel)
    }

    /// Opts into all the dynamic shared memory that the device has beside what the kernel declares. The limit
    /// alone costs nothing: what counts is what a launch asks for.
    fn raise_shared_limit(&self) -> Result<u32, Failure> {
        let api = self.context.api;
        let mut declared: c_int = 0;
        // SAFETY: a valid pointer and a loaded function.
        unsafe { api.function_attribute(&mut declared, SHARED_SIZE_BYTES, self.function) }?;
        let declared = declared.max(0).unsigned_abs();
        let limit = self.context.properties.shared_bytes_per_cta.saturating_sub(declared);
        if limit <= DYNAMIC_SHARED_BYTES_BY_DEFAULT {
            return Ok(limit);
        }
        let value = c_int::try_from(limit).unwrap_or(c_int::MAX);
        // SAFETY: a loaded function.
        unsafe { api.set_function_attribute(self.function, MAX_DYNAMIC_SHARED_SIZE_BYTES, value) }?;
        Ok(limit)
    }

    /// Enqueues the kernel.
    ///
    /// # Safety
    ///
    /// That of [`crate::Driver::launch`].
    pub(crate) unsafe fn launch(
        &self,
        stream: &CudaStream,
        shape: &LaunchShape,
        params: &[u8],
    ) -> Result<()> {
        if params.len() != self.param_bytes {
            return Err(Error::Mismatch {
                what: "bytes of the kernel's parameter",
                got: params.len() as u64,
                expected: self.param_bytes as u64,
            });
        }
        if shape.dynamic_shared_bytes > self.dynamic_shared_limit {
            return Err(Error::TooLarge {
                what: "dynamic shared memory",
                value: shape.dynamic_shared_bytes.into(),
                limit: self.dynamic_shared_limit.into(),
            });
        }
        let _current = self.context.enter()?;
        self.launched.store(true, Ordering::Relaxed);
        // One parameter, so one pointer: to the bytes, of which the driver copies as many as the kernel declares (K2).
        let mut pointers = [params.as_ptr().cast_mut().cast::<c_void>()];
        let LaunchShape { grid: [x, y, z], block: [bx, by, bz], dynamic_shared_bytes, .. } = *shape;
        let api = self.context.api;
        let can_overlap = self.context.properties.compute_capability >= MIN_OVERLAP_CAPABILITY;
        if let Some(launch) = api.launch_with_attributes
            && shape.overlaps_previous
            && can_overlap
        {
            let mut value = [0; 16];
            value[0] = 1;
            let mut attribute =
                LaunchAttribute { id: PROGRAMMATIC_STREAM_SERIALIZATION, padding: [0; 4], value };
            let config = LaunchConfig {
                grid: shape.grid,
                block: shape.block,
                shared_bytes: dynamic_shared_bytes,
                stream: stream.as_raw(),
                attributes: &mut attribute,
                num_attributes: 1,
            };
            // SAFETY: all pointers are valid during the call, which copies what they name; the rest is the caller's promise.
            let code =
                unsafe { launch(&config, self.function, pointers.as_mut_ptr(), ptr::null_mut()) };
            if code != 0 {
                return Err(Failure { operation: "cuLaunchKernelEx", code }.into());
            }
            return Ok(());
        }
        // SAFETY: as above.
        Ok(unsafe {
            api.launch(
                self.function,
                x,
                y,
                z,
                bx,
                by,
                bz,
                dynamic_shared_bytes,
                stream.as_raw(),
                pointers.as_mut_ptr(),
                ptr::null_mut(),
            )
        }?)
    }
}

impl Drop for CudaKernel {
    /// Code that was launched may be in use: the context unloads it in time (K1).
    fn drop(&mut self) {
        if *self.launched.get_mut() {
            return self.context.leave_module(self.module);
        }
        let Ok(_current) = self.context.enter() else { return };
        // SAFETY: a loaded module, whose functions nobody has launched and nobody will.
        let _ = unsafe { self.context.api.unload_module(self.module) };
    }
}

/// Has the driver assemble the text.
fn load_module(context: &Context, entry: &str, ptx: &str) -> Result<Handle> {
    let api = context.api;
    let version = api.version()?;
    if let Some((needed, ptx_version)) = needed_version(ptx)
        && version < needed
    {
        return Err(too_old(entry, ptx_version, version));
    }
    let text = c_string(ptx)?;
    let mut log = [0_u8; 8192];
    let mut options = [ERROR_LOG_BUFFER, ERROR_LOG_BUFFER_SIZE_BYTES];
    // A number is given in the place of a pointer.
    let mut values = [log.as_mut_ptr().cast::<c_void>(), ptr::without_provenance_mut(log.len())];
    let mut module = ptr::null_mut();
    // SAFETY: a zero-terminated text, two options and their values: a buffer, and its size.
    let result = unsafe {
        api.load_module(
            &mut module,
            text.as_ptr().cast(),
            options.len() as c_uint,
            options.as_mut_ptr(),
            values.as_mut_ptr(),
        )
    };
    match result {
        Ok(()) => Ok(module),
        Err(Failure { code: UNSUPPORTED_PTX_VERSION, .. }) => {
            Err(too_old(entry, ptx_version(ptx).unwrap_or("of this kernel"), version))
        }
        Err(Failure { operation, code }) => {
            let log = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or(&[]));
            let message = format!("{entry}: {}\n{}", api.describe(code), log.trim_end());
            Err(Error::Driver { operation, message: message.trim_end().to_owned() })
        }
    }
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|error| Error::Driver {
        operation: "cuModuleLoadDataEx",
        message: format!("a zero byte at {} of the text", error.nul_position()),
    })
}

fn too_old(entry: &str, ptx_version: &str, version: c_int) -> Error {
    let has = sys::dotted(version);
    Error::Unsupported {
        what: format!(
            "{entry} is PTX version {ptx_version}, the driver supports CUDA {has}, which is older"
        ),
    }
}

/// The `.version` of a PTX text.
fn ptx_version(ptx: &str) -> Option<&str> {
    ptx.lines().find_map(|line| line.trim_start().strip_prefix(".version")).map(str::trim)
}

/// The driver version that a PTX text needs, and the text's version (PTX ISA, "Release History"): 7.x came with CUDA
/// 11.x. From 8.0 on minor versions drift apart, so that only the major one is compared (8 is CUDA 12, 9 is 13);
/// what that misses the driver reports itself.
fn needed_version(ptx: &str) -> Option<(c_int, &str)> {
    let version = ptx_version(ptx)?;
    let (major, minor) = version.split_once('.')?;
    let (major, minor): (c_int, c_int) = (major.parse().ok()?, minor.parse().ok()?);
    let minor = if major == 7 { minor } else { 0 };
    let needed = major.checked_add(4)?.checked_mul(1000)?.checked_add(minor.checked_mul(10)?)?;
    Some((needed, version))
}

/// The size of the entry's one parameter, `.param .align A .b8 NAME[SIZE]`.
fn param_bytes(entry: &str, ptx: &str) -> Result<usize> {
    let size = || {
        let name = format!(".entry {entry}(");
        let (_, rest) = ptx.split_once(name.as_str())?;
        let (parameters, _) = rest.split_once(')')?;
        let (declaration, size) = parameters.split_once('[')?;
        let (size, _) = size.split_once(']')?;
        let is_one = !parameters.contains(',');
        // Of other elements the size would not be one of bytes.
        let is_bytes = declaration.split_whitespace().any(|word| word == ".b8");
        (is_one && is_bytes).then(|| size.trim().parse().ok())?
    };
    size().ok_or_else(|| Error::Driver {
        operation: "loading a kernel",
        message: format!("the text declares no entry {entry} with one parameter of bytes"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::KERNELS;

    #[test]
    fn every_kernel_declares_its_parameter() {
        for kernel in KERNELS {
            let bytes = param_bytes(kernel.entry, kernel.ptx).expect(kernel.entry);
            assert!(bytes >= 48 && bytes.is_multiple_of(8), "{}: {bytes}", kernel.entry);
        }
        let error = param_bytes("other", ".visible .entry some(.param .b8 p[8])").unwrap_err();
        assert!(error.to_string().contains("no entry other"), "{error}");
        param_bytes("two", ".entry two(.param .b8 p[8], .param .u32 n)").unwrap_err();
        param_bytes("words", ".entry words(.param .align 4 .b32 p[8])").unwrap_err();
        param_bytes("scalar", ".entry scalar(.param .u32 n) { .shared .b8 s[4]; }").unwrap_err();
    }

    #[test]
    fn a_text_says_which_driver_it_needs() {
        let needed = |text| needed_version(text).map(|(version, _)| version);
        assert_eq!(needed("// a comment\n.version 7.4\n.target sm_80"), Some(11_040));
        assert_eq!(needed("  .version 7.8"), Some(11_080));
        assert_eq!(needed(".version 8.5"), Some(12_000));
        assert_eq!(needed(".target sm_80"), None);
        assert_eq!(needed(".version 2147483647.0"), None);
        assert_eq!(needed(".version 7.2147483647"), None);
        for kernel in KERNELS {
            assert!(needed(kernel.ptx) >= Some(11_040), "{}", kernel.entry);
        }
    }
}
