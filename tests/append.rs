//! Append against the reference, bit for bit, the whole pool: the shipped PTX, through the safe API, on the emulator
//! (or the driver that `PAGEDPTX_DRIVER` names).

mod any_driver;

use pagedptx_harness::EmulatorOptions;
use pagedptx_harness::draw::{AppendSpec, append_specs};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::runner::check_append;
use proptest::prelude::*;

fn check(spec: &AppendSpec) {
    let device = any_driver::device(EmulatorOptions::default());
    check_append(&device, &spec.build()).unwrap_or_else(|failure| panic!("{spec:?}: {failure}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// A new token's K and V stand in its slot, rounded to nearest even; every other byte of the pool is as before; a
    /// negative slot skips its token.
    #[test]
    fn append_writes_the_slots_and_nothing_else(spec in append_specs()) {
        check(&spec);
    }
}

/// Every pairing of types has a kernel.
#[test]
fn every_variant_appends() {
    let types = [Dtype::F32, Dtype::F16, Dtype::Bf16];
    for new_dtype in types {
        for kv_dtype in types {
            for (num_kv_heads, head_dim) in [(1, 8), (3, 64), (2, 256)] {
                check(&AppendSpec {
                    new_dtype,
                    kv_dtype,
                    num_kv_heads,
                    head_dim,
                    block_size: 5,
                    num_tokens: 9,
                    seed: head_dim as u64,
                });
            }
        }
    }
}
