"""RunConfig: everything that decides what a run does, except which data and which seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from openfold_opt.kernels.select import KernelConfig
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.config import ModelConfig
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.checkpoint import CheckpointConfig
from openfold_opt.train.evaluation import EvaluationConfig
from openfold_opt.train.optimizer import OptimizerConfig
from openfold_opt.train.precision import check_precision
from openfold_opt.train.schedule import ScheduleConfig
from openfold_opt.train.selection import DataSelectionConfig
from openfold_opt.train.weight_average import WeightAverageConfig

CLOSED_DIVISION_MARKS = ("mathematical", "free", "implementation")
DEVICES = ("auto", "cpu", "cuda")

_BATCH_FIELDS = ("local_batch_size", "accumulation", "global_batch_size")

_MATHEMATICAL = {"category": "mathematical"}
_FREE = {"category": "free"}
_IMPLEMENTATION = {"category": "implementation"}


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The whole of a run; the defaults are the benchmark's, as are those of every part."""

    model: ModelConfig = ModelConfig()
    loss: LossConfig = LossConfig()
    data: DataConfig = DataConfig()
    loader: LoaderConfig = LoaderConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    weight_average: WeightAverageConfig = WeightAverageConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    selection: DataSelectionConfig = DataSelectionConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    parallel: ParallelConfig = ParallelConfig()
    kernels: KernelConfig = KernelConfig()
    local_batch_size: int = field(default=1, metadata=_FREE)
    """Samples that go through the model together on a data-parallel rank."""
    accumulation: int = field(default=1, metadata=_FREE)
    """Micro-batches of an optimizer step; derived at start where global_batch_size is stated."""
    global_batch_size: int | None = field(default=None, metadata=_FREE)
    """Samples of an optimizer step: data-parallel size x local batch x accumulation.

    Every preset states it. None takes what the ranks make with the stated accumulation.
    """
    max_steps: int = field(default=2000, metadata=_IMPLEMENTATION)
    """Optimizer steps after which the run ends, after a last evaluation, though the target was not reached."""
    use_dropout: bool = field(default=True, metadata=_MATHEMATICAL)
    """False trains without any dropout, whatever the rates of the model."""
    init_checkpoint_sha256: str | None = field(default=None, metadata=_MATHEMATICAL)
    """The run refuses to start from a file of another SHA-256; None takes any file, or random weights."""
    precision: str = field(default="tf32", metadata=_IMPLEMENTATION)
    """"fp32", "tf32", or "bf16" for the trunk with float32 weights, structure module, heads and losses."""
    recompute: bool | str = field(default=True, metadata=_IMPLEMENTATION)
    """Blocks keep their inputs only and are computed again in the backward pass: all, none, or "auto", as few as make the rest fit."""
    cuda_graphs: bool = field(default=False, metadata=_IMPLEMENTATION)
    """Steps are recorded as CUDA graphs before the clock runs; needs a GPU and samples of one shape."""
    warm_up: bool = field(default=True, metadata=_IMPLEMENTATION)
    """Make a step for each number of recycling passes on made-up data before the clock runs."""
    device: str = field(default="cuda", metadata=_IMPLEMENTATION)
    """"cuda", "cpu", or in presets for play "auto": a GPU if there is one."""
    log_every_steps: int = field(default=10, metadata=_IMPLEMENTATION)
    """Steps between two progress lines."""
    torch_threads: int | None = field(default=None, metadata=_IMPLEMENTATION)
    """Threads of PyTorch on the CPU per rank; None leaves its default."""

    def __post_init__(self) -> None:
        for name in ("local_batch_size", "accumulation", "max_steps", "log_every_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.torch_threads is not None and self.torch_threads < 1:
            raise ValueError(f"torch_threads={self.torch_threads}: must be at least 1, or None")
        size = self.global_batch_size
        if size is not None and (size < 1 or size % self.local_batch_size):
            raise ValueError(
                f"global_batch_size={size}: expected a positive multiple of "
                f"local_batch_size={self.local_batch_size}"
            )
        if self.device not in DEVICES:
            raise ValueError(
                f"unknown device {self.device!r}; expected one of {', '.join(DEVICES)}"
            )
        if not self.data.pad_to_crop and self.local_batch_size != 1:
            raise ValueError(
                f"local_batch_size={self.local_batch_size} with data.pad_to_crop=False: samples of different lengths "
                "do not make a batch; set one of the two otherwise"
            )
        if self.cuda_graphs and not (
            self.warm_up and self.data.pad_to_crop and self.device == "cuda"
        ):
            raise ValueError(
                'cuda_graphs=True goes with warm_up=True, data.pad_to_crop=True and device="cuda": graphs are recorded on made-up data '
                f"of the crop's size; found {self.warm_up}, {self.data.pad_to_crop} and {self.device!r}"
            )
        if self.recompute not in (True, False, "auto"):
            raise ValueError(f'recompute={self.recompute!r}: expected True, False or "auto"')
        check_precision(self.precision)


@dataclass(frozen=True, kw_only=True)
class ConfigField:
    """One leaf of a configuration tree."""

    path: str
    """Dotted, from the root: "data.crop_size"."""
    value: Any
    mark: str
    """One of CLOSED_DIVISION_MARKS."""


def config_fields(config: Any, *, prefix: str = "") -> Iterator[ConfigField]:
    """All leaves of a tree of config dataclasses, in the order of their definition.

    A class has one mark for all its fields, or none, and then each field has its own: a field added to such a class without a thought
    of the rules is an error. Raises ValueError for a class or a field without a valid mark, and for a field marked otherwise than its class.
    """
    of_class = getattr(type(config), "category", None)
    for item in dataclasses.fields(config):
        value, path = getattr(config, item.name), prefix + item.name
        if dataclasses.is_dataclass(value):
            yield from config_fields(value, prefix=path + ".")
            continue
        mark = item.metadata.get("category", of_class)
        if mark not in CLOSED_DIVISION_MARKS:
            raise ValueError(
                f"config field {path} is marked {mark!r}; expected one of {CLOSED_DIVISION_MARKS}"
            )
        if of_class not in (None, mark):
            raise ValueError(
                f"config field {path} is marked {mark!r} and its class {type(config).__name__} {of_class!r}; "
                "take the mark from the class and give each of its fields one"
            )
        yield ConfigField(path=path, value=value, mark=mark)


def config_as_dict(config: Any) -> dict[str, Any]:
    """The tree as nested dicts of plain values, fit for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def config_hash(config: RunConfig) -> str:
    """SHA-256 over all fields that change what is computed: a resumed run must have the same.

    Fields marked "implementation" are left out, so a run may resume with other kernels or step
    limits. So are the fields of the batch: the run compares the global batch itself.
    """
    leaves = {
        leaf.path: leaf.value
        for leaf in config_fields(config)
        if leaf.mark != "implementation" and leaf.path not in _BATCH_FIELDS
    }
    return hashlib.sha256(json.dumps(leaves, sort_keys=True, default=str).encode()).hexdigest()
