"""Train a preset in a separate process and print its losses, gradient norms and evaluations.

    python -m benchmark.perf.subprocesses.losses_probe SETTINGS

SETTINGS is the JSON of a RunSettings. Prints {"step": N} after each step, and at the end the JSON
of a Side. The messages of the run go to standard error.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmark.perf.tools.loss_windows import Side
from benchmark.perf.tools.perf_record import from_json, to_json
from benchmark.presets import build_preset
from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.train.build_run import RunPaths, build_model
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.console_observer import ConsoleObserver
from openfold_opt.train.data_source import DataSource, ShardDataSource
from openfold_opt.train.errors import NonFiniteError, SetupError
from openfold_opt.train.observer import (
    CompositeObserver,
    EvaluationReport,
    NullObserver,
    RunInfo,
    RunSummary,
    StepReport,
)
from openfold_opt.train.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What to train, and how."""

    preset: str
    data_dir: str
    output_dir: str = ""
    """Existing folder for the files of the run."""
    steps: int
    seed: int
    """Seed of weights, samples and dropout."""
    kernels: str
    precision: str
    graphs: bool
    """Whether to use CUDA graphs."""
    pads: bool
    """Whether to pad samples to the crop size even if the preset does not."""
    perturbation: float
    """Largest relative perturbation of a weight at the start."""
    perturbation_seed: int | None = None
    """Seed of the perturbation; None: no perturbation."""


class _JsonLines(NullObserver):
    """Observer that prints lines of JSON to standard output."""

    def __init__(self) -> None:
        self._device = ""
        self._losses: list[float] = []
        self._gradient_norms: list[float] = []
        self._evaluations: list[list[float]] = []

    def init_stop(self, info: RunInfo) -> None:
        self._device = info.device

    def step(self, report: StepReport) -> None:
        self._losses.append(report.loss)
        self._gradient_norms.append(report.gradient_norm)
        print(json.dumps({"step": report.step}), flush=True)

    def evaluation(self, report: EvaluationReport) -> None:
        self._evaluations.append([report.step, report.lddt_ca])

    def run_end(self, summary: RunSummary) -> None:
        side = Side(
            losses=self._losses,
            gradient_norms=self._gradient_norms,
            evaluations=self._evaluations,
            device=self._device,
            seconds_per_step=summary.seconds_per_step,
            num_eager_steps=summary.num_eager_steps,
        )
        print(json.dumps(to_json(side)), flush=True)


def main() -> int:
    """Train with the settings of the command line.

    Returns:
        Exit code: 1 if the run could not start or a loss is not finite. The message is on standard
        error.
    """
    settings = from_json(RunSettings, json.loads(sys.argv[1]))
    return train(
        configuration(build_preset(settings.preset), settings),
        settings,
        data=ShardDataSource(Path(settings.data_dir)),
    )


def configuration(config: RunConfig, settings: RunSettings) -> RunConfig:
    """Return the preset with the kernels, precision and number of steps of the settings.

    Raises:
        ValueError: The settings do not fit the preset.
    """
    changes: dict[str, Any] = {"device": "cuda"} if settings.graphs else {}
    return dataclasses.replace(
        config,
        kernels=KernelConfig.all(settings.kernels),
        precision=settings.precision,
        cuda_graphs=settings.graphs,
        data=dataclasses.replace(config.data, pad_to_crop=config.data.pad_to_crop or settings.pads),
        # lDDT-Ca never reaches 1, so every run makes all its steps.
        evaluation=dataclasses.replace(
            config.evaluation,
            every_steps=min(settings.steps, config.evaluation.every_steps),
            target_lddt_ca=1.0,
        ),
        checkpoint=CheckpointConfig(every_steps=0),
        max_steps=settings.steps,
        # One rank is enough to compare kernels, so the preset's global batch size is not required.
        global_batch_size=None,
        # Train without phases, because each phase has another batch and another end.
        phases=(),
        **changes,
    )


def train(config: RunConfig, settings: RunSettings, *, data: DataSource) -> int:
    """Train, and return the exit code of the process."""
    paths = RunPaths(output_dir=Path(settings.output_dir))
    if settings.perturbation_seed is not None:
        checkpoint = paths.output_dir / "perturbed.pt"
        paths = dataclasses.replace(paths, init_checkpoint=checkpoint)
        model = build_model(config, seed=settings.seed, device=torch.device("cpu"))
        weights = perturbed(
            model.state_dict(), perturb=settings.perturbation, seed=settings.perturbation_seed
        )
        torch.save(weights, checkpoint)
    observer = CompositeObserver(
        _JsonLines(), ConsoleObserver(log_every_steps=config.log_every_steps, stream=sys.stderr)
    )
    try:
        Trainer(config, data=data, paths=paths, seed=settings.seed, observer=observer).run()
    except (SetupError, NonFiniteError):
        # The observer has printed the error.
        return 1
    return 0


def perturbed(
    weights: dict[str, torch.Tensor], *, perturb: float, seed: int
) -> dict[str, torch.Tensor]:
    """Return each weight times 1 + u, with u uniform in [-perturb, perturb]; zeros stay zero."""
    generator = torch.Generator().manual_seed(seed)
    changed = {}
    for name, value in weights.items():
        # Use float64, because 1 + u may not be representable in float32.
        factor = 1.0 + perturb * (
            2.0 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1.0
        )
        changed[name] = (value.double() * factor).to(value.dtype)
    return changed


if __name__ == "__main__":
    sys.exit(main())
