// Gated attention without gradient, with its matrix products: logits of a few queries at a time
// stay in the first-level cache. Sizes: n groups of `length` elements, h heads of c channels.

#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "elements.h"

namespace {

#if defined(__AVX512F__)
#define LANE_BYTES 64
#else
#define LANE_BYTES 32
#endif
typedef float Lanes __attribute__((vector_size(LANE_BYTES)));
typedef float EightLanes __attribute__((vector_size(32)));
constexpr int64_t QUERIES = 8, STEP = 2 * LANE_BYTES / sizeof(float);

template <typename Vector>
inline Vector load_vector(const float *from) {
    Vector x;
    std::memcpy(&x, from, sizeof x);
    return x;
}

template <typename Vector>
inline void store_vector(float *to, Vector x) {
    std::memcpy(to, &x, sizeof x);
}

// logits [QUERIES, stride] = q [QUERIES, C] times keys [C, stride]; stride is a multiple of STEP.
template <int64_t C>
inline void multiply_keys(const float *RESTRICT q, const float *RESTRICT keys,
                          float *RESTRICT logits, int64_t stride) {
    constexpr int64_t HALF = QUERIES / 2, WIDTH = sizeof(Lanes) / sizeof(float);
    for (int64_t first = 0; first < QUERIES; first += HALF)
        for (int64_t j = 0; j < stride; j += STEP) {
            Lanes sums[HALF][2] = {};
            for (int64_t i = 0; i < C; ++i) {
                const Lanes low = load_vector<Lanes>(keys + i * stride + j),
                            high = load_vector<Lanes>(keys + i * stride + j + WIDTH);
                for (int64_t b = 0; b < HALF; ++b) {
                    const float factor = q[(first + b) * C + i];
                    sums[b][0] += low * factor;
                    sums[b][1] += high * factor;
                }
            }
            for (int64_t b = 0; b < HALF; ++b) {
                store_vector(logits + (first + b) * stride + j, sums[b][0]);
                store_vector(logits + (first + b) * stride + j + WIDTH, sums[b][1]);
            }
        }
}

// result [QUERIES, C] = weights [QUERIES, stride] times values [length, C].
template <typename Vector, int64_t C>
inline void multiply_values(const float *RESTRICT weights, const float *RESTRICT values,
                            float *RESTRICT result, int64_t length, int64_t stride) {
    constexpr int64_t WIDTH = sizeof(Vector) / sizeof(float), PARTS = C / WIDTH;
    Vector sums[QUERIES][PARTS] = {};
    for (int64_t j = 0; j < length; ++j) {
        Vector row[PARTS];
        for (int64_t p = 0; p < PARTS; ++p)
            row[p] = load_vector<Vector>(values + j * C + p * WIDTH);
        for (int64_t b = 0; b < QUERIES; ++b) {
            const float factor = weights[b * stride + j];
            for (int64_t p = 0; p < PARTS; ++p) sums[b][p] += row[p] * factor;
        }
    }
    for (int64_t b = 0; b < QUERIES; ++b)
        for (int64_t p = 0; p < PARTS; ++p)
            store_vector(result + b * C + p * WIDTH, sums[b][p]);
}

// Replaces logits by exp(logits + mask_row + bias_row - maximum) and returns their sum. bias_row is
// not read without HAS_BIAS.
template <bool HAS_BIAS>
inline float exponentials(float *RESTRICT logits, const float *RESTRICT mask_row,
                          const float *RESTRICT bias_row, int64_t length) {
    float largest = -std::numeric_limits<float>::infinity(), total = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t j = 0; j < length; ++j) {
        float x = logits[j] + mask_row[j];
        if constexpr (HAS_BIAS) x += bias_row[j];
        logits[j] = x;
        largest = x > largest ? x : largest;
    }
#pragma omp simd reduction(+ : total)
    for (int64_t j = 0; j < length; ++j) {
        const float x = exponential(logits[j] - largest);
        logits[j] = x;
        total += x;
    }
    return total;
}

template <typename Element, typename Vector, int64_t C>
void attend_all(const Element *RESTRICT joined, const Element *RESTRICT offset,
                const float *RESTRICT mask_offset, const float *RESTRICT bias,
                Element *RESTRICT gated, float scale, int64_t n, int64_t length, int64_t h) {
    const int64_t stride = (length + STEP - 1) / STEP * STEP, width = 4 * h * C;
    std::vector<float> keys(C * stride), values(length * C), logits(QUERIES * stride);
    float q[QUERIES * C], result[QUERIES * C];
    for (int64_t head = 0; head < h; ++head) {
        const Element *RESTRICT offsets[4];
        for (int64_t part = 0; part < 4; ++part) offsets[part] = offset + (part * h + head) * C;
        for (int64_t g = 0; g < n; ++g) {
            const Element *RESTRICT rows = joined + g * length * width + head * C;
            for (int64_t j = 0; j < length; ++j)
                for (int64_t i = 0; i < C; ++i) {
                    const Element *RESTRICT row = rows + j * width;
                    keys[i * stride + j] = load(row[h * C + i]) + load(offsets[1][i]);
                    values[j * C + i] = load(row[2 * h * C + i]) + load(offsets[2][i]);
                }
            for (int64_t first = 0; first < length; first += QUERIES) {
                const int64_t count = std::min(QUERIES, length - first);
                for (int64_t b = 0; b < QUERIES; ++b)
                    for (int64_t i = 0; i < C; ++i)
                        q[b * C + i] =
                            b < count ? (load(rows[(first + b) * width + i]) + load(offsets[0][i])) *
                                            scale
                                      : 0.0f;
                multiply_keys<C>(q, keys.data(), logits.data(), stride);
                float totals[QUERIES];
                for (int64_t b = 0; b < QUERIES; ++b) {
                    const int64_t query = std::min(first + b, length - 1);
                    float *row = logits.data() + b * stride;
                    const float *mask_row = mask_offset + g * length;
                    totals[b] = bias ? exponentials<true>(
                                           row, mask_row, bias + (head * length + query) * length,
                                           length)
                                     : exponentials<false>(row, mask_row, nullptr, length);
                }
                multiply_values<Vector, C>(logits.data(), values.data(), result, length, stride);
                for (int64_t b = 0; b < count; ++b)
                    for (int64_t i = 0; i < C; ++i) {
                        const Element gate = rows[(first + b) * width + 3 * h * C + i];
                        store(gated[((g * length + first + b) * h + head) * C + i],
                              result[b * C + i] / totals[b] *
                                  sigmoid(load(gate) + load(offsets[3][i])));
                    }
            }
        }
    }
}

// gated [n, length, h, c] = softmax(scale * q k + mask_offset + bias) v * sigmoid(gate) of the
// projections joined [n, length, 4, h, c] plus offset [4, h, c], with mask_offset [n, length] and
// bias [h, length, length], which may be null. c is 8, 16 or 32.
template <typename Element>
void attend_groups(const Element *RESTRICT joined, const Element *RESTRICT offset,
                   const float *RESTRICT mask_offset, const float *RESTRICT bias,
                   Element *RESTRICT gated, float scale, int64_t n, int64_t length, int64_t h,
                   int64_t c) {
    if (c == 8)
        attend_all<Element, EightLanes, 8>(joined, offset, mask_offset, bias, gated, scale, n,
                                           length, h);
    else if (c == 16)
        attend_all<Element, EightLanes, 16>(joined, offset, mask_offset, bias, gated, scale, n,
                                            length, h);
    else if (c == 32)
        attend_all<Element, Lanes, 32>(joined, offset, mask_offset, bias, gated, scale, n, length,
                                       h);
}

}  // namespace
