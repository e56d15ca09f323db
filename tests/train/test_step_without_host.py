"""The step asks the host for nothing, so that it can be recorded: found without a GPU by running it on meta tensors.

On a device every one of these would wait or copy from memory that is not page-locked, which ends a capture with an error.
"""

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from openfold_opt.kernels.select import KernelConfig, build_kernel_set
from openfold_opt.losses.alphafold_loss import AlphaFoldLoss
from openfold_opt.model.alphafold import AlphaFold
from openfold_opt.model.plan import ExecutionPlan
from openfold_opt.parallel.axis import AxisGroup
from openfold_opt.train.evaluation import Evaluator
from openfold_opt.train.made_up_features import meta_batch
from openfold_opt.train.precision import low_precision_names
from openfold_opt.train.step import MicroBatch, StepConfig, StepNumbers, TrainStep
from tests.train.synthetic import tiny_config

WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique", "aten::lift_fresh"}
CROSSING = {"aten::_to_copy", "aten::copy_", "aten::where"}
"""With a tensor of the host among the arguments, even a scalar, these copy it to the device."""


MAKERS = {torch.tensor, torch.as_tensor, torch.Tensor.new_tensor}
"""These copy numbers of Python to the device."""


class MakerWatch(TorchFunctionMode):
    """Tensors made of Python's numbers, which no operator shows."""

    def __init__(self, found: set[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        data = [x for x in args if not isinstance(x, torch.Tensor)]
        if function in MAKERS and data:
            self._found.add(function.__name__)
        return function(*args, **(kwargs or {}))


class HostWatch(TorchDispatchMode):
    """Names of operators that need the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self._makers = MakerWatch(self.found)

    def __enter__(self):
        self._makers.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self._makers.__exit__(*exception)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.overloadpacket._qualified_op_name
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        of_host = [x for x in tensors if x.device.type == "cpu"]
        crosses = len(of_host) < len(tensors) and any(x.dim() > 0 or name in CROSSING for x in of_host)
        if name in WAITING or crosses:
            self.found.add(name)
        return result


def meta_train_step(kernels, precision):
    config = tiny_config()
    with torch.device("meta"):
        model = AlphaFold(config.model, seed=None)
        kernel_set = build_kernel_set(KernelConfig.all(kernels), "meta")
        step = TrainStep(
            model,
            loss=AlphaFoldLoss(config.loss),
            plan=ExecutionPlan(kernels=kernel_set, dap=AxisGroup.single("dap")),
            config=StepConfig(),
            dropout_seed=1,
            low_precision=low_precision_names(model, precision),
        )
        integer, real = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.float64)
        numbers = StepNumbers(step=integer, learning_rate=real, dropout_seed=integer)
        batch = MicroBatch(features=meta_batch(config.data, batch_size=1, num_passes=1), slots=torch.zeros(1, dtype=torch.int64), sample_ids=("none",))
    return step, batch, numbers


@pytest.mark.parametrize("kernels", ["reference", "triton"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_nothing_comes_from_or_goes_to_the_host(kernels, precision):
    step, batch, numbers = meta_train_step(kernels, precision)
    # tables of the geometry travel to the device once, before anything is recorded
    step.compute([batch], numbers, num_recycling_passes=0)
    with HostWatch() as watch:
        step.compute([batch], numbers, num_recycling_passes=0)
    assert not watch.found


@pytest.mark.parametrize("kernels", ["reference", "triton"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_evaluation_needs_no_host_either(kernels, precision):
    step, batch, _ = meta_train_step(kernels, precision)
    plan = ExecutionPlan(kernels=build_kernel_set(KernelConfig.all(kernels), "meta"), dap=AxisGroup.single("dap"))
    with torch.device("meta"):
        evaluator = Evaluator(step.model, step.weight_average.parameters(), plan=plan)
        evaluator.compute(batch.features)
        with HostWatch() as watch:
            evaluator.compute(batch.features)
    assert not watch.found


def test_the_watch_sees_what_it_is_for():
    step, batch, numbers = meta_train_step("reference", "fp32")
    step.compute([batch], numbers, num_recycling_passes=0)
    with HostWatch() as watch:
        torch.where(numbers.step > 0, torch.ones(()), 0.0)
        torch.as_tensor(3, device="meta")
        torch.zeros(2).to("meta")
    assert watch.found == {"aten::where", "as_tensor", "aten::_to_copy"}
