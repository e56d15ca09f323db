"""The wire: expanded on a CPU it is the plain sample to the last bit; its table; its size."""

import dataclasses

import numpy as np
import pytest

from openfold_opt.loader import compact
from openfold_opt.loader.compact import WIRE_FEATURES, check_wire, smallest_integers, stack_samples
from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.expand import expand_batch
from openfold_opt.loader.plain_sample import plain_sample
from openfold_opt.loader.random_streams import evaluation_seed
from openfold_opt.loader.raw_reading import read_evaluation_features, read_training_features
from openfold_opt.loader.sample import (
    choose_for_evaluation,
    choose_for_training,
    compact_sample,
    make_evaluation_sample,
    make_training_sample,
)
from openfold_opt.protein.features import FEATURES, check_features
from openfold_opt.protein.reader import ShardReader
from tests.loader.expanded import features_of
from tests.loader.test_sample import SMALL, make_raw

RAW_SIZES = [
    {}, {"num_res": 5}, {"num_res": 12}, {"num_res": 13}, {"num_rows": 1}, {"num_rows": 4}, {"num_rows": 700},
    {"num_templates": 0}, {"num_templates": 1}, {"num_res": 70, "num_rows": 130},
]  # fmt: skip


def assert_same_bits(found, expected):
    assert list(found) == list(FEATURES)
    for name, array in found.items():
        assert array.dtype == FEATURES[name].dtype == expected[name].dtype, name
        assert array.shape == expected[name].shape, name
        assert array.tobytes() == expected[name].tobytes(), name


@pytest.mark.parametrize("size", RAW_SIZES, ids=str)
@pytest.mark.parametrize("masked", [0.0, 0.15, 1.0])
def test_training_samples_are_the_plain_ones(size, masked):
    raw = make_raw(**size)
    config = dataclasses.replace(SMALL, masked_msa_fraction=masked, max_templates=5)
    for seed in range(4):
        choice = choose_for_training(raw, seed=seed, config=config)
        assert_same_bits(features_of(compact_sample(raw, choice)), plain_sample(raw, choice))


@pytest.mark.parametrize("size", RAW_SIZES, ids=str)
def test_evaluation_samples_are_the_plain_ones(size):
    raw = make_raw(**size)
    choice = choose_for_evaluation(raw, seed=8, config=SMALL)
    assert_same_bits(features_of(compact_sample(raw, choice)), plain_sample(raw, choice))


def test_a_batch_is_its_samples():
    raws = [make_raw(), make_raw(num_res=6, num_rows=2), make_raw(num_rows=200, num_templates=0)]
    choices = [choose_for_training(raw, seed=seed, config=SMALL) for seed, raw in enumerate(raws)]
    wires = [compact_sample(raw, choice) for raw, choice in zip(raws, choices)]
    batch = expand_batch(stack_samples(wires))
    check_features(batch, batched=True)
    for place, (raw, choice) in enumerate(zip(raws, choices)):
        assert_same_bits({name: tensor[place].numpy() for name, tensor in batch.items()}, plain_sample(raw, choice))


def test_counts_beyond_a_byte_and_beyond_two():
    raw = make_raw(num_res=4, num_rows=70_000, num_templates=0)
    dense = np.zeros(raw.msa.shape, np.int64)
    dense[1:, 2] = 700
    raw = dataclasses.replace(raw, deletions=type(raw.deletions).from_dense(dense))
    config = DataConfig(crop_size=4, max_msa_clusters=2, max_extra_msa=3, max_extra_passes=0, max_templates=0)
    choice = choose_for_training(raw, seed=1, config=config)
    wire = compact_sample(raw, choice)
    assert wire["cluster_deletions"].dtype == np.int32 and wire["profile_counts"].dtype == np.int16
    assert wire["extra_deletions"].dtype == np.int16
    assert_same_bits(features_of(wire), plain_sample(raw, choice))


@pytest.mark.parametrize("chain", ["1aki_A", "3o5r_A"])
def test_chains_with_quirks(quirks_dir, chain):
    check_chain(ShardReader(quirks_dir), chain, seeds=range(3))


@pytest.mark.parametrize("chain", ["2hhb_A", "2q2k_A", "4zxb_D", "3en2_A", "1l2y_A"])
def test_real_chains(real_dir, chain):
    check_chain(ShardReader(real_dir), chain, seeds=[7])


def check_chain(reader, chain, *, seeds):
    """The benchmark's own sizes, cropped and whole."""
    for seed in seeds:
        raw = read_training_features(reader, chain, seed=seed, config=DataConfig())
        choice = choose_for_training(raw, seed=seed, config=DataConfig())
        found = features_of(make_training_sample(reader, chain, seed=seed, config=DataConfig()))
        assert_same_bits(found, plain_sample(raw, choice))
    raw = read_evaluation_features(reader, chain, config=DataConfig())
    choice = choose_for_evaluation(raw, seed=evaluation_seed(chain), config=DataConfig())
    found = features_of(make_evaluation_sample(reader, chain, config=DataConfig()))
    assert_same_bits(found, plain_sample(raw, choice))


def test_a_sample_is_an_eighth_of_the_reference_s_at_most(real_dir):
    """54,147,216 bytes: what the reference's pipeline gives for a training sample of any chain, 4 slices of every feature."""
    wire = make_training_sample(ShardReader(real_dir), "3en2_A", seed=1, config=DataConfig())
    assert sum(array.nbytes for array in wire.values()) <= 54_147_216 / 8


def test_the_table_is_kept():
    wire = stack_samples([compact_sample(make_raw(), choose_for_training(make_raw(), seed=1, config=SMALL))])
    sizes = check_wire(wire)
    assert {name: sizes[name] for name in ("batch", "N_res", "N_clust", "N_extra", "N_templ", "num_passes")} == {
        "batch": 1, "N_res": 12, "N_clust": 6, "N_extra": 9, "N_templ": 4, "num_passes": 4,
    }  # fmt: skip
    assert set(wire) == set(WIRE_FEATURES)
    with pytest.raises(ValueError, match=r"missing \['msa'\]"):
        check_wire({name: array for name, array in wire.items() if name != "msa"})
    with pytest.raises(ValueError, match="wire feature msa: found dtype int64"):
        check_wire(wire | {"msa": wire["msa"].astype(np.int64)})
    with pytest.raises(ValueError, match="wire feature extra_msa: found shape"):
        check_wire(wire | {"extra_msa": wire["extra_msa"][..., :-1]})


def test_samples_too_large_to_pad_are_named():
    raw = make_raw()
    choice = choose_for_training(raw, seed=1, config=SMALL)
    wire = compact_sample(raw, choice)
    with pytest.raises(ValueError, match="wire feature aatype.*expected at most"):
        compact.pad_wire(wire, sizes=choice.sizes | {"N_res": 5})


@pytest.mark.parametrize(("largest", "kind"), [(0, "uint8"), (255, "uint8"), (256, "int16"), (32768, "int32"), (2**31, "int64")])
def test_the_smallest_integers(largest, kind):
    assert smallest_integers(np.array([0, largest])).dtype == kind
