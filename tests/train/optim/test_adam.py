"""The state of Adam; kernels/test_weight_update.py tests the update."""

import pytest
import torch
from torch import nn

from openfold_opt.train.optim.adam import Adam, OptimizerConfig, adam_state_dict
from openfold_opt.train.optim.parameter_buffer import ParameterBuffer


def small_model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(7, 5), nn.LayerNorm(5), nn.Linear(5, 3, bias=False))


def state_of(adam, buffer):
    first, second = buffer.views(adam.exp_avg), buffer.views(adam.exp_avg_sq)
    return adam_state_dict(
        OptimizerConfig(), first, second, num_steps=adam.num_steps.item(), learning_rate=1e-3
    )


def first_state(model):
    buffer = ParameterBuffer(model)
    return state_of(Adam(buffer), buffer)


def test_state_round_trips_through_torch_adam():
    model = small_model()
    buffer = ParameterBuffer(model)
    adam = Adam(buffer)
    generator = torch.Generator().manual_seed(3)
    adam.exp_avg.normal_(generator=generator)
    adam.exp_avg_sq.uniform_(generator=generator)
    adam.num_steps.fill_(3.0)
    adam.load_state_dict(state_of(adam, buffer))  # Clears the gaps between parameters.
    state = state_of(adam, buffer)
    torch_adam = torch.optim.Adam(model.parameters(), lr=5.0)
    torch_adam.load_state_dict(state)
    assert torch_adam.param_groups[0]["eps"] == 1e-6
    other = Adam(ParameterBuffer(small_model(9)))
    other.load_state_dict(torch_adam.state_dict())
    assert torch.equal(other.exp_avg, adam.exp_avg)
    assert torch.equal(other.exp_avg_sq, adam.exp_avg_sq)
    assert other.num_steps.item() == 3


def test_the_state_of_another_model_is_refused():
    state = first_state(small_model())
    with pytest.raises(ValueError, match="5 parameters, the model has 2"):
        Adam(ParameterBuffer(nn.Linear(2, 2))).load_state_dict(state)


def test_the_error_about_another_shape_names_the_parameter():
    adam = Adam(ParameterBuffer(nn.Linear(2, 2)))
    state = first_state(nn.Linear(3, 2))
    with pytest.raises(ValueError, match=r"weight: found shape \(2, 3\), expected \(2, 2\)"):
        adam.load_state_dict(state)
