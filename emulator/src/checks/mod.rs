//! The checks, each in a module of its own, and what they share.

pub(crate) mod global_races;
pub(crate) mod order;
pub(crate) mod taint;
