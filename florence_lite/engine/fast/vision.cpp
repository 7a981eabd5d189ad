// What stands between the linear layers of the vision tower: depthwise convolutions and both kinds of attention, as in
// `model/davit.py`, on maps [B, H, W, C]. Heads and groups have CHANNELS channels.

#include <algorithm>
#include <cmath>
#include <vector>
#include <omp.h>

#include "lanes.h"

namespace {

constexpr int CHANNELS = 32, OF_HEAD = CHANNELS / LANES;  // vectors of a head

// Softmax of rows of scores, padded to whole vectors by very low ones.
void softmax(float* scores, int64_t size) {
    Vector most = read<Vector>(scores);
    for (int64_t i = LANES; i < size; i += LANES) {
        Vector next = read<Vector>(scores + i);
        most = most > next ? most : next;
    }
    float top = most[0];
    for (int i = 1; i < LANES; i++) top = std::max(top, most[i]);
    Vector all = {};
    for (int64_t i = 0; i < size; i += LANES) {
        Vector e = exponential<Vector, Words>(read<Vector>(scores + i) - top);
        write(scores + i, e);
        all += e;
    }
    const float scale = 1 / sum(all);
    for (int64_t i = 0; i < size; i += LANES) write(scores + i, read<Vector>(scores + i) * scale);
}

// One head of one window: qkv [T, 3, heads, CHANNELS] from its own place on, y [T, heads, CHANNELS].
void head_of_window(const float* qkv, float* y, int64_t T, int64_t C, float* turned, float* scores) {
    constexpr int QUERIES = REGISTERS > 16 ? 8 : 4, KEYS = REGISTERS > 16 ? 3 : 2;  // vectors of keys
    const int64_t padded = (T + LANES * KEYS - 1) / (LANES * KEYS) * (LANES * KEYS);
    const float scale = 1 / std::sqrt(float(CHANNELS));
    for (int64_t t = 0; t < padded; t++)
        for (int c = 0; c < CHANNELS; c++) turned[c * padded + t] = t < T ? qkv[t * 3 * C + C + c] : 0;
    for (int64_t first = 0; first < T; first += QUERIES) {
        const int64_t count = std::min<int64_t>(QUERIES, T - first);
        const float* of[QUERIES];
        for (int q = 0; q < QUERIES; q++) of[q] = qkv + (first + std::min<int64_t>(q, count - 1)) * 3 * C;
        for (int64_t k = 0; k < padded; k += LANES * KEYS) {
            Vector sums[QUERIES][KEYS] = {};
            for (int c = 0; c < CHANNELS; c++) {
                Vector keys[KEYS];
                for (int v = 0; v < KEYS; v++) keys[v] = read<Vector>(turned + c * padded + k + v * LANES);
                for (int q = 0; q < QUERIES; q++)
                    for (int v = 0; v < KEYS; v++) sums[q][v] += keys[v] * of[q][c];
            }
            for (int q = 0; q < QUERIES; q++)
                for (int v = 0; v < KEYS; v++) write(scores + q * padded + k + v * LANES, sums[q][v] * scale);
        }
        for (int q = 0; q < QUERIES; q++) {
            std::fill(scores + q * padded + T, scores + (q + 1) * padded, -1e30f);
            softmax(scores + q * padded, padded);
        }
        Vector mixed[QUERIES][OF_HEAD] = {};
        for (int64_t k = 0; k < T; k++) {
            Vector value[OF_HEAD];
            for (int v = 0; v < OF_HEAD; v++) value[v] = read<Vector>(qkv + k * 3 * C + 2 * C + v * LANES);
            for (int q = 0; q < QUERIES; q++)
                for (int v = 0; v < OF_HEAD; v++) mixed[q][v] += value[v] * scores[q * padded + k];
        }
        for (int64_t q = 0; q < count; q++)
            for (int v = 0; v < OF_HEAD; v++) write(y + (first + q) * C + v * LANES, mixed[q][v]);
    }
}

// weights [CHANNELS, CHANNELS] += qᵀ · k over positions begin … end - 1 of one group.
void add_products(const float* q, const float* k, int64_t begin, int64_t end, int64_t C, float* weights) {
    constexpr int QUERIES = REGISTERS > 16 ? 8 : 2;
    for (int i = 0; i < CHANNELS; i += QUERIES) {
        Vector sums[QUERIES][OF_HEAD] = {};
        for (int64_t n = begin; n < end; n++) {
            Vector keys[OF_HEAD];
            for (int v = 0; v < OF_HEAD; v++) keys[v] = read<Vector>(k + n * 3 * C + v * LANES);
            for (int r = 0; r < QUERIES; r++)
                for (int v = 0; v < OF_HEAD; v++) sums[r][v] += keys[v] * q[n * 3 * C + i + r];
        }
        for (int r = 0; r < QUERIES; r++)
            for (int v = 0; v < OF_HEAD; v++) {
                float* to = weights + (i + r) * CHANNELS + v * LANES;
                write(to, read<Vector>(to) + sums[r][v]);
            }
    }
}

constexpr int64_t POSITIONS = 256;  // whose queries and keys stay in a near cache

}  // namespace

extern "C" {

// y = x + conv(x): 3 × 3 with padding 1, each channel for itself. x, y [B, H, W, C]; weight [9, C].
void florence_depthwise(
    const float* x, const float* weight, const float* bias, float* y, int64_t B, int64_t H, int64_t W, int64_t C, int threads
) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < B * H; line++) {
        const int64_t h = line % H;
        for (int64_t w = 0; w < W; w++) {
            const float* at = x + (line * W + w) * C;
            float* to = y + (line * W + w) * C;
            int64_t c = 0;
            for (; c + LANES <= C; c += LANES) {
                Vector all = read<Vector>(at + c) + read<Vector>(bias + c);
                for (int dh = -1; dh <= 1; dh++) {
                    if (h + dh < 0 || h + dh >= H) continue;
                    for (int dw = -1; dw <= 1; dw++) {
                        if (w + dw < 0 || w + dw >= W) continue;
                        all += read<Vector>(at + (dh * W + dw) * C + c) * read<Vector>(weight + (dh * 3 + dw + 4) * C + c);
                    }
                }
                write(to + c, all);
            }
            for (; c < C; c++) {
                float all = at[c] + bias[c];
                for (int dh = -1; dh <= 1; dh++)
                    for (int dw = -1; dw <= 1; dw++)
                        if (h + dh >= 0 && h + dh < H && w + dw >= 0 && w + dw < W)
                            all += at[(dh * W + dw) * C + c] * weight[(dh * 3 + dw + 4) * C + c];
                to[c] = all;
            }
        }
    }
}

// qkv [windows, T, 3, C] to y [windows, T, C].
void florence_window_attention(const float* qkv, float* y, int64_t windows, int64_t T, int64_t C, int threads) {
    const int64_t heads = C / CHANNELS, padded = T + 3 * LANES;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> turned(CHANNELS * padded), scores(8 * padded);
#pragma omp for schedule(static)
        for (int64_t task = 0; task < windows * heads; task++) {
            const int64_t start = task / heads * T, at = task % heads * CHANNELS;
            head_of_window(qkv + start * 3 * C + at, y + start * C + at, T, C, turned.data(), scores.data());
        }
    }
}

// qkv [B, N, 3, C] to y [B, N, C].
void florence_channel_attention(const float* qkv, float* y, int64_t B, int64_t N, int64_t C, int threads) {
    const int64_t groups = C / CHANNELS;
    const float scale = 1 / std::sqrt(float(N));
    std::vector<float> turned(B * groups * CHANNELS * CHANNELS);  // weights of value j for output i, [j, i]
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic, 1)
        for (int64_t task = 0; task < B * groups; task++) {
            float weights[CHANNELS * CHANNELS] = {};
            const float* q = qkv + task / groups * N * 3 * C + task % groups * CHANNELS;
            for (int64_t n = 0; n < N; n += POSITIONS) add_products(q, q + C, n, std::min(N, n + POSITIONS), C, weights);
            for (float& weight : weights) weight *= scale;
            for (int i = 0; i < CHANNELS; i++) {
                softmax(weights + i * CHANNELS, CHANNELS);
                for (int j = 0; j < CHANNELS; j++) turned[(task * CHANNELS + j) * CHANNELS + i] = weights[i * CHANNELS + j];
            }
        }
        constexpr int AT_ONCE = 4;
#pragma omp for schedule(static)
        for (int64_t first = 0; first < B * N; first += AT_ONCE) {
            const int64_t count = std::min<int64_t>(AT_ONCE, B * N - first);
            for (int64_t group = 0; group < groups; group++) {
                Vector mixed[AT_ONCE][OF_HEAD] = {};
                for (int j = 0; j < CHANNELS; j++)
                    for (int64_t p = 0; p < AT_ONCE; p++) {
                        const int64_t position = first + std::min<int64_t>(p, count - 1);
                        const float value = qkv[position * 3 * C + 2 * C + group * CHANNELS + j];
                        const float* weights = turned.data() + ((position / N * groups + group) * CHANNELS + j) * CHANNELS;
                        for (int v = 0; v < OF_HEAD; v++) mixed[p][v] += read<Vector>(weights + v * LANES) * value;
                    }
                for (int64_t p = 0; p < count; p++)
                    for (int v = 0; v < OF_HEAD; v++)
                        write(y + (first + p) * C + group * CHANNELS + v * LANES, mixed[p][v]);
            }
        }
    }
}

}  // extern "C"
