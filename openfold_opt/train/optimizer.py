"""Adam's state on the flat parameter buffer; the step itself is the operation weight_update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from openfold_opt.train.parameter_buffer import ParameterBuffer


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam without weight decay and the clipping in front of it (AF2 suppl. 1.11.3)."""

    category: ClassVar[str] = "mathematical"

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    """Added to the root of the second moment, after bias correction."""
    clip_norm: float = 0.1
    """Largest global norm of the averaged gradient."""

    def __post_init__(self) -> None:
        if not (0.0 <= self.beta_1 < 1.0 and 0.0 <= self.beta_2 < 1.0):
            raise ValueError(f"beta_1={self.beta_1}, beta_2={self.beta_2}: both must lie in [0, 1)")
        if self.epsilon <= 0.0 or self.clip_norm <= 0.0:
            raise ValueError(
                f"epsilon={self.epsilon}, clip_norm={self.clip_norm}: both must be positive"
            )


class Adam:
    """Moments of Adam (Kingma & Ba 2015) for every parameter at once.

    exp_avg, exp_avg_sq: [buffer.size] float32, num_steps: float64 scalar, all on the buffer's device.
    The published form of its state is that of torch.optim.Adam with one group: state keyed by the position of the
    parameter, which is its line in the state dict.
    """

    def __init__(self, buffer: ParameterBuffer) -> None:
        self._buffer = buffer
        self.exp_avg = torch.zeros_like(buffer.values)
        self.exp_avg_sq = torch.zeros_like(buffer.values)
        # float64: 1 - 0.999 in float32 is already wrong in the fifth digit
        self.num_steps = torch.zeros((), dtype=torch.float64, device=buffer.values.device)

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore moments and count from the form above, or from torch.optim.Adam itself.

        Raises ValueError if the number of parameters or a shape differs.
        """
        buffer = self._buffer
        positions = [
            position for group in state_dict["param_groups"] for position in group["params"]
        ]
        if len(positions) != len(buffer.names):
            raise ValueError(
                f"optimizer state has {len(positions)} parameters, the model has {len(buffer.names)}; "
                "the checkpoint belongs to another model"
            )
        self.exp_avg.zero_()
        self.exp_avg_sq.zero_()
        counts = set()
        for position, name in zip(positions, buffer.names, strict=True):
            entry = state_dict["state"].get(position)
            if entry is None:
                continue  # torch keeps no state for a parameter that never had a gradient
            counts.add(float(entry["step"]))
            for key, flat in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
                buffer.copy_in(flat, name, entry[key])
        if len(counts) > 1:
            raise ValueError(
                f"optimizer state has parameters at different steps {sorted(counts)}; expected one"
            )
        self.num_steps.fill_(counts.pop() if counts else 0.0)


def adam_state_dict(
    config: OptimizerConfig,
    first_moments: Mapping[str, Tensor],
    second_moments: Mapping[str, Tensor],
    *,
    num_steps: float,
    learning_rate: float,
) -> dict[str, Any]:
    """The form that torch.optim.Adam.load_state_dict accepts, from moments by parameter name in the order of the model; copies."""
    state = {
        position: {
            "step": torch.tensor(num_steps, dtype=torch.float32),
            "exp_avg": first_moments[name].clone(),
            "exp_avg_sq": second_moments[name].clone(),
        }
        for position, name in enumerate(first_moments)
    }
    group = {
        "lr": learning_rate,
        "betas": (config.beta_1, config.beta_2),
        "eps": config.epsilon,
        "weight_decay": 0,
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": None,
        "decoupled_weight_decay": False,
        "params": list(range(len(first_moments))),
    }
    return {"state": state, "param_groups": [group]}
