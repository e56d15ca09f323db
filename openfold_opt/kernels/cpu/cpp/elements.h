// Element types and elementary functions of the CPU kernels. A kernel makes one pass over memory
// where PyTorch's operations make three to six.
//
// Element is float or bfloat16; arithmetic between load and store is float. Memory is contiguous
// and row-major. A kernel writes only to the arguments that its comment names, and no two arguments
// overlap. Each kernel runs in one thread. NaN propagates as in ordinary arithmetic: the compiler
// may only reorder the sums marked `reduction`.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define RESTRICT __restrict__

namespace {

struct bfloat16 {
    uint16_t bits;
};

inline float as_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

inline uint32_t as_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

inline float load(float x) { return x; }
inline float load(bfloat16 x) { return as_float(static_cast<uint32_t>(x.bits) << 16); }

inline void store(float &to, float x) { to = x; }

// Rounds to nearest, ties to even. NaN is a separate case, as rounding its bits could overflow.
inline void store(bfloat16 &to, float x) {
    const uint32_t bits = as_bits(x), rounded = bits + 0x7FFF + ((bits >> 16) & 1);
    to.bits = static_cast<uint16_t>((x == x ? rounded : 0x7FC00000u) >> 16);
}

// e^x to 2 units in the last place; 0 for x < -87.3, e^88 for x > 88. Polynomial of the Cephes
// library on [-ln 2 / 2, ln 2 / 2], with ln 2 in two parts.
inline float exponential(float x) {
    const bool is_below = x < -87.3f;
    x = x > 88.0f ? 88.0f : x;
    x = is_below ? -87.3f : x;
    const float n = std::rint(x * 1.4426950408889634f);
    const float r = std::fma(n, 2.12194440e-4f, std::fma(n, -0.693359375f, x));
    float p = 1.9875691500e-4f;
    p = std::fma(p, r, 1.3981999507e-3f);
    p = std::fma(p, r, 8.3334519073e-3f);
    p = std::fma(p, r, 4.1665795894e-2f);
    p = std::fma(p, r, 1.6666665459e-1f);
    p = std::fma(p, r, 5.0000001201e-1f);
    const uint32_t exponent_bits = static_cast<uint32_t>(static_cast<int32_t>(n) + 127) << 23;
    const float y = std::fma(p, r * r, r + 1.0f) * as_float(exponent_bits);
    return is_below ? 0.0f : y;
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

}  // namespace
