//! Functions that PTX declares and the driver links (CUDA C++ Programming Guide, "Formatted Output", "Assertion").

use super::Lowered;
use super::call::passed_by;
use super::format::{Arguments, format};
use crate::exec::env::Env;
use crate::exec::inst::{Exec, Flow, Inst};
use crate::exec::lanes::{LANES, Lanes, Mask, lanes};
use crate::exec::warp::Warp;
use crate::finding::FindingKind;
use crate::lower::form::Form;
use crate::memory::access::{Access, Generic, Local, Memory, Refused, Resolve, permitted, refuse};
use crate::memory::region::Region;

/// Bytes of a string that a kernel passes.
const MAX_TEXT: usize = 1 << 16;
/// Bytes that one CTA prints; what goes beyond them is dropped.
const MAX_PRINTED: usize = 1 << 16;

/// A function of the runtime.
#[derive(Debug)]
pub(crate) struct Function {
    name: &'static str,
    /// Sizes of its results and parameters.
    returns: &'static [u64],
    params: &'static [u64],
    lower: fn(&mut Form<'_, '_>) -> Lowered,
}

const FUNCTIONS: &[Function] = &[
    Function { name: "vprintf", returns: &[4], params: &[8, 8], lower: |f| f.run::<Print>() },
    Function {
        name: "__assertfail",
        returns: &[],
        params: &[8, 8, 4, 8, 8],
        lower: |f| f.run::<AssertFail>(),
    },
];

/// The function of this name.
pub(crate) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|f| f.name == name)
}

impl Function {
    /// Lowers a call whose variables the form has already taken.
    pub(crate) fn lower(&self, f: &mut Form<'_, '_>) -> Lowered {
        let (returns, params) = passed_by(&f.inst);
        let sizes =
            |list: &mut dyn Iterator<Item = (u32, u64)>| list.map(|v| v.1).collect::<Vec<_>>();
        if sizes(&mut { returns }) != self.returns || sizes(&mut { params }) != self.params {
            let (name, returns, params) = (self.name, self.returns, self.params);
            return Err(f.fault(format!("`{name}` returns {returns:?} bytes for {params:?}")));
        }
        (self.lower)(f)
    }
}

/// Why a lane's call cannot be carried out.
enum Wrong {
    /// An access that is refused, in local memory or by a generic address.
    Local(Refused),
    Generic(Refused),
    Text(String),
}

/// Memory as one lane sees it.
struct View<'m> {
    memory: Memory<'m>,
    lane: usize,
}

impl View<'_> {
    fn bytes<R: Resolve, const N: usize>(&self, address: u64) -> Result<[u8; N], Refused> {
        let refused = Refused { lane: self.lane, address, bytes: N as u64, access: Access::Load };
        if !address.is_multiple_of(N as u64) {
            return Err(refused);
        }
        let (region, offset) =
            R::find(&self.memory, &mut 0, self.lane, address, N as u64).ok_or(refused)?;
        if !permitted(region, offset, N, Access::Load) {
            return Err(refused);
        }
        Ok(std::array::from_fn(|at| region.load(offset + at)))
    }

    /// The value of a `.param` variable that a call passes.
    fn passed<const N: usize>(&self, address: u64) -> Result<[u8; N], Wrong> {
        self.bytes::<Local, N>(address).map_err(Wrong::Local)
    }

    /// A string up to its zero byte.
    fn text(&self, address: u64) -> Result<String, Wrong> {
        let mut text = Vec::new();
        while text.len() < MAX_TEXT {
            match self.bytes::<Generic, 1>(address.wrapping_add(text.len() as u64)) {
                Ok([0]) => return Ok(String::from_utf8_lossy(&text).into_owned()),
                Ok([byte]) => text.push(byte),
                Err(refused) => return Err(Wrong::Generic(refused)),
            }
        }
        Err(Wrong::Text(format!("a string of more than {MAX_TEXT} bytes at {address:#x}")))
    }
}

/// The addresses of what a call passes in one lane: results, then arguments.
fn addresses(warp: &Warp, inst: &Inst, lane: usize) -> (Vec<u64>, Vec<u64>) {
    let (returns, params) = passed_by(inst);
    let address = |(slot, _): (u32, u64)| warp.regs.doubles[slot as usize].0[lane];
    (returns.map(address).collect(), params.map(address).collect())
}

/// Ends the launch with what is wrong in a lane.
fn fail(env: &mut Env<'_>, local: Option<&Region>, lane: usize, wrong: Wrong) -> Flow {
    match wrong {
        Wrong::Local(refused) => refuse::<Local>(env, local, refused),
        Wrong::Generic(refused) => refuse::<Generic>(env, local, refused),
        Wrong::Text(message) => env.fault(FindingKind::Operand, lane, message),
    }
}

/// `vprintf(format, arguments)`: the arguments lie one after the other at their natural alignment.
struct Print;

/// The arguments of one call as they are used up.
struct Variadic<'v, 'm> {
    view: &'v View<'m>,
    next: u64,
    taken: u32,
}

impl Arguments for Variadic<'_, '_> {
    type Error = Wrong;

    fn word(&mut self) -> Result<u32, Wrong> {
        self.take::<4>().map(u32::from_le_bytes)
    }

    fn double(&mut self) -> Result<u64, Wrong> {
        self.take::<8>().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Result<String, Wrong> {
        match self.double()? {
            0 => Ok("(null)".into()),
            address => self.view.text(address),
        }
    }

    fn unknown(&self, conversion: &str) -> Wrong {
        Wrong::Text(format!(
            "`{conversion}` in a format is not a conversion that `printf` of a kernel has"
        ))
    }
}

impl Variadic<'_, '_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let address = self.next.next_multiple_of(N as u64);
        self.next = address.wrapping_add(N as u64);
        self.taken += 1;
        self.view.bytes::<Generic, N>(address).map_err(Wrong::Generic)
    }
}

impl Exec for Print {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let mut counts = Lanes::<u32>::default();
        for lane in lanes(mask) {
            let local = warp.local.as_ref();
            let memory = Memory { launch: env.launch, shared: &env.shared, local };
            let view = View { memory, lane };
            let (_, at) = addresses(warp, inst, lane);
            match printed(&view, &at) {
                Ok((text, count)) => {
                    if env.printed.len() + text.len() <= MAX_PRINTED {
                        env.printed.push_str(&text);
                    }
                    counts.0[lane] = count;
                }
                Err(wrong) => return fail(env, local, lane, wrong),
            }
        }
        let Some(local) = &warp.local else { return Flow::Next };
        for lane in lanes(mask) {
            let (returns, _) = addresses(warp, inst, lane);
            let memory = Memory { launch: env.launch, shared: &env.shared, local: Some(local) };
            if let Some((region, offset)) = Local::find(&memory, &mut 0, lane, returns[0], 4) {
                region.store(offset, counts.0[lane]);
                region.mark(offset, 4, crate::memory::region::INIT, 0);
            }
        }
        Flow::Next
    }
}

/// What a call prints, and how many arguments it used.
fn printed(view: &View<'_>, at: &[u64]) -> Result<(String, u32), Wrong> {
    let pattern = u64::from_le_bytes(view.passed::<8>(at[0])?);
    let next = u64::from_le_bytes(view.passed::<8>(at[1])?);
    let mut arguments = Variadic { view, next, taken: 0 };
    let text = format(&view.text(pattern)?, &mut arguments)?;
    Ok((text, arguments.taken))
}

/// `__assertfail(message, file, line, function, size of a character)`
struct AssertFail;

impl Exec for AssertFail {
    fn exec(warp: &mut Warp, inst: &Inst, mask: Mask, env: &mut Env<'_>) -> Flow {
        let lane = mask.trailing_zeros() as usize % LANES;
        let local = warp.local.as_ref();
        let memory = Memory { launch: env.launch, shared: &env.shared, local };
        let view = View { memory, lane };
        let (_, at) = addresses(warp, inst, lane);
        match assertion(&view, &at) {
            Ok(message) => env.fault(FindingKind::Trap, lane, message),
            Err(wrong) => fail(env, local, lane, wrong),
        }
    }
}

fn assertion(view: &View<'_>, at: &[u64]) -> Result<String, Wrong> {
    let text = |index: usize| {
        let address = u64::from_le_bytes(view.passed::<8>(at[index])?);
        if address == 0 { Ok(String::new()) } else { view.text(address) }
    };
    let line = u32::from_le_bytes(view.passed::<4>(at[2])?);
    let (message, file, function) = (text(0)?, text(1)?, text(3)?);
    Ok(format!("assertion `{message}` failed at {file}:{line} in `{function}`"))
}
