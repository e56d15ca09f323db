"""Linear layers, initialized as in the paper (supplement 1.11.4), and layer normalization."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from openfold_opt.kernels.interface import LinearWeights, NormWeights
from openfold_opt.model.plan import ExecutionPlan

INITS = ("default", "relu", "glorot", "gating", "normal", "final")

# Standard deviation of a standard normal distribution truncated at -2 and 2.
_TRUNCATED_NORMAL_STDDEV = 0.87962566103423978


class Linear(nn.Module):
    """y = x W^T + b.

    Args:
        c_in, c_out: number of input and output channels.
        bias: whether to add the bias b.
        init: initialization of the weight: "default" (LeCun normal), "relu" (He normal), "glorot"
            (uniform), "gating" (zero), "normal" (variance 1 / c_in) or "final" (zero). The bias
            starts at one for "gating", else at zero.
    """

    def __init__(self, c_in: int, c_out: int, *, bias: bool = True, init: str = "default") -> None:
        super().__init__()
        if init not in INITS:
            raise ValueError(f"unknown initialization {init!r}; expected one of {INITS}")
        self.init = init
        self.weight = nn.Parameter(torch.empty(c_out, c_in))
        self.bias = nn.Parameter(torch.empty(c_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Map x [..., c_in] to [..., c_out] in the dtype of the weight."""
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)

    @property
    def weights(self) -> LinearWeights:
        """Return the parameters as the kernels take them."""
        return LinearWeights(self.weight, self.bias)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Set the initial values."""
        c_out, c_in = self.weight.shape
        if self.init in ("gating", "final"):
            self.weight.zero_()
        elif self.init == "glorot":
            limit = math.sqrt(6.0 / (c_in + c_out))
            self.weight.uniform_(-limit, limit, generator=generator)
        elif self.init == "normal":
            self.weight.normal_(0.0, math.sqrt(1.0 / c_in), generator=generator)
        else:
            stddev = (
                math.sqrt((2.0 if self.init == "relu" else 1.0) / c_in) / _TRUNCATED_NORMAL_STDDEV
            )
            nn.init.trunc_normal_(
                self.weight, std=stddev, a=-2 * stddev, b=2 * stddev, generator=generator
            )
        if self.bias is not None:
            self.bias.fill_(1.0 if self.init == "gating" else 0.0)


class LayerNorm(nn.Module):
    """Layer normalization over the last dim, of size c."""

    def __init__(self, c: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(c))
        self.bias = nn.Parameter(torch.zeros(c))

    @property
    def weights(self) -> NormWeights:
        """Return the parameters as the kernels take them."""
        return NormWeights(self.weight, self.bias, self.eps)

    def forward(self, x: Tensor, plan: ExecutionPlan) -> Tensor:
        """Normalize x [..., c]."""
        return plan.kernels.layer_norm(x, self.weight, self.bias, eps=self.eps)

    def normalize_residual(self, x: Tensor, plan: ExecutionPlan) -> tuple[Tensor, Tensor]:
        """Return x [..., c], for use as the residual, and the normalized x."""
        return plan.kernels.residual_norm(x, self.weights)

    def normalize_and_project(
        self, x: Tensor, projection: LinearWeights, plan: ExecutionPlan
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalize x [..., c] and apply a linear layer to the result.

        Args:
            x: [..., c]
            projection: of the linear layer, from c to c_out channels.
            plan: kernels.

        Returns:
            x for use as the residual, the normalized x, and its projection [..., c_out] in the
            dtype of the weight.
        """
        x, normalized, projected = plan.kernels.projected_norm(x, self.weights, projection)
        assert normalized is not None
        return x, normalized, projected

    def project_normalized(
        self, x: Tensor, projection: LinearWeights, plan: ExecutionPlan
    ) -> tuple[Tensor, Tensor]:
        """Return the results of normalize_and_project without the normalized x."""
        x, _, projected = plan.kernels.projected_norm(
            x, self.weights, projection, only_projection=True
        )
        return x, projected


def concatenate_parameters(*linears: Linear) -> LinearWeights:
    """Concatenate the parameters of several Linears with the same c_in.

    Returns:
        Weight [sum of c_out, c_in] and bias [sum of c_out] of a Linear whose output is the
        concatenation of all outputs. The bias is None if no layer has a bias.
    """
    weight = torch.cat([linear.weight for linear in linears])
    if all(linear.bias is None for linear in linears):
        return LinearWeights(weight, None)
    biases = [
        linear.weight.new_zeros(linear.weight.shape[0]) if linear.bias is None else linear.bias
        for linear in linears
    ]
    return LinearWeights(weight, torch.cat(biases))


class JoinedLinears:
    """Linears with the same c_in that are applied as one matrix product.

    The object has no parameters: the Linears are children of the module that owns it.
    """

    def __init__(self, *linears: Linear) -> None:
        self.linears = linears
        self._weight: Tensor | None = None
        self._bias: Tensor | None = None

    def share_weight(self, weight: Tensor) -> None:
        """Use this weight, which shares the memory of those of the Linears, from now on.

        It gets the gradient instead of the weights of the Linears. If there are biases, they must
        be shared, too (train/optim/parameter_buffer.py).
        """
        self._weight = weight

    def share_bias(self, bias: Tensor) -> None:
        """Use this bias, as share_weight; it is zero where a Linear has no bias."""
        self._bias = bias

    @property
    def weights(self) -> LinearWeights:
        """Return the joined parameters, as concatenate_parameters returns them."""
        if self._weight is None:
            return concatenate_parameters(*self.linears)
        return LinearWeights(self._weight, self._bias)

    def project(self, x: Tensor) -> Tensor:
        """Map x [..., c_in] to the concatenated outputs [..., sum of c_out]."""
        weight, bias = self.weights
        return F.linear(x.to(weight.dtype), weight, bias)

    def __deepcopy__(self, memo: dict[int, object]) -> JoinedLinears:
        """Copy without the shared parameters, because the copies of the Linears have new memory."""
        return JoinedLinears(*copy.deepcopy(self.linears, memo))


def joined_linears(model: nn.Module) -> Iterator[JoinedLinears]:
    """Return all groups of Linears of a model that are applied together."""
    for module in model.modules():
        yield from (x for x in vars(module).values() if isinstance(x, JoinedLinears))


def initialize_parameters(model: nn.Module, *, seed: int) -> None:
    """Initialize every Linear from a random stream that depends on the seed and its name only."""
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            generator = torch.Generator(device=module.weight.device)
            # Hash seed and name, because torch's generator uses only 32 bits of its seed.
            digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
            generator.manual_seed(int.from_bytes(digest[:4], "little"))
            module.initialize(generator)
