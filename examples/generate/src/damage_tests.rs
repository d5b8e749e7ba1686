//! Files with flipped bytes are read or refused; whatever they claim, nothing panics.

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::Write;

use common::{Model, Numbers, Vocabulary};

use crate::args::{Args, KvDtype};

/// Loads the bytes as a model and runs a prompt through it with dense attention.
fn run(bytes: &[u8]) -> anyhow::Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    let args = Args {
        prompt: "the abc".into(),
        model: Some(file.path().to_owned()),
        tokens: 1,
        raw: false,
        kv_dtype: KvDtype::F32,
        block_size: 16,
        dense: true,
        json: true,
    };
    let (model, vocabulary, prompt) = crate::load(file.path(), &args)?;
    let prompt_ids = vocabulary.encode(&prompt)?;
    let shape = crate::shape(model.config(), prompt_ids.len(), args.tokens)?;
    let mut attention = crate::attention::dense::Dense::new(shape, args.kv_dtype);
    let emit = |_: &str| Ok(());
    crate::run::generate(&model, &vocabulary, prompt_ids, 1, &mut attention, emit).1
}

#[test]
fn flipped_header_bytes_never_panic() {
    for (vocabulary, version) in [(Vocabulary::SentencePiece, 1), (Vocabulary::Bpe, 3)] {
        let model = Model { vocabulary, ..Model::default() };
        let (bytes, header) = model.file().bytes(version);
        run(&bytes).unwrap();
        let numbers = &mut Numbers(u64::from(version));
        let mut refused = 0;
        for round in 0..1500 {
            let mut damaged = bytes.clone();
            for _ in 0..=numbers.below(3) {
                let value = match numbers.below(3) {
                    0 => 0,
                    1 => 0xff,
                    _ => numbers.next_u64() as u8,
                };
                damaged[numbers.below(header)] = value;
            }
            let result = std::panic::catch_unwind(|| run(&damaged));
            let result = result.unwrap_or_else(|_| panic!("version {version}, round {round}"));
            refused += u32::from(result.is_err());
        }
        assert!(refused > 100, "{refused} of 1500 damaged files refused");
    }
}

#[test]
fn odd_vocabularies_never_panic() {
    use common::gguf::Value;
    let model = Model::default();
    let odd_names: [&[&str]; 4] = [
        &["<s>", "</s>", ""],
        &["", "", ""],
        &["<s>", "<s>", "<s>"],
        &["▁", "\u{0}", "\u{10ffff}"],
    ];
    for (round, odd) in odd_names.into_iter().enumerate() {
        for kind in 1..=6 {
            let mut names: Vec<String> = (0..model.tokens()).map(|id| format!("t{id}")).collect();
            let mut kinds = vec![1; names.len()];
            for (id, name) in odd.iter().enumerate() {
                names[id + 5] = (*name).to_owned();
                kinds[id + 5] = kind;
            }
            let mut file = model.file();
            file.set("tokenizer.ggml.tokens", Value::Strs(names));
            file.set("tokenizer.ggml.token_type", Value::I32s(kinds));
            for (format, key) in [("llama", "scores"), ("gpt2", "merges")] {
                file.set("tokenizer.ggml.model", Value::Str(format.into()));
                file.set("tokenizer.ggml.merges", Value::Strs(vec!["t 1".into()]));
                let (bytes, _) = file.bytes(3);
                let result = std::panic::catch_unwind(|| run(&bytes));
                assert!(result.is_ok(), "names {round}, type {kind}, {key}");
            }
        }
    }
}
