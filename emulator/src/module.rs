//! A parsed PTX file, ready to launch on any device.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::checks::outputs;
use crate::error::{Fault, LaunchError, MemoryError, ParseError, Source};
use crate::exec::env::LaunchContext;
use crate::exec::grid::{self, GridError};
use crate::exec::inst::is_supported;
use crate::launch::{Launch, Report};
use crate::lower;
use crate::lower::callee::function_address;
use crate::lower::kernel::{Constant, ConstantValue, Kernel};
use crate::lower::scene::Scene;
use crate::lower::special::Special;
use crate::lower::symbols::Symbol;
use crate::memory::FIRST_OFFSET;
use crate::memory::device::Device;
use crate::memory::region::{INIT, READ_ONLY, Region};
use crate::parse::{self, ast::Init};
use crate::types::Space;

/// Memory that a cooperative launch gives to its grid.
const GRID_WORKSPACE_BYTES: usize = 64;

/// A PTX file: parsed, checked, lowered.
#[derive(Debug)]
pub struct Module {
    source: Arc<Source>,
    sm: u32,
    kernels: Vec<Kernel>,
    variables: Vec<Variable>,
    /// Distinguishes modules, so that a device knows which variables are whose.
    id: u64,
}

/// A `.global` or `.const` variable.
#[derive(Debug)]
pub(crate) struct Variable {
    name: String,
    bytes: u64,
    constant: bool,
    /// Initial content; `.global` memory without one is zero, as the driver makes it.
    image: Vec<u8>,
    /// Places in the image that hold the address of another variable plus an offset, and which bytes of it.
    pointers: Vec<(usize, usize, i64, Range<usize>)>,
}

impl Module {
    /// Parses PTX text. Anything that is not understood is an error, wherever it stands, but in functions that no entry calls.
    ///
    /// `name` is what errors and findings call the file.
    pub fn parse(name: &str, text: &str) -> Result<Module, ParseError> {
        let source = Arc::new(Source::new(name, text));
        Module::build(&source).map_err(|fault| fault.locate(&source))
    }

    fn build(source: &Arc<Source>) -> Result<Module, Fault> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if !is_supported() {
            let message =
                "this processor lacks AVX2 or FMA; build ptx-emulator with the feature `portable`";
            return Err(Fault::new(1, message));
        }
        let tree = parse::parse(&source.text)?;
        let scene = Scene::new(&tree)?;
        let entries = tree.functions.iter().filter(|f| f.entry && f.body.is_some());
        let kernels = entries.map(|f| lower::entry(&scene, f)).collect::<Result<Vec<_>, _>>()?;
        let variables = variables(&scene)?;
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Module { source: source.clone(), sm: tree.sm, kernels, variables, id })
    }

    /// Names of the entries, in order.
    pub fn entries(&self) -> impl Iterator<Item = &str> {
        self.kernels.iter().map(|k| k.name.as_str())
    }

    /// Parameters of an entry: name, offset and size in bytes, as [`Launch::params`] has to hold them.
    pub fn params(&self, entry: &str) -> Option<Vec<(&str, usize, usize)>> {
        let kernel = self.kernels.iter().find(|k| k.name == entry)?;
        Some(
            kernel
                .params
                .iter()
                .map(|p| (p.name.as_str(), p.offset as usize, p.bytes as usize))
                .collect(),
        )
    }

    /// The architecture that the file is written for: 80 for `.target sm_80`.
    pub fn sm(&self) -> u32 {
        self.sm
    }
}

/// The module's variables, in the order in which the lowering numbers them.
pub(crate) fn variables(scene: &Scene<'_>) -> Result<Vec<Variable>, Fault> {
    let index_of = |name: &str| match scene.names.get(name) {
        Some(&Symbol::Global { index, .. }) => Some(index),
        _ => None,
    };
    let mut list = Vec::new();
    let held = |space| matches!(space, Space::Global | Space::Const);
    for variable in scene.tree.variables.iter().filter(|v| held(v.space)) {
        if variable.external || variable.unsized_array {
            let message = format!("`{}` is defined in another file", variable.name);
            return Err(Fault::new(variable.line, message));
        }
        let element = variable.ty.bytes() as usize;
        let mut image = Vec::new();
        let mut pointers = Vec::new();
        for init in &variable.init {
            match *init {
                Init::Bits(bits) => image.extend_from_slice(&bits.to_le_bytes()[..element.min(8)]),
                Init::Symbol(name, offset, byte) => {
                    let part = byte.map_or(0..8, |byte| byte..byte + 1);
                    let fits = element == part.len();
                    let function = scene.graph.find(name).filter(|_| element == 8 && offset == 0);
                    if let Some(index) = function {
                        image.extend_from_slice(&function_address(index).to_le_bytes());
                        continue;
                    }
                    let target = index_of(name).filter(|_| fits);
                    let message = || format!("`{name}` is not a variable whose address fits here");
                    let target = target.ok_or_else(|| Fault::new(variable.line, message()))?;
                    if target >= list.len() {
                        let message =
                            format!("`{name}` is not declared before its address is taken");
                        return Err(Fault::new(variable.line, message));
                    }
                    image.extend(part.clone().map(|_| 0));
                    pointers.push((image.len() - part.len(), target, offset, part));
                }
            }
        }
        let constant = variable.space == Space::Const;
        list.push(Variable {
            name: variable.name.to_owned(),
            bytes: variable.bytes,
            constant,
            image,
            pointers,
        });
    }
    Ok(list)
}

impl Device {
    /// Runs an entry to its end, or to the first thing that is wrong.
    pub fn launch(
        &self,
        module: &Module,
        entry: &str,
        launch: &Launch<'_>,
    ) -> Result<Report, LaunchError> {
        let kernel = module.kernels.iter().find(|k| k.name == entry);
        let kernel = kernel
            .ok_or_else(|| unusable(format!("{} has no entry `{entry}`", module.source.name)))?;
        let sm = launch.sm.unwrap_or(module.sm);
        if sm < module.sm {
            return Err(unusable(format!(
                "the module is for sm_{}, the launch for sm_{sm}",
                module.sm
            )));
        }
        let threads = check_shape(kernel, launch)?;
        let shared_bytes = check_shared(kernel, launch, sm)?;
        let params = params(kernel, launch.params)?;
        let globals = self.instantiate(module)?;
        let grid_workspace = self.grid_workspace(kernel)?;
        let table = self.read_table();
        let total: u64 = launch.grid.iter().map(|&n| u64::from(n)).product();
        let context = LaunchContext {
            kernel,
            memory: &table,
            globals: &globals,
            params: &params,
            grid_workspace: grid_workspace.unwrap_or(0),
            source: &module.source,
            grid: launch.grid,
            block: launch.block,
            threads,
            warps: threads.div_ceil(32),
            shared_bytes,
            dynamic_shared_bytes: launch.dynamic_shared_bytes,
            checks: launch.checks,
            traffic: launch.traffic,
            sm,
            mma: launch.mma,
            seed: launch.seed,
            step_limit: launch.step_limit,
            outputs: [launch.required, launch.outputs],
            scratch: launch.scratch,
            deferring: total > 1,
        };
        let cores = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let workers = if launch.threads == 0 { cores() } else { launch.threads };
        let result = grid::run(&context, workers, launch.max_resident_ctas, launch.total_limit);
        let source = &*module.source;
        let unwritten =
            outputs::unwritten(launch.required, &table, kernel, source).map_err(unusable);
        drop(table);
        if let Some(address) = grid_workspace {
            self.free(address).map_err(|e| unusable(e.to_string()))?;
        }
        let report = result.map_err(|error| match error {
            GridError::Findings(findings) => LaunchError::Findings(findings),
            GridError::NoMemory => unusable("the host has no memory for the CTAs"),
        })?;
        match unwritten? {
            None => Ok(report),
            Some(finding) => Err(LaunchError::Findings(vec![finding])),
        }
    }

    /// Zeroed memory for the barrier of the whole grid, which a cooperative launch passes, if the kernel asks for it.
    fn grid_workspace(&self, kernel: &Kernel) -> Result<Option<u64>, LaunchError> {
        let asks =
            |c: &Constant| matches!(c.value, ConstantValue::Special(Special::GridWorkspace(_)));
        if !kernel.constants.iter().any(asks) {
            return Ok(None);
        }
        let failed = |error: MemoryError| unusable(format!("the grid's workspace: {error}"));
        let address = self.allocate(GRID_WORKSPACE_BYTES).map_err(failed)?;
        self.write(address, &[0; GRID_WORKSPACE_BYTES]).map_err(failed)?;
        self.name(address, "grid workspace").map_err(failed)?;
        Ok(Some(address))
    }

    /// Addresses of the module's variables, which are allocated at its first launch on this device.
    fn instantiate(&self, module: &Module) -> Result<Vec<u64>, LaunchError> {
        let mut table = self.write_table();
        if let Some(addresses) = table.modules.get(&module.id) {
            return Ok(addresses.clone());
        }
        let failed = |error: MemoryError| unusable(format!("the module's variables: {error}"));
        let mut addresses = Vec::new();
        for variable in &module.variables {
            addresses.push(table.allocate(variable.bytes, self.capacity()).map_err(failed)?);
        }
        for (variable, &address) in module.variables.iter().zip(&addresses) {
            let mut image = variable.image.clone();
            for (at, target, offset, part) in &variable.pointers {
                let value = addresses[*target].wrapping_add(*offset as u64).to_le_bytes();
                image[*at..at + part.len()].copy_from_slice(&value[part.clone()]);
            }
            let index = table.index_of(address).unwrap_or(0);
            let region = &mut table.allocations[index].region;
            region.data.write(0, &image);
            region.label = Some(variable.name.clone());
            region.filled = true.into();
            let state = if variable.constant { INIT | READ_ONLY } else { INIT };
            region.mark(0, variable.bytes as usize, state, 0);
        }
        table.modules.insert(module.id, addresses.clone());
        Ok(addresses)
    }
}

fn unusable(message: impl Into<String>) -> LaunchError {
    LaunchError::Unusable(message.into())
}

/// Checks grid and block; gives the threads of a CTA.
fn check_shape(kernel: &Kernel, launch: &Launch<'_>) -> Result<u32, LaunchError> {
    let limits = [
        (launch.block, [1024, 1024, 64], "block"),
        (launch.grid, [0x7fff_ffff, 65535, 65535], "grid"),
    ];
    for (shape, limit, what) in limits {
        for axis in 0..3 {
            if shape[axis] == 0 || shape[axis] > limit[axis] {
                let (size, most) = (shape[axis], limit[axis]);
                return Err(unusable(format!(
                    "{what} dimension {axis} is {size}, not one of 1 to {most}"
                )));
            }
        }
    }
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    if threads > 1024 {
        return Err(unusable(format!("a block of {threads} threads, the limit is 1024")));
    }
    if let Some(required) = kernel.limits.required
        && required != launch.block
    {
        return Err(unusable(format!(
            "block {:?} is not the {required:?} that .reqntid requires",
            launch.block
        )));
    }
    if let Some(maximum) = kernel.limits.maximum {
        let most: u64 = maximum.iter().map(|&n| u64::from(n)).product();
        if threads > most {
            return Err(unusable(format!("a block of {threads} threads, .maxntid allows {most}")));
        }
    }
    Ok(threads as u32)
}

/// Shared memory that a CTA may have on an architecture (CUDA C++ Programming Guide, "Compute Capabilities").
fn shared_limit(sm: u32) -> u64 {
    (match sm {
        80 | 87 => 163,
        86 | 89 | 120 | 121 => 99,
        90 | 100 | 101 | 103 | 110 => 227,
        75 => 64,
        _ => 96,
    }) * 1024
}

/// Checks shared memory; gives its bytes, declared and dynamic.
fn check_shared(kernel: &Kernel, launch: &Launch<'_>, sm: u32) -> Result<u32, LaunchError> {
    let declared = u64::from(kernel.shared_end) - FIRST_OFFSET;
    let dynamic = u64::from(launch.dynamic_shared_bytes);
    let total = if dynamic > 0 { declared.next_multiple_of(16) + dynamic } else { declared };
    let limit = shared_limit(sm);
    if declared > 48 * 1024 {
        return Err(unusable(format!(
            "{declared} bytes of declared shared memory, the limit is 49152"
        )));
    }
    if total > limit {
        return Err(unusable(format!(
            "{total} bytes of shared memory, sm_{sm} has {limit} for a CTA"
        )));
    }
    Ok(total as u32)
}

/// The parameters as memory that a kernel can read.
fn params(kernel: &Kernel, bytes: &[u8]) -> Result<Region, LaunchError> {
    let wanted = kernel.param_bytes as usize;
    // C pads a struct at its end; the kernel has no use for the padding.
    let padded = wanted.next_multiple_of(16);
    if bytes.len() < wanted || bytes.len() > padded {
        let name = &kernel.name;
        return Err(unusable(format!(
            "{} bytes of parameters, `{name}` takes {wanted}",
            bytes.len()
        )));
    }
    let region =
        Region::new(0, wanted as u64).ok_or_else(|| unusable("no memory for the parameters"))?;
    region.data.write(0, &bytes[..wanted]);
    region.mark(0, wanted, INIT | READ_ONLY, 0);
    Ok(region)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::FindingKind;

    const HEADER: &str = ".version 8.0\n.target sm_90\n.address_size 64\n";

    fn parse(text: &str) -> Result<Module, ParseError> {
        Module::parse("t.ptx", &format!("{HEADER}{text}"))
    }

    #[test]
    fn what_is_unknown_is_named() {
        let body = |text: &str| {
            format!(".entry k() {{\n.reg .b32 %r<4>;\n.reg .pred %p;\n{text}\nret;\n}}\n")
        };
        let fails = |text: &str, expected: &str| {
            let error = parse(&body(text)).unwrap_err();
            assert!(error.message.contains(expected), "{text}: {error}");
            assert_eq!(error.line, 7, "{error}");
            assert_eq!(error.text, text);
        };
        fails("frobnicate.u32 %r1, %r2;", "unknown instruction `frobnicate`");
        fails("add.u33 %r1, %r2, %r3;", "`.u33` may not follow `add`");
        fails("add.ftz.u32 %r1, %r2, %r3;", "`.u32` may not follow `add.ftz`");
        fails("add.u32 %r1, %r2;", "more than 2 operands");
        fails("add.u32 %r1, %r2, %r3, %r3;", "takes 3 operands");
        fails("add.u32 %r1, %r9, %r3;", "`%r9` is not declared");
        fails("add.u32 %r1, %p, %r3;", "`%p` is .pred");
        fails("add.u64 %r1, %r2, %r3;", "wants .u64");
        fails("mov.u32 %r1, 0x1ffffffff;", "does not fit");
        fails("@%q bra $x;", "`%q` is not declared");
        fails("bra $x;", "label `$x`");
        fails("mov.u32 %r1, %ctaid.q;", "unknown special register");
        fails("ld.global.u32 %r1, [%r2+%r3];", "expected an integer");
        fails(".frob 3;", "unknown directive `.frob`");
        fails("call f;", "function `f` is not declared");
    }

    #[test]
    fn an_instruction_of_a_later_architecture_is_refused() {
        let text = ".version 8.0\n.target sm_80\n.address_size 64\n.entry k() { .reg .b32 %r; .reg .pred %p; elect.sync %r|%p, -1; }";
        let error = Module::parse("t.ptx", text).unwrap_err();
        assert!(error.message.contains("needs sm_90, not sm_80"), "{error}");
    }

    #[test]
    fn launches_that_cannot_be_are_unusable() {
        let module = parse(
            ".entry k(.param .u64 a, .param .u32 b) .reqntid 32 { .shared .b8 s[4096]; ret; }",
        )
        .unwrap();
        let device = Device::new();
        let good = Launch { block: [32, 1, 1], params: &[0; 12], ..Launch::default() };
        assert!(device.launch(&module, "k", &good).is_ok());
        assert!(device.launch(&module, "k", &Launch { params: &[0; 16], ..good.clone() }).is_ok());
        let fails = |launch: Launch<'_>, expected: &str| {
            let error = device.launch(&module, "k", &launch).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        fails(Launch { params: &[0; 11], ..good.clone() }, "11 bytes of parameters");
        fails(Launch { block: [64, 1, 1], ..good.clone() }, ".reqntid");
        fails(Launch { block: [0, 1, 1], ..good.clone() }, "dimension 0 is 0");
        fails(Launch { block: [32, 64, 1], ..good.clone() }, "2048 threads");
        fails(Launch { grid: [1, 65536, 1], ..good.clone() }, "grid dimension 1 is 65536");
        fails(Launch { dynamic_shared_bytes: 240_000, ..good.clone() }, "bytes of shared memory");
        fails(Launch { sm: Some(80), ..good.clone() }, "for sm_90");
        assert!(device.launch(&module, "other", &good).is_err());
    }

    #[test]
    fn variables_of_the_module_keep_their_values() {
        let text = ".global .align 4 .u32 count = 5;\n.const .align 4 .u32 table[3] = {7, 8, 9};\n.global .u64 pointer = generic(count);
            .entry k(.param .u64 out) { .reg .u64 %x, %y; .reg .u32 %a, %b; ld.param.u64 %x, [out]; ld.global.u64 %y, [pointer];
            ld.u32 %a, [%y]; add.u32 %a, %a, 1; st.global.u32 [count], %a; ld.const.u32 %b, [table+8]; add.u32 %a, %a, %b;
            st.global.u32 [%x], %a; ret; }
            .entry bad() { .reg .u64 %x; .reg .u32 %a; mov.u64 %x, table; st.global.u32 [%x], 1; ret; }";
        let module = parse(text).unwrap();
        let device = Device::new();
        let out = device.allocate(4).unwrap();
        let run = || {
            let params = out.to_le_bytes();
            device.launch(&module, "k", &Launch { params: &params, ..Launch::default() }).unwrap();
            let mut back = [0; 4];
            device.read(out, &mut back).unwrap();
            u32::from_le_bytes(back)
        };
        assert_eq!((run(), run()), (15, 16));
        let Err(LaunchError::Findings(found)) = device.launch(&module, "bad", &Launch::default())
        else {
            panic!()
        };
        assert_eq!(found[0].kind, FindingKind::ReadOnly);
        assert!(found[0].message.contains("`table`"), "{}", found[0]);
    }

    #[test]
    fn device_functions_run_in_place() {
        let text = ".func (.param .b32 r) twice(.param .b32 a) { .reg .b32 %a; .reg .pred %p; ld.param.b32 %a, [a];
              setp.gt.u32 %p, %a, 100; @%p bra $big; add.u32 %a, %a, %a; st.param.b32 [r], %a; ret;
              $big: st.param.b32 [r], 0; ret; }
            .entry k(.param .u64 out, .param .u32 v) { .reg .u64 %x; .reg .u32 %a; ld.param.u64 %x, [out]; ld.param.u32 %a, [v];
              { .param .b32 p; .param .b32 q; st.param.b32 [p], %a; call.uni (q), twice, (p); ld.param.b32 %a, [q]; }
              { .param .b32 p; .param .b32 q; st.param.b32 [p], %a; call.uni (q), twice, (p); ld.param.b32 %a, [q]; }
              st.global.u32 [%x], %a; }";
        let module = parse(text).unwrap();
        let device = Device::new();
        let out = device.allocate(4).unwrap();
        for (v, expected) in [(3u32, 12u32), (60, 0)] {
            let mut params = out.to_le_bytes().to_vec();
            params.extend(v.to_le_bytes());
            device.launch(&module, "k", &Launch { params: &params, ..Launch::default() }).unwrap();
            let mut back = [0; 4];
            device.read(out, &mut back).unwrap();
            assert_eq!(u32::from_le_bytes(back), expected);
        }
    }
}
