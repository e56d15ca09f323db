"""The running average against its equation."""

import torch
from torch import nn

from openfold_opt.train.parameter_buffer import ParameterBuffer
from openfold_opt.train.weight_average import WeightAverage, WeightAverageConfig

YES, NO = torch.tensor(True), torch.tensor(False)


def test_first_update_copies_then_moves_by_a_tenth():
    torch.manual_seed(0)
    buffer = ParameterBuffer(nn.Linear(3, 4))
    average = WeightAverage(buffer, WeightAverageConfig(decay_rate=0.9))
    average.update(apply=YES)
    assert torch.equal(average.average, buffer.values)
    expected = buffer.values.clone()
    for _ in range(5):
        buffer.values += torch.randn(buffer.size)
        expected = expected + 0.1 * (buffer.values - expected)
        average.update(apply=YES)
    torch.testing.assert_close(average.average, expected, rtol=1e-6, atol=1e-6)
    assert average.num_updates.item() == 6


def test_skipped_update_changes_no_bit_and_leaves_the_first_copy_open():
    torch.manual_seed(1)
    buffer = ParameterBuffer(nn.Linear(3, 4))
    average = WeightAverage(buffer, WeightAverageConfig())
    average.update(apply=NO)
    assert average.num_updates.item() == 0 and average.average.count_nonzero() == 0
    assert average.state_dict() == {}
    average.update(apply=YES)
    before = average.average.clone()
    buffer.values += 1.0
    average.update(apply=NO)
    assert torch.equal(average.average, before)


def test_saved_average_comes_back_and_an_empty_one_starts_over():
    torch.manual_seed(2)
    buffer = ParameterBuffer(nn.Linear(3, 4))
    average = WeightAverage(buffer, WeightAverageConfig())
    average.update(apply=YES)
    saved = average.state_dict()
    other = WeightAverage(buffer, WeightAverageConfig())
    other.load_state_dict(saved, num_updates=1)
    assert torch.equal(other.average, average.average) and other.num_updates.item() == 1
    other.load_state_dict({}, num_updates=0)
    assert other.num_updates.item() == 0
