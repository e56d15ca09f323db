"""Decoding of wire features is bit-identical to the reference sample; packing into one buffer."""

import dataclasses

import numpy as np
import pytest
import torch

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.raw_reading import read_evaluation_features, read_training_features
from openfold_opt.loader.reference.reference_sample import reference_sample
from openfold_opt.loader.sample import choose_for_evaluation, choose_for_training, encode_sample
from openfold_opt.loader.wire_buffer import pack_wire, unpack_wire
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.protein.features import check_features
from openfold_opt.protein.reader import ShardReader
from openfold_opt.protein.sparse_deletions import SparseDeletions
from tests.support.devices import DEVICES
from tests.support.raw_samples import make_raw

SMALL = DataConfig(crop_size=12, max_msa_clusters=6, max_extra_msa=9, max_templates=4)
SIZES = [
    {},
    {"num_res": 5},
    {"num_res": 1},
    {"num_rows": 1},
    {"num_rows": 4},
    {"num_rows": 300},
    {"num_templates": 0},
    {"num_templates": 1},
]


def assert_same_bits(found, expected):
    assert list(found) == list(expected) or set(found) == set(expected)
    for name, array in expected.items():
        tensor = found[name].numpy()
        assert (tensor.dtype, tensor.shape) == (array.dtype, array.shape), name
        # A comparison of bytes distinguishes -0 from 0 and treats equal NaNs as equal.
        assert tensor.tobytes() == array.tobytes(), name


def check(raw, choices):
    """Compare one batch of all choices with the reference samples."""
    features = decode_batch(stack_samples([encode_sample(raw, choice) for choice in choices]))
    check_features(features, batched=True)
    reference = [reference_sample(raw, choice) for choice in choices]
    assert_same_bits(
        features, {name: np.stack([sample[name] for sample in reference]) for name in reference[0]}
    )


def both_choices(raw, seed, config):
    return choose_for_training(raw, seed=seed, config=config), choose_for_evaluation(
        raw, seed=seed, config=config
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(6))
def test_random_samples_equal_the_reference(size, seed):
    raw = make_raw(**size)
    for choice in both_choices(raw, seed, SMALL):
        check(raw, [choice])


@pytest.mark.parametrize(
    "changes",
    [
        {"pad_to_crop": False},
        {"max_templates": 4, "max_extra_msa": 0},
        {"max_recycling_iterations": 0},
    ],
)
def test_other_configurations_equal_the_reference(changes):
    config = dataclasses.replace(SMALL, **changes)
    for size in ({}, {"num_res": 7}):
        raw = make_raw(**size)
        for choice in both_choices(raw, 3, config):
            check(raw, [choice])


def test_disabled_templates_equal_the_reference():
    raw = make_raw(num_templates=0)
    check(
        raw, [choose_for_training(raw, seed=1, config=dataclasses.replace(SMALL, max_templates=0))]
    )


@pytest.mark.parametrize("size", [{}, {"num_rows": 1}])
def test_batch_of_several_samples_equals_the_reference(size):
    raw = make_raw(**size)
    check(raw, [choose_for_training(raw, seed=seed, config=SMALL) for seed in range(5)])


def test_batch_of_samples_of_different_sizes_equals_the_reference():
    raws = [
        make_raw(),
        make_raw(num_res=5, num_rows=1, num_templates=0),
        make_raw(num_rows=4, num_templates=1),
    ]
    choices = [choose_for_training(raw, seed=8, config=SMALL) for raw in raws]
    features = decode_batch(
        stack_samples([encode_sample(raw, choice) for raw, choice in zip(raws, choices)])
    )
    reference = [reference_sample(raw, choice) for raw, choice in zip(raws, choices)]
    assert_same_bits(
        features, {name: np.stack([sample[name] for sample in reference]) for name in reference[0]}
    )


def test_large_deletion_counts_equal_the_reference():
    raw = make_raw()
    rng = np.random.default_rng(4)
    dense = rng.integers(0, 90_000, raw.msa.shape) * (rng.random(raw.msa.shape) < 0.3)
    raw = dataclasses.replace(raw, deletions=SparseDeletions.from_dense(dense))
    check(raw, [choose_for_training(raw, seed=2, config=SMALL)])


def test_order_of_deletion_columns_does_not_matter():
    raw = make_raw()
    reverse = slice(None, None, -1)
    original = raw.deletions
    indptr = original.indptr
    entries = [slice(indptr[row], indptr[row + 1]) for row in range(len(raw.msa))]
    reversed_deletions = dataclasses.replace(
        original,
        column=np.concatenate([original.column[row_entries][reverse] for row_entries in entries]),
        count=np.concatenate([original.count[row_entries][reverse] for row_entries in entries]),
    )
    assert not np.array_equal(reversed_deletions.column, original.column)
    choice = choose_for_training(raw, seed=2, config=SMALL)
    expected = encode_sample(raw, choice)
    changed = dataclasses.replace(raw, deletions=reversed_deletions)
    for name, array in encode_sample(changed, choice).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("chain", ["2hhb_A", "2q2k_A", "4zxb_D", "1igy_B", "1aki_A", "3o5r_A"])
def test_golden_chains_equal_the_reference(golden_transforms, chain):
    raw = golden_transforms.raw(chain)
    for seed in (1, 2):
        for choice in both_choices(raw, seed, DataConfig(crop_size=100)):
            check(raw, [choice])


@pytest.mark.parametrize("chain", ["3en2_A", "2hhb_A", "4zxb_D"])
def test_chains_from_shards_equal_the_reference(real_dir, chain):
    reader, config = ShardReader(real_dir), DataConfig()
    raw = read_training_features(reader, chain, seed=3, config=config)
    check(raw, [choose_for_training(raw, seed=3, config=config)])
    raw = read_evaluation_features(reader, chain, config=config)
    check(raw, [choose_for_evaluation(raw, seed=3, config=config)])


def wire_batch():
    raw = make_raw()
    return stack_samples(
        [encode_sample(raw, choose_for_training(raw, seed=seed, config=SMALL)) for seed in (1, 2)]
    )


def test_batch_that_does_not_match_the_table_is_rejected():
    wire = wire_batch()
    del wire["aatype"]
    with pytest.raises(ValueError, match="missing \\['aatype'\\]"):
        decode_batch(wire)


def test_packed_arrays_share_one_aligned_buffer():
    wire = wire_batch()
    buffer, layout = pack_wire(wire)
    copied = unpack_wire(buffer, layout)
    assert len({tensor.untyped_storage().data_ptr() for tensor in copied.values()}) == 1
    for name, array in wire.items():
        np.testing.assert_array_equal(copied[name].numpy(), array, err_msg=name)
        assert copied[name].storage_offset() * array.itemsize % 64 == 0, name


def test_read_only_arrays_are_not_modified():
    wire = wire_batch()
    for array in wire.values():
        array.setflags(write=False)
    before = {name: array.tobytes() for name, array in wire.items()}
    for tensor in decode_batch(wire).values():
        tensor.zero_()
    assert {name: array.tobytes() for name, array in wire.items()} == before


@pytest.mark.parametrize("device", DEVICES)
def test_features_on_any_device_differ_only_by_rounding(device):
    wire = wire_batch()
    expected, found = decode_batch(wire), decode_batch(wire, device=device)
    for name, tensor in expected.items():
        assert found[name].device.type == device
        torch.testing.assert_close(
            found[name].cpu(), tensor, rtol=1e-5, atol=1e-5, equal_nan=True, msg=name
        )
