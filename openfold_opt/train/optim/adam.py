"""The state of Adam on the flat parameter buffer. The kernel `weight_update` makes the step."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from openfold_opt.train.optim.parameter_buffer import ParameterBuffer

ClipPer = Literal["batch", "sample"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Adam without weight decay, after gradient clipping (AF2 suppl. 1.11.3)."""

    category: ClassVar[str] = "mathematical"

    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    """Added to the square root of the bias-corrected second moment."""
    clip_norm: float = 0.1
    """Maximum global norm of a gradient."""
    clip_per: ClipPer = "batch"
    """Gradients that are clipped: that of the global batch, as in the benchmark, or that of each
    sample before they are averaged, as in AF2. "sample" requires local_batch_size=1."""

    def __post_init__(self) -> None:
        if not (0.0 <= self.beta_1 < 1.0 and 0.0 <= self.beta_2 < 1.0):
            raise ValueError(f"beta_1={self.beta_1}, beta_2={self.beta_2}: both must lie in [0, 1)")
        if self.epsilon <= 0.0 or self.clip_norm <= 0.0:
            raise ValueError(
                f"epsilon={self.epsilon}, clip_norm={self.clip_norm}: both must be positive"
            )
        if self.clip_per not in get_args(ClipPer):
            raise ValueError(
                f"clip_per={self.clip_per!r}: expected one of {', '.join(get_args(ClipPer))}"
            )


class Adam:
    """Moments of Adam (Kingma & Ba 2015) for all parameters in flat tensors.

    exp_avg, exp_avg_sq: [buffer.size] float32; num_steps: float64 scalar; all on the device of the
    buffer. State dicts have the form of torch.optim.Adam with one parameter group, whose keys are
    the positions of the parameters in the state dict of the model.
    """

    def __init__(self, buffer: ParameterBuffer) -> None:
        self._buffer = buffer
        self.exp_avg = torch.zeros_like(buffer.values)
        self.exp_avg_sq = torch.zeros_like(buffer.values)
        # float64 for the bias correction 1 - beta_2 ** num_steps: in float32, 1 - 0.999 is wrong in
        # the fifth digit.
        self.num_steps = torch.zeros((), dtype=torch.float64, device=buffer.values.device)

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any], *, without: Collection[str] = ()) -> None:
        """Restore moments and step count from a state dict in the form of torch.optim.Adam.

        without: names of parameters that the state dict does not count; their moments become zero.

        Raises ValueError if the number of parameters or a shape differs.
        """
        buffer = self._buffer
        names = [name for name in buffer.names if name not in without]
        positions = [
            position for group in state_dict["param_groups"] for position in group["params"]
        ]
        if len(positions) != len(names):
            raise ValueError(
                f"optimizer state has {len(positions)} parameters, the model has "
                f"{len(names)}; the checkpoint belongs to another model"
            )
        self.exp_avg.zero_()
        self.exp_avg_sq.zero_()
        counts = set()
        for position, name in zip(positions, names, strict=True):
            entry = state_dict["state"].get(position)
            if entry is None:
                continue  # PyTorch has no state for a parameter that never had a gradient.
            counts.add(float(entry["step"]))
            for key, flat in (("exp_avg", self.exp_avg), ("exp_avg_sq", self.exp_avg_sq)):
                buffer.copy_in(flat, name, entry[key])
        if len(counts) > 1:
            raise ValueError(
                f"optimizer state has parameters at different steps {sorted(counts)}; expected the "
                "same step for all"
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
    """Return the state in the form that torch.optim.Adam.load_state_dict accepts.

    first_moments, second_moments: by parameter name, in model order; they are copied.
    """
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
