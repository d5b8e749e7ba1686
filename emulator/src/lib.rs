//! A CPU machine for PTX.
