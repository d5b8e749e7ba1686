// Histograms and other atomics, in shared and in global memory.
#include <cuda/atomic>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

// bins += counts of the bytes of x; shared bins first, one atomic a bin and CTA after.
extern "C" __global__ void histogram(const unsigned char* x, int n, unsigned* bins) {
    __shared__ unsigned local[256];
    for (int i = threadIdx.x; i < 256; i += blockDim.x) local[i] = 0;
    __syncthreads();
    const uchar4* v = (const uchar4*)x;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n / 4; i += gridDim.x * blockDim.x) {
        uchar4 b = v[i];
        atomicAdd(&local[b.x], 1u), atomicAdd(&local[b.y], 1u), atomicAdd(&local[b.z], 1u), atomicAdd(&local[b.w], 1u);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += blockDim.x)
        if (local[i]) atomicAdd(&bins[i], local[i]);
}

struct Summary {
    unsigned long long sum;
    int smallest, largest;
    unsigned any, all, odd, turns;
    double weight;
    float product;
};

// Every kind of atomic on one record.
extern "C" __global__ void summarise(const int* x, int n, Summary* s, half2* halves, __nv_bfloat162* brains) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    int v = x[i];
    atomicAdd(&s->sum, (unsigned long long)(long long)v);
    atomicMin(&s->smallest, v);
    atomicMax(&s->largest, v);
    atomicOr(&s->any, (unsigned)v);
    atomicAnd(&s->all, (unsigned)v);
    atomicXor(&s->odd, (unsigned)v);
    atomicInc(&s->turns, 6u);
    atomicAdd(&s->weight, v * 0.5);
    // A product by compare and swap: powers of two, exact in any order.
    unsigned* bits = (unsigned*)&s->product;
    float factor = v & 1 ? 2.0f : 0.5f;
    for (unsigned seen = *(volatile unsigned*)bits, before; (before = atomicCAS(bits, seen, __float_as_uint(__uint_as_float(seen) * factor))) != seen;)
        seen = before;
    atomicAdd(halves + i % 4, __floats2half2_rn(1.0f, (float)(v & 3)));
    atomicAdd(brains + i % 4, __floats2bfloat162_rn(1.0f, (float)(v & 1)));
}

// A ticket lock and the last-CTA-done idiom: out = sum of all CTA sums, added up by the last CTA in CTA order.
extern "C" __global__ void last_cta(const float* x, float* partial, unsigned* arrived, float* out) {
    __shared__ float lanes[32];
    __shared__ bool last;
    lanes[threadIdx.x] = x[blockIdx.x * 32 + threadIdx.x];
    __syncwarp();
    if (threadIdx.x == 0) {
        float sum = 0;
        for (int i = 0; i < 32; i++) sum += lanes[i];
        partial[blockIdx.x] = sum;
        __threadfence();
        last = atomicAdd(arrived, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (!last || threadIdx.x) return;
    __threadfence();
    float sum = 0;
    for (unsigned b = 0; b < gridDim.x; b++) sum += ((volatile float*)partial)[b];
    *out = sum;
    *arrived = 0;
}

// A hand-over chain among CTAs: CTA b waits for turn b, doubles and adds; release and acquire through cuda::atomic_ref.
extern "C" __global__ void chain(unsigned* turn, unsigned* value) {
    if (threadIdx.x == 0) {
        cuda::atomic_ref<unsigned, cuda::thread_scope_device> t(*turn);
        while (t.load(cuda::memory_order_acquire) != blockIdx.x) __nanosleep(20);
        *value = *value * 3 + blockIdx.x;
        t.store(blockIdx.x + 1, cuda::memory_order_release);
    }
}
