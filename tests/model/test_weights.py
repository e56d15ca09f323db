"""Weights on disk."""

import pytest
import torch
from torch import nn

from openfold_opt.model.weights import WeightsError, file_sha256, load_weights, read_weights, save_weights


def model():
    return nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2)})


def test_what_is_saved_is_read_again_in_order(tmp_path):
    source, target = model(), model()
    path = tmp_path / "weights.pt"
    save_weights(source, path)
    tensors = read_weights(path, expected_sha256=file_sha256(path))
    assert list(tensors) == list(source.state_dict())
    load_weights(target, tensors, source="test")
    assert all(torch.equal(x, y) for x, y in zip(source.parameters(), target.parameters()))
    assert list(tmp_path.iterdir()) == [path]


def test_the_resumable_form_is_understood(tmp_path):
    path = tmp_path / "resumable.pt"
    torch.save({"iteration": 4, "alphafold_state_dict": model().state_dict(), "optimizer_state_dict": {}}, path)
    assert list(read_weights(path)) == list(model().state_dict())


def test_another_sha256_is_an_error(tmp_path):
    path = tmp_path / "weights.pt"
    save_weights(model(), path)
    with pytest.raises(WeightsError, match="has SHA-256 .*, expected 00ff"):
        read_weights(path, expected_sha256="00ff")


def test_missing_extra_and_misshapen_tensors_are_named_and_nothing_is_loaded():
    target = model()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    tensors = {name: torch.full_like(tensor, 7.0) for name, tensor in before.items()}
    del tensors["a.bias"]
    tensors["b.weight"] = torch.zeros(2, 5)
    tensors["c.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        load_weights(target, tensors, source="some file")
    for part in ("some file", "1 missing: a.bias", "1 extra: c.weight", "b.weight [2, 5] instead of [2, 2]"):
        assert part in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


@pytest.mark.parametrize("name", ["garbled.pt", "garbled.npz"])
def test_a_garbled_file_is_an_error(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"no weights at all")
    with pytest.raises(WeightsError, match="garbled"):
        read_weights(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(WeightsError, match="does not exist"):
        read_weights(tmp_path / "none.pt")


def test_a_file_with_other_content_is_an_error(tmp_path):
    path = tmp_path / "other.pt"
    torch.save({"iteration": 3}, path)
    with pytest.raises(WeightsError, match="holds no state dict"):
        read_weights(path)
