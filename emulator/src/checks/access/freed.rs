//! Accesses to memory that has been freed. Addresses are never used twice, so none goes unnoticed.

use super::{Refused, Told};
use crate::finding::FindingKind;
use crate::memory::GLOBAL_BASE;
use crate::memory::access::Memory;

pub(super) fn check(memory: &Memory<'_>, refused: &Refused) -> Told {
    let table = memory.launch.memory;
    let index = table.index_of(refused.address).filter(|_| refused.address >= GLOBAL_BASE)?;
    let message = format!("{}, which has been freed", refused.told());
    table.allocations[index].freed.then_some((FindingKind::UseAfterFree, message))
}
