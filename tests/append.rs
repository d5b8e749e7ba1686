//! Append against the reference, bit for bit, the whole pool: the shipped PTX, through the safe API and from raw memory, on the
//! emulator (or the driver that `PAGEDPTX_DRIVER` names).

mod any_driver;

use pagedptx::raw::{self, Append, Pool, Rows};
use pagedptx::{Buffer, DeviceAddress, Error, PoolShape, Result};
use pagedptx_harness::EmulatorOptions;
use pagedptx_harness::draw::{AppendSpec, append_specs};
use pagedptx_harness::dtype::Dtype;
use pagedptx_harness::problem;
use pagedptx_harness::runner::{self, check_append};
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

/// One case for each pairing of types, and heads of three sizes.
fn every_variant() -> impl Iterator<Item = AppendSpec> {
    let types = [Dtype::F32, Dtype::F16, Dtype::Bf16];
    let pairs = types.into_iter().flat_map(move |new| types.map(|kv| (new, kv)));
    pairs.flat_map(|(new_dtype, kv_dtype)| {
        [(1, 8), (3, 64), (2, 256)].map(|(num_kv_heads, head_dim)| AppendSpec {
            new_dtype,
            kv_dtype,
            num_kv_heads,
            head_dim,
            block_size: 5,
            num_tokens: 9,
            seed: head_dim as u64,
        })
    })
}

/// Every pairing of types has a kernel.
#[test]
fn every_variant_appends() {
    every_variant().for_each(|spec| check(&spec));
}

/// Appends from raw memory, with the arguments that `change` makes of the right ones; returns the bytes of K and V.
fn append_raw(
    problem: &problem::Append,
    change: impl FnOnce(&mut Append),
) -> Result<(Vec<u8>, Vec<u8>)> {
    let device = any_driver::device(EmulatorOptions::default());
    let stream = device.stream()?;
    let tensors = [&problem.k_new, &problem.v_new, &problem.k_cache, &problem.v_cache];
    let [k_new, v_new, k, v] = tensors.map(|tensor| Buffer::from_slice(&stream, &tensor.bytes));
    let (k_new, v_new, k, v) = (k_new?, v_new?, k?, v?);
    let slots = Buffer::from_slice(&stream, &problem.slot_mapping)?;
    let [num_blocks, block_size, num_kv_heads, head_dim] = problem.k_cache.shape[..] else {
        panic!("four dimensions")
    };
    let shape = PoolShape { num_blocks, block_size, num_kv_heads, head_dim };
    let rows = |address| {
        Rows::contiguous(address, runner::crate_dtype(problem.k_new.dtype), num_kv_heads, head_dim)
    };
    let mut args = Append {
        k_new: rows(k_new.address()),
        v_new: rows(v_new.address()),
        pool: Pool::nhd(
            k.address(),
            v.address(),
            runner::crate_dtype(problem.k_cache.dtype),
            shape,
        ),
        slot_mapping: slots.address(),
        num_tokens: problem.slot_mapping.len(),
    };
    change(&mut args);
    // SAFETY: all buffers are of this device and alive, of the sizes of the problem, whose slots are distinct and inside the pool; what
    // `change` makes of them is refused or asks for less.
    unsafe { raw::append(&device, stream.raw(), &args)? };
    Ok((k.to_vec()?, v.to_vec()?))
}

/// From raw memory the pool gets the bytes that the safe layer writes.
#[test]
fn raw_memory_is_appended_to_as_the_safe_layer_does() {
    for spec in every_variant() {
        let problem = spec.build();
        let device = any_driver::device(EmulatorOptions::default());
        let (k, v) =
            runner::append(&device, &problem).unwrap_or_else(|it| panic!("{spec:?}: {it}"));
        let got = append_raw(&problem, |_| {}).unwrap_or_else(|it| panic!("{spec:?}: {it}"));
        assert!(got == (k.bytes, v.bytes), "{spec:?}");
        let none = |args: &mut Append| {
            (args.num_tokens, args.slot_mapping) = (0, DeviceAddress::NULL);
        };
        let none = append_raw(&problem, none).expect("nothing to do");
        assert!(none == (problem.k_cache.bytes, problem.v_cache.bytes), "{spec:?}");
    }
}

/// What the kernel does not take is an error that names value and limit.
#[test]
fn raw_arguments_that_do_not_fit_are_refused() {
    let spec = every_variant().nth(1).expect("three sizes of heads");
    let problem = spec.build();
    let refused = |change: fn(&mut Append)| append_raw(&problem, change).unwrap_err();
    let mismatch = |what, got, expected| Error::Mismatch { what, got, expected };
    let token = 3 * 64;
    assert_eq!(
        refused(|args| args.k_new.token_stride += 8),
        mismatch("token stride of k_new", token + 8, token)
    );
    assert_eq!(
        refused(|args| args.v_new.head_stride = 72),
        mismatch("head stride of v_new", 72, 64)
    );
    assert_eq!(
        refused(|args| args.pool =
            Pool::hnd(args.pool.k, args.pool.v, args.pool.dtype, args.pool.shape)),
        mismatch("token stride of the pool", 64, token)
    );
    let misaligned = |what, address, align| Error::Misaligned { what, address, align };
    assert_eq!(
        refused(|args| args.slot_mapping = DeviceAddress(4)),
        misaligned("slot_mapping", 4, 8)
    );
    assert_eq!(refused(|args| args.pool.v = DeviceAddress(2)), misaligned("v", 2, 4));
    let null = |what| Error::Null { what };
    assert_eq!(refused(|args| args.k_new.address = DeviceAddress::NULL), null("k_new"));
    assert_eq!(refused(|args| args.v_new.address = DeviceAddress::NULL), null("v_new"));
    assert_eq!(refused(|args| args.pool.k = DeviceAddress::NULL), null("k"));
    assert_eq!(refused(|args| args.pool.v = DeviceAddress::NULL), null("v"));
    assert_eq!(refused(|args| args.slot_mapping = DeviceAddress::NULL), null("slot_mapping"));
    assert_eq!(
        refused(|args| args.num_tokens = 1 << 31),
        Error::TooLarge { what: "num_tokens", value: 1 << 31, limit: (1 << 31) - 1 }
    );
    let other = refused(|args| args.v_new.dtype = pagedptx::Dtype::Bf16);
    assert_eq!(other.to_string(), "type of v_new is bf16, f32 is expected");
}
