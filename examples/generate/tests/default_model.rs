//! The default model, where it is on disk; otherwise each test says that it was skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value as Json;

const PROGRAM: &str = env!("CARGO_BIN_EXE_generate");

/// The model's file in a target directory, if some earlier run of the program fetched it.
fn model() -> Option<PathBuf> {
    let built = Path::new(PROGRAM).ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let dirs = [built.map(Path::to_path_buf), Some(own)].into_iter().flatten();
    let mut paths = dirs.map(|dir| dir.join("models/SmolLM2-135M-Instruct.Q4_1.gguf"));
    let path = paths.find(|path| path.is_file());
    if path.is_none() {
        eprintln!("SKIPPED: the default model is not on disk; `cargo run -p generate` fetches it");
    }
    path
}

fn generate(model: &Path, flags: &[&str]) -> Json {
    let output =
        Command::new(PROGRAM).args(["--json", "--model"]).arg(model).args(flags).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flags:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_kernels_and_dense_attention_give_the_same_ids() {
    let Some(model) = model() else { return };
    let flags = ["--raw", "--tokens", "64", "Once upon a time"];
    let dense = generate(&model, &[&flags[..], &["--dense"]].concat());
    let paged = generate(&model, &[&flags[..], &["--kv-dtype", "f32"]].concat());
    assert_eq!(dense["ids"].as_array().unwrap().len(), 64);
    assert_eq!(paged["ids"], dense["ids"]);
    assert_eq!(paged["text"], dense["text"]);
    assert_eq!(paged["findings"], 0);
    // An append and a decode for each of 30 layers, for the prompt and for 63 tokens.
    assert_eq!(paged["launches"], 64 * 30 * 2);
    assert_eq!(dense["launches"], 0);
}

#[test]
fn the_capital_of_france() {
    let Some(model) = model() else { return };
    let question = "What is the capital of France?";
    for flags in [&["--kv-dtype", "f16"][..], &["--kv-dtype", "bf16", "--block-size", "3"]] {
        let json = generate(&model, &[flags, &[question]].concat());
        assert_eq!(json["text"], "The capital of France is Paris.", "{flags:?}");
    }
}

#[test]
fn prompts_come_back_from_their_ids() {
    let Some(model) = model() else { return };
    // Ids of single tokens, from the file's own list: 1 <|im_start|>, 2 <|im_end|>, 33 "1".
    for (prompt, want) in
        [("<|im_start|><|im_end|>", &[1, 2][..]), ("111", &[33, 33, 33]), ("", &[1])]
    {
        let json = generate(&model, &["--raw", "--dense", "--tokens", "0", prompt]);
        let ids: Vec<i64> = serde_json::from_value(json["prompt_ids"].clone()).unwrap();
        assert_eq!(ids, want, "{prompt:?}");
        assert_eq!((json["ids"].as_array().unwrap().len(), &json["text"]), (0, &Json::from("")));
    }
}
