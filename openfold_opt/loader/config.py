"""Configuration of samples (what is in one) and of the loader (who prepares it)."""

from dataclasses import dataclass, field

STAGINGS = ("auto", "direct", "pinned", "dali")
START_METHODS = ("fork", "forkserver", "spawn")

_MATHEMATICAL = {"category": "mathematical"}
_FREE = {"category": "free"}
_IMPLEMENTATION = {"category": "implementation"}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Sizes and probabilities of a sample (AlphaFold2 supplement 1.2 and table 4, initial training)."""

    crop_size: int = field(default=256, metadata=_MATHEMATICAL)
    """Residues of a training sample; shorter chains are padded to it."""
    pad_to_crop: bool = field(default=True, metadata=_IMPLEMENTATION)
    """False leaves shorter chains at their length, which a batch of one sample can do: padding changes no result."""
    max_msa_clusters: int = field(default=124, metadata=_MATHEMATICAL)
    """Rows of the clustered MSA; four rows of templates join them in the model."""
    max_extra_msa: int = field(default=1024, metadata=_MATHEMATICAL)
    """Rows of the extra MSA."""
    masked_msa_fraction: float = field(default=0.15, metadata=_MATHEMATICAL)
    """Probability of each position of the clustered MSA to be chosen for masked-MSA prediction."""
    masked_msa_uniform_probability: float = field(default=0.1, metadata=_MATHEMATICAL)
    """A chosen position becomes a uniformly drawn amino acid ..."""
    masked_msa_profile_probability: float = field(default=0.1, metadata=_MATHEMATICAL)
    """... or is drawn from the column's profile ..."""
    masked_msa_same_probability: float = field(default=0.1, metadata=_MATHEMATICAL)
    """... or stays; else it becomes the mask class."""
    max_templates: int = field(default=4, metadata=_MATHEMATICAL)
    """Templates of a sample at most; 0 switches templates off."""
    shuffled_template_hits: int = field(default=20, metadata=_MATHEMATICAL)
    """In training this many of the best hits are shuffled before the first that can be featurised are taken."""
    max_recycling_iterations: int = field(default=3, metadata=_MATHEMATICAL)
    """Recycling passes without gradient at most; a sample has one slice of MSA features more than that."""
    clamped_fape_probability: float = field(default=0.9, metadata=_MATHEMATICAL)
    """Probability of a training sample to have its backbone FAPE clamped."""

    def __post_init__(self) -> None:
        for name in ("crop_size", "max_msa_clusters"):
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
                f"masked-MSA probabilities uniform, profile, same are {mixture}, expected 0 or more each, 1 at most in sum"
            )

    @property
    def num_passes(self) -> int:
        """Slices of the per-pass features: one for each pass without gradient and one for the last."""
        return self.max_recycling_iterations + 1


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How samples are prepared; none of it changes what they contain."""

    window: int = field(default=0, metadata=_FREE)
    """Batches may be delivered up to so many places early, so that a slow one holds nobody up; 0 is the order of the stream."""
    num_workers: int = field(default=2, metadata=_IMPLEMENTATION)
    """Worker processes per rank; 0 prepares batches in the training process."""
    prefetch_per_worker: int = field(default=2, metadata=_IMPLEMENTATION)
    """Batches that a worker may have prepared ahead of their use."""
    start_method: str = field(default="forkserver", metadata=_IMPLEMENTATION)
    """How worker processes start: "forkserver", "spawn", or "fork", which is no good beside threads or a GPU."""
    timeout_seconds: float = field(default=600.0, metadata=_IMPLEMENTATION)
    """A worker that takes longer for a batch is replaced, and the batch prepared again."""
    max_attempts: int = field(default=3, metadata=_IMPLEMENTATION)
    """How often a batch is prepared before it counts as an error."""
    error_budget: int = field(default=0, metadata=_MATHEMATICAL)
    """Training batches of a rank that may be left out after max_attempts, each reported with its samples; one more ends the run."""

    prefetch: str = field(default="auto", metadata=_IMPLEMENTATION)
    """How batches get to the device (openfold_opt.loader.device_prefetcher): "direct", "pinned", "dali", or "auto" by the device."""
    prefetch_depth: int = field(default=2, metadata=_IMPLEMENTATION)
    """Batches on the device ahead of their use, but for "direct"."""

    def __post_init__(self) -> None:
        if self.prefetch not in STAGINGS:
            raise ValueError(
                f"LoaderConfig.staging is {self.prefetch!r}, expected one of {STAGINGS}"
            )
        if self.start_method not in START_METHODS:
            raise ValueError(
                f"LoaderConfig.start_method is {self.start_method!r}, expected one of {START_METHODS}"
            )
        minima = {
            "window": 0,
            "num_workers": 0,
            "prefetch_per_worker": 1,
            "max_attempts": 1,
            "error_budget": 0,
            "prefetch_depth": 1,
        }
        for name, least in minima.items():
            if getattr(self, name) < least:
                raise ValueError(
                    f"LoaderConfig.{name} is {getattr(self, name)}, expected at least {least}"
                )
        if self.timeout_seconds <= 0:
            raise ValueError(
                f"LoaderConfig.timeout_seconds is {self.timeout_seconds}, expected more than 0"
            )
