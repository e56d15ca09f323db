"""Which chains are trained on and which are evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from openfold_opt.protein.index import ChainEntry, ShardIndex
from openfold_opt.protein.selection import training_chains
from openfold_opt.train.cameo_targets import CAMEO_TARGETS

VALIDATION_RULES = ("cameo", "release_dates", "chain_ids")


@dataclass(frozen=True, kw_only=True)
class DataSelectionConfig:
    """Rules that split a data set."""

    closed_division: ClassVar[str] = "mathematical"

    train_max_release_date: str = "2021-09-16"
    """Chains released later are not trained on (ISO date)."""
    train_chain_ids: tuple[str, ...] | None = None
    """Train on these chains only, out of those that the other rules leave; None takes all of them."""
    validation_rule: str = "cameo"
    """"cameo": CAMEO targets by submission date; "release_dates": every chain released between the two
    dates; "chain_ids": the chains listed."""
    validation_min_date: str = "2021-09-17"
    validation_max_date: str = "2021-12-11"
    """First and last date of the first two rules, both included (ISO dates)."""
    validation_chain_ids: tuple[str, ...] = ()
    validation_max_length: int = 700
    """Longer chains are not evaluated (residues)."""

    def __post_init__(self) -> None:
        if self.validation_rule not in VALIDATION_RULES:
            raise ValueError(
                f"unknown validation_rule {self.validation_rule!r}; expected one of {', '.join(VALIDATION_RULES)}"
            )


def select_training(index: ShardIndex, config: DataSelectionConfig) -> list[tuple[str, int, float]]:
    """(chain id, cluster size, sampling weight) of the chains to train on, in the order of the index.

    Raises ValueError if no chain, or not every listed one, passes the filter.
    """
    chains = training_chains(index, max_release_date=config.train_max_release_date)
    if config.train_chain_ids is not None:
        wanted = set(config.train_chain_ids)
        chains = [chain for chain in chains if chain[0] in wanted]
        lost = wanted - {chain[0] for chain in chains}
        if lost:
            raise ValueError(
                f"chains to train on that the data set lacks, or that the training filter rejects: {sorted(lost)}; "
                f"expected chains released by {config.train_max_release_date} with a cluster and an alignment"
            )
    if not chains:
        raise ValueError(
            f"no chain of the data set passes the training filter (released by {config.train_max_release_date}, "
            "in a cluster, with an alignment); convert other data, or choose another preset"
        )
    return chains


def select_validation(index: ShardIndex, config: DataSelectionConfig) -> list[str]:
    """Ids of the chains to evaluate, in the order of the index (AF2 suppl. 1.11.7).

    Raises ValueError if there is none, or if a listed one is missing.
    """
    if config.validation_rule == "cameo":
        wanted = _cameo_chain_ids(index, config)
    elif config.validation_rule == "release_dates":
        wanted = {
            chain.chain_id
            for chain in index.chains
            if config.validation_min_date <= chain.release_date <= config.validation_max_date
        }
    else:
        wanted = set(config.validation_chain_ids)
        lost = wanted - set(index.by_id)
        if lost:
            raise ValueError(f"chains to evaluate that the data set lacks: {sorted(lost)}")
    selected = [
        chain.chain_id
        for chain in index.chains
        if chain.chain_id in wanted and chain.sequence_length <= config.validation_max_length
    ]
    if not selected:
        raise ValueError(
            f"no chain of the data set to evaluate by rule {config.validation_rule!r}, dates "
            f"{config.validation_min_date} to {config.validation_max_date}, at most "
            f"{config.validation_max_length} residues; convert other data, or choose another preset"
        )
    return selected


def _cameo_chain_ids(index: ShardIndex, config: DataSelectionConfig) -> set[str]:
    chain_of = _chains_by_target_id(index.chains)
    return {
        chain_of[target]
        for date, targets in CAMEO_TARGETS.items()
        if config.validation_min_date <= date <= config.validation_max_date
        for target in targets
        if target in chain_of
    }


def _chains_by_target_id(chains: tuple[ChainEntry, ...]) -> dict[str, str]:
    """Chain id by pdb id and mmCIF chain id; an author's id only where no mmCIF id has taken it."""
    found: dict[str, str] = {}
    for chain in chains:
        for mmcif_id in chain.mmcif_chain_ids:
            found.setdefault(f"{chain.pdb_id}_{mmcif_id}", chain.chain_id)
    for chain in chains:
        found.setdefault(f"{chain.pdb_id}_{chain.author_chain_id}", chain.chain_id)
    return found
