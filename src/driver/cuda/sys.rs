//! The CUDA driver's functions, resolved at run time and called with plain integer results.
//!
//! Bindings that return a Rust enum are undefined behaviour the day the driver returns a code that
//! the enum lacks (those of `cust` stop at CUDA 11.4), and bindings that resolve a symbol on first use
//! panic where it is missing. Here every code is an `i32`, and every symbol is looked up once, when the
//! library is loaded.

use core::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong, c_void};

use libloading::Library;
use once_cell::sync::OnceCell;

use crate::error::{Error, Result};

/// A result code of the driver, `CUresult`: 0 is success, any other value may occur.
pub(crate) type Code = c_int;

/// An opaque object of the driver: a context, stream, module, function, event or graph.
pub(crate) type Handle = *mut c_void;

pub(crate) const OUT_OF_MEMORY: Code = 2;
pub(crate) const STUB_LIBRARY: Code = 34;
pub(crate) const NO_DEVICE: Code = 100;
pub(crate) const UNSUPPORTED_PTX_VERSION: Code = 222;
pub(crate) const NOT_READY: Code = 600;

/// `CU_EVENT_DISABLE_TIMING`.
pub(crate) const DISABLE_TIMING: c_uint = 2;

/// Oldest driver that is supported, as `cuDriverGetVersion` counts (1000 * major + 10 * minor): the
/// kernels' PTX is version 7.4, which CUDA 11.4 introduced.
const MIN_VERSION: c_int = 11_040;

/// A call that did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The driver function.
    pub operation: &'static str,
    /// Its result.
    pub code: Code,
}

impl From<Failure> for Error {
    fn from(Failure { operation, code }: Failure) -> Self {
        let message = match API.get() {
            Some(api) => api.describe(code),
            None => format!("code {code}"),
        };
        Self::Driver { operation, message }
    }
}

/// `CUlaunchConfig`.
#[repr(C)]
pub(crate) struct LaunchConfig {
    pub grid: [c_uint; 3],
    pub block: [c_uint; 3],
    pub shared_bytes: c_uint,
    pub stream: Handle,
    pub attributes: *mut LaunchAttribute,
    pub num_attributes: c_uint,
}

/// `CUlaunchAttribute`.
#[repr(C)]
pub(crate) struct LaunchAttribute {
    pub id: c_uint,
    pub padding: [u8; 4],
    /// A union of 64 bytes.
    pub value: [u32; 16],
}

/// Declares the table of functions and a method for each: `name: "symbol"(arguments)`. Optional
/// functions may be missing from a supported driver.
macro_rules! functions {
    (
        required { $($name:ident: $symbol:literal($($arg:ident: $type:ty),* $(,)?);)* }
        optional { $($optional:ident: $optional_symbol:literal($($optional_type:ty),* $(,)?);)* }
    ) => {
        /// The functions of a loaded driver library.
        pub(crate) struct Api {
            $($name: unsafe extern "system" fn($($type),*) -> Code,)*
            $(pub $optional: Option<unsafe extern "system" fn($($optional_type),*) -> Code>,)*
        }

        impl Api {
            $(
                /// Calls the function of this name.
                ///
                /// # Safety
                ///
                /// As the driver's reference demands of the arguments.
                #[allow(clippy::too_many_arguments)] // the driver's own number
                pub unsafe fn $name(&self, $($arg: $type),*) -> Result<(), Failure> {
                    // SAFETY: the caller's promise; the pointer was resolved under this name (`resolve`).
                    let code = unsafe { (self.$name)($($arg),*) };
                    if code == 0 { Ok(()) } else { Err(Failure { operation: $symbol, code }) }
                }
            )*

            /// Looks every function up.
            ///
            /// # Safety
            ///
            /// `library` is a CUDA driver, whose functions have the types declared here, and stays loaded.
            unsafe fn resolve(library: &Library, version: c_int) -> Result<Self> {
                Ok(Self {
                    $(
                        // SAFETY: the caller's promise.
                        $name: unsafe { symbol(library, $symbol) }.ok_or_else(|| Error::Unsupported {
                            what: format!("the CUDA driver ({}) has no {}", dotted(version), $symbol),
                        })?,
                    )*
                    $(
                        // SAFETY: the caller's promise.
                        $optional: unsafe { symbol(library, $optional_symbol) },
                    )*
                })
            }
        }
    };
}

functions! {
    required {
        driver_version: "cuDriverGetVersion"(version: *mut c_int);
        init: "cuInit"(flags: c_uint);
        error_name: "cuGetErrorName"(code: Code, name: *mut *const c_char);
        error_string: "cuGetErrorString"(code: Code, text: *mut *const c_char);
        device_count: "cuDeviceGetCount"(count: *mut c_int);
        device: "cuDeviceGet"(device: *mut c_int, ordinal: c_int);
        device_name: "cuDeviceGetName"(name: *mut c_char, len: c_int, device: c_int);
        device_attribute: "cuDeviceGetAttribute"(value: *mut c_int, attribute: c_int, device: c_int);
        retain_primary: "cuDevicePrimaryCtxRetain"(context: *mut Handle, device: c_int);
        release_primary: "cuDevicePrimaryCtxRelease_v2"(device: c_int);
        current_context: "cuCtxGetCurrent"(context: *mut Handle);
        current_device: "cuCtxGetDevice"(device: *mut c_int);
        push_context: "cuCtxPushCurrent_v2"(context: Handle);
        pop_context: "cuCtxPopCurrent_v2"(context: *mut Handle);
        create_stream: "cuStreamCreate"(stream: *mut Handle, flags: c_uint);
        destroy_stream: "cuStreamDestroy_v2"(stream: Handle);
        synchronize_stream: "cuStreamSynchronize"(stream: Handle);
        begin_capture: "cuStreamBeginCapture_v2"(stream: Handle, mode: c_int);
        end_capture: "cuStreamEndCapture"(stream: Handle, graph: *mut Handle);
        is_capturing: "cuStreamIsCapturing"(stream: Handle, status: *mut c_int);
        instantiate_graph: "cuGraphInstantiateWithFlags"(exec: *mut Handle, graph: Handle, flags: c_ulonglong);
        destroy_graph: "cuGraphDestroy"(graph: Handle);
        launch_graph: "cuGraphLaunch"(exec: Handle, stream: Handle);
        destroy_graph_exec: "cuGraphExecDestroy"(exec: Handle);
        allocate: "cuMemAlloc_v2"(address: *mut u64, bytes: usize);
        free: "cuMemFree_v2"(address: u64);
        allocate_async: "cuMemAllocAsync"(address: *mut u64, bytes: usize, stream: Handle);
        free_async: "cuMemFreeAsync"(address: u64, stream: Handle);
        allocate_host: "cuMemHostAlloc"(pointer: *mut *mut c_void, bytes: usize, flags: c_uint);
        free_host: "cuMemFreeHost"(pointer: *mut c_void);
        copy_to_device: "cuMemcpyHtoDAsync_v2"(dst: u64, src: *const c_void, bytes: usize, stream: Handle);
        copy_to_host: "cuMemcpyDtoHAsync_v2"(dst: *mut c_void, src: u64, bytes: usize, stream: Handle);
        copy_within_device: "cuMemcpyDtoDAsync_v2"(dst: u64, src: u64, bytes: usize, stream: Handle);
        fill: "cuMemsetD8Async"(dst: u64, value: u8, bytes: usize, stream: Handle);
        create_event: "cuEventCreate"(event: *mut Handle, flags: c_uint);
        destroy_event: "cuEventDestroy_v2"(event: Handle);
        record_event: "cuEventRecord"(event: Handle, stream: Handle);
        query_event: "cuEventQuery"(event: Handle);
        synchronize_event: "cuEventSynchronize"(event: Handle);
        elapsed: "cuEventElapsedTime"(milliseconds: *mut f32, start: Handle, end: Handle);
        load_module: "cuModuleLoadDataEx"(
            module: *mut Handle,
            image: *const c_void,
            num_options: c_uint,
            options: *mut c_int,
            values: *mut *mut c_void,
        );
        unload_module: "cuModuleUnload"(module: Handle);
        function: "cuModuleGetFunction"(function: *mut Handle, module: Handle, name: *const c_char);
        function_attribute: "cuFuncGetAttribute"(value: *mut c_int, attribute: c_int, function: Handle);
        set_function_attribute: "cuFuncSetAttribute"(function: Handle, attribute: c_int, value: c_int);
        launch: "cuLaunchKernel"(
            function: Handle,
            grid_x: c_uint,
            grid_y: c_uint,
            grid_z: c_uint,
            block_x: c_uint,
            block_y: c_uint,
            block_z: c_uint,
            shared_bytes: c_uint,
            stream: Handle,
            params: *mut *mut c_void,
            extra: *mut *mut c_void,
        );
    }
    optional {
        launch_with_attributes: "cuLaunchKernelEx"(
            *const LaunchConfig,
            Handle,
            *mut *mut c_void,
            *mut *mut c_void,
        );
    }
}

/// The one driver of the process. It is never unloaded: streams and modules may be in use until the end.
static API: OnceCell<Api> = OnceCell::new();

/// Names of the driver library, in the order tried.
#[cfg(windows)]
const LIBRARIES: &[&str] = &["nvcuda.dll"];
#[cfg(not(windows))]
const LIBRARIES: &[&str] = &["libcuda.so.1", "libcuda.so"];

impl Api {
    /// The driver, loaded and initialised on first use.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if there is no driver library, no device, or the driver is too old;
    /// [`Error::Driver`] for any other reason of the driver's to refuse.
    pub fn get() -> Result<&'static Self> {
        let api = API.get_or_try_init(|| Self::load(LIBRARIES))?;
        expect_recent(api.version()?)?;
        // SAFETY: no condition but the flags being 0.
        match unsafe { api.init(0) } {
            Ok(()) => Ok(api),
            Err(Failure { code: NO_DEVICE, .. }) => Err(Error::Unsupported {
                what: format!("no CUDA device: {}", api.describe(NO_DEVICE)),
            }),
            Err(Failure { code: STUB_LIBRARY, .. }) => Err(Error::Unsupported {
                what: format!(
                    "the CUDA library found is a stub for linking, not a driver: {}",
                    api.describe(STUB_LIBRARY)
                ),
            }),
            Err(failure) => Err(failure.into()),
        }
    }

    fn load(names: &[&str]) -> Result<Self> {
        let mut reasons = Vec::new();
        for name in names {
            // SAFETY: the driver's initialisers have no conditions on the process; whatever else bears its
            // name could as well have been preloaded.
            match unsafe { Library::new(*name) } {
                // The table outlives every unloading: a driver is never unloaded, see `API`.
                Ok(library) => return Self::from_library(Box::leak(Box::new(library))),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                    reasons.push(format!("{name}: {error}{}", cause.unwrap_or_default()));
                }
            }
        }
        Err(Error::Unsupported { what: format!("no CUDA driver library: {}", reasons.join("; ")) })
    }

    fn from_library(library: &'static Library) -> Result<Self> {
        let mut version = 0;
        // SAFETY: the function of this name has this type in every CUDA driver, and may be called before cuInit.
        let code = unsafe {
            let get: unsafe extern "system" fn(*mut c_int) -> Code =
                symbol(library, "cuDriverGetVersion").ok_or_else(|| Error::Unsupported {
                    what: "the CUDA driver library has no cuDriverGetVersion".to_owned(),
                })?;
            get(&mut version)
        };
        if code != 0 {
            return Err(Failure { operation: "cuDriverGetVersion", code }.into());
        }
        expect_recent(version)?;
        // SAFETY: the library answers as a CUDA driver, and is never unloaded.
        unsafe { Self::resolve(library, version) }
    }

    /// The newest CUDA version that the driver supports, as `cuDriverGetVersion` counts.
    pub fn version(&self) -> Result<c_int, Failure> {
        let mut version = 0;
        // SAFETY: one valid pointer.
        unsafe { self.driver_version(&mut version) }?;
        Ok(version)
    }

    /// Name, number and text of a result code.
    pub fn describe(&self, code: Code) -> String {
        let (mut name, mut text) = (core::ptr::null(), core::ptr::null());
        // SAFETY: valid pointers. A lookup writes a string that lives as long as the driver, or fails (or writes null)
        // for a code that it does not know.
        let known = unsafe {
            let known = self.error_name(code, &mut name).is_ok()
                && self.error_string(code, &mut text).is_ok();
            (known && !name.is_null() && !text.is_null())
                .then(|| (CStr::from_ptr(name), CStr::from_ptr(text)))
        };
        match known {
            Some((name, text)) => {
                format!("{} ({code}): {}", name.to_string_lossy(), text.to_string_lossy())
            }
            None => format!("code {code}, which the driver itself does not name"),
        }
    }
}

/// Looks a function up.
///
/// # Safety
///
/// If the library has a function of that name, its type is `F`.
unsafe fn symbol<F: Copy>(library: &Library, name: &str) -> Option<F> {
    // SAFETY: the caller's promise.
    unsafe { library.get::<F>(name.as_bytes()) }.ok().map(|symbol| *symbol)
}

fn expect_recent(version: c_int) -> Result<()> {
    if version >= MIN_VERSION {
        return Ok(());
    }
    let (has, needs) = (dotted(version), dotted(MIN_VERSION));
    Err(Error::Unsupported {
        what: format!("the driver supports CUDA {has}, the kernels need {needs} or later"),
    })
}

/// A version as people write it.
pub(crate) fn dotted(version: c_int) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let error = Api::load(&["libno-such-cuda.so.1"]).err().expect("there is no such library");
        let Error::Unsupported { what } = error else { panic!("{error}") };
        assert!(what.starts_with("no CUDA driver library: "), "{what}");
        assert!(what.contains("libno-such-cuda.so.1"), "{what}");
    }

    #[test]
    fn a_library_that_is_no_driver_is_an_error() {
        let no_driver = if cfg!(windows) { "kernel32.dll" } else { "libc.so.6" };
        let error = Api::load(&[no_driver]).err().expect("the C library is no CUDA driver");
        assert!(error.to_string().contains("cuDriverGetVersion"), "{error}");
    }

    #[test]
    fn structures_have_the_drivers_layout() {
        assert_eq!(core::mem::offset_of!(LaunchConfig, stream), 32);
        assert_eq!(core::mem::offset_of!(LaunchConfig, num_attributes), 48);
        assert_eq!(size_of::<LaunchConfig>(), 56);
        assert_eq!(core::mem::offset_of!(LaunchAttribute, value), 8);
        assert_eq!(size_of::<LaunchAttribute>(), 72);
    }
}
