"""A single pass of a sample decodes to the features of this pass."""

from __future__ import annotations

import pytest
import torch

from openfold_opt.loader import wire_format
from openfold_opt.loader.config import DataConfig
from openfold_opt.loader.decode import decode_batch
from openfold_opt.loader.sample import make_evaluation_sample
from openfold_opt.loader.wire_passes import _FLAGS, cut_to_pass
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.protein.reader import ShardReader
from tests.support.synthetic_shards import write_synthetic_shards


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """A sample of four passes with fewer clusters and extra rows than the alignment has."""
    folder = tmp_path_factory.mktemp("synthetic")
    write_synthetic_shards(folder / "raw", folder / "shards", num_chains=4)
    reader = ShardReader(folder / "shards")
    chain_id = max(reader.index.chains, key=lambda chain: chain.num_alignments).chain_id
    config = DataConfig(max_msa_clusters=5, max_extra_msa=7)
    return make_evaluation_sample(reader, chain_id, config=config)


def decoded(wire):
    return FeatureBatch.from_features(decode_batch(wire_format.stack_samples([wire])))


@pytest.mark.parametrize("pass_index", range(4))
def test_a_pass_decodes_to_its_features(sample, pass_index):
    assert len(sample["profile_counts"]) and len(sample["masked_classes"])
    expected = vars(decoded(sample).at_pass(pass_index))
    cut = decoded(cut_to_pass(sample, pass_index))
    assert cut.num_passes == 1
    found = vars(cut.at_pass(0))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_every_packed_feature_of_a_pass_has_its_flags():
    packed = {
        name for name, spec in wire_format.WIRE_FEATURES.items() if spec.per_pass and spec.is_packed
    }
    assert set(_FLAGS) == packed


@pytest.mark.parametrize("pass_index", [-1, 4])
def test_other_passes_are_errors(sample, pass_index):
    with pytest.raises(ValueError, match=f"pass {pass_index} requested.*has 4 passes"):
        cut_to_pass(sample, pass_index)
