//! Expands the kernel templates of `ptx/` into one PTX text per entry and a table of them.
//!
//! Nothing is compiled: the output is the text that the driver assembles on the user's machine, and beside it the same with its
//! comments.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior, Value, context};

/// One kernel entry: a template and the values of its axes.
struct Variant {
    /// File name under `ptx/`, without the ending.
    template: &'static str,
    /// What follows the file's name in the entry's name.
    suffix: String,
    /// Threads of a CTA.
    threads: u32,
    /// Dynamic shared memory of a CTA.
    shared_bytes: u32,
    /// And for each of its warps.
    warp_shared_bytes: u32,
    /// CTAs whose registers a multiprocessor is to hold at once (`.minnctapersm`).
    resident_ctas: u32,
    /// Values for the template.
    values: Value,
}

const DTYPES: [&str; 3] = ["f32", "f16", "bf16"];

/// Shared memory of a multiprocessor of sm_90, the largest there is, and what each CTA on it costs beside its own.
const SHARED_BYTES: u32 = 228 << 10;
const SHARED_BYTES_PER_CTA: u32 = 1 << 10;

/// `decode`: up to 4 warps of 8 query heads each around one ring of stages, a stage one tile of K and one of V.
fn decode(d: u32, kv: &'static str) -> Variant {
    let (warps, heads) = (4, 8);
    let elem_bytes = if kv == "f32" { 4 } else { 2 };
    // All but two tiles of the ring are on their way at least: 48 KB in 8 CTAs of a multiprocessor.
    let stages = 1 + (48_u32 << 10).div_ceil(8 * 2 * 16 * d * elem_bytes);
    // Rows of K lie 32 bytes apart from a multiple of 64; those of V too where a copy takes parts of eight rows.
    let (k_row_bytes, v_row_bytes) =
        (elem_bytes * d + 32, elem_bytes * d + elem_bytes * d % 128 / 2);
    // A lane's dims: the most that one load brings for all lanes, then what is left.
    let widths = core::iter::repeat_n(4, d as usize / 128)
        .chain((d / 64 % 2 == 1).then_some(2))
        .chain((d / 32 % 2 == 1).then_some(1));
    let pieces = widths.scan(0, |acc, width| {
        let first = *acc;
        *acc += width;
        Some([width, 32 * first, first])
    });
    Variant {
        template: "decode",
        suffix: format!("d{d}_{kv}"),
        threads: 32 * warps,
        shared_bytes: stages * 16 * (k_row_bytes + v_row_bytes),
        warp_shared_bytes: 4 * heads * (d + 16),
        resident_ctas: if d > 64 { 2 } else { 3 },
        values: context! {
            D => d, KV => kv, HEADS => heads, WARPS => warps, STAGES => stages, PIECES => pieces.collect::<Vec<_>>(), RESCALE_LOG2 => 8,
        },
    }
}

/// Bytes by which a row of a tile of `decode_mma` is longer than its elements: none but where registers are scarce, and pieces of rows
/// are interleaved in fewer ways.
fn mma_pad(d: u32, head_tiles: u32) -> u32 {
    if d * head_tiles > 448 { 32 } else { 0 }
}

/// `decode_mma` for 8 or 16 query heads of a KV head: warps with a ring of stages each, a stage one tile of K and one of V.
fn decode_mma(d: u32, kv: &'static str, head_tiles: u32) -> Variant {
    let pad = mma_pad(d, head_tiles);
    let row_bytes = 2 * d + pad;
    // Four warps share the tokens of a unit, so that a lone sequence is fast, where their rings leave room for other CTAs.
    let (warps, stages) = match d {
        32 => (4, 3),
        64..=128 => (4, 2),
        _ if pad == 0 => (2, 3),
        _ => (2, 2),
    };
    let shared_bytes = warps * stages * 2 * 16 * row_bytes;
    let by_registers = match (d, head_tiles) {
        (32..=64, _) => 4,
        (96..=128, 1) => 3,
        (96..=128, _) => 2,
        (_, 1) => 8,
        _ => 6,
    };
    let resident_ctas = (SHARED_BYTES / (shared_bytes + SHARED_BYTES_PER_CTA)).min(by_registers);
    Variant {
        template: "decode_mma",
        suffix: format!("d{d}_{kv}_g{}", 8 * head_tiles),
        threads: 32 * warps,
        shared_bytes,
        warp_shared_bytes: 0,
        resident_ctas,
        values: context! {
            WIDE => false, D => d, KV => kv, HEAD_TILES => head_tiles, PAD => pad, ROW_BYTES => row_bytes, WARPS => warps, STAGES => stages,
            RESCALE_LOG2 => 8,
        },
    }
}

/// `decode_mma` for more query heads of a KV head: up to 8 warps of 16 heads each around one ring, at least 48 KB of which
/// is on its way while two stages are read and refilled.
fn decode_mma_wide(d: u32, kv: &'static str) -> Variant {
    let (warps, head_tiles) = (8, 2);
    let pad = mma_pad(d, head_tiles);
    let row_bytes = 2 * d + pad;
    let stages = 2 + (48_u32 << 10).div_ceil(2 * 16 * 2 * d);
    Variant {
        template: "decode_mma",
        suffix: format!("d{d}_{kv}_wide"),
        threads: 32 * warps,
        shared_bytes: stages * 2 * 16 * row_bytes,
        warp_shared_bytes: 0,
        resident_ctas: 1,
        values: context! {
            WIDE => true, D => d, KV => kv, HEAD_TILES => head_tiles, PAD => pad, ROW_BYTES => row_bytes, WARPS => warps, STAGES => stages,
            RESCALE_LOG2 => 8,
        },
    }
}

/// The list of variants, the only place that names them.
fn variants() -> Vec<Variant> {
    let mut list = Vec::new();
    for groups in 1..=8 {
        for kv in DTYPES {
            list.push(decode(32 * groups, kv));
        }
    }
    for groups in 1..=8 {
        for kv in ["f16", "bf16"] {
            for head_tiles in [1, 2] {
                list.push(decode_mma(32 * groups, kv, head_tiles));
            }
        }
    }
    for d in [64, 128, 192, 256] {
        for kv in ["f16", "bf16"] {
            list.push(decode_mma_wide(d, kv));
        }
    }
    for new in DTYPES {
        for kv in DTYPES {
            list.push(Variant {
                template: "append",
                suffix: format!("{new}_{kv}"),
                threads: 128,
                shared_bytes: 0,
                warp_shared_bytes: 0,
                resident_ctas: 8,
                values: context! { THREADS => 128, NEW => new, KV => kv },
            });
        }
    }
    list
}

/// What ships of a text: no comments but the titles of sections, no indentation. Lines keep their numbers, so that a message about
/// the one is about the other.
fn shipped(text: &str) -> String {
    let code = |line: &str| match line.trim() {
        title if title.starts_with("// ---- ") => title.to_owned(),
        line => line.split("//").next().unwrap_or_default().trim_end().to_owned(),
    };
    text.lines().map(code).fold(String::new(), |text, line| text + &line + "\n")
}

/// A template environment that reads like a C preprocessor: `#for`, `#if`, `#include`, `${VALUE}`.
/// PTX vector operands begin with `{%` in some assemblers' output, so blocks get delimiters that PTX never has.
fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_syntax(
        SyntaxConfig::builder()
            .block_delimiters("<%", "%>")
            .variable_delimiters("${", "}")
            .comment_delimiters("<#", "#>")
            .line_statement_prefix("#")
            .build()
            .expect("delimiters are distinct"),
    );
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_trim_blocks(true);
    env.set_keep_trailing_newline(true);
    env
}

fn main() {
    let ptx_dir = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("set by cargo")).join("ptx");
    let out_dir = env::var("OUT_DIR").expect("set by cargo");
    println!("cargo::rerun-if-changed=ptx");
    println!("cargo::rerun-if-changed=build.rs");

    let [readable_dir, shipped_dir] = ["readable", "shipped"].map(|name| {
        let folder = Path::new(&out_dir).join(name);
        fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        folder
    });

    let mut env = environment();
    env.set_loader(minijinja::path_loader(&ptx_dir));

    let bytes = context! { f32 => 4, f16 => 2, bf16 => 2 };
    let mut table = Vec::new();
    for variant in variants() {
        let Variant {
            template,
            suffix,
            threads,
            shared_bytes,
            warp_shared_bytes,
            resident_ctas,
            values,
        } = variant;
        let entry = format!("{template}_{suffix}");
        let file = format!("{template}.ptx");
        let common = context! {
            ENTRY => entry, BYTES => bytes, SHARED_BYTES => shared_bytes, WARP_BYTES => warp_shared_bytes,
            RESIDENT_CTAS => resident_ctas,
        };
        let text = env
            .get_template(&file)
            .and_then(|t| t.render(context! { ..common, ..values }))
            .unwrap_or_else(|error| panic!("ptx/{file}, entry {entry}: {error:#}"));
        for (folder, text) in [(&readable_dir, &text), (&shipped_dir, &shipped(&text))] {
            let path = folder.join(format!("{entry}.ptx"));
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
        table.push((entry, threads, shared_bytes, warp_shared_bytes, resident_ctas));
    }
    table.sort();

    let mut source = String::from("&[\n");
    for (entry, threads, shared_bytes, warp_shared_bytes, resident_ctas) in &table {
        writeln!(
            source,
            "    KernelSource {{ entry: {entry:?}, ptx: include_str!(concat!(env!(\"OUT_DIR\"), \"/shipped/{entry}.ptx\")), \
             threads: {threads}, dynamic_shared_bytes: {shared_bytes}, \
             warp_shared_bytes: {warp_shared_bytes}, resident_ctas: {resident_ctas} }},"
        )
        .expect("a String takes every write");
    }
    source.push_str("]\n");
    fs::write(Path::new(&out_dir).join("kernels.rs"), source).expect("OUT_DIR is writable");
}
