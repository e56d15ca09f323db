"""Which chains are trained on and which are evaluated on (AlphaFold2 supplement 1.2.5 and 1.11.7)."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Iterator

from openfold_opt.protein.cameo_targets import CAMEO_TARGETS
from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.records import ChainEntry

MAX_RESOLUTION_ANGSTROM = 9.0
MAX_LETTER_FRACTION = 0.8
MIN_WEIGHT_LENGTH = 256
MAX_WEIGHT_LENGTH = 512


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainingChain:
    """A chain that passes the filter, with the weight it is drawn with. Unpacks as (chain_id, cluster_size, weight)."""

    chain_id: str
    cluster_size: int
    """Chains of its cluster that pass the filter too."""
    weight: float

    def __iter__(self):
        return iter((self.chain_id, self.cluster_size, self.weight))


def training_chains(
    index: ShardIndex, *, max_release_date: str, require_alignment: bool = False
) -> list[TrainingChain]:
    """Chains to train on, in the order of the index.

    Kept: released on or before the date (ISO), resolution below 9 angstrom or none, commonest letter at most 80 % of the
    sequence, in a cluster. weight = clip(length, 256, 512) / 512 / sqrt(cluster size); sizes count kept chains only.
    A chain whose sequence stands in for its alignment was admitted when the data were converted; require_alignment drops it.
    """
    kept = [
        chain
        for chain in index.chains
        if _passes_filter(chain, max_release_date)
        and (chain.has_alignment or not require_alignment)
    ]
    cluster_sizes = Counter(chain.cluster_id for chain in kept)
    return [
        TrainingChain(
            chain_id=chain.chain_id,
            cluster_size=cluster_sizes[chain.cluster_id],
            weight=_weight(chain.sequence_length, cluster_sizes[chain.cluster_id]),
        )
        for chain in kept
    ]


def chains_released_between(
    index: ShardIndex, *, min_date: str, max_date: str, max_length: int | None = None
) -> list[str]:
    """Chain ids released within the dates (ISO, both included), at most max_length residues long, in the order of the index."""
    return [
        chain.chain_id
        for chain in index.chains
        if min_date <= chain.release_date <= max_date
        and (max_length is None or chain.sequence_length <= max_length)
    ]


def cameo_chains(index: ShardIndex, *, min_date: str, max_date: str, max_length: int) -> list[str]:
    """Chains of the CAMEO targets submitted within the dates (ISO, both included), in the order of the index.

    A target's chain letter is looked up among the mmCIF chain ids first, and as an author's id only where that is free.
    """
    chain_of = {
        f"{chain.pdb_id}_{label}": chain.chain_id
        for chain in index.chains
        for label in chain.mmcif_chain_ids
    }
    for chain in index.chains:
        chain_of.setdefault(chain.chain_id, chain.chain_id)
    targets = (target for date, target in CAMEO_TARGETS if min_date <= date <= max_date)
    wanted = {chain_of[target] for target in targets if target in chain_of}
    return [
        chain.chain_id
        for chain in index.chains
        if chain.chain_id in wanted and chain.sequence_length <= max_length
    ]


def listed_chains(index: ShardIndex, chain_ids: Iterable[str]) -> list[str]:
    """The given chains, checked: ValueError names those that the data set does not have."""
    chain_ids = list(chain_ids)
    unknown = [chain_id for chain_id in chain_ids if chain_id not in index.by_id]
    if unknown:
        raise ValueError(
            f"chains {', '.join(unknown)} are not in the data set; it has {len(index.chains)} chains"
        )
    return chain_ids


def filter_reasons(chain: ChainEntry, *, max_release_date: str) -> Iterator[str]:
    """Yield a reason for each condition of the training filter that a chain fails.

    Nothing is yielded for a chain that passes. max_release_date: ISO date.
    """
    if chain.release_date > max_release_date:
        yield f"released on {chain.release_date}, after {max_release_date}"
    if chain.resolution is not None and chain.resolution >= MAX_RESOLUTION_ANGSTROM:
        limit = MAX_RESOLUTION_ANGSTROM
        yield f"resolution {chain.resolution:g} angstrom, expected below {limit:g}"
    share = chain.commonest_letter_count / chain.sequence_length
    if share > MAX_LETTER_FRACTION:
        limit = MAX_LETTER_FRACTION
        yield f"one letter is {share:.1%} of the sequence, expected at most {limit:.0%}"
    if chain.cluster_id == -1:
        yield "in no cluster"


def _passes_filter(chain: ChainEntry, max_release_date: str) -> bool:
    return next(filter_reasons(chain, max_release_date=max_release_date), None) is None


def _weight(length: int, cluster_size: int) -> float:
    return (
        min(max(length, MIN_WEIGHT_LENGTH), MAX_WEIGHT_LENGTH)
        / MAX_WEIGHT_LENGTH
        / math.sqrt(cluster_size)
    )
