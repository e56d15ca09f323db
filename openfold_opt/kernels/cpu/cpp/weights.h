// The optimizer's step.

#pragma once

#include "elements.h"

namespace {

// from start a share of the way to end, exactly there for 1
inline float between(float start, float end, float share) {
    return share < 0.5f ? start + share * (end - start) : end - (end - start) * (1.0f - share);
}

// Clipping, Adam and running average of kernels/reference/weight_update.py on n elements. rates [8]: what the gradient is multiplied
// with; 1 - beta_1; beta_2; 1 - beta_2; sqrt(1 - beta_2^step); learning rate / (1 - beta_1^step); epsilon; share of the average that is new
void update_weights(const float *RESTRICT gradient, float *RESTRICT values, float *RESTRICT exp_avg, float *RESTRICT exp_avg_sq,
                    float *RESTRICT average, const float *RESTRICT rates, int64_t n) {
    const float scale = rates[0], new_1 = rates[1], old_2 = rates[2], new_2 = rates[3];
    const float root_correction = rates[4], step_size = rates[5], epsilon = rates[6], share = rates[7];
    for (int64_t i = 0; i < n; ++i) {
        const float g = gradient[i] * scale;
        exp_avg[i] = between(exp_avg[i], g, new_1);
        exp_avg_sq[i] = exp_avg_sq[i] * old_2 + new_2 * g * g;
        values[i] -= exp_avg[i] / (std::sqrt(exp_avg_sq[i]) / root_correction + epsilon) * step_size;
        average[i] = between(average[i], values[i], share);
    }
}

}  // namespace
