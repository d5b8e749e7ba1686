//! The tree to code that runs: names become slots, labels program counters, opcodes handlers.

pub(crate) mod body;
pub(crate) mod call;
pub(crate) mod callee;
pub(crate) mod flow;
pub(crate) mod form;
pub(crate) mod in_flight;
pub(crate) mod kernel;
pub(crate) mod plan;
pub(crate) mod scene;
pub(crate) mod special;
pub(crate) mod strands;
pub(crate) mod symbols;
pub(crate) mod table;

use body::Body;
use flow::{DataFlow, Slot};
use kernel::{Kernel, Track, Tracked};
use plan::Plan;
use scene::Scene;

use std::num::NonZero;

use crate::error::Fault;
use crate::exec::desk::Desks;
use crate::exec::inst::{Inst, Series, UNTRACKED};
use crate::exec::sums::Sums;
use crate::memory::FIRST_OFFSET;
use crate::parse::ast::Function;
use crate::types::Class;

/// Lowers one entry.
pub(crate) fn entry(scene: &Scene<'_>, function: &Function<'_>) -> Result<Kernel, Fault> {
    let first = Body::lower(scene, function, None)?;
    if first.shared_end > 1 << 20 {
        let bytes = first.shared_end - FIRST_OFFSET;
        return Err(Fault::new(
            function.line,
            format!("{bytes} bytes of shared memory are more than any device has"),
        ));
    }
    let roots: Vec<u32> = std::iter::once(0).chain(first.pending.iter().map(|p| p.entry)).collect();
    let plan = Plan::new(&first.metas, &roots, &first.registers, first.shared_end);
    let mut body = Body::lower(scene, function, Some(&plan))?;
    scene.spend(body.code.len(), body.registers.len());
    let tracks = tracks(&mut body, &plan);
    strands::number(&mut body);
    let series = series(&mut body);
    let [words, doubles, preds] = body.slots.map(|n| n as usize);
    let tracked_slots = tracked_slots(&body, &plan);
    let flow = DataFlow::new(&body.metas, &body.registers, &plan);
    let waiting = in_flight::in_flight(&body.metas, &roots, body.registers.len());
    for (inst, waiting) in body.code.iter_mut().zip(waiting) {
        inst.waiting = waiting;
    }
    let callees = call::finished(&body, &plan);
    let stack_bottom = body.local_bytes.next_multiple_of(16);
    let local_bytes = stack_bottom + callee::stack_bytes(&callees, body.allocates);
    Ok(Kernel {
        name: function.name.to_owned(),
        code: body.code,
        series,
        lines: body.lines,
        classes: body.classes,
        flow,
        words,
        doubles,
        preds,
        constants: body.constants,
        tracked: plan.tracked.clone(),
        tracked_slots,
        tracks,
        params: body.params,
        param_bytes: body.param_bytes,
        shared: body.shared,
        shared_end: body.shared_end as u32,
        local_bytes: local_bytes.next_multiple_of(32),
        stack_bottom,
        has_stack: !callees.is_empty() || body.allocates,
        callees,
        limits: function.limits,
        desks: Desks::default(),
    })
}

/// Fewer instructions of a kind are run one by one.
const SERIES: u8 = 3;

/// Finds the instructions without a guard that follow each other and can be run together.
fn series(body: &mut Body<'_>) -> Vec<Series> {
    count_kinds(&mut body.code);
    let mut series: Vec<_> = body.series.iter().map(|&(_, each)| Series::Each(each)).collect();
    let mut entered = vec![false; body.code.len() + 1];
    body.labels.iter().flatten().for_each(|&label| entered[label as usize] = true);
    let mut at = 0;
    while at < body.code.len() {
        let unguarded = usize::from(body.code[at].plain[1]);
        // Those that a branch goes to begin anew, so that they are found there too.
        let own = (at..at + unguarded).take_while(|&pc| pc == at || !entered[pc]);
        let terms = own.map(|pc| body.metas[pc].term);
        let index = u16::try_from(series.len());
        match (Sums::of(&body.code[at..], terms), index) {
            (Some(sums), Ok(index)) => {
                body.code[at].series = Some((index, sums.count()));
                at += usize::from(sums.count().get());
                series.push(Series::Sums(sums));
            }
            _ => at += 1,
        }
    }
    series
}

/// Counts instructions of one kind that follow each other without a guard.
fn count_kinds(code: &mut [Inst]) {
    let mut following: Option<(u16, NonZero<u8>)> = None;
    for inst in code.iter_mut().rev() {
        inst.series = inst.series.filter(|_| inst.plain[1] != 0).map(|(kind, one)| {
            let more = following.filter(|(other, _)| *other == kind);
            (kind, more.map_or(one, |(_, count)| count.saturating_add(1)))
        });
        following = inst.series;
        inst.series = inst.series.filter(|(_, count)| count.get() >= SERIES);
    }
}

fn tracked_slots(body: &Body<'_>, plan: &Plan) -> Vec<Slot> {
    let mut slots = vec![Slot::new(Class::Word, 0); plan.tracked.len()];
    for (register, tracked) in plan.tracked_of.iter().enumerate() {
        if let Some(tracked) = tracked {
            let class = body.registers[register].class();
            slots[*tracked as usize] = Slot::new(class, plan.slot_of[register]);
        }
    }
    slots
}

/// Notes in each instruction which tracked registers it touches.
fn tracks(body: &mut Body<'_>, plan: &Plan) -> Vec<Track> {
    let mut tracks = Vec::new();
    for (inst, meta) in body.code.iter_mut().zip(&body.metas) {
        let among = |list: &[u32]| {
            list.iter().filter_map(|&r| plan.tracked_of[r as usize]).collect::<Vec<_>>()
        };
        let (mut reads, writes) = (among(&meta.reads), among(&meta.writes));
        let mut guard = None;
        if meta.guarded {
            // The guard is the first operand that is read.
            guard = meta.reads.first().and_then(|&r| plan.tracked_of[r as usize]);
            reads.drain(..usize::from(guard.is_some()));
        }
        inst.tracked = UNTRACKED;
        if guard.is_some() || !reads.is_empty() || !writes.is_empty() {
            inst.tracked = tracks.len() as u32;
            let (read_set, write_set) = (Tracked::new(&reads), Tracked::new(&writes));
            let ahead = read_set.joined(write_set);
            let ahead = ahead.joined(Tracked::new(guard.as_slice()));
            let ahead = if meta.partial { ahead.with_others() } else { ahead };
            tracks.push(Track { guard, reads, writes, read_set, write_set, ahead });
        }
        let plain = !meta.guarded && inst.tracked == UNTRACKED;
        inst.plain = [plain, !meta.guarded].map(u16::from);
    }
    let mut ahead = Tracked::default();
    for (inst, meta) in body.code.iter().zip(&body.metas).rev() {
        if meta.guarded {
            ahead = Tracked::default();
        } else if let Some(track) = tracks.get_mut(inst.tracked as usize) {
            ahead = ahead.joined(track.ahead);
            track.ahead = ahead;
        }
    }
    let mut following = [0_u16; 2];
    for inst in body.code.iter_mut().rev() {
        for (count, following) in inst.plain.iter_mut().zip(&mut following) {
            *following = if *count == 0 { 0 } else { following.saturating_add(1) };
            *count = *following;
        }
    }
    tracks
}
