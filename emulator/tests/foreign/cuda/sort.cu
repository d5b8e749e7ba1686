// Bitonic sorting networks: a warp's by shuffles, a CTA's through shared memory; local arrays indexed at run time.

// Sorts each run of 32 keys upwards and carries the values along.
extern "C" __global__ void sort_warp(unsigned* keys, float* values) {
    int i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
    unsigned key = keys[i];
    float value = values[i];
    for (int size = 2; size <= 32; size *= 2)
        for (int stride = size / 2; stride > 0; stride /= 2) {
            unsigned other = __shfl_xor_sync(0xffffffffu, key, stride);
            float carried = __shfl_xor_sync(0xffffffffu, value, stride);
            bool up = (lane & size) == 0, low = (lane & stride) == 0;
            bool take = low == up ? other < key : other > key;
            if (take) key = other, value = carried;
        }
    keys[i] = key;
    values[i] = value;
}

// Sorts 2 * blockDim.x 64-bit keys in dynamic shared memory, padded with the largest key.
extern "C" __global__ void sort_cta(long long* keys, int n) {
    extern __shared__ long long s[];
    int width = 2 * blockDim.x;
    for (int i = threadIdx.x; i < width; i += blockDim.x) s[i] = i < n ? keys[i] : 0x7fffffffffffffffll;
    for (int size = 2; size <= width; size *= 2)
        for (int stride = size / 2; stride > 0; stride /= 2) {
            __syncthreads();
            int a = 2 * threadIdx.x - (threadIdx.x & (stride - 1)), b = a + stride;
            bool up = (a & size) == 0;
            long long x = s[a], y = s[b];
            if ((x > y) == up) s[a] = y, s[b] = x;
        }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x) keys[i] = s[i];
}

// Each thread: the k largest of its row of n, by insertion into a local array whose length is known at run time only.
extern "C" __global__ void top_k(const float* rows, float* top, int* index, int n, int k) {
    float best[8];
    int where[8];
    int row = blockIdx.x * blockDim.x + threadIdx.x;
    for (int i = 0; i < 8; i++) best[i] = -INFINITY, where[i] = -1;
    for (int i = 0; i < n; i++) {
        float v = rows[row * n + i];
        int at = k;
        while (at > 0 && best[at - 1] < v) at--;
        if (at == k) continue;
        for (int j = k - 1; j > at; j--) best[j] = best[j - 1], where[j] = where[j - 1];
        best[at] = v;
        where[at] = i;
    }
    for (int i = 0; i < k; i++) top[row * k + i] = best[i], index[row * k + i] = where[i];
}
