//! Writes to ranges that the host has protected, and to constants.

use super::{Bytes, Told};
use crate::finding::FindingKind;
use crate::memory::region::READ_ONLY;

pub(super) fn check(bytes: &Bytes<'_>) -> Told {
    let message = format!("{}, a range the host has protected", bytes.refused.told());
    (bytes.writes() && bytes.any(READ_ONLY)).then_some((FindingKind::ReadOnly, message))
}
