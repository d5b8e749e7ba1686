//! Attention over a paged KV cache.
#![deny(missing_docs)]

mod error;
mod types;

pub mod driver;

pub use driver::{DeviceProperties, Driver, LaunchShape};
pub use error::{Error, Result};
pub use types::{DeviceAddress, Dtype, Element};
