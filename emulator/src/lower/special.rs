//! Special registers (PTX ISA, "Special Registers").

use super::kernel::Uniform;
use crate::memory::FIRST_OFFSET;
use crate::types::Type;

/// Streaming multiprocessors that `%nsmid` tells of, as many as an H100 has.
const SMS: u64 = 132;

/// A special register whose value is fixed while a CTA runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Special {
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    /// The lower halves of these two.
    LowCtaid(usize),
    LowNctaid(usize),
    LaneId,
    WarpId,
    NWarpId,
    SmId,
    NSmId,
    LaneMask(LaneMask),
    DynamicSharedBytes,
    TotalSharedBytes,
    /// Half of the address of the memory that a cooperative launch gives to its grid: 0 the lower, 1 the upper.
    GridWorkspace(u32),
    /// With what the system keeps for itself.
    AggregateSharedBytes,
    Constant(u64),
}

/// Which lanes, seen from one lane, a mask names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum LaneMask {
    Eq,
    Le,
    Lt,
    Ge,
    Gt,
}

/// A special register that changes while a warp runs; only `mov` reads one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clock {
    /// Instructions that the warp has executed, lower half.
    Low,
    /// Upper half.
    High,
    /// All of it.
    Whole,
}

/// What a name that begins with `%` may mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Fixed(Special, Type),
    Changing(Clock, Type),
}

/// The special register of a name and a component (`%tid`, `x`).
pub(crate) fn find(name: &str, component: Option<&str>) -> Option<Found> {
    let fixed = |special| Some(Found::Fixed(special, Type::U32));
    if let Some(component) = component {
        // The fourth element is unused and always zero.
        if component == "w" && matches!(name, "%tid" | "%ntid" | "%ctaid" | "%nctaid") {
            return fixed(Special::Constant(0));
        }
        let axis = ["x", "y", "z"].iter().position(|c| *c == component)?;
        return match name {
            "%tid" => fixed(Special::Tid(axis)),
            "%ntid" => fixed(Special::Ntid(axis)),
            "%ctaid" | "%clusterid" => fixed(Special::Ctaid(axis)),
            "%nctaid" | "%nclusterid" => fixed(Special::Nctaid(axis)),
            "%cluster_ctaid" => fixed(Special::Constant(0)),
            "%cluster_nctaid" => fixed(Special::Constant(1)),
            _ => None,
        };
    }
    match name {
        "%laneid" => fixed(Special::LaneId),
        "%warpid" => fixed(Special::WarpId),
        "%nwarpid" => fixed(Special::NWarpId),
        "%smid" => fixed(Special::SmId),
        "%nsmid" => fixed(Special::NSmId),
        "%lanemask_eq" => fixed(Special::LaneMask(LaneMask::Eq)),
        "%lanemask_le" => fixed(Special::LaneMask(LaneMask::Le)),
        "%lanemask_lt" => fixed(Special::LaneMask(LaneMask::Lt)),
        "%lanemask_ge" => fixed(Special::LaneMask(LaneMask::Ge)),
        "%lanemask_gt" => fixed(Special::LaneMask(LaneMask::Gt)),
        "%dynamic_smem_size" => fixed(Special::DynamicSharedBytes),
        "%total_smem_size" => fixed(Special::TotalSharedBytes),
        "%aggr_smem_size" => fixed(Special::AggregateSharedBytes),
        "%reserved_smem_offset_begin" => fixed(Special::Constant(0)),
        "%reserved_smem_offset_end" | "%reserved_smem_offset_cap" => {
            fixed(Special::Constant(FIRST_OFFSET))
        }
        "%cluster_ctarank" => fixed(Special::Constant(0)),
        "%cluster_nctarank" => fixed(Special::Constant(1)),
        // The driver's own; CUDA C++ reads these two in `cooperative_groups::this_grid`.
        "%envreg1" => fixed(Special::GridWorkspace(1)),
        "%envreg2" => fixed(Special::GridWorkspace(0)),
        "%current_graph_exec" => Some(Found::Fixed(Special::Constant(0), Type::U64)),
        "%gridid" => Some(Found::Fixed(Special::Constant(1), Type::U64)),
        "%clock" | "%globaltimer_lo" => Some(Found::Changing(Clock::Low, Type::U32)),
        "%clock_hi" | "%globaltimer_hi" => Some(Found::Changing(Clock::High, Type::U32)),
        "%clock64" | "%globaltimer" => Some(Found::Changing(Clock::Whole, Type::U64)),
        _ => None,
    }
}

/// The lowest architecture that has a special register, 0 for any.
pub(crate) fn needs_sm(name: &str) -> u32 {
    let clusters = ["%cluster", "%ncluster", "%is_explicit_cluster", "%aggr_smem_size"];
    if clusters.iter().any(|prefix| name.starts_with(prefix)) { 90 } else { 0 }
}

/// Why a special register of the PTX ISA cannot be read here.
pub(crate) fn refusal(name: &str) -> Option<&'static str> {
    let rest = name.strip_prefix('%')?;
    if rest.strip_prefix("pm").is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit())) {
        return Some("counts events of a GPU, which there are none of here");
    }
    if rest.starts_with("envreg") {
        return Some("holds what a driver puts there, and there is none here");
    }
    rest.starts_with("reserved_smem_offset_")
        .then_some("tells of memory that the system keeps for itself, which is not modelled")
}

impl Special {
    /// What 16 bits hold of it, if it may be read as that: the places of threads and CTAs were of 16 bits once.
    pub(crate) fn low_half(self) -> Option<Special> {
        match self {
            Special::Tid(_) | Special::Ntid(_) => Some(self),
            Special::Ctaid(axis) => Some(Special::LowCtaid(axis)),
            Special::Nctaid(axis) => Some(Special::LowNctaid(axis)),
            _ => None,
        }
    }

    /// The value in one lane.
    pub(crate) fn value(self, uniform: &Uniform<'_>, warp: u32, lane: u32) -> u64 {
        let launch = uniform.launch;
        let [nx, ny, _] = launch.block;
        let thread = warp * 32 + lane;
        let below = (1u32 << lane) - 1;
        u64::from(match self {
            Special::Tid(0) => thread % nx,
            Special::Tid(1) => thread / nx % ny,
            Special::Tid(_) => thread / nx / ny,
            Special::Ntid(axis) => launch.block[axis],
            Special::Ctaid(axis) => uniform.cta[axis],
            Special::Nctaid(axis) => launch.grid[axis],
            Special::LowCtaid(axis) => uniform.cta[axis] & 0xffff,
            Special::LowNctaid(axis) => launch.grid[axis] & 0xffff,
            Special::LaneId => lane,
            Special::WarpId => warp,
            Special::NWarpId => launch.warps,
            Special::SmId => (uniform.linear % SMS) as u32,
            Special::NSmId => SMS as u32,
            Special::LaneMask(LaneMask::Eq) => 1 << lane,
            Special::LaneMask(LaneMask::Lt) => below,
            Special::LaneMask(LaneMask::Le) => below | 1 << lane,
            Special::LaneMask(LaneMask::Ge) => !below,
            Special::LaneMask(LaneMask::Gt) => !below & !(1 << lane),
            Special::DynamicSharedBytes => launch.dynamic_shared_bytes,
            Special::TotalSharedBytes => launch.shared_bytes,
            Special::GridWorkspace(half) => (launch.grid_workspace >> (32 * half)) as u32,
            Special::AggregateSharedBytes => launch.shared_bytes + FIRST_OFFSET as u32,
            Special::Constant(value) => return value,
        })
    }
}
