"""Tables of the roofline of a training step."""

from __future__ import annotations

from collections.abc import Iterable

from benchmark.perf.tools.roofline import Work, total
from benchmark.perf.tools.roofline_count import (
    MEAN,
    SMALL_COLLECTIVE_BYTES,
    KernelWork,
    RooflineMetrics,
)
from benchmark.perf.tools.timing_stats import table

_COLUMNS = ["launches", "GB", "TFLOP", "floor ms", "estimate ms"]


def format_roofline(preset: str, metrics: RooflineMetrics) -> str:
    """Format the tables: step, classes, modules, kernels and small collectives."""
    rates = metrics.rates
    parts = [
        f"step of {preset} on {metrics.device}, DAP {metrics.dap}: one sample, Triton kernels in "
        f"bf16, {metrics.num_recomputed_blocks} recomputed blocks, gradients accumulated; "
        "optimizer, gradient all-reduce and time of collectives not counted",
        f"assumed rates: {rates.bytes_per_second / 1e12:.2f} TB/s, "
        f"{rates.matmul_flops_per_second / 1e12:.0f} TFLOP/s, "
        f"{1e6 * rates.launch_seconds:.1f} us a launch; {metrics.num_sms} multiprocessors. "
        "Nothing is measured.",
        table(
            [[name, *_cells(work)] for name, work in metrics.steps.items()],
            header=["recycling iterations", *_COLUMNS],
        ),
    ]
    if any(kernel.launch_class for kernel in metrics.kernels):
        parts += ["by class, in a mean step", _classes(metrics)]
    parts += [
        "by module, in a mean step",
        _modules(metrics),
        "by kernel, in a mean step",
        _kernels(metrics),
    ]
    if metrics.dap > 1:
        parts += [
            f"collectives in which a rank sends less than {SMALL_COLLECTIVE_BYTES / 1e6:.0f} MB, "
            "in a mean step",
            _small_collectives(metrics),
        ]
    return "\n\n".join(parts)


def roofline_headline(preset: str, metrics: RooflineMetrics) -> str:
    """Summarize a mean step in one line."""
    mean = metrics.steps[MEAN]
    dap = f", DAP {metrics.dap}" if metrics.dap > 1 else ""
    return (
        f"{preset} on {metrics.device}{dap}, assumed rates: floor {mean.floor_seconds:.3f} s, "
        f"estimate {mean.estimate_seconds:.3f} s a step; {mean.launches:,.0f} launches, "
        f"{mean.bytes / 1e9:,.0f} GB, {mean.flops / 1e12:.1f} TFLOP"
    )


def _cells(work: Work) -> list[str]:
    return [
        f"{work.launches:,.0f}",
        f"{work.bytes / 1e9:,.2f}",
        f"{work.flops / 1e12:,.3f}",
        f"{1e3 * work.floor_seconds:,.2f}",
        f"{1e3 * work.estimate_seconds:,.2f}" if work.estimate_seconds else "-",
    ]


def _classes(metrics: RooflineMetrics) -> str:
    rows = []
    for name, efficiency in metrics.efficiencies.items():
        work = total(kernel.work for kernel in metrics.kernels if kernel.launch_class == name)
        shares = [f"{efficiency.memory:.2f}", f"{efficiency.matrix:.3f}"]
        rows.append([name, *shares, *_cells(work)])
    return table(rows, header=["class", "of bandwidth", "of matrix rate", *_COLUMNS])


def _modules(metrics: RooflineMetrics) -> str:
    names = dict.fromkeys(each.module for each in metrics.modules)
    rows = []
    for name in names:
        directions = {each.direction: each.work for each in metrics.modules if each.module == name}
        forward, backward = (directions.get(kind, Work()) for kind in ("forward", "backward"))
        floors = [f"{1e3 * work.floor_seconds:,.2f}" for work in (forward, backward)]
        rows.append([name, *floors, *_cells(forward.plus(backward))])
    return table(rows, header=["module", "forward ms", "backward ms", *_COLUMNS])


def _kernels(metrics: RooflineMetrics) -> str:
    rows = [
        [
            f"{kernel.kernel} {kernel.signature}".strip(),
            kernel.launch_class or "-",
            *_code_cells(kernel),
            _programs(kernel),
            *_cells(kernel.work),
        ]
        for kernel in metrics.kernels
    ]
    code = ["HGMMA", "HMMA", "FFMA", "registers", "shared", "spills"]
    return table(rows, header=["kernel", "class", *code, "programs", *_COLUMNS])


def _code_cells(kernel: KernelWork) -> list[str]:
    code = kernel.code
    if code is None:
        return ["-"] * 6
    values: Iterable[int] = (
        code.wgmma,
        code.mma,
        code.fma,
        code.registers,
        code.shared_bytes,
        code.spills,
    )
    return [str(value) for value in values]


def _programs(kernel: KernelWork) -> str:
    low, high = kernel.fewest_programs, kernel.most_programs
    if low is None:
        return "-"
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _small_collectives(metrics: RooflineMetrics) -> str:
    small = [each for each in metrics.collectives if each.sent_bytes < SMALL_COLLECTIVE_BYTES]
    rows = [
        [f"{each.what}, {each.kind}", f"{each.sent_bytes:,}", f"{each.calls:,.1f}"]
        for each in small
    ]
    everything = sum(each.calls for each in metrics.collectives)
    rows.append([f"sum, of {everything:,.1f} calls", "", f"{sum(x.calls for x in small):,.1f}"])
    return table(rows, header=["collective", "bytes sent by a rank", "calls"])
