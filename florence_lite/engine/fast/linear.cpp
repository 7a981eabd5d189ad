// Linear layers for many rows, with what stands before and behind them: LayerNorm of the rows, GELU, a residual.
//
// Panels of rows are turned so that a vector holds one channel of several rows; weights are read as they lie. A tile of
// outputs of a panel has all its sums in registers.

#include <algorithm>
#include <cmath>
#include <omp.h>

#include "lanes.h"

extern "C" {

struct Linear {
    const float *weight, *bias;       // [out, in]; [out] or null
    const float *norm_weight, *norm_bias;  // [in], of a LayerNorm of the rows; or null
    int64_t out, in;
    float eps;  // of the norm
    int32_t gelu;
};

// y = [residual +] [gelu] (norm(x) · weightᵀ + bias)
struct Rows {
    const float* x;         // [·, in]
    const float* residual;  // as y, or null
    float* y;               // [·, out]
    float* panels;          // scratch, [ceil(count / ROWS), in, ROWS]
    const int32_t* from;    // [count], rows of x, -1 for one of zeros behind the norm; null: as they stand
    const int32_t* to;      // [count], rows of y and residual, -1: nowhere; null: as they stand
    int64_t count;
};

}  // extern "C"

namespace {

constexpr int VECTORS = 3, ROWS = VECTORS * LANES, BLOCK = 8;  // BLOCK outputs are turned back together
constexpr int OUTS = REGISTERS > 16 ? 8 : 4;
constexpr int64_t CHUNK = 1 << 19;  // bytes of weights that stay in the second cache while panels pass

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
            for (int k = 0; k < 8; k++) write(to + (i + k) * ROWS + r, part[k]);
        }
    }
    for (int64_t i = even; i < in; i++)
        for (int64_t r = 0; r < ROWS; r++) {
            float x = of[r] ? of[r][i] : 0;
            if (layer.norm_weight && of[r]) x = (x - mean[r]) * scale[r] * layer.norm_weight[i] + layer.norm_bias[i];
            to[i * ROWS + r] = x;
        }
}

// to[o][r] = sum over i of weight[o][i] · panel[i][r]
template <int COUNT>
inline void tile(const float* __restrict panel, const float* __restrict weight, int64_t in, float* __restrict to) {
    Vector sums[COUNT][VECTORS] = {};
    for (int64_t i = 0; i < in; i++) {
        Vector x[VECTORS];
        for (int v = 0; v < VECTORS; v++) x[v] = read<Vector>(panel + i * ROWS + v * LANES);
        for (int o = 0; o < COUNT; o++) {
            const float w = weight[o * in + i];
            for (int v = 0; v < VECTORS; v++) sums[o][v] += x[v] * w;
        }
    }
    for (int o = 0; o < COUNT; o++)
        for (int v = 0; v < VECTORS; v++) write(to + o * ROWS + v * LANES, sums[o][v]);
}

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

// Outputs begin … end - 1 of the panel of rows from `first` on.
void multiply(const Linear& layer, const Rows& rows, const float* panel, int64_t first, int64_t begin, int64_t end) {
    alignas(64) float sums[BLOCK * ROWS];
    int64_t out = begin;
    for (; out + BLOCK <= end; out += BLOCK) {
        for (int o = 0; o < BLOCK; o += OUTS)
            tile<OUTS>(panel, layer.weight + (out + o) * layer.in, layer.in, sums + o * ROWS);
        finish(layer, rows, first, out, sums);
    }
    for (; out < end; out++) {
        tile<1>(panel, layer.weight + out * layer.in, layer.in, sums);
        finish_one(layer, rows, first, out, sums);
    }
}

}  // namespace

extern "C" {

int64_t florence_panel_rows() { return ROWS; }

void florence_linear(const Linear* layer, const Rows* of, int threads) {
    const Linear& l = *layer;
    const Rows& rows = *of;
    const int64_t panels = (rows.count + ROWS - 1) / ROWS, size = ROWS * l.in;
    const int64_t width = std::max<int64_t>(BLOCK, CHUNK / 4 / l.in / BLOCK * BLOCK);
    const bool few_weights = l.out <= width;  // then a panel is used up at once, and each thread needs scratch for one
#pragma omp parallel num_threads(threads)
    {
        if (few_weights) {
            float* panel = rows.panels + omp_get_thread_num() * size;
#pragma omp for schedule(dynamic, 1)
            for (int64_t p = 0; p < panels; p++) {
                load_panel(l, rows, p * ROWS, panel);
                multiply(l, rows, panel, p * ROWS, 0, l.out);
            }
        } else {
#pragma omp for schedule(dynamic, 1)
            for (int64_t p = 0; p < panels; p++) load_panel(l, rows, p * ROWS, rows.panels + p * size);
#pragma omp for schedule(dynamic, 1) collapse(2)
            for (int64_t out = 0; out < l.out; out += width)
                for (int64_t p = 0; p < panels; p++)
                    multiply(l, rows, rows.panels + p * size, p * ROWS, out, std::min(l.out, out + width));
        }
    }
}

}  // extern "C"
