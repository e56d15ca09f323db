"""Counts of a training step: launches, bytes, operations and collectives, stored by command.

Tracing a step takes about half a minute, so a plan reads stored counts (step_counts.json, which
`plan counts --stored` writes). Similar launches are added up in groups.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchmark.command_line import BenchmarkError
from benchmark.json_file import read_json
from benchmark.perf.tools.perf_record import from_json
from benchmark.plan.system_checks import Range, check_line, check_number, check_whole

if TYPE_CHECKING:
    from openfold_opt.train.config import RunConfig

STORED = Path(__file__).with_name("step_counts.json")
PROJECT = "project"
REFERENCE = "mlcommons_reference"
NVIDIA = "nvidia_v3.0"
_TEXTS = ("what", "kind")
_SIZES: Range = (1, 10**12)
_NUMBERS: Range = (0, 10**18)


@dataclass(frozen=True, kw_only=True)
class LaunchGroup:
    """Similar launches of a rank. Numbers are means or sums over the step and may be fractions."""

    kind: str
    """Class of the launches, as in benchmark/perf/tools/roofline.py, for compute capability 90."""
    bytes: float
    """Bytes that one launch reads and writes."""
    flops: float
    """Operations of matrix products of one launch."""
    programs: int | None
    """Programs of one launch if they may not fill a GPU; None otherwise."""
    gradient: float
    """Launches of the last forward pass, the loss and the backward pass."""
    iteration: float
    """Launches of a recycling iteration."""
    block: float
    """Launches of the forward pass of one Evoformer block."""


@dataclass(frozen=True, kw_only=True)
class Collective:
    """Calls of one collective of a DAP group."""

    what: str
    kind: str
    sent_bytes: int
    """Bytes that a rank sends in each call."""
    gradient: float
    """Calls of the last forward pass and the backward pass."""
    iteration: float
    """Calls of a recycling iteration."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a step on a rank, with one sample."""

    state: int
    """Parameters, gradients, moments and average."""
    saved: int
    """Tensors saved for the backward pass, without recomputation."""
    saved_recomputed: int
    """The same if all blocks are recomputed."""
    block: int
    """What one Evoformer block that is not recomputed adds."""
    workspace: int
    graphs: int
    """CUDA graphs of a run; 0 without them."""


@dataclass(frozen=True, kw_only=True)
class CountSource:
    """Where counts come from."""

    command: str
    """What writes them again."""
    commit: str
    """Commit of the code that was traced."""
    date: str


@dataclass(frozen=True, kw_only=True)
class StepCounts:
    """A step of one code base with samples of one shape on one DAP size; one sample a rank."""

    source: CountSource

    code: str
    """PROJECT, REFERENCE or NVIDIA: which implementation was traced."""
    shape: str
    """Sizes of model and sample, from shape_name."""
    dap: int
    recomputes: bool
    """Whether the backward pass that was traced recomputes all blocks."""
    num_blocks: int
    """Evoformer blocks."""
    num_parameters: int
    launches: list[LaunchGroup]
    collectives: list[Collective]
    memory: Memory | None = None

    @property
    def name(self) -> tuple[str, str, int]:
        """Code base, shape and DAP size, which no other counts of a table have."""
        return (self.code, self.shape, self.dap)

    @property
    def total_flops(self) -> tuple[float, float]:
        """Operations of the pass with gradient and of a recycling iteration, on a rank."""
        return (
            sum(each.flops * each.gradient for each in self.launches),
            sum(each.flops * each.iteration for each in self.launches),
        )


@dataclass(frozen=True, kw_only=True)
class CountTable:
    """The stored counts."""

    steps: list[StepCounts]

    def find(self, *, code: str, shape: str, dap: int, preset: str = "PRESET") -> StepCounts:
        """Return the counts of a step.

        preset: what has this shape, for the command that an error names.

        Raises:
            BenchmarkError: They are not in the table.
        """
        for step in self.steps:
            if step.name == (code, shape, dap):
                return step
        sizes = sorted(step.dap for step in self.steps if (step.code, step.shape) == (code, shape))
        if sizes:
            raise BenchmarkError(
                f"no counts of {code} with DAP {dap} for {shape}; there are DAP {sizes}"
            )
        # An evaluation has no DAP.
        needed = " ".join(map(str, sorted({1, dap})))
        raise BenchmarkError(
            f"no counts of {code} for samples of the shape {shape}; write them with `python -m "
            f"benchmark plan counts --preset {shlex.quote(preset)} --code {code} --dap {needed} "
            "--out FILE`, and pass them with --counts FILE"
        )

    def dap_sizes(self, *, code: str, shape: str) -> list[int]:
        """Return the DAP sizes of a code base and a shape."""
        return sorted(step.dap for step in self.steps if (step.code, step.shape) == (code, shape))


@lru_cache(maxsize=4)
def read_table(path: Path = STORED) -> CountTable:
    """Read stored counts.

    Raises:
        BenchmarkError: The file cannot be read.
    """
    value = read_json(path, expected="counts that `plan counts` wrote")
    try:
        table = from_json(CountTable, value)
        for index, step in enumerate(table.steps):
            _check_step(f"steps[{index}]", step)
        return table
    except (ValueError, TypeError) as error:
        raise BenchmarkError(f"counts {path}: {error}; write them with `plan counts`") from error


def _check_step(where: str, step: StepCounts) -> None:
    """Raise ValueError that names a figure that no counts have."""
    for name in ("dap", "num_blocks", "num_parameters"):
        check_whole(f"{where}.{name}", getattr(step, name), _SIZES)
    if not step.launches:
        raise ValueError(f"{where}.launches is empty")
    parts = [(f"launches[{index}]", each) for index, each in enumerate(step.launches)]
    parts += [(f"collectives[{index}]", each) for index, each in enumerate(step.collectives)]
    parts += [] if step.memory is None else [("memory", step.memory)]
    for part, figures in parts:
        for name, value in vars(figures).items():
            if name in _TEXTS:
                check_line(f"{where}.{part}.{name}", value)
            elif name != "programs" or value is not None:
                check_number(f"{where}.{part}.{name}", value, _NUMBERS)


def shape_name(config: RunConfig) -> str:
    """Return the sizes that determine the launches of a sample, as one line."""
    data, model = config.data, config.model
    return (
        f"crop {data.crop_size}, {data.max_msa_clusters} clusters, {data.max_extra_msa} extra, "
        f"{data.max_templates} templates, {model.evoformer_stack.num_blocks} blocks, "
        f"c_m {model.c_m}, c_z {model.c_z}"
    )
