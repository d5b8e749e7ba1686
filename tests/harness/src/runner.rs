//! One function for each operation: problem in, through the safe API and a driver, checked result out.
//!
//! Tests, benches, `replay` and fuzz targets all come through here, so that what is measured is what is tested.
//! Outputs are poisoned before a run; a run may touch nothing but what the operation is to write.

use bytemuck::Pod;
use bytemuck::allocation::pod_collect_to_vec;
use half::{bf16, f16};
use pagedptx::{
    BlockTables, Buffer, DecodeArgs, DecodePlan, Device, DeviceAddress, Driver, Element, Error,
    KvPool, PoolShape, SlotMapping, Stream,
};

use crate::bounds::{self, Arithmetic, Excess, worst};
use crate::dtype::Dtype;
use crate::problem::{Append, Attention, Stepwise, Tensor};
use crate::reference::{self, Expected};

/// What tests ask of a driver beyond [`Driver`]. The default does nothing, which is all a GPU can do.
pub trait TestDriver: Driver {
    /// From now on a kernel that touches this range is faulty (the host may).
    ///
    /// # Errors
    ///
    /// Those of the driver.
    fn forbid(&self, address: DeviceAddress, bytes: usize) -> pagedptx::Result<()> {
        let _ = (address, bytes);
        Ok(())
    }
}

/// Why a run did not give a right result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The problem needs features that the crate does not have.
    #[error("unsupported: {}", features.join(", "))]
    Unsupported {
        /// Their names.
        features: Vec<String>,
    },
    /// The crate or its driver refused, or the emulator found a fault.
    #[error("{0}")]
    Refused(Error),
    /// A result is off by more than its bound.
    #[error(
        "{what}[{}] is {}, {} is expected within {:e}: {:.2} times too far",
        excess.index, excess.got, excess.want, excess.bound, excess.ratio
    )]
    Wrong {
        /// `out` or `lse`.
        what: &'static str,
        /// The worst element.
        excess: Excess,
    },
    /// Bytes differ that must be exactly as expected.
    #[error("{what} differs in {count} elements, first in element {index}: {got} for {want}")]
    Differs {
        /// Name of the memory.
        what: &'static str,
        /// Number of elements that differ.
        count: usize,
        /// The first of them.
        index: usize,
        /// What it is.
        got: f64,
        /// What it should be.
        want: f64,
    },
}

impl From<Error> for Failure {
    /// Sizes and types without a kernel are missing features, all else is a failure.
    fn from(error: Error) -> Self {
        match error {
            Error::HeadDim { head_dim, .. } => unsupported(format!("head_dim {head_dim}")),
            Error::NoKernel { .. } => unsupported(error.to_string()),
            error => Self::Refused(error),
        }
    }
}

fn unsupported(feature: String) -> Failure {
    Failure::Unsupported { features: vec![feature] }
}

/// Results of attention, as the device wrote them.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// [total_q, num_q_heads, head_dim] of the query's type.
    pub out: Tensor,
    /// [total_q, num_q_heads].
    pub lse: Vec<f32>,
}

impl Output {
    /// Worst out and lse against a reference and its bounds.
    pub fn excess(&self, expected: &Expected, bounds: &bounds::Bounds) -> (Excess, Excess) {
        (
            worst(&self.out.values(), &expected.out, &bounds.out),
            worst(&self.lse(), &expected.lse, &bounds.lse),
        )
    }

    /// The lse in f64.
    pub fn lse(&self) -> Vec<f64> {
        self.lse.iter().map(|&lse| f64::from(lse)).collect()
    }

    /// Output and lse as bits: equal where two runs agree bit for bit.
    pub fn bits(&self) -> (Vec<u8>, Vec<u32>) {
        (self.out.bytes.clone(), self.lse.iter().map(|lse| lse.to_bits()).collect())
    }
}

/// What the crate calls a type that its raw layer takes.
///
/// # Panics
///
/// For a type that the crate does not have.
pub fn crate_dtype(dtype: Dtype) -> pagedptx::Dtype {
    match dtype {
        Dtype::F32 => pagedptx::Dtype::F32,
        Dtype::F16 => pagedptx::Dtype::F16,
        Dtype::Bf16 => pagedptx::Dtype::Bf16,
        _ => panic!("the crate has no {dtype}"),
    }
}

/// How the kernel that the crate picks for queries and a cache of these types computes.
pub fn arithmetic(q: Dtype, kv: Dtype) -> Arithmetic {
    if q == kv && kv.bytes() == 2 {
        Arithmetic::tensor_cores(kv)
    } else {
        Arithmetic::cuda_cores(16)
    }
}

/// Features of an attention problem that the crate does not have.
pub fn missing_features(problem: &Attention) -> Vec<String> {
    let mask = &problem.mask;
    let mut missing = Vec::new();
    for (what, dtype) in [("q_dtype", problem.q.dtype), ("kv_dtype", problem.k_cache.dtype)] {
        if !has_kernels(dtype) {
            missing.push(format!("{what} {dtype}"));
        }
    }
    let features = [
        ("window", mask.window.is_some()),
        ("soft_cap", mask.soft_cap.is_some()),
        ("alibi", mask.alibi.is_some()),
        ("sinks", mask.sinks.is_some()),
        ("k_scale", problem.k_scale.kind().is_some()),
        ("v_scale", problem.v_scale.kind().is_some()),
    ];
    let named = features.into_iter().filter(|(_, needed)| *needed);
    missing.extend(named.map(|(name, _)| name.to_owned()));
    missing
}

fn has_kernels(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16)
}

/// The same problem with one query row for each sequence: a row of a sequence becomes a sequence of its own, over the
/// same blocks, that ends where the row stops seeing.
pub fn rows_as_sequences(problem: &Attention) -> Attention {
    let mut rows = Attention {
        block_table: Vec::new(),
        seq_lens: Vec::new(),
        query_start_loc: (0..=problem.total_q()).collect(),
        ..problem.clone()
    };
    let width = problem.max_blocks_per_seq;
    for seq in 0..problem.num_seqs() {
        let (query_len, seq_len) = (problem.query_len(seq), problem.seq_lens[seq]);
        for row in 0..query_len {
            let ahead = if problem.mask.causal { query_len - 1 - row } else { 0 };
            rows.seq_lens.push(seq_len.saturating_sub(ahead));
            rows.block_table.extend_from_slice(&problem.block_table[seq * width..][..width]);
        }
    }
    rows
}

/// Runs attention and returns what the device wrote, after checking that it touched nothing else. Several query rows of
/// a sequence are run as sequences of one row.
///
/// # Errors
///
/// [`Failure::Unsupported`], [`Failure::Refused`], and [`Failure::Differs`] where inputs or memory past the outputs changed.
pub fn attend<D: TestDriver>(device: &Device<D>, problem: &Attention) -> Result<Output, Failure> {
    let features = missing_features(problem);
    if !features.is_empty() {
        return Err(Failure::Unsupported { features });
    }
    let rows = rows_as_sequences(problem);
    match (problem.q.dtype, problem.k_cache.dtype) {
        (Dtype::F32, kv) => attend_from::<D, f32>(device, &rows, kv),
        (Dtype::F16, kv) => attend_from::<D, f16>(device, &rows, kv),
        (_, kv) => attend_from::<D, bf16>(device, &rows, kv),
    }
}

fn attend_from<D: TestDriver, Q: Element>(
    device: &Device<D>,
    problem: &Attention,
    kv: Dtype,
) -> Result<Output, Failure> {
    match kv {
        Dtype::F32 => attend_typed::<D, Q, f32>(device, problem),
        Dtype::F16 => attend_typed::<D, Q, f16>(device, problem),
        _ => attend_typed::<D, Q, bf16>(device, problem),
    }
}

/// Output rows past those of the problem, which a run must leave alone.
const SPARE_ROWS: usize = 2;

fn attend_typed<D: TestDriver, Q: Element, K: Element>(
    device: &Device<D>,
    problem: &Attention,
) -> Result<Output, Failure> {
    let stream = device.stream()?;
    let pool = pool::<D, K>(&stream, &problem.k_cache, &problem.v_cache)?;
    let shape = pool.shape();
    let (num_seqs, width) = (problem.num_seqs(), problem.max_blocks_per_seq);
    let (max_seqs, max_blocks) = (num_seqs + SPARE_ROWS, width.max(1));
    let num_q_heads = problem.num_q_heads();
    let mut plan = DecodePlan::<_, Q, K>::new(&stream, shape, num_q_heads, max_seqs, max_blocks)?;
    let mut tables = BlockTables::new(&stream, shape, max_seqs, max_blocks)?;
    let ids: Vec<u32> = problem.block_table.iter().map(|id| id.cast_unsigned()).collect();
    let lens: Vec<u32> =
        problem.seq_lens.iter().map(|&len| u32::try_from(len).unwrap_or(u32::MAX)).collect();
    tables.set_padded(&ids, width, &lens)?;
    forbid_foreign_blocks(device, &pool, problem)?;

    let row_elements = problem.num_q_heads() * problem.head_dim();
    let q = upload::<D, Q>(&stream, &problem.q)?;
    let mut out = Buffer::<_, Q>::uninit(&stream, (num_seqs + SPARE_ROWS) * row_elements)?;
    let mut lse =
        Buffer::<_, f32>::uninit(&stream, (num_seqs + SPARE_ROWS) * problem.num_q_heads())?;
    out.fill_bytes(POISON)?;
    lse.fill_bytes(POISON)?;
    let sm_scale = problem.sm_scale as f32;
    let args = DecodeArgs { q: &q, out: &mut out, lse: Some(&mut lse), sm_scale };
    pagedptx::decode(&mut plan, &pool, &tables, args)?;
    stream.synchronize()?;

    let out_shape = [num_seqs + SPARE_ROWS, problem.num_q_heads(), problem.head_dim()];
    let written = download(&out, problem.q.dtype, &out_shape)?;
    let mut lse = lse.to_vec()?;
    let spare = written.rows(num_seqs..num_seqs + SPARE_ROWS);
    expect_poison("out past its rows", &spare)?;
    let spare_lse = lse.split_off(num_seqs * problem.num_q_heads());
    let bytes = pod_collect_to_vec::<f32, u8>(&spare_lse);
    expect_poison("lse past its rows", &tensor(Dtype::F32, &[spare_lse.len()], bytes))?;
    let q_after = download(&q, problem.q.dtype, &problem.q.shape)?;
    expect_same_bytes("q", &q_after, &problem.q)?;
    expect_caches(&pool, &problem.k_cache, &problem.v_cache)?;
    Ok(Output { out: written.rows(0..num_seqs), lse })
}

/// Blocks that no live token owns: no kernel may touch them, not even to ignore what it read.
fn forbid_foreign_blocks<D: TestDriver, K: Element>(
    device: &Device<D>,
    pool: &KvPool<'_, D, K>,
    problem: &Attention,
) -> Result<(), Failure> {
    let block_bytes = problem.kv_index(problem.block_size(), 0) * problem.k_cache.dtype.bytes();
    for (block, slots) in problem.live_slots().chunks(problem.block_size()).enumerate() {
        if slots.contains(&true) {
            continue;
        }
        for buffer in [pool.k(), pool.v()] {
            let address = DeviceAddress(buffer.address().0 + (block * block_bytes) as u64);
            device.driver().forbid(address, block_bytes)?;
        }
    }
    Ok(())
}

/// Runs attention and holds it against the reference and its bounds.
///
/// # Errors
///
/// Those of [`attend`], and [`Failure::Wrong`].
pub fn check_attention<D: TestDriver>(
    device: &Device<D>,
    problem: &Attention,
) -> Result<Output, Failure> {
    let output = attend(device, problem)?;
    let expected = reference::attention(problem);
    let arithmetic = arithmetic(problem.q.dtype, problem.k_cache.dtype);
    let bounds = bounds::attention(problem, &expected, &arithmetic);
    let (out, lse) = output.excess(&expected, &bounds);
    for (what, excess) in [("out", out), ("lse", lse)] {
        if excess.ratio > 1.0 {
            return Err(Failure::Wrong { what, excess });
        }
    }
    Ok(output)
}

/// Runs an append and returns both caches, whole.
///
/// # Errors
///
/// [`Failure::Unsupported`], [`Failure::Refused`], and [`Failure::Differs`] where inputs changed.
pub fn append<D: TestDriver>(
    device: &Device<D>,
    problem: &Append,
) -> Result<(Tensor, Tensor), Failure> {
    let mut features = Vec::new();
    for (what, dtype) in [("dtype", problem.k_new.dtype), ("kv_dtype", problem.k_cache.dtype)] {
        if !has_kernels(dtype) {
            features.push(format!("{what} {dtype}"));
        }
    }
    for (name, scale) in [("k_scale", &problem.k_scale), ("v_scale", &problem.v_scale)] {
        features.extend(scale.kind().map(|_| name.to_owned()));
    }
    if !features.is_empty() {
        return Err(Failure::Unsupported { features });
    }
    match (problem.k_new.dtype, problem.k_cache.dtype) {
        (Dtype::F32, kv) => append_from::<D, f32>(device, problem, kv),
        (Dtype::F16, kv) => append_from::<D, f16>(device, problem, kv),
        (_, kv) => append_from::<D, bf16>(device, problem, kv),
    }
}

fn append_from<D: TestDriver, N: Element>(
    device: &Device<D>,
    problem: &Append,
    kv: Dtype,
) -> Result<(Tensor, Tensor), Failure> {
    match kv {
        Dtype::F32 => append_typed::<D, N, f32>(device, problem),
        Dtype::F16 => append_typed::<D, N, f16>(device, problem),
        _ => append_typed::<D, N, bf16>(device, problem),
    }
}

fn append_typed<D: TestDriver, N: Element, K: Element>(
    device: &Device<D>,
    problem: &Append,
) -> Result<(Tensor, Tensor), Failure> {
    let stream = device.stream()?;
    let mut pool = pool::<D, K>(&stream, &problem.k_cache, &problem.v_cache)?;
    let num_tokens = problem.slot_mapping.len();
    let mut slots = SlotMapping::new(&stream, pool.shape(), num_tokens.max(1))?;
    slots.set(&problem.slot_mapping)?;
    let k_new = upload::<D, N>(&stream, &problem.k_new)?;
    let v_new = upload::<D, N>(&stream, &problem.v_new)?;
    pagedptx::append(&mut pool, &slots, &k_new, &v_new)?;
    stream.synchronize()?;
    for (what, new, buffer) in
        [("k_new", &problem.k_new, &k_new), ("v_new", &problem.v_new, &v_new)]
    {
        expect_same_bytes(what, &download(buffer, new.dtype, &new.shape)?, new)?;
    }
    let (dtype, shape) = (problem.k_cache.dtype, &problem.k_cache.shape);
    Ok((download(pool.k(), dtype, shape)?, download(pool.v(), dtype, shape)?))
}

/// Runs an append and holds both caches against the reference, bit for bit; but for the bits of a NaN that was
/// converted to another type, which the PTX ISA leaves open.
///
/// # Errors
///
/// Those of [`append`], and [`Failure::Differs`].
pub fn check_append<D: TestDriver>(
    device: &Device<D>,
    problem: &Append,
) -> Result<(Tensor, Tensor), Failure> {
    let (k_cache, v_cache) = append(device, problem)?;
    let (k_want, v_want) = reference::append(problem);
    let converted = problem.k_new.dtype != problem.k_cache.dtype;
    let alike = |got: f64, want: f64| converted && got.is_nan() && want.is_nan();
    expect_same("k_cache", &k_cache, &k_want, alike)?;
    expect_same("v_cache", &v_cache, &v_want, alike)?;
    Ok((k_cache, v_cache))
}

/// Runs all steps of a sequence built token by token: the outputs of every step, and the caches at the end.
///
/// # Errors
///
/// Those of [`append`] and [`attend`].
pub fn stepwise<D: TestDriver>(
    device: &Device<D>,
    problem: &Stepwise,
) -> Result<(Output, Tensor, Tensor), Failure> {
    let mut caches = (problem.k_cache.clone(), problem.v_cache.clone());
    let (mut out, mut lse) = (problem.q.rows(0..0), Vec::new());
    for token in 0..problem.num_tokens() {
        caches = append(device, &problem.append(token..token + 1, caches.0, caches.1))?;
        let step = problem.attention(token..token + 1, caches.0.clone(), caches.1.clone());
        let output = attend(device, &step)?;
        out.bytes.extend_from_slice(&output.out.bytes);
        lse.extend_from_slice(&output.lse);
    }
    out.shape[0] = problem.num_tokens();
    Ok((Output { out, lse }, caches.0, caches.1))
}

/// Byte that output buffers are filled with: NaN in every float type.
const POISON: u8 = 0xFF;

fn pool<'s, D: TestDriver, K: Element>(
    stream: &'s Stream<D>,
    k_cache: &Tensor,
    v_cache: &Tensor,
) -> Result<KvPool<'s, D, K>, Failure> {
    let [num_blocks, block_size, num_kv_heads, head_dim] = k_cache.shape[..] else {
        panic!("a cache has shape {:?}, 4 dimensions are needed", k_cache.shape);
    };
    let shape = PoolShape { num_blocks, block_size, num_kv_heads, head_dim };
    let mut pool = KvPool::new(stream, shape)?;
    pool.write_k(&pod_collect_to_vec::<u8, K>(&k_cache.bytes))?;
    pool.write_v(&pod_collect_to_vec::<u8, K>(&v_cache.bytes))?;
    Ok(pool)
}

fn upload<'s, D: TestDriver, T: Pod>(
    stream: &'s Stream<D>,
    tensor: &Tensor,
) -> Result<Buffer<'s, D, T>, Failure> {
    Ok(Buffer::from_slice(stream, &pod_collect_to_vec::<u8, T>(&tensor.bytes))?)
}

fn tensor(dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor { dtype, shape: shape.to_vec(), bytes }
}

fn download<D: TestDriver, T: Pod>(
    buffer: &Buffer<'_, D, T>,
    dtype: Dtype,
    shape: &[usize],
) -> Result<Tensor, Failure> {
    Ok(tensor(dtype, shape, pod_collect_to_vec(&buffer.to_vec()?)))
}

fn expect_caches<D: TestDriver, K: Element>(
    pool: &KvPool<'_, D, K>,
    k_cache: &Tensor,
    v_cache: &Tensor,
) -> Result<(), Failure> {
    for (what, buffer, want) in [("k_cache", pool.k(), k_cache), ("v_cache", pool.v(), v_cache)] {
        expect_same_bytes(what, &download(buffer, want.dtype, &want.shape)?, want)?;
    }
    Ok(())
}

fn expect_poison(what: &'static str, got: &Tensor) -> Result<(), Failure> {
    let bytes = vec![POISON; got.bytes.len()];
    expect_same_bytes(what, got, &tensor(got.dtype, &got.shape, bytes))
}

/// Fails unless two tensors agree bit for bit.
///
/// # Errors
///
/// [`Failure::Differs`].
pub fn expect_same_bytes(what: &'static str, got: &Tensor, want: &Tensor) -> Result<(), Failure> {
    if got.bytes == want.bytes {
        return Ok(());
    }
    expect_same(what, got, want, |_, _| false)
}

/// Fails unless elements agree bit for bit or their values do as `alike` says.
fn expect_same(
    what: &'static str,
    got: &Tensor,
    want: &Tensor,
    alike: impl Fn(f64, f64) -> bool,
) -> Result<(), Failure> {
    let size = want.dtype.bytes();
    let (got_elements, want_elements) = (got.bytes.chunks(size), want.bytes.chunks(size));
    let different: Vec<usize> = got_elements
        .zip(want_elements)
        .enumerate()
        .filter(|(_, (got, want))| got != want)
        .map(|(index, _)| index)
        .filter(|&index| !alike(got.get(index), want.get(index)))
        .collect();
    match different.first() {
        None => Ok(()),
        Some(&index) => Err(Failure::Differs {
            what,
            count: different.len(),
            index,
            got: got.get(index),
            want: want.get(index),
        }),
    }
}
