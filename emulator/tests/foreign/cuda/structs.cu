// Parameters by value: a struct full of pointers, with arrays indexed at run time; constant memory.

struct Layer {
    const float* weight;
    const float* bias;
    float* out;
    short rows, columns;
};

struct Network {
    unsigned char kind;
    double scale;
    Layer layers[3];
    const float* input;
    int order[3];
    struct { float slope; bool on; } leak;
};

// out[l][r] = leaky(scale * (weight[l][r] . input + bias[l][r])) for the layer l that order[blockIdx.x] names.
extern "C" __global__ void layers(Network net) {
    const Layer& layer = net.layers[net.order[blockIdx.x]];
    int row = threadIdx.x;
    if (row >= layer.rows) return;
    float sum = layer.bias ? layer.bias[row] : 0.0f;
    for (int i = 0; i < layer.columns; i++) sum += layer.weight[row * layer.columns + i] * net.input[i];
    if (net.kind == 1) sum *= (float)net.scale;
    if (net.leak.on && sum < 0) sum *= net.leak.slope;
    layer.out[row] = sum;
}

__constant__ float taps[5] = {0.0625f, 0.25f, 0.375f, 0.25f, 0.0625f};
__constant__ int offsets[5] = {-2, -1, 0, 1, 2};
__device__ unsigned launches = 41;

struct Small { unsigned char a; short b; int c; long long d; };

// A filter with its taps in constant memory; mixed small parameters; a counter in module memory.
extern "C" __global__ void filter(const float* x, float* out, short n, unsigned char skip, Small extra, unsigned* seen) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i == 0) *seen = atomicAdd(&launches, 1u);
    if (i >= n) return;
    float sum = 0;
    for (int t = 0; t < 5; t++) {
        int j = i + offsets[t];
        if (j >= 0 && j < n) sum += taps[t] * x[j];
    }
    out[i] = skip == 7 ? sum + extra.a + extra.b + extra.c + (float)extra.d : sum;
}
