//! PTX by nvcc and Triton, run with all checks on, against independent values. See README.md beside this file.

mod atomics;
mod attention;
mod gpu;
mod matrix;
mod reduce;
mod sort;
mod structs;
mod triton;
