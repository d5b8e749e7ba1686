//! Accesses to ranges that the host has forbidden, for example a free block inside of a pool, and to the bytes of
//! an mbarrier object.

use super::{Bytes, Told};
use crate::finding::FindingKind;
use crate::memory::region::FORBIDDEN;

pub(super) fn check(bytes: &Bytes<'_>) -> Told {
    if !bytes.any(FORBIDDEN) {
        return None;
    }
    let told = bytes.refused.told();
    if bytes.is_shared() {
        let message = format!("{told}, which is part of an mbarrier object");
        return Some((FindingKind::BarrierMisuse, message));
    }
    Some((FindingKind::Forbidden, format!("{told}, a range the host has forbidden")))
}
