"""The flat parameter buffer: values, gradients, and parameters that are joined in memory."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from openfold_opt.model.linear import JoinedLinears, Linear, initialize_parameters
from openfold_opt.train.optim.parameter_buffer import ALIGNMENT, ParameterBuffer

BF16 = torch.bfloat16


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3, bias=False))


class Joined(nn.Module):
    """Three layers that are applied together, between others; the second one has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_in = Linear(6, 5)
        self.first = Linear(5, 3)
        self.between = Linear(12, 4)
        self.second = Linear(5, 7, bias=False)
        self.third = Linear(5, 2)
        self.joined = JoinedLinears(self.third, self.second, self.first)
        initialize_parameters(self, seed=3)
        generator = torch.Generator().manual_seed(4)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter.data, generator=generator)

    def forward(self, x):
        return self.between(self.joined.project(self.linear_in(x)))


def low_names(model, precision):
    return [name for name, _ in model.named_parameters()] if precision == BF16 else []


def inputs(number: int = 0):
    return torch.randn(9, 6, generator=torch.Generator().manual_seed(number))


def test_the_buffer_keeps_values_and_order_and_aligns_parameters():
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffer = ParameterBuffer(model, num_extras=4)
    assert buffer.names == tuple(before)
    assert buffer.num_parameters == sum(value.numel() for value in before.values())
    assert len(buffer.gradients) == buffer.size + 4 and buffer.size % ALIGNMENT == 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert (value.data_ptr() - buffer.values.data_ptr()) % (4 * ALIGNMENT) == 0


def test_gradients_of_several_backward_passes_are_added():
    model = small_model()
    twin = copy.deepcopy(model)
    buffer = ParameterBuffer(model)
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(5))
    for _ in range(2):
        model(x).square().sum().backward()
        buffer.collect_gradients()
        twin(x).square().sum().backward()
    views = buffer.views(buffer.gradients)
    for name, parameter in twin.named_parameters():
        assert torch.equal(views[name], parameter.grad)
    assert all(parameter.grad is None for parameter in model.parameters())
    buffer.zero_gradients()
    assert not buffer.gradients.any()


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_joined_parameters_share_memory_and_get_the_gradients_of_separate_ones(dtype):
    model, twin = Joined(), Joined()
    buffer = ParameterBuffer(model, num_extras=3, low_precision=low_names(model, dtype))
    twin.to(dtype)
    # 7 of the 12 elements of the joined bias have no parameter.
    assert buffer.num_parameters == sum(x.numel() for x in twin.parameters())
    for number in range(2):
        x = inputs(number)
        results = model(x), twin(x)
        assert torch.equal(*results)
        for result in results:
            result.float().square().sum().backward()
        buffer.collect_gradients()
        for name, value in buffer.views(buffer.gradients).items():
            expected = twin.get_parameter(name).grad.float()
            # In bfloat16, the sum of two gradients is rounded in the twin only.
            torch.testing.assert_close(value, expected, rtol=0.02 * number, atol=0.02 * number)
        assert all(leaf.grad is None for leaf in buffer.leaves)
    is_used = torch.zeros_like(buffer.gradients, dtype=torch.bool)
    for view in buffer.views(is_used).values():
        view.fill_(True)
    assert not buffer.gradients[~is_used].any() and not buffer.values[~is_used[:-3]].any()


def test_one_gradient_for_each_joined_weight_and_bias():
    model = Joined()
    buffer = ParameterBuffer(model)
    shapes = [tuple(leaf.shape) for leaf in buffer.leaves]
    assert shapes == [(5, 6), (5,), (12, 5), (12,), (4, 12), (4,)]
    model(inputs()).sum().backward()
    assert model.first.weight.grad is None and model.joined.weights.weight.grad is not None
    assert buffer.names == tuple(model.state_dict())


def test_an_update_of_the_values_changes_the_joined_parameters():
    model = Joined()
    buffer = ParameterBuffer(model, low_precision=low_names(model, BF16))
    with torch.no_grad():
        buffer.values.mul_(2.0)
    buffer.refresh_compute_copy()
    parts = [model.third.weight, model.second.weight, model.first.weight]
    assert torch.equal(model.joined.weights.weight, torch.cat(parts))
    assert torch.equal(model.joined.weights.bias[2:9], torch.zeros(7, dtype=BF16))


def test_a_copy_of_the_model_has_joined_parameters_of_its_own():
    model = Joined()
    ParameterBuffer(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.first.weight.zero_()
    assert not torch.equal(twin(inputs()), model(inputs()))
    expected = F.linear(twin.linear_in(inputs()), twin.second.weight)
    torch.testing.assert_close(twin.joined.project(twin.linear_in(inputs()))[:, 2:9], expected)


def test_only_a_part_of_the_gradients_is_collected():
    model, twin = Joined(), Joined()
    buffer, whole = ParameterBuffer(model), ParameterBuffer(twin)
    for each in (model, twin):
        each(inputs()).sum().backward()
    whole.collect_gradients()
    start = list(buffer.leaves.values())[2]
    buffer.collect_gradients(slice(start, None))
    assert torch.equal(buffer.gradients[start:], whole.gradients[start:])
    assert not buffer.gradients[:start].any() and model.linear_in.weight.grad is not None


def test_the_error_about_tensors_names_missing_and_extra_ones():
    buffer = ParameterBuffer(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"missing \['bias'\] \(1\), extra \['other'\] \(1\)"):
        buffer.load(buffer.values, {"weight": torch.zeros(2, 2), "other": torch.zeros(1)})


def test_the_buffer_refuses_other_dtypes():
    with pytest.raises(ValueError, match="float32"):
        ParameterBuffer(nn.Linear(2, 2).to(torch.bfloat16))
