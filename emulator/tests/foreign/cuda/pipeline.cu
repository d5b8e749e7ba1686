// Asynchronous copies into shared memory behind cuda::barrier and cuda::pipeline.
#include <cooperative_groups.h>
#include <cuda/barrier>
#include <cuda/pipeline>

namespace cg = cooperative_groups;
using block_barrier = cuda::barrier<cuda::thread_scope_block>;

// out[i] = x[i] + x[mirror of i within the CTA's 256 elements], staged by copies that arrive on a barrier.
extern "C" __global__ void barrier_copy(const float* x, float* out, int tiles) {
    __shared__ alignas(16) float tile[256];
#pragma nv_diag_suppress static_var_with_dynamic_init
    __shared__ block_barrier ready;
    cg::thread_block cta = cg::this_thread_block();
    if (cta.thread_rank() == 0) init(&ready, cta.size());
    cta.sync();
    for (int t = blockIdx.x; t < tiles; t += gridDim.x) {
        cuda::memcpy_async(cta, tile, x + 256 * t, cuda::aligned_size_t<16>(sizeof(tile)), ready);
        ready.arrive_and_wait();
        for (int i = threadIdx.x; i < 256; i += blockDim.x) out[256 * t + i] = tile[i] + tile[255 - i];
        cta.sync();
    }
}

// Warp 0 produces, the other three consume: two barriers a stage, arrive and wait apart.
extern "C" __global__ void barrier_roles(const int* x, long long* out, int steps) {
    __shared__ int stage[2][96];
#pragma nv_diag_suppress static_var_with_dynamic_init
    __shared__ block_barrier full[2], empty[2];
    if (threadIdx.x < 2) {
        init(&full[threadIdx.x], blockDim.x);
        init(&empty[threadIdx.x], blockDim.x);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        for (int s = 0; s < steps; s++) {
            if (s >= 2) empty[s % 2].wait(empty[s % 2].arrive());
            for (int i = threadIdx.x; i < 96; i += 32) stage[s % 2][i] = x[96 * s + i];
            (void)full[s % 2].arrive();
        }
    } else {
        long long sum = 0;
        for (int s = 0; s < steps; s++) {
            full[s % 2].arrive_and_wait();
            sum += (s + 1ll) * stage[s % 2][threadIdx.x - 32];
            if (s + 2 < steps) (void)empty[s % 2].arrive();
        }
        out[threadIdx.x - 32] = sum;
    }
}

// out[i] = sum over tiles of x[tile][i] * (tile + 1), two stages in flight, the pipeline shared by the CTA.
extern "C" __global__ void pipeline_shared(const float* x, float* out, int tiles) {
    extern __shared__ __align__(16) float ring[];
    __shared__ cuda::pipeline_shared_state<cuda::thread_scope_block, 2> state;
    cg::thread_block cta = cg::this_thread_block();
    auto pipe = cuda::make_pipeline(cta, &state);
    int n = cta.size();
    float sum = 0.0f;
    for (int done = 0, next = 0; done < tiles; done++) {
        for (; next < tiles && next < done + 2; next++) {
            pipe.producer_acquire();
            cuda::memcpy_async(cta, ring + (next % 2) * n, x + next * n, cuda::aligned_size_t<4>(sizeof(float) * n), pipe);
            pipe.producer_commit();
        }
        pipe.consumer_wait();
        sum += ring[(done % 2) * n + n - 1 - threadIdx.x] * (done + 1);
        pipe.consumer_release();
    }
    out[n - 1 - threadIdx.x] = sum;
}

// The same sum with a pipeline of each thread's own: cp.async groups, no barrier, only the thread's own elements.
extern "C" __global__ void pipeline_thread(const float4* x, float4* out, int tiles) {
    __shared__ float4 ring[4][64];
    auto pipe = cuda::make_pipeline();
    float4 sum = {0, 0, 0, 0};
    for (int done = 0, next = 0; done < tiles; done++) {
        for (; next < done + 4; next++) {
            pipe.producer_acquire();
            if (next < tiles)
                cuda::memcpy_async(&ring[next % 4][threadIdx.x], x + next * 64 + threadIdx.x, cuda::aligned_size_t<16>(16), pipe);
            pipe.producer_commit();
        }
        pipe.consumer_wait();
        float4 v = ring[done % 4][threadIdx.x];
        float w = done + 1;
        sum.x += v.x * w, sum.y += v.y * w, sum.z += v.z * w, sum.w += v.w * w;
        pipe.consumer_release();
    }
    out[threadIdx.x] = sum;
}
