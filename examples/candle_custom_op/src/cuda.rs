//! The operation on candle's CUDA storage: addresses from its slices, the launch on its stream.

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::driver::{DevicePtr, DevicePtrMut, DeviceRepr};
use candle_core::cuda_backend::{CudaDType, CudaDevice};
use candle_core::{CudaStorage, DType, Device, Error, Layout, Result, Storage, bail};
use pagedptx::driver::CudarcDriver;
use pagedptx::raw::{self, Decode, Pool, Rows, Table, Workspace};
use pagedptx::{DeviceAddress, Dtype, PoolShape};

use crate::op::PagedDecode;

/// The kernels on candle's device, loaded on first use.
pub struct Launcher {
    device: pagedptx::Device<CudarcDriver>,
}

impl Launcher {
    /// None on a CPU.
    pub fn new(device: &Device) -> Result<Option<Self>> {
        let Device::Cuda(device) = device else { return Ok(None) };
        let driver =
            CudarcDriver::from_context(device.cuda_stream().context()).map_err(Error::wrap)?;
        let device = pagedptx::Device::new(driver).map_err(Error::wrap)?;
        Ok(Some(Self { device }))
    }
}

/// q, k_cache, v_cache.
type Tensors<'a> = [(&'a CudaStorage, &'a Layout); 3];

pub fn decode(
    op: &PagedDecode,
    checked: (PoolShape, usize),
    tensors: Tensors<'_>,
) -> Result<CudaStorage> {
    match tensors[0].0.dtype() {
        DType::F32 => launch::<f32>(op, checked, tensors, Dtype::F32),
        DType::F16 => launch::<half::f16>(op, checked, tensors, Dtype::F16),
        DType::BF16 => launch::<half::bf16>(op, checked, tensors, Dtype::Bf16),
        other => bail!("no decode of {other:?}"),
    }
}

fn launch<T: CudaDType + DeviceRepr>(
    op: &PagedDecode,
    (shape, num_q_heads): (PoolShape, usize),
    [(q, q_layout), (k, k_layout), (v, v_layout)]: Tensors<'_>,
    dtype: Dtype,
) -> Result<CudaStorage> {
    let Some(Launcher { device }) = &op.launcher else { bail!("made for a CPU, called on a GPU") };
    let on: &CudaDevice = &q.device;
    let stream = on.cuda_stream();
    let (num_seqs, max_blocks_per_seq) = op.block_table.dims2()?;
    let max_seqs = num_seqs.max(1);
    let bytes =
        raw::workspace_bytes(dtype, dtype, shape, num_q_heads, max_seqs, max_blocks_per_seq)
            .map_err(Error::wrap)?;
    // One for each call: candle may run two at once, on the streams of two threads.
    let mut workspace = on.alloc_zeros::<u32>(bytes.div_ceil(4).max(1))?;
    // SAFETY: the launch below writes every element, sequences of length 0 included.
    let mut out = unsafe { on.alloc::<T>(q_layout.shape().elem_count())? };
    {
        // A guard tells cudarc, when it is dropped, that the slice was used on this stream.
        let (q_address, _q) = slice::<T>(q, q_layout)?.device_ptr(&stream);
        let (k_address, _k) = slice::<T>(k, k_layout)?.device_ptr(&stream);
        let (v_address, _v) = slice::<T>(v, v_layout)?.device_ptr(&stream);
        let (table_storage, _) = op.block_table.storage_and_layout();
        let (lens_storage, _) = op.seq_lens.storage_and_layout();
        let (table_address, _t) = table_slice(&table_storage)?.device_ptr(&stream);
        let (lens_address, _l) = table_slice(&lens_storage)?.device_ptr(&stream);
        let (out_address, _o) = out.device_ptr_mut(&stream);
        let (workspace_address, _w) = workspace.device_ptr_mut(&stream);
        let address = DeviceAddress(workspace_address);

        let rows = |address, dtype| {
            Rows::contiguous(DeviceAddress(address), dtype, num_q_heads, shape.head_dim)
        };
        let at = |address: u64, layout: &Layout| {
            DeviceAddress(address + (layout.start_offset() * size_of::<T>()) as u64)
        };
        let args = Decode {
            q: rows(at(q_address, q_layout).0, dtype),
            out: rows(out_address, dtype),
            lse: None,
            pool: Pool::nhd(at(k_address, k_layout), at(v_address, v_layout), dtype, shape),
            table: Table {
                block_table: DeviceAddress(table_address),
                seq_lens: DeviceAddress(lens_address),
                num_seqs,
                max_blocks_per_seq,
            },
            num_q_heads,
            sm_scale: 1.0 / (shape.head_dim as f32).sqrt(),
            workspace: Workspace { address, max_seqs, max_blocks_per_seq },
            error_word: None,
        };
        // SAFETY: made for this call on this thread, as candle's per-thread stream wants; only launched on.
        let ours = unsafe { device.driver().stream_from(stream.clone()) }.map_err(Error::wrap)?;
        // SAFETY: the slices are candle's, alive and of the sizes that `check` compared; `out` and the workspace are new, the latter
        // zero; O1 says what the table holds; cudarc orders other streams by the guards.
        unsafe { raw::decode(device, &ours, &args) }.map_err(Error::wrap)?;
    }
    Ok(CudaStorage::wrap_cuda_slice(out, on.clone()))
}

/// The slice behind a contiguous tensor, whole; the layout's offset is added to its address.
fn slice<'a, T: CudaDType>(
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<&'a candle_core::cuda_backend::cudarc::driver::CudaSlice<T>> {
    debug_assert!(layout.is_contiguous());
    storage.as_cuda_slice::<T>()
}

/// The slice behind a table of ours, which starts at its first element.
fn table_slice(
    storage: &Storage,
) -> Result<&candle_core::cuda_backend::cudarc::driver::CudaSlice<u32>> {
    let Storage::Cuda(storage) = storage else { bail!("a table on a CPU, called on a GPU") };
    storage.as_cuda_slice::<u32>()
}
