"""Weights inside the checkpoints of OpenFold's first version, Lightning, DeepSpeed and ours."""

import re

import pytest
import torch

from openfold_opt.model.published_weights import WeightsError, read_weights
from openfold_opt.model.published_weights.openfold_names import current_names, openfold_name
from tests.support.tiny_weights import sizes_file, tiny_weights, weights_file


@pytest.fixture(scope="module")
def tiny():
    """Return sizes, our parameters, and the same under OpenFold's current names."""
    config, state = tiny_weights()
    return config, state, {openfold_name(name): tensor for name, tensor in state.items()}


def first_version(name):
    """Return the name that OpenFold's first version had."""
    name = name.replace("template_embedder.template_single_embedder.", "template_angle_embedder.")
    name = name.removeprefix("template_embedder.")
    name = re.sub(r"(linear_k?[qv]_points)\.linear\.", r"\1.", name)
    name = name.replace(".pair_stack.", ".core.")
    return re.sub(r"(blocks\.\d+)\.(msa_transition|outer_product_mean)\.", r"\1.core.\2.", name)


def read(content, config, folder, **options):
    path = folder / "checkpoint"
    torch.save(content, path)
    return read_weights(path, model_config=sizes_file(folder, config), **options)


def is_same(weights, state):
    return list(weights.state) == list(state) and all(
        torch.equal(weights.state[name], state[name]) for name in state
    )


def test_names_of_the_first_version(tiny, tmp_path):
    config, state, current = tiny
    old = {first_version(name): tensor for name, tensor in current.items()}
    assert len(old.keys() - current.keys()) > 100
    assert "evoformer.blocks.1.core.tri_mul_in.linear_a_p.weight" in old
    assert "template_angle_embedder.linear_1.weight" in old
    assert "structure_module.ipa.linear_kv_points.weight" in old
    weights = read(old, config, tmp_path)
    assert weights.kind == "OpenFold checkpoint" and is_same(weights, state)


def test_a_parameter_under_both_names_is_an_error(tiny, tmp_path):
    config, _, current = tiny
    name = "template_embedder.template_single_embedder.linear_1.bias"
    both = {**current, first_version(name): current[name]}
    with pytest.raises(WeightsError, match="two versions of the name of one parameter"):
        read(both, config, tmp_path)
    assert list(current_names([name])) == [name]


@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_the_average_of_a_training_checkpoint_is_taken(tiny, tmp_path, prefix):
    config, state, current = tiny
    trained = {f"{prefix}{name}": 2 * tensor for name, tensor in current.items()}
    for key in ("state_dict", "module"):
        content = {
            key: trained,
            "ema": {"params": current, "decay": 0.999},
            "global_step": 7,
            "optimizer_states": [{"state": {0: {"step": 7}}}],
        }
        weights = read(content, config, tmp_path)
        assert weights.which == "averaged weights (EMA)" and is_same(weights, state)
        doubled = {name: 2 * tensor for name, tensor in state.items()}
        weights = read(content, config, tmp_path, which="trained")
        assert weights.which == "trained weights" and is_same(weights, doubled)
        del content["ema"]
        assert is_same(read(content, config, tmp_path), doubled)


def test_a_directory_of_deepspeed(tiny, tmp_path):
    config, state, current = tiny
    folder = tmp_path / "12-345.ckpt"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "latest").write_text("checkpoint")
    file = folder / "checkpoint" / "mp_rank_00_model_states.pt"
    sizes = sizes_file(tmp_path, config)
    with pytest.raises(WeightsError, match=r"mp_rank_00_model_states.pt does not exist; copy"):
        read_weights(folder, model_config=sizes)
    torch.save({"ema": {"params": current}, "module": current}, file)
    weights = read_weights(folder, model_config=sizes)
    assert weights.path == folder and is_same(weights, state)


def test_our_checkpoint_with_an_average(tiny, tmp_path):
    config, state, _ = tiny
    content = {
        "iteration": 3,
        "alphafold_state_dict": {name: 2 * tensor for name, tensor in state.items()},
        "optimizer_state_dict": {"state": {}, "param_groups": []},
        "weight_average_state_dict": state,
    }
    weights = read(content, config, tmp_path)
    assert weights.kind == "MLCommons checkpoint" and weights.which == "averaged weights"
    assert is_same(weights, state) and weights.optimizer_state is None
    weights = read(content, config, tmp_path, which="trained")
    assert weights.which == "trained weights" and weights.optimizer_state is not None
    del content["weight_average_state_dict"]
    weights = read(content, config, tmp_path)
    assert weights.which == "" and not is_same(weights, state)


def test_safetensors_with_the_names_of_openfold(tiny, tmp_path):
    torch_files = pytest.importorskip("safetensors.torch")
    config, state, current = tiny
    torch_files.save_file(current, tmp_path / "file")
    weights = read_weights(tmp_path / "file", model_config=sizes_file(tmp_path, config))
    assert weights.kind == "safetensors" and is_same(weights, state)


def test_without_the_package_safetensors_the_error_says_how_to_install_it(
    tiny, tmp_path, monkeypatch
):
    config, state, _ = tiny
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install safetensors"):
        weights_file(tmp_path / "written", config, state, form="safetensors")
    header = b"{}      "
    (tmp_path / "file").write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(WeightsError, match="file is a safetensors file, which needs the package"):
        read_weights(tmp_path / "file")
