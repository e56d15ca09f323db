"""Selection of chains from an index in memory."""

import pytest

from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.records import ChainEntry
from openfold_opt.train.selection import DataSelectionConfig, complain_of_counts, select_training, select_validation


def entry(chain_id, date, *, length=100, cluster=1, labels=("A",)):
    return ChainEntry(
        chain_id=chain_id, mmcif_chain_ids=labels, release_date=date, resolution=2.0, method="x", cluster_id=cluster,
        sequence_length=length, commonest_letter_count=10, alignment_id=chain_id, num_alignments=1,
        num_template_hits=0, structure_shard=0, structure_row=0, alignment_shard=0, alignment_row=0, hit_set=0,
    )


def index_of(*chains):
    return ShardIndex(
        format_version=1, checksum="x", chains=chains, shards=(), missing_alignments="error",
        num_entries=len(chains), num_rejected_entries=0,
    )


INDEX = index_of(
    entry("1aaa_A", "2020-01-01"),
    entry("1bbb_A", "2021-09-16", cluster=1),
    entry("1ccc_A", "2021-09-17", cluster=2),
    entry("1ddd_A", "2020-01-01", cluster=-1),
    entry("7bgg_X", "2021-10-01", labels=("A", "B")),
    entry("7bly_A", "2021-10-01", length=701),
)


def test_training_chains_are_those_up_to_the_date():
    chains = select_training(INDEX, DataSelectionConfig())
    assert [chain.chain_id for chain in chains] == ["1aaa_A", "1bbb_A"]
    assert [chain.cluster_size for chain in chains] == [2, 2]


def test_listed_training_chains():
    chains = select_training(INDEX, DataSelectionConfig(train_chain_ids=("1bbb_A",)))
    assert [chain.chain_id for chain in chains] == ["1bbb_A"]
    with pytest.raises(ValueError, match="training filter rejects: 1ccc_A"):
        select_training(INDEX, DataSelectionConfig(train_chain_ids=("1bbb_A", "1ccc_A")))
    with pytest.raises(ValueError, match="9zzz_A"):
        select_training(INDEX, DataSelectionConfig(train_chain_ids=("9zzz_A",)))


def test_cameo_targets_by_mmcif_chain_id_and_length():
    assert select_validation(INDEX, DataSelectionConfig()) == ["7bgg_X"]


def test_validation_by_release_dates_and_by_list():
    by_date = DataSelectionConfig(
        validation_rule="release_dates", validation_min_date="2021-09-17", validation_max_date="2021-12-31"
    )
    assert select_validation(INDEX, by_date) == ["1ccc_A", "7bgg_X"]
    by_list = DataSelectionConfig(validation_rule="chain_ids", validation_chain_ids=("1ddd_A", "1aaa_A"))
    assert select_validation(INDEX, by_list) == ["1ddd_A", "1aaa_A"]


def test_nothing_left_is_a_clear_error():
    with pytest.raises(ValueError, match="no chain of the data set passes the training filter"):
        select_training(INDEX, DataSelectionConfig(train_max_release_date="1990-01-01"))
    with pytest.raises(ValueError, match="no chain to evaluate by rule 'release_dates'"):
        select_validation(
            INDEX, DataSelectionConfig(validation_rule="release_dates", validation_min_date="2030-01-01",
                                       validation_max_date="2030-12-31")
        )


def test_numbers_of_chains_that_the_rules_demand():
    demand = DataSelectionConfig(expected_train_samples=594_595, expected_eval_samples=180)
    assert complain_of_counts(train_samples=594_595, eval_samples=180, config=demand) is None
    assert complain_of_counts(train_samples=1, eval_samples=2, config=DataSelectionConfig()) is None
    for train, evaluation in ((594_594, 180), (594_595, 181)):
        complaint = complain_of_counts(train_samples=train, eval_samples=evaluation, config=demand)
        assert f"{train:,} chains to train on and {evaluation} to evaluate, expected 594,595 and 180" in complaint
