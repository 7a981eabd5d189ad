// Vectors of floats as wide as the processor's registers, in the language of GCC and Clang.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
#else
constexpr int LANES = 8, REGISTERS = 16;
#endif

namespace {

typedef float Vector __attribute__((vector_size(LANES * 4)));
typedef int32_t Words __attribute__((vector_size(LANES * 4)));
typedef float Eight __attribute__((vector_size(32)));
typedef int32_t EightWords __attribute__((vector_size(32)));

template <class V>
inline V read(const float* from) {
    V v;
    std::memcpy(&v, from, sizeof v);
    return v;
}

template <class V>
inline void write(float* to, V v) {
    std::memcpy(to, &v, sizeof v);
}

// Halves are added to halves: always in this order, which a loop would leave to the compiler.
inline float sum(Eight v) {
    v += __builtin_shuffle(v, EightWords{4, 5, 6, 7, 0, 1, 2, 3});
    v += __builtin_shuffle(v, EightWords{2, 3, 0, 1, 6, 7, 4, 5});
    return v[0] + v[1];
}

#if defined(__AVX512F__)
inline float sum(Vector v) {
    Eight halves[2];
    std::memcpy(halves, &v, sizeof v);
    return sum(halves[0] + halves[1]);
}
#endif

// e^x to the last bit or two: 2^n · e^r with |r| <= ln 2 / 2, by its Taylor polynomial.
template <class V, class Words>
inline V exponential(V x) {
    x = x < -87.0f ? V{} - 87.0f : x;
    x = x > 88.0f ? V{} + 88.0f : x;
    V shifted = x * 1.44269504f + (x < 0.0f ? V{} - 0.5f : V{} + 0.5f);
    Words whole = __builtin_convertvector(shifted, Words), power = (whole << 23) + 0x3f800000;
    V n = __builtin_convertvector(whole, V);
    V r = x - n * 0.693145752f - n * 1.42860677e-6f;
    V p = r * (1 / 720.0f) + 1 / 120.0f;
    p = p * r + 1 / 24.0f;
    p = p * r + 1 / 6.0f;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    V scale;
    std::memcpy(&scale, &power, sizeof scale);
    return p * scale;
}

// x · Φ(x), the error function by Abramowitz and Stegun 7.1.26 (error below 1.5e-7).
template <class V, class Words>
inline V gelu(V x) {
    V z = x * 0.70710678f;
    V a = z < 0.0f ? -z : z;
    V t = 1.0f / (1.0f + 0.3275911f * a);
    V p = t * 1.061405429f - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    V erf = 1.0f - p * t * exponential<V, Words>(-a * a);
    erf = z < 0.0f ? -erf : erf;
    return 0.5f * x * (1.0f + erf);
}

// Rows become columns.
inline void transpose(Eight (&m)[8]) {
    Eight a[8], b[8];
    for (int i = 0; i < 8; i += 2) {
        a[i] = __builtin_shuffle(m[i], m[i + 1], EightWords{0, 8, 2, 10, 4, 12, 6, 14});
        a[i + 1] = __builtin_shuffle(m[i], m[i + 1], EightWords{1, 9, 3, 11, 5, 13, 7, 15});
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            b[i + k] = __builtin_shuffle(a[i + k], a[i + k + 2], EightWords{0, 1, 8, 9, 4, 5, 12, 13});
            b[i + k + 2] = __builtin_shuffle(a[i + k], a[i + k + 2], EightWords{2, 3, 10, 11, 6, 7, 14, 15});
        }
    for (int i = 0; i < 4; i++) {
        m[i] = __builtin_shuffle(b[i], b[i + 4], EightWords{0, 1, 2, 3, 8, 9, 10, 11});
        m[i + 4] = __builtin_shuffle(b[i], b[i + 4], EightWords{4, 5, 6, 7, 12, 13, 14, 15});
    }
}

}  // namespace
