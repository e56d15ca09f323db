"""Every collective of a training step is waited for, as a CUDA graph capture requires.

A capture fails if a stream that it forked, such as that of NCCL, is not joined.
"""

import dataclasses

import pytest
import torch
import torch.distributed as dist

from openfold_opt.parallel import transfers
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_model, build_plans, build_train_step
from openfold_opt.train.config import RunConfig
from tests.support.gloo_ranks import run_on_ranks
from tests.support.synthetic_samples import LEARNING_RATE, tiny_config
from tests.support.tiny_steps import micro_batch


class CountedCollectives:
    """Counts started collectives, and those that were waited for."""

    def __init__(self) -> None:
        self.num_started = 0
        self.waited: set[int] = set()

    def wrap(self, collective):
        """Return the collective with counting of starts and waits."""

        def start(*args, **kwargs):
            work = collective(*args, **kwargs)
            self.num_started += 1
            return CountedWork(self, self.num_started, work)

        return start


class CountedWork:
    """Replaces a torch.distributed.Work, and counts waits."""

    def __init__(self, counted: CountedCollectives, number: int, work) -> None:
        self._counted, self._number, self._work = counted, number, work

    def wait(self):
        self._counted.waited.add(self._number)
        return self._work.wait()


def deep_config(**changes) -> RunConfig:
    """Return the tiny configuration with two blocks per stack."""
    config = tiny_config(accumulation=2, **changes)
    model = config.model
    stacks = {
        name: dataclasses.replace(getattr(model, name), num_blocks=2)
        for name in ("template_pair_stack", "extra_msa_stack", "evoformer_stack")
    }
    return dataclasses.replace(config, model=dataclasses.replace(model, **stacks))


def count_step(context: ParallelContext, recompute: bool) -> tuple[int, int]:
    """Count started and awaited collectives of a step with recycling and two micro-batches."""
    config, device = deep_config(recompute=recompute), torch.device("cpu")
    plan, _ = build_plans(config, context, device)
    model = build_model(config, seed=1, device=device)
    step = build_train_step(config, model, plan=plan, context=context, seed=1)
    counted = CountedCollectives()
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (transfers, "_all_gather_single"),
            (transfers, "_reduce_scatter_single"),
            (dist, "all_to_all_single"),
            (dist, "all_reduce"),
        ):
            patch.setattr(module, name, counted.wrap(getattr(module, name)))
        batches = [micro_batch(config, seed) for seed in (1, 2)]
        assert (
            step.run(batches, step=1, learning_rate=LEARNING_RATE, num_recycling_iterations=1)
            .read()
            .is_applied
        )
    return counted.num_started, len(counted.waited)


@pytest.mark.parametrize("recompute", [False, True])
def test_every_collective_of_a_step_is_waited_for(recompute):
    for started, waited in run_on_ranks(count_step, 2, recompute, dap_size=2):
        assert started > 100
        assert waited == started
