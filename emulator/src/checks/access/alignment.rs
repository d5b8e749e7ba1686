//! Addresses that are not multiples of what is accessed there.

use super::{Refused, Told};
use crate::finding::FindingKind;

pub(super) fn check(refused: &Refused) -> Told {
    let Refused { address, bytes, .. } = *refused;
    let message = format!("{}, which is not a multiple of {bytes}", refused.told());
    (!address.is_multiple_of(bytes)).then_some((FindingKind::Misaligned, message))
}
