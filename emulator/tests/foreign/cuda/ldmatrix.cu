// A tiled matrix product: cp.async into swizzled shared memory, ldmatrix, mma.m16n8k16, two stages.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_pipeline.h>

namespace {

constexpr int TILE = 64, DEPTH = 32;

// Rows of 32 elements (64 bytes, four 16-byte chunks); chunk c of row r lies at c ^ (r / 2 % 4).
__device__ int swizzled(int row, int chunk) { return row * DEPTH + ((chunk ^ (row >> 1 & 3)) << 3); }

__device__ unsigned address(const void* p) { return (unsigned)__cvta_generic_to_shared(p); }

__device__ void ldmatrix_x4(unsigned (&r)[4], const void* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address(p)));
}

__device__ void ldmatrix_x2_trans(unsigned (&r)[2], const void* p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];" : "=r"(r[0]), "=r"(r[1]) : "r"(address(p)));
}

__device__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], half) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ void mma(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2], __nv_bfloat16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// C (M x N, f32) = A (M x K) * B (K x N), both row-major; grid (N/64, M/64), four warps, each 32 x 32 of the tile.
// Rows of A past m are not read: their bytes are zero-filled.
template <typename T> __device__ void gemm(const T* a, const T* b, float* c, int m, int n, int k) {
    __shared__ __align__(128) T sa[2][TILE * DEPTH];
    __shared__ __align__(128) T sb[2][DEPTH * (TILE + 8)];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int row0 = blockIdx.y * TILE, col0 = blockIdx.x * TILE;
    float acc[2][4][4] = {};
    auto fetch = [&](int step) {
        int s = step & 1;
        for (int i = threadIdx.x; i < TILE * 4; i += 128) {
            int r = i / 4, q = i % 4;
            int row = min(row0 + r, m - 1);
            __pipeline_memcpy_async(&sa[s][swizzled(r, q)], a + (size_t)row * k + step * DEPTH + q * 8, 16, row0 + r < m ? 0 : 16);
        }
        for (int i = threadIdx.x; i < DEPTH * 8; i += 128) {
            int r = i / 8, q = i % 8;
            __pipeline_memcpy_async(&sb[s][r * (TILE + 8) + q * 8], b + (size_t)(step * DEPTH + r) * n + col0 + q * 8, 16);
        }
        __pipeline_commit();
    };
    int steps = k / DEPTH;
    fetch(0);
    for (int step = 0; step < steps; step++) {
        if (step + 1 < steps) fetch(step + 1);
        __pipeline_wait_prior(step + 1 < steps ? 1 : 0);
        __syncthreads();
        int s = step & 1;
#pragma unroll
        for (int kk = 0; kk < DEPTH; kk += 16) {
            unsigned fa[2][4], fb[4][2];
#pragma unroll
            for (int i = 0; i < 2; i++)
                ldmatrix_x4(fa[i], &sa[s][swizzled((warp / 2) * 32 + i * 16 + lane % 16, kk / 8 + lane / 16)]);
#pragma unroll
            for (int j = 0; j < 4; j++)
                ldmatrix_x2_trans(fb[j], &sb[s][(kk + lane % 16) * (TILE + 8) + (warp % 2) * 32 + j * 8]);
#pragma unroll
            for (int i = 0; i < 2; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) mma(acc[i][j], fa[i], fb[j], T());
        }
        __syncthreads();
    }
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++) {
            int row = row0 + (warp / 2) * 32 + i * 16 + lane / 4, col = col0 + (warp % 2) * 32 + j * 8 + lane % 4 * 2;
            if (row < m) *(float2*)(c + (size_t)row * n + col) = make_float2(acc[i][j][0], acc[i][j][1]);
            if (row + 8 < m) *(float2*)(c + (size_t)(row + 8) * n + col) = make_float2(acc[i][j][2], acc[i][j][3]);
        }
}

} // namespace

extern "C" __global__ void gemm_f16(const half* a, const half* b, float* c, int m, int n, int k) { gemm(a, b, c, m, n, k); }

extern "C" __global__ void gemm_bf16(const __nv_bfloat16* a, const __nv_bfloat16* b, float* c, int m, int n, int k) {
    gemm(a, b, c, m, n, k);
}
