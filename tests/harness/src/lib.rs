//! Cases, dense reference and error bounds.
