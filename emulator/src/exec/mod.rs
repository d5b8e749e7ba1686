//! Running a lowered entry.

pub(crate) mod barrier;
pub(crate) mod bulk;
pub(crate) mod copies;
pub(crate) mod cta;
pub(crate) mod desk;
pub(crate) mod env;
pub(crate) mod grid;
pub(crate) mod inst;
pub(crate) mod lanes;
pub(crate) mod mbarrier;
pub(crate) mod patterns;
pub(crate) mod run;
pub(crate) mod stack;
pub(crate) mod sums;
pub(crate) mod tally;
pub(crate) mod wait;
pub(crate) mod warp;
pub(crate) mod wide;
