// Matrix products through nvcuda::wmma: one warp a 16x16 tile of C = A * B, all K.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>

using namespace nvcuda;

// C (f32, M x N) = A (M x K, row-major) * B (K x N, column-major); grid (N/16, M/16), one warp.
extern "C" __global__ void wmma_f16_f32(const half* a, const half* b, float* c, int n, int k) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> acc;
    wmma::fill_fragment(acc, 0.0f);
    for (int i = 0; i < k; i += 16) {
        wmma::load_matrix_sync(fa, a + blockIdx.y * 16 * k + i, k);
        wmma::load_matrix_sync(fb, b + blockIdx.x * 16 * k + i, k);
        wmma::mma_sync(acc, fa, fb, acc);
    }
    wmma::store_matrix_sync(c + blockIdx.y * 16 * n + blockIdx.x * 16, acc, n, wmma::mem_row_major);
}

// The same with f16 sums, B row-major, C column-major, scaled by alpha, through shared memory.
extern "C" __global__ void wmma_f16_f16(const half* a, const half* b, half* c, int m, int n, int k, float alpha) {
    __shared__ __align__(32) half tile[2][256];
    wmma::fragment<wmma::matrix_a, 16, 16, 16, half, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, half, wmma::row_major> fb;
    wmma::fragment<wmma::accumulator, 16, 16, 16, half> acc;
    wmma::fill_fragment(acc, __float2half(0.0f));
    for (int i = 0; i < k; i += 16) {
        for (int e = threadIdx.x; e < 256; e += 32) {
            tile[0][e] = a[(blockIdx.y * 16 + e / 16) * k + i + e % 16];
            tile[1][e] = b[(i + e / 16) * n + blockIdx.x * 16 + e % 16];
        }
        __syncwarp();
        wmma::load_matrix_sync(fa, tile[0], 16);
        wmma::load_matrix_sync(fb, tile[1], 16);
        wmma::mma_sync(acc, fa, fb, acc);
        __syncwarp();
    }
    for (int i = 0; i < acc.num_elements; i++) acc.x[i] = __hmul(acc.x[i], __float2half(alpha));
    wmma::store_matrix_sync(c + blockIdx.x * 16 * m + blockIdx.y * 16, acc, m, wmma::mem_col_major);
}

// bf16, shape 32x8x16; grid (N/8, M/32).
extern "C" __global__ void wmma_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int n, int k) {
    wmma::fragment<wmma::matrix_a, 32, 8, 16, __nv_bfloat16, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 32, 8, 16, __nv_bfloat16, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, 32, 8, 16, float> acc;
    wmma::load_matrix_sync(acc, c + blockIdx.y * 32 * n + blockIdx.x * 8, n, wmma::mem_row_major);
    for (int i = 0; i < k; i += 16) {
        wmma::load_matrix_sync(fa, a + blockIdx.y * 32 * k + i, k);
        wmma::load_matrix_sync(fb, b + blockIdx.x * 8 * k + i, k);
        wmma::mma_sync(acc, fa, fb, acc);
    }
    wmma::store_matrix_sync(c + blockIdx.y * 32 * n + blockIdx.x * 8, acc, n, wmma::mem_row_major);
}

// tf32, shape 16x16x8; the inputs are f32 and are rounded here.
extern "C" __global__ void wmma_tf32(const float* a, const float* b, float* c, int n, int k) {
    wmma::fragment<wmma::matrix_a, 16, 16, 8, wmma::precision::tf32, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 16, 16, 8, wmma::precision::tf32, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, 16, 16, 8, float> acc;
    wmma::fill_fragment(acc, 0.0f);
    for (int i = 0; i < k; i += 8) {
        wmma::load_matrix_sync(fa, a + blockIdx.y * 16 * k + i, k);
        wmma::load_matrix_sync(fb, b + blockIdx.x * 16 * k + i, k);
        for (int e = 0; e < fa.num_elements; e++) fa.x[e] = wmma::__float_to_tf32(fa.x[e]);
        for (int e = 0; e < fb.num_elements; e++) fb.x[e] = wmma::__float_to_tf32(fb.x[e]);
        wmma::mma_sync(acc, fa, fb, acc);
    }
    wmma::store_matrix_sync(c + blockIdx.y * 16 * n + blockIdx.x * 16, acc, n, wmma::mem_row_major);
}

// Signed 8-bit integers, exact.
extern "C" __global__ void wmma_s8(const signed char* a, const signed char* b, int* c, int n, int k) {
    wmma::fragment<wmma::matrix_a, 16, 16, 16, signed char, wmma::row_major> fa;
    wmma::fragment<wmma::matrix_b, 16, 16, 16, signed char, wmma::col_major> fb;
    wmma::fragment<wmma::accumulator, 16, 16, 16, int> acc;
    wmma::fill_fragment(acc, 0);
    for (int i = 0; i < k; i += 16) {
        wmma::load_matrix_sync(fa, a + blockIdx.y * 16 * k + i, k);
        wmma::load_matrix_sync(fb, b + blockIdx.x * 16 * k + i, k);
        wmma::mma_sync(acc, fa, fb, acc);
    }
    wmma::store_matrix_sync(c + blockIdx.y * 16 * n + blockIdx.x * 16, acc, n, wmma::mem_row_major);
}
