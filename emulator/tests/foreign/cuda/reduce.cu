// Sums with cooperative groups: shuffles for floats, `redux` for integers, and aggregated atomics among the threads that took a branch.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>

namespace cg = cooperative_groups;

// out[0] += sum of x[0..n]; any grid, CTAs of whole warps up to 1,024 threads.
extern "C" __global__ void reduce_f32(const float* x, int n, float* out) {
    __shared__ float partial[32];
    cg::thread_block cta = cg::this_thread_block();
    cg::thread_block_tile<32> warp = cg::tiled_partition<32>(cta);
    float sum = 0.0f;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) sum += x[i];
    sum = cg::reduce(warp, sum, cg::plus<float>());
    if (warp.thread_rank() == 0) partial[warp.meta_group_rank()] = sum;
    cta.sync();
    if (warp.meta_group_rank() == 0) {
        sum = warp.thread_rank() < warp.meta_group_size() ? partial[warp.thread_rank()] : 0.0f;
        sum = cg::reduce(warp, sum, cg::plus<float>());
        if (warp.thread_rank() == 0) atomicAdd(out, sum);
    }
}

// Per CTA: out[3 * b] = sum, [3 * b + 1] = largest, [3 * b + 2] = bitwise or of the CTA's x.
extern "C" __global__ void reduce_s32(const int* x, int n, int* out) {
    __shared__ int partial[3][32];
    cg::thread_block cta = cg::this_thread_block();
    cg::thread_block_tile<32> warp = cg::tiled_partition<32>(cta);
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int v = i < n ? x[i] : 0;
    int sum = cg::reduce(warp, v, cg::plus<int>());
    int top = cg::reduce(warp, i < n ? v : (int)0x80000000, cg::greater<int>());
    int bits = cg::reduce(warp, v, cg::bit_or<int>());
    int w = warp.meta_group_rank();
    if (warp.thread_rank() == 0) partial[0][w] = sum, partial[1][w] = top, partial[2][w] = bits;
    cta.sync();
    if (cta.thread_rank() == 0) {
        for (int j = 1; j < (int)warp.meta_group_size(); j++) {
            sum += partial[0][j];
            top = max(top, partial[1][j]);
            bits |= partial[2][j];
        }
        out[3 * blockIdx.x] = sum, out[3 * blockIdx.x + 1] = top, out[3 * blockIdx.x + 2] = bits;
    }
}

// Keeps the positive elements, in any order; one atomic for all threads of a warp that keep one.
extern "C" __global__ void compact(const int* x, int n, int* kept, unsigned* count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n || x[i] <= 0) return;
    cg::coalesced_group active = cg::coalesced_threads();
    unsigned base = 0;
    if (active.thread_rank() == 0) base = atomicAdd(count, active.num_threads());
    kept[active.shfl(base, 0) + active.thread_rank()] = x[i];
}

// Counts equal keys within each warp by `match`, and scans the counts of tiles of 8.
extern "C" __global__ void labels(const int* keys, int* same, int* scanned) {
    cg::thread_block cta = cg::this_thread_block();
    cg::thread_block_tile<32> warp = cg::tiled_partition<32>(cta);
    cg::thread_block_tile<8> tile = cg::tiled_partition<8>(warp);
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    cg::coalesced_group group = cg::labeled_partition(warp, keys[i]);
    int count = group.num_threads();
    same[i] = warp.all(count == 1) ? -1 : count;
    scanned[i] = cg::inclusive_scan(tile, keys[i]);
}
