//! A CPU machine for PTX.

// ops/matrix.rs (mma) and ops/ldmatrix.rs (ldmatrix, stmatrix, movmatrix) are written against the core's
// structure and await it: add `matrix` and `ldmatrix` to `ops` and its FAMILIES, give them tests, and check races there.

pub mod tensor;
