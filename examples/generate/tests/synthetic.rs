//! Models that the tests write themselves, run by the program and by a forward pass in f64.

mod common;

use std::process::Command;

use common::gguf::Kind;
use common::{Model, Vocabulary, reference};
use serde_json::Value as Json;

/// Runs the program on a model file with these flags and returns what `--json` printed.
fn generate(bytes: &[u8], flags: &[&str]) -> Json {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_generate"))
        .args(["--json", "--model"])
        .arg(file.path())
        .args(flags)
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{flags:?}: {errors}");
    assert!(errors.is_empty(), "{flags:?}: {errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    serde_json::from_str(&text).unwrap()
}

fn ids(json: &Json, key: &str) -> Vec<u32> {
    json[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// The program answers as the reference does, with dense attention and through the kernels.
fn check(model: &Model, version: u32, prompt: &str, prompt_ids: &[u32]) {
    const TOKENS: usize = 20;
    let file = model.file();
    let (bytes, _) = file.bytes(version);
    let mut want = reference::greedy(model, &file.weights, prompt_ids, TOKENS);
    let stop = if model.vocabulary == Vocabulary::Bpe { 0 } else { 2 };
    if let Some(end) = want.iter().position(|&id| id == stop) {
        want.truncate(end + 1);
    }
    let tokens = TOKENS.to_string();
    for backend in [&["--dense"][..], &["--block-size", "3"]] {
        let flags = [&["--raw", "--tokens", &tokens, prompt], backend].concat();
        let json = generate(&bytes, &flags);
        assert_eq!(ids(&json, "prompt_ids"), prompt_ids, "{flags:?}");
        assert_eq!(ids(&json, "ids"), want, "{flags:?}");
    }
}

#[test]
fn every_version_and_weight_type_is_read() {
    for (version, kind) in [(1, Kind::F32), (2, Kind::F16), (3, Kind::Q8_0), (3, Kind::Q4_1)] {
        check(&Model { kind, ..Model::default() }, version, "abc ab", &[1, 268, 266]);
    }
}

#[test]
fn a_head_dim_that_no_kernel_has_is_padded() {
    let model = Model { head_dim: 20, rope_dim: 12, kind: Kind::Q8_0, ..Model::default() };
    check(&model, 3, "b c", &[1, 259, 261, 259, 262]);
    let model = Model { head_dim: 2, rope_dim: 2, num_q_heads: 7, num_kv_heads: 1, ..model };
    check(&model, 2, "", &[1]);
}

#[test]
fn a_tied_model_with_biases_and_stretched_positions() {
    let model = Model {
        tied: true,
        biases: true,
        rope_freqs: true,
        rope_factor: 4.0,
        rope_base: 5e5,
        vocabulary: Vocabulary::Bpe,
        ..Model::default()
    };
    check(&model, 3, "the thing 12", &[85, 99, 98, 73, 102, 96, 18, 19]);
}

#[test]
fn bytes_without_a_token_fall_back() {
    let prompt_ids = [1, 263, 3 + 0xc3, 3 + 0xa9, 3 + 0x0a];
    check(&Model { kind: Kind::F16, ..Model::default() }, 3, "aé\n", &prompt_ids);
}

#[test]
fn a_chat_prompt_has_one_bos() {
    let (bytes, _) = Model::default().file().bytes(3);
    let json = generate(&bytes, &["--dense", "--tokens", "1", "ab"]);
    assert_eq!(ids(&json, "prompt_ids"), [1, 259, 3 + 0x5b, 264, 3 + 0x5d]);
}

#[test]
fn a_prompt_of_several_passes_equals_the_reference() {
    let prompt = "abc ".repeat(40);
    let mut prompt_ids = vec![1];
    prompt_ids.extend([268; 40]);
    prompt_ids.push(259);
    prompt_ids.extend([268; 40]);
    prompt_ids.push(259);
    let prompt = format!("{prompt} {prompt}");
    check(&Model::default(), 3, prompt.trim_end(), &prompt_ids[..prompt_ids.len() - 1]);
}

#[test]
fn the_cache_s_type_and_block_size_only_round() {
    let model = Model { head_dim: 12, rope_dim: 12, ..Model::default() };
    let (bytes, _) = model.file().bytes(3);
    for dtype in ["f32", "f16", "bf16"] {
        let run = |backend: &[&str]| {
            let flags = ["--raw", "--tokens", "20", "--kv-dtype", dtype, "abc"];
            ids(&generate(&bytes, &[&flags[..], backend].concat()), "ids")
        };
        let want = run(&["--dense"]);
        assert_eq!(want.len(), 20);
        for block_size in ["1", "3", "16", "64"] {
            assert_eq!(run(&["--block-size", block_size]), want, "{dtype}, {block_size}");
        }
    }
}

#[test]
fn generation_ends_where_the_context_does() {
    let (bytes, _) = Model::default().file().bytes(3);
    let json = generate(&bytes, &["--dense", "--raw", "--tokens", "1000", "abc"]);
    let total = ids(&json, "prompt_ids").len() + ids(&json, "ids").len();
    assert!(ids(&json, "ids").contains(&2) || total == 256, "{total}");
}
