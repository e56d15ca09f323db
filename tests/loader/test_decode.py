"""Expansion of wire features equals the plain sample to the last bit; batches of several; the copy in one piece."""

import dataclasses

import numpy as np
import pytest
import torch

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.reference.reference_sample import reference_sample
from openfold_opt.loader.raw_reading import read_evaluation_features, read_training_features
from openfold_opt.loader.sample import choose_for_evaluation, choose_for_training, encode_sample
from openfold_opt.loader.transforms.deletions import SparseDeletions
from openfold_opt.loader.wire_buffer import pack_wire, unpack_wire
from openfold_opt.loader.wire_format import stack_samples
from openfold_opt.protein.features import check_features
from openfold_opt.protein.reader import ShardReader
from tests.loader.raw_samples import make_raw
from tests.support.devices import DEVICES

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
        # Bytes tell -0 from 0, and know that NaN is NaN.
        assert tensor.tobytes() == array.tobytes(), name


def check(raw, choices):
    """One batch of all choices against the plain samples."""
    features = decode_batch(stack_samples([encode_sample(raw, choice) for choice in choices]))
    check_features(features, batched=True)
    plain = [plain_sample(raw, choice) for choice in choices]
    assert_same_bits(
        features, {name: np.stack([sample[name] for sample in plain]) for name in plain[0]}
    )


def both_choices(raw, seed, config):
    return choose_for_training(raw, seed=seed, config=config), choose_for_evaluation(
        raw, seed=seed, config=config
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", range(6))
def test_random_samples(size, seed):
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
def test_other_configurations(changes):
    config = dataclasses.replace(SMALL, **changes)
    for size in ({}, {"num_res": 7}):
        raw = make_raw(**size)
        for choice in both_choices(raw, 3, config):
            check(raw, [choice])


def test_no_templates_at_all():
    raw = make_raw(num_templates=0)
    check(
        raw, [choose_for_training(raw, seed=1, config=dataclasses.replace(SMALL, max_templates=0))]
    )


@pytest.mark.parametrize("size", [{}, {"num_rows": 1}])
def test_a_batch_of_several_samples(size):
    raw = make_raw(**size)
    check(raw, [choose_for_training(raw, seed=seed, config=SMALL) for seed in range(5)])


def test_samples_of_different_sizes_in_one_batch():
    raws = [
        make_raw(),
        make_raw(num_res=5, num_rows=1, num_templates=0),
        make_raw(num_rows=4, num_templates=1),
    ]
    choices = [choose_for_training(raw, seed=8, config=SMALL) for raw in raws]
    features = decode_batch(
        stack_samples([encode_sample(raw, choice) for raw, choice in zip(raws, choices)])
    )
    plain = [plain_sample(raw, choice) for raw, choice in zip(raws, choices)]
    assert_same_bits(
        features, {name: np.stack([sample[name] for sample in plain]) for name in plain[0]}
    )


def test_deletions_beyond_small_integers():
    raw = make_raw()
    rng = np.random.default_rng(4)
    dense = rng.integers(0, 90_000, raw.msa.shape) * (rng.random(raw.msa.shape) < 0.3)
    raw = dataclasses.replace(raw, deletions=SparseDeletions.from_dense(dense))
    check(raw, [choose_for_training(raw, seed=2, config=SMALL)])


def test_deletions_in_any_order_of_columns():
    raw = make_raw()
    backwards = slice(None, None, -1)
    kept = raw.deletions
    pieces = [slice(kept.indptr[row], kept.indptr[row + 1]) for row in range(len(raw.msa))]
    turned = dataclasses.replace(
        kept,
        column=np.concatenate([kept.column[piece][backwards] for piece in pieces]),
        count=np.concatenate([kept.count[piece][backwards] for piece in pieces]),
    )
    assert not np.array_equal(turned.column, kept.column)
    choice = choose_for_training(raw, seed=2, config=SMALL)
    expected = encode_sample(raw, choice)
    for name, array in encode_sample(dataclasses.replace(raw, deletions=turned), choice).items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


@pytest.mark.parametrize("chain", ["2hhb_A", "2q2k_A", "4zxb_D", "1igy_B", "1aki_A", "3o5r_A"])
def test_golden_chains(golden_transforms, chain):
    raw = golden_transforms.raw(chain)
    for seed in (1, 2):
        for choice in both_choices(raw, seed, DataConfig(crop_size=100)):
            check(raw, [choice])


@pytest.mark.parametrize("chain", ["3en2_A", "2hhb_A", "4zxb_D"])
def test_chains_from_shards(real_dir, chain):
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


def test_a_batch_that_breaks_the_table_is_refused():
    wire = wire_batch()
    del wire["aatype"]
    with pytest.raises(ValueError, match="missing \\['aatype'\\]"):
        decode_batch(wire)


def test_the_copy_in_one_piece_lies_in_one_buffer():
    wire = wire_batch()
    buffer, layout = pack_wire(wire)
    copied = unpack_wire(buffer, layout)
    assert len({tensor.untyped_storage().data_ptr() for tensor in copied.values()}) == 1
    for name, array in wire.items():
        np.testing.assert_array_equal(copied[name].numpy(), array, err_msg=name)
        assert copied[name].storage_offset() * array.itemsize % 64 == 0, name


def test_read_only_arrays_are_not_written():
    wire = wire_batch()
    for array in wire.values():
        array.setflags(write=False)
    before = {name: array.tobytes() for name, array in wire.items()}
    for tensor in decode_batch(wire).values():
        tensor.zero_()
    assert {name: array.tobytes() for name, array in wire.items()} == before


@pytest.mark.parametrize("device", DEVICES)
def test_on_any_device_features_differ_by_rounding_alone(device):
    wire = wire_batch()
    expected, found = decode_batch(wire), decode_batch(wire, device=device)
    for name, tensor in expected.items():
        assert found[name].device.type == device
        torch.testing.assert_close(
            found[name].cpu(), tensor, rtol=1e-5, atol=1e-5, equal_nan=True, msg=name
        )
