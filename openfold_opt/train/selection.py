"""Which chains of a data set are trained on and which are evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.selection import (
    TrainingChain,
    cameo_chains,
    chains_released_between,
    listed_chains,
    training_chains,
)

VALIDATION_RULES = ("cameo", "release_dates", "chain_ids")


@dataclass(frozen=True, kw_only=True)
class DataSelectionConfig:
    """Rules that split a data set."""

    closed_division: ClassVar[str] = "mathematical"

    train_max_release_date: str = "2021-09-16"
    """Chains released later are not trained on (ISO date)."""
    train_chain_ids: tuple[str, ...] | None = None
    """Train on these chains only, out of those that the filter leaves; None takes all of them."""
    validation_rule: str = "cameo"
    """"cameo": CAMEO targets by submission date; "release_dates": every chain released between the two
    dates; "chain_ids": the chains listed."""
    validation_min_date: str = "2021-09-17"
    validation_max_date: str = "2021-12-11"
    """First and last date of the first two rules, both included (ISO dates)."""
    validation_chain_ids: tuple[str, ...] = ()
    validation_max_length: int = 700
    """Longer chains are not evaluated (residues)."""
    expected_train_samples: int | None = None
    """Chains to train on that the rules demand; None takes any number."""
    expected_eval_samples: int | None = None
    """Chains to evaluate that the rules demand."""

    def __post_init__(self) -> None:
        if self.validation_rule not in VALIDATION_RULES:
            raise ValueError(
                f"unknown validation_rule {self.validation_rule!r}; expected one of {', '.join(VALIDATION_RULES)}"
            )


def select_training(index: ShardIndex, config: DataSelectionConfig) -> list[TrainingChain]:
    """Chains to train on with their weights, in the order of the index.

    Raises ValueError if no chain, or not every listed one, passes the filter.
    """
    chains = training_chains(index, max_release_date=config.train_max_release_date)
    if config.train_chain_ids is not None:
        wanted = set(listed_chains(index, config.train_chain_ids))
        chains = [chain for chain in chains if chain.chain_id in wanted]
        lost = wanted - {chain.chain_id for chain in chains}
        if lost:
            raise ValueError(
                f"chains to train on that the training filter rejects: {', '.join(sorted(lost))}; expected chains "
                f"released by {config.train_max_release_date}, in a cluster, of a resolution below 9 angstrom"
            )
    if not chains:
        raise ValueError(
            f"no chain of the data set passes the training filter (released by {config.train_max_release_date}, "
            "in a cluster, of a resolution below 9 angstrom); convert other data, or choose another preset"
        )
    return chains


def select_validation(index: ShardIndex, config: DataSelectionConfig) -> list[str]:
    """Ids of the chains to evaluate (AF2 suppl. 1.11.7).

    Raises ValueError if there is none, or if a listed one is missing.
    """
    dates = {"min_date": config.validation_min_date, "max_date": config.validation_max_date}
    max_length = config.validation_max_length
    if config.validation_rule == "cameo":
        chain_ids = cameo_chains(index, **dates, max_length=max_length)
    elif config.validation_rule == "release_dates":
        chain_ids = chains_released_between(index, **dates, max_length=max_length)
    else:
        listed = listed_chains(index, config.validation_chain_ids)
        chain_ids = [chain_id for chain_id in listed if index.by_id[chain_id].sequence_length <= max_length]
    if not chain_ids:
        raise ValueError(
            f"the data set has no chain to evaluate by rule {config.validation_rule!r}, dates "
            f"{config.validation_min_date} to {config.validation_max_date}, at most {max_length} residues; "
            "convert other data, or choose another preset"
        )
    return chain_ids


def count_chains(index: ShardIndex, config: DataSelectionConfig) -> dict[str, int]:
    """train_samples and eval_samples, as complain_of_counts takes them. Raises ValueError where nothing can be selected."""
    return {"train_samples": len(select_training(index, config)), "eval_samples": len(select_validation(index, config))}


def complain_of_counts(*, train_samples: int, eval_samples: int, config: DataSelectionConfig) -> str | None:
    """What is wrong with the numbers of chains; None if they are as demanded."""
    found = (train_samples, eval_samples)
    expected = (config.expected_train_samples, config.expected_eval_samples)
    if all(wanted in (None, number) for number, wanted in zip(found, expected)):
        return None
    wanted = tuple("any number" if number is None else f"{number:,}" for number in expected)
    return (
        f"the data set gives {train_samples:,} chains to train on and {eval_samples:,} to evaluate, expected {wanted[0]} and {wanted[1]}; "
        "convert the benchmark's own data (python -m data_prep download, convert-mlperf), or choose a preset of the open division"
    )
