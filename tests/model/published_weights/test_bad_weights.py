"""Weights that cannot be used: each error names the file, the reason and the remedy."""

import numpy as np
import pytest
import torch

from openfold_opt.model.published_weights import WeightsError, read_weights
from tests.support.tiny_weights import sizes_file, tiny_run, tiny_weights, weights_file

PREFIX = "alphafold/alphafold_iteration/"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Return the file of the sizes, and a file of AlphaFold's arrays."""
    folder = tmp_path_factory.mktemp("tiny")
    config, state = tiny_weights()
    path = weights_file(folder / "weights.npz", config, state, form="alphafold")
    return sizes_file(folder, config), path


def changed(path, folder, change):
    arrays = dict(np.load(path))
    change(arrays)
    np.savez(folder / "changed.npz", **arrays)
    return folder / "changed.npz"


def message_of(path, sizes=None, **options):
    with pytest.raises(WeightsError) as caught:
        read_weights(path, model_config=sizes, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_missing_array_is_named(tiny, tmp_path):
    sizes, path = tiny
    key = PREFIX + "masked_msa_head/logits//bias"
    found = message_of(changed(path, tmp_path, lambda arrays: arrays.pop(key)), sizes)
    assert found.endswith(f"; 1 missing: {key}") and "name the file with the sizes" in found


def test_arrays_that_are_left_over_are_named_and_counted(tiny, tmp_path):
    sizes, path = tiny

    def add(arrays):
        for number in range(12):
            arrays[f"{PREFIX}new_head/layer_{number}//bias"] = np.zeros(3, np.float32)

    found = message_of(changed(path, tmp_path, add), sizes)
    assert f"12 extra: {PREFIX}new_head/layer_0//bias, " in found and found.endswith(" and 4 more")


def test_a_part_of_the_templates_is_not_taken_for_none(tiny, tmp_path):
    sizes, path = tiny

    def drop(arrays):
        for key in [key for key in arrays if "/template_pair_stack/" in key]:
            del arrays[key]

    found = message_of(changed(path, tmp_path, drop), sizes)
    assert " missing: " in found and "template_pair_stack" in found


def test_another_width_is_named_with_both_shapes(tiny, tmp_path):
    sizes, path = tiny
    key = PREFIX + "distogram_head/half_logits//weights"

    def cut(arrays):
        arrays[key] = arrays[key][:, :-1]

    found = message_of(changed(path, tmp_path, cut), sizes)
    assert f"1 with a wrong shape: {key} [10, 63] instead of [10, 64]" in found
    assert "--model-config FILE" in found


def test_values_that_are_not_finite_are_named(tiny, tmp_path):
    sizes, path = tiny

    def spoil(arrays):
        arrays[PREFIX + "masked_msa_head/logits//bias"][3] = np.nan

    found = message_of(changed(path, tmp_path, spoil), sizes)
    assert (
        "1 of 431 parameters have values that are not finite: auxiliary_heads.masked_msa" in found
    )


@pytest.mark.parametrize(
    "key",
    [
        "evoformer/~_relative_encoding/position_activations//weights",
        "evoformer/evoformer_iteration/triangle_multiplication_outgoing/left_norm_input//scale",
    ],
)
def test_a_model_for_complexes_is_refused_by_name(tiny, tmp_path, key):
    sizes, path = tiny

    def add(arrays):
        arrays[PREFIX + key] = np.zeros((73, 10), np.float32)

    found = message_of(changed(path, tmp_path, add), sizes)
    assert "holds weights of AlphaFold-Multimer: it has " + PREFIX + key in found


def test_fused_projections_of_openfold_are_refused_by_name(tmp_path):
    name = "evoformer.blocks.0.pair_stack.tri_mul_out.linear_ab_p.weight"
    torch.save({name: torch.zeros(2, 2)}, tmp_path / "file.pt")
    assert "AlphaFold-Multimer: it has " + name in message_of(tmp_path / "file.pt")


@pytest.mark.parametrize("length", [30, 100, 2_000, 20_000])
def test_a_file_that_was_cut_short(tiny, tmp_path, length):
    sizes, path = tiny
    (tmp_path / "cut.npz").write_bytes(path.read_bytes()[:length])
    assert "it was cut short or damaged, so fetch it again" in message_of(
        tmp_path / "cut.npz", sizes
    )


def test_a_damaged_array(tiny, tmp_path):
    sizes, path = tiny
    content = bytearray(path.read_bytes())
    array = np.load(path)[PREFIX + "evoformer/single_activations//weights"]
    content[content.index(array.tobytes()) + 9] ^= 0xFF
    (tmp_path / "damaged.npz").write_bytes(content)
    found = message_of(tmp_path / "damaged.npz", sizes)
    assert "cannot be read as an .npz file of plain arrays: Bad CRC-32" in found


def test_objects_in_an_npz_file_are_not_loaded(tmp_path):
    np.savez(tmp_path / "objects.npz", x=np.array([{"a": 1}], dtype=object))
    found = message_of(tmp_path / "objects.npz")
    assert "cannot be read as an .npz file of plain arrays: Object arrays cannot be" in found


def test_files_without_weights(tmp_path):
    np.savez(tmp_path / "empty.npz")
    assert "is empty, expected the weights" in message_of(tmp_path / "empty.npz")
    np.savez(tmp_path / "counts.npz", count=np.arange(3))
    assert "1 of 1 arrays do not hold floating-point numbers: count" in message_of(
        tmp_path / "counts.npz"
    )
    np.savez(tmp_path / "other.npz", w=np.zeros(3))
    assert "its tensors (1) are unknown: w; expected the names of" in message_of(
        tmp_path / "other.npz"
    )
    torch.save({"epoch": 3, "x": torch.zeros(2)}, tmp_path / "numbers.pt")
    assert "1 of 2 entries are not floating-point tensors: epoch" in message_of(
        tmp_path / "numbers.pt"
    )
    torch.save({"alphafold_state_dict": [1]}, tmp_path / "list.pt")
    assert "alphafold_state_dict is a list, expected names" in message_of(tmp_path / "list.pt")
    (tmp_path / "nothing").touch()
    assert "it is empty; fetch it again" in message_of(tmp_path / "nothing")


def test_a_damaged_safetensors_file(tmp_path):
    torch_files = pytest.importorskip("safetensors.torch")
    torch_files.save_file({"x": torch.zeros(1000)}, tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:500])
    assert "cannot be read as a safetensors file: " in message_of(tmp_path / "cut")


def test_directories_that_are_no_run(tmp_path):
    assert "is not the output directory of a run: it has no config.json and no checkpoints/" in (
        message_of(tmp_path)
    )
    assert "does not exist; expected a file of weights" in message_of(tmp_path / "none")
    config, _ = tiny_weights()
    tiny_run(tmp_path / "run", config, {4: None})
    found = message_of(tmp_path / "run" / "checkpoints" / "step_00000004")
    assert "is one checkpoint of a run; name the output directory" in found


def test_options_that_do_not_fit(tiny, tmp_path):
    sizes, path = tiny
    found = message_of(path, sizes, checkpoint="best")
    assert "checkpoint best is requested, but" in found and "is not the output" in found
    config, _ = tiny_weights()
    tiny_run(tmp_path / "run", config, {4: None})
    assert "has its own sizes; leave out --model-config" in message_of(tmp_path / "run", sizes)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[]", "holds a list, expected a JSON object"),
        ("{}", "there is no object config.model in it"),
        ('{"config": {"model": {"c_x": 3}}}', "1 unknown fields: model.c_x; expected"),
        ('{"config": {"model": {"c_m": "3"}}}', "model.c_m is '3', expected a value of type int"),
        ('{"config": {"model": {"c_m": 0}}}', "c_m is 0; expected at least 1 channel"),
        (
            '{"evoformer_stack_config": 3, "extra_msa_stack_config": {}}',
            "evoformer_stack_config is 3",
        ),
        ('{"evoformer_stack_config": {}}', "has no field 'extra_msa_stack_config'"),
    ],
)
def test_a_file_of_sizes_that_cannot_be_used(tiny, tmp_path, content, reason):
    (tmp_path / "sizes.json").write_text(content)
    assert reason in message_of(tiny[1], tmp_path / "sizes.json")
