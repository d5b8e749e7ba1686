//! The shipped kernels: PTX text by entry name.
#![forbid(unsafe_code)]

use core::fmt::Write as _;

/// One kernel entry as it ships: PTX text that a driver assembles when the kernel is first needed.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct KernelSource {
    /// Name of the entry, which is the file's name and the variant, e.g. `decode_d128_bf16`.
    pub entry: &'static str,
    /// The PTX text, without comments and indentation; `cargo run --example expand` writes it with them, line for line.
    pub ptx: &'static str,
    /// Threads of a CTA, or the most where a plan takes fewer.
    pub threads: u32,
    /// Dynamic shared memory of a CTA, in bytes.
    pub dynamic_shared_bytes: u32,
    /// And for each of its warps, in bytes.
    pub warp_shared_bytes: u32,
    /// CTAs whose registers one multiprocessor holds at once, at least.
    pub resident_ctas: u32,
}

impl KernelSource {
    /// Dynamic shared memory of a CTA of so many threads, at most [`KernelSource::threads`], in bytes.
    pub const fn shared_bytes(&self, threads: u32) -> u32 {
        let by_warps = self.warp_shared_bytes.saturating_mul(threads / 32);
        self.dynamic_shared_bytes.saturating_add(by_warps)
    }
}

/// Every kernel of the crate, sorted by entry name.
///
/// A `static`: of a `const` a binary would hold as many copies as there are uses.
pub static KERNELS: &[KernelSource] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// Largest head dimension with a kernel.
pub const MAX_HEAD_DIM: usize = 256;

/// Index into [`KERNELS`] of the entry with this name.
pub(crate) fn find(name: core::fmt::Arguments<'_>) -> Option<usize> {
    let mut entry = EntryName { bytes: [0; 48], len: 0 };
    entry.write_fmt(name).ok()?;
    KERNELS.binary_search_by(|k| k.entry.as_bytes().cmp(entry.as_bytes())).ok()
}

/// An entry name built without allocating: names are looked up on the hot path.
struct EntryName {
    bytes: [u8; 48],
    len: usize,
}

impl EntryName {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl core::fmt::Write for EntryName {
    fn write_str(&mut self, s: &str) -> core::fmt::Result {
        let end = self.len + s.len();
        let part = self.bytes.get_mut(self.len..end).ok_or(core::fmt::Error)?;
        part.copy_from_slice(s.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_found_by_its_name() {
        assert!(!KERNELS.is_empty());
        for (index, kernel) in KERNELS.iter().enumerate() {
            assert_eq!(find(format_args!("{}", kernel.entry)), Some(index));
        }
    }

    /// What ships is the readable text, line for line, without comments and indentation.
    #[test]
    fn the_shipped_text_is_the_readable_one() {
        for kernel in KERNELS {
            let path = format!("{}/readable/{}.ptx", env!("OUT_DIR"), kernel.entry);
            let readable = std::fs::read_to_string(&path).expect("the build script wrote it");
            assert_eq!(kernel.ptx.lines().count(), readable.lines().count(), "{}", kernel.entry);
            for (shipped, readable) in kernel.ptx.lines().zip(readable.lines()) {
                let rest = readable.trim().strip_prefix(shipped).expect(readable).trim_start();
                assert!(rest.is_empty() || rest.starts_with("//"), "{readable}");
                assert!(!shipped.contains("//") || shipped.starts_with("// ---- "), "{shipped}");
            }
        }
    }

    /// A binary holds the text of a kernel once.
    #[test]
    fn a_binary_holds_the_text_once() {
        let binary = std::env::current_exe().and_then(std::fs::read).expect("a test is a file");
        // Made here, so that the binary does not hold it otherwise.
        let line = format!(".visible .entry {}(", KERNELS[0].entry);
        let line = line.as_bytes();
        assert_eq!(binary.windows(line.len()).filter(|bytes| *bytes == line).count(), 1);
    }

    #[test]
    fn an_unknown_name_is_not_found() {
        assert_eq!(find(format_args!("decode_d40_f16_f16")), None);
        assert_eq!(find(format_args!("{}", "x".repeat(100))), None);
    }
}
