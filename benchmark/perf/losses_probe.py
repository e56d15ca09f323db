"""Trains a preset for some steps in a process of its own, and prints a line of JSON for every step and every evaluation.

    python -m benchmark.perf.losses_probe SETTINGS

SETTINGS is JSON: preset, data_dir, output_dir (a folder that exists), steps, seed, kernels, precision, graphs, pads (true: samples are
padded to the crop's size, whatever the preset does), nudge (largest relative change of a weight at the start), nudge_seed (null: none).
What a run says goes to standard error. Lines: {"loss", "gradient_norm"} or {"step", "lddt_ca"}, and at the end {"device",
"seconds_per_step", "num_eager_steps"}.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmark.presets import build_preset
from openfold_opt.kernels.select import KernelConfig
from openfold_opt.train.build_run import RunPaths, build_model
from openfold_opt.train.checkpoint import CheckpointConfig
from openfold_opt.train.config import RunConfig
from openfold_opt.train.data_source import DataSource, ShardDataSource
from openfold_opt.train.errors import NonFiniteError, SetupError
from openfold_opt.train.observer import (
    CompositeObserver,
    ConsoleObserver,
    EvaluationReport,
    NullObserver,
    RunInfo,
    RunSummary,
    StepReport,
)
from openfold_opt.train.trainer import Trainer


class _Lines(NullObserver):
    """Lines of JSON on standard output."""

    def __init__(self) -> None:
        self._device = ""

    def init_stop(self, info: RunInfo) -> None:
        self._device = info.device

    def step(self, report: StepReport) -> None:
        print(json.dumps({"loss": report.loss, "gradient_norm": report.gradient_norm}), flush=True)

    def evaluation(self, report: EvaluationReport) -> None:
        print(json.dumps({"step": report.step, "lddt_ca": report.lddt_ca}), flush=True)

    def run_end(self, summary: RunSummary) -> None:
        speed = {
            "seconds_per_step": summary.seconds_per_step,
            "num_eager_steps": summary.num_eager_steps,
        }
        print(json.dumps({"device": self._device} | speed), flush=True)


def main() -> int:
    """The exit code is 1 if the run could not begin or a loss is not finite; the message is on standard error."""
    settings = json.loads(sys.argv[1])
    return train(
        configuration(build_preset(settings["preset"]), settings),
        settings,
        data=ShardDataSource(Path(settings["data_dir"])),
    )


def configuration(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """The preset carried out as the settings say, to the last step. ValueError where that does not go together."""
    changes: dict[str, Any] = {"device": "cuda"} if settings["graphs"] else {}
    return dataclasses.replace(
        config,
        kernels=KernelConfig.all(settings["kernels"]),
        precision=settings["precision"],
        cuda_graphs=settings["graphs"],
        data=dataclasses.replace(
            config.data, pad_to_crop=config.data.pad_to_crop or settings["pads"]
        ),
        # nothing reaches 1, so no run ends before the others
        evaluation=dataclasses.replace(
            config.evaluation,
            every_steps=min(settings["steps"], config.evaluation.every_steps),
            target_lddt_ca=1.0,
        ),
        checkpoint=CheckpointConfig(every_steps=0),
        max_steps=settings["steps"],
        # one rank compares kernels; it need not make the batch of all ranks
        global_batch_size=None,
        **changes,
    )


def train(config: RunConfig, settings: dict[str, Any], *, data: DataSource) -> int:
    """The run; returns the exit code of the process."""
    paths = RunPaths(output_dir=Path(settings["output_dir"]))
    if settings["nudge_seed"] is not None:
        paths = dataclasses.replace(paths, init_checkpoint=paths.output_dir / "nudged.pt")
        weights = build_model(
            config, seed=settings["seed"], device=torch.device("cpu")
        ).state_dict()
        torch.save(
            perturbed(weights, perturb=settings["nudge"], seed=settings["nudge_seed"]),
            paths.init_checkpoint,
        )
    observer = CompositeObserver(
        _Lines(), ConsoleObserver(log_every_steps=config.log_every_steps, stream=sys.stderr)
    )
    try:
        Trainer(config, data=data, paths=paths, seed=settings["seed"], observer=observer).run()
    except (SetupError, NonFiniteError):
        # the observer has said it
        return 1
    return 0


def perturbed(
    weights: dict[str, torch.Tensor], *, perturb: float, seed: int
) -> dict[str, torch.Tensor]:
    """Each weight times 1 + u, u uniform between -nudge and nudge; zeros stay zeros."""
    generator = torch.Generator().manual_seed(seed)
    changed = {}
    for name, value in weights.items():
        # in float64, as 1 + u may lie between two float32 numbers
        factor = 1.0 + perturb * (
            2.0 * torch.rand(value.shape, generator=generator, dtype=torch.float64) - 1.0
        )
        changed[name] = (value.double() * factor).to(value.dtype)
    return changed


if __name__ == "__main__":
    sys.exit(main())
