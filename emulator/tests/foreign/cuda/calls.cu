// Functions that stay functions: direct calls, recursion, a struct returned, a table of functions, a jump table.

struct Pair {
    double a;
    int b;
};

__device__ __noinline__ Pair divide(double x, int y) { return {x / y, (int)x % y}; }

__device__ __noinline__ unsigned gcd(unsigned a, unsigned b) { return b == 0 ? a : gcd(b, a % b); }

__device__ __noinline__ float add(float a, float b) { return a + b; }
__device__ __noinline__ float sub(float a, float b) { return a - b; }
__device__ __noinline__ float far(float a, float b) { return sqrtf(a * a + b * b); }

using Operation = float (*)(float, float);
__device__ const Operation operations[3] = {add, sub, far};

__device__ __noinline__ void swap_in_place(int* a, int* b) {
    int t = *a;
    *a = *b;
    *b = t;
}

// Lanes take different functions, and only some of them call.
extern "C" __global__ void calls(const unsigned* x, double* quotient, int* rest, unsigned* divisor, float* mixed) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    unsigned v = x[i];
    if (v % 3 != 0) {
        Pair p = divide((double)v, i % 7 + 1);
        quotient[i] = p.a;
        rest[i] = p.b;
    } else {
        int a = i, b = (int)v;
        swap_in_place(&a, &b);
        quotient[i] = a;
        rest[i] = b;
    }
    divisor[i] = gcd(v, 360);
    mixed[i] = operations[v % 3]((float)(v % 1000), (float)i);
}

// A dense switch: nvcc makes a jump table of it.
extern "C" __global__ void jumps(const int* x, int* out) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    int v = x[i], r = i;
    switch (v) {
    case 0: r = r * 3 + 1; break;
    case 1: r = __popc(r) + (r << 4); break;
    case 2: r = __clz(r) ^ 0x55; break;
    case 3: r = __brev(r) >> 3; break;
    case 4: r = r * r - 7; break;
    case 5: r = __ffs(r) * 11; break;
    case 6: r = (int)__umulhi(r * 0x9e3779b9u, 1000u); break;
    case 7: r = __byte_perm(r, ~r, 0x3715); break;
    case 8: r = (int)__funnelshift_l(r, 0xdeadbeef, 9); break;
    case 9: r = __dp4a(r, 0x01020304, 5); break;
    case 10: r = __sad(r, 100, 3); break;
    default: r = -1;
    }
    out[i] = r;
}
