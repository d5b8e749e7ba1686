//! PTX by nvcc and Triton, run with all checks on, against independent values. See README.md beside this file.

mod atomics;
mod attention;
mod calls;
mod gpu;
mod math;
mod matrix;
mod pipeline;
mod reduce;
mod sort;
mod structs;
mod triton;
mod wmma;
