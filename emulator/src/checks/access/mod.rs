//! Checks of single accesses to memory: whether they lie in live memory of their space, and what its shadow says.
//!
//! The fast path asks one question, [`permitted`] on top of [`Resolve::find`]; only for an access that is
//! refused does each check have its say, in this order, and the first that knows why tells.

mod alignment;
mod bounds;
mod forbidden;
mod freed;
pub(crate) mod in_flight;
pub(crate) mod place;
mod read_only;
mod spaces;
mod uninitialised;

pub(crate) use place::described;
pub(crate) use uninitialised::{undefined, unwritten};

use crate::exec::env::Env;
use crate::exec::inst::Flow;
use crate::finding::{FindingKind, Report};
use crate::memory::FIRST_OFFSET;
use crate::memory::access::{Access, Memory, Resolve};
use crate::memory::region::{FORBIDDEN, IN_FLIGHT, INIT, READ_ONLY, Region};
use crate::types::Space;

/// Whether the shadow allows the access.
#[inline(always)]
pub(crate) fn permitted(region: &Region, offset: usize, bytes: usize, access: Access) -> bool {
    match access {
        Access::Load => region.all(offset, bytes, INIT | FORBIDDEN | IN_FLIGHT, INIT),
        Access::Store => region.all(offset, bytes, FORBIDDEN | READ_ONLY | IN_FLIGHT, 0),
        Access::Atomic => region.all(offset, bytes, INIT | FORBIDDEN | READ_ONLY | IN_FLIGHT, INIT),
    }
}

/// An access that was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) lane: usize,
    pub(crate) address: u64,
    pub(crate) bytes: u64,
    pub(crate) access: Access,
}

impl Refused {
    /// The access in words.
    fn told(&self) -> String {
        let Refused { address, bytes, access, .. } = self;
        format!("{bytes}-byte {} at {address:#x}", access.verb())
    }

    /// As [`Refused::told`], with its space.
    fn told_in(&self, space: Space) -> String {
        let Refused { address, bytes, access, .. } = self;
        format!("{bytes}-byte {} {} at {address:#x}", space.name(), access.verb())
    }
}

/// What a check has to say.
type Told = Option<(FindingKind, String)>;

/// The bytes of an access that lies in live memory.
struct Bytes<'a> {
    region: &'a Region,
    offset: usize,
    refused: Refused,
    space: Space,
}

impl Bytes<'_> {
    /// Whether any byte has one of these bits in its shadow.
    fn any(&self, bits: u8) -> bool {
        self.states().any(|state| state & bits != 0)
    }

    fn states(&self) -> impl Iterator<Item = u8> {
        let range = self.offset..self.offset + self.refused.bytes as usize;
        range.map(|at| self.region.state(at))
    }

    fn writes(&self) -> bool {
        self.refused.access != Access::Load
    }

    /// Whether it is the shared memory of a CTA, where the host forbids and protects nothing.
    fn is_shared(&self) -> bool {
        self.region.base == FIRST_OFFSET
    }
}

/// Reports why an access was refused.
#[cold]
#[inline(never)]
pub(crate) fn refuse<R: Resolve>(
    env: &mut Env<'_>,
    local: Option<&Region>,
    refused: Refused,
) -> Flow {
    let Refused { lane, address, .. } = refused;
    let memory = Memory { launch: env.launch, shared: &env.shared, local };
    let (kind, message) = explain::<R>(&memory, refused);
    env.report(Report { kind, lane, message, address: Some(address), notes: Vec::new() })
}

/// Why an access was refused.
pub(crate) fn explain<R: Resolve>(memory: &Memory<'_>, refused: Refused) -> (FindingKind, String) {
    let Refused { lane, address, bytes, .. } = refused;
    let found = R::find(memory, &mut 0, lane, address, bytes);
    let inside = found.map(|(region, offset)| Bytes { region, offset, refused, space: R::SPACE });
    let (kind, message) = alignment::check(&refused)
        .or_else(|| match &inside {
            Some(bytes) => forbidden::check(bytes)
                .or_else(|| in_flight::check(bytes))
                .or_else(|| read_only::check(bytes))
                .or_else(|| uninitialised::check(bytes)),
            None => spaces::check(&refused, R::SPACE).or_else(|| freed::check(memory, &refused)),
        })
        .unwrap_or_else(|| bounds::told(&refused, R::SPACE));
    (kind, format!("{message}{}", described(memory, R::SPACE, address)))
}
