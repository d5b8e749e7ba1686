//! The checks, each in a module of its own, and what they share.

pub(crate) mod access;
mod deadlock;
mod detours;
pub(crate) mod global_races;
pub(crate) mod layout;
pub(crate) mod membermask;
#[cfg(test)]
mod oracle;
pub(crate) mod order;
pub(crate) mod outputs;
pub(crate) mod races;
pub(crate) mod registers;
pub(crate) mod shared_races;
pub(crate) mod stretch;
pub(crate) mod taint;
pub(crate) mod words;
