//! Running one warp: independent thread scheduling over groups of lanes.
//!
//! The lanes of a warp that are at the same instruction form a group. The group with the lowest
//! program counter runs, so that groups meet again behind the branch that parted them; after
//! [`CREDIT`] instructions another ready group gets a turn, so that lanes which wait for each other
//! in a loop do not wait for ever.

use super::env::Env;
use super::inst::{Flow, Inst, Series, UNTRACKED};
use super::lanes::{ALL, Mask, lanes};
use super::warp::{CREDIT, Group, State, Warp};
use super::wide;
use crate::checks::{registers, taint};
use crate::finding::FindingKind;
use crate::launch::Checks;

/// Why a warp stopped running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Its turn is over.
    Turn,
    /// No group can go on by itself.
    Blocked,
    /// All lanes have exited.
    Done,
    /// [`Env::report`] says what is wrong, at this instruction.
    Fault(u32),
}

/// Steps that an instruction which orders CTAs counts for.
const DEFER_STEPS: u64 = 100;

/// Why a group stopped running.
enum Pause {
    /// Its turn or its credit is over, or another group may have to run before it.
    Reconsider,
    Fault(u32),
}

/// Runs a warp for about `turn` instructions. The second value tells whether anything was executed.
pub(crate) fn run_warp(warp: &mut Warp, env: &mut Env<'_>, turn: u64) -> (Stop, bool) {
    let begin = warp.steps;
    let end = begin + turn;
    let mut progress = false;
    loop {
        if warp.groups.is_empty() {
            return (Stop::Done, progress);
        }
        if warp.steps > env.launch.step_limit {
            let limit = env.launch.step_limit;
            let group = warp.groups[0];
            let lane = group.mask.trailing_zeros() as usize;
            let message =
                format!("the warp has executed more than {limit} instructions: an endless loop?");
            env.fault(FindingKind::StepLimit, lane, message);
            return (Stop::Fault(group.pc), progress);
        }
        if warp.steps >= end {
            return (Stop::Turn, progress);
        }
        let Some(chosen) = choose(warp, env) else { return (Stop::Blocked, progress) };
        let before = warp.steps;
        let pause = run_group(warp, env, chosen, end);
        progress |= warp.steps != before;
        if let Pause::Fault(pc) = pause {
            return (Stop::Fault(pc), progress);
        }
    }
}

/// Merges groups that have met and picks the one to run.
fn choose(warp: &mut Warp, env: &Env<'_>) -> Option<usize> {
    if warp.groups.len() > 1 {
        merge(warp);
    } else if warp.groups[0].state == State::Ready {
        return Some(0);
    }
    let ready = |group: &Group| match group.state {
        State::Ready => true,
        State::Barrier { id, phase } => env.barriers.phase(id) > phase,
        State::Retry { events } => env.mbarriers.events > events,
        _ => false,
    };
    let mut chosen: Option<usize> = None;
    let mut any = false;
    for (index, group) in warp.groups.iter().enumerate() {
        if !ready(group) {
            continue;
        }
        any = true;
        let before = |other: &Group| {
            (group.depth > other.depth) || (group.depth == other.depth && group.pc < other.pc)
        };
        if group.credit > 0 && chosen.is_none_or(|c| before(&warp.groups[c])) {
            chosen = Some(index);
        }
    }
    if any && chosen.is_none() {
        warp.groups.iter_mut().for_each(|g| g.credit = CREDIT);
        return choose(warp, env);
    }
    let index = chosen?;
    let group = &mut warp.groups[index];
    if let State::Barrier { id, phase } = group.state {
        warp.released |= group.mask;
        warp.votes = env.barriers.result(id, phase);
    }
    group.state = State::Ready;
    Some(index)
}

/// Joins groups at the same instruction; lanes that waited there for others try again.
fn merge(warp: &mut Warp) {
    let joinable = |group: &Group| matches!(group.state, State::Ready | State::Meet { .. });
    warp.groups.sort_unstable_by_key(|g| (g.pc, !joinable(g), g.depth));
    let mut kept: usize = 0;
    for index in 1..warp.groups.len() {
        let group = warp.groups[index];
        let last = &mut warp.groups[kept];
        // Lanes that wait for others of another depth of a recursion meet them all the same.
        let waits = |group: &Group| matches!(group.state, State::Meet { .. });
        let level = last.depth == group.depth || waits(last) || waits(&group);
        if last.pc == group.pc && level && joinable(last) && joinable(&group) {
            last.mask |= group.mask;
            last.state = State::Ready;
            last.credit = last.credit.max(group.credit);
            last.depth = last.depth.max(group.depth);
        } else {
            kept += 1;
            warp.groups[kept] = group;
        }
    }
    warp.groups.truncate(kept + 1);
}

/// Runs one group until it has to be considered again.
#[inline(never)]
fn run_group(warp: &mut Warp, env: &mut Env<'_>, index: usize, end: u64) -> Pause {
    let code = env.launch.kernel.code.as_slice();
    let check_registers = env.launch.checks.contains(Checks::REGISTERS);
    let group = warp.groups[index];
    let (mut pc, active) = (group.pc, group.mask);
    let threads = active.count_ones();
    let others = warp.groups.len() > 1;
    let tainted = warp.taint.is_some();
    env.patterns.begin();
    env.live = if env.launch.checks.contains(Checks::STRICT_ORDER) { 0 } else { warp.live };
    // Where another group waits or stands: reaching it means that they may merge.
    let limit = warp.groups.iter().filter(|g| g.pc > pc).map(|g| g.pc).min().unwrap_or(u32::MAX);
    let turn = end - warp.steps;
    let budget = if others { turn.min(group.credit.into()) } else { turn };
    let mut left = budget;
    let mut pause = Pause::Reconsider;
    // First of the instructions that are not in the tally yet.
    let mut start = pc;
    while left > 0 && pc < limit {
        let most = u32::try_from(left).unwrap_or(u32::MAX).min(limit - pc);
        let [plain, unguarded] = code[pc as usize].plain.map(u32::from);
        let mut ran = Ran { done: 0, flow: Flow::Next, mask: active, tracked: false };
        if !tainted {
            let behind = code.len().min((pc + most) as usize);
            ran = run_plain(warp, env, &code[pc as usize..behind], active, check_registers);
            if ran.done == 0 && ran.flow == Flow::Next && plain < unguarded {
                let stretch = &code[pc as usize..(pc + unguarded.min(most)) as usize];
                ran = run_tracked(warp, env, stretch, active);
            }
            pc += ran.done;
            left -= u64::from(ran.done);
            if ran.flow == Flow::Next && (left == 0 || pc >= limit) {
                break;
            }
        }
        left -= 1;
        let inst = &code[pc as usize];
        let Ran { mut flow, mut mask, mut tracked, .. } = ran;
        if flow == Flow::Next {
            mask &= warp.regs.pred(inst.guard, inst.flip);
            tracked = (inst.tracked != UNTRACKED && check_registers) | tainted;
            if tracked && let Err(()) = before(warp, env, pc, active, mask) {
                pause = Pause::Fault(pc);
                break;
            }
            take_back(env, inst, (active, mask));
            if mask != 0 {
                flow = inst.execute(warp, mask, env);
            }
        }
        if flow == Flow::Branch && mask == active {
            env.tally.add(start, pc + 1, threads);
            pc = inst.aux;
            start = pc;
            env.patterns.begin();
            continue;
        }
        match flow {
            Flow::Next => {
                if tracked {
                    after(warp, env, pc, mask);
                }
                pc += 1;
                if tracked && !tainted && warp.taint.is_some() {
                    break;
                }
            }
            Flow::Undefined => {
                if tracked {
                    after(warp, env, pc, mask);
                }
                pc += 1;
                break;
            }
            Flow::Fault => {
                pause = Pause::Fault(pc);
                break;
            }
            flow => {
                if tracked {
                    let left = if flow == Flow::Meet { mask & !env.waiting } else { mask };
                    after(warp, env, pc, left);
                }
                env.tally.add(start, pc + 1, threads);
                warp.steps += budget - left;
                if flow == Flow::Branch && inst.m != 0 {
                    let lane = mask.trailing_zeros() as usize;
                    let message = "a branch marked .uni is taken by a part of the lanes";
                    env.fault(FindingKind::Divergence, lane, message);
                    return Pause::Fault(pc);
                }
                part(warp, env, index, pc, mask, flow);
                return Pause::Reconsider;
            }
        }
    }
    env.tally.add(start, pc, threads);
    let used = budget - left;
    warp.steps += used;
    let group = &mut warp.groups[index];
    group.pc = pc;
    group.credit = group.credit.saturating_sub(if others { used as u32 } else { 0 });
    pause
}

/// What was run: so many instructions, and behind them one that does not simply lead to the next, or one that has still to be run.
struct Ran {
    done: u32,
    /// What the instruction behind asks for, if it has been run.
    flow: Flow,
    /// The lanes that have run it, or may.
    mask: Mask,
    /// Whether its registers are tracked.
    tracked: bool,
}

/// Of what an instruction counts for, takes back the lanes that its guard leaves out.
#[inline(always)]
fn take_back(env: &mut Env<'_>, inst: &Inst, (active, mask): (Mask, Mask)) {
    if mask != active {
        env.tally.take_back(inst.site, (u32::from(mask == 0), (active & !mask).count_ones()));
    }
}

/// Runs instructions up to those whose registers are tracked and have to be looked at, if they are to be `checked`. A function of its own, so that the processor's registers hold all it needs.
#[inline(never)]
fn run_plain(
    warp: &mut Warp,
    env: &mut Env<'_>,
    code: &[Inst],
    active: Mask,
    checked: bool,
) -> Ran {
    let tracks = env.launch.kernel.tracks.as_slice();
    let ran = |at: usize, flow, mask| {
        let tracked = checked && code.get(at).is_some_and(|inst| inst.tracked != UNTRACKED);
        Ran { done: at as u32, flow, mask, tracked }
    };
    let mut at = 0;
    while let Some(inst) = code.get(at) {
        let [untracked, plain] = inst.plain.map(usize::from);
        if checked && (untracked < plain || plain == 0) {
            // Where all lanes have written all registers, there is nothing to be found or noted.
            let first = code.get(at + untracked).and_then(|inst| tracks.get(inst.tracked as usize));
            if first.is_some_and(|track| !warp.whole.contains(track.ahead)) {
                break;
            }
        }
        if plain != 0 {
            let mut rest = &code[at..code.len().min(at + plain)];
            at += rest.len();
            while let [inst, behind @ ..] = rest {
                if inst.series.is_some()
                    && active == ALL
                    && let Some(behind) = run_series(warp, env, rest)
                {
                    rest = behind;
                    continue;
                }
                let flow = inst.execute(warp, active, env);
                if flow != Flow::Next {
                    return ran(at - rest.len(), flow, active);
                }
                rest = behind;
            }
            continue;
        }
        let mask = active & warp.regs.pred(inst.guard, inst.flip);
        take_back(env, inst, (active, mask));
        if mask != 0 {
            let flow = inst.execute(warp, mask, env);
            if flow != Flow::Next {
                return ran(at, flow, mask);
            }
        }
        at += 1;
    }
    ran(at, Flow::Next, active)
}

/// Runs the instructions that come first and can be run together, for all lanes. Gives what is behind them, if there are any.
#[inline(always)]
fn run_series<'c>(warp: &mut Warp, env: &Env<'_>, code: &'c [Inst]) -> Option<&'c [Inst]> {
    let (index, count) = code.first()?.series?;
    let count = usize::from(count.get());
    match &env.launch.kernel.series[usize::from(index)] {
        Series::Each(each) => {
            let (series, behind) = code.split_at(code.len().min(count));
            Inst::execute_each(*each, warp, series);
            Some(behind)
        }
        Series::Sums(sums) => {
            let behind = code.get(count..)?;
            wide::add_up(&mut warp.regs.words, sums);
            Some(behind)
        }
    }
}

/// Runs instructions without guard, of which the registers of some are tracked; ends before one is read that some lanes have not
/// written.
#[inline(never)]
fn run_tracked(warp: &mut Warp, env: &mut Env<'_>, code: &[Inst], active: Mask) -> Ran {
    let tracks = env.launch.kernel.tracks.as_slice();
    let mut at = 0;
    let ran = |at: usize, flow, tracked| Ran { done: at as u32, flow, mask: active, tracked };
    while let Some(inst) = code.get(at) {
        let untracked = usize::from(inst.plain[0]);
        if untracked != 0 {
            let behind = code.len().min(at + untracked);
            let Ran { done, flow, .. } = run_plain(warp, env, &code[at..behind], active, false);
            at += done as usize;
            if flow != Flow::Next {
                return ran(at, flow, false);
            }
            continue;
        }
        let track = tracks.get(inst.tracked as usize);
        if track.is_some_and(|track| warp.whole.contains(track.ahead)) {
            // All lanes have written all of them, so that there is nothing to be found or noted.
            let Ran { done, flow, .. } = run_plain(warp, env, &code[at..], active, false);
            let last = code.get(at + done as usize);
            let tracked = last.is_some_and(|inst| inst.tracked != UNTRACKED);
            return ran(at + done as usize, flow, tracked);
        }
        if track.is_some_and(|track| !registers::are_written(warp, track, active)) {
            return ran(at, Flow::Next, false);
        }
        let flow = inst.execute(warp, active, env);
        if flow != Flow::Next {
            return ran(at, flow, track.is_some());
        }
        if let Some(track) = track {
            registers::note(warp, env, track, active);
        }
        at += 1;
    }
    ran(code.len(), Flow::Next, false)
}

/// Splits a group after an instruction that its lanes leave in different ways.
#[cold]
fn part(warp: &mut Warp, env: &mut Env<'_>, index: usize, pc: u32, mask: Mask, flow: Flow) {
    let group = warp.groups[index];
    let rest = group.mask & !mask;
    if let Flow::Meet | Flow::Barrier | Flow::Retry = flow {
        // These lanes come back to the instruction; it is counted when they leave it.
        let back = if flow == Flow::Meet { env.waiting } else { mask };
        env.tally.take_back(pc, (u32::from(back == mask), back.count_ones()));
    }
    let below = match flow {
        Flow::Call => group.depth + 1,
        Flow::Return => group.depth.saturating_sub(1),
        _ => group.depth,
    };
    let mut add = |mask: Mask, pc: u32, state: State| {
        if mask != 0 {
            // Lanes that a call or a return leaves behind stay where they are.
            let depth = if mask & rest == mask { group.depth } else { below };
            warp.groups.push(Group { pc, mask, state, depth, credit: CREDIT });
        }
    };
    match flow {
        Flow::Branch => {
            env.counters.divergent_branches += 1;
            add(mask, env.launch.kernel.code[pc as usize].aux, State::Ready);
            add(rest, pc + 1, State::Ready);
        }
        Flow::Scatter | Flow::Call | Flow::Return => {
            let first = env.targets.0[mask.trailing_zeros() as usize];
            let mut left = mask;
            while left != 0 {
                let target = env.targets.0[left.trailing_zeros() as usize];
                let there =
                    lanes(left).filter(|&l| env.targets.0[l] == target).fold(0, |m, l| m | 1 << l);
                env.counters.divergent_branches += u64::from(target != first);
                add(there, target, State::Ready);
                left &= !there;
            }
            add(rest, pc + 1, State::Ready);
        }
        Flow::Exit => {
            add(rest, pc + 1, State::Ready);
            warp.live &= !mask;
            // Lanes that have exited need not arrive any more.
            for group in &mut warp.groups {
                if matches!(group.state, State::Meet { .. }) {
                    group.state = State::Ready;
                }
            }
        }
        Flow::Meet => {
            add(env.waiting, pc, State::Meet { wanted: env.wanted });
            add(group.mask & !env.waiting, pc + 1, State::Ready);
        }
        Flow::Barrier => {
            let (id, phase) = (env.barrier, env.barriers.phase(env.barrier));
            add(mask, pc, State::Barrier { id, phase });
            add(rest, pc + 1, State::Ready);
        }
        Flow::Defer => {
            warp.steps += DEFER_STEPS;
            add(mask, pc, State::Defer);
            add(rest, pc + 1, State::Ready);
        }
        Flow::Retry => {
            add(mask, pc, State::Retry { events: env.mbarriers.events });
            add(rest, pc + 1, State::Ready);
        }
        Flow::Next | Flow::Undefined | Flow::Fault => {}
    }
    warp.groups.swap_remove(index);
}

/// What is checked before an instruction that needs it: its registers are written, and no undefined value decides anything.
fn before(warp: &mut Warp, env: &mut Env<'_>, pc: u32, active: Mask, mask: Mask) -> Result<(), ()> {
    let tracked = env.launch.kernel.code[pc as usize].tracked;
    if tracked != UNTRACKED && env.launch.checks.contains(Checks::REGISTERS) {
        registers::check_reads(warp, env, (pc, tracked), active, mask)?;
    }
    if warp.taint.is_some() { taint::before(warp, env, pc, active, mask) } else { Ok(()) }
}

/// Notes what the lanes of `mask` have written.
fn after(warp: &mut Warp, env: &mut Env<'_>, pc: u32, mask: Mask) {
    let tracked = env.launch.kernel.code[pc as usize].tracked;
    if tracked != UNTRACKED && env.launch.checks.contains(Checks::REGISTERS) {
        registers::note_writes(warp, env, tracked, mask);
    }
    if warp.taint.is_some() {
        taint::after(warp, env, pc, mask);
    }
}

/// Executes the instruction at which a group waits for the end of the round.
pub(crate) fn commit(warp: &mut Warp, env: &mut Env<'_>, mask: Mask) -> Option<Stop> {
    let index = warp.groups.iter().position(|g| g.mask & mask != 0 && g.state == State::Defer)?;
    let (pc, mask) = (warp.groups[index].pc, warp.groups[index].mask);
    let inst = &env.launch.kernel.code[pc as usize];
    env.patterns.begin();
    env.committing = true;
    let flow = inst.execute(warp, mask, env);
    env.committing = false;
    if flow == Flow::Fault {
        return Some(Stop::Fault(pc));
    }
    if inst.tracked != UNTRACKED {
        registers::note_writes(warp, env, inst.tracked, mask);
    }
    let group = &mut warp.groups[index];
    group.pc = pc + 1;
    group.state = State::Ready;
    None
}
