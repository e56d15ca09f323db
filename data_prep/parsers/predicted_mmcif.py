"""Parser of predicted structures (ModelCIF): one protein chain with the pLDDT of its residues."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from data_prep.errors import EntryRejected, FaultyEntry
from data_prep.parsers.mmcif import (
    Tags,
    chain_coordinates,
    chain_sequences,
    entity_to_label_chains,
    protein_polymers,
    read_block,
)
from data_prep.parsers.mmcif_atoms import AtomSites

_METRIC = "_ma_qa_metric."
_LOCAL = "_ma_qa_metric_local."


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictedChain:
    """A predicted protein chain."""

    sequence: str
    positions: np.ndarray
    """float32 [N_res, 37, 3], angstrom; zero where the mask is False."""
    mask: np.ndarray
    """bool [N_res, 37]."""
    plddt: np.ndarray
    """float32 [N_res], 0 to 100."""


def parse_predicted_mmcif(path: Path) -> PredictedChain:
    """Read a predicted structure with one protein chain, as .cif or .cif.gz.

    The pLDDT is read from `_ma_qa_metric_local`, as `openfold_opt.predict` and the AlphaFold
    database write it. The B factors are not read: in an experimental structure they are no pLDDT.

    Raises:
        FaultyEntry: the file is damaged, or is no such prediction.
        CannotRead: the file cannot be read.
    """
    try:
        return _parse(Tags(read_block(path)))
    except FaultyEntry:
        raise
    except EntryRejected as error:
        raise FaultyEntry(str(error)) from error
    except ValueError as error:
        # The text is not UTF-8, or columns of one category have different lengths.
        raise FaultyEntry(f"cannot be read: {error}") from error


def _parse(tags: Tags) -> PredictedChain:
    polymers = protein_polymers(tags, entity_to_label_chains(tags), own_data=True)
    if len(polymers) != 1:
        raise FaultyEntry(f"{len(polymers)} protein chains, expected the prediction of one chain")
    (label,) = polymers
    plddt = _plddt(tags, label, num_residues=len(polymers[label].monomers))
    sites = AtomSites.from_tags(tags)
    author_of = sites.label_to_author_chain()
    ((author, sequence),) = chain_sequences(polymers, author_of).items()
    positions, mask = chain_coordinates(sites, polymers, author_of)[author]
    return PredictedChain(sequence=sequence, positions=positions, mask=mask, plddt=plddt)


def _plddt(tags: Tags, label: str, *, num_residues: int) -> np.ndarray:
    """Return the pLDDT of the residues of a chain: float32 [num_residues]."""
    columns = (tags.optional(_METRIC + name) for name in ("id", "type", "mode"))
    metrics = [number for number, kind, mode in zip(*columns) if (kind, mode) == ("pLDDT", "local")]
    if not metrics:
        raise FaultyEntry(
            "no pLDDT of residues (_ma_qa_metric_local): not a prediction with confidences"
        )
    rows = zip(
        *(
            tags[_LOCAL + name]
            for name in ("metric_id", "label_asym_id", "label_seq_id", "metric_value")
        ),
        strict=True,
    )
    values = np.full(num_residues, np.nan, dtype=np.float32)
    for metric, chain, number, value in rows:
        if metric == metrics[0] and chain == label:
            values[_residue(number, num_residues)] = _number(value, number)
    missing = np.flatnonzero(np.isnan(values))
    if missing.size:
        raise FaultyEntry(
            f"no pLDDT of {missing.size} of {num_residues} residues, the first is {missing[0] + 1}"
        )
    if values.max() <= 1:
        raise FaultyEntry(f"the highest pLDDT is {values.max():g}; expected values from 0 to 100")
    return values


def _residue(number: str, num_residues: int) -> int:
    """Return the index, from 0, of a residue number, from 1."""
    if not number.isdecimal() or not 1 <= int(number) <= num_residues:
        raise FaultyEntry(f"pLDDT of residue {number!r}, expected 1 to {num_residues}")
    return int(number) - 1


def _number(value: str, residue: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = np.nan
    if not 0 <= number <= 100:
        raise FaultyEntry(f"pLDDT of residue {residue} is {value!r}, expected 0 to 100")
    return number
