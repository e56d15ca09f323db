// Gated attention without its matrix products.
// Sizes: n groups of `length` elements, h heads of c channels.

#pragma once

#include <limits>

#include "elements.h"

namespace {

// Splits the projections joined [n, length, 4, h, c], plus offset [4, h, c], into heads
// [3, n, h, length, c] of q, k and v, and the sigmoid of the gate, gate [n, length, h, c].
template <typename Element>
void split_heads(const Element *RESTRICT joined, const Element *RESTRICT offset,
                 Element *RESTRICT heads, Element *RESTRICT gate, int64_t n, int64_t length,
                 int64_t h, int64_t c) {
    for (int64_t row = 0; row < n * length; ++row, joined += 4 * h * c, gate += h * c) {
        const int64_t g = row / length, i = row % length;
        for (int64_t part = 0; part < 3; ++part)
            for (int64_t head = 0; head < h; ++head) {
                const int64_t from = (part * h + head) * c;
                Element *RESTRICT to = heads + (((part * n + g) * h + head) * length + i) * c;
                for (int64_t j = 0; j < c; ++j)
                    store(to[j], load(joined[from + j]) + load(offset[from + j]));
            }
        for (int64_t j = 0; j < h * c; ++j)
            store(gate[j],
                  sigmoid(load(joined[3 * h * c + j]) + load(offset[3 * h * c + j])));
    }
}

// Backward pass of split_heads: copies d_heads into d_joined, which already holds the gradients
// of the gates, and adds the column sums of d_joined to d_offset [4, h, c].
template <typename Element>
void merge_heads(const Element *RESTRICT d_heads, Element *RESTRICT d_joined,
                 float *RESTRICT d_offset, int64_t n, int64_t length, int64_t h, int64_t c) {
    for (int64_t row = 0; row < n * length; ++row, d_joined += 4 * h * c) {
        const int64_t g = row / length, i = row % length;
        for (int64_t part = 0; part < 3; ++part)
            for (int64_t head = 0; head < h; ++head) {
                const int64_t to = (part * h + head) * c;
                const Element *RESTRICT from =
                    d_heads + (((part * n + g) * h + head) * length + i) * c;
                for (int64_t j = 0; j < c; ++j) d_joined[to + j] = from[j];
            }
        for (int64_t j = 0; j < 4 * h * c; ++j) d_offset[j] += load(d_joined[j]);
    }
}

// Replaces logits [n, h, length, length] by softmax(scale * logits + mask_offset + bias) with
// mask_offset [n, length] and bias [h, length, length], which may be null.
void softmax(float *RESTRICT logits, const float *RESTRICT mask_offset, const float *RESTRICT bias,
             float scale, int64_t n, int64_t h, int64_t length) {
    for (int64_t row = 0; row < n * h * length; ++row, logits += length) {
        const float *RESTRICT mask_row = mask_offset + row / (h * length) * length;
        const float *RESTRICT bias_row = bias ? bias + row % (h * length) * length : mask_row;
        float largest = -std::numeric_limits<float>::infinity(), total = 0.0f;
#pragma omp simd reduction(max : largest)
        for (int64_t j = 0; j < length; ++j) {
            const float x = logits[j] * scale + mask_row[j] + (bias ? bias_row[j] : 0.0f);
            logits[j] = x;
            largest = x > largest ? x : largest;
        }
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < length; ++j) {
            const float x = exponential(logits[j] - largest);
            logits[j] = x;
            total += x;
        }
        const float reciprocal = 1.0f / total;
        for (int64_t j = 0; j < length; ++j) logits[j] *= reciprocal;
    }
}

// Replaces d_weights [n, h, length, length] by the gradient of the logits and offsets, and adds it
// to d_bias [h, length, length], which may be null.
void softmax_backward(float *RESTRICT d_weights, const float *RESTRICT weights,
                      float *RESTRICT d_bias, int64_t n, int64_t h, int64_t length) {
    for (int64_t row = 0; row < n * h * length; ++row, d_weights += length, weights += length) {
        float total = 0.0f;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < length; ++j) total += d_weights[j] * weights[j];
        for (int64_t j = 0; j < length; ++j) d_weights[j] = (d_weights[j] - total) * weights[j];
        if (!d_bias) continue;
        float *RESTRICT d_bias_row = d_bias + row % (h * length) * length;
        for (int64_t j = 0; j < length; ++j) d_bias_row[j] += d_weights[j];
    }
}

// gated [n, length, h, c] = attended [n, h, length, c] * gate [n, length, h, c]
template <typename Element>
void gate_heads(const Element *RESTRICT attended, const Element *RESTRICT gate,
                Element *RESTRICT gated, int64_t n, int64_t length, int64_t h, int64_t c) {
    for (int64_t row = 0; row < n * length; ++row)
        for (int64_t head = 0; head < h; ++head, gate += c, gated += c) {
            const Element *RESTRICT from =
                attended + ((row / length * h + head) * length + row % length) * c;
            for (int64_t j = 0; j < c; ++j) store(gated[j], load(from[j]) * load(gate[j]));
        }
}

// Replaces attended by its gradient, and writes the gradient of the gate before its sigmoid to
// part 3 of d_joined [n, length, 4, h, c].
template <typename Element>
void gate_heads_backward(Element *RESTRICT attended, const Element *RESTRICT gate,
                         const Element *RESTRICT d_gated, Element *RESTRICT d_joined, int64_t n,
                         int64_t length, int64_t h, int64_t c) {
    for (int64_t row = 0; row < n * length; ++row)
        for (int64_t head = 0; head < h; ++head, gate += c, d_gated += c) {
            Element *RESTRICT to =
                attended + ((row / length * h + head) * length + row % length) * c;
            Element *RESTRICT d_gate = d_joined + ((row * 4 + 3) * h + head) * c;
            for (int64_t j = 0; j < c; ++j) {
                const float sigmoid_gate = load(gate[j]), d = load(d_gated[j]);
                store(d_gate[j], d * load(to[j]) * sigmoid_gate * (1.0f - sigmoid_gate));
                store(to[j], d * sigmoid_gate);
            }
        }
}

}  // namespace
