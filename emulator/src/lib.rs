//! A CPU machine for PTX.
pub mod tensor;
