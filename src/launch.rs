//! Parameter blocks, as the kernels' headers describe them, and the launch itself.

use bytemuck::{NoUninit, Pod, Zeroable};

use crate::device::{Device, Stream};
use crate::driver::{Driver, LaunchShape};
use crate::error::Result;
use crate::kernels::KERNELS;
use crate::types::DeviceAddress;

/// Parameters of `decode` and `decode_mma`; `ptx/decode.ptx` and `ptx/decode_mma.ptx` document each field, and a test compares
/// the offsets.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct DecodeParams {
    pub q: DeviceAddress,
    pub k_cache: DeviceAddress,
    pub v_cache: DeviceAddress,
    pub block_table: DeviceAddress,
    pub seq_lens: DeviceAddress,
    pub out: DeviceAddress,
    pub lse: DeviceAddress,
    pub partial_out: DeviceAddress,
    pub partial_stat: DeviceAddress,
    pub arrivals: DeviceAddress,
    pub error_word: DeviceAddress,
    pub kv_block_stride: u64,
    pub kv_token_stride: u32,
    pub kv_head_stride: u32,
    pub q_token_stride: u32,
    pub q_head_stride: u32,
    pub out_token_stride: u32,
    pub out_head_stride: u32,
    pub num_seqs: u32,
    pub num_kv_heads: u32,
    pub group_size: u32,
    pub head_dim: u32,
    pub block_size: u32,
    pub max_blocks_per_seq: u32,
    pub num_blocks: u32,
    pub chunk_bias: u32,
    pub chunk_cap: u32,
    pub chunk_min: u32,
    pub score_scale: f32,
    pub headroom: f32,
    pub q_sign: u32,
    pub passes: u32,
    pub block_magic: u32,
    pub block_shift: u32,
    pub units_magic: u32,
    pub units_shift: u32,
    pub q_dtype: u32,
    pub padding: u32,
}

/// Parameters of `append`; `ptx/append.ptx` documents each field, and a test compares the offsets.
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct AppendParams {
    pub k_new: DeviceAddress,
    pub v_new: DeviceAddress,
    pub k_cache: DeviceAddress,
    pub v_cache: DeviceAddress,
    pub slot_mapping: DeviceAddress,
    pub token_elems: u32,
    pub padding: u32,
}

/// Enqueues the kernel at `index` of [`KERNELS`] with the CTA size it was written for.
///
/// # Safety
///
/// With these parameters the kernel touches live memory of this stream only.
pub(crate) unsafe fn launch<D: Driver>(
    stream: &Stream<D>,
    index: usize,
    grid: [u32; 3],
    params: &impl NoUninit,
) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe {
        launch_raw(stream.device(), stream.raw(), index, (grid, KERNELS[index].threads), params)
    }
}

/// Enqueues the kernel at `index` of [`KERNELS`] with a grid and a number of threads.
///
/// # Safety
///
/// With these parameters the kernel touches live memory of this stream only.
pub(crate) unsafe fn launch_raw<D: Driver>(
    device: &Device<D>,
    stream: &D::Stream,
    index: usize,
    (grid, threads): ([u32; 3], u32),
    params: &impl NoUninit,
) -> Result<()> {
    let shape = LaunchShape {
        grid,
        block: [threads, 1, 1],
        dynamic_shared_bytes: KERNELS[index].shared_bytes(threads),
        overlaps_previous: false,
    };
    let kernel = device.kernel(index)?;
    // SAFETY: the caller's promise is the driver's condition.
    unsafe { device.driver().launch(stream, kernel, &shape, bytemuck::bytes_of(params)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    /// Offset and name of each field as the header block of a kernel file lists them:
    /// lines `//   @16 name: …`.
    fn documented(header: &str) -> Vec<(usize, String)> {
        header
            .lines()
            .filter_map(|line| line.strip_prefix("//")?.trim_start().strip_prefix('@'))
            .map(|field| {
                let (offset, rest) = field.split_once(' ').expect("an offset, a blank, a name");
                let (name, _) = rest.split_once(':').expect("a name, a colon, a meaning");
                (offset.parse().expect("an offset in bytes"), name.trim().to_owned())
            })
            .collect()
    }

    macro_rules! fields {
        ($params:ty: $($name:ident),+ $(,)?) => {
            vec![$((offset_of!($params, $name), stringify!($name).to_owned())),+]
        };
    }

    #[test]
    fn decode_params_lie_where_the_kernels_read_them() {
        let fields = fields!(DecodeParams: q, k_cache, v_cache, block_table, seq_lens, out, lse, partial_out,
            partial_stat, arrivals, error_word, kv_block_stride, kv_token_stride, kv_head_stride, q_token_stride,
            q_head_stride, out_token_stride, out_head_stride, num_seqs, num_kv_heads, group_size, head_dim,
            block_size, max_blocks_per_seq, num_blocks, chunk_bias, chunk_cap, chunk_min, score_scale, headroom,
            q_sign, passes, block_magic, block_shift, units_magic, units_shift, q_dtype, padding);
        assert_eq!(documented(include_str!("../ptx/decode.ptx")), fields);
        assert_eq!(documented(include_str!("../ptx/decode_mma.ptx")), fields);
        assert_eq!(size_of::<DecodeParams>(), 200);
    }

    #[test]
    fn append_params_lie_where_the_kernel_reads_them() {
        let fields = fields!(AppendParams: k_new, v_new, k_cache, v_cache, slot_mapping,
            token_elems, padding);
        assert_eq!(documented(include_str!("../ptx/append.ptx")), fields);
        assert_eq!(size_of::<AppendParams>(), 48);
    }
}
