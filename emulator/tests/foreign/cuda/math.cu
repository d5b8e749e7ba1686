// Arithmetic as nvcc lowers it: libdevice functions, divisions without a machine instruction, conversions, packed halves.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

// out[f * n + i] = the f-th function of x[i].
extern "C" __global__ void functions_f32(const float* x, float* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    out[0 * n + i] = expf(v);
    out[1 * n + i] = logf(fabsf(v));
    out[2 * n + i] = sinf(v);
    out[3 * n + i] = cosf(v);
    out[4 * n + i] = tanhf(v);
    out[5 * n + i] = erff(v);
    out[6 * n + i] = powf(fabsf(v), 1.7f);
    out[7 * n + i] = cbrtf(v);
    out[8 * n + i] = fmodf(v, 0.37f);
    out[9 * n + i] = v / 3.7f;
    out[10 * n + i] = sqrtf(fabsf(v));
    out[11 * n + i] = rsqrtf(fabsf(v));
    out[12 * n + i] = rintf(v) + floorf(v) * 4 + ceilf(v) * 16 + truncf(v) * 64;
    out[13 * n + i] = atan2f(v, 0.8f);
    out[14 * n + i] = __saturatef(v);
    out[15 * n + i] = lgammaf(fabsf(v) + 0.5f);
}

extern "C" __global__ void functions_f64(const double* x, double* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    double v = x[i];
    out[0 * n + i] = exp(v);
    out[1 * n + i] = log(fabs(v));
    out[2 * n + i] = sin(v);
    out[3 * n + i] = 1.0 / v;
    out[4 * n + i] = v / 3.7;
    out[5 * n + i] = sqrt(fabs(v));
    out[6 * n + i] = fma(v, v, -0.5);
    out[7 * n + i] = (double)(float)v + (double)__double2ll_rd(v) + rint(v);
}

// Divisions and remainders of every width, high products, 128-bit sums.
extern "C" __global__ void integers(const long long* x, const long long* y, long long* out, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    long long a = x[i], b = y[i];
    unsigned long long ua = a, ub = b;
    out[0 * n + i] = a / b;
    out[1 * n + i] = a % b;
    out[2 * n + i] = (long long)(ua / ub);
    out[3 * n + i] = (int)a / ((int)b | 1);
    out[4 * n + i] = (unsigned)ua % ((unsigned)ub | 1);
    out[5 * n + i] = (short)a * (short)b + (signed char)a % ((signed char)b | 1);
    out[6 * n + i] = __mul64hi(a, b);
    unsigned __int128 wide = (unsigned __int128)ua * ub + ua;
    out[7 * n + i] = (long long)(wide >> 77) ^ (long long)wide;
    out[8 * n + i] = __popcll(ua) + 100 * __clzll(a) + 10000 * __ffsll(a);
    out[9 * n + i] = (long long)__brevll(ua) ^ (a >> (b & 63)) ^ (long long)(ua << (ub & 31));
    out[10 * n + i] = max(a, b) - min((int)a, (int)b) + abs((int)(a >> 33)) + __hadd((int)(a >> 2), (int)(b >> 2));
    out[11 * n + i] = __mulhi((int)a, (int)b) + (long long)__umul24((unsigned)ua, (unsigned)ub);
}

// Packed half arithmetic; every comparison as a mask.
extern "C" __global__ void packed(const half2* x, const half2* y, half2* out, const __nv_bfloat162* bx, const __nv_bfloat162* by,
                                  __nv_bfloat162* bout, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    half2 a = x[i], b = y[i];
    out[0 * n + i] = __hadd2(a, b);
    out[1 * n + i] = __hsub2(a, b);
    out[2 * n + i] = __hmul2(a, b);
    out[3 * n + i] = __hfma2(a, b, a);
    out[4 * n + i] = __hmax2(a, b);
    out[5 * n + i] = __hmin2(__habs2(a), __hneg2(b));
    out[6 * n + i] = h2exp2(a);
    out[7 * n + i] = __hgt2(a, b);
    out[8 * n + i] = __hfma2_relu(a, b, b);
    out[9 * n + i] = __halves2half2(__low2half(a), __high2half(b));
    out[10 * n + i] = __hadd2_sat(a, b);
    out[11 * n + i] = h2sqrt(__habs2(a));
    __nv_bfloat162 c = bx[i], d = by[i];
    bout[0 * n + i] = __hadd2(c, d);
    bout[1 * n + i] = __hsub2(c, d);
    bout[2 * n + i] = __hmul2(c, d);
    bout[3 * n + i] = __hfma2(c, d, c);
    bout[4 * n + i] = __hmax2(c, d);
    bout[5 * n + i] = __hmin2_nan(c, d);
}

// Conversions between float formats and integers, each way, with each rounding.
extern "C" __global__ void conversions(const float* x, float* out, long long* ints, unsigned* bytes, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float v = x[i];
    out[0 * n + i] = __half2float(__float2half_rn(v));
    out[1 * n + i] = __half2float(__float2half_rz(v));
    out[2 * n + i] = __half2float(__float2half_ru(v));
    out[3 * n + i] = __bfloat162float(__float2bfloat16_rn(v));
    out[4 * n + i] = __double2float_rd((double)v * 1.0000001);
    out[5 * n + i] = __ll2float_rn((long long)(v * 1e9f));
    out[6 * n + i] = __uint2float_rz(__float_as_uint(v));
    out[7 * n + i] = __half2float(__int2half_rn((int)(v * 100)));
    ints[0 * n + i] = __float2int_rn(v);
    ints[1 * n + i] = __float2ll_ru(v * 1e6f);
    ints[2 * n + i] = __float2uint_rz(v);
    ints[3 * n + i] = __half2short_rd(__float2half_rn(v));
    ints[4 * n + i] = (signed char)(int)v + (unsigned char)(int)v;
    ints[5 * n + i] = (long long)(unsigned long long)fabsf(v);
    __nv_fp8_e4m3 e4(v);
    __nv_fp8_e5m2 e5(v);
    bytes[0 * n + i] = e4.__x | e5.__x << 8;
    bytes[1 * n + i] = __float_as_uint((float)e4);
    bytes[2 * n + i] = __float_as_uint((float)e5);
}
