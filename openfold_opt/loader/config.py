"""Configuration of the samples and of the loader that prepares them."""

from dataclasses import dataclass, field
from typing import Literal, get_args

Prefetch = Literal["auto", "direct", "pinned", "dali"]
StartMethod = Literal["fork", "forkserver", "spawn"]

_MATHEMATICAL = {"category": "mathematical"}
_FREE = {"category": "free"}
_IMPLEMENTATION = {"category": "implementation"}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Sizes and probabilities of a sample (AlphaFold2 supplement 1.2 and table 4)."""

    crop_size: int = field(default=256, metadata=_MATHEMATICAL)
    """Residues of a training sample; shorter chains are padded to this length."""
    pad_to_crop: bool = field(default=True, metadata=_IMPLEMENTATION)
    """False leaves shorter chains at their length, which is possible in batches of one sample.
    Padding changes no result."""
    max_msa_clusters: int = field(default=124, metadata=_MATHEMATICAL)
    """Rows of the clustered MSA; the model appends four template rows."""
    max_extra_msa: int = field(default=1024, metadata=_MATHEMATICAL)
    """Rows of the extra MSA."""
    distillation_max_msa_rows: int = field(default=1000, metadata=_MATHEMATICAL)
    """Rows that are drawn from the alignment of a sample of the distillation set, before its rows
    are clustered; OpenFold calls it max_distillation_msa_clusters. No effect on other samples."""
    masked_msa_fraction: float = field(default=0.15, metadata=_MATHEMATICAL)
    """Probability that a position of the clustered MSA is chosen for masked-MSA prediction."""
    masked_msa_uniform_probability: float = field(default=0.1, metadata=_MATHEMATICAL)
    """Probability that a chosen position becomes a uniformly drawn amino acid."""
    masked_msa_profile_probability: float = field(default=0.1, metadata=_MATHEMATICAL)
    """Probability that a chosen position is drawn from the profile of its column."""
    masked_msa_same_probability: float = field(default=0.1, metadata=_MATHEMATICAL)
    """Probability that a chosen position stays unchanged; otherwise it becomes the mask class."""
    max_templates: int = field(default=4, metadata=_MATHEMATICAL)
    """Maximum number of templates of a sample; 0 disables templates."""
    shuffled_template_hits: int = field(default=20, metadata=_MATHEMATICAL)
    """In training, this many of the best hits are shuffled; then hits are tried in this order."""
    max_recycling_iterations: int = field(default=3, metadata=_MATHEMATICAL)
    """Maximum number of recycling iterations; see num_passes."""
    clamped_fape_probability: float = field(default=0.9, metadata=_MATHEMATICAL)
    """Probability that the backbone FAPE of a training sample is clamped."""

    def __post_init__(self) -> None:
        for name in ("crop_size", "max_msa_clusters", "distillation_max_msa_rows"):
            if getattr(self, name) < 1:
                raise ValueError(f"DataConfig.{name} is {getattr(self, name)}, expected at least 1")
        for name in (
            "max_extra_msa",
            "max_templates",
            "shuffled_template_hits",
            "max_recycling_iterations",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"DataConfig.{name} is {getattr(self, name)}, expected 0 or more")
        for name in ("masked_msa_fraction", "clamped_fape_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"DataConfig.{name} is {getattr(self, name)}, expected a probability, 0 to 1"
                )
        mixture = (
            self.masked_msa_uniform_probability,
            self.masked_msa_profile_probability,
            self.masked_msa_same_probability,
        )
        if min(mixture) < 0 or sum(mixture) > 1:
            raise ValueError(
                f"the masked-MSA probabilities (uniform, profile, same) are {mixture}, "
                "expected values of at least 0 with a sum of at most 1"
            )

    @property
    def num_passes(self) -> int:
        """Slices of the per-pass (MSA) features: the recycling iterations and the last pass."""
        return self.max_recycling_iterations + 1


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How samples are prepared. No field changes the content of a sample."""

    window: int = field(default=0, metadata=_FREE)
    """Batches may be delivered up to this many positions early, so that slow ones do not block
    others; 0 keeps the order of the stream."""
    num_workers: int = field(default=2, metadata=_IMPLEMENTATION)
    """Worker processes per rank; with 0 the training process prepares the batches."""
    prefetch_per_worker: int = field(default=2, metadata=_IMPLEMENTATION)
    """Maximum number of batches per worker that are prepared ahead of use."""
    start_method: StartMethod = field(default="forkserver", metadata=_IMPLEMENTATION)
    """How workers start: "forkserver", "spawn", or "fork" (unsafe with threads or a GPU)."""
    timeout_seconds: float = field(default=600.0, metadata=_IMPLEMENTATION)
    """A worker that takes longer for a batch is replaced, and the batch is retried."""
    max_attempts: int = field(default=3, metadata=_IMPLEMENTATION)
    """Number of attempts to prepare a batch before it counts as failed."""
    error_budget: int = field(default=0, metadata=_MATHEMATICAL)
    """Number of failed training batches that a rank may skip. Each is reported with its samples;
    one more ends the run."""
    prefetch: Prefetch = field(default="auto", metadata=_IMPLEMENTATION)
    """How batches are copied to the device: "direct", "pinned", "dali", or "auto", which depends on
    the device. See openfold_opt.loader.device_prefetcher."""
    prefetch_depth: int = field(default=2, metadata=_IMPLEMENTATION)
    """Batches on the device ahead of use; no effect with "direct"."""

    def __post_init__(self) -> None:
        if self.prefetch not in get_args(Prefetch):
            raise ValueError(
                f"LoaderConfig.prefetch is {self.prefetch!r}, expected one of {get_args(Prefetch)}"
            )
        if self.start_method not in get_args(StartMethod):
            raise ValueError(
                f"LoaderConfig.start_method is {self.start_method!r}, "
                f"expected one of {get_args(StartMethod)}"
            )
        minima = {
            "window": 0,
            "num_workers": 0,
            "prefetch_per_worker": 1,
            "max_attempts": 1,
            "error_budget": 0,
            "prefetch_depth": 1,
        }
        for name, minimum in minima.items():
            if getattr(self, name) < minimum:
                raise ValueError(
                    f"LoaderConfig.{name} is {getattr(self, name)}, expected at least {minimum}"
                )
        if self.timeout_seconds <= 0:
            raise ValueError(
                f"LoaderConfig.timeout_seconds is {self.timeout_seconds}, expected more than 0"
            )
