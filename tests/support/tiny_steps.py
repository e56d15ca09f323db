"""Training steps of the tiny model, eager and as graphs, and a substitute for CUDA graphs."""

import dataclasses

import torch

from openfold_opt.kernels.interface import KernelConfig
from openfold_opt.model.batch import FeatureBatch
from openfold_opt.parallel.context import ParallelContext
from openfold_opt.train.build_run import build_model, build_plans, build_train_step
from openfold_opt.train.config import RunConfig
from openfold_opt.train.graphs.step_graphs import StepGraphs
from openfold_opt.train.step import MicroBatch
from openfold_opt.train.synthetic_features import synthetic_batch


class FakeRecorder:
    """A Recorder whose captures run the work again, on the same memory as a graph would use."""

    def __init__(self) -> None:
        self.num_replays = 0

    def warm_up_run(self, work):
        work()

    def record(self, work):
        return FakeCapture(self, work)


class FakeCapture:
    def __init__(self, recorder, work):
        self._recorder, self._work = recorder, work

    def replay(self):
        self._recorder.num_replays += 1
        self._work()

    def reset(self):
        self._work = None


def new_step(config, device="cpu", context=None):
    device, context = torch.device(device), context or ParallelContext.alone()
    model = build_model(config, seed=1, device=device)
    plan, _ = build_plans(config, context, device)
    return build_train_step(config, model, plan=plan, context=context, seed=1)


def micro_batch(config, seed, *, num_passes=2, device="cpu"):
    features = synthetic_batch(
        config.data, batch_size=config.local_batch_size, num_passes=num_passes, seed=seed
    )
    slots = torch.arange(config.local_batch_size, device=device)
    return MicroBatch(
        features=FeatureBatch.from_features(features).to(device),
        slots=slots,
        sample_ids=(f"sample {seed}",),
    )


def new_graphs(config, recorder, device="cpu", context=None):
    step = new_step(config, device, context)
    start = [x.clone() for x in vars(step.weight_state()).values() if x is not None]
    graphs = StepGraphs(step, recorder, micro_batch=micro_batch(config, 99, device=device))
    for number in (1, 0):
        graphs.warm_up_run(number)
    for number in (1, 0):
        graphs.record(number)
    with torch.no_grad():
        for tensor, before in zip(
            [x for x in vars(step.weight_state()).values() if x is not None], start
        ):
            tensor.copy_(before)
    return graphs, step


def kernels_for(device):
    return KernelConfig.all("triton" if device == "cuda" else "reference")


def as_if_on_a_gpu(config: RunConfig) -> RunConfig:
    """Set cuda_graphs without its check, for a recorder that needs no GPU."""
    changed = dataclasses.replace(config)
    object.__setattr__(changed, "cuda_graphs", True)
    return changed


def record_gradients(step):
    """Return a set that receives the names of the parameters that get a gradient."""
    found = set()
    for leaf, start in step.buffer.leaves.items():
        names = {
            name
            for name, (offset, _) in step.buffer.layout().items()
            if start <= offset < start + leaf.numel()
        }
        leaf.register_post_accumulate_grad_hook(lambda _, names=names: found.update(names))
    return found
