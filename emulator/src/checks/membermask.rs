//! Membermasks: which lanes have to be together, and lanes that name themselves or each other wrongly.
//!
//! Lanes that have exited are not waited for. Lanes that never come are told by [`super::deadlock`].

use crate::exec::env::Env;
use crate::exec::inst::Flow;
use crate::exec::lanes::{Lanes, Mask, lanes};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;

/// Which lanes of a mask, all of them at the same instruction, have everybody with them whom they name. Otherwise
/// notes for whom they wait.
#[cold]
#[inline(never)]
pub(crate) fn meet(
    warp: &Warp,
    env: &mut Env<'_>,
    mask: Mask,
    members: &Lanes<u32>,
) -> Result<Mask, Flow> {
    let (mut ready, mut left) = (0, mask);
    env.wanted = 0;
    while left != 0 {
        let value = members.0[left.trailing_zeros() as usize];
        let same = lanes(left).filter(|&l| members.0[l] == value).fold(0, |m, l| m | 1u32 << l);
        left &= !same;
        if same & !value != 0 {
            let lane = (same & !value).trailing_zeros() as usize;
            let message =
                format!("membermask {value:#010x} does not name lane {lane}, which executes this");
            return Err(env.fault(FindingKind::Membermask, lane, message));
        }
        if let Some(flow) = contradiction(env, mask, members, (value, same)) {
            return Err(flow);
        }
        if value & warp.live & !same == 0 {
            ready |= same;
        } else {
            env.wanted |= value;
        }
    }
    env.waiting = mask & !ready;
    if ready == 0 { Err(Flow::Meet) } else { Ok(ready) }
}

/// Lanes that are here, are named by others, and name others than these do.
fn contradiction(
    env: &mut Env<'_>,
    mask: Mask,
    members: &Lanes<u32>,
    (value, same): (u32, Mask),
) -> Option<Flow> {
    let other = mask & value & !same;
    let lane = lanes(other).next()?;
    let message = format!(
        "lanes {} name the membermask {:#010x}, and lanes {}, which wait for them, {value:#010x}",
        shown(lanes(other).filter(|&l| members.0[l] == members.0[lane]).fold(0, |m, l| m | 1 << l)),
        members.0[lane],
        shown(same)
    );
    Some(env.fault(FindingKind::Membermask, lane, message))
}

/// Lanes as people write them: `0-7, 12`.
pub(crate) fn shown(mask: Mask) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for lane in lanes(mask) {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == lane => *last = lane,
            _ => parts.push((lane, lane)),
        }
    }
    let text = |(first, last): (usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    parts.into_iter().map(text).collect::<Vec<_>>().join(", ")
}
