"""Recognize the form of the names in a file of weights, and refuse files of other models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

from openfold_opt.model.config import ModelConfig
from openfold_opt.model.published_weights.alphafold_names import ALIGNED_ERROR_HEAD, PREFIX
from openfold_opt.model.weights import WeightsError, list_names

NameForm = Literal["ours", "openfold", "alphafold"]
"""Names of MLCommons and of our model, of OpenFold (both versions), or of AlphaFold."""

_STARTS: Mapping[NameForm, tuple[str, ...]] = {
    "alphafold": (PREFIX,),
    "openfold": ("aux_heads.", "evoformer.", "template_embedder."),
    "ours": ("auxiliary_heads.", "evoformer_stack."),
}
_TM_HEADS = ("auxiliary_heads.tm.", "aux_heads.tm.", PREFIX + ALIGNED_ERROR_HEAD)
_MULTIMER = (
    "~_relative_encoding",
    "linear_ab_p",
    "linear_ab_g",
    "/left_norm_input",
    "template_pair_embedding_0",
    "template_pair_embedder.dgram_linear",
)
"""Parts of names that only models for complexes have."""


def recognize_form(names: Iterable[str], *, source: str) -> NameForm:
    """Return the form of the names. source: the file, for messages.

    Raises WeightsError for the weights of AlphaFold-Multimer, and for unknown names.
    """
    names = list(names)
    multimer = [name for name in names if any(part in name for part in _MULTIMER)]
    if multimer:
        raise WeightsError(
            f"{source} holds weights of AlphaFold-Multimer: it has {list_names(multimer[:3])}; "
            "expected a model for single chains, such as params_model_1.npz"
        )
    for form, starts in _STARTS.items():
        if any(name.startswith(starts) for name in names):
            return form
    raise WeightsError(
        f"{source}: the names of its tensors ({len(names)}) are unknown: {list_names(names)}; "
        "expected the names of AlphaFold's parameter files, of OpenFold, or of the MLCommons "
        "checkpoint"
    )


def with_parts_of(config: ModelConfig, names: Iterable[str]) -> ModelConfig:
    """Return the sizes with the templates and the TM-score head that the names have or lack."""
    names = list(names)
    has_tm_score = any(name.startswith(_TM_HEADS) for name in names)
    return replace(
        config,
        has_templates=any("template_" in name for name in names),
        auxiliary_heads=replace(config.auxiliary_heads, has_tm_score=has_tm_score),
    )
