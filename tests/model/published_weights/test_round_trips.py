"""Weights that are read and written again are the same, in every form."""

import dataclasses

import numpy as np
import pytest
import torch

from openfold_opt.model.published_weights import read_weights
from openfold_opt.model.published_weights.openfold_names import openfold_name
from tests.support.tiny_model import randomized, tiny_model
from tests.support.tiny_weights import sizes_file, tiny_weights, weights_file


def same(first, second):
    return list(first) == list(second) and all(torch.equal(first[x], second[x]) for x in first)


@pytest.mark.parametrize("has_templates", [True, False])
@pytest.mark.parametrize("form", ["alphafold", "openfold", "safetensors"])
def test_our_parameters_survive_each_form(tmp_path, form, has_templates):
    if form == "safetensors":
        pytest.importorskip("safetensors")
    config, state = tiny_weights(has_templates=has_templates)
    path = weights_file(tmp_path / "weights", config, state, form=form)
    sizes = None if form == "safetensors" else sizes_file(tmp_path, config)
    weights = read_weights(path, model_config=sizes)
    assert same(weights.state, state)
    assert weights.config == config
    if form == "safetensors":
        # The file has the sizes in its metadata.
        assert weights.kind == "safetensors"
        assert weights.settings["sizes"].origin == "weights"


@pytest.mark.parametrize("name", ["model_1", "model_3", "model_1_ptm"])
def test_alphafold_arrays_are_written_as_they_were_read(shared, tmp_path, name):
    source = shared / "golden" / "weights" / f"{name}_tiny.npz"
    weights = read_weights(source, model_config=shared / "golden" / "model_tiny" / "config.json")
    copy = weights_file(tmp_path / "copy", weights.config, weights.state, form="alphafold")
    before, after = np.load(source), np.load(copy)
    assert sorted(before.files) == sorted(after.files)
    for key in before.files:
        assert before[key].dtype == after[key].dtype, key
        np.testing.assert_array_equal(before[key], after[key], err_msg=key)


@pytest.mark.parametrize("name", ["model_1", "model_3", "model_1_ptm"])
def test_openfold_tensors_are_written_as_they_were_read(shared, tmp_path, name):
    source = shared / "golden" / "weights" / f"{name}_tiny_openfold.pt"
    weights = read_weights(source, model_config=shared / "golden" / "model_tiny" / "config.json")
    copy = weights_file(tmp_path / "copy", weights.config, weights.state, form="openfold")
    before, after = (torch.load(path, weights_only=True) for path in (source, copy))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_a_block_with_one_head_has_a_dim_for_it(tmp_path):
    config = tiny_model()
    evoformer = dataclasses.replace(config.evoformer_stack, num_heads_msa=1, num_heads_triangle=1)
    config = dataclasses.replace(config, evoformer_stack=evoformer)
    state = randomized(config).state_dict()
    path = weights_file(tmp_path / "weights", config, state, form="alphafold")
    assert same(read_weights(path, model_config=sizes_file(tmp_path, config)).state, state)
    key = "alphafold/alphafold_iteration/evoformer/evoformer_iteration/msa_column_attention/"
    assert np.load(path)[key + "attention//key_w"].shape == (2, 12, 1, 3)


def test_half_precision_is_read_as_float32(tmp_path):
    config, state = tiny_weights()
    halves = {openfold_name(name): x.bfloat16() for name, x in state.items()}
    torch.save(halves, tmp_path / "half.pt")
    weights = read_weights(tmp_path / "half.pt", model_config=sizes_file(tmp_path, config))
    for name, tensor in weights.state.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, state[name].bfloat16().float())
