"""The wire format: samples match the table, padding, stacking and errors."""

import pathlib

import numpy as np
import pytest

from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.raw_reading import read_training_features
from openfold_opt.loader.sample import choose_for_training, encode_sample, make_training_sample
from openfold_opt.loader.wire_format import (
    WIRE_FEATURES,
    check_wire,
    pack_bits,
    pad_wire,
    smallest_integers,
    stack_samples,
)
from openfold_opt.protein.features import FEATURES
from openfold_opt.protein.reader import ShardReader
from tests.support.raw_samples import make_raw

SMALL = DataConfig(crop_size=12, max_msa_clusters=6, max_extra_msa=9, max_templates=4)


def wire_sample(seed=1, **size):
    raw = make_raw(**size)
    return encode_sample(raw, choose_for_training(raw, seed=seed, config=SMALL))


@pytest.mark.parametrize(
    "size", [{}, {"num_res": 5}, {"num_rows": 1}, {"num_rows": 4}, {"num_templates": 0}]
)
def test_samples_match_the_table(size):
    sizes = check_wire(stack_samples([wire_sample(**size), wire_sample(seed=2, **size)]))
    assert sizes == {
        "N_res": 12,
        "N_res + 1": 13,
        "N_clust": 6,
        "N_extra": 9,
        "N_templ": 4,
        "num_passes": 4,
        "batch": 2,
    }


@pytest.mark.parametrize(
    ("largest", "dtype"),
    [
        (0, "uint8"),
        (255, "uint8"),
        (256, "int16"),
        (32767, "int16"),
        (32768, "int32"),
        (2**31, "int64"),
    ],
)
def test_packed_integers_have_the_smallest_type_that_holds_them(largest, dtype):
    packed = smallest_integers(np.array([1, largest]))
    assert packed.dtype == dtype
    assert packed.tolist() == [1, largest]


def test_empty_values_become_uint8():
    assert smallest_integers(np.zeros(0, np.int64)).dtype == np.uint8


def test_bits_are_packed_from_the_lowest_bit():
    assert pack_bits(np.array([[1, 0, 0, 0, 0, 0, 0, 1, 0, 1]], bool)).tolist() == [[129, 2]]


def test_fixed_features_are_padded_and_packed_ones_are_not():
    sizes = {"N_res": 3, "N_clust": 2, "N_extra": 0, "N_templ": 2}
    features = {
        "aatype": np.array([4, 5]),
        "msa": np.ones((2, 1, 2), np.uint8),
        "template_aatype": np.full((1, 3), 21),
        "deletions": np.array([7]),
    }
    padded = pad_wire(features, sizes=sizes)
    assert padded["aatype"].tolist() == [4, 5, 0]
    assert padded["msa"].tolist() == [[[1, 1, 0], [0, 0, 0]]] * 2
    assert padded["template_aatype"].tolist() == [[21, 21, 21, 0], [0, 0, 0, 0]]
    assert padded["deletions"].tolist() == [7]
    assert padded["aatype"].dtype == padded["template_aatype"].dtype == np.uint8


def test_error_names_a_too_large_feature():
    with pytest.raises(ValueError, match=r"aatype: found shape \[4\], expected at most \[3\]"):
        pad_wire(
            {"aatype": np.zeros(4)}, sizes={"N_res": 3, "N_clust": 1, "N_extra": 1, "N_templ": 1}
        )


def test_stacking_concatenates_packed_features_of_different_types():
    one, other = wire_sample(), wire_sample(seed=2)
    other["deletions"] = other["deletions"].astype(np.int32)
    batch = stack_samples([one, other])
    assert batch["aatype"].shape == (2, 12)
    assert batch["deletions"].dtype == np.int32
    assert batch["deletions"].tolist() == one["deletions"].tolist() + other["deletions"].tolist()


def test_stacking_one_sample_copies_nothing():
    sample = wire_sample()
    batch = stack_samples([sample])
    assert all(np.shares_memory(batch[name], array) for name, array in sample.items() if array.size)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda wire: wire.pop("msa"), r"missing \['msa'\], unknown none"),
        (lambda wire: wire.update(plddt=wire["msa"]), r"missing none, unknown \['plddt'\]"),
        (
            lambda wire: wire.update(msa=wire["msa"].astype(np.int64)),
            "msa: found dtype int64, expected one of .*uint8",
        ),
        (lambda wire: wire.update(msa=wire["msa"][..., :-1]), r"msa: found shape \[1, 4, 6, 11\]"),
        (lambda wire: wire.update(msa=wire["msa"][0]), r"msa: found shape \[4, 6, 12\]"),
        (
            lambda wire: wire.update(template_aatype=wire["template_aatype"][..., 1:]),
            r"template_aatype: found shape \[1, 4, 12\]",
        ),
        (
            lambda wire: wire.update(atom_positions=wire["atom_positions"][:, :2]),
            r"atom_positions: found shape \[\d+, 2\]",
        ),
    ],
)
def test_batches_that_do_not_match_the_table_are_rejected(change, message):
    wire = stack_samples([wire_sample()])
    change(wire)
    with pytest.raises(ValueError, match=message):
        check_wire(wire)


def test_document_lists_every_wire_feature():
    text = (pathlib.Path(__file__).parents[2] / "docs" / "wire_format.md").read_text(
        encoding="utf-8"
    )
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in text.splitlines()
        if line.startswith("| `")
    ]
    listed = {row[0].strip("`"): row[1] for row in rows if len(row) == 4}
    kinds = {
        name: "smallest integer" if len(spec.dtypes) > 1 else spec.dtypes[0].name
        for name, spec in WIRE_FEATURES.items()
    }
    assert listed == kinds


def reference_bytes(config):
    """Return the bytes of a sample in the MLCommons reference.

    It sends each feature in float32 or int64, with a slice for each pass.
    """
    sizes = {
        "N_res": config.crop_size,
        "N_clust": config.max_msa_clusters,
        "N_extra": config.max_extra_msa,
        "N_templ": config.max_templates,
    }
    return config.num_passes * sum(
        int(np.prod([sizes.get(dim, dim) for dim in spec.shape])) * spec.dtype.itemsize
        for spec in FEATURES.values()
    )


def test_sample_has_less_than_a_tenth_of_the_bytes_of_the_reference(real_dir):
    config = DataConfig()
    sample = make_training_sample(ShardReader(real_dir), "3en2_A", seed=5, config=config)
    assert set(sample) == set(WIRE_FEATURES)
    assert sum(array.nbytes for array in sample.values()) * 10 < reference_bytes(config)


def test_deepest_alignment_needs_16_bit_counts(real_dir):
    config = DataConfig()
    raw = read_training_features(ShardReader(real_dir), "3en2_A", seed=5, config=config)
    sample = encode_sample(raw, choose_for_training(raw, seed=5, config=config))
    assert sample["profile_counts"].dtype == np.int16
    assert sample["profile_counts"].max() > 1000
