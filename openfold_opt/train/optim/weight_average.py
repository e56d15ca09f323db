"""The running average of the weights, which evaluations use (AF2 suppl. 1.11.7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from openfold_opt.train.optim.parameter_buffer import ParameterBuffer


@dataclass(frozen=True, kw_only=True)
class WeightAverageConfig:
    """Exponential moving average of the weights."""

    category: ClassVar[str] = "mathematical"

    decay_rate: float = 0.9
    """average <- decay_rate * average + (1 - decay_rate) * weights, after every step."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay_rate < 1.0:
            raise ValueError(f"decay_rate={self.decay_rate}: must lie in [0, 1)")


class WeightAverage:
    """Running average of all weights in a flat tensor. The kernel `weight_update` updates it.

    average: [buffer.size] float32; num_updates: float32 scalar. The first update copies the
    weights.
    """

    def __init__(self, buffer: ParameterBuffer) -> None:
        self._buffer = buffer
        self.average = torch.zeros_like(buffer.values)
        self.num_updates = torch.zeros((), device=buffer.values.device)

    def parameters(self) -> dict[str, Tensor]:
        """Return views of the averaged weights by parameter name."""
        return self._buffer.views(self.average)
