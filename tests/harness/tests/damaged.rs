//! Files that are no recorded calls give an error that names what is wrong, never a panic.

use std::collections::HashMap;

use pagedptx_harness::cases::Case;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Name, type, shape, bytes.
type Stored = (&'static str, Dtype, Vec<usize>, Vec<u8>);

const META: &str = r#"{"kind": "attention", "q_dtype": "f16", "kv_dtype": "f16", "scale": 1.0,
    "causal": true, "window": null, "softcap": null,
    "tol": {"atol_f32": 1e-6, "atol_p16": 1e-3, "rtol": 1e-3, "lse_atol": 1e-5, "lse_rtol": 1e-6}}"#;

fn i32s(values: &[i32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Two sequences of 1 and 3 tokens with a query row each, 4 heads on 2, blocks of 2.
fn sound() -> Vec<Stored> {
    vec![
        ("q", Dtype::F16, vec![2, 4, 8], vec![0; 128]),
        ("k_cache", Dtype::F16, vec![4, 2, 2, 8], vec![0; 256]),
        ("v_cache", Dtype::F16, vec![4, 2, 2, 8], vec![0; 256]),
        ("block_table", Dtype::I32, vec![2, 2], i32s(&[3, -1, 0, 1])),
        ("kv_lens", Dtype::I32, vec![2], i32s(&[1, 3])),
        ("cu_q", Dtype::I32, vec![3], i32s(&[0, 1, 2])),
        ("out", Dtype::F64, vec![2, 4, 8], vec![0; 512]),
        ("lse", Dtype::F64, vec![2, 4], vec![0; 64]),
    ]
}

fn file(tensors: &[Stored], meta: &str) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.clone(), bytes).expect("bytes fit the shape"))
    });
    let metadata = HashMap::from([("meta".to_owned(), meta.to_owned())]);
    safetensors::serialize(views, Some(metadata)).expect("serialises")
}

/// The error of a file in which the tensor `name` is replaced.
fn error_with(name: &'static str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> String {
    let mut tensors = sound();
    let at = tensors.iter().position(|tensor| tensor.0 == name);
    tensors[at.expect("a tensor of that name")] = (name, dtype, shape.to_vec(), bytes);
    Case::parse(&file(&tensors, META)).expect_err("a damaged file").to_string()
}

/// The file that the others are made from is accepted.
#[test]
fn sound_file_is_read() {
    assert_eq!(Case::parse(&file(&sound(), META)).expect("sound").kind(), "attention");
}

/// A file that ends early is refused, wherever it ends.
#[test]
fn truncated_files_are_refused() {
    let bytes = file(&sound(), META);
    for len in 0..bytes.len() {
        assert!(Case::parse(&bytes[..len]).is_err(), "{len} of {} bytes", bytes.len());
    }
}

/// A flipped bit is refused or gives another call; it never panics.
#[test]
fn flipped_bits_never_panic() {
    let bytes = file(&sound(), META);
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let _ = Case::parse(&flipped);
    }
}

/// Each wrong type, shape and value is named.
#[test]
fn wrong_tensors_are_named() {
    let cases = [
        (
            error_with("q", Dtype::F32, &[2, 4, 4], vec![0; 128]),
            "tensor q has type F32, F16 is needed",
        ),
        (error_with("q", Dtype::F16, &[2, 32], vec![0; 128]), "tensor q has shape [2, 32]"),
        (error_with("q", Dtype::F16, &[2, 3, 8], vec![0; 96]), "a multiple of 2"),
        (error_with("q", Dtype::F16, &[0, 4, 8], vec![]), "tensor q has shape [0, 4, 8]"),
        (
            error_with("v_cache", Dtype::F16, &[4, 1, 2, 8], vec![0; 128]),
            "tensor v_cache has shape",
        ),
        (
            error_with("block_table", Dtype::I32, &[4], i32s(&[0; 4])),
            "tensor block_table has shape [4]",
        ),
        (
            error_with("block_table", Dtype::I32, &[2, 2], i32s(&[4, 0, 0, 0])),
            "block_table[0] is 4",
        ),
        (
            error_with("block_table", Dtype::I32, &[2, 2], i32s(&[0, 0, 0, -1])),
            "block_table[3] is -1",
        ),
        (error_with("kv_lens", Dtype::I32, &[2], i32s(&[1, -3])), "kv_lens[1] is -3"),
        (error_with("kv_lens", Dtype::I32, &[2], i32s(&[1, 5])), "kv_lens[1] is 5"),
        (error_with("kv_lens", Dtype::I32, &[1], i32s(&[1])), "tensor kv_lens has shape [1]"),
        (error_with("cu_q", Dtype::I32, &[3], i32s(&[0, 3, 2])), "cu_q[1] is 3"),
        (error_with("cu_q", Dtype::I32, &[3], i32s(&[0, 1, 1])), "cu_q[2] is 1"),
        (error_with("cu_q", Dtype::I32, &[3], i32s(&[1, 1, 2])), "cu_q[0] is 1"),
        (error_with("out", Dtype::F64, &[2, 4, 4], vec![0; 256]), "tensor out has shape [2, 4, 4]"),
        (error_with("lse", Dtype::F32, &[2, 4], vec![0; 32]), "tensor lse has type F32"),
    ];
    for (error, part) in cases {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

/// A missing tensor or metadata key is named.
#[test]
fn missing_parts_are_named() {
    for index in 0..sound().len() {
        let mut tensors = sound();
        let name = tensors.remove(index).0;
        let error = Case::parse(&file(&tensors, META)).expect_err("incomplete").to_string();
        assert_eq!(error, format!("tensor {name} is missing"));
    }
    let lacking = [
        ("\"kind\": \"attention\", ", "missing field `kind`"),
        ("\"q_dtype\": \"f16\", ", "missing key `q_dtype`"),
        ("\"scale\": 1.0,", "missing key `scale`"),
        ("\"atol_p16\": 1e-3, \"rtol\": 1e-3, ", "tol: missing field `rtol`"),
    ];
    for (key, part) in lacking {
        assert!(META.contains(key));
        let meta = META.replace(key, "");
        let error = Case::parse(&file(&sound(), &meta)).expect_err("incomplete").to_string();
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
    for (from, to, part) in [
        ("\"window\": null", "\"window\": 0", "window is 0"),
        ("\"softcap\": null", "\"softcap\": -1", "softcap is -1"),
        ("\"f16\"", "\"f15\"", "f15"),
        ("\"attention\"", "\"prefill\"", "prefill"),
    ] {
        let meta = META.replace(from, to);
        let error = Case::parse(&file(&sound(), &meta)).expect_err("unusable").to_string();
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}
