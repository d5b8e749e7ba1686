//! Asynchronous copies from global to shared memory that a thread waits for in groups
//! (PTX ISA, "Data Movement and Conversion Instructions: cp.async").

use super::Lowered;
use crate::checks::access::in_flight::source_changed;
use crate::checks::access::undefined;
use crate::checks::races::{Judge, Verdict};
use crate::checks::words::{self, How};
use crate::counters::fetched;
use crate::exec::copies::{Batch, Sources};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{ALL, LANES, Lanes, Mask, lanes};
use crate::exec::patterns::{self, Address, Copied, Made};
use crate::exec::warp::Warp;
use crate::exec::wide::{self, Routine};
use crate::finding::FindingKind;
use crate::kept;
use crate::launch::Checks;
use crate::lower::form::{Form, WIDE_ADDRESS};
use crate::lower::strands::Strand;
use crate::lower::symbols::Symbol;
use crate::lower::table::{Row, row};
use crate::memory::access::{
    Access, Global, Memory, Refused, Resolve, Shared, addresses, check_issued, count,
    global_access, global_read, permitted, refuse, report_own_race, report_race,
};
use crate::memory::cells::spots::{Room, Spots};
use crate::memory::find;
use crate::memory::region::Region;
use crate::parse::ast::Operand;
use crate::types::{Space, Type};

pub(crate) const ROWS: &[Row] = &[
    row("cp.async.ca|cg.shared|shared::cta.global[.L2::cache_hint][.L2::64B|L2::128B|L2::256B] [to], [from], size[, source size][, policy]", cp_async).from_sm(80),
    row("cp.async.commit_group", commit).from_sm(80),
    row("cp.async.wait_group n", wait_group).from_sm(80),
    row("cp.async.wait_all", wait_all).from_sm(80),
];

/// Flag in [`Inst::aux`]: the source size is a predicate, which skips the source where it is true.
const IGNORE_SOURCE: u32 = 1 << 8;

/// Flag in [`Inst::aux`]: there is no source size, so that each lane reads all that it copies.
const WHOLE_SOURCE: u32 = 1 << 9;

/// Flag in [`Inst::aux`]: the copy goes past L1 (`.cg`).
const PAST_L1: u32 = 1 << 10;

/// Destination: base slot `b`, offset `p`, [`WIDE_ADDRESS`] in `c`; size in `d`; source size at `m`, negated by `list[0]`.
fn cp_async(f: &mut Form<'_, '_>) -> Lowered {
    let (slot, wide, offset, _) = f.address_parts(Space::Shared)?;
    f.inst.b = slot;
    f.inst.p = offset as u32;
    f.inst.c = if wide { WIDE_ADDRESS } else { 0 };
    f.address(Space::Global)?;
    let size = f.integer()?;
    let allowed: &[i64] = if f.has("cg") { &[16] } else { &[4, 8, 16] };
    if !allowed.contains(&size) {
        let of = if f.has("cg") { "cp.async.cg" } else { "cp.async.ca" };
        return Err(f.fault(format!("`{of}` cannot copy {size} bytes, only {allowed:?}")));
    }
    f.inst.d = size as u32;
    f.inst.aux |= if f.has("cg") { PAST_L1 } else { 0 };
    let from = (f.inst.a, f.inst.aux & WIDE_ADDRESS != 0);
    f.strand = Some(Strand { bytes: size as u32, bases: [Some(from), Some((slot, wide))] });
    let hints = usize::from(f.has("L2::cache_hint"));
    let has_source_size = f.ins.operands.len() > 3 + hints;
    if has_source_size && is_predicate(f) {
        let (slot, flip) = f.src_pred()?;
        f.inst.m = slot;
        f.inst.list = Box::new([flip]);
        f.inst.aux |= IGNORE_SOURCE;
    } else if has_source_size {
        f.inst.m = f.src(Type::U32)?;
    } else {
        f.inst.aux |= WHOLE_SOURCE;
    }
    if hints == 1 {
        f.src(Type::B64)?;
    }
    match size {
        16 => f.run::<Copy<16, 4>>(),
        8 => f.run::<Copy<8, 2>>(),
        _ => f.run::<Copy<4, 1>>(),
    }
}

/// Whether the next operand is a predicate.
fn is_predicate(f: &mut Form<'_, '_>) -> bool {
    let name = match f.peek() {
        Some(Operand::Name(name) | Operand::Not(name)) => *name,
        _ => return false,
    };
    matches!(f.body.find(name), Some(Symbol::Register(index)) if f.body.registers[index as usize].ty == Type::Pred)
}

/// What each lane copies.
type Data = [[u32; 4]; LANES];

/// Copies `BYTES` bytes a lane.
struct Copy<const BYTES: usize, const WORDS: usize>;

impl<const BYTES: usize, const WORDS: usize> Exec for Copy<BYTES, WORDS> {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let whole = inst.aux & WHOLE_SOURCE != 0 || reads_whole(warp, inst, mask, BYTES as u32);
        if whole && let Some(flow) = copy_known::<BYTES, WORDS>(warp, inst, mask, env) {
            return flow;
        }
        wide::call(SlowCopy::<BYTES, WORDS> { warp, inst, mask, env, whole })
    }
}

/// As [`Copy`], between places that may lie in any manner, and of sources of any size.
struct SlowCopy<'a, 'e, const BYTES: usize, const WORDS: usize> {
    warp: &'a mut Warp,
    inst: &'a Inst,
    mask: Mask,
    env: &'a mut Env<'e>,
    whole: bool,
}

impl<const BYTES: usize, const WORDS: usize> Routine for SlowCopy<'_, '_, BYTES, WORDS> {
    type Out = Flow;

    #[inline(always)]
    fn run(self) -> Flow {
        let SlowCopy { warp, inst, mask, env, whole } = self;
        let (from, to) = (addresses(&warp.regs, inst), destinations(warp, inst));
        let (mut reading, mut partly) = (mask, 0);
        let mut sizes = None;
        if !whole {
            let sizes = sizes.insert(source_sizes(warp, inst, BYTES as u32));
            (reading, partly) = sorted(sizes, mask, BYTES as u32);
        }
        let size = |lane: usize| sizes.as_ref().map_or(BYTES as u32, |sizes| sizes.0[lane]);
        let memory = Memory { launch: env.launch, shared: &env.shared, local: None };
        let checked = env.launch.checks.contains(Checks::MEMORY);
        let mut entry = warp.copies.take_spare();
        if reading != mask {
            entry.data = [[0; 4]; LANES];
        }
        let mut hint = env.hints[inst.site as usize];
        let mut room = Room::new();
        let spots = room.place::<BYTES>(&to, mask, env.shared.base, env.shared.bytes);
        let placed = spots
            .is_some_and(|spots| !checked || mask & !env.shared.permits(spots, Access::Store) == 0);
        let read = partly == 0
            && (reading == 0
                || read::<BYTES, WORDS>(&memory, &mut hint, &from, reading, &mut entry.data));
        env.hints[inst.site as usize] = hint;
        let mut undefined = None;
        if !read || !placed {
            if !env.launch.checks.contains(Checks::STRICT_ORDER) {
                warp.copies.overtake(&env.shared, mask, &to, BYTES as u64);
            }
            match one_by_one(warp, inst, (mask, size), env, &mut entry.data) {
                Ok(found) => undefined = found,
                Err(flow) => {
                    warp.copies.discard(entry);
                    return flow;
                }
            }
        }
        let followed = if checked { reading & !partly } else { 0 };
        let batch = Batch {
            site: inst.site,
            pattern: kept::Kept::default(),
            mask,
            from: Sources { first: 0, distances: &from, span: ends(&from, reading) },
            followed,
            empty: mask & !reading,
            undefined,
        };
        let spots = spots.expect("every lane of a copy that can be made has a place");
        warp.copies.issue(entry, &env.shared, spots, batch);
        if env.launch.traffic {
            env.count_in_flight((warp.index, inst), mask, warp.copies.bytes_in_flight);
        }
        if reading != 0 {
            let slot = patterns::Slot::source(inst.home, warp.index);
            let Env { launch, patterns, counters, .. } = &mut *env;
            if launch.traffic {
                let pattern = patterns.of(slot, &from, reading, BYTES as u64);
                let mut traffic = pattern.global(pattern.first(&from));
                if inst.aux & PAST_L1 != 0 {
                    traffic.sectors = fetched(&from, &to, reading);
                }
                counters.add_copy(&traffic);
            }
            let known = (launch.traffic && partly == 0).then_some(slot);
            let place = (warp.index, inst.site, known);
            let flow = note_sources(env, place, &from, (reading, partly), size, BYTES as u32);
            if flow != Flow::Next {
                return flow;
            }
        }
        let slot = patterns::Slot::of(inst.home, warp.index);
        let known = count::<Shared>(env, slot, &to, mask, BYTES as u64, Access::Store);
        check_issued(env, (warp.index, inst, known), &to, mask, BYTES as u64)
    }
}

/// Bytes that the host's memory gives at a time.
const LINE: usize = 64;

/// Copies that are looked at beforehand.
const AHEAD: usize = 7;

/// Calls `fetch` with the first source address of each copy right behind this one, where this one is the first of a row. What copies read
/// nobody has mostly read before: one by one they would wait for memory, each anew.
#[inline(always)]
fn fetch_ahead(warp: &Warp, inst: &Inst, mask: Mask, code: &[Inst], mut fetch: impl FnMut(u64)) {
    let alike = |other: &&Inst| std::ptr::fn_addr_eq(other.run, inst.run);
    let site = inst.site as usize;
    if site.checked_sub(1).and_then(|before| code.get(before)).is_some_and(|before| alike(&before))
    {
        return;
    }
    for next in code[site + 1..].iter().take(AHEAD).take_while(alike) {
        if next.aux & WIDE_ADDRESS != 0 {
            let base = &warp.regs.doubles[next.a as usize];
            fetch(base.0[mask.trailing_zeros() as usize % LANES].wrapping_add(next.imm as u64));
        }
    }
}

/// As [`Copy`] of whole sources, where sources and destinations lie to each other as they did before. Nothing happens if that takes a
/// closer look.
#[inline(always)]
fn copy_known<const BYTES: usize, const WORDS: usize>(
    warp: &mut Warp,
    inst: &Inst,
    mask: Mask,
    env: &mut Env<'_>,
) -> Option<Flow> {
    let Env { launch, shared, patterns, counters, order, races, log, .. } = &mut *env;
    let made = Made::by(inst, warp.index, mask, BYTES as u64);
    let places = (destination(inst), Address::of(inst));
    let copied = patterns.recognised_copy(&warp.regs, made, places)?;
    let Copied { target, source, to, from, next, expected, kept } = copied;
    let (memory, mut hint) = (Memory { launch, shared, local: None }, source.hint);
    let spots = target.form().spots::<BYTES>(to, shared.base, shared.bytes)?;
    let (region, sources) =
        find::place_known::<BYTES>(&memory, Space::Global, &mut hint, source.form(), from)?;
    let checked = launch.checks.contains(Checks::MEMORY);
    let fetch = |address: u64| {
        let offset = address.wrapping_sub(region.base);
        for lane in (0..LANES).step_by(LINE / BYTES) {
            let distance = source.form().distances().0[lane];
            region.data.prefetch(offset.wrapping_add(distance));
        }
    };
    fetch(next);
    if !expected {
        fetch_ahead(warp, inst, mask, &launch.kernel.code, fetch);
    }
    if checked
        && (mask & !shared.permits(spots, Access::Store) != 0
            || mask & !region.permits(sources, Access::Load) != 0)
    {
        return None;
    }
    let mut entry = warp.copies.take_spare();
    read_rows::<BYTES, WORDS>(region, sources, mask, &mut entry.data);
    let followed = if checked { mask } else { 0 };
    let addresses =
        Sources { first: from, distances: source.form().distances(), span: source.ends(from) };
    let batch = Batch {
        site: inst.site,
        pattern: kept,
        mask,
        from: addresses,
        followed,
        empty: 0,
        undefined: None,
    };
    warp.copies.issue(entry, shared, spots, batch);
    source.hint = hint;
    if launch.traffic {
        let mut traffic = source.global(from);
        if inst.aux & PAST_L1 != 0 {
            traffic.sectors = source.fetched(from, target, to);
        }
        counters.add_copy(&traffic);
        counters.shared += target.shared(to);
    }
    let mut flow = Flow::Next;
    if let Some(order) = order.as_ref() {
        let (warp, pc) = (warp.index, inst.site);
        let reads =
            words::Access { warp, pc, writes: false, strong: false, atomic: false, whole: false };
        let writes = words::Access { writes: true, ..reads };
        // To global memory the quick look is all there is.
        let judge = Judge { order, races: &mut *races, log: &mut *log };
        let read = judge.judge::<Global>(reads, source, (from, mask), How::Both);
        if let Verdict::Race(race) = read {
            return Some(report_own_race(env, &race));
        }
        let written = match races {
            None => Verdict::Clean,
            Some(_) => {
                let judge = Judge { order, races, log };
                judge.judge::<Shared>(writes, target, (to, mask), How::Check)
            }
        };
        if let Verdict::Open = written {
            let to = target.addresses(to);
            flow = check_issued(env, (warp, inst, false), &to, mask, BYTES as u64);
        }
    }
    if env.launch.traffic {
        env.count_in_flight((warp.index, inst), mask, warp.copies.bytes_in_flight);
    }
    Some(flow)
}

/// Reads whole sources that lie in one allocation; whether they do and may be read.
#[inline(always)]
fn read<const BYTES: usize, const WORDS: usize>(
    memory: &Memory<'_>,
    hint: &mut u32,
    from: &Lanes<u64>,
    reading: Mask,
    data: &mut Data,
) -> bool {
    let checked = memory.launch.checks.contains(Checks::MEMORY);
    let mut room = Room::new();
    let source = find::place::<BYTES>(memory, Space::Global, hint, from, reading, &mut room)
        .filter(|(region, spots)| !checked || reading & !region.permits(*spots, Access::Load) == 0);
    let Some((region, spots)) = source else { return false };
    read_rows::<BYTES, WORDS>(region, spots, reading, data);
    true
}

/// Reads whole sources at these places.
#[inline(always)]
fn read_rows<const BYTES: usize, const WORDS: usize>(
    region: &Region,
    spots: Spots<'_, BYTES>,
    reading: Mask,
    data: &mut Data,
) {
    let places = region.data.at(spots);
    if reading == ALL {
        places.load_rows::<WORDS, LANES>(0, data);
        return;
    }
    for lane in lanes(reading) {
        let words: [u32; WORDS] = places.load_lane(lane);
        data[lane][..WORDS].copy_from_slice(&words);
    }
}

/// As [`SlowCopy`], lane by lane, for sources in different allocations and of sizes of their own: reads them, and gives which bytes
/// of each lane are undefined if any are; or what is wrong with the first copy that cannot be made.
#[inline(never)]
fn one_by_one(
    warp: &Warp,
    inst: &Inst,
    (mask, size): (Mask, impl Fn(usize) -> u32),
    env: &mut Env<'_>,
    data: &mut Data,
) -> Result<Option<Box<Lanes<u32>>>, Flow> {
    let (from, to) = (addresses(&warp.regs, inst), destinations(warp, inst));
    let mut missing: Option<Box<Lanes<u32>>> = None;
    let bytes = inst.d as usize;
    let checked = env.launch.checks.contains(Checks::MEMORY);
    for lane in lanes(mask) {
        let size = size(lane) as usize;
        if size > bytes {
            let message = format!("`cp.async` of {bytes} bytes with a source of {size}");
            return Err(env.fault(FindingKind::Operand, lane, message));
        }
        let memory = Memory { launch: env.launch, shared: &env.shared, local: None };
        let (aligned, bytes) = (|at: u64| at.is_multiple_of(bytes as u64), bytes as u64);
        let target = aligned(to.0[lane]).then(|| memory.shared.offset(to.0[lane], bytes)).flatten();
        let target = target.filter(|&offset| {
            !checked || permitted(memory.shared, offset, bytes as usize, Access::Store)
        });
        if target.is_none() {
            let refused = Refused { lane, address: to.0[lane], bytes, access: Access::Store };
            return Err(refuse::<Shared>(env, warp.local.as_ref(), refused));
        }
        if size == 0 {
            continue;
        }
        let source = Global::find(&memory, &mut 0, lane, from.0[lane], size as u64)
            .filter(|_| aligned(from.0[lane]))
            .and_then(|(region, offset)| {
                let undefined = if checked { undefined(region, offset, size)? } else { 0 };
                Some((region, offset, undefined))
            });
        let Some((region, offset, undefined)) = source else {
            let refused = Refused { lane, address: from.0[lane], bytes, access: Access::Load };
            return Err(refuse::<Global>(env, warp.local.as_ref(), refused));
        };
        if undefined != 0 {
            missing.get_or_insert_default().0[lane] = undefined;
        }
        data[lane] = read_part(region, offset, size);
    }
    Ok(missing)
}

/// Notes what each lane reads: as much as it copies, or less.
#[inline(always)]
fn note_sources(
    env: &mut Env<'_>,
    (warp, pc, known): (u32, u32, Option<patterns::Slot>),
    from: &Lanes<u64>,
    (reading, partly): (Mask, Mask),
    size: impl Fn(usize) -> u32,
    bytes: u32,
) -> Flow {
    let access =
        words::Access { warp, pc, writes: false, strong: false, atomic: false, whole: false };
    if let Some(slot) = known {
        return global_read(env, access, slot, from, reading, bytes.into());
    }
    let mut flow = global_access(env, access, from, reading & !partly, bytes.into());
    for lane in lanes(partly) {
        if flow == Flow::Next {
            flow = global_access(env, access, from, 1 << lane, size(lane).into());
        }
    }
    flow
}

/// Where the address of a copy's destination comes from.
#[inline(always)]
fn destination(inst: &Inst) -> Address {
    let offset = i64::from(inst.p.cast_signed()).cast_unsigned();
    Address { slot: inst.b, wide: inst.c & WIDE_ADDRESS != 0, offset }
}

#[inline(always)]
fn destinations(warp: &Warp, inst: &Inst) -> Lanes<u64> {
    let offset = inst.p;
    if inst.c & WIDE_ADDRESS != 0 {
        let mut out = warp.regs.doubles[inst.b as usize];
        let offset = i64::from(offset.cast_signed()) as u64;
        for lane in 0..LANES {
            out.0[lane] = out.0[lane].wrapping_add(offset);
        }
        out
    } else {
        let base = &warp.regs.words[inst.b as usize].0;
        let mut out = Lanes::default();
        for lane in 0..LANES {
            out.0[lane] = base[lane].wrapping_add(offset).into();
        }
        out
    }
}

/// The least and the greatest address of lanes.
#[inline(never)]
fn ends(from: &Lanes<u64>, reading: Mask) -> (u64, u64) {
    lanes(reading)
        .fold((u64::MAX, 0), |(low, high), lane| (low.min(from.0[lane]), high.max(from.0[lane])))
}

/// Whether all lanes read as much as they copy, at a quick look.
#[inline(always)]
fn reads_whole(warp: &Warp, inst: &Inst, mask: Mask, bytes: u32) -> bool {
    if inst.aux & IGNORE_SOURCE != 0 {
        return mask & warp.regs.pred(inst.m, inst.list[0]) == 0;
    }
    let (sizes, mut differs) = (&warp.regs.words[inst.m as usize], 0);
    for lane in 0..LANES {
        differs |= sizes.0[lane] ^ bytes;
    }
    differs == 0
}

#[inline(never)]
fn source_sizes(warp: &Warp, inst: &Inst, bytes: u32) -> Lanes<u32> {
    if inst.aux & IGNORE_SOURCE == 0 {
        return warp.regs.words[inst.m as usize];
    }
    let ignored = warp.regs.pred(inst.m, inst.list[0]);
    Lanes(std::array::from_fn(|lane| if ignored >> lane & 1 != 0 { 0 } else { bytes }))
}

/// Lanes of `mask` that read something, and those that read something else than `bytes`.
#[inline(never)]
fn sorted(sizes: &Lanes<u32>, mask: Mask, bytes: u32) -> (Mask, Mask) {
    let (mut reading, mut whole): (Mask, Mask) = (0, 0);
    for lane in 0..LANES {
        reading |= u32::from(sizes.0[lane] != 0) << lane;
        whole |= u32::from(sizes.0[lane] == bytes) << lane;
    }
    (reading & mask, reading & mask & !whole)
}

fn read_part(region: &Region, offset: usize, size: usize) -> [u32; 4] {
    let mut data = [0; 4];
    for (index, word) in data.iter_mut().enumerate().take(size / 4) {
        *word = region.load(offset + 4 * index);
    }
    for at in size / 4 * 4..size {
        data[at / 4] |= u32::from(region.load::<u8>(offset + at)) << (8 * (at % 4));
    }
    data
}

struct Commit;

impl Exec for Commit {
    #[inline(always)]
    fn exec(warp: &mut Warp, _: &Inst, mask: Mask, _: &mut Env<'_>) -> Flow {
        warp.copies.commit(mask);
        Flow::Next
    }
}

fn commit(f: &mut Form<'_, '_>) -> Lowered {
    f.run::<Commit>()
}

/// Waits for all groups but the newest [`Inst::imm`]; with [`Inst::aux`] for copies not committed yet too.
struct Wait;

impl Exec for Wait {
    #[inline(always)]
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        if inst.aux != 0 {
            warp.copies.commit(mask);
        }
        land(warp, inst.site, mask, Some(inst.imm as u32), env)
    }
}

/// Copies of a thread that exits which read nothing and only write zeros land, unless the order is to be strict: no GPU known takes
/// longer for them than for a store. Others stay in flight.
pub(crate) fn land_empty(warp: &mut Warp, pc: u32, mask: Mask, env: &mut Env<'_>) -> Flow {
    if warp.copies.is_empty() || env.launch.checks.contains(Checks::STRICT_ORDER) {
        return Flow::Next;
    }
    land(warp, pc, mask, None, env)
}

/// Lets copies of the lanes of a mask land, as [`Copies::wait`](crate::exec::copies::Copies::wait) has it, at an instruction.
#[inline(always)]
fn land(warp: &mut Warp, pc: u32, mask: Mask, newest: Option<u32>, env: &mut Env<'_>) -> Flow {
    let Env { shared, races, order, patterns, log, launch, .. } = env;
    let memory = Memory { launch, shared, local: None };
    let own = log.as_ref().and_then(|log| log.written());
    // Where accesses to bytes in flight are found, nobody has touched them since the copy was compared with all before.
    let checked = launch.checks.contains(Checks::MEMORY);
    let how = if checked { How::Record } else { How::Both };
    let (mut race, mut changed) = (None, None);
    let whole = mask == env.live;
    let Warp { copies, index, .. } = warp;
    let access =
        words::Access { warp: *index, pc, writes: true, strong: false, atomic: false, whole };
    copies.wait(shared, mask, newest, |copied, lanes| {
        // The bytes are written now, as far as the other threads can tell.
        if let (Some(races), Some(order)) = (&mut *races, &*order) {
            let slot =
                patterns::Slot::of(launch.kernel.code[copied.site as usize].home, access.warp);
            let to = (copied.to(), &copied.pattern);
            let (pattern, first) = patterns.of_copied(slot, to, lanes);
            if !races.by_pattern(order, access, pattern, (first, lanes), how) {
                let bytes = copied.bytes() as u64;
                let found = races.access(order, access, &copied.to().all(), lanes, bytes);
                race = race.or(found.map(|found| (found, bytes)));
            }
        }
        if let (Some(own), None) = (own, changed) {
            let found = copied.changed(&memory, lanes, |page| own.holds(page));
            changed = found.map(|found| (found, copied.site));
        }
    });
    if let Some(((lane, address), site)) = changed {
        return source_changed(env, lane, address, site);
    }
    match race {
        None => Flow::Next,
        Some((race, bytes)) => report_race(env, (access, bytes), &race),
    }
}

fn wait_group(f: &mut Form<'_, '_>) -> Lowered {
    let newest = f.integer()?;
    if u32::try_from(newest).is_err() {
        return Err(f.fault(format!(
            "`cp.async.wait_group {newest}`: the number of groups may not be negative"
        )));
    }
    f.inst.imm = newest;
    f.run::<Wait>()
}

fn wait_all(f: &mut Form<'_, '_>) -> Lowered {
    f.inst.aux = 1;
    f.run::<Wait>()
}
