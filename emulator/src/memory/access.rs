//! Accesses of warps to memory: the checks that every load and store shares, and what they report.

use super::region::{FORBIDDEN, IN_FLIGHT, INIT, READ_ONLY, Region};
use super::{FIRST_OFFSET, GLOBAL_BASE, LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::checks::global_races::{READS, Race as GlobalRace, WRITES};
use crate::checks::order::{Sides, Strong};
use crate::exec::cta::place;
use crate::exec::env::{Env, LaunchContext};
use crate::exec::inst::{Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask, Registers, lanes};
use crate::exec::races::Race;
use crate::finding::{FindingKind, Report};
use crate::lower::form::{ACQUIRES, RELEASES, STRONG, WIDE_ADDRESS, WIDER};
use crate::types::Space;

/// What an access does to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Load,
    Store,
    /// Reads and writes.
    Atomic,
}

impl Access {
    fn verb(self) -> &'static str {
        match self {
            Access::Load => "load",
            Access::Store => "store",
            Access::Atomic => "atomic access",
        }
    }
}

/// The address of each lane: base register plus offset.
#[inline(always)]
pub(crate) fn addresses(regs: &Registers, inst: &Inst) -> Lanes<u64> {
    let mut out = Lanes::default();
    let offset = inst.imm as u64;
    if inst.aux & WIDE_ADDRESS != 0 {
        let base = &regs.doubles[inst.a as usize];
        for lane in 0..LANES {
            out.0[lane] = base.0[lane].wrapping_add(offset);
        }
    } else {
        let base = &regs.words[inst.a as usize];
        for lane in 0..LANES {
            out.0[lane] = base.0[lane].wrapping_add(offset as u32).into();
        }
    }
    out
}

/// A state space as the address of an instruction resolves in it.
pub(crate) trait Resolve: 'static {
    const SPACE: Space;
    /// Region and offset of an access that lies inside live memory.
    fn find<'m>(
        memory: &Memory<'m>,
        hint: &mut u32,
        lane: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)>;
}

/// The memory that a warp can reach.
#[derive(Clone, Copy)]
pub(crate) struct Memory<'m> {
    pub(crate) launch: &'m LaunchContext<'m>,
    pub(crate) shared: &'m Region,
    pub(crate) local: Option<&'m Region>,
}

/// Global memory, constants among it.
pub(crate) struct Global;
/// Shared memory of the CTA, by offset.
pub(crate) struct Shared;
/// Local memory of the lane, by offset.
pub(crate) struct Local;
/// The parameters of the entry, by offset.
pub(crate) struct Param;
/// Any of them, by window.
pub(crate) struct Generic;

impl Resolve for Param {
    const SPACE: Space = Space::Param;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        _: &mut u32,
        _: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        Some((memory.launch.params, memory.launch.params.offset(address, bytes)?))
    }
}

impl Resolve for Global {
    const SPACE: Space = Space::Global;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        hint: &mut u32,
        _: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        let allocations = &memory.launch.memory.allocations;
        let hinted = allocations.get(*hint as usize).map(|a| &a.region);
        if let Some(region) = hinted
            && let Some(offset) = region.offset(address, bytes)
        {
            return Some((region, offset));
        }
        let index = memory.launch.memory.live(address, bytes)?;
        *hint = index as u32;
        let region = &allocations[index].region;
        Some((region, region.offset(address, bytes)?))
    }
}

impl Resolve for Shared {
    const SPACE: Space = Space::Shared;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        _: &mut u32,
        _: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        Some((memory.shared, memory.shared.offset(address, bytes)?))
    }
}

impl Resolve for Local {
    const SPACE: Space = Space::Local;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        _: &mut u32,
        lane: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        let region = memory.local?;
        let own = region.bytes / LANES as u64;
        let offset = address.wrapping_sub(FIRST_OFFSET);
        let inside = offset < own && own - offset >= bytes;
        inside.then(|| (region, (lane as u64 * own + offset) as usize))
    }
}

impl Resolve for Generic {
    const SPACE: Space = Space::Generic;
    #[inline(always)]
    fn find<'m>(
        memory: &Memory<'m>,
        hint: &mut u32,
        lane: usize,
        address: u64,
        bytes: u64,
    ) -> Option<(&'m Region, usize)> {
        if address >= GLOBAL_BASE {
            return Global::find(memory, hint, lane, address, bytes);
        }
        if address.wrapping_sub(SHARED_WINDOW) < WINDOW_BYTES {
            return Shared::find(memory, hint, lane, address - SHARED_WINDOW, bytes);
        }
        if address.wrapping_sub(LOCAL_WINDOW) < WINDOW_BYTES {
            return Local::find(memory, hint, lane, address - LOCAL_WINDOW, bytes);
        }
        if address.wrapping_sub(PARAM_WINDOW) < WINDOW_BYTES {
            return Param::find(memory, hint, lane, address - PARAM_WINDOW, bytes);
        }
        None
    }
}

/// Whether the shadow allows the access.
#[inline(always)]
pub(crate) fn permitted(region: &Region, offset: usize, bytes: usize, access: Access) -> bool {
    match access {
        Access::Load => region.all(offset, bytes, INIT | FORBIDDEN | IN_FLIGHT, INIT),
        Access::Store => region.all(offset, bytes, FORBIDDEN | READ_ONLY | IN_FLIGHT, 0),
        Access::Atomic => region.all(offset, bytes, INIT | FORBIDDEN | READ_ONLY | IN_FLIGHT, INIT),
    }
}

/// An access that was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) lane: usize,
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    pub(crate) access: Access,
}

/// Reports why an access was refused.
#[cold]
#[inline(never)]
pub(crate) fn refuse<R: Resolve>(
    env: &mut Env<'_>,
    local: Option<&Region>,
    refused: Refused,
) -> Flow {
    let Refused { lane, address, .. } = refused;
    let memory = Memory { launch: env.launch, shared: &env.shared, local };
    let (kind, message) = explain::<R>(&memory, refused);
    env.report(Report { kind, lane, message, address: Some(address), notes: Vec::new() })
}

/// Why an access was refused.
pub(crate) fn explain<R: Resolve>(memory: &Memory<'_>, refused: Refused) -> (FindingKind, String) {
    let Refused { lane, address, bytes, access } = refused;
    let verb = access.verb();
    let (kind, message) = if address % bytes != 0 {
        let message =
            format!("{bytes}-byte {verb} at {address:#x}, which is not a multiple of {bytes}");
        (FindingKind::Misaligned, message)
    } else if let Some((region, offset)) = R::find(memory, &mut 0, lane, address, bytes) {
        shadowed(region, offset, refused, R::SPACE)
    } else {
        outside(memory, R::SPACE, refused)
    };
    (kind, format!("{message}{}", described(memory, R::SPACE, address)))
}

/// Where a load lies whose only fault may be that it reads shared or local memory which nobody has written, and
/// which of its bytes are that, bit by bit.
pub(crate) fn unwritten<'m, R: Resolve>(
    memory: &Memory<'m>,
    lane: usize,
    address: u64,
    bytes: u64,
) -> Option<(&'m Region, usize, u32)> {
    let aligned = address.is_multiple_of(bytes);
    let (region, offset) =
        aligned.then(|| R::find(memory, &mut 0, lane, address, bytes)).flatten()?;
    let bits = (0..bytes as usize)
        .filter(|at| region.state(offset + at) & INIT == 0)
        .fold(0, |bits, at| bits | 1u32 << at);
    let allowed = match region.base {
        FIRST_OFFSET => region.all(offset, bytes as usize, FORBIDDEN | IN_FLIGHT, 0),
        _ => permitted(region, offset, bytes as usize, Access::Load),
    };
    allowed.then_some((region, offset, bits))
}

/// An access inside live memory that the shadow forbids.
fn shadowed(
    region: &Region,
    offset: usize,
    refused: Refused,
    space: Space,
) -> (FindingKind, String) {
    let Refused { bytes, access, address, .. } = refused;
    let verb = access.verb();
    let states = || (offset..offset + bytes as usize).map(|at| region.state(at));
    let has = |bits: u8| states().any(|s| s & bits != 0);
    let space = space.name();
    if has(FORBIDDEN) && space_is_shared(region) {
        let message =
            format!("{bytes}-byte {verb} at {address:#x}, which is part of an mbarrier object");
        return (FindingKind::BarrierMisuse, message);
    }
    if has(FORBIDDEN) {
        return (
            FindingKind::Forbidden,
            format!("{bytes}-byte {verb} at {address:#x}, a range the host has forbidden"),
        );
    }
    if has(IN_FLIGHT) {
        let message = format!(
            "{bytes}-byte {verb} at {address:#x}, where an asynchronous copy has still to land"
        );
        return (FindingKind::InFlight, message);
    }
    if access != Access::Load && has(READ_ONLY) && space_is_shared(region) {
        let message =
            format!("{bytes}-byte {verb} at {address:#x}, which a bulk copy has still to read");
        return (FindingKind::InFlight, message);
    }
    if access != Access::Load && has(READ_ONLY) {
        return (
            FindingKind::ReadOnly,
            format!("{bytes}-byte {verb} at {address:#x}, a range the host has protected"),
        );
    }
    let missing = states().position(|s| s & INIT == 0).unwrap_or(0);
    let message = format!(
        "{bytes}-byte {verb} of uninitialised {space} memory at {address:#x}: byte {missing} was never written"
    );
    (FindingKind::UninitialisedMemory, message)
}

/// Whether a region is the shared memory of a CTA, where the host forbids and protects nothing.
fn space_is_shared(region: &Region) -> bool {
    region.base == FIRST_OFFSET
}

/// An access that lies in no live memory of its space.
fn outside(memory: &Memory<'_>, space: Space, refused: Refused) -> (FindingKind, String) {
    let Refused { bytes, access, address, .. } = refused;
    let verb = access.verb();
    let window = |start: u64| address.wrapping_sub(start) < WINDOW_BYTES;
    let other = match space {
        Space::Global if window(SHARED_WINDOW) => Some("shared"),
        Space::Global if window(LOCAL_WINDOW) => Some("local"),
        Space::Shared if address >= GLOBAL_BASE => Some("global"),
        Space::Shared if window(SHARED_WINDOW) => Some("generic"),
        Space::Local if address >= GLOBAL_BASE => Some("global"),
        _ => None,
    };
    if let Some(other) = other {
        let message = format!(
            "{bytes}-byte {} {verb} at {address:#x}, which is a {other} address",
            space.name()
        );
        return (FindingKind::WrongSpace, message);
    }
    let freed =
        memory.launch.memory.index_of(address).map(|i| &memory.launch.memory.allocations[i]);
    if address >= GLOBAL_BASE && freed.is_some_and(|a| a.freed) {
        return (
            FindingKind::UseAfterFree,
            format!("{bytes}-byte {verb} at {address:#x}, which has been freed"),
        );
    }
    (
        FindingKind::OutOfBounds,
        format!("{bytes}-byte {} {verb} at {address:#x}, out of bounds", space.name()),
    )
}

/// What lies at or near an address.
fn described(memory: &Memory<'_>, space: Space, address: u64) -> String {
    if space == Space::Param {
        return format!("; the entry has {} bytes of parameters", memory.launch.params.bytes);
    }
    if space == Space::Local || address.wrapping_sub(LOCAL_WINDOW) < WINDOW_BYTES {
        return format!(
            "; a thread has {} bytes of local memory",
            memory.launch.kernel.local_bytes
        );
    }
    if address >= GLOBAL_BASE {
        let Some(near) = memory.launch.memory.nearest(address) else { return String::new() };
        let (base, bytes) = (near.region.base, near.bytes);
        let label =
            near.region.label.as_deref().map_or_else(|| format!("{base:#x}"), |l| format!("`{l}`"));
        return if address < base {
            format!("; {} bytes before buffer {label} of {bytes} bytes", base - address)
        } else if address - base < bytes {
            format!("; byte {} of buffer {label} of {bytes} bytes", address - base)
        } else {
            format!(
                "; {} bytes past the end of buffer {label} of {bytes} bytes",
                address - base - bytes
            )
        };
    }
    let offset = if address.wrapping_sub(SHARED_WINDOW) < WINDOW_BYTES {
        address - SHARED_WINDOW
    } else {
        address
    };
    if offset < FIRST_OFFSET {
        return "; a null pointer?".into();
    }
    let kernel = memory.launch.kernel;
    let inside = |v: &&crate::lower::kernel::SharedVariable| {
        offset >= v.address && offset - v.address < v.bytes
    };
    match kernel.shared.iter().find(inside) {
        Some(v) => {
            format!("; byte {} of shared `{}` of {} bytes", offset - v.address, v.name, v.bytes)
        }
        None => {
            let bytes = memory.shared.bytes;
            format!("; shared memory begins at {FIRST_OFFSET:#x} and has {bytes} bytes")
        }
    }
}

/// Counts the traffic of an access that was carried out.
#[inline(always)]
pub(crate) fn count<R: Resolve>(
    env: &mut Env<'_>,
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
    access: Access,
) {
    if !env.launch.traffic {
        return;
    }
    let counters = &mut env.counters;
    let shared = match R::SPACE {
        Space::Shared => true,
        Space::Global => false,
        Space::Generic => {
            let address = addresses.0[mask.trailing_zeros() as usize % LANES];
            if address < GLOBAL_BASE && address.wrapping_sub(SHARED_WINDOW) >= WINDOW_BYTES {
                return;
            }
            address < GLOBAL_BASE
        }
        _ => return,
    };
    if shared {
        counters.shared.count(addresses, mask, bytes);
    } else if access == Access::Load {
        counters.global_loads.count(addresses, mask, bytes);
    } else {
        counters.global_stores.count(addresses, mask, bytes);
    }
}

/// Counts an access that was carried out and checks that it races with no other.
#[inline(always)]
pub(crate) fn observe<R: Resolve>(
    env: &mut Env<'_>,
    (warp, inst): (u32, &Inst),
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
    access: Access,
) -> Flow {
    count::<R>(env, addresses, mask, bytes, access);
    check_races::<R>(env, (warp, inst), addresses, mask, bytes, access)
}

/// Checks that an access that was carried out races with no other.
#[inline(always)]
pub(crate) fn check_races<R: Resolve>(
    env: &mut Env<'_>,
    (warp, inst): (u32, &Inst),
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
    access: Access,
) -> Flow {
    if env.order.is_none() || mask == 0 || !shared_by_threads(R::SPACE) {
        return Flow::Next;
    }
    if inst.aux & STRONG != 0 {
        return synchronise::<R>(env, (warp, inst), addresses, mask, bytes, access);
    }
    match R::SPACE {
        Space::Global => {
            note_global(env, (warp, inst.site), addresses, mask, bytes, access);
            Flow::Next
        }
        Space::Shared => shared_race(env, (warp, inst.site), addresses, mask, bytes, access),
        _ => {
            let (global, shared, offsets) = sorted(addresses, mask);
            if global != 0 {
                note_global(env, (warp, inst.site), addresses, global, bytes, access);
            }
            if shared == 0 {
                return Flow::Next;
            }
            shared_race(env, (warp, inst.site), &offsets, shared, bytes, access)
        }
    }
}

/// Whether several threads can reach memory of a space.
const fn shared_by_threads(space: Space) -> bool {
    matches!(space, Space::Shared | Space::Global | Space::Generic)
}

/// Lanes whose generic address is global, those whose is shared, and the offsets of the latter.
fn sorted(addresses: &Lanes<u64>, mask: Mask) -> (Mask, Mask, Lanes<u64>) {
    let (mut global, mut shared, mut offsets) = (0, 0, *addresses);
    for lane in lanes(mask) {
        let address = addresses.0[lane];
        offsets.0[lane] = address.wrapping_sub(SHARED_WINDOW);
        global |= u32::from(address >= GLOBAL_BASE) << lane;
        shared |= u32::from(offsets.0[lane] < WINDOW_BYTES) << lane;
    }
    (global, shared, offsets)
}

/// Notes an access to global memory, to be compared with those of other CTAs.
#[inline(always)]
pub(crate) fn note_global(
    env: &mut Env<'_>,
    (warp, pc): (u32, u32),
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
    access: Access,
) {
    let Env { order, log, .. } = env;
    if let (Some(order), Some(log)) = (order, log) {
        log.note(order, (warp, pc), addresses, mask, bytes, kind(access));
    }
}

#[inline(always)]
fn shared_race(
    env: &mut Env<'_>,
    (warp, pc): (u32, u32),
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
    access: Access,
) -> Flow {
    let Env { order, races, .. } = env;
    let (Some(order), Some(races)) = (order, races) else { return Flow::Next };
    match races.access(order, (warp, pc), addresses, mask, bytes, access) {
        None => Flow::Next,
        Some(race) => report_race(env, race, bytes, access),
    }
}

fn kind(access: Access) -> u8 {
    match access {
        Access::Load => READS,
        Access::Store => WRITES,
        Access::Atomic => READS | WRITES,
    }
}

/// Orders threads by a strong access, and checks that of global memory.
#[inline(never)]
fn synchronise<R: Resolve>(
    env: &mut Env<'_>,
    (warp, inst): (u32, &Inst),
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
    access: Access,
) -> Flow {
    let sides = Sides { acquire: inst.aux & ACQUIRES != 0, release: inst.aux & RELEASES != 0 };
    let (reads, writes) = (access != Access::Store, access != Access::Load);
    let (global, shared, offsets) = match R::SPACE {
        Space::Global => (mask, 0, *addresses),
        Space::Shared => (0, mask, *addresses),
        _ => sorted(addresses, mask),
    };
    let Env { order, log, log_number, global_races, .. } = &mut *env;
    let Some(order) = order else { return Flow::Next };
    for lane in lanes(shared) {
        let address = offsets.0[lane];
        order.strong(Strong { warp, lane, address, reads, writes, sides });
    }
    for lane in lanes(global) {
        let strong = Strong { warp, lane, address: addresses.0[lane], reads, writes, sides };
        match global_races {
            Some(races) if inst.aux & WIDER != 0 => {
                let place = (inst.site, bytes as u32);
                if let Some(race) = races.strong(*log_number, order, strong, place) {
                    return report_global_race(env, &race);
                }
            }
            _ => order.strong(strong),
        }
    }
    // For other CTAs, an access whose scope is this one is as good as a weak one.
    if let Some(log) = log
        && global != 0
    {
        log.note(order, (warp, inst.site), addresses, global, bytes, kind(access));
    }
    Flow::Next
}

/// Reports a race in global memory, at its second access.
#[cold]
pub(crate) fn report_global_race(env: &mut Env<'_>, race: &GlobalRace) -> Flow {
    let GlobalRace { address, second, first } = race;
    let memory = Memory { launch: env.launch, shared: &env.shared, local: None };
    let verb = match second.kind & (READS | WRITES) {
        READS => Access::Load,
        WRITES => Access::Store,
        _ => Access::Atomic,
    };
    let message = format!(
        "{}-byte {} of global memory races with an access of another CTA at {address:#x}{}",
        second.bytes,
        verb.verb(),
        described(&memory, Space::Global, *address)
    );
    let how = match first.kind & (READS | WRITES) {
        READS => "read",
        WRITES => "wrote",
        _ => "changed",
    };
    let [x, y, z] = place(env.launch.grid, first.cta);
    let note = format!(
        "CTA ({x}, {y}, {z}) warp {} lane {} {how} it, {} bytes, and nothing orders the two",
        first.warp, first.lane, first.bytes
    );
    env.report(Report {
        kind: FindingKind::Race,
        lane: second.lane,
        message,
        address: Some(*address),
        notes: vec![(Some(first.pc), note)],
    })
}

/// Reports a race in shared memory.
#[cold]
pub(crate) fn report_race(env: &mut Env<'_>, race: Race, bytes: u64, access: Access) -> Flow {
    let memory = Memory { launch: env.launch, shared: &env.shared, local: None };
    let verb = access.verb();
    let message = format!(
        "{bytes}-byte {verb} of shared memory at {:#x} races with another access{}",
        race.address,
        described(&memory, Space::Shared, race.address)
    );
    let how = if race.other_wrote { "wrote" } else { "read" };
    let (warp, lane) = (race.other_warp, race.other_lane);
    let note = if race.other_copied {
        format!("a copy issued by lane {lane} {how} it, and nobody has waited for that")
    } else {
        format!("warp {warp} lane {lane} {how} it, and nothing orders the two")
    };
    env.report(Report {
        kind: FindingKind::Race,
        lane: race.lane,
        message,
        address: Some(race.address),
        notes: vec![(Some(race.other_pc), note)],
    })
}
