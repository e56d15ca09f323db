"""The phases of a run, each with the complete configuration that it uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from openfold_opt.train.config import RunConfig
from openfold_opt.train.errors import SetupError
from openfold_opt.train.optim.lr_schedule import learning_rate
from openfold_opt.train.phase_config import PhaseConfig

ONLY_PHASE = "training"
"""Name of the phase of a run without phases."""
_COPIED = (
    "global_batch_size",
    "local_batch_size",
    "kernels",
    "precision",
    "recompute",
    "compiled_parts",
    "cuda_graphs",
    "data",
    "loss",
    "schedule",
)
"""Fields of PhaseConfig that replace the field of RunConfig with the same name."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A phase of a run."""

    index: int
    """From 0."""
    count: int
    """Number of phases of the run."""
    config: RunConfig
    """The configuration of the run in this phase; it has no phases itself."""
    settings: PhaseConfig
    first_sample: int
    """Number, from 0, of the first sample of the phase in the sample stream.

    If all phases before have their full number of steps, it is the number of samples that they
    use. Otherwise the stream skips the samples that they left unused.
    """
    has_own_schedule: bool
    is_declared: bool
    """Whether the configuration of the run has phases."""
    next_batch_size: int | None
    """Global batch of the next phase; None: this is the last one."""

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def title(self) -> str:
        """Name and position of the phase for messages."""
        return f"phase {self.name} ({self.index + 1} of {self.count})"

    @property
    def is_last(self) -> bool:
        return self.index == self.count - 1

    def learning_rate(self, steps_before: int) -> Callable[[int], float]:
        """Return the learning rate as a function of the step of the run.

        steps_before: number of steps of the run before the phase.
        """
        offset = steps_before if self.has_own_schedule else 0
        return lambda step: learning_rate(self.config.schedule, step - offset)


def phases_of(config: RunConfig) -> tuple[Phase, ...]:
    """Return the phases of a run. A run without phases has one, which ends at its target."""
    settings: Sequence[PhaseConfig] = config.phases or (
        PhaseConfig(
            name=ONLY_PHASE,
            steps=config.max_steps,
            end_lddt_ca=config.evaluation.target_lddt_ca,
        ),
    )
    configs = [_config_of(config, phase) for phase in settings]
    batches = [resolved.global_batch_size for resolved in configs]
    phases: list[Phase] = []
    first_sample = 0
    for index, phase in enumerate(settings):
        phases.append(
            Phase(
                index=index,
                count=len(settings),
                config=configs[index],
                settings=phase,
                first_sample=first_sample,
                has_own_schedule=phase.schedule is not None,
                is_declared=bool(config.phases),
                next_batch_size=batches[index + 1] if index + 1 < len(settings) else None,
            )
        )
        first_sample += phase.steps * (batches[index] or 0)
    return tuple(phases)


def find_phase(config: RunConfig, name: str) -> Phase:
    """Return the phase with a name, or with a number from 1. Raises SetupError if none has it."""
    phases = phases_of(config)
    for phase in phases:
        if name in (phase.name, str(phase.index + 1)):
            return phase
    names = ", ".join(phase.name for phase in phases)
    raise SetupError(f"this run has no phase {name!r}; its phases are {names}")


def _config_of(config: RunConfig, phase: PhaseConfig) -> RunConfig:
    """Return the configuration of the run with the fields of a phase replaced.

    Raises ValueError, which names the phase, if the fields do not fit together.
    """
    if not config.phases:
        return config
    changes = {name: getattr(phase, name) for name in _COPIED if getattr(phase, name) is not None}
    ranks = {
        name: getattr(phase, name)
        for name in ("dap_size", "num_evaluation_ranks")
        if getattr(phase, name) is not None
    }
    if phase.evaluate_every_steps is not None:
        changes["evaluation"] = replace(config.evaluation, every_steps=phase.evaluate_every_steps)
    try:
        return replace(config, phases=(), parallel=replace(config.parallel, **ranks), **changes)
    except ValueError as error:
        raise ValueError(f"phase {phase.name}: {error}") from error
