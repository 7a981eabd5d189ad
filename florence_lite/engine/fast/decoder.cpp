// One step of the decoder for a few rows: what `model/transformer.py` computes for a few new tokens per row, in one call.
//
// With few tokens, every weight is read once and used a few times: the step takes as long as memory takes to deliver
// the weights. So threads share the outputs of each matrix, read its rows as they lie, and meet at a barrier.
// What a token gets does not depend, to the last bit, on how many others go with it.
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
    const float *tokens, *positions;  // tables [ids, D], [positions, D]
    Norm norm;
    int32_t layer_count, heads, dim, ffn_dim;
};

struct Step {
    const int64_t* ids;       // [R, count], the new tokens of each row, which see those before them
    const int64_t* places;    // [R, count], their rows in the table of positions
    const int32_t* first;     // [R], from where on the row has tokens
    const int32_t* slots;     // [R, capacity], where in the cache the token of each place lies
    const Attended* past;     // per layer, [capacity, slot_count, D]
    const Attended* cross;    // per layer, with the strides below, d values in a row
    const uint8_t* cross_mask;  // [B, S], 0 on padding; or null
    int64_t cross_image, cross_head, cross_position;  // strides in values
    float* hidden;            // [R, count, D], what comes out
    int32_t rows, count, images, length, capacity, slot_count, cross_length, threads;
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

void gelu(float* x, int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + LANES <= end; i += LANES) write(x + i, gelu<Vector, Words>(read<Vector>(x + i)));
    for (; i < end; i++) x[i] = gelu<Eight, EightWords>(Eight{} + x[i])[0];
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

// Attention of `rows` queries, of which neighbours lie `stride` values apart, to the same `count` keys; y as q.
// scores: [rows, at least count + LANES].
template <class Key, class Value>
void attend(const float* q, int64_t rows, int64_t stride, Key key, Value value, int64_t count, int64_t size, float* y,
            float* scores) {
    const int64_t width = count + LANES;
    const float scale = 1 / std::sqrt(float(size));
    for (int64_t k = 0; k < count; k += GROUP)
        for (int64_t r = 0; r < rows; r++) {
            auto of_group = [&](int64_t i) { return key(k + i); };
            const Eight found = products(q + r * stride, of_group, std::min(GROUP, count - k), size) * scale;
            write(scores + r * width + k, found);
        }
    for (int64_t r = 0; r < rows; r++) {
        softmax(scores + r * width, count);
        std::fill(y + r * stride, y + r * stride + size, 0.0f);
    }
    for (int64_t begin = 0; begin < count; begin += KEYS)
        for (int64_t r = 0; r < rows; r++) {
            const int64_t end = std::min(count, begin + KEYS);
            const float* weights = scores + r * width;
            int64_t at = mix<64 / LANES>(weights, value, begin, end, 0, size, y + r * stride);
            at = mix<1>(weights, value, begin, end, at, size, y + r * stride);
            for (int64_t k = begin; k < end; k++)
                for (int64_t i = at; i < size; i++) y[r * stride + i] += weights[k] * value(k)[i];
        }
}

// Puts the new keys and values into the cache, too.
void self_attention(const Decoder& d, const Step& s, const Attended& past, const Attended& fresh, const Share& share,
                    const float* q, float* y) {
    const int64_t size = d.dim / d.heads, stride = int64_t(s.slot_count) * d.dim, tasks = int64_t(s.rows) * d.heads;
    std::vector<float> scores(s.length + s.count + LANES);
    for (int64_t task = share.begin(tasks); task < share.end(tasks); task++) {
        const int64_t row = task / d.heads, at = task % d.heads * size, first = s.first[row];
        const int32_t* slots = s.slots + row * s.capacity;
        auto place = [&](float* cache, int64_t k) { return cache + k * stride + slots[k] * int64_t(d.dim) + at; };
        for (int64_t j = 0; j < s.count; j++) {
            const int64_t here = (row * s.count + j) * d.dim + at, now = s.length + j;
            std::copy(fresh.keys + here, fresh.keys + here + size, place(past.keys, now));
            std::copy(fresh.values + here, fresh.values + here + size, place(past.values, now));
            auto key = [&](int64_t k) { return place(past.keys, first + k); };
            auto value = [&](int64_t k) { return place(past.values, first + k); };
            attend(q + here, 1, 0, key, value, now + 1 - first, size, y + here, scores.data());
        }
    }
}

void cross_attention(const Decoder& d, const Step& s, const Attended& cross, const Share& share, const float* q, float* y) {
    const int64_t size = d.dim / d.heads, each = int64_t(s.rows) * s.count / s.images, S = s.cross_length;
    const int64_t tasks = int64_t(s.images) * d.heads;
    std::vector<float> scores(each * (S + LANES));
    std::vector<int64_t> seen(S);
    for (int64_t task = share.begin(tasks); task < share.end(tasks); task++) {
        const int64_t image = task / d.heads, head = task % d.heads, start = image * s.cross_image + head * s.cross_head;
        int64_t count = 0;
        for (int64_t k = 0; k < S; k++)
            if (!s.cross_mask || s.cross_mask[image * S + k]) seen[count++] = start + k * s.cross_position;
        auto key = [&](int64_t k) { return cross.keys + seen[k]; };
        auto value = [&](int64_t k) { return cross.values + seen[k]; };
        const int64_t at = image * each * d.dim + head * size;
        attend(q + at, each, d.dim, key, value, count, size, y + at, scores.data());
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

// Read the new tokens of each row: their keys and values go into the cache from place `length` on, into the slots that
// are named for them; their states into `hidden`.
void florence_step(const Decoder* decoder, const Step* step) {
    const Decoder& d = *decoder;
    const Step& s = *step;
    const int64_t rows = int64_t(s.rows) * s.count, all = rows * d.dim;
    std::vector<float> query(all), keys(all), values(all), mixed(all), change(all), inner(rows * d.ffn_dim);
    const Attended fresh = {keys.data(), values.data()};
#pragma omp parallel num_threads(s.threads)
    {
        Share share{omp_get_thread_num(), omp_get_num_threads()};
        std::vector<float> x(all);  // every thread has the whole state: to add and normalise it costs less than to wait
        auto add = [&](const Norm& norm) {
            for (int64_t i = 0; i < all; i++) x[i] += change[i];
            for (int64_t r = 0; r < rows; r++) normalise(&x[r * d.dim], d.dim, norm);
        };
        for (int64_t r = 0; r < rows; r++) {
            const float *token = d.tokens + s.ids[r] * d.dim, *position = d.positions + s.places[r] * d.dim;
            for (int64_t i = 0; i < d.dim; i++) x[r * d.dim + i] = token[i] + position[i];
            normalise(&x[r * d.dim], d.dim, d.norm);
        }
        for (int number = 0; number < d.layer_count; number++) {
            const Layer& layer = d.layers[number];
            dense(layer.query, share, x.data(), rows, query.data());
            dense(layer.key, share, x.data(), rows, fresh.keys);
            dense(layer.value, share, x.data(), rows, fresh.values);
#pragma omp barrier
            self_attention(d, s, s.past[number], fresh, share, query.data(), mixed.data());
#pragma omp barrier
            dense(layer.out, share, mixed.data(), rows, change.data());
#pragma omp barrier
            add(layer.attention_norm);
            dense(layer.cross_query, share, x.data(), rows, query.data());
#pragma omp barrier
            cross_attention(d, s, s.cross[number], share, query.data(), mixed.data());
#pragma omp barrier
            dense(layer.cross_out, share, mixed.data(), rows, change.data());
#pragma omp barrier
            add(layer.cross_norm);
            dense(layer.fc1, share, x.data(), rows, inner.data());
            for (int64_t r = 0; r < rows; r++) gelu(&inner[r * d.ffn_dim], share.begin(d.ffn_dim), share.end(d.ffn_dim));
#pragma omp barrier
            dense(layer.fc2, share, inner.data(), rows, change.data());
#pragma omp barrier
            add(layer.ffn_norm);
        }
        if (share.number == 0) std::copy(x.begin(), x.end(), s.hidden);
    }
}

}  // extern "C"
