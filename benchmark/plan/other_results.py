"""Results of other publications, predicted with factors of the MLPerf HPC logs alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from benchmark.command_line import BenchmarkError
from benchmark.plan.fitting import BENCHMARK_SHAPE, fit_factors
from benchmark.plan.published import Published
from benchmark.plan.step_counts import NVIDIA, REFERENCE, CountTable
from benchmark.plan.step_model import Factors, Layout, predict_step
from benchmark.plan.systems import load_system

_SCALEFOLD = "ScaleFold (recalled)"
_FIGURE_1 = "NVIDIA's blog, figure 1"


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

    def step(self, system: str, layout: Layout) -> float:
        """Return the seconds of a step."""
        counts = self._table.find(code=layout.code, shape=BENCHMARK_SHAPE, dap=layout.dap)
        return predict_step(counts, load_system(system), layout, self._factors).total

    def speedup(self, layout: Layout) -> float:
        """Return samples per second against the MLCommons reference on eight H100."""
        eight = Layout(code=REFERENCE, num_gpus=8)
        before = eight.batch / self.step("h100_sxm", eight)
        return layout.batch / self.step("h100_sxm", layout) / before

    def data_parallel_efficiency(self, layout: Layout) -> float:
        """Return the speed of a rank on all GPUs over that on one DAP group."""
        alone = replace(layout, num_gpus=layout.dap)
        return self.step("a100_40_sxm", alone) / self.step("a100_40_sxm", layout)


def _nvidia(gpus: int, dap: int) -> Layout:
    return Layout(code=NVIDIA, num_gpus=gpus, dap=dap)


_CASES: tuple[tuple[str, float, str, Callable[[_Model], float]], ...] = (
    *(
        (
            f"step on {128 * dap} H100, DAP {dap}, s",
            seconds,
            _SCALEFOLD,
            lambda model, dap=dap: model.step("h100_sxm", _nvidia(128 * dap, dap)),
        )
        for dap, seconds in ((1, 1.80), (2, 1.12), (4, 0.75), (8, 0.65))
    ),
    (
        "step on 256 A100, DAP 2, s",
        1.88,
        _SCALEFOLD,
        lambda model: model.step("a100_80_sxm", _nvidia(256, 2)),
    ),
    (
        "reference on 128 A100, s",
        6.76,
        _SCALEFOLD,
        lambda model: model.step("a100_80_sxm", Layout(code=REFERENCE, num_gpus=128)),
    ),
    (
        "reference on 128 H100, s",
        4.07,
        _SCALEFOLD,
        lambda model: model.step("h100_sxm", Layout(code=REFERENCE, num_gpus=128)),
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
    (
        "FastFold's parallel efficiency, 512 A100, DAP 4",
        0.901,
        "FastFold, abstract; samples of 256, kernels of NVIDIA's code",
        lambda model: model.data_parallel_efficiency(_nvidia(512, 4)),
    ),
)
"""Title, measured value, source, prediction."""
