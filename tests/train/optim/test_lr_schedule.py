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


def test_a_plateau_comes_before_repeated_decays():
    config = ScheduleConfig(
        warmup_init_learning_rate=1e-6,
        warmup_steps=1000,
        decay_steps=(50_000,),
        decay_every_steps=50_000,
        decay_factor=0.95,
    )
    decays = {1000: 0, 50_000: 0, 50_001: 1, 100_000: 1, 100_001: 2, 150_001: 3, 200_000: 3}
    for step, number in decays.items():
        assert learning_rate(config, step) == pytest.approx(1e-3 * 0.95**number)
    # The warm-up is proportional to the step.
    assert learning_rate(config, 1) == 1e-6 and learning_rate(config, 250) == 2.5e-4


def test_decays_repeat_from_the_start_without_decay_steps():
    config = ScheduleConfig(base_learning_rate=5e-4, decay_every_steps=8, decay_factor=0.95)
    rates = [learning_rate(config, step) for step in (1, 8, 9, 16, 17)]
    assert rates == pytest.approx([5e-4 * 0.95**number for number in (0, 0, 1, 1, 2)])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"decay_factor": 0.0}, "decay_factor=0.0: expected above 0"),
        ({"decay_factor": 1.05}, "expected above 0, at most 1"),
        ({"decay_steps": (20, 10), "decay_factor": 0.5}, "expected increasing steps"),
        ({"decay_steps": (0,), "decay_factor": 0.5}, "expected increasing steps"),
        ({"decay_every_steps": 0, "decay_factor": 0.5}, "decay_every_steps=0: expected at least 1"),
        ({"decay_every_steps": 5}, "no effect with decay_factor=1"),
        (
            {"warmup_steps": 10, "decay_every_steps": 5, "decay_factor": 0.5},
            "after step 5, is within the warm-up of 10 steps",
        ),
        (
            {"warmup_steps": 10, "decay_steps": (9,), "decay_factor": 0.5},
            "after step 9, is within the warm-up",
        ),
    ],
)
def test_decays_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        ScheduleConfig(**fields)


def test_steps_count_from_one():
    with pytest.raises(ValueError, match="count from 1"):
        learning_rate(ScheduleConfig(), 0)
