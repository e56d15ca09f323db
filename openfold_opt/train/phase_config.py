"""PhaseConfig: what differs in one phase of a run with several phases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.loader.config import DataConfig
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.compiled_parts import CompiledPart
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.precision import Precision

_MATHEMATICAL = {"category": "mathematical"}
_FREE = {"category": "free"}
_IMPLEMENTATION = {"category": "implementation"}


@dataclass(frozen=True, kw_only=True)
class PhaseConfig:
    """A phase of a run. Fields that are None have the value of the run.

    Weights, moments of Adam, running average, sample stream and step count carry over from one
    phase to the next.
    """

    name: str = field(metadata=_IMPLEMENTATION)
    """Letters, digits, "_" and "-"; unique in the run."""
    steps: int = field(metadata=_FREE)
    """Optimizer steps of the phase, at most."""
    end_lddt_ca: float | None = field(default=None, metadata=_MATHEMATICAL)
    """The phase ends when an evaluation reaches this lDDT-Ca; None: after `steps`."""
    required_lddt_ca: float | None = field(default=None, metadata=_IMPLEMENTATION)
    """lDDT-Ca that an evaluation of the phase must reach, else the run stops; None: none."""
    required_by_step: int | None = field(default=None, metadata=_IMPLEMENTATION)
    """Step of the phase, counted from 1, by which required_lddt_ca must be reached.

    The first evaluation at or after this step decides. None: the last evaluation of the phase.
    """
    global_batch_size: int | None = field(default=None, metadata=_FREE)
    local_batch_size: int | None = field(default=None, metadata=_IMPLEMENTATION)
    dap_size: int | None = field(default=None, metadata=_IMPLEMENTATION)
    num_evaluation_ranks: int | None = field(default=None, metadata=_IMPLEMENTATION)
    kernels: KernelConfig | None = field(default=None, metadata=_IMPLEMENTATION)
    precision: Precision | None = field(default=None, metadata=_IMPLEMENTATION)
    recompute: bool | Literal["auto"] | None = field(default=None, metadata=_IMPLEMENTATION)
    compiled_parts: tuple[CompiledPart, ...] | None = field(default=None, metadata=_IMPLEMENTATION)
    cuda_graphs: bool | None = field(default=None, metadata=_IMPLEMENTATION)
    data: DataConfig | None = field(default=None, metadata=_MATHEMATICAL)
    """Sizes of the samples, such as crop and MSA."""
    loss: LossConfig | None = field(default=None, metadata=_MATHEMATICAL)
    schedule: ScheduleConfig | None = field(default=None, metadata=_MATHEMATICAL)
    """Learning rate by step of the phase, counted from 1. None: that of the run, by step of the
    run."""
    evaluate_every_steps: int | None = field(default=None, metadata=_MATHEMATICAL)
    """Steps of the run between evaluations."""

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("_", "").replace("-", "").isalnum():
            raise ValueError(
                f"phase name {self.name!r}: expected letters, digits, underscores and hyphens"
            )
        for name in (
            "steps",
            "required_by_step",
            "global_batch_size",
            "local_batch_size",
            "dap_size",
            "evaluate_every_steps",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"phase {self.name}: {name}={value}, expected at least 1")
        for name in ("end_lddt_ca", "required_lddt_ca"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value <= 1.0:
                raise ValueError(f"phase {self.name}: {name}={value}, expected above 0, at most 1")
        if (self.end_lddt_ca or 1.0) < (self.required_lddt_ca or 0.0):
            raise ValueError(
                f"phase {self.name}: end_lddt_ca={self.end_lddt_ca} ends the phase below "
                f"required_lddt_ca={self.required_lddt_ca}; expected at least that score"
            )
        if self.required_by_step is not None and (
            self.required_lddt_ca is None or self.required_by_step > self.steps
        ):
            raise ValueError(
                f"phase {self.name}: required_by_step={self.required_by_step} needs "
                f"required_lddt_ca (found {self.required_lddt_ca}) and may be at most "
                f"steps={self.steps}"
            )
