"""Adam, clipping and buffer against torch.optim.Adam and equations written out by hand."""

import copy

import pytest
import torch
from torch import nn

from openfold_opt.train.clipping import clip_by_global_norm
from openfold_opt.train.optimizer import Adam, OptimizerConfig
from openfold_opt.train.parameter_buffer import ALIGNMENT, ParameterBuffer

YES, NO = torch.tensor(True), torch.tensor(False)


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3, bias=False))


def set_gradients(model: nn.Module, generator: torch.Generator) -> None:
    for parameter in model.parameters():
        parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))


def test_ten_steps_equal_torch_adam():
    model = small_model()
    reference = copy.deepcopy(model)
    config = OptimizerConfig(clip_norm=1e9)
    buffer = ParameterBuffer(model)
    adam = Adam(buffer, config)
    torch_adam = torch.optim.Adam(reference.parameters(), lr=1e-2, betas=(0.9, 0.999), eps=1e-6)
    generator = torch.Generator().manual_seed(1)
    for step in range(10):
        set_gradients(model, generator)
        for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
            theirs.grad = ours.grad.clone()
        rate = 1e-2 / (step + 1)
        torch_adam.param_groups[0]["lr"] = rate
        adam.update(buffer.gradients, learning_rate=rate, apply=YES)
        torch_adam.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_first_step_by_hand():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(2.0)
    buffer = ParameterBuffer(model)
    adam = Adam(buffer, OptimizerConfig(epsilon=1e-6))
    model.weight.grad.fill_(0.5)
    adam.update(buffer.gradients, learning_rate=0.1, apply=YES)
    # m = 0.05, v = 0.00025, corrected both to g and g**2: the step is lr * g / (|g| + eps)
    assert model.weight.item() == pytest.approx(2.0 - 0.1 * 0.5 / (0.5 + 1e-6), abs=1e-7)
    assert adam.exp_avg[0].item() == pytest.approx(0.05)
    assert adam.exp_avg_sq[0].item() == pytest.approx(0.00025)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_skipped_step_changes_no_bit(bad):
    model = small_model()
    buffer = ParameterBuffer(model)
    adam = Adam(buffer, OptimizerConfig())
    generator = torch.Generator().manual_seed(2)
    for round_ in range(2):
        before = [x.clone() for x in (buffer.values, adam.exp_avg, adam.exp_avg_sq, adam.num_steps)]
        set_gradients(model, generator)
        buffer.gradients[3] = bad
        adam.update(buffer.gradients, learning_rate=1e-2, apply=NO)
        for old, new in zip(before, (buffer.values, adam.exp_avg, adam.exp_avg_sq, adam.num_steps), strict=True):
            assert torch.equal(old, new), f"round {round_}"
        set_gradients(model, generator)
        adam.update(buffer.gradients.nan_to_num(0, 0, 0), learning_rate=1e-2, apply=YES)
    assert adam.num_steps.item() == 2


def test_state_goes_to_torch_adam_and_back():
    model = small_model()
    buffer = ParameterBuffer(model)
    adam = Adam(buffer, OptimizerConfig())
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        set_gradients(model, generator)
        adam.update(buffer.gradients, learning_rate=1e-3, apply=YES)
    state = adam.state_dict(learning_rate=1e-3)
    torch_adam = torch.optim.Adam(model.parameters(), lr=5.0)
    torch_adam.load_state_dict(state)
    assert torch_adam.param_groups[0]["eps"] == 1e-6
    other = Adam(ParameterBuffer(small_model(9)), OptimizerConfig())
    other.load_state_dict(torch_adam.state_dict())
    assert torch.equal(other.exp_avg, adam.exp_avg)
    assert torch.equal(other.exp_avg_sq, adam.exp_avg_sq)
    assert other.num_steps.item() == 3


def test_state_of_another_model_is_refused():
    state = Adam(ParameterBuffer(small_model()), OptimizerConfig()).state_dict(learning_rate=1e-3)
    with pytest.raises(ValueError, match="5 parameters, the model has 2"):
        Adam(ParameterBuffer(nn.Linear(2, 2)), OptimizerConfig()).load_state_dict(state)


def test_state_with_another_shape_names_the_parameter():
    adam = Adam(ParameterBuffer(nn.Linear(2, 2)), OptimizerConfig())
    state = Adam(ParameterBuffer(nn.Linear(3, 2)), OptimizerConfig()).state_dict(learning_rate=1e-3)
    with pytest.raises(ValueError, match=r"weight: found shape \(2, 3\), expected \(2, 2\)"):
        adam.load_state_dict(state)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_clipping_equals_torch(scale):
    generator = torch.Generator().manual_seed(4)
    gradient = torch.randn(1001, generator=generator) * scale
    parameter = nn.Parameter(torch.zeros(1001))
    parameter.grad = gradient.clone()
    expected_norm = torch.nn.utils.clip_grad_norm_([parameter], max_norm=0.1)
    norm = clip_by_global_norm(gradient, max_norm=0.1)
    torch.testing.assert_close(norm, expected_norm)
    torch.testing.assert_close(gradient, parameter.grad)


def test_clipping_reports_what_is_not_finite():
    gradient = torch.ones(4)
    gradient[2] = float("nan")
    assert not torch.isfinite(clip_by_global_norm(gradient, max_norm=0.1))


def test_buffer_keeps_values_order_and_alignment():
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffer = ParameterBuffer(model, num_riders=4)
    assert buffer.names == tuple(before)
    assert buffer.num_parameters == sum(value.numel() for value in before.values())
    assert len(buffer.gradients) == buffer.size + 4 and buffer.size % ALIGNMENT == 0
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert (value.data_ptr() - buffer.values.data_ptr()) % (4 * ALIGNMENT) == 0


def test_backward_adds_into_the_buffer():
    model = small_model()
    twin = copy.deepcopy(model)
    buffer = ParameterBuffer(model)
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(5))
    for _ in range(2):
        model(x).square().sum().backward()
        twin(x).square().sum().backward()
    views = buffer.views(buffer.gradients)
    for name, parameter in twin.named_parameters():
        assert torch.equal(views[name], parameter.grad)
    buffer.zero_gradients()
    assert all(parameter.grad.count_nonzero() == 0 for parameter in model.parameters())


def test_buffer_names_missing_and_extra_tensors():
    buffer = ParameterBuffer(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"missing \['bias'\] \(1\), extra \['other'\] \(1\)"):
        buffer.load(buffer.values, {"weight": torch.zeros(2, 2), "other": torch.zeros(1)})


def test_buffer_refuses_other_dtypes():
    with pytest.raises(ValueError, match="float32"):
        ParameterBuffer(nn.Linear(2, 2).to(torch.bfloat16))
