// One step of the decoder for a few rows: what `model/transformer.py` computes for one new token per row, in one call.
//
// With one token a row, every weight is read once and used a few times: the step takes as long as memory takes to
// deliver the weights. So threads share the outputs of each matrix, read its rows as they lie, and meet at a barrier.
// Weights are float32, bfloat16 or int8 with one scale per output; sums are float32 always.
// Plain C interface, called through ctypes; the structs are mirrored in `kernel.py`.

#include <algorithm>
#include <cmath>
#include <vector>
#include <immintrin.h>
#include <omp.h>

#include "lanes.h"

extern "C" {

struct Matrix {           // y = x · weightᵀ + bias
    const void* weight;   // [out, in] of the kind
    const float* scale;   // [out], of int8
    const float* bias;    // [out] or null
    int64_t out, in;
    int32_t kind;         // 0 float32, 1 bfloat16, 2 int8
};

struct Norm {
    const float *weight, *bias;
    float eps;
};

struct Attended {         // keys and values of one layer, of images or of earlier tokens
    float *keys, *values;
};

struct Layer {
    Matrix query, key, value, out;
    Norm attention_norm;
    Matrix cross_query, cross_out;
    Norm cross_norm;
    Matrix fc1, fc2;
    Norm ffn_norm;
};

struct Decoder {
    const Layer* layers;
    const float *tokens, *positions;  // tables [ids, D], [positions, D], from the first token's on
    Norm norm;
    int32_t layer_count, heads, dim, ffn_dim;
};

struct Step {
    const int64_t* ids;       // [R], the new token of each row
    const int32_t* lengths;   // [R], how many tokens of the row were read before
    const int32_t* slots;     // [R, width], where in the cache each token of the row lies, the new one included
    const Attended* past;     // per layer, [slots, D]
    const Attended* cross;    // [layers, B] of B images, [heads, S, d], a head's in a row
    const int32_t* cross_lengths;  // [B], S of each image
    const int64_t* cross_heads;    // [B], values from one head to the next
    const int32_t* image_rows;     // [R], the rows, those of an image together
    const int32_t* image_bounds;   // [B + 1], where among them those of each image begin
    float* hidden;            // [R, D], what comes out
    int32_t rows, images, width, threads;
};

}  // extern "C"

namespace {

inline Vector load(const float* from) { return read<Vector>(from); }

// The compilers' own conversions of short vectors go element by element.
#if defined(__AVX512F__)
inline Vector load(const uint16_t* from) {  // bfloat16 is the upper half of float32
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
    return (Vector)_mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
}
inline Vector load(const int8_t* from) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return (Vector)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes));
}
#else
inline Vector load(const uint16_t* from) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
    return (Vector)_mm256_castsi256_ps(_mm256_slli_epi32(words, 16));
}
inline Vector load(const int8_t* from) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
    return (Vector)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}
#endif

inline float number(float x) { return x; }
inline float number(int8_t x) { return x; }
inline float number(uint16_t x) {
    uint32_t word = uint32_t(x) << 16;
    float f;
    std::memcpy(&f, &word, sizeof f);
    return f;
}

// ROWS rows of x times OUTS rows of the weights, all sums in registers.
template <class Weight, int ROWS, int OUTS>
inline void block(const Matrix& m, int64_t out, const float* x, float* y, int64_t y_stride) {
    const Weight* weight = static_cast<const Weight*>(m.weight) + out * m.in;
    Vector sums[OUTS][ROWS] = {};
    int64_t i = 0;
    for (; i + LANES <= m.in; i += LANES) {
        Vector of_x[ROWS];
        for (int r = 0; r < ROWS; r++) of_x[r] = load(x + r * m.in + i);
        for (int o = 0; o < OUTS; o++) {
            if (ROWS == 1) __builtin_prefetch(weight + (o + 2 * OUTS) * m.in + i);  // of the block after the next
            Vector w = load(weight + o * m.in + i);
            for (int r = 0; r < ROWS; r++) sums[o][r] += w * of_x[r];
        }
    }
    for (int o = 0; o < OUTS; o++)
        for (int r = 0; r < ROWS; r++) {
            float all = sum(sums[o][r]);
            for (int64_t k = i; k < m.in; k++) all += number(weight[o * m.in + k]) * x[r * m.in + k];
            if (m.scale) all *= m.scale[out + o];
            y[r * y_stride + o] = all + (m.bias ? m.bias[out + o] : 0.0f);
        }
}

template <class Weight, int ROWS, int OUTS>
inline void few_rows(const Matrix& m, int64_t begin, int64_t end, const float* x, float* y, int64_t y_stride) {
    int64_t out = begin;
    for (; out + OUTS <= end; out += OUTS) block<Weight, ROWS, OUTS>(m, out, x, y + out - begin, y_stride);
    for (; out < end; out++) block<Weight, ROWS, 1>(m, out, x, y + out - begin, y_stride);
}

constexpr int64_t TILE = 16;  // outputs whose weights stay in the first cache while all rows use them

// y [rows, …] of outputs begin … end. The wider the block, the more streams of memory are read at once.
template <class Weight>
void dense(const Matrix& m, int64_t begin, int64_t end, const float* x, int64_t rows, float* y, int64_t y_stride) {
    constexpr bool wide = REGISTERS > 16;
    if (rows == 1) return few_rows<Weight, 1, 8>(m, begin, end, x, y, y_stride);
    if (rows == 2) return few_rows<Weight, 2, wide ? 8 : 4>(m, begin, end, x, y, y_stride);
    if (rows == 3) return few_rows<Weight, 3, wide ? 8 : 4>(m, begin, end, x, y, y_stride);
    for (int64_t out = begin; out < end; out += TILE) {
        int64_t stop = std::min(end, out + TILE), r = 0;
        float* to = y + out - begin;
        for (; r + 4 <= rows; r += 4)
            few_rows<Weight, 4, wide ? 4 : 2>(m, out, stop, x + r * m.in, to + r * y_stride, y_stride);
        for (; r < rows; r++) few_rows<Weight, 1, 8>(m, out, stop, x + r * m.in, to + r * y_stride, y_stride);
    }
}

struct Share {  // of a thread
    int number, count;
    int64_t begin(int64_t of) const { return of * number / count; }
    int64_t end(int64_t of) const { return of * (number + 1) / count; }
};

// The thread's share of the outputs of y = x · weightᵀ + bias, y [rows, out].
void dense(const Matrix& m, const Share& share, const float* x, int64_t rows, float* y) {
    int64_t begin = share.begin(m.out), end = share.end(m.out);
    if (m.kind == 0) dense<float>(m, begin, end, x, rows, y + begin, m.out);
    if (m.kind == 1) dense<uint16_t>(m, begin, end, x, rows, y + begin, m.out);
    if (m.kind == 2) dense<int8_t>(m, begin, end, x, rows, y + begin, m.out);
}

void normalise(float* x, int64_t dim, const Norm& norm) {
    float mean = 0, variance = 0;
    for (int64_t i = 0; i < dim; i++) mean += x[i];
    mean /= dim;
    for (int64_t i = 0; i < dim; i++) variance += (x[i] - mean) * (x[i] - mean);
    float scale = 1 / std::sqrt(variance / dim + norm.eps);
    for (int64_t i = 0; i < dim; i++) x[i] = (x[i] - mean) * scale * norm.weight[i] + norm.bias[i];
}

void gelu(float* x, int64_t count) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) write(x + i, gelu<Eight, EightWords>(read<Eight>(x + i)));
    for (; i < count; i++) x[i] = gelu<Eight, EightWords>(Eight{} + x[i])[0];
}

float dot(const float* x, const float* y, int64_t size) {
    Vector sums = {};
    int64_t i = 0;
    for (; i + LANES <= size; i += LANES) sums += load(x + i) * load(y + i);
    float all = sum(sums);
    for (; i < size; i++) all += x[i] * y[i];
    return all;
}

// Softmax in place.
void softmax(float* scores, int64_t count) {
    const float most = *std::max_element(scores, scores + count);
    float all = 0;
    int64_t k = 0;
    for (; k + 8 <= count; k += 8) {
        const Eight weights = exponential<Eight, EightWords>(read<Eight>(scores + k) - most);
        write(scores + k, weights);
        all += sum(weights);
    }
    for (; k < count; k++) all += scores[k] = exponential<Eight, EightWords>(Eight{} + (scores[k] - most))[0];
    for (k = 0; k < count; k++) scores[k] /= all;
}

inline void add_scaled(float* to, float weight, const float* from, int64_t size) {
    for (int64_t i = 0; i < size; i++) to[i] += weight * from[i];
}

int64_t new_slot(const Step& s, int64_t row) { return s.slots[row * s.width + s.lengths[row]]; }

void self_attention(const Decoder& d, const Step& s, const Attended& past, const Share& share, const float* q, float* y) {
    int64_t size = d.dim / d.heads, tasks = int64_t(s.rows) * d.heads;
    float scale = 1 / std::sqrt(float(size));
    std::vector<float> scores(s.width);
    for (int64_t task = share.begin(tasks); task < share.end(tasks); task++) {
        int64_t row = task / d.heads, at = task % d.heads * size, count = s.lengths[row] + 1;
        const int32_t* slots = s.slots + row * s.width;
        float* to = y + row * d.dim + at;
        auto place = [&](const float* cache, int64_t k) { return cache + slots[k] * int64_t(d.dim) + at; };
        for (int64_t k = 0; k < count; k++) scores[k] = dot(q + row * d.dim + at, place(past.keys, k), size) * scale;
        softmax(scores.data(), count);
        std::fill(to, to + size, 0.0f);
        for (int64_t k = 0; k < count; k++) add_scaled(to, scores[k], place(past.values, k), size);
    }
}

void cross_attention(const Decoder& d, const Step& s, const Attended* cross, const Share& share, const float* q, float* y) {
    int64_t size = d.dim / d.heads, tasks = int64_t(s.images) * d.heads;
    float scale = 1 / std::sqrt(float(size));
    std::vector<float> scores;
    for (int64_t task = share.begin(tasks); task < share.end(tasks); task++) {
        int64_t image = task / d.heads, at = task % d.heads * size, S = s.cross_lengths[image];
        const int64_t start = task % d.heads * s.cross_heads[image];
        const float *keys = cross[image].keys + start, *values = cross[image].values + start;
        const int32_t* rows = s.image_rows + s.image_bounds[image];
        int64_t count = s.image_bounds[image + 1] - s.image_bounds[image];
        auto of_row = [&](auto* all, int64_t r) { return all + rows[r] * d.dim + at; };
        scores.resize(count * S);
        for (int64_t k = 0; k < S; k++)
            for (int64_t r = 0; r < count; r++) scores[r * S + k] = dot(of_row(q, r), keys + k * size, size) * scale;
        for (int64_t r = 0; r < count; r++) {
            softmax(scores.data() + r * S, S);
            std::fill(of_row(y, r), of_row(y, r) + size, 0.0f);
        }
        for (int64_t k = 0; k < S; k++)
            for (int64_t r = 0; r < count; r++) add_scaled(of_row(y, r), scores[r * S + k], values + k * size, size);
    }
}

}  // namespace

extern "C" {

// y [rows, end - begin] = x [rows, in] · weightᵀ + bias, of outputs begin … end - 1.
void florence_dense(const Matrix* m, int64_t begin, int64_t end, const float* x, int64_t rows, float* y, int threads) {
#pragma omp parallel num_threads(threads)
    {
        Share share{omp_get_thread_num(), omp_get_num_threads()};
        int64_t from = begin + share.begin(end - begin), to = begin + share.end(end - begin);
        if (m->kind == 0) dense<float>(*m, from, to, x, rows, y + from - begin, end - begin);
        if (m->kind == 1) dense<uint16_t>(*m, from, to, x, rows, y + from - begin, end - begin);
        if (m->kind == 2) dense<int8_t>(*m, from, to, x, rows, y + from - begin, end - begin);
    }
}

// Read one token per row: its keys and values go into its slot of the cache, its state into `hidden`.
void florence_step(const Decoder* decoder, const Step* step) {
    const Decoder& d = *decoder;
    const Step& s = *step;
    const int64_t rows = s.rows, all = rows * d.dim;
    std::vector<float> query(all), fresh(all), mixed(all), change(all), inner(rows * d.ffn_dim);
#pragma omp parallel num_threads(s.threads)
    {
        Share share{omp_get_thread_num(), omp_get_num_threads()};
        std::vector<float> x(all);  // every thread has the whole state: to add and normalise it costs less than to wait
        auto add = [&](const Norm& norm) {
            for (int64_t i = 0; i < all; i++) x[i] += change[i];
            for (int64_t r = 0; r < rows; r++) normalise(&x[r * d.dim], d.dim, norm);
        };
        auto remember = [&](const Matrix& matrix, float* cache) {  // each thread its share of keys or values
            dense(matrix, share, x.data(), rows, fresh.data());
            const int64_t begin = share.begin(d.dim), end = share.end(d.dim);
            for (int64_t r = 0; r < rows; r++)
                std::copy(&fresh[r * d.dim + begin], &fresh[r * d.dim + end], cache + new_slot(s, r) * d.dim + begin);
        };
        for (int64_t r = 0; r < rows; r++) {
            const float *token = d.tokens + s.ids[r] * d.dim, *position = d.positions + s.lengths[r] * d.dim;
            for (int64_t i = 0; i < d.dim; i++) x[r * d.dim + i] = token[i] + position[i];
            normalise(&x[r * d.dim], d.dim, d.norm);
        }
        for (int number = 0; number < d.layer_count; number++) {
            const Layer& layer = d.layers[number];
            const Attended& past = s.past[number];
            dense(layer.query, share, x.data(), rows, query.data());
            remember(layer.key, past.keys);
            remember(layer.value, past.values);
#pragma omp barrier
            self_attention(d, s, past, share, query.data(), mixed.data());
#pragma omp barrier
            dense(layer.out, share, mixed.data(), rows, change.data());
#pragma omp barrier
            add(layer.attention_norm);
            dense(layer.cross_query, share, x.data(), rows, query.data());
#pragma omp barrier
            cross_attention(d, s, s.cross + int64_t(number) * s.images, share, query.data(), mixed.data());
#pragma omp barrier
            dense(layer.cross_out, share, mixed.data(), rows, change.data());
#pragma omp barrier
            add(layer.cross_norm);
            dense(layer.fc1, share, x.data(), rows, inner.data());
            for (int64_t r = 0; r < rows; r++)
                gelu(&inner[r * d.ffn_dim + share.begin(d.ffn_dim)], share.end(d.ffn_dim) - share.begin(d.ffn_dim));
#pragma omp barrier
            dense(layer.fc2, share, inner.data(), rows, change.data());
#pragma omp barrier
            add(layer.ffn_norm);
        }
        if (share.number == 0) std::copy(x.begin(), x.end(), s.hidden);
    }
}

}  // extern "C"
