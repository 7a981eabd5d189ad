// Linear layers for many rows, with what stands before and behind them: LayerNorm of the rows, GELU, a residual.
//
// Panels of rows are turned so that a vector holds one channel of several rows, or a pair of channels in bfloat16;
// weights are read as they lie. A tile of outputs of a panel has all its sums in registers, in float32 always.

#include <algorithm>
#include <cmath>
#include <immintrin.h>
#include <omp.h>

#include "lanes.h"

extern "C" {

struct Linear {
    const void* weight;   // [out, in] of the kind
    const float* bias;    // [out] or null
    const float *norm_weight, *norm_bias;  // [in], of a LayerNorm of the rows; or null
    int64_t out, in;
    float eps;  // of the norm
    int32_t gelu;
    int32_t kind;  // 0 float32, 1 bfloat16, of an even number of channels
};

// y = [residual +] [gelu] (norm(x) · weightᵀ + bias)
struct Rows {
    const float* x;         // [·, in]
    const float* residual;  // as y, or null
    float* y;               // [·, out]
    float* panels;          // scratch, [ceil(count / ROWS), in, ROWS], in bfloat16 half of it
    const int32_t* from;    // [count], rows of x, -1 for one of zeros behind the norm; null: as they stand
    const int32_t* to;      // [count], rows of y and residual, -1: nowhere; null: as they stand
    int64_t count;
};

}  // extern "C"

namespace {

constexpr int VECTORS = 3, ROWS = VECTORS * LANES, BLOCK = 8;  // BLOCK outputs are turned back together
constexpr int OUTS = REGISTERS > 16 ? 8 : 4;
constexpr int64_t CHUNK = 1 << 19;  // bytes of weights that stay in the second cache while panels pass

// The nearest bfloat16 is the upper half of float32 rounded to it.
inline EightWords rounded(Eight x) {
    EightWords words;
    std::memcpy(&words, &x, sizeof words);
    return words + 0x7fff + ((words >> 16) & 1);
}

// Channel i of a row; and channels i and i + 1 of eight rows, in one place of panels in bfloat16.
inline int32_t pair_of(float x, float y) {
    return int32_t((uint32_t(rounded(Eight{} + x)[0]) >> 16) | (uint32_t(rounded(Eight{} + y)[0]) & 0xffff0000u));
}
inline Eight pairs_of(Eight x, Eight y) {
    const EightWords low = rounded(x) >> 16 & 0xffff, high = rounded(y) & int32_t(0xffff0000u), both = low | high;
    Eight pairs;
    std::memcpy(&pairs, &both, sizeof pairs);
    return pairs;
}

template <bool HALF>
void load_panel(const Linear& layer, const Rows& rows, int64_t first, float* to) {
    const int64_t in = layer.in, count = std::min<int64_t>(ROWS, rows.count - first);
    const float* of[ROWS];
    float mean[ROWS] = {}, scale[ROWS];
    for (int64_t r = 0; r < ROWS; r++) {
        int64_t row = r >= count ? -1 : rows.from ? rows.from[first + r] : first + r;
        of[r] = row < 0 ? nullptr : rows.x + row * in;
        scale[r] = row < 0 ? 0 : 1;
        if (row < 0 || !layer.norm_weight) continue;
        float all = 0, squares = 0;
        for (int64_t i = 0; i < in; i++) all += of[r][i];
        mean[r] = all / in;
        for (int64_t i = 0; i < in; i++) squares += (of[r][i] - mean[r]) * (of[r][i] - mean[r]);
        scale[r] = 1 / std::sqrt(squares / in + layer.eps);
    }
    const int64_t even = in / 8 * 8;
    for (int64_t i = 0; i < even; i += 8) {
        const Eight weight = layer.norm_weight ? read<Eight>(layer.norm_weight + i) : Eight{} + 1;
        const Eight bias = layer.norm_weight ? read<Eight>(layer.norm_bias + i) : Eight{};
        for (int64_t r = 0; r < ROWS; r += 8) {
            Eight part[8];
            for (int k = 0; k < 8; k++) {
                part[k] = of[r + k] ? read<Eight>(of[r + k] + i) : Eight{};
                if (layer.norm_weight && of[r + k]) part[k] = (part[k] - mean[r + k]) * scale[r + k] * weight + bias;
            }
            transpose(part);
            for (int k = 0; k < 8; k += 1 + HALF) {
                if (HALF) write(to + (i + k) / 2 * ROWS + r, pairs_of(part[k], part[k + 1]));
                else write(to + (i + k) * ROWS + r, part[k]);
            }
        }
    }
    auto value = [&](int64_t i, int64_t r) {
        float x = of[r] ? of[r][i] : 0;
        if (layer.norm_weight && of[r]) x = (x - mean[r]) * scale[r] * layer.norm_weight[i] + layer.norm_bias[i];
        return x;
    };
    for (int64_t i = even; i < in; i += 1 + HALF)
        for (int64_t r = 0; r < ROWS; r++) {
            if (HALF) {
                const int32_t pair = pair_of(value(i, r), value(i + 1, r));
                std::memcpy(to + i / 2 * ROWS + r, &pair, sizeof pair);
            } else to[i * ROWS + r] = value(i, r);
        }
}

// to[o][r] = sum over i of weight[o][i] · panel[i][r], of the first USED vectors of rows
template <int COUNT, int USED>
inline void tile(const float* __restrict panel, const float* __restrict weight, int64_t in, float* __restrict to) {
    Vector sums[COUNT][USED] = {};
    for (int64_t i = 0; i < in; i++) {
        Vector x[USED];
        for (int v = 0; v < USED; v++) x[v] = read<Vector>(panel + i * ROWS + v * LANES);
        for (int o = 0; o < COUNT; o++) {
            const float w = weight[o * in + i];
            for (int v = 0; v < USED; v++) sums[o][v] += x[v] * w;
        }
    }
    for (int o = 0; o < COUNT; o++)
        for (int v = 0; v < USED; v++) write(to + o * ROWS + v * LANES, sums[o][v]);
}

#if defined(__AVX512F__)
// The same in bfloat16: panel [in / 2][r] of pairs, weights in pairs as they lie.
template <int COUNT, int USED>
__attribute__((target("avx512bf16"))) void tile(
    const float* __restrict panel, const uint16_t* __restrict weight, int64_t in, float* __restrict to
) {
    __m512 sums[COUNT][USED] = {};
    for (int64_t i = 0; i < in; i += 2) {
        __m512bh x[USED];
        for (int v = 0; v < USED; v++) x[v] = (__m512bh)_mm512_loadu_ps(panel + i / 2 * ROWS + v * LANES);
        for (int o = 0; o < COUNT; o++) {
            int32_t pair;
            std::memcpy(&pair, weight + o * in + i, sizeof pair);
            const __m512bh w = (__m512bh)_mm512_set1_epi32(pair);
            for (int v = 0; v < USED; v++) sums[o][v] = _mm512_dpbf16_ps(sums[o][v], x[v], w);
        }
    }
    for (int o = 0; o < COUNT; o++)
        for (int v = 0; v < USED; v++) _mm512_storeu_ps(to + o * ROWS + v * LANES, sums[o][v]);
}
#endif

// Write BLOCK outputs of a panel, sums[o][r], into the rows of y.
void finish(const Linear& layer, const Rows& rows, int64_t first, int64_t out, const float* sums) {
    const int64_t count = std::min<int64_t>(ROWS, rows.count - first);
    const Eight bias = layer.bias ? read<Eight>(layer.bias + out) : Eight{};
    for (int64_t r = 0; r < count; r += 8) {
        Eight part[8];
        for (int o = 0; o < 8; o++) part[o] = read<Eight>(sums + o * ROWS + r);
        transpose(part);
        for (int64_t k = 0; k < std::min<int64_t>(8, count - r); k++) {
            const int64_t row = rows.to ? rows.to[first + r + k] : first + r + k;
            if (row < 0) continue;
            Eight y = part[k] + bias;
            if (layer.gelu) y = gelu<Eight, EightWords>(y);
            if (rows.residual) y += read<Eight>(rows.residual + row * layer.out + out);
            write(rows.y + row * layer.out + out, y);
        }
    }
}

void finish_one(const Linear& layer, const Rows& rows, int64_t first, int64_t out, const float* sums) {
    for (int64_t r = 0; r < std::min<int64_t>(ROWS, rows.count - first); r++) {
        const int64_t row = rows.to ? rows.to[first + r] : first + r;
        if (row < 0) continue;
        float y = sums[r] + (layer.bias ? layer.bias[out] : 0);
        if (layer.gelu) y = gelu<Eight, EightWords>(Eight{} + y)[0];
        if (rows.residual) y += rows.residual[row * layer.out + out];
        rows.y[row * layer.out + out] = y;
    }
}

template <class Weight, int USED>
void multiply(const Linear& layer, const Rows& rows, const float* panel, int64_t first, int64_t begin, int64_t end) {
    const Weight* weight = static_cast<const Weight*>(layer.weight);
    alignas(64) float sums[BLOCK * ROWS];
    int64_t out = begin;
    for (; out + BLOCK <= end; out += BLOCK) {
        for (int o = 0; o < BLOCK; o += OUTS)
            tile<OUTS, USED>(panel, weight + (out + o) * layer.in, layer.in, sums + o * ROWS);
        finish(layer, rows, first, out, sums);
    }
    for (; out < end; out++) {
        tile<1, USED>(panel, weight + out * layer.in, layer.in, sums);
        finish_one(layer, rows, first, out, sums);
    }
}

// Outputs begin … end - 1 of the panel of rows from `first` on; the last panel may have few rows.
template <class Weight>
void multiply(const Linear& layer, const Rows& rows, const float* panel, int64_t first, int64_t begin, int64_t end) {
    const int64_t used = (std::min<int64_t>(ROWS, rows.count - first) + LANES - 1) / LANES;
    if (used == 1) return multiply<Weight, 1>(layer, rows, panel, first, begin, end);
    if (used == 2) return multiply<Weight, 2>(layer, rows, panel, first, begin, end);
    multiply<Weight, VECTORS>(layer, rows, panel, first, begin, end);
}

template <class Weight>
void linear(const Linear& l, const Rows& rows, int threads) {
    constexpr bool HALF = sizeof(Weight) == 2;
    const int64_t panels = (rows.count + ROWS - 1) / ROWS, size = ROWS * l.in / (1 + HALF);
    const int64_t width = std::max<int64_t>(BLOCK, CHUNK / sizeof(Weight) / l.in / BLOCK * BLOCK);
    const bool few_weights = l.out <= width;  // then a panel is used up at once, and each thread needs scratch for one
#pragma omp parallel num_threads(threads)
    {
        if (few_weights) {
            float* panel = rows.panels + omp_get_thread_num() * size;
#pragma omp for schedule(dynamic, 1)
            for (int64_t p = 0; p < panels; p++) {
                load_panel<HALF>(l, rows, p * ROWS, panel);
                multiply<Weight>(l, rows, panel, p * ROWS, 0, l.out);
            }
        } else {
#pragma omp for schedule(dynamic, 1)
            for (int64_t p = 0; p < panels; p++) load_panel<HALF>(l, rows, p * ROWS, rows.panels + p * size);
#pragma omp for schedule(dynamic, 1) collapse(2)
            for (int64_t out = 0; out < l.out; out += width)
                for (int64_t p = 0; p < panels; p++)
                    multiply<Weight>(l, rows, rows.panels + p * size, p * ROWS, out, std::min(l.out, out + width));
        }
    }
}

}  // namespace

extern "C" {

int64_t florence_panel_rows() { return ROWS; }

// Whether `florence_linear` works in bfloat16 here.
int florence_has_bf16() {
#if defined(__AVX512F__)
    return __builtin_cpu_supports("avx512bf16") != 0;
#else
    return 0;
#endif
}

void florence_linear(const Linear* layer, const Rows* rows, int threads) {
#if defined(__AVX512F__)
    if (layer->kind == 1) return linear<uint16_t>(*layer, *rows, threads);
#endif
    linear<float>(*layer, *rows, threads);
}

}  // extern "C"
