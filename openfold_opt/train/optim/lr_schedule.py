"""Learning rate schedule."""

from __future__ import annotations

from dataclasses import dataclass, field

_MATHEMATICAL = {"category": "mathematical"}
_FREE = {"category": "free"}


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Linear warm-up, then a constant rate with optional decays (AF2 suppl. 1.11.3).

    For example, warmup_steps=1000, decay_steps=(50_000,), decay_every_steps=50_000 and
    decay_factor=0.95: after the warm-up the rate is constant up to step 50,000; then it is
    multiplied by 0.95, and again after 100,000, 150,000, ... steps.
    """

    base_learning_rate: float = field(default=1e-3, metadata=_FREE)
    warmup_init_learning_rate: float = field(default=1e-5, metadata=_FREE)
    """Learning rate of step 1 if there is a warm-up."""
    warmup_steps: int = field(default=0, metadata=_FREE)
    """The first step with the base rate; 0: no warm-up."""
    decay_steps: tuple[int, ...] = field(default=(), metadata=_MATHEMATICAL)
    """After each of these steps, the rate is multiplied by decay_factor."""
    decay_every_steps: int | None = field(default=None, metadata=_MATHEMATICAL)
    """After the last of decay_steps, or from the start without them, the rate is also multiplied by
    decay_factor each time this many further steps are complete; None: it is not."""
    decay_factor: float = field(default=1.0, metadata=_MATHEMATICAL)

    def __post_init__(self) -> None:
        if (
            self.warmup_steps < 0
            or self.base_learning_rate < 0
            or self.warmup_init_learning_rate < 0
        ):
            raise ValueError(f"warm-up steps and learning rates must not be negative: {self}")
        self._check_decays()

    def _check_decays(self) -> None:
        if not 0.0 < self.decay_factor <= 1.0:
            raise ValueError(
                f"decay_factor={self.decay_factor}: expected above 0, at most 1 (the rate is "
                "multiplied by it)"
            )
        steps, every = self.decay_steps, self.decay_every_steps
        if any(later <= earlier for earlier, later in zip((0, *steps), steps)):
            raise ValueError(f"decay_steps={steps}: expected increasing steps of at least 1")
        if every is not None and every < 1:
            raise ValueError(f"decay_every_steps={every}: expected at least 1, or None")
        if every is not None and self.decay_factor == 1.0:
            raise ValueError(
                f"decay_every_steps={every} has no effect with decay_factor=1; set a factor below 1"
            )
        first = steps[0] if steps else every
        if first is not None and first < self.warmup_steps:
            raise ValueError(
                f"the first decay, after step {first}, is within the warm-up of "
                f"{self.warmup_steps} steps; choose a later decay or a shorter warm-up"
            )


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
    if config.decay_every_steps is not None:
        last = config.decay_steps[-1] if config.decay_steps else 0
        num_decays += max(step - 1 - last, 0) // config.decay_every_steps
    return config.base_learning_rate * config.decay_factor**num_decays
