//! What the tests of operations share: a few lines of PTX in, bits out.

use crate::error::LaunchError;
use crate::finding::Finding;
use crate::launch::{Checks, Launch};
use crate::memory::device::Device;
use crate::module::Module;

/// A body with registers `%a %b %c %d` (32 bits), `%fa %fb %fc %fd` (f32), `%x %y` (64 bits), `%p %q`,
/// and the parameters `out` (a pointer), `a`, `b`, `c`.
pub(crate) struct Program {
    module: Module,
}

impl Program {
    /// Parses a body; panics where the text is refused.
    pub(crate) fn new(body: &str) -> Program {
        let text = format!(
            ".version 8.8\n.target sm_90a\n.address_size 64\n\
             .entry k(.param .u64 out, .param .u32 a, .param .u32 b, .param .u32 c) {{\n\
             .reg .b32 %a, %b, %c, %d;\n.reg .f32 %fa, %fb, %fc, %fd;\n.reg .b64 %x, %y;\n.reg .pred %p, %q;\n\
             {body}\n}}\n"
        );
        match Module::parse("test.ptx", &text) {
            Ok(module) => Program { module },
            Err(error) => panic!("{error}"),
        }
    }

    fn launch(
        &self,
        launch: &Launch<'_>,
        inputs: &[u32],
        host: &[u32],
        words: usize,
    ) -> Result<Vec<u32>, LaunchError> {
        let device = Device::new();
        let out = device.allocate(words * 4).unwrap();
        device.name(out, "out").unwrap();
        let bytes: Vec<u8> = host.iter().flat_map(|w| w.to_le_bytes()).collect();
        device.write(out, &bytes).unwrap();
        let mut params = out.to_le_bytes().to_vec();
        for index in 0..3 {
            params.extend(inputs.get(index).copied().unwrap_or(0).to_le_bytes());
        }
        let launch = Launch { params: &params, step_limit: 1 << 18, ..launch.clone() };
        device.launch(&self.module, "k", &launch)?;
        let mut back = vec![0; words * 4];
        device.read(out, &mut back).unwrap();
        Ok(back.chunks(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect())
    }

    /// One warp; `out` has 32 words, uninitialised.
    pub(crate) fn run(&self, inputs: &[u32]) -> Result<Vec<u32>, LaunchError> {
        self.launch(&Launch { block: [32, 1, 1], ..Launch::default() }, inputs, &[], 32)
    }

    /// As [`Program::run`], with these checks.
    pub(crate) fn run_checked(&self, checks: Checks) -> Result<Vec<u32>, LaunchError> {
        self.launch(&Launch { block: [32, 1, 1], checks, ..Launch::default() }, &[], &[], 32)
    }

    /// A grid of warps with these checks; `out` has a word for each.
    pub(crate) fn run_grid_checked(
        &self,
        grid: [u32; 3],
        checks: Checks,
    ) -> Result<Vec<u32>, LaunchError> {
        let launch = Launch { grid, block: [32, 1, 1], checks, threads: 1, ..Launch::default() };
        self.launch(&launch, &[], &[], grid[0] as usize)
    }

    /// A grid; `out` begins as `host`.
    pub(crate) fn run_grid(
        &self,
        grid: [u32; 3],
        block: [u32; 3],
        threads: usize,
        seed: u64,
        host: &[u32],
    ) -> Result<Vec<u32>, LaunchError> {
        self.launch(
            &Launch { grid, block, threads, seed, ..Launch::default() },
            &[],
            host,
            host.len(),
        )
    }
}

/// What every lane has in `%d` after the text.
pub(crate) fn warp(text: &str) -> Vec<u32> {
    lanes(text, &[])
}

fn lanes(text: &str, inputs: &[u32]) -> Vec<u32> {
    let load = "ld.param.u32 %a, [a]; ld.param.u32 %b, [b]; ld.param.u32 %c, [c]; mov.b32 %d, 0;
        mov.b32 %fa, %a; mov.b32 %fb, %b; mov.b32 %fc, %c;";
    let store =
        "{ .reg .u32 %thread; .reg .u64 %ptr, %offset; ld.param.u64 %ptr, [out]; mov.u32 %thread, %tid.x;
        mul.wide.u32 %offset, %thread, 4; add.u64 %ptr, %ptr, %offset; st.global.b32 [%ptr], %d; }";
    let program = Program::new(&format!("{load}\n{text}\n{store}"));
    match program.run(inputs) {
        Ok(out) => out,
        Err(error) => panic!("{text}\n{error}"),
    }
}

/// `%d` after the text, the same in every lane.
pub(crate) fn eval(text: &str, inputs: &[u32]) -> u32 {
    lanes(text, inputs)[0]
}

/// `%fd` after the text, from `%fa %fb %fc`.
pub(crate) fn eval_f32(text: &str, inputs: &[f32]) -> f32 {
    let bits: Vec<u32> = inputs.iter().map(|x| x.to_bits()).collect();
    f32::from_bits(eval(&format!("{text} mov.b32 %d, %fd;"), &bits))
}

/// `%x` after the text, from `%x` and `%y`, all of them f64.
pub(crate) fn eval_f64(text: &str, x: f64, y: f64) -> f64 {
    let set = format!("mov.b64 %x, 0x{:x}; mov.b64 %y, 0x{:x};", x.to_bits(), y.to_bits());
    let half = |part: &str| {
        eval(
            &format!(
                "{set} {text} {{ .reg .b32 %l, %h; mov.b64 {{%l, %h}}, %x; mov.b32 %d, {part}; }}"
            ),
            &[],
        )
    };
    f64::from_bits(u64::from(half("%h")) << 32 | u64::from(half("%l")))
}

/// What is found in one warp that runs the text.
pub(crate) fn finding(text: &str) -> Finding {
    finding_in(text, [32, 1, 1])
}

/// What is found in one CTA of this shape that runs the text.
pub(crate) fn finding_in(text: &str, block: [u32; 3]) -> Finding {
    let program = Program::new(text);
    match program.launch(&Launch { block, ..Launch::default() }, &[], &[], 32) {
        Err(LaunchError::Findings(mut found)) => found.remove(0),
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("nothing was found in: {text}"),
    }
}
