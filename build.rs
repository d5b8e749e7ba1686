//! Expands the kernel templates of `ptx/` into one PTX text per entry and a table of them.
//!
//! Nothing is compiled: the output is the text that the driver assembles on the user's machine.

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
    /// Values for the template.
    values: Value,
}

const DTYPES: [&str; 3] = ["f32", "f16", "bf16"];

/// The list of variants, the only place that names them.
fn variants() -> Vec<Variant> {
    let mut list = Vec::new();
    for groups in 1..=8 {
        for q in DTYPES {
            for kv in DTYPES {
                let (d, warps) = (32 * groups, 4);
                list.push(Variant {
                    template: "decode",
                    suffix: format!("d{d}_{q}_{kv}"),
                    threads: 32 * warps,
                    values: context! { GROUPS => groups, D => d, WARPS => warps, Q => q, KV => kv },
                });
            }
        }
    }
    for new in DTYPES {
        for kv in DTYPES {
            list.push(Variant {
                template: "append",
                suffix: format!("{new}_{kv}"),
                threads: 128,
                values: context! { THREADS => 128, NEW => new, KV => kv },
            });
        }
    }
    list
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

    let mut env = environment();
    env.set_loader(minijinja::path_loader(&ptx_dir));

    let bytes = context! { f32 => 4, f16 => 2, bf16 => 2 };
    let mut table = Vec::new();
    for variant in variants() {
        let entry = format!("{}_{}", variant.template, variant.suffix);
        let file = format!("{}.ptx", variant.template);
        let text = env
            .get_template(&file)
            .and_then(|t| t.render(context! { ENTRY => entry, BYTES => bytes, ..variant.values }))
            .unwrap_or_else(|error| panic!("ptx/{file}, entry {entry}: {error:#}"));
        let path = Path::new(&out_dir).join(format!("{entry}.ptx"));
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        table.push((entry, variant.threads));
    }
    table.sort();

    let mut source = String::from("&[\n");
    for (entry, threads) in &table {
        writeln!(
            source,
            "    KernelSource {{ entry: {entry:?}, ptx: include_str!(concat!(env!(\"OUT_DIR\"), \"/{entry}.ptx\")), threads: {threads} }},"
        )
        .expect("a String takes every write");
    }
    source.push_str("]\n");
    fs::write(Path::new(&out_dir).join("kernels.rs"), source).expect("OUT_DIR is writable");
}
