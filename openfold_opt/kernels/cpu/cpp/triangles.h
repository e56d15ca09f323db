// Triangle multiplications without their matrix products. Edges are [channels, pairs].

#pragma once

#include "elements.h"

namespace {

// norm_rows for channels in the first dim: result [c, n] of n columns of x [c, stride]. Writes
// means and reciprocal standard deviations to statistics [2, n].
template <typename Element>
void norm_columns(const Element *RESTRICT x, const float *RESTRICT gamma,
                  const float *RESTRICT beta, Element *RESTRICT result, float *RESTRICT statistics,
                  float eps, int64_t stride, int64_t c, int64_t n) {
    const float inverse_c = 1.0f / c;
    float *RESTRICT mean = statistics, *RESTRICT reciprocal = statistics + n;
    for (int64_t i = 0; i < 2 * n; ++i) statistics[i] = 0.0f;
    for (int64_t j = 0; j < c; ++j)
        for (int64_t i = 0; i < n; ++i) mean[i] += load(x[j * stride + i]) * inverse_c;
    for (int64_t j = 0; j < c; ++j)
        for (int64_t i = 0; i < n; ++i) {
            const float difference = load(x[j * stride + i]) - mean[i];
            reciprocal[i] += difference * difference * inverse_c;
        }
    for (int64_t i = 0; i < n; ++i) reciprocal[i] = 1.0f / std::sqrt(reciprocal[i] + eps);
    for (int64_t j = 0; j < c; ++j)
        for (int64_t i = 0; i < n; ++i)
            store(result[j * n + i],
                  (load(x[j * stride + i]) - mean[i]) * reciprocal[i] * gamma[j] + beta[j]);
}

// Replaces the n columns of x by the gradient of the input of norm_columns for d_y [c, n], and adds
// the gradients of the parameters to d_gamma and d_beta [c]. sums [2, n] is scratch memory.
template <typename Element>
void norm_columns_backward(const Element *RESTRICT d_y, Element *RESTRICT x,
                           const float *RESTRICT statistics, const float *RESTRICT gamma,
                           float *RESTRICT d_gamma, float *RESTRICT d_beta, float *RESTRICT sums,
                           int64_t stride, int64_t c, int64_t n) {
    const float inverse_c = 1.0f / c;
    const float *RESTRICT mean = statistics, *RESTRICT reciprocal = statistics + n;
    float *RESTRICT totals = sums, *RESTRICT products = sums + n;
    for (int64_t i = 0; i < 2 * n; ++i) sums[i] = 0.0f;
    for (int64_t j = 0; j < c; ++j) {
        const float weight = gamma[j] * inverse_c;
        float total = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : total, product)
        for (int64_t i = 0; i < n; ++i) {
            const float d = load(d_y[j * n + i]),
                        normalized = (load(x[j * stride + i]) - mean[i]) * reciprocal[i];
            total += d;
            product += d * normalized;
            totals[i] += d * weight;
            products[i] += d * normalized * weight;
        }
        d_beta[j] += total;
        d_gamma[j] += product;
    }
    for (int64_t j = 0; j < c; ++j)
        for (int64_t i = 0; i < n; ++i) {
            const float normalized = (load(x[j * stride + i]) - mean[i]) * reciprocal[i];
            store(x[j * stride + i],
                  (load(d_y[j * n + i]) * gamma[j] - totals[i] - normalized * products[i]) *
                      reciprocal[i]);
        }
}

// n columns of edge [c, stride] = (value + offset[0]) * sigmoid(gate + offset[1]) * mask [n].
// Replaces value [c, n] and gate [c, n] by the first two factors. offset: [2, c].
template <typename Element>
void gate_edges(Element *RESTRICT value, Element *RESTRICT gate, const Element *RESTRICT offset,
                const float *RESTRICT mask, Element *RESTRICT edge, int64_t stride, int64_t c,
                int64_t n) {
    for (int64_t j = 0; j < c; ++j, value += n, gate += n, edge += stride) {
        const float value_offset = load(offset[j]), gate_offset = load(offset[c + j]);
        for (int64_t i = 0; i < n; ++i) {
            const float x = load(value[i]) + value_offset;
            const float sigmoid_gate = sigmoid(load(gate[i]) + gate_offset);
            store(value[i], x);
            store(gate[i], sigmoid_gate);
            store(edge[i], x * sigmoid_gate * mask[i]);
        }
    }
}

// Replaces value and gate, as gate_edges left them, by the gradients of its inputs, and adds their
// sums over n to d_offset [2, c].
template <typename Element>
void gate_edges_backward(Element *RESTRICT value, Element *RESTRICT gate, float *RESTRICT d_offset,
                         const float *RESTRICT mask, const Element *RESTRICT d_edge, int64_t stride,
                         int64_t c, int64_t n) {
    for (int64_t j = 0; j < c; ++j, value += n, gate += n, d_edge += stride) {
        float total = 0.0f, gate_total = 0.0f;
#pragma omp simd reduction(+ : total, gate_total)
        for (int64_t i = 0; i < n; ++i) {
            const float sigmoid_gate = load(gate[i]);
            const float d_value = load(d_edge[i]) * mask[i] * sigmoid_gate;
            const float d_gate = d_value * load(value[i]) * (1.0f - sigmoid_gate);
            store(value[i], d_value);
            store(gate[i], d_gate);
            total += d_value;
            gate_total += d_gate;
        }
        d_offset[j] += total;
        d_offset[c + j] += gate_total;
    }
}

// result [n, rows, c] = z + (update + offset [c]) * sigmoid(gate) * dropout
// [num_dropouts, rows, c]. num_dropouts is n or 1; dropout may be null.
template <typename Element>
void gated_residual(const Element *RESTRICT update, const Element *RESTRICT offset,
                    const Element *RESTRICT gate, const float *RESTRICT dropout,
                    const Element *RESTRICT z, Element *RESTRICT result, int64_t num_dropouts,
                    int64_t n, int64_t rows, int64_t c) {
    for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < rows; ++j, update += c, gate += c, z += c, result += c) {
            const float *RESTRICT factor = dropout + (num_dropouts == 1 ? j : i * rows + j) * c;
            for (int64_t k = 0; k < c; ++k) {
                const float x = (load(update[k]) + load(offset[k])) * sigmoid(load(gate[k]));
                store(result[k], load(z[k]) + (dropout ? x * factor[k] : x));
            }
        }
}

// z [n, c] += (update + offset [c]) * sigmoid(gate)
template <typename Element>
void add_gated(const Element *RESTRICT update, const Element *RESTRICT offset,
               const Element *RESTRICT gate, Element *RESTRICT z, int64_t n, int64_t c) {
    for (int64_t i = 0; i < n; ++i, update += c, gate += c, z += c)
        for (int64_t k = 0; k < c; ++k)
            store(z[k], load(z[k]) + (load(update[k]) + load(offset[k])) * sigmoid(load(gate[k])));
}

// Replaces update by its gradient, whose rows are also gradients of the offset, and writes the
// gradient of the gate before its sigmoid to d_gate.
template <typename Element>
void gated_residual_backward(Element *RESTRICT update, const Element *RESTRICT offset,
                             const Element *RESTRICT gate, const float *RESTRICT dropout,
                             const Element *RESTRICT d_result, Element *RESTRICT d_gate,
                             int64_t num_dropouts, int64_t n, int64_t rows, int64_t c) {
    for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < rows; ++j, update += c, gate += c, d_result += c, d_gate += c) {
            const float *RESTRICT factor = dropout + (num_dropouts == 1 ? j : i * rows + j) * c;
            for (int64_t k = 0; k < c; ++k) {
                const float s = sigmoid(load(gate[k])),
                            d = load(d_result[k]) * (dropout ? factor[k] : 1.0f);
                store(d_gate[k], d * (load(update[k]) + load(offset[k])) * s * (1.0f - s));
                store(update[k], d * s);
            }
        }
}

}  // namespace
