"""Accumulation that is derived from the global batch and the number of ranks."""

import dataclasses

import pytest

from openfold_opt.parallel.context import ParallelConfig, ParallelContext
from openfold_opt.train.global_batch import check_global_batch, fit_accumulation, keep_global_batch
from tests.support.synthetic_samples import tiny_config


@pytest.mark.parametrize(("streams", "expected"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_accumulation_follows_from_the_number_of_ranks(streams, expected):
    config = tiny_config(global_batch_size=16, local_batch_size=2, accumulation=3)
    assert fit_accumulation(config, streams).accumulation == expected


@pytest.mark.parametrize("streams", [3, 16])
def test_ranks_that_do_not_divide_the_batch_are_refused_at_start(streams):
    config = tiny_config(global_batch_size=16, local_batch_size=2)
    with pytest.raises(
        ValueError, match=f"global_batch_size=16 is not a multiple of {2 * streams}"
    ):
        fit_accumulation(config, streams)


def test_dap_and_evaluation_ranks_do_not_count():
    parallel = ParallelConfig(dap_size=2, num_evaluation_ranks=1)
    config = tiny_config(global_batch_size=8, local_batch_size=1, parallel=parallel)
    assert check_global_batch(config, 9).accumulation == 2


def test_a_configuration_without_global_batch_keeps_its_accumulation():
    config = tiny_config(accumulation=3)
    assert config.global_batch_size is None and fit_accumulation(config, 5) is config


def test_a_derived_accumulation_is_reported():
    lines = []
    config = tiny_config(global_batch_size=6, local_batch_size=1)
    found = keep_global_batch(
        config, ParallelContext.alone(), resumed_batch=None, report=lines.append
    )
    assert found.accumulation == 6
    assert lines == ["accumulation 6: the global batch of 6 / (1 data-parallel ranks x 1 samples)"]


def test_a_resumed_run_with_another_batch_is_refused():
    context = ParallelContext.alone()
    config = tiny_config(global_batch_size=2, local_batch_size=1)
    with pytest.raises(ValueError, match="a global batch of 4, the configuration has"):
        keep_global_batch(config, context, resumed_batch=4, report=print)
    without = dataclasses.replace(config, global_batch_size=None)
    found = keep_global_batch(without, context, resumed_batch=4, report=print)
    assert found.accumulation == 4
