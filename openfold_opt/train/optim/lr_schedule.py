"""Learning rate schedule."""

from __future__ import annotations

from dataclasses import dataclass, field

_MATHEMATICAL = {"category": "mathematical"}
_FREE = {"category": "free"}


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up, then a constant rate with optional decays."""

    base_learning_rate: float = field(default=1e-3, metadata=_FREE)
    warmup_init_learning_rate: float = field(default=1e-5, metadata=_FREE)
    """Learning rate of step 1 if there is a warm-up."""
    warmup_steps: int = field(default=0, metadata=_FREE)
    """The first step with the base rate; 0: no warm-up."""
    decay_steps: tuple[int, ...] = field(default=(), metadata=_MATHEMATICAL)
    """After each of these steps, the rate is multiplied by decay_factor."""
    decay_factor: float = field(default=1.0, metadata=_MATHEMATICAL)

    def __post_init__(self) -> None:
        if (
            self.warmup_steps < 0
            or self.base_learning_rate < 0
            or self.warmup_init_learning_rate < 0
        ):
            raise ValueError(f"warm-up steps and learning rates must not be negative: {self}")


def learning_rate(config: ScheduleConfig, step: int) -> float:
    """Return the learning rate of an optimizer step, counted from 1.

    The warm-up rates are `warmup_steps` evenly spaced values, both ends included, rounded to ten
    decimals. Raises ValueError if step is less than 1.
    """
    if step < 1:
        raise ValueError(f"optimizer steps count from 1, found {step}")
    if step <= config.warmup_steps:
        fraction = (step - 1) / max(config.warmup_steps - 1, 1)
        span = config.base_learning_rate - config.warmup_init_learning_rate
        return round(config.warmup_init_learning_rate + fraction * span, 10)
    num_decays = sum(step > boundary for boundary in config.decay_steps)
    return config.base_learning_rate * config.decay_factor**num_decays
