"""RunConfig: the complete configuration of a run, except the data directory and the seed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.loader.config import DataConfig, LoaderConfig
from openfold_opt.losses.config import LossConfig
from openfold_opt.model.compiled_parts import CompiledPart, check_part_names
from openfold_opt.model.config import ModelConfig
from openfold_opt.parallel.context import ParallelConfig
from openfold_opt.train.checkpoint.checkpoint_store import CheckpointConfig
from openfold_opt.train.dataset_split import DataSelectionConfig
from openfold_opt.train.evaluation.evaluator import EvaluationConfig
from openfold_opt.train.optim.adam import OptimizerConfig
from openfold_opt.train.optim.lr_schedule import ScheduleConfig
from openfold_opt.train.optim.sample_clipping import check_one_sample
from openfold_opt.train.optim.weight_average import WeightAverageConfig
from openfold_opt.train.phase_config import PhaseConfig
from openfold_opt.train.precision import Precision, check_precision

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

CATEGORIES = ("mathematical", "free", "implementation")
"""A field is fixed by the mathematics, free to tune, or without effect on the mathematics."""
Device = Literal["auto", "cpu", "cuda"]

_BATCH_FIELDS = ("local_batch_size", "accumulation", "global_batch_size")

_MATHEMATICAL = {"category": "mathematical"}
_FREE = {"category": "free"}
_IMPLEMENTATION = {"category": "implementation"}
_PARTS = {"has_parts": True}
"""Of a tuple of dataclasses, whose fields have categories of their own."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Configuration of a run. The defaults are those of the MLCommons reference."""

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
    """Samples in a micro-batch of a data-parallel rank."""
    accumulation: int = field(default=1, metadata=_FREE)
    """Micro-batches per optimizer step; derived at start if global_batch_size is set."""
    global_batch_size: int | None = field(default=None, metadata=_FREE)
    """Samples per optimizer step: data-parallel size x local batch x accumulation.

    Every preset sets it. None: it follows from the number of ranks and the accumulation.
    """
    max_steps: int = field(default=2000, metadata=_IMPLEMENTATION)
    """Optimizer steps after which the run ends, with a last evaluation, at the latest."""
    phases: tuple[PhaseConfig, ...] = field(default=(), metadata=_PARTS)
    """Phases of the run, in order; empty: one, which ends at evaluation.target_lddt_ca."""
    use_dropout: bool = field(default=True, metadata=_MATHEMATICAL)
    """False: train without dropout, regardless of the dropout rates of the model."""
    init_checkpoint_sha256: str | None = field(default=None, metadata=_MATHEMATICAL)
    """Required SHA-256 of the initial weights; None: any file, or random weights."""
    requires_init_checkpoint: bool = field(default=False, metadata=_MATHEMATICAL)
    """Whether a new run is refused without initial weights, as in fine-tuning."""
    precision: Precision = field(default="tf32", metadata=_IMPLEMENTATION)
    """"fp32", "tf32" or "bf16".

    With "bf16", the trunk (all modules before the structure module) computes in bfloat16; master
    weights, structure module, heads and losses stay in float32.
    """
    recompute: bool | Literal["auto"] = field(default=True, metadata=_IMPLEMENTATION)
    """Blocks to recompute in the backward pass: all (True), none (False), or "auto".

    "auto" recomputes the smallest number of blocks with which a step fits into memory.
    """
    compiled_parts: tuple[CompiledPart, ...] = field(default=(), metadata=_IMPLEMENTATION)
    """Parts of the training step that torch.compile compiles, of those in COMPILED_PARTS.

    Evaluation compiles none, because chains have many lengths and compiled code is for one length.
    """
    cuda_graphs: bool = field(default=False, metadata=_IMPLEMENTATION)
    """Capture steps as CUDA graphs during the warm-up; needs a GPU and samples of one shape."""
    warm_up: bool = field(default=True, metadata=_IMPLEMENTATION)
    """Run a step on synthetic data for each number of recycling iterations before training."""
    device: Device = field(default="cuda", metadata=_IMPLEMENTATION)
    """"cuda", "cpu", or "auto": a GPU if there is one."""
    log_every_steps: int = field(default=10, metadata=_IMPLEMENTATION)
    """Steps between progress lines."""
    torch_threads: int | None = field(default=None, metadata=_IMPLEMENTATION)
    """CPU threads of PyTorch per rank; None: PyTorch's default."""

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
        if self.device not in get_args(Device):
            raise ValueError(
                f"unknown device {self.device!r}; expected one of {', '.join(get_args(Device))}"
            )
        if not self.data.pad_to_crop and self.local_batch_size != 1:
            raise ValueError(
                f"local_batch_size={self.local_batch_size} with data.pad_to_crop=False: samples of "
                "different lengths cannot form a batch; set local_batch_size=1 or "
                "data.pad_to_crop=True"
            )
        if self.optimizer.clip_per == "sample":
            check_one_sample(self.local_batch_size)
        if self.cuda_graphs and not (
            self.warm_up and self.data.pad_to_crop and self.device == "cuda"
        ):
            raise ValueError(
                "cuda_graphs=True requires warm_up=True, data.pad_to_crop=True and "
                'device="cuda", because graphs are captured on synthetic data of the crop size; '
                f"found {self.warm_up}, {self.data.pad_to_crop} and {self.device!r}"
            )
        heads, tm = self.model.auxiliary_heads, self.loss.tm
        if (
            heads.has_tm_score
            and tm.weight
            and tm.max_bin_angstrom != heads.max_bin_aligned_error_angstrom
        ):
            raise ValueError(
                f"loss.tm.max_bin_angstrom={tm.max_bin_angstrom} and "
                "model.auxiliary_heads.max_bin_aligned_error_angstrom="
                f"{heads.max_bin_aligned_error_angstrom}: expected the same value, because the "
                "predicted TM-score reads the bins that the loss trains"
            )
        if self.recompute not in (True, False, "auto"):
            raise ValueError(f'recompute={self.recompute!r}: expected True, False or "auto"')
        check_precision(self.precision)
        check_part_names(self.compiled_parts)
        self._check_phases()

    def _check_phases(self) -> None:
        names = [phase.name for phase in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"phases {', '.join(names)}: every phase needs a name of its own")
        for phase in self.phases:
            if phase.global_batch_size is None and self.global_batch_size is None:
                raise ValueError(
                    f"phase {phase.name} has no global batch; set global_batch_size of the phase "
                    "or of the run, because it determines the samples of the phases after it"
                )


@dataclass(frozen=True, kw_only=True)
class ConfigField:
    """A leaf of a configuration tree."""

    path: str
    """Dotted path from the root, such as "data.crop_size"."""
    value: Any
    category: str
    """One of CATEGORIES."""


def config_fields(config: DataclassInstance, *, prefix: str = "") -> Iterator[ConfigField]:
    """Yield all leaves of a tree of config dataclasses, in the order of their definition.

    Either a class has a category for all of its fields, or each field has its own. A new field
    without a category is thus an error.

    Raises ValueError for a field without a valid category, and for a field with another category
    than its class.
    """
    class_category = getattr(type(config), "category", None)
    for item in dataclasses.fields(config):
        value, path = getattr(config, item.name), prefix + item.name
        if item.metadata.get("has_parts"):
            for index, element in enumerate(value):
                yield from config_fields(element, prefix=f"{path}.{index}.")
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from config_fields(value, prefix=path + ".")
            continue
        category = item.metadata.get("category", class_category)
        if category not in CATEGORIES:
            raise ValueError(
                f"config field {path} has category {category!r}; expected one of {CATEGORIES}"
            )
        if class_category not in (None, category):
            raise ValueError(
                f"config field {path} has category {category!r} but its class "
                f"{type(config).__name__} has {class_category!r}; remove the category of the class "
                "and set one for each of its fields"
            )
        yield ConfigField(path=path, value=value, category=category)


def config_as_dict(config: DataclassInstance) -> dict[str, object]:
    """Return the tree as nested dicts of values that JSON can store."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def config_hash(config: RunConfig) -> str:
    """Return a SHA-256 of all fields that change the result. A resumed run must have the same.

    Fields of the category "implementation" are excluded, so that a run may resume with other
    kernels or another step limit. The fields of the batch size are excluded, too, because the run
    compares the global batch separately.
    """
    leaves = {
        leaf.path: leaf.value
        for leaf in config_fields(config)
        if leaf.category != "implementation" and leaf.path not in _BATCH_FIELDS
    }
    return hashlib.sha256(json.dumps(leaves, sort_keys=True, default=str).encode()).hexdigest()
