"""Selection of training and evaluation chains."""

from __future__ import annotations

import dataclasses
import math

import pytest

from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.records import ChainEntry
from openfold_opt.protein.selection import (
    cameo_chains,
    chains_released_between,
    listed_chains,
    training_chains,
)

VALID = ChainEntry(
    chain_id="1abc_A",
    mmcif_chain_ids=("A",),
    release_date="2021-09-16",
    resolution=2.0,
    method="X-RAY DIFFRACTION",
    cluster_id=3,
    sequence_length=100,
    commonest_letter_count=80,
    alignment_id="1abc_A",
    num_alignments=1,
    num_template_hits=0,
    structure_shard=0,
    structure_row=0,
    alignment_shard=1,
    alignment_row=0,
    hit_set=0,
)


def index_of(*changes: dict) -> ShardIndex:
    chains = tuple(
        dataclasses.replace(VALID, **{"chain_id": f"{i}abc_A", **change})
        for i, change in enumerate(changes)
    )
    return ShardIndex(
        format_version=1,
        checksum="",
        chains=chains,
        shards=(),
        missing_alignments="query",
        num_entries=1,
        num_rejected_entries=0,
    )


@pytest.mark.parametrize(
    ("change", "is_kept"),
    [
        ({}, True),
        ({"release_date": "2021-09-17"}, False),
        ({"resolution": 8.999}, True),
        ({"resolution": 9.0}, False),
        ({"resolution": None}, True),
        ({"commonest_letter_count": 81}, False),
        ({"cluster_id": -1}, False),
        ({"cluster_id": 0}, True),
        ({"alignment_id": None}, True),
    ],
)
def test_training_filter(change, is_kept):
    selected = training_chains(index_of(change), max_release_date="2021-09-16")
    assert [chain.chain_id for chain in selected] == (["0abc_A"] if is_kept else [])


def test_require_alignment_excludes_chains_without_one():
    index = index_of({}, {"alignment_id": None})
    assert [
        chain.chain_id
        for chain in training_chains(index, max_release_date="2021-09-16", require_alignment=True)
    ] == ["0abc_A"]


def test_cluster_sizes_and_weights_use_only_chains_that_pass_the_filter():
    index = index_of(
        {"sequence_length": 100},
        {"sequence_length": 384},
        {"sequence_length": 900},
        {"release_date": "2022-01-01"},
    )
    selected = [tuple(chain) for chain in training_chains(index, max_release_date="2021-09-16")]
    root = math.sqrt(3)
    assert [size for _, size, _ in selected] == [3, 3, 3]
    assert [weight for _, _, weight in selected] == pytest.approx(
        [0.5 / root, 0.75 / root, 1 / root]
    )


def test_chains_released_between_dates():
    index = index_of(
        {"release_date": "2021-09-16"},
        {"release_date": "2021-09-17"},
        {"release_date": "2021-12-11", "sequence_length": 701},
    )
    assert chains_released_between(index, min_date="2021-09-17", max_date="2021-12-11") == [
        "1abc_A",
        "2abc_A",
    ]
    assert chains_released_between(
        index, min_date="2021-09-17", max_date="2021-12-11", max_length=700
    ) == ["1abc_A"]


def test_cameo_targets_are_matched_by_mmcif_chain_id_first():
    """Target 7bgg_A is author chain Z, which has mmCIF chain id A.

    Target 7cz9_B is author chain B, because no chain of the entry has the mmCIF chain id B.
    """
    index = index_of(
        {"chain_id": "7bgg_A", "mmcif_chain_ids": ("B",)},
        {"chain_id": "7bgg_Z", "mmcif_chain_ids": ("A", "C")},
        {"chain_id": "7cz9_B", "mmcif_chain_ids": ("Q",)},
        {"chain_id": "7bly_A", "mmcif_chain_ids": ("A",), "sequence_length": 701},
        {"chain_id": "1xyz_A"},
    )
    dates = {"min_date": "2021-09-17", "max_date": "2021-12-11", "max_length": 700}
    assert cameo_chains(index, **dates) == ["7bgg_Z", "7cz9_B"]
    assert cameo_chains(index, **{**dates, "min_date": "2021-09-19"}) == []


def test_listed_chains_must_be_in_the_data_set():
    index = index_of({}, {})
    assert listed_chains(index, ["1abc_A", "0abc_A"]) == ["1abc_A", "0abc_A"]
    with pytest.raises(ValueError, match="7xyz_A are not in the data set"):
        listed_chains(index, ["0abc_A", "7xyz_A"])
