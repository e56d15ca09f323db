"""Templates of a chain: which hits may be used for a given date, and their features (AlphaFold2 supplement 1.2.3, 1.2.9 table 1)."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np

from openfold_opt.protein.hhblits_alphabet import GAP_TOKEN
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.records import TemplateHit
from openfold_opt.protein.residue_constants import hhblits_to_model_order
from openfold_opt.protein.shard_format import NUM_ATOM_TYPES

MIN_DAYS_BEFORE_RELEASE = 60
"""A template must have been released at least so long before the chain whose structure it helps to predict."""


def latest_template_date(release_date: str) -> str:
    """The latest date a template of a chain may have been released on; both dates ISO."""
    day = datetime.date.fromisoformat(release_date) - datetime.timedelta(
        days=MIN_DAYS_BEFORE_RELEASE
    )
    return day.isoformat()


def hits_for_date(
    reader: ShardReader, chain_id: str, *, max_template_date: str | None = None
) -> tuple[TemplateHit, ...]:
    """Hits that pass every filter, best first. Some may yet fail to be featurised: they count in training's shuffle.

    Args:
        max_template_date: ISO; None stands for 60 days before the chain's own release.
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
    """The first `max_templates` hits that can be featurised.

    Args:
        max_template_date: ISO; None stands for 60 days before the chain's own release.
        order: in which to try the hits of `hits_for_date` (training shuffles the best 20); None: as they are.

    Returns:
        template_aatype: int32 [n, N_res], model order; 20 unknown, 21 where the template has no partner.
        template_all_atom_positions: float32 [n, N_res, 37, 3], angstrom, centerd on the mean of the whole template chain's atoms.
        template_all_atom_mask: float32 [n, N_res, 37].
        template_sum_probs: float32 [n, 1].
        names: list of n template chains.
        With n = 0 all arrays have length 0 in the first dim.
    """
    hits = hits_for_date(reader, chain_id, max_template_date=max_template_date)
    tried = hits if order is None else [hits[i] for i in order]
    used = [hit for hit in tried if hit.is_featurisable][:max_templates]
    num_residues = reader.entry(chain_id).sequence_length
    tokens = np.full((len(used), num_residues), GAP_TOKEN, dtype=np.uint8)
    positions = np.zeros((len(used), num_residues, NUM_ATOM_TYPES, 3), dtype=np.float32)
    mask = np.zeros((len(used), num_residues, NUM_ATOM_TYPES), dtype=np.float32)
    for i, hit in enumerate(used):
        structure = reader.structure(hit.name)
        centerd = center_atoms(structure.all_atom_positions, structure.all_atom_mask)
        tokens[i, hit.query_index] = hit.template_tokens
        positions[i, hit.query_index] = centerd[hit.template_index]
        mask[i, hit.query_index] = structure.all_atom_mask[hit.template_index]
    return {
        "template_aatype": np.asarray(hhblits_to_model_order, dtype=np.int32)[tokens],
        "template_all_atom_positions": positions,
        "template_all_atom_mask": mask,
        "template_sum_probs": np.array([[hit.sum_probs] for hit in used], dtype=np.float32).reshape(
            -1, 1
        ),
        "names": [hit.name for hit in used],
    }


def center_atoms(positions: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Positions [N_res, 37, 3] minus the mean of all resolved atoms; unresolved ones stay zero.

    The mean is taken in float32, as the benchmark does (odd: in float64 it would differ by up to 2e-4 angstrom).
    """
    centerd = positions.copy()
    if mask.any():
        centerd[mask] -= positions[mask].mean(axis=0)
    return centerd
