//! A CPU machine for PTX that checks every access.
//!
//! [`Module::parse`] reads PTX text, strictly: what it does not know is an error that names file and
//! line. A [`Device`] has memory of its own; [`Device::launch`] runs an entry over a grid and gives
//! back either [`Counters`] or the [`Finding`] that ended it: an access out of bounds, a read of
//! something that nobody has written, a barrier that only a part of the CTA reaches, with the PTX
//! line, the CTA, the warp, the lane and the address.
//!
//! ```
//! use ptx_emulator::{Device, Launch, Module};
//!
//! let module = Module::parse("double.ptx", "
//!     .version 8.0
//!     .target sm_80
//!     .address_size 64
//!     .entry double(.param .u64 data) {
//!         .reg .u64 %data, %offset;
//!         .reg .u32 %index, %value;
//!         ld.param.u64 %data, [data];
//!         mov.u32 %index, %tid.x;
//!         mul.wide.u32 %offset, %index, 4;
//!         add.u64 %data, %data, %offset;
//!         ld.global.u32 %value, [%data];
//!         add.u32 %value, %value, %value;
//!         st.global.u32 [%data], %value;
//!         ret;
//!     }")?;
//! let device = Device::new();
//! let data = device.allocate(8)?;
//! device.write(data, &[1, 0, 0, 0, 2, 0, 0, 0])?;
//! let params = data.to_le_bytes();
//! let launch = Launch { block: [2, 1, 1], params: &params, ..Launch::default() };
//! let report = device.launch(&module, "double", &launch)?;
//! let mut back = [0; 8];
//! device.read(data, &mut back)?;
//! assert_eq!(back, [2, 0, 0, 0, 4, 0, 0, 0]);
//! assert_eq!(report.counters.global_loads.bytes, 8);
//! // A third thread would read past the end.
//! let error = device.launch(&module, "double", &Launch { block: [3, 1, 1], ..launch }).unwrap_err();
//! assert!(error.to_string().contains("out-of-bounds"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is built
//!
//! | module | does |
//! |---|---|
//! | `lex`, `parse` | text to tokens to a tree |
//! | `lower` | the tree to flat instructions: `table` matches modifiers, `form` takes operands, `plan` gives registers slots and proves which reads need no check |
//! | `ops` | the operations, one file a family: table rows and what they do |
//! | `exec` | `run` schedules the lanes of a warp, `cta` the warps of a CTA, `grid` the CTAs on the cores of the host |
//! | `memory` | bytes with shadow, the device, the checks that every access shares |
//! | `checks` | the checks, each in a module of its own |
//! | `finding`, `counters` | what comes out |

mod checks;
mod counters;
mod error;
mod exec;
mod finding;
mod inspect;
mod kept;
mod launch;
mod lex;
mod lower;
mod memory;
mod module;
mod ops;
mod parse;
mod random;
#[allow(dead_code)]
mod tensor;
#[cfg(test)]
mod testing;
mod types;

pub use counters::{Count, Counters, InstructionClass, SharedTraffic, Traffic};
pub use error::{LaunchError, MemoryError, ParseError};
pub use finding::{Finding, FindingKind, Note, Site};
pub use inspect::{EntryInfo, Inspection, ParamInfo, inspect};
pub use launch::{Checks, Launch, MmaMode, Report};
pub use memory::device::Device;
pub use module::Module;
pub use types::Type;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
