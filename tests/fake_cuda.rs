//! The CUDA drivers on a simulated driver library (tests/fake_cuda/fake_cuda.c), which runs nothing early and counts
//! what no driver call may do. Each test runs for the `cust` and for the `cudarc` driver.
//!
//! `ci/drivers.sh` builds the library and runs these tests; where it is not loaded they are skipped, unless
//! `PAGEDPTX_FAKE_CUDA=required`.
#![cfg(all(feature = "cust", feature = "cudarc"))]

use std::ffi::{CStr, CString, c_char, c_long, c_void};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libloading::Library;
use pagedptx::driver::{
    CudaDriver, CudaKernel, CudaStream, Cudarc, CudarcDriver, Cust, CustDriver, Driver, Events,
    Graphs, LaunchShape,
};
use pagedptx::{Buffer, Device, DeviceAddress, Error};

/// The simulated driver, reset, for one test at a time; at the end nothing forbidden may have been done.
struct Fake {
    library: Library,
    _alone: MutexGuard<'static, ()>,
}

/// What the last launch was given.
#[derive(Debug, PartialEq)]
struct Launched {
    /// Grid, CTA, dynamic shared memory, id of the one attribute (0: none), its value.
    numbers: [u32; 9],
    params: Vec<u8>,
}

impl Fake {
    fn load() -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: a CUDA driver or the simulation of one.
        let library = unsafe { Library::new("libcuda.so.1") }.ok();
        let library = library.filter(|library| {
            // SAFETY: looked up only.
            unsafe { library.get::<unsafe extern "C" fn()>("fake_reset") }.is_ok()
        });
        let Some(library) = library else {
            assert_ne!(
                std::env::var("PAGEDPTX_FAKE_CUDA").as_deref(),
                Ok("required"),
                "the simulated CUDA driver is not loaded"
            );
            eprintln!("skipped: libcuda.so.1 is not the simulated driver (see ci/drivers.sh)");
            return None;
        };
        // SAFETY: fake_reset takes nothing.
        unsafe { library.get::<unsafe extern "C" fn()>("fake_reset").unwrap()() };
        Some(Self { library, _alone: alone })
    }

    fn call(&self, function: &str, name: &str, value: i64) {
        let name = CString::new(name).unwrap();
        // SAFETY: fake_set and fake_fail have this type.
        unsafe {
            let set: libloading::Symbol<'_, unsafe extern "C" fn(*const c_char, c_long)> =
                self.library.get(function).unwrap();
            set(name.as_ptr(), value);
        }
    }

    fn set(&self, name: &str, value: i64) {
        self.call("fake_set", name, value);
    }

    /// Has every call of a function fail with this code, 0 to end that.
    fn fail(&self, function: &str, code: i64) {
        self.call("fake_fail", function, code);
    }

    fn get(&self, name: &str) -> i64 {
        let name = CString::new(name).unwrap();
        // SAFETY: fake_get has this type.
        unsafe {
            let get: libloading::Symbol<'_, unsafe extern "C" fn(*const c_char) -> c_long> =
                self.library.get("fake_get").unwrap();
            get(name.as_ptr())
        }
    }

    fn last_launch(&self) -> Launched {
        let mut numbers = [0; 9];
        let mut params = vec![0; 256];
        // SAFETY: fake_last_launch has this type, writes nine numbers and at most the bytes given.
        let bytes = unsafe {
            type Get = unsafe extern "C" fn(*mut u32, *mut u8, usize) -> usize;
            let get: libloading::Symbol<'_, Get> = self.library.get("fake_last_launch").unwrap();
            get(numbers.as_mut_ptr(), params.as_mut_ptr(), params.len())
        };
        params.truncate(bytes);
        Launched { numbers, params }
    }

    fn violations(&self) -> (i64, String) {
        let mut text = [0; 256];
        // SAFETY: fake_violations has this type and writes a terminated text.
        unsafe {
            type Get = unsafe extern "C" fn(*mut c_char, usize) -> c_long;
            let get: libloading::Symbol<'_, Get> = self.library.get("fake_violations").unwrap();
            let count = get(text.as_mut_ptr(), text.len());
            (count, CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned())
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.violations(), (0, String::new()));
        }
    }
}

/// A test for both drivers.
macro_rules! both {
    ($($(#[$doc:meta])* fn $name:ident($fake:ident: &Fake) $body:block)*) => {
        mod generic {
            use super::*;
            $($(#[$doc])* pub fn $name<L>($fake: &Fake) $body)*
        }
        mod cust {
            use super::*;
            $(#[test] fn $name() { if let Some(fake) = Fake::load() { generic::$name::<Cust>(&fake) } })*
        }
        mod cudarc {
            use super::*;
            $(#[test] fn $name() { if let Some(fake) = Fake::load() { generic::$name::<Cudarc>(&fake) } })*
        }
    };
}

/// Launches `touch` with a parameter that names no memory.
fn launch_nothing<L>(driver: &CudaDriver<L>, stream: &CudaStream, kernel: &CudaKernel) {
    // SAFETY: the kernel touches nothing that its parameter does not name.
    unsafe { driver.launch(stream, kernel, &ONE_CTA, &[0; 16]) }.unwrap();
}

const PTX: &str = "\
.version 7.4
.target sm_80
.address_size 64
.visible .entry touch(.param .align 8 .b8 params[16]) { ret; }
";

const ONE_CTA: LaunchShape = LaunchShape {
    grid: [3, 2, 1],
    block: [64, 1, 1],
    dynamic_shared_bytes: 0,
    overlaps_previous: false,
};

fn unsupported<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Unsupported { what }) => what,
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("no error"),
    }
}

fn message<T>(result: Result<T, Error>) -> String {
    result.err().expect("an error").to_string()
}

fn bytes_of(addresses: [DeviceAddress; 2]) -> Vec<u8> {
    addresses.iter().flat_map(|address| address.0.to_ne_bytes()).collect()
}

both! {
    /// What is missing is said, with what was found and what is needed.
    fn refusals_say_why(fake: &Fake) {
        fake.fail("cuInit", 100);
        let what = unsupported(CudaDriver::<L>::new(0));
        assert_eq!(what, "no CUDA device: CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected");
        fake.fail("cuInit", 34);
        assert!(unsupported(CudaDriver::<L>::new(0)).contains("is a stub for linking, not a driver"));
        fake.fail("cuInit", 0);
        fake.set("device_count", 0);
        assert_eq!(unsupported(CudaDriver::<L>::new(0)), "no CUDA device: the driver counts 0");
        fake.set("device_count", 2);
        let error = CudaDriver::<L>::new(2).unwrap_err();
        assert_eq!(error, Error::TooLarge { what: "the device's number", value: 2, limit: 1 });
        fake.set("driver_version", 11_020);
        let what = unsupported(CudaDriver::<L>::new(0));
        assert_eq!(what, "the driver supports CUDA 11.2, the kernels need 11.4 or later");
        assert_eq!(fake.get("retained"), 0);
    }

    /// A code that no header lists is an error value like any other.
    fn a_code_from_the_future_is_an_error(fake: &Fake) {
        fake.fail("cuInit", 4711);
        let text = message(CudaDriver::<L>::new(0));
        assert_eq!(text, "cuInit: code 4711, which the driver itself does not name");
        fake.fail("cuInit", 0);
        fake.fail("cuDevicePrimaryCtxRetain", 46);
        assert!(message(CudaDriver::<L>::new(0)).starts_with("cuDevicePrimaryCtxRetain: code 46"));
    }

    /// The crate's kernels need sm_80.
    fn an_older_device_is_refused(fake: &Fake) {
        fake.set("major", 7);
        fake.set("minor", 5);
        let driver = CudaDriver::<L>::new(1).unwrap();
        let what = unsupported(Device::new(driver));
        assert_eq!(what, "Fake device 1 has compute capability 7.5, at least 8.0 is needed");
    }

    /// The context is retained once and released with the last value that needs it.
    fn the_context_is_released(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let stream = driver.create_stream().unwrap();
        let clone = driver.clone();
        drop(driver);
        assert_eq!(clone.properties().name, "Fake device 0");
        assert_eq!(clone.properties().num_multiprocessors, 132);
        drop(clone);
        assert_eq!(fake.get("retained"), 1);
        drop(stream);
        assert_eq!((fake.get("retained"), fake.get("live_streams")), (0, 0));
    }

    /// Bytes arrive whatever their number, though the source is overwritten as soon as the call returns and nothing has
    /// run yet; they never come from the caller's memory (the simulation would count that).
    fn writes_have_read_their_source(fake: &Fake) {
        let device = Device::new(CudaDriver::<L>::new(0).unwrap()).unwrap();
        let stream = device.stream().unwrap();
        for len in [1, 3, 4096, (1 << 20) + 1, (9 << 20) + 5] {
            let mut buffer = Buffer::<_, u8>::uninit(&stream, len).unwrap();
            let expected: Vec<u8> = (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
            let mut source = expected.clone();
            buffer.write(&source).unwrap();
            source.fill(0xEE);
            assert!(buffer.to_vec().unwrap() == expected, "{len} bytes");
        }
        drop(stream);
        drop(device);
        assert_eq!((fake.get("live_device"), fake.get("live_host")), (0, 0));
        assert_eq!((fake.get("live_events"), fake.get("retained")), (0, 0));
    }

    /// Many small writes in a row wait for nothing: the staging ring takes them all.
    fn small_writes_do_not_wait(fake: &Fake) {
        let device = Device::new(CudaDriver::<L>::new(0).unwrap()).unwrap();
        let stream = device.stream().unwrap();
        let mut buffers: Vec<_> =
            (0..64).map(|_| Buffer::<_, u32>::uninit(&stream, 1000).unwrap()).collect();
        for (i, buffer) in buffers.iter_mut().enumerate() {
            buffer.write(&[i as u32; 1000]).unwrap();
        }
        assert_eq!(fake.get("event_waits"), 0);
        for (i, buffer) in buffers.iter().enumerate() {
            assert_eq!(buffer.to_vec().unwrap(), [i as u32; 1000]);
        }
    }

    /// A drop right behind a launch frees behind it: the simulated kernel looks at its addresses when it runs.
    fn a_drop_frees_behind_the_launch(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let device = Device::new(driver.clone()).unwrap();
        let stream = device.stream().unwrap();
        let kernel = driver.load("touch", PTX).unwrap();
        let (a, b) = (Buffer::<_, u8>::uninit(&stream, 8), Buffer::<_, u8>::uninit(&stream, 8));
        let (a, b) = (a.unwrap(), b.unwrap());
        let params = bytes_of([a.address(), b.address()]);
        // SAFETY: the buffers live until after the launch, on this stream.
        unsafe { driver.launch(stream.raw(), &kernel, &ONE_CTA, &params) }.unwrap();
        drop((a, b));
        assert_eq!((fake.get("launches_run"), fake.get("live_device")), (0, 2));
        stream.synchronize().unwrap();
        assert_eq!((fake.get("launches_run"), fake.get("live_device")), (1, 0));
        let expected = Launched { numbers: [3, 2, 1, 64, 1, 1, 0, 0, 0], params };
        assert_eq!(fake.last_launch(), expected);
    }

    /// Without memory pools a free waits for the stream; what was launched before still finds its memory.
    fn without_pools_frees_wait(fake: &Fake) {
        fake.set("pools", 0);
        let driver = CudaDriver::<L>::new(0).unwrap();
        let device = Device::new(driver.clone()).unwrap();
        let stream = device.stream().unwrap();
        let kernel = driver.load("touch", PTX).unwrap();
        let a = Buffer::<_, u8>::uninit(&stream, 8).unwrap();
        let params = bytes_of([a.address(), a.address()]);
        // SAFETY: the buffer lives until after the launch, on this stream.
        unsafe { driver.launch(stream.raw(), &kernel, &ONE_CTA, &params) }.unwrap();
        drop(a);
        assert_eq!((fake.get("launches_run"), fake.get("live_device")), (1, 0));
    }

    /// Too little memory is an error of its own.
    fn out_of_memory_says_how_much(fake: &Fake) {
        let device = Device::new(CudaDriver::<L>::new(0).unwrap()).unwrap();
        let stream = device.stream().unwrap();
        fake.set("memory_limit", 1 << 30);
        let error = Buffer::<_, f32>::uninit(&stream, 1 << 30).err();
        assert_eq!(error, Some(Error::OutOfMemory { bytes: 4 << 30 }));
    }

    /// A text that the driver does not assemble: its log is in the error. A text that it does not know: the versions are.
    fn loading_says_what_the_assembler_said(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        fake.set("jit", 218);
        assert_eq!(
            message(driver.load("touch", PTX)),
            "cuModuleLoadDataEx: touch: CUDA_ERROR_INVALID_PTX (218): a PTX JIT compilation failed\n\
             ptxas application ptx input, line 7; fatal : made up"
        );
        fake.set("jit", 222);
        let what = unsupported(driver.load("touch", PTX));
        assert!(what.starts_with("touch is PTX version 7.4, the driver supports CUDA 12.4"), "{what}");
        fake.set("jit", 0);
        let newer = ".version 9.0\n.visible .entry touch(.param .align 8 .b8 params[16]) { ret; }";
        let what = unsupported(driver.load("touch", newer));
        assert!(what.starts_with("touch is PTX version 9.0, the driver supports CUDA 12.4"), "{what}");
        fake.fail("cuModuleGetFunction", 500);
        assert!(message(driver.load("touch", PTX)).contains("cuModuleGetFunction"));
        assert_eq!(fake.get("live_modules"), 0);
    }

    /// Every kernel that ships is loaded and gets the shared memory of the device.
    fn every_kernel_loads(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        for kernel in pagedptx::kernels::KERNELS {
            driver.load(kernel.entry, kernel.ptx).unwrap();
        }
        assert_eq!(fake.get("live_modules"), 0);
    }

    /// The parameter's length, and the shared memory asked for, are checked before the driver sees them.
    fn launches_are_checked(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let stream = driver.create_stream().unwrap();
        let kernel = driver.load("touch", PTX).unwrap();
        let launch = |dynamic_shared_bytes, params: &[u8]| {
            let shape = LaunchShape { dynamic_shared_bytes, ..ONE_CTA };
            // SAFETY: the kernel touches nothing.
            unsafe { driver.launch(&stream, &kernel, &shape, params) }
        };
        let what = "bytes of the kernel's parameter";
        assert_eq!(launch(0, &[0; 12]), Err(Error::Mismatch { what, got: 12, expected: 16 }));
        // The device's 232,448 bytes less the 1,024 that the kernel declares.
        launch(231_424, &[0; 16]).unwrap();
        let what = "dynamic shared memory";
        let error = Error::TooLarge { what, value: 231_425, limit: 231_424 };
        assert_eq!(launch(231_425, &[0; 16]), Err(error));
        assert_eq!(fake.get("launches"), 1);
        assert_eq!(fake.last_launch().numbers[6], 231_424);
    }

    /// Programmatic dependent launch is asked for where the device has it, and left out where it does not.
    fn overlap_is_asked_for_where_it_exists(fake: &Fake) {
        let shape = LaunchShape { overlaps_previous: true, ..ONE_CTA };
        for (major, attribute, value) in [(9, 6, 1), (8, 0, 0)] {
            fake.set("major", major);
            let driver = CudaDriver::<L>::new(0).unwrap();
            let stream = driver.create_stream().unwrap();
            let kernel = driver.load("touch", PTX).unwrap();
            // SAFETY: the kernel touches nothing.
            unsafe { driver.launch(&stream, &kernel, &shape, &[7; 16]) }.unwrap();
            let numbers = [3, 2, 1, 64, 1, 1, 0, attribute, value];
            assert_eq!(fake.last_launch(), Launched { numbers, params: vec![7; 16] });
        }
    }

    /// After a fault every call is an error, and dropping everything is quiet.
    fn a_fault_is_an_error_from_then_on(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let device = Device::new(driver.clone()).unwrap();
        let stream = device.stream().unwrap();
        let kernel = driver.load("touch", PTX).unwrap();
        let mut buffer = Buffer::from_slice(&stream, &[1_u8; 64]).unwrap();
        fake.set("fault", 700);
        // SAFETY: the kernel touches nothing.
        unsafe { driver.launch(stream.raw(), &kernel, &ONE_CTA, &[0; 16]) }.unwrap();
        assert!(message(stream.synchronize()).contains("CUDA_ERROR_ILLEGAL_ADDRESS (700)"));
        assert!(message(buffer.write(&[0; 64])).contains("(700)"));
        assert!(message(buffer.to_vec()).contains("(700)"));
        assert!(message(Buffer::<_, u8>::uninit(&stream, 1).map(drop)).contains("(700)"));
    }

    /// Any thread may use any of it; the context is current for the call only, and another that was current stays.
    fn any_thread(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let other = CudaDriver::<L>::new(1).unwrap();
        let device = Device::new(driver.clone()).unwrap();
        let stream = device.stream().unwrap();
        let mut buffer = Buffer::from_slice(&stream, &[1_u32, 2, 3]).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| buffer.write(&[4, 5, 6]).unwrap());
        });
        let read = std::thread::scope(|scope| scope.spawn(|| buffer.to_vec().unwrap()).join().unwrap());
        assert_eq!(read, [4, 5, 6]);
        // SAFETY: the functions have these types.
        unsafe {
            let set: libloading::Symbol<'_, unsafe extern "C" fn(*mut c_void) -> i32> =
                fake.library.get("cuCtxSetCurrent").unwrap();
            let get: libloading::Symbol<'_, unsafe extern "C" fn(*mut *mut c_void) -> i32> =
                fake.library.get("cuCtxGetCurrent").unwrap();
            set(other.raw_context());
            assert_eq!(buffer.to_vec().unwrap(), [4, 5, 6]);
            let mut current = std::ptr::null_mut();
            get(&mut current);
            assert_eq!(current, other.raw_context());
            set(std::ptr::null_mut());
        }
    }

    /// A stream of another device is refused, not used.
    fn streams_of_another_device_are_refused(fake: &Fake) {
        let (one, two) = (CudaDriver::<L>::new(0).unwrap(), CudaDriver::<L>::new(1).unwrap());
        let stream = two.create_stream().unwrap();
        let error = Error::OtherStream { what: "a stream of another device" };
        assert_eq!(one.allocate(&stream, 16), Err(error.clone()));
        assert_eq!(one.synchronize(&stream), Err(error));
        assert_eq!(fake.get("live_device"), 0);
    }

    /// A stream that somebody else made is used and left alone.
    fn foreign_streams_are_not_destroyed(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let owner = driver.create_stream().unwrap();
        // SAFETY: a live stream of this context.
        let foreign = unsafe { driver.stream_from_raw(owner.as_raw()) };
        let address = driver.allocate(&foreign, 64).unwrap();
        let mut read = [0; 64];
        // SAFETY: all of the allocation, freed once.
        unsafe {
            driver.write(&foreign, address, &[9; 64]).unwrap();
            driver.read(&foreign, address, &mut read).unwrap();
            driver.free(&foreign, address);
        }
        assert_eq!(read, [9; 64]);
        drop(foreign);
        assert_eq!(fake.get("live_streams"), 1);
        // SAFETY: the null stream is one of every context.
        let null = unsafe { driver.stream_from_raw(std::ptr::null_mut()) };
        driver.synchronize(&null).unwrap();
        drop((owner, null));
        assert_eq!(fake.get("live_streams"), 0);
    }

    /// A captured launch does not run before it is replayed; what cannot be captured is refused and touches nothing.
    fn graphs_replay_what_was_captured(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let stream = driver.create_stream().unwrap();
        let address = driver.allocate(&stream, 64).unwrap();
        driver.begin_capture(&stream).unwrap();
        // Loading is allowed meanwhile.
        let kernel = driver.load("touch", PTX).unwrap();
        let refused = |operation| Err(Error::Capturing { operation });
        // SAFETY: within the allocation, on its stream; the launch's addresses are that allocation's.
        unsafe {
            driver.launch(&stream, &kernel, &ONE_CTA, &bytes_of([address; 2])).unwrap();
            driver.fill(&stream, address, 3, 64).unwrap();
            assert_eq!(driver.write(&stream, address, &[1]), refused("a write"));
            assert_eq!(driver.read(&stream, address, &mut [0]), refused("a read"));
        }
        assert_eq!(driver.allocate(&stream, 1).map(drop), refused("allocation"));
        assert_eq!(driver.synchronize(&stream), refused("a wait"));
        assert_eq!(driver.begin_capture(&stream), refused("a capture"));
        let mut graph = driver.end_capture(&stream).unwrap();
        driver.synchronize(&stream).unwrap();
        assert_eq!(fake.get("launches_run"), 0);
        let mut read = [0; 64];
        // SAFETY: the allocation lives.
        unsafe {
            driver.replay(&stream, &mut graph).unwrap();
            driver.replay(&stream, &mut graph).unwrap();
            driver.read(&stream, address, &mut read).unwrap();
        }
        assert_eq!((fake.get("launches_run"), read), (2, [3; 64]));
        drop(graph);
        assert_eq!((fake.get("live_graphs"), fake.get("live_execs")), (0, 0));
        // SAFETY: allocated above, freed once.
        unsafe { driver.free(&stream, address) }
    }

    /// Kernels, graphs, streams and drivers that go while another stream records leave that capture as it is; code that was launched is
    /// unloaded behind the work of all streams, at the latest with its driver.
    fn drops_leave_captures_alone(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let kernel = driver.load("touch", PTX).unwrap();
        let recording = driver.create_stream().unwrap();
        driver.begin_capture(&recording).unwrap();
        {
            let other = CudaDriver::<L>::new(0).unwrap();
            let (launched, unused) = (other.load("touch", PTX).unwrap(), other.load("touch", PTX).unwrap());
            let stream = other.create_stream().unwrap();
            other.begin_capture(&stream).unwrap();
            launch_nothing(&other, &stream, &launched);
            let mut graph = other.end_capture(&stream).unwrap();
            // SAFETY: it was captured from this stream and names no memory.
            unsafe { other.replay(&stream, &mut graph) }.unwrap();
            launch_nothing(&other, &stream, &launched);
            assert_eq!(fake.get("live_modules"), 3);
            drop((graph, launched, unused));
            assert_eq!(fake.get("live_modules"), 2, "what was not launched is unloaded at once");
        }
        assert_eq!(fake.get("live_modules"), 1);
        launch_nothing(&driver, &recording, &kernel);
        drop(driver.end_capture(&recording).unwrap());
        drop((kernel, recording, driver));
        assert_eq!((fake.get("live_modules"), fake.get("live_events")), (0, 0));
    }

    /// What a stream may run when it goes in the middle of a capture is not known: it stays loaded.
    fn a_stream_that_goes_while_it_records_leaves_code_loaded(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let kernel = driver.load("touch", PTX).unwrap();
        let stream = driver.create_stream().unwrap();
        launch_nothing(&driver, &stream, &kernel);
        driver.begin_capture(&stream).unwrap();
        drop((stream, kernel, driver));
        assert_eq!(fake.get("live_modules"), 1);
    }

    /// A capture by somebody else is noticed.
    fn foreign_captures_are_noticed(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let owner = driver.create_stream().unwrap();
        // SAFETY: a live stream of this context.
        let foreign = unsafe { driver.stream_from_raw(owner.as_raw()) };
        let address = driver.allocate(&foreign, 8).unwrap();
        driver.begin_capture(&owner).unwrap();
        // SAFETY: within the allocation.
        let result = unsafe { driver.write(&foreign, address, &[1]) };
        assert_eq!(result, Err(Error::Capturing { operation: "a write" }));
        drop(driver.end_capture(&owner).unwrap());
        // SAFETY: within the allocation, and allocated above.
        unsafe {
            driver.write(&foreign, address, &[1]).unwrap();
            driver.free(&foreign, address);
        }
        assert_eq!(fake.get("live_device"), 1);
        driver.synchronize(&foreign).unwrap();
        assert_eq!(fake.get("live_device"), 0);
    }

    /// Events measure.
    fn events_measure(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let stream = driver.create_stream().unwrap();
        let start = driver.record(&stream).unwrap();
        let end = driver.record(&stream).unwrap();
        assert_eq!(driver.milliseconds_between(&start, &end), Ok(1.5));
        drop((start, end));
        assert_eq!(fake.get("live_events"), 0);
    }

    /// A graph keeps the memory that it may name, though the buffers are dropped; what came later is freed at once.
    fn a_graph_keeps_its_memory(fake: &Fake) {
        let driver = CudaDriver::<L>::new(0).unwrap();
        let device = Device::new(driver.clone()).unwrap();
        let stream = device.stream().unwrap();
        let kernel = driver.load("touch", PTX).unwrap();
        let a = Buffer::<_, u8>::uninit(&stream, 8).unwrap();
        let params = bytes_of([a.address(); 2]);
        let mut graph = stream
            .capture(|| {
                // SAFETY: the buffer lives, and the graph keeps it.
                unsafe { driver.launch(stream.raw(), &kernel, &ONE_CTA, &params) }
            })
            .unwrap();
        let b = Buffer::<_, u8>::uninit(&stream, 8).unwrap();
        drop((a, b));
        stream.synchronize().unwrap();
        assert_eq!(fake.get("live_device"), 1);
        graph.replay().unwrap();
        graph.replay().unwrap();
        drop(graph);
        stream.synchronize().unwrap();
        assert_eq!((fake.get("launches_run"), fake.get("live_device")), (2, 0));
    }

    /// A capture that ends in an error or a panic leaves the stream as it was, and frees what was dropped meanwhile.
    fn a_capture_that_fails_leaves_nothing(fake: &Fake) {
        let device = Device::new(CudaDriver::<L>::new(0).unwrap()).unwrap();
        let stream = device.stream().unwrap();
        let buffer = || Buffer::from_slice(&stream, &[1_u8; 8]).unwrap();
        let (a, b, c) = (buffer(), buffer(), buffer());
        let error = stream.capture(|| {
            drop(a);
            Buffer::<_, u8>::uninit(&stream, 8).map(drop)
        });
        assert_eq!(error.err(), Some(Error::Capturing { operation: "allocation" }));
        let panic = std::panic::AssertUnwindSafe(|| {
            let _ = stream.capture(|| {
                drop(b);
                panic!("between two launches")
            });
        });
        std::panic::catch_unwind(panic).unwrap_err();
        let inner = stream.capture(|| stream.capture(|| Ok(())).map(drop)).map(drop);
        assert_eq!(inner, Err(Error::Capturing { operation: "a capture" }));
        assert_eq!(c.to_vec().unwrap(), [1; 8]);
        assert_eq!(fake.get("live_device"), 1);
    }
}

/// Contexts and streams of `cudarc` are taken and given.
#[test]
fn cudarc_and_we_share_contexts_and_streams() {
    let Some(fake) = Fake::load() else { return };
    let context = ::cudarc::driver::CudaContext::new(1).unwrap();
    let driver = CudarcDriver::from_context(&context).unwrap();
    assert_eq!(driver.properties().name, "Fake device 1");
    assert_eq!(driver.cudarc_context().unwrap().cu_ctx(), context.cu_ctx());
    let theirs = context.new_stream().unwrap();
    // SAFETY: nobody captures it.
    let ours = unsafe { driver.stream_from(theirs.clone()) }.unwrap();
    assert_eq!(ours.as_raw(), theirs.cu_stream().cast());
    drop(theirs);
    assert_eq!(fake.get("live_streams"), 1, "kept alive by ours");
    drop(ours);
    assert_eq!(fake.get("live_streams"), 0);
    let other = ::cudarc::driver::CudaContext::new(0).unwrap();
    // SAFETY: nobody captures it.
    let refused = unsafe { driver.stream_from(other.default_stream()) };
    let error = Error::OtherStream { what: "a stream of another context" };
    assert_eq!(refused.err(), Some(error));
    drop((driver, context, other));
    assert_eq!(fake.get("retained"), 0);
}

/// Contexts and streams of `cust` are taken.
#[test]
fn cust_and_we_share_contexts_and_streams() {
    use ::cust::{context::Context, device::Device, stream::Stream, stream::StreamFlags};
    let Some(fake) = Fake::load() else { return };
    ::cust::init(::cust::CudaFlags::empty()).unwrap();
    let context = Context::new(Device::get_device(0).unwrap()).unwrap();
    let driver = CustDriver::from_context(&context).unwrap();
    assert_eq!(driver.properties().name, "Fake device 0");
    let theirs = std::sync::Arc::new(Stream::new(StreamFlags::DEFAULT, None).unwrap());
    // SAFETY: a stream of the context above, which nobody captures.
    let ours = unsafe { driver.stream_from(theirs.clone()) };
    assert_eq!(ours.as_raw(), theirs.as_inner().cast());
    drop(theirs);
    assert_eq!(fake.get("live_streams"), 1, "kept alive by ours");
    drop(ours);
    assert_eq!(fake.get("live_streams"), 0);
    drop((driver, context));
    assert_eq!(fake.get("retained"), 0);
}
