"""PredictorSettings: how weights are read and chains are predicted."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

from openfold_opt.model.published_weights import PublishedWeights, read_weights, with_options
from openfold_opt.predict.graphs import GraphUse

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, kw_only=True)
class PredictorSettings:
    """How weights are read and chains are predicted."""

    checkpoint: str | None = None
    """Of a run directory: best, last, or the name of a folder; None: last."""
    model_config: PathLike | None = None
    """File with the sizes of the model; None: those of the run, else those of AlphaFold2."""
    max_msa_clusters: int | None = None
    """None, here and in the next two: the value of the weights."""
    max_extra_msa: int | None = None
    num_recycling_iterations: int | None = None
    recycling_tolerance: float | None = None
    """Stop when the RMS change of the CA-CA distances is below this many angstrom."""
    graphs: GraphUse = "auto"
    """Whether chains of up to 512 residues ("auto"), all ("on") or none ("off") use CUDA graphs."""
    seed: int = 0
    use_templates: bool = True
    max_template_date: str | None = None
    """ISO date; None: today."""
    excluded_templates: frozenset[str] = frozenset()
    """PDB ids (1abc) or chains (1abc_A)."""


def read_chosen_weights(path: Path, settings: PredictorSettings) -> PublishedWeights:
    """Read weights, and replace their settings by those that are given.

    Raises:
        ValueError: the file cannot be read, or has no weights of an AlphaFold2 model.
    """
    sizes = None if settings.model_config is None else Path(settings.model_config)
    try:
        weights = read_weights(path, model_config=sizes, checkpoint=settings.checkpoint)
    except OSError as error:
        raise ValueError(
            f"cannot read the weights {path}: {error}; make them readable, or name other weights"
        ) from error
    names = ("max_msa_clusters", "max_extra_msa", "num_recycling_iterations")
    given = {name: getattr(settings, name) for name in names}
    return replace(weights, settings=with_options(weights.settings, given))
