//! What loads leave undefined and what stores make so ([`crate::checks::taint`]).

use super::Elements;
use crate::checks::taint;
use crate::exec::env::Env;
use crate::exec::inst::{Flow, Inst};
use crate::exec::lanes::{Lanes, Mask};
use crate::exec::warp::Warp;
use crate::lower::flow::Slot;
use crate::memory::access::{Access, Generic, Global, Local, Param, Refused, Shared};
use crate::types::{Class, Space};

/// Notes which lanes of which registers a load has left undefined, because these bytes were never written.
#[cold]
pub(super) fn undefined<const BYTES: usize>(
    warp: &mut Warp,
    env: &Env<'_>,
    inst: &Inst,
    at: &Lanes<u64>,
    mask: Mask,
    missing: &Lanes<u32>,
) -> Flow {
    let Elements { space, bytes, signed, register } = Elements::of(inst);
    let lane = missing.0.iter().position(|&bytes| bytes != 0).unwrap_or(0);
    let refused = Refused { lane, address: at.0[lane], bytes: BYTES as u64, access: Access::Load };
    let class = if register == 64 { Class::Double } else { Class::Word };
    let registers = inst.list.iter().enumerate().map(|(index, &slot)| {
        let first = index as u32 * bytes;
        let bits = |lane: usize| {
            let here = missing.0[lane] >> first;
            let ones = |byte: u32| if here >> byte & 1 != 0 { 0xff << (8 * byte) } else { 0 };
            let loaded: u64 = (0..bytes).fold(0, |bits, byte| bits | ones(byte));
            // Extension by sign repeats the topmost bit.
            let top = 8 * bytes - 1;
            if signed && loaded >> top & 1 != 0 { loaded | u64::MAX << top } else { loaded }
        };
        (Slot::new(class, slot), Lanes(std::array::from_fn(bits)))
    });
    in_space!(space, R => taint::loaded::<R>(warp, env, inst.site, mask, refused, registers));
    Flow::Undefined
}

/// Leaves memory unwritten where the value that was stored is undefined.
#[cold]
pub(super) fn store_undefined(
    warp: &Warp,
    env: &mut Env<'_>,
    inst: &Inst,
    at: &Lanes<u64>,
    mask: Mask,
) -> Flow {
    let Elements { space, bytes, register, .. } = Elements::of(inst);
    let class = if register == 64 { Class::Double } else { Class::Word };
    for (index, &slot) in inst.list.iter().enumerate() {
        let at = Lanes(at.0.map(|address| address.wrapping_add(index as u64 * u64::from(bytes))));
        let slot = Slot::new(class, slot);
        let bits = warp.taint.as_ref().map_or_else(Lanes::default, |taint| taint.stored(slot));
        let executing = |lane: usize| if mask >> lane & 1 != 0 { bits.0[lane] } else { 0 };
        let bits = Lanes(std::array::from_fn(executing));
        let flow = in_space!(space, R => {
            taint::stored::<R>(warp, env, inst.site, (slot, &bits), &at, bytes as usize)
        });
        if flow == Flow::Fault {
            return flow;
        }
    }
    Flow::Next
}
