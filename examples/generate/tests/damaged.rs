//! Files and prompts that the program must refuse: one line on stderr, status 2, no panic.

mod common;

use std::process::Command;

use common::gguf::{File, Kind, Value};
use common::{Model, Vocabulary};

/// What the program says to this file.
fn refusal(bytes: &[u8], flags: &[&str]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_generate"))
        .args(["--json", "--dense", "--tokens", "2", "--model"])
        .arg(file.path())
        .args(flags)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(output.stdout.is_empty());
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("error: ") && !text.contains("panicked"), "{text}");
    text
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let (bytes, header) = Model::default().file().bytes(3);
    let mut cuts: Vec<usize> = (0..64).chain((64..header).step_by(101)).collect();
    cuts.extend([header, header + 40, bytes.len() / 2, bytes.len() - 100]);
    for cut in cuts {
        let text = refusal(&bytes[..cut], &["--raw", "abc"]);
        let expected = ["ends early", "remaining in file"];
        assert!(expected.iter().any(|part| text.contains(part)), "cut at {cut}: {text}");
    }
}

/// Applies a change to a model file; the program's refusal must say `want`.
fn refused(want: &str, change: impl FnOnce(&mut File)) {
    let mut file = Model { kind: Kind::Q8_0, ..Model::default() }.file();
    change(&mut file);
    let text = refusal(&file.bytes(3).0, &["--raw", "abc"]);
    assert!(text.contains(want), "want {want:?}: {text}");
}

#[test]
fn refusals_name_the_value() {
    let string = |text: &str| Value::Str(text.into());
    refused("general.architecture is \"mamba\"", |file| {
        file.set("general.architecture", string("mamba"));
    });
    refused("tensor blk.1.ffn_up.weight is missing", |file| {
        file.drop_tensor("blk.1.ffn_up.weight");
    });
    refused("tensor blk.2.attn_q.weight is missing", |file| {
        file.set("llama.block_count", Value::U32(3));
    });
    refused("tensor blk.1.attn_k.weight is not part of a llama model", |file| {
        file.set("llama.block_count", Value::U32(1));
    });
    refused("tensor blk.0.attn_q_norm.weight is not part of a llama model", |file| {
        file.tensor("blk.0.attn_q_norm.weight", &[16], Kind::F32, &[1.0; 16]);
    });
    refused("tensor blk.0.attn_k.weight has shape [32, 64], want [64, 64]", |file| {
        file.set("llama.attention.head_count_kv", Value::U32(4));
    });
    refused("has ggml type 16, which is not supported", |file| {
        file.disguise("output.weight", Some(16), None);
    });
    refused("has a dimension of 0", |file| {
        file.disguise("output.weight", None, Some(vec![0, 64]));
    });
    refused("more than 1099511627776 elements", |file| {
        file.disguise("output.weight", None, Some(vec![1 << 40, 1 << 40]));
    });
    refused("tensor output_norm.weight", |file| {
        file.disguise("output_norm.weight", Some(8), Some(vec![63]))
    });
    for alignment in [0, 3, 1 << 20] {
        let want = format!("general.alignment is {alignment}, want a power of two");
        refused(&want, |file| file.set("general.alignment", Value::U32(alignment)));
    }
    refused("tokenizer.ggml.model is \"t5\"", |file| {
        file.set("tokenizer.ggml.model", string("t5"))
    });
    refused("tokenizer.ggml.merges is missing", |file| {
        file.set("tokenizer.ggml.model", string("gpt2"));
    });
    refused("tokenizer.ggml.pre is \"martian\"", |file| {
        file.set("tokenizer.ggml.model", string("gpt2"));
        file.set("tokenizer.ggml.pre", string("martian"));
    });
    refused("tokenizer.ggml.scores has 1 elements", |file| {
        file.set("tokenizer.ggml.scores", Value::F32s(vec![0.0]));
    });
    refused("tokenizer.ggml.tokens is missing", |file| file.remove("tokenizer.ggml.tokens"));
    refused("bos_token_id is 999, the vocabulary has 269 tokens", |file| {
        file.set("tokenizer.ggml.bos_token_id", Value::U32(999));
    });
    refused("llama.rope.scaling.type is \"yarn\"", |file| {
        file.set("llama.rope.scaling.type", string("yarn"));
    });
    refused("the logit of token", |file| {
        file.tensor("output_norm.weight", &[64], Kind::F32, &[f32::NAN; 64]);
    });
}

#[test]
fn other_files_are_refused() {
    let (bytes, _) = Model::default().file().bytes(3);
    let text = refusal(b"PK\x03\x04 a zip file", &["--raw"]);
    assert!(text.contains("not a GGUF file"), "{text}");
    let mut future = bytes.clone();
    future[4] = 4;
    assert!(refusal(&future, &["--raw"]).contains("GGUF version 4 is not supported"));
    let mut big_endian = bytes;
    big_endian[4..8].copy_from_slice(&3u32.to_be_bytes());
    assert!(refusal(&big_endian, &["--raw"]).contains("big-endian"));
    let output = Command::new(env!("CARGO_BIN_EXE_generate"))
        .args(["--raw", "--model", "/no/such/file.gguf"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("error: /no/such/file.gguf: cannot open the file"), "{text}");
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let (bytes, _) = Model::default().file().bytes(3);
    let text = refusal(&bytes, &["--raw", &"abc ".repeat(300)]);
    assert!(text.contains("tokens, the model's context 256 leaves none"), "{text}");

    let mut silent = Model::default().file();
    silent.remove("tokenizer.chat_template");
    let text = refusal(&silent.bytes(3).0, &["abc"]);
    assert!(text.contains("no chat template, use --raw"), "{text}");

    let bpe = Model { vocabulary: Vocabulary::Bpe, ..Model::default() };
    let text = refusal(&bpe.file().bytes(3).0, &["--raw", "naïve"]);
    assert!(text.contains("cannot express the prompt: it comes back as \"nave\""), "{text}");
}
