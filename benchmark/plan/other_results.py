"""Results of other publications, predicted with factors of the MLPerf HPC logs alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmark.command_line import BenchmarkError
from benchmark.plan.fitting import BENCHMARK_SHAPE, fit_factors
from benchmark.plan.published import Published
from benchmark.plan.scaling_curve import speedup
from benchmark.plan.step_counts import NVIDIA, REFERENCE, CountTable
from benchmark.plan.step_model import Factors, Layout, StepTime, predict_step
from benchmark.plan.systems import load_system

_SCALEFOLD = "ScaleFold (recalled)"
_FIGURE_1 = "NVIDIA's blog, figure 1"
_FASTFOLD = "FastFold, abstract; kernels of NVIDIA's code"
_FASTFOLD_GPU = "a100_40_sxm"
FINE_TUNING_SHAPE = "crop 384, 508 clusters, 5120 extra, 4 templates, 48 blocks, c_m 256, c_z 128"
"""Samples of the preset `finetuning`."""


@dataclass(frozen=True, kw_only=True)
class OtherRow:
    """One published number."""

    title: str
    measured: float
    predicted: float
    source: str

    @property
    def error(self) -> float:
        """Relative error."""
        return self.predicted / self.measured - 1


def other_rows(results: Sequence[Published], table: CountTable) -> tuple[list[OtherRow], list[str]]:
    """Return the comparisons, and why others are left out."""
    factors = fit_factors(results, table)
    model = _Model(table, factors)
    rows, notes = [], []
    for title, measured, source, predict in _CASES:
        try:
            rows.append(
                OtherRow(title=title, measured=measured, predicted=predict(model), source=source)
            )
        except BenchmarkError as error:
            notes.append(f"{title}: {error}")
    return rows, notes


class _Model:
    def __init__(self, table: CountTable, factors: Factors) -> None:
        self._table, self._factors = table, factors

    def step(self, system: str, layout: Layout, shape: str = BENCHMARK_SHAPE) -> StepTime:
        """Return the parts of a step."""
        counts = self._table.find(code=layout.code, shape=shape, dap=layout.dap)
        return predict_step(counts, load_system(system), layout, self._factors)

    def seconds(self, system: str, layout: Layout) -> float:
        """Return the seconds of a step with samples of the benchmark."""
        return self.step(system, layout).total

    def speedup(self, layout: Layout) -> float:
        """Return samples per second against the MLCommons reference on eight H100."""
        return speedup(layout, self._table, self._factors)

    def fine_tuning_efficiency(self, layout: Layout, alone: Layout) -> float:
        """Return the samples per second of a GPU against those in a smaller layout."""
        rates = [
            each.batch / each.num_gpus / self.step(_FASTFOLD_GPU, each, FINE_TUNING_SHAPE).total
            for each in (layout, alone)
        ]
        return rates[0] / rates[1]

    def fine_tuning_operations(self) -> float:
        """Return the operations of one pass with gradient of a sample, without recomputation."""
        counts = self._table.find(code=NVIDIA, shape=FINE_TUNING_SHAPE, dap=4)
        return counts.dap * counts.total_flops[0]


_REFERENCE_128 = Layout(code=REFERENCE, num_gpus=128)


def _nvidia(gpus: int, dap: int) -> Layout:
    return Layout(code=NVIDIA, num_gpus=gpus, dap=dap)


_CASES: tuple[tuple[str, float, str, Callable[[_Model], float]], ...] = (
    *(
        (
            f"step on {128 * dap} H100, DAP {dap}, s",
            seconds,
            _SCALEFOLD,
            lambda model, dap=dap: model.seconds("h100_sxm", _nvidia(128 * dap, dap)),
        )
        for dap, seconds in ((1, 1.80), (2, 1.12), (4, 0.75), (8, 0.65))
    ),
    (
        "step on 256 A100, DAP 2, s",
        1.88,
        _SCALEFOLD,
        lambda model: model.seconds("a100_80_sxm", _nvidia(256, 2)),
    ),
    (
        "reference on 128 A100, s",
        6.76,
        _SCALEFOLD,
        lambda model: model.seconds("a100_80_sxm", _REFERENCE_128),
    ),
    (
        "reference on 128 H100, s",
        4.07,
        _SCALEFOLD,
        lambda model: model.seconds("h100_sxm", _REFERENCE_128),
    ),
    (
        "OpenFold with DAP 4 on 512 H100, against 8",
        40.0,
        _FIGURE_1,
        lambda model: model.speedup(Layout(code=REFERENCE, num_gpus=512, dap=4)),
    ),
    (
        "optimized with DAP 8 on 2,048 H100, against OpenFold on 8",
        180.0,
        _FIGURE_1,
        lambda model: model.speedup(_nvidia(2048, 8)),
    ),
    *(
        (
            f"BioNeMo's OpenFold on 128 A100, {stage}, s",
            seconds,
            "BioNeMo's documentation, float32; kernels of the reference",
            lambda model, shape=shape: model.step("a100_80_sxm", _REFERENCE_128, shape).total,
        )
        for stage, seconds, shape in (
            ("initial training", 7.28, BENCHMARK_SHAPE),
            ("fine-tuning", 24.91, FINE_TUNING_SHAPE),
        )
    ),
    (
        "FastFold, fine-tuning on 512 A100, DAP 4, s",
        4.15,
        "FastFold (recalled); kernels of NVIDIA's code",
        lambda model: model.step(_FASTFOLD_GPU, _nvidia(512, 4), FINE_TUNING_SHAPE).total,
    ),
    (
        "FastFold, fine-tuning: TFLOP of a sample",
        6.02e3 * 4.15 / 128,
        "FastFold: 6.02 PFLOP/s (abstract), 4.15 s a step of 128 (recalled)",
        lambda model: model.fine_tuning_operations() / 1e12,
    ),
    (
        "FastFold, 512 A100 with DAP 4: efficiency against 1 GPU",
        0.901,
        f"{_FASTFOLD}; without DAP, all blocks recomputed",
        lambda model: model.fine_tuning_efficiency(_nvidia(512, 4), _nvidia(1, 1)),
    ),
    (
        "FastFold, 512 A100 with DAP 4: efficiency against 4 GPUs",
        0.901,
        f"{_FASTFOLD}; against one group",
        lambda model: model.fine_tuning_efficiency(_nvidia(512, 4), _nvidia(4, 4)),
    ),
)
"""Title, measured value, source, prediction."""
