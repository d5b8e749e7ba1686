//! Arithmetic of matrix instructions, apart from how operands lie in registers and how they are executed.
//!
//! [`format`] takes encoded operands apart, [`dot`] sums products as tensor cores do, bit for bit per
//! architecture, and [`layout`] and [`wmma`] say which element of a matrix each lane's registers hold.

pub mod dot;
pub mod format;
pub mod layout;
pub mod wmma;
