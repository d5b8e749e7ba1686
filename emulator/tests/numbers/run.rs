//! Runs one instruction on many operands: each thread takes one row.

use ptx_emulator::{Device, Launch, Module};

/// An instruction and the sizes of its operands, written as registers: `b16`, `b32` or `b64`.
pub struct Kernel<'t> {
    /// Uses `%a`, `%b`, `%c`, writes `%d`; may use predicates `%p` and `%q`.
    pub text: &'t str,
    pub result: &'t str,
    pub operands: &'t [&'t str],
    pub target: &'t str,
}

/// Threads of a CTA.
const BLOCK: usize = 256;

/// The result for each row of operands.
pub fn run(kernel: &Kernel<'_>, rows: &[[u64; 3]]) -> Vec<u64> {
    let mut declared = String::new();
    let mut loads = String::new();
    for (index, ty) in kernel.operands.iter().enumerate() {
        let name = ["a", "b", "c"][index];
        declared += &format!(".reg .{ty} %{name};\n");
        loads += &format!("ld.global.{ty} %{name}, [%in+{}];\n", 8 * index);
    }
    let (result, body, target) = (kernel.result, kernel.text, kernel.target);
    let text = format!(
        ".version 8.8\n.target {target}\n.address_size 64\n\
         .visible .entry rows(.param .u64 in, .param .u64 out) {{\n\
         .reg .u64 %in, %out, %row;\n.reg .u32 %cta, %thread;\n.reg .pred %p, %q;\n\
         .reg .{result} %d;\n{declared}\
         ld.param.u64 %in, [in];\nld.param.u64 %out, [out];\n\
         mov.u32 %cta, %ctaid.x;\nmov.u32 %thread, %tid.x;\nmad.lo.u32 %thread, %cta, {BLOCK}, %thread;\n\
         mad.wide.u32 %in, %thread, 24, %in;\nmad.wide.u32 %out, %thread, 8, %out;\n\
         {loads}{body}\nst.global.{result} [%out], %d;\nret;\n}}\n"
    );
    let module = Module::parse("rows.ptx", &text).unwrap_or_else(|e| panic!("{body}: {e}"));
    launch(&module, rows).unwrap_or_else(|e| panic!("{body}: {e}"))
}

fn launch(module: &Module, rows: &[[u64; 3]]) -> Result<Vec<u64>, Box<dyn std::error::Error>> {
    let ctas = rows.len().div_ceil(BLOCK);
    let mut bytes: Vec<u8> = rows.as_flattened().iter().flat_map(|x| x.to_le_bytes()).collect();
    bytes.resize(ctas * BLOCK * 24, 0);
    let device = Device::new();
    let input = device.allocate(bytes.len())?;
    let output = device.allocate(ctas * BLOCK * 8)?;
    device.write(input, &bytes)?;
    device.write(output, &vec![0; ctas * BLOCK * 8])?;
    let params = [input.to_le_bytes(), output.to_le_bytes()].concat();
    let (grid, block) = ([ctas as u32, 1, 1], [BLOCK as u32, 1, 1]);
    device.launch(module, "rows", &Launch { grid, block, params: &params, ..Launch::default() })?;
    let mut results = vec![0; rows.len() * 8];
    device.read(output, &mut results)?;
    Ok(results.chunks_exact(8).map(|x| u64::from_le_bytes(x.try_into().unwrap())).collect())
}

/// Demands that each row gives what `expected` says, or anything that `same` takes for it.
pub fn check(
    kernel: &Kernel<'_>,
    rows: &[[u64; 3]],
    expected: impl Fn(&[u64; 3]) -> u64,
    same: impl Fn(u64, u64) -> bool,
) {
    let results = run(kernel, rows);
    for (row, got) in rows.iter().zip(results) {
        let want = expected(row);
        let text = kernel.text;
        assert!(same(got, want), "{text} of {row:x?} is {got:#x}, not {want:#x}");
    }
}
