#![doc = include_str!("../README.md")]
#![deny(missing_docs, missing_debug_implementations)]

/// `Debug` of a type, by some of its fields: what its parameters and the others are need not be shown.
macro_rules! debug {
    ([$($generics:tt)*] $name:ident<$($argument:tt),*> { $($field:ident),* }) => {
        impl<$($generics)*> core::fmt::Debug for $name<$($argument),*> {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let mut shown = f.debug_struct(stringify!($name));
                $(shown.field(stringify!($field), &self.$field);)*
                shown.finish_non_exhaustive()
            }
        }
    };
}

mod allocator;
mod append;
mod buffer;
mod decode;
mod device;
mod device_tables;
mod error;
mod graph;
mod launch;
mod plan;
mod pool;
mod tables;
mod types;

pub mod driver;
pub mod kernels;
pub mod raw;

pub use allocator::BlockAllocator;
pub use append::append;
pub use buffer::Buffer;
pub use decode::{DecodeArgs, DecodePlan, decode, decode_checked};
pub use device::{Device, Stream};
pub use device_tables::DeviceTables;
pub use driver::{DeviceProperties, Driver, LaunchShape};
pub use error::{Error, Result, TableEntry};
pub use graph::Graph;
pub use pool::{KvPool, PoolShape};
pub use tables::{BlockTables, Sequence, SlotMapping};
pub use types::{DeviceAddress, Dtype, Element};
