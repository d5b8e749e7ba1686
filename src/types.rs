//! Element types and device addresses.

use bytemuck::Pod;
use half::{bf16, f16};

/// Type of the elements of a query, an output or a KV pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: binary32 without its low 16 bits.
    Bf16,
}

impl Dtype {
    /// Name as it stands in entry names: `f32`, `f16`, `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// Bytes of one element.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }
}

impl core::fmt::Display for Dtype {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

mod sealed {
    pub trait Sealed {}
}

/// An element type that kernels read and write: `f32`, [`struct@f16`], [`struct@bf16`].
pub trait Element: Pod + Send + Sync + sealed::Sealed {
    /// The type as a value.
    const DTYPE: Dtype;
}

impl sealed::Sealed for f32 {}
impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl sealed::Sealed for f16 {}
impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;
}

impl sealed::Sealed for bf16 {}
impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
}

/// An address in device memory (a `CUdeviceptr`); never dereferenced on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct DeviceAddress(pub u64);

impl DeviceAddress {
    /// The null address, which kernels read as "not given".
    pub const NULL: Self = Self(0);
}
