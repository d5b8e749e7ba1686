//! Without a driver library both CUDA drivers are error values. The program links `cust` and still starts:
//! nothing here calls it.
#![cfg(any(feature = "cust", feature = "cudarc"))]

use pagedptx::Error;
use pagedptx::driver::CudaDriver;

/// Where there is a driver the refusals of tests/fake_cuda.rs apply, and this shows only that nothing panics.
fn refused_or_there<L>() {
    match CudaDriver::<L>::new(0) {
        Ok(driver) => assert!(!driver.raw_context().is_null()),
        Err(Error::Unsupported { what }) if what.starts_with("no CUDA driver library: ") => {
            assert!(what.contains("libcuda.so.1"), "{what}");
            eprintln!("{what}");
        }
        Err(Error::Unsupported { .. } | Error::Driver { .. }) => {
            eprintln!("there is a driver, which refuses");
        }
        Err(error) => panic!("another kind of error: {error}"),
    }
}

#[test]
#[cfg(feature = "cust")]
fn cust_without_a_driver_is_an_error() {
    refused_or_there::<pagedptx::driver::Cust>();
}

#[test]
#[cfg(feature = "cudarc")]
fn cudarc_without_a_driver_is_an_error() {
    refused_or_there::<pagedptx::driver::Cudarc>();
}
