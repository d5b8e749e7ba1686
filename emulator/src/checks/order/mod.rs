//! Order: which accesses of other threads come before what a thread does now.
//!
//! Every warp has a clock that ticks whenever lanes of it synchronise with anybody; an access is known by its
//! warp, its lane and the clock. For every set of lanes that know the same there is one [`Class`]: what they
//! know of the warps of their own CTA and of those of others. Knowledge is passed on
//!
//! * by `bar.warp.sync` among its lanes, and by barriers of the CTA;
//! * by release and acquire at an address (PTX ISA, "Memory Consistency Model: Release and Acquire
//!   Patterns"): a release operation passes on all that its thread knows, a relaxed one what the thread
//!   knew at its last fence; an acquire operation takes it in at once, a relaxed one at the next fence. A
//!   fence counts for other CTAs if its scope is the GPU or the system.
//!
//! Bytes that an asynchronous copy brings and an mbarrier learns of are written by an agent of its own, which
//! stands behind the warps of the CTA in every clock: only who waits at that mbarrier has seen them.
//!
//! What a thread has set aside at a fence, and what it has still to take in, goes through barriers too:
//! the fence of one thread and the atomic of another form a pattern if a barrier lies between.

pub(crate) mod others;
mod phases;
pub(crate) mod seen;

use std::collections::HashMap;

use crate::exec::barrier::OBJECTS;
use crate::exec::lanes::Mask;
use others::Others;
use phases::Phases;
use seen::{Seen, join_warps};

/// Clocks stop here; a record of an access holds no later ones.
pub(crate) const LAST_CLOCK: u32 = (1 << 23) - 1;

/// Who is meant by a fence or a strong access.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Cta,
    /// Other CTAs too.
    Gpu,
}

/// Which halves of a fence or of an access order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sides {
    pub(crate) acquire: bool,
    pub(crate) release: bool,
}

/// What threads know.
#[derive(Debug, Clone, Default)]
pub(crate) struct Knowledge {
    /// Of each warp of the CTA and, last, of the agent of asynchronous copies.
    warps: Vec<Seen>,
    /// Of other CTAs.
    others: Others,
}

impl Knowledge {
    fn join(&mut self, other: &Knowledge) {
        if self.warps.len() < other.warps.len() {
            self.warps.resize(other.warps.len(), Seen::default());
        }
        join_warps(&mut self.warps, &other.warps);
        self.others.join(&other.others);
    }

    /// The lanes of a warp have been seen up to a clock.
    fn raise(&mut self, warp: usize, mask: Mask, present: Mask, clock: u32) {
        if self.warps.len() <= warp {
            self.warps.resize(warp + 1, Seen::default());
        }
        self.warps[warp].raise(mask, present, clock);
    }
}

/// What lanes have set aside at their last fence.
#[derive(Debug, Clone)]
struct Released {
    knows: Knowledge,
    /// The clock of each lane at the fence: up to it a lane's own accesses belong to what it passes on.
    own: u32,
}

/// What fences of one scope have to do with.
#[derive(Debug, Clone, Default)]
struct Pending {
    /// What a relaxed write passes on.
    release: Option<Box<Released>>,
    /// What relaxed reads have brought, which the next fence takes in.
    acquire: Option<Box<Knowledge>>,
}

impl Pending {
    /// Adds what other lanes have pending; `lanes` are these.
    fn join(&mut self, other: &Pending, warp: usize, lanes: Mask, present: Mask) {
        if let Some(theirs) = &other.release {
            let mut knows = theirs.knows.clone();
            knows.raise(warp, lanes, present, theirs.own);
            match &mut self.release {
                None => self.release = Some(Box::new(Released { knows, own: 0 })),
                Some(mine) => mine.knows.join(&knows),
            }
        }
        add(&mut self.acquire, other.acquire.as_deref());
    }

    fn take(&mut self, from: &Pending) {
        if let Some(theirs) = &from.release {
            match &mut self.release {
                None => self.release = from.release.clone(),
                Some(mine) => mine.knows.join(&theirs.knows),
            }
        }
        add(&mut self.acquire, from.acquire.as_deref());
    }
}

fn add(into: &mut Option<Box<Knowledge>>, from: Option<&Knowledge>) {
    match (into, from) {
        (_, None) => {}
        (Some(mine), Some(theirs)) => mine.join(theirs),
        (into, Some(theirs)) => *into = Some(Box::new(theirs.clone())),
    }
}

/// Lanes of a warp that know the same, each its own accesses besides.
#[derive(Debug, Clone, Default)]
struct Class {
    mask: Mask,
    knows: Knowledge,
    cta: Pending,
    gpu: Pending,
}

impl Class {
    /// Comes to know what has come together elsewhere.
    fn take(&mut self, joint: &Joint) {
        self.knows.join(&joint.knows);
        self.cta.take(&joint.cta);
        self.gpu.take(&joint.gpu);
    }

    fn pending(&mut self, scope: Scope) -> &mut Pending {
        match scope {
            Scope::Cta => &mut self.cta,
            Scope::Gpu => &mut self.gpu,
        }
    }
}

#[derive(Debug, Default)]
struct WarpOrder {
    clock: u32,
    /// Lanes that the warp has.
    present: Mask,
    /// Each lane is in one.
    classes: Vec<Class>,
}

/// What has come together at a barrier: no lanes, all knowledge.
type Joint = Class;

/// What was last passed on at an address, and so what comes before a read of it.
#[derive(Debug, Default)]
pub(crate) struct Objects(HashMap<u64, Knowledge>);

impl Objects {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn get(&self, address: u64) -> Option<&Knowledge> {
        self.0.get(&address)
    }

    /// A write at an address; an atomic one goes on with what was there.
    fn write(&mut self, address: u64, atomic: bool, passed: Option<Knowledge>) {
        match (passed, atomic) {
            (Some(new), true) => self.0.entry(address).or_default().join(&new),
            (Some(new), false) => {
                self.0.insert(address, new);
            }
            (None, true) => {}
            (None, false) => {
                self.0.remove(&address);
            }
        }
    }
}

/// A strong access of one lane.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strong {
    pub(crate) warp: u32,
    pub(crate) lane: usize,
    pub(crate) address: u64,
    pub(crate) reads: bool,
    pub(crate) writes: bool,
    pub(crate) sides: Sides,
}

/// The order of what the threads of one CTA do.
#[derive(Debug, Default)]
pub(crate) struct Order {
    cta: u64,
    warps: Vec<WarpOrder>,
    arriving: Vec<Joint>,
    complete: Vec<Joint>,
    /// What threads that have exited had done, and how many these are.
    exited: Joint,
    exited_threads: u32,
    /// Addresses at which threads of this CTA have synchronised with each other.
    objects: Objects,
    mbarriers: Phases,
    /// Asynchronous copies that have landed at an mbarrier.
    agent_clock: u32,
    /// Threads that have arrived at each barrier and wait there.
    waiting: Vec<u32>,
    /// Threads of the CTA.
    threads: u32,
    /// See [`Order::meetings`].
    meetings: u64,
}

impl Order {
    /// Forgets everything: CTA number `cta` starts, whose warps have these lanes.
    pub(crate) fn reset(&mut self, cta: u64, present: impl ExactSizeIterator<Item = Mask>) {
        self.cta = cta;
        let count = present.len();
        self.warps.clear();
        (self.threads, self.exited_threads, self.meetings) = (0, 0, 0);
        self.waiting.clear();
        self.waiting.resize(OBJECTS, 0);
        for present in present {
            self.threads += present.count_ones();
            let knows = Knowledge { warps: vec![Seen::default(); count + 1], ..Default::default() };
            let class = Class { mask: present, knows, ..Default::default() };
            self.warps.push(WarpOrder { clock: 1, present, classes: vec![class] });
        }
        for list in [&mut self.arriving, &mut self.complete] {
            list.clear();
            list.resize(OBJECTS, Joint::default());
        }
        self.exited = Joint::default();
        self.objects.clear();
        self.mbarriers.clear();
        self.agent_clock = 0;
    }

    /// The agent of asynchronous copies, as the number of a warp.
    pub(crate) fn agent(&self) -> u32 {
        self.warps.len() as u32
    }

    /// The clock of a warp: that of an access which it makes now.
    #[inline(always)]
    pub(crate) fn clock(&self, warp: u32) -> u32 {
        self.warps[warp as usize].clock
    }

    /// What a lane has seen of each warp of its CTA.
    #[inline(always)]
    pub(crate) fn seen(&self, warp: u32, lane: usize) -> &[Seen] {
        &self.warps[warp as usize].class(lane).knows.warps
    }

    /// Whether all lanes of a warp know the same.
    #[inline(always)]
    pub(crate) fn is_uniform(&self, warp: u32) -> bool {
        self.warps[warp as usize].classes.len() == 1
    }

    /// The clock up to which a lane has seen every warp of its CTA.
    #[inline(always)]
    pub(crate) fn least(&self, warp: u32, lane: usize) -> u32 {
        let warps = &self.seen(warp, lane)[..self.warps.len()];
        warps.iter().fold(u32::MAX, |least, seen| least.min(seen.floor()))
    }

    /// What a lane knows of other CTAs.
    pub(crate) fn others(&self, warp: u32, lane: usize) -> &Others {
        &self.warps[warp as usize].class(lane).knows.others
    }

    /// As [`Order::others`], with what its relaxed reads have brought and no fence has taken in.
    pub(crate) fn observed(&self, warp: u32, lane: usize) -> Others {
        let class = self.warps[warp as usize].class(lane);
        let mut all = class.knows.others.clone();
        if let Some(brought) = &class.gpu.acquire {
            all.join(&brought.others);
        }
        all
    }

    /// Sets of lanes of a warp that know the same.
    pub(crate) fn classes(&self, warp: u32) -> impl Iterator<Item = Mask> {
        self.warps[warp as usize].classes.iter().map(|class| class.mask)
    }

    /// `bar.warp.sync` of these lanes.
    #[inline(always)]
    pub(crate) fn sync_lanes(&mut self, warp: u32, mask: Mask) {
        self.warps[warp as usize].sync(warp as usize, mask);
    }

    /// Times that all threads of the CTA have met at a barrier: what any of them has done before the last one, but copies that
    /// none has waited for, all know in what they do from now on.
    #[inline(always)]
    pub(crate) fn meetings(&self) -> u64 {
        self.meetings
    }

    /// Lanes arrive at a barrier, at which they wait: what they have done comes before those that leave it.
    pub(crate) fn meet(&mut self, id: u32, warp: u32, mask: Mask) {
        self.waiting[id as usize % OBJECTS] += mask.count_ones();
        self.arrive(id, warp, mask);
    }

    /// As [`Order::meet`], of lanes that go on at once.
    pub(crate) fn arrive(&mut self, id: u32, warp: u32, mask: Mask) {
        let own = &mut self.warps[warp as usize];
        own.sync(warp as usize, mask);
        let class = own.class(mask.trailing_zeros() as usize);
        let joint = &mut self.arriving[id as usize % OBJECTS];
        joint.knows.join(&class.knows);
        joint.cta.join(&class.cta, warp as usize, 0, own.present);
        joint.gpu.join(&class.gpu, warp as usize, 0, own.present);
    }

    /// The last thread has arrived; at a barrier `for_all`, or has exited.
    pub(crate) fn completed(&mut self, id: u32, for_all: bool) {
        let at = id as usize % OBJECTS;
        self.complete[at] = std::mem::take(&mut self.arriving[at]);
        let mut threads = std::mem::take(&mut self.waiting[at]);
        if for_all {
            self.complete[at].take(&self.exited);
            threads += self.exited_threads;
        }
        self.meetings += u64::from(threads == self.threads);
    }

    /// Lanes exit: what they have done comes before those that leave a barrier which would have waited for them.
    pub(crate) fn exit(&mut self, warp: u32, mask: Mask) {
        self.exited_threads += mask.count_ones();
        self.warps[warp as usize].pass_on(warp as usize, mask, &mut self.exited);
    }

    /// Lanes leave a barrier.
    pub(crate) fn leave(&mut self, id: u32, warp: u32, mask: Mask) {
        let joint = &self.complete[id as usize % OBJECTS];
        let own = &mut self.warps[warp as usize];
        let index = own.together(warp as usize, mask);
        own.classes[index].take(joint);
    }

    /// A fence of these lanes.
    pub(crate) fn fence(&mut self, warp: u32, mask: Mask, scope: Scope, sides: Sides) {
        let own = &mut self.warps[warp as usize];
        own.separate(mask);
        let clock = own.clock;
        for class in own.classes.iter_mut().filter(|class| class.mask & mask != 0) {
            let Class { knows, cta, gpu, .. } = class;
            let scopes = if scope == Scope::Gpu { vec![cta, gpu] } else { vec![cta] };
            for pending in scopes {
                if sides.acquire
                    && let Some(taken) = pending.acquire.take()
                {
                    knows.join(&taken);
                }
                if sides.release {
                    let released = Released { knows: knows.clone(), own: clock };
                    pending.release = Some(Box::new(released));
                }
            }
        }
        own.tick();
    }

    /// A strong access to memory that only this CTA sees, or that only it is to be synchronised with.
    pub(crate) fn strong(&mut self, access: Strong) {
        let mut objects = std::mem::take(&mut self.objects);
        self.synchronise(&mut objects, access, Scope::Cta);
        self.objects = objects;
    }

    /// A strong access that others see too; `objects` are what they have passed on.
    pub(crate) fn strong_among(&mut self, objects: &mut Objects, access: Strong) {
        self.strong(access);
        self.synchronise(objects, access, Scope::Gpu);
    }

    fn synchronise(&mut self, objects: &mut Objects, access: Strong, scope: Scope) {
        let Strong { warp, lane, address, reads, writes, sides } = access;
        let own = &mut self.warps[warp as usize];
        if let Some(brought) = reads.then(|| objects.get(address)).flatten() {
            let mut brought = brought.clone();
            // What others know of this CTA is of use here too.
            if let Some(warps) = brought.others.get(self.cta) {
                let warps = warps.to_vec();
                brought.join(&Knowledge { warps, others: Others::default() });
            }
            let index = own.together(warp as usize, 1 << lane);
            let class = &mut own.classes[index];
            if sides.acquire {
                class.knows.join(&brought);
            } else {
                add(&mut class.pending(scope).acquire, Some(&brought));
            }
        }
        if !writes {
            return;
        }
        let (clock, present) = (own.clock, own.present);
        let class = own.class(lane);
        let passed = if sides.release {
            Some((class.knows.clone(), clock))
        } else {
            let released = if scope == Scope::Gpu { &class.gpu } else { &class.cta };
            released.release.as_deref().map(|r| (r.knows.clone(), r.own))
        };
        let passes = passed.is_some();
        let passed = passed.map(|(mut knows, own)| {
            knows.raise(warp as usize, 1 << lane, present, own);
            if scope == Scope::Gpu {
                let warps = std::mem::take(&mut knows.warps);
                knows.others.add(self.cta, &warps);
            }
            knows
        });
        objects.write(address, reads, passed);
        if passes {
            own.tick();
        }
    }
}

impl WarpOrder {
    /// Adds what the lanes of a mask know and have done.
    fn pass_on(&mut self, warp: usize, mask: Mask, joint: &mut Joint) {
        let (present, clock) = (self.present, self.clock);
        for class in &self.classes {
            let lanes = class.mask & mask;
            if lanes != 0 {
                joint.knows.join(&class.knows);
                joint.knows.raise(warp, lanes, present, clock);
                joint.cta.join(&class.cta, warp, lanes, present);
                joint.gpu.join(&class.gpu, warp, lanes, present);
            }
        }
        self.tick();
    }

    #[inline(always)]
    fn class(&self, lane: usize) -> &Class {
        let all = &self.classes;
        if all.len() == 1 {
            return &all[0];
        }
        all.iter().find(|class| class.mask >> lane & 1 != 0).unwrap_or(&all[0])
    }

    fn tick(&mut self) {
        self.clock = (self.clock + 1).min(LAST_CLOCK);
    }

    /// The lanes of a mask come to know what each of them knows and has done.
    #[inline(always)]
    fn sync(&mut self, warp: usize, mask: Mask) {
        let index = self.together(warp, mask);
        let (clock, present) = (self.clock, self.present);
        let class = &mut self.classes[index];
        class.knows.raise(warp, mask, present, clock);
        for pending in [&mut class.cta, &mut class.gpu] {
            if let Some(released) = &mut pending.release {
                let own = std::mem::take(&mut released.own);
                released.knows.raise(warp, mask, present, own);
            }
        }
        self.tick();
    }

    /// Splits classes so that each lies inside or outside of a mask.
    fn separate(&mut self, mask: Mask) {
        for index in 0..self.classes.len() {
            let inside = self.classes[index].mask & mask;
            if inside != 0 && inside != self.classes[index].mask {
                let mut other = self.classes[index].clone();
                other.mask &= !mask;
                self.classes[index].mask = inside;
                self.classes.push(other);
            }
        }
    }

    /// Makes one class of the lanes of a mask, which knows what any of them knows of others; gives its index.
    #[inline(always)]
    fn together(&mut self, warp: usize, mask: Mask) -> usize {
        if self.classes.len() == 1 && mask & self.present == self.present {
            return 0;
        }
        self.together_slowly(warp, mask)
    }

    #[cold]
    fn together_slowly(&mut self, warp: usize, mask: Mask) -> usize {
        self.separate(mask);
        let present = self.present;
        let parts: Vec<Class> = self.classes.extract_if(.., |c| c.mask & mask != 0).collect();
        let mut parts = parts.into_iter();
        let Some(mut all) = parts.next() else { return 0 };
        let mut lanes = all.mask;
        if parts.len() > 0 {
            // Each part's own accesses up to its fence become knowledge, for the parts may have different fences.
            for pending in [&mut all.cta, &mut all.gpu] {
                if let Some(released) = &mut pending.release {
                    let own = std::mem::take(&mut released.own);
                    released.knows.raise(warp, lanes, present, own);
                }
            }
        }
        for part in parts {
            all.knows.join(&part.knows);
            all.cta.join(&part.cta, warp, part.mask, present);
            all.gpu.join(&part.gpu, warp, part.mask, present);
            lanes |= part.mask;
        }
        all.mask = lanes;
        self.classes.push(all);
        self.classes.len() - 1
    }
}
