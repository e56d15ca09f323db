"""Learning rates of individual steps."""

import numpy as np
import pytest

from openfold_opt.train.optim.lr_schedule import ScheduleConfig, learning_rate


def test_warmup_is_an_inclusive_linspace_rounded_to_ten_decimals():
    config = ScheduleConfig(base_learning_rate=1e-3, warmup_init_learning_rate=1e-5, warmup_steps=3)
    assert [learning_rate(config, step) for step in range(1, 6)] == [
        1e-5,
        0.000505,
        1e-3,
        1e-3,
        1e-3,
    ]
    config = ScheduleConfig(warmup_steps=1000)
    expected = [round(float(rate), 10) for rate in np.linspace(1e-5, 1e-3, 1000)]
    assert [learning_rate(config, step) for step in range(1, 1001)] == pytest.approx(
        expected, abs=1.1e-10
    )


def test_without_warmup_and_with_a_warmup_of_one_step():
    assert learning_rate(ScheduleConfig(warmup_steps=0), 1) == 1e-3
    assert learning_rate(ScheduleConfig(warmup_steps=1), 1) == 1e-5


def test_the_rate_decays_after_the_decay_steps():
    config = ScheduleConfig(decay_steps=(10, 20), decay_factor=0.5)
    assert [learning_rate(config, step) for step in (10, 11, 20, 21)] == [1e-3, 5e-4, 5e-4, 2.5e-4]


def test_steps_count_from_one():
    with pytest.raises(ValueError, match="count from 1"):
        learning_rate(ScheduleConfig(), 0)
