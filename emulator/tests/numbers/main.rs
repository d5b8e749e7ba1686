//! Arithmetic, comparisons and conversions against independent computation: LLVM's software floats
//! for everything that rounds, integers of 128 bits for the rest, the tables of the PTX ISA for
//! special values. Small domains are tried whole, others on numbers drawn at the edges.

mod compare;
mod convert;
mod draw;
mod floats;
mod functions;
mod halves;
mod hopper;
mod integers;
mod oracle;
mod packed;
mod refused;
mod run;
