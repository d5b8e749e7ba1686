// Attention of one query token per sequence over a paged cache, written the way serving engines write it in CUDA C++:
// templates over the element type, 16-byte vectors, logits in shared memory, shuffle reductions, split-KV with a merge.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>
#include <float.h>

namespace {

constexpr int WARPS = 4, LANES = 32, THREADS = WARPS * LANES;

template <typename T> struct Vec2;
template <> struct Vec2<half> { using type = half2; };
template <> struct Vec2<__nv_bfloat16> { using type = __nv_bfloat162; };

__device__ float2 widen(half2 v) { return __half22float2(v); }
__device__ float2 widen(__nv_bfloat162 v) { return __bfloat1622float2(v); }
__device__ void narrow(half& d, float v) { d = __float2half_rn(v); }
__device__ void narrow(__nv_bfloat16& d, float v) { d = __float2bfloat16_rn(v); }

// Eight elements of the cache as f32.
template <typename T> __device__ void load8(float (&d)[8], const T* p, float) {
    uint4 raw = *reinterpret_cast<const uint4*>(p);
    const typename Vec2<T>::type* v = reinterpret_cast<const typename Vec2<T>::type*>(&raw);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = widen(v[i]);
        d[2 * i] = f.x, d[2 * i + 1] = f.y;
    }
}
__device__ void load8(float (&d)[8], const __nv_fp8_e4m3* p, float scale) {
    uint2 raw = *reinterpret_cast<const uint2*>(p);
    const __nv_fp8x2_storage_t* v = reinterpret_cast<const __nv_fp8x2_storage_t*>(&raw);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        float2 f = __half22float2(half2(__nv_cvt_fp8x2_to_halfraw2(v[i], __NV_E4M3)));
        d[2 * i] = f.x * scale, d[2 * i + 1] = f.y * scale;
    }
}

template <int WIDTH> __device__ float sum_over(float v) {
#pragma unroll
    for (int m = WIDTH / 2; m >= 1; m /= 2) v += __shfl_xor_sync(0xffffffffu, v, m);
    return v;
}

template <bool MAX> __device__ float cta_reduce(float v, float* scratch) {
    int lane = threadIdx.x % LANES, warp = threadIdx.x / LANES;
#pragma unroll
    for (int m = LANES / 2; m >= 1; m /= 2) {
        float o = __shfl_xor_sync(0xffffffffu, v, m);
        v = MAX ? fmaxf(v, o) : v + o;
    }
    if (lane == 0) scratch[warp] = v;
    __syncthreads();
    v = lane < WARPS ? scratch[lane] : (MAX ? -FLT_MAX : 0.0f);
#pragma unroll
    for (int m = WARPS / 2; m >= 1; m /= 2) {
        float o = __shfl_xor_sync(0xffffffffu, v, m);
        v = MAX ? fmaxf(v, o) : v + o;
    }
    return __shfl_sync(0xffffffffu, v, 0);
}

// Grid (query heads, sequences, partitions); PART = 0: one partition, which writes the output itself.
template <typename T, typename C, int D, int BS, int PART>
__device__ void decode(T* out, float* exp_sums, float* max_logits, T* partial, const T* q, const C* k_cache, const C* v_cache,
                       int group, float scale, const int* tables, const int* lens, int max_blocks, const float* alibi,
                       float k_scale, float v_scale) {
    constexpr int QUAD = 4, PER = D / QUAD; // four lanes a token, D / 4 dims each in chunks of 8
    extern __shared__ float logits[];
    __shared__ float scratch[2][WARPS];
    __shared__ __align__(16) float s_q[D];
    int head = blockIdx.x, seq = blockIdx.y, part = blockIdx.z, heads = gridDim.x;
    int kv_head = head / group, kv_heads = heads / group;
    int len = lens[seq];
    int begin = PART ? part * PART : 0, end = PART ? min(len, begin + PART) : len;
    if (PART && begin >= len) return;
    const int* table = tables + (size_t)seq * max_blocks;
    for (int i = threadIdx.x; i < D; i += THREADS) s_q[i] = (float)q[((size_t)seq * heads + head) * D + i] * scale;
    __syncthreads();

    float slope = alibi ? alibi[head] : 0.0f, top = -FLT_MAX;
    int quad = threadIdx.x / QUAD, sub = threadIdx.x % QUAD;
    for (int base = begin; base < end; base += THREADS / QUAD) {
        int t = base + quad;
        float dot = 0.0f;
        if (t < end) {
            const C* row = k_cache + (((size_t)table[t / BS] * BS + t % BS) * kv_heads + kv_head) * D;
#pragma unroll
            for (int j = 0; j < PER / 8; j++) {
                float k[8];
                int d0 = (j * QUAD + sub) * 8;
                load8(k, row + d0, k_scale);
                float4 a = *(const float4*)&s_q[d0], b = *(const float4*)&s_q[d0 + 4];
                dot = fmaf(a.x, k[0], fmaf(a.y, k[1], fmaf(a.z, k[2], fmaf(a.w, k[3], dot))));
                dot = fmaf(b.x, k[4], fmaf(b.y, k[5], fmaf(b.z, k[6], fmaf(b.w, k[7], dot))));
            }
        }
        dot = sum_over<QUAD>(dot);
        if (t < end) {
            dot += slope * (t - len + 1);
            if (sub == 0) logits[t - begin] = dot;
            top = fmaxf(top, dot);
        }
    }
    top = cta_reduce<true>(top, scratch[0]);
    float sum = 0.0f;
    for (int i = threadIdx.x; i < end - begin; i += THREADS) {
        float p = __expf(logits[i] - top);
        logits[i] = p;
        sum += p;
    }
    sum = cta_reduce<false>(sum, scratch[1]);
    float inverse = __fdividef(1.0f, sum + 1e-6f);
    __syncthreads();

    // Values: D / 8 lanes a token, eight dims each; the other lanes take other tokens.
    constexpr int COLS = D / 8, ROWS = THREADS / COLS;
    int col = threadIdx.x % COLS, row0 = threadIdx.x / COLS;
    float acc[8] = {};
    for (int t = begin + row0; t < end; t += ROWS) {
        float v[8];
        load8(v, v_cache + (((size_t)table[t / BS] * BS + t % BS) * kv_heads + kv_head) * D + col * 8, v_scale);
        float p = logits[t - begin];
#pragma unroll
        for (int i = 0; i < 8; i++) acc[i] = fmaf(p, v[i], acc[i]);
    }
    __syncthreads();
    float* gather = logits; // ROWS x D floats, no longer needed as logits
#pragma unroll
    for (int half_rows = ROWS / 2; half_rows >= 1; half_rows /= 2) {
        if (row0 >= half_rows && row0 < 2 * half_rows)
#pragma unroll
            for (int i = 0; i < 8; i++) gather[(row0 - half_rows) * D + col * 8 + i] = acc[i];
        __syncthreads();
        if (row0 < half_rows)
#pragma unroll
            for (int i = 0; i < 8; i++) acc[i] += gather[row0 * D + col * 8 + i];
        __syncthreads();
    }
    if (row0 != 0) return;
    size_t row = (size_t)seq * heads + head;
    if (PART) {
        row = row * gridDim.z + part;
        if (col == 0) exp_sums[row] = sum, max_logits[row] = top;
    }
    T* dst = (PART ? partial : out) + row * D + col * 8;
#pragma unroll
    for (int i = 0; i < 8; i++) narrow(dst[i], acc[i] * inverse);
}

template <typename T, int D, int PART>
__device__ void merge(T* out, const float* exp_sums, const float* max_logits, const T* partial, const int* lens, int parts) {
    extern __shared__ float weights[];
    __shared__ float scratch[2][WARPS];
    size_t row = (size_t)blockIdx.y * gridDim.x + blockIdx.x;
    int used = (lens[blockIdx.y] + PART - 1) / PART;
    float top = -FLT_MAX, sum = 0.0f;
    for (int i = threadIdx.x; i < used; i += THREADS) top = fmaxf(top, max_logits[row * parts + i]);
    top = cta_reduce<true>(top, scratch[0]);
    for (int i = threadIdx.x; i < used; i += THREADS) {
        float w = exp_sums[row * parts + i] * expf(max_logits[row * parts + i] - top);
        weights[i] = w;
        sum += w;
    }
    sum = cta_reduce<false>(sum, scratch[1]);
    __syncthreads();
    float inverse = 1.0f / (sum + 1e-6f);
    for (int d = threadIdx.x; d < D; d += THREADS) {
        float acc = 0.0f;
        for (int i = 0; i < used; i++) acc += (float)partial[(row * parts + i) * D + d] * weights[i] * inverse;
        narrow(out[row * D + d], acc);
    }
}

} // namespace

extern "C" __global__ void paged_f16_d64_b16(half* out, const half* q, const half* k, const half* v, int group, float scale,
                                             const int* tables, const int* lens, int max_blocks, const float* alibi) {
    decode<half, half, 64, 16, 0>(out, nullptr, nullptr, nullptr, q, k, v, group, scale, tables, lens, max_blocks, alibi, 1, 1);
}

extern "C" __global__ void paged_bf16_e4m3_d128_b32(__nv_bfloat16* out, const __nv_bfloat16* q, const __nv_fp8_e4m3* k,
                                                    const __nv_fp8_e4m3* v, int group, float scale, const int* tables,
                                                    const int* lens, int max_blocks, float k_scale, float v_scale) {
    decode<__nv_bfloat16, __nv_fp8_e4m3, 128, 32, 0>(out, nullptr, nullptr, nullptr, q, k, v, group, scale, tables, lens,
                                                     max_blocks, nullptr, k_scale, v_scale);
}

extern "C" __global__ void paged_split_bf16_d128_b16(float* exp_sums, float* max_logits, __nv_bfloat16* partial,
                                                     const __nv_bfloat16* q, const __nv_bfloat16* k, const __nv_bfloat16* v,
                                                     int group, float scale, const int* tables, const int* lens, int max_blocks) {
    decode<__nv_bfloat16, __nv_bfloat16, 128, 16, 64>(nullptr, exp_sums, max_logits, partial, q, k, v, group, scale, tables,
                                                      lens, max_blocks, nullptr, 1, 1);
}

extern "C" __global__ void paged_merge_bf16_d128(__nv_bfloat16* out, const float* exp_sums, const float* max_logits,
                                                 const __nv_bfloat16* partial, const int* lens, int parts) {
    merge<__nv_bfloat16, 128, 64>(out, exp_sums, max_logits, partial, lens, parts);
}
