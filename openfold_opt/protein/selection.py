"""Selection of training and evaluation chains (AF2 suppl. 1.2.5 and 1.11.7)."""

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
"""Lengths are clipped to this range in the sampling weight."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainingChain:
    """A chain that passes the training filter, with its sampling weight.

    It unpacks as (chain_id, cluster_size, weight).
    """

    chain_id: str
    cluster_size: int
    """Number of chains of its cluster that pass the filter."""
    weight: float

    def __iter__(self) -> Iterator[str | int | float]:
        return iter((self.chain_id, self.cluster_size, self.weight))


def training_chains(
    index: ShardIndex, *, max_release_date: str, require_alignment: bool = False
) -> list[TrainingChain]:
    """Return the chains to train on, in the order of the index.

    A chain passes the filter if it was released on or before max_release_date, its resolution is
    below 9 angstrom or unknown, its most frequent letter is at most 80 % of the sequence, and it is
    in a cluster. Its weight is clip(length, 256, 512) / 512 / sqrt(cluster size), where the cluster
    size is the number of chains that pass the filter.

    Args:
        max_release_date: ISO date.
        require_alignment: Whether to exclude chains that have no alignment folder.
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
    """Return the ids of chains released between two ISO dates, in the order of the index.

    Both dates are inclusive. Chains with more than max_length residues are excluded.
    """
    return [
        chain.chain_id
        for chain in index.chains
        if min_date <= chain.release_date <= max_date
        and (max_length is None or chain.sequence_length <= max_length)
    ]


def cameo_chains(index: ShardIndex, *, min_date: str, max_date: str, max_length: int) -> list[str]:
    """Return the ids of CAMEO target chains submitted between two ISO dates, in index order.

    Both dates are inclusive. Chains with more than max_length residues are excluded. The chain
    letter of a target is an mmCIF chain id if the entry has such a chain, and otherwise an author
    chain id.
    """
    chain_of = {
        f"{chain.pdb_id}_{label}": chain.chain_id
        for chain in index.chains
        for label in chain.mmcif_chain_ids
    }
    for chain in index.chains:
        chain_of.setdefault(chain.chain_id, chain.chain_id)
    targets = (target for date, target in CAMEO_TARGETS if min_date <= date <= max_date)
    selected = {chain_of[target] for target in targets if target in chain_of}
    return [
        chain.chain_id
        for chain in index.chains
        if chain.chain_id in selected and chain.sequence_length <= max_length
    ]


def listed_chains(index: ShardIndex, chain_ids: Iterable[str]) -> list[str]:
    """Return the given chain ids after checking that the data set has them.

    Raises:
        ValueError: The data set lacks some of the chains. The message lists them.
    """
    chain_ids = list(chain_ids)
    unknown = [chain_id for chain_id in chain_ids if chain_id not in index.by_id]
    if unknown:
        raise ValueError(
            f"chains {', '.join(unknown)} are not in the data set of {len(index.chains)} chains; "
            "remove them from the list, or convert the entries that contain them"
        )
    return chain_ids


def filter_reasons(chain: ChainEntry, *, max_release_date: str) -> Iterator[str]:
    """Yield a reason for each condition of the training filter that a chain does not meet.

    Args:
        max_release_date: ISO date.
    """
    if chain.release_date > max_release_date:
        yield f"released on {chain.release_date}, after {max_release_date}"
    if chain.resolution is not None and chain.resolution >= MAX_RESOLUTION_ANGSTROM:
        limit = MAX_RESOLUTION_ANGSTROM
        yield f"resolution {chain.resolution:g} angstrom, expected below {limit:g}"
    fraction = chain.commonest_letter_count / chain.sequence_length
    if fraction > MAX_LETTER_FRACTION:
        limit = MAX_LETTER_FRACTION
        yield f"one letter is {fraction:.1%} of the sequence, expected at most {limit:.0%}"
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
