//! Runs small kernels `k(in, out)` over words.
#![allow(dead_code)] // Each test binary uses a part of it.

pub mod elements;
pub mod matrix;

use ptx_emulator::{Device, Finding, FindingKind, Launch, LaunchError, MmaMode, Module};

/// As [`kernel`] for another target.
pub fn kernel_for(target: &str, body: &str) -> String {
    kernel(body).replace("sm_90", target)
}

/// A kernel `k` with parameters `in` and `out` (both `.u64`), their values in `%in` and `%out`, and `%thread`.
/// `before` stands at module level.
pub fn kernel_with(before: &str, body: &str) -> String {
    format!(
        ".version 8.8\n.target sm_90\n.address_size 64\n{before}\n\
         .visible .entry k(.param .u64 in, .param .u64 out)\n{{\n\
         .reg .u64 %in, %out;\n.reg .u32 %thread;\n.reg .pred %p<8>;\n.reg .b32 %r<40>;\n.reg .b64 %d<20>;\n.reg .f32 %f<20>;\n\
         ld.param.u64 %in, [in];\nld.param.u64 %out, [out];\nmov.u32 %thread, %tid.x;\n{body}\nret;\n}}\n"
    )
}

/// As [`kernel_with`] without anything at module level.
pub fn kernel(body: &str) -> String {
    kernel_with("", body)
}

/// Stores `register` to word `%thread` of the output.
pub fn store(register: &str) -> String {
    format!(
        "{{ .reg .u64 %a; mad.wide.u32 %a, %thread, 4, %out; st.global.b32 [%a], {register}; }}\n"
    )
}

/// How to run a kernel.
#[derive(Clone, Copy)]
pub struct Run {
    pub grid: u32,
    pub block: u32,
    pub seed: u64,
    pub out: usize,
    pub dynamic: u32,
    pub mma: MmaMode,
}

impl Run {
    /// One CTA of so many threads, one word of output each.
    pub fn block(block: u32) -> Run {
        Run { grid: 1, block, seed: 0, out: block as usize, dynamic: 0, mma: MmaMode::Fast }
    }

    pub fn seed(self, seed: u64) -> Run {
        Run { seed, ..self }
    }

    pub fn mma(self, mma: MmaMode) -> Run {
        Run { mma, ..self }
    }

    pub fn out(self, words: usize) -> Run {
        Run { out: words, ..self }
    }

    pub fn try_run(self, text: &str, input: &[u32]) -> Result<Vec<u32>, LaunchError> {
        self.try_run_on(text, input, &vec![0xeeee_eeee; self.out])
    }

    /// With an output that begins as `before`.
    pub fn try_run_on(
        self,
        text: &str,
        input: &[u32],
        before: &[u32],
    ) -> Result<Vec<u32>, LaunchError> {
        let bytes_of =
            |words: &[u32]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
        let module = Module::parse("k.ptx", text).unwrap_or_else(|error| panic!("{error}"));
        let device = Device::new();
        let allocate = |words: &[u32]| {
            let at = device.allocate(4 * words.len()).unwrap();
            device.write(at, &bytes_of(words)).unwrap();
            at
        };
        let (from, to) = (allocate(input), allocate(before));
        let params: Vec<u8> = [from, to].iter().flat_map(|a| a.to_le_bytes()).collect();
        let launch = Launch {
            grid: [self.grid, 1, 1],
            block: [self.block, 1, 1],
            params: &params,
            seed: self.seed,
            dynamic_shared_bytes: self.dynamic,
            mma: self.mma,
            step_limit: 1 << 22,
            ..Launch::default()
        };
        device.launch(&module, "k", &launch)?;
        let mut out = vec![0; 4 * before.len()];
        device.read(to, &mut out).unwrap();
        Ok(out.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect())
    }

    /// The words that the kernel wrote.
    #[track_caller]
    pub fn run(self, text: &str, input: &[u32]) -> Vec<u32> {
        self.try_run(text, input).unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    /// As [`Run::run`] with an output that begins as `before`.
    #[track_caller]
    pub fn run_on(self, text: &str, input: &[u32], before: &[u32]) -> Vec<u32> {
        self.try_run_on(text, input, before)
            .unwrap_or_else(|error| panic!("seed {}: {error}", self.seed))
    }

    /// The finding that ends the kernel; it is of `kind` and its text has `part` in it.
    #[track_caller]
    pub fn finds(self, text: &str, input: &[u32], kind: FindingKind, part: &str) -> Finding {
        match self.try_run(text, input) {
            Err(LaunchError::Findings(list)) => {
                let finding = list[0].clone();
                assert!(finding.kind == kind && finding.to_string().contains(part), "{finding}");
                finding
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("seed {}: nothing was found", self.seed),
        }
    }
}

/// The message with which a module is refused.
#[track_caller]
pub fn refused(text: &str) -> String {
    match Module::parse("k.ptx", text) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted"),
    }
}
