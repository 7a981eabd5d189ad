// One step of the decoder for a few rows: what `model/transformer.py` computes for one new token per row, in one call.
//
// With one token a row, every weight is read once and used a few times: the step takes as long as memory takes to
// deliver the weights. So threads share the outputs of each matrix, read its rows as they lie, and meet at a barrier.
// Weights are float32, bfloat16 or int8 with one scale per output; sums are float32 always.
// Plain C interface, called through ctypes; the structs are mirrored in `kernel.py`.

#include <algorithm>
#include <cmath>
#include <vector>
#include <omp.h>

#include "products.h"

extern "C" {

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

struct Share {  // of a thread
    int number, count;
    int64_t begin(int64_t of) const { return of * number / count; }
    int64_t end(int64_t of) const { return of * (number + 1) / count; }
};

// The thread's share of the outputs of y = x · weightᵀ + bias, y [rows, out].
void dense(const Matrix& m, const Share& share, const float* x, int64_t rows, float* y) {
    int64_t begin = share.begin(m.out), end = share.end(m.out);
    dense(m, begin, end, x, rows, y + begin, m.out);
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

constexpr int64_t GROUP = 8;  // keys whose products with a row are summed up together
constexpr int64_t KEYS = 64;  // whose values stay in the first cache while all rows use them

// Sums of the products of a row and GROUP keys, of which `count` are there.
template <class Key>
Eight products(const float* q, Key key, int64_t count, int64_t size) {
    Eight sums[GROUP] = {};
    for (int64_t k = 0; k < count; k++) {
        const float* of = key(k);
        int64_t i = 0;
        Vector wide = {};
        for (; i + LANES <= size; i += LANES) wide += read<Vector>(q + i) * read<Vector>(of + i);
        std::memcpy(&sums[k], &wide, sizeof sums[k]);
        if (LANES > 8) {
            Eight upper;
            std::memcpy(&upper, reinterpret_cast<char*>(&wide) + sizeof wide - sizeof upper, sizeof upper);
            sums[k] += upper;
        }
        for (; i < size; i++) sums[k][0] += q[i] * of[i];
    }
    transpose(sums);
    return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// In place; behind the `count` scores there is room to fill up a vector, which gets zeros.
void softmax(float* scores, int64_t count) {
    const int64_t end = (count + LANES - 1) / LANES * LANES;
    std::fill(scores + count, scores + end, scores[0]);
    Vector most = read<Vector>(scores), all = {};
    for (int64_t k = LANES; k < end; k += LANES) {
        const Vector next = read<Vector>(scores + k);
        most = next > most ? next : most;
    }
    float highest = most[0];
    for (int i = 1; i < LANES; i++) highest = std::max(highest, most[i]);
    for (int64_t k = 0; k < end; k += LANES)
        write(scores + k, exponential<Vector, Words>(read<Vector>(scores + k) - highest));
    std::fill(scores + count, scores + end, 0.0f);
    for (int64_t k = 0; k < end; k += LANES) all += read<Vector>(scores + k);
    const float share = 1 / sum(all);
    for (int64_t k = 0; k < end; k += LANES) write(scores + k, read<Vector>(scores + k) * share);
}

// y += the values begin … end - 1 times their weights, VECTORS vectors at a time in registers.
template <int VECTORS, class Value>
int64_t mix(const float* weights, Value value, int64_t begin, int64_t end, int64_t from, int64_t size, float* y) {
    for (; from + VECTORS * LANES <= size; from += VECTORS * LANES) {
        Vector sums[VECTORS];
        for (int v = 0; v < VECTORS; v++) sums[v] = read<Vector>(y + from + v * LANES);
        for (int64_t k = begin; k < end; k++) {
            const float weight = weights[k], *of = value(k) + from;
            for (int v = 0; v < VECTORS; v++) sums[v] += weight * read<Vector>(of + v * LANES);
        }
        for (int v = 0; v < VECTORS; v++) write(y + from + v * LANES, sums[v]);
    }
    return from;
}

// Attention of `rows` queries to the same `count` keys; `at(r)` is where in q and y row r has its head.
template <class At, class Key, class Value>
void attend(const float* q, int64_t rows, At at, Key key, Value value, int64_t count, int64_t size, float* y,
            std::vector<float>& all_scores) {
    const int64_t width = count + LANES;
    const float scale = 1 / std::sqrt(float(size));
    all_scores.resize(rows * width);
    float* scores = all_scores.data();
    for (int64_t k = 0; k < count; k += GROUP)
        for (int64_t r = 0; r < rows; r++) {
            auto of_group = [&](int64_t i) { return key(k + i); };
            const Eight found = products(q + at(r), of_group, std::min(GROUP, count - k), size) * scale;
            write(scores + r * width + k, found);
        }
    for (int64_t r = 0; r < rows; r++) {
        softmax(scores + r * width, count);
        std::fill(y + at(r), y + at(r) + size, 0.0f);
    }
    for (int64_t begin = 0; begin < count; begin += KEYS)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t end = std::min(count, begin + KEYS);
            const float* weights = scores + r * width;
            int64_t done = mix<64 / LANES>(weights, value, begin, end, 0, size, y + at(r));
            done = mix<1>(weights, value, begin, end, done, size, y + at(r));
            for (int64_t k = begin; k < end; k++)
                for (int64_t i = done; i < size; i++) y[at(r) + i] += weights[k] * value(k)[i];
        }
}

int64_t new_slot(const Step& s, int64_t row) { return s.slots[row * s.width + s.lengths[row]]; }

void self_attention(const Decoder& d, const Step& s, const Attended& past, const Share& share, const float* q, float* y) {
    const int64_t size = d.dim / d.heads, tasks = int64_t(s.rows) * d.heads;
    std::vector<float> scores;
    for (int64_t task = share.begin(tasks); task < share.end(tasks); task++) {
        const int64_t row = task / d.heads, head = task % d.heads * size;
        const int32_t* slots = s.slots + row * s.width;
        auto at = [&](int64_t) { return row * d.dim + head; };
        auto key = [&](int64_t k) { return past.keys + slots[k] * int64_t(d.dim) + head; };
        auto value = [&](int64_t k) { return past.values + slots[k] * int64_t(d.dim) + head; };
        attend(q, 1, at, key, value, s.lengths[row] + 1, size, y, scores);
    }
}

void cross_attention(const Decoder& d, const Step& s, const Attended* cross, const Share& share, const float* q, float* y) {
    const int64_t size = d.dim / d.heads, tasks = int64_t(s.images) * d.heads;
    std::vector<float> scores;
    for (int64_t task = share.begin(tasks); task < share.end(tasks); task++) {
        const int64_t image = task / d.heads, head = task % d.heads, start = head * s.cross_heads[image];
        const int32_t* rows = s.image_rows + s.image_bounds[image];
        auto at = [&](int64_t r) { return rows[r] * int64_t(d.dim) + head * size; };
        auto key = [&](int64_t k) { return cross[image].keys + start + k * size; };
        auto value = [&](int64_t k) { return cross[image].values + start + k * size; };
        attend(q, s.image_bounds[image + 1] - s.image_bounds[image], at, key, value, s.cross_lengths[image], size, y, scores);
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
        dense(*m, from, to, x, rows, y + from - begin, end - begin);
    }
}

// Read one token per row: its keys and values go into its slot of the cache, its state into `hidden`. Rows may be
// successive tokens of one text: all keys and values are there before any row attends.
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
