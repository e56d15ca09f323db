"""Loading of weights by name."""

import pytest
import torch
from torch import nn

from openfold_opt.model.weights import WeightsError, load_weights


def model():
    return nn.ModuleDict({"a": nn.Linear(3, 2), "b": nn.Linear(2, 2)})


def test_all_tensors_are_copied():
    source, target = model(), model()
    load_weights(target, source.state_dict(), source="test")
    assert all(torch.equal(x, y) for x, y in zip(source.parameters(), target.parameters()))


def test_mismatched_tensors_are_named_and_nothing_is_loaded():
    target = model()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    tensors = {name: torch.full_like(tensor, 7.0) for name, tensor in before.items()}
    del tensors["a.bias"]
    tensors["b.weight"] = torch.zeros(2, 5)
    tensors["c.weight"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        load_weights(target, tensors, source="some file")
    for part in (
        "some file",
        "1 missing: a.bias",
        "1 extra: c.weight",
        "1 with a wrong shape: b.weight [2, 5] instead of [2, 2]",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())
