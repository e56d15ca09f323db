"""Normalization with a wide projection: launches, autograd function, and all gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.kernels.triton.launching import (
    MIN_DOT_SIZE,
    Options,
    Rows,
    divide_up,
    dot_precision,
    fused_op,
    launch,
    next_power_of_2,
)
from openfold_opt.kernels.triton.layer_norm import (
    gradient_rows,
    layer_norm_backward,
    layer_norm_forward,
)
from openfold_opt.kernels.triton.wide_projection.kernels import (
    backward_kernel,
    forward_kernel,
    sum_kernel,
)

MAX_CHANNELS = 256
"""Largest number of channels of the rows, whose gradient is in registers."""
ELEMENTS_PER_BLOCK = 16384
"""Largest number of elements of a block of rows in bfloat16; half of it in float32."""
MAX_ROWS = 128
"""Largest number of rows of a block."""
NORM_ELEMENTS_PER_WARP = 512
"""Elements of the rows that a warp normalizes at a time."""
MIN_WGMMA_ROWS = 64
"""Fewest rows of a matrix instruction of a warpgroup, which bfloat16 needs."""
SUMS_PER_PROGRAM = 8
"""Neighboring sums of a program, 32 bytes: the least that a GPU reads from memory."""
MAX_PARTS = 512
"""Largest number of parts that a program of the sums reads at a time."""


def _constants(dtype: torch.dtype, width: int, c: int, c_out: int) -> Options:
    """Return the compile-time constants of backward_kernel for weights [width, c] in a dtype."""
    # Float32 needs twice the bytes of bfloat16.
    is_wide = dtype == torch.float32
    block_c = max(MIN_DOT_SIZE, next_power_of_2(c))
    num_warps = 4 if block_c <= 64 else 8
    block_rows = min(MAX_ROWS, ELEMENTS_PER_BLOCK // block_c) // (2 if is_wide else 1)
    return {
        "C": c,
        "C_OUT": c_out,
        "BLOCK_C": block_c,
        "BLOCK_OUT": MIN_DOT_SIZE if is_wide else MIN_WGMMA_ROWS,
        "BLOCK_ROWS": block_rows,
        "BLOCK_WIDTH": max(MIN_DOT_SIZE, min(16 if is_wide else 32, next_power_of_2(width))),
        "NORM_ROWS": min(block_rows, NORM_ELEMENTS_PER_WARP * num_warps // block_c),
        "MIN_DOT_SIZE": MIN_DOT_SIZE,
        "PRECISION": dot_precision(dtype),
        "num_warps": num_warps,
        "num_stages": 3,
    }


@fused_op
def wide_projection_forward(
    x: Tensor, gamma: Tensor, beta: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> Tensor:
    """Return the projection [..., width] of normalized x in the dtype of weight.

    x: [..., c] with any strides, c at most MAX_CHANNELS; weight: [width, c].
    """
    rows, weight, (width, c) = Rows.of(x), weight.contiguous(), weight.shape
    projected = torch.empty(*x.shape[:-1], width, dtype=weight.dtype, device=x.device)
    block_c = max(MIN_DOT_SIZE, next_power_of_2(c))
    # Float32 needs twice the bytes of bfloat16.
    parts = 2 if weight.dtype == torch.float32 else 1
    block_rows = MIN_WGMMA_ROWS // parts
    launch(
        forward_kernel,
        (divide_up(rows.count, block_rows),),
        *(rows.tensor, gamma, beta, weight),
        *(weight.new_empty(0) if bias is None else bias, projected),
        *(rows.count, *rows.layout, rows.channel_stride, eps),
        WIDTH=width,
        C=c,
        BLOCK_C=block_c,
        BLOCK_ROWS=block_rows,
        BLOCK_WIDTH=max(MIN_DOT_SIZE, min(32 // parts, next_power_of_2(width))),
        HAS_BIAS=bias is not None,
        PRECISION=dot_precision(weight.dtype),
        num_warps=8 if block_c > 128 else 4,
        num_stages=1,
    )
    return projected


@fused_op
def wide_projection_backward(
    dprojected: Tensor,
    weight: Tensor,
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    eps: float,
    first_sum: int,
    added: Tensor | None,
    dnarrow: Tensor | None,
    narrow_weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradient of x, and what the gradients of the parameters need.

    dprojected: [rows, width] contiguous; weight: [width, c] contiguous, c at most MAX_CHANNELS; x:
    [..., c] with any strides; added: in the shape of x, added to dx; dnarrow: [c_out, rows]
    contiguous, gradient of the second projection, with weight [c_out, c] contiguous, c_out at most
    MIN_DOT_SIZE; None: there is none. All but x, gamma, beta and added have the dtype of weight.

    Returns:
        dx [..., c] in dtype and memory layout of x; normalized x [rows, c] in the dtype of weight;
        partial sums for wide_projection_sums.
    """
    (rows, dx, added), (width, c) = gradient_rows(x, added), weight.shape
    weight = weight.contiguous()
    c_out = 0 if narrow_weight is None else len(narrow_weight)
    constants = _constants(weight.dtype, width, c, c_out)
    y = torch.empty(rows.count, c, dtype=weight.dtype, device=x.device)
    programs = divide_up(rows.count, constants["BLOCK_ROWS"])
    num_sums = (2 + c_out) * c + width - first_sum
    partial = torch.empty(programs, num_sums, dtype=torch.float32, device=x.device)
    # Fills the arguments of what is missing, which the kernel does not read.
    nothing = weight.new_empty(0)
    optional = (nothing if each is None else each for each in (dnarrow, narrow_weight))
    launch(
        backward_kernel,
        (programs,),
        *(dprojected, weight, *optional, rows.tensor, gamma, beta),
        *(dx.new_empty(0) if added is None else added, dx, y, partial),
        *(rows.count, *rows.layout, rows.channel_stride, eps),
        **constants,
        WIDTH=width,
        FIRST_SUM=first_sum,
        HAS_ADDED=added is not None,
    )
    return dx, y, partial


@fused_op
def wide_projection_sums(
    partial: Tensor, gamma: Tensor, bias: Tensor, first_sum: int, narrow_weight: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Add the partial sums of wide_projection_backward.

    Returns:
        Gradients of gamma and beta [2, c]; of the bias [width], zero before first_sum; of the
        weight of the second projection [c_out, c], empty without it.
    """
    num_parts, num_sums = partial.shape
    c, num_bias = len(gamma), len(bias) - first_sum
    norm = gamma.new_empty(2, c)
    dbias = torch.empty_like(bias)
    narrow = bias.new_empty(0) if narrow_weight is None else torch.empty_like(narrow_weight)
    launch(
        sum_kernel,
        (divide_up(num_sums + first_sum, SUMS_PER_PROGRAM),),
        *(partial, norm, dbias, narrow, num_parts, num_sums, 2 * c, num_bias, first_sum),
        BLOCK_PARTS=min(MAX_PARTS, next_power_of_2(num_parts)),
        BLOCK_SUMS=SUMS_PER_PROGRAM,
        num_warps=4,
    )
    return norm, dbias, narrow


@dataclass(frozen=True, kw_only=True)
class WideProjection:
    """A normalization with a wide projection: what its backward pass needs from the forward pass.

    Another projection of the normalized rows, to a few channels, is optional.
    """

    x: Tensor
    """[..., c], not normalized, with any strides."""
    gamma: Tensor
    beta: Tensor
    eps: float
    weight: Tensor
    """[width, c]"""
    bias: Tensor | None
    """[width]; None: there is none."""
    first_sum: int = 0
    """Channels before this one have no bias: their gradients of the bias are zero."""
    narrow_weight: Tensor | None = None
    """[c_out, c]"""

    def gradients(
        self, dprojected: Tensor, added: Tensor | None, dnarrow: Tensor | None = None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, gamma, beta, weight, bias and narrow_weight.

        dprojected: [..., width]; added: in the shape of x, added to its gradient; dnarrow: [c_out,
            rows]; None: zero, if there is a narrow projection.
        """
        rows = dprojected.flatten(0, -2).contiguous()
        if self.narrow_weight is not None:
            if dnarrow is None:
                dnarrow = self.narrow_weight.new_zeros(len(self.narrow_weight), len(rows))
            dnarrow = dnarrow.contiguous()
        if len(self.gamma) > MAX_CHANNELS:
            return self._separate_gradients(rows, added, dnarrow)
        dx, y, partial = wide_projection_backward(
            *(rows, self.weight, self.x, self.gamma, self.beta, self.eps, self.first_sum),
            *(added, dnarrow, self.narrow_weight),
        )
        norm, dbias, dnarrow_weight = wide_projection_sums(
            partial,
            self.gamma,
            self.weight[:, 0] if self.bias is None else self.bias,
            self.first_sum,
            self.narrow_weight,
        )
        # Autograd takes over a gradient only if nothing else refers to the tensor, as the machinery
        # of operators may do. A view is a new tensor.
        return (
            *(dx, *norm, rows.t() @ y),
            None if self.bias is None else dbias.detach(),
            None if self.narrow_weight is None else dnarrow_weight.detach(),
        )

    def _separate_gradients(
        self, rows: Tensor, added: Tensor | None, dnarrow: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of rows that are too wide for a program, with several launches."""
        y, mean, rstd = layer_norm_forward(self.x, self.gamma, self.beta, self.eps)
        y, dy, dnarrow_weight = y.to(self.weight.dtype).flatten(0, -2), rows @ self.weight, None
        if dnarrow is not None and self.narrow_weight is not None:
            dy, dnarrow_weight = dy + dnarrow.t() @ self.narrow_weight, dnarrow @ y
        dy = dy.view_as(self.x).to(self.x.dtype)
        dx, partial = layer_norm_backward(dy, self.x, self.gamma, mean, rstd, added)
        dgamma, dbeta = partial.sum(0).to(self.gamma.dtype)
        dbias = None
        if self.bias is not None:
            dbias = torch.zeros_like(self.bias)
            dbias[self.first_sum :] = rows[:, self.first_sum :].sum(0)
        return dx, dgamma, dbeta, rows.t() @ y, dbias, dnarrow_weight


class _ProjectedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, beta, weight, bias, eps):
        ctx.save_for_backward(x, gamma, beta, weight, bias)
        ctx.eps = eps
        ctx.set_materialize_grads(False)
        return x, wide_projection_forward(x, gamma, beta, weight, bias, eps)

    @staticmethod
    def backward(ctx, dresidual, dprojected):
        if dprojected is None:
            return dresidual, None, None, None, None, None
        x, gamma, beta, weight, bias = ctx.saved_tensors
        projection = WideProjection(
            x=x, gamma=gamma, beta=beta, eps=ctx.eps, weight=weight, bias=bias
        )
        *gradients, _ = projection.gradients(dprojected, dresidual)
        return *gradients, None


def projected_rows(
    x: Tensor, norm: NormWeights, projection: LinearWeights
) -> tuple[Tensor, Tensor]:
    """Return x [..., c] for use as a residual, and the projection [..., width] of normalized x.

    c is at most MAX_CHANNELS. The normalized x is written in the backward pass only.
    """
    gamma, beta, eps = norm
    return _ProjectedRows.apply(x, gamma, beta, *projection, eps)
