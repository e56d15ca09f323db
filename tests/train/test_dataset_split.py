"""Selection of chains from an index in memory."""

import dataclasses

import pytest

from openfold_opt.protein.index import ShardIndex
from openfold_opt.protein.records import ChainEntry
from openfold_opt.train.dataset_split import (
    DataSelectionConfig,
    select_training,
    select_validation,
    validate_counts,
)


def entry(chain_id, date, *, length=100, cluster=1, labels=("A",)):
    return ChainEntry(
        chain_id=chain_id,
        mmcif_chain_ids=labels,
        release_date=date,
        resolution=2.0,
        method="x",
        cluster_id=cluster,
        sequence_length=length,
        commonest_letter_count=10,
        alignment_id=chain_id,
        num_alignments=1,
        num_template_hits=0,
        structure_shard=0,
        structure_row=0,
        alignment_shard=0,
        alignment_row=0,
        hit_set=0,
    )


def index_of(*chains):
    return ShardIndex(
        format_version=1,
        checksum="x",
        chains=chains,
        shards=(),
        missing_alignments="error",
        num_entries=len(chains),
        num_rejected_entries=0,
    )


INDEX = index_of(
    entry("1aaa_A", "2020-01-01"),
    entry("1bbb_A", "2021-09-16", cluster=1),
    entry("1ccc_A", "2021-09-17", cluster=2),
    entry("1ddd_A", "2020-01-01", cluster=-1),
    entry("7bgg_X", "2021-10-01", labels=("A", "B")),
    entry("7bly_A", "2021-10-01", length=701),
)


def test_training_chains_are_released_up_to_the_date():
    chains = select_training(INDEX, DataSelectionConfig())
    assert [chain.chain_id for chain in chains] == ["1aaa_A", "1bbb_A"]
    assert [chain.cluster_size for chain in chains] == [2, 2]


def test_listed_training_chains_must_pass_the_filter():
    chains = select_training(INDEX, DataSelectionConfig(train_chain_ids=("1bbb_A",)))
    assert [chain.chain_id for chain in chains] == ["1bbb_A"]
    with pytest.raises(ValueError, match="training filter rejects: 1ccc_A"):
        select_training(INDEX, DataSelectionConfig(train_chain_ids=("1bbb_A", "1ccc_A")))
    with pytest.raises(ValueError, match="9zzz_A"):
        select_training(INDEX, DataSelectionConfig(train_chain_ids=("9zzz_A",)))


def test_cameo_targets_are_selected_by_mmcif_chain_id_and_length():
    assert select_validation(INDEX, DataSelectionConfig()) == ["7bgg_X"]


def test_validation_chains_are_selected_by_release_date_or_list():
    by_date = DataSelectionConfig(
        validation_rule="release_dates",
        validation_min_date="2021-09-17",
        validation_max_date="2021-12-31",
    )
    assert select_validation(INDEX, by_date) == ["1ccc_A", "7bgg_X"]
    by_list = DataSelectionConfig(
        validation_rule="chain_ids", validation_chain_ids=("1ddd_A", "1aaa_A")
    )
    assert select_validation(INDEX, by_list) == ["1ddd_A", "1aaa_A"]


@pytest.mark.parametrize("rule", ["cameo", "release_dates", "share"])
def test_validation_chain_ids_need_their_rule(rule):
    message = "selection.validation_chain_ids is set, but selection.validation_rule is"
    with pytest.raises(ValueError, match=f"{message} '{rule}'"):
        DataSelectionConfig(validation_rule=rule, validation_chain_ids=("1ddd_A",))


def test_an_empty_selection_is_a_clear_error():
    with pytest.raises(ValueError, match="no chain of the data set passes the training filter"):
        select_training(INDEX, DataSelectionConfig(train_max_release_date="1990-01-01"))
    with pytest.raises(ValueError, match="no chain to evaluate by rule 'release_dates'"):
        select_validation(
            INDEX,
            DataSelectionConfig(
                validation_rule="release_dates",
                validation_min_date="2030-01-01",
                validation_max_date="2030-12-31",
            ),
        )


def test_dates_are_named_only_by_rules_that_use_them():
    listed = DataSelectionConfig(validation_rule="chain_ids", validation_chain_ids=("7bly_A",))
    with pytest.raises(
        ValueError, match="no chain to evaluate by rule 'chain_ids', at most 700 residues"
    ):
        select_validation(INDEX, listed)
    with pytest.raises(
        ValueError, match="rule 'cameo', dates 2021-09-17 to 2021-09-17, at most 700 residues"
    ):
        select_validation(INDEX, DataSelectionConfig(validation_max_date="2021-09-17"))


@pytest.mark.parametrize(
    "field", ["train_max_release_date", "validation_min_date", "validation_max_date"]
)
@pytest.mark.parametrize(
    "text", ["2021-9-16", "20210916", "2021-W37-4", "2021-13-01", "yesterday", ""]
)
def test_dates_are_compared_as_text_and_so_must_be_iso_dates(field, text):
    with pytest.raises(
        ValueError, match=f"{field} is '{text}'; expected a date such as 2021-09-16"
    ):
        DataSelectionConfig(**{field: text})


def test_numbers_of_chains_must_be_the_required_ones():
    required = DataSelectionConfig(expected_train_samples=594_595, expected_eval_samples=180)
    assert validate_counts(train_samples=594_595, eval_samples=180, config=required) is None
    assert validate_counts(train_samples=1, eval_samples=2, config=DataSelectionConfig()) is None
    for train, evaluation in ((594_594, 180), (594_595, 181)):
        error = validate_counts(train_samples=train, eval_samples=evaluation, config=required)
        assert (
            f"{train:,} chains to train on and {evaluation} to evaluate, expected 594,595 and 180"
            in error
        )


def clustered(number):
    return index_of(*(entry(f"{i:04d}_A", "2020-01-01", cluster=i // 2) for i in range(number)))


def test_each_condition_of_the_training_filter_is_named():
    chains = (
        entry("1one_A", "2020-01-01", length=10),
        entry("1two_A", "2022-02-02"),
        dataclasses.replace(entry("1thr_A", "2020-01-01"), resolution=9.0),
        entry("1fou_A", "2022-02-02", cluster=-1),
    )
    config = DataSelectionConfig(train_chain_ids=tuple(chain.chain_id for chain in chains))
    with pytest.raises(ValueError) as caught:
        select_training(index_of(*chains), config)
    assert str(caught.value) == (
        "chains to train on that the training filter rejects: "
        "1fou_A (released on 2022-02-02, after 2021-09-16, in no cluster), "
        "1one_A (one letter is 100.0% of the sequence, expected at most 80%), "
        "1thr_A (resolution 9 angstrom, expected below 9), "
        "1two_A (released on 2022-02-02, after 2021-09-16)"
    )


def test_the_error_about_no_chains_counts_the_conditions():
    chains = (entry("1one_A", "2020-01-01", length=10), entry("1two_A", "2022-02-02"))
    with pytest.raises(ValueError) as caught:
        select_training(index_of(*chains), DataSelectionConfig())
    for part in ("1 such as 1one_A: one letter is 100.0%", "1 such as 1two_A: released on"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("share", "clusters"), [(0.01, 1), (0.1, 2), (0.5, 10)])
def test_a_share_of_the_clusters_is_held_out(share, clusters):
    index = clustered(40)
    config = DataSelectionConfig(validation_rule="share", validation_share=share)
    trained = {chain.chain_id for chain in select_training(index, config)}
    evaluated = set(select_validation(index, config))
    assert len(evaluated) == 2 * clusters and not trained & evaluated
    assert len(trained | evaluated) == 40
    shuffled = index_of(*reversed(index.chains))
    assert set(select_validation(shuffled, config)) == evaluated


def test_a_share_of_zero_evaluates_the_training_chains():
    config = DataSelectionConfig(validation_rule="share", validation_share=0.0)
    trained = [chain.chain_id for chain in select_training(clustered(4), config)]
    assert trained == select_validation(clustered(4), config) and len(trained) == 4


def test_a_share_that_leaves_no_training_chains_is_refused():
    config = DataSelectionConfig(validation_rule="share", validation_share=0.1)
    with pytest.raises(ValueError, match="has 1 clusters to train on"):
        select_training(clustered(2), config)
    with pytest.raises(ValueError, match="validation_share=1.0: expected at least 0"):
        DataSelectionConfig(validation_share=1.0)


def test_listed_validation_chains_are_held_out_with_their_clusters():
    listed = DataSelectionConfig(validation_rule="chain_ids", validation_chain_ids=("0001_A",))
    assert len(select_training(clustered(6), listed)) == 6
    held = dataclasses.replace(listed, exclude_validation=True)
    trained = [chain.chain_id for chain in select_training(clustered(6), held)]
    assert trained == ["0002_A", "0003_A", "0004_A", "0005_A"]
    with pytest.raises(ValueError, match="all 2 chains to train on are in a cluster"):
        select_training(clustered(2), held)


def test_clusters_with_only_long_chains_are_trained_on():
    chains = [entry(f"{i}abc_A", "2020-01-01", length=900, cluster=i) for i in range(5)]
    index = index_of(*chains, entry("9abc_A", "2020-01-01", cluster=9))
    config = DataSelectionConfig(validation_rule="share", validation_share=0.5)
    assert select_validation(index, config) == ["9abc_A"]
    assert len(select_training(index, config)) == 5
    with pytest.raises(ValueError, match="no chain to evaluate by rule 'share'"):
        select_validation(index_of(*chains), config)
