// Kernels on rows of channels: sums, offsets, ReLU, layer normalization.

#pragma once

#include "elements.h"

namespace {

// rows [n, c] += offset [c]
template <typename Element>
void add_to_rows(Element *RESTRICT rows, const Element *RESTRICT offset, int64_t n, int64_t c) {
    for (int64_t i = 0; i < n; ++i, rows += c)
        for (int64_t j = 0; j < c; ++j) store(rows[j], load(rows[j]) + load(offset[j]));
}

// sums [c] += sum of rows [n, c] over n
template <typename Element>
void add_column_sums(const Element *RESTRICT rows, float *RESTRICT sums, int64_t n, int64_t c) {
    for (int64_t i = 0; i < n; ++i, rows += c)
        for (int64_t j = 0; j < c; ++j) sums[j] += load(rows[j]);
}

// result [n, c] = residual [n, c] + (update [n, c] + offset [c]) / divisor [n]; divisor may be null
template <typename Element>
void add_residual(const Element *RESTRICT update, const Element *RESTRICT offset,
                  const float *RESTRICT divisor, const Element *RESTRICT residual,
                  Element *RESTRICT result, int64_t n, int64_t c) {
    for (int64_t i = 0; i < n; ++i, update += c, residual += c, result += c) {
        const float reciprocal = divisor ? 1.0f / divisor[i] : 1.0f;
        for (int64_t j = 0; j < c; ++j)
            store(result[j],
                  load(residual[j]) + (load(update[j]) + load(offset[j])) * reciprocal);
    }
}

// rows [n, c] = max(rows + offset [c], 0)
template <typename Element>
void relu(Element *RESTRICT rows, const Element *RESTRICT offset, int64_t n, int64_t c) {
    for (int64_t i = 0; i < n; ++i, rows += c)
        for (int64_t j = 0; j < c; ++j) {
            const float x = load(rows[j]) + load(offset[j]);
            store(rows[j], x < 0.0f ? 0.0f : x);
        }
}

// Replaces d_rows [n, c], the gradient of the results of relu, by the gradient of its input, and
// adds the column sums of that to d_offset [c].
template <typename Element>
void relu_backward(Element *RESTRICT d_rows, const Element *RESTRICT rows, float *RESTRICT d_offset,
                   int64_t n, int64_t c) {
    for (int64_t i = 0; i < n; ++i, d_rows += c, rows += c)
        for (int64_t j = 0; j < c; ++j) {
            const float d = load(rows[j]) <= 0.0f ? 0.0f : load(d_rows[j]);
            store(d_rows[j], d);
            d_offset[j] += d;
        }
}

// result [n, c] = gamma [c] * normalized x [n, c] + beta [c]; writes the mean and the reciprocal
// standard deviation of each row to statistics [n, 2].
template <typename Element>
void norm_rows(const Element *RESTRICT x, const float *RESTRICT gamma, const float *RESTRICT beta,
               Element *RESTRICT result, float *RESTRICT statistics, float eps, int64_t n,
               int64_t c) {
    const float inverse_c = 1.0f / c;
    for (int64_t i = 0; i < n; ++i, x += c, result += c, statistics += 2) {
        float mean = 0.0f, variance = 0.0f;
#pragma omp simd reduction(+ : mean)
        for (int64_t j = 0; j < c; ++j) mean += load(x[j]);
        mean *= inverse_c;
#pragma omp simd reduction(+ : variance)
        for (int64_t j = 0; j < c; ++j) variance += (load(x[j]) - mean) * (load(x[j]) - mean);
        const float reciprocal = 1.0f / std::sqrt(variance * inverse_c + eps);
        statistics[0] = mean;
        statistics[1] = reciprocal;
        for (int64_t j = 0; j < c; ++j)
            store(result[j], (load(x[j]) - mean) * reciprocal * gamma[j] + beta[j]);
    }
}

// d_x [n, c] = gradient of the input of norm_rows for d_y [n, c], plus added [n, c] if it is not
// null. Adds the gradients of the parameters to d_gamma and d_beta [c].
template <typename Element>
void norm_rows_backward(const Element *RESTRICT d_y, const Element *RESTRICT x,
                        const float *RESTRICT statistics, const float *RESTRICT gamma,
                        float *RESTRICT d_gamma, float *RESTRICT d_beta,
                        const Element *RESTRICT added, Element *RESTRICT d_x, int64_t n,
                        int64_t c) {
    const float inverse_c = 1.0f / c;
    for (int64_t i = 0; i < n; ++i, d_y += c, x += c, d_x += c, statistics += 2) {
        const float mean = statistics[0], reciprocal = statistics[1];
        float total = 0.0f, product = 0.0f;
#pragma omp simd reduction(+ : total, product)
        for (int64_t j = 0; j < c; ++j) {
            const float d = load(d_y[j]), normalized = (load(x[j]) - mean) * reciprocal;
            d_beta[j] += d;
            d_gamma[j] += d * normalized;
            total += d * gamma[j];
            product += d * gamma[j] * normalized;
        }
        total *= inverse_c;
        product *= inverse_c;
        for (int64_t j = 0; j < c; ++j) {
            const float normalized = (load(x[j]) - mean) * reciprocal;
            const float d = (load(d_y[j]) * gamma[j] - total - normalized * product) * reciprocal;
            store(d_x[j], added ? d + load(added[j]) : d);
        }
        if (added) added += c;
    }
}

}  // namespace
