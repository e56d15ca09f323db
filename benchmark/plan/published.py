"""Published results of MLPerf HPC v3.0, to check the model against and to fit its factors."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from benchmark.command_line import BenchmarkError
from benchmark.perf.tools.perf_record import from_json
from benchmark.plan.step_counts import NVIDIA, REFERENCE

STORED = Path(__file__).with_name("published.json")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How a published result was run, as far as its logs and sources say."""

    title: str
    system: str
    """Name of a system that ships."""
    code: str
    num_gpus: int
    dap: int = 1
    evaluation_ranks: int = 0
    """Ranks that only evaluate; 0: the training ranks stop and evaluate."""
    local_batch: int = 1
    accumulation: int = 1
    """Micro-steps of an optimizer step."""
    evaluation_steps: int = 40
    """Optimizer steps between evaluations."""

    @property
    def batch(self) -> int:
        """Samples of an optimizer step."""
        ranks = (self.num_gpus - self.evaluation_ranks) // self.dap
        return ranks * self.local_batch * self.accumulation


SETUPS = {
    "NVIDIA__eos_n260_ngc23.09_pytorch__strong": Setup(
        title="NVIDIA, 2,080 H100",
        system="h100_sxm",
        code=NVIDIA,
        num_gpus=2080,
        dap=8,
        evaluation_ranks=32,
    ),
    "HPE+LBNL__perlmutter_224x4__strong": Setup(
        title="HPE+LBNL, 896 A100",
        system="perlmutter",
        code=NVIDIA,
        num_gpus=896,
        dap=4,
        evaluation_ranks=24,
    ),
    "NVIDIA__eos_n256_ngc23.09_pytorch__weak": Setup(
        title="NVIDIA, 128 H100",
        system="h100_sxm",
        code=NVIDIA,
        num_gpus=128,
    ),
    "TACC__lonestar6-pytorch__strong": Setup(
        title="TACC, 96 A100",
        system="lonestar6",
        code=REFERENCE,
        num_gpus=96,
        # The log counts micro-steps of 96 samples. The optimizer steps every second one.
        accumulation=2,
        evaluation_steps=20,
    ),
    "Clemson__18xR750-2xA100-PCIe-80GB__strong": Setup(
        title="Clemson, 36 A100",
        system="a100_80_pcie",
        code=REFERENCE,
        num_gpus=36,
        local_batch=4,
    ),
}
"""Folder of the logs -> how the runs were set up."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """What the logs of a published result say."""

    folder: str
    micro_step_seconds: float
    """Median over the training intervals after the first of each run."""
    start_seconds: float
    """Median over the runs of what remains of a run without its steps, pauses and last evaluation.

    It has the preparation of the data set, the first steps and the first evaluation, which fill
    caches and compile.
    """
    evaluation_seconds: float
    """Median of an evaluation."""
    pause_seconds: float
    """Median time from the end of a training interval to the start of the next."""
    wait_seconds: float | None
    """Mean wait for a batch on the first rank; None if it was not logged."""
    minutes: list[float]
    """run_start to run_stop, of each run."""
    samples: list[int]
    """Samples of each run before its last evaluation."""

    @property
    def setup(self) -> Setup:
        """How the runs were set up."""
        return SETUPS[self.folder]


@lru_cache(maxsize=1)
def published_results() -> tuple[Published, ...]:
    """Return the stored results."""
    return tuple(from_json(list[Published], json.loads(STORED.read_text(encoding="utf-8"))))


def read_published(folder: Path) -> list[Published]:
    """Read the results from a folder that has the folders of SETUPS.

    Raises:
        BenchmarkError: A folder is missing, or none of its logs is one of a complete run.
    """
    from benchmark.results.gather import gather

    results = []
    for name in SETUPS:
        sets = gather([folder / name]).sets if (folder / name).is_dir() else []
        if len(sets) != 1:
            raise BenchmarkError(f"{folder / name}: expected result_*.txt of MLPerf HPC v3.0")
        results.append(_summarize(name, sets[0].runs))
    return results


def _summarize(name: str, runs: Sequence) -> Published:
    from benchmark.results.metrics import step_seconds

    step = statistics.median(x for run in runs for x in step_seconds(run)[1:])
    evaluations = [each.stop - each.start for run in runs for each in run.evaluations]
    waits = [wait for run in runs for wait in run.data_waits[1:]]
    pauses = [
        after.start - before.stop
        for run in runs
        for before, after in zip(run.intervals, run.intervals[1:])
    ]
    evaluation, pause = statistics.median(evaluations), statistics.median(pauses)
    starts = []
    for run in runs:
        steps = run.samples / run.batch
        later = steps * step + (len(run.evaluations) - 1) * pause + evaluation
        starts.append(60 * run.minutes - later)
    return Published(
        folder=name,
        micro_step_seconds=round(step, 5),
        start_seconds=round(statistics.median(starts), 2),
        evaluation_seconds=round(evaluation, 2),
        pause_seconds=round(pause, 2),
        wait_seconds=round(statistics.fmean(waits), 4) if waits else None,
        minutes=[round(run.minutes, 4) for run in runs],
        samples=[run.samples for run in runs],
    )
