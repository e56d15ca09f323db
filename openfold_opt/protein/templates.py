"""Templates of a chain: selection by date, and template features.

See AlphaFold2 supplement 1.2.3 and 1.2.9, table 1.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence

import numpy as np

from openfold_opt.protein.hhblits_alphabet import GAP_TOKEN
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.records import StructureRecord, TemplateHit
from openfold_opt.protein.residue_constants import hhblits_to_model_order
from openfold_opt.protein.shard_format import NUM_ATOM_TYPES

MIN_DAYS_BEFORE_RELEASE = 60
"""Minimum number of days between the release of a template and the release of the chain."""


def latest_template_date(release_date: str) -> str:
    """Return the latest release date of a template for a chain released on a date (ISO dates)."""
    day = datetime.date.fromisoformat(release_date) - datetime.timedelta(
        days=MIN_DAYS_BEFORE_RELEASE
    )
    return day.isoformat()


def hits_for_date(
    reader: ShardReader, chain_id: str, *, max_template_date: str | None = None
) -> tuple[TemplateHit, ...]:
    """Return the hits that pass every filter, best first.

    They include hits that cannot be featurized: training shuffles the best hits before it skips
    these.

    Args:
        max_template_date: ISO date; if None, 60 days before the release of the chain.
    """
    if max_template_date is None:
        max_template_date = latest_template_date(reader.entry(chain_id).release_date)
    return tuple(
        hit for hit in reader.template_hits(chain_id) if hit.release_date <= max_template_date
    )


def featurize_templates(
    reader: ShardReader,
    chain_id: str,
    *,
    max_template_date: str | None = None,
    max_templates: int,
    order: Sequence[int] | None = None,
) -> dict[str, np.ndarray | list[str]]:
    """Compute the features of the first n <= max_templates hits that can be featurized.

    Args:
        max_template_date: ISO date; if None, 60 days before the release of the chain.
        order: Indices into `hits_for_date` in the order to try them (training shuffles the best
            20); if None, the order of `hits_for_date`.

    Returns:
        template_aatype: int32 [n, N_res], model order; 20 unknown, 21 without an aligned residue.
        template_all_atom_positions: float32 [n, N_res, 37, 3], angstrom, centered on the mean of
            all atoms of the template chain.
        template_all_atom_mask: float32 [n, N_res, 37].
        template_sum_probs: float32 [n, 1].
        names: list of n template chains.
    """
    hits = hits_for_date(reader, chain_id, max_template_date=max_template_date)
    candidates = hits if order is None else [hits[i] for i in order]
    return featurize_hits(
        [hit for hit in candidates if hit.is_featurizable][:max_templates],
        structure_of=reader.structure,
        num_residues=reader.entry(chain_id).sequence_length,
    )


def featurize_hits(
    hits: Sequence[TemplateHit],
    *,
    structure_of: Callable[[str], StructureRecord],
    num_residues: int,
) -> dict[str, np.ndarray | list[str]]:
    """Compute the features of `featurize_templates` for the given hits, all of them featurizable.

    Args:
        structure_of: returns the structure of a chain that a hit names.
        num_residues: of the query.
    """
    tokens = np.full((len(hits), num_residues), GAP_TOKEN, dtype=np.uint8)
    positions = np.zeros((len(hits), num_residues, NUM_ATOM_TYPES, 3), dtype=np.float32)
    mask = np.zeros((len(hits), num_residues, NUM_ATOM_TYPES), dtype=np.float32)
    for i, hit in enumerate(hits):
        structure = structure_of(hit.name)
        centered = center_atoms(structure.all_atom_positions, structure.all_atom_mask)
        tokens[i, hit.query_index] = hit.template_tokens
        positions[i, hit.query_index] = centered[hit.template_index]
        mask[i, hit.query_index] = structure.all_atom_mask[hit.template_index]
    return {
        "template_aatype": np.asarray(hhblits_to_model_order, dtype=np.int32)[tokens],
        "template_all_atom_positions": positions,
        "template_all_atom_mask": mask,
        "template_sum_probs": np.array([[hit.sum_probs] for hit in hits], dtype=np.float32).reshape(
            -1, 1
        ),
        "names": [hit.name for hit in hits],
    }


def center_atoms(positions: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Subtract the mean of all resolved atoms from the resolved atoms of [N_res, 37, 3].

    Unresolved atoms stay zero. The mean is computed in float32 to match the benchmark; in float64
    it would differ by up to 2e-4 angstrom.
    """
    centered = positions.copy()
    if mask.any():
        centered[mask] -= positions[mask].mean(axis=0)
    return centered
