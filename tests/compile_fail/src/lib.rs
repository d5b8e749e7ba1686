//! Nothing: the programs of `programs/` are the contents, tests/misuse.rs the reader.
#![forbid(unsafe_code)]
