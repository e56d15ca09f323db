"""Golden weights: files of AlphaFold and OpenFold give the outputs that OpenFold computes."""

import math
import shutil

import numpy as np
import pytest
import torch

from benchmark.parity.comparison import relative_error, unpadded
from benchmark.parity.golden_directory import read_batch, read_tensors
from benchmark.parity.weights_directory import read_key_table
from openfold_opt.model.config import ModelConfig
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.model.published_weights import WeightsError, build_model, read_weights
from openfold_opt.model.published_weights.alphafold_arrays import array_shapes, parameter_arrays
from openfold_opt.model.published_weights.name_forms import with_parts_of
from openfold_opt.model.published_weights.reading import parameter_shapes

KINDS = {".npz": "AlphaFold parameters", "_openfold.pt": "OpenFold checkpoint"}
MODELS = ("model_1", "model_3", "model_1_ptm")


def outputs_of(weights, shared):
    batch = read_batch(shared / "golden" / "model_tiny" / "batch.npz")
    with torch.no_grad():
        outputs = build_model(weights)(
            batch, ExecutionPlan.reference(), num_recycling_iterations=batch.num_passes - 1
        )
    return outputs, batch.at_pass(batch.num_passes - 1)


def errors_of(weights, name, shared):
    outputs, features = outputs_of(weights, shared)
    expected = read_tensors(shared / "golden" / "weights" / f"{name}_tiny_outputs.npz")
    errors = {}
    for key, value in expected.items():
        key = {"ptm": "predicted_tm_score"}.get(key, key)
        found = getattr(outputs, key)
        errors[key] = relative_error(unpadded(key, found, features), unpadded(key, value, features))
    return errors


@pytest.mark.parametrize("form", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_every_file_gives_the_stored_outputs(shared, tmp_path, name, form):
    """The name of the file says nothing about its kind."""
    sizes = shared / "golden" / "model_tiny" / "config.json"
    file = tmp_path / "a_file.bin"
    shutil.copy(shared / "golden" / "weights" / f"{name}_tiny{form}", file)
    weights = read_weights(file, model_config=sizes)
    assert weights.kind == KINDS[form]
    assert weights.config.has_templates is (name != "model_3")
    assert weights.config.auxiliary_heads.has_tm_score is (name == "model_1_ptm")
    errors = errors_of(weights, name, shared)
    assert max(errors.values()) < 1e-4, errors
    assert ("predicted_tm_score" in errors) is (name == "model_1_ptm")


@pytest.mark.parametrize("name", MODELS)
def test_both_forms_of_a_model_give_the_same_parameters(shared, name):
    sizes = shared / "golden" / "model_tiny" / "config.json"
    states = [
        read_weights(shared / "golden" / "weights" / f"{name}_tiny{form}", model_config=sizes).state
        for form in KINDS
    ]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_exchanged_sides_of_the_incoming_multiplication_are_seen(shared, tmp_path):
    """A mapping that does not exchange left and right would read this file without a message."""
    arrays = dict(np.load(shared / "golden" / "weights" / "model_1_tiny.npz"))
    other = {"left": "right", "right": "left"}
    exchanged = {}
    for key, array in arrays.items():
        folder, _, layer = key.rpartition("/triangle_multiplication_incoming/")
        side = layer.partition("_")[0]
        if folder and side in other:
            key = key.replace(f"/{side}_", f"/{other[side]}_")
        exchanged[key] = array
    assert exchanged.keys() == arrays.keys()
    np.savez(tmp_path / "exchanged.npz", **exchanged)
    weights = read_weights(
        tmp_path / "exchanged.npz", model_config=shared / "golden" / "model_tiny" / "config.json"
    )
    assert errors_of(weights, "model_1", shared)["pair"] > 1e-3


@pytest.mark.parametrize(
    ("name", "count"),
    [("model_1", 93_229_082), ("model_3", 92_899_674), ("model_1_ptm", 93_237_338)],
)
def test_the_arrays_of_alphafold2s_sizes_are_those_of_its_files(shared, name, count):
    table = read_key_table(shared / "golden" / "weights" / f"{name}_keys.tsv")
    config = with_parts_of(ModelConfig(), table)
    shapes = parameter_shapes(config)
    assert array_shapes(parameter_arrays(shapes, config)) == table
    assert sum(math.prod(shape) for shape in shapes.values()) == count


def test_other_sizes_need_the_option(shared):
    path = shared / "golden" / "weights" / "model_3_tiny.npz"
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    message = str(caught.value)
    assert "does not fit the model with the sizes of AlphaFold2" in message
    assert "evoformer/left_single//weights [22, 16] instead of [22, 128]" in message
    assert "give them with --model-config FILE (the config.json of its run); " in message


def test_settings_have_their_origins(shared):
    sizes = shared / "golden" / "model_tiny" / "config.json"
    found = {}
    for name in MODELS:
        path = shared / "golden" / "weights" / f"{name}_tiny.npz"
        settings = read_weights(path, model_config=sizes).settings
        assert settings["sizes"].origin == "option" and settings["templates"].origin == "weights"
        assert settings["max_extra_msa"].value == 1024
        assert settings["max_extra_msa"].origin == "default"
        found[name] = settings["max_msa_clusters"].value
    assert found == {"model_1": 508, "model_3": 512, "model_1_ptm": 508}
