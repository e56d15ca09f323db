"""Warnings about the templates of a chain: not used, missing, or copies of the chain itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from openfold_opt.predict.chain_input import ChainInput, FeatureSettings
from openfold_opt.protein.records import TemplateHit

MIN_COPY_LENGTH = 0.8
MIN_COPY_IDENTITY = 0.95
"""A template is the query itself if it is aligned to this fraction of the query's residues, and
this fraction of the aligned residues are the same. Searches do not align the ends of a chain."""
_MAX_NAMED = 5


def template_warnings(chain: ChainInput, settings: FeatureSettings) -> tuple[str, ...]:
    """Return why a chain goes without the templates that were given. No file is read."""
    if chain.data_dir is not None:
        return ()
    if chain.hits_paths and chain.template_structures is None:
        return (
            f"the template hits in {chain.hits_paths[0]} are not used, because no folder of "
            "template structures is given",
        )
    if settings.num_template_slots == 0:
        text = "these weights use no templates; the template structures are ignored"
        return (text,) if chain.hits_paths else ()
    if chain.template_structures is not None and not chain.hits_paths:
        return (
            "template structures are given, but the chain has no .hhr file of template hits; it "
            "is predicted without templates",
        )
    return ()


def is_allowed(settings: FeatureSettings, hit: TemplateHit) -> bool:
    """Return whether the settings allow a template hit: its release date and its name."""
    return hit.release_date <= settings.max_template_date and not settings.excludes(hit.name)


def copy_warnings(
    hits: Iterable[TemplateHit], query_tokens: np.ndarray, settings: FeatureSettings
) -> list[str]:
    """Return a warning for each template that is the query itself over nearly its whole length.

    Args:
        hits: the templates that are used.
        query_tokens: uint8 [N_res], tokens of `hhblits_alphabet`.
        settings: for the date in the message.
    """
    return [
        f"template {hit.name} (released {hit.release_date}) is the query itself: it covers "
        f"{_coverage(hit, query_tokens):.0%} of its length with {_identity(hit, query_tokens):.0%} "
        "identical residues, so that its structure may be copied. To avoid this, exclude template "
        f"{hit.pdb_id}, or set a maximum template date before its release "
        f"(now {settings.max_template_date})"
        for hit in hits
        if _coverage(hit, query_tokens) >= MIN_COPY_LENGTH
        and _identity(hit, query_tokens) >= MIN_COPY_IDENTITY
    ]


def _coverage(hit: TemplateHit, query_tokens: np.ndarray) -> float:
    return len(np.unique(hit.query_index)) / len(query_tokens)


def _identity(hit: TemplateHit, query_tokens: np.ndarray) -> float:
    return float(np.mean(query_tokens[hit.query_index] == hit.template_tokens))


def missing_template_warnings(
    problems: Mapping[str, str], obsolete: Mapping[str, str], settings: FeatureSettings
) -> list[str]:
    """Return a warning about template hits whose structure cannot be used, if there are any.

    Args:
        problems: reason by PDB id.
        obsolete: successors of obsolete entries. An entry whose successor was found is not missing.
        settings: excluded entries are not missing.
    """
    reasons = [
        reason
        for pdb_id, reason in problems.items()
        if not settings.excludes(pdb_id)
        and (pdb_id not in obsolete or obsolete[pdb_id] in problems)
    ]
    if not reasons:
        return []
    return [f"{_count(reasons)} not used as templates: {_join(reasons)}"]


def _count(reasons: Sequence[str]) -> str:
    return f"{len(reasons)} template {'hit is' if len(reasons) == 1 else 'hits are'}"


def _join(reasons: Sequence[str]) -> str:
    more = len(reasons) - _MAX_NAMED
    return "; ".join(reasons[:_MAX_NAMED]) + (f"; and {more:,} more" if more > 0 else "")
