//! Accesses that lie in no live memory of their space.

use super::Refused;
use crate::finding::FindingKind;
use crate::types::Space;

pub(super) fn told(refused: &Refused, space: Space) -> (FindingKind, String) {
    (FindingKind::OutOfBounds, format!("{}, out of bounds", refused.told_in(space)))
}
