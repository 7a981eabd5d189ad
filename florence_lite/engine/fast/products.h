// y = x · weightᵀ + bias for a few rows of x, which takes as long as memory takes to deliver the weights.
//
// Weights are float32, bfloat16 or int8 with one scale per output. What a row gets does not depend on how many rows go
// with it, to the last bit: its sums run in the same order whatever the block.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>
#include <immintrin.h>

#include "lanes.h"

extern "C" {

struct Matrix {
    const void* weight;   // [out, in] of the kind
    const float* scale;   // [out], of int8
    const float* bias;    // [out] or null
    int64_t out, in;
    int32_t kind;         // 0 float32, 1 bfloat16, 2 int8
};

}  // extern "C"

namespace {

// How one kind of weights is multiplied: what x is turned into, and vectors of WIDTH values of x and weights.
template <class Weight>
struct Product;

template <>
struct Product<float> {
    typedef float X;
    typedef Vector Values;
    static constexpr int WIDTH = LANES;
    static Values of_x(const X* x) { return read<Vector>(x); }
    static Values weights(const float* from) { return read<Vector>(from); }
    static void add(Vector& sums, Values w, Values x) { sums += w * x; }
    static float total(Vector sums) { return sum(sums); }
    static float rest(float w, X x) { return w * x; }
};

// The compilers' own conversions of short vectors go element by element.
template <>
struct Product<uint16_t> : Product<float> {  // bfloat16 is the upper half of float32
#if defined(__AVX512F__)
    static Values weights(const uint16_t* from) {
        const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
        return (Vector)_mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
    }
#else
    static Values weights(const uint16_t* from) {
        const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
        return (Vector)_mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
    }
#endif
    static float rest(uint16_t w, X x) {
        uint32_t word = uint32_t(w) << 16;
        float f;
        std::memcpy(&f, &word, sizeof f);
        return f * x;
    }
};

// x as whole numbers of 15 bits, products and sums of 32: exact.
template <>
struct Product<int8_t> {
    typedef int16_t X;
    static constexpr int WIDTH = 2 * LANES;
#if defined(__AVX512F__)
    typedef __m512i Values, Sums;
    static Values of_x(const X* x) { return _mm512_loadu_si512(x); }
    static Values weights(const int8_t* from) {
        return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    }
    static void add(Vector& sums, Values w, Values x) {
        sums = (Vector)_mm512_add_epi32((__m512i)sums, _mm512_madd_epi16(w, x));
    }
#else
    typedef __m256i Values;
    static Values of_x(const X* x) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x)); }
    static Values weights(const int8_t* from) {
        return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    }
    static void add(Vector& sums, Values w, Values x) {
        sums = (Vector)_mm256_add_epi32((__m256i)sums, _mm256_madd_epi16(w, x));
    }
#endif
    static float total(Vector sums) {
        Words words = (Words)sums;
        int64_t all = 0;
        for (int i = 0; i < LANES; i++) all += words[i];
        return all;
    }
    static float rest(int8_t w, X x) { return int32_t(w) * x; }
};

template <class X>
struct Few {  // rows of x as they are multiplied
    const X* x;          // [rows, in]
    const float* scale;  // [rows], of whole numbers; or null
};

// ROWS rows of x times OUTS rows of the weights, all sums in registers; the next block is fetched meanwhile.
template <class Weight, int ROWS, int OUTS>
inline void block(const Matrix& m, int64_t out, Few<typename Product<Weight>::X> of, float* y, int64_t y_stride) {
    typedef Product<Weight> P;
    const Weight* weight = static_cast<const Weight*>(m.weight) + out * m.in;
    Vector sums[OUTS][ROWS] = {};
    int64_t i = 0;
    for (; i + P::WIDTH <= m.in; i += P::WIDTH) {
        typename P::Values x[ROWS];
        for (int r = 0; r < ROWS; r++) x[r] = P::of_x(of.x + r * m.in + i);
        for (int o = 0; o < OUTS; o++) {
            typename P::Values w = P::weights(weight + o * m.in + i);
            __builtin_prefetch(weight + (o + OUTS) * m.in + i);
            for (int r = 0; r < ROWS; r++) P::add(sums[o][r], w, x[r]);
        }
    }
    for (int o = 0; o < OUTS; o++)
        for (int r = 0; r < ROWS; r++) {
            float all = P::total(sums[o][r]);
            for (int64_t k = i; k < m.in; k++) all += P::rest(weight[o * m.in + k], of.x[r * m.in + k]);
            const float bias = m.bias ? m.bias[out + o] : 0.0f;
            // Rounded once, however the compiler would contract it for one block or another.
            y[r * y_stride + o] = of.scale ? std::fma(all, of.scale[r] * m.scale[out + o], bias) : all + bias;
        }
}

template <class Weight, int ROWS, int OUTS>
void few_rows(const Matrix& m, int64_t begin, int64_t end, Few<typename Product<Weight>::X> of, float* y, int64_t y_stride) {
    int64_t out = begin;
    for (; out + OUTS <= end; out += OUTS) block<Weight, ROWS, OUTS>(m, out, of, y + out - begin, y_stride);
    for (; out < end; out++) block<Weight, ROWS, 1>(m, out, of, y + out - begin, y_stride);
}

constexpr float LARGEST = 16383;  // whole number of x
constexpr int64_t TILE = 16;  // outputs whose weights stay in the first cache while all rows use them
constexpr int MOST_ROWS = 8;  // of a block

template <class Weight>
void some_rows(const Matrix& m, int64_t begin, int64_t end, Few<typename Product<Weight>::X> of, int64_t rows, float* y, int64_t y_stride) {
    constexpr bool wide = REGISTERS > 16;
    switch (rows) {
        case 1: return few_rows<Weight, 1, 8>(m, begin, end, of, y, y_stride);
        case 2: return few_rows<Weight, 2, wide ? 8 : 4>(m, begin, end, of, y, y_stride);
        case 3: return few_rows<Weight, 3, wide ? 8 : 4>(m, begin, end, of, y, y_stride);
        case 4: return few_rows<Weight, 4, wide ? 6 : 3>(m, begin, end, of, y, y_stride);
        case 5: return few_rows<Weight, 5, wide ? 4 : 2>(m, begin, end, of, y, y_stride);
        case 6: return few_rows<Weight, 6, wide ? 4 : 2>(m, begin, end, of, y, y_stride);
        case 7: return few_rows<Weight, 7, wide ? 3 : 1>(m, begin, end, of, y, y_stride);
        case 8: return few_rows<Weight, 8, wide ? 3 : 1>(m, begin, end, of, y, y_stride);
    }
}

// y [rows, …] of outputs begin … end.
template <class Weight>
void dense(const Matrix& m, int64_t begin, int64_t end, Few<typename Product<Weight>::X> of, int64_t rows, float* y, int64_t y_stride) {
    const int64_t blocks = (rows + MOST_ROWS - 1) / MOST_ROWS;
    if (blocks == 1) return some_rows<Weight>(m, begin, end, of, rows, y, y_stride);
    for (int64_t out = begin; out < end; out += TILE)
        for (int64_t b = 0; b < blocks; b++) {
            const int64_t first = rows * b / blocks, count = rows * (b + 1) / blocks - first;
            const Few<typename Product<Weight>::X> part = {of.x + first * m.in, of.scale ? of.scale + first : nullptr};
            some_rows<Weight>(m, out, std::min(end, out + TILE), part, count, y + first * y_stride + out - begin, y_stride);
        }
}

void dense(const Matrix& m, int64_t begin, int64_t end, const float* x, int64_t rows, float* y, int64_t y_stride) {
    if (m.kind == 0) return dense<float>(m, begin, end, {x, nullptr}, rows, y, y_stride);
    if (m.kind == 1) return dense<uint16_t>(m, begin, end, {x, nullptr}, rows, y, y_stride);
    static thread_local std::vector<int16_t> whole;
    static thread_local std::vector<float> scale;
    const float largest = std::min(LARGEST, 2e9f / 127 / (m.in / LANES + 2));  // so that a lane's sum fits into 32 bits
    whole.resize(rows * m.in);
    scale.resize(rows);
    for (int64_t r = 0; r < rows; r++) {
        const float* row = x + r * m.in;
        float most = 0, none = 0;  // none: 0, but NaN if a number is not finite
        for (int64_t i = 0; i < m.in; i++) {
            most = std::max(most, std::fabs(row[i]));
            none += row[i] * 0.0f;
        }
        if (none != 0 || none != none) {
            scale[r] = none;
            std::fill(&whole[r * m.in], &whole[r * m.in] + m.in, 0);
            continue;
        }
        scale[r] = most / largest;
        const float by = most > 1e-30f ? largest / most : 0;
        for (int64_t i = 0; i < m.in; i++) whole[r * m.in + i] = int16_t(row[i] * by + (row[i] < 0 ? -0.5f : 0.5f));
    }
    dense<int8_t>(m, begin, end, {whole.data(), scale.data()}, rows, y, y_stride);
}

}  // namespace
