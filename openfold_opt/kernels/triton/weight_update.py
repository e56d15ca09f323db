"""Clipping, Adam, running average and bf16 copy of all parameters in one launch.

Two launches before it compute the norm and the scalars of the step. The parameters and their
gradients are flat tensors, so that one launch covers all tensors of the model. Between norm and
update, a single program computes the values that depend on the step: whether it is taken, clipping
scale, bias corrections, learning rate, weight of the new parameters in the average. The host never
waits, and a replayed CUDA graph uses new values. Powers of the betas are float64.
"""

import math
from dataclasses import astuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from openfold_opt.kernels.interface import WeightState, WeightUpdateConstants
from openfold_opt.kernels.triton.launching import divide_up, fused_op, launch

BLOCK = 4096
NUM_PARTIAL_SUMS = 1024
"""Largest number of programs that sum the squares of the gradient."""
IS_APPLIED, NORM, CLIP_SCALE, STEP_SIZE, ROOT_CORRECTION_2, AVERAGE_WEIGHT, NUM_SCALARS = range(7)
"""Positions of the scalars. A Triton kernel cannot read these globals and uses the numbers."""


@triton.jit
def _square_sum_kernel(gradient_ptr, partial_ptr, size, BLOCK: tl.constexpr):
    """Write sums of squares of gradient [size] to partial [programs] float64."""
    total = tl.zeros([BLOCK], dtype=tl.float32)
    for first in range(tl.program_id(0) * BLOCK, size, tl.num_programs(0) * BLOCK):
        offsets = first + tl.arange(0, BLOCK)
        gradient = tl.load(gradient_ptr + offsets, mask=offsets < size, other=0.0)
        total += gradient * gradient
    tl.store(partial_ptr + tl.program_id(0), tl.sum(total.to(tl.float64), axis=0))


@triton.jit
def _scalars_kernel(
    partial_ptr,  # [num_partial] float64
    flag_ptr,  # float32: not finite if the step is skipped
    learning_rate_ptr,  # float64
    num_steps_ptr,  # in and out: float64
    num_updates_ptr,  # in and out: float32
    scalars_ptr,  # out: [NUM_SCALARS] float32
    num_partial,
    max_norm,
    log_beta_1,
    log_beta_2,
    average_weight,  # 1 - decay rate
    BLOCK: tl.constexpr,
):
    offsets = tl.arange(0, BLOCK)
    squares = tl.load(partial_ptr + offsets, mask=offsets < num_partial, other=0.0)
    norm = tl.sqrt(tl.sum(squares, axis=0)).to(tl.float32)
    flag = tl.load(flag_ptr)
    # The difference is 0 for a finite value, else NaN.
    is_applied = (norm - norm == 0.0) & (flag - flag == 0.0)
    applied = is_applied.to(tl.float64)
    num_steps = tl.load(num_steps_ptr) + applied
    tl.store(num_steps_ptr, num_steps)
    count = tl.maximum(num_steps, 1.0)
    # Rounding the logarithms to float32 changes these by a relative 1e-7; powers in float32 would
    # lose five digits.
    correction_1 = 1.0 - tl.exp(count * log_beta_1)
    correction_2 = 1.0 - tl.exp(count * log_beta_2)
    num_updates = tl.load(num_updates_ptr)
    tl.store(num_updates_ptr, num_updates + applied.to(tl.float32))
    clip_scale = tl.minimum(max_norm / (norm + 1e-6), 1.0)
    # In the order IS_APPLIED, NORM, CLIP_SCALE, STEP_SIZE, ROOT_CORRECTION_2, AVERAGE_WEIGHT.
    tl.store(scalars_ptr + 0, applied.to(tl.float32))
    tl.store(scalars_ptr + 1, norm)
    tl.store(scalars_ptr + 2, clip_scale)
    tl.store(scalars_ptr + 3, (tl.load(learning_rate_ptr) / correction_1).to(tl.float32))
    tl.store(scalars_ptr + 4, tl.sqrt(correction_2).to(tl.float32))
    tl.store(scalars_ptr + 5, tl.where(num_updates == 0.0, 1.0, average_weight))


@triton.jit
def _update_kernel(
    gradient_ptr,  # [size] float32
    values_ptr,  # in and out, like the next three: [size] float32
    exp_avg_ptr,
    exp_avg_sq_ptr,
    average_ptr,
    copy_ptr,  # out: [size] bfloat16, written if HAS_COPY
    scalars_ptr,  # [NUM_SCALARS] float32
    size,
    beta_1_complement,
    beta_2,
    beta_2_complement,
    epsilon,
    HAS_COPY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    offsets = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = offsets < size
    # If the step is skipped, nothing is written.
    if tl.load(scalars_ptr) != 0.0:
        gradient = tl.load(gradient_ptr + offsets, mask=inside, other=0.0) * tl.load(
            scalars_ptr + 2
        )
        exp_avg = tl.load(exp_avg_ptr + offsets, mask=inside, other=0.0)
        exp_avg += beta_1_complement * (gradient - exp_avg)
        exp_avg_sq = tl.load(exp_avg_sq_ptr + offsets, mask=inside, other=0.0)
        exp_avg_sq = exp_avg_sq * beta_2 + beta_2_complement * gradient * gradient
        denominator = tl.sqrt(exp_avg_sq) / tl.load(scalars_ptr + 4) + epsilon
        values = tl.load(values_ptr + offsets, mask=inside, other=0.0)
        values -= tl.load(scalars_ptr + 3) * (exp_avg / denominator)
        average = tl.load(average_ptr + offsets, mask=inside, other=0.0)
        average_weight = tl.load(scalars_ptr + 5)
        # A weight of 1 copies the values exactly.
        average = tl.where(
            average_weight == 1.0, values, average + average_weight * (values - average)
        )
        tl.store(exp_avg_ptr + offsets, exp_avg, mask=inside)
        tl.store(exp_avg_sq_ptr + offsets, exp_avg_sq, mask=inside)
        tl.store(values_ptr + offsets, values, mask=inside)
        tl.store(average_ptr + offsets, average, mask=inside)
        if HAS_COPY:
            tl.store(copy_ptr + offsets, values.to(copy_ptr.dtype.element_ty), mask=inside)


@fused_op(
    mutates=(
        "values",
        "exp_avg",
        "exp_avg_sq",
        "average",
        "num_steps",
        "num_updates",
        "compute_copy",
    )
)
def fused_weight_update(
    gradient: Tensor,
    values: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    average: Tensor,
    num_steps: Tensor,
    num_updates: Tensor,
    compute_copy: Tensor | None,
    flag: Tensor,
    learning_rate: Tensor,
    square_sum: Tensor | None,
    constants: list[float],
) -> Tensor:
    """Update the state and return the scalars of the step, [NUM_SCALARS] float32.

    square_sum: sum of the squares of the gradient; None to compute it here.
    constants: fields of WeightUpdateConstants in order.
    """
    beta_1, beta_2, epsilon, max_norm, decay_rate = constants
    size = values.numel()
    scalars = torch.empty(NUM_SCALARS, dtype=torch.float32, device=values.device)
    if square_sum is None:
        partial = torch.empty(
            min(NUM_PARTIAL_SUMS, max(1, divide_up(size, BLOCK))),
            dtype=torch.float64,
            device=values.device,
        )
        launch(
            _square_sum_kernel, (len(partial),), gradient, partial, size, BLOCK=BLOCK, num_warps=8
        )
    else:
        partial = square_sum.view(1)
    logarithms = (math.log(beta) if beta > 0.0 else -math.inf for beta in (beta_1, beta_2))
    numbers = (len(partial), max_norm, *logarithms, 1.0 - decay_rate)
    counts = (num_steps, num_updates, scalars)
    launch(
        _scalars_kernel,
        (1,),
        partial,
        flag,
        learning_rate,
        *counts,
        *numbers,
        BLOCK=NUM_PARTIAL_SUMS,
        num_warps=4,
    )
    tensors = (
        gradient,
        values,
        exp_avg,
        exp_avg_sq,
        average,
        values if compute_copy is None else compute_copy,
        scalars,
    )
    factors = (1.0 - beta_1, beta_2, 1.0 - beta_2, epsilon)
    options = {"HAS_COPY": compute_copy is not None, "BLOCK": BLOCK // 4, "num_warps": 4}
    launch(_update_kernel, (divide_up(size, BLOCK // 4),), *tensors, size, *factors, **options)
    return scalars


@torch.no_grad()
def weight_update(
    state: WeightState,
    gradient: Tensor,
    *,
    learning_rate: float | Tensor,
    flag: Tensor,
    constants: WeightUpdateConstants,
    square_sum: Tensor | None = None,
) -> Tensor:
    """Compute kernels.reference.weight_update without modifying the gradient.

    Makes three launches, or two if the sum of squares is given.
    """
    rate = torch.as_tensor(learning_rate, dtype=torch.float64, device=state.values.device)
    scalars = fused_weight_update(
        gradient,
        state.values,
        state.exp_avg,
        state.exp_avg_sq,
        state.average,
        state.num_steps,
        state.num_updates,
        state.compute_copy,
        flag.to(torch.float32),
        rate,
        square_sum,
        list(astuple(constants)),
    )
    return scalars[:2]
