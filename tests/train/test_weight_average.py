"""The running average as it is saved and restored; kernels/test_weight_update.py has its equation."""

import torch
from torch import nn

from openfold_opt.train.parameter_buffer import ParameterBuffer
from openfold_opt.train.weight_average import WeightAverage, WeightAverageConfig


def test_saved_average_comes_back_and_an_empty_one_starts_over():
    torch.manual_seed(2)
    buffer = ParameterBuffer(nn.Linear(3, 4))
    average = WeightAverage(buffer, WeightAverageConfig())
    assert average.state_dict() == {}
    average.average.copy_(buffer.values)
    average.num_updates.fill_(1.0)
    saved = average.state_dict()
    other = WeightAverage(buffer, WeightAverageConfig())
    other.load_state_dict(saved, num_updates=1)
    assert torch.equal(other.average, average.average) and other.num_updates.item() == 1
    other.load_state_dict({}, num_updates=0)
    assert other.num_updates.item() == 0
