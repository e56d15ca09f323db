"""Select the training and evaluation chains of a data set."""

from __future__ import annotations

import datetime
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.selection import (
    TrainingChain,
    cameo_chains,
    chains_released_between,
    filter_reasons,
    listed_chains,
    training_chains,
)

VALIDATION_RULES = ("cameo", "release_dates", "chain_ids", "share")
DATE_FIELDS = ("train_max_release_date", "validation_min_date", "validation_max_date")
MAX_NAMED = 10
"""Maximum number of chains that a message names."""


@dataclass(frozen=True, kw_only=True)
class DataSelectionConfig:
    """Rules that select training and evaluation chains."""

    category: ClassVar[str] = "mathematical"

    train_max_release_date: str = "2021-09-16"
    """Latest release date of training chains (ISO date)."""
    train_chain_ids: tuple[str, ...] | None = None
    """Train only on these chains, which must pass the filter; None: on all that pass it."""
    validation_rule: str = "cameo"
    """How to select evaluation chains.

    "cameo": CAMEO targets by submission date; "release_dates": every chain released between the two
    dates; "chain_ids": the chains of validation_chain_ids; "share": all chains of a fraction of the
    clusters of similar sequences, which are never trained on.
    """
    validation_min_date: str = "2021-09-17"
    validation_max_date: str = "2021-12-11"
    """First and last date for "cameo" and "release_dates", both included (ISO dates)."""
    validation_chain_ids: tuple[str, ...] = ()
    validation_share: float = 0.1
    """Fraction of the clusters for "share", at least one; 0: evaluate the training chains."""
    exclude_validation: bool = False
    """Do not train on chains in a cluster of an evaluated chain. "share" ignores this field."""
    validation_max_length: int = 700
    """Maximum length of evaluation chains, in residues."""
    distillation_probability: float = 0.0
    """Probability that a training sample is of the distillation set (OpenFold: 0.75)."""
    expected_train_samples: int | None = None
    """Required number of training chains; None: any number."""
    expected_eval_samples: int | None = None
    """Required number of evaluation chains; None: any number."""

    def __post_init__(self) -> None:
        if self.validation_rule not in VALIDATION_RULES:
            raise ValueError(
                f"unknown validation_rule {self.validation_rule!r}; expected one of "
                f"{', '.join(VALIDATION_RULES)}"
            )
        for name in DATE_FIELDS:
            _check_date(name, getattr(self, name))
        if not 0 <= self.validation_share < 1:
            share = self.validation_share
            raise ValueError(f"validation_share={share}: expected at least 0 and less than 1")
        if not 0 <= self.distillation_probability <= 1:
            raise ValueError(
                f"distillation_probability={self.distillation_probability}: expected 0 to 1"
            )
        if self.validation_chain_ids and self.validation_rule != "chain_ids":
            raise ValueError(
                "selection.validation_chain_ids is set, but selection.validation_rule is "
                f"{self.validation_rule!r}, which ignores it; set "
                "selection.validation_rule=chain_ids, or remove the chain ids"
            )


def _check_date(name: str, text: str) -> None:
    """Raise ValueError unless a date is YYYY-MM-DD: dates of the index are compared as text."""
    try:
        is_iso = datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        is_iso = False
    if not is_iso:
        raise ValueError(f"{name} is {text!r}; expected a date such as 2021-09-16")


def select_training(index: ShardIndex, config: DataSelectionConfig) -> list[TrainingChain]:
    """Return the training chains with their weights, in the order of the index.

    Raises ValueError if no chain passes the filter, if a listed chain does not pass it, or if all
    chains are held out.
    """
    max_release_date = config.train_max_release_date
    chains = training_chains(index, max_release_date=max_release_date)
    if config.train_chain_ids is not None:
        listed = listed_chains(index, config.train_chain_ids)
        chains = [chain for chain in chains if chain.chain_id in set(listed)]
        rejected_ids = sorted(set(listed) - {chain.chain_id for chain in chains})
        if rejected_ids:
            rejected = describe_rejected(index, rejected_ids, max_release_date=max_release_date)
            raise ValueError(f"chains to train on that the training filter rejects: {rejected}")
    if not chains:
        raise ValueError(
            "no chain of the data set passes the training filter: "
            f"{_count_reasons(index, config)}; convert other data, or choose another preset"
        )
    held_out = held_out_chains(index, config)
    kept = [chain for chain in chains if chain.chain_id not in held_out]
    if not kept:
        raise ValueError(
            f"all {len(chains)} chains to train on are in a cluster of an evaluated chain; "
            "evaluate fewer chains, or set selection.exclude_validation=False"
        )
    return kept


def name_chains(chain_ids: Sequence[str]) -> str:
    """Return the ids of the first MAX_NAMED chains, and the number of the others."""
    more = len(chain_ids) - MAX_NAMED
    return ", ".join(chain_ids[:MAX_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def describe_rejected(index: ShardIndex, chain_ids: list[str], *, max_release_date: str) -> str:
    """List the chains, each with all conditions of the training filter that it fails."""
    parts = []
    for chain_id in chain_ids[:MAX_NAMED]:
        reasons = filter_reasons(index.by_id[chain_id], max_release_date=max_release_date)
        parts.append(f"{chain_id} ({', '.join(reasons)})")
    more = len(chain_ids) - MAX_NAMED
    return ", ".join(parts) + (f" and {more} more" if more > 0 else "")


def _count_reasons(index: ShardIndex, config: DataSelectionConfig) -> str:
    """Count the chains by the first condition that they fail, with an example of each."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for chain in index.chains:
        reasons = filter_reasons(chain, max_release_date=config.train_max_release_date)
        reason = next(reasons, "")
        # The first word identifies the condition.
        kind = reason.split(" ")[0]
        counts[kind] += 1
        examples.setdefault(kind, f"{chain.chain_id}: {reason}")
    return ", ".join(f"{count} such as {examples[kind]}" for kind, count in counts.items())


def held_out_chains(index: ShardIndex, config: DataSelectionConfig) -> frozenset[str]:
    """Return the ids of the chains that are not trained on because their cluster is evaluated.

    The set is empty if evaluated chains may be trained on.
    """
    if config.validation_rule == "share":
        if config.validation_share == 0:
            return frozenset()
    elif not config.exclude_validation:
        return frozenset()
    evaluated = set(select_validation(index, config))
    # -1 is the id of all chains without a cluster.
    clusters = {index.by_id[chain_id].cluster_id for chain_id in evaluated} - {-1}
    members = {chain.chain_id for chain in index.chains if chain.cluster_id in clusters}
    return frozenset(evaluated | members)


def _chains_of_held_out_clusters(index: ShardIndex, config: DataSelectionConfig) -> list[str]:
    """Return the chains of the clusters that the rule "share" holds out, in the order of the index.

    The choice of clusters depends only on the ids of their chains, not on the seed or the order of
    files. With validation_share=0, return all training chains.
    """
    chains = training_chains(index, max_release_date=config.train_max_release_date)
    if config.validation_share == 0:
        return [chain.chain_id for chain in chains]
    cluster_of = {chain.chain_id: index.by_id[chain.chain_id].cluster_id for chain in chains}
    # A cluster is represented by its first chain by id that is not too long to be evaluated.
    # Clusters without such a chain cannot be chosen.
    first_of: dict[int, str] = {}
    for chain_id in sorted(cluster_of):
        if index.by_id[chain_id].sequence_length <= config.validation_max_length:
            first_of.setdefault(cluster_of[chain_id], chain_id)
    # Sorting by hash is a shuffle that does not depend on a seed.
    order = sorted(
        first_of, key=lambda cluster: hashlib.sha256(first_of[cluster].encode()).digest()
    )
    num_clusters = len(set(cluster_of.values()))
    number = max(1, round(config.validation_share * num_clusters))
    if number >= num_clusters:
        raise ValueError(
            f"the data set has {num_clusters} clusters to train on, and validation_share="
            f"{config.validation_share} holds out {number}, which leaves none for training. "
            "Convert more entries, or set selection.validation_share=0 to evaluate the training "
            "chains"
        )
    chosen = set(order[:number])
    return [chain_id for chain_id, cluster in cluster_of.items() if cluster in chosen]


def select_validation(index: ShardIndex, config: DataSelectionConfig) -> list[str]:
    """Return the ids of the chains to evaluate (AF2 suppl. 1.11.7).

    Raises ValueError if there are none, or if a listed chain is missing.
    """
    dates = {"min_date": config.validation_min_date, "max_date": config.validation_max_date}
    max_length = config.validation_max_length
    if config.validation_rule == "cameo":
        chain_ids = cameo_chains(index, **dates, max_length=max_length)
    elif config.validation_rule == "release_dates":
        chain_ids = chains_released_between(index, **dates, max_length=max_length)
    else:
        is_share = config.validation_rule == "share"
        listed = (
            _chains_of_held_out_clusters(index, config)
            if is_share
            else listed_chains(index, config.validation_chain_ids)
        )
        chain_ids = [
            chain_id for chain_id in listed if index.by_id[chain_id].sequence_length <= max_length
        ]
    if not chain_ids:
        uses_dates = config.validation_rule in ("cameo", "release_dates")
        days = (
            f" dates {config.validation_min_date} to {config.validation_max_date},"
            if uses_dates
            else ""
        )
        raise ValueError(
            f"the data set has no chain to evaluate by rule {config.validation_rule!r},{days} "
            f"at most {max_length} residues; convert other data, or choose another preset"
        )
    return chain_ids


def count_chains(index: ShardIndex, config: DataSelectionConfig) -> dict[str, int]:
    """Return train_samples and eval_samples, the arguments of validate_counts.

    Raises ValueError if no training or no evaluation chain can be selected.
    """
    return {
        "train_samples": len(select_training(index, config)),
        "eval_samples": len(select_validation(index, config)),
    }


def validate_counts(
    *, train_samples: int, eval_samples: int, config: DataSelectionConfig
) -> str | None:
    """Return an error message if the numbers of chains are not the required ones, else None."""
    numbers = (train_samples, eval_samples)
    expected = (config.expected_train_samples, config.expected_eval_samples)
    if all(required in (None, number) for number, required in zip(numbers, expected)):
        return None
    required = ["any number" if number is None else f"{number:,}" for number in expected]
    return (
        f"the data set gives {train_samples:,} chains to train on and {eval_samples:,} to "
        f"evaluate, expected {required[0]} and {required[1]}; convert the data set that "
        "this configuration was made for, or choose another preset"
    )
