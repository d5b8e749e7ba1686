//! The reference against recorded calls of an independent f64 implementation.

use std::path::{Path, PathBuf};

use pagedptx_harness::EmulatorDriver;
use pagedptx_harness::cases::{Case, Criteria, Recorded};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::problem::Tensor;
use pagedptx_harness::reference::{self, Expected};
use pagedptx_harness::runner;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    files.sort();
    files
}

/// f64 against f64: what is left is the order of the sums.
fn assert_agrees(expected: &Recorded, got: &Expected) {
    for (index, (got, want)) in got.out.iter().zip(&expected.out).enumerate() {
        assert!((got - want).abs() <= 1e-11 * (1.0 + want.abs()), "out[{index}]: {got} for {want}");
    }
    let lse_sink = expected.lse_sink.as_ref().unwrap_or(&expected.lse);
    for (got, want) in got.lse.iter().zip(&expected.lse).chain(got.lse_sink.iter().zip(lse_sink)) {
        assert!(
            got == want || (got - want).abs() <= 1e-11 * want.abs().max(1.0),
            "lse {got} for {want}"
        );
    }
    assert_eq!((got.out.len(), got.lse.len()), (expected.out.len(), expected.lse.len()));
    let criteria = Criteria { q_dtype: Dtype::F32, sixteen_bit_probs: false, lse_with_sink: false };
    let (out, lse) = expected.excess(&got.out, &got.lse, &criteria);
    assert!(out <= 1.0 && lse <= 1.0, "out {out}, lse {lse} of the tolerance");
}

fn assert_same_cache(name: &str, got: &Tensor, want: &Tensor) {
    let differs = |&index: &usize| {
        let size = want.dtype.bytes();
        got.bytes[index * size..][..size] != want.bytes[index * size..][..size]
    };
    let wrong: Vec<_> = (0..want.len()).filter(differs).collect();
    assert!(
        wrong.is_empty(),
        "{name}: {} of {} elements differ, first {}: {} for {}",
        wrong.len(),
        want.len(),
        wrong[0],
        got.get(wrong[0]),
        want.get(wrong[0])
    );
}

fn check(path: &Path) {
    match Case::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())) {
        Case::Attention { problem, expected, .. } => {
            assert_agrees(&expected, &reference::attention(&problem));
        }
        Case::Append { problem, k_after, v_after } => {
            let (k_cache, v_cache) = reference::append(&problem);
            assert_same_cache("k_cache", &k_cache, &k_after);
            assert_same_cache("v_cache", &v_cache, &v_after);
        }
        Case::Merge { problem, expected } => {
            assert_agrees(&expected, &reference::merge(&problem));
        }
        Case::Stepwise { problem, expected, k_after, v_after } => {
            let (got, k_cache, v_cache) = reference::stepwise(&problem);
            assert_agrees(&expected, &got);
            assert_same_cache("k_cache", &k_cache, &k_after);
            assert_same_cache("v_cache", &v_cache, &v_after);
        }
    }
}

/// The reference gives what the recorded calls in the repository expect.
#[test]
fn reference_agrees_with_the_committed_calls() {
    let files = files(&repository().join("tests/cases"));
    assert!(!files.is_empty(), "tests/cases holds recorded calls");
    files.iter().for_each(|path| check(path));
}

/// The reference gives what every recorded call of the full set expects, where that set is present.
#[test]
fn reference_agrees_with_the_full_set() {
    let files = files(&repository().join("../shared/cases"));
    if files.is_empty() {
        eprintln!("skipped: no recorded calls in ../shared/cases");
    }
    for path in &files {
        println!("{}", path.display());
        check(path);
    }
}

/// The shipped kernels give what the recorded calls in the repository expect, within their tolerances.
#[test]
fn kernels_pass_the_committed_calls() {
    for path in files(&repository().join("tests/cases")) {
        let device =
            pagedptx::Device::new(EmulatorDriver::default()).expect("the emulator is sm_90");
        let name = path.display();
        match Case::read(&path).unwrap_or_else(|error| panic!("{name}: {error}")) {
            Case::Attention { problem, expected, .. } => {
                let output = runner::attend(&device, &problem)
                    .unwrap_or_else(|failure| panic!("{name}: {failure}"));
                let arithmetic = runner::arithmetic(problem.q.dtype, problem.k_cache.dtype);
                let criteria = Criteria {
                    q_dtype: problem.q.dtype,
                    sixteen_bit_probs: arithmetic.probs != Dtype::F32,
                    lse_with_sink: false,
                };
                let (out, lse) = expected.excess(&output.out.values(), &output.lse(), &criteria);
                assert!(out <= 1.0 && lse <= 1.0, "{name}: out {out}, lse {lse} of the tolerance");
            }
            Case::Append { problem, k_after, v_after } => {
                let (k_cache, v_cache) = runner::append(&device, &problem)
                    .unwrap_or_else(|failure| panic!("{name}: {failure}"));
                assert_same_cache("k_cache", &k_cache, &k_after);
                assert_same_cache("v_cache", &v_cache, &v_after);
            }
            case => panic!("{name}: {} is not among the committed calls", case.kind()),
        }
    }
}
