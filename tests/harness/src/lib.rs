//! What the tests, benches, examples and fuzz targets of `pagedptx` share: recorded and drawn problems,
//! a dense reference in f64, error bounds, and the emulator as a driver.
//!
//! The judge shares no code with the judged: [`mod@reference`] and [`dtype`] import nothing of the crate.
#![deny(missing_docs)]
// Shapes such as [num_seqs] are no links.
#![allow(rustdoc::broken_intra_doc_links)]
#![deny(unsafe_code)]

pub mod bounds;
pub mod call;
pub mod cases;
pub mod counting;
pub mod draw;
pub mod dtype;
pub mod problem;
pub mod reference;
pub mod runner;

// An implementation of `Driver` is a promise, so it is `unsafe`.
#[allow(unsafe_code)]
mod emulator_driver;
#[allow(unsafe_code)]
mod watched;

pub use emulator_driver::{EmulatorDriver, EmulatorKernel, Options as EmulatorOptions, Rewrite};
pub use watched::{Watch, Watched};
