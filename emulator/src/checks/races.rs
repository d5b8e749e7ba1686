//! Races: what every access to memory that threads share goes through, and how a race is told: at its second
//! access, with the first in a note.

use super::access::described;
use super::global_races::{Found, Log, OwnRace, READS, Race as GlobalRace, WRITES};
use super::order::{Order, Sides, Strong};
use super::stretch::{Stretch, stretches};
use super::words::{self, How, Race, Words};
use crate::exec::cta::place;
use crate::exec::env::Env;
use crate::exec::inst::{Flow, Inst};
use crate::exec::lanes::{Lanes, Mask, lanes};
use crate::exec::patterns::{Pattern, Slot};
use crate::finding::{FindingKind, Report};
use crate::launch::Checks;
use crate::lower::form::{ACQUIRES, RELEASES, STRONG, WHOLE, WIDER};
use crate::memory::access::{Access, Memory, Resolve, Shared};
use crate::memory::{FIRST_OFFSET, GLOBAL_BASE, SHARED_WINDOW, WINDOW_BYTES};
use crate::types::Space;

/// Checks that an access that was carried out races with no other.
#[inline(always)]
pub(crate) fn check_races<R: Resolve>(
    env: &mut Env<'_>,
    (warp, inst, known): (u32, &Inst, bool),
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
    let writes = access != Access::Load;
    let access = words::Access {
        warp,
        pc: inst.site,
        writes,
        strong: false,
        atomic: access == Access::Atomic,
        whole: is_whole(env, inst, mask, access),
    };
    if known && let Some(flow) = check_pattern::<R>(env, (access, inst), addresses, mask, How::Both)
    {
        return flow;
    }
    match R::SPACE {
        Space::Global => global_access(env, access, addresses, mask, bytes),
        Space::Shared => env.shared_access(access, addresses, mask, bytes),
        _ => {
            let (global, shared, offsets) = sorted(addresses, mask);
            if global != 0 {
                let flow = global_access(env, access, addresses, global, bytes);
                if flow != Flow::Next {
                    return flow;
                }
            }
            if shared == 0 {
                return Flow::Next;
            }
            env.shared_access(access, &offsets, shared, bytes)
        }
    }
}

/// Whether the warp as a whole makes an access, see [`words::Access::whole`].
#[inline(always)]
pub(crate) fn is_whole(env: &Env<'_>, inst: &Inst, mask: Mask, access: Access) -> bool {
    match access {
        Access::Load => env.live != 0 && (mask == env.live || inst.aux & WHOLE != 0),
        Access::Store => env.stored_at_once && !env.launch.checks.contains(Checks::LOCKSTEP),
        // Without LOCKSTEP, lanes may read what others of their warp have changed.
        Access::Atomic => {
            env.live != 0 && mask == env.live && !env.launch.checks.contains(Checks::LOCKSTEP)
        }
    }
}

/// What is found at a quick look at an access whose pattern is known.
pub(crate) enum Verdict {
    Clean,
    Race(Box<OwnRace>),
    /// It needs a closer look, and is not noted yet.
    Open,
}

impl Verdict {
    fn of(race: Option<OwnRace>) -> Verdict {
        race.map_or(Verdict::Clean, |race| Verdict::Race(Box::new(race)))
    }
}

/// What the quick look needs of a CTA.
pub(crate) struct Judge<'e> {
    pub(crate) order: &'e Order,
    pub(crate) races: &'e mut Option<Box<Words>>,
    pub(crate) log: &'e mut Option<Box<Log>>,
}

impl Judge<'_> {
    /// As [`check_races`], for an access that begins at `first` and whose pattern is known, or a part of its lanes.
    #[inline(always)]
    pub(crate) fn judge<R: Resolve>(
        self,
        access: words::Access,
        pattern: &mut Pattern,
        (first, mask): (u64, Mask),
        how: How,
    ) -> Verdict {
        let Judge { order, races, log } = self;
        let generic = R::SPACE == Space::Generic;
        if R::SPACE == Space::Global || generic && pattern.is_global(first) {
            let Some(log) = log else { return Verdict::Clean };
            if !access.writes && mask == pattern.mask() && order.is_uniform(access.warp) {
                return Verdict::of(log.note_pattern(order, access, pattern, first));
            }
            return Verdict::of(log.note(order, access, mask, |mask, each| {
                if mask == pattern.mask() {
                    pattern.stretches(first, each);
                } else {
                    stretches(&pattern.addresses(first), mask, pattern.bytes(), each);
                }
            }));
        }
        let window = if generic { SHARED_WINDOW } else { 0 };
        if generic && !pattern.is_inside(first, SHARED_WINDOW) {
            return Verdict::Open;
        }
        let Some(words) = races else { return Verdict::Clean };
        let Some(first) = first.checked_sub(window + FIRST_OFFSET) else { return Verdict::Open };
        if words.by_pattern(order, access, pattern, (first, mask), how) {
            Verdict::Clean
        } else {
            Verdict::Open
        }
    }
}

/// As [`check_races`], for an access whose pattern is known, or a part of its lanes; nothing if it needs a closer look.
#[inline(always)]
fn check_pattern<R: Resolve>(
    env: &mut Env<'_>,
    (access, inst): (words::Access, &Inst),
    addresses: &Lanes<u64>,
    mask: Mask,
    how: How,
) -> Option<Flow> {
    let Env { order, races, log, patterns, .. } = &mut *env;
    let pattern = patterns.last(Slot::of(inst.home, access.warp))?;
    let judge = Judge { order: order.as_ref()?, races, log };
    let first = pattern.first(addresses);
    match judge.judge::<R>(access, pattern, (first, mask), how) {
        Verdict::Clean => Some(Flow::Next),
        Verdict::Race(race) => Some(report_own_race(env, &race)),
        Verdict::Open => None,
    }
}

/// Checks that a copy to shared memory which is issued now races with nothing. It writes when it lands.
#[inline(always)]
pub(crate) fn check_issued(
    env: &mut Env<'_>,
    (warp, inst, known): (u32, &Inst, bool),
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
) -> Flow {
    if env.races.is_none() || mask == 0 {
        return Flow::Next;
    }
    let access = words::Access {
        warp,
        pc: inst.site,
        writes: true,
        strong: false,
        atomic: false,
        whole: false,
    };
    if known
        && let Some(flow) =
            check_pattern::<Shared>(env, (access, inst), addresses, mask, How::Check)
    {
        return flow;
    }
    env.shared_access(access, addresses, mask, bytes)
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

/// Notes an access to global memory, to be compared with those of other CTAs, and compares it with those of
/// its own.
#[inline(always)]
pub(crate) fn global_access(
    env: &mut Env<'_>,
    access: words::Access,
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
) -> Flow {
    let Env { order, log, .. } = env;
    let (Some(order), Some(log)) = (order, log) else { return Flow::Next };
    let each_stretch =
        |mask, each: &mut dyn FnMut(Stretch)| stretches(addresses, mask, bytes, each);
    match log.note(order, access, mask, each_stretch) {
        None => Flow::Next,
        Some(race) => report_own_race(env, &race),
    }
}

/// As [`global_access`], for a read whose pattern is known by now.
#[inline(always)]
pub(crate) fn global_read(
    env: &mut Env<'_>,
    access: words::Access,
    slot: Slot,
    addresses: &Lanes<u64>,
    mask: Mask,
    bytes: u64,
) -> Flow {
    let Env { order, log, patterns, .. } = &mut *env;
    let (Some(order), Some(log)) = (order, log) else { return Flow::Next };
    match patterns.last(slot).filter(|p| p.mask() == mask && order.is_uniform(access.warp)) {
        None => global_access(env, access, addresses, mask, bytes),
        Some(pattern) => log
            .note_pattern(order, access, pattern, pattern.first(addresses))
            .map_or(Flow::Next, |race| report_own_race(env, &race)),
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
    let atomic = reads && writes;
    let whole = atomic && is_whole(env, inst, mask, access);
    let own = words::Access { warp, pc: inst.site, writes, strong: true, atomic, whole };
    if shared != 0 {
        let flow = env.shared_access(own, &offsets, shared, bytes);
        if flow != Flow::Next {
            return flow;
        }
    }
    let Env { order, log, log_number, global_races, .. } = &mut *env;
    let Some(order) = order else { return Flow::Next };
    // For other CTAs, an access whose scope is this one is as good as a weak one.
    let race = log.as_mut().filter(|_| global != 0).and_then(|log| {
        log.note(order, own, global, |mask, each| stretches(addresses, mask, bytes, each))
    });
    if let Some(race) = race {
        return report_own_race(env, &race);
    }
    for lane in lanes(shared) {
        let address = offsets.0[lane];
        order.strong(Strong { warp, lane, address, reads, writes, sides });
    }
    for lane in lanes(global) {
        let strong = Strong { warp, lane, address: addresses.0[lane], reads, writes, sides };
        match global_races {
            Some(races) if inst.aux & WIDER != 0 => {
                let place = (inst.site, bytes as u32);
                match races.strong(*log_number, order, strong, place) {
                    None => {}
                    Some(Found::Own(race)) => return report_own_race(env, &race),
                    Some(Found::Other(race)) => return report_global_race(env, &race),
                }
            }
            _ => order.strong(strong),
        }
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
pub(crate) fn report_race(env: &mut Env<'_>, access: (words::Access, u64), race: &Race) -> Flow {
    report_race_in(env, Space::Shared, FIRST_OFFSET + race.offset, access, race)
}

/// Reports a race between two threads of the CTA.
fn report_race_in(
    env: &mut Env<'_>,
    space: Space,
    address: u64,
    (access, bytes): (words::Access, u64),
    race: &Race,
) -> Flow {
    let memory = Memory { launch: env.launch, shared: &env.shared, local: None };
    let verb = match (access.writes, access.atomic) {
        (_, true) => Access::Atomic,
        (true, _) => Access::Store,
        (false, _) => Access::Load,
    };
    let message = format!(
        "{bytes}-byte {} of {} memory at {address:#x} races with another access{}",
        verb.verb(),
        space.name(),
        described(&memory, space, address)
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
        address: Some(address),
        notes: vec![(race.other_pc, note)],
    })
}

/// Reports a race in global memory within a CTA.
#[cold]
pub(crate) fn report_own_race(env: &mut Env<'_>, race: &OwnRace) -> Flow {
    let OwnRace { race, address, access, bytes } = race;
    report_race_in(env, Space::Global, *address, (*access, (*bytes).into()), race)
}
