// Triangle multiplications between their matrix products: edges have channels in front, pairs behind.

#pragma once

#include "elements.h"

namespace {

// norm_rows with channels in front: result [c, n] of n columns of x [c, stride]; statistics [2, n]
template <typename Element>
void norm_columns(const Element *RESTRICT x, const float *RESTRICT gamma, const float *RESTRICT beta, Element *RESTRICT result,
                  float *RESTRICT statistics, float eps, int64_t stride, int64_t c, int64_t n) {
    const float share = 1.0f / c;
    float *RESTRICT mean = statistics, *RESTRICT reciprocal = statistics + n;
    for (int64_t i = 0; i < 2 * n; ++i) statistics[i] = 0.0f;
    for (int64_t j = 0; j < c; ++j)
        for (int64_t i = 0; i < n; ++i) mean[i] += load(x[j * stride + i]) * share;
    for (int64_t j = 0; j < c; ++j)
        for (int64_t i = 0; i < n; ++i) {
            const float difference = load(x[j * stride + i]) - mean[i];
            reciprocal[i] += difference * difference * share;
        }
    for (int64_t i = 0; i < n; ++i) reciprocal[i] = 1.0f / std::sqrt(reciprocal[i] + eps);
    for (int64_t j = 0; j < c; ++j)
        for (int64_t i = 0; i < n; ++i)
            store(result[j * n + i], (load(x[j * stride + i]) - mean[i]) * reciprocal[i] * gamma[j] + beta[j]);
}

// those columns of x become the gradient through norm_columns of d_y [c, n]; sums [2, n] is scratch
template <typename Element>
void norm_columns_backward(const Element *RESTRICT d_y, Element *RESTRICT x, const float *RESTRICT statistics,
                           const float *RESTRICT gamma, float *RESTRICT d_gamma, float *RESTRICT d_beta, float *RESTRICT sums,
                           int64_t stride, int64_t c, int64_t n) {
    const float share = 1.0f / c;
    const float *RESTRICT mean = statistics, *RESTRICT reciprocal = statistics + n;
    float *RESTRICT totals = sums, *RESTRICT products = sums + n;
    for (int64_t i = 0; i < 2 * n; ++i) sums[i] = 0.0f;
    for (int64_t j = 0; j < c; ++j) {
        const float weight = gamma[j] * share;
        float total = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : total, product)
        for (int64_t i = 0; i < n; ++i) {
            const float d = load(d_y[j * n + i]), hat = (load(x[j * stride + i]) - mean[i]) * reciprocal[i];
            total += d;
            product += d * hat;
            totals[i] += d * weight;
            products[i] += d * hat * weight;
        }
        d_beta[j] += total;
        d_gamma[j] += product;
    }
    for (int64_t j = 0; j < c; ++j)
        for (int64_t i = 0; i < n; ++i) {
            const float hat = (load(x[j * stride + i]) - mean[i]) * reciprocal[i];
            store(x[j * stride + i], (load(d_y[j * n + i]) * gamma[j] - totals[i] - hat * products[i]) * reciprocal[i]);
        }
}

// n columns of edge [c, stride] = value * gate * mask [n]; value [c, n] grows by offset [0, c], gate [c, n] by offset [1, c] before its
// sigmoid, and both keep that
template <typename Element>
void open_edges(Element *RESTRICT value, Element *RESTRICT gate, const Element *RESTRICT offset, const float *RESTRICT mask,
                Element *RESTRICT edge, int64_t stride, int64_t c, int64_t n) {
    for (int64_t j = 0; j < c; ++j, value += n, gate += n, edge += stride) {
        const float value_offset = load(offset[j]), gate_offset = load(offset[c + j]);
        for (int64_t i = 0; i < n; ++i) {
            const float x = load(value[i]) + value_offset, opened = sigmoid(load(gate[i]) + gate_offset);
            store(value[i], x);
            store(gate[i], opened);
            store(edge[i], x * opened * mask[i]);
        }
    }
}

// what open_edges left in value and gate becomes the gradient of what came in; d_offset [2, c] grows by its sums
template <typename Element>
void open_edges_backward(Element *RESTRICT value, Element *RESTRICT gate, float *RESTRICT d_offset, const float *RESTRICT mask,
                         const Element *RESTRICT d_edge, int64_t stride, int64_t c, int64_t n) {
    for (int64_t j = 0; j < c; ++j, value += n, gate += n, d_edge += stride) {
        float total = 0.0f, gate_total = 0.0f;
#pragma omp simd reduction(+ : total, gate_total)
        for (int64_t i = 0; i < n; ++i) {
            const float opened = load(gate[i]), d_value = load(d_edge[i]) * mask[i] * opened;
            const float d_gate = d_value * load(value[i]) * (1.0f - opened);
            store(value[i], d_value);
            store(gate[i], d_gate);
            total += d_value;
            gate_total += d_gate;
        }
        d_offset[j] += total;
        d_offset[c + j] += gate_total;
    }
}

// result [n, rows, c] = z + (update + offset [c]) * sigmoid(gate) * dropout [num_dropouts, rows, c], num_dropouts is n or 1, or null
template <typename Element>
void gated_residual(const Element *RESTRICT update, const Element *RESTRICT offset, const Element *RESTRICT gate,
                    const float *RESTRICT dropout, const Element *RESTRICT z, Element *RESTRICT result, int64_t num_dropouts,
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

// update becomes its gradient, which is that of each row's offset too, and d_gate that of the gate before its sigmoid
template <typename Element>
void gated_residual_backward(Element *RESTRICT update, const Element *RESTRICT offset, const Element *RESTRICT gate,
                             const float *RESTRICT dropout, const Element *RESTRICT d_result, Element *RESTRICT d_gate,
                             int64_t num_dropouts, int64_t n, int64_t rows, int64_t c) {
    for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < rows; ++j, update += c, gate += c, d_result += c, d_gate += c) {
            const float *RESTRICT factor = dropout + (num_dropouts == 1 ? j : i * rows + j) * c;
            for (int64_t k = 0; k < c; ++k) {
                const float opened = sigmoid(load(gate[k])), d = load(d_result[k]) * (dropout ? factor[k] : 1.0f);
                store(d_gate[k], d * (load(update[k]) + load(offset[k])) * opened * (1.0f - opened));
                store(update[k], d * opened);
            }
        }
}

}  // namespace
