"""Count and time what the host does in a training step of the MLCommons reference.

    PYTHONPATH=CHECKOUT python reference_host.py REPEATS FEATURES PER_PASS

The interpreter of `perf host --reference-python` runs this script with the checkout of
mlcommons/hpc (folder openfold) that --reference names. It imports nothing from this project and
copies nothing from the reference. The model has its full depth, but eight channels, so that a CPU
spends little time on the work of an operation. FEATURES is an .npz file of a small batch with two
passes, PER_PASS the names of features with a dim of passes, separated by commas. Prints one line of
JSON: {"launches": {part: number}, "views": {part: number}, "seconds": {part: [...]}, "parameters"}.
"""

import collections
import contextlib
import dataclasses
import json
import sys
import time
import warnings

NUM_CHANNELS = 8


def main():
    """Count the operations of each part of a step, then time the parts."""
    # This file runs as a script, so its folder is on the import path.
    from reference_samples import make_dataclasses_hashable
    from reference_step import accept_newshape

    make_dataclasses_hashable()
    accept_newshape()
    warnings.simplefilter("ignore")
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
    step = Step(features=sys.argv[2], per_pass=sys.argv[3].split(","))
    # The first step creates the moments of Adam.
    step.run(1, contextlib.nullcontext)
    one, two = count_calls(step, 1), count_calls(step, 2)
    with without_recomputation():
        kept = count_calls(step, 1)
    for numbers, with_two, without in zip(one, two, kept):
        numbers["recycling iteration"] = with_two["forward pass"] - numbers["forward pass"]
        numbers["backward pass without recomputation"] = without["backward pass"]
    launches, views = one
    seconds = collections.defaultdict(list)
    for _ in range(int(sys.argv[1])):
        first, second = time_parts(step, 1), time_parts(step, 2)
        first["recycling iteration"] = second["forward pass"] - first["forward pass"]
        for name, value in first.items():
            seconds[name].append(value)
    found = {
        "parameters": step.num_tensors,
        "launches": launches,
        "views": views,
        "seconds": seconds,
    }
    print(json.dumps(found))


class Step:
    """A training step of the reference on a narrow model."""

    def __init__(self, *, features, per_pass):
        """Build the model, and what updates it."""
        import torch
        from openfold.config import AlphaFoldConfig
        from openfold.loss import AlphaFoldLoss
        from openfold.model.alphafold import AlphaFold
        from openfold.swa import AlphaFoldSWA
        from reference_step import read_batch

        config = AlphaFoldConfig.from_preset(stage="initial_training")
        make_narrow(config)
        self._batch = read_batch(features, per_pass=per_pass, num_passes=2)
        self._model = AlphaFold(config=config)
        self._model.eval()
        with torch.no_grad():
            # The model creates buffers in forward; newer PyTorch needs them for the average.
            self._model(self._passes(1))
        self._model.train()
        self._loss = AlphaFoldLoss(config=config.loss_config)
        parameters = list(self._model.parameters())
        self.num_tensors = len(parameters)
        self._adam = torch.optim.Adam(parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-6)
        self._average = AlphaFoldSWA(alphafold=self._model, enabled=True, decay_rate=0.9)

    def run(self, passes, section):
        """Run a step; section(name) is entered around each of its parts."""
        import torch

        batch = self._passes(passes)
        last = {name: value[..., -1] for name, value in batch.items()}
        with section("forward pass"):
            outputs = self._model(batch)
        with section("losses"):
            loss, _ = self._loss(outputs=outputs, batch=last)
        self._adam.zero_grad()
        with section("backward pass"):
            loss.backward()
        with section("clipping"):
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), max_norm=0.1)
        with section("Adam"):
            self._adam.step()
        with section("average"):
            self._average.update(self._model)

    def _passes(self, number):
        return {name: value[..., :number].contiguous() for name, value in self._batch.items()}


def make_narrow(config):
    """Set all numbers of channels, and leave those that features and losses determine."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            make_narrow(value)
        elif field.name.startswith("c_") and field.name != "c_out":
            object.__setattr__(config, field.name, NUM_CHANNELS)


def time_parts(step, passes):
    """Return the seconds of each part of a step."""
    seconds = {}

    @contextlib.contextmanager
    def section(name):
        started = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - started

    step.run(passes, section)
    return seconds


def count_calls(step, passes):
    """Return the operations of each part that launch a kernel on a GPU, and those that do not."""
    from torch.utils._python_dispatch import TorchDispatchMode

    launches, views = {}, {}

    @contextlib.contextmanager
    def section(name):
        launches[name] = views[name] = 0

        class Counter(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                found = views if returns_a_view(function) else launches
                found[name] += 1
                return function(*args, **(kwargs or {}))

        with Counter():
            yield

    step.run(passes, section)
    return launches, views


NO_LAUNCH = ("aten::detach", "aten::lift_fresh", "aten::_unsafe_view", "aten::empty_like")
"""Operations without work whose schemas do not say so."""


def returns_a_view(function):
    """Return whether an operation only makes another view of a tensor."""
    aliases = [each.alias_info for each in function._schema.returns]
    return function._schema.name in NO_LAUNCH or any(
        alias is not None and not alias.is_write for alias in aliases
    )


@contextlib.contextmanager
def without_recomputation():
    """Keep all activations: checkpoint calls the block."""
    from openfold.model import evoformer_stack, extra_msa_stack, template_pair_stack

    modules = (evoformer_stack, extra_msa_stack, template_pair_stack)
    name = "gradient_checkpointing_fn"
    originals = [getattr(module, name) for module in modules]
    for module in modules:
        setattr(module, name, lambda block, *inputs: block(*inputs))
    try:
        yield
    finally:
        for module, original in zip(modules, originals):
            setattr(module, name, original)


if __name__ == "__main__":
    main()
