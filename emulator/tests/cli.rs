//! The command line: what it prints, what it returns, and one line for every kind of bad input.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// out[i] = x[i] * factor + i for i < n, by one thread each; a struct by value holds both pointers.
const SCALE: &str = "
.version 8.0
.target sm_80
.address_size 64
.visible .entry scale(.param .align 8 .b8 s[24], .param .f32 factor)
{
    .reg .pred %p;
    .reg .b32 %i, %n, %c;
    .reg .f32 %v, %f, %t;
    .reg .b64 %x, %out, %at;
    ld.param.u64 %x, [s];
    ld.param.u64 %out, [s+8];
    ld.param.u32 %n, [s+16];
    ld.param.f32 %f, [factor];
    mov.u32 %i, %tid.x;
    mov.u32 %c, %ctaid.x;
    mad.lo.u32 %i, %c, 32, %i;
    setp.ge.u32 %p, %i, %n;
    @%p bra $done;
    mul.wide.u32 %at, %i, 4;
    add.u64 %x, %x, %at;
    add.u64 %out, %out, %at;
    ld.global.f32 %v, [%x];
    cvt.rn.f32.u32 %t, %i;
    fma.rn.f32 %v, %v, %f, %t;
    st.global.f32 [%out], %v;
$done:
    ret;
}
";

/// A folder with k.ptx, x.bin and launch.json.
struct Case {
    folder: TempDir,
    launch: Value,
}

impl Case {
    /// A launch that runs clean.
    fn new() -> Case {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("k.ptx"), SCALE).expect("written");
        let x: Vec<u8> = (0..40u32).flat_map(|i| (i as f32 * 0.5).to_le_bytes()).collect();
        fs::write(folder.path().join("x.bin"), x).expect("written");
        let launch = json!({
            "ptx": "k.ptx", "entry": "scale", "grid": [2, 1, 1], "block": [32, 1, 1], "dynamic_shared_bytes": 0,
            "target": "sm_90", "seed": 1, "mma": "fast", "checks": "all",
            "buffers": { "x": { "file": "x.bin" }, "out": { "uninit": 160 }, "spare": { "zeros": 8 } },
            "params": [
                { "bytes": "0000000000000000ffffffffffffffff2800000000000000",
                  "pointers": [{ "at": 0, "buffer": "x", "offset": 0 }, { "at": 8, "buffer": "out" }] },
                { "f32": 3 },
            ],
            "save": { "out": "out.bin" },
        });
        Case { folder, launch }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn set(mut self, pointer: &str, value: Value) -> Case {
        *self.launch.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} exists")) = value;
        self
    }

    fn with(mut self, key: &str, value: Value) -> Case {
        self.launch[key] = value;
        self
    }

    fn without(mut self, key: &str) -> Case {
        self.launch.as_object_mut().expect("an object").remove(key);
        self
    }

    fn run(&self, more: &[&str]) -> Output {
        self.run_text(&self.launch.to_string(), more)
    }

    /// Runs with any text as launch.json, from another working folder.
    fn run_text(&self, text: &str, more: &[&str]) -> Output {
        let path = self.path().join("launch.json");
        fs::write(&path, text).expect("written");
        emulator(&[&["run", path.to_str().expect("utf-8")], more].concat())
    }

    fn out(&self) -> Vec<f32> {
        let bytes = fs::read(self.path().join("out.bin")).expect("saved");
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four"))).collect()
    }
}

fn emulator(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ptx-emulator")).args(arguments).output().expect("started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("utf-8")
}

/// Unusable input: status 2, nothing on standard output, one line on standard error that has `what` in it.
#[track_caller]
fn refuses(output: &Output, what: &str) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(output.stdout.is_empty());
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.starts_with("error: ") && error.contains(what), "{error}");
}

#[test]
fn a_clean_run_prints_counters_and_saves() {
    let case = Case::new();
    let output = case.run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
    let counters: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    // 17 instructions. No lane of the first warp takes the branch; in the second one 24 lanes do, and 8 go the other way.
    let thread = 16 * 32 + (8 * 32 + 24 + 7 * 8 + 32);
    assert_eq!(counters["instructions"], json!({ "warp": 16 + 17, "thread": thread }));
    assert_eq!(counters["global_loads"], json!({ "bytes": 160, "sectors": 5, "ideal_sectors": 5 }));
    assert_eq!(counters["global_stores"]["bytes"], 160);
    assert_eq!(counters["divergent_branches"], 1);
    assert_eq!((&counters["seed"], &counters["entry"]), (&json!(1), &json!("scale")));
    let want: Vec<f32> = (0..40).map(|i| i as f32 * 2.5).collect();
    assert_eq!(case.out(), want);
}

#[test]
fn defaults_and_every_kind_of_number() {
    let case = Case::new().without("seed").without("mma").without("checks").without("target");
    let output = case.without("dynamic_shared_bytes").run(&[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let case = Case::new()
        .with("checks", json!(["memory", "registers"]))
        .with("mma", json!("bit-accurate"));
    assert_eq!(case.run(&[]).status.code(), Some(0));
    let case = Case::new()
        .with("checks", json!("none"))
        .with("threads", json!(1))
        .with("step_limit", json!(1000));
    assert_eq!(case.run(&[]).status.code(), Some(0));
}

#[test]
fn seeds_run_one_after_the_other() {
    let output = Case::new().run(&["--seeds", "3"]);
    assert_eq!(output.status.code(), Some(0));
    let seeds: Vec<Value> = text(&output.stdout)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an object a line")["seed"].clone())
        .collect();
    assert_eq!(seeds, [1, 2, 3]);
    refuses(
        &Case::new().with("seed", json!(u64::MAX)).run(&["--seeds", "2"]),
        "pass the largest one",
    );
    refuses(&Case::new().run(&["--seeds", "0"]), "--seeds");
}

#[test]
fn findings_are_told_with_status_1() {
    // One element more than the buffers have.
    let case = Case::new()
        .set("/params/0/bytes", json!("000000000000000000000000000000002900000000000000"));
    let output = case.run(&[]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(output.stdout.is_empty());
    for part in ["out-of-bounds", "k.ptx:23", "ld.global.f32 %v, [%x];", "lane 8", "`x`"] {
        assert!(error.contains(part), "{part} is missing in\n{error}");
    }
    let case = Case::new().set("/buffers/x", json!({ "uninit": 160 }));
    let output = case.run(&["--seeds", "4"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("uninitialised-memory"));
    assert_eq!(case.with("checks", json!("none")).run(&[]).status.code(), Some(0));
}

#[test]
fn what_a_kernel_leaves_unwritten_is_said() {
    let case = Case::new().set("/buffers/out", json!({ "uninit": 200 }));
    let output = case.run(&[]);
    assert_eq!(output.status.code(), Some(0));
    let error = text(&output.stderr);
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.contains("`out`: 40 of 200 bytes were never written, the first at offset 160"),
        "{error}"
    );
}

#[test]
fn an_endless_loop_meets_the_step_limit() {
    let case = Case::new()
        .with("step_limit", json!(10_000))
        .with("entry", json!("spin"))
        .with("params", json!([]));
    let spin = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry spin()\n{\n$top:\n    bra $top;\n}\n";
    fs::write(case.path().join("k.ptx"), spin).expect("written");
    let output = case.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("step-limit"));
}

#[test]
fn files_that_cannot_be_read() {
    refuses(&emulator(&["run", "/no/such/launch.json"]), "/no/such/launch.json");
    let case = Case::new();
    refuses(&emulator(&["run", case.path().to_str().expect("utf-8")]), "directory");
    refuses(&Case::new().set("/ptx", json!("absent.ptx")).run(&[]), "absent.ptx");
    refuses(&Case::new().set("/ptx", json!(".")).run(&[]), "irectory");
    refuses(&Case::new().set("/buffers/x/file", json!("absent.bin")).run(&[]), "buffer `x`: ");
    refuses(
        &Case::new().set("/save/out", json!("no/such/folder/out.bin")).run(&[]),
        "save `out`: ",
    );
    fs::write(case.path().join("k.ptx"), b"// \xff\xfe").expect("written");
    refuses(&case.run(&[]), "not text in UTF-8 from byte 3 on");
}

#[test]
fn json_that_is_not_a_launch() {
    let case = Case::new();
    let whole = case.launch.to_string();
    // Cut anywhere, the text is no longer a launch, and the run says so instead of guessing.
    for end in (0..whole.len()).step_by(7) {
        refuses(&case.run_text(&whole[..end], &[]), "launch.json: ");
    }
    refuses(&case.run_text("", &[]), "EOF");
    refuses(&case.run_text("[1, 2]", &[]), "launch.json: ");
    refuses(&case.run_text(&"[".repeat(100_000), &[]), "launch.json: ");
    refuses(&case.run_text(&format!("{whole} {whole}"), &[]), "trailing characters");
    let twice = r#"{"ptx": "k.ptx", "ptx": "k.ptx"}"#;
    refuses(&case.run_text(twice, &[]), "duplicate field `ptx`");
    let twice = r#"{"buffers": {"a": {"zeros": 1}, "a": {"zeros": 2}}}"#;
    refuses(&case.run_text(twice, &[]), "`a` is given twice");
}

#[test]
fn keys_and_types() {
    refuses(&Case::new().with("grids", json!([1, 1, 1])).run(&[]), "unknown field `grids`");
    refuses(&Case::new().without("entry").run(&[]), "missing field `entry`");
    refuses(
        &Case::new().set("/buffers/x", json!({ "zeroes": 4 })).run(&[]),
        "unknown field `zeroes`",
    );
    refuses(&Case::new().set("/params/1", json!({ "float": 4 })).run(&[]), "unknown field `float`");
    refuses(
        &Case::new().set("/params/0/pointers/0", json!({ "at": 0 })).run(&[]),
        "missing field `buffer`",
    );
    refuses(&Case::new().set("/grid", json!([1, 1])).run(&[]), "invalid length 2");
    refuses(&Case::new().set("/grid", json!("2")).run(&[]), "invalid type");
    refuses(&Case::new().set("/grid/0", json!(-1)).run(&[]), "-1");
    refuses(&Case::new().set("/grid/0", json!(1u64 << 40)).run(&[]), "1099511627776");
    refuses(&Case::new().set("/block/0", json!(1.5)).run(&[]), "1.5");
    refuses(&Case::new().set("/seed", json!(-1)).run(&[]), "-1");
    refuses(&Case::new().set("/mma", json!("slow")).run(&[]), "`slow`");
    refuses(&Case::new().set("/checks", json!("all,races")).run(&[]), "there is no check `races`");
    refuses(&Case::new().set("/checks", json!(7)).run(&[]), "`checks` must be");
    refuses(&Case::new().set("/target", json!("gfx90a")).run(&[]), "target `gfx90a`");
    refuses(&Case::new().set("/params/1", json!({ "f32": "nan" })).run(&[]), "invalid type");
    refuses(&Case::new().set("/params/1", json!({ "f32": 1e39 })).run(&[]), "does not fit an f32");
    refuses(&Case::new().set("/params/1", json!({ "s32": 1u64 << 31 })).run(&[]), "2147483648");
}

#[test]
fn buffers_and_sizes() {
    refuses(&Case::new().set("/buffers/x", json!({})).run(&[]), "buffer `x` needs exactly one of");
    refuses(
        &Case::new().set("/buffers/x", json!({ "zeros": 1, "uninit": 1 })).run(&[]),
        "exactly one of",
    );
    refuses(
        &Case::new().set("/buffers/x", json!({ "zeros": u64::MAX })).run(&[]),
        "18446744073709551615 bytes",
    );
    refuses(
        &Case::new().set("/buffers/x", json!({ "zeros": 1u64 << 40 })).run(&[]),
        "1099511627776 bytes",
    );
    refuses(
        &Case::new().set("/buffers/out", json!({ "uninit": u64::MAX })).run(&[]),
        "buffer `out`",
    );
    refuses(
        &Case::new().set("/buffers/out", json!({ "uninit": 1u64 << 50 })).run(&[]),
        "buffer `out`",
    );
    let case = Case::new().set("/buffers/out", json!({ "uninit": 9u64 << 30 }));
    refuses(&case.run(&[]), "save `out`");
    refuses(
        &Case::new().with("save", json!({ "o": "o.bin" })).run(&[]),
        "save: there is no buffer `o`",
    );
}

#[test]
fn parameters_that_do_not_fit() {
    refuses(
        &Case::new().with("params", json!([])).run(&[]),
        "0 parameters given, but the entry declares 2",
    );
    refuses(
        &Case::new().set("/params/1", json!({ "u64": 1 })).run(&[]),
        "parameter 1: 8 bytes given, but",
    );
    refuses(&Case::new().set("/params/0/bytes", json!("00")).run(&[]), "parameter 0: ");
    refuses(
        &Case::new().set("/params/0/bytes", json!("0g")).run(&[]),
        "`g` at 1 is not a hexadecimal digit",
    );
    refuses(&Case::new().set("/params/0/bytes", json!("000")).run(&[]), "3 hexadecimal digits");
    refuses(
        &Case::new().set("/params/0/pointers/1/at", json!(17)).run(&[]),
        "a pointer at 17 does not lie inside",
    );
    refuses(
        &Case::new().set("/params/0/pointers/1/at", json!(u64::MAX)).run(&[]),
        "does not lie inside",
    );
    refuses(
        &Case::new().set("/params/0/pointers/1/at", json!(7)).run(&[]),
        "pointers at 0 and 7 overlap",
    );
    refuses(
        &Case::new().set("/params/0/pointers/1/buffer", json!("y")).run(&[]),
        "there is no buffer `y`",
    );
    refuses(
        &Case::new().set("/params/0/pointers/0/offset", json!(1u64 << 63)).run(&[]),
        "offset 9223372036854775808",
    );
}

#[test]
fn launches_that_no_device_takes() {
    refuses(
        &Case::new().set("/entry", json!("scales")).run(&[]),
        "there is no entry `scales`; the file has: scale",
    );
    refuses(&Case::new().set("/block/0", json!(1025)).run(&[]), "1025");
    refuses(
        &Case::new().set("/block", json!([u32::MAX, u32::MAX, u32::MAX])).run(&[]),
        "4294967295",
    );
    refuses(&Case::new().set("/block/1", json!(0)).run(&[]), "0");
    refuses(&Case::new().set("/grid/2", json!(0)).run(&[]), "0");
    refuses(&Case::new().set("/grid/1", json!(65536)).run(&[]), "65536");
    refuses(&Case::new().with("dynamic_shared_bytes", json!(u32::MAX)).run(&[]), "4294967295");
}

#[test]
fn ptx_that_is_not_ptx() {
    let case = Case::new();
    let broken = SCALE.replace("fma.rn.f32", "fma.rq.f32");
    for (ptx, what) in [
        ("", "k.ptx:"),
        (&broken, "k.ptx:25"),
        (&SCALE[..SCALE.len() / 2], "k.ptx:"),
        ("{ } \u{0}", "k.ptx:1"),
    ] {
        fs::write(case.path().join("k.ptx"), ptx).expect("written");
        refuses(&case.run(&[]), what);
    }
}

#[test]
fn required_buffers_have_to_be_written() {
    let case = Case::new().with("required", json!(["y"]));
    refuses(&case.run(&[]), "required: there is no buffer `y`");
    let case = Case::new().with("required", json!(["out"]));
    assert_eq!(case.run(&[]).status.code(), Some(0));
    let output = case.set("/grid/0", json!(1)).run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("error[unwritten-output]") && told.contains("buffer `out`"), "{told}");
}

#[test]
fn arguments() {
    refuses(&emulator(&[]), "run or inspect");
    refuses(&emulator(&["walk"]), "walk");
    refuses(&emulator(&["run"]), "LAUNCH");
    refuses(&emulator(&["run", "a.json", "--seeds", "many"]), "many");
    let help = emulator(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(text(&help.stdout).contains("inspect"));
}

#[test]
fn wild_grids_end() {
    let empty = ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry nothing()\n{\n    ret;\n}\n";
    let case = Case::new()
        .with("entry", json!("nothing"))
        .with("params", json!([]))
        .with("grid", json!([0x7fff_ffff_u32, 65535, 65535]))
        .with("total_limit", json!(1_000_000));
    fs::write(case.path().join("k.ptx"), empty).expect("written");
    let output = case.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("step-limit") && told.contains("CTAs have not started"), "{told}");
}

/// The block of the README that begins with a fence and this word.
fn readme(language: &str) -> String {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("read");
    let (_, rest) = text.split_once(&format!("```{language}\n")).expect("a block");
    rest.split_once("```").expect("its end").0.to_owned()
}

#[test]
fn the_readme_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    let (rust, launch) = (readme("rust"), readme("json"));
    let kernel = rust.split('"').nth(3).expect("the kernel's text");
    fs::write(folder.path().join("double.ptx"), kernel).expect("written");
    let numbers =
        |factor: u32| (1..5u32).flat_map(|i| (i * factor).to_le_bytes()).collect::<Vec<u8>>();
    fs::write(folder.path().join("data.bin"), numbers(1)).expect("written");
    let path = folder.path().join("launch.json");
    fs::write(&path, launch).expect("written");
    let output = emulator(&["run", path.to_str().expect("utf-8")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(fs::read(folder.path().join("doubled.bin")).expect("saved"), numbers(2));
}
