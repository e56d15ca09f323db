// The optimizer step.

#pragma once

#include "elements.h"

namespace {

// Interpolates linearly; exact at both ends.
inline float interpolate(float start, float end, float weight) {
    return weight < 0.5f ? start + weight * (end - start) : end - (end - start) * (1.0f - weight);
}

// Clipping, Adam and running average of kernels/reference/weight_update.py on n elements.
// rates [8]: clipping factor of the gradient; 1 - beta_1; beta_2; 1 - beta_2;
// sqrt(1 - beta_2^step); learning rate / (1 - beta_1^step); epsilon; weight of the new values in
// the average.
void update_weights(const float *RESTRICT gradient, float *RESTRICT values,
                    float *RESTRICT exp_avg, float *RESTRICT exp_avg_sq, float *RESTRICT average,
                    const float *RESTRICT rates, int64_t n) {
    const float scale = rates[0], beta_1_complement = rates[1], beta_2 = rates[2];
    const float beta_2_complement = rates[3], root_correction = rates[4], step_size = rates[5];
    const float epsilon = rates[6], average_weight = rates[7];
    for (int64_t i = 0; i < n; ++i) {
        const float g = gradient[i] * scale;
        exp_avg[i] = interpolate(exp_avg[i], g, beta_1_complement);
        exp_avg_sq[i] = exp_avg_sq[i] * beta_2 + beta_2_complement * g * g;
        values[i] -=
            exp_avg[i] / (std::sqrt(exp_avg_sq[i]) / root_correction + epsilon) * step_size;
        average[i] = interpolate(average[i], values[i], average_weight);
    }
}

}  // namespace
